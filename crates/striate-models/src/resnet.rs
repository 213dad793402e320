//! Residual networks (He, Zhang, Ren, Sun 2015: Deep Residual Learning for Image Recognition, arXiv:1512.03385) and the
//! plain networks that they are compared with.
//!
//! `resnet50` and deeper are torchvision's "v1.5", which strides in the 3x3 convolution of a bottleneck; `-v1` strides in its
//! first 1x1, as the paper does. `-cifar` are the networks of the paper's section 4.2: three stages at 32x32, and shortcuts
//! without parameters (option A); `zero_channels` says where those put their zeros. `plain` is a network without its shortcuts.
//! `preact-` moves batch norm and ReLU before the convolutions (He 2016, arXiv:1603.05027). Wide ResNets and ResNeXts are
//! bottlenecks of other widths and groups.
mod variants;

use crate::Architecture;
use serde::{Deserialize, Serialize};
use striate_graph::{GraphError, NetworkBuilder, Value};
use striate_layers::{
    Activation, AdaptiveAvgPool2d, Add, BatchNorm2d, Conv2d, Fan, Flatten, Init, Linear, MaxPool2d, PadShortcut, StochasticDepth,
    ZeroChannels,
};
pub(crate) use variants::VARIANTS;

/// What comes before the first stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// A 7x7 convolution and max pooling, each with a stride of 2: for images of about 224x224.
    Large,
    /// A 3x3 convolution: for images of about 32x32.
    Small,
}

/// The convolutions of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Block {
    /// 3x3, 3x3.
    Basic,
    /// 1x1, 3x3, 1x1, the last with four times the filters; a stride is the 3x3's.
    Bottleneck,
    /// The same with a stride in the first 1x1, as the paper has it.
    BottleneckV1,
}

/// What goes past the convolutions of a block (section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortcut {
    /// Nothing: a plain network.
    None,
    /// The input; where the shape changes, every second value of it and channels of zeros.
    A,
    /// The input; where the shape changes, a 1x1 convolution of it.
    B,
    /// A 1x1 convolution of the input everywhere.
    C,
}

/// Where batch norm and ReLU stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationOrder {
    /// After the convolutions, and a ReLU after the addition (He 2015).
    Post,
    /// Before the convolutions, and nothing after the addition (He 2016).
    Pre,
}

/// The filters of a bottleneck's last convolution in multiples of the stage's.
const EXPANSION: i64 = 4;
/// The width per group at which a block has as many filters as its stage says.
const BASE_WIDTH: i64 = 64;

/// Residual networks and everything between their variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// Number of classes.
    pub classes: i64,
    /// Channels, height and width of the input: any size.
    pub input: [i64; 3],
    /// What comes first.
    pub stem: Stem,
    /// The kind of block.
    pub block: Block,
    /// Blocks in each stage; every stage after the first halves height and width and doubles the filters.
    pub depths: Vec<i64>,
    /// Filters of the stem and of the first stage.
    pub width: i64,
    /// The shortcuts.
    pub shortcut: Shortcut,
    /// Where shortcuts A put the channels of zeros: `behind`, or `around` for weights that were trained so.
    pub zero_channels: ZeroChannels,
    /// The order within a block.
    pub order: ActivationOrder,
    /// Groups of the 3x3 convolutions (ResNeXt: Xie 2016, arXiv:1611.05431).
    pub groups: i64,
    /// Filters of each group inside a block in the first stage, where 64 stands for `width` (wide ResNets: Zagoruyko 2016,
    /// arXiv:1605.07146).
    pub width_per_group: i64,
    /// Whether every block starts as the identity: the scale of its last batch norm, or its last convolution where the order
    /// is `pre`, starts at 0 (Goyal 2017, arXiv:1706.02677).
    pub zero_init_residual: bool,
    /// The probability with which the last block drops the branch of an example in training. It rises linearly from the first
    /// block to the last (Huang 2016, arXiv:1603.09382). 0 for none.
    #[serde(default)]
    pub stochastic_depth: f64,
}

impl ResNetConfig {
    /// A network for ImageNet with these blocks in its four stages (table 1).
    pub fn imagenet(block: Block, depths: [i64; 4]) -> Self {
        Self {
            classes: 1000,
            input: [3, 224, 224],
            stem: Stem::Large,
            block,
            depths: depths.into(),
            width: 64,
            shortcut: Shortcut::B,
            zero_channels: ZeroChannels::Behind,
            order: ActivationOrder::Post,
            groups: 1,
            width_per_group: BASE_WIDTH,
            zero_init_residual: false,
            stochastic_depth: 0.0,
        }
    }

