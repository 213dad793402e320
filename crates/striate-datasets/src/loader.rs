use crate::{Augment, Batch, Dataset, DatasetError, Preprocess};
use striate_torch::{Generator, derive_seed};
use tch::{Device, Kind, Tensor};

/// What sets the seeds of the order and of augmentation apart from others that are derived from the same seed.
const ORDER_SEEDS: u64 = 0x4f52_4452;
const AUGMENT_SEEDS: u64 = 0x4155_474d;

/// How a [`Loader`] makes batches.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Examples in a batch.
    pub batch_size: usize,
    /// Whether each epoch has an order of its own, instead of the dataset's.
    pub shuffle: bool,
    /// Whether a last batch with fewer examples is left out. It takes `shuffle`, or the same examples would never be seen.
    pub drop_last: bool,
    /// What the order and the augmentation are drawn from.
    pub seed: u64,
    /// Random changes to the images.
    pub augment: Augment,
}

impl LoaderOptions {
    /// For training: shuffled, with every example in each epoch, and not augmented.
    pub fn train(batch_size: usize, seed: u64) -> Self {
        Self { batch_size, shuffle: true, drop_last: false, seed, augment: Augment::default() }
    }

    /// For evaluation: every example once, in the dataset's order.
    pub fn eval(batch_size: usize) -> Self {
        Self { shuffle: false, ..Self::train(batch_size, 0) }
    }
}

/// Batches of a dataset, ready for a network: chosen, augmented, brought to its input shape, and normalised, each as an
/// operation on the whole batch.
///
/// A batch depends on the seed, the epoch's number and the batch's number alone: not on what was drawn before, on the number of
/// threads, or on libtorch's global generator.
///
/// ```
/// use striate_datasets::{Fit, Loader, LoaderOptions, Normalise, Preprocess, digits};
/// let train = digits()?.train;
/// let preprocess = Preprocess::new([1, 8, 8], [1, 32, 32], Fit::Resize, Normalise::of(&train)?)?;
/// let train = train.fit(&preprocess)?; // once, instead of in every batch
/// let loader = Loader::new(&train, preprocess, LoaderOptions::train(64, 1))?;
/// for batch in loader.epoch(0)? {
///     let batch = batch?;
///     assert_eq!(batch.images.size()[1..], [1, 32, 32]);
/// }
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
pub struct Loader<'d> {
    dataset: &'d dyn Dataset,
    preprocess: Preprocess,
    options: LoaderOptions,
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Loader");
        debug
            .field("dataset", &self.dataset.name())
            .field("preprocess", &self.preprocess)
            .field("options", &self.options)
            .finish()
    }
}

impl<'d> Loader<'d> {
    /// A loader of `dataset` for the network whose input `preprocess` describes.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Option`] when an option is out of its range, or there would be no batch.
    pub fn new(dataset: &'d dyn Dataset, preprocess: Preprocess, options: LoaderOptions) -> Result<Self, DatasetError> {
        preprocess.check()?;
        preprocess.check_channels(dataset.shape()[0])?;
        options.augment.check(preprocess.input)?;
        if options.batch_size == 0 {
            return Err(DatasetError::option("batch_size", "a batch has at least one example"));
        }
        if options.drop_last && !options.shuffle {
            return Err(DatasetError::option("drop_last", "without shuffling, the last examples would never be seen"));
        }
        let loader = Self { dataset, preprocess, options };
        if loader.is_empty() {
            let reason = format!("{} has {} examples, too few for a whole batch", dataset.name(), dataset.len());
            return Err(DatasetError::option("batch_size", reason));
        }
        Ok(loader)
    }

    /// The number of batches in an epoch.
    pub fn len(&self) -> usize {
        match self.options.drop_last {
            true => self.dataset.len() / self.options.batch_size,
            false => self.dataset.len().div_ceil(self.options.batch_size),
        }
    }

