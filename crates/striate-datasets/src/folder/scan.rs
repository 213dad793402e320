//! What lies in a folder: pictures, and what is left out.

use crate::DatasetError;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What files of pictures that can be read end in, in small letters.
const READ: [&str; 14] = ["bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"];
/// What files of other pictures end in.
const NOT_READ: [&str; 20] = [
    "arw", "avif", "cr2", "cr3", "dng", "eps", "exr", "heic", "heif", "ico", "j2k", "jp2", "jxl", "nef", "orf", "psd", "raf",
    "rw2", "svg", "tga",
];

/// Why something in a folder is not among its pictures.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// It is a picture by its name, of a format that is not read: the name's end, in small letters and without the dot.
    Format(String),
    /// It is a picture that cannot be decoded, and was to be left out.
    Bad,
    /// A link to what is not there.
    Dangling,
    /// A pipe, a socket or a device.
    NoFile,
    /// A link to a folder that was read already, or that holds this one.
    Loop,
    /// It is a picture, but lies beside the folders of classes.
    NoClass,
    /// It is no picture by its name.
    Other,
}

/// What is not among the pictures of an [`ImageFolder`](crate::ImageFolder), counted. Hidden files and folders, and macOS's
/// `__MACOSX`, are not even counted.
///
/// It is shown as a line such as `left out 3 files: 2 .heic (a format that is not read), 1 link to nothing (train/cat/gone.png)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    found: BTreeMap<Reason, (usize, PathBuf)>,
}

impl LeftOut {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether only files were left out that are no pictures by their names, such as `labels.csv`.
    pub fn is_harmless(&self) -> bool {
        self.found.keys().all(|reason| *reason == Reason::Other)
    }

    /// Each reason, how many things were left out for it, and the first of these.
    pub fn reasons(&self) -> impl Iterator<Item = (&Reason, usize, &Path)> {
        self.found.iter().map(|(reason, (count, example))| (reason, *count, example.as_path()))
    }

    /// How many things were left out.
    pub fn len(&self) -> usize {
        self.found.values().map(|(count, _)| count).sum()
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
            let example = crate::decode::one_line(&example.display().to_string());
            let s = if count == 1 { "" } else { "s" };
            match reason {
                Reason::Format(end) => format!("{count} .{end} (a format that is not read)"),
                Reason::Bad => format!("{count} that cannot be decoded ({example})"),
                Reason::Dangling => format!("{count} link{s} to nothing ({example})"),
                Reason::NoFile => format!("{count} pipe{s} or device{s} ({example})"),
                Reason::Loop => format!("{count} link{s} to a folder that is read already ({example})"),
                Reason::NoClass => format!("{count} picture{s} in no folder of a class ({example})"),
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
        if name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX" {
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
                Some(reason) => Entry::LeftOut(reason, path),
            },
        }
    };
    Ok(entries.into_iter().map(sort).collect())
}

/// Why a file of this name is no picture that is read, if it is none.
fn by_name(name: impl AsRef<OsStr>) -> Option<Reason> {
    let end = Path::new(&name).extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default();
    match end.as_str() {
        end if READ.contains(&end) => None,
        end if NOT_READ.contains(&end) => Some(Reason::Format(end.to_owned())),
        _ => Some(Reason::Other),
    }
}

/// Reads the pictures of a class, however deep they lie.
pub(crate) struct Walk<'a> {
    /// The folder of all classes, without links in its path. A link to it, or to what holds it, is left out.
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
