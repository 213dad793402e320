use crate::PlanError;
use crate::int8::{self, Calibration};
use crate::memory;
use crate::passes;
use crate::program::{Kind, Program};
use crate::recording::Recordings;
use crate::schedule::schedule;
use crate::step::{Ready, Scales};
use crate::steps::Steps;
use crate::width::Width;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use striate_graph::{Graph, GraphError, Network, Outputs};
use striate_layers::{Op, Shape};
use striate_torch::cuda::bring;
use striate_torch::{Precision, TorchError};
use tch::{Cuda, Device, Kind as Type, Tensor};

/// How a [`Plan`] is made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanOptions {
    /// The type that it computes in. In float32, outputs agree with the network's up to rounding. In bfloat16 and float16,
    /// everything from the last linear layer on is float32. In int8, convolutions, the linear layers before the last, and what only
    /// passes their values on compute with bytes, and everything else in float32.
    ///
    /// float16 takes a CUDA device, and int8 a CPU.
    pub precision: Precision,
    /// What the bytes of feature maps stand for: needed in int8, and read in no other precision.
    pub calibration: Option<Calibration>,
    /// On a CUDA device, whether float32 is multiplied in TF32, whatever the process's switch
    /// ([`set_tf32`](striate_torch::cuda::set_tf32)) says. If it is `None`, the switch holds as it stands when a shape is recorded.
    pub tf32: Option<bool>,
}

/// A network frozen for serving: see the [crate's documentation](crate).
///
/// It takes batches of any number of examples, of any size that the network takes. It runs where the network lay when the plan was
/// made. It is `Send` and `Sync`: any number of threads can call [`Plan::forward`] of one plan at once, in an `Arc` for instance, and
/// share one copy of its packed weights. Each call has its own feature maps.
///
/// # On a CUDA device
///
/// The third call with batches of one shape records the whole plan as a CUDA graph, and calls with that shape launch it from then on
/// by one call. Recording takes seconds, in which cuDNN measures its algorithms; calls of other threads run without a graph meanwhile,
/// and wait for the milliseconds of the recording itself. Whatever else your program has CUDA do on other threads must wait too, so serve
/// each shape three times before you start such work.
/// [`Plan::recorded`] says how many shapes have one, and [`Plan::not_recorded`] why none has.
///
/// A plan keeps the graphs of eight shapes. A ninth shape's takes the place of the least recently used, once that was not used in
/// 1000 calls; until then it runs without. All graphs of a plan share one memory, which is as large as the largest of them takes, and
/// run one after the other, on a stream of the plan's own. Each also keeps its input.
///
/// Batches may lie on the device or on the CPU. From the CPU they are copied out of pinned memory, on a stream of their own, beside
/// what other threads' calls compute. Outputs are ready for what the calling thread launches next.
#[derive(Debug)]
pub struct Plan {
    steps: Arc<Steps>,
    graph: Graph,
    precision: Precision,
    device: Device,
    /// On a CUDA device.
    recordings: Option<Recordings>,
    /// What the values of one example take that are held at once, in bytes.
    bytes_per_example: u64,
    width: Width,
}

impl Plan {
    /// Freezes a network as it is now.
    ///
    /// Weights are packed for the size of input that the network was built for; others work too, and may run a little
    /// slower. Fails if libtorch does, such as for want of memory; in int8 also without a [`Calibration`] that fits, and where there is
    /// no CPU with AVX-512 VNNI or AVX-VNNI ([`striate_torch::int8::available`]); in float16 on a CPU.
    pub fn new(network: &Network, options: &PlanOptions) -> Result<Self, PlanError> {
        let _no_grad = striate_torch::no_grad();
        let precision = options.precision;
        let kind = match precision {
            Precision::Bfloat16 => Type::BFloat16,
            Precision::Int8 => Type::Uint8,
            Precision::Float16 if !network.device().is_cuda() => return Err(PlanError::NoFloat16),
            Precision::Float16 => Type::Half,
            _ => Type::Float,
        };
        let program = frozen(network)?;
        let mut kinds = kinds(&program, kind);
        let scales = if precision == Precision::Int8 {
            if network.device() != Device::Cpu || !striate_torch::int8::available() {
                return Err(PlanError::NoInt8);
            }
            let calibration = options.calibration.as_ref().ok_or(PlanError::NotCalibrated)?;
            let bytes = int8::gives_bytes(&program, &mut kinds);
            calibration.scales(&program, &bytes)?.into_iter().map(Some).collect()
        } else {
            kinds.iter().map(|_| None).collect()
        };
        let recordings = match network.device() {
            device @ Device::Cuda(_) => Some(Recordings::new(&program, device, options.tf32)?),
            _ => None,
        };
        Ok(Self { recordings, ..Self::of(network, program, kinds, scales, precision)? })
    }

