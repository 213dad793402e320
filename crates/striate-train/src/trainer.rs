use crate::error::check;
use crate::evaluate::{Judge, check_classes, check_labels, evaluate_with};
use crate::feed::Feed;
use crate::metrics::{Running, exact_matches, top_k_correct};
use crate::{
    Checkpoint, Evaluation, Event, Listener, Objective, Optimizer, OptimizerConfig, Progress, Recipe, ScheduleConfig, Step,
    StepOutput, TestMetrics, TrainError,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use striate_datasets::{Batch, Dataset, Loader};
use striate_graph::{Network, Node};
use striate_layers::{Mode, loss::Loss};
use striate_models::BundleInfo;
use striate_torch::{derive_seed, manual_seed};
use tch::{Kind, Tensor};

/// The checkpoint that a run goes on from.
pub const LAST: &str = "last.safetensors";
/// The weights of the epoch with the best accuracy on the test set, without the optimizer's state.
pub const BEST: &str = "best.safetensors";
/// More than anybody trains; steps can be counted up to it.
const MAX_EPOCHS: u64 = 1_000_000;
/// Examples that tell whether a run goes on with the same data.
const FINGERPRINTED: i64 = 256;
/// Sets the seeds of steps, which dropout draws from, apart from those of the loader.
const STEP_SEEDS: u64 = 0x5354_4550;

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
    /// The norm that all gradients together are scaled down to.
    pub clip_norm: Option<f64>,
    /// Whether the step on a CUDA device is recorded and launched as one: see [`Step::recorded`].
    pub cuda_graph: bool,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning rate over the run.
    pub schedule: ScheduleConfig,
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
            clip_norm: None,
            cuda_graph: false,
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
        }
    }
}

impl TrainConfig {
    /// What each step minimises.
    pub fn objective(&self) -> Objective {
        Objective { loss: self.loss, aux_weight: self.aux_weight, clip_norm: self.clip_norm }
    }

    /// Refuses values that can't be, naming them as a recipe does.
    pub fn check(&self) -> Result<(), TrainError> {
        check((1..=MAX_EPOCHS).contains(&self.epochs), "train.epochs", self.epochs, "must be from 1 to a million")?;
        check(self.lr.is_finite() && self.lr > 0.0, "train.lr", self.lr, "must be above 0")?;
        let aux = self.aux_weight;
        check(aux.is_finite() && aux >= 0.0, "aux_weight", aux, "must be 0 or larger")?;
        let clip = self.clip_norm.unwrap_or(1.0);
        check(clip.is_finite() && clip > 0.0, "train.clip_norm", clip, "must be above 0, or 0 for no limit")?;
        self.optimizer.check()?;
        self.schedule.check()?;
        let (warmup, epochs) = (self.schedule.warmup_epochs, self.epochs as f64);
        check(warmup < epochs, "schedule.warmup_epochs", warmup, "must be less than the run's epochs")
    }
}

