//! What lies in a folder: pictures, and what is left out.

use crate::{DatasetError, decode};
use image::ImageFormat;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use striate_torch::Shown;

/// Extensions of pictures that are read, in small letters.
const READ: [&str; 14] = ["bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"];
/// Extensions of other pictures.
const NOT_READ: [&str; 20] = [
    "arw", "avif", "cr2", "cr3", "dng", "eps", "exr", "heic", "heif", "ico", "j2k", "jp2", "jxl", "nef", "orf", "psd", "raf",
    "rw2", "svg", "tga",
];
/// Names of folders that systems make wherever pictures lie, in small letters.
const OF_SYSTEMS: [&str; 7] =
    ["#recycle", "#snapshot", "$recycle.bin", "@eadir", "__macosx", "lost+found", "system volume information"];

/// Extensions of what often lies beside pictures, one for each of them: it is not opened.
const BESIDE: [&str; 10] = ["cls", "csv", "db", "html", "json", "md", "npy", "txt", "xml", "yaml"];

/// Why a file is not among a folder's pictures.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// Its extension (in small letters, without the dot) is that of a picture format that is not
    /// read.
    Format(String),
    /// It cannot be decoded, and
    /// [`without_bad`](crate::ImageFolder::without_bad) dropped it.
    Bad,
    /// It links to nothing.
    Dangling,
    /// It is a pipe, a socket or a device.
    NoFile,
    /// It links to a folder that was read already, or that holds this one.
    Loop,
    /// It is a picture beside the folders of classes, and so has no class.
    NoClass,
    /// It is a picture in a folder beside those of the parts.
    NoPart,
    /// A list names it, and it is not there.
    Missing,
    /// A list or a shard gives it no class, or one that there isn't.
    NoLabel,
    /// It comes twice, or it is a shard or a member of one that cannot be taken, such as a link.
    Unfit,
    /// Its content is a picture, but its name does not end like a picture's.
    Unnamed,
    /// Its name is not that of a picture, such as `labels.csv`.
    Other,
}

/// Counts of the files that are not among the pictures of an [`ImageFolder`](crate::ImageFolder).
/// Hidden files and folders, and those of systems such as macOS's `__MACOSX`, are not counted.
///
/// `Display` gives one line: `left out 3 files: 2 .heic (a format that is not read), 1 link to
/// nothing (train/cat/gone.png)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    found: BTreeMap<Reason, (usize, PathBuf)>,
}

impl LeftOut {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether all of them have names that are not those of pictures, such as `labels.csv`.
    pub fn is_harmless(&self) -> bool {
        self.found.keys().all(|reason| *reason == Reason::Other)
    }

    /// The same without files whose names are not those of pictures.
    #[must_use]
    pub fn harmful(&self) -> Self {
        self.only(|reason| *reason != Reason::Other)
    }

    /// The same without files that were left out for other reasons than these.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&Reason) -> bool) -> Self {
        let found = self.found.iter().filter(|(reason, _)| wanted(reason));
        Self { found: found.map(|(reason, found)| (reason.clone(), found.clone())).collect() }
    }

    /// Each reason, with the number of files and the first of them.
    pub fn reasons(&self) -> impl Iterator<Item = (&Reason, usize, &Path)> {
        self.found.iter().map(|(reason, (count, example))| (reason, *count, example.as_path()))
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.found.values().map(|(count, _)| count).sum()
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (reason, (count, example)) in other.found {
            self.found.entry(reason).or_insert((0, example)).0 += count;
        }
    }

    pub(crate) fn add(&mut self, reason: Reason, path: &Path) {
        self.found.entry(reason).or_insert_with(|| (0, path.to_owned())).0 += 1;
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "left nothing out");
        }
        let what = |(reason, count, example): (&Reason, usize, &Path)| {
            let example = Shown(example.display());
            let s = if count == 1 { "" } else { "s" };
            match reason {
                Reason::Format(end) => format!("{count} .{end} (a format that is not read)"),
                Reason::Bad => format!("{count} that cannot be decoded ({example})"),
                Reason::Dangling => format!("{count} link{s} to nothing ({example})"),
                Reason::NoFile => format!("{count} pipe{s} or device{s} ({example})"),
                Reason::Loop => format!("{count} link{s} to a folder that is read already ({example})"),
                Reason::NoClass => format!("{count} picture{s} in no folder of a class ({example})"),
                Reason::NoPart => format!("{count} picture{s} in a folder beside `train` that is no part ({example})"),
                Reason::Missing => format!("{count} that {} not there ({example})", if count == 1 { "is" } else { "are" }),
                Reason::NoLabel => format!("{count} without a class ({example})"),
                Reason::Unfit => format!("{count} that cannot be taken ({example})"),
                Reason::Unnamed => format!("{count} picture{s} without an ending such as .jpg ({example})"),
                Reason::Other => {
                    format!("{count} that {} by name ({example})", if count == 1 { "is no picture" } else { "are no pictures" })
                }
            }
        };
        let list = self.reasons().map(what).collect::<Vec<_>>().join(", ");
        write!(f, "left out {} file{}: {list}", self.len(), if self.len() == 1 { "" } else { "s" })
    }
}