    /// A plan in int8 with a [`Calibration`] that is measured on `images` and not kept.
    pub fn calibrated(network: &Network, images: &[Tensor]) -> Result<Self, PlanError> {
        let calibration = Some(Calibration::measure(network, images)?);
        Self::new(network, &PlanOptions { precision: Precision::Int8, calibration, ..PlanOptions::default() })
    }

    /// Prepares each step of a program for the type that it computes in.
    fn of(
        network: &Network,
        program: Program,
        kinds: Vec<Type>,
        scales: Vec<Option<Scales>>,
        precision: Precision,
    ) -> Result<Self, PlanError> {
        let memory = schedule(&program);
        let bytes_per_example = memory::bytes_per_example(&program, &memory, &kinds);
        let shapes: Vec<Shape> = program.steps.iter().map(|step| step.shape.clone()).collect();
        let mut steps = Vec::with_capacity(shapes.len());
        for (((step, memory), kind), scales) in program.steps.into_iter().zip(memory).zip(kinds).zip(scales) {
            let input = step.inputs.first().map(|input| &shapes[*input]);
            steps.push(Ready::new(step, input, kind, memory, network.device(), scales)?);
        }
        let steps = Arc::new(Steps { steps, outputs: program.outputs });
        let (graph, device) = (network.graph().clone(), network.device());
        let width = Width::of(&graph);
        Ok(Self { steps, graph, precision, device, recordings: None, bytes_per_example, width })
    }

    /// The type that it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// How many shapes are recorded as CUDA graphs.
    pub fn recorded(&self) -> usize {
        self.recordings.as_ref().map_or(0, Recordings::len)
    }

    /// Why a plan on a CUDA device records nothing, if it can't: a layer that copies to the device, for instance. It then runs step by
    /// step.
    pub fn not_recorded(&self) -> Option<String> {
        self.recordings.as_ref().and_then(Recordings::refusal)
    }

    /// What the network gives in evaluation for a batch `[N, ...]` of its one input, in float32.
    ///
    /// Fails as the network does if the batch doesn't fit it.
    pub fn forward(&self, batch: &Tensor) -> Result<Outputs, GraphError> {
        self.forward_all(&[batch])
    }

    /// [`Plan::forward`] with a batch for each input of the network.
    pub fn forward_all(&self, batches: &[&Tensor]) -> Result<Outputs, GraphError> {
        let Some(recordings) = &self.recordings else { return self.run(batches, |_, _, _| Ok::<_, GraphError>(())) };
        self.check(batches)?;
        let _no_grad = striate_torch::no_grad();
        let run = || -> Result<_, GraphError> {
            let batches = batches.iter().map(|batch| bring(batch, self.device)).collect::<Result<Vec<_>, TorchError>>()?;
            recordings.run(&self.steps, &batches.iter().collect::<Vec<_>>())
        };
        let examples = batches.first().and_then(|batch| batch.size().first().copied()).unwrap_or_default();
        let outputs = run().map_err(|error| memory::explained(error, self.device, examples, self.bytes_per_example))?;
        Outputs::of(outputs).ok_or(GraphError::NoOutput)
    }

