//! LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998: Gradient-based learning applied to document recognition, figure 2).
//!
//! `lenet5` is what is called LeNet-5 today: every map of C3 sees every map of S2, ReLU, max pooling, a linear output and
//! cross entropy. `lenet5-paper` is the network of 1998: the sparse C3 of Table I, trainable subsampling, the scaled tanh
//! after every convolution and after every subsampling (section II.B: all units up to F6 are squashed), radial basis functions
//! with their own loss, and 60,000 trainable parameters.
use crate::variant;
use crate::{Architecture, ModelError, Paper, Variant};
use serde::{Deserialize, Serialize};
use striate_graph::{Graph, GraphError, NetworkBuilder, Value};
use striate_layers::loss::Loss;
use striate_layers::{
    Activation, AvgPool2d, Conv2d, Flatten, Init, Linear, MaxPool2d, Op, RbfOutput, SparseConv2d, Subsampling2d,
};

const PAPER: &Paper = &Paper {
    authors: "LeCun, Bottou, Bengio, Haffner",
    year: 1998,
    title: "Gradient-based learning applied to document recognition",
    arxiv: None,
};

pub(crate) const VARIANTS: &[Variant] = &[
    variant!(
        "lenet5",
        "LeNet",
        PAPER,
        "LeNet-5 as it is built today: full C3, ReLU, max pooling, linear output",
        LeNetConfig,
        LeNetConfig::modern()
    )
    .at("figure 2")
    .deviates(&[
        "every map of C3 sees every map of S2, where table I connects some",
        "ReLU for the scaled tanh",
        "max pooling for trainable subsampling",
        "a linear output and cross entropy for radial basis functions and their own loss",
        "PyTorch's initialisation",
    ]),
    variant!(
        "lenet5-paper",
        "LeNet",
        PAPER,
        "LeNet-5 of 1998: sparse C3, trainable subsampling, scaled tanh, radial basis functions",
        LeNetConfig,
        LeNetConfig::paper()
    )
    .at("figure 2, table I")
    .deviates(&[
        "the codes of the output are drawn anew, since the paper does not print its bitmaps",
        "biases are drawn as weights are",
        "the distance of the rubbish class in the loss (j of equation 9), which the paper leaves open, is 84",
    ]),
];

/// Maps of C1, maps of C3, features of C5 and F6.
const C1_MAPS: i64 = 6;
const C3_MAPS: i64 = 16;
const C5_FEATURES: i64 = 120;
const F6_FEATURES: i64 = 84;
/// Every convolution is 5x5, every pooling 2x2.
const KERNEL: i64 = 5;
const POOL: i64 = 2;
/// The distance of the "rubbish" class in the loss of the radial basis functions (`j` of equation 9), which the paper
/// leaves open: about the squared distance of a feature vector of zeros to any code of 84 values of ±1.
const RUBBISH_DISTANCE: f64 = 84.0;

/// How S2 and S4 halve their maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeNetPooling {
    /// The largest value.
    Max,
    /// The mean.
    Average,
    /// The sum, with a trainable coefficient and bias per map.
    Trainable,
}

impl From<LeNetPooling> for Op {
    fn from(pooling: LeNetPooling) -> Self {
        match pooling {
            LeNetPooling::Max => MaxPool2d::new(POOL).into(),
            LeNetPooling::Average => AvgPool2d::new(POOL).into(),
            LeNetPooling::Trainable => Subsampling2d::new(POOL).into(),
        }
    }
}

/// Where the squashing function stands between a convolution and its pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Convolution, nonlinearity, pooling.
    BeforePooling,
    /// Convolution, pooling, nonlinearity.
    AfterPooling,
    /// Convolution, nonlinearity, pooling, nonlinearity.
    Both,
}

/// What the maps of C3 see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum C3 {
    /// Every map of S2.
    Full,
    /// The maps of Table I.
    Sparse,
}

/// The last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeNetOutput {
    /// A linear layer, trained with cross entropy.
    Linear,
    /// Distances to the bitmaps of digits, trained with LeCun's loss: at most 10 classes.
    Rbf,
}

/// LeNet-5 and everything between its two variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeNetConfig {
    /// Number of classes.
    pub classes: i64,
    /// Channels, height and width of the input: 32x32 in the paper, at least 16x16.
    pub input: [i64; 3],
    /// The nonlinearity.
    pub activation: Activation,
    /// The pooling.
    pub pooling: LeNetPooling,
    /// Whether the nonlinearity comes before pooling, after it, or both.
    pub order: Order,
    /// Whether C3 is sparse.
    pub c3: C3,
    /// The output layer.
    pub output: LeNetOutput,
}

impl LeNetConfig {
    /// `lenet5`: 61,706 parameters.
    pub fn modern() -> Self {
        Self {
            classes: 10,
            input: [1, 32, 32],
            activation: Activation::Relu,
            pooling: LeNetPooling::Max,
            order: Order::BeforePooling,
            c3: C3::Full,
            output: LeNetOutput::Linear,
        }
    }

    /// `lenet5-paper`: 60,000 trainable parameters, 340,908 connections.
    pub fn paper() -> Self {
        Self {
            activation: Activation::ScaledTanh,
            pooling: LeNetPooling::Trainable,
            order: Order::Both,
            c3: C3::Sparse,
            output: LeNetOutput::Rbf,
            ..Self::modern()
        }
    }

