use crate::PlanError;
use crate::int8::{self, Calibration};
use crate::passes;
use crate::program::{Kind, Program};
use crate::schedule::schedule;
use crate::step::{Ready, Scales};
use std::fmt;
use std::time::{Duration, Instant};
use striate_graph::{Graph, GraphError, Network, Outputs};
use striate_layers::{Op, Shape};
use striate_torch::{Precision, TorchError};
use tch::{Device, Kind as Type, Tensor};

/// How a [`Plan`] is made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanOptions {
    /// The type that it computes in. In float32, outputs agree with the network's up to rounding. In bfloat16, everything from the last
    /// linear layer on is float32. In int8, convolutions, the linear layers before the last, and what only passes their values on
    /// compute with bytes, and everything else in float32.
    pub precision: Precision,
    /// What the bytes of feature maps stand for: needed in int8, and read in no other precision.
    pub calibration: Option<Calibration>,
}

/// A network frozen for serving: see the [crate's documentation](crate).
///
/// It takes batches of any number of examples, of any size that the network takes. It runs where the network's inputs are.
/// It is `Send` and `Sync`: any number of threads can call [`Plan::forward`] of one plan at once, in an `Arc` for instance, and
/// share one copy of its packed weights. Each call has its own feature maps.
#[derive(Debug)]
pub struct Plan {
    steps: Vec<Ready>,
    outputs: Vec<(String, usize)>,
    graph: Graph,
    precision: Precision,
}

impl Plan {
    /// Freezes a network as it is now.
    ///
    /// Weights are packed for the size of input that the network was built for; others work too, and may run a little
    /// slower. Fails if libtorch does, such as for want of memory; in int8 also without a [`Calibration`] that fits, and where there is
    /// no CPU with AVX-512 VNNI or AVX-VNNI ([`striate_torch::int8::available`]).
    pub fn new(network: &Network, options: &PlanOptions) -> Result<Self, PlanError> {
        let _no_grad = striate_torch::no_grad();
        let precision = options.precision;
        let kind = match precision {
            Precision::Bfloat16 => Type::BFloat16,
            Precision::Int8 => Type::Uint8,
            Precision::Float16 => return Err(PlanError::NoFloat16),
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
        Self::of(network, program, kinds, scales, precision)
    }

    /// A plan in int8 with a [`Calibration`] that is measured on `images` and not kept.
    pub fn calibrated(network: &Network, images: &[Tensor]) -> Result<Self, PlanError> {
        let calibration = Some(Calibration::measure(network, images)?);
        Self::new(network, &PlanOptions { precision: Precision::Int8, calibration })
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
        let shapes: Vec<Shape> = program.steps.iter().map(|step| step.shape.clone()).collect();
        let mut steps = Vec::with_capacity(shapes.len());
        for (((step, memory), kind), scales) in program.steps.into_iter().zip(memory).zip(kinds).zip(scales) {
            let input = step.inputs.first().map(|input| &shapes[*input]);
            steps.push(Ready::new(step, input, kind, memory, network.device(), scales)?);
        }
        Ok(Self { steps, outputs: program.outputs, graph: network.graph().clone(), precision })
    }

    /// The type that it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What the network gives in evaluation for a batch `[N, ...]` of its one input, in float32.
    ///
    /// Fails as the network does if the batch doesn't fit it.
    pub fn forward(&self, batch: &Tensor) -> Result<Outputs, GraphError> {
        self.forward_all(&[batch])
    }

    /// [`Plan::forward`] with a batch for each input of the network.
    pub fn forward_all(&self, batches: &[&Tensor]) -> Result<Outputs, GraphError> {
        self.run(batches, |_, _, _| Ok::<_, GraphError>(()))
    }

    /// The steps as text, with the seconds that each takes for a batch of the network's one input. Times of single runs differ: take medians of several.
    ///
    /// Fails as [`Plan::forward`] does.
    pub fn profile(&self, batch: &Tensor) -> Result<Vec<(String, f64)>, GraphError> {
        let mut times = Vec::with_capacity(self.steps.len());
        self.run(&[batch], |index, _, time| {
            times.push((self.steps[index].to_string(), time.as_secs_f64()));
            Ok::<_, GraphError>(())
        })?;
        Ok(times)
    }

    /// [`Plan::forward_all`], which shows `see` the value of each step, and the time that it took.
    pub(crate) fn run<E: From<GraphError>>(
        &self,
        batches: &[&Tensor],
        mut see: impl FnMut(usize, &Tensor, Duration) -> Result<(), E>,
    ) -> Result<Outputs, E> {
        let shapes: Vec<Shape> = batches.iter().map(|batch| Shape::of_batch(batch)).collect();
        self.graph.check_inputs(&shapes)?;
        let _no_grad = striate_torch::no_grad();
        let mut batches = batches.iter().copied();
        // A value that was given up, or a batch that there isn't, is a tensor without a type, which no step takes.
        let mut values: Vec<Tensor> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let start = Instant::now();
            let value = match step.is_input() {
                true => step.take_input(&batches.next().map_or_else(Tensor::new, Tensor::shallow_clone))?,
                false => step.run(&values)?,
            };
            see(index, &value, start.elapsed())?;
            values.push(value);
            step.memory.last_uses.iter().for_each(|index| values[*index] = Tensor::new());
        }
        let output = |(name, step): &(String, usize)| Ok((name.clone(), self.steps[*step].in_float(&values[*step])?));
        let outputs = self.outputs.iter().map(output).collect::<Result<Vec<_>, GraphError>>()?;
        Ok(Outputs::of(outputs).ok_or(GraphError::NoOutput)?)
    }
}

/// The steps in their order: what each computes, which layers it stands for, and how.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// A network as the steps of its plan.
pub(crate) fn frozen(network: &Network) -> Result<Program, TorchError> {
    let mut program = Program::of(network);
    passes::run(&mut program)?;
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

/// Whether a step computes as well in bfloat16.
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
