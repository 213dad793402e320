//! Convolutions, with the kernel that is the fastest for each and its weight as that wants it.
use crate::step::{Params, Scales, apply, finish};
use std::sync::atomic::{AtomicBool, Ordering};
use striate_layers::{Conv2d, LayerError, Shape};
use striate_torch::int8::{self, Scale};
use striate_torch::kernels::{Kernel as Choice, Purpose};
use striate_torch::onednn::{self, Geometry, Post, Sum};
use striate_torch::{Frozen, MemoryFormat, TorchError, cudnn, memory_format, pixels, pointwise, to_memory_format, winograd};
use tch::{Device, Kind as Type, Tensor};

#[derive(Debug)]
pub(crate) struct Conv {
    pub(crate) conv: Conv2d,
    pub(crate) kernel: Kernel,
    /// Whether the second input is added.
    pub(crate) sum: bool,
    pub(crate) post: Post,
}

#[derive(Debug)]
pub(crate) enum Kernel {
    /// With what is faster for few tiles, if one image has few.
    Winograd {
        weight: winograd::Weight,
        bias: Option<Frozen>,
        few: Option<Params<Frozen>>,
    },
    /// Of windows, which may be of one pixel, and the weight.
    Product(pointwise::Weight),
    OneDnn(Params<Frozen>),
    Int8(int8::Conv),
    /// By libtorch's operators from when on cuDNN `refused` it.
    CuDnn {
        params: Params<Frozen>,
        refused: AtomicBool,
    },
    Plain(Params<Frozen>),
}

impl Kernel {
    /// The fastest in this type for convolutions of `image`; without one, libtorch's.
    pub(crate) fn new(
        conv: &Conv2d,
        params: &Params,
        post: Post,
        kind: Type,
        device: Device,
        image: Option<[i64; 3]>,
    ) -> Result<Self, TorchError> {
        let plain = || Ok(Self::Plain(channels_last(params, kind)?.freeze()));
        let Some(image @ [channels, height, width]) = image else { return plain() };
        let convolution = conv.for_kernels(image, kind, kind, device);
        let [one, many] = [1, i64::MAX].map(|batch| convolution.kernel(batch, Purpose::Plan(post)));
        let packed = || -> Result<Params<Frozen>, TorchError> {
            let (geometry, [height, width]) = geometry(conv, [height, width]);
            let own = channels_last(params, kind)?;
            Ok(Params { weight: onednn::pack_conv(&own.weight, &geometry, [1, channels, height, width])?, ..own }.freeze())
        };
        match many {
            Choice::Pointwise | Choice::Windows => {
                Ok(Self::Product(pointwise::Weight::new(&params.weight.f_to_kind(kind)?, params.bias.as_ref())?))
            }
            Choice::Winograd => Ok(Self::Winograd {
                weight: winograd::Weight::new(&params.weight)?,
                bias: params.cast(Type::Float)?.freeze().bias,
                few: (one != many).then(packed).transpose()?,
            }),
            Choice::OneDnn => Ok(Self::OneDnn(packed()?)),
            Choice::CuDnn if cudnn::available() => {
                Ok(Self::CuDnn { params: channels_last(params, kind)?.freeze(), refused: AtomicBool::new(false) })
            }
            _ => plain(),
        }
    }

    /// For images whose bytes have this scale.
    pub(crate) fn int8(
        conv: &Conv2d,
        params: &Params,
        scale: Scale,
        [channels, height, width]: [i64; 3],
    ) -> Result<Self, TorchError> {
        let (geometry, [height, width]) = geometry(conv, [height, width]);
        let size = [1, channels, height, width];
        Ok(Self::Int8(int8::Conv::new(&params.weight, params.bias.as_ref(), &geometry, scale, size)?))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Winograd { .. } => "Winograd",
            Self::Product(weight) if weight.kernel_size() == [1, 1] => "pointwise",
            Self::Product(_) => "windows",
            Self::OneDnn(_) | Self::Int8(_) => "oneDNN",
            Self::CuDnn { refused, .. } if !refused.load(Ordering::Relaxed) => "cuDNN",
            Self::CuDnn { .. } | Self::Plain(_) => "",
        }
    }
}