    /// The paper's initialisation belongs to its squashing function; elsewhere PyTorch's default stands.
    fn init(&self) -> Init {
        if self.activation == Activation::ScaledTanh { Init::LeCunUniform } else { Init::pytorch() }
    }

    fn conv(&self, maps: i64) -> Conv2d {
        Conv2d::new(maps, KERNEL).init(self.init(), self.init())
    }

    fn linear(&self, features: i64) -> Linear {
        Linear::new(features).init(self.init(), self.init())
    }

    /// The pooling after convolution `conv`, with the nonlinearity before and after it as the order says.
    fn squash_and_pool(&self, net: &mut NetworkBuilder, conv: &str, pool: &str, mut x: Value) -> Result<Value, GraphError> {
        if self.order != Order::AfterPooling {
            x = net.add(&format!("{conv}_act"), self.activation, x)?;
        }
        x = net.add(pool, self.pooling, x)?;
        if self.order != Order::BeforePooling {
            x = net.add(&format!("{pool}_act"), self.activation, x)?;
        }
        Ok(x)
    }
}

impl Architecture for LeNetConfig {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        let x = net.input(self.input); // [1, 32, 32]
        let x = net.add("c1", self.conv(C1_MAPS), x)?; // [6, 28, 28]
        let x = self.squash_and_pool(net, "c1", "s2", x)?; // [6, 14, 14]
        let x = match self.c3 {
            C3::Full => net.add("c3", self.conv(C3_MAPS), x)?,
            C3::Sparse => net.add("c3", SparseConv2d::lenet_c3(), x)?,
        }; // [16, 10, 10]
        let x = self.squash_and_pool(net, "c3", "s4", x)?; // [16, 5, 5]
        let x = net.add("flatten", Flatten, x)?; // [400]
        let x = net.add("c5", self.linear(C5_FEATURES), x)?; // [120]
        let x = net.add("c5_act", self.activation, x)?;
        let x = net.add("f6", self.linear(F6_FEATURES), x)?; // [84]
        let x = net.add("f6_act", self.activation, x)?;
        let x = match self.output {
            LeNetOutput::Linear => net.add("output", self.linear(self.classes), x)?,
            LeNetOutput::Rbf => net.add("output", RbfOutput::digits(self.classes), x)?,
        }; // [classes]
        net.output("logits", x)
    }

    fn loss(&self) -> Loss {
        match self.output {
            LeNetOutput::Linear => Loss::default(),
            LeNetOutput::Rbf => Loss::Rbf { j: RUBBISH_DISTANCE },
        }
    }
}

impl LeNetConfig {
    /// The network's graph; fails if the input is too small.
    pub fn graph(&self) -> Result<Graph, ModelError> {
        Ok(Graph::build(|net| self.define(net))?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_modern_network_has_the_known_size() {
        let graph = LeNetConfig::modern().graph().unwrap();
        let summary = graph.summary();
        assert_eq!((summary.params, summary.macs), (61_706, 416_520));
        let shape = |name: &str| graph.node(name).unwrap().shape.dims().to_vec();
        assert_eq!(shape("c1"), [6, 28, 28]);
        assert_eq!(shape("s2"), [6, 14, 14]);
        assert_eq!(shape("c3"), [16, 10, 10]);
        assert_eq!(shape("s4"), [16, 5, 5]);
    }

    /// Section II.B, layer by layer.
    #[test]
    fn the_papers_network_has_the_papers_counts() {
        let summary = LeNetConfig::paper().graph().unwrap().summary();
        let row = |name: &str| summary.layers.iter().find(|layer| layer.name == name).unwrap();
        let expected = [
            ("c1", 156, 122_304),
            ("s2", 12, 5_880),
            ("c3", 1_516, 151_600),
            ("s4", 32, 2_000),
            ("c5", 48_120, 48_120),
            ("f6", 10_164, 10_164),
        ];
        for (name, params, connections) in expected {
            assert_eq!((row(name).params, row(name).connections), (params, connections), "{name}");
        }
        assert_eq!((summary.params, summary.connections), (60_000, 340_908));
        assert_eq!((row("output").params, row("output").buffers), (0, 840));
    }

    #[test]
    fn the_order_of_nonlinearity_and_pooling_is_an_option() {
        let names = |order| {
            let graph = LeNetConfig { order, ..LeNetConfig::modern() }.graph().unwrap();
            let between = graph.nodes().iter().skip_while(|node| node.name != "c1").take_while(|node| node.name != "c3");
            between.skip(1).map(|node| node.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(Order::BeforePooling), ["c1_act", "s2"]);
        assert_eq!(names(Order::AfterPooling), ["s2", "s2_act"]);
        assert_eq!(names(Order::Both), ["c1_act", "s2", "s2_act"]);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let error = LeNetConfig { input: [1, 12, 12], ..LeNetConfig::modern() }.graph().unwrap_err().to_string();
        assert!(error.starts_with("layer c3 (Conv2d): the input [6, 4, 4] is too small for a window of 5x5"), "{error}");
        let error = LeNetConfig { classes: 26, ..LeNetConfig::paper() }.graph().unwrap_err().to_string();
        assert!(error.contains("output") && error.contains("10 codes"), "{error}");
    }
}
