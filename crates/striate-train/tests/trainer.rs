//! The training loop, on a tiny network and random images.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use striate_datasets::{
    Dataset, Fit, InMemory, Loader, LoaderOptions, Normalise, Preprocess, RandomAffine, RandomCrop, RandomHorizontalFlip,
    Transform,
};
use striate_graph::{Graph, InitOptions, Network};
use striate_layers::{
    Activation, AdaptiveAvgPool2d, Add, BatchNorm2d, Conv2d, Dropout, Flatten, Linear, StochasticDepth, loss::Loss,
};
use striate_models::BundleInfo;
use striate_torch::Generator;
use striate_train::metrics::SingleLabelScores;
use striate_train::{
    AdamWConfig, AverageConfig, BEST, Checkpoint, CheckpointConfig, ClassWeights, Clip, Curve, EmaConfig, Event, Hook, JsonLines,
    Keep, LAST, Listener, Moment, NamedWeights, OnNan, OptimizerConfig, Outcome, ParamGroup, Patience, PlateauConfig,
    Progressive, ScheduleConfig, Scores, SgdConfig, SwaConfig, Teacher, TrainConfig, TrainError, Trainer, WEIGHTS, evaluate,
};
use tch::{Device, Kind, Tensor};

const EXAMPLES: i64 = 50;
const BATCH: usize = 8;
/// 50 examples in batches of 8: the last has 2.
const STEPS: u64 = 7;
const EPOCHS: u64 = 2;

/// Dropout draws from a generator of the whole process, and so is the number of threads.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Random images whose label is the brightest of their three channels.
fn data(seed: u64) -> InMemory {
    let mut images = Tensor::empty([EXAMPLES, 3, 8, 8], (Kind::Float, Device::Cpu));
    let mut tint = Tensor::empty([EXAMPLES, 3, 1, 1], (Kind::Float, Device::Cpu));
    let mut generator = Generator::new(seed);
    generator.uniform(&mut images, 0.0, 100.0).unwrap();
    generator.uniform(&mut tint, 0.0, 155.0).unwrap();
    let labels = tint.argmax(1, false).flatten(0, -1);
    let classes = ["red", "green", "blue"].map(str::to_owned).to_vec();
    InMemory::new("tints", (images + tint).to_kind(Kind::Uint8), &labels, classes).unwrap()
}

fn preprocess() -> Preprocess {
    let normalise = Normalise { mean: vec![0.5], std: vec![0.25] };
    Preprocess::new([3, 8, 8], [3, 8, 8], Fit::Pad, normalise).unwrap()
}

fn graph(classes: i64) -> Graph {
    let graph = Graph::build(|net| {
        let x = net.input([3, 8, 8]);
        let x = net.add("conv", Conv2d::same(4, 3), x)?;
        let x = net.add("bn", BatchNorm2d::new(), x)?;
        let x = net.add("relu", Activation::Relu, x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("dropout", Dropout::new(0.5), x)?;
        let x = net.add("fc", Linear::new(classes), x)?;
        net.output("logits", x)
    });
    graph.unwrap()
}

/// For images of any size, with a residual block whose branch is dropped now and then.
fn residual() -> Graph {
    let graph = Graph::build(|net| {
        let x = net.input([3, 8, 8]);
        let x = net.add("conv", Conv2d::same(4, 3), x)?;
        let y = net.add("branch", Conv2d::same(4, 3), x)?;
        let y = net.add("bn", BatchNorm2d::new(), y)?;
        let y = net.add("drop", StochasticDepth::new(0.4), y)?;
        let x = net.add("add", Add, [x, y])?;
        let x = net.add("relu", Activation::Relu, x)?;
        let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(3), x)?;
        net.output("logits", x)
    });
    graph.unwrap()
}

fn network(classes: i64) -> Network {
    Network::new(graph(classes), &InitOptions::default()).unwrap()
}

fn config(optimizer: OptimizerConfig) -> TrainConfig {
    TrainConfig {
        epochs: EPOCHS,
        lr: 0.02,
        seed: 5,
        clip: Some(Clip::Norm(1.0)),
        optimizer,
        schedule: ScheduleConfig { warmup_epochs: 0.5, ..Curve::Cosine { min_lr: 0.0 }.into() },
        ..TrainConfig::default()
    }
}

/// Data, loaders and a network of their own for each run, as a new process has them.
struct Run {
    train: InMemory,
    test: InMemory,
    network: Network,
    config: TrainConfig,
    /// Whether another network teaches.
    taught: bool,
    /// Whether a step ruins the weights.
    bombed: bool,
}

