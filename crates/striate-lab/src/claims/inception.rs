//! All filter sizes at once, against each alone at the same cost.
use super::per_seed;
use crate::figure::{Bar, Labels, bars};
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table, Training};
use striate_graph::{Graph, GraphError, NetworkBuilder, Value};
use striate_layers::{AdaptiveAvgPool2d, Concat, Conv2d, Fan, Flatten, Init, Linear, MaxPool2d};
use striate_models::ConvUnit;

pub(super) const CLAIM: Claim = Claim {
    name: "inception",
    title: "All filter sizes at once save the choice of one",
    claim: "Instead of choosing a filter size for a layer, compute several side by side and concatenate them: the network learns \
            which it needs, and does as well as with the right choice.",
    source: "Szegedy et al. 2014, sections 3 and 4 and figure 2a; GoogLeNet as a whole has a top-5 error of 6.67%, but the paper \
             publishes no comparison with single sizes",
    hypothesis: "Networks of three modules with equally many multiply-adds (within 5%): the test error with 1x1, 3x3 and 5x5 \
                 filters side by side is at most 0.01 above that with any of the three sizes alone, and the worst of them \
                 alone, 1x1, is above it by more than 0.01.",
    refuted_if: "costs differ by more, or the interval of one of the four differences lies on the other side",
    recipe: Setup::trained(
        "A stem of 3x3, three modules with pooling between them, global average pooling; a module has 8 filters of each size side by \
         side, or of one size as many as cost the same.",
        TRAINING,
    ),
    seeds: [4, 8],
    minutes: [1.5, 6.0],
    run,
};

const QUICK: Training =
    Training { size: 16, train: 4096, test: 4096, batch: 64, epochs: 5, lr: 0.1, weight_decay: 1e-4, aux_weight: 0.0 };
const TRAINING: [Training; 2] = [QUICK, Training { train: 8192, test: 10_000, epochs: 8, ..QUICK }];
/// A difference in test error that counts as little.
const LITTLE: f64 = 0.01;
/// The greatest share by which costs differ.
const COST_MARGIN: f64 = 0.05;
/// Filters of the first layer, and of each size in a module that has all.
const WIDTH: i64 = 8;
const MODULES: usize = 3;
/// Modules after which pooling halves the map.
const POOLED: [usize; 2] = [0, 1];

/// The convolutions of a module, side by side: kernel, filters.
type Module = Vec<(i64, i64)>;

/// A 3x3 convolution, three modules with pooling between them, global average pooling, a dense layer.
fn network(input: [i64; 3], classes: i64, module: &Module) -> Result<Graph, GraphError> {
    let unit = ConvUnit { batch_norm: true, init: Init::he_normal(Fan::In) };
    Graph::build(|net| {
        let x = net.input(input);
        let mut x = unit.add(net, "stem", Conv2d::same(WIDTH, 3), x)?;
        for index in 0..MODULES {
            x = side_by_side(&mut net.scope(&format!("module{index}")), &unit, module, x)?;
            if POOLED.contains(&index) {
                x = net.add(&format!("pool{index}"), MaxPool2d::new(2), x)?;
            }
        }
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(classes), x)?;
        net.output("logits", x)
    })
}

fn side_by_side(net: &mut NetworkBuilder, unit: &ConvUnit, module: &Module, x: Value) -> Result<Value, GraphError> {
    let convs = module
        .iter()
        .map(|(kernel, filters)| unit.add(net, &format!("conv{kernel}x{kernel}"), Conv2d::same(*filters, *kernel), x));
    match convs.collect::<Result<Vec<_>, _>>()?.as_slice() {
        [only] => Ok(*only),
        all => net.add("concat", Concat, all.to_vec()),
    }
}

/// As many filters of one size as cost closest to `macs`.
fn alone(input: [i64; 3], classes: i64, kernel: i64, macs: u64) -> Result<Module, GraphError> {
    let mut best = (u64::MAX, 1);
    for filters in 1.. {
        let cost = network(input, classes, &vec![(kernel, filters)])?.summary().macs;
        best = best.min((cost.abs_diff(macs), filters));
        if cost > macs {
            break;
        }
    }
    Ok(vec![(kernel, best.1)])
}

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let training = lab.scale().pick(TRAINING);
    let all = vec![(1, WIDTH), (3, WIDTH), (5, WIDTH)];
    let data = lab.data(training.size, training.train, training.test)?;
    let input = striate_datasets::Dataset::shape(&data.train);
    let classes = striate_datasets::Dataset::classes(&data.train).len() as i64;
    let macs = network(input, classes, &all)?.summary().macs;
    let mut kinds = vec![("all".to_owned(), all)];
    for kernel in [1, 3, 5] {
        kinds.push((format!("{kernel}x{kernel} alone"), alone(input, classes, kernel, macs)?));
    }
    let mut table = Table::new(["filters", "in a module", "params", "MACs", "seed", "training loss", "test error"]);
    let (mut errors, mut figure, mut farthest) = (Vec::new(), Vec::new(), 0.0_f64);
    for (name, module) in &kinds {
        let summary = network(input, classes, module)?.summary();
        farthest = farthest.max(summary.macs.abs_diff(macs) as f64 / macs as f64);
        let curves: Vec<History> =
            per_seed(lab, |lab, seed| lab.train(name, &training, seed, |input, classes| Ok(network(input, classes, module)?)))?;
        let filters: i64 = module.iter().map(|(_, filters)| filters).sum();
        for (seed, curve) in lab.seeds().into_iter().zip(&curves) {
            let [loss, error] = [curve.final_train_loss, curve.final_test_error()].map(|value| value.to_string());
            let [params, macs] = [summary.params, summary.macs].map(|count| count.to_string());
            table.push([name.clone(), filters.to_string(), params, macs, seed.to_string(), loss, error]);
        }
        errors.push(curves.iter().map(History::final_test_error).collect::<Vec<_>>());
        figure.push(Bar::of(format!("{name}: {filters} filters"), &errors[errors.len() - 1]));
    }
    let against_all = |at: usize| Interval::of_differences(&errors[0], &errors[at]);
    let mut checks = vec![Check::exact(
        "multiply-adds are equal within 5%",
        farthest <= COST_MARGIN,
        format!("{macs}, the farthest {:.1}% away", 100.0 * farthest),
    )];
    let names = kinds.iter().enumerate().skip(1);
    checks.extend(names.map(|(at, (name, _))| Check::below(format!("test error of all minus {name}"), against_all(at), LITTLE)));
    let worst = Interval::of_differences(&errors[1], &errors[0]);
    checks.push(Check::above("test error of 1x1 alone minus all", worst, LITTLE));
    let remarks =
        "Equal multiply-adds are not equal parameters, width or time: see the numbers. Modules have no bottlenecks and no \
                   pooling branch, so that filter sizes are all that differs."
            .to_owned();
    let title = format!("{MODULES} modules of {:.1}M multiply-adds in all", macs as f64 * 1e-6);
    let figure = bars(Labels { title: &title, x: "test error", y: "" }, &figure)?;
    Ok(Finding { checks, remarks, table, figure })
}
