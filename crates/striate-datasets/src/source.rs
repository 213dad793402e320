//! From a dataset's name to its files, and from these to pictures.

use crate::catalogue::{Entry, Origin, find};
use crate::formats::{Loaded, missing};
use crate::{DatasetError, download};
use std::path::{Path, PathBuf};
use striate_fetch::{Lock, cache_dir, user_mirror};
use striate_torch::Budget;

/// Told of a download: the file's name, the bytes that are there, and how many there will be if the server says so. Its `false` ends it.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(&str, u64, Option<u64>) -> bool;

/// Where [`load`] looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// A folder with the dataset's files as their publisher, torchvision or Kaggle lays them out,
    /// such as `MNIST/raw/train-images-idx3-ubyte`, `cifar-10-batches-bin/data_batch_1.bin` or
    /// `imagenette2-160/train`. If it is given, nothing is looked for elsewhere, nor downloaded.
    pub root: Option<PathBuf>,
    /// How much memory each file may take to read.
    pub budget: Budget,
}

/// Loads a dataset of the [`catalogue`](crate::catalogue()) by name.
///
/// Its files are looked for in the folder that `options` names, or else where the system's package manager puts them
/// (`/usr/share/datasets`), and in Striate's cache folder. If they are nowhere they are downloaded into the cache, as [`fetch`] does.
///
/// ```no_run
/// use striate_datasets::{LoadOptions, Loaded, load};
/// match load("cifar-10", &LoadOptions::default())? {
///     Loaded::Memory(split) => println!("{:?}", split.train.images().size()), // [50000, 3, 32, 32]
///     Loaded::Files(parts) => println!("{} files", parts.train.files().len()), // such as Imagenette's
/// }
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
///
/// # Errors
///
/// An unknown name, a file that is missing, damaged or cannot be downloaded, or images and labels that do not fit together.
pub fn load(name: &str, options: &LoadOptions) -> Result<Loaded, DatasetError> {
    load_with(name, options, &mut |_, _, _| true)
}

/// As [`load`]. `progress` is told of a download as by [`fetch`]; return `false` from it to stop.
///
/// # Errors
///
/// Those of [`load`], and [`DatasetError::Interrupted`].
pub fn load_with(
    name: &str,
    options: &LoadOptions,
    progress: &mut dyn FnMut(&str, u64, Option<u64>) -> bool,
) -> Result<Loaded, DatasetError> {
    let entry = find(name)?;
    let read = |folder: &Path| {
        let root = entry.format.find(entry, folder).map_err(|file| missing(entry, folder, file))?;
        entry.format.read(entry, folder, &root, &options.budget)
    };
    match (&entry.origin, &options.root) {
        (Origin::Embedded, None) => read(Path::new("")),
        (Origin::Embedded, Some(folder)) => {
            let folder = folder.display();
            Err(DatasetError::option("data folder", format!("{name} is compiled in: leave {folder} out or name another dataset")))
        }
        (_, Some(folder)) => read(folder),
        (_, None) => {
            let places = Places::from_environment()?;
            let folder = obtain(entry, &places, progress)?;
            read(&folder).map_err(|error| advise_to_fetch_again(error, &places.cache))
        }
    }
}

/// Makes sure that the files of a dataset are on this machine, downloading what is missing, and
/// returns their folder; `None` if the dataset is compiled in. Interrupted downloads are gone on
/// with. An archive is unpacked as a whole or not at all, and removed.
///
/// `STRIATE_MIRROR` may name the address of a server that is asked first, for
/// `<address>/<folder>/<file>`; the folder is called like the dataset, or the family that shares
/// its files. A download has to pass its checksum. Fashion-MNIST is also taken from its Debian
/// package, where the tools for that exist.
///
/// `progress` is told the file's name, the bytes that are there, and how many there will be if the
/// server says so; the same of an archive that is unpacked. Return `false` from it to stop; what
/// has come is kept.
///
/// # Errors
///
/// An unknown name, a file that no source gives, a dataset that cannot be downloaded, or
/// [`DatasetError::Interrupted`].
pub fn fetch(name: &str, progress: &mut dyn FnMut(&str, u64, Option<u64>) -> bool) -> Result<Option<PathBuf>, DatasetError> {
    let entry = find(name)?;
    match &entry.origin {
        Origin::Embedded => Ok(None),
        _ => obtain(entry, &Places::from_environment()?, progress).map(Some),
    }
}

/// The places where files may be, apart from a folder that the user names.
#[derive(Debug)]
pub(crate) struct Places {
    /// Holds a folder for each dataset.
    pub(crate) cache: PathBuf,
    /// Where packages of the system are installed: `/`.
    pub(crate) system: PathBuf,
    /// The user's own mirror, with a `/` at its end.
    pub(crate) mirror: Option<String>,
}

