//! From a dataset's name to its files, and from these to tensors.

use crate::catalogue::{Entry, IdxSource, Source, find};
use crate::dataset::check_labels;
use crate::{DatasetError, InMemory, Split, digits, download, idx};
use std::path::{Path, PathBuf};
use striate_fetch::{Lock, cache_dir, user_mirror};
use striate_torch::Budget;
use tch::Kind;

/// Told of a download: the file's name, the bytes that are there, and how many there will be if the server says so. Its `false` ends it.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(&str, u64, Option<u64>) -> bool;

/// Where [`load`] looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// A folder with the dataset's four files, compressed or not, under any name in use
    /// (`train-images-idx3-ubyte`, `train-images.idx3-ubyte`), or laid out as by torchvision
    /// (`MNIST/raw`) or Kaggle. If it is given, nothing is looked for elsewhere, nor downloaded.
    pub root: Option<PathBuf>,
    /// How much memory each file may take to read.
    pub budget: Budget,
}

/// Loads a dataset of the [`catalogue`](crate::catalogue()) by name.
///
/// Its files are looked for in the folder that `options` names, or else where the system's package manager puts them
/// (`/usr/share/datasets`), and in Striate's cache folder. If they are nowhere they are downloaded into the cache, as [`fetch`] does.
///
/// # Errors
///
/// An unknown name, a file that is missing, damaged or cannot be downloaded, or images and labels that do not fit together.
pub fn load(name: &str, options: &LoadOptions) -> Result<Split, DatasetError> {
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
) -> Result<Split, DatasetError> {
    let entry = find(name)?;
    match (&entry.source, &options.root) {
        (Source::Embedded, None) => digits(),
        (Source::Embedded, Some(folder)) => {
            let folder = folder.display();
            Err(DatasetError::option("data folder", format!("{name} is compiled in: leave {folder} out or name another dataset")))
        }
        (Source::Idx(source), Some(folder)) => read(entry, source, folder, &options.budget),
        (Source::Idx(source), None) => {
            let places = Places::from_environment()?;
            let folder = obtain(entry.name, source, &places, progress)?;
            read(entry, source, &folder, &options.budget).map_err(|error| advise_to_fetch_again(error, &places.cache))
        }
    }
}

