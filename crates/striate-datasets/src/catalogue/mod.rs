//! What is known of each dataset: names, sources, checksums, licences.

mod entries;

use crate::formats::Format;
use crate::{DatasetError, Normalise};
use entries::CATALOGUE;
use std::fmt;
use std::path::{Path, PathBuf};
use striate_torch::nearest;

/// A dataset that [`load`](crate::load) knows: plain data, with the format that reads its files.
#[derive(Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The name to load it by.
    pub name: &'static str,
    /// Its full name.
    pub title: &'static str,
    /// Examples to train with, and to judge by.
    pub examples: [usize; 2],
    /// The shape of every picture, `[C, H, W]`; `None` where they are files of many sizes.
    pub shape: Option<[i64; 3]>,
    /// Where it is described.
    pub homepage: &'static str,
    /// The licence it is given under.
    pub licence: &'static str,
    /// The paper to cite.
    pub citation: &'static str,
    /// Whether a mirror image shows the same class. That of a digit or letter does not.
    pub mirrors: bool,
    /// What its folder is called in the cache and on a mirror.
    pub(crate) folder: &'static str,
    /// Where below a folder its archive, or other programs, put the files.
    pub(crate) places: &'static [&'static str],
    pub(crate) classes: Classes,
    /// The customary normalisation, if there is one: each channel's mean and standard deviation
    /// over the training pictures.
    pub(crate) statistics: Option<&'static [(f64, f64)]>,
    pub(crate) origin: Origin,
    pub(crate) format: &'static dyn Format,
}

impl Entry {
    /// The classes' names, in the order of the labels.
    pub fn classes(&self) -> Vec<String> {
        match self.classes {
            Classes::Names(text) => names(text).map(str::to_owned).collect(),
            Classes::Synsets(text) => synsets(text).map(|(_, name)| name.to_owned()).collect(),
        }
    }

    /// The names of the classes' folders, in the order of the labels.
    pub(crate) fn class_folders(&self) -> Vec<String> {
        match self.classes {
            Classes::Names(_) => self.classes(),
            Classes::Synsets(text) => synsets(text).map(|(synset, _)| synset.to_owned()).collect(),
        }
    }

    /// How it comes to this machine.
    pub fn availability(&self) -> Availability {
        match self.origin {
            Origin::Embedded => Availability::BuiltIn,
            Origin::ByHand => Availability::ByHand,
            Origin::Files { megabytes, .. } | Origin::Archive { megabytes, .. } => Availability::Download { megabytes },
        }
    }

    /// The customary normalisation of its pictures, if there is one.
    pub fn normalise(&self) -> Option<Normalise> {
        let (mean, std) = self.statistics?.iter().copied().unzip();
        Some(Normalise { mean, std })
    }

    /// The folder, and where below it the files may be.
    pub(crate) fn inside(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        [folder.to_owned()].into_iter().chain(self.places.iter().map(|place| folder.join(place)).collect::<Vec<_>>())
    }
}

/// How a dataset comes to this machine. `Display` gives it for a table, such as `12 MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Availability {
    /// It is compiled in.
    BuiltIn,
    /// It is downloaded when it is needed.
    Download {
        /// About how many megabytes that is.
        megabytes: u32,
    },
    /// You have to get it from its publisher yourself.
    ByHand,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.pad("built in"),
            Self::Download { megabytes } => f.pad(&format!("{megabytes} MB")),
            Self::ByHand => f.pad("by hand"),
        }
    }
}

/// The classes in the order of the labels.
#[derive(Debug)]
pub(crate) enum Classes {
    /// Names, with commas or line breaks between.
    Names(&'static str),
    /// Lines of a synset of WordNet, which the class's folder is named after, and a name.
    Synsets(&'static str),
}

fn names(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split_terminator([',', '\n'])
}

fn synsets(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.lines().filter_map(|line| line.split_once(' '))
}

/// Where the files come from.
#[derive(Debug)]
pub(crate) enum Origin {
    Embedded,
    /// The publisher gives them to people only.
    ByHand,
    /// Each file by itself, under addresses that end in `/`.
    Files {
        mirrors: &'static [&'static str],
        files: &'static [(&'static str, Checksum)],
        /// A Debian package that has the files.
        package: Option<Package>,
        megabytes: u32,
    },
    /// A zip or `.tar.gz` archive, which is unpacked as a whole.
    Archive {
        urls: &'static [&'static str],
        file: &'static str,
        checksum: Checksum,
        megabytes: u32,
    },
}

/// A package of the system's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// The folder in which it has the files, seen from the root.
    pub(crate) folder: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Checksum {
    /// MD5 of the file as it is.
    Md5(&'static str),
    /// SHA-256 of what the gzip file holds, which does not depend on who compressed it.
    ContentSha256(&'static str),
}

/// Every dataset that [`load`](crate::load) knows.
pub fn catalogue() -> &'static [Entry] {
    CATALOGUE
}

/// The dataset of a name.
///
/// # Errors
///
/// An unknown name; the message has the nearest one.
pub fn find(name: &str) -> Result<&'static Entry, DatasetError> {
    let names = || CATALOGUE.iter().map(|entry| entry.name);
    CATALOGUE.iter().find(|entry| entry.name == name).ok_or_else(|| DatasetError::UnknownName {
        name: name.to_owned(),
        nearest: nearest(name, names()).map(str::to_owned),
        known: names().collect(),
    })
}

