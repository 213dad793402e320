//! Everything that Striate writes goes through this crate, and so do files that it opens for reading.
//!
//! - [`write()`] writes a file: after a crash at any moment, its name has the former content or the new
//!   one, never a part of it.
//! - [`build_folder`] does the same for a folder.
//! - [`Lines`] is a log that grows by whole lines, and [`Records`] one that grows by records of bytes.
//! - [`open`] opens a file, and refuses pipes, devices and folders instead of waiting for them.
//! - [`cache_folder`] is where files lie that can be had again.
//!
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("answer.txt");
//! striate_files::write(&path, |file| writeln!(file, "42"))?;
//! assert_eq!(striate_files::read_to_string(&path)?, "42\n");
//! # Ok::<(), striate_files::FilesError>(())
//! ```
//!
//! Temporary files have no name at all where the system can do that (Linux), and otherwise a random
//! one that must not exist. So nobody can put something in their place. They vanish if the work
//! fails. A program that has to end at once calls [`remove_temporaries`] first.
//!
//! # Tests of failures
//!
//! In debug builds, the environment variable `STRIATE_FAULT=N` makes the `N`th operation of each
//! thread fail (creating, writing, syncing, renaming, making a folder), and `STRIATE_FAULT=N+` all
//! from the `N`th on. The first that fails is told on standard error, in a line that begins with
//! `injected fault`. `inject_fault` does the same within a test.

mod fault;
mod folder;
mod lines;
pub mod path;
mod read;
mod shared;
mod temporary;
mod write;

use std::path::{Path, PathBuf};
use std::{env, io};

#[cfg(debug_assertions)]
pub use fault::{faults_done, inject_fault};
pub use folder::{build_folder, create_folder, fill_folder, swap_folder, sync_folder};
pub use lines::{Lines, Records};
pub use read::{open, read, read_to_string};
pub use shared::{PartFile, open_lock, open_part, part_len};
pub use temporary::{remove_temporaries, sweep};
pub use write::{finish, link_new, write, write_bytes, write_new};

/// The folder in which Striate keeps what it can have again, such as downloads: `STRIATE_HOME`, or else
/// `striate` in the user's cache folder. `None` when there is neither that nor a home folder. It is not
/// created here.
pub fn cache_folder() -> Option<PathBuf> {
    match env::var_os("STRIATE_HOME").filter(|home| !home.is_empty()) {
        // Absolute, since the path outlives the working directory: it is written into configuration files.
        Some(home) => std::path::absolute(home).ok(),
        None => dirs::cache_dir().map(|cache| cache.join("striate")),
    }
}

/// Why a file or folder could not be read or written: one line that names it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FilesError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

impl FilesError {
    /// For `map_err`.
    pub fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.into(), source }
    }
}

/// What an error says of a path that leads to no file.
fn no_file(kind: std::fs::FileType) -> io::Error {
    use std::os::unix::fs::FileTypeExt;
    let what = match () {
        () if kind.is_dir() => "it is a folder",
        () if kind.is_fifo() => "it is a pipe",
        () if kind.is_socket() => "it is a socket",
        () => "it is a device",
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: name a file"))
}

/// The folder that holds `path`.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    pub(crate) fn make_pipe(path: impl AsRef<Path>) {
        assert!(std::process::Command::new("mkfifo").arg(path.as_ref()).status().unwrap().success());
    }
}