/// Makes sure that the files of a dataset are on this machine, downloading what is missing, and returns their folder; `None` if the
/// dataset is compiled in. Interrupted downloads are gone on with.
///
/// `STRIATE_MIRROR` may name the address of a server that is asked first, for `<address>/<name>/<file>`. A download has to pass its
/// checksum. Fashion-MNIST is also taken from its Debian package, where the tools for that exist.
///
/// `progress` is told the file's name, the bytes that are there, and how many there will be if the server says so. Return `false`
/// from it to stop; what has come is kept.
///
/// # Errors
///
/// An unknown name, a file that no source gives, or [`DatasetError::Interrupted`].
pub fn fetch(name: &str, progress: &mut dyn FnMut(&str, u64, Option<u64>) -> bool) -> Result<Option<PathBuf>, DatasetError> {
    let entry = find(name)?;
    match &entry.source {
        Source::Embedded => Ok(None),
        Source::Idx(source) => obtain(entry.name, source, &Places::from_environment()?, progress).map(Some),
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
    fn find(&self, source: &IdxSource) -> Option<PathBuf> {
        let installed = source.package.map(|package| self.system.join(package.folder));
        let has_all = |folder: &PathBuf| source.files().iter().all(|file| !files_in(folder, source, file).is_empty());
        installed.into_iter().chain([self.cache.join(source.folder)]).find(has_all)
    }
}

/// A folder that has all the files, after downloading if need be.
pub(crate) fn obtain(
    name: &'static str,
    source: &IdxSource,
    places: &Places,
    progress: Progress,
) -> Result<PathBuf, DatasetError> {
    if let Some(folder) = places.find(source) {
        return Ok(folder);
    }
    let waiting = || tracing::info!("waiting for another process that downloads {name}");
    let _lock = Lock::acquire(&places.cache.join(format!(".{}.lock", source.folder)), waiting)?;
    if let Some(folder) = places.find(source) {
        return Ok(folder);
    }
    let folder = places.cache.join(source.folder);
    striate_files::create_folder(&folder)?;
    download::files(name, source, places, &folder, progress)?;
    Ok(folder)
}

/// The files in `folder` that `file` may stand for, best first: compressed or not, with a dot or a
/// hyphen before `idx`, there or where torchvision, Kaggle and EMNIST's archive put them. Empty files
/// are passed over.
pub(crate) fn files_in(folder: &Path, source: &IdxSource, file: &str) -> Vec<PathBuf> {
    let names = [file.to_owned(), file.replace("-idx", ".idx")];
    let folders = ["".into(), Path::new(source.torchvision()).join("raw"), "raw".into(), "gzip".into()];
    let folders = folders.into_iter().chain(names.iter().map(PathBuf::from)).map(|inner| folder.join(inner));
    let files = folders.flat_map(|folder| names.clone().map(|name| [folder.join(&name), folder.join(name + ".gz")]));
    let holds_something = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
    files.flatten().filter(holds_something).collect()
}

/// The first file that `read` can read, and what it gives; else the error of the first.
fn first_sound<T>(
    paths: Vec<PathBuf>,
    missing: DatasetError,
    read: impl Fn(&Path) -> Result<T, DatasetError>,
) -> Result<(PathBuf, T), DatasetError> {
    let mut first_error = None;
    for path in paths {
        match read(&path) {
            Ok(values) => return Ok((path, values)),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(missing))
}

fn read(entry: &'static Entry, source: &IdxSource, folder: &Path, budget: &Budget) -> Result<Split, DatasetError> {
    let [train_images, train_labels, test_images, test_labels] = source.files();
    let part = |images: &str, labels: &str| read_part(entry, source, folder, [images, labels], budget);
    Ok(Split { train: part(&train_images, &train_labels)?, test: part(&test_images, &test_labels)? })
}

fn read_part(
    entry: &'static Entry,
    source: &IdxSource,
    folder: &Path,
    [images, labels]: [&str; 2],
    budget: &Budget,
) -> Result<InMemory, DatasetError> {
    let missing = |file: &str| DatasetError::MissingFile { name: entry.name, folder: folder.into(), file: file.to_owned() };
    let files = |file: &str| files_in(folder, source, file);
    let (images_path, mut images) = first_sound(files(images), missing(images), |path| idx::read_images_with(path, budget))?;
    let (labels_path, labels) = first_sound(files(labels), missing(labels), |path| idx::read_labels_with(path, budget))?;
    let fault = |path: &Path, reason| Err(DatasetError::Inconsistent { dataset: path.display().to_string(), reason });
    let [channels, height, width] = entry.shape;
    if images.size()[1..] != entry.shape {
        return fault(
            &images_path,
            format!("images of {} are [N, {channels}, {height}, {width}], not {:?}", entry.name, images.size()),
        );
    }
    if labels.size()[0] != images.size()[0] {
        let reason =
            format!("it has {} labels for the {} images in {}", labels.size()[0], images.size()[0], images_path.display());
        return fault(&labels_path, reason);
    }
    if source.transposed {
        images = images.f_transpose(2, 3)?.f_contiguous()?;
    }
    let labels = labels.f_to_kind(Kind::Int64)?.f_sub_scalar(i64::from(source.first_label))?;
    let classes = entry.classes();
    check_labels(&labels_path.display().to_string(), &labels, classes.len())?;
    InMemory::new(entry.name, images, &labels, classes)
}

/// The same error, with what mends it if the file is one of the cache's.
fn advise_to_fetch_again(error: DatasetError, cache: &Path) -> DatasetError {
    match error {
        DatasetError::Idx { path, reason } if path.starts_with(cache) => DatasetError::DamagedCache { path, reason },
        DatasetError::Inconsistent { dataset, reason } if Path::new(&dataset).starts_with(cache) => {
            DatasetError::DamagedCache { path: dataset.into(), reason }
        }
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::Dataset;
    use tch::{Device, Tensor};

    pub(crate) fn idx_source(name: &str) -> (&'static Entry, &'static IdxSource) {
        let entry = find(name).unwrap();
        match &entry.source {
            Source::Idx(source) => (entry, source),
            Source::Embedded => panic!("{name} is embedded"),
        }
    }

    /// Writes three training examples and two test examples, each image all of its number, but for a mark at row 0, column 1.
    pub(crate) fn write_files(folder: &Path, source: &IdxSource, suffix: &str) {
        std::fs::create_dir_all(folder).unwrap();
        let [train_images, train_labels, test_images, test_labels] = source.files().map(|file| folder.join(file + suffix));
        for (images, labels, count) in [(train_images, train_labels, 3), (test_images, test_labels, 2)] {
            let numbers = Tensor::arange(count, (Kind::Int64, Device::Cpu)).to_kind(Kind::Uint8) + i64::from(source.first_label);
            let pixels = numbers.view([-1, 1, 1, 1]).repeat([1, 1, 28, 28]);
            let _ = pixels.select(2, 0).select(2, 1).fill_(99);
            idx::write_images(&images, &pixels).unwrap();
            idx::write_labels(&labels, &numbers).unwrap();
        }
    }

    fn places(folder: &Path) -> Places {
        Places { cache: folder.join("cache"), system: folder.join("system"), mirror: None }
    }

    #[test]
    fn a_folder_is_read_compressed_or_not() {
        for suffix in ["", ".gz"] {
            let folder = tempfile::tempdir().unwrap();
            write_files(folder.path(), idx_source("fashion-mnist").1, suffix);
            let options = LoadOptions { root: Some(folder.path().into()), ..LoadOptions::default() };
            let Split { train, test } = load("fashion-mnist", &options).unwrap();
            assert_eq!((train.len(), test.len(), train.shape()), (3, 2, [1, 28, 28]));
            assert_eq!(Vec::<i64>::try_from(train.labels()).unwrap(), [0, 1, 2]);
            assert_eq!(train.images().double_value(&[2, 0, 0, 1]), 99.0);
            assert_eq!((train.name(), train.classes()[2].as_str()), ("fashion-mnist", "Pullover"));
        }
    }

    #[test]
    fn every_name_and_place_in_use_is_found() {
        let load_from = |name: &str, root: &Path| load(name, &LoadOptions { root: Some(root.into()), ..LoadOptions::default() });
        for (name, inner) in [
            ("mnist", "MNIST/raw"),
            ("mnist", "raw"),
            ("fashion-mnist", "FashionMNIST/raw"),
            ("kmnist", "KMNIST/raw"),
            ("emnist-letters", "EMNIST/raw"),
            ("emnist-letters", "gzip"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            write_files(&folder.path().join(inner), idx_source(name).1, "");
            assert_eq!(load_from(name, folder.path()).unwrap().train.len(), 3, "{name} in {inner}");
        }
        let source = idx_source("mnist").1;
        for suffix in ["", ".gz"] {
            let (dots, kaggle) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            write_files(dots.path(), source, suffix);
            write_files(kaggle.path(), source, suffix);
            for file in source.files() {
                let name = format!("{file}{suffix}");
                std::fs::rename(dots.path().join(&name), dots.path().join(name.replace("-idx", ".idx"))).unwrap();
                let (from, to) = (kaggle.path().join(&name), kaggle.path().join("moved"));
                std::fs::rename(from, &to).unwrap();
                std::fs::create_dir(kaggle.path().join(&file)).unwrap();
                std::fs::rename(to, kaggle.path().join(&file).join(name)).unwrap();
            }
            assert_eq!(load_from("mnist", dots.path()).unwrap().test.len(), 2);
            assert_eq!(load_from("mnist", kaggle.path()).unwrap().test.len(), 2);
        }
        let others = tempfile::tempdir().unwrap();
        write_files(&others.path().join("MNIST/raw"), source, "");
        assert!(load_from("fashion-mnist", others.path()).is_err(), "MNIST is not taken for it");
    }

    #[test]
    fn a_sound_file_is_taken_before_a_damaged_one() {
        let folder = tempfile::tempdir().unwrap();
        let source = idx_source("mnist").1;
        let options = LoadOptions { root: Some(folder.path().into()), ..LoadOptions::default() };
        write_files(folder.path(), source, ".gz");
        let [images, labels, ..] = source.files();
        std::fs::write(folder.path().join(&images), "").unwrap();
        std::fs::write(folder.path().join(&labels), "\0\0\x08\x01").unwrap();
        assert_eq!(load("mnist", &options).unwrap().train.len(), 3);
        std::fs::remove_file(folder.path().join(labels.clone() + ".gz")).unwrap();
        assert!(load("mnist", &options).unwrap_err().to_string().contains("train-labels-idx1-ubyte is not a sound IDX file"));
        std::fs::remove_file(folder.path().join(images.clone() + ".gz")).unwrap();
        assert!(load("mnist", &options).unwrap_err().to_string().contains("has no file train-images-idx3-ubyte"));
    }

    #[test]
    fn emnist_is_turned_upright_and_letters_count_from_zero() {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path(), idx_source("emnist-letters").1, ".gz");
        let train =
            load("emnist-letters", &LoadOptions { root: Some(folder.path().into()), ..LoadOptions::default() }).unwrap().train;
        assert_eq!(train.images().double_value(&[0, 0, 1, 0]), 99.0);
        assert_eq!(train.images().double_value(&[0, 0, 0, 1]), 1.0);
        assert_eq!(Vec::<i64>::try_from(train.labels()).unwrap(), [0, 1, 2]);
        assert_eq!(train.classes()[0], "a");
    }

    #[test]
    fn a_folder_without_the_files_is_told_which_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let options = LoadOptions { root: Some(folder.path().into()), ..LoadOptions::default() };
        let source = idx_source("mnist").1;
        write_files(folder.path(), source, "");
        std::fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        let error = load("mnist", &options).unwrap_err().to_string();
        let expected = format!(
            "{} has no file t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz, or an empty one: name the folder that holds the four files of mnist",
            folder.path().display()
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn files_that_do_not_fit_together_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (_, source) = idx_source("mnist");
        let options = LoadOptions { root: Some(folder.path().into()), ..LoadOptions::default() };
        let labels = folder.path().join("train-labels-idx1-ubyte");
        let fault = |bytes: &[u8]| {
            write_files(folder.path(), source, "");
            idx::write_labels(&labels, &Tensor::from_slice(bytes)).unwrap();
            load("mnist", &options).unwrap_err().to_string()
        };
        let start = format!("{}: ", labels.display());
        let wrong_label = fault(&[0, 10, 1]);
        assert_eq!(wrong_label, start.clone() + "example 1 has the label 10, but there are 10 classes, counted from 0");
        assert!(fault(&[0, 1]).starts_with(&(start + "it has 2 labels for the 3 images in ")));
        let images = folder.path().join("train-images-idx3-ubyte");
        write_files(folder.path(), source, "");
        idx::write_images(&images, &Tensor::zeros([3, 1, 8, 8], (Kind::Uint8, Device::Cpu))).unwrap();
        assert!(load("mnist", &options).unwrap_err().to_string().contains("not [3, 1, 8, 8]"));
    }

    #[test]
    fn the_system_and_the_cache_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        let (_, source) = idx_source("fashion-mnist");
        let places = places(folder.path());
        assert_eq!(places.find(source), None);
        let cached = places.cache.join("fashion-mnist");
        write_files(&cached, source, ".gz");
        assert_eq!(places.find(source), Some(cached.clone()));
        let installed = places.system.join("usr/share/datasets/fashion-mnist");
        write_files(&installed, source, ".gz");
        assert_eq!(places.find(source), Some(installed.clone()));
        std::fs::remove_file(installed.join("t10k-images-idx3-ubyte.gz")).unwrap();
        assert_eq!(obtain("fashion-mnist", source, &places, &mut |_, _, _| true).unwrap(), cached, "a whole folder is taken");
    }

    #[test]
    fn a_damaged_file_of_the_cache_can_be_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let (entry, source) = idx_source("mnist");
        let places = places(folder.path());
        let cached = places.cache.join("mnist");
        write_files(&cached, source, "");
        let damage = |file: &str, bytes: &[u8]| {
            std::fs::write(cached.join(file), bytes).unwrap();
            let error =
                advise_to_fetch_again(read(entry, source, &cached, &Budget::default()).unwrap_err(), &places.cache).to_string();
            assert!(error.contains(file) && error.ends_with("delete it, then try again to download it"), "{error}");
            write_files(&cached, source, "");
        };
        damage("train-images-idx3-ubyte", b"\0\0");
        damage("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x02\0\x20");
        let elsewhere = DatasetError::Idx { path: "/data/x".into(), reason: "it is empty".into() };
        assert!(!advise_to_fetch_again(elsewhere, &places.cache).to_string().contains("delete"));
    }
}
