//! Several processes that train one network together, each with a part of every batch: PyTorch's engine (c10d), from libtorch.
//!
//! A [`World`] is all of them. A [`Trainer`](crate::Trainer) or a [`Step`](crate::Step) is given one and does the rest; with a world of
//! one, which is the default, nothing differs and nothing is spent. With a loop of your own:
//!
//! ```
//! use striate_datasets::{Fit, Loader, LoaderOptions, Normalise, Preprocess, digits};
//! use striate_graph::{Graph, InitOptions, Network};
//! use striate_layers::{Flatten, Linear, loss::Loss};
//! use striate_train::distributed::{World, WorldOptions};
//! use striate_train::{Objective, Optimizer, OptimizerConfig, Step, StepOptions};
//!
//! // By RANK and WORLD_SIZE, as torchrun sets them; of one where they are not set.
//! let world = World::from_env(&WorldOptions::default())?;
//! let data = digits()?.train;
//! let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Resize, Normalise::of(&data)?)?;
//! // 64 examples in a batch, of which each process loads its part.
//! let options = LoaderOptions { portion: world.portion(), ..LoaderOptions::train(64, 1) };
//! let loader = Loader::new(&data, preprocess, options)?;
//! # let graph = Graph::build(|net| {
//! #     let x = net.input([1, 8, 8]);
//! #     let x = net.add("flatten", Flatten, x)?;
//! #     let x = net.add("fc", Linear::new(10), x)?;
//! #     net.output("logits", x)
//! # })?;
//! let network = Network::new(graph, &InitOptions::default())?;
//! world.broadcast(&network)?;
//! let optimizer = Optimizer::new(OptimizerConfig::default(), network.trainable())?;
//! let step = Step::new(&network, Objective::new(Loss::default(), 0.0), optimizer, StepOptions::default())?;
//! let mut step = step.distributed(&world)?;
//! for (number, batch) in loader.epoch(0)?.enumerate() {
//!     let batch = batch?;
//!     step.of_batch(loader.batch_len(number), world.portion());
//!     step.run(&batch.images, batch.targets(), 0.05)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
mod ask;
mod meeting;
mod place;
mod queue;
mod reduction;
mod watch;

pub use self::meeting::{Attempt, Meeting};
pub use self::place::Place;
pub use self::queue::{Queue, Taken, Turn};
pub use striate_torch::distributed::{Backend, ReducerOptions};

use self::ask::ask;
use self::place::world;
pub(crate) use self::reduction::Reduction;
use self::watch::{Watch, fault_in, sign_of, tell_fault};
use crate::TrainError;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use striate_datasets::Portion;
use striate_graph::Network;
use striate_layers::ParamKind;
use striate_torch::distributed::{Group, GroupOptions, Store, is_of_others};
use tch::{Device, Kind, Tensor};

/// Under what the keys of a run lie in the store, before the number of its attempt.
const KEYS: &str = "striate";
/// How much longer than for an answer processes wait for each other where one has more to do: at the start, and while one saves.
const PATIENCE: u32 = 12;
/// How long a launcher's store is waited for.
const OF_LAUNCHER: Duration = Duration::from_secs(10);

/// How processes work together.
#[derive(Debug, Clone, PartialEq)]
pub struct WorldOptions {
    /// What carries tensors.
    pub backend: Backend,
    /// After so long without an answer a process counts as lost, and all others end. At the start they wait 12 times as long.
    pub timeout: Duration,
    /// How gradients are summed.
    pub reducer: ReducerOptions,
}

impl Default for WorldOptions {
    /// Gloo, 10 seconds, DDP's buckets.
    fn default() -> Self {
        let timeout = Duration::from_secs(10);
        Self { backend: Backend::Gloo, timeout, reducer: ReducerOptions::default() }
    }
}

/// All processes that train together. A clone is the same world; the default is a world of one.
#[derive(Debug, Clone, Default)]
pub struct World(Option<Arc<Several>>);

#[derive(Debug)]
struct Several {
    place: Place,
    options: WorldOptions,
    watch: Watch,
    group: Group,
    store: Arc<Store>,
    meetings: AtomicU64,
    groups: AtomicU64,
    /// Whether this process ends because of an error.
    failed: AtomicBool,
}

impl World {
    /// This process alone.
    pub fn one() -> Self {
        Self(None)
    }

    /// The world that the environment speaks of: see [`Place::from_env`].
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn from_env(options: &WorldOptions) -> Result<Self, TrainError> {
        Place::from_env()?.map_or_else(|| Ok(Self::one()), |place| Self::join(place, options.clone()))
    }

