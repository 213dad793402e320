//! GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842: Going deeper with convolutions, Table 1 and figure 3).
//!
//! `googlenet-paper` is the network of the paper: real 5x5 convolutions, biases, local response normalisation, two auxiliary
//! heads. `googlenet` is torchvision's: batch norm, 3x3 kernels where the paper has 5x5 ones, other poolings. Parameters are
//! named as in torchvision.
use crate::inception::{TRANSFORM_INPUT, scaled};
use crate::{Architecture, ConvUnit, Inception, ModelError, Paper, Variant};
use crate::{registry::FOR_TESTS, variant};
use serde::{Deserialize, Serialize};
use striate_graph::{Graph, GraphError, NetworkBuilder, Value};
use striate_layers::{
    Activation, AdaptiveAvgPool2d, AvgPool2d, Conv2d, Dropout, Fan, Flatten, Init, Linear, LocalResponseNorm, MaxPool2d, Op,
};

const PAPER: &Paper = &Paper {
    authors: "Szegedy, Liu, Jia, Sermanet et al.",
    year: 2014,
    title: "Going deeper with convolutions",
    arxiv: Some("1409.4842"),
};

pub(crate) const VARIANTS: &[Variant] = &[
    variant!(
        "googlenet",
        "GoogLeNet",
        PAPER,
        "as in torchvision: batch norm, 3x3 convolutions for 5x5 ones, two auxiliary heads",
        GoogLeNetConfig,
        GoogLeNetConfig::torchvision()
    )
    .at("table 1")
    .deviates(&[
        "batch norm after each convolution, in place of biases and local response normalisation",
        "3x3 convolutions for the 5x5 ones",
        "2x2 windows in the pooling before module 5a, where the paper has 3x3",
        "auxiliary heads pool to 4x4, whatever the size",
        "dropout of 0.2 before the classifier, where the paper has 0.4",
        "weights start from a normal distribution of standard deviation 0.01, cut off at 2",
    ])
    .torchvision("googlenet", &[TRANSFORM_INPUT]),
    variant!(
        "googlenet-paper",
        "GoogLeNet",
        PAPER,
        "as of 2014: 5x5 convolutions, biases, local response normalisation, two auxiliary heads",
        GoogLeNetConfig,
        GoogLeNetConfig::paper()
    )
    .at("table 1")
    .deviates(&[
        "the constants of local response normalisation, left open, are Caffe's: n = 5, alpha = 1e-4, beta = 0.75, k = 1",
        "weights start from He's initialisation, which the paper leaves open",
    ]),
    variant!(
        "googlenet-tiny",
        "GoogLeNet",
        PAPER,
        "torchvision's with an eighth of the channels, for 64x64 images of 10 classes",
        GoogLeNetConfig,
        GoogLeNetConfig::tiny()
    )
    .deviates(&[FOR_TESTS]),
];

/// Channels of the three convolutions before the first module.
const STEM: [i64; 3] = [64, 64, 192];
/// The modules of Table 1, stage by stage: `#1x1`, `#3x3 reduce`, `#3x3`, `#5x5 reduce`, `#5x5`, `pool proj`.
const STAGE3: [(&str, [i64; 6]); 2] = [("inception3a", [64, 96, 128, 16, 32, 32]), ("inception3b", [128, 128, 192, 32, 96, 64])];
const STAGE4: [(&str, [i64; 6]); 5] = [
    ("inception4a", [192, 96, 208, 16, 48, 64]),
    ("inception4b", [160, 112, 224, 24, 64, 64]),
    ("inception4c", [128, 128, 256, 24, 64, 64]),
    ("inception4d", [112, 144, 288, 32, 64, 64]),
    ("inception4e", [256, 160, 320, 32, 128, 128]),
];
const STAGE5: [(&str, [i64; 6]); 2] =
    [("inception5a", [256, 160, 320, 32, 128, 128]), ("inception5b", [384, 192, 384, 48, 128, 128])];
