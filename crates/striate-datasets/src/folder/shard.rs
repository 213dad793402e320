//! Shards as WebDataset has them: tar archives in which the members of an example stand together, `KEY.jpg` and `KEY.cls` (or
//! `KEY.json` with a `label`).

use super::file::Member;
use super::gather::{Gathered, LONGEST as LONGEST_NAME, Label, fault};
use super::parts::Part;
use super::scan::by_name;
use super::{FolderParts, PictureFile, Reason};
use crate::DatasetError;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use striate_torch::{contained, note_file};
use tar::{Archive, EntryType};

/// What a header, and the rest of a member, are rounded up to.
const BLOCK: u64 = 512;
/// The most bytes of a member that tells a class.
const LONGEST: u64 = 64 * 1024;
/// What is told of a shard that was cut.
const CUT: &str = "it is cut off: a part of it is missing";
/// The keys of a JSON member that tell classes.
const LABELS: [&str; 4] = ["label", "labels", "class", "cls"];

/// The key of a JSON member for the name that a picture had before it was packed.
pub(crate) const NAME: &str = "name";

/// What an archive has of one example.
#[derive(Default)]
struct Sample {
    key: String,
    /// The member's name, where its bytes begin, and how many there are.
    picture: Option<(String, u64, u64)>,
    labels: Option<Vec<Label>>,
    /// The name that the picture had before.
    former: Option<Box<str>>,
    /// Why it cannot be taken.
    fault: Option<String>,
}

impl Sample {
    /// Reads a member that tells classes: `.cls` or `.json`.
    fn read_label(&mut self, end: &str, size: u64, member: &mut impl Read) {
        let mut text = String::new();
        let read = match size {
            0..=LONGEST => member.read_to_string(&mut text).map_err(|error| error.to_string()),
            _ => Err(format!("it has {size} bytes, more than {LONGEST}")),
        };
        match read.and_then(|_| if end == "cls" { cls(&text) } else { json(&text, &mut self.former) }) {
            Err(reason) => self.fault = Some(format!("its .{end} cannot be read: {reason}")),
            Ok(None) => {}
            Ok(Some(labels)) if self.labels.as_ref().is_some_and(|before| *before != labels) => {
                self.fault = Some("it has two labels: keep one of them".to_owned());
            }
            Ok(labels) => self.labels = labels,
        }
    }
}

/// The pictures of shards, each with its part. Only headers and labels are read.
pub(crate) fn read_shards(
    root: &Path,
    name: String,
    shards: &[(Part, PathBuf)],
    skip_bad: bool,
) -> Result<FolderParts, DatasetError> {
    let mut folders: Vec<&Path> = vec![root];
    folders.extend(shards.iter().filter_map(|(_, shard)| shard.parent()));
    folders.dedup();
    let mut gathered = Gathered::new(root, name, &folders, skip_bad)?;
    for (part, shard) in shards {
        let told = |panic| fault(shard.display(), format!("it cannot be read: {panic}"));
        contained(|| read(shard, *part, &mut gathered), told)?;
    }
    gathered.finish()
}

fn read(shard: &Path, part: Part, into: &mut Gathered) -> Result<(), DatasetError> {
    note_file(shard);
    match index(shard, part, into) {
        Err(error @ DatasetError::Inconsistent { .. }) => into.refuse(part, Reason::Unfit, shard, error),
        result => result,
    }
}

