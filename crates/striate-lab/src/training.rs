//! Training runs of experiments.
use crate::{Lab, LabError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::fmt;
use striate::{Prepared, Run};
use striate_datasets::{Batch, Dataset, Fit, InMemory, Loader, LoaderOptions, Normalise, Preprocess, Split};
use striate_graph::{Graph, Kernels, Network};
use striate_layers::loss::Loss;
use striate_train::{
    Curve, Event, Listener, OptimizerConfig, Outcome, Recipe, ScheduleConfig, SgdConfig, TrainConfig, TrainError, TrainSection,
    Trainer, evaluate,
};

/// Training images that a trained network is measured with.
const MEASURED: usize = 256;

/// What computes training steps.
const KERNELS: Kernels = Kernels::Fast;

/// How a network is trained in an experiment: stochastic gradient descent with a momentum of 0.9 on `train` images (see [`Lab::data`]),
/// in an order of the seed's, with a cosine schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Training {
    /// Height and width of the images.
    pub size: i64,
    /// Images to train with.
    pub train: usize,
    /// Images to test with.
    pub test: usize,
    /// Images in a step.
    pub batch: usize,
    /// How often the images are gone through.
    pub epochs: u64,
    /// The learning rate at the start.
    pub lr: f64,
    /// The L2 penalty.
    pub weight_decay: f64,
    /// The weight of the loss of each auxiliary head.
    pub aux_weight: f64,
}

impl Training {
    fn recipe(&self, seed: u64) -> Recipe {
        let &Self { batch, epochs, lr, weight_decay, .. } = self;
        Recipe {
            train: TrainSection {
                epochs,
                batch_size: batch,
                drop_last: true,
                lr,
                seed,
                kernels: KERNELS,
                ..TrainSection::default()
            },
            optimizer: OptimizerConfig::Sgd(SgdConfig { weight_decay, ..SgdConfig::default() }),
            schedule: ScheduleConfig { curve: Curve::Cosine { min_lr: 0.0 }, ..ScheduleConfig::default() },
            ..Recipe::default()
        }
    }
}

impl fmt::Display for Training {
    /// All but the learning rate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, train, test, batch, epochs, weight_decay, aux_weight, .. } = self;
        write!(
            f,
            "Each is trained on {train} images, or as many as there are, of {size}x{size} pixels and tested on {test}: {epochs} epochs, batches of {batch}, \
             stochastic gradient descent with a momentum of 0.9 and a weight decay of {weight_decay}"
        )?;
        if *aux_weight > 0.0 {
            write!(f, ", with the losses of auxiliary heads times {aux_weight}")?;
        }
        Ok(())
    }
}

/// How a training run went. Errors are shares of wrong answers.
///
/// From where the loss is no finite number any more, a run has the loss and the error of guessing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// The loss of each step.
    pub step_loss: Vec<f64>,
    /// The mean training loss in each epoch.
    pub train_loss: Vec<f64>,
    /// The training error in each epoch.
    pub train_error: Vec<f64>,
    /// The test loss after each epoch.
    pub test_loss: Vec<f64>,
    /// The test error after each epoch.
    pub test_error: Vec<f64>,
    /// The loss on the training images at the end, in evaluation.
    pub final_train_loss: f64,
    /// The error on the training images at the end, in evaluation.
    pub final_train_error: f64,
    /// Whether it failed with a loss that was no finite number.
    pub diverged: bool,
}

impl History {
    /// The test error at the end.
    pub fn final_test_error(&self) -> f64 {
        self.test_error.last().copied().unwrap_or(1.0)
    }

    /// The first step at whose end the mean loss of the `window` steps before it is at most `loss`.
    pub fn steps_to_loss(&self, loss: f64, window: usize) -> Option<usize> {
        let reached = |steps: &[f64]| steps.iter().sum::<f64>() / window as f64 <= loss;
        self.step_loss.windows(window).position(reached).map(|start| start + window)
    }
}

impl Lab {
    /// Trains the network that `build` gives for images of `[channels, size, size]` and a number of classes.
    ///
    /// `what` names the network for people. The layers with all their options and initial values, the training, the data and the
    /// seed decide whether the result is known.
    pub fn train(
        &mut self,
        what: &str,
        training: &Training,
        seed: u64,
        build: impl Fn([i64; 3], i64) -> Result<Graph, LabError>,
    ) -> Result<History, LabError> {
        Ok(self.train_and(what, training, seed, build, |_, _| Ok(()))?.0)
    }

    /// The same, and then measures something of the trained network; the loader gives the first 256 training images, in one batch.
    pub fn train_and<T: Serialize + DeserializeOwned>(
        &mut self,
        what: &str,
        training: &Training,
        seed: u64,
        build: impl Fn([i64; 3], i64) -> Result<Graph, LabError>,
        measure: impl FnOnce(&Network, &Loader) -> Result<T, LabError>,
    ) -> Result<(History, T), LabError> {
        let data = self.data(training.size, training.train, training.test)?;
        let graph = build(shape_of(&data), classes_of(&data))?;
        let settings = json!({
            "what": format!("{what}, seed {seed}"),
            "network": digest(&graph),
            "data": self.data_name(),
            "training": training,
            "kernels": KERNELS,
        });
        let stop = self.stop();
        self.trial(settings, move |_| train(graph, &data, training, seed, stop, measure))
    }
}