    /// Meets the other processes.
    ///
    /// # Errors
    ///
    /// A port in use, a host that cannot be reached, a process that does not come or is there twice, another number of processes
    /// elsewhere.
    pub fn join(place: Place, options: WorldOptions) -> Result<Self, TrainError> {
        if !options.backend.is_there() {
            return Err(world("NCCL is not in this build: take Gloo, or a libtorch with CUDA and NCCL's headers".to_owned()));
        }
        let prefix = format!("{KEYS}/{}", place.attempt);
        let patience = options.timeout * PATIENCE;
        let store = if place.keeps_store() { serve(&place, &prefix, patience)? } else { connect(&place, &prefix, patience)? };
        come(&store, &place, patience)?;
        // Not to be asked while this thread waits for something.
        let own = connect(&place, &prefix, patience)?;
        let watch = Watch::start(own, &place, options.timeout).map_err(|error| world(error.to_string()))?;
        let store = Arc::new(store);
        let group = Group::new(&store, "gradients", &group_options(&place, &options));
        let group = group.map_err(|error| TrainError::Process { reason: watch.reason(&error.to_string()) })?;
        let (meetings, groups, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self(Some(Arc::new(Several { place, options, watch, group, store, meetings, groups, failed }))))
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |several| several.place.rank)
    }

    /// All processes.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |several| several.place.size)
    }

    /// This process's number on its machine, from 0.
    pub fn local_rank(&self) -> usize {
        self.0.as_ref().map_or(0, |several| several.place.local_rank)
    }

    /// Whether this process writes what a run leaves.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether there is no other process.
    pub fn is_one(&self) -> bool {
        self.0.is_none()
    }

    /// This process's part of each batch.
    pub fn portion(&self) -> Portion {
        Portion { rank: self.rank(), of: self.size() }
    }

    /// Gives all processes the parameters and buffers of rank 0.
    ///
    /// # Errors
    ///
    /// A process is lost; so it is with all of these.
    pub fn broadcast(&self, network: &Network) -> Result<(), TrainError> {
        network.parameters().try_for_each(|param| self.broadcast_tensor(&param.tensor))
    }

    /// Gives all processes the buffers of rank 0, such as batch norm's running statistics.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn broadcast_buffers(&self, network: &Network) -> Result<(), TrainError> {
        let mut buffers = network.parameters().filter(|param| param.kind != ParamKind::Trainable);
        buffers.try_for_each(|param| self.broadcast_tensor(&param.tensor))
    }

    pub(crate) fn broadcast_tensor(&self, tensor: &Tensor) -> Result<(), TrainError> {
        let Some(several) = &self.0 else { return Ok(()) };
        several.watch.begin();
        let _no_grad = striate_torch::no_grad();
        // As it lies in memory, which broadcasting wants in one piece.
        let mut sent = several.sendable(tensor)?;
        several.explained(several.group.broadcast(&mut sent, 0))?;
        if sent.data_ptr() != tensor.data_ptr() {
            tensor.shallow_clone().f_copy_(&sent)?;
        }
        Ok(())
    }

    /// The values of all processes, by rank.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn gather(&self, values: &[f64]) -> Result<Vec<Vec<f64>>, TrainError> {
        let Some(several) = &self.0 else { return Ok(vec![values.to_vec()]) };
        let all = several.gather(&Tensor::f_from_slice(values)?)?;
        all.iter().map(|tensor| Ok(Vec::try_from(tensor)?)).collect()
    }

    /// The tensors of all processes, which have one shape, on the CPU.
    pub(crate) fn gather_tensors(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TrainError> {
        match &self.0 {
            Some(several) => several.gather(tensor),
            None => Ok(vec![tensor.shallow_clone()]),
        }
    }

    /// Whether it is so in any process.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn any(&self, is_so: bool) -> Result<bool, TrainError> {
        if self.is_one() {
            return Ok(is_so);
        }
        Ok(self.gather(&[f64::from(u8::from(is_so))])?.iter().any(|values| values[0] > 0.0))
    }

    /// Refuses facts, each a name and a value, that are others elsewhere: what differs is told with both ranks. All processes name the
    /// same facts in the same order.
    ///
    /// # Errors
    ///
    /// Facts that differ, here or between other processes.
    pub fn agree(&self, facts: &[(&str, String)]) -> Result<(), TrainError> {
        let Some(several) = &self.0 else { return Ok(()) };
        let Place { rank, .. } = several.place;
        let key = |rank: usize, name: &str| format!("fact/{rank}/{name}");
        for (name, value) in facts {
            let (key, value) = (key(rank, name), value.clone());
            several.ask(move |store| store.set(&key, value.as_bytes()))?;
        }
        self.meet()?;
        for (name, value) in facts {
            let (key, timeout) = (key(0, name), several.options.timeout);
            let first = several.ask(move |store| store.get(&key, timeout))?;
            let first = String::from_utf8_lossy(&first).into_owned();
            if first != *value {
                let reason = format!("rank {rank} and rank 0 have another {name}: {}", difference(value, &first));
                several.tell(&reason);
                return Err(TrainError::Process { reason });
            }
        }
        self.meet()
    }

    /// Waits until all processes are here, also for one that has much to do: 12 times the timeout.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn meet(&self) -> Result<(), TrainError> {
        let Some(several) = &self.0 else { return Ok(()) };
        several.watch.begin();
        let (number, size) = (several.meetings.fetch_add(1, Ordering::Relaxed), several.place.size);
        let (key, began, mut pause) = (format!("meeting/{number}"), Instant::now(), Duration::from_micros(200));
        let come = |by| {
            let key = key.clone();
            several.ask(move |store| store.add(&key, by))
        };
        let mut there = come(1)?;
        while there < i64::try_from(size).unwrap_or(i64::MAX) {
            if let Some(reason) = several.watch.fault() {
                return Err(TrainError::Process { reason });
            }
            if began.elapsed() > several.options.timeout * PATIENCE {
                let reason = format!("only {there} of {size} processes came within {} s", began.elapsed().as_secs());
                several.tell(&reason);
                return Err(TrainError::Process { reason });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest_pause(size));
            there = come(0)?;
        }
        Ok(())
    }

    /// A text of rank 0, for all.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn of_first(&self, key: &str, text: &str) -> Result<String, TrainError> {
        let Some(several) = &self.0 else { return Ok(text.to_owned()) };
        let key = of_first(key);
        if self.is_first() {
            let (key, text) = (key.clone(), text.to_owned());
            several.ask(move |store| store.set(&key, text.as_bytes()))?;
        }
        self.meet()?;
        let timeout = several.options.timeout;
        let text = several.ask(move |store| store.get(&key, timeout))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What this process is to say of an error because of which it ends. One of its own is told to the others, which end by it; of one
    /// that only says that another process is lost, the reason is found out.
    pub fn ended_by(&self, error: TrainError) -> TrainError {
        let Some(several) = &self.0 else { return error };
        match &error {
            TrainError::Process { .. } => error,
            other if is_of_others(&other.to_string()) => several.lost(&other.to_string()),
            own => {
                self.end(own);
                error
            }
        }
    }

    /// Tells all other processes why this one ends, so that they do too.
    pub fn end(&self, reason: &dyn std::fmt::Display) {
        let Some(several) = &self.0 else { return };
        if !several.failed.swap(true, Ordering::Relaxed) {
            // Without the store they find out that it is gone.
            several.tell(&format!("rank {}: {reason}", several.place.rank));
        }
    }

    /// How gradients are summed over it, of the parameters that a network trains: in a half type, if one is given, and with batch norm
    /// over all processes, if that is asked for.
    pub(crate) fn reduction(
        &self,
        network: &Network,
        compress: Option<Kind>,
        sync_batch_norm: bool,
    ) -> Result<Option<Reduction>, TrainError> {
        let Some(several) = &self.0 else { return Ok(None) };
        let norms = || {
            // Their operations come between those of gradients.
            let name = format!("norms-{}", several.groups.fetch_add(1, Ordering::Relaxed));
            several.explained(Group::new(&several.store, &name, &group_options(&several.place, &several.options)))
        };
        let norms = sync_batch_norm.then(norms).transpose()?;
        let ReducerOptions { compress: former, .. } = several.options.reducer;
        let options = ReducerOptions { compress: compress.or(former), ..several.options.reducer };
        Reduction::new(self.clone(), &several.group, norms, network, options).map(Some)
    }

    /// An operation with the others begins that this does not see.
    pub(crate) fn begin(&self) {
        if let Some(several) = &self.0 {
            several.watch.begin();
        }
    }
}

