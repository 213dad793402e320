use crate::shape::{in_range, numel, one, positive};
use crate::{Fans, Forward, Init, Layer, LayerError, Mode, Pair, ParamSpec, Receptive, Shape};
use serde::{Deserialize, Serialize};
use striate_torch::kernels::{Convolution, Kernel, Purpose};
use striate_torch::onednn::Geometry;
use striate_torch::{conv, winograd};
use tch::{Device, Kind, Tensor};

/// The zeros around an image before a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// This many on each side of height and width; 0 is a "valid" convolution.
    Explicit(Pair),
    /// As many as make the output `ceil(input / stride)` high and wide; an odd one goes to the bottom and right, as PyTorch's
    /// `padding="same"` does. For a 3x3 kernel at stride 1 it is 1.
    Same,
}

impl From<Pair> for Padding {
    fn from(pair: Pair) -> Self {
        Self::Explicit(pair)
    }
}

impl From<i64> for Padding {
    fn from(both: i64) -> Self {
        Self::Explicit(both.into())
    }
}

impl From<[i64; 2]> for Padding {
    fn from(pair: [i64; 2]) -> Self {
        Self::Explicit(pair.into())
    }
}

/// Two-dimensional convolution: `[N, C, H, W]` to `[N, out_channels, H', W']`, as `torch.nn.Conv2d`.
///
/// The number of input channels is inferred. Parameters: `weight` `[out_channels, C / groups, kernel height, kernel width]`
/// and, unless switched off, `bias` `[out_channels]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Channels of the output.
    pub out_channels: i64,
    /// Height and width of the kernel.
    pub kernel_size: Pair,
    /// The kernel's step.
    pub stride: Pair,
    /// Zeros around the input.
    pub padding: Padding,
    /// The distance between the values that the kernel reads.
    pub dilation: Pair,
    /// Groups of channels that are convolved apart; both channel counts must be multiples of it.
    pub groups: i64,
    /// Whether a bias is added.
    pub bias: bool,
    /// How `weight` starts.
    pub weight_init: Init,
    /// How `bias` starts.
    pub bias_init: Init,
}

impl Conv2d {
    /// A convolution with stride 1, no padding, one group and a bias.
    pub fn new(out_channels: i64, kernel_size: impl Into<Pair>) -> Self {
        Self {
            out_channels,
            kernel_size: kernel_size.into(),
            stride: 1.into(),
            padding: 0.into(),
            dilation: 1.into(),
            groups: 1,
            bias: true,
            weight_init: Init::pytorch(),
            bias_init: Init::pytorch(),
        }
    }

    /// A convolution whose output is as high and wide as its input.
    pub fn same(out_channels: i64, kernel_size: impl Into<Pair>) -> Self {
        Self::new(out_channels, kernel_size).padding(Padding::Same)
    }

