//! The table of the family's variants.
use super::{Block, ResNetConfig, Shortcut};
use crate::Variant;
use crate::registry::variant;

const HE: &str = "He, Zhang, Ren, Sun 2015: Deep Residual Learning for Image Recognition, arXiv:1512.03385";
const HE_2016: &str = "He, Zhang, Ren, Sun 2016: Identity Mappings in Deep Residual Networks, arXiv:1603.05027";
const ZAGORUYKO: &str = "Zagoruyko, Komodakis 2016: Wide Residual Networks, arXiv:1605.07146";
const XIE: &str =
    "Xie, Girshick, Dollar, Tu, He 2016: Aggregated Residual Transformations for Deep Neural Networks, arXiv:1611.05431";

/// An entry of the table: name, paper, what it is, configuration.
macro_rules! resnet {
    ($name:literal, $paper:expr, $about:literal, $config:expr $(,)?) => {
        variant!($name, "ResNet", $paper, $about, ResNetConfig, $config)
    };
}

pub(crate) const VARIANTS: &[Variant] = &[
    resnet!("resnet18", HE, "table 1, 18 layers, shortcuts B; fan-out initialisation", ResNetConfig::resnet18()),
    resnet!("resnet34", HE, "table 1, 34 layers, shortcuts B; fan-out initialisation", ResNetConfig::resnet34()),
    resnet!(
        "resnet50",
        HE,
        "table 1, 50 layers, v1.5: the stride in the 3x3, as in torchvision; fan-out initialisation",
        ResNetConfig::resnet50()
    ),
    resnet!(
        "resnet101",
        HE,
        "table 1, 101 layers, v1.5: the stride in the 3x3, as in torchvision; fan-out initialisation",
        ResNetConfig::resnet101()
    ),
    resnet!(
        "resnet152",
        HE,
        "table 1, 152 layers, v1.5: the stride in the 3x3, as in torchvision; fan-out initialisation",
        ResNetConfig::resnet152()
    ),
    resnet!(
        "resnet50-v1",
        HE,
        "table 1, 50 layers, v1: the stride in the first 1x1, as in the paper; fan-out initialisation",
        ResNetConfig::resnet50().v1()
    ),
    resnet!(
        "resnet101-v1",
        HE,
        "table 1, 101 layers, v1: the stride in the first 1x1, as in the paper; fan-out initialisation",
        ResNetConfig::resnet101().v1()
    ),
    resnet!(
        "resnet152-v1",
        HE,
        "table 1, 152 layers, v1: the stride in the first 1x1, as in the paper; fan-out initialisation",
        ResNetConfig::resnet152().v1()
    ),
    resnet!("plain18", HE, "table 1, 18 layers without shortcuts; fan-out initialisation", ResNetConfig::resnet18().plain()),
    resnet!("plain34", HE, "table 1, 34 layers without shortcuts; fan-out initialisation", ResNetConfig::resnet34().plain()),
    resnet!(
        "resnet20-cifar",
        HE,
        "section 4.2, 20 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::cifar(3)
    ),
    resnet!(
        "resnet32-cifar",
        HE,
        "section 4.2, 32 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::cifar(5)
    ),
    resnet!(
        "resnet44-cifar",
        HE,
        "section 4.2, 44 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::cifar(7)
    ),
    resnet!(
        "resnet56-cifar",
        HE,
        "section 4.2, 56 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::cifar(9)
    ),
    resnet!(
        "resnet110-cifar",
        HE,
        "section 4.2, 110 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::cifar(18)
    ),
    resnet!(
        "resnet1202-cifar",
        HE,
        "section 4.2, 1202 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::cifar(200)
    ),
    resnet!(
        "plain20-cifar",
        HE,
        "section 4.2, 20 layers for CIFAR-10 without shortcuts; fan-out initialisation",
        ResNetConfig::cifar(3).plain()
    ),
    resnet!(
        "plain32-cifar",
        HE,
        "section 4.2, 32 layers for CIFAR-10 without shortcuts; fan-out initialisation",
        ResNetConfig::cifar(5).plain()
    ),
    resnet!(
        "plain44-cifar",
        HE,
        "section 4.2, 44 layers for CIFAR-10 without shortcuts; fan-out initialisation",
        ResNetConfig::cifar(7).plain()
    ),
    resnet!(
        "plain56-cifar",
        HE,
        "section 4.2, 56 layers for CIFAR-10 without shortcuts; fan-out initialisation",
        ResNetConfig::cifar(9).plain()
    ),
    resnet!(
        "plain110-cifar",
        HE,
        "section 4.2, 110 layers for CIFAR-10 without shortcuts; fan-out initialisation",
        ResNetConfig::cifar(18).plain()
    ),
    resnet!(
        "preact-resnet20-cifar",
        HE_2016,
        "as table 2 with 20 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::preact_cifar(3)
    ),
    resnet!(
        "preact-resnet56-cifar",
        HE_2016,
        "as table 2 with 56 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::preact_cifar(9)
    ),
    resnet!(
        "preact-resnet110-cifar",
        HE_2016,
        "table 2, 110 layers for CIFAR-10, shortcuts A; fan-out initialisation",
        ResNetConfig::preact_cifar(18)
    ),
    resnet!(
        "preact-resnet164-cifar",
        HE_2016,
        "table 4, 164 layers in bottlenecks for CIFAR-10, shortcuts B; fan-out initialisation",
        ResNetConfig::preact_bottleneck_cifar(18)
    ),
    resnet!(
        "preact-resnet1001-cifar",
        HE_2016,
        "table 4, 1001 layers in bottlenecks for CIFAR-10, shortcuts B; fan-out initialisation",
        ResNetConfig::preact_bottleneck_cifar(111)
    ),
    resnet!(
        "wide-resnet50-2",
        ZAGORUYKO,
        "resnet50 with twice the filters inside its blocks, as in torchvision; fan-out initialisation",
        ResNetConfig::resnet50().groups(1, 128)
    ),
    resnet!(
        "wide-resnet101-2",
        ZAGORUYKO,
        "resnet101 with twice the filters inside its blocks, as in torchvision; fan-out initialisation",
        ResNetConfig::resnet101().groups(1, 128)
    ),
    resnet!(
        "resnext50-32x4d",
        XIE,
        "resnet50 with 3x3 convolutions in 32 groups of 4, as in torchvision; fan-out initialisation",
        ResNetConfig::resnet50().groups(32, 4)
    ),
    resnet!(
        "resnext101-32x8d",
        XIE,
        "resnet101 with 3x3 convolutions in 32 groups of 8, as in torchvision; fan-out initialisation",
        ResNetConfig::resnet101().groups(32, 8)
    ),
    resnet!("resnet-tiny", HE, "resnet8-cifar with half of the filters, for tests", ResNetConfig::tiny()),
    resnet!(
        "resnet-bottleneck-tiny",
        HE,
        "the same in bottlenecks with shortcuts B, for tests",
        ResNetConfig { block: Block::Bottleneck, shortcut: Shortcut::B, ..ResNetConfig::tiny() }
    ),
    resnet!(
        "preact-resnet-tiny",
        HE_2016,
        "resnet-tiny with pre-activation, for tests",
        ResNetConfig { width: 8, ..ResNetConfig::preact_cifar(1) }
    ),
];