fn index(shard: &Path, part: Part, into: &mut Gathered) -> Result<(), DatasetError> {
    let archive: Arc<Path> = shard.into();
    let mut file = striate_files::open(shard)?;
    let length = file.metadata().map_err(|error| DatasetError::io("read", shard, error))?.len();
    let refuse = |reason: &str| fault(shard.display(), reason.to_owned());
    let damaged = |error: std::io::Error| {
        let error = error.to_string();
        fault(shard.display(), format!("it is damaged or no tar archive ({})", error.lines().next().unwrap_or_default()))
    };
    match start(&mut file).map_err(damaged)?[..] {
        [] => return Err(refuse("it is empty")),
        [0x1f, 0x8b, ..] => return Err(refuse("it is compressed with gzip: unpack it with gunzip")),
        _ => {}
    }
    let mut tar = Archive::new(file);
    let (mut end, mut sample) = (0, Sample::default());
    for entry in tar.entries_with_seek().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        if kind == EntryType::GNUSparse {
            return Err(refuse("it holds a sparse file: pack it without `--sparse`"));
        }
        let (offset, size) = (entry.raw_file_position(), entry.size());
        end = offset.saturating_add(size).div_ceil(BLOCK).saturating_mul(BLOCK);
        if end > length {
            return Err(refuse(CUT));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if name.len() > LONGEST_NAME {
            return Err(refuse(&format!("the name of a member has {} bytes, more than {LONGEST_NAME}", name.len())));
        }
        let base = name.rsplit('/').next().unwrap_or_default();
        let is_hidden = base.starts_with('.') && base != "..";
        if is_hidden || kind == EntryType::Directory || kind == EntryType::XGlobalHeader {
            continue;
        }
        let (stem, end_of_name) = base.split_once('.').unwrap_or((base, ""));
        let (key, end_of_name) = (&name[..name.len() - base.len() + stem.len()], end_of_name.to_lowercase());
        if key != sample.key {
            take(std::mem::replace(&mut sample, Sample { key: key.to_owned(), ..Sample::default() }), &archive, part, into)?;
        }
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            sample.fault = Some("it is a link or a device, and only files are read".to_owned());
        } else if within(&name).is_none() {
            sample.fault = Some("its name leads out of the shard".to_owned());
        } else if by_name(format!("x.{end_of_name}")).is_none() {
            if sample.picture.replace((name, offset, size)).is_some() {
                sample.fault = Some("it has two pictures: give each a key of its own".to_owned());
            }
        } else if end_of_name == "cls" || end_of_name == "json" {
            sample.read_label(&end_of_name, size, &mut entry);
        } else {
            into.leave_out(part, Reason::Other, &archive.join(name));
        }
    }
    // An archive ends with blocks of zeros. One that was cut between two members has none.
    let mut file = tar.into_inner();
    let mut block = Vec::new();
    file.seek(SeekFrom::Start(end)).map_err(damaged)?;
    file.take(BLOCK).read_to_end(&mut block).map_err(damaged)?;
    if block.len() as u64 != BLOCK || block.iter().any(|byte| *byte != 0) {
        return Err(refuse(CUT));
    }
    take(sample, &archive, part, into)
}

/// The first bytes; the file is at its beginning again.
fn start(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start)
}

/// The label of a text: a number or a name.
fn cls(text: &str) -> Result<Option<Vec<Label>>, String> {
    let text = text.trim();
    Ok(Some(vec![text.parse().map_or_else(|_| Label::Text(text.to_owned()), Label::Number)]))
}

/// The labels of a JSON, if it has any, and the name that the picture had.
fn json(text: &str, former: &mut Option<Box<str>>) -> Result<Option<Vec<Label>>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    *former = value.get(NAME).and_then(Value::as_str).map(Into::into);
    let Some(told) = LABELS.iter().find_map(|key| value.get(key)) else { return Ok(None) };
    let one = |value: &Value| match value {
        Value::Number(number) => number.as_u64().map(Label::Number),
        Value::String(text) => Some(Label::Text(text.trim().to_owned())),
        _ => None,
    };
    let labels = match told {
        Value::Array(several) => several.iter().map(one).collect::<Option<Vec<_>>>(),
        value => one(value).map(|label| vec![label]),
    };
    labels.map(Some).ok_or_else(|| "its label is neither a number nor a name".to_owned())
}