    /// The examples in the smallest batch of an epoch, which is the last.
    pub fn smallest_batch(&self) -> usize {
        match self.dataset.len() % self.options.batch_size {
            rest if rest > 0 && !self.options.drop_last => rest,
            _ => self.options.batch_size,
        }
    }

    /// Whether there are no batches; [`new`](Self::new) refuses that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dataset that batches are taken from.
    pub fn dataset(&self) -> &'d dyn Dataset {
        self.dataset
    }

    /// What is done to each image; a model's bundle keeps it.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The batches of an epoch, from the first.
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory.
    pub fn epoch(&self, epoch: u64) -> Result<Epoch<'_>, DatasetError> {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from number `first` on: those that [`epoch`](Self::epoch) would give after `first` others, at no cost
    /// for these.
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Result<Epoch<'_>, DatasetError> {
        let len = self.dataset.len().cast_signed() as i64;
        let order = match self.options.shuffle {
            true => Generator::new(derive_seed(self.options.seed, &[ORDER_SEEDS, epoch])).permutation(len)?,
            false => Tensor::f_arange(len, (Kind::Int64, Device::Cpu))?,
        };
        Ok(Epoch { loader: self, order, epoch, next: first })
    }

    fn batch(&self, epoch: u64, number: usize, order: &Tensor) -> Result<Batch, DatasetError> {
        let start = number * self.options.batch_size;
        let length = self.options.batch_size.min(self.dataset.len() - start);
        let indices = order.f_narrow(0, start.cast_signed() as i64, length.cast_signed() as i64)?;
        let Batch { images, labels } = self.dataset.batch(&indices)?;
        let images = self.preprocess.fit(&images)?;
        let mut generator = Generator::new(derive_seed(self.options.seed, &[AUGMENT_SEEDS, epoch, number as u64]));
        let images = self.options.augment.apply(images, &mut generator)?;
        Ok(Batch { images: self.preprocess.normalise.apply(images)?, labels })
    }
}

/// The batches of one epoch: images `[B, C, H, W]` in normalised float32, labels `[B]` in int64.
#[derive(Debug)]
pub struct Epoch<'l> {
    loader: &'l Loader<'l>,
    order: Tensor,
    epoch: u64,
    next: usize,
}

