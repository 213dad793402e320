//! Folders that are whole or absent, whoever is killed or started twice.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::FetchError;

/// A lock between processes, held until it is dropped. The system releases it when its process dies, so none is ever left over.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock whose file is `path`; when another process holds it, calls `waiting` once and waits.
    ///
    /// The file (and its folder) is created when missing, and stays: removing it would let two processes lock two files of one name.
    ///
    /// # Errors
    ///
    /// [`FetchError::Io`] when the file cannot be created or locked.
    pub fn acquire(path: &Path, waiting: impl FnOnce()) -> Result<Self, FetchError> {
        create_parent(path)?;
        let file = File::options().create(true).append(true).open(path).map_err(|e| FetchError::io("create", path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(|e| FetchError::io("lock", path, e))?;
            }
            Err(TryLockError::Error(e)) => return Err(FetchError::io("lock", path, e)),
        }
        Ok(Self { _file: file })
    }
}

/// How [`install_dir`] found its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// It was built now.
    Now,
    /// It was there, or another process built it meanwhile.
    Before,
}

/// Makes sure that the folder `dest` is there: if not, `build` fills an empty folder beside it, which then gets its name.
///
/// So `dest` is never half of itself. Of several processes one builds, and the others wait (each calls `waiting` once) and find it
/// built. What a killed process left is removed by the next one that builds.
///
/// # Errors
///
/// Whatever `build` fails with (its folder is removed then), or [`FetchError`] when folders cannot be created, locked, or renamed.
pub fn install_dir<E: From<FetchError>>(
    dest: &Path,
    waiting: impl FnOnce(),
    build: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Installed, E> {
    if dest.is_dir() {
        return Ok(Installed::Before);
    }
    let _lock = Lock::acquire(&beside(dest, "lock"), waiting)?;
    if dest.is_dir() {
        return Ok(Installed::Before);
    }
    let unfinished = build_beside(dest, build)?;
    fs::rename(&unfinished, dest).map_err(|e| FetchError::io("rename", &unfinished, e))?;
    Ok(Installed::Now)
}

/// Builds the folder `dest` as [`install_dir`] does, even if it is there: the former one stays until the new one is whole, and then
/// gives way to it.
///
/// # Errors
///
/// As [`install_dir`]; the former folder stays then.
pub fn replace_dir<E: From<FetchError>>(
    dest: &Path,
    waiting: impl FnOnce(),
    build: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let _lock = Lock::acquire(&beside(dest, "lock"), waiting)?;
    let unfinished = build_beside(dest, build)?;
    let former = beside(dest, "old");
    remove_all(&former)?;
    match fs::rename(dest, &former) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(FetchError::io("rename", dest, e).into()),
        _ => {}
    }
    fs::rename(&unfinished, dest).map_err(|e| FetchError::io("rename", &unfinished, e))?;
    Ok(remove_all(&former)?)
}

/// Fills a folder beside `dest`, which it returns; what a killed process left of it goes.
fn build_beside<E: From<FetchError>>(dest: &Path, build: impl FnOnce(&Path) -> Result<(), E>) -> Result<PathBuf, E> {
    let unfinished = beside(dest, "tmp");
    remove_all(&unfinished)?;
    fs::create_dir(&unfinished).map_err(|e| FetchError::io("create", &unfinished, e))?;
    if let Err(error) = build(&unfinished) {
        // The build's own error is the one to report.
        let _ = remove_all(&unfinished);
        return Err(error);
    }
    Ok(unfinished)
}

/// The hidden path `.NAME.EXTENSION` in the folder that holds `dest`.
fn beside(dest: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(dest.file_name().unwrap_or_default());
    name.push(".");
    name.push(extension);
    dest.with_file_name(name)
}

fn remove_all(path: &Path) -> Result<(), FetchError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FetchError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Creates the folder that holds `path`.
pub(crate) fn create_parent(path: &Path) -> Result<(), FetchError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| FetchError::io("create", parent, e))
}
