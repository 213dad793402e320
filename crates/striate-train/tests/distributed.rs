//! Several processes train one network: here each is a thread with a network of its own, and they reach each other as processes do.
//! Nothing here draws from libtorch's global generator, which they would share.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use striate_datasets::{Fit, InMemory, Loader, LoaderOptions, Normalise, Preprocess, RandomHorizontalFlip, Transform, digits};
use striate_graph::{Graph, InitOptions, Network};
use striate_layers::{Activation, BatchNorm2d, Conv2d, Flatten, Linear, loss::Loss};
use striate_models::BundleInfo;
use striate_train::distributed::{Attempt, Meeting, Place, ReducerOptions, World, WorldOptions};
use striate_train::{
    AverageConfig, CheckpointConfig, ClassWeights, Clip, EmaConfig, Event, Hook, Keep, LAST, Listener, Moment, Objective,
    Optimizer, OptimizerConfig, Outcome, Param, Step, StepOptions, TestMetrics, TrainConfig, TrainError, Trainer,
};
use tch::{Kind, Tensor};

const BATCH: usize = 24;
/// Enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

fn world(place: Place, timeout: Duration) -> World {
    // Buckets of a few hundred bytes, so that there are some.
    let reducer = ReducerOptions { bucket: 400, first_bucket: 100, ..ReducerOptions::default() };
    World::join(place, WorldOptions { timeout, reducer, ..WorldOptions::default() }).unwrap()
}

fn attempt(size: usize) -> (Meeting, Attempt) {
    let meeting = Meeting::open().unwrap();
    let attempt = meeting.attempt(0, size).unwrap();
    (meeting, attempt)
}