/// The modules that an auxiliary head reads, with its scope, which is also its output's name.
const AUX_AFTER: [(&str, &str); 2] = [("inception4a", "aux1"), ("inception4d", "aux2")];
/// Channels and features of an auxiliary head.
const AUX_CHANNELS: i64 = 128;
const AUX_FEATURES: i64 = 1024;
/// What an auxiliary head's loss counts (section 5).
const AUX_WEIGHT: f64 = 0.3;
/// The standard deviation of torchvision's initial weights, and where the normal is cut off.
const TORCHVISION_STD: f64 = 0.01;
const TORCHVISION_BOUND: f64 = 2.0;

/// How activations are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoogLeNetNorm {
    /// Batch norm after every convolution, in place of its bias; weights start as in torchvision.
    Batch,
    /// Local response normalisation, twice in the stem; weights start as He has it.
    LocalResponse,
}

/// How an auxiliary head pools the map that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuxPooling {
    /// To 4x4, whatever the size.
    Adaptive,
    /// 5x5 means at stride 3: 14x14 to 4x4.
    Strided,
}

impl From<AuxPooling> for Op {
    fn from(pooling: AuxPooling) -> Self {
        match pooling {
            AuxPooling::Adaptive => AdaptiveAvgPool2d::new(4).into(),
            AuxPooling::Strided => AvgPool2d::new(5).stride(3).into(),
        }
    }
}

/// GoogLeNet and everything between its variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoogLeNetConfig {
    /// Number of classes.
    pub classes: i64,
    /// Channels, height and width of the input: 224x224 in the paper, at least 15x15.
    pub input: [i64; 3],
    /// How activations are normalised.
    pub norm: GoogLeNetNorm,
    /// Kernel of the third branch of a module: 5 in the paper, 3 in torchvision.
    pub largest_kernel: i64,
    /// Kernel of the pooling before module 5a: 3 in the paper, 2 in torchvision.
    pub maxpool4_kernel: i64,
    /// Whether modules 4a and 4d have auxiliary heads: outputs `aux1` and `aux2` in training.
    pub aux_heads: bool,
    /// How the auxiliary heads pool.
    pub aux_pooling: AuxPooling,
    /// What the loss of an auxiliary head counts.
    pub aux_weight: f64,
    /// Dropout before the last layer.
    pub dropout: f64,
    /// Dropout before the last layer of an auxiliary head.
    pub aux_dropout: f64,
    /// What the number of channels or hidden features of every layer is multiplied by.
    pub width_multiplier: f64,
}

impl GoogLeNetConfig {
    /// `googlenet`: 6,624,904 parameters, and 6,379,984 in the auxiliary heads.
    pub fn torchvision() -> Self {
        Self {
            norm: GoogLeNetNorm::Batch,
            largest_kernel: 3,
            maxpool4_kernel: 2,
            aux_pooling: AuxPooling::Adaptive,
            dropout: 0.2,
            ..Self::paper()
        }
    }

    /// `googlenet-paper`: 6,998,552 parameters, and 6,379,728 in the auxiliary heads.
    pub fn paper() -> Self {
        Self {
            classes: 1000,
            input: [3, 224, 224],
            norm: GoogLeNetNorm::LocalResponse,
            largest_kernel: 5,
            maxpool4_kernel: 3,
            aux_heads: true,
            aux_pooling: AuxPooling::Strided,
            aux_weight: AUX_WEIGHT,
            dropout: 0.4,
            aux_dropout: 0.7,
            width_multiplier: 1.0,
        }
    }

    /// `googlenet-tiny`.
    pub fn tiny() -> Self {
        Self { classes: 10, input: [3, 64, 64], width_multiplier: 0.125, ..Self::torchvision() }
    }

