//! The handwritten digits that are compiled in.

use super::{Format, Loaded};
use crate::catalogue::Entry;
use crate::{Dataset, DatasetError, InMemory, Split};
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::{Path, PathBuf};
use striate_torch::Budget;
use tch::{Kind, Tensor};

/// The file that scikit-learn ships: see `data/ATTRIBUTION.md`.
const CSV_GZ: &[u8] = include_bytes!("../../data/digits.csv.gz");
const SIDE: i64 = 8;
const MAX_VALUE: u32 = 16;
const TRAIN: usize = 898;

/// [`digits`].
#[derive(Debug)]
pub(crate) struct Digits;

impl Format for Digits {
    fn find(&self, _: &Entry, folder: &Path) -> Result<PathBuf, String> {
        Ok(folder.to_owned())
    }

    fn read(&self, _: &'static Entry, _: &Path, _: &Path, _: &Budget) -> Result<Loaded, DatasetError> {
        Ok(Loaded::Memory(digits()?))
    }
}

/// The UCI *Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, 1998, <https://doi.org/10.24432/C50P49>, CC BY
/// 4.0), which need no download: 898 examples to train with and 899 to test with, images `[1, 8, 8]`, ten classes.
///
/// The file's values 0 to 16 are scaled to 0 to 255.
///
/// # Errors
///
/// None but libtorch's, such as a lack of memory.
pub fn digits() -> Result<Split, DatasetError> {
    let mut csv = String::new();
    let damaged = |reason: String| DatasetError::Inconsistent { dataset: "digits".to_owned(), reason };
    GzDecoder::new(CSV_GZ).read_to_string(&mut csv).map_err(|error| damaged(error.to_string()))?;
    let values: Result<Vec<u8>, _> = csv.split_terminator([',', '\n']).map(str::parse).collect();
    let values = values.map_err(|error| damaged(error.to_string()))?;

    let rows = Tensor::f_from_slice(&values)?.f_view([-1, SIDE * SIDE + 1])?;
    let scale = f64::from(u8::MAX) / f64::from(MAX_VALUE);
    let images = rows.f_narrow(1, 0, SIDE * SIDE)?.f_to_kind(Kind::Double)?.f_mul_scalar(scale)?.f_round()?;
    let images = images.f_to_kind(Kind::Uint8)?.f_view([-1, 1, SIDE, SIDE])?;
    let classes = (0..10).map(|digit: u8| digit.to_string()).collect();
    let all = InMemory::new("digits", images, &rows.f_select(1, SIDE * SIDE)?, classes)?;
    Ok(Split { train: all.range(0..TRAIN)?, test: all.range(TRAIN..all.len())? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_file_is_scikit_learns() {
        assert_eq!(
            striate_fetch::sha256_reader(CSV_GZ).unwrap(),
            "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
        );
    }

    #[test]
    fn there_are_1797_digits() {
        let Split { train, test } = digits().unwrap();
        assert_eq!((train.len(), test.len(), train.shape()), (898, 899, [1, 8, 8]));
        // sklearn.datasets.load_digits(): images.sum(), target.sum() over the same halves, and the first row
        let raw = |data: &InMemory| (data.images().to_kind(Kind::Double) * (16.0 / 255.0)).round().sum(Kind::Double);
        assert_eq!((raw(&train).double_value(&[]), raw(&test).double_value(&[])), (RAW_SUMS[0], RAW_SUMS[1]));
        let labels = |data: &InMemory| data.labels().sum(Kind::Int64).int64_value(&[]);
        assert_eq!((labels(&train), labels(&test)), (LABEL_SUMS[0], LABEL_SUMS[1]));
        let row: Vec<u8> = train.images().get(0).flatten(0, -1).narrow(0, 0, 8).try_into().unwrap();
        assert_eq!(row, [0, 0, 80, 207, 143, 16, 0, 0]);
    }

    const RAW_SUMS: [f64; 2] = [282_674.0, 279_044.0];
    const LABEL_SUMS: [i64; 2] = [4010, 4060];
}
