//! A step that is ready to run: its weights packed, its type and its use of memory decided.
use crate::program::{Kind, Step};
use crate::schedule::Memory;
use std::fmt;
use striate_graph::GraphError;
use striate_layers::{Activation, Conv2d, Forward, LayerError, Mode, Op, Shape};
use striate_torch::int8::{self, Scale};
use striate_torch::onednn::{self, Geometry, Post, Sum};
use striate_torch::{MemoryFormat, TorchError, linear, memory_format, pixels, to_memory_format, winograd};
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
    LinearInt8(int8::Linear, Post),
    Channels { start: i64, count: i64 },
    Layer { op: Op, params: Vec<Tensor> },
}

#[derive(Debug)]
struct Conv {
    conv: Conv2d,
    kernel: Kernel,
    bias: Option<Tensor>,
    sum: bool,
    post: Post,
}

/// What computes a convolution, with its weight as that wants it.
#[derive(Debug)]
enum Kernel {
    Winograd(winograd::Weight),
    OneDnn(Tensor),
    Int8(int8::Conv),
    Plain(Tensor),
}

/// From this batch on, the float32 kernel of our own is faster than oneDNN's on a weight that isn't packed.
const LARGE_BATCH: i64 = 3;
/// The batch that bfloat16 weights are packed for; it is as good for others.
const TYPICAL_BATCH: i64 = 16;

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    post: Post,
    onednn: bool,
}

