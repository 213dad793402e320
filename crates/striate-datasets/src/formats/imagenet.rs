//! ImageNet's own layout: `train` has a folder for each class, named after its synset, and so has
//! `val`, or else it has all pictures, and a list beside it has their labels.

use super::{Format, Loaded, whole};
use crate::catalogue::Entry;
use crate::classes::file_name;
use crate::folder::has_folders;
use crate::{DatasetError, FolderParts, ImageFolder, picture_files};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use striate_torch::{Budget, Shown};

/// The number that the competition's development kit gives each class, in the order of the labels.
const NUMBERS: &str = include_str!("../../data/ilsvrc2012-numbers.txt");
/// Lists of the labels of `val`: the competition's as given out by its later organisers, Caffe's,
/// the development kit's, TensorFlow's.
const LISTS: [&str; 4] =
    ["LOC_val_solution.csv", "val.txt", "ILSVRC2012_validation_ground_truth.txt", "imagenet_2012_validation_synset_labels.txt"];
/// Where the development kit is unpacked to.
const KIT: &str = "ILSVRC2012_devkit_t12/data";

#[derive(Debug)]
pub(crate) struct ImageNet;

impl Format for ImageNet {
    fn find(&self, entry: &Entry, folder: &Path) -> Result<PathBuf, String> {
        entry.inside(folder).find(|root| root.join("val").is_dir()).ok_or_else(|| "folder val".to_owned())
    }

    fn read(&self, entry: &'static Entry, folder: &Path, root: &Path, _: &Budget) -> Result<Loaded, DatasetError> {
        let (train, val) = (root.join("train"), root.join("val"));
        let val = if has_folders(&val)? { by_folder(entry, &val)? } else { by_list(entry, folder, root, &val)? };
        let parts = match train.is_dir() {
            true => FolderParts { train: by_folder(entry, &train)?, val: Some(val), test: None },
            // Enough to judge a network.
            false => FolderParts { train: val, val: None, test: None },
        };
        Ok(Loaded::Files(parts))
    }
}

fn by_folder(entry: &'static Entry, folder: &Path) -> Result<ImageFolder, DatasetError> {
    let pictures = ImageFolder::open(folder, whole())?;
    Ok(pictures.with_classes(&entry.class_folders())?.named(entry.name, entry.classes()))
}

fn by_list(entry: &'static Entry, folder: &Path, root: &Path, val: &Path) -> Result<ImageFolder, DatasetError> {
    let places = [root, folder, &folder.join(KIT), &root.join(KIT)].map(Path::to_owned);
    let lists = places.iter().flat_map(|place| LISTS.map(|list| place.join(list)));
    let Some(list) = lists.into_iter().find(|list| list.is_file()) else {
        let reason = format!(
            "its pictures are in no folders of classes, and there is no list of their labels: put one of {} beside val",
            LISTS.join(", ")
        );
        return Err(DatasetError::Inconsistent { dataset: val.display().to_string(), reason });
    };
    let labels = Labels::read(&list, &entry.class_folders())?;
    let pictures = picture_files(val)?;
    let files = labels.of(pictures).map_err(|reason| unsound(&list, reason))?;
    Ok(ImageFolder::of_files(entry.name, val, files, entry.classes(), whole()))
}

/// The labels of `val`.
enum Labels {
    /// Of each picture, by its name without the ending.
    Named(HashMap<String, i64>),
    /// In the order of the pictures' names.
    InOrder(Vec<i64>),
}

