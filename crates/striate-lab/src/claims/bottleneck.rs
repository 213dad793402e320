//! A 1x1 convolution before an expensive one.
use super::per_seed;
use crate::figure::{Bar, Labels, bars};
use crate::verdict::short;
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table, Training};
use serde_json::json;
use std::time::Instant;
use striate_graph::{Graph, GraphError, InitOptions, Network, NetworkBuilder, Value};
use striate_layers::{Activation, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Mode};
use striate_models::{DESIGN_INPUT, Design, designs};
use striate_torch::Generator;
use tch::{Device, Kind, Tensor};

pub(super) const CLAIM: Claim = Claim {
    name: "bottleneck",
    title: "A bottleneck saves nine tenths and harms little",
    claim: "A 5x5 convolution of 192 channels of 28x28 to 32 channels takes 120 million multiplications; through a bottleneck of 16 \
            channels it takes 12.4 million, and a network built so is no worse for it.",
    source: "Szegedy et al. 2014, section 4; the sum is customary in lectures on Inception",
    hypothesis: "The counts are exactly 120,422,400 and 12,443,648, and 303,464,448 and 128,049,152 for a whole Inception module \
                 (3a) without and with bottlenecks. The 5x5 with bottleneck takes less than half of the time. The test error of \
                 a network of 5x5 convolutions with bottlenecks is at most 0.03 above that of one without.",
    refuted_if: "a count is another, or the interval of the times' ratio or of the errors' difference lies on the other side",
    recipe: Setup::trained(
        "A stem of 3x3 and three 5x5 convolutions of 32 filters with batch norm, each 5x5 with or without a 1x1 convolution to 8 channels \
         before it. The designs that are timed take batches of 8 random maps, in turns, 15 times each.",
        TRAINING,
    ),
    seeds: [6, 8],
    minutes: [1.5, 8.0],
    run,
};

const COUNTS: [(&str, u64); 4] = [
    ("conv5x5", 120_422_400),
    ("conv5x5-bottleneck", 12_443_648),
    ("inception3a-naive", 303_464_448),
    ("inception3a", 128_049_152),
];
const QUICK: Training =
    Training { size: 14, train: 6000, test: 4096, batch: 64, epochs: 4, lr: 0.05, weight_decay: 1e-4, aux_weight: 0.0 };
const TRAINING: [Training; 2] = [QUICK, Training { size: 20, train: 10_000, test: 10_000, epochs: 5, ..QUICK }];
/// Channels of the networks that are trained.
const WIDTH: i64 = 32;
/// How much more test error counts as little.
const LITTLE: f64 = 0.03;
/// Images in a timed batch, and how often each design is timed, in turns.
const BATCH: i64 = 8;
const TURNS: usize = 15;

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let mut table = Table::new(["what", "design or seed", "value"]);
    let mut checks = Vec::new();
    for (name, expected) in COUNTS {
        let macs = design(name)?.graph(DESIGN_INPUT)?.summary().macs;
        checks.push(Check::count(format!("multiplications of {name}"), macs, expected));
        table.push(["multiplications".to_owned(), name.to_owned(), macs.to_string()]);
    }

    let [direct, bottleneck] = ["conv5x5", "conv5x5-bottleneck"];
    let settings = json!({ "what": "time of a 5x5 with and without bottleneck", "batch": BATCH, "turns": TURNS,
        "threads": striate_torch::num_threads() });
    let times: Vec<[f64; 2]> = lab.trial(settings, |_| times([design(direct)?, design(bottleneck)?]))?;
    for [of_direct, of_bottleneck] in &times {
        table.push(["seconds".to_owned(), direct.to_owned(), of_direct.to_string()]);
        table.push(["seconds".to_owned(), bottleneck.to_owned(), of_bottleneck.to_string()]);
    }
    let ratios: Vec<f64> = times.iter().map(|[direct, bottleneck]| (direct / bottleneck).log2()).collect();
    let doublings = Interval::of(&ratios);
    checks.push(Check::above("times faster with bottleneck, as a power of two", doublings, 1.0));

    let training = lab.scale().pick(TRAINING);
    let mut errors = Vec::new();
    for (name, between) in [("5x5", None), ("5x5 with bottleneck", Some(WIDTH / 4))] {
        let curves: Vec<History> =
            per_seed(lab, |lab, seed| lab.train(name, &training, seed, |input, classes| Ok(network(input, classes, between)?)))?;
        for (seed, curve) in lab.seeds().into_iter().zip(&curves) {
            table.push([format!("test error, {name}"), seed.to_string(), curve.final_test_error().to_string()]);
        }
        errors.push(curves.iter().map(History::final_test_error).collect::<Vec<_>>());
    }
    checks.push(Check::below(
        "test error with bottlenecks minus without",
        Interval::of_differences(&errors[1], &errors[0]),
        LITTLE,
    ));
    let figure = [
        Bar::exact("multiplications", COUNTS[0].1 as f64 / COUNTS[1].1 as f64),
        Bar { name: "time".to_owned(), value: powers_of_two(doublings) },
        Bar::of("test error", &errors[0].iter().zip(&errors[1]).map(|(direct, between)| direct / between).collect::<Vec<_>>()),
    ];
    let labels = Labels { title: "A 5x5 convolution over one with a bottleneck", x: "times as much without bottleneck", y: "" };
    let remarks = format!(
        "Of the {} times fewer multiplications, {} show in time: with few channels, moving values costs more than multiplying them.",
        short(figure[0].value.mean),
        short(figure[1].value.mean)
    );
    Ok(Finding { checks, remarks, table, figure: bars(labels, &figure)? })
}

