//! Shards as WebDataset has them: tar archives in which the members of an example stand together, `KEY.jpg` and `KEY.cls` (or
//! `KEY.json` with a `label`).

use super::gather::{Gathered, Label, fault};
use super::file::Member;
use super::parts::Part;
use super::scan::by_name;
use super::{FolderParts, PictureFile, Reason};
use crate::{DatasetError, Preprocess};
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

/// The pictures of shards, each with its part. Only headers and labels are read.
pub(crate) fn read_shards(
    root: &Path,
    name: String,
    shards: &[(Part, PathBuf)],
    preprocess: &Preprocess,
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
    gathered.finish(preprocess)
}

fn read(shard: &Path, part: Part, into: &mut Gathered) -> Result<(), DatasetError> {
    note_file(shard);
    match index(shard, part, into) {
        Err(error @ DatasetError::Inconsistent { .. }) => into.refuse(part, Reason::Bad, shard, error),
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
        let (offset, size) = (entry.raw_file_position(), entry.size());
        end = offset.saturating_add(size).div_ceil(BLOCK).saturating_mul(BLOCK);
        if end > length {
            return Err(refuse(CUT));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory || kind == EntryType::XGlobalHeader {
            continue;
        }
        let base = name.rsplit('/').next().unwrap_or_default();
        if base.starts_with('.') && base != ".." {
            continue;
        }
        let (stem, end_of_name) = base.split_once('.').unwrap_or((base, ""));
        let key = &name[..name.len() - base.len() + stem.len()];
        if key != sample.key {
            take(std::mem::replace(&mut sample, Sample { key: key.to_owned(), ..Sample::default() }), &archive, part, into)?;
        }
        let end_of_name = end_of_name.to_lowercase();
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            sample.fault = Some("it is a link or a device, and only files are read".to_owned());
        } else if within(&name).is_none() {
            sample.fault = Some("its name leads out of the shard".to_owned());
        } else if by_name(format!("x.{end_of_name}")).is_none() {
            if sample.picture.replace((name, offset, size)).is_some() {
                sample.fault = Some("it has two pictures: give each a key of its own".to_owned());
            }
        } else if end_of_name == "cls" || end_of_name == "json" {
            if size > LONGEST {
                sample.fault = Some(format!("its .{end_of_name} has {size} bytes, more than {LONGEST}"));
                continue;
            }
            let mut text = String::new();
            let read = entry.read_to_string(&mut text).map_err(|error| error.to_string());
            let told = read.and_then(|_| if end_of_name == "cls" { Ok(cls(&text, &mut sample)) } else { json(&text, &mut sample) });
            if let Err(reason) = told {
                sample.fault = Some(format!("its .{end_of_name} cannot be read: {reason}"));
            }
        } else {
            into.leave_out(part, Reason::Other, &archive.join(name));
        }
    }
    take(sample, &archive, part, into)?;
    // An archive ends with blocks of zeros. One that was cut between two members has none.
    let mut file = tar.into_inner();
    let mut block = Vec::new();
    file.seek(SeekFrom::Start(end)).map_err(damaged)?;
    file.take(BLOCK).read_to_end(&mut block).map_err(damaged)?;
    if block.len() as u64 == BLOCK && block.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(refuse(CUT)) }
}

const CUT: &str = "it is cut off: a part of it is missing";

/// The first bytes; the file is at its beginning again.
fn start(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start)
}

fn cls(text: &str, sample: &mut Sample) {
    label(vec![of_text(text.trim())], sample);
}

fn json(text: &str, sample: &mut Sample) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    sample.former = value.get(NAME).and_then(Value::as_str).map(Into::into);
    let Some(told) = LABELS.iter().find_map(|key| value.get(key)) else { return Ok(()) };
    let one = |value: &Value| match value {
        Value::Number(number) => number.as_u64().map(Label::Number),
        Value::String(text) => Some(Label::Text(text.trim().to_owned())),
        _ => None,
    };
    let labels = match told {
        Value::Array(several) => several.iter().map(one).collect::<Option<Vec<_>>>(),
        value => one(value).map(|label| vec![label]),
    };
    label(labels.ok_or_else(|| format!("its label {told} is neither a number nor a name"))?, sample);
    Ok(())
}

/// A number or a name.
fn of_text(text: &str) -> Label {
    text.parse().map_or_else(|_| Label::Text(text.to_owned()), Label::Number)
}

fn label(labels: Vec<Label>, sample: &mut Sample) {
    match sample.labels.replace(labels) {
        Some(before) if Some(&before) != sample.labels.as_ref() => {
            sample.fault = Some("it has two labels: keep one of them".to_owned());
        }
        _ => {}
    }
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
