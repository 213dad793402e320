use crate::shape::{check_values, numel};
use crate::{Fans, Init, LayerError, Pair, Shape};
use serde_json::Value;
use tch::Tensor;

/// Whether a forward pass trains or evaluates: what dropout and batch norm ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dropout drops; batch norm uses the batch's statistics and updates its running ones.
    Train,
    /// Dropout passes; batch norm uses its running statistics.
    Eval,
}

impl Mode {
    /// Whether this is [`Mode::Train`].
    pub fn is_train(self) -> bool {
        self == Self::Train
    }
}

/// What a parameter is to training and to a file of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Trained by gradients.
    Trainable,
    /// Floating-point state, or fixed values, that no gradient trains.
    Buffer,
    /// An int64 scalar.
    Counter,
}

/// One parameter that a layer needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Its name within the layer, as PyTorch has it: `weight`, `bias`, `running_mean`.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<i64>,
    /// How it starts.
    pub init: Init,
    /// The fans that `init` scales by.
    pub fans: Fans,
    /// Whether it is trained.
    pub kind: ParamKind,
}

impl ParamSpec {
    /// A parameter that gradients train.
    pub fn trainable(name: &'static str, shape: impl Into<Vec<i64>>, init: Init, fans: Fans) -> Self {
        Self { name, shape: shape.into(), init, fans, kind: ParamKind::Trainable }
    }

    /// A floating-point tensor that no gradient trains.
    pub fn buffer(name: &'static str, shape: impl Into<Vec<i64>>, init: Init) -> Self {
        Self { name, shape: shape.into(), init, fans: Fans::NONE, kind: ParamKind::Buffer }
    }

    /// The number of values; the largest number where it is larger still.
    pub fn numel(&self) -> i64 {
        numel(&self.shape)
    }
}

/// What one output value of a layer sees of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receptive {
    /// The value at the same place.
    Pointwise,
    /// A window that moves over height and width.
    Window {
        /// Height and width of the window.
        kernel: Pair,
        /// Its step.
        stride: Pair,
        /// The distance between the values that it reads.
        dilation: Pair,
    },
    /// Everything.
    Global,
}

/// What a layer says of itself before anything is allocated: plain data that knows its shapes, parameters and costs.
///
/// `inputs` are the shapes of single examples. `params`, `macs` and `connections` may be called only with inputs that
/// [`infer_shape`] accepts. What it computes is [`Forward`], a trait of its own: graphs and summaries reach a layer through
/// `dyn Layer` alone, and so a program that only describes networks needs no libtorch.
pub trait Layer: std::fmt::Debug + Send + Sync {
    /// The kind of layer, such as `Conv2d`.
    fn name(&self) -> &'static str;

    /// Its options in a few characters for tables, such as `5x5/2`; empty if it has none.
    fn describe(&self) -> String {
        String::new()
    }

    /// All its options as data, from which [`CustomLayers`](crate::CustomLayers) makes the layer again when a file names it; null
    /// if it has none. A layer of your own that says `None` can be used, and not be written to a file.
    fn options(&self) -> Option<Value> {
        None
    }

    /// The shape of the output, or why the inputs don't fit.
    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError>;

    /// The parameters in the order in which [`Forward::forward`] takes them.
    fn params(&self, _inputs: &[Shape]) -> Vec<ParamSpec> {
        Vec::new()
    }

    /// Multiply-adds of convolutions and linear layers for one example; other layers count 0.
    fn macs(&self, _inputs: &[Shape]) -> u64 {
        0
    }

    /// Connections for one example as LeCun counts them: every weight or bias once for each output value that uses it.
    fn connections(&self, _inputs: &[Shape]) -> u64 {
        0
    }

    /// What an output value sees of the inputs.
    fn receptive(&self, _inputs: &[Shape]) -> Receptive {
        Receptive::Pointwise
    }
}

