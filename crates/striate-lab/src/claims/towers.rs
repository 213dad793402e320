//! AlexNet over two devices.
use super::{exact_network, largest_difference, random};
use crate::figure::{Bar, Labels, bars};
use crate::verdict::short;
use crate::{Check, Claim, Finding, Lab, LabError, Setup, Table};
use striate_graph::Network;
use striate_layers::Mode;
use striate_layers::loss::cross_entropy;
use striate_models::find;
use tch::{Device, Tensor};

pub(super) const CLAIM: Claim = Claim {
    name: "towers",
    title: "Two towers on two devices are one network in groups",
    claim: "AlexNet was spread over two GPUs, each with half of the filters, which exchange values in certain layers only: a \
            network whose convolutions are in two groups, except where they exchange.",
    source: "Krizhevsky et al. 2012, section 3.2 and figure 2",
    hypothesis: "The logits in evaluation and training, the loss, and all parameters after a step of gradient descent, of the two towers equal those of the grouped \
                 network, in float64 to 1e-12 of the largest value.",
    refuted_if: "one of them differs by more",
    recipe: Setup::untrained(
        "AlexNet (2012) without dropout, a narrow one in a quick run, and two random images; the two devices are both the processor, \
         so that what is tested is that the network is spread and exchanges as the paper's.",
    ),
    seeds: [0, 0],
    minutes: [0.1, 0.5],
    run,
};

/// Differences below this share of the largest value are of the order of summation.
const ROUNDING: f64 = 1e-12;

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let name = lab.scale().pick(["alexnet-paper-tiny", "alexnet-paper"]);
    let model = find(name)?.model(&[("dropout", 0.0.into())])?;
    let [channels, height, width] = model.input();
    let batch = random(&[2, channels, height, width], 1)?;
    let targets = Tensor::from_slice(&[0i64, 1]);
    let one = exact_network(model.graph()?, vec![Device::Cpu], 0)?;
    let two = exact_network(model.graph()?, vec![Device::Cpu, Device::Cpu], 0)?;
    let layers = [&one, &two].map(|network| network.graph().nodes().len());

    let mut values = [Vec::new(), Vec::new()];
    for (network, values) in [&one, &two].into_iter().zip(&mut values) {
        values.push(("logits in evaluation", network.forward(&batch, Mode::Eval)?.logits().f_detach()?));
        let outputs = network.forward(&batch, Mode::Train)?;
        values.push(("logits in training", outputs.logits().f_detach()?));
        let loss = cross_entropy(outputs.logits(), &targets, 0.0, None)?;
        values.push(("loss", loss.f_detach()?));
        loss.f_backward()?;
    }
    let mut table = Table::new(["what", "largest value", "largest difference"]);
    let (mut checks, mut figure) = (Vec::new(), Vec::new());
    let [of_one, of_two] = values;
    let mut held: Vec<(String, Tensor, Tensor)> = Vec::new();
    held.extend(of_one.into_iter().zip(of_two).map(|((what, a), (_, b))| (what.to_owned(), a, b)));
    held.push(("parameters after a step".to_owned(), step(&one)?, step(&two)?));
    for (what, a, b) in held {
        let (size, difference) = (a.f_abs()?.f_max()?.f_double_value(&[])?, largest_difference(&a, &b)?);
        let measured = format!("largest difference {} of {}", short(difference), short(size));
        checks.push(Check::exact(format!("{what} of towers and groups are equal"), difference <= ROUNDING * size, measured));
        table.push([what.clone(), size.to_string(), difference.to_string()]);
        figure.push(Bar::exact(what, difference / size));
    }
    let [grouped, towers] = layers;
    let remarks = format!("{name}: {grouped} layers in groups become {towers} in towers.");
    let labels = Labels { title: "Towers against groups", x: "largest difference over largest value (float64)", y: "" };
    Ok(Finding { checks, remarks, table, figure: bars(labels, &figure)? })
}

/// All parameters of the whole network in a row, after a step of gradient descent with a learning rate of 1.
fn step(network: &Network) -> Result<Tensor, LabError> {
    let _no_grad = striate_torch::no_grad();
    for (_, mut parameter) in network.trainable() {
        let gradient = parameter.f_grad()?;
        let _ = parameter.f_sub_(&gradient)?;
    }
    let state = network.state();
    let flat: Vec<Tensor> = state.values().map(|tensor| tensor.f_flatten(0, -1)).collect::<Result<_, _>>()?;
    Ok(Tensor::f_cat(&flat, 0)?)
}
