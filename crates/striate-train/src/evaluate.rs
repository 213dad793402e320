mod joined;

use crate::TrainError;
use crate::distributed::World;
use crate::error::check;
use crate::feed::Feed;
use crate::metrics::{LabelledLogits, MultiLabelScores, Running, SingleLabelScores, exact_matches, top_k_correct};
use serde::{Deserialize, Serialize};
use striate_datasets::{Loader, Task};
use striate_graph::{Graph, Network};
use striate_layers::{Mode, loss::Loss};
use tch::{Device, Tensor};

/// How a network does on a dataset.
#[derive(Debug)]
pub struct Evaluation {
    /// How many examples.
    pub examples: u64,
    /// The mean loss.
    pub loss: f64,
    /// The share whose answer is right: the largest logit is the target's. Where an example has several classes, exactly these have to
    /// be answered.
    pub accuracy: f64,
    /// The logits, from which all else is computed.
    pub logits: LabelledLogits,
    /// By what it was judged.
    pub judge: Judge,
}

impl Evaluation {
    /// What is measured beside loss and accuracy. It sorts all logits, which takes a few seconds for
    /// 50,000 examples of 1,000 classes.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn scores(&self) -> Result<Scores, TrainError> {
        Ok(match self.logits.is_multi_label() {
            false => Scores::SingleLabel(SingleLabelScores::of(&self.logits)?),
            true => Scores::MultiLabel(MultiLabelScores::of(&self.logits, self.judge)?),
        })
    }
}

/// What is measured beside loss and accuracy. A temperature changes none of it, but for classes above a threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scores {
    /// Of classes that exclude each other.
    SingleLabel(SingleLabelScores),
    /// Of classes that do not.
    MultiLabel(MultiLabelScores),
}

/// By what a network is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judge {
    /// The loss, which also tells whether classes exclude each other.
    pub loss: Loss,
    /// If they do not: the probability from which on a class is an answer.
    pub threshold: f64,
    /// What divides the logits before they become that probability.
    pub temperature: f64,
}

impl Judge {
    /// The probability from which on a class is an answer, if nothing else is said.
    pub const THRESHOLD: f64 = 0.5;
}

impl From<Loss> for Judge {
    fn from(loss: Loss) -> Self {
        Self { loss, threshold: Self::THRESHOLD, temperature: 1.0 }
    }
}

/// Collects logits and targets of one batch after another.
#[derive(Default)]
struct Rows {
    /// `[N, ...]`, made at the first batch, and how many rows of it are filled.
    all: Option<Tensor>,
    filled: i64,
}

impl Rows {
    /// Copies a batch into `length` rows on the CPU, where there is room for it.
    fn add(&mut self, batch: &Tensor, length: i64) -> Result<(), TrainError> {
        let mut size = batch.size();
        let rows = size[0].min(length - self.filled);
        size[0] = length;
        let all = match &self.all {
            Some(all) => all,
            None => self.all.insert(Tensor::f_empty(size, (batch.kind(), Device::Cpu))?),
        };
        all.f_narrow(0, self.filled, rows)?.f_copy_(&batch.f_narrow(0, 0, rows)?)?;
        self.filled += rows;
        Ok(())
    }
}

/// Evaluates a network on every example of a dataset.
///
/// Fails if the network has other classes than the dataset, if the loss is for other labels, and if the loader leaves examples out.
pub fn evaluate(network: &Network, loader: &Loader, judge: impl Into<Judge>) -> Result<Evaluation, TrainError> {
    let forward = |images: &Tensor| Ok(network.forward(images, Mode::Eval)?.logits().shallow_clone());
    evaluate_with(network.graph(), network.device(), loader, judge, forward)
}

/// [`evaluate`], where `forward` runs the network of `graph` on images on `device` and returns the logits: for another way of
/// running it, such as an inference plan.
pub fn evaluate_with(
    graph: &Graph,
    device: Device,
    loader: &Loader,
    judge: impl Into<Judge>,
    forward: impl Fn(&Tensor) -> Result<Tensor, TrainError>,
) -> Result<Evaluation, TrainError> {
    evaluate_over(&World::one(), graph, device, loader, judge, forward)
}