impl Ready {
    /// Prepares a step whose first input has the shape `input` for one example.
    pub(crate) fn new(
        step: Step,
        input: Option<&Shape>,
        kind: Type,
        memory: Memory,
        onednn: bool,
        scales: Option<Scales>,
    ) -> Result<Self, TorchError> {
        // What the bytes stand for that it computes with.
        let bytes = scales.as_ref().filter(|_| kind == Type::Uint8).and_then(|scales| scales.inputs.first().copied());
        // Copies: the network's parameters may change.
        let cast = |tensor: &Tensor| -> Result<Tensor, TorchError> { Ok(tensor.f_to_dtype(kind, false, true)?) };
        let cast_option = |tensor: Option<Tensor>| tensor.as_ref().map(cast).transpose();
        let work = match step.kind {
            Kind::Input | Kind::Gone => Work::Input,
            Kind::Channels { start, count } => Work::Channels { start, count },
            Kind::Conv { conv, weight, bias, sum, post } => {
                let dims = input.map_or(&[][..], Shape::dims);
                let kernel = match (dims, bytes) {
                    ([channels, height, width], Some(scale)) => {
                        let (geometry, [height, width]) = geometry(&conv, [*height, *width]);
                        Kernel::Int8(int8::Conv::new(&weight, bias.as_ref(), &geometry, scale, [1, *channels, height, width])?)
                    }
                    ([_, height, width], None) if onednn && suits_winograd(&conv, dims[0], [*height, *width], post, kind) => {
                        Kernel::Winograd(winograd::Weight::new(&weight)?)
                    }
                    ([channels, height, width], None) if onednn => {
                        let weight = to_memory_format(&cast(&weight)?, MemoryFormat::ChannelsLast)?;
                        let (geometry, [height, width]) = geometry(&conv, [*height, *width]);
                        Kernel::OneDnn(onednn::pack_conv(&weight, &geometry, [1, *channels, height, width])?)
                    }
                    _ => Kernel::Plain(to_memory_format(&cast(&weight)?, MemoryFormat::ChannelsLast)?),
                };
                let bias_kind = if matches!(kernel, Kernel::Winograd(_) | Kernel::Int8(_)) { Type::Float } else { kind };
                let bias = bias.map(|bias| bias.f_to_dtype(bias_kind, false, true)).transpose()?;
                Work::Conv(Conv { conv, kernel, bias, sum, post })
            }
            Kind::Linear { weight, bias, post } => match bytes {
                Some(scale) => Work::LinearInt8(int8::Linear::new(&weight, bias.as_ref(), scale)?, post),
                None => {
                    let mut weight = cast(&weight)?.f_contiguous()?;
                    if onednn && kind == Type::BFloat16 {
                        weight = onednn::pack_linear(&weight, TYPICAL_BATCH)?;
                    }
                    Work::Linear(Linear { weight, bias: cast_option(bias)?, post, onednn })
                }
            },
            Kind::Layer { op, params } => {
                // Counters stay what they are.
                let float = |param: &Tensor| if param.is_floating_point() { cast(param) } else { Ok(param.f_detach_copy()?) };
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
    pub(crate) fn run(&self, values: &[Option<Tensor>]) -> Result<Tensor, GraphError> {
        let cast = |(place, input): (usize, &usize)| {
            let value = values[*input].as_ref().ok_or_else(|| TorchError::new("a value was given up too early"))?;
            converted(value, self.kind, self.scales.as_ref().map(|scales| scales.inputs[place]))
        };
        let inputs: Vec<Tensor> = self.inputs.iter().enumerate().map(cast).collect::<Result<_, TorchError>>()?;
        let error = |op, source| GraphError::Layer { layer: self.name.clone(), op, source };
        match &self.work {
            Work::Input => Err(TorchError::new("an input is not computed").into()),
            Work::Conv(conv) => {
                conv.run(&inputs, self.memory.in_place, self.scales.as_ref()).map_err(|source| error("Conv2d", source))
            }
            Work::Linear(linear) => linear.run(&inputs[0]).map_err(|source| error("Linear", source)),
            Work::LinearInt8(linear, post) => {
                let output = self.scales.as_ref().and_then(Scales::of_output);
                let value = linear.forward(&inputs[0], *post == Post::Relu, output).map_err(LayerError::from);
                value.and_then(|value| finish(*post, value)).map_err(|source| error("Linear", source))
            }
            Work::Channels { start, count } => Ok(inputs[0].f_narrow(1, *start, *count)?),
            Work::Layer { op, params } => {
                layer(op, params, &inputs, self.memory.in_place).map_err(|source| error(op.layer().name(), source))
            }
        }
    }
}

impl Scales {
    /// The scale of the bytes that the step gives, if it does.
    fn of_output(&self) -> Option<Scale> {
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

/// How the kernel moves over an input of this height and width, and their size once what doesn't lie evenly is padded.
fn geometry(conv: &Conv2d, size: [i64; 2]) -> (Geometry, [i64; 2]) {
    let pads = [0, 1].map(|axis| conv.pads(axis, size[axis]));
    let (stride, dilation, groups) = (conv.stride.0, conv.dilation.0, conv.groups);
    if pads.iter().all(|(before, after)| before == after) {
        return (Geometry { padding: pads.map(|(before, _)| before), stride, dilation, groups }, size);
    }
    let padded = [0, 1].map(|axis| size[axis] + pads[axis].0 + pads[axis].1);
    (Geometry { padding: [0, 0], stride, dilation, groups }, padded)
}

impl Kernel {
    fn name(&self) -> &'static str {
        match self {
            Self::Winograd(_) => "Winograd",
            Self::OneDnn(_) | Self::Int8(_) => "oneDNN",
            Self::Plain(_) => "",
        }
    }
}

impl Conv {
    fn run(&self, inputs: &[Tensor], in_place: bool, scales: Option<&Scales>) -> Result<Tensor, LayerError> {
        let [_, height, width] = Shape::of_batch(&inputs[0]).as_image()?;
        let (geometry, padded) = geometry(&self.conv, [height, width]);
        let mut input = inputs[0].shallow_clone();
        if padded != [height, width] {
            let ((top, bottom), (left, right)) = (self.conv.pads(0, height), self.conv.pads(1, width));
            let zero = if input.kind() == Type::Uint8 { scales.map(|scales| scales.inputs[0].zero_point as f64) } else { None };
            input = input.f_pad([left, right, top, bottom], "constant", zero)?;
        }
        if memory_format(&input).is_none() {
            // The kernels would copy some channels of other pixels more slowly.
            input = pixels::concat_channels(std::slice::from_ref(&input)).unwrap_or(input);
        }
        let (bias, sum) = (self.bias.as_ref(), Sum { relu: self.post == Post::Relu, in_place });
        match &self.kernel {
            Kernel::Winograd(weight) => Ok(weight.conv(&input, bias, geometry.padding, inputs.get(1), sum)?),
            Kernel::OneDnn(weight) if self.sum => Ok(onednn::conv_add(&input, weight, bias, &geometry, &inputs[1], sum)?),
            Kernel::OneDnn(weight) => Ok(onednn::conv(&input, weight, bias, &geometry, self.post)?),
            Kernel::Int8(conv) => match (scales, inputs) {
                (Some(scales), [_, other]) => {
                    let other = (other, scales.inputs[1]);
                    Ok(conv.forward_add(&input, &geometry, other, scales.output, sum)?)
                }
                _ => {
                    let value = conv.forward(&input, &geometry, sum.relu, scales.and_then(Scales::of_output))?;
                    finish(self.post, value)
                }
            },
            Kernel::Plain(weight) => {
                let Geometry { padding, stride, dilation, groups } = geometry;
                let mut output = input.f_conv2d(weight, bias, stride, padding, dilation, groups)?;
                if self.sum {
                    output = output.f_add_(&inputs[1])?;
                }
                apply(self.post, output)
            }
        }
    }
}

/// Whether Winograd's algorithm computes a convolution of images of these channels, height and width, and faster.
fn suits_winograd(conv: &Conv2d, channels: i64, size: [i64; 2], post: Post, kind: Type) -> bool {
    // With fewer tiles of one image, reading the weights is all that counts, and Winograd's are four times as large.
    let min_tiles = if kind == Type::BFloat16 { 16 } else { 4 };
    let tiles = conv.winograd_tiles([channels, size[0], size[1]]);
    winograd::available() && matches!(post, Post::None | Post::Relu) && tiles.is_some_and(|tiles| tiles >= min_tiles)
}

impl Linear {
    fn run(&self, input: &Tensor) -> Result<Tensor, LayerError> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        if !self.onednn {
            return apply(self.post, input.f_linear(weight, bias)?);
        }
        if input.kind() == Type::Float && input.dim() == 2 && input.size()[0] >= LARGE_BATCH {
            return finish(self.post, linear(input, weight, bias, self.post == Post::Relu)?);
        }
        Ok(onednn::linear(input, weight, bias, self.post)?)
    }
}

/// What an operator that knows ReLU alone left of an activation.
fn finish(post: Post, value: Tensor) -> Result<Tensor, LayerError> {
    apply(if post == Post::Relu { Post::None } else { post }, value)
}

/// Computes an activation over a value that nobody else reads.
fn apply(post: Post, mut value: Tensor) -> Result<Tensor, LayerError> {
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

/// Whether oneDNN's operators compute values of this type on this device.
pub(crate) fn onednn_takes(device: Device, kind: Type) -> bool {
    device == Device::Cpu
        && match kind {
            Type::Float => onednn::available(),
            Type::BFloat16 => onednn::supports_bf16(),
            _ => false,
        }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, kernel) = match &self.work {
            Work::Input => ("Input", ""),
            Work::Conv(conv) => ("Conv2d", conv.kernel.name()),
            Work::Linear(linear) => ("Linear", if linear.onednn { "oneDNN" } else { "" }),
            Work::LinearInt8(..) => ("Linear", "oneDNN"),
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
            Type::Uint8 => "int8",
            _ => "",
        };
        let notes = [(!kernel.is_empty(), kernel), (!kind.is_empty(), kind), (self.memory.in_place, "in place")];
        let notes: Vec<&str> = notes.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note).collect();
        if notes.is_empty() { Ok(()) } else { write!(f, " [{}]", notes.join(", ")) }
    }
}
