//! 1x1 convolutions of one input side by side, as the branches of an Inception module begin, are one convolution.
use crate::program::{Kind, Program, Step};
use striate_layers::{Conv2d, Shape};
use striate_torch::TorchError;
use striate_torch::onednn::Post;
use tch::Tensor;

/// Merges convolutions that read the same input in the same way; each becomes some channels of what they give together.
pub(crate) fn siblings(program: &mut Program) -> Result<(), TorchError> {
    let mut first = 0;
    while first < program.steps.len() {
        let group: Vec<usize> = (first..program.steps.len()).filter(|other| alike(program, first, *other)).collect();
        if group.len() > 1 {
            merge(program, &group)?;
            first += 1; // the merged convolution stands before
        }
        first += 1;
    }
    Ok(())
}

/// The input, geometry and activation of a convolution that can be merged.
fn mergeable(step: &Step) -> Option<(usize, &Conv2d, Post, bool)> {
    match &step.kind {
        Kind::Conv { conv, sum: false, post, bias, .. } if conv.kernel_size.0 == [1, 1] && conv.groups == 1 => {
            Some((step.inputs[0], conv, *post, bias.is_some()))
        }
        _ => None,
    }
}

fn alike(program: &Program, one: usize, other: usize) -> bool {
    match (mergeable(&program.steps[one]), mergeable(&program.steps[other])) {
        (Some((input, conv, post, bias)), Some((other_input, other_conv, other_post, other_bias))) => {
            let geometry = |conv: &Conv2d| (conv.stride, conv.padding, conv.dilation);
            input == other_input && post == other_post && bias == other_bias && geometry(conv) == geometry(other_conv)
        }
        _ => false,
    }
}

fn merge(program: &mut Program, group: &[usize]) -> Result<(), TorchError> {
    let (mut weights, mut biases, mut start) = (Vec::new(), Vec::new(), 0);
    let mut merged: Option<Step> = None;
    for index in group {
        let step = &mut program.steps[*index];
        let count = step.shape.dims()[0];
        let inputs = std::mem::take(&mut step.inputs);
        let kind = std::mem::replace(&mut step.kind, Kind::Channels { start, count });
        let Kind::Conv { conv, weight, bias, sum, post } = kind else { continue };
        weights.push(weight.shallow_clone());
        biases.extend(bias.as_ref().map(Tensor::shallow_clone));
        start += count;
        let merged = merged.get_or_insert_with(|| Step {
            layers: Vec::new(),
            kind: Kind::Conv { conv, weight, bias, sum, post },
            inputs,
            shape: step.shape.clone(),
        });
        merged.layers.append(&mut step.layers);
    }
    let Some(mut merged) = merged else { return Ok(()) };
    merged.shape = Shape::new([&[start], &merged.shape.dims()[1..]].concat());
    if let Kind::Conv { conv, weight, bias, .. } = &mut merged.kind {
        conv.out_channels = start;
        *weight = Tensor::f_cat(&weights, 0)?;
        *bias = if biases.is_empty() { None } else { Some(Tensor::f_cat(&biases, 0)?) };
    }
    program.insert(group[0], merged);
    group.iter().for_each(|index| program.steps[index + 1].inputs = vec![group[0]]);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::testing::{conv, network, steps};
    use striate_layers::{Activation, Concat, Conv2d};

    #[test]
    fn branches_that_begin_alike_begin_as_one() {
        let network = network(|net, x| {
            let mut branches = Vec::new();
            for (name, width) in [("a", 2), ("b", 3), ("c", 5)] {
                let y = net.add(&format!("{name}.reduce"), Conv2d::new(width, 1), x)?;
                let y = net.add(&format!("{name}.relu"), Activation::Relu, y)?;
                branches.push(if name == "a" { y } else { net.add(&format!("{name}.conv"), conv(), y)? });
            }
            net.add("concat", Concat, branches)
        });
        assert_eq!(
            steps(&network),
            [
                "Conv2d a.reduce + a.relu + b.reduce + b.relu + c.reduce + c.relu",
                "Channels 0..2",
                "Channels 2..5",
                "Conv2d b.conv",
                "Channels 5..10",
                "Conv2d c.conv",
                "Concat concat",
            ]
        );
    }

    #[test]
    fn branches_that_differ_stay_apart() {
        let network = network(|net, x| {
            let y = net.add("first", Conv2d::new(2, 1), x)?;
            let relu = net.add("relu", Activation::Relu, y)?;
            let other_activation = net.add("b", Conv2d::new(2, 1), x)?;
            let other_input = net.add("c", Conv2d::new(2, 1), relu)?;
            let other_kernel = net.add("d", Conv2d::same(2, 3), x)?;
            let other_bias = net.add("e", Conv2d::new(2, 1).no_bias(), x)?;
            net.add("concat", Concat, [relu, other_activation, other_input, other_kernel, other_bias])
        });
        let names = ["Conv2d first + relu", "Conv2d b", "Conv2d c", "Conv2d d", "Conv2d e", "Concat concat"];
        assert_eq!(steps(&network), names);
    }

    #[test]
    fn a_view_of_some_channels_is_no_memory_to_write_over_while_others_are_read() {
        let network = network(|net, x| {
            let a = net.add("a", Conv2d::new(4, 1), x)?;
            let b = net.add("b", Conv2d::new(4, 1), x)?;
            let scaled = net.add("scaled", Activation::ScaledTanh, a)?;
            let a = net.add("relu", Activation::Relu, a)?;
            let c = net.add("c", conv(), b)?;
            let sum = net.add("add", striate_layers::Add, [c, a])?;
            net.add("concat", Concat, [sum, b, scaled])
        });
        let steps = steps(&network);
        assert_eq!(steps[3..6], ["ScaledTanh scaled", "ReLU relu", "Conv2d c + add [in place]"], "{steps:?}");
    }
}
