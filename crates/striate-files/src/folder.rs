//! Folders that are whole or absent.

use crate::temporary::TemporaryFolder;
use crate::{FilesError, fault, parent};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// With more files than this, all of the file system is synced at once instead of file by file.
#[cfg(target_os = "linux")]
const MANY: usize = 256;

/// Makes a folder, and those that hold it, where they are missing. They survive a power cut.
///
/// # Errors
///
/// A folder that cannot be made; those that were made for it are removed.
pub fn create_folder(path: &Path) -> Result<(), FilesError> {
    Made::folders(path).and_then(Made::keep).map_err(FilesError::new("make", path))
}

/// Makes the folder `dest`: `build` fills a temporary one, which is written to the disk and then gets
/// the name.
///
/// # Errors
///
/// What `build` fails with, a `dest` that holds something, and a folder that cannot be written. Nothing
/// stays of it then.
pub fn build_folder<E: From<FilesError>>(dest: &Path, build: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let told = || FilesError::new("write", dest);
    let made = Made::folders(parent(dest)).map_err(told())?;
    let temporary = filled(parent(dest), dest, build)?;
    let rename = || {
        fault::point("rename")?;
        fs::rename(temporary.path(), dest)?;
        temporary.keep();
        made.keep()?;
        sync(parent(dest))
    };
    Ok(rename().map_err(told())?)
}

/// As [`build_folder`], but `dest` may be there. If so, it gets the new content once that is whole: at
/// one moment where the system can exchange names.
///
/// # Errors
///
/// As [`build_folder`]; the former folder stays then.
pub fn swap_folder<E: From<FilesError>>(dest: &Path, build: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    if fs::symlink_metadata(dest).is_err() {
        return build_folder(dest, build);
    }
    let temporary = filled(parent(dest), dest, build)?;
    let swap = || {
        fault::point("rename")?;
        if let Err(error) = exchange(temporary.path(), dest) {
            if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) {
                return Err(error);
            }
            let former = TemporaryFolder::create(parent(dest), dest)?;
            fs::rename(dest, former.path())?;
            fs::rename(temporary.path(), dest)?;
        }
        // The former folder, which has the temporary name now, goes with it.
        drop(temporary);
        sync(parent(dest))
    };
    Ok(swap().map_err(FilesError::new("write", dest))?)
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    return Ok(rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, rustix::fs::RenameFlags::EXCHANGE)?);
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    Err(io::ErrorKind::Unsupported.into())
}

/// As [`build_folder`], but an empty `dest` may be there, which stays the same folder with its rights.
///
/// # Errors
///
/// As [`build_folder`].
pub fn fill_folder<E: From<FilesError>>(dest: &Path, build: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    if !dest.is_dir() {
        return build_folder(dest, build);
    }
    let temporary = filled(dest, dest, build)?;
    let mut moved = Vec::new();
    let mut move_up = || {
        for entry in fs::read_dir(temporary.path())? {
            let entry = entry?;
            let (from, to) = (entry.path(), dest.join(entry.file_name()));
            fault::point("rename")?;
            fs::rename(&from, &to)?;
            moved.push((from, to));
        }
        sync(dest)
    };
    if let Err(error) = move_up() {
        for (from, to) in moved {
            // The first error is the one to tell.
            let _ = fs::rename(to, from);
        }
        return Err(FilesError::new("write", dest)(error).into());
    }
    Ok(())
}

/// A temporary folder for `dest` that `build` has filled, and that is on the disk.
fn filled<E: From<FilesError>>(
    folder: &Path,
    dest: &Path,
    build: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<TemporaryFolder, E> {
    let temporary = TemporaryFolder::create(folder, dest).map_err(FilesError::new("write", dest))?;
    build(temporary.path())?;
    sync_tree(temporary.path()).map_err(FilesError::new("write", dest))?;
    Ok(temporary)
}

/// Writes what is in a folder, however deep, to the disk.
fn sync_tree(folder: &Path) -> io::Result<()> {
    fault::point("sync")?;
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
        next += 1;
    }
    #[cfg(target_os = "linux")]
    if files.len() > MANY {
        return Ok(rustix::fs::syncfs(File::open(folder)?)?);
    }
    files.iter().chain(&folders).try_for_each(|path| File::open(path)?.sync_all())
}

