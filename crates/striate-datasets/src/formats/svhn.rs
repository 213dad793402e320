//! SVHN's cropped digits: a MATLAB file for each part, with the pictures `X` and labels `y`, of
//! which 10 means the digit 0.

use super::mat::{Fault, arrays};
use super::{Format, Gathered, Loaded, find_files, in_chunks, in_memory};
use crate::catalogue::Entry;
use crate::{DatasetError, InMemory, Split};
use std::io::Read;
use std::path::{Path, PathBuf};
use striate_torch::Budget;

const SHAPE: [i64; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
const TRAIN: &str = "train_32x32.mat";
const TEST: &str = "test_32x32.mat";

#[derive(Debug)]
pub(crate) struct Svhn;

impl Format for Svhn {
    fn find(&self, entry: &Entry, folder: &Path) -> Result<PathBuf, String> {
        find_files(entry, folder, &[TRAIN, TEST])
    }

    fn read(&self, entry: &'static Entry, _: &Path, root: &Path, budget: &Budget) -> Result<Loaded, DatasetError> {
        let part = |file: &str| read_part(entry, &root.join(file), budget);
        Ok(Loaded::Memory(Split { train: part(TRAIN)?, test: part(TEST)? }))
    }
}

fn read_part(entry: &'static Entry, path: &Path, budget: &Budget) -> Result<InMemory, DatasetError> {
    let (mut images, mut labels) = (None, None);
    arrays(path, &["X", "y"], budget, &mut |name, dims, values| match (name, dims) {
        ("X", [32, 32, 3, count]) => {
            let mut pictures = Gathered::new(SHAPE, *count)?;
            in_chunks(values, PIXELS, *count, |chunk| {
                // Columns come first.
                pictures.add(&chunk.f_view([-1, SHAPE[0], SHAPE[2], SHAPE[1]])?.f_transpose(2, 3)?)
            })??;
            images = Some(pictures.finish()?);
            Ok(())
        }
        ("y", [count, 1]) => {
            let mut bytes = Vec::new();
            values.take(*count).read_to_end(&mut bytes)?;
            labels = Some(bytes.into_iter().map(|label| i64::from(if label == 10 { 0 } else { label })).collect::<Vec<_>>());
            Ok(())
        }
        (name, dims) => Err(Fault::Unsound(format!("{name} has the dimensions {dims:?}: X is [32, 32, 3, N], and y is [N, 1]"))),
    })?;
    let unsound = |reason| DatasetError::Unsound { path: path.into(), format: "MATLAB", reason };
    match (images, labels) {
        (Some(images), Some(labels)) if images.size()[0] == labels.len() as i64 => in_memory(entry, images, &labels, path),
        (Some(images), Some(labels)) => Err(unsound(format!("it has {} labels for {} pictures", labels.len(), images.size()[0]))),
        (None, _) => Err(unsound("it has no array X of pictures".to_owned())),
        (_, None) => Err(unsound("it has no array y of labels".to_owned())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::formats::tests::{at, fault, labels, split};

    // scipy.io.savemat: see tests/formats/make.py
    const COMPRESSED: &[u8] = include_bytes!("../../tests/formats/compressed.mat");
    const PLAIN: &[u8] = include_bytes!("../../tests/formats/plain.mat");

    #[test]
    fn scipys_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(TRAIN), COMPRESSED).unwrap();
        std::fs::write(folder.path().join(TEST), PLAIN).unwrap();
        let data = split("svhn", folder.path());
        assert_eq!((data.train.len(), data.test.len(), data.train.shape()), (5, 1, [3, 32, 32]));
        assert_eq!((labels(&data.train), labels(&data.test)), (vec![1, 0, 7, 9, 2], vec![1]));
        for [number, channel, row, column] in [[0, 0, 0, 0], [4, 2, 31, 30], [3, 1, 5, 20], [1, 0, 20, 5]] {
            let expected = (7 * row + 3 * column + 50 * channel + 11 * number) % 256;
            assert_eq!(i64::from(at(&data.train, [number, channel, row, column])), expected);
            assert_eq!(i64::from(at(&data.test, [0, channel, row, column])), (expected + 256 - 11 * number) % 256);
        }
    }

    #[test]
    fn what_is_cut_or_no_digit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(TEST), PLAIN).unwrap();
        let told = |bytes: &[u8]| {
            std::fs::write(folder.path().join(TRAIN), bytes).unwrap();
            fault("svhn", folder.path())
        };
        assert!(told(&PLAIN[..PLAIN.len() - 8]).ends_with("it is cut off"));
        // The last element is y, and its only value is in the last tag.
        let mut wrong = PLAIN.to_vec();
        let label = wrong.len() - 4;
        wrong[label] = 11;
        assert!(told(&wrong).ends_with("example 0 has the label 11, but there are 10 classes, counted from 0"));
        let y = PLAIN.len() - 56;
        assert!(told(&PLAIN[..y]).ends_with("it has no array y of labels"), "{}", told(&PLAIN[..y]));
        let other = [&PLAIN[..128], &PLAIN[y..]].concat();
        assert!(told(&other).ends_with("it has no array X of pictures"));
    }
}
