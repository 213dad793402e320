//! A folder with parts to train with and to judge by, and a folder that is split into these.

use super::ImageFolder;
use super::scan::{Entry, LeftOut, entries};
use crate::classes::file_name;
use crate::{Dataset, DatasetError, Preprocess, Split};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TRAIN: &[&str] = &["train"];
const VAL: &[&str] = &["val", "valid", "validation"];
const TEST: &[&str] = &["test"];

/// A part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Train,
    Val,
    Test,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The names that it goes by, in small letters.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Train => TRAIN,
            Self::Val => VAL,
            Self::Test => TEST,
        }
    }

    /// The part of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        Self::ALL.into_iter().find(|part| part.names().contains(&name.as_str()))
    }

    /// The part that a file's name begins with, such as `train-000001.tar`.
    pub(crate) fn begins(name: &str) -> Option<Self> {
        Self::find(name.split(|letter: char| !letter.is_alphabetic()).next().unwrap_or_default())
    }
}

/// The folders of a dataset's parts, below one root: `train`, and perhaps `val` (or `valid`,
/// `validation`) and `test`, in small or capital letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFolders {
    /// What a network learns from.
    pub train: PathBuf,
    /// By what the best epoch is chosen.
    pub val: Option<PathBuf>,
    /// What the network is judged by in the end.
    pub test: Option<PathBuf>,
}

/// The pictures of a folder with parts. All have the same classes in the same order.
///
/// ```no_run
/// use striate_datasets::{FolderParts, ImageSize, Interpolation, Normalise, Preprocess};
/// let preprocess = Preprocess {
///     image: ImageSize::ShorterSide { shorter_side: 224 },
///     input: [3, 224, 224],
///     normalise: Normalise::identity(),
///     interpolation: Interpolation::Bilinear,
/// };
/// let parts = FolderParts::open("flowers", &preprocess)?; // flowers/train/rose/1.jpg, flowers/val/rose/2.jpg
/// let (train, val) = match parts.val.or(parts.test) {
///     Some(val) => (parts.train, val),
///     None => {
///         let split = parts.train.split(0.2, 1)?;
///         (split.train, split.test)
///     }
/// };
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
#[derive(Debug)]
pub struct FolderParts {
    /// What a network learns from; all pictures, if the folder has no parts.
    pub train: ImageFolder,
    /// By what the best epoch is chosen.
    pub val: Option<ImageFolder>,
    /// What the network is judged by in the end.
    pub test: Option<ImageFolder>,
}

impl PartFolders {
    /// The parts below `root`; `None` if it has none.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read, two folders for one part, parts without `train`, or parts that
    /// lie deeper: the message says where.
    pub fn find(root: impl AsRef<Path>) -> Result<Option<Self>, DatasetError> {
        let root = root.as_ref();
        let fault = |reason| DatasetError::Inconsistent { dataset: root.display().to_string(), reason };
        let folders = folders(root)?;
        let part = |names: &[&str]| {
            let mut found = folders.iter().filter(|folder| names.contains(&file_name(folder).to_lowercase().as_str()));
            match (found.next(), found.next()) {
                (Some(one), Some(other)) => {
                    let (one, other) = (file_name(one), file_name(other));
                    Err(fault(format!("it has the folders `{one}` and `{other}` for the same part: keep one of them")))
                }
                (found, _) => Ok(found.cloned()),
            }
        };
        match (part(TRAIN)?, part(VAL)?, part(TEST)?) {
            (Some(train), val, test) => Ok(Some(Self { train, val, test })),
            (None, None, None) => match (deeper(&folders)?, alike(&folders)) {
                (Some(deeper), _) if folders.len() > 1 && each_has_parts(&folders)? => Err(fault(format!(
                    "each class has folders of parts in it, such as {}: the parts come first, then the classes (train/CLASS)",
                    deeper.display()
                ))),
                (Some(deeper), _) => {
                    Err(fault(format!("it has no folder `train`, but {} has: name that folder", deeper.display())))
                }
                (None, Some([one, other])) => Err(fault(format!(
                    "its folders `{one}` and `{other}` look like parts and would become classes: call them `train`, `val` or `test`"
                ))),
                (None, None) => Ok(None),
            },
            (None, val, test) => {
                let folder = val.or(test).unwrap_or_default();
                Err(fault(format!(
                    "it has a folder `{}`, but none `train`: put the pictures to train with there, or name {} to use these alone",
                    file_name(&folder),
                    folder.display()
                )))
            }
        }
    }
}

/// Two folders whose names have those of parts in them, one of them to train with: such as `Training` and `Testing`, or `seg_train` and
/// `seg_test`.
fn alike(folders: &[PathBuf]) -> Option<[String; 2]> {
    let of = |names: &[&str]| {
        folders
            .iter()
            .map(|folder| file_name(folder))
            .find(|folder| folder.to_lowercase().split(|letter: char| !letter.is_alphabetic()).any(|word| names.contains(&word)))
    };
    Some([of(&["train", "training"])?, of(&["test", "testing", "val", "valid", "validation", "dev"])?])
}

