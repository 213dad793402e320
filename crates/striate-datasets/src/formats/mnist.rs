//! MNIST's kind of dataset: four files in IDX format.

use super::{Format, Loaded, holds_something, missing};
use crate::catalogue::Entry;
use crate::dataset::check_labels;
use crate::{DatasetError, InMemory, Split, idx};
use std::path::{Path, PathBuf};
use striate_torch::Budget;
use tch::Kind;

const SHAPE: [i64; 3] = [1, 28, 28];

#[derive(Debug)]
pub(crate) struct Mnist {
    /// What the names of the training files and of the test files start with.
    parts: [&'static str; 2],
    /// Whether rows and columns are exchanged in the files.
    transposed: bool,
    /// The number of the first class in the files.
    pub(crate) first_label: u8,
}

impl Mnist {
    /// MNIST, and what goes by its files' names.
    pub(crate) const MNIST: Self = Self { parts: ["train", "t10k"], transposed: false, first_label: 0 };

    /// A part of EMNIST.
    pub(crate) const fn emnist(parts: [&'static str; 2], first_label: u8) -> Self {
        Self { parts, transposed: true, first_label }
    }

    /// Training images and labels, test images and labels, without `.gz`.
    pub(crate) fn files(&self) -> [String; 4] {
        let [train, test] = self.parts;
        let (images, labels) = ("images-idx3-ubyte", "labels-idx1-ubyte");
        [format!("{train}-{images}"), format!("{train}-{labels}"), format!("{test}-{images}"), format!("{test}-{labels}")]
    }
}

impl Format for Mnist {
    // Each file may be at a place of its own.
    fn find(&self, entry: &Entry, folder: &Path) -> Result<PathBuf, String> {
        match self.files().into_iter().find(|file| files_in(entry, folder, file).is_empty()) {
            None => Ok(folder.to_owned()),
            Some(file) => Err(either(&file)),
        }
    }

