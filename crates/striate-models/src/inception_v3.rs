//! Inception-v3 (Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, arXiv:1512.00567: Rethinking the Inception architecture for
//! computer vision), as torchvision has it: with one auxiliary head, for images of 299x299.
//!
//! Images smaller than 299x299 need `aux_heads` off.
use crate::inception::{TRANSFORM_INPUT, scaled};
use crate::{Architecture, ConvUnit, ModelError, Paper, Variant};
use crate::{registry::FOR_TESTS, variant};
use serde::{Deserialize, Serialize};
use striate_graph::{Graph, GraphError, NetworkBuilder, Value};
use striate_layers::{AdaptiveAvgPool2d, AvgPool2d, Concat, Conv2d, Dropout, Flatten, Init, Linear, MaxPool2d};

const PAPER: &Paper = &Paper {
    authors: "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna",
    year: 2015,
    title: "Rethinking the Inception architecture for computer vision",
    arxiv: Some("1512.00567"),
};

pub(crate) const VARIANTS: &[Variant] = &[
    variant!(
        "inception-v3",
        "Inception-v3",
        PAPER,
        "as in torchvision: factorised convolutions, batch norm, one auxiliary head",
        InceptionV3Config,
        InceptionV3Config::torchvision()
    )
    .at("table 1")
    .deviates(&[
        "the loss of the auxiliary head counts 0.4, which the paper leaves open",
        "weights start from a normal distribution of standard deviation 0.1, cut off at 2, as in torchvision",
    ])
    .torchvision("inception_v3", &[TRANSFORM_INPUT]),
    variant!(
        "inception-v3-tiny",
        "Inception-v3",
        PAPER,
        "torchvision's with an eighth of the channels at 75x75, no auxiliary head",
        InceptionV3Config,
        InceptionV3Config::tiny()
    )
    .deviates(&[FOR_TESTS]),
];

/// Channels of the pooled branch of modules 5b to 5d, and of the factorised 7x7 convolutions of modules 6b to 6e.
const STAGE5: [(&str, i64); 3] = [("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)];
const STAGE6: [(&str, i64); 4] = [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)];
/// What the auxiliary head's loss counts: the paper gives no figure, this is the one of PyTorch's fine-tuning tutorial.
const AUX_WEIGHT: f64 = 0.4;
/// torchvision's initial weights: normals cut off at 2, with this standard deviation, and a smaller one in the last layer of
/// the auxiliary head.
const INIT_STD: f64 = 0.1;
const AUX_INIT_STD: f64 = 0.001;
const INIT_BOUND: f64 = 2.0;

/// Inception-v3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InceptionV3Config {
    /// Number of classes.
    pub classes: i64,
    /// Channels, height and width of the input: at least 299x299 with an auxiliary head, at least 75x75 without.
    pub input: [i64; 3],
    /// Whether module 6e has an auxiliary head: the output `aux1` in training.
    pub aux_heads: bool,
    /// What the loss of the auxiliary head counts.
    pub aux_weight: f64,
    /// Dropout before the last layer.
    pub dropout: f64,
    /// What the number of channels of every layer is multiplied by.
    pub width_multiplier: f64,
}

impl InceptionV3Config {
    /// `inception-v3`: 27,161,264 parameters, of which 3,326,696 in the auxiliary head.
    pub fn torchvision() -> Self {
        Self { classes: 1000, input: [3, 299, 299], aux_heads: true, aux_weight: AUX_WEIGHT, dropout: 0.5, width_multiplier: 1.0 }
    }

    /// `inception-v3-tiny`.
    pub fn tiny() -> Self {
        Self { classes: 10, input: [3, 75, 75], aux_heads: false, width_multiplier: 0.125, ..Self::torchvision() }
    }

    /// The network's graph; fails if the input is too small.
    pub fn graph(&self) -> Result<Graph, ModelError> {
        Ok(Graph::build(|net| self.define(net))?)
    }

