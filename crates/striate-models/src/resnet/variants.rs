//! The table of the family's variants.
use super::{Block, ResNetConfig, Shortcut};
use crate::{Paper, Variant};
use crate::{registry::FOR_TESTS, variant};

const HE: &Paper = &Paper {
    authors: "He, Zhang, Ren, Sun",
    year: 2015,
    title: "Deep Residual Learning for Image Recognition",
    arxiv: Some("1512.03385"),
};
const HE_2016: &Paper = &Paper {
    authors: "He, Zhang, Ren, Sun",
    year: 2016,
    title: "Identity Mappings in Deep Residual Networks",
    arxiv: Some("1603.05027"),
};
const ZAGORUYKO: &Paper =
    &Paper { authors: "Zagoruyko, Komodakis", year: 2016, title: "Wide Residual Networks", arxiv: Some("1605.07146") };
const XIE: &Paper = &Paper {
    authors: "Xie, Girshick, Dollar, Tu, He",
    year: 2016,
    title: "Aggregated Residual Transformations for Deep Neural Networks",
    arxiv: Some("1611.05431"),
};

/// An entry of the table: name, paper, what it is, configuration.
macro_rules! resnet {
    ($name:literal, $paper:expr, $about:literal, $config:expr $(,)?) => {
        variant!($name, "ResNet", $paper, $about, ResNetConfig, $config)
    };
}

const FAN_OUT: &str =
    "He's initialisation with the fan of the outputs, as in torchvision, where the paper takes that of the inputs";
const FAN_OUT_TORCHVISION: &str = "He's initialisation with the fan of the outputs, as in torchvision";
const V1_5: &str = "a bottleneck strides in its 3x3, as in torchvision, where the paper strides in its first 1x1";
const ZEROS_BEHIND: &str = "shortcuts A put all their zeros behind the channels, which the paper leaves open; weights of repositories that put half of them before (akamaster's) need the option zero_channels = around";
const SHARED_ACTIVATION: &str =
    "the first block of each stage shares its first activation with its shortcut, as in the authors' code";

