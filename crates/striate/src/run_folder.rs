//! The folder of a run: its files, and who may write them.
use crate::Error;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use striate_files::FilesError;
use striate_train::{BEST, LAST, ROLLBACK, event_files, kept_checkpoints, sweep_kept};

/// The bundle of the weights at the end of a run, in its folder.
pub const BUNDLE: &str = "model.safetensors";
/// The resolved recipe in a run's folder.
pub const RECIPE: &str = "recipe.toml";
/// The page of a finished run, where one was made.
pub const REPORT: &str = "report.html";
/// The results of a finished run, the last file that it writes.
pub(crate) const SUMMARY: &str = "summary.json";
/// The events of a run.
pub(crate) const METRICS: &str = "metrics.jsonl";
/// Its epochs as a table.
pub(crate) const METRICS_CSV: &str = "metrics.csv";

/// A run's folder, which no other process writes to as long as this lives.
pub(crate) struct Claim {
    folder: PathBuf,
    is_new: bool,
    _lock: File,
}

impl Claim {
    /// Claims a folder, and makes it if it is missing.
    pub(crate) fn of(folder: &Path) -> Result<Self, Error> {
        let is_new = !folder.exists();
        striate_files::create_folder(folder).map_err(|error| unwritable(folder, &error.source))?;
        Self::lock(folder.into(), is_new)
    }

    /// Claims a new folder for runs of this name.
    pub(crate) fn of_new(name: &str) -> Result<Self, Error> {
        let folder = new_folder("runs", name).map_err(|error| unwritable(Path::new("runs"), &error))?;
        Self::lock(folder, true)
    }

    /// What one that was killed left of a file is removed.
    fn lock(folder: PathBuf, is_new: bool) -> Result<Self, Error> {
        let lock = File::open(&folder).map_err(|error| unwritable(&folder, &error))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Folder { path: folder, reason: "is in use: another process trains there".to_owned() });
            }
            Ok(()) => {
                for file in [RECIPE, METRICS, METRICS_CSV, LAST, ROLLBACK, BEST, BUNDLE, SUMMARY, REPORT] {
                    striate_files::sweep(&folder.join(file))?;
                }
                sweep_kept(&folder)?;
            }
            // Where a folder can't be locked, nobody can.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(Self { folder, is_new, _lock: lock })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the first files of a new run. What one that died before its first checkpoint left is replaced.
    pub(crate) fn begin(self, recipe: &str) -> Result<Self, Error> {
        let begun = self.write(recipe);
        if begun.is_err() && self.is_new {
            // Nothing is in it. The first error is the one to tell.
            let _ = std::fs::remove_dir(&self.folder);
        }
        begun.map(|()| self)
    }

    fn write(&self, recipe: &str) -> Result<(), Error> {
        let has = |file: &str| self.folder.join(file).exists();
        if has(LAST) || has(BEST) {
            return Err(Error::Folder {
                path: self.folder.clone(),
                reason: "holds a run already: resume it, or take another folder".to_owned(),
            });
        }
        if has(METRICS) {
            striate_files::write_bytes(&self.folder.join(METRICS), "")?;
        }
        for path in kept_checkpoints(&self.folder)?.into_iter().chain(event_files(&self.folder)?) {
            std::fs::remove_file(&path).map_err(FilesError::new("remove", &path))?;
        }
        Ok(striate_files::write_bytes(&self.folder.join(RECIPE), recipe)?)
    }
}

fn unwritable(folder: &Path, error: &std::io::Error) -> Error {
    Error::Folder { path: folder.into(), reason: format!("cannot be written to: {error}") }
}

/// Makes the first of `PARENT/NAME-1`, `PARENT/NAME-2`, ... that does not exist.
///
/// # Errors
///
/// A folder that cannot be made.
pub fn new_folder(parent: &str, name: &str) -> std::io::Result<PathBuf> {
    striate_files::create_folder(Path::new(parent)).map_err(|error| error.source)?;
    let mut number = 1;
    loop {
        let folder = Path::new(parent).join(format!("{name}-{number}"));
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            made => return made.map(|()| folder),
        }
    }
}
