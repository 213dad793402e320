//! A plan on a CUDA device: recorded as a graph for each shape that is served.
use crate::program::{Kind, Program};
use crate::recent::Recent;
use crate::steps::Steps;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use striate_graph::GraphError;
use striate_layers::Op;
use striate_torch::cuda::{Graph, GraphPool, Stream, Switches, has_graphs, switched};
use tch::{Device, Tensor};

/// Graphs that a plan keeps.
const GRAPHS: usize = 8;
/// Shapes whose calls are counted.
const COUNTED: usize = 64;
/// Calls of a shape before the one that records it.
const CALLS: i64 = 2;
/// Calls of a shape that could not run before it is tried again.
const AGAIN: i64 = 1000;
/// A graph that was not used in so many calls is given up for another shape's; one that was is not, or shapes in turns would be
/// recorded over and over.
const PATIENCE: u64 = 1000;
/// Runs before the one that is recorded, in which libraries set up what they need and cuDNN chooses its algorithms.
const WARM_UP: usize = 3;

/// Held by what records, and shared by what else plans have a CUDA device do: while one thread records, libtorch and cuDNN fail in others.
static RECORDING: RwLock<()> = RwLock::new(());

/// Sizes of the batches of all inputs.
type Sizes = Vec<Vec<i64>>;
type Outputs = Vec<(String, Tensor)>;

/// What a plan has recorded. All graphs share one memory, and run on one stream, one after the other.
#[derive(Debug)]
pub(crate) struct Recordings {
    device: Device,
    tf32: Option<bool>,
    stream: Arc<Stream>,
    pool: GraphPool,
    /// Meanwhile other calls run without a graph, and don't wait.
    busy: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    calls: Recent<Sizes, i64>,
    graphs: Recent<Sizes, Recording>,
    /// Why nothing is recorded.
    refusal: Option<String>,
}

/// A graph and the tensors that it works on.
#[derive(Debug)]
struct Recording {
    graph: Graph,
    inputs: Vec<Tensor>,
    outputs: Outputs,
}

/// Why a shape has no graph.
enum Failure {
    /// It does not run at all.
    Runs,
    /// It runs, and can't be recorded.
    Records(String),
}

impl Recordings {
    pub(crate) fn new(program: &Program, device: Device, tf32: Option<bool>) -> Result<Self, GraphError> {
        let refusal = refusal(program).or_else(|| (!has_graphs()).then(|| "built without CUDA graphs".to_owned()));
        let state = State { calls: Recent::new(COUNTED), graphs: Recent::new(GRAPHS), refusal };
        Ok(Self {
            device,
            tf32,
            stream: Arc::new(Stream::new(device)?),
            pool: GraphPool::new(),
            busy: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// The shapes that are recorded.
    pub(crate) fn len(&self) -> usize {
        self.lock().graphs.len()
    }

    /// Why nothing is recorded, if nothing can be.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.lock().refusal.clone()
    }

    /// The outputs for batches on the device or the CPU: by their shape's graph if it has one, and otherwise step by step.
    pub(crate) fn run(&self, steps: &Arc<Steps>, batches: &[&Tensor]) -> Result<Outputs, GraphError> {
        let mut measure = false;
        if !self.busy.load(Ordering::Acquire) {
            let mut state = self.lock();
            let sizes: Sizes = batches.iter().map(|batch| batch.size()).collect();
            if state.is_due(&sizes) {
                self.busy.store(true, Ordering::Release);
                let recorded = self.record(steps, &sizes);
                self.busy.store(false, Ordering::Release);
                state.keep(&sizes, recorded);
            }
            if let Some(recording) = state.graphs.get(&sizes) {
                let _nobody_records = RECORDING.read().unwrap_or_else(PoisonError::into_inner);
                return recording.replay(&self.stream, batches);
            }
            // Recording would have measured.
            measure = state.refusal.is_some();
        }
        let _nobody_records = RECORDING.read().unwrap_or_else(PoisonError::into_inner);
        switched(Switches { tf32: self.tf32, measure }, || steps.outputs(batches))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves counts and graphs as they were.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, steps: &Arc<Steps>, sizes: &Sizes) -> Result<Recording, Failure> {
        let (steps, sizes, stream) = (Arc::clone(steps), sizes.clone(), Arc::clone(&self.stream));
        let (device, pool, switches) = (self.device, self.pool, Switches { tf32: self.tf32, measure: true });
        let work = move || {
            let _no_grad = striate_torch::no_grad();
            let inputs = steps.inputs(&sizes, device).map_err(|_| Failure::Runs)?;
            let batches: Vec<&Tensor> = inputs.iter().collect();
            let warm_up = || stream.run(|| (0..WARM_UP).try_for_each(|_| steps.outputs(&batches).map(drop)));
            switched(switches, warm_up).map_err(|_| Failure::Runs)?;
            let _alone = RECORDING.write().unwrap_or_else(PoisonError::into_inner);
            let record = || Graph::record_in(Some(pool), &stream, || steps.outputs(&batches));
            let (graph, outputs) = switched(switches, record).map_err(|error| Failure::Records(error.to_string()))?;
            Ok(Recording { graph, inputs, outputs })
        };
        on_recorder(work).unwrap_or_else(|| Err(Failure::Records("a layer panicked".to_owned())))
    }
}

impl State {
    /// Counts a call; whether it is one to record in.
    fn is_due(&mut self, sizes: &Sizes) -> bool {
        if self.refusal.is_some() || self.graphs.get(sizes).is_some() || sizes.iter().flatten().any(|size| *size == 0) {
            return false;
        }
        match self.calls.get(sizes) {
            Some(calls) => *calls += 1,
            None => self.calls.insert(sizes.clone(), 1),
        }
        self.calls.get(sizes).is_some_and(|calls| *calls > CALLS) && self.graphs.has_room(PATIENCE)
    }

    fn keep(&mut self, sizes: &Sizes, recorded: Result<Recording, Failure>) {
        match recorded {
            Ok(recording) => self.graphs.insert(sizes.clone(), recording),
            // What is wrong shows in the run without a graph.
            Err(Failure::Runs) => self.calls.insert(sizes.clone(), CALLS - AGAIN),
            Err(Failure::Records(reason)) => self.refusal = Some(reason),
        }
    }
}

impl Recording {
    /// The outputs are tensors of their own, in memory of the caller's stream.
    fn replay(&self, stream: &Stream, batches: &[&Tensor]) -> Result<Outputs, GraphError> {
        let fresh = |(name, output): &(String, Tensor)| Ok((name.clone(), output.f_empty_like()?));
        let mut outputs: Outputs = self.outputs.iter().map(fresh).collect::<Result<_, GraphError>>()?;
        stream.run(|| {
            for (input, batch) in self.inputs.iter().zip(batches) {
                input.shallow_clone().f_copy_(batch)?;
            }
            self.graph.replay()?;
            for ((_, output), (_, recorded)) in outputs.iter_mut().zip(&self.outputs) {
                output.f_copy_(recorded)?;
            }
            Ok::<_, GraphError>(())
        })?;
        Ok(outputs)
    }
}

/// Why a program can't be recorded, as far as its layers tell.
fn refusal(program: &Program) -> Option<String> {
    program.steps.iter().find_map(|step| {
        let reason = match &step.kind {
            Kind::Layer { op: Op::SparseConv2d(_), .. } => "copies to the device",
            Kind::Layer { op: Op::Custom(_), .. } => "may copy to the device or wait for it",
            _ => return None,
        };
        Some(format!("layer {} {reason}", step.layers.join(" + ")))
    })
}

/// Does `work` on the one thread that records, and waits for it; nothing comes back if it panicked.
///
/// cuDNN's choice of algorithms belongs to the thread that measured them. That of this thread is free of what callers ran before
/// without measuring, and lives as long as the graphs: the thread ends with the process.
fn on_recorder<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    type Job = Box<dyn FnOnce() + Send>;
    static RECORDER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let recorder = RECORDER.get_or_init(|| {
        let (jobs, next) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for job in next {
                // Who asked sees that no answer comes.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            }
        });
        Mutex::new(jobs)
    });
    let (answer, answered) = mpsc::channel();
    let job: Job = Box::new(move || drop(answer.send(work())));
    recorder.lock().unwrap_or_else(PoisonError::into_inner).send(job).ok()?;
    answered.recv().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plan::frozen;
    use crate::testing::{conv, network};
    use striate_layers::{Activation, Dropout, SparseConv2d};