impl Run {
    fn new(optimizer: OptimizerConfig) -> Self {
        let (train, test, network, config) = (data(1), data(2), network(3), config(optimizer));
        Self { train, test, network, config, taught: false, bombed: false }
    }

    fn sgd() -> Self {
        Self::new(OptimizerConfig::default())
    }

    /// Calls `with` on a trainer of this run.
    fn trainer<T>(&self, with: impl FnOnce(Trainer<'_>) -> T) -> T {
        let affine = RandomAffine { degrees: 10.0, ..RandomAffine::default() };
        let flip = Transform::HorizontalFlip(RandomHorizontalFlip::default());
        let transforms = vec![Transform::RandomCrop(RandomCrop { padding: 1 }), flip, Transform::Affine(affine)];
        let options = LoaderOptions { transforms, ..LoaderOptions::train(BATCH, self.config.seed) };
        let train = Loader::new(&self.train, preprocess(), options).unwrap();
        let test = Loader::new(&self.test, preprocess(), LoaderOptions::eval(BATCH)).unwrap();
        let trainer = Trainer::new(&self.network, &train, &test, self.config.clone()).unwrap();
        let trainer = if self.taught { trainer.teacher(teacher("a")) } else { trainer };
        with(if self.bombed { trainer.hook(Bomb).unwrap() } else { trainer })
    }
}

fn teacher(digest: &str) -> Teacher {
    let network = Network::new(graph(3), &InitOptions { seed: 9, ..InitOptions::default() }).unwrap();
    Teacher::new(network, 2.0, 0.5, digest).unwrap()
}

/// Ruins the weights in the ninth step of a run that has not gone back yet.
struct Bomb;

impl Hook for Bomb {
    fn name(&self) -> &'static str {
        "bomb"
    }

    fn after_update(&mut self, at: &Moment<'_>) -> Result<(), TrainError> {
        if at.progress.step == 8 && at.progress.recovery.rollbacks == 0 {
            let _ = at.network.state().get_mut("fc.bias").unwrap().f_fill_(f64::NAN)?;
        }
        Ok(())
    }
}

fn checkpoints(folder: &Path) -> CheckpointConfig {
    CheckpointConfig {
        folder: folder.into(),
        every_steps: None,
        keep: Keep::default(),
        bundle: BundleInfo::new(graph(3), &["red", "green", "blue"].map(str::to_owned), Some(preprocess())),
        recipe: None,
    }
}

/// Sets the flag once a step is done.
struct StopAfter {
    step: u64,
    flag: Arc<AtomicBool>,
}