    /// A module to add layers to.
    fn module<'a>(&self, net: &'a mut NetworkBuilder, name: &str) -> Module<'a> {
        let unit = ConvUnit { batch_norm: true, init: init(INIT_STD) };
        Module { net: net.scope(name), unit, width_multiplier: self.width_multiplier }
    }

    fn stem(&self, net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
        let mut stem = self.module(net, "");
        let x = stem.conv("Conv2d_1a_3x3", Conv2d::new(32, 3).stride(2), x)?; // [32, 149, 149]
        let x = stem.conv("Conv2d_2a_3x3", Conv2d::new(32, 3), x)?; // [32, 147, 147]
        let x = stem.conv("Conv2d_2b_3x3", Conv2d::same(64, 3), x)?; // [64, 147, 147]
        let x = stem.net.add("maxpool1", MaxPool2d::new(3).stride(2), x)?; // [64, 73, 73]
        let x = stem.conv("Conv2d_3b_1x1", Conv2d::new(80, 1), x)?; // [80, 73, 73]
        let x = stem.conv("Conv2d_4a_3x3", Conv2d::new(192, 3), x)?; // [192, 71, 71]
        stem.net.add("maxpool2", MaxPool2d::new(3).stride(2), x) // [192, 35, 35]
    }

    /// The auxiliary head, for 17x17 maps.
    fn aux_head(&self, net: &mut NetworkBuilder, x: Value) -> Result<(), GraphError> {
        let mut head = self.module(net, "AuxLogits");
        let x = head.net.add("avgpool0", AvgPool2d::new(5).stride(3), x)?; // [768, 5, 5]
        let x = head.conv("conv0", Conv2d::new(128, 1), x)?; // [128, 5, 5]
        let x = head.conv("conv1", Conv2d::new(768, 5), x)?; // [768, 1, 1]
        let x = head.net.add("avgpool1", AdaptiveAvgPool2d::global(), x)?;
        let x = head.net.add("flatten", Flatten, x)?; // [768]
        let x = head.net.add("fc", Linear::new(self.classes).init(init(AUX_INIT_STD), Init::pytorch()), x)?;
        net.training_output("aux1", x) // [classes]
    }
}

impl Architecture for InceptionV3Config {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        let x = net.input(self.input); // [3, 299, 299]
        let mut x = self.stem(net, x)?; // [192, 35, 35]
        for (name, pool_features) in STAGE5 {
            x = self.module(net, name).inception_a(pool_features, x)?; // [256 or 288, 35, 35]
        }
        x = self.module(net, "Mixed_6a").inception_b(x)?; // [768, 17, 17]
        for (name, channels_7x7) in STAGE6 {
            x = self.module(net, name).inception_c(channels_7x7, x)?; // [768, 17, 17]
        }
        if self.aux_heads {
            self.aux_head(net, x)?;
        }
        x = self.module(net, "Mixed_7a").inception_d(x)?; // [1280, 8, 8]
        for name in ["Mixed_7b", "Mixed_7c"] {
            x = self.module(net, name).inception_e(x)?; // [2048, 8, 8]
        }
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [2048, 1, 1]
        let x = net.add("dropout", Dropout::new(self.dropout), x)?;
        let x = net.add("flatten", Flatten, x)?; // [2048]
        let x = net.add("fc", Linear::new(self.classes).init(init(INIT_STD), Init::pytorch()), x)?; // [classes]
        net.output("logits", x)
    }

    fn aux_weight(&self) -> f64 {
        self.aux_weight
    }
}

fn init(std: f64) -> Init {
    Init::TruncatedNormal { std, bound: INIT_BOUND }
}

/// A scope that layers are added to, with the network's convolution. Channels are those of the full width.
struct Module<'a> {
    net: NetworkBuilder<'a>,
    unit: ConvUnit,
    width_multiplier: f64,
}

