//! What goes past the convolutions of a residual block.
use super::degradation::{self, network};
use super::per_seed;
use crate::figure::{Bar, Labels, bars};
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table, Training};
use striate_models::Shortcut;

pub(super) const CLAIM: Claim = Claim {
    name: "shortcuts",
    title: "Shortcuts of kinds A, B and C differ little",
    claim: "Shortcuts without parameters (A), with projections where shapes change (B), and with projections everywhere (C) all \
            do far better than none, and differ little from one another.",
    source: "He et al. 2015, section 4.1 and table 3 (top-1 error of 34 layers: none 28.54%, A 25.03%, B 24.52%, C 24.19%)",
    hypothesis: "Test error without shortcuts is above that with A; those of B and of C are within 0.03 of A's.",
    refuted_if: "the interval of one of the three differences lies on the other side",
    recipe: Setup::trained(
        "The networks of degradation with each kind of shortcut: 32 layers in a quick run, 56 in a full one.",
        TRAINING,
    ),
    seeds: [5, 8],
    minutes: [4.0, 18.0],
    run,
};

const TRAINING: [Training; 2] = [Training { test: 4096, ..degradation::TRAINING[0] }, degradation::TRAINING[1]];
/// A difference in test error that counts as little.
const LITTLE: f64 = 0.03;

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let blocks = lab.scale().pick([5, 9]);
    let training = lab.scale().pick(TRAINING);
    let mut table = Table::new(["shortcut", "seed", "training loss", "test error"]);
    let (mut errors, mut figure) = (Vec::new(), Vec::new());
    for (name, shortcut) in [("none", Shortcut::None), ("A", Shortcut::A), ("B", Shortcut::B), ("C", Shortcut::C)] {
        let curves: Vec<History> = per_seed(lab, |lab, seed| {
            lab.train(&format!("shortcut {name}"), &training, seed, |input, classes| network(input, classes, blocks, shortcut))
        })?;
        for (seed, curve) in lab.seeds().into_iter().zip(&curves) {
            let [loss, error] = [curve.final_train_loss, curve.final_test_error()].map(|value| value.to_string());
            table.push([name.to_owned(), seed.to_string(), loss, error]);
        }
        errors.push(curves.iter().map(History::final_test_error).collect::<Vec<_>>());
        figure.push(Bar::of(name, &errors[errors.len() - 1]));
    }
    let against_a = |at: usize| Interval::of_differences(&errors[at], &errors[1]);
    let checks = vec![
        Check::above("test error without shortcuts minus A's", against_a(0), 0.0),
        Check::near_zero("test error of B minus A's", against_a(2), LITTLE),
        Check::near_zero("test error of C minus A's", against_a(3), LITTLE),
    ];
    let title = format!("{} layers with and without shortcuts", 6 * blocks + 2);
    let figure = bars(Labels { title: &title, x: "test error", y: "" }, &figure)?;
    Ok(Finding { checks, remarks: String::new(), table, figure })
}
