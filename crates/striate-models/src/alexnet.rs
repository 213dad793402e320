//! AlexNet (Krizhevsky, Sutskever, Hinton 2012: ImageNet Classification with Deep Convolutional Neural Networks, figure 2).
//!
//! `alexnet` is torchvision's, which is the one column network of Krizhevsky 2014 (arXiv:1404.5997): fewer filters, no local
//! response normalisation, initialised as PyTorch does. `alexnet-paper` is the network of 2012, its two graphics cards'
//! towers as convolutions in two groups. `alexnet-ungrouped` is the same with every filter seeing every map.
//!
//! On two devices each tower of `alexnet-paper` is computed on its own ([`Graph::in_towers`](striate_graph::Graph::in_towers)):
//! they exchange maps only before conv3 and before each dense layer, as in the paper. So local response normalisation sees a
//! tower's own maps alone, on one device too, as it did on the paper's cards; Caffe's reference network, which never ran on
//! two, normalises across all maps. The four channels at the halves' border differ.
//!
use crate::{Architecture, Paper, Variant};
use crate::{registry::FOR_TESTS, variant};
use serde::{Deserialize, Serialize};
use striate_graph::{GraphError, NetworkBuilder};
use striate_layers::{Activation, AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Init, Linear, LocalResponseNorm, MaxPool2d};

const PAPER: &Paper = &Paper {
    authors: "Krizhevsky, Sutskever, Hinton",
    year: 2012,
    title: "ImageNet Classification with Deep Convolutional Neural Networks",
    arxiv: None,
};

const INPUT_227: &str = "the input is 227x227, since the paper's 224 does not give its own 55x55 maps";

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
    .deviates(&[INPUT_227]),
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

/// Whether the network is two towers, one for each of the paper's graphics cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Towers {
    /// Every filter sees every map.
    One,
    /// The two halves of the maps are towers: conv2, conv4, conv5 and local response normalisation see a tower's own.
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
    /// Whether there are two towers.
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
            towers: Towers::Two,
            lrn: true,
        }
    }

    /// `alexnet-paper-tiny`: for tests.
    pub fn tiny() -> Self {
        Self { classes: 10, input: [3, 67, 67], filters: [16, 32, 48, 48, 32], hidden: 32, ..Self::paper() }
    }

    /// Groups of maps that don't see each other.
    fn groups(&self) -> i64 {
        match self.towers {
            Towers::One => 1,
            Towers::Two => 2,
        }
    }

    /// A convolution, in groups where the towers do not exchange maps (all but conv1 and conv3).
    fn conv(&self, number: usize) -> Conv2d {
        let kernel = KERNELS[number - 1];
        let conv = Conv2d::new(self.filters[number - 1], kernel);
        let apart = ![1, 3].contains(&number);
        let conv = if apart { conv.groups(self.groups()) } else { conv };
        let conv = if number == 1 { conv.stride(CONV1_STRIDE) } else { conv.padding(kernel / 2) };
        conv.init(weight_init(), Init::Constant(if apart { 1.0 } else { 0.0 }))
    }
}

/// N(0, 0.01²) for the weights of every layer (section 5). Biases of conv2, conv4, conv5 and the hidden dense layers start at
/// 1, which gives their ReLUs positive inputs at first; the others at 0.
fn weight_init() -> Init {
    Init::Normal { mean: 0.0, std: 0.01 }
}

impl Architecture for AlexNetPaperConfig {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        let mut x = net.input(self.input); // [3, 227, 227]
        for number in 1..=self.filters.len() {
            x = net.add(&format!("conv{number}"), self.conv(number), x)?; // 55x55, 27x27, 13x13, 13x13, 13x13
            x = net.add(&format!("relu{number}"), Activation::Relu, x)?;
            if self.lrn && number <= 2 {
                x = net.add(&format!("norm{number}"), LocalResponseNorm::alexnet().groups(self.groups()), x)?;
            }
            if POOLED.contains(&(number - 1)) {
                x = net.add(&format!("pool{number}"), pool(), x)?; // 27x27, 13x13, 6x6
            }
        }
        let mut x = net.add("flatten", Flatten, x)?; // [9216]
        for number in [6, 7] {
            let dense = Linear::new(self.hidden).init(weight_init(), Init::Constant(1.0));
            x = net.add(&format!("fc{number}"), dense, x)?; // [4096]
            x = net.add(&format!("relu{number}"), Activation::Relu, x)?;
            x = net.add(&format!("drop{number}"), Dropout::new(self.dropout), x)?;
        }
        let fc8 = Linear::new(self.classes).init(weight_init(), Init::zeros());
        let x = net.add("fc8", fc8, x)?; // [classes]
        net.output("logits", x)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::{Graph, InitOptions, Network};
    use striate_layers::Mode;
    use tch::{Device, Kind, Tensor};