    /// `resnet18`: 11,689,512 parameters.
    pub fn resnet18() -> Self {
        Self::imagenet(Block::Basic, [2, 2, 2, 2])
    }

    /// `resnet34`: 21,797,672 parameters.
    pub fn resnet34() -> Self {
        Self::imagenet(Block::Basic, [3, 4, 6, 3])
    }

    /// `resnet50`: 25,557,032 parameters.
    pub fn resnet50() -> Self {
        Self::imagenet(Block::Bottleneck, [3, 4, 6, 3])
    }

    /// `resnet101`: 44,549,160 parameters.
    pub fn resnet101() -> Self {
        Self::imagenet(Block::Bottleneck, [3, 4, 23, 3])
    }

    /// `resnet152`: 60,192,808 parameters.
    pub fn resnet152() -> Self {
        Self::imagenet(Block::Bottleneck, [3, 8, 36, 3])
    }

    /// A network for CIFAR-10 with three stages of `blocks` blocks, 6 `blocks` + 2 layers (section 4.2).
    pub fn cifar(blocks: i64) -> Self {
        Self {
            classes: 10,
            input: [3, 32, 32],
            stem: Stem::Small,
            depths: vec![blocks; 3],
            width: 16,
            shortcut: Shortcut::A,
            ..Self::resnet18()
        }
    }

    /// The same with pre-activation (He 2016).
    pub fn preact_cifar(blocks: i64) -> Self {
        Self { order: ActivationOrder::Pre, ..Self::cifar(blocks) }
    }

    /// With pre-activation and bottlenecks, 9 `blocks` + 2 layers (He 2016, table 4).
    pub fn preact_bottleneck_cifar(blocks: i64) -> Self {
        Self { block: Block::Bottleneck, shortcut: Shortcut::B, ..Self::preact_cifar(blocks) }
    }

    /// `resnet-tiny`: for tests.
    pub fn tiny() -> Self {
        Self { width: 8, ..Self::cifar(1) }
    }

    /// The same network without its shortcuts.
    pub fn plain(self) -> Self {
        Self { shortcut: Shortcut::None, ..self }
    }

    /// The same with the stride of bottlenecks in their first 1x1 convolution.
    pub fn v1(self) -> Self {
        Self { block: Block::BottleneckV1, ..self }
    }

    /// The same with other groups, and filters in each, inside its blocks.
    pub fn groups(self, groups: i64, width_per_group: i64) -> Self {
        Self { groups, width_per_group, ..self }
    }

    fn stem(&self, net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
        let conv = match self.stem {
            Stem::Large => conv(self.width, 7).stride(2),
            Stem::Small => conv(self.width, 3),
        };
        let mut x = net.add("conv1", conv, x)?; // [64, 112, 112] or [16, 32, 32]
        if self.order == ActivationOrder::Post {
            x = net.add("bn1", BatchNorm2d::new(), x)?;
            x = net.add("relu", Activation::Relu, x)?;
        }
        if self.stem == Stem::Large {
            x = net.add("maxpool", MaxPool2d::new(3).stride(2).padding(1), x)?; // [64, 56, 56]
        }
        Ok(x)
    }

    fn block(&self, net: &mut NetworkBuilder, unit: Unit, x: Value) -> Result<Value, GraphError> {
        let (source, y) = match self.order {
            ActivationOrder::Post => (x, self.post_activation(net, unit, x)?),
            ActivationOrder::Pre => self.pre_activation(net, unit, x)?,
        };
        let y = match self.past(net, unit, source)? {
            Some(shortcut) => {
                let y = if unit.drop > 0.0 { net.add("stochastic_depth", StochasticDepth::new(unit.drop), y)? } else { y };
                net.add("add", Add, [y, shortcut])?
            }
            None => y,
        };
        match self.order {
            ActivationOrder::Post => net.add(&format!("relu{}", self.convs(unit).len()), Activation::Relu, y),
            ActivationOrder::Pre => Ok(y),
        }
    }

    /// Convolutions with batch norm after each and ReLU between them.
    fn post_activation(&self, net: &mut NetworkBuilder, unit: Unit, mut x: Value) -> Result<Value, GraphError> {
        let convs = self.convs(unit);
        let last = convs.len();
        for (number, conv) in (1..).zip(convs) {
            let scale = if number == last && self.starts_as_identity() { Init::zeros() } else { Init::ones() };
            x = net.add(&format!("conv{number}"), conv, x)?;
            x = net.add(&format!("bn{number}"), BatchNorm2d { weight_init: scale, ..BatchNorm2d::new() }, x)?;
            if number < last {
                x = net.add(&format!("relu{number}"), Activation::Relu, x)?;
            }
        }
        Ok(x)
    }

