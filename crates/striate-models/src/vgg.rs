//! VGG (Simonyan and Zisserman 2014: Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556,
//! table 1).
//!
//! `vgg11`, `vgg13`, `vgg16` and `vgg19` are columns A, B, D and E, `vgg16-c` is column C with its 1x1 convolutions, `-bn`
//! adds batch norm after each convolution. Convolutions pad by 1, so that a 3x3 kernel keeps height and width.
use crate::{Architecture, Paper, Variant};
use crate::{registry::FOR_TESTS, variant};
use serde::{Deserialize, Serialize};
use striate_graph::{GraphError, NetworkBuilder, Value};
use striate_layers::{Activation, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Fan, Flatten, Init, Linear, MaxPool2d};

const PAPER: &Paper = &Paper {
    authors: "Simonyan, Zisserman",
    year: 2014,
    title: "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    arxiv: Some("1409.1556"),
};

/// An entry of the table: name, what it is, configuration.
macro_rules! vgg {
    ($name:literal, $about:literal, $config:expr) => {
        variant!($name, "VGG", PAPER, $about, VggConfig, $config)
    };
}

const HE_INIT: &str =
    "weights start from He's initialisation, as in torchvision, where the paper starts deep networks from trained shallow ones";
const ADAPTIVE: &str = "adaptive pooling before the classifier lets other image sizes in, as in torchvision";
const BATCH_NORM: &str = "batch norm after each convolution";

pub(crate) const VARIANTS: &[Variant] = &[
    vgg!("vgg11", "11 layers", VggConfig::new(A))
        .at("table 1, column A")
        .deviates(&[HE_INIT, ADAPTIVE])
        .torchvision("vgg11", &[]),
    vgg!("vgg11-bn", "11 layers with batch norm", VggConfig::new(A).bn())
        .at("table 1, column A")
        .deviates(&[BATCH_NORM, HE_INIT, ADAPTIVE])
        .torchvision("vgg11_bn", &[]),
    vgg!("vgg13", "13 layers", VggConfig::new(B))
        .at("table 1, column B")
        .deviates(&[HE_INIT, ADAPTIVE])
        .torchvision("vgg13", &[]),
    vgg!("vgg13-bn", "13 layers with batch norm", VggConfig::new(B).bn())
        .at("table 1, column B")
        .deviates(&[BATCH_NORM, HE_INIT, ADAPTIVE])
        .torchvision("vgg13_bn", &[]),
    vgg!("vgg16", "16 layers", VggConfig::new(D))
        .at("table 1, column D")
        .deviates(&[HE_INIT, ADAPTIVE])
        .torchvision("vgg16", &[]),
    vgg!("vgg16-bn", "16 layers with batch norm", VggConfig::new(D).bn())
        .at("table 1, column D")
        .deviates(&[BATCH_NORM, HE_INIT, ADAPTIVE])
        .torchvision("vgg16_bn", &[]),
    vgg!("vgg16-c", "16 layers, three of them 1x1 convolutions", VggConfig::column_c())
        .at("table 1, column C")
        .deviates(&[HE_INIT, ADAPTIVE]),
    vgg!("vgg19", "19 layers", VggConfig::new(E))
        .at("table 1, column E")
        .deviates(&[HE_INIT, ADAPTIVE])
        .torchvision("vgg19", &[]),
    vgg!("vgg19-bn", "19 layers with batch norm", VggConfig::new(E).bn())
        .at("table 1, column E")
        .deviates(&[BATCH_NORM, HE_INIT, ADAPTIVE])
        .torchvision("vgg19_bn", &[]),
    vgg!("vgg-tiny", "column A with batch norm and a sixteenth of the filters at 32x32", VggConfig::tiny())
        .deviates(&[FOR_TESTS]),
];

/// Convolutions in each of the five blocks, by the column of table 1; C has those of D.
const A: [i64; 5] = [1, 1, 2, 2, 2];
const B: [i64; 5] = [2, 2, 2, 2, 2];
const D: [i64; 5] = [2, 2, 3, 3, 3];
const E: [i64; 5] = [2, 2, 4, 4, 4];
/// Filters of the blocks in multiples of the first's.
const WIDENING: [i64; 5] = [1, 2, 4, 8, 8];
const KERNEL: i64 = 3;
/// The convolution of a block whose kernel column C shrinks, counted from 0.
const THIRD: i64 = 2;

/// VGG and its variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VggConfig {
    /// Number of classes.
    pub classes: i64,
    /// Channels, height and width of the input: at least 32x32.
    pub input: [i64; 3],
    /// Convolutions in each of the five blocks.
    pub depths: [i64; 5],
    /// Filters of the first block; the later ones have 2, 4, 8 and 8 times as many.
    pub width: i64,
    /// The kernel of the third convolution of a block: 3, or 1 in column C.
    pub third_kernel: i64,
    /// Whether batch norm follows each convolution.
    pub batch_norm: bool,
    /// Height and width of the maps that the classifier reads.
    pub pooled: i64,
    /// Features of the two hidden dense layers.
    pub hidden: i64,
    /// The share of features that dropout drops after each hidden dense layer.
    pub dropout: f64,
}

