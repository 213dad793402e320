//! Network in Network (Lin, Chen, Yan 2013: Network In Network, arXiv:1312.4400).
//!
//! The unit is the mlpconv block (section 3.1): a convolution, then 1x1 convolutions, each a dense layer that runs at every
//! pixel, with a ReLU after each. The last block gives one map per class, and global average pooling (section 3.2) makes
//! each map a logit; with `head` set to `dense`, a dense layer reads the maps instead, as in the paper's section 4.6.
use crate::{Architecture, Paper, Variant};
use crate::{registry::FOR_TESTS, variant};
use serde::{Deserialize, Serialize};
use striate_graph::{GraphError, NetworkBuilder, Sequential, Value};
use striate_layers::{Activation, AdaptiveAvgPool2d, Conv2d, Dropout, Fan, Flatten, Init, Linear, MaxPool2d};

const PAPER: &Paper = &Paper { authors: "Lin, Chen, Yan", year: 2013, title: "Network In Network", arxiv: Some("1312.4400") };

const WIDTHS: &str = "widths are those of the authors' Caffe model, since the paper leaves them to its code";
const HE_INIT: &str = "weights start from He's initialisation and biases at 0, which the paper leaves open";

pub(crate) const VARIANTS: &[Variant] = &[
    variant!(
        "nin-cifar",
        "NiN",
        PAPER,
        "for CIFAR-10 at 32x32: three mlpconv blocks, global average pooling",
        NinConfig,
        NinConfig::cifar()
    )
    .at("section 4.2")
    .deviates(&[
        WIDTHS,
        "max pooling throughout, as the paper says, where the authors' model averages in the second",
        HE_INIT,
    ]),
    variant!(
        "nin-imagenet",
        "NiN",
        PAPER,
        "the authors' ImageNet model at 224x224: four mlpconv blocks, global average pooling",
        NinConfig,
        NinConfig::imagenet()
    )
    .deviates(&[
        "not in the paper: the authors published it as a Caffe model",
        "dropout after each of the first three blocks",
        "He's initialisation",
    ]),
    variant!("nin-tiny", "NiN", PAPER, "nin-cifar with a sixteenth of the filters", NinConfig, NinConfig::tiny())
        .deviates(&[FOR_TESTS]),
];

/// Pooling between blocks: overlapping 3x3 windows at a stride of 2, of which a last one may stick out.
const POOL: i64 = 3;
const POOL_STRIDE: i64 = 2;

/// One mlpconv block: a convolution and the small multilayer perceptron that follows it at every pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConv {
    /// Filters of the convolution.
    pub filters: i64,
    /// Its kernel.
    pub kernel_size: i64,
    /// Its step.
    pub stride: i64,
    /// Zeros around its input.
    pub padding: i64,
    /// Widths of the 1x1 convolutions. The last block has one more, with a map for each class.
    pub mlp: Vec<i64>,
}

impl MlpConv {
    /// A block whose convolution keeps height and width.
    fn same(filters: i64, kernel_size: i64, mlp: impl Into<Vec<i64>>) -> Self {
        Self { filters, kernel_size, stride: 1, padding: kernel_size / 2, mlp: mlp.into() }
    }

    /// `[C, H, W]` to `[last width, H / stride, W / stride]`.
    fn add(&self, block: &mut Sequential, x: Value) -> Result<Value, GraphError> {
        let conv = Conv2d::new(self.filters, self.kernel_size).stride(self.stride).padding(self.padding);
        let mut x = with_relu(block, conv, x)?;
        for &width in &self.mlp {
            x = with_relu(block, Conv2d::new(width, 1), x)?;
        }
        Ok(x)
    }
}

fn with_relu(block: &mut Sequential, conv: Conv2d, x: Value) -> Result<Value, GraphError> {
    let x = block.add(conv.init(Init::he_normal(Fan::In), Init::zeros()), x)?;
    block.add(Activation::Relu, x)
}

/// What makes logits of the last block's maps, one for each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NinHead {
    /// The mean of each map: global average pooling.
    Gap,
    /// A dense layer that reads all maps, after dropout.
    Dense,
}

/// Network in Network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NinConfig {
    /// Number of classes.
    pub classes: i64,
    /// Channels, height and width of the input.
    pub input: [i64; 3],
    /// The mlpconv blocks; max pooling and dropout stand between them.
    pub blocks: Vec<MlpConv>,
    /// The head.
    pub head: NinHead,
    /// The share of values that dropout drops after each pooling.
    pub dropout: f64,
}

impl NinConfig {
    /// `nin-cifar`: 966,986 parameters.
    pub fn cifar() -> Self {
        Self {
            classes: 10,
            input: [3, 32, 32],
            blocks: vec![MlpConv::same(192, 5, [160, 96]), MlpConv::same(192, 5, [192, 192]), MlpConv::same(192, 3, [192])],
            head: NinHead::Gap,
            dropout: 0.5,
        }
    }

    /// `nin-imagenet`: 7,595,176 parameters.
    pub fn imagenet() -> Self {
        let first = MlpConv { filters: 96, kernel_size: 11, stride: 4, padding: 0, mlp: vec![96, 96] };
        Self {
            classes: 1000,
            input: [3, 224, 224],
            blocks: vec![
                first,
                MlpConv::same(256, 5, [256, 256]),
                MlpConv::same(384, 3, [384, 384]),
                MlpConv::same(1024, 3, [1024]),
            ],
            ..Self::cifar()
        }
    }

