//! AlexNet (Krizhevsky, Sutskever, Hinton 2012: ImageNet Classification with Deep Convolutional Neural Networks, figure 2).
//!
//! `alexnet` is torchvision's, which is the one column network of Krizhevsky 2014 (arXiv:1404.5997): fewer filters, no local
//! response normalisation, initialised as PyTorch does. `alexnet-paper` is the network of 2012, its two graphics cards'
//! towers as convolutions in two groups. `alexnet-ungrouped` is the same with every filter seeing every map.
//!
//! With `towers` set to `two`, `alexnet-paper` is two towers in earnest, each with half of the filters, at places 0 and 1 of
//! the network's devices. They exchange maps only before conv3 and before each dense layer, as in the paper. Both forms
//! compute the same but for one thing: local response normalisation looks across neighbouring channels, which a tower can
//! do among its own only, so that the two channels on either side of the halves' border differ.
use crate::registry::{FOR_TESTS, variant};
use crate::{Architecture, Paper, Variant};
use serde::{Deserialize, Serialize};
use striate_graph::{GraphError, NetworkBuilder, Value};
use striate_layers::{
    Activation, AdaptiveAvgPool2d, Concat, Conv2d, Dropout, Flatten, Init, LayerError, Linear, LocalResponseNorm, MaxPool2d, Op,
};

const PAPER: &Paper = &Paper {
    authors: "Krizhevsky, Sutskever, Hinton",
    year: 2012,
    title: "ImageNet Classification with Deep Convolutional Neural Networks",
    arxiv: None,
};

const INPUT_227: &str = "the input is 227x227, since the paper's 224 does not give its own 55x55 maps";
const LRN_ACROSS: &str =
    "local response normalisation looks across the border between the two towers; with towers=two it does not";

pub(crate) const VARIANTS: &[Variant] = &[
    variant!(
        "alexnet",
        "AlexNet",
        PAPER,
        "torchvision's: the one column of Krizhevsky 2014, 64-192-384-256-256 filters at 224x224, no LRN",
        AlexNetConfig,
        AlexNetConfig::torchvision()
    )
    .at("figure 2")
    .deviates(&[
        "one column of 64-192-384-256-256 filters, after Krizhevsky 2014 (arXiv:1404.5997)",
        "no local response normalisation",
        "224x224 images, with zeros around the first convolution",
        "adaptive pooling before the classifier lets other image sizes in",
        "dropout before each hidden dense layer, where the paper has it after",
        "PyTorch's initialisation",
    ])
    .torchvision("alexnet", &[]),
    variant!(
        "alexnet-paper",
        "AlexNet",
        PAPER,
        "figure 2: 96-256-384-384-256 filters in groups 1-2-1-2-2, LRN, overlapping pooling",
        AlexNetPaperConfig,
        AlexNetPaperConfig::paper()
    )
    .at("figure 2")
    .deviates(&[INPUT_227, LRN_ACROSS]),
    variant!(
        "alexnet-ungrouped",
        "AlexNet",
        PAPER,
        "figure 2 without its two towers",
        AlexNetPaperConfig,
        AlexNetPaperConfig { towers: Towers::One, ..AlexNetPaperConfig::paper() }
    )
    .at("figure 2")
    .deviates(&[INPUT_227, "every filter sees every map"]),
    variant!(
        "alexnet-tiny",
        "AlexNet",
        PAPER,
        "torchvision's with an eighth of the filters at 64x64",
        AlexNetConfig,
        AlexNetConfig::tiny()
    )
    .deviates(&[FOR_TESTS]),
    variant!(
        "alexnet-paper-tiny",
        "AlexNet",
        PAPER,
        "figure 2 with a sixth or eighth of the filters at 67x67",
        AlexNetPaperConfig,
        AlexNetPaperConfig::tiny()
    )
    .deviates(&[FOR_TESTS]),
];

/// Kernels of the five convolutions; the first has a stride.
const KERNELS: [i64; 5] = [11, 5, 3, 3, 3];
const CONV1_STRIDE: i64 = 4;
/// Zeros around the input of torchvision's first convolution.
const CONV1_PADDING: i64 = 2;
/// The convolutions that pooling follows.
const POOLED: [usize; 3] = [0, 1, 4];
/// Windows of 3x3 at a stride of 2: overlapping pooling (section 3.4).
const POOL: i64 = 3;
const POOL_STRIDE: i64 = 2;
/// Height and width of the maps that torchvision's classifier reads.
const CLASSIFIER_MAP: i64 = 6;

