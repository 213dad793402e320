//! Batch norm and ReLU before the convolutions.
use super::per_seed;
use crate::figure::{Axis, Labels, Series, lines};
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table, Training};
use striate_graph::Graph;
use striate_models::{ActivationOrder, Architecture, ResNetConfig};

pub(super) const CLAIM: Claim = Claim {
    name: "pre-activation",
    title: "Pre-activation makes very deep networks easier to train",
    claim: "With batch norm and ReLU before the convolutions and nothing after the addition, very deep residual networks train \
            more easily: the training loss of 1001 layers falls fast from the start, where the original order is slow.",
    source: "He et al. 2016, section 4.1 and figure 6 (left)",
    hypothesis: "The mean training loss over all steps of the first two epochs (three in a full run), with 110 layers (164), is lower with \
                 pre-activation.",
    refuted_if: "the interval of the difference lies on the other side",
    recipe: Setup::trained(
        "Residual (A) networks for small images with 4 channels in the first layers: 110 layers in a quick run, 164 in a full one.",
        TRAINING,
    ),
    seeds: [6, 8],
    minutes: [1.5, 12.0],
    run,
};

const QUICK: Training =
    Training { size: 16, train: 4096, test: 1024, batch: 64, epochs: 2, lr: 0.1, weight_decay: 1e-4, aux_weight: 0.0 };
const TRAINING: [Training; 2] = [QUICK, Training { epochs: 3, ..QUICK }];
/// Channels of the first layers.
const WIDTH: i64 = 4;

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let training = lab.scale().pick(TRAINING);
    let blocks = lab.scale().pick([18, 27]);
    let depth = 6 * blocks + 2;
    let mut table = Table::new(["order", "seed", "step", "training loss"]);
    let (mut means, mut series) = (Vec::new(), Vec::new());
    for (name, order) in [("original order", ActivationOrder::Post), ("pre-activation", ActivationOrder::Pre)] {
        let curves: Vec<History> = per_seed(lab, |lab, seed| {
            lab.train(&format!("{name}, {depth} layers"), &training, seed, |input, classes| {
                let config = ResNetConfig { input, classes, width: WIDTH, order, ..ResNetConfig::cifar(blocks) };
                Ok(Graph::build(|net| config.define(net))?)
            })
        })?;
        let losses: Vec<Vec<f64>> = curves.into_iter().map(|curve| curve.step_loss).collect();
        for (seed, losses) in lab.seeds().into_iter().zip(&losses) {
            for (step, loss) in losses.iter().enumerate() {
                table.push([name.to_owned(), seed.to_string(), (step + 1).to_string(), loss.to_string()]);
            }
        }
        means.push(losses.iter().map(|losses| losses.iter().sum::<f64>() / losses.len() as f64).collect::<Vec<_>>());
        series.push(Series::mean(name, &losses));
    }
    let lower = Interval::of_differences(&means[0], &means[1]);
    let checks = vec![Check::above("mean training loss of the original order minus pre-activation's", lower, 0.0)];
    let title = format!("{depth} layers, width {WIDTH}");
    let figure = lines(Labels { title: &title, x: "step", y: "training loss" }, Axis::Linear, &series)?;
    Ok(Finding { checks, remarks: String::new(), table, figure })
}