impl Module<'_> {
    fn conv(&mut self, name: &str, conv: Conv2d, x: Value) -> Result<Value, GraphError> {
        let conv = Conv2d { out_channels: scaled(conv.out_channels, self.width_multiplier), ..conv };
        self.unit.add(&mut self.net, name, conv, x)
    }

    /// Convolutions one after another, named `branch_1`, `branch_2`, ...
    fn chain<const N: usize>(&mut self, branch: &str, convs: [Conv2d; N], mut x: Value) -> Result<Value, GraphError> {
        for (index, conv) in convs.into_iter().enumerate() {
            x = self.conv(&format!("{branch}_{}", index + 1), conv, x)?;
        }
        Ok(x)
    }

    /// A 1x1 convolution of 3x3 means.
    fn pooled(&mut self, channels: i64, x: Value) -> Result<Value, GraphError> {
        let x = self.net.add("avgpool", AvgPool2d::new(3).stride(1).padding(1), x)?;
        self.conv("branch_pool", Conv2d::new(channels, 1), x)
    }

    /// A 1x3 and a 3x1 convolution of one input, side by side.
    fn split(&mut self, branch: &str, x: Value) -> Result<Value, GraphError> {
        let a = self.conv(&format!("{branch}a"), Conv2d::same(384, [1, 3]), x)?;
        let b = self.conv(&format!("{branch}b"), Conv2d::same(384, [3, 1]), x)?;
        self.net.add(&format!("{branch}_concat"), Concat, [a, b])
    }

    /// Figure 5: the 5x5 branch of the first module, and one of two 3x3 that see as much.
    fn inception_a(&mut self, pool_features: i64, x: Value) -> Result<Value, GraphError> {
        let conv1x1 = self.conv("branch1x1", Conv2d::new(64, 1), x)?;
        let conv5x5 = self.chain("branch5x5", [Conv2d::new(48, 1), Conv2d::same(64, 5)], x)?;
        let dbl3x3 = [Conv2d::new(64, 1), Conv2d::same(96, 3), Conv2d::same(96, 3)];
        let dbl3x3 = self.chain("branch3x3dbl", dbl3x3, x)?;
        let pool = self.pooled(pool_features, x)?;
        self.net.add("concat", Concat, [conv1x1, conv5x5, dbl3x3, pool])
    }

    /// Figure 10: halves the map.
    fn inception_b(&mut self, x: Value) -> Result<Value, GraphError> {
        let conv3x3 = self.conv("branch3x3", Conv2d::new(384, 3).stride(2), x)?;
        let dbl3x3 = [Conv2d::new(64, 1), Conv2d::same(96, 3), Conv2d::new(96, 3).stride(2)];
        let dbl3x3 = self.chain("branch3x3dbl", dbl3x3, x)?;
        let pool = self.net.add("maxpool", MaxPool2d::new(3).stride(2), x)?;
        self.net.add("concat", Concat, [conv3x3, dbl3x3, pool])
    }

    /// Figure 6: 7x7 convolutions as 1x7 after 7x1.
    fn inception_c(&mut self, channels_7x7: i64, x: Value) -> Result<Value, GraphError> {
        let across = |channels| Conv2d::same(channels, [1, 7]);
        let down = |channels| Conv2d::same(channels, [7, 1]);
        let c7 = channels_7x7;
        let conv1x1 = self.conv("branch1x1", Conv2d::new(192, 1), x)?;
        let conv7x7 = self.chain("branch7x7", [Conv2d::new(c7, 1), across(c7), down(192)], x)?;
        let dbl7x7 = [Conv2d::new(c7, 1), down(c7), across(c7), down(c7), across(192)];
        let dbl7x7 = self.chain("branch7x7dbl", dbl7x7, x)?;
        let pool = self.pooled(192, x)?;
        self.net.add("concat", Concat, [conv1x1, conv7x7, dbl7x7, pool])
    }

    /// Halves the map, with a factorised 7x7 branch.
    fn inception_d(&mut self, x: Value) -> Result<Value, GraphError> {
        let conv3x3 = self.chain("branch3x3", [Conv2d::new(192, 1), Conv2d::new(320, 3).stride(2)], x)?;
        let conv7x7x3 =
            [Conv2d::new(192, 1), Conv2d::same(192, [1, 7]), Conv2d::same(192, [7, 1]), Conv2d::new(192, 3).stride(2)];
        let conv7x7x3 = self.chain("branch7x7x3", conv7x7x3, x)?;
        let pool = self.net.add("maxpool", MaxPool2d::new(3).stride(2), x)?;
        self.net.add("concat", Concat, [conv3x3, conv7x7x3, pool])
    }

    /// Figure 7: branches that end in a 1x3 and a 3x1 convolution side by side.
    fn inception_e(&mut self, x: Value) -> Result<Value, GraphError> {
        let conv1x1 = self.conv("branch1x1", Conv2d::new(320, 1), x)?;
        let conv3x3 = self.chain("branch3x3", [Conv2d::new(384, 1)], x)?;
        let conv3x3 = self.split("branch3x3_2", conv3x3)?;
        let dbl3x3 = self.chain("branch3x3dbl", [Conv2d::new(448, 1), Conv2d::same(384, 3)], x)?;
        let dbl3x3 = self.split("branch3x3dbl_3", dbl3x3)?;
        let pool = self.pooled(192, x)?;
        self.net.add("concat", Concat, [conv1x1, conv3x3, dbl3x3, pool])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_the_sizes_of_torchvisions() {
        let graph = InceptionV3Config::torchvision().graph().unwrap();
        let shape = |name: &str| graph.node(name).unwrap().shape.dims().to_vec();
        assert_eq!(shape("maxpool2"), [192, 35, 35]);
        assert_eq!(shape("Mixed_5b.concat"), [256, 35, 35]);
        assert_eq!(shape("Mixed_5d.concat"), [288, 35, 35]);
        assert_eq!(shape("Mixed_6a.concat"), [768, 17, 17]);
        assert_eq!(shape("Mixed_6e.concat"), [768, 17, 17]);
        assert_eq!(shape("Mixed_7a.concat"), [1280, 8, 8]);
        assert_eq!(shape("Mixed_7c.concat"), [2048, 8, 8]);
        assert_eq!(shape("AuxLogits.avgpool0"), [768, 5, 5]);
        assert_eq!(shape("AuxLogits.conv1.relu"), [768, 1, 1]);
    }

    #[test]
    fn a_head_that_the_image_is_too_small_for_is_named() {
        let config = InceptionV3Config { input: [3, 224, 224], ..InceptionV3Config::torchvision() };
        let error = config.graph().unwrap_err().to_string();
        assert!(error.starts_with("layer AuxLogits.conv1.conv (Conv2d): the input"), "{error}");
    }
}
