//! What a residual block is when its weights are zero.
use super::{exact_network, largest_difference, random};
use crate::figure::{Bar, Labels, bars};
use crate::{Check, Claim, Finding, Lab, LabError, Setup, Table};
use striate_graph::{Graph, Network};
use striate_layers::loss::cross_entropy;
use striate_layers::{Activation, Add, Conv2d, Flatten, Linear, Mode};
use striate_models::{Architecture, ResNetConfig};
use tch::{Device, Tensor};

pub(super) const CLAIM: Claim = Claim {
    name: "identity",
    title: "A residual block starts as, and can stay, the identity",
    claim: "With weights of zero a residual block gives what it gets, g(a) = a: so two more layers in a residual network need not \
            do harm, because what they have to learn first is there at once.",
    source: "He et al. 2015, section 3.1; Goyal et al. 2017, section 5.1 (scale of zero)",
    hypothesis: "In float64, without any difference: every block that keeps its shape and whose last scale starts at zero gives \
                 its input; a network with a block of zero weights appended gives the logits of the network without; and a block \
                 of zero weights stays so while the layers around it learn.",
    refuted_if: "a single value differs",
    recipe: Setup::untrained("Residual networks for small images with random weights, on random images."),
    seeds: [0, 0],
    minutes: [0.1, 0.1],
    run,
};

/// What the appended block is called.
const APPENDED: &str = "layer3.1.";

fn run(_: &mut Lab) -> Result<Finding, LabError> {
    let found = [
        ("a scale of zero: output minus input of all blocks", starts_as_identity()?),
        ("two layers appended: logits in evaluation", appended(Mode::Eval)?),
        ("two layers appended: logits in training", appended(Mode::Train)?),
        ("after 20 steps of the layers around it: output minus input", stays_identity()?),
    ];
    let mut table = Table::new(["what", "largest difference"]);
    let (mut checks, mut figure) = (Vec::new(), Vec::new());
    for (what, difference) in found {
        checks.push(Check::exact(what, difference == 0.0, format!("largest difference {difference}")));
        table.push([what.to_owned(), difference.to_string()]);
        figure.push(Bar::exact(what, difference));
    }
    let labels = Labels { title: "Differences from the identity", x: "largest difference (float64)", y: "" };
    let remarks = "A block whose biases or batch norm are trained too leaves the identity with the first step: it may, and \
                   nothing forces it back."
        .to_owned();
    Ok(Finding { checks, remarks, table, figure: bars(labels, &figure)? })
}

/// A residual network for `[3, 16, 16]` with so many blocks in its third stage.
fn resnet(last_stage: i64, zero_init_residual: bool) -> Result<Network, LabError> {
    let depths = vec![2, 2, last_stage];
    let config = ResNetConfig { input: [3, 16, 16], depths, zero_init_residual, ..ResNetConfig::tiny() };
    exact_network(Graph::build(|net| config.define(net))?, vec![Device::Cpu], 0)
}

/// The largest difference between output and input of the second blocks of all stages, whose shapes stay.
fn starts_as_identity() -> Result<f64, LabError> {
    let network = resnet(2, true)?;
    let names: Vec<[String; 2]> = (1..=3).map(|stage| [0, 1].map(|block| format!("layer{stage}.{block}.relu2"))).collect();
    let taps: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    let outputs = network.forward_with_taps(&[&random(&[4, 3, 16, 16], 1)?], Mode::Train, &taps)?;
    let mut largest = 0.0f64;
    for [before, after] in outputs.taps().as_chunks().0 {
        largest = largest.max(largest_difference(&before.1, &after.1)?);
    }
    Ok(largest)
}

/// The largest difference in the logits that a block of zero weights makes.
fn appended(mode: Mode) -> Result<f64, LabError> {
    let (short, long) = (resnet(1, false)?, resnet(2, false)?);
    let mut state = short.state();
    for (name, value) in long.state() {
        if name.starts_with(APPENDED) {
            let keeps_value = name.contains("running") || name.contains("num_batches");
            state.insert(name, if keeps_value { value } else { value.f_zeros_like()? });
        }
    }
    long.load_state(&state)?;
    let images = random(&[4, 3, 16, 16], 2)?;
    largest_difference(short.forward(&images, mode)?.logits(), long.forward(&images, mode)?.logits())
}

/// The largest difference between output and input of a block of two convolutions of zeros, after the stem before it and the
/// classifier behind it have learnt for 20 steps.
fn stays_identity() -> Result<f64, LabError> {
    let graph = Graph::build(|net| {
        let x = net.input([3, 8, 8]);
        let x = net.add("stem", Conv2d::same(4, 3), x)?;
        let x = net.add("relu", Activation::Relu, x)?;
        let mut block = net.scope("block");
        let y = block.add("conv1", Conv2d::same(4, 3).no_bias(), x)?;
        let y = block.add("relu1", Activation::Relu, y)?;
        let y = block.add("conv2", Conv2d::same(4, 3).no_bias(), y)?;
        let y = block.add("add", Add, [y, x])?;
        let y = block.add("relu2", Activation::Relu, y)?;
        let y = net.add("flatten", Flatten, y)?;
        let y = net.add("fc", Linear::new(4), y)?;
        net.output("logits", y)
    })?;
    let network = exact_network(graph, vec![Device::Cpu], 3)?;
    let mut state = network.state();
    for (_, value) in state.iter_mut().filter(|(name, _)| name.starts_with("block.")) {
        *value = value.f_zeros_like()?;
    }
    network.load_state(&state)?;
    let before = network.state()["stem.weight"].copy();
    let (images, labels) = (random(&[16, 3, 8, 8], 4)?, Tensor::f_arange(16, (tch::Kind::Int64, Device::Cpu))?.f_remainder(4)?);
    for _ in 0..20 {
        let logits = network.forward(&images, Mode::Train)?.logits().shallow_clone();
        cross_entropy(&logits, &labels, 0.0, None)?.f_backward()?;
        let _no_grad = striate_torch::no_grad();
        for (_, mut parameter) in network.trainable() {
            let mut gradient = parameter.f_grad()?;
            let _ = parameter.f_sub_(&gradient.f_mul_scalar(0.1)?)?;
            let _ = gradient.f_zero_()?;
        }
    }
    if largest_difference(&before, &network.state()["stem.weight"])? == 0.0 {
        return Err(LabError::Usage("the layers around the block did not learn".to_owned()));
    }
    let outputs = network.forward_with_taps(&[&images], Mode::Eval, &["relu", "block.relu2"])?;
    match outputs.taps() {
        [(_, input), (_, output)] => largest_difference(input, output),
        _ => Ok(f64::NAN),
    }
}
