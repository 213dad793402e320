//! A step that is ready to run: its weights packed, its type and its use of memory decided.
use crate::conv::{Conv, Kernel};
use crate::linear::Linear;
use crate::program::{Kind, Step};
use crate::schedule::Memory;
use std::fmt;
use striate_graph::GraphError;
use striate_layers::{Activation, Forward, LayerError, Mode, Op, Shape};
use striate_torch::int8::Scale;
use striate_torch::onednn::{self, Post};
use striate_torch::{Frozen, MemoryFormat, TorchError, pixels, to_memory_format};
use tch::{Device, Kind as Type, Tensor};

/// A step of a plan.
#[derive(Debug)]
pub(crate) struct Ready {
    name: String,
    work: Work,
    pub(crate) inputs: Vec<usize>,
    /// The type that it computes in.
    kind: Type,
    pub(crate) memory: Memory,
    scales: Option<Scales>,
}

/// What the bytes of a step's inputs and of its output stand for, in a plan in int8.
#[derive(Debug)]
pub(crate) struct Scales {
    pub(crate) inputs: Vec<Scale>,
    pub(crate) output: Scale,
    /// Whether it gives bytes, and not float32.
    pub(crate) bytes: bool,
}

#[derive(Debug)]
enum Work {
    Input,
    Conv(Conv),
    Linear(Linear),
    Channels { start: i64, count: i64 },
    Layer { op: Op, params: Vec<Frozen> },
}

/// A weight and a bias.
#[derive(Debug)]
pub(crate) struct Params<T = Tensor> {
    pub(crate) weight: T,
    pub(crate) bias: Option<T>,
}

impl Params {
    /// Copies, since the network's may change.
    pub(crate) fn cast(&self, kind: Type) -> Result<Self, TorchError> {
        let cast = |tensor: &Tensor| tensor.f_to_dtype(kind, false, true);
        Ok(Self { weight: cast(&self.weight)?, bias: self.bias.as_ref().map(cast).transpose()? })
    }

    /// For many threads to read. They are a plan's own.
    pub(crate) fn freeze(self) -> Params<Frozen> {
        Params { weight: self.weight.into(), bias: self.bias.map(Frozen::new) }
    }
}

impl Ready {
    /// Prepares a step whose first input has the shape `input` for one example.
    pub(crate) fn new(
        step: Step,
        input: Option<&Shape>,
        kind: Type,
        memory: Memory,
        device: Device,
        scales: Option<Scales>,
    ) -> Result<Self, TorchError> {
        // What the bytes stand for that it computes with.
        let bytes = scales.as_ref().filter(|_| kind == Type::Uint8).and_then(|scales| scales.inputs.first().copied());
        // Copies: the network's parameters may change.
        let cast = |tensor: &Tensor| -> Result<Tensor, TorchError> { Ok(tensor.f_to_dtype(kind, false, true)?) };
        let work = match step.kind {
            Kind::Input | Kind::Gone => Work::Input,
            Kind::Channels { start, count } => Work::Channels { start, count },
            Kind::Conv { conv, weight, bias, sum, post } => {
                let (params, image) = (Params { weight, bias }, input.and_then(|shape| shape.as_image().ok()));
                let kernel = match (bytes, image) {
                    (Some(scale), Some(image)) => Kernel::int8(&conv, &params, scale, image)?,
                    _ => Kernel::new(&conv, &params, post, kind, device, image)?,
                };
                Work::Conv(Conv { conv, kernel, sum, post })
            }
            Kind::Linear { weight, bias, post } => {
                let params = Params { weight, bias };
                Work::Linear(match bytes {
                    Some(scale) => Linear::int8(&params, post, scale)?,
                    None => Linear::new(&params, post, kind, onednn::takes(device, kind))?,
                })
            }
            Kind::Layer { op, params } => {
                // Counters stay what they are.
                let float = |param: &Tensor| -> Result<Frozen, TorchError> {
                    Ok(if param.is_floating_point() { cast(param)? } else { param.f_detach_copy()? }.into())
                };
                Work::Layer { op, params: params.iter().map(float).collect::<Result<_, _>>()? }
            }
        };
        Ok(Self { name: step.layers.join(" + "), work, inputs: step.inputs, kind, memory, scales })
    }

    /// Whether it is an input of the network.
    pub(crate) fn is_input(&self) -> bool {
        matches!(self.work, Work::Input)
    }

    /// A batch of an input of the network as the plan wants it.
    pub(crate) fn take_input(&self, batch: &Tensor) -> Result<Tensor, GraphError> {
        let batch = batch.f_to_kind(self.kind)?;
        if batch.dim() == 4 { Ok(to_memory_format(&batch, MemoryFormat::ChannelsLast)?) } else { Ok(batch) }
    }

    /// A value that it gave, in float32.
    pub(crate) fn in_float(&self, value: &Tensor) -> Result<Tensor, TorchError> {
        converted(value, Type::Float, self.scales.as_ref().map(|scales| scales.output))
    }

