//! A step that is ready to run: its weights packed, its type and its use of memory decided.
use crate::program::{Kind, Step};
use crate::schedule::Memory;
use std::fmt;
use striate_graph::GraphError;
use striate_layers::{Activation, Conv2d, Forward, LayerError, Mode, Op, Shape};
use striate_torch::onednn::{self, Geometry, Post, Sum};
use striate_torch::{MemoryFormat, TorchError, memory_format, pixels, pointwise, to_memory_format, winograd};
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
}

#[derive(Debug)]
enum Work {
    Input,
    Conv(Conv),
    Linear(Linear),
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
    /// With a float32 bias, and a weight packed for oneDNN if one image has too few tiles for it.
    Winograd {
        weight: winograd::Weight,
        bias: Option<Tensor>,
        few: Option<Tensor>,
    },
    /// With the bias.
    Pointwise(pointwise::Weight),
    OneDnn(Tensor),
    Plain(Tensor),
}

/// The batch that bfloat16 weights are packed for; it is as good for others.
const TYPICAL_BATCH: i64 = 16;

#[derive(Debug)]
struct Linear {
    kernel: LinearKernel,
    bias: Option<Tensor>,
    post: Post,
}

#[derive(Debug)]
enum LinearKernel {
    /// With the bias.
    Pointwise(pointwise::Weight),
    OneDnn(Tensor),
    Plain(Tensor),
}

