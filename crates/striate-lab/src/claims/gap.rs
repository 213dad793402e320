//! Global average pooling, against a dense layer that reads the maps.
use super::per_seed;
use super::relu::best_rate;
use crate::figure::{Bar, Labels, bars};
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table, Training};
use striate_graph::Graph;
use striate_models::{Architecture, NinConfig, NinHead};

pub(super) const CLAIM: Claim = Claim {
    name: "gap",
    title: "Global average pooling overfits less than a dense head",
    claim: "Global average pooling in place of a dense layer has no parameters, overfits less, and has a lower test error.",
    source: "Lin et al. 2014, sections 3.2 and 4.6 (CIFAR-10, without augmentation: dense 11.59%, dense with dropout 10.88%, global \
             average pooling 10.41%); Szegedy et al. 2014, section 5 (top-1 error about 0.6% lower)",
    hypothesis: "Network in Network for CIFAR-10 has 966,986 parameters, 6,410 fewer than with a dense head. Of a small one, \
                 without dropout, trained equally long with both heads, each at the better learning rate of 0.003 and 0.01: \
                 the test error minus the training error, and the test error, are higher with the dense head.",
    refuted_if: "a count differs, the interval of the first difference lies below 0, or that of the second reaches 0 and rules out \
                 the 0.0118 that the paper reports for the images closest to these",
    recipe: Setup {
        networks: "Network in Network for CIFAR-10 with an eighth of its filters and without dropout, with both heads.",
        training: Some(TRAINING),
        rates: &RATES,
    },
    seeds: [6, 8],
    minutes: [1.5, 5.0],
    run,
};

const QUICK: Training =
    Training { size: 16, train: 2048, test: 4096, batch: 32, epochs: 10, lr: 0.0, weight_decay: 1e-4, aux_weight: 0.0 };
const TRAINING: [Training; 2] = [QUICK, Training { train: 4096, test: 10_000, epochs: 20, ..QUICK }];
/// What the test error was lower by in the paper, on CIFAR-10.
const PUBLISHED: f64 = 0.0118;
/// Learning rates that are tried.
const RATES: [f64; 2] = [0.003, 0.01];
/// Parameters of the network for CIFAR-10, and of a dense layer from 10 maps of 8x8 to 10 classes.
const PARAMS: u64 = 966_986;
const DENSE_PARAMS: u64 = 8 * 8 * 10 * 10 + 10;

fn graph(config: &NinConfig) -> Result<Graph, LabError> {
    Ok(Graph::build(|net| config.define(net))?)
}

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let training = lab.scale().pick(TRAINING);
    let heads = [("global average pooling", NinHead::Gap), ("dense", NinHead::Dense)];
    let counts = heads.map(|(_, head)| Ok(graph(&NinConfig { head, ..NinConfig::cifar() })?.summary().params));
    let [without, with]: [Result<u64, LabError>; 2] = counts;
    let (without, with) = (without?, with?);
    let mut checks = vec![
        Check::count("parameters of Network in Network with global average pooling", without, PARAMS),
        Check::count("parameters of its dense head", with - without, DENSE_PARAMS),
    ];
    let mut table = Table::new(["head", "learning rate", "seed", "training loss", "training error", "test error"]);
    let (mut gaps, mut errors, mut figure) = (Vec::new(), Vec::new(), Vec::new());
    for (name, head) in heads {
        let train = |lab: &mut Lab, seed, lr| -> Result<History, LabError> {
            let training = Training { lr, ..training };
            let build = |input, classes| graph(&NinConfig { input, classes, head, ..small() });
            lab.train(&format!("{name} at {lr}"), &training, seed, build)
        };
        let rate = best_rate(lab, &RATES, |lab, seed, lr| Ok(train(lab, seed, lr)?.final_train_loss))?;
        let curves = per_seed(lab, |lab, seed| train(lab, seed, rate))?;
        for (seed, curve) in lab.seeds().into_iter().zip(&curves) {
            let cells = [curve.final_train_loss, curve.final_train_error, curve.final_test_error()];
            let [loss, train, test] = cells.map(|cell| cell.to_string());
            table.push([name.to_owned(), rate.to_string(), seed.to_string(), loss, train, test]);
        }
        let train: Vec<f64> = curves.iter().map(|curve| curve.final_train_error).collect();
        let test: Vec<f64> = curves.iter().map(History::final_test_error).collect();
        figure.extend([Bar::of(format!("{name}, training"), &train), Bar::of(format!("{name}, test"), &test)]);
        gaps.push(test.iter().zip(&train).map(|(test, train)| test - train).collect::<Vec<_>>());
        errors.push(test);
    }
    let dense_less_gap = |of: &[Vec<f64>]| Interval::of_differences(&of[1], &of[0]);
    checks.extend([
        Check::above("test minus training error: dense head's minus global average pooling's", dense_less_gap(&gaps), 0.0),
        Check::gain("test error: dense head's minus global average pooling's", dense_less_gap(&errors), PUBLISHED),
    ]);
    let remarks =
        "The last ReLU, before the head, can silence a class for good: where a network has hardly learnt, its gap between \
                   training and test says nothing of overfitting."
            .to_owned();
    let figure = bars(Labels { title: "Network in Network with both heads", x: "error", y: "" }, &figure)?;
    Ok(Finding { checks, remarks, table, figure })
}

/// Network in Network with an eighth of the filters, and without the dropout that would hide what a head does.
fn small() -> NinConfig {
    let mut config = NinConfig { dropout: 0.0, ..NinConfig::cifar() };
    for block in &mut config.blocks {
        block.filters /= 8;
        block.mlp.iter_mut().for_each(|width| *width /= 8);
    }
    config
}
