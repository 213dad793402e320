use crate::conv::describe_window;
use crate::shape::{one, positive};
use crate::{Forward, Layer, LayerError, Mode, Pair, Receptive, Shape};
use serde::{Deserialize, Serialize};
use striate_torch::pixels;
use tch::Tensor;

/// The window of a pooling layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
}

impl Window {
    /// The output of pooling one input: PyTorch's rule, in which a window must start inside the input or its left padding.
    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let input = one(inputs)?;
        let [channels, height, width] = input.as_image()?;
        let mut out = [height, width];
        for (axis, size) in out.iter_mut().enumerate() {
            let [kernel, stride, padding, dilation] =
                [self.kernel_size, self.stride, self.padding, self.dilation].map(|pair| pair.0[axis]);
            positive("kernel_size", kernel)?;
            positive("stride", stride)?;
            positive("dilation", dilation)?;
            if padding < 0 || padding > kernel / 2 {
                let option = format!("padding = {}", self.padding);
                return Err(LayerError::option(option, format!("must be from 0 to half the kernel, {}", self.kernel_size)));
            }
            let room = *size + 2 * padding - dilation * (kernel - 1) - 1;
            let input_end = *size + padding;
            let rounding = if self.ceil_mode { stride - 1 } else { 0 };
            *size = (room + rounding).div_euclid(stride) + 1;
            if self.ceil_mode && (*size - 1) * stride >= input_end {
                *size -= 1;
            }
            if *size < 1 {
                return Err(LayerError::TooSmall { height: self.span(0), width: self.span(1), got: input.clone() });
            }
        }
        Ok(Shape::image(channels, out[0], out[1]))
    }

    fn span(&self, axis: usize) -> i64 {
        self.dilation.0[axis] * (self.kernel_size.0[axis] - 1) + 1
    }

    fn receptive(&self) -> Receptive {
        Receptive::Window { kernel: self.kernel_size, stride: self.stride, dilation: self.dilation }
    }
}

/// The largest value of each window: `[N, C, H, W]` to `[N, C, H', W']`, as `torch.nn.MaxPool2d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool2d {
    /// Height and width of the window.
    pub kernel_size: Pair,
    /// The window's step; windows overlap where it is smaller than the kernel.
    pub stride: Pair,
    /// Minus infinities around the input, at most half the kernel.
    pub padding: Pair,
    /// The distance between the values that the window reads.
    pub dilation: Pair,
    /// Whether a last window that sticks out counts.
    pub ceil_mode: bool,
}

impl MaxPool2d {
    /// Windows side by side: the stride is the kernel size.
    pub fn new(kernel_size: impl Into<Pair>) -> Self {
        let kernel_size = kernel_size.into();
        Self { kernel_size, stride: kernel_size, padding: 0.into(), dilation: 1.into(), ceil_mode: false }
    }

    /// Sets the stride.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: stride.into(), ..self }
    }

    /// Sets the padding.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// Lets a last window stick out of the input.
    pub fn ceil_mode(self) -> Self {
        Self { ceil_mode: true, ..self }
    }

    fn window(&self) -> Window {
        let Self { kernel_size, stride, padding, dilation, ceil_mode } = *self;
        Window { kernel_size, stride, padding, dilation, ceil_mode }
    }

    /// What [`Forward::forward`] computes, with `relu` of what a ReLU gives of the input: by [`pixels::max_pool`], where that takes it.
    pub fn forward_fast(&self, inputs: &[&Tensor], relu: bool) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        let [_, height, width] = self.window().output_shape(&[Shape::of_batch(input)])?.as_image()?;
        let Self {
            kernel_size: Pair(kernel_size), stride: Pair(stride), padding: Pair(padding), dilation: Pair(dilation), ..
        } = *self;
        let window = pixels::Window { kernel_size, stride, padding };
        // Dilated windows could straddle a narrow input without reading it.
        let pooled = if dilation == [1, 1] { pixels::max_pool(input, &window, [height, width], relu) } else { None };
        match pooled {
            Some(pooled) => Ok(pooled),
            None if relu => self.forward(&[], &[&input.f_relu()?], Mode::Train),
            None => self.forward(&[], inputs, Mode::Train),
        }
    }
}

