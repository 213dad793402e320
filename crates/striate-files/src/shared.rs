//! Files of fixed names in folders that others may write to as well.

use crate::read::NONBLOCK;
use crate::write::Checked;
use crate::{FilesError, no_file};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Links at the end of a path are not followed.
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Opens a file to lock it, and makes it if it is missing; also says whether it did.
///
/// # Errors
///
/// What is no file, even a link to one, and whatever the system refuses.
pub fn open_lock(path: &Path) -> Result<(File, bool), FilesError> {
    let open = || {
        let mut options = File::options();
        options.append(true).custom_flags(NONBLOCK | NOFOLLOW);
        let (file, is_new) = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options.open(path)?, false),
            made => (made?, true),
        };
        let kind = file.metadata()?.file_type();
        if kind.is_file() { Ok((file, is_new)) } else { Err(no_file(kind)) }
    };
    open().map_err(FilesError::new("lock", path))
}

/// Opens a file to go on writing at its end, or makes it. Only a file of this user's that has no
/// other name is gone on with: a link, a pipe or somebody else's file is removed, and a new one made.
///
/// # Errors
///
/// What cannot be opened or removed.
pub fn open_part(path: &Path) -> Result<PartFile, FilesError> {
    let open = || {
        let mut options = File::options();
        options.append(true).custom_flags(NONBLOCK | NOFOLLOW);
        if let Ok(file) = options.open(path)
            && is_ours(&file.metadata()?)
        {
            return Ok(PartFile(file));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        crate::fault::point("create")?;
        options.create_new(true).open(path).map(PartFile)
    };
    open().map_err(FilesError::new("write", path))
}

/// Bytes of the file that [`open_part`] would go on with: 0 if it would make a new one.
pub fn part_len(path: &Path) -> u64 {
    fs::symlink_metadata(path).ok().filter(is_ours).map_or(0, |file| file.len())
}

fn is_ours(there: &Metadata) -> bool {
    there.is_file() && there.nlink() == 1 && there.uid() == rustix::process::geteuid().as_raw()
}

/// A file that grows until it is whole, and then gets its name by [`finish`](crate::finish).
#[derive(Debug)]
pub struct PartFile(File);

impl PartFile {
    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Checked(&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_others_put_at_a_fixed_name_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        symlink("victim", at("soft")).unwrap();
        symlink("elsewhere", at("dangling")).unwrap();
        fs::hard_link(at("victim"), at("hard")).unwrap();
        crate::tests::make_pipe(at("pipe"));
        for name in ["soft", "dangling", "hard", "pipe", "new"] {
            open_part(&at(name)).unwrap().write_all(b"part").unwrap();
            open_part(&at(name)).unwrap().write_all(b" and more").unwrap();
            assert!(fs::symlink_metadata(at(name)).unwrap().is_file());
            assert_eq!(fs::read_to_string(at(name)).unwrap(), "part and more", "{name}");
        }
        assert!(fs::read_to_string(at("victim")).unwrap() == "precious" && !at("elsewhere").exists());
        assert!(open_part(folder.path()).is_err());
    }

    #[test]
    fn a_lock_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(open_lock(&at("lock")).unwrap().1 && !open_lock(&at("lock")).unwrap().1);
        symlink("elsewhere", at("dangling")).unwrap();
        crate::tests::make_pipe(at("pipe"));
        assert!(open_lock(&at("dangling")).is_err() && !at("elsewhere").exists());
        assert!(open_lock(&at("pipe")).unwrap_err().to_string().starts_with("cannot lock "));
    }
}