/// Takes an example whose members have all been seen.
fn take(sample: Sample, archive: &Arc<Path>, part: Part, into: &mut Gathered) -> Result<(), DatasetError> {
    let Sample { key, picture, labels, former, fault: told } = sample;
    let place = archive.join(&key);
    let refuse = |reason: Reason, told: String| (reason, fault(place.display(), told));
    let labels = match (&picture, labels, told) {
        (None, None, None) => return Ok(()),
        (_, _, Some(told)) => Err(refuse(Reason::Unfit, told)),
        (None, Some(_), None) => Err(refuse(Reason::Unfit, "it has a label and no picture".to_owned())),
        (Some(_), None, None) => {
            Err(refuse(Reason::NoLabel, "it has no label: add a member .cls, or .json with `label`".to_owned()))
        }
        (Some(_), Some(labels), None) => {
            let labels: Result<Vec<i64>, String> = labels.iter().map(|label| into.resolve(label)).collect();
            labels.map_err(|told| refuse(Reason::NoLabel, told))
        }
    };
    match (labels, picture) {
        (Ok(labels), Some((name, offset, length))) => {
            let member = Member { archive: Arc::clone(archive), offset, length, name: former };
            into.add(part, labels, |labels| PictureFile::of_archive(&name, member, labels));
            Ok(())
        }
        (Err((reason, error)), _) => into.refuse(part, reason, &place, error),
        (Ok(_), None) => Ok(()),
    }
}

