//! Everything that Striate downloads goes through this crate: it links no libtorch, so that the installer can use it too.
//!
//! - [`cache_dir`] is the one folder in which Striate keeps what it downloads;
//! - [`Download`] gets one file from the first mirror that has it, goes on with a download that was cut off, and verifies the result;
//! - [`install_dir`] builds a folder that is either whole or absent, however often it is killed or started twice at once.
//!
//! ```no_run
//! use striate_fetch::{Download, cache_dir, install_dir};
//!
//! # fn main() -> Result<(), striate_fetch::FetchError> {
//! let cache = cache_dir()?;
//! install_dir(&cache.join("example"), || eprintln!("waiting for another process"), |folder| {
//!     Download::new(["https://example.org/data.gz"], folder.join("data.gz"))
//!         .sha256("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888")
//!         .fetch(&mut |done, total| {
//!             eprintln!("{done} of {total:?} bytes");
//!             true // go on
//!         })
//! })?;
//! # Ok(())
//! # }
//! ```

mod checksum;
mod download;
mod error;
mod install;

use std::{env, path::PathBuf};

pub use checksum::{sha256_file, sha256_reader};
pub use download::Download;
pub use error::{FetchError, public_address};
pub use install::{Installed, Lock, install_dir, replace_dir};

/// The folder in which Striate keeps what it downloads: `STRIATE_HOME`, or else `striate` in the user's cache folder
/// (`$XDG_CACHE_HOME` or `~/.cache` on Linux, `~/Library/Caches` on macOS). It is not created here.
///
/// # Errors
///
/// [`FetchError::NoCacheDir`] when there is neither `STRIATE_HOME` nor a home folder.
pub fn cache_dir() -> Result<PathBuf, FetchError> {
    striate_files::cache_folder().ok_or(FetchError::NoCacheDir)
}

/// The address of `path` on the user's own mirror, when `STRIATE_MIRROR` names one: put it before a file's public addresses.
///
/// `path` is the file's place in the mirror, such as `fashion-mnist/train-images-idx3-ubyte.gz`.
#[must_use]
pub fn user_mirror(path: &str) -> Option<String> {
    let base = env::var("STRIATE_MIRROR").ok().filter(|base| !base.is_empty())?;
    Some(format!("{}/{path}", base.trim_end_matches('/')))
}