    /// The steps as text, with the seconds that each takes for a batch of the network's one input. Times of single runs differ: take medians of several.
    ///
    /// On a CUDA device nothing is recorded, and each step is waited for.
    ///
    /// Fails as [`Plan::forward`] does.
    pub fn profile(&self, batch: &Tensor) -> Result<Vec<(String, f64)>, GraphError> {
        let mut times = Vec::with_capacity(self.steps.steps.len());
        self.run(&[batch], |index, _, start| {
            if let Device::Cuda(card) = self.device {
                Cuda::synchronize(i64::try_from(card).unwrap_or(0));
            }
            times.push((self.steps.steps[index].to_string(), start.elapsed().as_secs_f64()));
            Ok::<_, GraphError>(())
        })?;
        Ok(times)
    }

    /// [`Plan::forward_all`] step by step, which shows `see` the value of each step, and when it began.
    pub(crate) fn run<E: From<GraphError>>(
        &self,
        batches: &[&Tensor],
        see: impl FnMut(usize, &Tensor, Instant) -> Result<(), E>,
    ) -> Result<Outputs, E> {
        self.check(batches)?;
        let _no_grad = striate_torch::no_grad();
        let _alone = self.width.is_one(batches).then(|| striate_torch::thread_width(1));
        Ok(Outputs::of(self.steps.run(batches, see)?).ok_or(GraphError::NoOutput)?)
    }

    fn check(&self, batches: &[&Tensor]) -> Result<(), GraphError> {
        let shapes: Vec<Shape> = batches.iter().map(|batch| Shape::of_batch(batch)).collect();
        self.graph.check_inputs(&shapes)
    }
}

/// The steps in their order: what each computes, which layers it stands for, and how. Also why they are not recorded, if they can't be.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        self.not_recorded().map_or(Ok(()), |reason| writeln!(f, "not recorded as a CUDA graph: {reason}"))
    }
}

/// A network as the steps of its plan.
pub(crate) fn frozen(network: &Network) -> Result<Program, TorchError> {
    let mut program = Program::of(network);
    passes::run(&mut program)?;
    if network.device().is_cuda() {
        passes::join_biases(&mut program)?;
    }
    Ok(program)
}

/// The type that each step computes in, where `kind` is that of convolutions.
pub(crate) fn kinds(program: &Program, kind: Type) -> Vec<Type> {
    let takes = if kind == Type::Uint8 { int8::takes_bytes } else { takes_half };
    let mut kinds: Vec<Type> = program.steps.iter().map(|step| if takes(&step.kind) { kind } else { Type::Float }).collect();
    // Logits rounded to 8 bits would tie: from the last linear layer on, or the pooling after the last convolution, it is float32.
    for (_, output) in &program.outputs {
        let mut index = *output;
        while !matches!(program.steps[index].kind, Kind::Conv { .. } | Kind::Input) {
            kinds[index] = Type::Float;
            match (&program.steps[index].kind, program.steps[index].inputs.as_slice()) {
                (Kind::Layer { .. } | Kind::Channels { .. }, [input]) => index = *input,
                _ => break,
            }
        }
    }
    kinds
}

/// Whether a step computes as well in bfloat16 or float16.
fn takes_half(kind: &Kind) -> bool {
    match kind {
        Kind::Layer { op, .. } => match op {
            Op::Activation(_)
            | Op::AdaptiveAvgPool2d(_)
            | Op::AdaptiveMaxPool2d(_)
            | Op::Add(_)
            | Op::AvgPool2d(_)
            | Op::Concat(_)
            | Op::Conv2d(_)
            | Op::Dropout(_)
            | Op::Flatten(_)
            | Op::Linear(_)
            | Op::MaxPool2d(_)
            | Op::PadShortcut(_)
            | Op::StochasticDepth(_) => true,
            Op::BatchNorm2d(_)
            | Op::LocalResponseNorm(_)
            | Op::RbfOutput(_)
            | Op::Softmax(_)
            | Op::SparseConv2d(_)
            | Op::Subsampling2d(_)
            | Op::Custom(_) => false,
        },
        Kind::Input | Kind::Conv { .. } | Kind::Linear { .. } | Kind::Channels { .. } | Kind::Gone => true,
    }
}