fn pool() -> MaxPool2d {
    MaxPool2d::new(POOL).stride(POOL_STRIDE)
}

/// `alexnet`: torchvision's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlexNetConfig {
    /// Number of classes.
    pub classes: i64,
    /// Channels, height and width of the input: at least 63x63.
    pub input: [i64; 3],
    /// Filters of the convolutions.
    pub filters: [i64; 5],
    /// Features of the two hidden dense layers.
    pub hidden: i64,
    /// The share of features that dropout drops before each hidden dense layer.
    pub dropout: f64,
}

impl AlexNetConfig {
    /// `alexnet`: 61,100,840 parameters.
    pub fn torchvision() -> Self {
        Self { classes: 1000, input: [3, 224, 224], filters: [64, 192, 384, 256, 256], hidden: 4096, dropout: 0.5 }
    }

    /// `alexnet-tiny`: for tests.
    pub fn tiny() -> Self {
        Self { classes: 10, input: [3, 64, 64], filters: [8, 24, 48, 32, 32], hidden: 32, dropout: 0.5 }
    }
}

impl Architecture for AlexNetConfig {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        let mut x = net.input(self.input); // [3, 224, 224]
        let mut features = net.sequential("features");
        for (index, (&filters, kernel)) in self.filters.iter().zip(KERNELS).enumerate() {
            let conv = match index {
                0 => Conv2d::new(filters, kernel).stride(CONV1_STRIDE).padding(CONV1_PADDING), // [64, 55, 55]
                _ => Conv2d::new(filters, kernel).padding(kernel / 2),
            };
            x = features.add(conv, x)?;
            x = features.add(Activation::Relu, x)?;
            if POOLED.contains(&index) {
                x = features.add(pool(), x)?; // [64, 27, 27], [192, 13, 13], [256, 6, 6]
            }
        }
        let x = net.add("avgpool", AdaptiveAvgPool2d::new(CLASSIFIER_MAP), x)?; // [256, 6, 6]
        let mut x = net.add("flatten", Flatten, x)?; // [9216]
        let mut classifier = net.sequential("classifier");
        for _ in 0..2 {
            x = classifier.add(Dropout::new(self.dropout), x)?;
            x = classifier.add(Linear::new(self.hidden), x)?; // [4096]
            x = classifier.add(Activation::Relu, x)?;
        }
        let x = classifier.add(Linear::new(self.classes), x)?; // [classes]
        net.output("logits", x)
    }
}

/// How the filters of the paper are spread over its two graphics cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Towers {
    /// Not at all: every filter sees every map.
    One,
    /// Two towers in one: conv2, conv4 and conv5 are convolutions in two groups.
    Grouped,
    /// Two towers, each at a place of its own (see [`NetworkBuilder::on`]).
    Two,
}

/// `alexnet-paper`: the network of 2012.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlexNetPaperConfig {
    /// Number of classes.
    pub classes: i64,
    /// Channels, height and width of the input: at least 67x67.
    pub input: [i64; 3],
    /// Filters of the convolutions in both towers together.
    pub filters: [i64; 5],
    /// Features of the two hidden dense layers in both towers together.
    pub hidden: i64,
    /// The share of features that dropout drops after each hidden dense layer.
    pub dropout: f64,
    /// How the two towers are built.
    pub towers: Towers,
    /// Whether local response normalisation follows conv1 and conv2 (section 3.3).
    pub lrn: bool,
}

impl AlexNetPaperConfig {
    /// `alexnet-paper`: 60,965,224 parameters.
    pub fn paper() -> Self {
        Self {
            classes: 1000,
            input: [3, 227, 227],
            filters: [96, 256, 384, 384, 256],
            hidden: 4096,
            dropout: 0.5,
            towers: Towers::Grouped,
            lrn: true,
        }
    }

    /// `alexnet-paper-tiny`: for tests.
    pub fn tiny() -> Self {
        Self { classes: 10, input: [3, 67, 67], filters: [16, 32, 48, 48, 32], hidden: 32, ..Self::paper() }
    }

    /// A convolution of one tower: its filters, and groups where the towers do not exchange maps (all but conv1 and conv3).
    fn conv(&self, number: usize) -> Result<Conv2d, GraphError> {
        let (filters, kernel) = (self.filters[number - 1], KERNELS[number - 1]);
        let conv = Conv2d::new(self.share(&format!("conv{number}"), "Conv2d", filters)?, kernel);
        let apart = ![1, 3].contains(&number);
        let conv = if apart && self.towers == Towers::Grouped { conv.groups(2) } else { conv };
        let conv = if number == 1 { conv.stride(CONV1_STRIDE) } else { conv.padding(kernel / 2) };
        Ok(conv.init(weight_init(), Init::Constant(if apart { 1.0 } else { 0.0 })))
    }