impl Ready {
    /// Prepares a step whose first input has the shape `input` for one example.
    pub(crate) fn new(step: Step, input: Option<&Shape>, kind: Type, memory: Memory, onednn: bool) -> Result<Self, TorchError> {
        // Copies: the network's parameters may change.
        let cast = |tensor: &Tensor| -> Result<Tensor, TorchError> { Ok(tensor.f_to_dtype(kind, false, true)?) };
        let cast_option = |tensor: Option<Tensor>| tensor.as_ref().map(cast).transpose();
        let work = match step.kind {
            Kind::Input | Kind::Gone => Work::Input,
            Kind::Channels { start, count } => Work::Channels { start, count },
            Kind::Conv { conv, weight, bias, sum, post } => {
                let image = input.and_then(|shape| shape.as_image().ok()).filter(|_| onednn);
                let kernel = Kernel::new(&conv, &weight, bias.as_ref(), post, kind, image)?;
                Work::Conv(Conv { conv, kernel, bias: cast_option(bias)?, sum, post })
            }
            Kind::Linear { weight, bias, post } => {
                let weight = cast(&weight)?.f_contiguous()?;
                let kernel = match weight.size()[..] {
                    [_, features] if onednn && pointwise::suits(kind, features) => {
                        LinearKernel::Pointwise(pointwise::Weight::new(&weight, bias.as_ref())?)
                    }
                    _ if onednn && kind == Type::BFloat16 => LinearKernel::OneDnn(onednn::pack_linear(&weight, TYPICAL_BATCH)?),
                    _ if onednn => LinearKernel::OneDnn(weight),
                    _ => LinearKernel::Plain(weight),
                };
                Work::Linear(Linear { kernel, bias: cast_option(bias)?, post })
            }
            Kind::Layer { op, params } => {
                // Counters stay what they are.
                let float = |param: &Tensor| if param.is_floating_point() { cast(param) } else { Ok(param.f_detach_copy()?) };
                Work::Layer { op, params: params.iter().map(float).collect::<Result<_, _>>()? }
            }
        };
        Ok(Self { name: step.layers.join(" + "), work, inputs: step.inputs, kind, memory })
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

    /// Computes the step from the values of its inputs.
    pub(crate) fn run(&self, values: &[Option<Tensor>]) -> Result<Tensor, GraphError> {
        let cast = |input: &usize| {
            let value = values[*input].as_ref().ok_or_else(|| TorchError::new("a value was given up too early"))?;
            Ok(if value.kind() == self.kind { value.shallow_clone() } else { value.f_to_kind(self.kind)? })
        };
        let inputs: Vec<Tensor> = self.inputs.iter().map(cast).collect::<Result<_, GraphError>>()?;
        let error = |op, source| GraphError::Layer { layer: self.name.clone(), op, source };
        match &self.work {
            Work::Input => Err(TorchError::new("an input is not computed").into()),
            Work::Conv(conv) => conv.run(&inputs, self.memory.in_place).map_err(|source| error("Conv2d", source)),
            Work::Linear(linear) => linear.run(&inputs[0]).map_err(|source| error("Linear", source)),
            Work::Channels { start, count } => Ok(inputs[0].f_narrow(1, *start, *count)?),
            Work::Layer { op, params } => {
                layer(op, params, &inputs, self.memory.in_place).map_err(|source| error(op.layer().name(), source))
            }
        }
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
    /// The fastest for convolutions of `image`, or of images that oneDNN does not take.
    fn new(
        conv: &Conv2d,
        weight: &Tensor,
        bias: Option<&Tensor>,
        post: Post,
        kind: Type,
        image: Option<[i64; 3]>,
    ) -> Result<Self, TorchError> {
        let own = to_memory_format(&weight.f_to_dtype(kind, false, true)?, MemoryFormat::ChannelsLast)?;
        let Some(image @ [channels, height, width]) = image else { return Ok(Self::Plain(own)) };
        let onednn = || {
            let (geometry, [height, width]) = geometry(conv, [height, width]);
            onednn::pack_conv(&own, &geometry, [1, channels, height, width])
        };
        if !matches!(post, Post::None | Post::Relu) {
            return Ok(Self::OneDnn(onednn()?));
        }
        let unpadded = conv.pads(0, height) == (0, 0) && conv.pads(1, width) == (0, 0);
        if conv.groups == 1 && conv.kernel_size.0 == [1, 1] && unpadded && pointwise::suits(kind, channels) {
            return Ok(Self::Pointwise(pointwise::Weight::new(&own, bias)?));
        }
        match conv.winograd_tiles(image).filter(|_| winograd::available()) {
            None => Ok(Self::OneDnn(onednn()?)),
            Some(tiles) => Ok(Self::Winograd {
                weight: winograd::Weight::new(weight)?,
                bias: bias.map(|bias| bias.f_to_dtype(Type::Float, false, true)).transpose()?,
                few: (tiles < many_tiles(kind)).then(onednn).transpose()?,
            }),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Winograd { .. } => "Winograd",
            Self::Pointwise(_) => "pointwise",
            Self::OneDnn(_) => "oneDNN",
            Self::Plain(_) => "",
        }
    }
}

impl Conv {
    fn run(&self, inputs: &[Tensor], in_place: bool) -> Result<Tensor, LayerError> {
        let [_, height, width] = Shape::of_batch(&inputs[0]).as_image()?;
        let (geometry, padded) = geometry(&self.conv, [height, width]);
        let mut input = inputs[0].shallow_clone();
        if padded != [height, width] {
            let ((top, bottom), (left, right)) = (self.conv.pads(0, height), self.conv.pads(1, width));
            input = input.f_constant_pad_nd([left, right, top, bottom])?;
        }
        if memory_format(&input).is_none() {
            // The kernels would copy some channels of other pixels more slowly.
            input = pixels::concat_channels(std::slice::from_ref(&input)).unwrap_or(input);
        }
        let (bias, sum) = (self.bias.as_ref(), Sum { relu: self.post == Post::Relu, in_place });
        let weight = match &self.kernel {
            Kernel::Winograd { weight, bias, few } => match few.as_ref().filter(|_| !self.has_many_tiles(&input)) {
                Some(few) => few,
                None => return Ok(weight.conv(&input, bias.as_ref(), geometry.padding, inputs.get(1), sum)?),
            },
            Kernel::Pointwise(weight) => return Ok(weight.conv(&input, geometry.stride, inputs.get(1), sum)?),
            Kernel::Plain(weight) => {
                let Geometry { padding, stride, dilation, groups } = geometry;
                let mut output = input.f_conv2d(weight, bias, stride, padding, dilation, groups)?;
                if self.sum {
                    output = output.f_add_(&inputs[1])?;
                }
                return apply(self.post, output);
            }
            Kernel::OneDnn(weight) => weight,
        };
        Ok(match inputs.get(1).filter(|_| self.sum) {
            Some(other) => onednn::conv_add(&input, weight, bias, &geometry, other, sum)?,
            None => onednn::conv(&input, weight, bias, &geometry, self.post)?,
        })
    }

    /// Whether a batch has tiles enough for Winograd's algorithm.
    fn has_many_tiles(&self, batch: &Tensor) -> bool {
        match batch.size()[..] {
            [count, channels, height, width] => {
                let tiles = self.conv.winograd_tiles([channels, height, width]);
                tiles.is_some_and(|tiles| count * tiles >= many_tiles(batch.kind()))
            }
            _ => false,
        }
    }
}

/// The tiles from which on Winograd's algorithm is faster than oneDNN. With fewer, reading the weights is all that counts, and Winograd's are four times as
/// large as float32 ones.
fn many_tiles(kind: Type) -> i64 {
    if kind == Type::BFloat16 { 64 } else { 16 }
}

impl LinearKernel {
    fn name(&self) -> &'static str {
        match self {
            Self::Pointwise(_) => "pointwise",
            Self::OneDnn(_) => "oneDNN",
            Self::Plain(_) => "",
        }
    }
}

impl Linear {
    fn run(&self, input: &Tensor) -> Result<Tensor, LayerError> {
        let (bias, relu) = (self.bias.as_ref(), self.post == Post::Relu);
        match &self.kernel {
            LinearKernel::Pointwise(weight) => apply(if relu { Post::None } else { self.post }, weight.linear(input, relu)?),
            LinearKernel::OneDnn(weight) => Ok(onednn::linear(input, weight, bias, self.post)?),
            LinearKernel::Plain(weight) => apply(self.post, input.f_linear(weight, bias)?),
        }
    }
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
            Work::Linear(linear) => ("Linear", linear.kernel.name()),
            Work::Channels { .. } => ("Channels", ""),
            Work::Layer { op, .. } => (op.layer().name(), ""),
        };
        write!(f, "{op} ")?;
        match &self.work {
            Work::Channels { start, count } => write!(f, "{start}..{}", start + count)?,
            _ => f.write_str(&self.name)?,
        }
        let notes = [(!kernel.is_empty(), kernel), (self.kind == Type::BFloat16, "bf16"), (self.memory.in_place, "in place")];
        let notes: Vec<&str> = notes.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note).collect();
        if notes.is_empty() { Ok(()) } else { write!(f, " [{}]", notes.join(", ")) }
    }
}