fn design(name: &str) -> Result<&'static Design, LabError> {
    let design = designs().iter().find(|design| design.name == name);
    design.ok_or_else(|| LabError::Usage(format!("there is no design {name}")))
}

fn powers_of_two(interval: Interval) -> Interval {
    Interval { mean: interval.mean.exp2(), low: interval.low.exp2(), high: interval.high.exp2(), ..interval }
}

/// Seconds of a forward pass of each design, in turns, on fresh random numbers.
fn times(designs: [&Design; 2]) -> Result<Vec<[f64; 2]>, LabError> {
    let _no_grad = striate_torch::no_grad();
    let [first, second] = designs;
    let networks = [
        Network::new(first.graph(DESIGN_INPUT)?, &InitOptions::default())?,
        Network::new(second.graph(DESIGN_INPUT)?, &InitOptions::default())?,
    ];
    let [channels, height, width] = DESIGN_INPUT;
    let mut batch = Tensor::f_zeros([BATCH, channels, height, width], (Kind::Float, Device::Cpu))?;
    Generator::new(0).normal(&mut batch, 0.0, 1.0)?;
    let time = |network: &Network| -> Result<f64, LabError> {
        let started = Instant::now();
        network.forward(&batch, Mode::Eval)?;
        Ok(started.elapsed().as_secs_f64())
    };
    let [direct, bottleneck] = &networks;
    for network in &networks {
        time(network)?; // the first pass prepares
    }
    (0..TURNS).map(|_| Ok([time(direct)?, time(bottleneck)?])).collect()
}

/// Three 5x5 convolutions, each through a 1x1 convolution to `between` channels if there is one; batch norm after all.
fn network(input: [i64; 3], classes: i64, between: Option<i64>) -> Result<Graph, GraphError> {
    Graph::build(|net| {
        let x = net.input(input);
        let mut x = unit(net, "stem", Conv2d::same(WIDTH, 3), x)?;
        for block in 0..3 {
            let mut scope = net.scope(&format!("block{block}"));
            if let Some(between) = between {
                x = unit(&mut scope, "reduce", Conv2d::new(between, 1), x)?;
            }
            x = unit(&mut scope, "conv", Conv2d::same(WIDTH, 5), x)?;
            if block < 2 {
                x = scope.add("pool", MaxPool2d::new(2), x)?;
            }
        }
        let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(classes), x)?;
        net.output("logits", x)
    })
}

fn unit(net: &mut NetworkBuilder, name: &str, conv: Conv2d, x: Value) -> Result<Value, GraphError> {
    let mut scope = net.scope(name);
    let x = scope.add("conv", conv.no_bias(), x)?;
    let x = scope.add("bn", BatchNorm2d::new(), x)?;
    scope.add("relu", Activation::Relu, x)
}