impl Lab {
    /// The first `count` images of an epoch in the seed's order, normalised, of the data of a training.
    pub(crate) fn batch(&self, data: &Split, count: usize, seed: u64) -> Result<Batch, LabError> {
        let preprocess = Preprocess::new(shape_of(data), shape_of(data), Fit::Resize, Normalise::of(&data.train)?)?;
        let loader = Loader::new(&data.train, preprocess, LoaderOptions::train(count, seed))?;
        let batch = loader.epoch(0)?.next().transpose()?;
        batch.ok_or_else(|| LabError::Usage(format!("{} has no image", self.data_name())))
    }
}

/// What tells a network from every other: all that its layers are made of.
pub(crate) fn digest(graph: &Graph) -> String {
    let layers = format!("{:?}", graph.nodes());
    Sha256::digest(layers.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn shape_of(data: &Split) -> [i64; 3] {
    data.train.shape()
}

pub(crate) fn classes_of(data: &Split) -> i64 {
    data.train.classes().len() as i64
}

fn train<T>(
    graph: Graph,
    data: &Split,
    training: &Training,
    seed: u64,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    measure: impl FnOnce(&Network, &Loader) -> Result<T, LabError>,
) -> Result<(History, T), LabError> {
    let whole = |part: &InMemory| part.range(0..part.len());
    let split = Split { train: whole(&data.train)?, test: whole(&data.test)? };
    let prepared = Run::new(training.recipe(seed)).network(graph).on(split).prepare()?;
    let Prepared { network, preprocess, .. } = &prepared;
    let (train, (_, test)) = (prepared.train_loader()?, prepared.judge_loader()?);
    let config = TrainConfig { aux_weight: training.aux_weight, ..prepared.config.clone() };
    let curve = RefCell::new(History::default());
    let outcome = Trainer::new(network, &train, &test, config)?.stop_on(stop).listener(Recorder(&curve)).run();
    let mut curve = curve.into_inner();
    match outcome {
        Ok(Outcome::Finished) => {
            let again = Loader::new(&data.train, preprocess.clone(), LoaderOptions::eval(256))?;
            let evaluation = evaluate(network, &again, Loss::default())?;
            (curve.final_train_loss, curve.final_train_error) = (evaluation.loss, 1.0 - evaluation.accuracy);
        }
        Ok(Outcome::Stopped) => return Err(LabError::Stopped),
        Err(TrainError::Diverged { .. }) => {
            let classes = classes_of(data) as f64;
            let (loss, error) = (classes.ln(), 1.0 - 1.0 / classes);
            let epochs = training.epochs as usize;
            curve.step_loss.resize(epochs * train.len(), loss);
            for series in [&mut curve.train_loss, &mut curve.test_loss] {
                series.resize(epochs, loss);
            }
            for series in [&mut curve.train_error, &mut curve.test_error] {
                series.resize(epochs, error);
            }
            (curve.final_train_loss, curve.final_train_error, curve.diverged) = (loss, error, true);
        }
        Err(error) => return Err(error.into()),
    }
    let few = data.train.range(0..MEASURED.min(data.train.len()))?;
    let few = Loader::new(&few, preprocess.clone(), LoaderOptions::eval(MEASURED))?;
    let measured = measure(network, &few)?;
    Ok((curve, measured))
}

/// Notes the events of a run.
struct Recorder<'a>(&'a RefCell<History>);

impl Listener for Recorder<'_> {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        let mut curve = self.0.borrow_mut();
        match event {
            Event::StepDone { loss, .. } => curve.step_loss.push(*loss),
            Event::EpochDone { train_loss, train_accuracy, test_loss, test_accuracy, .. } => {
                curve.train_loss.push(*train_loss);
                curve.train_error.push(1.0 - train_accuracy);
                curve.test_loss.push(*test_loss);
                curve.test_error.push(1.0 - test_accuracy);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_layers::{Dropout, Flatten, Init, Linear};

    #[test]
    fn networks_of_equal_size_are_told_apart() {
        let of = |init: Init, dropout: f64| {
            let graph = Graph::build(|net| {
                let x = net.input([1, 4, 4]);
                let x = net.add("flatten", Flatten, x)?;
                let x = net.add("dropout", Dropout::new(dropout), x)?;
                let x = net.add("fc", Linear::new(2).init(init, Init::zeros()), x)?;
                net.output("logits", x)
            });
            digest(&graph.unwrap())
        };
        let glorot = |dropout| of(Init::XavierNormal { gain: 1.0 }, dropout);
        assert_eq!(glorot(0.5), glorot(0.5));
        assert_eq!(glorot(0.5).len(), 64);
        assert_ne!(glorot(0.5), glorot(0.2));
        assert_ne!(glorot(0.5), of(Init::zeros(), 0.5));
    }
}
