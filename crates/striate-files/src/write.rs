//! Files that are whole: the former one, or the new one.

use crate::folder::{Made, sync};
use crate::read::NONBLOCK;
use crate::temporary::Temporary;
use crate::{FilesError, fault, no_file, parent};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 16;
/// How long to wait for somebody who reads from a pipe.
const PATIENCE: Duration = Duration::from_secs(1);
/// The rights of a new file, before the umask.
const ORDINARY: u32 = 0o666;
/// The rights of a file that replaces another, until it has that one's.
const PRIVATE: u32 = 0o600;

/// Writes a file so that its name always has the former content or the new one, whole, even after a
/// crash or a power cut: under a temporary name in the same folder, flushed, synced, renamed, and the
/// folder synced. Missing folders are made.
///
/// - A file that is replaced passes on its rights and, as far as the system allows, its owner and
///   group. Without the group, the group's rights are no more than everybody's. Another name of the
///   same file (a hard link) keeps the former content.
/// - A link is followed to the file that it leads to. A link to nothing is replaced.
/// - A pipe or character device is written into, and so is `/dev/stdout`. A pipe that nobody reads
///   is an error after a second.
///
/// # Errors
///
/// What `content` fails with, a folder or other special file, and whatever the system refuses. The
/// former file stays then, and nothing else. Only if the last step fails, syncing the folder, is the
/// new file there already.
pub fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), FilesError> {
    let write = || {
        let former = match fs::metadata(path) {
            Ok(former) => Some(former),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match former {
            Some(former) if is_stream(path, &former) => through(Checked(&stream(path, &former)?), content),
            Some(former) if former.is_file() => replace(&fs::canonicalize(path)?, Some(&former), content),
            Some(former) => Err(no_file(former.file_type())),
            None => replace(path, None, content),
        }
    };
    write().map_err(FilesError::new("write", path))
}

/// Writes a file with this content, as [`write()`] does.
///
/// # Errors
///
/// As [`write()`].
pub fn write_bytes(path: &Path, content: impl AsRef<[u8]>) -> Result<(), FilesError> {
    write(path, |file| file.write_all(content.as_ref()))
}

/// Writes a file into a folder that nobody sees yet, as the one that [`build_folder`](crate::build_folder)
/// makes: it must not exist, has no temporary name, and is on the disk once its folder is. Missing
/// folders are made.
///
/// # Errors
///
/// What `content` fails with, a name that exists, even as a link, and whatever the system refuses.
pub fn write_new(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), FilesError> {
    let write = || {
        fs::create_dir_all(parent(path))?;
        fault::point("create")?;
        through(Checked(&File::create_new(path)?), content)
    };
    write().map_err(FilesError::new("write", path))
}

/// Gives a file another name, in a folder that nobody sees yet: a hard link, which must be in the same file system. A link is
/// followed to the file that it leads to. Missing folders are made.
///
/// # Errors
///
/// A name that exists, even as a link, another file system, and whatever else the system refuses.
pub fn link_new(file: &Path, name: &Path) -> Result<(), FilesError> {
    let link = || {
        fs::create_dir_all(parent(name))?;
        fault::point("create")?;
        fs::hard_link(fs::canonicalize(file)?, name)
    };
    link().map_err(FilesError::new("link", name))
}

/// Gives a file that is whole its final name, in place of what has it: synced, renamed, and the folder
/// synced.
///
/// # Errors
///
/// Whatever the system refuses.
pub fn finish(from: &Path, to: &Path) -> Result<(), FilesError> {
    let finish = || {
        fault::point("sync")?;
        File::open(from)?.sync_data()?;
        fault::point("rename")?;
        fs::rename(from, to)?;
        sync(parent(to))
    };
    finish().map_err(FilesError::new("write", to))
}

fn replace(target: &Path, former: Option<&Metadata>, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = parent(target);
    let made = Made::folders(folder)?;
    let temporary = Temporary::create(target, if former.is_some() { PRIVATE } else { ORDINARY })?;
    if let Some(former) = former {
        take_after(temporary.file(), former)?;
    }
    through(Checked(temporary.file()), content)?;
    fault::point("sync")?;
    // Its size is among what reading it takes; its name comes with the folder.
    temporary.file().sync_data()?;
    temporary.rename(target)?;
    made.keep()?;
    sync(folder)
}

/// Gives a file the owner, the group and the rights of another.
fn take_after(file: &File, former: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    let mut mode = former.mode() & 0o777;
    // Only root may change the owner, and only members may choose a group.
    if now.gid() != former.gid() && fchown(file, None, Some(former.gid())).is_err() {
        mode = mode & !0o070 | (mode & 0o007) << 3 & mode;
    }
    if now.uid() != former.uid() {
        let _ = fchown(file, Some(former.uid()), None);
    }
    // Some file systems have the same rights for all files, and refuse to change them.
    if file.metadata()?.mode() & 0o777 == mode { Ok(()) } else { file.set_permissions(Permissions::from_mode(mode)) }
}

/// Writes through a buffer, whose last part must arrive too.
fn through(file: Checked<'_>, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(BUFFER, file);
    let written = content(&mut file).and_then(|()| file.flush());
    // A failed buffer is not tried again.
    drop(file.into_parts());
    written
}

/// Whether what is there takes bytes and keeps none. What standard output leads to is never replaced, even if it is a file.
fn is_stream(path: &Path, there: &Metadata) -> bool {
    let kind = there.file_type();
    let of_process = || {
        ["/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name))
            || path.starts_with("/dev/fd")
            || path.starts_with("/proc")
    };
    kind.is_fifo() || kind.is_char_device() || kind.is_file() && of_process()
}

fn stream(path: &Path, there: &Metadata) -> io::Result<File> {
    fault::point("create")?;
    let mut options = File::options();
    options.append(true);
    if !there.file_type().is_fifo() {
        return options.open(path);
    }
    // Without waiting forever for somebody who reads.
    let (options, since) = (options.custom_flags(NONBLOCK), Instant::now());
    let pipe = loop {
        match options.open(path) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                if since.elapsed() > PATIENCE {
                    return Err(io::Error::other("it is a pipe that nobody reads: start what reads it first"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => break opened?,
        }
    };
    fcntl_setfl(&pipe, fcntl_getfl(&pipe)? - OFlags::NONBLOCK)?;
    Ok(pipe)
}

/// A file whose writes a test can fail.
pub(crate) struct Checked<'a>(pub(crate) &'a File);

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault::point("write")?;
        self.0.write(bytes)
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
    use std::path::PathBuf;

    fn only(folder: &Path) -> PathBuf {
        let entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    }

    #[test]
    fn a_linked_file_is_the_same_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "x").unwrap();
        symlink(at("file"), at("link")).unwrap();
        link_new(&at("link"), &at("new/name")).unwrap();
        let inode = |name: &str| fs::symlink_metadata(at(name)).unwrap().ino();
        assert_eq!(inode("new/name"), inode("file"));
        let error = link_new(&at("file"), &at("new/name")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot link {}: ", at("new/name").display())), "{error}");
        assert!(link_new(&at("missing"), &at("other")).is_err());
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/x.txt");
        let half = |file: &mut dyn Write| {
            file.write_all(&[0; 100_000])?;
            Err(io::ErrorKind::StorageFull.into())
        };
        let error = write(&path, half).unwrap_err().to_string();
        assert!(error.starts_with("cannot write ") && error.contains("x.txt: "), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        write_bytes(&path, "former").unwrap();
        write(&path, half).unwrap_err();
        assert_eq!(fs::read_to_string(only(path.parent().unwrap())).unwrap(), "former");
        write_bytes(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(only(path.parent().unwrap())).unwrap(), "new");
    }

    #[test]
    fn what_is_written_while_another_writes_is_whole_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        let outer = |file: &mut dyn Write| {
            file.write_all(b"out")?;
            write_bytes(&path, "inner").map_err(|error| error.source)?;
            assert_eq!(fs::read_to_string(&path)?, "inner");
            file.write_all(b"er")
        };
        write(&path, outer).unwrap();
        assert_eq!(fs::read_to_string(only(folder.path())).unwrap(), "outer");
    }

    #[test]
    fn a_new_file_is_an_ordinary_one_and_a_replaced_one_keeps_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ordinary) = (folder.path().join("x"), folder.path().join("ordinary"));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        fs::write(&ordinary, "").unwrap();
        write_bytes(&path, "").unwrap();
        assert_eq!(mode(&path), mode(&ordinary));
        for rights in [0o600, 0o640, 0o444, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(rights)).unwrap();
            write_bytes(&path, "").unwrap();
            assert_eq!(mode(&path), rights);
        }
        // Where this runs as root, of another owner too.
        if std::os::unix::fs::chown(&path, Some(12_345), Some(12_346)).is_ok() {
            write_bytes(&path, "").unwrap();
            let file = fs::metadata(&path).unwrap();
            assert_eq!((file.uid(), file.gid(), mode(&path)), (12_345, 12_346, 0o777));
        }
    }

    #[test]
    fn links_are_followed_and_other_names_of_the_file_keep_what_they_had() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_bytes(&at("store/real"), "former").unwrap();
        symlink("store/real", at("link")).unwrap();
        fs::hard_link(at("store/real"), at("hard")).unwrap();
        write_bytes(&at("link"), "new").unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(only(&at("store"))).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("hard")).unwrap(), "former");
        symlink("nowhere", at("dangling")).unwrap();
        write_bytes(&at("dangling"), "new").unwrap();
        assert!(fs::symlink_metadata(at("dangling")).unwrap().is_file() && !at("nowhere").exists());
        symlink("loop", at("loop")).unwrap();
        write_bytes(&at("loop"), "new").unwrap_err();
        assert!(write_bytes(folder.path(), "").unwrap_err().to_string().ends_with("it is a folder: name a file"));
    }

    #[test]
    fn pipes_and_devices_are_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        crate::tests::make_pipe(&pipe);
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write_bytes(&pipe, vec![7; 300_000]).unwrap();
        assert_eq!(reader.join().unwrap(), vec![7; 300_000]);
        let error = write_bytes(&pipe, "x").unwrap_err().to_string();
        assert!(error.ends_with("it is a pipe that nobody reads: start what reads it first"), "{error}");
        write_bytes(Path::new("/dev/null"), "x").unwrap();
        #[cfg(target_os = "linux")]
        assert_eq!(write_bytes(Path::new("/dev/full"), "x").unwrap_err().source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(only(folder.path()), pipe);
    }
}
