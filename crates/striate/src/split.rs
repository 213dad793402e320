//! A folder of classes, split into parts.
use crate::Error;
use crate::data::{Progress, SPLIT_SEEDS, whole};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use striate_datasets::{Dataset, DatasetError, ImageFolder, PartFolders, Split};
use striate_files::FilesError;
use striate_torch::derive_seed;

/// The parts, in the order in which a picture's part is counted.
const PARTS: [&str; 3] = ["train", "val", "test"];

/// How [`split`] splits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SplitOptions {
    /// The fraction of each class's pictures for `val`.
    pub val: f64,
    /// The fraction for `test`; 0 for none.
    pub test: f64,
    /// What is drawn from.
    pub seed: u64,
    /// Whether the parts get other names of the same files (hard links), instead of copies.
    pub link: bool,
}

impl Default for SplitOptions {
    /// A fifth for `val`, copied.
    fn default() -> Self {
        Self { val: 0.2, test: 0.0, seed: 0, link: false }
    }
}

/// What a [`split`] did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SplitReport {
    /// Each part with its pictures.
    pub parts: Vec<(String, usize)>,
    /// Copies that were moved to the part of the picture that they are the same as.
    pub moved: usize,
}

/// Writes a folder of classes (`source/CLASS/*.jpg`) as parts to train with and to judge by: `out/train/CLASS`, `out/val/CLASS` and
/// perhaps `out/test/CLASS`. The files keep their names and their bytes, and `source` stays as it is.
///
/// `val` is what a run with the same seed holds out of the same folder (`split` in its recipe). Only copies of a picture differ:
/// all are in the part of the first of them, by path.
///
/// ```no_run
/// use striate::split::{SplitOptions, split};
///
/// split("flowers".as_ref(), "flowers-split".as_ref(), &SplitOptions::default(), &mut |_, _, _| true)?;
/// # Ok::<(), striate::Error>(())
/// ```
///
/// # Errors
///
/// A `source` that is no folder of classes or has a `val` or `test` already, fractions out of range, a class with too few different
/// pictures for each part, an `out` that holds something, a disk that fails, and an interruption. Nothing is written then.
pub fn split(source: &Path, out: &Path, options: &SplitOptions, progress: Progress<'_>) -> Result<SplitReport, Error> {
    let SplitOptions { val, test, seed, link } = *options;
    for (name, fraction, sound) in [("val", val, val > 0.0), ("test", test, test >= 0.0), ("val + test", val + test, true)] {
        if !sound || fraction >= 1.0 || fraction.is_nan() {
            return Err(Error::option(format!("{name} = {fraction}"), "must be a fraction between 0 and 1"));
        }
    }
    let fault = |reason: String| Error::Dataset(DatasetError::Inconsistent { dataset: source.display().to_string(), reason });
    if source.is_file() {
        return Err(fault("it is no folder: only folders of classes are split, a list has a column `split`".to_owned()));
    }
    let root = match PartFolders::find(source)? {
        None => source.to_owned(),
        Some(PartFolders { train, val: None, test: None }) => train,
        Some(_) => {
            return Err(fault("it is split already: name the folder with the pictures to split, such as its `train`".to_owned()));
        }
    };
    let whole_path = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
    if whole_path(out).starts_with(whole_path(source)) {
        return Err(fault(format!("{} lies within it: name a folder elsewhere for the parts", out.display())));
    }
    let all = ImageFolder::open(&root, whole())?;
    if !all.left_out().is_harmless() {
        tracing::warn!("{}: {}", all.name(), all.left_out());
    }
    let classes = all.classes().to_vec();
    // The fraction that is left is of fewer.
    let drawn = all.split(val, derive_seed(seed, &[SPLIT_SEEDS]))?;
    let (train, judged) = match test > 0.0 {
        false => (drawn.train, None),
        true => {
            let Split { train, test } = drawn.train.split(test / (1.0 - val), derive_seed(seed, &[SPLIT_SEEDS, 1]))?;
            (train, Some(test))
        }
    };
    let drawn = [Some(train), Some(drawn.test), judged];
    let mut files: Vec<(PathBuf, i64, usize)> = Vec::new();
    for (part, folder) in (0..).zip(drawn.iter().flatten()) {
        let examples = folder.examples()?;
        files.extend((0..folder.len()).map(|index| (examples.place(index), examples.label(index), part)));
    }
    files.sort();
    let moved = bring_together(&mut files, progress)?;
    let parts = if test > 0.0 { 3 } else { 2 };
    let mut counts = vec![[0_usize; PARTS.len()]; classes.len()];
    for (_, label, part) in &files {
        counts[label.unsigned_abs() as usize][*part] += 1;
    }
    if let Some((class, _)) = classes.iter().zip(&counts).find(|(_, count)| count[..parts].contains(&0)) {
        return Err(fault(format!(
            "class {class} has too few different pictures for {parts} parts: add some, or remove its folder"
        )));
    }
    striate_files::build_folder(out, |folder| {
        for (done, (path, _, part)) in files.iter().enumerate() {
            if !progress("writing", done as u64, Some(files.len() as u64)) {
                return Err(Error::Stopped);
            }
            let to = folder.join(PARTS[*part]).join(path.strip_prefix(&root).unwrap_or(path));
            match link {
                true => striate_files::link_new(path, &to)?,
                false => {
                    let mut file = striate_files::open(path)?;
                    striate_files::write_new(&to, |to| std::io::copy(&mut file, to).map(drop))?;
                }
            }
        }
        Ok(())
    })?;
    let count = |part: usize| counts.iter().map(|count| count[part]).sum();
    Ok(SplitReport { parts: (0..parts).map(|part| (PARTS[part].to_owned(), count(part))).collect(), moved })
}

/// Moves the copies of a picture to the part of the first; how many.
fn bring_together(files: &mut [(PathBuf, i64, usize)], progress: Progress<'_>) -> Result<usize, Error> {
    // Only files of one length can be the same.
    let mut lengths: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, (path, ..)) in files.iter().enumerate() {
        let length = fs::metadata(path).map_err(FilesError::new("read", path))?.len();
        lengths.entry(length).or_default().push(index);
    }
    let (mut done, mut moved, all) = (0, 0, files.len() as u64);
    for of_length in lengths.into_values() {
        let mut firsts: HashMap<String, usize> = HashMap::new();
        for index in &of_length {
            if !progress("comparing", done, Some(all)) {
                return Err(Error::Stopped);
            }
            done += 1;
            if of_length.len() > 1 {
                let content = striate_fetch::sha256_file(&files[*index].0).map_err(DatasetError::from)?;
                let part = *firsts.entry(content).or_insert(files[*index].2);
                moved += usize::from(files[*index].2 != part);
                files[*index].2 = part;
            }
        }
    }
    Ok(moved)
}