impl Listener for StopAfter {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if matches!(event, Event::StepDone { step, .. } | Event::StepSkipped { step, .. } if *step == self.step) {
            self.flag.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn copy(state: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    state.into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
}

/// Everything that a run leaves: weights, statistics, the state of optimizer and hooks, progress.
fn remains(folder: &Path) -> ([BTreeMap<String, Tensor>; 3], String) {
    let checkpoint = Checkpoint::read(&folder.join(LAST)).unwrap();
    ([checkpoint.model, checkpoint.optimizer, checkpoint.hooks], format!("{:?}", checkpoint.progress))
}

#[test]
fn a_run_resumed_after_any_step_ends_with_the_same_bits() {
    let _alone = alone();
    let sgd = OptimizerConfig::Sgd(SgdConfig { nesterov: true, weight_decay: 1e-4, ..SgdConfig::default() });
    let adamw = OptimizerConfig::AdamW(AdamWConfig { decay_1d: false, ..AdamWConfig::default() });
    let of = |network: Graph, config: TrainConfig| {
        let network = Network::new(network, &InitOptions::default()).unwrap();
        Run { config, network, ..Run::sgd() }
    };
    let growing = || {
        let average = AverageConfig::Ema(EmaConfig { every: 3, ..EmaConfig::default() });
        let progressive = Progressive { from: 4, until: 0.6, multiple: 1 };
        of(residual(), TrainConfig { average, progressive, ..config(sgd.clone()) })
    };
    let swapped = || {
        let average = AverageConfig::Swa(SwaConfig { from: 0.0, lr: 0.01, ..SwaConfig::default() });
        of(residual(), TrainConfig { average, ..config(sgd.clone()) })
    };
    let bombed = || {
        let mut run = Run { bombed: true, ..Run::sgd() };
        run.config.on_nan = OnNan::Rollback;
        run
    };
    let waiting = || {
        let mut run = Run::sgd();
        (run.config.epochs, run.config.patience) = (9, Patience { epochs: 1, min_delta: 0.5 });
        run
    };
    let cases: [(usize, &dyn Fn() -> Run); 7] = [
        (1, &|| Run::new(sgd.clone())),
        (2, &|| Run::new(adamw.clone())),
        (1, &growing),
        (1, &swapped),
        (1, &taught_in_float16),
        (1, &bombed),
        (1, &waiting),
    ];
    let before = striate_torch::num_threads();
    for (case, (threads, run)) in cases.iter().enumerate() {
        striate_torch::set_num_threads(*threads);
        let whole = tempfile::tempdir().unwrap();
        let outcome = run().trainer(|trainer| trainer.checkpoints(checkpoints(whole.path())).run().unwrap());
        assert_eq!(outcome, Outcome::Finished);
        // The first two after each step, the others before and after an epoch ends and something goes wrong.
        let steps = if case < 2 { (1..EPOCHS * STEPS).collect() } else { vec![1, 7, 8, 9, 12] };
        for step in steps {
            let parts = tempfile::tempdir().unwrap();
            let flag = Arc::new(AtomicBool::new(false));
            let stop = StopAfter { step, flag: Arc::clone(&flag) };
            let outcome = run()
                .trainer(|trainer| trainer.checkpoints(checkpoints(parts.path())).listener(stop).stop_on(flag).run().unwrap());
            assert_eq!(outcome, Outcome::Stopped);
            tch::manual_seed(i64::try_from(step).unwrap());
            let rest = run();
            let steps = rest.trainer(|mut trainer| {
                trainer.resume(&parts.path().join(LAST)).unwrap();
                let goes_back = rest.bombed && step == 9;
                assert_eq!(trainer.progress().step, if goes_back { STEPS } else { step });
                let mut trainer = trainer.checkpoints(checkpoints(parts.path()));
                trainer.run().unwrap();
                trainer.progress().step
            });
            assert_eq!(steps, EPOCHS * STEPS);
            assert_eq!(remains(parts.path()), remains(whole.path()), "stopped after step {step}, case {case}");
        }
    }
    striate_torch::set_num_threads(before);
}

#[test]
fn a_plateau_is_remembered() {
    let _alone = alone();
    // Nothing is a tenth of the first loss, so that the rate drops after every epoch but the first.
    let plateau = PlateauConfig { patience: 0, factor: 0.5, threshold: 0.9, ..PlateauConfig::default() };
    let run = || {
        let mut run = Run::sgd();
        (run.config.epochs, run.config.schedule) = (4, Curve::Plateau(plateau.clone()).into());
        run
    };
    let whole = tempfile::tempdir().unwrap();
    let heard = Heard::default();
    run().trainer(|trainer| trainer.checkpoints(checkpoints(whole.path())).listener(heard.clone()).run().unwrap());
    let rate = |event: &Event| match event {
        Event::StepDone { step, lr, .. } if step % STEPS == 1 => Some(*lr),
        _ => None,
    };
    assert_eq!(heard.0.lock().unwrap().iter().filter_map(rate).collect::<Vec<_>>(), [0.02, 0.02, 0.01, 0.005]);
    for step in [2 * STEPS, 3 * STEPS - 2] {
        let parts = tempfile::tempdir().unwrap();
        let flag = Arc::new(AtomicBool::new(false));
        let stop = StopAfter { step, flag: Arc::clone(&flag) };
        run().trainer(|trainer| trainer.checkpoints(checkpoints(parts.path())).listener(stop).stop_on(flag).run().unwrap());
        run().trainer(|mut trainer| {
            trainer.resume(&parts.path().join(LAST)).unwrap();
            trainer.checkpoints(checkpoints(parts.path())).run().unwrap()
        });
        assert_eq!(remains(parts.path()), remains(whole.path()), "stopped after step {step}");
    }
}

/// A run with most of what there is: its gradients leave float16's range at first, and their updates are left out.
fn taught_in_float16() -> Run {
    let mut run = Run { taught: true, ..Run::sgd() };
    run.network.set_autocast(Some(Kind::Half));
    let class_weights = ClassWeights::Named(NamedWeights::Balanced);
    let loss = Loss::Focal { gamma: 2.0, label_smoothing: 0.1 };
    run.config =
        TrainConfig { class_weights, loss, scale_loss: true, accumulate: 2, on_nan: OnNan::Skip, lr: 20.0, ..run.config };
    run
}

#[test]
fn updates_that_would_ruin_the_weights_are_left_out_and_told() {
    let _alone = alone();
    let (run, heard) = (taught_in_float16(), Heard::default());
    let progress = run.trainer(|trainer| {
        let mut trainer = trainer.listener(heard.clone());
        trainer.run().unwrap();
        trainer.progress().clone()
    });
    let events = heard.0.lock().unwrap();
    let skipped = events.iter().filter(|event| matches!(event, Event::StepSkipped { .. })).count() as u64;
    let done = events.iter().filter(|event| matches!(event, Event::StepDone { .. })).count() as u64;
    assert!(skipped > 0 && done > 0 && skipped + done == EPOCHS * STEPS, "{skipped} of {done}");
    assert_eq!(progress.recovery.skipped, skipped);
}

#[test]
fn a_run_whose_steps_are_all_left_out_ends() {
    let _alone = alone();
    let mut run = Run::sgd();
    run.config.on_nan = OnNan::Skip;
    let _ = run.network.state().get_mut("fc.bias").unwrap().fill_(f64::NAN);
    let train = Loader::new(&run.train, preprocess(), LoaderOptions::train(1, 0)).unwrap();
    let test = Loader::new(&run.test, preprocess(), LoaderOptions::eval(BATCH)).unwrap();
    let error = Trainer::new(&run.network, &train, &test, run.config).unwrap().run().unwrap_err().to_string();
    let expected = "the losses or gradients of 32 steps in a row became NaN or infinite in epoch 1 at step 32 ";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_run_goes_back_three_times_and_then_ends() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let heard = Heard::default();
    let mut run = Run::sgd();
    run.config = TrainConfig { on_nan: OnNan::Rollback, lr: 1e300, schedule: ScheduleConfig::default(), ..run.config };
    let error = run.trainer(|trainer| {
        trainer.checkpoints(checkpoints(folder.path())).listener(heard.clone()).run().unwrap_err().to_string()
    });
    assert!(error.starts_with("the loss became NaN or infinite in epoch 1 at step 2 with learning rate 1.250e299: "), "{error}");
    let scales: Vec<(u64, f64)> = heard
        .0
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::RolledBack { step, lr_scale, .. } => Some((*step, *lr_scale)),
            _ => None,
        })
        .collect();
    assert_eq!(scales, [(0, 0.5), (0, 0.25), (0, 0.125)]);
    assert_eq!(
        run.trainer(|mut trainer| trainer.run().unwrap_err().to_string()),
        "train.on_nan = \"rollback\" goes back to checkpoints: save some"
    );
}