impl Labels {
    /// Lines of a label, or of a picture's name and its label: a synset, or a number. That is the
    /// kit's, from 1, where it is alone, and else the place of the class in the order of synsets,
    /// from 0.
    fn read(list: &Path, synsets: &[String]) -> Result<Self, DatasetError> {
        let places: HashMap<&str, i64> = synsets.iter().map(String::as_str).zip(0..).collect();
        let numbers: HashMap<&str, i64> = NUMBERS.lines().zip(0..).collect();
        let text = striate_files::read_to_string(list)?;
        let (mut named, mut in_order) = (HashMap::new(), Vec::new());
        for (line, row) in text.lines().zip(1..).filter(|(line, _)| !line.starts_with("ImageId,")) {
            let mut words = line.split([',', ' ', '\t']).filter(|word| !word.is_empty());
            let label = match (words.next(), words.next()) {
                (Some(name), Some(label)) => {
                    let index = label.parse().ok().filter(|index| (0..synsets.len() as i64).contains(index));
                    let label = places.get(label).copied().or(index);
                    label.map(|label| _ = named.insert(stem(Path::new(name)), label))
                }
                (Some(label), None) => places.get(label).or(numbers.get(label)).map(|label| in_order.push(*label)),
                (None, _) => Some(()),
            };
            label.ok_or_else(|| unsound(list, format!("line {row} has no label of ImageNet's classes: {}", Shown(line))))?;
        }
        match (named.is_empty(), in_order.is_empty()) {
            (false, true) => Ok(Self::Named(named)),
            (true, false) => Ok(Self::InOrder(in_order)),
            (true, true) => Err(unsound(list, "it is empty".to_owned())),
            (false, false) => Err(unsound(list, "some of its lines name a picture, and others don't".to_owned())),
        }
    }

    /// The pictures with their labels. They are in the order of their names.
    fn of(&self, pictures: Vec<PathBuf>) -> Result<Vec<(PathBuf, i64)>, String> {
        match self {
            Self::Named(labels) => {
                let label = |picture: PathBuf| match labels.get(&stem(&picture)) {
                    Some(label) => Ok((picture, *label)),
                    None => Err(format!("it has no label for {}", Shown(file_name(&picture)))),
                };
                pictures.into_iter().map(label).collect()
            }
            Self::InOrder(labels) if labels.len() == pictures.len() => {
                Ok(pictures.into_iter().zip(labels.iter().copied()).collect())
            }
            Self::InOrder(labels) => Err(format!("it has {} labels for {} pictures", labels.len(), pictures.len())),
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn unsound(list: &Path, reason: String) -> DatasetError {
    DatasetError::Unsound { path: list.into(), format: "ImageNet list", reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::folder::tests::write;
    use crate::formats::tests::{fault, load_from};
    use crate::{Dataset, PictureFile};
    use std::collections::HashSet;

    /// Two classes to train with, and in `val` three pictures without folders.
    fn write_flat(root: &Path) {
        for file in ["train/n01440764/n01440764_1.JPEG", "train/n02119789/n02119789_5.JPEG"] {
            write(&root.join(file), [6, 5], 7);
        }
        for number in 1..=3 {
            write(&root.join(format!("val/ILSVRC2012_val_0000000{number}.JPEG")), [6, 5], number);
        }
    }

    fn parts(root: &Path) -> FolderParts {
        match load_from("imagenet", root).unwrap() {
            Loaded::Files(parts) => parts,
            Loaded::Memory(_) => panic!("files"),
        }
    }

    fn labels(part: &ImageFolder) -> Vec<i64> {
        part.files().iter().map(PictureFile::label).collect()
    }

    #[test]
    fn the_kits_numbers_are_a_permutation() {
        let numbers: Vec<u16> = NUMBERS.lines().map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers.iter().copied().collect::<HashSet<_>>(), (1..=1000).collect());
        // tench and sea snake, as others have noted them; the kit begins with kit fox and ends with
        // dumbbell
        assert_eq!([numbers[0], numbers[65], numbers[278], numbers[543]], [449, 490, 1, 1000]);
    }

    #[test]
    fn folders_of_classes_are_read_in_both_parts() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["train/n01440764/a.JPEG", "val/n02119789/b.JPEG", "val/n01440764/c.JPEG"] {
            write(&folder.path().join(file), [6, 5], 7);
        }
        let FolderParts { train, val, test } = parts(folder.path());
        assert_eq!((labels(&train), labels(&val.unwrap()), test.is_none()), (vec![0], vec![0, 278], true));
        assert_eq!((train.name(), train.classes()[278].as_str()), ("imagenet", "kit fox"));
    }

    #[test]
    fn every_list_in_use_gives_the_labels_of_val() {
        let kaggle = "ImageId,PredictionString\nILSVRC2012_val_00000003,n01440764 1 2 3 4\n\
                      ILSVRC2012_val_00000001,n02119789 85 1 499 272 n02119789 1 2 3 4\nILSVRC2012_val_00000002,n03255030 9 9 9 9\n";
        let caffe = "ILSVRC2012_val_00000001.JPEG 278\nILSVRC2012_val_00000002.JPEG 543\nILSVRC2012_val_00000003.JPEG 0\n";
        for (place, file, text) in [
            ("", "LOC_val_solution.csv", kaggle),
            ("", "val.txt", caffe),
            ("", "ILSVRC2012_validation_ground_truth.txt", "1\n1000\n449\n"),
            (KIT, "ILSVRC2012_validation_ground_truth.txt", "1\r\n1000\r\n449\r\n"),
            ("", "imagenet_2012_validation_synset_labels.txt", "n02119789\nn03255030\nn01440764\n"),
        ] {
            for root in ["", "ILSVRC/Data/CLS-LOC"] {
                let folder = tempfile::tempdir().unwrap();
                write_flat(&folder.path().join(root));
                std::fs::create_dir_all(folder.path().join(place)).unwrap();
                std::fs::write(folder.path().join(place).join(file), text).unwrap();
                let FolderParts { train, val, .. } = parts(folder.path());
                assert_eq!((labels(&train), labels(&val.unwrap())), (vec![0, 278], vec![278, 543, 0]), "{file} in {root}");
            }
        }
    }

    #[test]
    fn val_alone_is_enough_to_judge() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("val/n02119789/b.JPEG"), [6, 5], 7);
        let parts = parts(folder.path());
        assert_eq!((labels(&parts.train), parts.val.is_none()), (vec![278], true));
    }