/// What is in a folder, besides what is hidden.
pub(crate) enum Entry {
    Folder(PathBuf),
    Picture(PathBuf),
    LeftOut(Reason, PathBuf),
}

/// What is in a folder, in the order of the names.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>, DatasetError> {
    let fault = |error| DatasetError::io("read", folder, error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let name = entry.file_name();
        if is_of_system(&name) {
            continue;
        }
        entries.push((name, entry.path(), entry.file_type().map_err(fault)?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let sort = |(name, path, kind): (_, PathBuf, fs::FileType)| {
        let kind = if kind.is_symlink() { fs::metadata(&path).map(|file| file.file_type()) } else { Ok(kind) };
        match kind {
            Err(_) => Entry::LeftOut(Reason::Dangling, path),
            Ok(kind) if kind.is_dir() => Entry::Folder(path),
            Ok(kind) if !kind.is_file() => Entry::LeftOut(Reason::NoFile, path),
            Ok(_) => match by_name(name) {
                None => Entry::Picture(path),
                Some(Reason::Other) if is_picture(&path) => Entry::LeftOut(Reason::Unnamed, path),
                Some(reason) => Entry::LeftOut(reason, path),
            },
        }
    };
    Ok(entries.into_iter().map(sort).collect())
}

/// Whether a system or a program left that behind: hidden files and folders, and others that are known.
pub(crate) fn is_of_system(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || OF_SYSTEMS.contains(&&*name.to_string_lossy().to_lowercase())
}

/// Why a file of this name is no picture that is read, if it is none.
pub(crate) fn by_name(name: impl AsRef<OsStr>) -> Option<Reason> {
    match ending(Path::new(&name)).as_str() {
        end if READ.contains(&end) => None,
        end if NOT_READ.contains(&end) => Some(Reason::Format(end.to_owned())),
        _ => Some(Reason::Other),
    }
}

/// The extension in small letters.
fn ending(path: &Path) -> String {
    path.extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether a file begins as a picture does, of a format that a text cannot be taken for.
fn is_picture(path: &Path) -> bool {
    use ImageFormat::{Gif, Jpeg, Png, Tiff, WebP};
    if BESIDE.contains(&ending(path).as_str()) {
        return false;
    }
    let mut start = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|count| matches!(decode::format(&start[..count]), Ok(Gif | Jpeg | Png | Tiff | WebP)))
}

/// Reads the pictures of a class, however deep they lie.
pub(crate) struct Walk<'a> {
    /// The folder of all classes, without links in its path. A link to it, or to what holds it, is
    /// left out.
    pub(crate) root: &'a Path,
    /// Folders of this class that were read, likewise. Links can't multiply what they hold.
    pub(crate) visited: HashSet<PathBuf>,
    pub(crate) pictures: Vec<PathBuf>,
    pub(crate) left_out: &'a mut LeftOut,
}

impl Walk<'_> {
    pub(crate) fn folder(&mut self, folder: &Path) -> Result<(), DatasetError> {
        let real = folder.canonicalize().map_err(|error| DatasetError::io("read", folder, error))?;
        if self.root.starts_with(&real) || !self.visited.insert(real) {
            self.left_out.add(Reason::Loop, folder);
            return Ok(());
        }
        for entry in entries(folder)? {
            match entry {
                Entry::Folder(folder) => self.folder(&folder)?,
                Entry::Picture(file) => self.pictures.push(file),
                Entry::LeftOut(reason, file) => self.left_out.add(reason, &file),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::folder::tests::{flowers, preprocess, write};
    use crate::{Dataset, ImageFolder};

    fn open(root: &Path) -> ImageFolder {
        ImageFolder::open(root, preprocess(8)).unwrap()
    }

    fn counts(data: &ImageFolder) -> Vec<(Reason, usize)> {
        data.left_out().reasons().map(|(reason, count, _)| (reason.clone(), count)).collect()
    }

    #[test]
    fn what_systems_leave_behind_is_no_class_and_no_picture() {
        let folder = flowers();
        let root = folder.path();
        let before = open(root);
        write(&root.join(".ipynb_checkpoints/x-checkpoint.png"), [8, 8], 3);
        write(&root.join("rose/.thumbnails/x.png"), [8, 8], 3);
        for system in ["__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "rose/@eaDir"] {
            write(&root.join(system).join("rose/x.png"), [8, 8], 3);
        }
        for file in ["rose/._x.png", ".DS_Store", "rose/.DS_Store"] {
            fs::write(root.join(file), b"\0\x05\x16\x07").unwrap();
        }
        let after = open(root);
        assert_eq!((after.files(), after.classes()), (before.files(), before.classes()));
        assert_eq!(after.left_out(), before.left_out());
    }

    #[test]
    fn what_is_left_out_is_counted_and_named() {
        let folder = flowers();
        for file in ["rose/1.heic", "rose/2.HEIC", "tulip/3.svg", "tulip/labels.csv"] {
            fs::write(folder.path().join(file), "x").unwrap();
        }
        let data = open(folder.path());
        let format = |end: &str| Reason::Format(end.to_owned());
        assert_eq!(counts(&data), [(format("heic"), 2), (format("svg"), 1), (Reason::NoClass, 1), (Reason::Other, 2)]);
        let line = data.left_out().to_string();
        let expected = format!(
            "left out 6 files: 2 .heic (a format that is not read), 1 .svg (a format that is not read), \
             1 picture in no folder of a class ({}), 2 that are no pictures by name ({})",
            folder.path().join("readme.jpg").display(),
            folder.path().join("rose/notes.txt").display()
        );
        assert_eq!(line, expected);
        assert!(!data.left_out().is_harmless());
        assert_eq!((data.left_out().harmful().len(), data.left_out().harmful().reasons().count()), (4, 3));
        fs::remove_dir_all(folder.path().join("tulip")).unwrap();
        for file in ["readme.jpg", "rose/1.heic", "rose/2.HEIC"] {
            fs::remove_file(folder.path().join(file)).unwrap();
        }
        assert!(open(folder.path()).left_out().is_harmless());
        fs::create_dir(folder.path().join("iris")).unwrap();
        fs::write(folder.path().join("iris/1.heic"), "x").unwrap();
        let error = ImageFolder::open(folder.path(), preprocess(8)).unwrap_err().to_string();
        assert!(error.contains("no picture that can be read (left out 1 file: 1 .heic"), "{error}");
    }

    #[test]
    fn pictures_without_a_pictures_ending_are_told_apart_from_other_files() {
        let folder = flowers();
        let root = folder.path();
        fs::remove_file(root.join("readme.jpg")).unwrap();
        let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01";
        for (file, content) in
            [("rose/8f3a", &jpeg[..]), ("rose/1.jpg_large", jpeg), ("rose/2.json", jpeg), ("rose/3.dat", b"BM")]
        {
            fs::write(root.join(file), content).unwrap();
        }
        let data = open(root);
        assert_eq!(counts(&data), [(Reason::Unnamed, 2), (Reason::Other, 3)]);
        let told = data.left_out().harmful().to_string();
        assert!(told.starts_with("left out 2 files: 2 pictures without an ending such as .jpg ("), "{told}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles_and_no_pipe_is_opened() {
        use std::os::unix::{fs::symlink, net::UnixListener};
        let (folder, elsewhere) = (flowers(), tempfile::tempdir().unwrap());
        let root = folder.path();
        let before = open(root).len();
        write(&elsewhere.path().join("lily/a.png"), [8, 8], 5);
        symlink(elsewhere.path().join("lily"), root.join("lily")).unwrap();
        symlink(elsewhere.path().join("lily/a.png"), root.join("rose/linked.png")).unwrap();
        symlink(root.join("rose"), root.join("rose/again")).unwrap();
        symlink(root, root.join("rose/all")).unwrap();
        symlink(root.parent().unwrap(), root.join("tulip/more")).unwrap();
        symlink(root, root.join("all")).unwrap();
        symlink(root.join("missing"), root.join("rose/gone.png")).unwrap();
        let _pipe = UnixListener::bind(root.join("rose/pipe.png")).unwrap();
        let data = open(root);
        assert_eq!((data.len(), data.classes()), (before + 2, &["lily", "rose", "tulip"].map(str::to_owned)[..]));
        let expected = [(Reason::Dangling, 1), (Reason::NoFile, 1), (Reason::Loop, 4), (Reason::NoClass, 1), (Reason::Other, 1)];
        assert_eq!(counts(&data), expected);
        assert!(data.left_out().to_string().contains("1 link to nothing"));
    }

    #[test]
    fn a_class_is_one_however_its_accents_are_written() {
        let folder = flowers();
        write(&folder.path().join("caf\u{e9}/a.png"), [8, 8], 5);
        write(&folder.path().join("cafe\u{301}/b.png"), [8, 8], 5);
        let data = open(folder.path());
        assert_eq!(data.classes(), ["caf\u{e9}", "rose", "tulip"]);
        assert_eq!(data.files().iter().filter(|file| file.label() == 0).count(), 2);
    }

    #[test]
    fn a_folder_of_another_kind_is_told_with_what_to_do() {
        let folder = flowers();
        let told = |root: &Path| ImageFolder::open(root, preprocess(8)).unwrap_err().to_string();
        let rose = told(&folder.path().join("rose"));
        assert!(
            rose.ends_with("it has 2 pictures, but no folders: put the pictures of each class into a folder of the class's name")
        );
        let outer = tempfile::tempdir().unwrap();
        for name in ["rose/a.png", "tulip/a.png"] {
            write(&outer.path().join("flowers").join(name), [8, 8], 1);
        }
        let error = told(outer.path());
        assert!(error.ends_with(&format!("seem to be in {}: name that", outer.path().join("flowers").display())), "{error}");
    }
}