impl Iterator for Epoch<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next;
        (number < self.loader.len()).then(|| {
            self.next += 1;
            self.loader.batch(self.epoch, number, &self.order)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.loader.len().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch<'_> {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::tests::counting;
    use crate::{Fit, InMemory, Normalise};

    fn preprocess(shape: [i64; 3]) -> Preprocess {
        Preprocess::new(shape, shape, Fit::Pad, Normalise { mean: vec![0.0], std: vec![1.0 / 255.0] }).unwrap()
    }

    /// Ten images of one pixel, which is the example's number.
    fn numbers() -> InMemory {
        counting(10, [1, 1, 1])
    }

    fn epoch(data: &InMemory, options: LoaderOptions, epoch: u64, first: usize) -> Vec<Batch> {
        let loader = Loader::new(data, preprocess(data.shape()), options).unwrap();
        let batches: Vec<Batch> = loader.epoch_from(epoch, first).unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.len(), loader.len().saturating_sub(first));
        batches
    }

    fn pixels(batches: &[Batch]) -> Vec<Vec<f32>> {
        let round = |images: &Tensor| Vec::<f32>::try_from(images.flatten(0, -1).round()).unwrap();
        batches.iter().map(|batch| round(&batch.images)).collect()
    }

    #[test]
    fn an_epoch_has_every_example_once() {
        let data = numbers();
        let batches = epoch(&data, LoaderOptions::train(4, 1), 0, 0);
        for batch in &batches {
            assert_eq!((batch.images.kind(), batch.labels.kind()), (Kind::Float, Kind::Int64));
            let labels = batch.images.round().flatten(0, -1).to_kind(Kind::Int64).remainder(3);
            assert_eq!(batch.labels, labels, "labels go with their images");
        }
        let shuffled = pixels(&batches);
        assert_eq!(shuffled.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let mut seen = shuffled.concat();
        assert!(!seen.is_sorted(), "{seen:?}");
        seen.sort_by(f32::total_cmp);
        let all: Vec<f32> = (0..10_u8).map(f32::from).collect();
        assert_eq!(seen, all);
        assert_eq!(pixels(&epoch(&data, LoaderOptions::eval(3), 0, 0)).concat(), all);
    }

    #[test]
    fn order_depends_on_seed_and_epoch_alone() {
        let data = numbers();
        let order = |seed, number| pixels(&epoch(&data, LoaderOptions::train(4, seed), number, 0));
        let first = order(1, 0);
        tch::manual_seed(99);
        assert_eq!(order(1, 0), first);
        assert_ne!(order(1, 1), first);
        assert_ne!(order(2, 0), first);
    }

    fn augmented(seed: u64) -> LoaderOptions {
        let augment = Augment { pad_crop: 2, hflip: true, rotate_degrees: 10.0, translate: 0.1, scale: [0.9, 1.1] };
        LoaderOptions { augment, ..LoaderOptions::train(16, seed) }
    }

    #[test]
    fn resuming_gives_the_same_batches() {
        let data = counting(50, [1, 8, 8]);
        let whole = epoch(&data, augmented(3), 2, 0);
        for first in [0, 1, 3, 4] {
            let rest = epoch(&data, augmented(3), 2, first);
            for (resumed, batch) in rest.iter().zip(&whole[first..]) {
                assert_eq!(resumed.images, batch.images);
                assert_eq!(resumed.labels, batch.labels);
            }
        }
        assert!(epoch(&data, augmented(3), 2, 9).is_empty());
    }

    #[test]
    fn threads_change_no_bit() {
        let data = counting(64, [3, 32, 32]);
        let at = |threads| {
            let before = striate_torch::num_threads();
            striate_torch::set_num_threads(threads);
            let batches = epoch(&data, LoaderOptions { batch_size: 64, ..augmented(5) }, 0, 0);
            striate_torch::set_num_threads(before);
            batches
        };
        let (one, two) = (at(1), at(2));
        assert_eq!(one[0].images, two[0].images);
    }

    #[test]
    fn images_are_fitted_in_the_batch_if_they_were_not_before() {
        let data = counting(5, [1, 2, 2]);
        let preprocess = Preprocess::new([1, 2, 2], [3, 4, 4], Fit::Pad, Normalise::identity()).unwrap();
        let once = data.fit(&preprocess).unwrap();
        let batch = |data: &InMemory| {
            let loader = Loader::new(data, preprocess.clone(), LoaderOptions::eval(5)).unwrap();
            loader.epoch(0).unwrap().next().unwrap().unwrap().images
        };
        assert_eq!(batch(&data).size(), [5, 3, 4, 4]);
        assert_eq!(batch(&data), batch(&once));
    }

    #[test]
    fn options_without_sense_are_refused() {
        let data = numbers();
        let fault = |options| Loader::new(&data, preprocess([1, 1, 1]), options).unwrap_err().to_string();
        assert!(fault(LoaderOptions::train(0, 0)).contains("at least one"));
        assert!(fault(LoaderOptions { drop_last: true, ..LoaderOptions::eval(3) }).contains("never be seen"));
        let too_large = LoaderOptions { drop_last: true, ..LoaderOptions::train(11, 0) };
        assert_eq!(fault(too_large), "batch_size: counting has 10 examples, too few for a whole batch");
        assert!(fault(augmented(0)).starts_with("pad_crop"));
        let colour = counting(10, [3, 1, 1]);
        let error = Loader::new(&colour, preprocess([1, 1, 1]), LoaderOptions::eval(3)).unwrap_err().to_string();
        assert_eq!(error, "input: the images have 3 channels, but the network takes 1");
        let dropping = LoaderOptions { drop_last: true, ..LoaderOptions::train(4, 0) };
        assert_eq!(epoch(&data, dropping, 0, 0).len(), 2);
    }
}
