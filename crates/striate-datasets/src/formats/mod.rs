//! The formats of the catalogue's datasets. A new one is a file here with its [`Format`].

mod cifar;
mod class_folders;
mod digits;
mod food101;
mod imagenet;
mod mat;
mod mnist;
mod stl10;
mod svhn;

pub use digits::digits;

pub(crate) use cifar::Cifar;
pub(crate) use class_folders::ClassFolders;
pub(crate) use digits::Digits;
pub(crate) use food101::Food101;
pub(crate) use imagenet::ImageNet;
pub(crate) use mnist::Mnist;
pub(crate) use stl10::Stl10;
pub(crate) use svhn::Svhn;

use crate::catalogue::Entry;
use crate::dataset::check_labels;
use crate::{Dataset, DatasetError, FolderParts, ImageSize, InMemory, Interpolation, Normalise, Preprocess, Split};
use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use striate_torch::{Budget, note_file};
use tch::{Device, Kind, Tensor};

/// Bytes of pixels that are read at a time.
const CHUNK: usize = 4 << 20;

/// How a dataset lies in files.
pub(crate) trait Format: Debug + Sync {
    /// The folder with the files, below the one that was named or at one of the entry's places in
    /// it. The error is the name of a file that is missing.
    fn find(&self, entry: &Entry, folder: &Path) -> Result<PathBuf, String>;

    /// Reads the dataset from `root`, which [`find`](Self::find) found in `folder`. A file may take
    /// as much memory as `budget` says.
    fn read(&self, entry: &'static Entry, folder: &Path, root: &Path, budget: &Budget) -> Result<Loaded, DatasetError>;
}

/// A dataset of the catalogue, as [`load`](crate::load) gives it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for a dataset")]
pub enum Loaded {
    /// Its pictures are in memory.
    Memory(Split),
    /// Its pictures are files, which are decoded when they are needed.
    Files(FolderParts),
}

impl Loaded {
    /// The parts of a dataset whose pictures are in memory.
    ///
    /// # Errors
    ///
    /// A dataset of files.
    pub fn in_memory(self) -> Result<Split, DatasetError> {
        match self {
            Self::Memory(split) => Ok(split),
            Self::Files(parts) => {
                let reason =
                    format!("{} has its pictures in files, not in memory: name their folder instead", parts.train.name());
                Err(DatasetError::option("dataset", reason))
            }
        }
    }
}

/// The first of the entry's places in `folder` that has all of `files`, which are no empty ones.
fn find_files(entry: &Entry, folder: &Path, files: &[&str]) -> Result<PathBuf, String> {
    let missing = |root: &Path| files.iter().find(|file| !holds_something(&root.join(file))).map(|file| (*file).to_owned());
    match entry.inside(folder).find(|root| missing(root).is_none()) {
        Some(root) => Ok(root),
        None => {
            let missing = entry.inside(folder).filter_map(|root| missing(&root));
            // Of a place that has some of the files, what it lacks; the places come after the
            // folder itself.
            Err(missing.max_by_key(|file| files.iter().position(|known| known == file)).unwrap_or_default())
        }
    }
}

fn holds_something(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.len() > 0)
}

/// A folder that was named lacks a file.
pub(crate) fn missing(entry: &Entry, folder: &Path, file: String) -> DatasetError {
    DatasetError::MissingFile { name: entry.name, folder: folder.into(), file }
}

/// Opens a file of a format, and says how long it is.
fn open(path: &Path) -> Result<(File, u64), DatasetError> {
    note_file(path);
    let file = striate_files::open(path)?;
    let length = file.metadata().map_err(|error| DatasetError::io("read", path, error))?.len();
    Ok((file, length))
}

/// Pictures of one size that are put together piece by piece: [`InMemory`] takes them as they lie.
struct Gathered {
    /// `[N, H, W, C]`, uint8.
    pixels: Tensor,
    done: i64,
}

impl Gathered {
    fn new([channels, height, width]: [i64; 3], count: u64) -> Result<Self, DatasetError> {
        let count = count.cast_signed();
        Ok(Self { pixels: Tensor::f_empty([count, height, width, channels], (Kind::Uint8, Device::Cpu))?, done: 0 })
    }

    /// Adds pictures: `[B, C, H, W]`, uint8.
    fn add(&mut self, images: &Tensor) -> Result<(), DatasetError> {
        let count = images.size()[0];
        self.pixels.f_narrow(0, self.done, count)?.f_copy_(&images.f_permute([0, 2, 3, 1])?)?;
        self.done += count;
        Ok(())
    }