/// Feature maps of 165 TB for a batch, beyond all that a process can address.
#[test]
fn a_lack_of_memory_names_the_batch() {
    let _alone = alone();
    let graph = Graph::build(|net| {
        let x = net.input([3, 8, 8]);
        let x = net.add("huge", AdaptiveAvgPool2d::new(1 << 19), x)?;
        let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(3), x)?;
        net.output("logits", x)
    });
    let network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
    let run = Run::sgd();
    let train = Loader::new(&run.train, preprocess(), LoaderOptions::train(EXAMPLES as usize, 0)).unwrap();
    let test = Loader::new(&run.test, preprocess(), LoaderOptions::eval(BATCH)).unwrap();
    let error = Trainer::new(&network, &train, &test, run.config).unwrap().run().unwrap_err().to_string();
    assert!(error.starts_with("not enough memory on cpu for a batch of 50: take a smaller one"), "{error}");
}

#[test]
fn a_run_that_gets_no_better_stops_and_is_finished() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::sgd();
    (run.config.epochs, run.config.patience) = (9, Patience { epochs: 2, min_delta: 0.9 });
    for resumed in [false, true] {
        let (outcome, progress) = run.trainer(|mut trainer| {
            if resumed {
                trainer.resume(&folder.path().join(LAST)).unwrap();
            }
            let mut trainer = trainer.checkpoints(checkpoints(folder.path()));
            (trainer.run().unwrap(), trainer.progress().clone())
        });
        assert_eq!((outcome, progress.epoch, progress.waiting.epochs), (Outcome::Finished, 3, 2));
    }
}

#[test]
fn another_teacher_is_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run = Run { taught: true, ..Run::sgd() };
    run.trainer(|trainer| trainer.checkpoints(checkpoints(folder.path())).run().unwrap());
    let last = folder.path().join(LAST);
    run.trainer(|mut trainer| trainer.resume(&last).unwrap());
    let other = run.trainer(|trainer| trainer.teacher(teacher("b")).resume(&last).unwrap_err().to_string());
    assert!(other.ends_with("it has learned from another teacher, or from none: take the same"), "{other}");
}

/// Keeps what it hears.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Event>>>);

impl Listener for Heard {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }
}

