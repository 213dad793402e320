//! Folders that are whole or absent, whoever is killed or started twice.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use striate_files::FilesError;

use crate::FetchError;

/// A lock between processes, held until it is dropped. The system releases it when its process dies, so none is ever left over.
///
/// Some network file systems have no locks. There, two processes may do the same work at once; each still leaves whole files.
#[derive(Debug)]
pub struct Lock {
    /// None where there are no locks.
    file: Option<File>,
}

impl Lock {
    /// Takes the lock whose file is `path`; when another process holds it, calls `waiting` once and waits.
    ///
    /// The file (and its folder) is created when missing, and stays: removing it would let two processes lock two files of one name.
    ///
    /// # Errors
    ///
    /// [`FetchError::Io`] when the file cannot be created.
    pub fn acquire(path: &Path, waiting: impl FnOnce()) -> Result<Self, FetchError> {
        create_parent(path)?;
        let (file, is_new) = striate_files::open_lock(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(|e| FetchError::io("lock", path, e))?;
            }
            Err(TryLockError::Error(_)) => {
                if is_new {
                    fs::remove_file(path).map_err(|e| FetchError::io("remove", path, e))?;
                }
                return Ok(Self { file: None });
            }
        }
        Ok(Self { file: Some(file) })
    }
}

impl Lock {
    /// Removes what a killed process left of `dest`, if nobody else can be at work on it.
    ///
    /// # Errors
    ///
    /// [`FetchError::Io`] when that cannot be removed.
    pub fn sweep(&self, dest: &Path) -> Result<(), FetchError> {
        if self.file.is_some() { Ok(striate_files::sweep(dest)?) } else { Ok(()) }
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
    let lock = Lock::acquire(&beside(dest, "lock"), waiting)?;
    if dest.is_dir() {
        return Ok(Installed::Before);
    }
    lock.sweep(dest)?;
    striate_files::build_folder(dest, |folder| build(folder).map_err(Failed::Build)).map_err(Failed::into)?;
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
    let lock = Lock::acquire(&beside(dest, "lock"), waiting)?;
    lock.sweep(dest)?;
    striate_files::swap_folder(dest, |folder| build(folder).map_err(Failed::Build)).map_err(Failed::into)
}

/// What building a folder fails with, until it is the caller's error.
enum Failed<E> {
    Build(E),
    Files(FilesError),
}

impl<E> From<FilesError> for Failed<E> {
    fn from(error: FilesError) -> Self {
        Self::Files(error)
    }
}

impl<E: From<FetchError>> Failed<E> {
    fn into(self) -> E {
        match self {
            Self::Build(error) => error,
            Self::Files(error) => FetchError::from(error).into(),
        }
    }
}

/// The hidden path `.NAME.EXTENSION` in the folder that holds `dest`.
fn beside(dest: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(dest.file_name().unwrap_or_default());
    name.push(".");
    name.push(extension);
    dest.with_file_name(name)
}

/// Creates the folder that holds `path`.
pub(crate) fn create_parent(path: &Path) -> Result<(), FetchError> {
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(striate_files::create_folder(parent)?)
}
