//! The Inception module (Szegedy et al. 2014, arXiv:1409.4842, figure 2), and the convolution that every Inception network is
//! made of.
use striate_graph::{GraphError, NetworkBuilder, Value};
use striate_layers::{Activation, BatchNorm2d, Concat, Conv2d, Init, MaxPool2d};

/// Added to the variance in the batch norm of GoogLeNet and Inception-v3 in torchvision.
const BN_EPS: f64 = 1e-3;

/// The deviation of both networks from torchvision.
pub(crate) const TRANSFORM_INPUT: &str =
    "published weights take images of mean 0.5 and standard deviation 0.5, which `transform_input` makes there";

/// A number of channels times a network's width multiplier.
pub(crate) fn scaled(channels: i64, width_multiplier: f64) -> i64 {
    (channels as f64 * width_multiplier).round() as i64
}

/// A convolution with what follows it: a ReLU, and in between, where `batch_norm` is set, batch norm in place of the bias
/// (torchvision's `BasicConv2d`).
#[derive(Debug, Clone, PartialEq)]
pub struct ConvUnit {
    /// Whether batch norm replaces the bias.
    pub batch_norm: bool,
    /// How the kernels start; biases start at zero.
    pub init: Init,
}

impl ConvUnit {
    /// Adds layers `name.conv`, `name.bn` and `name.relu`; the shape is that of `conv`.
    pub fn add(&self, net: &mut NetworkBuilder, name: &str, conv: Conv2d, x: Value) -> Result<Value, GraphError> {
        self.add_in(&mut net.scope(name), conv, x)
    }

    /// Adds layers `conv`, `bn` and `relu` to the scope `unit`.
    pub fn add_in(&self, unit: &mut NetworkBuilder, conv: Conv2d, x: Value) -> Result<Value, GraphError> {
        let conv = Conv2d { bias: !self.batch_norm, ..conv.init(self.init.clone(), Init::zeros()) };
        let mut x = unit.add("conv", conv, x)?;
        if self.batch_norm {
            x = unit.add("bn", BatchNorm2d::new().eps(BN_EPS), x)?;
        }
        unit.add("relu", Activation::Relu, x)
    }
}

/// An Inception module: a 1x1, a 3x3 and a 5x5 convolution and a 3x3 max pooling of one input, side by side, their channels
/// one after another. A `None` leaves out the 1x1 convolution that narrows a branch. Channels are named as in the columns of
/// the paper's Table 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inception {
    /// `#1x1`.
    pub conv1x1: i64,
    /// `#3x3 reduce`.
    pub reduce3x3: Option<i64>,
    /// `#3x3`.
    pub conv3x3: i64,
    /// `#5x5 reduce`.
    pub reduce5x5: Option<i64>,
    /// `#5x5`.
    pub conv5x5: i64,
    /// `pool proj`.
    pub pool_proj: Option<i64>,
    /// Height and width of the third branch's kernel: 5, but 3 in torchvision.
    pub largest_kernel: i64,
}

impl Inception {
    /// Figure 2a, "naive": 1x1, 3x3 and 5x5 convolutions of all channels to these, and the pooled input as it is.
    pub fn naive([conv1x1, conv3x3, conv5x5]: [i64; 3]) -> Self {
        Self { conv1x1, reduce3x3: None, conv3x3, reduce5x5: None, conv5x5, pool_proj: None, largest_kernel: 5 }
    }

    /// Figure 2b, with 1x1 bottlenecks: a row of Table 1 from `#1x1` to `pool proj`.
    pub fn new([conv1x1, reduce3x3, conv3x3, reduce5x5, conv5x5, pool_proj]: [i64; 6]) -> Self {
        let (reduce3x3, reduce5x5, pool_proj) = (Some(reduce3x3), Some(reduce5x5), Some(pool_proj));
        Self { reduce3x3, reduce5x5, pool_proj, ..Self::naive([conv1x1, conv3x3, conv5x5]) }
    }

    /// Adds the module under `name`: `[C, H, W]` to `[C', H, W]`. Branches are named as in torchvision.
    pub fn add(&self, net: &mut NetworkBuilder, name: &str, unit: &ConvUnit, x: Value) -> Result<Value, GraphError> {
        let mut module = net.scope(name);
        let branch1 = unit.add(&mut module, "branch1", Conv2d::new(self.conv1x1, 1), x)?;
        let branch2 = reduced(&mut module, "branch2", unit, self.reduce3x3, Conv2d::same(self.conv3x3, 3), x)?;
        let largest = Conv2d::same(self.conv5x5, self.largest_kernel);
        let branch3 = reduced(&mut module, "branch3", unit, self.reduce5x5, largest, x)?;
        let mut branch4 = module.sequential("branch4");
        let mut pooled = branch4.add(MaxPool2d::new(3).stride(1).padding(1), x)?;
        if let Some(channels) = self.pool_proj {
            pooled = unit.add_in(&mut branch4.scope(), Conv2d::new(channels, 1), pooled)?;
        }
        module.add("concat", Concat, [branch1, branch2, branch3, pooled])
    }
}

/// A branch of one convolution, or of two with a bottleneck of `reduce` channels first.
fn reduced(
    module: &mut NetworkBuilder,
    branch: &str,
    unit: &ConvUnit,
    reduce: Option<i64>,
    conv: Conv2d,
    x: Value,
) -> Result<Value, GraphError> {
    let mut branch = module.sequential(branch);
    let x = match reduce {
        Some(channels) => unit.add_in(&mut branch.scope(), Conv2d::new(channels, 1), x)?,
        None => x,
    };
    unit.add_in(&mut branch.scope(), conv, x)
}