#[test]
fn listeners_hear_a_run_that_learns() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("metrics.jsonl");
    let heard = Heard::default();
    let mut run = Run::sgd();
    run.config.epochs = 8;
    let best = run.trainer(|trainer| {
        let saved = CheckpointConfig { every_steps: Some(5), ..checkpoints(folder.path()) };
        let mut trainer = trainer.checkpoints(saved).listener(heard.clone()).listener(JsonLines::append(&lines).unwrap());
        trainer.run().unwrap();
        trainer.progress().best_accuracy.unwrap()
    });
    // Chance is a third.
    assert!(best > 0.6, "{best}");
    let events = heard.0.lock().unwrap();
    let losses: Vec<f64> = events
        .iter()
        .filter_map(|event| match event {
            Event::EpochDone { train_loss, .. } => Some(*train_loss),
            _ => None,
        })
        .collect();
    assert!(losses.len() == 8 && losses[7] < losses[0] / 2.0, "{losses:?}");
    assert!(matches!(
        events[0],
        Event::RunStarted { epochs: 8, steps_per_epoch: STEPS, step: 0, judge: "test", measure: "accuracy" }
    ));
    assert!(matches!(events.last(), Some(Event::RunDone { finished: true, step: 56, .. })));
    let steps: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::StepDone { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(steps, (1..=56).collect::<Vec<_>>());
    let saved = |event: &&Event| matches!(event, Event::CheckpointSaved { path, .. } if path.ends_with(LAST));
    // After each epoch, and after steps 5, 10, ... 55, of which 35 ends an epoch.
    assert_eq!(events.iter().filter(saved).count(), 8 + 10);

    let text = std::fs::read_to_string(&lines).unwrap();
    let parsed: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed.len(), events.len());
    assert_eq!(parsed[2]["event"], "step_done");
    let best = Checkpoint::read(&folder.path().join(BEST)).unwrap();
    let info = BundleInfo::read(&folder.path().join(BEST)).unwrap();
    assert_eq!(Some(info.metrics["test_accuracy"]), best.progress.best_accuracy);
    assert!(best.optimizer.is_empty());
}

#[test]
fn a_diverged_run_stops_and_keeps_the_last_good_checkpoint() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let last = folder.path().join(LAST);
    let mut run = Run::sgd();
    run.config.epochs = 1;
    run.trainer(|trainer| trainer.checkpoints(checkpoints(folder.path())).run().unwrap());
    let good = std::fs::read(&last).unwrap();
    let mut ruined = Run::sgd();
    (ruined.config.lr, ruined.config.schedule) = (1e300, ScheduleConfig::default());
    let error = ruined.trainer(|mut trainer| {
        trainer.resume(&last).unwrap();
        trainer.checkpoints(checkpoints(folder.path())).run().unwrap_err().to_string()
    });
    assert!(error.starts_with("the loss became NaN or infinite in epoch 2 at step 9 with learning rate 1.000e300: "), "{error}");
    assert!(error.ends_with(&format!("; the last good checkpoint is {}", last.display())), "{error}");
    assert_eq!(std::fs::read(&last).unwrap(), good);
}

#[test]
fn weights_ruined_by_the_last_step_are_not_saved() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run { train: data(1).range(0..8).unwrap(), ..Run::sgd() };
    (run.config.lr, run.config.schedule) = (f64::MAX, ScheduleConfig::default());
    let error = run.trainer(|trainer| trainer.checkpoints(checkpoints(folder.path())).run().unwrap_err().to_string());
    assert!(error.starts_with("a weight became NaN or infinite in epoch 1 at step 1 "), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_checkpoint_of_another_run_is_refused_and_changes_nothing() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::sgd();
    run.config.epochs = 1;
    run.trainer(|trainer| trainer.checkpoints(checkpoints(folder.path())).run().unwrap());
    let refused = |run: Run, file: &str| {
        let before = copy(run.network.state());
        let error = run.trainer(|mut trainer| trainer.resume(&folder.path().join(file)).unwrap_err().to_string());
        assert_eq!(run.network.state(), before);
        assert!(error.contains(file) && !error.contains('\n'), "{error}");
        error
    };
    let mut other_seed = Run::sgd();
    other_seed.config.seed = 6;
    assert!(refused(other_seed, LAST).contains("its seed is 5, here it is 6"));
    let adamw = Run::new(OptimizerConfig::AdamW(AdamWConfig::default()));
    assert!(refused(adamw, LAST).contains("the optimizer's state does not fit: it lacks adamw.exp_avg.bn.bias"));
    assert!(refused(Run::sgd(), BEST).contains("resume from last.safetensors"));
    let other_data = Run { train: data(2), ..Run::sgd() };
    let told = refused(other_data, LAST);
    assert!(told.contains("it was trained on tints (50 images, ") && told.ends_with("take the same data"), "{told}");
    let fewer = Run { train: data(1).range(0..20).unwrap(), ..Run::sgd() };
    assert!(refused(fewer, LAST).contains("its epochs have 7 steps, here they have 3"));
}

