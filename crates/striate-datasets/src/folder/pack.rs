//! From files to shards and back.

use super::gather::{CLASSES, fault};
use super::scan::by_name;
use super::shard::{NAME, within};
use super::{FolderParts, ImageFolder, PictureFile};
use crate::classes::file_name;
use crate::{Dataset, DatasetError, Task, decode};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use striate_torch::derive_seed;
use tar::{Builder, Header};

/// Sets the order within shards apart from others that are drawn.
const PACK_SEEDS: u64 = 0x5041_434b;
/// Digits of a key, and of a shard's number.
const KEY_DIGITS: usize = 9;
const SHARD_DIGITS: usize = 6;

/// When a shard is full: as soon as one of both is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardSize {
    /// Pictures.
    pub pictures: u64,
    /// Bytes of pictures.
    pub bytes: u64,
}

impl Default for ShardSize {
    /// 10,000 pictures or a gigabyte.
    fn default() -> Self {
        Self { pictures: 10_000, bytes: 1_000_000_000 }
    }
}

/// What [`pack`] or [`unpack`] wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Pictures.
    pub pictures: u64,
    /// Shards, or folders of classes.
    pub files: u64,
    /// Bytes of pictures.
    pub bytes: u64,
}

/// Writes pictures into shards in the new folder `out`, whole or not at all: `train-000000.tar` and so on for each part, or
/// `pictures-000000.tar`, and `classes.txt` with the names of the classes, one a line.
///
/// The members of a picture are its bytes as they are (`KEY.jpg`), the number of its class (`KEY.cls`) and the name that it had
/// (`KEY.json`); one with several classes has their numbers as the `label` of its JSON. Pictures are in a mixed order, which is always
/// the same: what reads a shard in order sees all classes.
///
/// `progress` gets the number of pictures done and the total. Return `false` from it to stop.
///
/// # Errors
///
/// A picture that cannot be read, a class whose name has a line break, a folder that cannot be written or holds something, or
/// [`DatasetError::Interrupted`].
pub fn pack(
    parts: &FolderParts,
    out: &Path,
    size: ShardSize,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Packed, DatasetError> {
    if size.pictures == 0 || size.bytes == 0 {
        return Err(DatasetError::option("shard size", "a shard holds at least one picture"));
    }
    let classes = parts.train.classes();
    if let Some(class) = classes.iter().find(|class| class.trim() != class.as_str() || class.contains('\n') || class.is_empty()) {
        let reason = format!("the name of class {class:?} cannot stand in a line of {CLASSES}: rename it");
        return Err(fault(parts.train.name(), reason));
    }
    let total = total(parts);
    let mut packed = Packed::default();
    striate_files::build_folder(out, |folder| -> Result<(), DatasetError> {
        let names: String = classes.iter().map(|class| format!("{class}\n")).collect();
        striate_files::write_new(&folder.join(CLASSES), |file| file.write_all(names.as_bytes()))?;
        for (prefix, part) in named(parts, "pictures") {
            let mut order: Vec<usize> = (0..part.len()).collect();
            order.sort_by_key(|index| derive_seed(PACK_SEEDS, &[*index as u64]));
            let (mut order, mut key, mut number) = (order.into_iter().peekable(), 0, 0);
            while order.peek().is_some() {
                let shard = folder.join(format!("{prefix}-{number:0SHARD_DIGITS$}.tar"));
                number += 1;
                packed.files += 1;
                // What the closure for the file cannot return.
                let mut failed = None;
                let mut write = |file: &mut dyn Write| -> Result<(), DatasetError> {
                    let mut tar = Builder::new(file);
                    let (pictures, bytes) = (packed.pictures, packed.bytes);
                    while packed.pictures - pictures < size.pictures && packed.bytes - bytes < size.bytes {
                        let Some(index) = order.next() else { break };
                        if !progress(packed.pictures, total) {
                            return Err(DatasetError::Interrupted);
                        }
                        packed.bytes += put(&mut tar, part, &part.files()[index], key, &shard)?;
                        packed.pictures += 1;
                        key += 1;
                    }
                    tar.finish().map_err(|error| DatasetError::io("write", &shard, error))
                };
                striate_files::write_new(&shard, |file| {
                    write(file).map_err(|error| {
                        let told = std::io::Error::other(error.to_string());
                        failed = Some(error);
                        told
                    })
                })
                .map_err(|error| failed.take().unwrap_or_else(|| error.into()))?;
            }
        }
        Ok(())
    })?;
    progress(total, total);
    Ok(packed)
}

/// Writes the members of a picture; returns the length of its own.
fn put(
    tar: &mut Builder<&mut dyn Write>,
    part: &ImageFolder,
    picture: &PictureFile,
    key: u64,
    shard: &Path,
) -> Result<u64, DatasetError> {
    let bytes = picture.read()?;
    let mut member = |end: &str, bytes: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{key:0KEY_DIGITS$}.{end}"), bytes)
            .map_err(|error| DatasetError::io("write", shard, error))
    };
    let end = picture.path().extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default();
    let end = match by_name(format!("x.{end}")) {
        None => end,
        Some(_) => {
            let format = decode::format(&bytes).map_err(|reason| DatasetError::Image { path: picture.path().into(), reason })?;
            format.extensions_str().first().copied().unwrap_or_default().to_owned()
        }
    };
    member(&end, &bytes)?;
    // Two names that are no UTF-8 could not be told apart later.
    let below = picture.path().strip_prefix(&part.root).ok().filter(|_| picture.archive().is_none());
    let name = former_name(part, picture);
    let (true, Some(name)) = (below.is_none_or(|below| below.to_str().is_some()), name.to_str()) else {
        let reason = "its name or that of its folder is no UTF-8: rename it to pack it".to_owned();
        return Err(fault(picture.path().display(), reason));
    };
    let mut told = json!({ NAME: name });
    match part.task() {
        Task::SingleLabel => member("cls", picture.label().to_string().as_bytes())?,
        Task::MultiLabel => told["label"] = json!(picture.labels()),
    }
    member("json", told.to_string().as_bytes())?;
    Ok(bytes.len() as u64)
}

