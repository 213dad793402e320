//! Deeper plain networks train worse, deeper residual networks do not.
use super::per_seed;
use crate::figure::{Axis, Labels, Series, lines};
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table, Training};
use striate_graph::Graph;
use striate_models::{Architecture, ResNetConfig, Shortcut};

pub(super) const CLAIM: Claim = Claim {
    name: "degradation",
    title: "Deeper plain networks train worse, residual ones do not",
    claim: "When a plain network gets deeper, its training error rises; with shortcuts it does not.",
    source: "He et al. 2015, section 4.2 and figure 6",
    hypothesis: "On the training images at the end of training: the deepest plain network's loss is above the shallowest's, and \
                 above that of the residual network of the same depth; the deepest residual network's loss is at most 0.2 above \
                 the shallowest's.",
    refuted_if: "the interval of one of the three differences lies on the other side",
    recipe: Setup::trained(
        "Plain and residual (A) networks for small images with 8 channels in the first layers, half of the paper's: 8, 20 and 44 \
         layers, 56 in place of 44 in a full run.",
        TRAINING,
    ),
    seeds: [4, 8],
    minutes: [3.0, 20.0],
    run,
};

const QUICK: Training =
    Training { size: 16, train: 4096, test: 1024, batch: 64, epochs: 5, lr: 0.1, weight_decay: 1e-4, aux_weight: 0.0 };
/// How plain and residual networks are trained, here and in other claims about them.
pub(super) const TRAINING: [Training; 2] = [QUICK, Training { test: 4096, epochs: 10, ..QUICK }];
/// How much more loss counts as no worse.
const MARGIN: f64 = 0.2;

/// Channels of the first layers, half of the paper's.
const WIDTH: i64 = 8;

/// A plain or residual network for small images (section 4.2) with 6 `blocks` + 2 layers.
pub(super) fn network(input: [i64; 3], classes: i64, blocks: i64, shortcut: Shortcut) -> Result<Graph, LabError> {
    let config = ResNetConfig { input, classes, width: WIDTH, shortcut, ..ResNetConfig::cifar(blocks) };
    Ok(Graph::build(|net| config.define(net))?)
}

/// What is judged is known after the last epoch only.
const COLUMNS: [&str; 7] =
    ["network", "seed", "epoch", "training loss", "training error", "test error", "training loss in evaluation"];

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let training = lab.scale().pick(TRAINING);
    let blocks = lab.scale().pick([[1, 3, 7], [1, 3, 9]]);
    let mut table = Table::new(COLUMNS);
    let (mut series, mut losses) = (Vec::new(), Vec::new());
    for (kind, shortcut) in [("plain", Shortcut::None), ("residual", Shortcut::A)] {
        for blocks in blocks {
            let what = format!("{kind}-{}", 6 * blocks + 2);
            let curves: Vec<History> = per_seed(lab, |lab, seed| {
                lab.train(&what, &training, seed, |input, classes| network(input, classes, blocks, shortcut))
            })?;
            for (seed, curve) in lab.seeds().into_iter().zip(&curves) {
                for epoch in 0..curve.train_loss.len() {
                    let cells = [curve.train_loss[epoch], curve.train_error[epoch], curve.test_error[epoch]];
                    let [loss, error, test] = cells.map(|cell| cell.to_string());
                    let last = epoch + 1 == curve.train_loss.len();
                    let judged = if last { curve.final_train_loss.to_string() } else { String::new() };
                    table.push([what.clone(), seed.to_string(), (epoch + 1).to_string(), loss, error, test, judged]);
                }
            }
            let line = Series::mean(&what, &curves.iter().map(|curve| curve.train_loss.clone()).collect::<Vec<_>>());
            series.push(if shortcut == Shortcut::None { line.dashed() } else { line });
            let last: Vec<f64> = curves.iter().filter_map(|curve| curve.train_loss.last().copied()).collect();
            losses.push((what, curves.iter().map(|curve| curve.final_train_loss).collect::<Vec<_>>(), last));
        }
    }
    let [
        (shallow_plain, a, _),
        _,
        (deep_plain, b, _),
        (shallow_residual, c, _),
        (middle_residual, _, middle),
        (deep_residual, d, deep),
    ] = losses.as_slice()
    else {
        return Err(LabError::Figure("the networks are not six".to_owned()));
    };
    let checks = vec![
        Check::above(format!("training loss of {deep_plain} minus {shallow_plain}"), Interval::of_differences(b, a), 0.0),
        Check::above(format!("training loss of {deep_plain} minus {deep_residual}"), Interval::of_differences(b, d), 0.0),
        Check::below(
            format!("training loss of {deep_residual} minus {shallow_residual}"),
            Interval::of_differences(d, c),
            MARGIN,
        ),
    ];
    let labels = Labels { title: "Training loss of plain and residual networks", x: "epoch", y: "training loss" };
    let figure = lines(labels, Axis::Log, &series)?;
    let remarks = format!(
        "So few epochs favour shallow networks of both kinds, hence the margin: in the last one, training loss of {deep_residual} \
         minus {middle_residual}: {}.",
        Interval::of_differences(deep, middle)
    );
    Ok(Finding { checks, remarks, table, figure })
}
