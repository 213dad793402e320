//! How much each layer changes what it gets.
use super::degradation::{TRAINING, network};
use super::per_seed;
use crate::figure::{Axis, Labels, Series, lines};
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table};
use striate_datasets::Loader;
use striate_graph::Network;
use striate_layers::Mode;
use striate_models::Shortcut;

pub(super) const CLAIM: Claim = Claim {
    name: "layer-responses",
    title: "Layers of residual networks respond less",
    claim: "The responses of a residual network's layers have smaller standard deviations than those of a plain network, and \
            smaller ones still in a deeper residual network: each layer changes the signal less.",
    source: "He et al. 2015, section 4.2 and figure 7",
    hypothesis: "The standard deviation of the outputs of batch norm in the blocks, before any ReLU or addition, in the mean over \
                 layers: the plain network's is above the residual network's of the same depth, and the deep residual \
                 network's below the shallow one's.",
    refuted_if: "the interval of one of the two differences lies on the other side",
    recipe: Setup::trained(
        "The networks of degradation: plain and residual ones of 44 layers (56 in a full run), and a residual one of 20, measured on the \
         first 256 training images.",
        TRAINING,
    ),
    seeds: [4, 8],
    minutes: [2.5, 10.0],
    run,
};

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let training = lab.scale().pick(TRAINING);
    let (shallow, deep) = (3, lab.scale().pick([7, 9]));
    let kinds = [("plain", deep, Shortcut::None), ("residual", deep, Shortcut::A), ("residual", shallow, Shortcut::A)];
    let mut table = Table::new(["network", "seed", "layer", "standard deviation"]);
    let (mut means, mut series) = (Vec::new(), Vec::new());
    for (kind, blocks, shortcut) in kinds {
        let what = format!("{kind}-{}", 6 * blocks + 2);
        let responses: Vec<Vec<f64>> = per_seed(lab, |lab, seed| {
            let build = |input, classes| network(input, classes, blocks, shortcut);
            let (_, responses): (History, _) = lab.train_and(&what, &training, seed, build, responses)?;
            Ok(responses)
        })?;
        for (seed, responses) in lab.seeds().into_iter().zip(&responses) {
            for (layer, std) in responses.iter().enumerate() {
                table.push([what.clone(), seed.to_string(), (layer + 1).to_string(), std.to_string()]);
            }
        }
        means.push(responses.iter().map(|stds| stds.iter().sum::<f64>() / stds.len() as f64).collect::<Vec<_>>());
        let line = Series::mean(&what, &responses);
        series.push(if shortcut == Shortcut::None { line.dashed() } else { line });
    }
    let difference = |a: usize, b: usize| {
        let what = format!("mean response of {} minus {}", series[a].name, series[b].name);
        Check::above(what, Interval::of_differences(&means[a], &means[b]), 0.0)
    };
    let checks = vec![difference(0, 1), difference(2, 1)];
    let labels = Labels { title: "Responses of layers, first to last", x: "layer", y: "standard deviation" };
    Ok(Finding { checks, remarks: String::new(), table, figure: lines(labels, Axis::Linear, &series)? })
}

/// The standard deviation, over images, places and channels, of the output of every batch norm within a block.
fn responses(network: &Network, images: &Loader) -> Result<Vec<f64>, LabError> {
    let _no_grad = striate_torch::no_grad();
    let norms = network.graph().nodes().iter().filter(|node| node.name.starts_with("layer") && node.op_name() == "BatchNorm2d");
    let names: Vec<&str> = norms.map(|node| node.name.as_str()).collect();
    let Some(batch) = images.epoch(0)?.next().transpose()? else { return Ok(Vec::new()) };
    let outputs = network.forward_with_taps(&[&batch.images], Mode::Eval, &names)?;
    outputs.taps().iter().map(|(_, response)| Ok(response.f_std(true)?.f_double_value(&[])?)).collect()
}