/// [`evaluate_with`], by all processes of a world: each runs the network on its part of every batch of the `loader`, and has the
/// evaluation of the whole. No example is seen twice.
///
/// # Errors
///
/// As [`evaluate`]. A stop in one process is a stop in all.
pub fn evaluate_over(
    world: &World,
    graph: &Graph,
    device: Device,
    loader: &Loader,
    judge: impl Into<Judge>,
    forward: impl Fn(&Tensor) -> Result<Tensor, TrainError>,
) -> Result<Evaluation, TrainError> {
    let judge = judge.into();
    let Judge { loss, threshold, temperature } = judge;
    check_classes(graph, loader)?;
    check_labels(loss, loader)?;
    let _no_grad = striate_torch::no_grad();
    check(
        loader.portion() == world.portion(),
        "the loader",
        loader.portion(),
        "is to load this process's portion of each batch",
    )?;
    let (length, mut running) = (joined::rows_of(loader, loader.portion()), Running::default());
    let (mut logits, mut targets) = (Rows::default(), Rows::default());
    let each = loader.batch_len(0) >= world.size();
    check(each, "the batches of an evaluation", loader.batch_size(), "have fewer examples than there are processes")?;
    let mut stopped = false;
    let mut feed = Feed::new(loader, device, 0, 0)?;
    let mut next = feed.next();
    while let Some(batch) = next {
        let mut batch = feed.take(batch?)?;
        let images = std::mem::replace(&mut batch.images, Tensor::new());
        if batch.labels.numel() == 0 {
            next = feed.next();
            continue;
        }
        let these = match forward(&images) {
            Err(TrainError::Stopped) if !world.is_one() => {
                stopped = true;
                break;
            }
            these => these?,
        };
        drop(images);
        // While the device computes.
        next = feed.next();
        let wanted = batch.targets();
        let mean = f64::try_from(loss.compute(&these, wanted)?)?;
        let correct = match loss.is_multi_label() {
            false => top_k_correct(&these, &batch.labels, 1)?,
            true => exact_matches(&these.f_div_scalar(temperature)?, wanted, threshold)?,
        };
        running.add(mean, batch.labels.numel() as u64, correct);
        logits.add(&these, length as i64)?;
        targets.add(if loss.is_multi_label() { wanted } else { &batch.labels }, length as i64)?;
    }
    if world.any(stopped)? {
        return Err(TrainError::Stopped);
    }
    if !world.is_one() {
        running = joined::running(world, running)?;
        logits.all = joined::rows(world, loader, logits.all)?;
        targets.all = joined::rows(world, loader, targets.all)?;
    }
    let all = running.examples == loader.dataset().len() as u64;
    check(all, "drop_last", true, "leaves examples of the evaluation out: use LoaderOptions::eval")?;
    let (Some(logits), Some(targets)) = (logits.all, targets.all) else {
        return Err(TrainError::Option { option: "the data".to_owned(), reason: "have no examples" });
    };
    let logits = LabelledLogits::new(&logits, &targets)?;
    Ok(Evaluation { examples: running.examples, loss: running.loss(), accuracy: running.accuracy(), logits, judge })
}

/// Refuses a loss for other labels than the dataset's.
pub(crate) fn check_labels(loss: Loss, loader: &Loader) -> Result<(), TrainError> {
    let (dataset, several) = (loader.dataset(), loader.dataset().task() == Task::MultiLabel);
    match several == loss.is_multi_label() {
        true => Ok(()),
        false => Err(TrainError::Labels { dataset: dataset.name().to_owned(), several }),
    }
}

/// Refuses a network whose logits are of another number of classes than the dataset's.
pub(crate) fn check_classes(graph: &Graph, loader: &Loader) -> Result<(), TrainError> {
    let dataset = loader.dataset();
    let output = graph.outputs().next().map(|(_, node)| node.shape.dims().to_vec()).unwrap_or_default();
    let classes = dataset.classes().len();
    match output.as_slice() {
        [width] if *width == classes as i64 => Ok(()),
        _ => Err(TrainError::Classes { network: output, dataset: dataset.name().to_owned(), classes }),
    }
}