impl Places {
    fn from_environment() -> Result<Self, DatasetError> {
        Ok(Self { cache: cache_dir()?.join("datasets"), system: "/".into(), mirror: user_mirror("") })
    }

    /// A folder that has all the files.
    fn find(&self, entry: &Entry) -> Option<PathBuf> {
        let installed = match entry.origin {
            Origin::Files { package: Some(package), .. } => Some(self.system.join(package.folder)),
            _ => None,
        };
        let has_all = |folder: &PathBuf| entry.format.find(entry, folder).is_ok();
        installed.into_iter().chain([self.cache.join(entry.folder)]).find(has_all)
    }
}

/// A folder that has all the files, after downloading if need be.
pub(crate) fn obtain(entry: &'static Entry, places: &Places, progress: Progress) -> Result<PathBuf, DatasetError> {
    if let Some(folder) = places.find(entry) {
        return Ok(folder);
    }
    if let Origin::ByHand = entry.origin {
        return Err(DatasetError::ByHand { name: entry.name, homepage: entry.homepage });
    }
    let waiting = || tracing::info!("waiting for another process that downloads {}", entry.name);
    let lock = Lock::acquire(&places.cache.join(format!(".{}.lock", entry.folder)), waiting)?;
    if let Some(folder) = places.find(entry) {
        return Ok(folder);
    }
    let folder = places.cache.join(entry.folder);
    lock.sweep(&folder)?;
    download::fill(entry, places, &folder, progress)?;
    Ok(folder)
}

/// The same error, with what mends it if the file is one of the cache's.
fn advise_to_fetch_again(error: DatasetError, cache: &Path) -> DatasetError {
    match error {
        DatasetError::Unsound { path, reason, .. } if path.starts_with(cache) => DatasetError::DamagedCache { path, reason },
        DatasetError::Inconsistent { dataset, reason } if Path::new(&dataset).starts_with(cache) => {
            DatasetError::DamagedCache { path: dataset.into(), reason }
        }
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::formats::Mnist;
    use crate::formats::tests::write_mnist;

    fn places(folder: &Path) -> Places {
        Places { cache: folder.join("cache"), system: folder.join("system"), mirror: None }
    }

    #[test]
    fn the_system_and_the_cache_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        let entry = find("fashion-mnist").unwrap();
        let places = places(folder.path());
        assert_eq!(places.find(entry), None);
        let cached = places.cache.join("fashion-mnist");
        write_mnist(&cached, &Mnist::MNIST, ".gz");
        assert_eq!(places.find(entry), Some(cached.clone()));
        let installed = places.system.join("usr/share/datasets/fashion-mnist");
        write_mnist(&installed, &Mnist::MNIST, ".gz");
        assert_eq!(places.find(entry), Some(installed.clone()));
        std::fs::remove_file(installed.join("t10k-images-idx3-ubyte.gz")).unwrap();
        assert_eq!(obtain(entry, &places, &mut |_, _, _| true).unwrap(), cached, "a whole folder is taken");
    }

    #[test]
    fn a_damaged_file_of_the_cache_can_be_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let entry = find("mnist").unwrap();
        let places = places(folder.path());
        let cached = places.cache.join("mnist");
        write_mnist(&cached, &Mnist::MNIST, "");
        let damage = |file: &str, bytes: &[u8]| {
            std::fs::write(cached.join(file), bytes).unwrap();
            let error = entry.format.read(entry, &cached, &cached, &Budget::default()).unwrap_err();
            let error = advise_to_fetch_again(error, &places.cache).to_string();
            assert!(error.contains(file) && error.ends_with("delete it, then try again to download it"), "{error}");
            write_mnist(&cached, &Mnist::MNIST, "");
        };
        damage("train-images-idx3-ubyte", b"\0\0");
        damage("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x02\0\x20");
        let elsewhere = DatasetError::Unsound { path: "/data/x".into(), format: "IDX", reason: "it is empty".into() };
        assert!(!advise_to_fetch_again(elsewhere, &places.cache).to_string().contains("delete"));
    }

    #[test]
    fn what_cannot_be_downloaded_is_told_with_where_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = obtain(find("imagenet").unwrap(), &places(folder.path()), &mut |_, _, _| true).unwrap_err().to_string();
        let expected = "imagenet cannot be downloaded by a program: get it from \
                        https://image-net.org/challenges/LSVRC/2012/, then name its folder";
        assert_eq!(error, expected);
        assert!(!folder.path().join("cache").exists());
    }

    #[test]
    fn what_is_compiled_in_takes_no_folder() {
        let options = LoadOptions { root: Some("/data".into()), ..LoadOptions::default() };
        let error = load("digits", &options).unwrap_err().to_string();
        assert_eq!(error, "data folder: digits is compiled in: leave /data out or name another dataset");
        assert_eq!(load("digits", &LoadOptions::default()).unwrap().in_memory().unwrap().train.labels().numel(), 898);
    }
}