    /// Convolutions with batch norm and ReLU before each, and what the shortcut starts from.
    fn pre_activation(&self, net: &mut NetworkBuilder, unit: Unit, x: Value) -> Result<(Value, Value), GraphError> {
        let convs = self.convs(unit);
        let last = convs.len();
        let (mut source, mut y) = (x, x);
        for (number, mut conv) in (1..).zip(convs) {
            if number == last && self.starts_as_identity() {
                // A batch norm of scale 0 before a ReLU would never get a gradient.
                conv.weight_init = Init::zeros();
            }
            y = net.add(&format!("bn{number}"), BatchNorm2d::new(), y)?;
            y = net.add(&format!("relu{number}"), Activation::Relu, y)?;
            if number == 1 && unit.first {
                source = y;
            }
            y = net.add(&format!("conv{number}"), conv, y)?;
        }
        Ok((source, y))
    }

    /// A plain network has no identity to start from.
    fn starts_as_identity(&self) -> bool {
        self.zero_init_residual && self.shortcut != Shortcut::None
    }

    fn convs(&self, unit: Unit) -> Vec<Conv2d> {
        let inner = (unit.width.saturating_mul(self.width_per_group) / BASE_WIDTH).saturating_mul(self.groups);
        let conv3x3 = |filters| conv(filters, 3).groups(self.groups);
        match self.block {
            Block::Basic => vec![conv3x3(inner).stride(unit.stride), conv3x3(unit.width)],
            Block::Bottleneck => {
                vec![conv(inner, 1), conv3x3(inner).stride(unit.stride), conv(self.out_channels(unit), 1)]
            }
            Block::BottleneckV1 => {
                vec![conv(inner, 1).stride(unit.stride), conv3x3(inner), conv(self.out_channels(unit), 1)]
            }
        }
    }

    fn out_channels(&self, unit: Unit) -> i64 {
        match self.block {
            Block::Basic => unit.width,
            Block::Bottleneck | Block::BottleneckV1 => unit.width.saturating_mul(EXPANSION),
        }
    }

    /// What goes past a block's convolutions, if anything does.
    fn past(&self, net: &mut NetworkBuilder, unit: Unit, x: Value) -> Result<Option<Value>, GraphError> {
        let out_channels = self.out_channels(unit);
        let changes = unit.stride != 1 || net.shape(x).dims().first() != Some(&out_channels);
        match self.shortcut {
            Shortcut::None => Ok(None),
            Shortcut::A if changes => {
                let shortcut = PadShortcut::new(out_channels, unit.stride).zeros(self.zero_channels);
                net.add("downsample", shortcut, x).map(Some)
            }
            Shortcut::A => Ok(Some(x)),
            Shortcut::B if !changes => Ok(Some(x)),
            Shortcut::B | Shortcut::C => self.projection(net, unit, x).map(Some),
        }
    }

    fn projection(&self, net: &mut NetworkBuilder, unit: Unit, x: Value) -> Result<Value, GraphError> {
        let mut downsample = net.sequential("downsample");
        let x = downsample.add(conv(self.out_channels(unit), 1).stride(unit.stride), x)?;
        match self.order {
            ActivationOrder::Post => downsample.add(BatchNorm2d::new(), x),
            ActivationOrder::Pre => Ok(x),
        }
    }
}

/// Where a block stands.
#[derive(Debug, Clone, Copy)]
struct Unit {
    /// The filters of its stage.
    width: i64,
    /// The step of its first or middle convolution.
    stride: i64,
    /// Whether it begins a stage.
    first: bool,
    /// The probability with which an example's branch is dropped.
    drop: f64,
}

/// A convolution that keeps height and width, initialised as torchvision does, without a bias since batch norm follows.
fn conv(filters: i64, kernel_size: i64) -> Conv2d {
    Conv2d::new(filters, kernel_size).padding(kernel_size / 2).no_bias().init(Init::he_normal(Fan::Out), Init::zeros())
}

