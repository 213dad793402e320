//! Auxiliary heads.
use super::per_seed;
use crate::figure::{Axis, Labels, Series, lines};
use crate::training::{classes_of, digest, shape_of};
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table, Training};
use serde_json::json;
use striate_datasets::Batch;
use striate_graph::{Graph, InitOptions, Network};
use striate_layers::Mode;
use striate_layers::loss::cross_entropy;
use striate_models::{AuxPooling, GoogLeNetConfig};
use tch::Tensor;

pub(super) const CLAIM: Claim = Claim {
    name: "aux-heads",
    title: "Auxiliary heads carry gradient to the first layers and lower the error",
    claim: "Classifiers that read the middle of a deep network during training strengthen the gradient that gets back to its \
            first layers, and lower its error a little.",
    source: "Szegedy et al. 2014, section 5 (their loss counts 0.3; the effect is about 0.5%); Szegedy et al. 2015, section 4 finds \
             that they do not help early in training and calls them regularisers",
    hypothesis: "GoogLeNet with an eighth of the channels: before the first step, the norm of the first convolution's gradient \
                 with auxiliary heads over that without, as a power of ten, is above 0; after equally many steps, the test \
                 error without them minus that with them is above 0.",
    refuted_if: "the interval of the first lies below 0, or that of the second reaches 0 and rules out the 0.005 that the paper \
                 reports",
    recipe: Setup::trained(
        "GoogLeNet with an eighth of its channels, without batch norm, with and without auxiliary heads.",
        TRAINING,
    ),
    seeds: [8, 8],
    minutes: [4.0, 16.0],
    run,
};

const QUICK: Training =
    Training { size: 32, train: 4096, test: 2048, batch: 64, epochs: 8, lr: 0.02, weight_decay: 1e-4, aux_weight: 0.3 };
const TRAINING: [Training; 2] = [QUICK, Training { train: 8192, test: 4096, epochs: 12, ..QUICK }];
/// What the error is lower by in the paper.
const PUBLISHED: f64 = 0.005;

/// The paper's network, without batch norm, at an eighth of its width; its auxiliary heads pool to 4x4 whatever the size.
fn network(input: [i64; 3], classes: i64, aux_heads: bool) -> Result<Graph, LabError> {
    let config = GoogLeNetConfig {
        input,
        classes,
        aux_heads,
        aux_pooling: AuxPooling::Adaptive,
        width_multiplier: 0.125,
        ..GoogLeNetConfig::paper()
    };
    Ok(config.graph()?)
}

/// The norm is that of the first convolution's gradient before the first step, in the network with heads: of the main loss alone, and of all.
const COLUMNS: [&str; 7] =
    ["auxiliary heads", "seed", "epoch", "first gradient's norm", "training loss", "test loss", "test error"];

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let training = lab.scale().pick(TRAINING);
    let shares = per_seed(lab, |lab, seed| {
        let data = lab.data(training.size, training.train, training.test)?;
        let graph = network(shape_of(&data), classes_of(&data), true)?;
        let what = format!("first gradients, seed {seed}");
        let settings = json!({ "what": what, "network": digest(&graph), "data": lab.data_name(), "training": training });
        lab.trial(settings, |lab| gradients(lab.batch(&data, 256, seed)?, graph, training.aux_weight, seed))
    })?;
    let mut table = Table::new(COLUMNS);
    let (mut errors, mut series) = (Vec::new(), Vec::new());
    for (at, (name, aux_heads)) in [("without", false), ("with", true)].into_iter().enumerate() {
        let curves: Vec<History> =
            per_seed(lab, |lab, seed| lab.train(name, &training, seed, |input, classes| network(input, classes, aux_heads)))?;
        for ((seed, curve), norms) in lab.seeds().into_iter().zip(&curves).zip(&shares) {
            for epoch in 0..curve.train_loss.len() {
                let cells = [curve.train_loss[epoch], curve.test_loss[epoch], curve.test_error[epoch]];
                let [loss, test_loss, error] = cells.map(|cell| cell.to_string());
                let norm = if epoch == 0 { norms[at].to_string() } else { String::new() };
                table.push([name.to_owned(), seed.to_string(), (epoch + 1).to_string(), norm, loss, test_loss, error]);
            }
        }
        errors.push(curves.iter().map(History::final_test_error).collect::<Vec<_>>());
        let line =
            Series::mean(format!("{name} auxiliary heads"), &curves.iter().map(|c| c.test_error.clone()).collect::<Vec<_>>());
        series.push(if aux_heads { line } else { line.dashed() });
    }
    let logs: Vec<f64> = shares.iter().map(|[without, with]| (with / without).log10()).collect();
    let stronger = Interval::of(&logs);
    let checks = vec![
        Check::above("power of ten of the first gradient's norm with over without", stronger, 0.0),
        Check::gain("test error without minus with", Interval::of_differences(&errors[0], &errors[1]), PUBLISHED),
    ];
    let remarks = format!(
        "Before the first step the first convolution's gradient is {:.2} times as strong with auxiliary heads, of which the later \
         steps are not measured. The network is small and trained briefly: what regularises has had no time to pay.",
        10f64.powf(stronger.mean)
    );
    let labels = Labels { title: "GoogLeNet at an eighth of its width", x: "epoch", y: "test error" };
    Ok(Finding { checks, remarks, table, figure: lines(labels, Axis::Linear, &series)? })
}

/// The norm of the gradient of the first convolution's weights before the first step: of the main loss alone, and of all.
fn gradients(batch: Batch, graph: Graph, aux_weight: f64, seed: u64) -> Result<[f64; 2], LabError> {
    let network = Network::new(graph, &InitOptions { seed, ..InitOptions::default() })?;
    let outputs = network.forward(&batch.images, Mode::Train)?;
    let main = cross_entropy(outputs.logits(), &batch.labels, 0.0, None)?;
    let mut all = main.shallow_clone();
    for head in ["aux1", "aux2"] {
        if let Some(logits) = outputs.get(head) {
            all = all.f_add(&cross_entropy(logits, &batch.labels, 0.0, None)?.f_mul_scalar(aux_weight)?)?;
        }
    }
    let trainable = network.trainable();
    let Some((_, stem)) = trainable.iter().find(|(name, _)| name == "conv1.conv.weight") else {
        return Err(LabError::Usage("GoogLeNet has no conv1".to_owned()));
    };
    let norm = |loss: &Tensor| -> Result<f64, LabError> {
        let gradient = Tensor::f_run_backward(&[loss], &[stem], true, false)?;
        Ok(gradient[0].f_norm()?.f_double_value(&[])?)
    };
    Ok([norm(&main)?, norm(&all)?])
}
