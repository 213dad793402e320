mod portion;
mod preview;

pub use portion::Portion;
pub use preview::{Preview, PreviewInput, PreviewStep};

use crate::pixels::Views;
use crate::transform::{Rng, Stage};
use crate::workers::{Work, Workers, in_line};
use crate::{Batch, Dataset, DatasetError, Examples, Preprocess, Sampler, Task, Transform, View};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use striate_torch::{Memory, Values};
use tch::Device;

/// What sets the seeds of mixing apart from others that are derived from the same seed.
const MIX_SEEDS: u64 = 0x4d49_5853;
/// More are a mistake.
const MOST_WORKERS: usize = 1024;

/// How a [`Loader`] makes batches.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Examples in a batch.
    pub batch_size: usize,
    /// Whether each epoch has an order of its own, instead of the dataset's.
    pub shuffle: bool,
    /// Whether a last batch with fewer examples is left out. It takes `shuffle`, or the same examples would never be seen.
    pub drop_last: bool,
    /// What the order and the transforms are drawn from.
    pub seed: u64,
    /// Which examples are in an epoch.
    pub sampler: Sampler,
    /// What is done to each picture.
    pub transforms: Vec<Transform>,
    /// Threads that make batches ahead, beside what uses them: 0 makes each batch when it is asked for, with as many threads as
    /// libtorch's operators use. `None` chooses: 0 for pictures in memory with light transforms, else that many. It changes no value.
    pub workers: Option<usize>,
    /// The part of each batch that is loaded, where other processes load the others. It changes no value either.
    pub portion: Portion,
}

impl LoaderOptions {
    /// For training: shuffled, with every example in each epoch, and not transformed.
    pub fn train(batch_size: usize, seed: u64) -> Self {
        Self {
            batch_size,
            shuffle: true,
            drop_last: false,
            seed,
            sampler: Sampler::Each,
            transforms: Vec::new(),
            workers: None,
            portion: Portion::WHOLE,
        }
    }

    /// For evaluation: every example once, in the dataset's order.
    pub fn eval(batch_size: usize) -> Self {
        Self { shuffle: false, ..Self::train(batch_size, 0) }
    }
}