    /// Sets the stride.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: stride.into(), ..self }
    }

    /// Sets the padding.
    pub fn padding(self, padding: impl Into<Padding>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// Sets the dilation.
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Self { dilation: dilation.into(), ..self }
    }

    /// Sets the number of groups.
    pub fn groups(self, groups: i64) -> Self {
        Self { groups, ..self }
    }

    /// Leaves the bias out, as before a batch norm.
    pub fn no_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// Sets how the weights and the biases start.
    pub fn init(self, weight_init: Init, bias_init: Init) -> Self {
        Self { weight_init, bias_init, ..self }
    }

    fn weight_shape(&self, in_channels: i64) -> [i64; 4] {
        [self.out_channels, in_channels / self.groups, self.kernel_size.0[0], self.kernel_size.0[1]]
    }

    /// Zeros before and after an input of this size along one axis (0 is height, 1 width).
    pub fn pads(&self, axis: usize, size: i64) -> (i64, i64) {
        match self.padding {
            Padding::Explicit(pair) => (pair.0[axis], pair.0[axis]),
            Padding::Same => {
                let span = self.span(axis);
                let outputs = (size + self.stride.0[axis] - 1) / self.stride.0[axis];
                let total = ((outputs - 1) * self.stride.0[axis] + span - size).max(0);
                (total / 2, total - total / 2)
            }
        }
    }

    /// What the kernel covers along one axis, dilation included.
    fn span(&self, axis: usize) -> i64 {
        self.dilation.0[axis] * (self.kernel_size.0[axis] - 1) + 1
    }

    /// What the choice of its kernel depends on, for images `[C, H, W]` of this type: see [`striate_torch::kernels`].
    pub fn for_kernels(&self, [channels, height, width]: [i64; 3], kind: Kind, weight_kind: Kind, device: Device) -> Convolution {
        Convolution {
            in_channels: channels,
            out_channels: self.out_channels,
            kernel_size: self.kernel_size.0,
            stride: self.stride.0,
            dilation: self.dilation.0,
            pads: [self.pads(0, height), self.pads(1, width)],
            groups: self.groups,
            image: [height, width],
            kind,
            weight_kind,
            device,
        }
    }

    /// What [`Forward::forward`] computes, with gradients, by the kernel that [`striate_torch::kernels`] names for training.
    pub fn forward_fast(&self, params: &[Tensor], input: &Tensor, mode: Mode) -> Result<Tensor, LayerError> {
        let &[batch, channels, height, width] = input.size().as_slice() else {
            return self.forward(params, &[input], mode);
        };
        let convolution = self.for_kernels([channels, height, width], input.kind(), params[0].kind(), input.device());
        let padding = convolution.pads.map(|(before, _)| before);
        match convolution.kernel(batch, Purpose::Training) {
            Kernel::Winograd => Ok(winograd::conv(input, &params[0], params.get(1), padding)?),
            Kernel::Windows => {
                let geometry = Geometry { padding, stride: self.stride.0, dilation: self.dilation.0, groups: self.groups };
                Ok(conv::conv(input, &params[0], params.get(1), &geometry)?)
            }
            _ => self.forward(params, &[input], mode),
        }
    }

    /// The ReLU of [`forward_fast`](Self::forward_fast), of images that it computes in type `kind`: on CUDA devices in one operator,
    /// where [`conv::takes_relu`] says so.
    pub fn forward_relu(&self, params: &[Tensor], input: &Tensor, kind: Kind) -> Result<Tensor, LayerError> {
        if let ([weight, bias], &[batch, channels, height, width]) = (params, input.size().as_slice()) {
            let pads = [self.pads(0, height), self.pads(1, width)];
            let output = self.output_shape(&[Shape::image(channels, height, width)])?.as_image()?;
            let evenly = pads.iter().all(|(before, after)| before == after);
            if evenly && self.groups == 1 && conv::takes_relu(input.device(), kind, [batch, output[0], output[1], output[2]]) {
                let padding = pads.map(|(before, _)| before);
                let geometry = Geometry { padding, stride: self.stride.0, dilation: self.dilation.0, groups: self.groups };
                return Ok(conv::conv_relu(input, weight, bias, &geometry)?);
            }
        }
        Ok(self.forward_fast(params, input, Mode::Train)?.f_relu_()?)
    }

    fn check_options(&self, in_channels: i64) -> Result<(), LayerError> {
        positive("out_channels", self.out_channels)?;
        for axis in 0..2 {
            positive("kernel_size", self.kernel_size.0[axis])?;
            positive("stride", self.stride.0[axis])?;
            positive("dilation", self.dilation.0[axis])?;
        }
        for (channels, count) in [("input", in_channels), ("output", self.out_channels)] {
            divides_channels(self.groups, count, channels)?;
        }
        match self.padding {
            Padding::Explicit(pair) => pair.0.iter().try_for_each(|pad| in_range("padding", 0, *pad)),
            Padding::Same => Ok(()),
        }
    }
}

/// Refuses a number of groups that can't share the channels evenly.
pub(crate) fn divides_channels(groups: i64, count: i64, channels: &str) -> Result<(), LayerError> {
    positive("groups", groups)?;
    if count % groups == 0 {
        return Ok(());
    }
    Err(LayerError::option(format!("groups = {groups}"), format!("does not divide the {count} {channels} channels")))
}