    fn state() -> State {
        State { calls: Recent::new(2), graphs: Recent::new(1), refusal: None }
    }

    fn sizes(batch: i64) -> Sizes {
        vec![vec![batch, 3, 8, 8]]
    }

    #[test]
    fn a_shape_is_recorded_at_its_third_call_and_none_that_is_empty() {
        let mut state = state();
        let due = |state: &mut State, batch: i64| state.is_due(&sizes(batch));
        assert_eq!([1, 1, 4, 4, 1, 4].map(|batch| due(&mut state, batch)), [false, false, false, false, true, true]);
        assert!((0..9).all(|_| !due(&mut state, 0)));
        // Three shapes in turns, of which two are counted.
        assert!((0..9).all(|call| !due(&mut state, 10 + call % 3)));
    }

    #[test]
    fn a_shape_that_does_not_run_is_left_alone_and_one_that_cannot_be_recorded_ends_all_recording() {
        let mut state = state();
        assert_eq!([1; 3].map(|batch| state.is_due(&sizes(batch))), [false, false, true]);
        state.keep(&sizes(1), Err(Failure::Runs));
        let calls = (1..).find(|_| state.is_due(&sizes(1)));
        assert_eq!((calls, state.refusal.as_deref()), (Some(AGAIN + 1), None));
        state.keep(&sizes(1), Err(Failure::Records("no".to_owned())));
        assert!((0..9).all(|_| !state.is_due(&sizes(1))));
        assert_eq!(state.refusal.as_deref(), Some("no"));
    }

    #[test]
    fn all_work_is_recorded_by_one_thread_which_outlives_a_panic() {
        let thread = || on_recorder(|| std::thread::current().id());
        let first = thread().unwrap();
        assert_ne!(first, std::thread::current().id());
        assert!(on_recorder(|| -> u8 { panic!("on purpose") }).is_none());
        assert_eq!(thread(), Some(first));
    }

    #[test]
    fn layers_that_copy_to_the_device_are_not_recorded() {
        let plain = network(|net, x| {
            let x = net.add("conv", conv(), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            net.add("dropout", Dropout::new(0.5), x)
        });
        assert_eq!(refusal(&frozen(&plain).unwrap()), None);
        let sparse = SparseConv2d::new(vec![vec![0, 1], vec![2, 3]], 3);
        let network = network(|net, x| net.add("c3", sparse, x));
        assert_eq!(refusal(&frozen(&network).unwrap()).as_deref(), Some("layer c3 copies to the device"));
    }
}