/// Writes the names in a folder to the disk, so that a file that was renamed there has its name after a
/// power cut.
///
/// # Errors
///
/// A disk that fails.
pub fn sync_folder(folder: &Path) -> Result<(), FilesError> {
    sync(folder).map_err(FilesError::new("write", folder))
}

pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    fault::point("sync")?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        // Some file systems cannot do that, and some folders may be written but not read.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Folders that were made on the way to something. They go again if it fails.
pub(crate) struct Made(Vec<PathBuf>);

impl Made {
    /// Makes the folder, and those that hold it, where they are missing.
    pub(crate) fn folders(path: &Path) -> io::Result<Self> {
        let missing: Vec<&Path> =
            path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()).collect();
        let mut made = Self(Vec::new());
        for folder in missing.into_iter().rev() {
            fault::point("make a folder")?;
            match fs::create_dir(folder) {
                Ok(()) => made.0.push(folder.into()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !folder.is_dir() {
                        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", folder.display())));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// Leaves them there for good.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        std::mem::take(&mut self.0).iter().try_for_each(|folder| sync(parent(folder)))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in self.0.drain(..).rev() {
            // One that somebody else has put something into stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn two_files(folder: &Path) -> Result<(), FilesError> {
        crate::write_bytes(&folder.join("a"), "a")?;
        crate::write_bytes(&folder.join("deep/b"), "b")
    }

    fn fails(folder: &Path) -> Result<(), FilesError> {
        two_files(folder)?;
        Err(FilesError::new("write", folder)(io::ErrorKind::StorageFull.into()))
    }

    #[test]
    fn a_folder_is_whole_or_absent() {
        let root = tempfile::tempdir().unwrap();
        let dest = root.path().join("x/y/dest");
        build_folder(&dest, fails).unwrap_err();
        assert!(names(root.path()).is_empty(), "what was made on the way goes too");
        build_folder(&dest, two_files).unwrap();
        assert_eq!(
            (names(&dest), names(dest.parent().unwrap())),
            (vec!["a".to_owned(), "deep".to_owned()], vec!["dest".to_owned()])
        );
        build_folder(&dest, two_files).unwrap_err();
        assert_eq!(names(dest.parent().unwrap()), ["dest"]);
        let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
        fs::create_dir(root.path().join("ordinary")).unwrap();
        assert_eq!(mode(&dest), mode(&root.path().join("ordinary")));
    }

    #[test]
    fn a_folder_gives_way_to_a_new_one_once_that_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let dest = root.path().join("dest");
        swap_folder(&dest, two_files).unwrap();
        swap_folder(&dest, fails).unwrap_err();
        assert_eq!((names(&dest), names(root.path())), (vec!["a".to_owned(), "deep".to_owned()], vec!["dest".to_owned()]));
        swap_folder(&dest, |folder| crate::write_bytes(&folder.join("new"), "")).unwrap();
        assert_eq!((names(&dest), names(root.path())), (vec!["new".to_owned()], vec!["dest".to_owned()]));
    }

    #[test]
    fn an_empty_folder_is_filled_and_stays_the_same() {
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempdir().unwrap();
        let inode = fs::metadata(root.path()).unwrap().ino();
        fill_folder(root.path(), fails).unwrap_err();
        assert!(names(root.path()).is_empty());
        fill_folder(root.path(), two_files).unwrap();
        assert_eq!(
            (names(root.path()), fs::metadata(root.path()).unwrap().ino()),
            (vec!["a".to_owned(), "deep".to_owned()], inode)
        );
    }

    #[test]
    fn only_what_a_killed_process_left_of_this_folder_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let dest = root.path().join("dest");
        for left in [".dest.abcdefABCDEF.tmp", ".dest.0123456789ab.tmp"] {
            fs::create_dir_all(root.path().join(left).join("deep")).unwrap();
        }
        for other in [".dest.lock", ".other.abcdefABCDEF.tmp", ".dest.tmp", ".dest.notes.tmp"] {
            fs::write(root.path().join(other), "").unwrap();
        }
        crate::sweep(&dest).unwrap();
        assert_eq!(names(root.path()), [".dest.lock", ".dest.notes.tmp", ".dest.tmp", ".other.abcdefABCDEF.tmp"]);
        crate::sweep(&root.path().join("missing/dest")).unwrap();
    }
}