    fn network(config: &AlexNetPaperConfig, devices: usize) -> Network {
        let options = InitOptions { devices: vec![Device::Cpu; devices], kind: Kind::Double, seed: 3 };
        Network::new(Graph::build(|net| config.define(net)).unwrap(), &options).unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn two_devices_compute_what_one_does() {
        let config = AlexNetPaperConfig { lrn: true, ..AlexNetPaperConfig::tiny() };
        let (one, two) = (network(&config, 1), network(&config, 2));
        assert_eq!(one.state(), two.state());
        striate_torch::manual_seed(1);
        let images = Tensor::randn([2, 3, 67, 67], (Kind::Double, Device::Cpu));
        let run = |network: &Network| {
            striate_torch::manual_seed(1);
            let outputs = network.forward_with_taps(&[&images], Mode::Train, &["norm1", "norm2", "pool5"]).unwrap();
            outputs.logits().sum(Kind::Double).backward();
            let values = outputs.outputs().iter().chain(outputs.taps());
            values.map(|(_, value)| value.detach()).collect::<Vec<Tensor>>()
        };
        for (one, two) in run(&one).iter().zip(&run(&two)) {
            assert!(distance(one, two) < 1e-12 && one.abs().max().double_value(&[]) > 1e-3);
        }
        let gradient = |network: &Network, name: &str| {
            network.trainable().iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor.grad()).unwrap()
        };
        for (name, _) in one.trainable().iter().filter(|(name, _)| !name.starts_with("fc8")) {
            let halves = [1, 2].map(|tower| gradient(&two, &format!("tower{tower}.{name}")));
            let (whole, halves) = (gradient(&one, name), Tensor::cat(&halves, 0));
            assert!(distance(&whole, &halves) < 1e-12 * whole.abs().max().double_value(&[]).max(1.0), "{name}");
        }
    }

    #[test]
    fn towers_normalise_among_their_own_channels() {
        let network = network(&AlexNetPaperConfig::tiny(), 1);
        striate_torch::manual_seed(1);
        let images = Tensor::randn([2, 3, 67, 67], (Kind::Double, Device::Cpu));
        let outputs = network.forward_with_taps(&[&images], Mode::Eval, &["relu1", "norm1"]).unwrap();
        let (maps, norm) = (outputs.tap("relu1").unwrap(), outputs.tap("norm1").unwrap());
        let across = striate_layers::Forward::forward(&LocalResponseNorm::alexnet(), &[], &[maps], Mode::Eval).unwrap();
        let difference = (norm - across).abs().amax([0, 2, 3], false);
        let differs: Vec<bool> = Vec::<f64>::try_from(difference).unwrap().into_iter().map(|d| d > 1e-12).collect();
        let expected: Vec<bool> = (0..16).map(|channel| (6..10).contains(&channel)).collect();
        assert_eq!(differs, expected);
    }

    #[test]
    fn towers_talk_before_conv3_and_the_dense_layers_only() {
        let network = network(&AlexNetPaperConfig::tiny(), 2);
        let nodes = network.graph().nodes();
        let crossing = nodes.iter().filter(|node| node.inputs.iter().any(|input| nodes[*input].place == 0) && node.place == 1);
        let crossing: Vec<&str> = crossing.map(|node| node.name.as_str()).collect();
        // fc8 is at the first device.
        assert_eq!(crossing, ["tower2.conv1", "tower2.conv3", "tower2.fc6", "tower2.fc7"]);
    }

    #[test]
    fn weights_start_as_the_paper_says() {
        let state = network(&AlexNetPaperConfig::tiny(), 1).state();
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
