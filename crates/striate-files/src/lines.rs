//! Logs that grow by whole records, such as lines.

use crate::read::NONBLOCK;
use crate::write::Checked;
use crate::{FilesError, fault, no_file};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 13;

/// A file that grows by whole records, at its end.
///
/// Records wait in memory until [`flush`](Self::flush), or until there are many.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    file: File,
    /// Where the next record begins.
    end: u64,
    pending: Vec<u8>,
}

impl Records {
    /// Makes a file, which must not exist.
    ///
    /// # Errors
    ///
    /// A name that exists, and whatever the system refuses.
    pub fn create_new(path: &Path) -> Result<Self, FilesError> {
        let create = || {
            fault::point("create")?;
            File::options().create_new(true).append(true).open(path)
        };
        let file = create().map_err(FilesError::new("write", path))?;
        Ok(Self { path: path.into(), file, end: 0, pending: Vec::new() })
    }

    /// Adds a record as it is.
    ///
    /// # Errors
    ///
    /// Those of [`flush`](Self::flush).
    pub fn write(&mut self, record: impl AsRef<[u8]>) -> Result<(), FilesError> {
        self.pending.extend_from_slice(record.as_ref());
        if self.pending.len() < BUFFER { Ok(()) } else { self.flush() }
    }

    /// Hands all records to the system, so that they survive this process.
    ///
    /// # Errors
    ///
    /// A disk that is full or fails; the records that were waiting are lost then.
    pub fn flush(&mut self) -> Result<(), FilesError> {
        let pending = std::mem::take(&mut self.pending);
        if let Err(error) = Checked(&self.file).write_all(&pending) {
            // What cannot be cut off now is cut off by the next who opens it.
            let _ = self.file.set_len(self.end);
            return Err(FilesError::new("write", &self.path)(error));
        }
        self.end += pending.len() as u64;
        Ok(())
    }

    /// Hands all records to the disk, so that they survive a power cut.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub fn sync(&mut self) -> Result<(), FilesError> {
        self.flush()?;
        let synced = fault::point("sync").and_then(|()| self.file.sync_data());
        synced.map_err(FilesError::new("write", &self.path))
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // Whoever must know calls `flush`.
        let _ = self.flush();
    }
}

/// A file that lines are added to. It never holds a part of one, unless the machine fails in the
/// middle of writing it: then the next who opens it cuts that part off.
///
/// Lines wait in memory until [`flush`](Self::flush), or until there are many.
#[derive(Debug)]
pub struct Lines(Records);

impl Lines {
    /// Opens a file, or makes it, to write at its end; also gives what it holds. A part of a line at
    /// its end is cut off.
    ///
    /// # Errors
    ///
    /// What is no file, or cannot be opened.
    pub fn append(path: &Path) -> Result<(Self, Vec<u8>), FilesError> {
        let open = || {
            fault::point("create")?;
            let mut file = File::options().create(true).read(true).append(true).custom_flags(NONBLOCK).open(path)?;
            let kind = file.metadata()?.file_type();
            if !kind.is_file() {
                return Err(no_file(kind));
            }
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            if whole < text.len() {
                file.set_len(whole as u64)?;
                text.truncate(whole);
            }
            Ok((Self(Records { path: path.into(), file, end: whole as u64, pending: Vec::new() }), text))
        };
        open().map_err(FilesError::new("write", path))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The file, to lock it.
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// Adds a line, whose end it adds too.
    ///
    /// # Errors
    ///
    /// Those of [`flush`](Self::flush).
    pub fn write(&mut self, line: impl AsRef<[u8]>) -> Result<(), FilesError> {
        self.0.pending.extend_from_slice(line.as_ref());
        self.0.write(b"\n")
    }

    /// Hands all lines to the system, as [`Records::flush`] does.
    ///
    /// # Errors
    ///
    /// As [`Records::flush`].
    pub fn flush(&mut self) -> Result<(), FilesError> {
        self.0.flush()
    }

    /// Hands all lines to the disk, as [`Records::sync`] does.
    ///
    /// # Errors
    ///
    /// As [`Records::sync`].
    pub fn sync(&mut self) -> Result<(), FilesError> {
        self.0.sync()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_log_holds_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "one\ntw").unwrap();
        let (mut log, text) = Lines::append(&path).unwrap();
        assert_eq!(text, b"one\n");
        log.write("three").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
        log.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nthree\n");
        let line = "x".repeat(999);
        (0..20).for_each(|_| log.write(&line).unwrap());
        // As a kill does, this drops what is in memory.
        std::mem::forget(log);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() > 10 && text.lines().skip(2).all(|read| read == line));
        assert!(Lines::append(folder.path()).is_err() && Lines::append(Path::new("/dev/null")).is_err());
    }
}