/// A picture's name below the folder of its class, or of all pictures if these have no such folders.
fn former_name(part: &ImageFolder, picture: &PictureFile) -> PathBuf {
    if let Some(name) = picture.former_name().and_then(within) {
        return name;
    }
    if let Some(archive) = picture.archive() {
        return picture.path().strip_prefix(archive).unwrap_or(picture.path()).to_owned();
    }
    let Ok(name) = picture.path().strip_prefix(&part.root) else {
        return picture.path().file_name().unwrap_or_default().into();
    };
    let mut below = name.components();
    let class = part.classes().get(picture.label().unsigned_abs() as usize);
    let first = below.next().map(|first| crate::classes::normal(&first.as_os_str().to_string_lossy()));
    if first.as_ref() == class { below.as_path().to_owned() } else { name.to_owned() }
}

/// Writes pictures as files into folders of their classes, in the new folder `out`, whole or not at all: `train/CLASS/NAME` and so on
/// if they have parts, else `CLASS/NAME`. It undoes [`pack`].
///
/// `progress` gets the number of pictures done and the total. Return `false` from it to stop.
///
/// # Errors
///
/// Pictures with several classes, a class whose name is no folder's, two pictures of one name in a class, a picture that cannot be read,
/// a folder that cannot be written or holds something, or [`DatasetError::Interrupted`].
pub fn unpack(parts: &FolderParts, out: &Path, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Packed, DatasetError> {
    let refuse = |reason: String| fault(parts.train.name(), reason);
    let classes = parts.train.classes();
    if parts.train.task() == Task::MultiLabel {
        let reason = "pictures with several classes have no folder of their class: use them as they are";
        return Err(refuse(reason.to_owned()));
    }
    let is_folder =
        |class: &&String| within(class).is_some_and(|path| path.components().count() == 1 && file_name(&path) == **class);
    if let Some(class) = classes.iter().find(|class| !is_folder(class)) {
        return Err(refuse(format!("no folder can be called {class:?}: rename this class")));
    }
    let total = total(parts);
    let mut packed = Packed::default();
    striate_files::build_folder(out, |folder| -> Result<(), DatasetError> {
        for (prefix, part) in named(parts, "") {
            let folder = folder.join(prefix);
            for class in classes {
                // A class that a part lacks keeps its folder out: empty ones are refused.
                packed.files += u64::from(part.files().iter().any(|file| Some(class) == classes.get(file.label() as usize)));
            }
            for picture in part.files() {
                if !progress(packed.pictures, total) {
                    return Err(DatasetError::Interrupted);
                }
                let class = &classes[picture.label().unsigned_abs() as usize];
                let name = former_name(part, picture);
                let bytes = picture.read()?;
                let path = folder.join(class).join(&name);
                if path.exists() {
                    let name = name.display();
                    return Err(refuse(format!("two pictures of class {class} are called {name}: rename one of them")));
                }
                striate_files::write_new(&path, |file| file.write_all(&bytes))?;
                packed.pictures += 1;
                packed.bytes += bytes.len() as u64;
            }
        }
        Ok(())
    })?;
    progress(total, total);
    Ok(packed)
}

/// The parts with their names; `alone` if there is one.
fn named<'p>(parts: &'p FolderParts, alone: &'static str) -> Vec<(&'static str, &'p ImageFolder)> {
    let FolderParts { train, val, test } = parts;
    if val.is_none() && test.is_none() {
        return vec![(alone, train)];
    }
    let others = [("val", val), ("test", test)].into_iter().filter_map(|(name, part)| Some((name, part.as_ref()?)));
    [("train", train)].into_iter().chain(others).collect()
}