impl Layer for MaxPool2d {
    fn name(&self) -> &'static str {
        "MaxPool2d"
    }

    fn describe(&self) -> String {
        describe_window(self.kernel_size, self.stride)
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        self.window().output_shape(inputs)
    }

    fn receptive(&self, _inputs: &[Shape]) -> Receptive {
        self.window().receptive()
    }
}

impl Forward for MaxPool2d {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        Ok(input.f_max_pool2d(self.kernel_size.0, self.stride.0, self.padding.0, self.dilation.0, self.ceil_mode)?)
    }
}

/// The mean of each window: `[N, C, H, W]` to `[N, C, H', W']`, as `torch.nn.AvgPool2d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool2d {
    /// Height and width of the window.
    pub kernel_size: Pair,
    /// The window's step.
    pub stride: Pair,
    /// Zeros around the input, at most half the kernel.
    pub padding: Pair,
    /// Whether a last window that sticks out counts.
    pub ceil_mode: bool,
    /// Whether the zeros of the padding count in the mean.
    pub count_include_pad: bool,
}

impl AvgPool2d {
    /// Windows side by side: the stride is the kernel size.
    pub fn new(kernel_size: impl Into<Pair>) -> Self {
        let kernel_size = kernel_size.into();
        Self { kernel_size, stride: kernel_size, padding: 0.into(), ceil_mode: false, count_include_pad: true }
    }

    /// Sets the stride.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: stride.into(), ..self }
    }

    /// Sets the padding.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    fn window(&self) -> Window {
        let Self { kernel_size, stride, padding, ceil_mode, .. } = *self;
        Window { kernel_size, stride, padding, dilation: 1.into(), ceil_mode }
    }
}

impl Layer for AvgPool2d {
    fn name(&self) -> &'static str {
        "AvgPool2d"
    }

    fn describe(&self) -> String {
        describe_window(self.kernel_size, self.stride)
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        self.window().output_shape(inputs)
    }

    fn receptive(&self, _inputs: &[Shape]) -> Receptive {
        self.window().receptive()
    }
}

impl Forward for AvgPool2d {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let (kernel, stride, padding) = (self.kernel_size.0, self.stride.0, self.padding.0);
        Ok(one(inputs)?.f_avg_pool2d(kernel, stride, padding, self.ceil_mode, self.count_include_pad, None)?)
    }
}

/// The means of windows chosen so that the output has a given size, whatever the input's: `[N, C, H, W]` to
/// `[N, C, output height, output width]`, as `torch.nn.AdaptiveAvgPool2d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveAvgPool2d {
    /// Height and width of the output.
    pub output_size: Pair,
}

impl AdaptiveAvgPool2d {
    /// Pools to this height and width.
    pub fn new(output_size: impl Into<Pair>) -> Self {
        Self { output_size: output_size.into() }
    }

    /// Global average pooling: one value per channel.
    pub fn global() -> Self {
        Self::new(1)
    }
}

/// The largest values of windows chosen so that the output has a given size: `[N, C, H, W]` to
/// `[N, C, output height, output width]`, as `torch.nn.AdaptiveMaxPool2d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveMaxPool2d {
    /// Height and width of the output.
    pub output_size: Pair,
}

impl AdaptiveMaxPool2d {
    /// Pools to this height and width.
    pub fn new(output_size: impl Into<Pair>) -> Self {
        Self { output_size: output_size.into() }
    }

    /// Global max pooling: one value per channel.
    pub fn global() -> Self {
        Self::new(1)
    }
}

fn adaptive_shape(output_size: Pair, inputs: &[Shape]) -> Result<Shape, LayerError> {
    let [channels, _, _] = one(inputs)?.as_image()?;
    for size in output_size.0 {
        positive("output_size", size)?;
    }
    Ok(Shape::image(channels, output_size.0[0], output_size.0[1]))
}

/// Windows side by side where the output's size divides the input's. Elsewhere windows are of several sizes and overlap: what
/// all of them see stands for each.
fn adaptive_receptive(output_size: Pair, inputs: &[Shape]) -> Receptive {
    let Ok([_, height, width]) = one(inputs).and_then(Shape::as_image) else { return Receptive::Global };
    let (input, output) = ([height, width], output_size.0);
    let divides = [0, 1].iter().all(|axis| output[*axis] > 0 && input[*axis] % output[*axis] == 0);
    if !divides || (output == [1, 1] && input != [1, 1]) {
        return Receptive::Global;
    }
    let kernel = Pair([0, 1].map(|axis| input[axis] / output[axis]));
    Receptive::Window { kernel, stride: kernel, dilation: 1.into() }
}