    fn read(&self, entry: &'static Entry, folder: &Path, _: &Path, budget: &Budget) -> Result<Loaded, DatasetError> {
        let [train_images, train_labels, test_images, test_labels] = self.files();
        let part = |images: &str, labels: &str| read_part(entry, self, folder, [images, labels], budget);
        Ok(Loaded::Memory(Split { train: part(&train_images, &train_labels)?, test: part(&test_images, &test_labels)? }))
    }
}

fn either(file: &str) -> String {
    format!("{file} or {file}.gz, or an empty one")
}

/// The files in `folder` that `file` may stand for, best first: compressed or not, with a dot or a
/// hyphen before `idx`, at one of the entry's places or, as Kaggle has them, in a folder of its
/// name. Empty files are passed over.
fn files_in(entry: &Entry, folder: &Path, file: &str) -> Vec<PathBuf> {
    let names = [file.to_owned(), file.replace("-idx", ".idx")];
    let folders = entry.inside(folder).chain(names.iter().map(|inner| folder.join(inner)));
    let files = folders.flat_map(|folder| names.clone().map(|name| [folder.join(&name), folder.join(name + ".gz")]));
    files.flatten().filter(|path| holds_something(path)).collect()
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

fn read_part(
    entry: &'static Entry,
    format: &Mnist,
    folder: &Path,
    [images, labels]: [&str; 2],
    budget: &Budget,
) -> Result<InMemory, DatasetError> {
    let missing = |file: &str| missing(entry, folder, either(file));
    let files = |file: &str| files_in(entry, folder, file);
    let (images_path, mut images) = first_sound(files(images), missing(images), |path| idx::read_images_with(path, budget))?;
    let (labels_path, labels) = first_sound(files(labels), missing(labels), |path| idx::read_labels_with(path, budget))?;
    let fault = |path: &Path, reason| Err(DatasetError::Inconsistent { dataset: path.display().to_string(), reason });
    if images.size()[1..] != SHAPE {
        let [channels, height, width] = SHAPE;
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
    if format.transposed {
        images = images.f_transpose(2, 3)?.f_contiguous()?;
    }
    let labels = labels.f_to_kind(Kind::Int64)?.f_sub_scalar(i64::from(format.first_label))?;
    let classes = entry.classes();
    check_labels(&labels_path.display().to_string(), &labels, classes.len())?;
    InMemory::new(entry.name, images, &labels, classes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::{Dataset, LoadOptions, load};
    use tch::{Device, Tensor};

    /// Writes three training examples and two test examples, each image all of its number, but for a mark at row 0, column 1.
    pub(crate) fn write_mnist(folder: &Path, format: &Mnist, suffix: &str) {
        std::fs::create_dir_all(folder).unwrap();
        let [train_images, train_labels, test_images, test_labels] = format.files().map(|file| folder.join(file + suffix));
        for (images, labels, count) in [(train_images, train_labels, 3), (test_images, test_labels, 2)] {
            let numbers = Tensor::arange(count, (Kind::Int64, Device::Cpu)).to_kind(Kind::Uint8) + i64::from(format.first_label);
            let pixels = numbers.view([-1, 1, 1, 1]).repeat([1, 1, 28, 28]);
            let _ = pixels.select(2, 0).select(2, 1).fill_(99);
            idx::write_images(&images, &pixels).unwrap();
            idx::write_labels(&labels, &numbers).unwrap();
        }
    }

    fn load_from(name: &str, root: &Path) -> Result<Split, DatasetError> {
        load(name, &LoadOptions { root: Some(root.into()), ..LoadOptions::default() }).map(|loaded| loaded.in_memory().unwrap())
    }

    /// The format of a dataset of that name.
    fn format(name: &str) -> Mnist {
        match name.starts_with("emnist-letters") {
            true => Mnist::emnist(["emnist-letters-train", "emnist-letters-test"], 1),
            false => Mnist::MNIST,
        }
    }

    #[test]
    fn a_folder_is_read_compressed_or_not() {
        for suffix in ["", ".gz"] {
            let folder = tempfile::tempdir().unwrap();
            write_mnist(folder.path(), &format("fashion-mnist"), suffix);
            let Split { train, test } = load_from("fashion-mnist", folder.path()).unwrap();
            assert_eq!((train.len(), test.len(), train.shape()), (3, 2, [1, 28, 28]));
            assert_eq!(Vec::<i64>::try_from(train.labels()).unwrap(), [0, 1, 2]);
            assert_eq!(train.images().double_value(&[2, 0, 0, 1]), 99.0);
            assert_eq!((train.name(), train.classes()[2].as_str()), ("fashion-mnist", "Pullover"));
        }
    }

    #[test]
    fn every_name_and_place_in_use_is_found() {
        for (name, inner) in [
            ("mnist", "MNIST/raw"),
            ("mnist", "raw"),
            ("fashion-mnist", "FashionMNIST/raw"),
            ("kmnist", "KMNIST/raw"),
            ("emnist-letters", "EMNIST/raw"),
            ("emnist-letters", "gzip"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            write_mnist(&folder.path().join(inner), &format(name), "");
            assert_eq!(load_from(name, folder.path()).unwrap().train.len(), 3, "{name} in {inner}");
        }
        let source = &format("mnist");
        for suffix in ["", ".gz"] {
            let (dots, kaggle) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            write_mnist(dots.path(), source, suffix);
            write_mnist(kaggle.path(), source, suffix);
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
        write_mnist(&others.path().join("MNIST/raw"), source, "");
        assert!(load_from("fashion-mnist", others.path()).is_err(), "MNIST is not taken for it");
    }

    #[test]
    fn a_sound_file_is_taken_before_a_damaged_one() {
        let folder = tempfile::tempdir().unwrap();
        let source = &format("mnist");
        write_mnist(folder.path(), source, ".gz");
        let [images, labels, ..] = source.files();
        std::fs::write(folder.path().join(&images), "").unwrap();
        std::fs::write(folder.path().join(&labels), "\0\0\x08\x01").unwrap();
        assert_eq!(load_from("mnist", folder.path()).unwrap().train.len(), 3);
        std::fs::remove_file(folder.path().join(labels.clone() + ".gz")).unwrap();
        assert!(
            load_from("mnist", folder.path())
                .unwrap_err()
                .to_string()
                .contains("train-labels-idx1-ubyte is not a sound IDX file")
        );
        std::fs::remove_file(folder.path().join(images.clone() + ".gz")).unwrap();
        assert!(load_from("mnist", folder.path()).unwrap_err().to_string().contains("has no train-images-idx3-ubyte"));
    }

    #[test]
    fn emnist_is_turned_upright_and_letters_count_from_zero() {
        let folder = tempfile::tempdir().unwrap();
        write_mnist(folder.path(), &format("emnist-letters"), ".gz");
        let train = load_from("emnist-letters", folder.path()).unwrap().train;
        assert_eq!(train.images().double_value(&[0, 0, 1, 0]), 99.0);
        assert_eq!(train.images().double_value(&[0, 0, 0, 1]), 1.0);
        assert_eq!(Vec::<i64>::try_from(train.labels()).unwrap(), [0, 1, 2]);
        assert_eq!(train.classes()[0], "a");
    }

    #[test]
    fn a_folder_without_the_files_is_told_which_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let source = &format("mnist");
        write_mnist(folder.path(), source, "");
        std::fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        let error = load_from("mnist", folder.path()).unwrap_err().to_string();
        let expected = format!(
            "{} has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz, or an empty one: name the folder that holds the files of mnist",
            folder.path().display()
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn files_that_do_not_fit_together_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let source = &Mnist::MNIST;
        let labels = folder.path().join("train-labels-idx1-ubyte");
        let fault = |bytes: &[u8]| {
            write_mnist(folder.path(), source, "");
            idx::write_labels(&labels, &Tensor::from_slice(bytes)).unwrap();
            load_from("mnist", folder.path()).unwrap_err().to_string()
        };
        let start = format!("{}: ", labels.display());
        let wrong_label = fault(&[0, 10, 1]);
        assert_eq!(wrong_label, start.clone() + "example 1 has the label 10, but there are 10 classes, counted from 0");
        assert!(fault(&[0, 1]).starts_with(&(start + "it has 2 labels for the 3 images in ")));
        let images = folder.path().join("train-images-idx3-ubyte");
        write_mnist(folder.path(), source, "");
        idx::write_images(&images, &Tensor::zeros([3, 1, 8, 8], (Kind::Uint8, Device::Cpu))).unwrap();
        assert!(load_from("mnist", folder.path()).unwrap_err().to_string().contains("not [3, 1, 8, 8]"));
    }
}