pub(crate) const VARIANTS: &[Variant] = &[
    resnet!("resnet18", HE, "18 layers, shortcuts B", ResNetConfig::resnet18())
        .at("table 1")
        .deviates(&["shortcuts B, where table 2 has A", FAN_OUT])
        .torchvision("resnet18", &[]),
    resnet!("resnet34", HE, "34 layers, shortcuts B", ResNetConfig::resnet34())
        .at("table 1")
        .deviates(&[FAN_OUT])
        .torchvision("resnet34", &[]),
    resnet!("resnet50", HE, "50 layers in bottlenecks, v1.5: the stride in the 3x3", ResNetConfig::resnet50())
        .at("table 1")
        .deviates(&[V1_5, FAN_OUT])
        .torchvision("resnet50", &[]),
    resnet!("resnet101", HE, "101 layers in bottlenecks, v1.5: the stride in the 3x3", ResNetConfig::resnet101())
        .at("table 1")
        .deviates(&[V1_5, FAN_OUT])
        .torchvision("resnet101", &[]),
    resnet!("resnet152", HE, "152 layers in bottlenecks, v1.5: the stride in the 3x3", ResNetConfig::resnet152())
        .at("table 1")
        .deviates(&[V1_5, FAN_OUT])
        .torchvision("resnet152", &[]),
    resnet!("resnet50-v1", HE, "50 layers in bottlenecks, v1: the stride in the first 1x1", ResNetConfig::resnet50().v1())
        .at("table 1")
        .deviates(&[FAN_OUT]),
    resnet!("resnet101-v1", HE, "101 layers in bottlenecks, v1: the stride in the first 1x1", ResNetConfig::resnet101().v1())
        .at("table 1")
        .deviates(&[FAN_OUT]),
    resnet!("resnet152-v1", HE, "152 layers in bottlenecks, v1: the stride in the first 1x1", ResNetConfig::resnet152().v1())
        .at("table 1")
        .deviates(&[FAN_OUT]),
    resnet!("plain18", HE, "18 layers without shortcuts", ResNetConfig::resnet18().plain()).at("table 1").deviates(&[FAN_OUT]),
    resnet!("plain34", HE, "34 layers without shortcuts", ResNetConfig::resnet34().plain()).at("table 1").deviates(&[FAN_OUT]),
    resnet!("resnet20-cifar", HE, "20 layers for CIFAR-10, shortcuts A", ResNetConfig::cifar(3))
        .at("section 4.2")
        .deviates(&[ZEROS_BEHIND, FAN_OUT]),
    resnet!("resnet32-cifar", HE, "32 layers for CIFAR-10, shortcuts A", ResNetConfig::cifar(5))
        .at("section 4.2")
        .deviates(&[ZEROS_BEHIND, FAN_OUT]),
    resnet!("resnet44-cifar", HE, "44 layers for CIFAR-10, shortcuts A", ResNetConfig::cifar(7))
        .at("section 4.2")
        .deviates(&[ZEROS_BEHIND, FAN_OUT]),
    resnet!("resnet56-cifar", HE, "56 layers for CIFAR-10, shortcuts A", ResNetConfig::cifar(9))
        .at("section 4.2")
        .deviates(&[ZEROS_BEHIND, FAN_OUT]),
    resnet!("resnet110-cifar", HE, "110 layers for CIFAR-10, shortcuts A", ResNetConfig::cifar(18))
        .at("section 4.2")
        .deviates(&[ZEROS_BEHIND, FAN_OUT]),
    resnet!("resnet1202-cifar", HE, "1202 layers for CIFAR-10, shortcuts A", ResNetConfig::cifar(200))
        .at("section 4.2")
        .deviates(&[ZEROS_BEHIND, FAN_OUT]),
    resnet!("plain20-cifar", HE, "20 layers for CIFAR-10 without shortcuts", ResNetConfig::cifar(3).plain())
        .at("section 4.2")
        .deviates(&[FAN_OUT]),
    resnet!("plain32-cifar", HE, "32 layers for CIFAR-10 without shortcuts", ResNetConfig::cifar(5).plain())
        .at("section 4.2")
        .deviates(&[FAN_OUT]),
    resnet!("plain44-cifar", HE, "44 layers for CIFAR-10 without shortcuts", ResNetConfig::cifar(7).plain())
        .at("section 4.2")
        .deviates(&[FAN_OUT]),
    resnet!("plain56-cifar", HE, "56 layers for CIFAR-10 without shortcuts", ResNetConfig::cifar(9).plain())
        .at("section 4.2")
        .deviates(&[FAN_OUT]),
    resnet!("plain110-cifar", HE, "110 layers for CIFAR-10 without shortcuts", ResNetConfig::cifar(18).plain())
        .at("section 4.2")
        .deviates(&[FAN_OUT]),
    resnet!(
        "preact-resnet20-cifar",
        HE_2016,
        "20 layers for CIFAR-10, pre-activation, shortcuts A",
        ResNetConfig::preact_cifar(3)
    )
    .deviates(&[ZEROS_BEHIND, "as table 2, with 20 layers", SHARED_ACTIVATION, FAN_OUT]),
    resnet!(
        "preact-resnet56-cifar",
        HE_2016,
        "56 layers for CIFAR-10, pre-activation, shortcuts A",
        ResNetConfig::preact_cifar(9)
    )
    .deviates(&[ZEROS_BEHIND, "as table 2, with 56 layers", SHARED_ACTIVATION, FAN_OUT]),
    resnet!(
        "preact-resnet110-cifar",
        HE_2016,
        "110 layers for CIFAR-10, pre-activation, shortcuts A",
        ResNetConfig::preact_cifar(18)
    )
    .at("table 2")
    .deviates(&[ZEROS_BEHIND, SHARED_ACTIVATION, FAN_OUT]),
    resnet!(
        "preact-resnet164-cifar",
        HE_2016,
        "164 layers in bottlenecks for CIFAR-10, pre-activation, shortcuts B",
        ResNetConfig::preact_bottleneck_cifar(18)
    )
    .at("table 4")
    .deviates(&[SHARED_ACTIVATION, FAN_OUT]),
    resnet!(
        "preact-resnet1001-cifar",
        HE_2016,
        "1001 layers in bottlenecks for CIFAR-10, pre-activation, shortcuts B",
        ResNetConfig::preact_bottleneck_cifar(111)
    )
    .at("table 4")
    .deviates(&[SHARED_ACTIVATION, FAN_OUT]),
    resnet!(
        "wide-resnet50-2",
        ZAGORUYKO,
        "resnet50 with twice the filters inside its blocks",
        ResNetConfig::resnet50().groups(1, 128)
    )
    .at("WRN-50-2-bottleneck")
    .deviates(&[FAN_OUT_TORCHVISION])
    .torchvision("wide_resnet50_2", &[]),
    resnet!(
        "wide-resnet101-2",
        ZAGORUYKO,
        "resnet101 with twice the filters inside its blocks",
        ResNetConfig::resnet101().groups(1, 128)
    )
    .deviates(&["as WRN-50-2-bottleneck, with 101 layers", FAN_OUT_TORCHVISION])
    .torchvision("wide_resnet101_2", &[]),
    resnet!("resnext50-32x4d", XIE, "resnet50 with 3x3 convolutions in 32 groups of 4", ResNetConfig::resnet50().groups(32, 4))
        .at("table 1")
        .deviates(&[FAN_OUT_TORCHVISION])
        .torchvision("resnext50_32x4d", &[]),
    resnet!(
        "resnext101-32x8d",
        XIE,
        "resnet101 with 3x3 convolutions in 32 groups of 8",
        ResNetConfig::resnet101().groups(32, 8)
    )
    .deviates(&["as table 1, with 101 layers and groups of 8", FAN_OUT_TORCHVISION])
    .torchvision("resnext101_32x8d", &[]),
    resnet!("resnet-tiny", HE, "one block in each of three stages, half of the filters of resnet20-cifar", ResNetConfig::tiny())
        .deviates(&[FOR_TESTS]),
    resnet!(
        "resnet-bottleneck-tiny",
        HE,
        "resnet-tiny in bottlenecks, shortcuts B",
        ResNetConfig { block: Block::Bottleneck, shortcut: Shortcut::B, ..ResNetConfig::tiny() }
    )
    .deviates(&[FOR_TESTS]),
    resnet!(
        "preact-resnet-tiny",
        HE_2016,
        "resnet-tiny with pre-activation",
        ResNetConfig { width: 8, ..ResNetConfig::preact_cifar(1) }
    )
    .deviates(&[FOR_TESTS]),
];