/// Whether all folders have one with the name of a part to train with.
fn each_has_parts(roots: &[PathBuf]) -> Result<bool, DatasetError> {
    for root in roots {
        if !folders(root)?.iter().any(|folder| TRAIN.contains(&file_name(folder).to_lowercase().as_str())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first of the folders that has a folder `train`, itself or in its only folder.
fn deeper(roots: &[PathBuf]) -> Result<Option<PathBuf>, DatasetError> {
    for root in roots {
        let inner = folders(root)?;
        if inner.iter().any(|folder| TRAIN.contains(&file_name(folder).to_lowercase().as_str())) {
            return Ok(Some(root.clone()));
        }
        if let [only] = &inner[..]
            && let Some(found) = deeper(std::slice::from_ref(only))?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

pub(super) fn folders(root: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let folder = |entry| match entry {
        Entry::Folder(folder) => Some(folder),
        Entry::Picture(_) | Entry::LeftOut(..) => None,
    };
    Ok(entries(root)?.into_iter().filter_map(folder).collect())
}

/// Whether a folder has others in it.
pub(crate) fn has_folders(root: &Path) -> Result<bool, DatasetError> {
    Ok(!folders(root)?.is_empty())
}

impl FolderParts {
    /// The same pictures, resized and cropped or padded as another `preprocess` says.
    ///
    /// # Errors
    ///
    /// A `preprocess` that makes no sense.
    pub fn fit(self, preprocess: &Preprocess) -> Result<Self, DatasetError> {
        self.map(|part| part.fit(preprocess))
    }

    /// Does the same with each part, such as [`ImageFolder::without_bad`].
    ///
    /// # Errors
    ///
    /// The first of `change`'s.
    pub fn map(self, mut change: impl FnMut(ImageFolder) -> Result<ImageFolder, DatasetError>) -> Result<Self, DatasetError> {
        let Self { train, val, test } = self;
        Ok(Self { train: change(train)?, val: val.map(&mut change).transpose()?, test: test.map(change).transpose()? })
    }

    /// The parts that there are.
    pub fn iter(&self) -> impl Iterator<Item = &ImageFolder> {
        [Some(&self.train), self.val.as_ref(), self.test.as_ref()].into_iter().flatten()
    }
}

impl ImageFolder {
    /// Sets about a `fraction` of each class's pictures apart, to judge by: at least one, and at
    /// least one stays to train with, where a class has two; of a class with one picture it stays.
    ///
    /// Which these are depends on the `seed` and each picture's path below the folder alone, so a
    /// picture more or fewer changes little. A picture with several classes counts as one of its first.
    ///
    /// # Errors
    ///
    /// A `fraction` that is not between 0 and 1, or no class with two pictures.
    pub fn split(self, fraction: f64, seed: u64) -> Result<Split<Self>, DatasetError> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(DatasetError::option("split", format!("{fraction} is no fraction between 0 and 1")));
        }
        // Of pictures with several classes, those whose first is the same go together.
        let mut classes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (index, file) in self.files.iter().enumerate() {
            classes.entry(file.label()).or_default().push(index);
        }
        let mut apart = HashSet::new();
        for mut files in classes.into_values() {
            files.sort_by_cached_key(|index| {
                let path = self.files[*index].path();
                let path = path.strip_prefix(&self.root).unwrap_or(path);
                let drawn = [&seed.to_le_bytes(), path.as_os_str().as_encoded_bytes()].concat();
                striate_fetch::sha256_reader(&drawn[..]).unwrap_or_default()
            });
            let count = match files.len() {
                0 | 1 => 0,
                count => ((fraction * count as f64).round() as usize).clamp(1, count - 1),
            };
            apart.extend(files.drain(..count));
        }
        if apart.is_empty() {
            return Err(DatasetError::option(
                "split",
                format!("no class of {} has two pictures, of which one could be held out: add some", self.name()),
            ));
        }
        let part = |is_apart: bool, left_out| {
            let files = self.files.iter().enumerate().filter(|(index, _)| apart.contains(index) == is_apart);
            let files = Arc::new(files.map(|(_, file)| file.clone()).collect());
            let (name, root) = (self.name.clone(), self.root.clone());
            let (classes, preprocess) = (self.classes.clone(), self.preprocess.clone());
            Self { name, root, files, classes, preprocess, left_out, ..self }
        };
        Ok(Split { train: part(false, self.left_out.clone()), test: part(true, LeftOut::default()) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::folder::tests::{preprocess, write};
    use std::collections::BTreeSet;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, colour) in files.iter().zip(1..) {
            write(&folder.path().join(file), [8, 8], colour);
        }
        folder
    }

    fn open(root: &Path) -> Result<FolderParts, DatasetError> {
        FolderParts::open(root, &preprocess(8))
    }

    #[test]
    fn parts_are_found_under_every_name() {
        for [train, val, test] in [["train", "val", "test"], ["Train", "valid", "Test"], ["TRAIN", "Validation", "TEST"]] {
            let names = [(train, 1), (train, 2), (val, 1), (test, 1)].map(|(part, number)| format!("{part}/a/{number}.png"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let root = folder(&names);
            let parts = open(root.path()).unwrap();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 1, 1], "{val}");
            assert_eq!((parts.val.unwrap().name(), parts.test.unwrap().name()), (val, test));
        }
        let flat = folder(&["a/1.png", "b/1.png"]);
        assert_eq!(PartFolders::find(flat.path()).unwrap(), None);
        let parts = open(flat.path()).unwrap();
        assert_eq!((parts.iter().count(), parts.train.len()), (1, 2));
        assert_eq!(parts.fit(&preprocess(4)).unwrap().train.shape(), [3, 4, 4]);
    }

    #[test]
    fn classes_of_parts_go_by_name() {
        let root = folder(&["train/a/1.png", "train/caf\u{e9}/1.png", "test/cafe\u{301}/1.png", "test/a/1.png"]);
        let test = open(root.path()).unwrap().test.unwrap();
        let labels = test.files().iter().map(|file| (file.path().starts_with(root.path().join("test/a")), file.label()));
        assert_eq!(labels.collect::<Vec<_>>(), [(true, 0), (false, 1)]);
        write(&root.path().join("test/z/1.png"), [8, 8], 1);
        let error = open(root.path()).unwrap_err().to_string();
        assert!(error.ends_with("test: it has classes that are not expected: z"), "{error}");
        std::fs::rename(root.path().join("test/z"), root.path().join("train/z")).unwrap();
        let error = open(root.path()).unwrap_err().to_string();
        assert!(error.ends_with("test: it lacks the classes z"), "{error}");
    }

    #[test]
    fn parts_that_do_not_fit_are_told() {
        let told = |files: &[&str]| open(folder(files).path()).unwrap_err().to_string();
        assert!(told(&["train/a/1.png", "val/a/1.png", "valid/a/1.png"]).contains("`val` and `valid` for the same part"));
        assert!(told(&["test/a/1.png"]).contains("a folder `test`, but none `train`"));
        let root = folder(&["data/flowers/train/a/1.png"]);
        let error = open(root.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("but {} has", root.path().join("data/flowers").display())), "{error}");
        for [train, test] in
            [["Training", "Testing"], ["train_data", "Test_data"], ["seg_train", "seg_test"], ["My train", "dev"]]
        {
            let error = told(&[&format!("{train}/a/1.png"), &format!("{test}/a/1.png"), "pred/1.png"]);
            assert!(error.contains(&format!("`{train}` and `{test}` look like parts")), "{error}");
        }
        assert!(told(&["a/train/1.png", "a/test/1.png", "b/train/1.png"]).contains("each class has folders of parts"));
        assert_eq!(open(folder(&["train car/1.png", "bus/1.png"]).path()).unwrap().train.classes(), ["bus", "train car"]);
    }

    #[test]
    fn pictures_beside_the_parts_are_counted() {
        let parts = open(folder(&["train/a/1.png", "dev/a/1.png", "dev/a/2.png", "test/a/1.png"]).path()).unwrap();
        let told = parts.train.left_out().to_string();
        assert!(told.starts_with("left out 2 files: 2 pictures in a folder beside `train`"), "{told}");
    }

    #[test]
    fn a_split_is_stratified_and_depends_on_the_seed_and_the_paths() {
        let names: Vec<String> =
            (0..30).map(|number| format!("a/{number}.png")).chain((0..9).map(|n| format!("b/{n}.png"))).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.extend(["two/1.png", "two/2.png", "one/1.png"]);
        let root = folder(&names);
        let split = |root: &Path, seed| {
            let Split { train, test } = ImageFolder::open(root, preprocess(8)).unwrap().split(0.2, seed).unwrap();
            let of = |part: &ImageFolder| -> BTreeSet<(String, i64)> {
                let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                part.files().iter().map(|file| (name(file.path()), file.label())).collect()
            };
            (of(&train), of(&test))
        };
        let (train, test) = split(root.path(), 1);
        let count =
            |part: &BTreeSet<(String, i64)>| [0, 1, 2, 3].map(|class| part.iter().filter(|(_, label)| *label == class).count());
        assert_eq!((count(&train), count(&test)), ([24, 7, 1, 1], [6, 2, 0, 1])); // a, b, one, two
        assert!(train.is_disjoint(&test));
        assert_eq!(split(root.path(), 1), (train, test.clone()));
        assert_ne!(split(root.path(), 2).1, test);
        let elsewhere = folder(&names);
        assert_eq!(split(elsewhere.path(), 1).1, test, "only the path below the folder counts");
        write(&elsewhere.path().join("a/new.png"), [8, 8], 1);
        let moved = split(elsewhere.path(), 1).1.difference(&test).count();
        assert!(moved <= 1, "{moved} others were moved by one new picture");
        let data = || ImageFolder::open(root.path(), preprocess(8)).unwrap();
        for fraction in [0.0, 1.0, f64::NAN] {
            assert!(data().split(fraction, 1).is_err());
        }
        assert!(ImageFolder::open(folder(&["a/1.png", "b/1.png"]).path(), preprocess(8)).unwrap().split(0.5, 1).is_err());
    }
}