impl Layer for Conv2d {
    fn name(&self) -> &'static str {
        "Conv2d"
    }

    fn describe(&self) -> String {
        describe_window(self.kernel_size, self.stride)
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let input = one(inputs)?;
        let [channels, height, width] = input.as_image()?;
        self.check_options(channels)?;
        let mut out = [height, width];
        for (axis, size) in out.iter_mut().enumerate() {
            let (before, after) = self.pads(axis, *size);
            let room = *size + before + after - self.span(axis);
            if room < 0 {
                return Err(LayerError::TooSmall { height: self.span(0), width: self.span(1), got: input.clone() });
            }
            *size = room / self.stride.0[axis] + 1;
        }
        Ok(Shape::image(self.out_channels, out[0], out[1]))
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let weight = self.weight_shape(inputs[0].dims()[0]);
        let area = weight[2] * weight[3];
        let fans = Fans { fan_in: weight[1].saturating_mul(area), fan_out: weight[0].saturating_mul(area) };
        let mut params = vec![ParamSpec::trainable("weight", weight, self.weight_init.clone(), fans)];
        if self.bias {
            params.push(ParamSpec::trainable("bias", [self.out_channels], self.bias_init.clone(), fans));
        }
        params
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        let fan_in = numel(&self.weight_shape(inputs[0].dims()[0])[1..]);
        output_numel(self, inputs).saturating_mul(fan_in.unsigned_abs())
    }

    fn connections(&self, inputs: &[Shape]) -> u64 {
        self.macs(inputs).saturating_add(u64::from(self.bias) * output_numel(self, inputs))
    }

    fn receptive(&self, _inputs: &[Shape]) -> Receptive {
        Receptive::Window { kernel: self.kernel_size, stride: self.stride, dilation: self.dilation }
    }
}

impl Forward for Conv2d {
    fn forward(&self, params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        let (height, width) = match input.size().as_slice() {
            [_, _, height, width] => (*height, *width),
            _ => return Err(LayerError::InputShape { expected: "[C, H, W]".to_owned(), got: Shape::of_batch(input) }),
        };
        let (top, bottom) = self.pads(0, height);
        let (left, right) = self.pads(1, width);
        let convolve = |input: &Tensor, padding: [i64; 2]| {
            input.f_conv2d(&params[0], params.get(1), self.stride.0, padding, self.dilation.0, self.groups)
        };
        if top == bottom && left == right {
            return Ok(convolve(input, [top, left])?);
        }
        Ok(convolve(&input.f_constant_pad_nd([left, right, top, bottom])?, [0, 0])?)
    }
}

/// The number of output values for one example; inputs must have been accepted before.
pub(crate) fn output_numel(layer: &dyn Layer, inputs: &[Shape]) -> u64 {
    layer.output_shape(inputs).map_or(0, |shape| shape.numel().unsigned_abs())
}

