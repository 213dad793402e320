mod config;
mod diverge;
mod ranks;
mod saving;

pub use self::config::{CheckpointConfig, Outcome, TrainConfig};
pub use self::diverge::{OnNan, ROLLBACK, Recovery};

use self::saving::fingerprint;
use crate::average::with_weights;
use crate::distributed::World;
use crate::evaluate::{Judge, check_classes, check_labels, evaluate_over};
use crate::feed::Feed;
use crate::hook::weights_of;
use crate::kept::KeptAt;
use crate::memory::explained;
use crate::metrics::{Running, exact_matches, top_k_correct};
use crate::optim::{Rule, grouped};
use crate::{
    Evaluation, Event, Hook, Listener, Moment, Objective, Optimizer, Progress, Step, StepOutput, Teacher, TestMetrics, TrainError,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use striate_datasets::{Batch, Loader};
use striate_graph::{Network, Node};
use striate_layers::Mode;
use striate_torch::{derive_seed, manual_seed};
use tch::Tensor;

/// The checkpoint that a run goes on from.
pub const LAST: &str = "last.safetensors";
/// The weights of the epoch with the best accuracy on the test set, without the optimizer's state.
pub const BEST: &str = "best.safetensors";
/// Sets the seeds of steps, which dropout draws from, apart from those of the loader.
const STEP_SEEDS: u64 = 0x5354_4550;

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
    progress: Progress,
    checkpoints: Option<CheckpointConfig>,
    listeners: Vec<Box<dyn Listener + 'a>>,
    hooks: Vec<Box<dyn Hook + 'a>>,
    stop: Option<Arc<AtomicBool>>,
    evaluation: Option<Evaluation>,
    judge: &'static str,
    world: World,
    /// Whether a stop was asked of any process by the last step.
    stopped: bool,
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
        config.schedule.check_length(config.epochs, Some(train.len() as u64))?;
        check_classes(network.graph(), train)?;
        check_classes(network.graph(), test)?;
        check_labels(config.loss, train)?;
        check_labels(config.loss, test)?;
        if network.trainable().is_empty() {
            return Err(TrainError::NothingToTrain);
        }
        check_last_batch(network, train)?;
        config.progressive.check_network(network)?;
        let objective = config.objective(train.dataset(), network.device())?;
        let step = step(network, objective, &config, config.optimizer.clone())?;
        let progress = Progress {
            data: fingerprint(train.dataset())?,
            test_data: Some(fingerprint(test.dataset())?),
            seed: config.seed,
            steps_per_epoch: train.len() as u64,
            ..Progress::default()
        };
        let hooks = config.average.hook(network, train, config.epochs)?.into_iter().collect();
        let (checkpoints, listeners) = (None, Vec::new());
        let (stop, evaluation, judge) = (None, None, "test");
        let (world, stopped) = (World::one(), false);
        Ok(Self {
            network,
            train,
            test,
            config,
            step,
            progress,
            checkpoints,
            listeners,
            hooks,
            stop,
            evaluation,
            judge,
            world,
            stopped,
        })
    }

    /// Trains by a rule of your own, in place of the configuration's optimizer.
    ///
    /// # Errors
    ///
    /// Hyperparameters that can't be.
    pub fn optimizer(mut self, rule: Box<dyn Rule>) -> Result<Self, TrainError> {
        let objective = self.config.objective(self.train.dataset(), self.network.device())?;
        let teacher = self.step.objective_mut().teacher.take();
        self.step = step(self.network, Objective { teacher, ..objective }, &self.config, rule)?.distributed(&self.world)?;
        Ok(self)
    }

    /// Has the network learn from a teacher too: before [`resume`](Self::resume), which refuses another.
    pub fn teacher(mut self, teacher: Teacher) -> Self {
        self.progress.teacher = Some(teacher.digest().to_owned());
        self.step.objective_mut().teacher = Some(teacher);
        self
    }

    /// Calls `hook` in each step: before [`resume`](Self::resume), which needs to know all of them.
    ///
    /// # Errors
    ///
    /// Another hook has its name, or averages weights too; it reads gradients, and steps are recorded.
    pub fn hook(mut self, hook: impl Hook + 'a) -> Result<Self, TrainError> {
        let refused = |reason| TrainError::Option { option: hook.name().to_owned(), reason };
        if self.hooks.iter().any(|other| other.name() == hook.name()) {
            return Err(refused("is the name of two hooks: give each its own"));
        }
        if hook.averages() && self.hooks.iter().any(|other| other.averages()) {
            return Err(refused("averages weights, and so does another hook: keep one of them"));
        }
        if hook.reads_gradients() && self.step.is_recorded() {
            return Err(refused("reads gradients, which a recorded step does not show: train with `cuda_graph = false`"));
        }
        self.hooks.push(Box::new(hook));
        Ok(self)
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

    /// Trains until all epochs are done or a stop is asked for. Once all are done, the network has the weights that the run is
    /// judged by: those of a [`Hook`] that averages them, if there is one.
    ///
    /// Fails, among others, as soon as a loss or a weight is no number any more; no checkpoint is overwritten then, and the network keeps what
    /// that step left of it.
    pub fn run(&mut self) -> Result<Outcome, TrainError> {
        self.run_all().map_err(|error| self.world.ended_by(error))
    }

    fn run_all(&mut self) -> Result<Outcome, TrainError> {
        self.begin_together()?;
        let (epochs, steps_per_epoch) = (self.config.epochs, self.progress.steps_per_epoch);
        let (step, judge) = (self.progress.step, self.judge);
        let measure = if self.config.loss.is_multi_label() { "exact match" } else { "accuracy" };
        self.emit(Event::RunStarted { epochs, steps_per_epoch, step, judge, measure })?;
        self.prepare_rollback()?;
        let mut outcome = Outcome::Finished;
        while outcome == Outcome::Finished && self.progress.epoch < epochs && !self.progress.waiting.is_over(self.config.patience)
        {
            match self.run_epoch() {
                Ok(ran) => outcome = ran,
                Err(error) => self.roll_back(error)?,
            }
        }
        if outcome == Outcome::Finished
            && let Some(weights) = weights_of(&self.hooks_state())
        {
            self.network.load_state(&weights)?;
        }
        let finished = outcome == Outcome::Finished;
        self.emit(Event::RunDone { finished, step: self.progress.step, best_accuracy: self.progress.best_accuracy })?;
        Ok(outcome)
    }

    fn run_epoch(&mut self) -> Result<Outcome, TrainError> {
        let Progress { epoch, step, steps_per_epoch, .. } = self.progress;
        self.stopped = self.world.any(self.stop_asked())?;
        self.emit(Event::EpochStarted { epoch })?;
        self.step.optimizer_mut().start_epoch(epoch)?;
        self.call_hooks(Hook::epoch_started)?;
        let mut speed = Speed::start();
        let first = usize::try_from(step - epoch * steps_per_epoch).unwrap_or(usize::MAX);
        let mut feed = Feed::new(self.train, self.network.device(), epoch, first)?;
        let mut next = speed.wait_for(|| feed.next());
        while let Some(batch) = next {
            if self.is_stopped() {
                self.check_weights()?;
                self.save_interrupted()?;
                return Ok(Outcome::Stopped);
            }
            let lr = self.lr(self.progress.step);
            let launched = self.launch(feed.take(batch?)?, lr)?;
            // While the device computes.
            next = speed.wait_for(|| feed.next());
            let loss = self.finish(launched, &mut speed)?;
            let (step, in_a_row) = (self.progress.step, self.progress.recovery.skipped_in_a_row);
            let (images_per_second, waiting) = (speed.images_per_second(), speed.waiting());
            self.emit(match loss {
                Some(loss) => Event::StepDone { epoch, step, loss, lr, images_per_second, waiting },
                None => Event::StepSkipped { epoch, step, in_a_row },
            })?;
            if !step.is_multiple_of(steps_per_epoch) {
                self.save_what_is_due()?;
            }
        }
        match self.finish_epoch(&speed) {
            Err(TrainError::Stopped) => {
                self.save_interrupted()?;
                Ok(Outcome::Stopped)
            }
            // A picture that cannot be read costs no epoch: its steps are done, and only the evaluation is done again.
            Err(error @ TrainError::Dataset(_)) => {
                self.save_interrupted()?;
                Err(error)
            }
            finished => finished.map(|()| Outcome::Finished),
        }
    }

    /// Whether all processes stop, at the same step.
    fn is_stopped(&self) -> bool {
        if self.world.is_one() { self.stop_asked() } else { self.stopped }
    }

    /// Whether this process was asked to stop.
    fn stop_asked(&self) -> bool {
        self.stop.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Begins a step with one batch.
    fn launch(&mut self, mut batch: Batch, lr: f64) -> Result<Launched, TrainError> {
        manual_seed(derive_seed(self.config.seed, &[STEP_SEEDS, self.progress.step]));
        let (steps, parts) = (self.config.epochs * self.progress.steps_per_epoch, self.config.accumulate);
        batch.images = self.config.progressive.resized(&batch.images, self.progress.step, steps)?;
        let (graph, device, examples) = (self.network.graph(), self.network.device(), batch.labels.numel());
        self.say_batch();
        let output = self.run_step(&batch, lr).map_err(|error| explained(error, graph, device, examples, parts))?;
        Ok(Launched { output, labels: batch.labels, targets: batch.targets })
    }

    fn run_step(&mut self, batch: &Batch, lr: f64) -> Result<StepOutput, TrainError> {
        let output = if self.hooks.iter().any(|hook| hook.reads_gradients()) {
            let output = self.step.backward(&batch.images, batch.targets())?;
            self.step.unscale()?;
            self.call_hooks(Hook::after_backward)?;
            self.step.update(lr)?;
            output
        } else {
            self.step.run(&batch.images, batch.targets(), lr)?
        };
        self.call_hooks(Hook::after_update)?;
        Ok(output)
    }

    fn call_hooks(
        &mut self,
        call: impl Fn(&mut (dyn Hook + 'a), &Moment<'_>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let at = Moment {
            network: self.network,
            params: self.step.optimizer().params(),
            progress: &self.progress,
            steps: self.config.epochs * self.progress.steps_per_epoch,
            lr: self.lr(self.progress.step),
            // Several processes would not stop at the same place.
            stop: self.stop.as_deref().filter(|_| self.world.is_one()),
        };
        self.hooks.iter_mut().try_for_each(|hook| call(&mut **hook, &at))
    }

    /// The weights that the run is judged by: those of a hook that averages them, or else the network's.
    fn weights(&self) -> BTreeMap<String, Tensor> {
        weights_of(&self.hooks_state()).unwrap_or_else(|| self.network.state())
    }

    /// Waits until a step is done, and counts it; returns its mean loss, or none if its update was left out.
    fn finish(&mut self, Launched { output, labels, targets }: Launched, speed: &mut Speed) -> Result<Option<f64>, TrainError> {
        let (own, skipped) = (f64::try_from(&output.loss)?, self.step.skipped()?);
        let correct = match targets.filter(|_| self.config.loss.is_multi_label()) {
            Some(targets) => exact_matches(&output.logits, &targets, Judge::THRESHOLD)?,
            None => top_k_correct(&output.logits, &labels, 1)?,
        };
        let examples = self.examples_of_step(&labels);
        let sums = self.world.step_sums(own, correct, self.stop_asked())?;
        self.stopped = sums.stopped;
        self.note_update(skipped)?;
        if skipped {
            self.progress.step += 1;
            speed.images += examples;
            return Ok(None);
        }
        if let Some(rank) = sums.diverged {
            return Err(self.diverged_in(rank));
        }
        let (loss, correct) = (sums.loss, sums.correct);
        self.progress.running.add(loss, examples, correct);
        self.progress.step += 1;
        speed.images += examples;
        Ok(Some(loss))
    }

    /// The learning rate of the step after `done` others.
    fn lr(&self, done: u64) -> f64 {
        let (steps_per_epoch, epochs) = (self.progress.steps_per_epoch, self.config.epochs);
        let schedule = &self.config.schedule;
        let base = schedule.lowered(self.config.lr * self.progress.recovery.lr_scale(), &self.progress.plateau);
        let scheduled = |done| schedule.lr(base, done, epochs * steps_per_epoch, steps_per_epoch);
        let in_epoch = |epoch| scheduled(epoch * steps_per_epoch);
        self.config.average.lr(scheduled(done), done / steps_per_epoch, epochs, in_epoch)
    }

    fn finish_epoch(&mut self, speed: &Speed) -> Result<(), TrainError> {
        let (seconds, images_per_second, waiting) = (speed.seconds(), speed.images_per_second(), speed.waiting());
        self.share_buffers()?;
        self.check_weights()?;
        self.call_hooks(Hook::epoch_done)?;
        self.share_hooks()?;
        let own = self.evaluate()?;
        let (evaluation, raw) = match weights_of(&self.hooks_state()) {
            None => (own, None),
            Some(weights) => (self.evaluate_with(&weights)?, Some(TestMetrics::from(&own))),
        };
        let test = TestMetrics::from(&evaluation);
        self.evaluation = Some(evaluation);
        let best = self.progress.best_accuracy.is_none_or(|best| test.accuracy > best);
        let done = Event::EpochDone {
            epoch: self.progress.epoch,
            step: self.progress.step,
            train_loss: self.progress.running.loss(),
            train_accuracy: self.progress.running.accuracy(),
            test_loss: test.loss,
            test_accuracy: test.accuracy,
            raw,
            best,
            seconds,
            images_per_second,
            waiting,
            peak_memory: striate_torch::peak_memory(),
        };
        self.progress.epoch += 1;
        self.progress.running = Running::default();
        self.progress.test = Some(test);
        let (steps, steps_per_epoch) = (self.progress.step, self.progress.steps_per_epoch);
        self.config.schedule.judged(&mut self.progress.plateau, &test, steps, steps_per_epoch);
        self.progress.raw = raw;
        if best {
            self.progress.best_accuracy = Some(test.accuracy);
        }
        self.progress.waiting.note(test.accuracy, self.config.patience.min_delta);
        self.emit(done)?;
        self.listeners.iter_mut().try_for_each(|listener| listener.after_epoch(self.network))?;
        // The best and what is kept first: a run that dies before the last does this epoch, and them, again.
        if best {
            self.save(BEST)?;
        }
        self.keep(&[KeptAt::Step(self.progress.step), KeptAt::Epoch(self.progress.epoch)])?;
        self.save_regular()
    }

    /// How the network does as it is.
    fn evaluate(&self) -> Result<Evaluation, TrainError> {
        let network = self.network;
        let forward = |images: &Tensor| match self.stop_asked() {
            true => Err(TrainError::Stopped),
            false => Ok(network.forward(images, Mode::Eval)?.logits().shallow_clone()),
        };
        let test =
            evaluate_over(&self.world, network.graph(), network.device(), self.test, self.config.loss.unsmoothed(), forward)?;
        match test.loss.is_finite() {
            true => Ok(test),
            false => Err(self.diverged("the test loss became", self.progress.step.saturating_sub(1))),
        }
    }

    /// How it does with other weights, which it has for so long.
    fn evaluate_with(&self, weights: &BTreeMap<String, Tensor>) -> Result<Evaluation, TrainError> {
        with_weights(self.network, weights, || self.evaluate())
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

/// Refuses a last batch that batch norm would fail on at the end of an epoch, before anything is saved.
fn check_last_batch(network: &Network, train: &Loader) -> Result<(), TrainError> {
    let single = |node: &Node| node.op_name() == "BatchNorm2d" && matches!(node.shape.dims(), [_, 1, 1]);
    match network.graph().nodes().iter().find(|node| single(node)) {
        Some(node) if train.smallest_batch() == 1 => Err(TrainError::LoneExample { layer: node.name.clone() }),
        _ => Ok(()),
    }
}

/// The step of a run.
fn step<'a>(
    network: &'a Network,
    objective: Objective,
    config: &TrainConfig,
    rule: impl Into<Box<dyn Rule>>,
) -> Result<Step<&'a Network>, TrainError> {
    let params = grouped(network, &config.groups, config.layer_decay)?;
    let step = Step::new(network, objective, Optimizer::new(rule, params)?, config.step_options())?;
    if config.cuda_graph { step.recorded() } else { Ok(step) }
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
    waited: Duration,
}

impl Speed {
    fn start() -> Self {
        Self { since: Instant::now(), images: 0, waited: Duration::ZERO }
    }

    /// Counts the time that `next` takes as waiting.
    fn wait_for<T>(&mut self, next: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let next = next();
        self.waited += since.elapsed();
        next
    }

    /// The share of the time that was spent waiting.
    fn waiting(&self) -> f64 {
        self.waited.as_secs_f64() / self.seconds()
    }

    fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    fn images_per_second(&self) -> f64 {
        self.images as f64 / self.seconds()
    }
}
