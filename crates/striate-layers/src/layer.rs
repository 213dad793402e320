use crate::{Fans, Init, LayerError, Pair, Shape};
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

    /// The number of values.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
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

/// A layer: plain data that knows its shapes, parameters and costs, and computes with parameters that others keep.
///
/// All built-in layers implement it, and so can yours: a network takes any `Layer` through [`crate::Op::custom`].
/// `inputs` are the shapes of single examples; tensors carry the batch as their first dimension. `params`, `macs` and
/// `connections` may be called only with inputs that `output_shape` accepts.
pub trait Layer: std::fmt::Debug + Send + Sync {
    /// The kind of layer, such as `Conv2d`.
    fn name(&self) -> &'static str;

    /// Its options in a few characters for tables, such as `5x5/2`; empty if it has none.
    fn describe(&self) -> String {
        String::new()
    }

    /// The shape of the output, or why the inputs don't fit.
    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError>;

    /// The parameters in the order in which `forward` takes them.
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

    /// What an output value sees of the input.
    fn receptive(&self) -> Receptive {
        Receptive::Pointwise
    }

    /// Computes the output from the parameters (in the order of `params`) and the inputs, each with the batch first.
    fn forward(&self, params: &[Tensor], inputs: &[&Tensor], mode: Mode) -> Result<Tensor, LayerError>;
}
