use super::OnNan;
use crate::error::check;
use crate::optim::{Clip, ParamGroup};
use crate::{
    AverageConfig, ClassWeights, Keep, Objective, OptimizerConfig, Patience, Progressive, Recipe, ScheduleConfig, StepOptions,
    TrainError,
};
use std::path::PathBuf;
use striate_datasets::Dataset;
use striate_layers::loss::Loss;
use striate_models::BundleInfo;
use tch::{Device, Kind, Tensor};

/// More than anybody trains; steps can be counted up to it.
const MAX_EPOCHS: u64 = 1_000_000;

/// How a network is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainConfig {
    /// How often the training set is gone through.
    pub epochs: u64,
    /// The learning rate that the schedule starts from.
    pub lr: f64,
    /// What dropout is drawn from; the loader has a seed of its own.
    pub seed: u64,
    /// The loss.
    pub loss: Loss,
    /// The weight of the loss of each output after the first.
    pub aux_weight: f64,
    /// How much classes count in it.
    pub class_weights: ClassWeights,
    /// The power of balanced class weights: see [`ClassWeights::of`].
    pub class_power: f64,
    /// Whether losses are scaled, for a network that computes in float16: see [`StepOptions::scale`].
    pub scale_loss: bool,
    /// What is done about losses that are no numbers.
    pub on_nan: OnNan,
    /// How long it goes on that does not get better.
    pub patience: Patience,
    /// How gradients are clipped.
    pub clip: Option<Clip>,
    /// In how many parts a batch goes through the network: see [`StepOptions::parts`].
    pub accumulate: usize,
    /// Whether the step on a CUDA device is recorded and launched as one: see [`Step::recorded`](crate::Step::recorded).
    pub cuda_graph: bool,
    /// Whether batch norm takes its statistics over all processes: see [`StepOptions::sync_batch_norm`].
    pub sync_batch_norm: bool,
    /// What gradients are sent to other processes in: see [`StepOptions::compress`].
    pub compress_gradients: Option<Kind>,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Parameters that train in a way of their own.
    pub groups: Vec<ParamGroup>,
    /// What multiplies the learning rate once for each block between a parameter and the outputs; 1 for none.
    pub layer_decay: f64,
    /// The learning rate over the run.
    pub schedule: ScheduleConfig,
    /// The average of weights that the run is judged by and ends with.
    pub average: AverageConfig,
    /// Smaller images at first.
    pub progressive: Progressive,
}

impl Default for TrainConfig {
    /// Ten epochs with the default optimizer at a constant learning rate of 0.05, by cross entropy.
    fn default() -> Self {
        Self {
            epochs: 10,
            lr: 0.05,
            seed: 0,
            loss: Loss::default(),
            aux_weight: 0.0,
            class_weights: ClassWeights::default(),
            class_power: 1.0,
            scale_loss: false,
            on_nan: OnNan::Stop,
            patience: Patience::default(),
            clip: None,
            accumulate: 1,
            cuda_graph: false,
            sync_batch_norm: false,
            compress_gradients: None,
            optimizer: OptimizerConfig::default(),
            groups: Vec::new(),
            layer_decay: 1.0,
            schedule: ScheduleConfig::default(),
            average: AverageConfig::None,
            progressive: Progressive::default(),
        }
    }
}

impl TrainConfig {
    /// What each step minimises on a device, with the weights of the classes of `data`.
    ///
    /// # Errors
    ///
    /// Weights for other classes.
    pub fn objective(&self, data: &dyn Dataset, device: Device) -> Result<Objective, TrainError> {
        let weights = self.class_weights.of(data, self.class_power)?;
        let on_device = || Tensor::f_from_slice(&weights)?.f_to_kind(Kind::Float)?.f_to_device(device);
        let class_weights = (!weights.is_empty()).then(on_device).transpose()?;
        Ok(Objective { class_weights, ..Objective::new(self.loss, self.aux_weight) })
    }

    /// How a step goes.
    pub fn step_options(&self) -> StepOptions {
        let skip = self.on_nan == OnNan::Skip;
        let Self { accumulate: parts, clip, scale_loss: scale, sync_batch_norm, compress_gradients: compress, .. } = *self;
        StepOptions { parts, clip, scale, skip, sync_batch_norm, compress }
    }

    /// Refuses values that can't be, naming them as a recipe does.
    pub fn check(&self) -> Result<(), TrainError> {
        check((1..=MAX_EPOCHS).contains(&self.epochs), "train.epochs", self.epochs, "must be from 1 to a million")?;
        check(self.lr.is_finite() && self.lr > 0.0, "train.lr", self.lr, "must be above 0")?;
        let aux = self.aux_weight;
        check(aux.is_finite() && aux >= 0.0, "aux_weight", aux, "must be 0 or larger")?;
        self.clip.map_or(Ok(()), Clip::check)?;
        check(self.accumulate > 0, "train.accumulate", self.accumulate, "must be 1 or larger")?;
        self.patience.check()?;
        self.optimizer.check()?;
        self.groups.iter().try_for_each(ParamGroup::check)?;
        let decay = self.layer_decay;
        check(decay > 0.0 && decay <= 1.0, "train.layer_decay", decay, "must be above 0 and at most 1")?;
        self.schedule.check()?;
        self.average.check()?;
        self.progressive.check()?;
        self.schedule.check_length(self.epochs, None)
    }
}

/// Where and when a run saves itself.
#[derive(Debug, Clone)]
pub struct CheckpointConfig {
    /// The folder of [`LAST`](crate::LAST), [`BEST`](crate::BEST) and the checkpoints that are kept.
    pub folder: PathBuf,
    /// Saves [`LAST`](crate::LAST) whenever so many steps are done, and not only after each epoch.
    pub every_steps: Option<u64>,
    /// Which checkpoints are kept under names of their own.
    pub keep: Keep,
    /// The bundle's description, kept in each checkpoint; the trainer sets its `metrics`.
    pub bundle: BundleInfo,
    /// The recipe of the run, if it has one, kept in each checkpoint.
    pub recipe: Option<Recipe>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and saved itself first.
    Stopped,
}