impl Layer for AdaptiveAvgPool2d {
    fn name(&self) -> &'static str {
        "AdaptiveAvgPool2d"
    }

    fn describe(&self) -> String {
        self.output_size.to_string()
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        adaptive_shape(self.output_size, inputs)
    }

    fn receptive(&self, inputs: &[Shape]) -> Receptive {
        adaptive_receptive(self.output_size, inputs)
    }
}

impl Forward for AdaptiveAvgPool2d {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        Ok(one(inputs)?.f_adaptive_avg_pool2d(self.output_size.0)?)
    }
}

impl Layer for AdaptiveMaxPool2d {
    fn name(&self) -> &'static str {
        "AdaptiveMaxPool2d"
    }

    fn describe(&self) -> String {
        self.output_size.to_string()
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        adaptive_shape(self.output_size, inputs)
    }

    fn receptive(&self, inputs: &[Shape]) -> Receptive {
        adaptive_receptive(self.output_size, inputs)
    }
}

impl Forward for AdaptiveMaxPool2d {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        Ok(one(inputs)?.f_adaptive_max_pool2d(self.output_size.0)?.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    #[test]
    fn alexnets_overlapping_pooling_takes_55_to_27() {
        let pool = MaxPool2d::new(3).stride(2);
        assert_eq!(pool.output_shape(&[Shape::image(96, 55, 55)]).unwrap(), Shape::image(96, 27, 27));
    }

    #[test]
    fn padding_over_half_the_kernel_is_refused() {
        let error = MaxPool2d::new(3).padding(2).output_shape(&[Shape::image(1, 9, 9)]).unwrap_err().to_string();
        assert_eq!(error, "padding = 2x2 must be from 0 to half the kernel, 3x3");
    }

    #[test]
    fn adaptive_pooling_sees_its_windows_where_they_lie_side_by_side() {
        let sees = |size: i64, inputs: [i64; 2]| {
            let input = [Shape::image(3, inputs[0], inputs[1])];
            let (avg, max) = (AdaptiveAvgPool2d::new(size), AdaptiveMaxPool2d::new(size));
            assert_eq!(avg.receptive(&input), max.receptive(&input));
            avg.receptive(&input)
        };
        let window = |kernel: [i64; 2]| Receptive::Window { kernel: kernel.into(), stride: kernel.into(), dilation: 1.into() };
        assert_eq!(sees(7, [7, 7]), window([1, 1]));
        assert_eq!(sees(1, [1, 1]), window([1, 1]));
        assert_eq!(sees(4, [12, 8]), window([3, 2]));
        for (size, inputs) in [(1, [7, 7]), (7, [10, 14]), (8, [1, 1])] {
            assert_eq!(sees(size, inputs), Receptive::Global);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// The inferred shape is the one that libtorch computes, for any window that fits.
        #[test]
        fn the_inferred_shape_is_what_comes_out(
            kernel in [1i64..5, 1i64..5], stride in [1i64..4, 1i64..4], pad in [0i64..3, 0i64..3],
            dilation in 1i64..3, size in [1i64..14, 1i64..14], ceil in any::<bool>(),
        ) {
            let max = MaxPool2d { dilation: dilation.into(), ceil_mode: ceil, ..MaxPool2d::new(kernel).stride(stride).padding(pad) };
            let avg = AvgPool2d { ceil_mode: ceil, ..AvgPool2d::new(kernel).stride(stride).padding(pad) };
            let input = Tensor::ones([2, 3, size[0], size[1]], (Kind::Float, Device::Cpu));
            for pool in [&max as &dyn Forward, &avg] {
                let got = pool.forward(&[], &[&input], Mode::Eval);
                match pool.output_shape(&[Shape::image(3, size[0], size[1])]) {
                    Ok(shape) => prop_assert_eq!(Shape::of_batch(&got.unwrap()), shape),
                    Err(_) => prop_assert!(got.is_err()),
                }
            }
        }
    }
}
