//! CIFAR's binary files: records of one or two labels and a picture, plane by plane.

use super::{Format, Gathered, Loaded, find_files, in_chunks, in_memory, open};
use crate::catalogue::Entry;
use crate::{DatasetError, InMemory, Split};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use striate_torch::Budget;
use tch::Kind;

const SHAPE: [i64; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;

#[derive(Debug)]
pub(crate) struct Cifar {
    pub(crate) train: &'static [&'static str],
    pub(crate) test: &'static str,
    /// Labels before each picture.
    pub(crate) labels: usize,
    /// The one that counts.
    pub(crate) label: usize,
}

impl Format for Cifar {
    fn find(&self, entry: &Entry, folder: &Path) -> Result<PathBuf, String> {
        find_files(entry, folder, &[self.train, &[self.test]].concat())
    }

    // A file takes as much memory as it has bytes.
    fn read(&self, entry: &'static Entry, _: &Path, root: &Path, _: &Budget) -> Result<Loaded, DatasetError> {
        Ok(Loaded::Memory(Split { train: self.part(entry, root, self.train)?, test: self.part(entry, root, &[self.test])? }))
    }
}

impl Cifar {
    fn part(&self, entry: &'static Entry, root: &Path, files: &[&str]) -> Result<InMemory, DatasetError> {
        let record = self.labels + PIXELS;
        let mut opened = Vec::new();
        for file in files {
            let path = root.join(file);
            let (file, length) = open(&path)?;
            if length == 0 || length % record as u64 != 0 {
                let reason = format!("its {length} bytes are no whole number of pictures of {record} bytes");
                return Err(unsound(path, reason));
            }
            opened.push((path, file, length / record as u64));
        }
        let mut images = Gathered::new(SHAPE, opened.iter().map(|(.., count)| count).sum())?;
        let mut labels: Vec<i64> = Vec::new();
        let (first, pixels) = (self.labels as i64, PIXELS as i64);
        let classes = entry.classes().len() as i64;
        for (path, file, count) in opened {
            let before = labels.len();
            let read = in_chunks(BufReader::new(file), record, count, |records| {
                labels.extend(Vec::<i64>::try_from(records.f_select(1, self.label as i64)?.f_to_kind(Kind::Int64)?)?);
                images.add(&records.f_narrow(1, first, pixels)?.f_reshape([-1, SHAPE[0], SHAPE[1], SHAPE[2]])?)
            })?;
            read.map_err(|error| DatasetError::io("read", &path, error))?;
            if let Some(index) = labels[before..].iter().position(|label| *label >= classes) {
                let label = labels[before + index];
                return Err(unsound(path, format!("picture {index} has the label {label}, but there are {classes} classes")));
            }
        }
        in_memory(entry, images.finish()?, &labels, root)
    }
}

fn unsound(path: PathBuf, reason: String) -> DatasetError {
    DatasetError::Unsound { path, format: "CIFAR", reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::Dataset;
    use crate::formats::tests::{at, fault, labels, split};
    use std::path::Path;

    /// A record whose planes are all 1, 2 and 3 more than `first`, but for a 200 in the green
    /// plane's row 2, column 5.
    fn record(labels: &[u8], first: u8) -> Vec<u8> {
        let planes: Vec<u8> = (1..=3).flat_map(|plane| [first + plane; 1024]).collect();
        let mut record = [labels, &planes].concat();
        record[labels.len() + 1024 + 2 * 32 + 5] = 200;
        record
    }

    fn write_cifar_10(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for batch in 1..=5_u8 {
            let records = [record(&[batch], 10 * batch), record(&[9], 60 + batch)].concat();
            std::fs::write(folder.join(format!("data_batch_{batch}.bin")), records).unwrap();
        }
        std::fs::write(folder.join("test_batch.bin"), record(&[7], 100)).unwrap();
    }

    #[test]
    fn planes_become_pictures_in_the_order_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        write_cifar_10(&folder.path().join("cifar-10-batches-bin"));
        let data = split("cifar-10", folder.path());
        assert_eq!((data.train.len(), data.test.len(), data.train.shape()), (10, 1, [3, 32, 32]));
        assert_eq!(labels(&data.train), [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]);
        assert_eq!(data.test.classes()[usize::try_from(labels(&data.test)[0]).unwrap()], "horse");
        assert_eq!([0, 1, 2].map(|channel| at(&data.train, [2, channel, 31, 31])), [21, 22, 23]);
        assert_eq!([at(&data.train, [9, 1, 2, 5]), at(&data.train, [9, 1, 5, 2]), at(&data.test, [0, 2, 0, 0])], [200, 67, 103]);
    }

    #[test]
    fn the_hundred_have_two_labels() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.bin"), [record(&[3, 99], 0), record(&[19, 41], 9)].concat()).unwrap();
        std::fs::write(folder.path().join("test.bin"), record(&[13, 26], 0)).unwrap();
        let (fine, coarse) = (split("cifar-100", folder.path()), split("cifar-100-coarse", folder.path()));
        assert_eq!((labels(&fine.train), labels(&coarse.train)), (vec![99, 41], vec![3, 19]));
        let name = |data: &crate::InMemory| data.classes()[usize::try_from(labels(data)[0]).unwrap()].clone();
        assert_eq!((name(&fine.test).as_str(), name(&coarse.test).as_str()), ("crab", "non-insect_invertebrates"));
        assert_eq!(at(&fine.train, [1, 0, 7, 7]), 10);
    }

    #[test]
    fn what_is_cut_or_no_label_is_told() {
        let folder = tempfile::tempdir().unwrap();
        write_cifar_10(folder.path());
        let third = folder.path().join("data_batch_3.bin");
        let told = |bytes: &[u8]| {
            std::fs::write(&third, bytes).unwrap();
            fault("cifar-10", folder.path())
        };
        let start = format!("{} is not a sound CIFAR file: ", third.display());
        let sound = record(&[2], 1);
        assert_eq!(told(&sound[1..]), start.clone() + "its 3072 bytes are no whole number of pictures of 3073 bytes");
        let wrong = [sound.clone(), record(&[10], 0)].concat();
        assert_eq!(told(&wrong), start + "picture 1 has the label 10, but there are 10 classes");
    }
}