pub(crate) fn describe_window(kernel: Pair, stride: Pair) -> String {
    let [height, width] = stride.0;
    match (height, width) {
        (1, 1) => kernel.to_string(),
        _ if height == width => format!("{kernel}/{height}"),
        _ => format!("{kernel}/{stride}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(conv: &Conv2d, input: [i64; 3]) -> Result<Shape, LayerError> {
        conv.output_shape(&[input.into()])
    }

    /// Whichever kernels it takes: Winograd's, our products, our gradients of weights, libtorch's.
    #[test]
    fn fast_is_what_forward_computes() {
        tch::manual_seed(1);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        for (layer, size) in [
            (Conv2d::same(32, 3), [2, 48, 9, 12]),
            (Conv2d::same(32, 3).stride(2), [2, 16, 9, 11]),
            (Conv2d::same(32, 3).stride(2), [2, 16, 8, 12]),
            (Conv2d::new(16, [3, 5]).padding([1, 2]).stride([2, 1]), [1, 32, 9, 7]),
            (Conv2d::new(64, 5).padding(2), [1, 64, 9, 9]),
            (Conv2d::new(64, 3).padding([1, 2]).dilation([1, 2]), [2, 64, 5, 9]),
            (Conv2d::new(48, 1), [3, 32, 5, 7]),
            (Conv2d::new(48, 1).stride(2).no_bias(), [3, 32, 5, 7]),
            (Conv2d::new(32, 3).groups(2), [2, 32, 7, 7]),
            (Conv2d::new(24, 3), [2, 8, 7, 7]),
        ] {
            let leaf = |size: &[i64]| random(size).set_requires_grad(true);
            let (mut params, images) = (vec![leaf(&layer.weight_shape(size[1]))], random(&size));
            params.extend(layer.bias.then(|| leaf(&[layer.out_channels])));
            for (kind, most) in [(Kind::Float, 1e-5), (Kind::BFloat16, 1e-2)] {
                let _autocast = striate_torch::autocast(Device::Cpu, kind);
                let images =
                    striate_torch::to_memory_format(&images.to_kind(kind), striate_torch::MemoryFormat::ChannelsLast).unwrap();
                let both = |y: Tensor| {
                    let sum = (&y * y.detach()).sum(Kind::Float);
                    let mut values = Tensor::run_backward(&[sum], &params, false, false);
                    values.push(y);
                    values
                };
                let expected = both(layer.forward(&params, &[&images], Mode::Train).unwrap());
                let got = both(layer.forward_fast(&params, &images, Mode::Train).unwrap());
                assert_eq!(layer.forward_relu(&params, &images, kind).unwrap(), got[got.len() - 1].relu());
                for (got, expected) in got.iter().zip(&expected) {
                    assert_eq!((got.size(), got.kind()), (expected.size(), expected.kind()));
                    let off = ((got - expected).abs().sum(Kind::Double) / expected.abs().sum(Kind::Double)).double_value(&[]);
                    assert!(off < most, "{layer:?} {size:?} {kind:?}: {off:.1e}");
                }
            }
        }
    }

    #[test]
    fn same_padding_of_a_3x3_is_1() {
        let same = Conv2d::same(8, 3);
        assert_eq!(same.pads(0, 224), (1, 1));
        assert_eq!(shape(&same, [3, 224, 224]).unwrap(), Shape::image(8, 224, 224));
        assert_eq!(Conv2d::same(8, 2).pads(0, 5), (0, 1));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let error = shape(&Conv2d::new(8, 5), [16, 4, 9]).unwrap_err().to_string();
        assert!(error.contains("[16, 4, 9]") && error.contains("5x5"), "{error}");
        let error = shape(&Conv2d::new(8, 3).groups(3), [16, 9, 9]).unwrap_err().to_string();
        assert_eq!(error, "groups = 3 does not divide the 16 input channels");
        assert!(shape(&Conv2d::new(8, 3).stride(0), [16, 9, 9]).is_err());
        assert!(shape(&Conv2d::new(8, 3).padding(-1), [16, 9, 9]).is_err());
        let flat = Conv2d::new(8, 3).output_shape(&[Shape::vector(10)]).unwrap_err().to_string();
        assert_eq!(flat, "expected an input of shape [C, H, W], got [10]");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// The inferred shape is the one that libtorch computes, for any options that fit.
        #[test]
        fn the_inferred_shape_is_what_comes_out(
            kernel in [1i64..5, 1i64..5], stride in [1i64..4, 1i64..4], dilation in [1i64..3, 1i64..3],
            same in any::<bool>(), pad in [0i64..3, 0i64..3], size in [1i64..14, 1i64..14], groups in 1i64..3,
        ) {
            let padding = if same { Padding::Same } else { pad.into() };
            let conv = Conv2d::new(4, kernel).stride(stride).dilation(dilation).padding(padding).groups(groups);
            let input = Tensor::ones([2, 4, size[0], size[1]], (Kind::Float, Device::Cpu));
            let weight = Tensor::ones(conv.weight_shape(4), (Kind::Float, Device::Cpu));
            let bias = Tensor::zeros([4], (Kind::Float, Device::Cpu));
            let got = conv.forward(&[weight, bias], &[&input], Mode::Eval);
            match shape(&conv, [4, size[0], size[1]]) {
                Ok(shape) => prop_assert_eq!(Shape::of_batch(&got.unwrap()), shape),
                Err(_) => prop_assert!(got.is_err()),
            }
        }
    }
}