/// What `each` gives in each process of a world, by rank.
fn in_world<T: Send>(size: usize, timeout: Duration, each: impl Fn(World) -> T + Sync) -> Vec<T> {
    striate_torch::set_num_threads(1);
    if size == 1 {
        return vec![each(World::one())];
    }
    let (_meeting, attempt) = attempt(size);
    thread::scope(|scope| {
        let start = |rank| {
            let (place, each) = (attempt.place(rank), &each);
            scope.spawn(move || each(world(place, timeout)))
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A hundred digits: with batches of 24, the last has four.
fn data() -> (InMemory, InMemory) {
    let data = digits().unwrap();
    let some = |data: &InMemory, count| data.range(0..count).unwrap();
    (some(&data.train, 100), some(&data.test, 70))
}

fn preprocess() -> Preprocess {
    Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Pad, Normalise { mean: vec![0.3], std: vec![0.4] }).unwrap()
}

fn graph(with_norm: bool) -> Graph {
    let graph = Graph::build(|net| {
        let x = net.input([1, 8, 8]);
        let mut x = net.add("conv", Conv2d::same(16, 3), x)?;
        if with_norm {
            x = net.add("bn", BatchNorm2d::new(), x)?;
        }
        let x = net.add("tanh", Activation::Tanh, x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(10), x)?;
        net.output("logits", x)
    });
    graph.unwrap()
}

fn loaders<'d>((train, test): &'d (InMemory, InMemory), world: &World) -> (Loader<'d>, Loader<'d>) {
    let (portion, transforms) = (world.portion(), vec![Transform::HorizontalFlip(RandomHorizontalFlip::default())]);
    let train = Loader::new(train, preprocess(), LoaderOptions { portion, transforms, ..LoaderOptions::train(BATCH, 5) });
    let test = Loader::new(test, preprocess(), LoaderOptions { portion, ..LoaderOptions::eval(BATCH) });
    (train.unwrap(), test.unwrap())
}

/// The largest distance of two states.
fn apart(one: &[(String, Tensor)], other: &[(String, Tensor)]) -> f64 {
    assert_eq!(one.len(), other.len());
    let distance = |(one, other): (&(String, Tensor), &(String, Tensor))| {
        (one.1.to_kind(Kind::Double) - other.1.to_kind(Kind::Double)).abs().max().double_value(&[])
    };
    one.iter().zip(other).map(distance).fold(0.0, f64::max)
}

fn state(network: &Network) -> Vec<(String, Tensor)> {
    network.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
}

/// The weights after 20 steps of a loop of one's own.
fn stepped(world: &World, kind: Kind, with_norm: bool, said: bool) -> Vec<(String, Tensor)> {
    stepped_by(world, kind, with_norm, said, 1, 0)
}

/// The same with each batch in so many parts, and the convolution trained from an epoch on.
fn stepped_by(world: &World, kind: Kind, with_norm: bool, said: bool, parts: usize, conv_from: u64) -> Vec<(String, Tensor)> {
    let data = data();
    let (train, _) = loaders(&data, world);
    let network =
        Network::new(graph(with_norm), &InitOptions { kind, seed: world.rank() as u64, ..InitOptions::default() }).unwrap();
    world.broadcast(&network).unwrap();
    let params = network.trainable().into_iter().map(|param| {
        let param = Param::from(param);
        Param { from_epoch: if param.name.starts_with("conv.") { conv_from } else { 0 }, ..param }
    });
    let optimizer = Optimizer::new(OptimizerConfig::default(), params).unwrap();
    let options = StepOptions { parts, sync_batch_norm: true, ..StepOptions::default() };
    let step = Step::new(&network, Objective::new(Loss::default(), 0.0), optimizer, options).unwrap();
    let mut step = step.distributed(world).unwrap();
    for epoch in 0..4 {
        step.optimizer_mut().start_epoch(epoch).unwrap();
        for (number, batch) in train.epoch(epoch).unwrap().enumerate() {
            let batch = batch.unwrap();
            if said {
                step.of_batch(train.batch_len(number), world.portion());
            }
            step.run(&batch.images.to_kind(kind), batch.targets(), 0.05).unwrap();
        }
    }
    state(&network)
}

#[test]
fn several_processes_make_the_steps_of_one() {
    for (kind, bound) in [(Kind::Double, 1e-10), (Kind::Float, 1e-5)] {
        for with_norm in [false, true] {
            let one = stepped(&World::one(), kind, with_norm, true);
            for size in [2, 3, 4] {
                let all = in_world(size, TIMEOUT, |world| stepped(&world, kind, with_norm, size != 3));
                for state in &all {
                    let distance = apart(state, &one);
                    assert!(distance < bound, "{kind:?} {with_norm} {size}: {distance:.1e}");
                }
                // Also the running statistics.
                assert_eq!(apart(&all[0], &all[size - 1]), 0.0);
            }
        }
    }
}

/// Gradients of what has begun to train are summed too, and those of what has not are not waited for.
#[test]
fn layers_that_train_later_are_summed_like_the_others() {
    for parts in [1, 2] {
        let by = |world: &World, conv_from| stepped_by(world, Kind::Double, false, true, parts, conv_from);
        let (one, never) = (by(&World::one(), 2), by(&World::one(), 9));
        assert!(apart(&one, &never) > 1e-3);
        for state in in_world(2, TIMEOUT, |world| by(&world, 2)) {
            let distance = apart(&state, &one);
            assert!(distance < 1e-10, "{parts} parts: {distance:.1e}");
        }
    }
}

fn config() -> TrainConfig {
    TrainConfig {
        epochs: 2,
        lr: 0.02,
        seed: 5,
        clip: Some(Clip::Norm(1.0)),
        accumulate: 1,
        sync_batch_norm: true,
        class_weights: ClassWeights::Each((0..10).map(|class| 1.0 + 0.1 * f64::from(class)).collect()),
        average: AverageConfig::Ema(EmaConfig { decay: 0.8, ..EmaConfig::default() }),
        ..TrainConfig::default()
    }
}

/// Sets the flag in a step.
struct StopAfter(u64, Arc<AtomicBool>);

impl Listener for StopAfter {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if matches!(event, Event::StepDone { step, .. } if *step == self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A run that goes on, if something is there to go on from; the last process alone is asked to stop after `stop` steps.
fn trained(
    world: World,
    folder: &Path,
    stop: Option<u64>,
    trainer: impl Fn(Trainer<'_>) -> Trainer<'_>,
) -> Result<Ran, TrainError> {
    let data = data();
    let (train, test) = loaders(&data, &world);
    let network = Network::new(graph(true), &InitOptions::default()).unwrap();
    let (flag, is_last) = (Arc::<AtomicBool>::default(), world.rank() + 1 == world.size());
    let mut run = trainer(Trainer::new(&network, &train, &test, config())?).distributed(world)?;
    run = run.checkpoints(CheckpointConfig {
        folder: folder.into(),
        every_steps: None,
        keep: Keep::default(),
        bundle: BundleInfo::new(
            graph(true),
            &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"].map(str::to_owned),
            Some(preprocess()),
        ),
        recipe: None,
    });
    if let Some(step) = stop.filter(|_| is_last) {
        run = run.listener(StopAfter(step, Arc::clone(&flag)));
    }
    run = run.stop_on(flag);
    if folder.join(LAST).exists() {
        run.resume(&folder.join(LAST))?;
    }
    let outcome = run.run()?;
    let test = run.progress().test;
    let step = run.progress().step;
    drop(run);
    Ok(Ran { outcome, step, test, state: state(&network) })
}

struct Ran {
    outcome: Outcome,
    step: u64,
    test: Option<TestMetrics>,
    state: Vec<(String, Tensor)>,
}

#[test]
fn several_processes_make_the_run_of_one_and_another_number_goes_on_with_it() {
    let run = |size: usize, folder: &Path, stop| {
        let mut all = in_world(size, TIMEOUT, |world| trained(world, folder, stop, |trainer| trainer).unwrap());
        for ran in &all {
            assert_eq!((ran.outcome, ran.step, ran.test), (all[0].outcome, all[0].step, all[0].test));
            assert_eq!(apart(&ran.state, &all[0].state), 0.0);
        }
        all.swap_remove(0)
    };
    let folders: Vec<_> = (0..5).map(|_| tempfile::tempdir().unwrap()).collect();
    let one = run(1, folders[0].path(), None);
    let near = |ran: &Ran| {
        let distance = apart(&ran.state, &one.state);
        let (test, expected) = (ran.test.unwrap(), one.test.unwrap());
        assert!(distance < 1e-5 && (test.loss - expected.loss).abs() < 1e-5, "{distance:.1e} {test:?} {expected:?}");
        assert_eq!(test.accuracy, expected.accuracy);
    };
    let two = run(2, folders[1].path(), None);
    near(&two);
    near(&run(3, folders[2].path(), None));
    // A stop of one process stops all after the same step, and any number goes on: with the same, to the same bits.
    for (place, size) in [(3, 2), (4, 3)] {
        let stopped = run(2, folders[place].path(), Some(3));
        // It is agreed upon in the next step.
        assert_eq!((stopped.outcome, stopped.step), (Outcome::Stopped, 4));
        let resumed = run(size, folders[place].path(), None);
        near(&resumed);
        assert_eq!(resumed.outcome, Outcome::Finished);
        assert_eq!(apart(&resumed.state, &two.state) == 0.0, size == 2);
    }
}

/// Fails, or waits, in the third step of a process.
struct Faulty {
    rank: usize,
    wait: Duration,
}

impl Hook for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn after_update(&mut self, at: &Moment<'_>) -> Result<(), TrainError> {
        if self.rank != 1 || at.progress.step != 2 {
            return Ok(());
        }
        thread::sleep(self.wait);
        Err(TrainError::Picture { reason: "the disk is gone".to_owned() })
    }
}

#[test]
fn all_processes_end_when_one_fails_or_hangs_and_say_which() {
    let folder = tempfile::tempdir().unwrap();
    let faults = |timeout, wait| {
        let began = Instant::now();
        let run = |world: World| {
            let rank = world.rank();
            let ended = trained(world, folder.path(), None, |trainer| trainer.hook(Faulty { rank, wait }).unwrap());
            (ended.err().unwrap().to_string(), began.elapsed())
        };
        in_world(3, timeout, run)
    };
    let failed = faults(TIMEOUT, Duration::ZERO);
    assert_eq!(failed[1].0, "cannot encode a picture: the disk is gone");
    for rank in [0, 2] {
        assert_eq!(failed[rank].0, "rank 1: cannot encode a picture: the disk is gone");
        assert!(failed[rank].1 < TIMEOUT / 2, "{:?}", failed[rank].1);
    }
    let timeout = Duration::from_secs(3);
    let hung = faults(timeout, timeout * 2);
    for rank in [0, 2] {
        assert_eq!(hung[rank].0, "rank 1 hangs: it sends nothing, and lives");
        assert!(hung[rank].1 < timeout * 2, "{:?}", hung[rank].1);
    }
    assert!(!folder.path().join(LAST).exists(), "no epoch was done");
}

#[test]
fn what_differs_between_processes_is_told_with_both_ranks() {
    let told = in_world(3, TIMEOUT, |world| {
        let seed = if world.rank() == 2 { "7" } else { "5" };
        let facts = [("libtorch", "2".to_owned()), ("line of the recipe", format!("[train]\nseed = {seed}"))];
        world.agree(&facts).unwrap_err().to_string()
    });
    assert!(
        told.iter().all(|line| *line == "rank 2 and rank 0 have another line of the recipe: `seed = 7` and `seed = 5`"),
        "{told:?}"
    );
    in_world(2, TIMEOUT, |world| world.agree(&[("seed", "5".to_owned())]).unwrap());
}

#[test]
fn processes_that_cannot_meet_say_why() {
    let join = |place: Place, millis| {
        let options = WorldOptions { timeout: Duration::from_millis(millis), ..WorldOptions::default() };
        World::join(place, options).unwrap_err().to_string()
    };
    let (_meeting, attempt) = attempt(2);
    let one = || attempt.place(1);
    assert_eq!(join(one(), 20), "rank 0 of 2 did not come within 0 s");
    assert_eq!(join(one(), 2000), "two processes say that they are rank 1: give each its own RANK");
    assert_eq!(
        join(Place { size: 3, ..attempt.place(0) }, 2000),
        "rank 0 was told of 3 processes, rank 1 of 2: set one WORLD_SIZE"
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let place = Place { port, ..attempt.place(0) };
    let told = join(Place { by_launcher: false, ..place.clone() }, 20);
    assert!(told.starts_with(&format!("cannot listen at 127.0.0.1:{port} (Address already in use")), "{told}");
    drop(taken);
    let told = join(place.clone(), 20);
    assert!(told.starts_with(&format!("rank 0: the store of the launcher at 127.0.0.1:{port} does not answer")), "{told}");
    let told = join(Place { rank: 1, by_launcher: false, ..place }, 20);
    assert!(told.starts_with(&format!("rank 1: nobody keeps a store at 127.0.0.1:{port} within 0 s: start rank 0")), "{told}");
}
