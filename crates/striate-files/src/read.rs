//! Reading files, and nothing else.

use crate::{FilesError, no_file};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file for reading. A pipe, a device, a socket or a folder is refused at once: a pipe that
/// nobody writes to would never end.
///
/// # Errors
///
/// What is no file, or cannot be opened.
pub fn open(path: &Path) -> Result<File, FilesError> {
    let open = || {
        // Without waiting for somebody who writes into a pipe.
        let file = File::options().read(true).custom_flags(NONBLOCK).open(path)?;
        let kind = file.metadata()?.file_type();
        if kind.is_file() { Ok(file) } else { Err(no_file(kind)) }
    };
    open().map_err(|error: io::Error| match error.raw_os_error() {
        // A socket, or a device that is not there.
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => {
            FilesError { action: "read", path: path.into(), source: io::Error::other("it is a socket or a device: name a file") }
        }
        _ => FilesError { action: "read", path: path.into(), source: error },
    })
}

pub(crate) const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// A file's content; [`open`] says what is refused.
///
/// # Errors
///
/// As [`open`], and a file that cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(FilesError::new("read", path))?;
    Ok(bytes)
}

/// A file's text; [`open`] says what is refused.
///
/// # Errors
///
/// As [`read`], and a file that is no UTF-8.
pub fn read_to_string(path: &Path) -> Result<String, FilesError> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text).map_err(FilesError::new("read", path))?;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
        crate::tests::make_pipe(&pipe);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let told = |path: &Path| open(path).unwrap_err().to_string();
        assert!(told(&pipe).ends_with("pipe: it is a pipe: name a file"), "{}", told(&pipe));
        assert!(told(&socket).ends_with("it is a socket or a device: name a file"), "{}", told(&socket));
        assert!(told(folder.path()).ends_with("it is a folder: name a file"));
        assert!(told(Path::new("/dev/zero")).ends_with("it is a device: name a file"));
        let (looped, file) = (folder.path().join("loop"), folder.path().join("file"));
        std::os::unix::fs::symlink("loop", &looped).unwrap();
        assert!(told(&looped).starts_with("cannot read "));
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read_to_string(&file).unwrap(), "text");
    }
}
