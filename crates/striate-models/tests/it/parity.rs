use crate::fixture::{Fixture, measure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use striate_graph::Network;
use striate_layers::Mode;
use tch::{Kind, Tensor};

/// Differences allowed, relative to the largest value.
const DOUBLE: f64 = 1e-10;
const SINGLE: f64 = 1e-5;
/// What is smaller than others by this factor is rounding.
const ROUNDING: f64 = 1e-5;
/// The classes of the two images.
const TARGETS: [i64; 2] = [1, 7];

/// The small fixtures, which cover every block and every head.
const FIXTURES: [&str; 9] = [
    "alexnet",
    "vgg11",
    "vgg16-bn",
    "resnet18",
    "resnet50",
    "resnext50-32x4d",
    "resnet-tiny",
    "googlenet-tiny",
    "inception-v3-tiny",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixtures").join(format!("{name}.safetensors"))
}

/// Everything that the fixture expects, computed here by the same names, after a change of the networks.
fn compute(fixture: &Fixture, change: impl Fn(&Network)) -> BTreeMap<String, Tensor> {
    let images = fixture.images();
    let (single, network) = (fixture.network(Kind::Float), fixture.network(Kind::Double));
    tch::no_grad(|| [&single, &network].map(change));
    let single = tch::no_grad(|| single.forward(&images.to_kind(Kind::Float), Mode::Eval).unwrap());
    let eval = tch::no_grad(|| network.forward(&images, Mode::Eval).unwrap());
    let mut computed = BTreeMap::from([
        ("eval32.logits".to_owned(), single.logits().shallow_clone()),
        ("eval.logits".to_owned(), eval.logits().shallow_clone()),
    ]);
    let trained = network.forward(&images, Mode::Train).unwrap();
    let targets = Tensor::from_slice(&TARGETS);
    let losses = trained.outputs().iter().map(|(_, logits)| fixture.model.loss().compute(logits, &targets).unwrap());
    losses.sum::<Tensor>().backward();
    computed.extend(trained.outputs().iter().map(|(name, value)| (format!("train.{name}"), value.detach())));
    let gradients = network.trainable().into_iter().map(|(name, tensor)| (name, tensor.grad())).collect();
    computed.insert("gradients".to_owned(), measure(&gradients));
    let statistics: BTreeMap<_, _> = network.state().into_iter().filter(|(name, _)| name.contains("running")).collect();
    if !statistics.is_empty() {
        computed.insert("statistics".to_owned(), measure(&statistics));
    }
    computed
}

/// What differs from the fixture.
fn differences(fixture: &Fixture, computed: &BTreeMap<String, Tensor>) -> Vec<String> {
    let mut differences = Vec::new();
    if fixture.expected.keys().ne(computed.keys()) {
        differences.push(format!("{:?}, expected {:?}", computed.keys(), fixture.expected.keys()));
    }
    for (name, expected) in &fixture.expected {
        let Some(got) = computed.get(name).filter(|got| got.size() == expected.size()) else {
            differences.push(format!("{name} is not {:?}", expected.size()));
            continue;
        };
        let tolerance = if name.starts_with("eval32") { SINGLE } else { DOUBLE };
        // Each measured tensor has a row and a size of its own. Gradients that are zero but for rounding, such as those of a bias
        // before batch norm, are compared at the size of the others.
        let scale = if name.starts_with("eval") || name.starts_with("train") {
            expected.abs().max()
        } else {
            expected.abs().amax([1].as_slice(), true).clamp_min(ROUNDING * expected.abs().max().double_value(&[]))
        };
        let worst = ((got - expected).abs() / scale).max().double_value(&[]);
        if worst.is_nan() || worst > tolerance {
            differences.push(format!("{name} differs by {worst:.1e}"));
        }
    }
    differences
}

/// What differs from the fixture in that file, names of parameters included.
fn check(path: &Path) -> Vec<String> {
    let fixture = Fixture::read(path);
    let mut found = differences(&fixture, &compute(&fixture, |_| ()));
    let graph = fixture.model.graph().unwrap();
    let names = graph.nodes().iter().flat_map(|node| graph.params(node).into_iter().map(|p| format!("{}.{}", node.name, p.name)));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    if names != fixture.names {
        found.push(format!("its parameters are {names:?}, expected {:?}", fixture.names));
    }
    found.iter().map(|difference| format!("{}: {difference}", fixture.model.variant().name)).collect()
}

/// The small fixtures, and with STRIATE_FULL_PARITY=FOLDER those that `make_fixtures.py --full FOLDER` wrote: every model at
/// its native size.
#[test]
fn networks_equal_torchvisions() {
    let mut paths = FIXTURES.map(path).to_vec();
    if let Some(folder) = std::env::var_os("STRIATE_FULL_PARITY") {
        paths.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    let differences: Vec<String> = paths.iter().flat_map(|path| check(path)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The checks above can fail: a small change of a parameter is noticed, also of one that only training uses.
#[test]
fn a_change_of_a_parameter_is_noticed() {
    let fixture = Fixture::read(&path("googlenet-tiny"));
    for (name, outputs) in [
        ("inception3a.branch3.1.conv.weight", vec!["eval.logits", "train.logits", "gradients", "statistics"]),
        ("inception5b.branch4.1.bn.running_var", vec!["eval.logits", "statistics"]),
        ("aux2.fc1.bias", vec!["train.aux2", "gradients"]),
    ] {
        let nudge = |network: &Network| drop(network.state()[name].shallow_clone().g_add_scalar_(1e-4));
        let found = differences(&fixture, &compute(&fixture, nudge));
        for output in outputs {
            assert!(found.iter().any(|difference| difference.starts_with(output)), "{name}: {output} not in {found:?}");
        }
    }
}
