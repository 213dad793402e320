//! The part of each batch that one of several processes loads.
use crate::{Batch, DatasetError};
use std::ops::Range;

/// One of several parts of each batch, which differ by one example at most; the first are the larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Its number, from 0.
    pub rank: usize,
    /// Into how many parts batches are cut.
    pub of: usize,
}

impl Portion {
    /// All of each batch.
    pub const WHOLE: Self = Self { rank: 0, of: 1 };

    /// The rows of a batch of `len` examples.
    pub fn rows(self, len: usize) -> Range<usize> {
        let start = |rank: usize| rank * (len / self.of) + rank.min(len % self.of);
        start(self.rank)..start(self.rank + 1)
    }

    pub(super) fn check(self) -> Result<(), DatasetError> {
        match self.rank < self.of {
            true => Ok(()),
            false => Err(DatasetError::option("portion", format!("part {} of {} is not there", self.rank, self.of))),
        }
    }

    /// Of an epoch's examples those of the portion, where each batch ends among them, and how many at the start of each are there to
    /// be mixed with alone: the one before the first, if pictures are mixed with those before them.
    pub(super) fn of_batches<T: Copy>(
        self,
        order: Vec<T>,
        batch_size: usize,
        batches: usize,
        mixed: bool,
    ) -> (Vec<T>, Vec<usize>, i64) {
        let ends = (1..=batches).map(|batch| order.len().min(batch * batch_size));
        if self == Self::WHOLE {
            let ends = ends.collect();
            return (order, ends, 0);
        }
        let (mut own, mut own_ends, mut start) = (Vec::new(), Vec::with_capacity(batches), 0);
        for end in ends {
            let batch = &order[start..end];
            let rows = self.rows(batch.len());
            if mixed {
                own.push(batch[(rows.start + batch.len() - 1) % batch.len()]);
            }
            own.extend_from_slice(&batch[rows]);
            own_ends.push(own.len());
            start = end;
        }
        (own, own_ends, i64::from(mixed))
    }
}

impl Batch {
    /// The batch but for its first examples.
    pub(super) fn without_first(self, count: i64) -> Result<Self, DatasetError> {
        let rest = |tensor: tch::Tensor| tensor.f_narrow(0, count, tensor.size()[0] - count);
        let Self { images, labels, targets } = self;
        Ok(Self { images: rest(images)?, labels: rest(labels)?, targets: targets.map(rest).transpose()? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Loader, LoaderOptions, Normalise, Preprocess, Transform, digits};
    use tch::Tensor;

    #[test]
    fn parts_are_the_whole_and_differ_by_one() {
        for (len, of) in [(10, 3), (4, 4), (2, 3), (64, 1)] {
            let parts: Vec<_> = (0..of).map(|rank| Portion { rank, of }.rows(len)).collect();
            let joined: Vec<usize> = parts.iter().cloned().flatten().collect();
            assert_eq!(joined, (0..len).collect::<Vec<_>>());
            assert!(parts.iter().all(|part| part.len() == len / of || part.len() == len / of + 1));
        }
        assert!(Portion { rank: 2, of: 2 }.check().unwrap_err().to_string().contains("part 2 of 2"));
    }

    /// An epoch's batches from the fourth on, with all parts of each put together: images and targets.
    fn batches(transforms: &str, batch_size: usize, epoch: u64, workers: &[usize]) -> Vec<(Tensor, Tensor)> {
        let data = digits().unwrap().train;
        let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], crate::Fit::Resize, Normalise::of(&data).unwrap()).unwrap();
        let transforms: Vec<Transform> =
            transforms.split_whitespace().map(|kind| toml::from_str(&format!("kind = '{kind}'")).unwrap()).collect();
        let of = workers.len();
        let loader = |(rank, workers): (usize, &usize)| {
            let (transforms, workers, portion) = (transforms.clone(), Some(*workers), Portion { rank, of });
            let options = LoaderOptions { transforms, workers, portion, ..LoaderOptions::train(batch_size, 9) };
            Loader::new(&data, preprocess.clone(), options).unwrap()
        };
        let loaders: Vec<_> = workers.iter().enumerate().map(loader).collect();
        let mut epochs: Vec<_> = loaders.iter().map(|loader| loader.epoch_from(epoch, 3).unwrap()).collect();
        let joined = |parts: Vec<Tensor>| Tensor::cat(&parts, 0);
        (3..loaders[0].len())
            .map(|number| {
                let parts: Vec<Batch> = epochs.iter_mut().map(|epoch| epoch.next().unwrap().unwrap()).collect();
                let rows = parts.iter().map(|part| part.labels.size()[0]).sum::<i64>();
                assert_eq!(rows, loaders[0].batch_len(number) as i64);
                let targets = parts.iter().map(|part| part.targets().shallow_clone()).collect();
                (joined(parts.iter().map(|part| part.images.shallow_clone()).collect()), joined(targets))
            })
            .collect()
    }

    #[test]
    fn any_number_of_processes_and_workers_see_the_same_batches() {
        for transforms in ["affine horizontal-flip random-erasing", "affine mix-up-or-cut-mix"] {
            for batch_size in [32, 61, 128] {
                let one = batches(transforms, batch_size, 2, &[0]);
                for workers in [&[0, 1][..], &[2, 0, 8], &[0, 1, 2, 8], &[8, 2, 1, 0]] {
                    assert_eq!(batches(transforms, batch_size, 2, workers), one, "{transforms} {batch_size} {workers:?}");
                }
                assert_ne!(batches(transforms, batch_size, 3, &[0, 1])[0].0, one[0].0);
            }
        }
    }
}
