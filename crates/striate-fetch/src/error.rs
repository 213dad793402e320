//! What can go wrong, each in one line that says what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use striate_files::FilesError;

/// Why something could not be downloaded or installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no place to keep downloads.
    #[error("no home folder is known: set STRIATE_HOME to a folder for downloads")]
    NoCacheDir,

    /// The disk has no room left.
    #[error("the disk that holds {path} is full: free some space, or set STRIATE_HOME to a folder on another disk")]
    DiskFull {
        /// The file or folder that was being written.
        path: PathBuf,
    },

    /// A file or folder could not be read, written, moved or locked.
    #[error("cannot {action} {path}: {reason}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },

    /// The server could not be reached, or did not speak HTTP.
    #[error("cannot reach {}: {reason}", public_address(url))]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why not.
        reason: String,
    },

    /// The server does not give the file.
    #[error("{} answers with HTTP status {status}", public_address(url))]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status code.
        status: u16,
    },

    /// The connection broke again and again. What had come is kept, and the next attempt goes on from there.
    #[error("{} was cut off after {done} bytes ({reason}): try again to resume it", public_address(url))]
    CutOff {
        /// What was asked for.
        url: String,
        /// The bytes that are there.
        done: u64,
        /// Why it broke.
        reason: String,
    },

    /// The file is another one than was expected; it was removed.
    #[error(
        "{} has SHA-256 {actual} where {expected} is expected: the file was removed, try another mirror",
        public_address(url)
    )]
    WrongChecksum {
        /// Where the file came from.
        url: String,
        /// The checksum that it should have.
        expected: String,
        /// The checksum that it has.
        actual: String,
    },

    /// The file has another size than was expected; it was removed.
    #[error("{} has {actual} bytes where {expected} are expected: the file was removed, try another mirror", public_address(url))]
    WrongSize {
        /// Where the file came from.
        url: String,
        /// The size that it should have, in bytes.
        expected: u64,
        /// The size that it has, in bytes.
        actual: u64,
    },

    /// The caller ended it. What had come is kept, and the next attempt goes on from there.
    #[error("stopped while downloading; the same command goes on where it was")]
    Stopped,

    /// None of several mirrors gave the file.
    #[error(
        "no mirror gave {file}: {}; check the network, or set STRIATE_MIRROR to the address of a server that has it",
        .reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    AllMirrorsFailed {
        /// The name of the file.
        file: String,
        /// One reason a mirror, in the order in which they were tried.
        reasons: Vec<FetchError>,
    },
}

impl From<FilesError> for FetchError {
    fn from(FilesError { action, path, source }: FilesError) -> Self {
        Self::io(action, &path, source)
    }
}

impl FetchError {
    /// The error for a failed operation on `path`; a full disk has its own.
    pub fn io(action: &'static str, path: &Path, reason: io::Error) -> Self {
        match reason.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { action, path: path.to_owned(), reason },
        }
    }

    /// Whether the disk or the caller ended it: what the user can change, where otherwise a server or the network failed.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Io { .. } | Self::NoCacheDir | Self::Stopped)
    }

    /// Whether another mirror may do better: not when this machine's own disk is at fault.
    pub(crate) fn is_the_mirrors(&self) -> bool {
        !self.is_local()
    }
}

/// An address without what may be secret in it: a user's name and password, and the query, where signed addresses have their
/// signature.
///
/// ```
/// let address = "https://me:secret@example.org/a/x.tar?signature=1234";
/// assert_eq!(striate_fetch::public_address(address), "https://example.org/a/x.tar");
/// ```
pub fn public_address(url: &str) -> String {
    let place = url.split(['?', '#']).next().unwrap_or(url);
    let Some((scheme, rest)) = place.split_once("://") else { return place.to_owned() };
    let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let server = server.rsplit_once('@').map_or(server, |(_, server)| server);
    format!("{scheme}://{server}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_what_is_secret_in_an_address() {
        let told = |url: &str| FetchError::Status { url: url.to_owned(), status: 403 }.to_string();
        let expected = "https://example.org:80/a/x.tar answers with HTTP status 403";
        for url in ["", "me:pass@word@", "me@"].map(|user| format!("https://{user}example.org:80/a/x.tar")) {
            assert_eq!(told(&url), expected);
            assert_eq!(told(&format!("{url}?signature=a/b@c://d#e")), expected);
        }
        assert_eq!(told("https://me:secret@example.org"), "https://example.org answers with HTTP status 403");
    }
}