    /// The network's graph; fails if the input is too small.
    pub fn graph(&self) -> Result<Graph, ModelError> {
        Ok(Graph::build(|net| self.define(net))?)
    }

    fn width(&self, channels: i64) -> i64 {
        scaled(channels, self.width_multiplier)
    }

    fn init(&self) -> Init {
        match self.norm {
            GoogLeNetNorm::Batch => Init::TruncatedNormal { std: TORCHVISION_STD, bound: TORCHVISION_BOUND },
            GoogLeNetNorm::LocalResponse => Init::he_normal(Fan::In),
        }
    }

    fn unit(&self) -> ConvUnit {
        ConvUnit { batch_norm: self.norm == GoogLeNetNorm::Batch, init: self.init() }
    }

    fn linear(&self, features: i64) -> Linear {
        let bias = if self.norm == GoogLeNetNorm::Batch { Init::pytorch() } else { Init::zeros() };
        Linear::new(features).init(self.init(), bias)
    }

    fn stem(&self, net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
        let [conv1, conv2, conv3] = STEM.map(|channels| self.width(channels));
        let unit = self.unit();
        let x = unit.add(net, "conv1", Conv2d::new(conv1, 7).stride(2).padding(3), x)?; // [64, 112, 112]
        let x = net.add("maxpool1", halving(3), x)?; // [64, 56, 56]
        let x = self.local_response(net, "norm1", x)?;
        let x = unit.add(net, "conv2", Conv2d::new(conv2, 1), x)?; // [64, 56, 56]
        let x = unit.add(net, "conv3", Conv2d::same(conv3, 3), x)?; // [192, 56, 56]
        let x = self.local_response(net, "norm2", x)?;
        net.add("maxpool2", halving(3), x) // [192, 28, 28]
    }

    fn local_response(&self, net: &mut NetworkBuilder, name: &str, x: Value) -> Result<Value, GraphError> {
        match self.norm {
            GoogLeNetNorm::Batch => Ok(x),
            GoogLeNetNorm::LocalResponse => net.add(name, LocalResponseNorm::new(5), x),
        }
    }

    /// Modules one after another, with the auxiliary heads that read them.
    fn stage(&self, net: &mut NetworkBuilder, modules: &[(&str, [i64; 6])], mut x: Value) -> Result<Value, GraphError> {
        for (name, channels) in modules {
            let channels = channels.map(|channels| self.width(channels));
            let module = Inception { largest_kernel: self.largest_kernel, ..Inception::new(channels) };
            x = module.add(net, name, &self.unit(), x)?;
            let aux = AUX_AFTER.iter().find(|(module, _)| self.aux_heads && module == name);
            if let Some((_, head)) = aux {
                let logits = self.aux_head(&mut net.scope(head), x)?;
                net.training_output(head, logits)?;
            }
        }
        Ok(x)
    }

    /// An auxiliary head (section 5), for 14x14 maps.
    fn aux_head(&self, net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
        let x = net.add("avgpool", self.aux_pooling, x)?; // [512, 4, 4]
        let x = self.unit().add(net, "conv", Conv2d::new(self.width(AUX_CHANNELS), 1), x)?; // [128, 4, 4]
        let x = net.add("flatten", Flatten, x)?; // [2048]
        let x = net.add("fc1", self.linear(self.width(AUX_FEATURES)), x)?; // [1024]
        let x = net.add("relu", Activation::Relu, x)?;
        let x = net.add("dropout", Dropout::new(self.aux_dropout), x)?;
        net.add("fc2", self.linear(self.classes), x) // [classes]
    }
}

/// Max pooling at stride 2; a last window that sticks out counts.
fn halving(kernel_size: i64) -> MaxPool2d {
    MaxPool2d::new(kernel_size).stride(2).ceil_mode()
}