impl Several {
    /// Where tensors are sent from.
    fn device(&self) -> Device {
        match self.options.backend {
            Backend::Gloo => Device::Cpu,
            Backend::Nccl => Device::Cuda(self.place.local_rank),
        }
    }

    /// The tensor, or a copy that can be sent.
    fn sendable(&self, tensor: &Tensor) -> Result<Tensor, TrainError> {
        Ok(tensor.f_detach()?.f_to_device(self.device())?.f_contiguous()?)
    }

    fn gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TrainError> {
        self.watch.begin();
        let all = self.explained(self.group.all_gather(&self.sendable(tensor)?))?;
        all.iter().map(|tensor| Ok(tensor.f_to_device(Device::Cpu)?)).collect()
    }

    /// The store's answer, as long as no fault is known.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> Result<T, striate_torch::TorchError> + Send + 'static,
    ) -> Result<T, TrainError> {
        match ask(&self.store, || self.watch.fault().is_none(), question) {
            Some(answer) => self.explained(answer),
            None => Err(self.lost("the store does not answer")),
        }
    }

    /// Tells the others why this process ends, if the store answers soon.
    fn tell(&self, reason: &str) {
        let (began, reason) = (Instant::now(), reason.to_owned());
        let soon = self.options.timeout / 10;
        ask(&self.store, || began.elapsed() < soon, move |store| tell_fault(store, &reason));
    }

    /// An operation with the others went wrong: what is known of why.
    fn explained<T>(&self, result: Result<T, striate_torch::TorchError>) -> Result<T, TrainError> {
        result.map_err(|error| self.lost(&error.to_string()))
    }

    /// The error of an operation with the others that failed.
    fn lost(&self, error: &str) -> TrainError {
        let reason = self.watch.reason(error);
        // Rank 0 alone sees all.
        if self.place.rank == 0 {
            self.tell(&reason);
        }
        TrainError::Process { reason }
    }
}