#[test]
fn what_cannot_train_is_refused_before_it_starts() {
    let _alone = alone();
    let refused = |run: &Run, batch: usize| {
        let train = Loader::new(&run.train, preprocess(), LoaderOptions::train(batch, 0)).unwrap();
        let test = Loader::new(&run.test, preprocess(), LoaderOptions::eval(BATCH)).unwrap();
        Trainer::new(&run.network, &train, &test, run.config.clone()).unwrap_err().to_string()
    };
    let mut frozen = Run::sgd();
    frozen.network.freeze_through("fc").unwrap();
    assert_eq!(refused(&frozen, BATCH), "the network has nothing to train: freeze fewer layers");
    let mut warming = Run::sgd();
    warming.config.schedule.warmup_epochs = 2.0;
    assert_eq!(refused(&warming, BATCH), "schedule.warmup_epochs = 2.0 must be less than the run's epochs");
    (warming.config.schedule.warmup_epochs, warming.config.schedule.warmup_steps) = (0.0, 14);
    assert_eq!(refused(&warming, BATCH), "schedule.warmup_steps = 14 must be fewer than the run's steps");
    let mut endless = Run::sgd();
    endless.config.epochs = u64::MAX;
    assert!(refused(&endless, BATCH).ends_with("must be from 1 to a million"));
    let pooled = Graph::build(|net| {
        let x = net.input([3, 8, 8]);
        let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
        let x = net.add("bn", BatchNorm2d::new(), x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(3), x)?;
        net.output("logits", x)
    });
    let lone = Run { network: Network::new(pooled.unwrap(), &InitOptions::default()).unwrap(), ..Run::sgd() };
    assert!(refused(&lone, 49).starts_with("the last batch has one example, over which bn has no variance"));
}

#[test]
fn evaluation_sees_every_example() {
    let _alone = alone();
    let (data, network) = (data(1), network(3));
    let loader = |options| Loader::new(&data, preprocess(), options).unwrap();
    let in_parts = evaluate(&network, &loader(LoaderOptions::eval(BATCH)), Loss::default()).unwrap();
    let at_once = evaluate(&network, &loader(LoaderOptions::eval(data.len())), Loss::default()).unwrap();
    assert_eq!((in_parts.examples, at_once.examples), (50, 50));
    let scores = in_parts.scores().unwrap();
    assert_eq!(scores, at_once.scores().unwrap());
    assert!((in_parts.loss - at_once.loss).abs() < 1e-6);
    assert_eq!(in_parts.accuracy, at_once.accuracy);
    assert!(matches!(scores, Scores::SingleLabel(SingleLabelScores { top5: 1.0, .. })));
    let dropping = loader(LoaderOptions { drop_last: true, ..LoaderOptions::train(BATCH, 0) });
    let error = evaluate(&network, &dropping, Loss::default()).unwrap_err().to_string();
    assert!(error.contains("drop_last = true leaves examples"), "{error}");
    let error = evaluate(&self::network(4), &loader(LoaderOptions::eval(BATCH)), Loss::default()).unwrap_err().to_string();
    assert!(error.starts_with("the network gives [4], but tints has 3 classes"), "{error}");
}

/// How far the bias of an auxiliary head moves in one step of plain SGD.
fn auxiliary_step(aux_weight: f64) -> Tensor {
    let graph = Graph::build(|net| {
        let x = net.input([3, 8, 8]);
        let x = net.add("flatten", Flatten, x)?;
        let logits = net.add("fc", Linear::new(3), x)?;
        let aux = net.add("aux_fc", Linear::new(3), x)?;
        net.output("logits", logits)?;
        net.training_output("aux1", aux)
    });
    let network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
    let before = network.state()["aux_fc.bias"].copy();
    let sgd = SgdConfig { momentum: 0.0, nesterov: false, weight_decay: 0.0, ..SgdConfig::default() };
    let config =
        TrainConfig { epochs: 1, aux_weight, clip: None, schedule: Curve::Constant.into(), ..config(OptimizerConfig::Sgd(sgd)) };
    let (train, test) = (data(1), data(2));
    let train = Loader::new(&train, preprocess(), LoaderOptions::eval(EXAMPLES as usize)).unwrap();
    let test = Loader::new(&test, preprocess(), LoaderOptions::eval(BATCH)).unwrap();
    Trainer::new(&network, &train, &test, config).unwrap().run().unwrap();
    &network.state()["aux_fc.bias"] - before
}