impl Architecture for ResNetConfig {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        if self.depths.is_empty() || self.depths.iter().any(|blocks| *blocks < 1) {
            let option = format!("depths = {:?}", self.depths);
            return Err(GraphError::Option { option, reason: "must give every stage at least one block".to_owned() });
        }
        let drop = self.stochastic_depth;
        let reason = match self.shortcut {
            Shortcut::None => "needs shortcuts: take a residual network",
            _ => "must be from 0 to below 1",
        };
        if drop != 0.0 && (self.shortcut == Shortcut::None || !(0.0..1.0).contains(&drop)) {
            return Err(GraphError::Option { option: format!("stochastic_depth = {drop}"), reason: reason.to_owned() });
        }
        let (mut number, all) = (0, self.depths.iter().fold(0, |all, blocks| i64::saturating_add(all, *blocks)));
        let x = net.input(self.input); // [3, 224, 224]
        let mut x = self.stem(net, x)?; // [64, 56, 56]
        let mut width = self.width;
        for (stage, &blocks) in (1..).zip(&self.depths) {
            let mut layer = net.sequential(&format!("layer{stage}"));
            for block in 0..blocks {
                let first = block == 0;
                let stride = if first && stage > 1 { 2 } else { 1 };
                number += 1;
                let drop = drop * number as f64 / all as f64;
                x = self.block(&mut layer.scope(), Unit { width, stride, first, drop }, x)?;
            }
            width = width.saturating_mul(2); // [64, 56, 56], [128, 28, 28], [256, 14, 14], [512, 7, 7], or 4 times the channels
        }
        if self.order == ActivationOrder::Pre {
            x = net.add("bn", BatchNorm2d::new(), x)?;
            x = net.add("relu", Activation::Relu, x)?;
        }
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [512, 1, 1]
        let x = net.add("flatten", Flatten, x)?; // [512]
        let x = net.add("fc", Linear::new(self.classes), x)?; // [classes]
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

    fn graph(config: &ResNetConfig) -> Graph {
        Graph::build(|net| config.define(net)).unwrap()
    }

    fn network(config: &ResNetConfig) -> Network {
        Network::new(graph(config), &InitOptions::default()).unwrap()
    }

    fn images(config: &ResNetConfig) -> Tensor {
        let [channels, height, width] = config.input;
        striate_torch::manual_seed(1);
        Tensor::randn([2, channels, height, width], (Kind::Float, Device::Cpu))
    }

    fn deep(order: ActivationOrder) -> ResNetConfig {
        ResNetConfig { depths: vec![2, 2], order, ..ResNetConfig::tiny() }
    }

    /// Section 3.1: with zero weights, the residual is zero and the block gives back what it is given.
    #[test]
    fn a_block_with_zero_weights_is_the_identity() {
        for (order, before, after) in
            [(ActivationOrder::Post, "layer2.0.relu2", "layer2.1.relu2"), (ActivationOrder::Pre, "layer2.0.add", "layer2.1.add")]
        {
            let config = deep(order);
            let network = network(&config);
            let mut state = network.state();
            for (name, tensor) in &mut state {
                if name.starts_with("layer2.1.conv") {
                    *tensor = tensor.zeros_like();
                }
            }
            network.load_state(&state).unwrap();
            let outputs = network.forward_with_taps(&[&images(&config)], Mode::Train, &[before, after]).unwrap();
            assert_eq!(outputs.tap(before), outputs.tap(after), "{order:?}");
            assert!(outputs.tap(after).unwrap().abs().max().double_value(&[]) > 0.1);
        }
    }

    #[test]
    fn zero_init_residual_starts_blocks_as_the_identity_and_trains_them() {
        for order in [ActivationOrder::Post, ActivationOrder::Pre] {
            let config = ResNetConfig { zero_init_residual: true, ..deep(order) };
            let network = network(&config);
            let (before, after) = match order {
                ActivationOrder::Post => ("layer1.0.relu2", "layer1.1.relu2"),
                ActivationOrder::Pre => ("layer1.0.add", "layer1.1.add"),
            };
            let outputs = network.forward_with_taps(&[&images(&config)], Mode::Train, &[before, after]).unwrap();
            assert_eq!(outputs.tap(before), outputs.tap(after), "{order:?}");
            outputs.logits().square().sum(Kind::Float).backward();
            let leaves_zero = if order == ActivationOrder::Post { "layer1.1.bn2.weight" } else { "layer1.1.conv2.weight" };
            let (_, tensor) = network.trainable().into_iter().find(|(name, _)| name == leaves_zero).unwrap();
            assert!(tensor.grad().abs().max().double_value(&[]) > 0.0, "{order:?}");
        }
    }

