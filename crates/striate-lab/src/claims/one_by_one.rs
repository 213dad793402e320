//! The 1x1 convolution.
use super::{exact_network, largest_difference, random};
use crate::figure::{Bar, Labels, bars};
use crate::verdict::short;
use crate::{Check, Claim, Finding, Lab, LabError, Setup, Table};
use striate_graph::Graph;
use striate_layers::{Conv2d, Linear, Mode};
use tch::{Device, Tensor};

pub(super) const CLAIM: Claim = Claim {
    name: "one-by-one",
    title: "A 1x1 convolution is a dense layer at every pixel",
    claim: "A 1x1 convolution computes at every pixel the same dense layer of the pixel's channels, and so can shrink the number \
            of channels while height and width stay.",
    source: "Lin et al. 2014, section 3.1",
    hypothesis: "Outputs, and gradients of input, weights and biases, equal those of the dense layer applied pixel by pixel, in \
                 float64 to 1e-12 of the largest value; 192 channels of 28x28 become 32 of 28x28.",
    refuted_if: "one of them differs by more",
    recipe: Setup::untrained(
        "A 1x1 convolution of 192 channels of 28x28 to 32, and a dense layer with its weights, on random maps.",
    ),
    seeds: [0, 0],
    minutes: [0.1, 0.1],
    run,
};

const INPUT: [i64; 3] = [192, 28, 28];
const OUTPUT: i64 = 32;
const ROUNDING: f64 = 1e-12;

fn run(_: &mut Lab) -> Result<Finding, LabError> {
    let convolution = Graph::build(|net| {
        let x = net.input(INPUT);
        let x = net.add("layer", Conv2d::new(OUTPUT, 1), x)?;
        net.output("out", x)
    })?;
    let dense = Graph::build(|net| {
        let x = net.input([INPUT[0]]);
        let x = net.add("layer", Linear::new(OUTPUT), x)?;
        net.output("out", x)
    })?;
    let shape = convolution.outputs().next().map(|(_, node)| node.shape.dims().to_vec());
    let convolution = exact_network(convolution, vec![Device::Cpu], 1)?;
    let dense = exact_network(dense, vec![Device::Cpu], 2)?;
    let mut state = convolution.state();
    if let Some(weight) = state.get_mut("layer.weight") {
        *weight = weight.f_flatten(1, -1)?;
    }
    dense.load_state(&state)?;

    let [channels, height, width] = INPUT;
    let images = random(&[2, channels, height, width], 3)?.f_set_requires_grad(true)?;
    let pixels = images.f_detach()?.f_permute([0, 2, 3, 1])?.f_reshape([-1, channels])?.f_set_requires_grad(true)?;
    let as_pixels = |images: &Tensor| images.f_permute([0, 2, 3, 1])?.f_flatten(0, 2);
    let ours = as_pixels(convolution.forward(&images, Mode::Train)?.logits())?;
    let theirs = dense.forward(&pixels, Mode::Train)?.logits().shallow_clone();
    let upstream = random(&theirs.size(), 4)?;
    for output in [&ours, &theirs] {
        output.f_mul(&upstream)?.f_sum(output.kind())?.f_backward()?;
    }
    let gradients = |network: &striate_graph::Network, input: Tensor| -> Result<Vec<Tensor>, LabError> {
        let mut all = vec![input];
        for (_, parameter) in network.trainable() {
            all.push(parameter.f_grad()?.f_flatten(0, -1)?);
        }
        Ok(all)
    };
    let mut pairs = vec![("output", ours.f_detach()?, theirs.f_detach()?)];
    let of_convolution = gradients(&convolution, as_pixels(&images.f_grad()?)?)?;
    let of_dense = gradients(&dense, pixels.f_grad()?)?;
    let names = ["gradient of the input", "gradient of the weights", "gradient of the biases"];
    pairs.extend(names.into_iter().zip(of_convolution.into_iter().zip(of_dense)).map(|(name, (a, b))| (name, a, b)));

    let mut table = Table::new(["what", "largest value", "largest difference"]);
    let (mut checks, mut figure) = (Vec::new(), Vec::new());
    for (what, a, b) in pairs {
        let (size, difference) = (a.f_abs()?.f_max()?.f_double_value(&[])?, largest_difference(&a, &b)?);
        checks.push(Check::exact(
            format!("equal {what}"),
            difference <= ROUNDING * size,
            format!("largest difference {} of {}", short(difference), short(size)),
        ));
        table.push([what.to_owned(), size.to_string(), difference.to_string()]);
        figure.push(Bar::exact(what, difference / size));
    }
    let [_, height, width] = INPUT;
    let shrunk = shape.as_deref() == Some(&[OUTPUT, height, width]);
    checks.push(Check::exact(
        "the number of channels shrinks, height and width stay",
        shrunk,
        format!("{INPUT:?} → {:?}", shape.unwrap_or_default()),
    ));
    let labels =
        Labels { title: "1x1 convolution against dense layer", x: "largest difference over largest value (float64)", y: "" };
    Ok(Finding { checks, remarks: String::new(), table, figure: bars(labels, &figure)? })
}