/// Where and when a run saves itself.
#[derive(Debug, Clone)]
pub struct CheckpointConfig {
    /// The folder of [`LAST`] and [`BEST`].
    pub folder: PathBuf,
    /// Saves [`LAST`] whenever so many steps are done, and not only after each epoch.
    pub every_steps: Option<u64>,
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

/// Trains a network: the one loop for every network, dataset and listener.
///
/// A run that was stopped after any step and is [resumed](Self::resume) with the same number of threads ends with the same
/// weights, bit by bit, as one that ran through: batches depend on epoch and number alone, dropout on the step, the learning
/// rate on the step.
pub struct Trainer<'a> {
    network: &'a Network,
    train: &'a Loader<'a>,
    test: &'a Loader<'a>,
    config: TrainConfig,
    step: Step<&'a Network>,
    feed: Feed,
    progress: Progress,
    checkpoints: Option<CheckpointConfig>,
    listeners: Vec<Box<dyn Listener + 'a>>,
    stop: Option<Arc<AtomicBool>>,
    evaluation: Option<Evaluation>,
    judge: &'static str,
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("config", &self.config).field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl<'a> Trainer<'a> {
    /// A run that trains `network` on `train` and evaluates it on `test` after each epoch. What the network has frozen by now
    /// stays as it is.
    pub fn new(
        network: &'a Network,
        train: &'a Loader<'a>,
        test: &'a Loader<'a>,
        config: TrainConfig,
    ) -> Result<Self, TrainError> {
        config.check()?;
        check_classes(network.graph(), train)?;
        check_classes(network.graph(), test)?;
        check_labels(config.loss, train)?;
        check_labels(config.loss, test)?;
        if network.trainable().is_empty() {
            return Err(TrainError::NothingToTrain);
        }
        check_last_batch(network, train)?;
        let optimizer = Optimizer::new(config.optimizer.clone(), network.trainable())?;
        let mut step = Step::new(network, config.objective(), optimizer)?;
        if config.cuda_graph {
            step = step.recorded()?;
        }
        let feed = Feed::new(network.device());
        let progress = Progress {
            data: fingerprint(train.dataset())?,
            test_data: Some(fingerprint(test.dataset())?),
            seed: config.seed,
            steps_per_epoch: train.len() as u64,
            epoch: 0,
            step: 0,
            running: Running::default(),
            test: None,
            best_accuracy: None,
        };
        let (checkpoints, listeners) = (None, Vec::new());
        let (stop, evaluation, judge) = (None, None, "test");
        Ok(Self { network, train, test, config, step, feed, progress, checkpoints, listeners, stop, evaluation, judge })
    }

    /// Saves checkpoints.
    pub fn checkpoints(mut self, checkpoints: CheckpointConfig) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// Tells `listener` of every event.
    pub fn listener(mut self, listener: impl Listener + 'a) -> Self {
        self.listeners.push(Box::new(listener));
        self
    }

    /// Saves and stops before the next batch of training or evaluation once `flag` is set, which a signal handler may do.
    pub fn stop_on(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = Some(flag);
        self
    }

    /// Says what the data are that it is judged by, such as `val`; `test` unless it is called.
    pub fn judged_by(mut self, judge: &'static str) -> Self {
        self.judge = judge;
        self
    }

    /// How far the run has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How the network did on the test set after the last epoch that this process finished; label smoothing counts in training
    /// only.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// Goes on where a checkpoint was saved: call it before [`run`](Self::run).
    ///
    /// Fails, and changes nothing, if the checkpoint is of another network, optimizer, seed, data, test data or number of steps in an
    /// epoch.
    pub fn resume(&mut self, path: &Path) -> Result<(), TrainError> {
        let unfit = |reason: String| TrainError::Checkpoint { path: path.into(), reason };
        let Checkpoint { model, optimizer, progress, .. } = Checkpoint::read(path)?;
        let (there, here) = (progress.steps_per_epoch, self.progress.steps_per_epoch);
        if there != here {
            return Err(unfit(format!(
                "its epochs have {there} steps, here they have {here}: take the same data and batch size"
            )));
        }
        if progress.data != self.progress.data {
            return Err(unfit(format!(
                "it was trained on {}, here are {}: take the same data",
                progress.data, self.progress.data
            )));
        }
        if let (Some(there), Some(here)) = (&progress.test_data, &self.progress.test_data)
            && there != here
        {
            return Err(unfit(format!("it was judged by {there}, here are {here}: take the same data")));
        }
        if progress.seed != self.config.seed {
            return Err(unfit(format!("its seed is {}, here it is {}: take the same", progress.seed, self.config.seed)));
        }
        let before = progress.epoch.checked_mul(here);
        if before.and_then(|before| progress.step.checked_sub(before)).is_none_or(|done| done > here) {
            return Err(unfit(format!("its step {} does not lie in its epoch {}", progress.step, progress.epoch)));
        }
        if optimizer.is_empty() && !self.step.optimizer().state().is_empty() {
            return Err(unfit(format!("it holds no optimizer's state: resume from {LAST}")));
        }
        self.step.optimizer().check_state(&optimizer).map_err(|error| unfit(error.to_string()))?;
        self.network.load_state(&model).map_err(|error| unfit(error.to_string()))?;
        self.step.load_optimizer_state(&optimizer)?;
        let test_data = self.progress.test_data.take();
        self.progress = Progress { test_data, ..progress };
        Ok(())
    }

    /// Trains until all epochs are done or a stop is asked for.
    ///
    /// Fails, among others, as soon as a loss or a weight is no number any more; no checkpoint is overwritten then, and the network keeps what
    /// that step left of it.
    pub fn run(&mut self) -> Result<Outcome, TrainError> {
        let (epochs, steps_per_epoch) = (self.config.epochs, self.progress.steps_per_epoch);
        let (step, judge) = (self.progress.step, self.judge);
        let measure = if self.config.loss.is_multi_label() { "exact match" } else { "accuracy" };
        self.emit(Event::RunStarted { epochs, steps_per_epoch, step, judge, measure })?;
        let mut outcome = Outcome::Finished;
        while outcome == Outcome::Finished && self.progress.epoch < epochs {
            outcome = self.run_epoch()?;
        }
        let finished = outcome == Outcome::Finished;
        self.emit(Event::RunDone { finished, step: self.progress.step, best_accuracy: self.progress.best_accuracy })?;
        Ok(outcome)
    }

    fn run_epoch(&mut self) -> Result<Outcome, TrainError> {
        let Progress { epoch, step, steps_per_epoch, .. } = self.progress;
        self.emit(Event::EpochStarted { epoch })?;
        let mut speed = Speed::start();
        let first = usize::try_from(step - epoch * steps_per_epoch).unwrap_or(usize::MAX);
        let mut batches = self.train.epoch_from(epoch, first)?;
        let mut next = self.feed.next(&mut batches);
        while let Some(batch) = next {
            if self.is_stopped() {
                self.save_within_epoch()?;
                return Ok(Outcome::Stopped);
            }
            let lr = self.lr(self.progress.step);
            let launched = self.launch(batch?, lr)?;
            // While the device computes.
            next = self.feed.next(&mut batches);
            let loss = self.finish(launched, &mut speed)?;
            let step = self.progress.step;
            self.emit(Event::StepDone { epoch, step, loss, lr, images_per_second: speed.images_per_second() })?;
            let every = self.checkpoints.as_ref().and_then(|checkpoints| checkpoints.every_steps);
            if every.is_some_and(|every| step.is_multiple_of(every)) && !step.is_multiple_of(steps_per_epoch) {
                self.save_within_epoch()?;
            }
        }
        match self.finish_epoch(&speed) {
            Err(TrainError::Stopped) => {
                self.save(LAST)?;
                Ok(Outcome::Stopped)
            }
            // A picture that cannot be read costs no epoch: its steps are done, and only the evaluation is done again.
            Err(error @ TrainError::Dataset(_)) => {
                self.save(LAST)?;
                Err(error)
            }
            finished => finished.map(|()| Outcome::Finished),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Begins a step with one batch.
    fn launch(&mut self, batch: Batch, lr: f64) -> Result<Launched, TrainError> {
        let batch = self.feed.take(batch)?;
        manual_seed(derive_seed(self.config.seed, &[STEP_SEEDS, self.progress.step]));
        let output = self.step.run(&batch.images, batch.targets(), lr)?;
        Ok(Launched { output, labels: batch.labels, targets: batch.targets })
    }

    /// Waits until a step is done, and counts it; returns its mean loss.
    fn finish(&mut self, Launched { output, labels, targets }: Launched, speed: &mut Speed) -> Result<f64, TrainError> {
        let loss = f64::try_from(&output.loss)?;
        if !loss.is_finite() {
            return Err(self.diverged("the loss became", self.progress.step));
        }
        let examples = labels.numel() as u64;
        let correct = match targets.filter(|_| self.config.loss.is_multi_label()) {
            Some(targets) => exact_matches(&output.logits, &targets, Judge::THRESHOLD)?,
            None => top_k_correct(&output.logits, &labels, 1)?,
        };
        self.progress.running.add(loss, examples, correct);
        self.progress.step += 1;
        speed.images += examples;
        Ok(loss)
    }

    /// The learning rate of the step after `done` others.
    fn lr(&self, done: u64) -> f64 {
        let steps_per_epoch = self.progress.steps_per_epoch;
        self.config.schedule.lr(self.config.lr, done, self.config.epochs * steps_per_epoch, steps_per_epoch)
    }

    fn finish_epoch(&mut self, speed: &Speed) -> Result<(), TrainError> {
        let (seconds, images_per_second) = (speed.seconds(), speed.images_per_second());
        self.check_weights()?;
        let network = self.network;
        let forward = |images: &Tensor| match self.is_stopped() {
            true => Err(TrainError::Stopped),
            false => Ok(network.forward(images, Mode::Eval)?.logits().shallow_clone()),
        };
        let test = evaluate_with(network.graph(), network.device(), self.test, self.config.loss.unsmoothed(), forward)?;
        if !test.loss.is_finite() {
            return Err(self.diverged("the test loss became", self.progress.step.saturating_sub(1)));
        }
        let evaluation = self.evaluation.insert(test);
        let test = TestMetrics { loss: evaluation.loss, accuracy: evaluation.accuracy };
        let best = self.progress.best_accuracy.is_none_or(|best| test.accuracy > best);
        let done = Event::EpochDone {
            epoch: self.progress.epoch,
            step: self.progress.step,
            train_loss: self.progress.running.loss(),
            train_accuracy: self.progress.running.accuracy(),
            test_loss: test.loss,
            test_accuracy: test.accuracy,
            best,
            seconds,
            images_per_second,
        };
        self.progress.epoch += 1;
        self.progress.running = Running::default();
        self.progress.test = Some(test);
        if best {
            self.progress.best_accuracy = Some(test.accuracy);
        }
        self.emit(done)?;
        // The best first: a run that dies between the two does this epoch, and its best, again.
        if best {
            self.save(BEST)?;
        }
        self.save(LAST)
    }

    fn save_within_epoch(&mut self) -> Result<(), TrainError> {
        self.check_weights()?;
        self.save(LAST)
    }

    fn save(&mut self, name: &str) -> Result<(), TrainError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        let path = checkpoints.folder.join(name);
        let mut info = checkpoints.bundle.clone();
        if let Some(test) = self.progress.test {
            let name = if self.config.loss.is_multi_label() { "test_exact_match" } else { "test_accuracy" };
            info.metrics = [(name.to_owned(), test.accuracy), ("test_loss".to_owned(), test.loss)].into();
        }
        let checkpoint = Checkpoint {
            model: self.network.state(),
            optimizer: if name == BEST { Default::default() } else { self.step.optimizer().state() },
            progress: self.progress.clone(),
            recipe: checkpoints.recipe.clone(),
        };
        // The checkpoint must not have steps of which the listeners know nothing after a crash.
        self.listeners.iter_mut().try_for_each(Listener::before_checkpoint)?;
        checkpoint.write(&info, &path)?;
        self.emit(Event::CheckpointSaved { path, step: self.progress.step })
    }

    /// A step may ruin the weights though its loss was sound: what is saved must be sound too.
    fn check_weights(&self) -> Result<(), TrainError> {
        for tensor in self.network.state().values() {
            if tensor.is_floating_point() && tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(self.diverged("a weight became", self.progress.step.saturating_sub(1)));
            }
        }
        Ok(())
    }

    /// The error of a step that came after `done` others.
    fn diverged(&self, what: &'static str, done: u64) -> TrainError {
        let last = self.checkpoints.as_ref().map(|checkpoints| checkpoints.folder.join(LAST));
        TrainError::Diverged {
            what,
            epoch: self.progress.epoch,
            step: done + 1,
            lr: self.lr(done),
            checkpoint: last.filter(|path| path.exists()),
        }
    }

    fn emit(&mut self, event: Event) -> Result<(), TrainError> {
        self.listeners.iter_mut().try_for_each(|listener| listener.on_event(&event))
    }
}

/// The dataset's name and size, and a number that depends on its labels and on some of its pixels: enough to tell data apart.
fn fingerprint(data: &dyn Dataset) -> Result<String, TrainError> {
    let len = i64::try_from(data.len()).unwrap_or(i64::MAX);
    let indices: Vec<i64> = (0..FINGERPRINTED.min(len)).map(|index| index * len / FINGERPRINTED.min(len)).collect();
    let Batch { images, labels, .. } = data.batch(&Tensor::f_from_slice(&indices)?)?;
    let sums = images.f_flatten(1, -1)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64)?;
    let (sums, labels) = (Vec::<i64>::try_from(sums)?, Vec::<i64>::try_from(labels)?);
    let values: Vec<u64> = sums.into_iter().chain(labels).map(i64::cast_unsigned).collect();
    Ok(format!("{} ({} images, {:08x})", data.name(), data.len(), derive_seed(0, &values) >> 32))
}

/// Refuses a last batch that batch norm would fail on at the end of an epoch, before anything is saved.
fn check_last_batch(network: &Network, train: &Loader) -> Result<(), TrainError> {
    let single = |node: &Node| node.op_name() == "BatchNorm2d" && matches!(node.shape.dims(), [_, 1, 1]);
    match network.graph().nodes().iter().find(|node| single(node)) {
        Some(node) if train.smallest_batch() == 1 => Err(TrainError::LoneExample { layer: node.name.clone() }),
        _ => Ok(()),
    }
}

/// A step that a device may still be busy with.
struct Launched {
    output: StepOutput,
    labels: Tensor,
    targets: Option<Tensor>,
}

/// How fast an epoch goes.
struct Speed {
    since: Instant,
    images: u64,
}

impl Speed {
    fn start() -> Self {
        Self { since: Instant::now(), images: 0 }
    }

    fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    fn images_per_second(&self) -> f64 {
        self.images as f64 / self.seconds()
    }
}