impl Drop for Several {
    /// The one that keeps the store ends last, so that the others learn why they end.
    fn drop(&mut self) {
        if !self.watch.is_answered() {
            return;
        }
        let add = |by| ask(&self.store, || self.watch.is_answered(), move |store| store.add("left", by)).and_then(Result::ok);
        let left = add(1);
        if !self.place.keeps_store() {
            return;
        }
        let (began, all) = (Instant::now(), i64::try_from(self.place.size).unwrap_or(i64::MAX));
        let mut left = left.unwrap_or(all);
        while left < all && began.elapsed() < self.options.timeout / 5 {
            std::thread::sleep(Duration::from_millis(5));
            left = add(0).unwrap_or(all);
        }
    }
}

/// Under what the store has a text of rank 0.
fn of_first(key: &str) -> String {
    format!("of-first/{key}")
}

fn group_options(place: &Place, options: &WorldOptions) -> GroupOptions {
    let Place { rank, size, host, port, .. } = place;
    // So that the watch has said why before an operation fails.
    let timeout = options.timeout * 7 / 10;
    GroupOptions { backend: options.backend, rank: *rank, size: *size, timeout, host: own_address(host, *port) }
}

/// Keeps the store: on the address of the host that is named alone, if this machine has it.
fn serve(place: &Place, prefix: &str, patience: Duration) -> Result<Store, TrainError> {
    let Place { host, port, .. } = place;
    let used = |error: &std::io::Error| {
        world(format!("cannot listen at {host}:{port} ({error}): set MASTER_PORT to a free port, MASTER_ADDR to this machine"))
    };
    let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| used(&error))?;
    let addresses: Vec<_> = addresses.collect();
    let listener = match TcpListener::bind(addresses.as_slice()) {
        // A name by which others see this machine, such as that of a service.
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => TcpListener::bind(("0.0.0.0", *port)),
        bound => bound,
    };
    Ok(Store::serve(listener.map_err(|error| used(&error))?, prefix, patience)?)
}

