//! Published sizes of the networks, held against their summaries. Multiply-adds are those of convolutions and linear layers
//! alone, at the network's own input size, and given to as many digits as they are published.
#![allow(clippy::unwrap_used)]
use crate::find;
use serde_json::Value;

/// Options that are not the variant's own.
type Options = &'static [(&'static str, &'static str)];

const OWN: Options = &[];
const NO_AUX: Options = &[("aux_heads", "false")];
const OPTION_B: Options = &[("shortcut", "b")];
const OPTION_C: Options = &[("shortcut", "c")];

/// Variant, options, parameters, multiply-adds in millions with the digits that are known, if they are.
#[rustfmt::skip]
const FIGURES: &[(&str, Options, u64, Option<&str>)] = &[
    ("lenet5", OWN, 61_706, Some("0.416520")),
    ("lenet5-paper", OWN, 60_000, None),
    ("alexnet", OWN, 61_100_840, Some("714.2")),
    ("alexnet-paper", OWN, 60_965_224, Some("724.4")),
    ("alexnet-ungrouped", OWN, 62_378_344, Some("1135.3")),
    ("vgg11", OWN, 132_863_336, Some("7609")),
    ("vgg13", OWN, 133_047_848, Some("11308")),
    ("vgg16", OWN, 138_357_544, Some("15470")),
    ("vgg19", OWN, 143_667_240, Some("19632")),
    ("vgg11-bn", OWN, 132_868_840, Some("7609")),
    ("vgg13-bn", OWN, 133_053_736, Some("11308")),
    ("vgg16-bn", OWN, 138_365_992, Some("15470")),
    ("vgg19-bn", OWN, 143_678_248, Some("19632")),
    ("vgg16-c", OWN, 133_638_952, Some("11771")),
    ("nin-cifar", OWN, 966_986, Some("222.5")),
    ("nin-imagenet", OWN, 7_595_176, Some("1100")),
    ("resnet18", OWN, 11_689_512, Some("1814")),
    ("resnet34", OWN, 21_797_672, Some("3664")),
    ("resnet50", OWN, 25_557_032, Some("4089")),
    ("resnet101", OWN, 44_549_160, Some("7801")),
    ("resnet152", OWN, 60_192_808, Some("11514")),
    ("resnet50-v1", OWN, 25_557_032, Some("3858")),
    ("resnet101-v1", OWN, 44_549_160, None),
    ("resnet152-v1", OWN, 60_192_808, None),
    ("resnet18", OPTION_C, 12_043_816, None),
    ("resnet34", OPTION_C, 22_716_840, None),
    ("resnet50", OPTION_C, 40_128_552, None),
    ("plain18", OWN, 11_515_688, Some("1794.8")),
    ("plain34", OWN, 21_623_848, Some("3644.5")),
    ("resnet18", &[("shortcut", "a")], 11_515_688, Some("1794.8")),
    ("resnet34", &[("shortcut", "a")], 21_623_848, Some("3644.5")),
    ("resnet20-cifar", OWN, 269_722, Some("40.55")),
    ("resnet32-cifar", OWN, 464_154, Some("68.86")),
    ("resnet44-cifar", OWN, 658_586, Some("97.17")),
    ("resnet56-cifar", OWN, 853_018, Some("125.49")),
    ("resnet110-cifar", OWN, 1_727_962, Some("252.89")),
    ("resnet1202-cifar", OWN, 19_421_274, Some("2829")),
    ("plain20-cifar", OWN, 269_722, Some("40.55")),
    ("plain32-cifar", OWN, 464_154, Some("68.86")),
    ("plain44-cifar", OWN, 658_586, Some("97.17")),
    ("plain56-cifar", OWN, 853_018, Some("125.49")),
    ("plain110-cifar", OWN, 1_727_962, Some("252.89")),
    ("resnet20-cifar", OPTION_B, 269_722 + 2_752, None),
    ("resnet110-cifar", OPTION_B, 1_727_962 + 2_752, None),
    ("preact-resnet164-cifar", OWN, 1_703_258, None),
    ("preact-resnet1001-cifar", OWN, 10_327_706, None),
    ("wide-resnet50-2", OWN, 68_883_240, Some("11398")),
    ("wide-resnet101-2", OWN, 126_886_696, Some("22753")),
    ("resnext50-32x4d", OWN, 25_028_904, Some("4230")),
    ("resnext101-32x8d", OWN, 88_791_336, Some("16414")),
    ("googlenet-paper", OWN, 13_378_280, Some("1583")),
    ("googlenet-paper", NO_AUX, 6_998_552, Some("1583")),
    ("googlenet", OWN, 13_004_888, Some("1498")),
    ("googlenet", NO_AUX, 6_624_904, Some("1498")),
    ("inception-v3", OWN, 27_161_264, Some("5713")),
    ("inception-v3", NO_AUX, 23_834_568, Some("5713")),
];

/// Millions with as many decimals as `like` has.
fn millions(macs: u64, like: &str) -> String {
    let decimals = like.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    format!("{:.decimals$}", macs as f64 / 1e6)
}

#[test]
fn every_published_figure_holds() {
    let mut wrong = Vec::new();
    for (name, options, params, macs) in FIGURES {
        let options: Vec<(&str, Value)> = options.iter().map(|(option, value)| (*option, (*value).into())).collect();
        let summary = find(name).unwrap().model(&options).unwrap().graph().unwrap().summary();
        let got = macs.map(|like| millions(summary.macs, like));
        if summary.params != *params || got.as_deref() != *macs {
            wrong.push(format!("{name} {options:?}: {params} {macs:?}, got {} {got:?}", summary.params));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn alexnet_of_the_paper_has_its_figures_layer_by_layer() {
    let summary = find("alexnet-paper").unwrap().model(&[]).unwrap().graph().unwrap().summary();
    let layers = summary.layers.iter().filter(|layer| layer.params > 0);
    let figures: Vec<_> = layers.map(|layer| (layer.name.as_str(), layer.params, millions(layer.macs, "0.0"))).collect();
    let expected = [
        ("conv1", 34_944, "105.4"),
        ("conv2", 307_456, "223.9"),
        ("conv3", 885_120, "149.5"),
        ("conv4", 663_936, "112.1"),
        ("conv5", 442_624, "74.8"),
        ("fc6", 37_752_832, "37.7"),
        ("fc7", 16_781_312, "16.8"),
        ("fc8", 4_097_000, "4.1"),
    ];
    assert_eq!(figures, expected.map(|(name, params, macs)| (name, params, macs.to_owned())));
}

/// Receptive fields of the last feature map, from Araujo, Norris, Sim 2019 (Computing Receptive Fields of Convolutional Neural
/// Networks, Distill), whose residual networks are those of the paper; v1.5 sees 2 (4 + 8 + 16) less, since its strides come
/// one convolution later.
#[test]
fn receptive_fields_are_the_published_ones() {
    let fields = [
        ("alexnet", 195),
        ("vgg16", 212),
        ("resnet50-v1", 483),
        ("resnet101-v1", 1027),
        ("resnet152-v1", 1507),
        ("resnet50", 483 - 56),
        ("inception-v3", 1311),
    ];
    for (name, field) in fields {
        let summary = find(name).unwrap().model(&[]).unwrap().graph().unwrap().summary();
        assert_eq!(summary.receptive_field, [field; 2], "{name}");
    }
}