    #[test]
    fn labels_that_are_missing_or_odd_are_told() {
        let folder = tempfile::tempdir().unwrap();
        write_flat(folder.path());
        let error = fault("imagenet", folder.path());
        assert!(error.contains("val: its pictures are in no folders of classes") && error.ends_with("beside val"), "{error}");
        let told = |text: &str| {
            let list = folder.path().join("val.txt");
            std::fs::write(&list, text).unwrap();
            let error = fault("imagenet", folder.path());
            let start = format!("{} is not a sound ImageNet list file: ", list.display());
            error.strip_prefix(&start).unwrap_or_else(|| panic!("{error}")).to_owned()
        };
        assert_eq!(told("1\n2\n"), "it has 2 labels for 3 pictures");
        assert_eq!(told("1\n2\n1001\n"), "line 3 has no label of ImageNet's classes: 1001");
        assert_eq!(told("a.JPEG 1000\n"), "line 1 has no label of ImageNet's classes: a.JPEG 1000");
        assert_eq!(told("a.JPEG n00000000\n"), "line 1 has no label of ImageNet's classes: a.JPEG n00000000");
        assert_eq!(told("ILSVRC2012_val_00000001.JPEG 3\n"), "it has no label for ILSVRC2012_val_00000002.JPEG");
        assert_eq!(told("1\na.JPEG 3\n"), "some of its lines name a picture, and others don't");
        assert_eq!(told("\n"), "it is empty");
        std::fs::remove_dir_all(folder.path().join("val")).unwrap();
        let error = fault("imagenet", folder.path());
        assert!(error.ends_with("has no folder val: name the folder that holds the files of imagenet"));
    }
}