fn connect(place: &Place, prefix: &str, patience: Duration) -> Result<Store, TrainError> {
    let Place { host, port, rank, by_launcher, .. } = place;
    let began = Instant::now();
    let nobody = || {
        if *by_launcher {
            let line =
                format!("rank {rank}: the store of the launcher at {host}:{port} does not answer: has the launcher ended?");
            return world(line);
        }
        let waited = patience.as_secs();
        world(format!(
            "rank {rank}: nobody keeps a store at {host}:{port} within {waited} s: start rank 0, check MASTER_ADDR and MASTER_PORT"
        ))
    };
    // c10d would write many lines while it waits.
    while !is_served(host, *port) {
        // A launcher keeps its store before it starts anybody.
        if began.elapsed() > if *by_launcher { patience.min(OF_LAUNCHER) } else { patience } {
            return Err(nobody());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Store::connect(host, *port, prefix, patience).map_err(|_| nobody())
}

/// Whether something listens there.
fn is_served(host: &str, port: u16) -> bool {
    let addresses = (host, port).to_socket_addrs().into_iter().flatten();
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
}

/// Says who this process is, and waits for all others.
fn come(store: &Store, place: &Place, patience: Duration) -> Result<(), TrainError> {
    let Place { rank, size, host, port, .. } = place;
    let lost = |_| world(format!("rank {rank}: the store at {host}:{port} does not answer any more"));
    let refuse = |reason: String| {
        let _ = tell_fault(store, &reason);
        Err(TrainError::Process { reason })
    };
    if store.add(&format!("came/{rank}"), 1).map_err(lost)? > 1 {
        return refuse(format!("two processes say that they are rank {rank}: give each its own RANK"));
    }
    let first = store.add("first-size", 1).map_err(lost)? == 1;
    if first {
        store.set("world-size", format!("{size} {rank}").as_bytes()).map_err(lost)?;
    }
    let said = store.get("world-size", patience).map_err(lost)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    if let Some((others, of)) = said.split_once(' ')
        && others != size.to_string()
    {
        return refuse(format!("rank {rank} was told of {size} processes, rank {of} of {others}: set one WORLD_SIZE"));
    }
    store.set(&sign_of(*rank), b"0 0").map_err(lost)?;
    let all = i64::try_from(*size).unwrap_or(i64::MAX);
    let (began, mut there) = (Instant::now(), store.add("arrived", 1).map_err(lost)?);
    while there < all {
        if let Some(reason) = fault_in(store).map_err(lost)? {
            return Err(TrainError::Process { reason });
        }
        if began.elapsed() > patience {
            let absent = |other: &usize| store.has(&sign_of(*other)).is_ok_and(|has| !has);
            let missing = (0..*size).find(absent).unwrap_or_default();
            return refuse(format!("rank {missing} of {size} did not come within {} s", patience.as_secs()));
        }
        std::thread::sleep(longest_pause(*size));
        there = store.add("arrived", 0).map_err(lost)?;
    }
    Ok(())
}

/// How long a process waits before it asks the store again: so that many do not ask it more often than it can answer.
fn longest_pause(size: usize) -> Duration {
    Duration::from_millis(20).max(Duration::from_micros(100) * u32::try_from(size).unwrap_or(u32::MAX))
}

/// The address of this machine by which it reaches another, and is reached from there.
fn own_address(host: &str, port: u16) -> Option<String> {
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    // It sends nothing.
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// Two values, or of long ones the first lines that differ.
fn difference(here: &str, there: &str) -> String {
    let (mut of_here, mut of_there) = (here.lines(), there.lines());
    loop {
        match (of_here.next(), of_there.next()) {
            (Some(here), Some(there)) if here == there => {}
            (here, there) => break format!("`{}` and `{}`", here.unwrap_or("nothing"), there.unwrap_or("nothing")),
        }
    }
}

/// Numbers of all processes, of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepSums {
    /// The mean loss of the whole batch.
    pub(crate) loss: f64,
    /// Of a rank whose own is no number.
    pub(crate) diverged: Option<usize>,
    pub(crate) correct: u64,
    pub(crate) stopped: bool,
}

impl World {
    /// Sums over processes: `loss` is the mean of this one's part, times its share of the batch and the number of processes.
    pub(crate) fn step_sums(&self, loss: f64, correct: u64, stopped: bool) -> Result<StepSums, TrainError> {
        if self.is_one() {
            let diverged = (!loss.is_finite()).then_some(0);
            return Ok(StepSums { loss, diverged, correct, stopped });
        }
        let all = self.gather(&[loss, correct as f64, f64::from(u8::from(stopped))])?;
        Ok(StepSums {
            loss: all.iter().map(|values| values[0]).sum::<f64>() / all.len() as f64,
            diverged: all.iter().position(|values| !values[0].is_finite()),
            correct: all.iter().map(|values| values[1] as u64).sum(),
            stopped: all.iter().any(|values| values[2] > 0.0),
        })
    }

    /// What a part of a batch counts in the mean over processes, by what it and the others weigh: 1 if all weigh the same.
    pub(crate) fn share_of(&self, weight: f64) -> Result<f64, TrainError> {
        let all: f64 = self.gather(&[weight])?.iter().map(|values| values[0]).sum();
        Ok(weight * self.size() as f64 / all)
    }

    /// A tensor of any type that a step reads, of which all take the sum.
    pub(crate) fn sum_in_place(&self, tensor: &mut Tensor) -> Result<(), TrainError> {
        let all = self.gather_tensors(&tensor.f_to_kind(Kind::Double)?)?;
        let sum = Tensor::f_stack(&all, 0)?.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
        tensor.f_copy_(&sum)?;
        Ok(())
    }
}
