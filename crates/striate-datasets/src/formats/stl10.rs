//! STL-10's binary files: pictures plane by plane and column by column, and labels from 1 in files
//! of their own.

use super::{Format, Gathered, Loaded, find_files, in_chunks, in_memory, open};
use crate::catalogue::Entry;
use crate::{DatasetError, InMemory, Split};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use striate_torch::Budget;

const SHAPE: [i64; 3] = [3, 96, 96];
const PIXELS: usize = 3 * 96 * 96;
const TRAIN: [&str; 2] = ["train_X.bin", "train_y.bin"];
const TEST: [&str; 2] = ["test_X.bin", "test_y.bin"];

#[derive(Debug)]
pub(crate) struct Stl10;

impl Format for Stl10 {
    fn find(&self, entry: &Entry, folder: &Path) -> Result<PathBuf, String> {
        find_files(entry, folder, &[TRAIN, TEST].concat())
    }

    // A file takes as much memory as it has bytes.
    fn read(&self, entry: &'static Entry, _: &Path, root: &Path, _: &Budget) -> Result<Loaded, DatasetError> {
        let part = |[images, labels]: [&str; 2]| read_part(entry, &root.join(images), root.join(labels));
        Ok(Loaded::Memory(Split { train: part(TRAIN)?, test: part(TEST)? }))
    }
}

fn read_part(entry: &'static Entry, images: &Path, labels: PathBuf) -> Result<InMemory, DatasetError> {
    let (file, length) = open(images)?;
    let count = length / PIXELS as u64;
    if length == 0 || length % PIXELS as u64 != 0 {
        let reason = format!("its {length} bytes are no whole number of pictures of {PIXELS} bytes");
        return Err(unsound(images.into(), reason));
    }
    let (labels_file, labels_length) = open(&labels)?;
    if labels_length != count {
        return Err(unsound(labels, format!("it has {labels_length} labels for the {count} pictures in {}", images.display())));
    }
    let mut numbers = Vec::new();
    labels_file.take(count).read_to_end(&mut numbers).map_err(|error| DatasetError::io("read", &labels, error))?;
    let classes = entry.classes().len() as i64;
    let numbers: Vec<i64> = numbers.into_iter().map(i64::from).collect();
    if let Some(index) = numbers.iter().position(|number| !(1..=classes).contains(number)) {
        return Err(unsound(labels, format!("picture {index} has the label {}, not one from 1 to {classes}", numbers[index])));
    }
    let numbers: Vec<i64> = numbers.into_iter().map(|number| number - 1).collect();
    let mut pictures = Gathered::new(SHAPE, count)?;
    let read = in_chunks(BufReader::new(file), PIXELS, count, |chunk| {
        // Columns come first.
        pictures.add(&chunk.f_view([-1, SHAPE[0], SHAPE[2], SHAPE[1]])?.f_transpose(2, 3)?)
    })?;
    read.map_err(|error| DatasetError::io("read", images, error))?;
    in_memory(entry, pictures.finish()?, &numbers, &labels)
}

fn unsound(path: PathBuf, reason: String) -> DatasetError {
    DatasetError::Unsound { path, format: "STL-10", reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Dataset;
    use crate::formats::tests::{at, fault, labels, split};

    /// Pictures of planes that are all 1, 2 and 3 more than a number, but for a 200 in the green
    /// plane at row 2, column 5: columns lie one after the other.
    fn pictures(numbers: &[u8]) -> Vec<u8> {
        let picture = |number: &u8| {
            let mut picture: Vec<u8> = (1..=3).flat_map(|plane| [number + plane; 96 * 96]).collect();
            picture[96 * 96 + 5 * 96 + 2] = 200;
            picture
        };
        numbers.iter().flat_map(picture).collect()
    }

    fn write_files(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(TRAIN[0]), pictures(&[10, 20, 30])).unwrap();
        std::fs::write(folder.join(TRAIN[1]), [1, 10, 3]).unwrap();
        std::fs::write(folder.join(TEST[0]), pictures(&[40])).unwrap();
        std::fs::write(folder.join(TEST[1]), [8]).unwrap();
    }

    #[test]
    fn columns_come_first_and_labels_count_from_one() {
        let folder = tempfile::tempdir().unwrap();
        write_files(&folder.path().join("stl10_binary"));
        let data = split("stl-10", folder.path());
        assert_eq!((data.train.len(), data.test.len(), data.train.shape()), (3, 1, [3, 96, 96]));
        assert_eq!((labels(&data.train), labels(&data.test)), (vec![0, 9, 2], vec![7]));
        assert_eq!(data.test.classes()[7], "monkey");
        assert_eq!([0, 1, 2].map(|channel| at(&data.train, [1, channel, 95, 0])), [21, 22, 23]);
        assert_eq!([at(&data.train, [2, 1, 2, 5]), at(&data.train, [2, 1, 5, 2])], [200, 32]);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let told = |file: &str, bytes: &[u8]| {
            write_files(folder.path());
            std::fs::write(folder.path().join(file), bytes).unwrap();
            let start = format!("{} is not a sound STL-10 file: ", folder.path().join(file).display());
            let error = fault("stl-10", folder.path());
            error.strip_prefix(&start).unwrap_or_else(|| panic!("{error}")).to_owned()
        };
        assert_eq!(told(TEST[0], &[0; 27_647]), "its 27647 bytes are no whole number of pictures of 27648 bytes");
        let images = folder.path().join(TRAIN[0]);
        assert_eq!(told(TRAIN[1], &[1, 2]), format!("it has 2 labels for the 3 pictures in {}", images.display()));
        assert_eq!(told(TRAIN[1], &[1, 0, 2]), "picture 1 has the label 0, not one from 1 to 10");
        assert_eq!(told(TRAIN[1], &[1, 2, 11]), "picture 2 has the label 11, not one from 1 to 10");
    }
}