    fn dense(&self, name: &str) -> Result<Linear, GraphError> {
        let features = self.share(name, "Linear", self.hidden)?;
        Ok(Linear::new(features).init(weight_init(), Init::Constant(1.0)))
    }

    /// What one tower has of `count` filters or features.
    fn share(&self, layer: &str, op: &'static str, count: i64) -> Result<i64, GraphError> {
        match self.towers {
            Towers::Two if count % 2 != 0 => {
                let source = LayerError::Option {
                    option: format!("{count} filters or features"),
                    reason: "can't be halved: two towers need an even number".to_owned(),
                };
                Err(GraphError::Layer { layer: layer.to_owned(), op, source })
            }
            Towers::Two => Ok(count / 2),
            Towers::One | Towers::Grouped => Ok(count),
        }
    }

    /// ReLU after a convolution, then normalisation after the first two, then pooling.
    fn after_conv(&self, net: &mut NetworkBuilder, number: usize, x: &[Value]) -> Result<Vec<Value>, GraphError> {
        let mut x = each(net, &format!("relu{number}"), Activation::Relu, x)?;
        if self.lrn && number <= 2 {
            x = each(net, &format!("norm{number}"), LocalResponseNorm::alexnet(), &x)?;
        }
        if POOLED.contains(&(number - 1)) {
            x = each(net, &format!("pool{number}"), pool(), &x)?;
        }
        Ok(x)
    }
}

/// N(0, 0.01²) for the weights of every layer (section 5). Biases of conv2, conv4, conv5 and the hidden dense layers start at
/// 1, which gives their ReLUs positive inputs at first; the others at 0.
fn weight_init() -> Init {
    Init::Normal { mean: 0.0, std: 0.01 }
}

impl Architecture for AlexNetPaperConfig {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        let x = net.input(self.input); // [3, 227, 227]
        let mut x = vec![x; if self.towers == Towers::Two { 2 } else { 1 }];
        for number in 1..=self.filters.len() {
            if number == 3 {
                x = exchange(net, "exchange3", x)?;
            }
            let conv = self.conv(number)?;
            x = each(net, &format!("conv{number}"), conv, &x)?; // 55x55, 27x27, 13x13, 13x13, 13x13
            x = self.after_conv(net, number, &x)?; // 27x27, 13x13, 13x13, 13x13, 6x6
        }
        x = exchange(net, "exchange6", x)?; // [256, 6, 6]
        x = each(net, "flatten", Flatten, &x)?; // [9216]
        for number in [6, 7] {
            let name = format!("fc{number}");
            x = each(net, &name, self.dense(&name)?, &x)?; // [4096]
            x = each(net, &format!("relu{number}"), Activation::Relu, &x)?;
            x = each(net, &format!("drop{number}"), Dropout::new(self.dropout), &x)?;
            x = exchange(net, &format!("exchange{}", number + 1), x)?;
        }
        let fc8 = Linear::new(self.classes).init(weight_init(), Init::zeros());
        let x = net.add("fc8", fc8, x[0])?; // [classes]
        net.output("logits", x)
    }
}

/// Adds a layer to the top of each tower: `conv1`, or `tower1.conv1` and `tower2.conv1`, each at its own place.
fn each(net: &mut NetworkBuilder, name: &str, layer: impl Into<Op>, tops: &[Value]) -> Result<Vec<Value>, GraphError> {
    let op = layer.into();
    if let [top] = tops {
        return Ok(vec![net.add(name, op, *top)?]);
    }
    let towers = tops.iter().enumerate();
    towers.map(|(place, top)| net.on(place).add(&format!("tower{}.{name}", place + 1), op.clone(), *top)).collect()
}