#[test]
fn auxiliary_outputs_count_by_their_weight() {
    let _alone = alone();
    let whole = auxiliary_step(1.0);
    assert!(whole.abs().max().double_value(&[]) > 1e-3, "{whole:?}");
    assert!((auxiliary_step(0.3) - &whole * 0.3).abs().max().double_value(&[]) < 1e-7);
    assert_eq!(auxiliary_step(0.0).abs().max().double_value(&[]), 0.0);
}

/// Looks at the files as a crash between a checkpoint and the next line would leave them.
struct Crash<'a> {
    folder: &'a Path,
    lines: JsonLines,
    checkpoints: &'a mut u64,
}

impl Listener for Crash<'_> {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if let Event::CheckpointSaved { path, step } = event {
            let text = std::fs::read_to_string(self.folder.join("metrics.jsonl")).unwrap();
            assert_eq!(text.matches("\"step_done\"").count() as u64, *step, "every step of the checkpoint is in the file");
            assert_eq!(Checkpoint::read(path).unwrap().progress.step, *step);
            *self.checkpoints += 1;
        }
        self.lines.on_event(event)
    }

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        self.lines.before_checkpoint()
    }
}

#[test]
fn no_checkpoint_is_ahead_of_the_metrics() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (folder, mut checkpoints_seen) = (folder.path(), 0);
    let lines = JsonLines::append(&folder.join("metrics.jsonl")).unwrap();
    let crash = Crash { folder, lines, checkpoints: &mut checkpoints_seen };
    let every_second = CheckpointConfig { every_steps: Some(2), ..checkpoints(folder) };
    let run = Run::sgd();
    run.trainer(|trainer| trainer.checkpoints(every_second).listener(crash).run().unwrap());
    assert!(checkpoints_seen >= 2 * 3 + 2, "{checkpoints_seen}");
}

/// Averages the weights of all steps, and counts the epochs, backward passes and updates that it hears of.
struct Mean {
    weights: BTreeMap<String, Tensor>,
    calls: Tensor,
}

impl Mean {
    fn of(network: &Network) -> Self {
        Self { weights: copy(network.state()), calls: Tensor::zeros([3], (Kind::Int64, Device::Cpu)) }
    }

    fn count(&self, what: i64) {
        let _ = self.calls.get(what).f_add_scalar_(1).unwrap();
    }
}

impl Hook for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn averages(&self) -> bool {
        true
    }

    fn epoch_done(&mut self, _at: &Moment<'_>) -> Result<(), TrainError> {
        self.count(0);
        Ok(())
    }

    fn reads_gradients(&self) -> bool {
        true
    }

    fn after_backward(&mut self, at: &Moment<'_>) -> Result<(), TrainError> {
        assert!(at.params.iter().all(|param| param.tensor.grad().defined()));
        self.count(1);
        Ok(())
    }

    fn after_update(&mut self, at: &Moment<'_>) -> Result<(), TrainError> {
        assert!(at.params.iter().all(|param| !param.tensor.grad().defined()));
        self.count(2);
        let share = 1.0 / (at.progress.step as f64 + 1.0);
        for (name, own) in at.network.state() {
            if own.is_floating_point() {
                let _ = self.weights.get_mut(&name).unwrap().lerp_(&own, share);
            }
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let weights = self.weights.iter().map(|(name, tensor)| (format!("{WEIGHTS}{name}"), tensor.shallow_clone()));
        weights.chain([("calls".to_owned(), self.calls.shallow_clone())]).collect()
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        for (name, tensor) in &mut self.state() {
            tensor.copy_(&state[name]);
        }
        Ok(())
    }
}

