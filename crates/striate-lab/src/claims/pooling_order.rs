//! Whether the nonlinearity comes before pooling or after it.
use super::relu::best_rate;
use super::{exact_network, largest_difference, per_seed, random};
use crate::figure::{Bar, Labels, bars};
use crate::verdict::short;
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table, Training};
use striate_layers::{Activation, Mode};
use striate_models::{LeNetConfig, LeNetPooling, Order};
use tch::{Device, Tensor};

pub(super) const CLAIM: Claim = Claim {
    name: "pooling-order",
    title: "Before or after pooling, the nonlinearity's place matters little",
    claim: "LeNet-5 squashes after pooling, later networks put their nonlinearity before it. With max pooling and a nonlinearity \
            that never falls both are the same; with average pooling they differ little, and less than ReLU and sigmoid do.",
    source: "LeCun et al. 1998, section II.B (sigmoid after pooling), against Krizhevsky et al. 2012, figure 2; neither \
             publishes a comparison",
    hypothesis: "Max pooling, float64: outputs and gradients of LeNet-5 in both orders are equal to 1e-12 of the largest value, \
                 with ReLU, with LeCun's scaled tanh and with sigmoid. Average pooling, each network at the best learning rate \
                 of 0.03, 0.1 and 0.3: the test errors of both orders are within 0.03 of each other with ReLU and with the \
                 scaled tanh, and sigmoid's, in the mean of both orders, is above ReLU's.",
    refuted_if: "an output or a gradient differs by more, or the interval of one of the three differences lies on the other side",
    recipe: Setup {
        networks: "LeNet-5 in both orders, with max pooling on random images in float64; and with average pooling, trained. Initial \
                   values are PyTorch's, and LeCun's for the scaled tanh.",
        training: Some(TRAINING),
        rates: &RATES,
    },
    seeds: [6, 8],
    minutes: [2.0, 8.0],
    run,
};

const QUICK: Training =
    Training { size: 28, train: 8192, test: 4096, batch: 64, epochs: 5, lr: 0.0, weight_decay: 0.0, aux_weight: 0.0 };
const TRAINING: [Training; 2] = [QUICK, Training { train: 20_000, test: 10_000, epochs: 6, ..QUICK }];
const ROUNDING: f64 = 1e-12;
/// A difference in test error that counts as little.
const LITTLE: f64 = 0.03;
const RATES: [f64; 3] = [0.03, 0.1, 0.3];
const ACTIVATIONS: [(&str, Activation); 3] =
    [("ReLU", Activation::Relu), ("scaled tanh", Activation::ScaledTanh), ("sigmoid", Activation::Sigmoid)];
const ORDERS: [(&str, Order); 2] = [("before", Order::BeforePooling), ("after", Order::AfterPooling)];

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let training = lab.scale().pick(TRAINING);
    let mut checks =
        ACTIVATIONS.map(|(name, activation)| same_with_max(name, activation)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut table = Table::new(["nonlinearity", "order", "learning rate", "seed", "training loss", "test error"]);
    let (mut errors, mut figure) = (Vec::new(), Vec::new());
    for (name, activation) in ACTIVATIONS {
        for (place, order) in ORDERS {
            let train = |lab: &mut Lab, seed, lr| -> Result<History, LabError> {
                let training = Training { lr, ..training };
                lab.train(&format!("{name} {place} pooling at {lr}"), &training, seed, |input, classes| {
                    let pooling = LeNetPooling::Average;
                    Ok(LeNetConfig { input, classes, activation, order, pooling, ..LeNetConfig::modern() }.graph()?)
                })
            };
            let rate = best_rate(lab, &RATES, |lab, seed, lr| Ok(train(lab, seed, lr)?.final_train_loss))?;
            let curves = per_seed(lab, |lab, seed| train(lab, seed, rate))?;
            for (seed, curve) in lab.seeds().into_iter().zip(&curves) {
                let [loss, error] = [curve.final_train_loss, curve.final_test_error()].map(|value| value.to_string());
                table.push([name.to_owned(), place.to_owned(), rate.to_string(), seed.to_string(), loss, error]);
            }
            errors.push(curves.iter().map(History::final_test_error).collect::<Vec<_>>());
            figure.push(Bar::of(format!("{name} {place}, rate {rate}"), &errors[errors.len() - 1]));
        }
    }
    let mean = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect::<Vec<_>>();
    let (relu, sigmoid) = (mean(&errors[0], &errors[1]), mean(&errors[4], &errors[5]));
    checks.extend([
        Check::near_zero("ReLU: test error after pooling minus before", Interval::of_differences(&errors[1], &errors[0]), LITTLE),
        Check::near_zero(
            "scaled tanh: test error after pooling minus before",
            Interval::of_differences(&errors[3], &errors[2]),
            LITTLE,
        ),
        Check::above("test error with sigmoid minus ReLU", Interval::of_differences(&sigmoid, &relu), 0.0),
    ]);
    let remarks = format!(
        "The order is not judged with sigmoid, whose test errors are {} before pooling and {} after: unless it learns, they tell \
         nothing of the order. LeCun's trainable subsampling is not compared.",
        short(Interval::of(&errors[4]).mean),
        short(Interval::of(&errors[5]).mean)
    );
    let figure =
        bars(Labels { title: "LeNet-5, nonlinearity before and after average pooling", x: "test error", y: "" }, &figure)?;
    Ok(Finding { checks, remarks, table, figure })
}

/// Holds both orders of LeNet-5 with max pooling against each other.
fn same_with_max(name: &str, activation: Activation) -> Result<Check, LabError> {
    let images = random(&[4, 1, 32, 32], 1)?;
    let mut upstream = None;
    let mut computed = |order: Order| -> Result<Vec<Tensor>, LabError> {
        let graph = LeNetConfig { activation, order, ..LeNetConfig::modern() }.graph()?;
        let network = exact_network(graph, vec![Device::Cpu], 2)?;
        let logits = network.forward(&images, Mode::Train)?.logits().shallow_clone();
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(random(&logits.size(), 3)?),
        };
        logits.f_mul(upstream)?.f_sum(logits.kind())?.f_backward()?;
        let gradients = network.trainable().into_iter().map(|(_, parameter)| Ok(parameter.f_grad()?));
        std::iter::once(Ok(logits.f_detach()?)).chain(gradients).collect()
    };
    let [before, after] = [computed(Order::BeforePooling)?, computed(Order::AfterPooling)?];
    let (mut largest, mut equal) = (0.0_f64, true);
    for (a, b) in before.iter().zip(&after) {
        let difference = largest_difference(a, b)?;
        largest = largest.max(difference);
        equal &= difference <= ROUNDING * a.f_abs()?.f_max()?.f_double_value(&[])?;
    }
    let what = format!("max pooling, {name}: outputs and gradients are equal in both orders");
    Ok(Check::exact(what, equal && before.len() == after.len(), format!("largest difference {}", short(largest))))
}