/// A name as a path that stays below the folder that it is put into.
pub(crate) fn within(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let parts: Option<PathBuf> = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| if let Component::Normal(part) = part { Some(part) } else { None })
        .collect();
    parts.filter(|path| !path.as_os_str().is_empty() && !name.contains('\0'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::folder::tests::{preprocess, write};
    use crate::{Check, Dataset, ImageFolder, Loader, LoaderOptions, Sampler, Task};
    use tar::{Builder, Header};
    use tch::Tensor;
    use tempfile::TempDir;

    /// An archive of these members.
    pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            // As a hostile program writes it: the library refuses such names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    /// The bytes of a small PNG of this colour.
    pub(crate) fn png(colour: u8) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        write(&path, [8, 8], colour);
        std::fs::read(path).unwrap()
    }

    fn folder(shards: &[(&str, Vec<u8>)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in shards {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn open(folder: &TempDir, name: &str, skip_bad: bool) -> Result<FolderParts, DatasetError> {
        FolderParts::open_with(folder.path().join(name), skip_bad, &mut |_, _, _| true)?.fit(&preprocess(8))
    }

    /// Each picture's name in the folder, and the number of its class.
    fn pictures(folder: &TempDir, part: &ImageFolder) -> Vec<(String, i64)> {
        let name = |path: &Path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
        part.files().iter().map(|file| (name(file.path()), file.label())).collect()
    }

    /// What is told of a shard, without the folder.
    fn told(bytes: Vec<u8>) -> String {
        let folder = folder(&[("x.tar", bytes)]);
        let error = open(&folder, "x.tar", false).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn members_are_pictures_to_the_bit() {
        let png = [1, 2, 3].map(png);
        let bytes = archive(&[
            ("a/001.png", &png[0]),
            ("a/001.cls", b"1\n"),
            ("a/001.txt", b"a caption"),
            ("._002.png", b"what macOS leaves behind"),
            ("002.cls", b" dog "),
            ("002.PNG", &png[1]),
            ("003.json", br#"{"label": 0, "height": 8}"#),
            ("003.png", &png[2]),
        ]);
        let folder = folder(&[("x.tar", bytes), ("classes.txt", b"cat\ndog\n".to_vec())]);
        let train = open(&folder, "x.tar", false).unwrap().train;
        let expected = [("x.tar/a/001.png", 1), ("x.tar/002.PNG", 1), ("x.tar/003.png", 0)];
        assert_eq!(pictures(&folder, &train), expected.map(|(name, label)| (name.to_owned(), label)));
        assert_eq!(
            (train.classes(), train.name(), train.task()),
            (&["cat", "dog"].map(str::to_owned)[..], "x.tar", Task::SingleLabel)
        );
        assert_eq!(train.left_out().to_string().split(" (").next().unwrap(), "left out 1 file: 1 that is no picture by name");
        assert!(train.check(Check::Headers, &mut |_, _| true).unwrap().is_empty());
        for (file, png) in train.files().iter().zip(&png) {
            assert_eq!(&file.read().unwrap(), png);
        }
        // The red of a picture is its number, right of a white column.
        let batch = train.batch(&Tensor::from_slice(&[2_i64, 0])).unwrap();
        assert_eq!([0, 1].map(|index| batch.images.int64_value(&[index, 0, 4, 4])), [3, 1]);
        let examples = train.examples().unwrap();
        assert_eq!((examples.picture(1).unwrap().data[3], examples.shards().len()), (2, 1));
        // What changes later is an error of the picture.
        std::fs::write(folder.path().join("x.tar"), &std::fs::read(folder.path().join("x.tar")).unwrap()[..600]).unwrap();
        let error = examples.picture(2).unwrap_err().to_string();
        assert!(error.contains("x.tar/003.png cannot be read as an image: it is cut off"), "{error}");
    }

    #[test]
    fn shards_have_parts_by_their_names_or_folders_and_go_by_patterns() {
        let shard = |class: &str| archive(&[("1.png", &png(1)), ("1.cls", class.as_bytes())]);
        let flat = folder(&[("train-000.tar", shard("a")), ("train-001.tar", shard("b")), ("val-000.tar", shard("a"))]);
        let deep = folder(&[("train/0.tar", shard("a")), ("train/1.tar", shard("b")), ("validation/0.tar", shard("a"))]);
        for folder in [&flat, &deep] {
            let parts = open(folder, "", false).unwrap();
            assert_eq!((parts.train.len(), parts.val.unwrap().len(), parts.test.is_none()), (2, 1, true));
        }
        for (pattern, count) in [("train-{000..001}.tar", 2), ("train-*.tar", 2), ("{train,val}-000.tar", 1), ("val-00?.tar", 1)]
        {
            assert_eq!(open(&flat, pattern, false).unwrap().train.len(), count, "{pattern}");
        }
        let examples = open(&flat, "train-*.tar", false).unwrap().train.examples().unwrap();
        assert_eq!(examples.shards(), [0..1, 1..2]);
        let told = |pattern: &str| open(&flat, pattern, false).unwrap_err().to_string();
        assert!(told("train-{000..002}.tar").contains("train-002.tar: No such file"));
        assert!(told("test-*.tar").ends_with("test-*.tar: no file has a name of this pattern"));
        assert!(told("train-{2..1}.tar").contains("the first number in braces is the smaller one"));
        assert!(told("train-{0..99999999}.tar").contains("at most a million more"));
        assert!(told("train-{a..b}.tar").contains("braces hold two numbers, as in {000..009}"));
        assert!(told("train-{0.tar").contains("a brace is not closed"));
        assert!(told(&format!("train-{{{}..1}}.tar", "0".repeat(70_000))).contains("a number in braces has too many digits"));
        std::fs::write(flat.path().join("more.tar"), shard("a")).unwrap();
        let error = open(&flat, "", false).unwrap_err().to_string();
        assert!(error.contains("the name of more.tar tells no part, and those of others do"), "{error}");
    }

    #[test]
    fn every_fault_is_one_line_or_counted() {
        let png = png(1);
        let sound = || vec![("1.png", &png[..]), ("1.cls", &b"a"[..])];
        let with = |members: &[(&'static str, &'static [u8])]| archive(&[sound(), members.to_vec()].concat());
        let whole = archive(&sound());
        assert_eq!(told(Vec::new()), "x.tar: it is empty");
        assert_eq!(told(vec![0; 1024]), "x.tar: it names no picture that can be taken: add some");
        for length in [100, 512, 700, 1024, whole.len() - 1024] {
            let error = told(whole[..length].to_vec());
            assert!(error.starts_with("x.tar: it is cut off") || error.starts_with("x.tar: it is damaged"), "{length}: {error}");
        }
        assert_eq!(told(whole[..whole.len() - 1024].to_vec()), "x.tar: it is cut off: a part of it is missing");
        assert_eq!(told(vec![0x1f, 0x8b, 8, 0]), "x.tar: it is compressed with gzip: unpack it with gunzip");
        assert!(told(vec![b'x'; 1024]).starts_with("x.tar: it is damaged or no tar archive ("));
        assert_eq!(told(with(&[("2.png", b"x")])), "x.tar/2: it has no label: add a member .cls, or .json with `label`");
        assert_eq!(told(with(&[("2.png", b"x"), ("2.cls", b"")])), "x.tar/2: it has no class");
        assert_eq!(told(with(&[("2.cls", b"a")])), "x.tar/2: it has a label and no picture");
        let two = [("2.png", &b"x"[..]), ("2.cls", b"a"), ("2.json", br#"{"label": "b"}"#)];
        assert_eq!(told(with(&two)), "x.tar/2: it has two labels: keep one of them");
        assert_eq!(
            told(with(&[("2.png", b"x"), ("2.jpg", b"x"), ("2.cls", b"a")])),
            "x.tar/2: it has two pictures: give each a key of its own"
        );
        assert_eq!(
            told(with(&[("2.png", b"x"), ("2.json", b"{\"label\": {}}")])),
            "x.tar/2: its .json cannot be read: its label is neither a number nor a name"
        );
        let long = "a".repeat(5000);
        assert_eq!(
            told(with(&[("2.png", b"x"), ("2.cls", long.clone().leak().as_bytes())])),
            "x.tar/2: its class has 5000 bytes, more than 4096"
        );
        let mut tar = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(0);
        tar.append_data(&mut header, &long, &b""[..]).unwrap();
        assert_eq!(told(tar.into_inner().unwrap()), "x.tar: the name of a member has 5000 bytes, more than 4096");
        let mut sparse = archive(&[("1.png", &png)]);
        let mut header = Header::from_byte_slice(&sparse[..512]).clone();
        header.set_entry_type(EntryType::GNUSparse);
        let octal = format!("{:011o}\0", png.len()).into_bytes().try_into().unwrap();
        let gnu = header.as_gnu_mut().unwrap();
        (gnu.sparse[0].offset, gnu.sparse[0].numbytes, gnu.realsize) = (*b"00000000000\0", octal, octal);
        header.set_cksum();
        sparse[..512].copy_from_slice(header.as_bytes());
        assert_eq!(told(sparse), "x.tar: it holds a sparse file: pack it without `--sparse`");
        for name in ["../2.png", "a/../../2.png", "/2.png"] {
            let error = told(archive(&[(name, b"x"), (&name.replace("png", "cls"), b"a")]));
            assert!(error.ends_with("2: its name leads out of the shard"), "{error}");
        }
        let bad =
            with(&[("../2.png", b"x"), ("../2.cls", b"a"), ("3.png", b"x"), ("4.cls", b"b"), ("5.cls", b"b"), ("5.png", b"x")]);
        let shards = folder(&[("0.tar", bad), ("1.tar", whole[..1000].to_vec()), ("2.tar", archive(&sound()))]);
        let train = open(&shards, "", true).unwrap().train;
        assert_eq!(pictures(&shards, &train).len(), 3);
        let reasons: Vec<_> = train.left_out().reasons().map(|(reason, count, _)| (reason.clone(), count)).collect();
        assert_eq!(reasons, [(Reason::NoLabel, 1), (Reason::Unfit, 3)]);
    }

    #[test]
    fn a_buffered_epoch_has_each_picture_once_and_goes_on_anywhere() {
        let shard = |first: u8| {
            let members: Vec<_> =
                (first..first + 4).flat_map(|n| [(format!("{n}.png"), png(n)), (format!("{n}.cls"), b"0".to_vec())]).collect();
            archive(&members.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect::<Vec<_>>())
        };
        let shards = folder(&[("0.tar", shard(0)), ("1.tar", shard(4)), ("2.tar", shard(8))]);
        let train = open(&shards, "", false).unwrap().train;
        let options = LoaderOptions { sampler: Sampler::Buffered(3), ..LoaderOptions::train(5, 7) };
        let loader = Loader::new(&train, preprocess(8), options).unwrap();
        let reds = |epoch: crate::Epoch| -> Vec<i64> {
            let red =
                |batch: crate::Batch| Vec::<f32>::try_from(batch.images.select(1, 0).select(1, 4).select(1, 4) * 255.0).unwrap();
            epoch.flat_map(|batch| red(batch.unwrap())).map(|red| red.round() as i64).collect()
        };
        let all = reds(loader.epoch(1).unwrap());
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..12).collect::<Vec<_>>());
        assert_ne!(all, sorted);
        assert_eq!(reds(loader.epoch_from(1, 1).unwrap()), all[5..]);
        assert_ne!(reds(loader.epoch(2).unwrap()), all);
    }
}