#[test]
fn a_hook_that_averages_is_judged_saved_and_resumed() {
    let _alone = alone();
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = Run::sgd();
    let heard = Heard::default();
    run.trainer(|trainer| {
        let trainer = trainer.hook(Mean::of(&run.network)).unwrap().listener(heard.clone());
        assert!(trainer.checkpoints(checkpoints(whole.path())).run().is_ok());
    });
    let last = Checkpoint::read(&whole.path().join(LAST)).unwrap();
    assert_eq!(Vec::<i64>::try_from(&last.hooks["mean/calls"]).unwrap(), [2, 14, 14]);
    assert_ne!(last.model, last.weights());
    // The network ends with the average, by which it was judged.
    assert_eq!(copy(run.network.state()), last.weights());
    let test = Loader::new(&run.test, preprocess(), LoaderOptions::eval(BATCH)).unwrap();
    assert_eq!(evaluate(&run.network, &test, Loss::default()).unwrap().loss, last.progress.test.unwrap().loss);
    let judged = heard.0.lock().unwrap().iter().rev().find_map(|event| match event {
        Event::EpochDone { test_loss, raw, .. } => Some((*test_loss, raw.unwrap().loss)),
        _ => None,
    });
    let (averaged, raw) = judged.unwrap();
    assert!(averaged == last.progress.test.unwrap().loss && raw != averaged);

    let (flag, first, rest) = (Arc::new(AtomicBool::new(false)), Run::sgd(), Run::sgd());
    let stop = StopAfter { step: 9, flag: Arc::clone(&flag) };
    first.trainer(|trainer| {
        let trainer = trainer.hook(Mean::of(&first.network)).unwrap().listener(stop).stop_on(flag);
        trainer.checkpoints(checkpoints(parts.path())).run().unwrap()
    });
    rest.trainer(|mut trainer| {
        let lacking = trainer.resume(&parts.path().join(LAST)).unwrap_err().to_string();
        assert!(lacking.contains("it has mean/calls, which this run does not keep"), "{lacking}");
        let mut trainer = trainer.hook(Mean::of(&rest.network)).unwrap();
        trainer.resume(&parts.path().join(LAST)).unwrap();
        trainer.checkpoints(checkpoints(parts.path())).run().unwrap();
    });
    let resumed = Checkpoint::read(&parts.path().join(LAST)).unwrap();
    assert_eq!((resumed.model, resumed.hooks), (last.model, last.hooks));
}

#[test]
fn two_hooks_of_one_name_and_two_averages_are_refused() {
    let mut run = Run::sgd();
    let error = run.trainer(|trainer| {
        let trainer = trainer.hook(Mean::of(&run.network)).unwrap();
        trainer.hook(Mean::of(&run.network)).unwrap_err().to_string()
    });
    assert_eq!(error, "mean is the name of two hooks: give each its own");
    run.config.average = AverageConfig::Ema(EmaConfig::default());
    let error = run.trainer(|trainer| trainer.hook(Mean::of(&run.network)).unwrap_err().to_string());
    assert_eq!(error, "mean averages weights, and so does another hook: keep one of them");
}

/// A run of a network without batch norm and dropout, which see the parts of a batch.
fn in_parts(accumulate: usize) -> BTreeMap<String, Tensor> {
    let graph = Graph::build(|net| {
        let x = net.input([3, 8, 8]);
        let x = net.add("conv", Conv2d::same(4, 3), x)?;
        let x = net.add("relu", Activation::Relu, x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(3), x)?;
        net.output("logits", x)
    });
    let mut run = Run { network: Network::new(graph.unwrap(), &InitOptions::default()).unwrap(), ..Run::sgd() };
    run.config.accumulate = accumulate;
    run.trainer(|mut trainer| trainer.run().unwrap());
    copy(run.network.state())
}

#[test]
fn a_batch_in_parts_is_the_batch() {
    let _alone = alone();
    let whole = in_parts(1);
    // The last batch of an epoch has two examples.
    for parts in [2, 3, 8] {
        for (name, tensor) in in_parts(parts) {
            assert!(tensor.allclose(&whole[&name], 1e-5, 1e-6, false), "{name} in {parts} parts");
        }
    }
}

#[test]
fn parameters_begin_to_train_in_their_epoch() {
    let _alone = alone();
    let mut run = Run::sgd();
    let first = copy(run.network.state());
    let conv = ParamGroup { through: "conv".to_owned(), from_epoch: Some(1), ..ParamGroup::default() };
    run.config.groups = vec![conv];
    let folder = tempfile::tempdir().unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let stop = StopAfter { step: STEPS - 1, flag: Arc::clone(&flag) };
    run.trainer(|trainer| trainer.checkpoints(checkpoints(folder.path())).listener(stop).stop_on(flag).run().unwrap());
    let held = copy(run.network.state());
    assert_eq!(held["conv.weight"], first["conv.weight"]);
    assert_ne!(held["fc.weight"], first["fc.weight"]);
    run.trainer(|mut trainer| {
        trainer.resume(&folder.path().join(LAST)).unwrap();
        trainer.run().unwrap();
    });
    assert_ne!(run.network.state()["conv.weight"], first["conv.weight"]);
}