impl Architecture for GoogLeNetConfig {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        let x = net.input(self.input); // [3, 224, 224]
        let x = self.stem(net, x)?; // [192, 28, 28]
        let x = self.stage(net, &STAGE3, x)?; // [480, 28, 28]
        let x = net.add("maxpool3", halving(3), x)?; // [480, 14, 14]
        let x = self.stage(net, &STAGE4, x)?; // [832, 14, 14]
        let x = net.add("maxpool4", halving(self.maxpool4_kernel), x)?; // [832, 7, 7]
        let x = self.stage(net, &STAGE5, x)?; // [1024, 7, 7]
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [1024, 1, 1]
        let x = net.add("flatten", Flatten, x)?; // [1024]
        let x = net.add("dropout", Dropout::new(self.dropout), x)?;
        let x = net.add("fc", self.linear(self.classes), x)?; // [classes]
        net.output("logits", x)
    }

    fn aux_weight(&self) -> f64 {
        self.aux_weight
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Parameters and millions of multiply-adds. Those of the paper's Table 1 are rounded, and some of its parameters wrong.
    #[test]
    fn the_papers_modules_have_their_known_costs() {
        let summary = GoogLeNetConfig::paper().graph().unwrap().summary();
        let cost = |name: &str| {
            let of_module = |layer: &&striate_graph::LayerSummary| layer.name.starts_with(&format!("{name}."));
            let layers = summary.layers.iter().filter(of_module);
            let (params, macs) = layers.fold((0, 0), |(params, macs), layer| (params + layer.params, macs + layer.macs));
            (params, format!("{:.1}", macs as f64 / 1e6))
        };
        let expected = [
            ("conv1", 9_472, "118.0"),
            ("inception3a", 163_696, "128.0"),
            ("inception3b", 388_736, "304.3"),
            ("inception4a", 376_176, "73.6"),
            ("inception4b", 449_160, "87.9"),
            ("inception4c", 510_104, "99.9"),
            ("inception4d", 605_376, "118.5"),
            ("inception4e", 868_352, "170.0"),
            ("inception5a", 1_043_456, "51.1"),
            ("inception5b", 1_444_080, "70.7"),
        ];
        for (name, params, macs) in expected {
            assert_eq!(cost(name), (params, macs.to_owned()), "{name}");
        }
    }

    #[test]
    fn maps_have_the_sizes_of_table_1() {
        for config in [GoogLeNetConfig::paper(), GoogLeNetConfig::torchvision()] {
            let graph = config.graph().unwrap();
            let shape = |name: &str| graph.node(name).unwrap().shape.dims().to_vec();
            assert_eq!(shape("conv1.relu"), [64, 112, 112]);
            assert_eq!(shape("maxpool2"), [192, 28, 28]);
            assert_eq!(shape("inception3b.concat"), [480, 28, 28]);
            assert_eq!(shape("inception4a.concat"), [512, 14, 14]);
            assert_eq!(shape("inception4e.concat"), [832, 14, 14]);
            assert_eq!(shape("inception5b.concat"), [1024, 7, 7]);
            assert_eq!(shape("aux1.avgpool"), [512, 4, 4]);
            assert_eq!(shape("aux2.flatten"), [2048]);
        }
    }

    #[test]
    fn auxiliary_heads_are_outputs_of_training() {
        let model = crate::find("googlenet-tiny").unwrap().model(&[]).unwrap();
        assert_eq!(model.aux_weight(), 0.3);
        let graph = model.graph().unwrap();
        let names = |mode| graph.outputs_in(mode).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(striate_layers::Mode::Train), ["logits", "aux1", "aux2"]);
        assert_eq!(names(striate_layers::Mode::Eval), ["logits"]);
    }

    #[test]
    fn a_width_of_nothing_is_told() {
        let error = GoogLeNetConfig { width_multiplier: 0.0, ..GoogLeNetConfig::tiny() }.graph().unwrap_err().to_string();
        assert_eq!(error, "layer conv1.conv (Conv2d): out_channels = 0 must be at least 1");
    }
}