impl VggConfig {
    /// A column of table 1 by the convolutions in its blocks.
    fn new(depths: [i64; 5]) -> Self {
        Self {
            classes: 1000,
            input: [3, 224, 224],
            depths,
            width: 64,
            third_kernel: KERNEL,
            batch_norm: false,
            pooled: 7,
            hidden: 4096,
            dropout: 0.5,
        }
    }

    /// `vgg11`, column A: 132,863,336 parameters.
    pub fn vgg11() -> Self {
        Self::new(A)
    }

    /// `vgg13`, column B: 133,047,848 parameters.
    pub fn vgg13() -> Self {
        Self::new(B)
    }

    /// `vgg16`, column D: 138,357,544 parameters.
    pub fn vgg16() -> Self {
        Self::new(D)
    }

    /// `vgg16-c`, column C: 133,638,952 parameters.
    pub fn column_c() -> Self {
        Self { third_kernel: 1, ..Self::new(D) }
    }

    /// `vgg19`, column E: 143,667,240 parameters.
    pub fn vgg19() -> Self {
        Self::new(E)
    }

    /// The same with batch norm.
    pub fn bn(self) -> Self {
        Self { batch_norm: true, ..self }
    }

    /// `vgg-tiny`: for tests.
    pub fn tiny() -> Self {
        Self { classes: 10, input: [3, 32, 32], width: 4, pooled: 1, hidden: 32, ..Self::vgg11().bn() }
    }

    /// Two hidden dense layers with dropout, then the logits.
    fn classifier(&self, net: &mut NetworkBuilder, mut x: Value) -> Result<Value, GraphError> {
        let linear = |features| Linear::new(features).init(Init::Normal { mean: 0.0, std: 0.01 }, Init::zeros());
        let mut classifier = net.sequential("classifier");
        for _ in 0..2 {
            x = classifier.add(linear(self.hidden), x)?; // [4096]
            x = classifier.add(Activation::Relu, x)?;
            x = classifier.add(Dropout::new(self.dropout), x)?;
        }
        classifier.add(linear(self.classes), x) // [classes]
    }
}

impl Architecture for VggConfig {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        let mut x = net.input(self.input); // [3, 224, 224]
        let mut features = net.sequential("features");
        for (convs, widening) in self.depths.into_iter().zip(WIDENING) {
            for conv in 0..convs {
                let kernel = if conv == THIRD { self.third_kernel } else { KERNEL };
                let conv = Conv2d::new(self.width.saturating_mul(widening), kernel).padding(kernel / 2);
                x = features.add(conv.init(Init::he_normal(Fan::Out), Init::zeros()), x)?; // [width, H, W]
                if self.batch_norm {
                    x = features.add(BatchNorm2d::new(), x)?;
                }
                x = features.add(Activation::Relu, x)?;
            }
            x = features.add(MaxPool2d::new(2), x)?; // [width, H/2, W/2]
        }
        let x = net.add("avgpool", AdaptiveAvgPool2d::new(self.pooled), x)?; // [512, 7, 7]
        let x = net.add("flatten", Flatten, x)?; // [25088]
        let x = self.classifier(net, x)?;
        net.output("logits", x)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::Graph;

    fn graph(config: &VggConfig) -> Graph {
        Graph::build(|net| config.define(net)).unwrap()
    }

    /// The course of the paper: height and width halve, channels double, five times over.
    #[test]
    fn blocks_halve_the_map_and_double_the_channels() {
        let graph = graph(&VggConfig::vgg16());
        let pools = graph.nodes().iter().filter(|node| node.op_name() == "MaxPool2d");
        let shapes: Vec<[i64; 3]> = pools.map(|pool| pool.shape.as_image().unwrap()).collect();
        assert_eq!(shapes, [[64, 112, 112], [128, 56, 56], [256, 28, 28], [512, 14, 14], [512, 7, 7]]);
    }

    /// Section 2.3: two 3x3 convolutions see what a 5x5 sees, three what a 7x7 sees.
    #[test]
    fn a_stack_of_3x3_sees_as_far_as_one_large_kernel() {
        let summary = graph(&VggConfig { depths: [3, 1, 1, 1, 1], ..VggConfig::tiny() }).summary();
        let convs = summary.layers.iter().filter(|layer| layer.op == "Conv2d").take(3);
        assert_eq!(convs.map(|layer| layer.receptive_field[0]).collect::<Vec<_>>(), [3, 5, 7]);
    }

    #[test]
    fn column_c_has_1x1_as_third_convolutions() {
        let summary = graph(&VggConfig::column_c()).summary();
        let convs = summary.layers.iter().filter(|layer| layer.op == "Conv2d");
        let small: Vec<bool> = convs.map(|layer| layer.options == "1x1").collect();
        let third: Vec<bool> = D.iter().flat_map(|depth| (0..*depth).map(|conv| conv == 2)).collect();
        assert_eq!(small, third);
    }
}