    /// `nin-tiny`: for tests.
    pub fn tiny() -> Self {
        Self {
            blocks: vec![MlpConv::same(12, 5, [10, 6]), MlpConv::same(12, 5, [12, 12]), MlpConv::same(12, 3, [12])],
            ..Self::cifar()
        }
    }
}

impl Architecture for NinConfig {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        if self.blocks.is_empty() {
            let reason = "must have at least one block: the last gives a map for each class".to_owned();
            return Err(GraphError::Option { option: "blocks = []".to_owned(), reason });
        }
        let mut x = net.input(self.input); // [3, 32, 32]
        for (index, block) in self.blocks.iter().enumerate() {
            let number = index + 1;
            let mut mlpconv = net.sequential(&format!("mlpconv{number}"));
            x = block.add(&mut mlpconv, x)?; // [96, 32, 32], [192, 16, 16]
            if number == self.blocks.len() {
                x = with_relu(&mut mlpconv, Conv2d::new(self.classes, 1), x)?; // [classes, 8, 8]
            } else {
                let pool = MaxPool2d::new(POOL).stride(POOL_STRIDE).ceil_mode();
                x = net.add(&format!("pool{number}"), pool, x)?; // [96, 16, 16], [192, 8, 8]
                x = net.add(&format!("drop{number}"), Dropout::new(self.dropout), x)?;
            }
        }
        let logits = match self.head {
            NinHead::Gap => {
                let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [classes, 1, 1]
                net.add("flatten", Flatten, x)? // [classes]
            }
            NinHead::Dense => {
                let x = net.add("flatten", Flatten, x)?; // [classes * 64]
                let x = net.add("drop", Dropout::new(self.dropout), x)?;
                net.add("fc", Linear::new(self.classes), x)? // [classes]
            }
        };
        net.output("logits", logits)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::{Graph, InitOptions, Network};
    use striate_layers::Mode;
    use tch::{Device, Kind, Tensor};

    fn graph(config: &NinConfig) -> Graph {
        Graph::build(|net| config.define(net)).unwrap()
    }

    #[test]
    fn each_class_has_a_map() {
        let graph = graph(&NinConfig { classes: 7, ..NinConfig::cifar() });
        let shape = |name: &str| graph.node(name).unwrap().shape.dims().to_vec();
        assert_eq!(shape("mlpconv1.5"), [96, 32, 32]);
        assert_eq!(shape("mlpconv2.5"), [192, 16, 16]);
        assert_eq!(shape("mlpconv3.5"), [7, 8, 8]);
    }

    #[test]
    fn the_dense_head_reads_every_pixel_of_the_maps() {
        let (gap, dense) = (graph(&NinConfig::cifar()), graph(&NinConfig { head: NinHead::Dense, ..NinConfig::cifar() }));
        assert_eq!(dense.summary().params - gap.summary().params, 10 * 64 * 10 + 10);
    }

    /// Values and gradients of a layer with these parameters.
    fn trained(network: &Network, weight: &Tensor, bias: &Tensor, x: &Tensor) -> [Tensor; 3] {
        let shape = network.state()["layer.weight"].size();
        let state = [("layer.weight".to_owned(), weight.view(shape.as_slice())), ("layer.bias".to_owned(), bias.copy())];
        network.load_state(&state.into()).unwrap();
        let y = network.forward(x, Mode::Train).unwrap().logits().shallow_clone();
        (&y * &y).sum(Kind::Double).backward();
        let grad = |name: &str| network.trainable().iter().find(|(n, _)| n == name).unwrap().1.grad();
        [y, grad("layer.weight").view_as(weight), grad("layer.bias")]
    }

    /// Section 3.1: the perceptron of an mlpconv block is the same dense layer at each pixel.
    #[test]
    fn a_1x1_convolution_is_a_dense_layer_at_every_pixel() {
        let build = |input: &[i64], layer: striate_layers::Op| {
            let graph = Graph::build(|net| {
                let x = net.input(striate_layers::Shape::new(input));
                let x = net.add("layer", layer, x)?;
                net.output("logits", x)
            });
            Network::new(graph.unwrap(), &InitOptions { kind: Kind::Double, ..InitOptions::default() }).unwrap()
        };
        let conv = build(&[5, 3, 4], Conv2d::new(6, 1).into());
        let dense = build(&[5], Linear::new(6).into());
        let options = (Kind::Double, Device::Cpu);
        striate_torch::manual_seed(1);
        let (weight, bias) = (Tensor::randn([6, 5], options), Tensor::randn([6], options));
        let images = Tensor::randn([2, 5, 3, 4], options);
        let pixels = images.permute([0, 2, 3, 1]).reshape([2 * 3 * 4, 5]);
        let [maps, conv_weight, conv_bias] = trained(&conv, &weight, &bias, &images);
        let [values, dense_weight, dense_bias] = trained(&dense, &weight, &bias, &pixels);
        let values = values.view([2, 3, 4, 6]).permute([0, 3, 1, 2]);
        for (a, b) in [(maps, values), (conv_weight, dense_weight), (conv_bias, dense_bias)] {
            assert!(a.allclose(&b, 1e-12, 1e-12, false));
        }
    }
}
