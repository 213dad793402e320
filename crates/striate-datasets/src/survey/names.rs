//! Names of files that systems, programs and people leave behind.

use crate::DatasetError;
use crate::classes::normal;
use crate::folder::is_of_system;
use std::fs;
use std::path::{Path, PathBuf};

/// Whether a file is named as file managers name copies: `rose (1).jpg`, `rose - Copy.jpg`, `rose copy 2.jpg`.
pub(super) fn is_copy(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = stem.strip_suffix(')').and_then(|stem| stem.rsplit_once(" ("));
    let last = stem.rsplit_once(' ').filter(|(_, number)| digits(number)).map_or(stem.as_str(), |(stem, _)| stem);
    numbered.is_some_and(|(_, number)| digits(number)) || last.ends_with(" copy") || last.ends_with(" - copy")
}

/// The path with its last part as systems see it that do not tell capital letters apart, or how accents are encoded. None if
/// that is no text.
pub(super) fn folded(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    Some(path.with_file_name(normal(name).to_lowercase()))
}

/// Files below a folder that no dataset takes, because a system or a program left them behind: hidden ones, and Windows' and
/// macOS' own. What hidden folders hold is not counted.
///
/// # Errors
///
/// A folder that cannot be read.
pub fn ignored_files(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, DatasetError> {
    let (mut ignored, mut folders) = (Vec::new(), vec![folder.as_ref().to_owned()]);
    while let Some(folder) = folders.pop() {
        let fault = |error| DatasetError::io("read", &folder, error);
        for entry in fs::read_dir(&folder).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name();
            let of_windows = || ["thumbs.db", "desktop.ini"].contains(&&*name.to_string_lossy().to_lowercase());
            if is_of_system(&name) || of_windows() {
                ignored.push(entry.path());
            } else if entry.file_type().map_err(fault)?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    ignored.sort();
    Ok(ignored)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_told_by_their_names() {
        for name in
            ["rose (1).jpg", "a/rose (12).png", "rose copy.jpg", "Rose Copy 2.jpg", "rose - Copy.jpg", "rose - Copy (3).jpg"]
        {
            assert!(is_copy(Path::new(name)), "{name}");
        }
        for name in ["rose.jpg", "rose1.jpg", "rose (a).jpg", "(1).jpg", "photocopy.jpg", "rose (1) wild.jpg", "rose ().jpg"] {
            assert!(!is_copy(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn names_are_one_whatever_their_capitals_and_accents() {
        let same = |a: &str, b: &str| folded(Path::new(a)) == folded(Path::new(b));
        assert!(same("x/Rose.JPG", "x/rose.jpg") && same("x/caf\u{e9}.jpg", "x/cafe\u{301}.jpg"));
        assert!(!same("x/rose.jpg", "y/rose.jpg") && !same("x/rose.jpg", "x/rose.png"));
    }

    #[test]
    fn what_systems_leave_behind_is_found() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            "a/1.png",
            "a/._1.png",
            "a/Thumbs.db",
            "b/.cache/2.png",
            "__MACOSX/a/1.png",
            "@eaDir/a/1.png",
            ".DS_Store",
            "b/notes.txt",
        ];
        for file in files.map(|file| root.path().join(file)) {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        let found = ignored_files(root.path()).unwrap();
        let found: Vec<&Path> = found.iter().map(|path| path.strip_prefix(root.path()).unwrap()).collect();
        assert_eq!(found, [".DS_Store", "@eaDir", "__MACOSX", "a/._1.png", "a/Thumbs.db", "b/.cache"].map(Path::new));
    }
}
