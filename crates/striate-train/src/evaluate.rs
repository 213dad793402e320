use crate::TrainError;
use crate::error::check;
use crate::feed::Feed;
use crate::metrics::{ConfusionMatrix, MultiLabelAnswers, MultiLabelScores, Running, exact_matches, top_k_correct};
use striate_datasets::{Batch, Loader, Task};
use striate_graph::{Graph, Network, Outputs};
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
    /// What else there is to say.
    pub scores: Scores,
}

/// What is measured beside loss and accuracy.
#[derive(Debug, PartialEq)]
pub enum Scores {
    /// Of classes that exclude each other.
    SingleLabel {
        /// The share with the target among the five largest logits.
        top5: f64,
        /// Which classes were taken for which.
        confusion: ConfusionMatrix,
    },
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
}

impl Judge {
    /// The probability from which on a class is an answer, if nothing else is said.
    pub const THRESHOLD: f64 = 0.5;
}

impl From<Loss> for Judge {
    fn from(loss: Loss) -> Self {
        Self { loss, threshold: Self::THRESHOLD }
    }
}

/// The answers of a network as they come.
enum Tally {
    SingleLabel { top5: u64, confusion: ConfusionMatrix },
    MultiLabel(MultiLabelAnswers),
}

impl Tally {
    /// Counts a batch; returns how many answers are right.
    fn add(&mut self, logits: &Tensor, batch: &Batch, threshold: f64) -> Result<u64, TrainError> {
        match self {
            Self::SingleLabel { top5, confusion } => {
                *top5 += top_k_correct(logits, &batch.labels, 5)?;
                confusion.add(logits, &batch.labels)?;
                top_k_correct(logits, &batch.labels, 1)
            }
            Self::MultiLabel(answers) => {
                answers.add(logits, batch.targets())?;
                exact_matches(logits, batch.targets(), threshold)
            }
        }
    }
}

/// Evaluates a network on every example of a dataset.
///
/// Fails if the network has other classes than the dataset, if the loss is for other labels, and if the loader leaves examples out.
pub fn evaluate(network: &Network, loader: &Loader, judge: impl Into<Judge>) -> Result<Evaluation, TrainError> {
    let forward = |images: &Tensor| Ok(network.forward(images, Mode::Eval)?);
    evaluate_with(network.graph(), network.device(), loader, judge, forward)
}

/// [`evaluate`], where `forward` runs the network of `graph` on images on `device`: for another way of running it, such as an
/// inference plan.
pub fn evaluate_with(
    graph: &Graph,
    device: Device,
    loader: &Loader,
    judge: impl Into<Judge>,
    forward: impl Fn(&Tensor) -> Result<Outputs, TrainError>,
) -> Result<Evaluation, TrainError> {
    let Judge { loss, threshold } = judge.into();
    check_classes(graph, loader)?;
    check_labels(loss, loader)?;
    let _no_grad = striate_torch::no_grad();
    let classes = loader.dataset().classes().len();
    let mut running = Running::default();
    let mut tally = match loss.is_multi_label() {
        false => Tally::SingleLabel { top5: 0, confusion: ConfusionMatrix::new(classes) },
        true => Tally::MultiLabel(MultiLabelAnswers::new(classes)),
    };
    let (feed, mut batches) = (Feed::new(device), loader.epoch(0)?);
    let mut next = feed.next(&mut batches);
    while let Some(batch) = next {
        let mut batch = feed.take(batch?)?;
        let images = std::mem::replace(&mut batch.images, Tensor::new());
        let outputs = forward(&images)?;
        drop(images);
        // While the device computes.
        next = feed.next(&mut batches);
        let logits = outputs.logits();
        let mean = f64::try_from(loss.compute(logits, batch.targets())?)?;
        let correct = tally.add(logits, &batch, threshold)?;
        running.add(mean, batch.labels.numel() as u64, correct);
    }
    let all = running.examples == loader.dataset().len() as u64;
    check(all, "drop_last", true, "leaves examples of the evaluation out: use LoaderOptions::eval")?;
    let scores = match tally {
        Tally::SingleLabel { top5, confusion } => Scores::SingleLabel { top5: top5 as f64 / running.examples as f64, confusion },
        Tally::MultiLabel(answers) => Scores::MultiLabel(answers.scores(threshold)),
    };
    Ok(Evaluation { examples: running.examples, loss: running.loss(), accuracy: running.accuracy(), scores })
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