fn total(parts: &FolderParts) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::folder::shard::tests::{archive, png};
    use crate::folder::tests::{preprocess, write};
    use std::collections::BTreeMap;
    use std::fs;

    /// All files below a folder with their bytes.
    fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => _ = files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap()),
                }
            }
        }
        files
    }

    fn open(path: &Path) -> FolderParts {
        FolderParts::open(path, &preprocess(8)).unwrap()
    }

    #[test]
    fn folders_come_back_from_shards_byte_for_byte() {
        let root = tempfile::tempdir().unwrap();
        let [folder, shards, back] = ["pets", "shards", "back"].map(|name| root.path().join(name));
        let names = [
            "train/a cat/x.png",
            "train/a cat/x.PNG",
            "train/a cat/deep/my.photo.jpeg",
            "train/dog/1.png",
            "val/a cat/1.png",
            "val/dog/2.png",
        ];
        for (name, colour) in names.iter().zip(1..) {
            write(&folder.join(name), [8, 8], colour);
        }
        let mut told = Vec::new();
        let size = ShardSize { pictures: 3, ..ShardSize::default() };
        let packed = pack(&open(&folder), &shards, size, &mut |done, of| {
            told.push((done, of));
            true
        });
        let bytes = tree(&folder).values().map(Vec::len).sum::<usize>() as u64;
        assert_eq!(packed.unwrap(), Packed { pictures: 6, files: 3, bytes });
        assert_eq!((told[0], told[told.len() - 1]), ((0, 6), (6, 6)));
        let written = tree(&shards);
        let names: Vec<&str> = written.keys().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(names, ["classes.txt", "train-000000.tar", "train-000001.tar", "val-000000.tar"]);
        assert_eq!(written[Path::new("classes.txt")], b"a cat\ndog\n");
        unpack(&open(&shards), &back, &mut |_, _| true).unwrap();
        assert_eq!(tree(&back), tree(&folder));
        // The same pictures give the same bits, and shards can be packed again.
        let again = root.path().join("again");
        pack(&open(&shards), &again, ShardSize { bytes: 1, ..ShardSize::default() }, &mut |_, _| true).unwrap();
        assert_eq!(tree(&again).len(), 7, "one picture a shard, and the classes");
        let back = root.path().join("back again");
        unpack(&open(&again), &back, &mut |_, _| true).unwrap();
        assert_eq!(tree(&back), tree(&folder));
    }

    #[test]
    fn lists_are_packed_with_all_their_labels() {
        let root = tempfile::tempdir().unwrap();
        for (name, colour) in [("a.jpg", 1), ("b.png", 2), ("c", 3)] {
            write(&root.path().join("x.png"), [8, 8], colour);
            fs::rename(root.path().join("x.png"), root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("l.csv"), "a.jpg,cat|fur\nb.png,dog\nc,fur\n").unwrap();
        let list = open(&root.path().join("l.csv"));
        let shards = root.path().join("shards");
        pack(&list, &shards, ShardSize::default(), &mut |_, _| true).unwrap();
        let packed = open(&shards).train;
        let by_bytes = |part: &ImageFolder| -> BTreeMap<Vec<u8>, Vec<i64>> {
            part.files().iter().map(|file| (file.read().unwrap(), file.labels().to_vec())).collect()
        };
        assert_eq!((packed.task(), packed.classes()), (Task::MultiLabel, list.train.classes()));
        assert_eq!(by_bytes(&packed), by_bytes(&list.train));
        let error = unpack(&open(&shards), &root.path().join("back"), &mut |_, _| true).unwrap_err().to_string();
        assert!(error.ends_with("pictures with several classes have no folder of their class: use them as they are"), "{error}");
    }

    #[test]
    fn nothing_is_left_of_what_fails_and_nothing_leaves_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("out");
        let (x, y) = (png(1), png(2));
        let told = |members: &[(&str, &[u8])], classes: &str| {
            let shards = root.path().join("shards");
            fs::create_dir_all(&shards).unwrap();
            fs::write(shards.join("0.tar"), archive(members)).unwrap();
            fs::write(shards.join(CLASSES), classes).unwrap();
            let told = unpack(&open(&shards), &out, &mut |_, _| true).map_err(|error| error.to_string());
            assert_eq!(tree(root.path()).len(), 2 + tree(&out.clone()).len() * usize::from(told.is_ok()));
            told
        };
        fs::create_dir(&out).unwrap();
        for class in ["..", "a/b", "."] {
            assert!(told(&[("1.png", &x), ("1.cls", b"0")], class).unwrap_err().contains("no folder can be called"), "{class}");
        }
        let same: [(&str, &[u8]); 6] = [
            ("1.png", &x),
            ("1.json", br#"{"name": "same.png"}"#),
            ("1.cls", b"0"),
            ("2.png", &y),
            ("2.json", br#"{"name": "same.png"}"#),
            ("2.cls", b"0"),
        ];
        assert!(told(&same, "a").unwrap_err().ends_with("two pictures of class a are called same.png: rename one of them"));
        // A name that leads out is none, and the member's stands for it.
        told(&[("1.png", &x), ("1.json", br#"{"name": "../../evil.png"}"#), ("1.cls", b"0")], "a").unwrap();
        assert_eq!(tree(&out).keys().collect::<Vec<_>>(), [Path::new("a/1.png")]);
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::ffi::OsStrExt;
            let odd = root.path().join("odd");
            write(&odd.join(std::ffi::OsStr::from_bytes(b"c\xff")).join("1.png"), [8, 8], 1);
            let told =
                pack(&open(&odd), &root.path().join("new"), ShardSize::default(), &mut |_, _| true).unwrap_err().to_string();
            assert!(told.contains("its name or that of its folder is no UTF-8"), "{told}");
        }
        let stopped = pack(&open(&out), &root.path().join("new"), ShardSize::default(), &mut |_, _| false);
        assert!(matches!(stopped, Err(DatasetError::Interrupted)) && !root.path().join("new").exists());
        let full =
            pack(&open(&out), &root.path().join("shards"), ShardSize::default(), &mut |_, _| true).unwrap_err().to_string();
        assert!(full.contains("shards"), "{full}");
    }
}