    #[test]
    fn shortcuts_stand_where_their_option_says() {
        let names = |shortcut, op: &str| {
            let graph = graph(&ResNetConfig { shortcut, ..deep(ActivationOrder::Post) });
            let nodes = graph.nodes().iter().filter(|node| node.op_name() == op);
            let names = nodes.map(|node| node.name.clone()).filter(|name| op == "Add" || name.contains("downsample"));
            names.collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(names(Shortcut::None, "Add"), none);
        assert_eq!(names(Shortcut::A, "Add"), ["layer1.0.add", "layer1.1.add", "layer2.0.add", "layer2.1.add"]);
        assert_eq!(names(Shortcut::A, "PadShortcut"), ["layer2.0.downsample"]);
        assert_eq!(names(Shortcut::B, "Conv2d"), ["layer2.0.downsample.0"]);
        assert_eq!(names(Shortcut::C, "Conv2d").len(), 4);
    }

    #[test]
    fn the_stride_of_a_bottleneck_is_an_option() {
        let strides = |config: &ResNetConfig| {
            let summary = graph(config).summary();
            let block = summary.layers.iter().filter(|layer| layer.name.starts_with("layer2.0.conv"));
            block.map(|layer| layer.options.clone()).collect::<Vec<_>>()
        };
        assert_eq!(strides(&ResNetConfig::resnet50()), ["1x1", "3x3/2", "1x1"]);
        assert_eq!(strides(&ResNetConfig::resnet50().v1()), ["1x1/2", "3x3", "1x1"]);
    }

    #[test]
    fn small_images_take_the_small_stem() {
        let config = ResNetConfig { input: [1, 28, 28], stem: Stem::Small, ..ResNetConfig::resnet18() };
        let graph = graph(&config);
        let shape = |name: &str| graph.node(name).unwrap().shape.dims().to_vec();
        assert_eq!(shape("layer1.1.relu2"), [64, 28, 28]);
        assert_eq!(shape("layer4.1.relu2"), [512, 4, 4]);
    }

    #[test]
    fn stages_halve_the_map_and_double_the_channels() {
        let graph = graph(&ResNetConfig::resnet50());
        let shape = |name: &str| graph.node(name).unwrap().shape.dims().to_vec();
        assert_eq!(shape("maxpool"), [64, 56, 56]);
        assert_eq!(shape("layer1.2.relu3"), [256, 56, 56]);
        assert_eq!(shape("layer2.3.relu3"), [512, 28, 28]);
        assert_eq!(shape("layer3.5.relu3"), [1024, 14, 14]);
        assert_eq!(shape("layer4.2.relu3"), [2048, 7, 7]);
    }

    /// Huang 2016, section 3: the survival of block l of L is 1 - l / L * (1 - p_L).
    #[test]
    fn stochastic_depth_rises_over_the_blocks() {
        let config = ResNetConfig { stochastic_depth: 0.4, ..deep(ActivationOrder::Post) };
        let drops = |config: &ResNetConfig| {
            let summary = graph(config).summary();
            let layers = summary.layers.into_iter().filter(|layer| layer.op == "StochasticDepth");
            layers.map(|layer| (layer.name, layer.options)).collect::<Vec<_>>()
        };
        let expected =
            [("layer1.0", "p=0.1"), ("layer1.1", "p=0.2"), ("layer2.0", "p=0.30000000000000004"), ("layer2.1", "p=0.4")];
        let expected = expected.map(|(block, p)| (format!("{block}.stochastic_depth"), p.to_owned()));
        assert_eq!(drops(&config), expected);
        assert_eq!(drops(&deep(ActivationOrder::Post)), []);
        let (with, without) = (network(&config), network(&deep(ActivationOrder::Post)));
        // The same parameters; where they start from depends on the layer's place.
        without.load_state(&with.state()).unwrap();
        let logits = |network: &Network| network.forward(&images(&config), Mode::Eval).unwrap().logits().shallow_clone();
        assert_eq!(logits(&with), logits(&without));
        let told = |config: ResNetConfig| Graph::build(|net| config.define(net)).unwrap_err().to_string();
        assert!(told(config.clone().plain()).starts_with("stochastic_depth = 0.4 needs shortcuts"), "{}", told(config.plain()));
        let all = ResNetConfig { stochastic_depth: 1.0, ..ResNetConfig::tiny() };
        assert!(told(all).contains("stochastic_depth = 1 must be from 0 to below 1"));
    }
}