    /// Computes the step from the values of its inputs.
    pub(crate) fn run(&self, values: &[Tensor]) -> Result<Tensor, GraphError> {
        let cast = |(place, input): (usize, &usize)| {
            converted(&values[*input], self.kind, self.scales.as_ref().map(|scales| scales.inputs[place]))
        };
        let inputs: Vec<Tensor> = self.inputs.iter().enumerate().map(cast).collect::<Result<_, TorchError>>()?;
        let error = |op, source| GraphError::Layer { layer: self.name.clone(), op, source };
        match &self.work {
            Work::Input => Ok(Tensor::new()),
            Work::Conv(conv) => {
                conv.run(&inputs, self.memory.in_place, self.scales.as_ref()).map_err(|source| error("Conv2d", source))
            }
            Work::Linear(linear) => linear.run(&inputs[0], self.scales.as_ref()).map_err(|source| error("Linear", source)),
            Work::Channels { start, count } => Ok(inputs[0].f_narrow(1, *start, *count)?),
            Work::Layer { op, params } => layer(op, Frozen::as_tensors(params), &inputs, self.memory.in_place)
                .map_err(|source| error(op.layer().name(), source)),
        }
    }
}

impl Scales {
    /// The scale of the bytes that the step gives, if it does.
    pub(crate) fn of_output(&self) -> Option<Scale> {
        self.bytes.then_some(self.output)
    }
}

/// A value in another type; bytes are of this scale.
fn converted(value: &Tensor, kind: Type, scale: Option<Scale>) -> Result<Tensor, TorchError> {
    match (value.kind(), kind, scale) {
        (from, to, _) if from == to => Ok(value.shallow_clone()),
        (_, Type::Uint8, Some(scale)) => scale.quantize(&value.f_to_kind(Type::Float)?),
        (Type::Uint8, _, Some(scale)) => scale.dequantize(value),
        _ => Ok(value.f_to_kind(kind)?),
    }
}

/// What an operator that knows ReLU alone left of an activation.
pub(crate) fn finish(post: Post, value: Tensor) -> Result<Tensor, LayerError> {
    apply(if post == Post::Relu { Post::None } else { post }, value)
}

/// Computes an activation over a value that nobody else reads.
pub(crate) fn apply(post: Post, mut value: Tensor) -> Result<Tensor, LayerError> {
    Ok(match post {
        Post::None => value,
        Post::Relu => value.f_relu_()?,
        Post::Tanh => value.f_tanh_()?,
        Post::Sigmoid => value.f_sigmoid_()?,
    })
}

fn layer(op: &Op, params: &[Tensor], inputs: &[Tensor], in_place: bool) -> Result<Tensor, LayerError> {
    match op {
        Op::Activation(activation) if in_place => {
            let value = inputs[0].shallow_clone();
            match activation {
                Activation::Relu => apply(Post::Relu, value),
                Activation::Tanh => apply(Post::Tanh, value),
                Activation::Sigmoid => apply(Post::Sigmoid, value),
                Activation::ScaledTanh => activation.forward(params, &[&value], Mode::Eval),
            }
        }
        Op::Add(_) if in_place => {
            let mut sum = inputs[0].shallow_clone();
            for input in &inputs[1..] {
                sum = sum.f_add_(input)?;
            }
            Ok(sum)
        }
        Op::AdaptiveAvgPool2d(pool) if inputs[0].size().get(2..) == Some(&pool.output_size.0) => Ok(inputs[0].shallow_clone()),
        Op::MaxPool2d(pool) => pool.forward_fast(&[&inputs[0]], false),
        Op::Concat(concat) => match pixels::concat_channels(inputs) {
            Some(joined) => Ok(joined),
            None => concat.forward(params, &inputs.iter().collect::<Vec<_>>(), Mode::Eval),
        },
        _ => op.forward(params, &inputs.iter().collect::<Vec<_>>(), Mode::Eval),
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, kernel) = match &self.work {
            Work::Input => ("Input", ""),
            Work::Conv(conv) => ("Conv2d", conv.kernel.name()),
            Work::Linear(linear) => ("Linear", linear.kernel.name()),
            Work::Channels { .. } => ("Channels", ""),
            Work::Layer { op, .. } => (op.layer().name(), ""),
        };
        write!(f, "{op} ")?;
        match &self.work {
            Work::Channels { start, count } => write!(f, "{start}..{}", start + count)?,
            _ => f.write_str(&self.name)?,
        }
        let kind = match self.kind {
            Type::BFloat16 => "bf16",
            Type::Half => "fp16",
            Type::Uint8 => "int8",
            _ => "",
        };
        let notes = [(!kernel.is_empty(), kernel), (!kind.is_empty(), kind), (self.memory.in_place, "in place")];
        let notes: Vec<&str> = notes.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note).collect();
        if notes.is_empty() { Ok(()) } else { write!(f, " [{}]", notes.join(", ")) }
    }
}
