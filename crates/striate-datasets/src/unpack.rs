//! Archives that become a folder, as a whole or not at all.

use crate::DatasetError;
use crate::source::Progress;
use flate2::read::GzDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use striate_torch::{Budget, contained};
use tar::EntryType;

/// What an entry takes on a disk besides its bytes.
const ENTRY: u64 = 512;

/// Unpacks a zip archive, or a tar archive that gzip compressed, into the folder `dest`, in place
/// of what is there. `is_whole` says what an unpacked folder lacks.
pub(crate) fn archive(
    archive: &Path,
    dest: &Path,
    is_whole: impl Fn(&Path) -> Result<(), String>,
    progress: Progress,
) -> Result<(), DatasetError> {
    let damaged = |reason| DatasetError::DamagedCache { path: archive.into(), reason };
    let stopped = Cell::new(false);
    let file = striate_files::open(archive)?;
    let of = file.metadata().map_err(|error| DatasetError::io("read", archive, error))?.len();
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    let watched = Watched { file, name: &name, of, progress, stopped: &stopped };
    let left = Budget::default().of_file(of);
    striate_files::swap_folder(dest, |folder| {
        let target = Target { folder, left };
        let unpacked = contained(
            || match archive.extension().is_some_and(|end| end == "zip") {
                true => zip(watched, target),
                false => tar(watched, target),
            },
            Fault::Archive,
        );
        match unpacked {
            _ if stopped.get() => Err(DatasetError::Interrupted),
            Err(Fault::Archive(reason)) => Err(damaged(reason)),
            Err(Fault::Disk(error)) => Err(error.into()),
            Ok(()) => is_whole(folder).map_err(|file| damaged(format!("it lacks {file}"))),
        }
    })
}

/// Unpacks an archive into the folder `dest`, in place of what is there: a zip archive if its name ends so, and otherwise a tar
/// archive that gzip compressed. The folder is whole or as before.
///
/// # Errors
///
/// An archive that is damaged, that holds far more than its length, or with an entry that is a link or leaves the folder
/// ([`DatasetError::DamagedCache`]), and a disk that fails.
pub fn unpack_archive(path: &Path, dest: &Path) -> Result<(), DatasetError> {
    archive(path, dest, |_| Ok(()), &mut |_, _, _| true)
}

/// Why an archive could not be unpacked.
enum Fault {
    Archive(String),
    Disk(striate_files::FilesError),
}

impl From<striate_files::FilesError> for Fault {
    fn from(error: striate_files::FilesError) -> Self {
        Self::Disk(error)
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Archive(reason)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Archive(error.to_string())
    }
}

impl From<zip::result::ZipError> for Fault {
    fn from(error: zip::result::ZipError) -> Self {
        Self::Archive(error.to_string())
    }
}

fn tar(file: Watched, mut target: Target) -> Result<(), Fault> {
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        match entry.header().entry_type() {
            EntryType::Directory => target.folder(&path)?,
            EntryType::Regular | EntryType::Continuous => target.file(&path, &mut entry)?,
            EntryType::XGlobalHeader => {}
            _ => return Err(refused(&path)),
        }
    }
    Ok(())
}

fn zip(file: Watched, mut target: Target) -> Result<(), Fault> {
    let mut archive = zip::ZipArchive::new(BufReader::new(file))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let path = PathBuf::from(entry.name()?.into_owned());
        match () {
            () if entry.is_symlink() => return Err(refused(&path)),
            () if entry.is_dir() => target.folder(&path)?,
            () => target.file(&path, &mut entry)?,
        }
    }
    Ok(())
}

fn refused(path: &Path) -> Fault {
    format!("{} is no file and no folder", path.display()).into()
}

/// A new folder that is filled. Nothing in it is a link.
struct Target<'a> {
    folder: &'a Path,
    /// Bytes that may still be written.
    left: u64,
}

impl Target<'_> {
    fn folder(&mut self, path: &Path) -> Result<(), Fault> {
        let path = self.inside(path)?;
        Ok(std::fs::create_dir_all(&path).map_err(striate_files::FilesError::new("make", &path))?)
    }

    fn file(&mut self, path: &Path, content: &mut dyn Read) -> Result<(), Fault> {
        let path = self.inside(path)?;
        let (mut written, mut unread) = (0, None);
        let mut content = content.take(self.left + 1);
        striate_files::write_new(&path, |file| {
            let mut buffer = vec![0; 1 << 16];
            loop {
                match content.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => {
                        written += count as u64;
                        file.write_all(&buffer[..count])?;
                    }
                    Err(error) => {
                        unread = Some(error);
                        return Ok(());
                    }
                }
            }
        })?;
        if let Some(error) = unread {
            return Err(error.into());
        }
        self.pay(written)
    }

    /// The entry's path below the folder.
    fn inside(&mut self, path: &Path) -> Result<PathBuf, Fault> {
        self.pay(ENTRY)?;
        let mut inside = self.folder.to_owned();
        for component in path.components() {
            match component {
                Component::Normal(name) => inside.push(name),
                Component::CurDir => {}
                _ => return Err(format!("the path {} leaves the folder", path.display()).into()),
            }
        }
        Ok(inside)
    }

    fn pay(&mut self, bytes: u64) -> Result<(), Fault> {
        self.left =
            self.left.checked_sub(bytes).ok_or_else(|| "it holds far more than a file of its length should".to_owned())?;
        Ok(())
    }
}

/// A file whose reading is told.
struct Watched<'a> {
    file: File,
    name: &'a str,
    of: u64,
    progress: Progress<'a>,
    stopped: &'a Cell<bool>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let done = self.file.stream_position()?;
        if !(self.progress)(&format!("unpacking {}", self.name), done, Some(self.of)) {
            self.stopped.set(true);
            return Err(io::Error::other("stopped"));
        }
        self.file.read(buffer)
    }
}

impl Seek for Watched<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
