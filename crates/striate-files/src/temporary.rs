//! Files and folders that have no name yet, or one that nobody can guess.

use crate::{FilesError, fault, parent};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::{NamedTempFile, TempDir};

/// Random letters in a name.
const RANDOM: usize = 12;
/// Bytes of the final name in a temporary one: what the file system allows, less than what is added.
const OF_NAME: usize = 200;
/// How every temporary name ends.
const END: &str = ".tmp";

/// A file beside its final name.
pub(crate) struct Temporary {
    file: File,
    folder: PathBuf,
    beginning: OsString,
    /// None while the file has no name at all.
    named: Option<NamedTempFile<Registered>>,
}

impl Temporary {
    /// Makes one for `target`, whose folder must be there.
    pub(crate) fn create(target: &Path, mode: u32) -> io::Result<Self> {
        fault::point("create")?;
        let (folder, beginning) = (parent(target).to_owned(), beginning(target));
        match unnamed(&folder, mode)? {
            Some(file) => Ok(Self { file, folder, beginning, named: None }),
            None => Self::with_name(folder, beginning, mode),
        }
    }

    fn with_name(folder: PathBuf, beginning: OsString, mode: u32) -> io::Result<Self> {
        let mut file = None;
        let named = with_random_name(&folder, &beginning, |path| {
            let registered = Registered::new(path);
            file = Some(File::options().write(true).create_new(true).mode(mode).open(path)?);
            Ok(registered)
        })?;
        let file = file.ok_or_else(|| io::Error::other("it was not made"))?;
        Ok(Self { file, folder, beginning, named: Some(named) })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it the name of `target`, in place of what has it.
    pub(crate) fn rename(self, target: &Path) -> io::Result<()> {
        fault::point("rename")?;
        let named = match self.named {
            Some(named) => named,
            None => with_random_name(&self.folder, &self.beginning, |path| {
                let registered = Registered::new(path);
                name(&self.file, path)?;
                Ok(registered)
            })?,
        };
        named.persist(target).map(drop).map_err(|error| error.error)
    }
}

/// A file in `folder` that has no name, and so vanishes with this process; none where the system has no such files.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path, mode: u32) -> io::Result<Option<File>> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    // It gets its name through this folder.
    if !Path::new("/proc/self/fd").is_dir() {
        return Ok(None);
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::from_raw_mode(mode)) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_os = "linux")]
fn name(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_folder: &Path, _mode: u32) -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(not(target_os = "linux"))]
fn name(_file: &File, _path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A folder that is filled before it gets its name.
pub(crate) struct TemporaryFolder {
    folder: TempDir,
    _registered: Registered,
}

impl TemporaryFolder {
    /// Makes one for `target` in `folder`.
    pub(crate) fn create(folder: &Path, target: &Path) -> io::Result<Self> {
        fault::point("make a folder")?;
        let (beginning, ordinary) = (beginning(target), Permissions::from_mode(0o777));
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix(&beginning).suffix(END).rand_bytes(RANDOM).permissions(ordinary).tempdir_in(folder)?;
        let _registered = Registered::new(folder.path());
        Ok(Self { folder, _registered })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves it alone: it has got its name.
    pub(crate) fn keep(self) {
        let _ = self.folder.keep();
    }
}

fn with_random_name<T>(
    folder: &Path,
    beginning: &OsStr,
    make: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<NamedTempFile<T>> {
    tempfile::Builder::new().prefix(beginning).suffix(END).rand_bytes(RANDOM).make_in(folder, make)
}

/// How the temporary names of `target` begin.
fn beginning(target: &Path) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    let name = target.file_name().unwrap_or_default().as_bytes();
    let name = OsStr::from_bytes(&name[..name.len().min(OF_NAME)]);
    [".".as_ref(), name, ".".as_ref()].into_iter().collect()
}

/// Removes what a process that was killed has left of its work on `target`. Call it only while nobody
/// else can be writing `target`: when you hold a lock.
///
/// # Errors
///
/// What cannot be removed.
pub fn sweep(target: &Path) -> Result<(), FilesError> {
    let (folder, beginning) = (parent(target), beginning(target));
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(FilesError::new("read", folder))?;
        let name = entry.file_name();
        let random = name.as_encoded_bytes().strip_prefix(beginning.as_encoded_bytes());
        let random = random.and_then(|name| name.strip_suffix(END.as_bytes()));
        if random.is_some_and(|random| random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric)) {
            let path = entry.path();
            remove(&path).map_err(FilesError::new("remove", &path))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// How often a folder that another thread is busy with is removed anew.
const TRIES: usize = 100;

/// The temporary names that this process has in use.
static IN_USE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A temporary name in use.
pub(crate) struct Registered(PathBuf);

impl Registered {
    fn new(path: &Path) -> Self {
        IN_USE.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into());
        Self(path.into())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        IN_USE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Removes all temporary files and folders of this process. Call it right before you end the process
/// from a thread that does not write: whoever writes a file waits from now on, forever.
pub fn remove_temporaries() {
    let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    for path in in_use.iter() {
        // Another thread may still write into a folder, or remove it too. There is nobody left to tell.
        let gone = || remove(path).is_ok() || fs::symlink_metadata(path).is_err();
        for _ in 0..TRIES {
            if gone() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    std::mem::forget(in_use);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    /// As on a system where every file has a name.
    #[test]
    fn a_file_of_a_random_name_gets_its_own_or_goes() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        let names = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let make = || Temporary::with_name(folder.path().into(), beginning(&target), 0o600).unwrap();
        let temporary = make();
        temporary.file().write_all(b"whole").unwrap();
        let name = names().remove(0).into_string().unwrap();
        assert!(name.starts_with(".x.") && name.ends_with(".tmp") && name.len() == 3 + RANDOM + 4, "{name}");
        drop(temporary);
        assert!(names().is_empty());
        let temporary = make();
        temporary.file().write_all(b"whole").unwrap();
        temporary.rename(&target).unwrap();
        assert_eq!((names(), fs::read_to_string(&target).unwrap()), (vec!["x".into()], "whole".to_owned()));
        assert!(IN_USE.lock().unwrap().iter().all(|path| !path.starts_with(folder.path())));
        // A process that was killed leaves it, and the next removes it.
        std::mem::forget(make());
        assert_eq!(names().len(), 2);
        sweep(&target).unwrap();
        assert_eq!(names(), ["x"]);
    }
}