/// A layer that computes, with parameters that others keep.
///
/// All built-in layers implement it, and so can yours: a network takes any `Forward` through [`crate::Op::custom`].
pub trait Forward: Layer {
    /// Computes the output from the parameters (in the order of [`Layer::params`]) and the inputs, each with the batch as its
    /// first dimension.
    fn forward(&self, params: &[Tensor], inputs: &[&Tensor], mode: Mode) -> Result<Tensor, LayerError>;
}

/// The shape of a layer's output. Fails if the inputs don't fit the layer, and if its output or a parameter would be larger than
/// any can be (see [`Shape::check`]).
pub fn infer_shape(layer: &dyn Layer, inputs: &[Shape]) -> Result<Shape, LayerError> {
    let shape = layer.output_shape(inputs)?;
    shape.check()?;
    for param in layer.params(inputs) {
        check_values(&format!("{} {:?}", param.name, param.shape), &param.shape)?;
    }
    Ok(shape)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{AdaptiveAvgPool2d, Concat, Conv2d, Flatten, Linear, LocalResponseNorm, MaxPool2d, PadShortcut, Padding};

    /// Nothing overflows on the way to the refusal.
    #[test]
    fn sizes_that_nothing_can_have_are_refused() {
        const HUGE: i64 = i64::MAX;
        let told = |layer: &dyn Layer, input: &[i64]| {
            let inputs = vec![Shape::new(input); if layer.name() == "Concat" { 2 } else { 1 }];
            infer_shape(layer, &inputs).unwrap_err().to_string()
        };
        let image = [3, 8, 8];
        let most = "must be at most 2147483647";
        assert_eq!(told(&Linear::new(HUGE), &[3]), format!("out_features = {HUGE} {most}"));
        assert_eq!(told(&Conv2d::new(HUGE, 3), &image), format!("out_channels = {HUGE} {most}"));
        assert_eq!(told(&Conv2d::new(1, 3).padding(HUGE / 2), &image), format!("padding = {} {most}", HUGE / 2));
        assert_eq!(told(&Conv2d::new(1, 3).padding(-1), &image), "padding = -1 must be at least 0");
        let options: [Box<dyn Layer>; 6] = [
            Box::new(Conv2d::new(1, HUGE)),
            Box::new(Conv2d::new(1, 3).stride(HUGE).padding(Padding::Same)),
            Box::new(Conv2d::new(1, 3).dilation(HUGE)),
            Box::new(MaxPool2d::new(HUGE).padding(HUGE / 2)),
            Box::new(AdaptiveAvgPool2d::new(HUGE)),
            Box::new(LocalResponseNorm::new(HUGE)),
        ];
        for layer in options {
            assert!(told(&*layer, &image).ends_with(most), "{layer:?}");
        }
        assert_eq!(told(&PadShortcut::new(HUGE, 1), &image), format!("out_channels = {HUGE} {most}"));

        let dimension = "has a dimension of 9223372036854775807: each must be from 1 to 2147483647";
        let inputs: [&dyn Layer; 5] = [&Conv2d::same(1, 3), &MaxPool2d::new(2), &PadShortcut::new(3, 2), &Concat, &Flatten];
        for layer in inputs {
            assert!(told(layer, &[3, HUGE, 4]).ends_with(dimension), "{layer:?}");
        }
        assert!(told(&Linear::new(2), &[-3]).contains("has a dimension of -3"));
        assert!(told(&MaxPool2d::new(2), &[0, 8, 8]).contains("has a dimension of 0"));

        let side = 1 << 30;
        let large = "has over 1099511627776 values: use a smaller input or a narrower layer";
        assert_eq!(told(&Conv2d::new(6, 1), &[1, side, side]), format!("the shape [6, {side}, {side}] {large}"));
        assert_eq!(told(&Linear::new(side), &[side]), format!("weight [{side}, {side}] {large}"));
        assert!(told(&Conv2d::new(side, side).padding(side), &[1, 1, 1]).ends_with(large));
    }
}