    /// All pictures, `[N, C, H, W]`.
    fn finish(self) -> Result<Tensor, DatasetError> {
        Ok(self.pixels.f_permute([0, 3, 1, 2])?)
    }
}

/// Reads `count` records of `size` bytes, and gives `each` some of them at a time: `[B, size]`,
/// uint8.
fn in_chunks(
    mut reader: impl Read,
    size: usize,
    mut count: u64,
    mut each: impl FnMut(Tensor) -> Result<(), DatasetError>,
) -> Result<std::io::Result<()>, DatasetError> {
    let at_once = (CHUNK / size).max(1);
    let mut buffer = vec![0; size * at_once.min(count.try_into().unwrap_or(at_once))];
    while count > 0 {
        let now = at_once.min(count.try_into().unwrap_or(at_once));
        let bytes = &mut buffer[..size * now];
        if let Err(error) = reader.read_exact(bytes) {
            return Ok(Err(error));
        }
        each(Tensor::f_from_data_size(bytes, &[now as i64, size as i64], Kind::Uint8)?)?;
        count -= now as u64;
    }
    Ok(Ok(()))
}

/// A part in memory, of files whose labels may be out of range.
fn in_memory(entry: &'static Entry, images: Tensor, labels: &[i64], from: &Path) -> Result<InMemory, DatasetError> {
    let labels = Tensor::f_from_slice(labels)?;
    let classes = entry.classes();
    check_labels(&from.display().to_string(), &labels, classes.len())?;
    InMemory::new(entry.name, images, &labels, classes)
}

/// Files in their own sizes: what a network makes of them follows from its input.
fn whole() -> Preprocess {
    Preprocess {
        image: ImageSize::ShorterSide { shorter_side: 1 },
        input: [3, 1, 1],
        normalise: Normalise::identity(),
        interpolation: Interpolation::default(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::{LoadOptions, load};

    pub(crate) use super::mnist::tests::write_mnist;

    /// A dataset from a folder.
    pub(super) fn load_from(name: &str, root: &Path) -> Result<Loaded, DatasetError> {
        load(name, &LoadOptions { root: Some(root.into()), ..LoadOptions::default() })
    }

    /// A dataset from a folder, in memory.
    pub(super) fn split(name: &str, root: &Path) -> Split {
        load_from(name, root).unwrap().in_memory().unwrap()
    }

    /// What loading a dataset fails with.
    pub(super) fn fault(name: &str, root: &Path) -> String {
        let error = load_from(name, root).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    pub(super) fn labels(data: &InMemory) -> Vec<i64> {
        data.labels().try_into().unwrap()
    }

    /// The value of a picture at a channel, row and column.
    pub(super) fn at(data: &InMemory, place: [i64; 4]) -> u8 {
        u8::try_from(data.images().int64_value(&place)).unwrap()
    }

    #[test]
    fn pieces_of_any_size_make_the_whole() {
        let bytes: Vec<u8> = (0..60).collect();
        for size in [3, 5, 12] {
            let mut seen = Vec::new();
            let read = in_chunks(&bytes[..], size, 60 / size as u64, |chunk| {
                assert_eq!(chunk.size()[1], size as i64);
                seen.extend(Vec::<u8>::try_from(chunk.flatten(0, -1)).unwrap());
                Ok(())
            });
            read.unwrap().unwrap();
            assert_eq!(seen, bytes);
        }
        let cut = in_chunks(&bytes[..], 7, 9, |_| Ok(())).unwrap().unwrap_err();
        assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_file_that_a_place_lacks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("cifar-10-batches-bin");
        let expected =
            |file: &str| format!("{} has no {file}: name the folder that holds the files of cifar-10", folder.path().display());
        assert_eq!(fault("cifar-10", folder.path()), expected("data_batch_1.bin"));
        std::fs::create_dir(&inner).unwrap();
        for batch in 1..5 {
            std::fs::write(inner.join(format!("data_batch_{batch}.bin")), [0; 3073]).unwrap();
        }
        std::fs::write(inner.join("data_batch_5.bin"), "").unwrap();
        assert_eq!(fault("cifar-10", folder.path()), expected("data_batch_5.bin"), "an empty one is none");
    }

    #[test]
    fn files_are_no_pictures_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        for part in ["train", "val"] {
            crate::folder::tests::write(&folder.path().join(part).join("n01440764/1.JPEG"), [4, 4], 9);
        }
        let error = load_from("imagenette-160", folder.path()).unwrap().in_memory().unwrap_err().to_string();
        assert_eq!(error, "dataset: imagenette-160 has its pictures in files, not in memory: name their folder instead");
    }
}