/// Batches of a dataset, ready for a network: chosen, transformed, brought to its input shape, and normalised.
///
/// What happens to an example depends on the seed, the epoch's number and the example's index alone: not on the batch that it is in,
/// on the number of threads, or on libtorch's global generator. The order depends on the seed and the epoch, and what is mixed on
/// the batch's number too.
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
    way: Arc<Way>,
    options: LoaderOptions,
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Loader");
        debug
            .field("dataset", &self.dataset.name())
            .field("preprocess", self.preprocess())
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
        Transform::check_all(&options.transforms, preprocess.input)?;
        options.sampler.check(dataset, options.shuffle)?;
        if options.batch_size == 0 {
            return Err(DatasetError::option("batch_size", "a batch has at least one example"));
        }
        if options.workers.is_some_and(|workers| workers > MOST_WORKERS) {
            return Err(DatasetError::option("workers", format!("{MOST_WORKERS} threads at most")));
        }
        options.portion.check()?;
        if options.drop_last && !options.shuffle {
            return Err(DatasetError::option("drop_last", "without shuffling, the last examples would never be seen"));
        }
        let (examples, transforms) = (dataset.examples()?, options.transforms.clone());
        let way = Arc::new(Way {
            examples,
            sized: Transform::size_themselves(&transforms),
            transforms,
            preprocess,
            classes: dataset.classes().len().cast_signed() as i64,
            task: dataset.task(),
            seed: options.seed,
        });
        let loader = Self { dataset, way, options };
        if loader.is_empty() {
            let reason = format!("{} has {} examples, too few for a whole batch", dataset.name(), dataset.len());
            return Err(DatasetError::option("batch_size", reason));
        }
        Ok(loader)
    }

    /// Examples in a batch.
    pub fn batch_size(&self) -> usize {
        self.options.batch_size
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

    /// The examples of a batch of an epoch, all portions together.
    pub fn batch_len(&self, number: usize) -> usize {
        if number + 1 == self.len() { self.smallest_batch() } else { self.batch_size() }
    }

    /// The part of each batch that is loaded.
    pub fn portion(&self) -> Portion {
        self.options.portion
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
        &self.way.preprocess
    }

    /// The batches of an epoch, from the first.
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory.
    pub fn epoch(&self, epoch: u64) -> Result<Epoch, DatasetError> {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from number `first` on: those that [`epoch`](Self::epoch) would give after `first` others, at no cost
    /// for these.
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Result<Epoch, DatasetError> {
        self.epoch_for(Device::Cpu, epoch, first)
    }

    /// The batches of [`epoch_from`](Self::epoch_from) as a device gets them fastest.
    ///
    /// For a CUDA device, images come as bytes (uint8, channels-last) in page-locked memory: a quarter of what floats take.
    /// [`Normaliser::apply`](crate::Normaliser::apply) does the rest there, to the same bits. Where a transform works on
    /// normalised values, they come normalised.
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory.
    pub fn epoch_for(&self, device: Device, epoch: u64, first: usize) -> Result<Epoch, DatasetError> {
        let bytes = device.is_cuda() && self.way.ends_in_bytes();
        self.epoch_in(if bytes { Memory::PinnedBytes } else { Memory::Floats }, epoch, first)
    }

    fn epoch_in(&self, memory: Memory, epoch: u64, first: usize) -> Result<Epoch, DatasetError> {
        let LoaderOptions { sampler, shuffle, seed, .. } = &self.options;
        let order = sampler.order(&*self.way.examples, self.dataset.len(), *shuffle, *seed, epoch)?;
        let mut times = HashMap::new();
        let mut again = |index: usize| {
            let times = times.entry(index).or_insert(0);
            *times += 1;
            (index, *times - 1)
        };
        let order = match sampler {
            Sampler::Each | Sampler::Buffered(_) => order.into_iter().map(|index| (index, 0)).collect(),
            _ => order.into_iter().map(&mut again).collect(),
        };
        let (way, batches, portion) = (Arc::clone(&self.way), self.len(), self.options.portion);
        let mixed = self.way.transforms.iter().any(|transform| matches!(transform.stage(), Stage::Batch(_)));
        let (order, ends, ahead) = portion.of_batches(order, self.options.batch_size, batches, mixed);
        let plan = Arc::new(Plan { way, order, epoch, ends, ahead, memory });
        let workers = match self.options.workers {
            _ if first >= batches => 0,
            Some(workers) => workers,
            None if self.way.is_light() => 0,
            None => striate_torch::num_threads(),
        };
        let work: Arc<dyn Work> = Arc::<Plan>::clone(&plan);
        let workers = (workers > 0).then(|| Workers::start(work, first, workers));
        Ok(Epoch { plan, workers, next: first })
    }
}

/// The way of an example from the dataset into a batch.
#[derive(Clone)]
struct Way {
    examples: Arc<dyn Examples>,
    transforms: Vec<Transform>,
    /// Whether the transforms bring pictures to the input's size, instead of `preprocess`.
    sized: bool,
    preprocess: Preprocess,
    classes: i64,
    task: Task,
    seed: u64,
}

impl Way {
    fn is_light(&self) -> bool {
        let light = |transform: &Transform| match transform.stage() {
            Stage::View(transform) => transform.is_light(),
            Stage::Picture(transform) => transform.is_light(),
            Stage::Values(_) | Stage::Batch(_) => true,
        };
        self.examples.in_memory() && self.transforms.iter().all(light)
    }

    /// Whether nothing is done to examples once they are normalised.
    fn ends_in_bytes(&self) -> bool {
        !self.transforms.iter().any(|transform| matches!(transform.stage(), Stage::Values(_) | Stage::Batch(_)))
    }

    fn write(&self, epoch: u64, (index, again): (usize, u64), out: Values<'_>) -> Result<(), DatasetError> {
        let [_, height, width] = self.preprocess.input.map(|size| size.unsigned_abs() as usize);
        let size = [width, height];
        let mut rng = Rng::of_example(self.seed, epoch, index, again);
        // What transforms leave of a picture is chosen before it is decoded.
        let (mut rest, mut later) = (&self.transforms[..], Vec::new());
        let mut choose = |has| {
            let mut views = Views::of(if self.sized { View::whole(has) } else { self.examples.fit(has) });
            if !self.sized && views.size() != size {
                let has = views.size();
                views.then(self.preprocess.view(has));
            }
            while let [first, others @ ..] = rest
                && let Stage::View(transform) = first.stage()
            {
                let has = views.size();
                views.then(transform.view(has, size, &mut rng)?);
                rest = others;
            }
            let (view, others) = views.split();
            later = others;
            Ok(view)
        };
        let mut picture = self.examples.viewed(index, &mut choose)?;
        for view in later {
            picture = view.of(picture)?;
        }
        for transform in rest {
            picture = match transform.stage() {
                Stage::View(transform) => transform.view([picture.width, picture.height], size, &mut rng)?.of(picture)?,
                Stage::Picture(transform) => transform.apply(picture, size, &mut rng)?,
                Stage::Values(_) | Stage::Batch(_) => break,
            };
        }
        if [picture.width, picture.height] != size {
            let has = format!("{}x{}", picture.height, picture.width);
            let reason = format!("they give a picture of {has}, and the network takes {height}x{width}: end with `centre-crop`");
            return Err(DatasetError::option("transforms", reason));
        }
        let out = match out {
            Values::Floats(out) => out,
            Values::Bytes(out) => {
                picture.write(out);
                return Ok(());
            }
        };
        self.preprocess.normalise.write(&picture, out);
        for transform in &self.transforms {
            if let Stage::Values(transform) = transform.stage() {
                transform.apply(out, size, &mut rng);
            }
        }
        Ok(())
    }

    /// What sees the pictures of a batch together.
    fn mix(&self, epoch: u64, number: usize, mut batch: Batch) -> Result<Batch, DatasetError> {
        let mut rng = Rng::new(self.seed, &[MIX_SEEDS, epoch, number as u64]);
        for transform in &self.transforms {
            if let Stage::Batch(transform) = transform.stage() {
                batch = transform.apply(batch, self.classes, &mut rng)?;
            }
        }
        Ok(batch)
    }
}

/// Which examples are in the batches of an epoch.
struct Plan {
    way: Arc<Way>,
    /// Each example's index, and how often it was in the epoch before.
    order: Vec<(usize, u64)>,
    epoch: u64,
    /// Where each batch ends in it.
    ends: Vec<usize>,
    /// Examples at the start of each batch that others are mixed with, and that are not in it.
    ahead: i64,
    memory: Memory,
}

impl Work for Plan {
    fn batches(&self) -> usize {
        self.ends.len()
    }

    fn places(&self, batch: usize) -> Range<usize> {
        let start = batch.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[batch]
    }

    fn shape(&self) -> [i64; 3] {
        self.way.preprocess.input
    }

    fn memory(&self) -> Memory {
        self.memory
    }

    fn write(&self, place: usize, out: Values<'_>) -> Result<(), DatasetError> {
        self.way.write(self.epoch, self.order[place], out)
    }
}

/// The batches of one epoch: images `[B, C, H, W]` in normalised float32 (but see [`Loader::epoch_for`]), labels `[B]` in int64.
pub struct Epoch {
    plan: Arc<Plan>,
    workers: Option<Workers>,
    next: usize,
}

impl std::fmt::Debug for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoch").field("epoch", &self.plan.epoch).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Epoch {
    fn batch(&mut self, number: usize) -> Result<Batch, DatasetError> {
        let images = match &mut self.workers {
            Some(workers) => workers.next()?,
            None => in_line(&*self.plan, number)?,
        };
        let Plan { way, order, epoch, ahead, .. } = &*self.plan;
        let labels = order[self.plan.places(number)].iter().map(|(index, _)| way.examples.labels(*index));
        let batch = Batch::labelled(images, way.task, labels, way.classes.unsigned_abs() as usize)?;
        let batch = way.mix(*epoch, number, batch)?;
        if *ahead > 0 { batch.without_first(*ahead) } else { Ok(batch) }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next;
        (number < self.plan.ends.len()).then(|| {
            self.next += 1;
            self.batch(number)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.plan.ends.len().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::tests::counting;
    use crate::{Fit, InMemory, Normalise, Pixels, Resize};
    use proptest::prelude::*;
    use tch::{Kind, Tensor};

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
        let transforms = ["cifar", "digits"].into_iter().flat_map(|name| Transform::preset(name).unwrap()).collect();
        LoaderOptions { transforms, workers: Some(0), ..LoaderOptions::train(16, seed) }
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
    fn workers_change_no_bit_and_resume() {
        let data = counting(70, [3, 12, 12]);
        let at = |workers, first| epoch(&data, LoaderOptions { workers: Some(workers), ..augmented(5) }, 1, first);
        let in_line = at(0, 0);
        assert_eq!(in_line.len(), 5);
        for (workers, first) in [(1, 0), (2, 0), (8, 0), (3, 2), (2, 5)] {
            let batches = at(workers, first);
            assert_eq!(batches.len(), 5 - first);
            for (batch, expected) in batches.iter().zip(&in_line[first..]) {
                assert_eq!((&batch.images, &batch.labels), (&expected.images, &expected.labels), "{workers} from {first}");
            }
        }
    }

    #[test]
    fn bytes_become_the_same_values_on_their_device() {
        let data = counting(21, [1, 12, 12]);
        let normalise = Normalise { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
        let preprocess = Preprocess::new([1, 12, 12], [3, 16, 16], Fit::Resize, normalise).unwrap();
        let transforms = Transform::preset("cifar").unwrap();
        let normaliser = preprocess.normalise.on(Device::Cpu).unwrap();
        for workers in [0, 2] {
            let options = LoaderOptions { transforms: transforms.clone(), workers: Some(workers), ..LoaderOptions::train(8, 3) };
            let loader = Loader::new(&data, preprocess.clone(), options).unwrap();
            let bytes = loader.epoch_in(Memory::Bytes, 1, 1).unwrap();
            for (bytes, floats) in bytes.zip(loader.epoch_from(1, 1).unwrap()) {
                let (bytes, floats) = (bytes.unwrap(), floats.unwrap());
                assert_eq!(bytes.images.kind(), Kind::Uint8);
                assert_eq!(striate_torch::memory_format(&bytes.images), Some(striate_torch::MemoryFormat::ChannelsLast));
                assert_eq!((normaliser.apply(bytes.images).unwrap(), bytes.labels), (floats.images, floats.labels));
            }
        }
        let ends_in_bytes = |last: Transform| {
            let transforms = transforms.iter().cloned().chain([last]).collect();
            let options = LoaderOptions { transforms, ..LoaderOptions::train(8, 3) };
            Loader::new(&data, preprocess.clone(), options).unwrap().way.ends_in_bytes()
        };
        assert!(!ends_in_bytes(Transform::MixUp(crate::MixUp::default())));
        assert!(!ends_in_bytes(Transform::RandomErasing(crate::RandomErasing::default())));
    }

    #[test]
    fn each_epoch_draws_anew() {
        let data = counting(70, [1, 12, 12]);
        let of_epoch = |number| epoch(&data, LoaderOptions { shuffle: false, ..augmented(5) }, number, 0).remove(0).images;
        assert_ne!(of_epoch(3), of_epoch(4));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn an_example_does_not_depend_on_workers_or_the_size_of_its_batch(
            seed in any::<u64>(),
            number in 0..5_u64,
            len in 1..150_i64,
            batch_size in prop_oneof![Just(32), Just(128), 1..140_usize],
            workers in prop_oneof![Just(0), Just(1), Just(2), Just(8)],
            sampler in prop_oneof![Just(Sampler::Each), Just(Sampler::Balanced), Just(Sampler::Repeated(3))],
        ) {
            let data = counting(len, [3, 12, 12]);
            let at = |batch_size, workers| {
                let options = LoaderOptions { batch_size, workers: Some(workers), sampler: sampler.clone(), ..augmented(seed) };
                let batches = epoch(&data, options, number, 0);
                let (images, labels): (Vec<_>, Vec<_>) = batches.into_iter().map(|batch| (batch.images, batch.labels)).unzip();
                (Tensor::cat(&images, 0), Tensor::cat(&labels, 0))
            };
            prop_assert_eq!(at(batch_size, workers), at(16, 0));
        }
    }

    #[test]
    fn examples_that_are_repeated_are_transformed_anew() {
        let data = counting(60, [1, 12, 12]);
        let options = |workers| LoaderOptions { sampler: Sampler::Repeated(3), workers: Some(workers), ..augmented(5) };
        let batches = epoch(&data, options(0), 0, 0);
        let images = |batches: &[Batch]| Tensor::cat(&batches.iter().map(|batch| batch.images.copy()).collect::<Vec<_>>(), 0);
        let all = images(&batches);
        assert_eq!(batches.iter().map(|batch| batch.labels.size()[0]).sum::<i64>(), 60);
        assert_ne!(all.get(0), all.get(1));
        assert_eq!(images(&epoch(&data, options(3), 0, 0)), all);
    }

    #[test]
    fn labels_are_mixed_with_their_pictures() {
        let data = counting(20, [1, 4, 4]);
        let transforms = vec![Transform::MixUp(crate::MixUp::default())];
        let options = LoaderOptions { transforms, ..LoaderOptions::train(5, 2) };
        for (batch, again) in epoch(&data, options.clone(), 0, 0).iter().zip(epoch(&data, options.clone(), 0, 0)) {
            let targets = batch.targets();
            assert_eq!((targets.size(), targets.kind()), (vec![5, 3], Kind::Float));
            assert!(targets.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float).allclose(
                &Tensor::ones([5], (Kind::Float, tch::Device::Cpu)),
                1e-5,
                1e-5,
                false
            ));
            assert_eq!(targets.argmax(1, false), batch.labels);
            assert_eq!(targets, again.targets());
        }
    }

    #[test]
    fn an_epoch_that_is_left_stops_its_workers() {
        let data = counting(200, [1, 12, 12]);
        let loader = Loader::new(&data, preprocess(data.shape()), LoaderOptions { workers: Some(3), ..augmented(1) }).unwrap();
        let mut epoch = loader.epoch(0).unwrap();
        epoch.next().unwrap().unwrap();
        let plan = Arc::downgrade(&epoch.plan);
        drop(epoch);
        assert!(plan.upgrade().is_none(), "a thread is left");
    }

    #[test]
    fn the_first_fault_of_a_batch_is_told_whoever_finds_it() {
        struct Faulty;
        impl Examples for Faulty {
            fn picture(&self, index: usize) -> Result<Pixels<'_>, DatasetError> {
                match index {
                    3 | 5 => Err(DatasetError::option("picture", index.to_string())),
                    7 => panic!("a picture that breaks a worker"),
                    _ => Ok(Pixels::new([1, 1], 1, vec![0])),
                }
            }

            fn label(&self, _: usize) -> i64 {
                0
            }
        }
        let (examples, preprocess) = (Arc::new(Faulty), preprocess([1, 1, 1]));
        let way = Way { examples, transforms: Vec::new(), sized: true, preprocess, classes: 1, task: Task::SingleLabel, seed: 0 };
        let plan = Arc::new(Plan {
            way: Arc::new(way),
            order: (0..9).map(|index| (index, 0)).collect(),
            epoch: 0,
            ends: vec![3, 6, 9],
            ahead: 0,
            memory: Memory::Floats,
        });
        assert_eq!(in_line(&*plan, 1).unwrap_err().to_string(), "picture: 3");
        for count in [1, 4] {
            let mut workers = Workers::start(Arc::<Plan>::clone(&plan), 0, count);
            assert_eq!(workers.next().unwrap().numel(), 3);
            assert_eq!(workers.next().unwrap_err().to_string(), "picture: 3");
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| workers.next())).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"a picture that breaks a worker"));
        }
    }

    #[test]
    fn lists_that_size_pictures_see_them_whole_and_must_give_the_inputs_size() {
        let data = counting(3, [1, 8, 8]);
        let preprocess = Preprocess::new([1, 8, 8], [3, 4, 4], Fit::Resize, Normalise::identity()).unwrap();
        let first = |name: &str| {
            let transforms = Transform::preset(name).unwrap();
            let options = LoaderOptions { transforms, ..LoaderOptions::eval(3) };
            Loader::new(&data, preprocess.clone(), options).unwrap().epoch(0).unwrap().next().unwrap()
        };
        assert_eq!(first("imagenet-train").unwrap().images.size(), [3, 3, 4, 4]);
        // The middle of what resizing the whole would give, and grey in all channels.
        let whole = data.resize(4, 4).unwrap();
        let expected = whole.batch(&Tensor::from_slice(&[0_i64, 1, 2])).unwrap().images.to_kind(Kind::Float) / 255.0;
        let middle = first("none").unwrap().images;
        assert!(middle.allclose(&expected.expand([3, 3, 4, 4], false), 1e-6, 1e-6, false));
        let resize = Transform::Resize(Resize { crop_pct: 0.8, ..Resize::default() });
        let options = LoaderOptions { transforms: vec![resize], ..LoaderOptions::eval(3) };
        let loader = Loader::new(&data, preprocess.clone(), options).unwrap();
        let error = loader.epoch(0).unwrap().next().unwrap().unwrap_err().to_string();
        assert_eq!(error, "transforms: they give a picture of 5x5, and the network takes 4x4: end with `centre-crop`");
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
        assert_eq!(fault(LoaderOptions { workers: Some(1025), ..LoaderOptions::eval(3) }), "workers: 1024 threads at most");
        let too_large = LoaderOptions { drop_last: true, ..LoaderOptions::train(11, 0) };
        assert_eq!(fault(too_large), "batch_size: counting has 10 examples, too few for a whole batch");
        assert!(fault(augmented(0)).starts_with("random-crop.padding: 4 must be below"));
        let colour = counting(10, [3, 1, 1]);
        let error = Loader::new(&colour, preprocess([1, 1, 1]), LoaderOptions::eval(3)).unwrap_err().to_string();
        assert_eq!(error, "input: the images have 3 channels, but the network takes 1");
        let dropping = LoaderOptions { drop_last: true, ..LoaderOptions::train(4, 0) };
        assert_eq!(epoch(&data, dropping, 0, 0).len(), 2);
    }
}