impl Conv {
    pub(crate) fn run(&self, inputs: &[Tensor], in_place: bool, scales: Option<&Scales>) -> Result<Tensor, LayerError> {
        let [_, height, width] = Shape::of_batch(&inputs[0]).as_image()?;
        let (geometry, padded) = geometry(&self.conv, [height, width]);
        let mut input = inputs[0].shallow_clone();
        if padded != [height, width] {
            let ((top, bottom), (left, right)) = (self.conv.pads(0, height), self.conv.pads(1, width));
            let zero = if input.kind() == Type::Uint8 { scales.map(|scales| scales.inputs[0].zero_point as f64) } else { None };
            input = input.f_pad([left, right, top, bottom], "constant", zero)?;
        }
        if memory_format(&input).is_none() && !matches!(self.kernel, Kernel::Product(_)) {
            // The other kernels would copy some channels of other pixels more slowly.
            input = pixels::concat_channels(std::slice::from_ref(&input)).unwrap_or(input);
        }
        let (other, sum) = (inputs.get(1).filter(|_| self.sum), Sum { relu: self.post == Post::Relu, in_place });
        let Params { weight, bias } = match &self.kernel {
            Kernel::Winograd { weight, bias, few } => match few.as_ref().filter(|_| !self.has_many_tiles(&input)) {
                Some(few) => few,
                None => return Ok(weight.conv(&input, bias.as_deref(), geometry.padding, other, sum)?),
            },
            Kernel::Product(weight) => return Ok(weight.conv(&input, geometry.stride, geometry.padding, other, sum)?),
            Kernel::Int8(conv) => {
                return match (scales, other) {
                    (Some(scales), Some(other)) => {
                        Ok(conv.forward_add(&input, &geometry, (other, scales.inputs[1]), scales.output, sum)?)
                    }
                    _ => finish(self.post, conv.forward(&input, &geometry, sum.relu, scales.and_then(Scales::of_output))?),
                };
            }
            Kernel::CuDnn { params, refused } => {
                if !refused.load(Ordering::Relaxed) {
                    let Params { weight, bias } = params;
                    match cudnn::conv_relu(&input, weight, bias.as_deref(), &geometry, other) {
                        Err(error) if !error.is_out_of_memory() => refused.store(true, Ordering::Relaxed),
                        done => return Ok(done?),
                    }
                }
                return self.plain(&input, params, geometry, other);
            }
            Kernel::Plain(params) => return self.plain(&input, params, geometry, other),
            Kernel::OneDnn(params) => params,
        };
        Ok(match other {
            Some(other) => onednn::conv_add(&input, weight, bias.as_deref(), &geometry, other, sum)?,
            None => onednn::conv(&input, weight, bias.as_deref(), &geometry, self.post)?,
        })
    }

    /// By libtorch's operators.
    fn plain(
        &self,
        input: &Tensor,
        Params { weight, bias }: &Params<Frozen>,
        geometry: Geometry,
        other: Option<&Tensor>,
    ) -> Result<Tensor, LayerError> {
        let Geometry { padding, stride, dilation, groups } = geometry;
        let mut output = input.f_conv2d(weight, bias.as_deref(), stride, padding, dilation, groups)?;
        if let Some(other) = other {
            output = output.f_add_(other)?;
        }
        apply(self.post, output)
    }

    /// Whether Winograd's algorithm is the fastest for a batch.
    fn has_many_tiles(&self, batch: &Tensor) -> bool {
        Shape::of_batch(batch).as_image().is_ok_and(|image| {
            let convolution = self.conv.for_kernels(image, batch.kind(), batch.kind(), batch.device());
            convolution.kernel(batch.size()[0], Purpose::Plan(self.post)) == Choice::Winograd
        })
    }
}

/// A copy in this type whose weight is channels-last.
fn channels_last(params: &Params, kind: Type) -> Result<Params, TorchError> {
    let own = params.cast(kind)?;
    Ok(Params { weight: to_memory_format(&own.weight, MemoryFormat::ChannelsLast)?, ..own })
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::testing::{conv, network, steps};
    use striate_layers::{Conv2d, Forward, Layer, LayerError, Mode, Op, Shape};
    use tch::Tensor;

    /// A layer of a user's own that gives images channel by channel.
    #[derive(Debug)]
    struct Contiguous;

    impl Layer for Contiguous {
        fn name(&self) -> &'static str {
            "Contiguous"
        }

        fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
            Ok(inputs[0].clone())
        }
    }

    impl Forward for Contiguous {
        fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
            Ok(inputs[0].f_contiguous()?)
        }
    }

    #[test]
    fn maps_may_lie_in_any_way() {
        let network = network(|net, x| {
            let x = net.add("conv", conv(), x)?;
            let x = net.add("contiguous", Op::custom(Contiguous), x)?;
            net.add("one", Conv2d::new(3, 1), x)
        });
        assert_eq!(steps(&network), ["Conv2d conv", "Contiguous contiguous", "Conv2d one"]);
    }
}