/// Lets each of two towers see what both have; one tower sees it anyway.
fn exchange(net: &mut NetworkBuilder, name: &str, tops: Vec<Value>) -> Result<Vec<Value>, GraphError> {
    if tops.len() == 1 {
        return Ok(tops);
    }
    let towers = tops.len();
    Ok(vec![net.add(name, Concat, tops)?; towers])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use striate_graph::{Graph, InitOptions, Network, Outputs};
    use striate_layers::Mode;
    use tch::{Device, Kind, Tensor};

    fn graph(config: &AlexNetPaperConfig) -> Graph {
        Graph::build(|net| config.define(net)).unwrap()
    }

    fn network(config: &AlexNetPaperConfig) -> Network {
        let options = InitOptions { devices: vec![Device::Cpu, Device::Cpu], kind: Kind::Double, seed: 3 };
        Network::new(graph(config), &options).unwrap()
    }

    /// The grouped network's parameters for two towers: each gets half of the filters; the last layer is shared.
    fn split(state: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let mut towers = BTreeMap::new();
        for (name, tensor) in state {
            if name.starts_with("fc8") {
                towers.insert(name.clone(), tensor.shallow_clone());
                continue;
            }
            for (half, tower) in tensor.chunk(2, 0).into_iter().zip(["tower1", "tower2"]) {
                towers.insert(format!("{tower}.{name}"), half);
            }
        }
        towers
    }

    /// The same images through the grouped network and through two towers with its weights split, with these taps.
    fn both(lrn: bool, taps: [&[&str]; 2]) -> [Outputs; 2] {
        let grouped = AlexNetPaperConfig { lrn, ..AlexNetPaperConfig::tiny() };
        let two = network(&AlexNetPaperConfig { towers: Towers::Two, ..grouped.clone() });
        let grouped = network(&grouped);
        two.load_state(&split(&grouped.state())).unwrap();
        striate_torch::manual_seed(1);
        let images = Tensor::randn([2, 3, 67, 67], (Kind::Double, Device::Cpu));
        let run = |network: &Network, taps| network.forward_with_taps(&[&images], Mode::Eval, taps).unwrap();
        [run(&grouped, taps[0]), run(&two, taps[1])]
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn two_towers_compute_what_groups_do() {
        let [grouped, two] = both(false, [&[], &[]]);
        assert!(distance(grouped.logits(), two.logits()) < 1e-12);
        assert!(grouped.logits().abs().max().double_value(&[]) > 1e-3);
    }

    #[test]
    fn towers_normalise_among_their_own_channels() {
        let [grouped, two] = both(true, [&["norm1"], &["tower1.norm1", "tower2.norm1"]]);
        let (whole, halves) = (grouped.tap("norm1").unwrap(), two.taps().iter().map(|(_, tap)| tap).collect::<Vec<_>>());
        let difference = (whole - Tensor::cat(&halves, 1)).abs().amax([0, 2, 3], false);
        let differs: Vec<bool> = Vec::<f64>::try_from(difference).unwrap().into_iter().map(|d| d > 1e-12).collect();
        let expected: Vec<bool> = (0..16).map(|channel| (6..10).contains(&channel)).collect();
        assert_eq!(differs, expected);
    }

    #[test]
    fn towers_talk_before_conv3_and_the_dense_layers_only() {
        let graph = graph(&AlexNetPaperConfig { towers: Towers::Two, ..AlexNetPaperConfig::paper() });
        assert_eq!(graph.summary().params, AlexNetPaperConfig::paper().params());
        let crossing: Vec<&str> = graph
            .nodes()
            .iter()
            .filter(|node| node.inputs.iter().any(|input| graph.nodes()[*input].place != node.place))
            .map(|node| node.name.as_str())
            .collect();
        let expected = [
            "tower2.conv1", // the input
            "exchange3",
            "tower2.conv3",
            "exchange6",
            "tower2.flatten",
            "exchange7",
            "tower2.fc7",
            "exchange8",
        ];
        assert_eq!(crossing, expected);
        let odd = AlexNetPaperConfig { hidden: 33, towers: Towers::Two, ..AlexNetPaperConfig::tiny() };
        let error = Graph::build(|net| odd.define(net)).unwrap_err().to_string();
        assert!(error.starts_with("layer fc6 (Linear): 33 filters or features can't be halved"), "{error}");
    }

    impl AlexNetPaperConfig {
        fn params(&self) -> u64 {
            graph(self).summary().params
        }
    }

    #[test]
    fn weights_start_as_the_paper_says() {
        let state = network(&AlexNetPaperConfig::tiny()).state();
        for (name, tensor) in &state {
            if let Some(layer) = name.strip_suffix(".bias") {
                let one = ["conv2", "conv4", "conv5", "fc6", "fc7"].contains(&layer);
                let same = tensor.eq(if one { 1.0 } else { 0.0 }).all().int64_value(&[]) == 1;
                assert!(same, "{name}");
            } else {
                let std = tensor.std(false).double_value(&[]);
                assert!((std - 0.01).abs() < 1e-3, "{name} {std}");
            }
        }
    }
}
