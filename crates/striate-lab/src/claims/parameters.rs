//! How many parameters the classic networks have, and where.
use crate::figure::{Bar, Labels, bars};
use crate::{Check, Claim, Finding, Lab, LabError, Setup, Table};
use striate_graph::thousands;
use striate_models::find;

pub(super) const CLAIM: Claim = Claim {
    name: "parameters",
    title: "Parameters grow, and sit in the dense layers",
    claim: "LeNet-5 has about 60 thousand parameters, AlexNet about 60 million, VGG-16 about 138 million, and nearly all of them \
            are in the fully connected layers.",
    source: "LeCun et al. 1998, section II.B; Krizhevsky et al. 2012, section 3.5; Simonyan and Zisserman 2014, table 2",
    hypothesis: "The counts are exactly 60,000 (as published), 61,706 (all maps of C3 connected), 60,965,224, 62,378,344 (without \
                 groups) and 138,357,544; \
                 the dense layers of each have more than four fifths, but less than one fifth in ResNet-50 and GoogLeNet.",
    refuted_if: "a count is another, or a share is on the other side",
    recipe: Setup::untrained("Counts of the layers of each network as it is built."),
    seeds: [0, 0],
    minutes: [0.1, 0.1],
    run,
};

const COUNTS: [(&str, u64); 5] = [
    ("lenet5-paper", 60_000),
    ("lenet5", 61_706),
    ("alexnet-paper", 60_965_224),
    ("alexnet-ungrouped", 62_378_344),
    ("vgg16", 138_357_544),
];
const DENSE: [&str; 3] = ["lenet5", "alexnet-paper", "vgg16"];
const CONVOLUTIONAL: [&str; 2] = ["resnet50", "googlenet-paper"];
const SHARE: f64 = 0.8;

fn run(_: &mut Lab) -> Result<Finding, LabError> {
    let mut table = Table::new(["network", "parameters", "in dense layers"]);
    let (mut checks, mut figure) = (Vec::new(), Vec::new());
    for (name, expected) in COUNTS {
        checks.push(Check::count(format!("parameters of {name}"), find(name)?.model(&[])?.graph()?.summary().params, expected));
    }
    for name in DENSE.into_iter().chain(CONVOLUTIONAL) {
        let summary = find(name)?.model(&[])?.graph()?.summary();
        let in_use = || summary.layers.iter().filter(|layer| !layer.training_only);
        let params: u64 = in_use().map(|layer| layer.params).sum();
        let dense: u64 = in_use().filter(|layer| layer.op == "Linear").map(|layer| layer.params).sum();
        let share = dense as f64 / params as f64;
        let (holds, side) = match DENSE.contains(&name) {
            true => (share > SHARE, "more than 80%"),
            false => (share < 1.0 - SHARE, "less than 20%"),
        };
        let measured = format!("{:.1}%: {} of {}", 100.0 * share, thousands(dense), thousands(params));
        checks.push(Check::exact(format!("{side} of {name}'s parameters are in dense layers"), holds, measured));
        table.push([name.to_owned(), params.to_string(), dense.to_string()]);
        figure.push(Bar::exact(name, 100.0 * share));
    }
    let labels = Labels { title: "Parameters in dense layers", x: "per cent of a network's parameters", y: "" };
    let remarks = "Auxiliary heads, which only training has, are left out.".to_owned();
    Ok(Finding { checks, remarks, table, figure: bars(labels, &figure)? })
}