/// The names of ImageNet's 1,000 classes, in the order of the labels, as torchvision gives them.
pub fn imagenet_classes() -> impl Iterator<Item = &'static str> {
    synsets(entries::IMAGENET).map(|(_, name)| name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn classes_are_those_of_the_papers() {
        let counts: Vec<_> = catalogue().iter().map(|entry| (entry.name, entry.classes().len())).collect();
        let expected = [
            ("digits", 10),
            ("mnist", 10),
            ("fashion-mnist", 10),
            ("kmnist", 10),
            ("emnist-balanced", 47),
            ("emnist-byclass", 62),
            ("emnist-bymerge", 47),
            ("emnist-digits", 10),
            ("emnist-letters", 26),
            ("emnist-mnist", 10),
            ("svhn", 10),
            ("cifar-10", 10),
            ("cifar-100", 100),
            ("cifar-100-coarse", 20),
            ("stl-10", 10),
            ("imagenette", 10),
            ("imagenette-320", 10),
            ("imagenette-160", 10),
            ("imagewoof", 10),
            ("imagewoof-320", 10),
            ("imagewoof-160", 10),
            ("food-101", 101),
            ("imagenet", 1000),
        ];
        assert_eq!(counts, expected);
        assert_eq!(find("fashion-mnist").unwrap().classes()[9], "Ankle boot");
        assert_eq!(find("emnist-balanced").unwrap().classes()[36..39], ["a", "b", "d"]);
        // The lists of names in the archives, and torchvision's.
        assert_eq!(find("cifar-100").unwrap().classes()[41], "lawn_mower");
        assert_eq!(find("cifar-100-coarse").unwrap().classes()[13], "non-insect_invertebrates");
        assert_eq!(find("food-101").unwrap().classes()[53], "hamburger");
        assert_eq!(find("imagenette").unwrap().classes()[1], "English springer");
        assert_eq!(find("imagewoof").unwrap().class_folders()[9], "n02115641");
        let imagenet = find("imagenet").unwrap();
        assert_eq!((imagenet.classes()[999].as_str(), imagenet.class_folders()[999].as_str()), ("toilet tissue", "n15075141"));
    }

    #[test]
    fn no_class_has_the_name_of_another_and_folders_are_in_order() {
        for entry in catalogue() {
            let (classes, folders) = (entry.classes(), entry.class_folders());
            assert_eq!(classes.iter().collect::<HashSet<_>>().len(), classes.len(), "{}", entry.name);
            if matches!(entry.classes, Classes::Synsets(_)) {
                assert!(folders.is_sorted(), "labels follow the order of the folders: {}", entry.name);
            }
            assert!(classes.iter().all(|class| !class.is_empty() && class.trim() == class), "{}", entry.name);
        }
        // Both are parts of ImageNet.
        let imagenet: HashSet<(String, String)> = pairs("imagenet").collect();
        for name in ["imagenette-160", "imagewoof-320"] {
            assert!(pairs(name).all(|pair| imagenet.contains(&pair)), "{name}");
        }
    }

    fn pairs(name: &str) -> impl Iterator<Item = (String, String)> {
        let entry = find(name).unwrap();
        entry.class_folders().into_iter().zip(entry.classes())
    }

    #[test]
    fn statistics_have_a_value_for_each_channel() {
        for entry in catalogue() {
            let channels = entry.shape.map_or(3, |shape| shape[0]);
            if let Some(normalise) = entry.normalise() {
                assert_eq!((normalise.mean.len() as i64, normalise.std.len() as i64), (channels, channels), "{}", entry.name);
            }
        }
    }

    #[test]
    fn checksums_are_of_their_kinds() {
        for entry in catalogue() {
            let checksums: Vec<Checksum> = match entry.origin {
                Origin::Files { files, .. } => files.iter().map(|(_, checksum)| *checksum).collect(),
                Origin::Archive { checksum, .. } => vec![checksum],
                Origin::Embedded | Origin::ByHand => Vec::new(),
            };
            for checksum in checksums {
                let (digits, length) = match checksum {
                    Checksum::Md5(digits) => (digits, 32),
                    Checksum::ContentSha256(digits) => (digits, 64),
                };
                let is_hex = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
                assert!(digits.len() == length && is_hex, "{}: {digits}", entry.name);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let error = find("fashoin-mnist").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no dataset `fashoin-mnist` (did you mean `fashion-mnist`?): the datasets are "),
            "{error}"
        );
        assert!(error.contains("digits, mnist, "), "{error}");
        for far in ["xyz", "nope", "flowers"] {
            assert!(!find(far).unwrap_err().to_string().contains("did you mean"), "{far}");
        }
    }
}
