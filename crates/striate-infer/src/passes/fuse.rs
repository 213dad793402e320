//! Activations and additions computed by the convolution or linear layer before them.
use crate::program::{Kind, Program};
use striate_layers::{Activation, Op};
use striate_torch::onednn::Post;

/// Lets convolutions and linear layers compute the activation after them, if nothing else reads what they give.
pub(crate) fn activations(program: &mut Program) {
    let uses = program.uses();
    for index in 0..program.steps.len() {
        let step = &program.steps[index];
        let (Kind::Layer { op: Op::Activation(activation), .. }, &[input]) = (&step.kind, step.inputs.as_slice()) else {
            continue;
        };
        let fused = match activation {
            Activation::Relu => Post::Relu,
            Activation::Tanh => Post::Tanh,
            Activation::Sigmoid => Post::Sigmoid,
            Activation::ScaledTanh => continue,
        };
        let takes = match &program.steps[input].kind {
            // oneDNN's operator follows a sum by a ReLU alone.
            Kind::Conv { sum, post: Post::None, .. } => !sum || fused == Post::Relu,
            Kind::Linear { post: Post::None, .. } => true,
            _ => false,
        };
        if !takes || uses[input] != 1 {
            continue;
        }
        let mut before = program.take(input);
        if let Kind::Conv { post, .. } | Kind::Linear { post, .. } = &mut before.kind {
            *post = fused;
        }
        let step = &mut program.steps[index];
        before.layers.append(&mut step.layers);
        (step.layers, step.kind, step.inputs) = (before.layers, before.kind, before.inputs);
    }
}

/// Lets a convolution that only an addition of two reads add the other value.
pub(crate) fn additions(program: &mut Program) {
    let uses = program.uses();
    for index in 0..program.steps.len() {
        let step = &program.steps[index];
        let (Kind::Layer { op: Op::Add(_), .. }, &[first, second]) = (&step.kind, step.inputs.as_slice()) else { continue };
        let takes = |input: usize| {
            uses[input] == 1 && matches!(program.steps[input].kind, Kind::Conv { sum: false, post: Post::None, .. })
        };
        // Of two, the later one: the other's value then need not wait for it.
        let Some(last) = [first, second].into_iter().filter(|input| takes(*input)).max() else { continue };
        let mut before = program.take(last);
        if let Kind::Conv { sum, .. } = &mut before.kind {
            *sum = true;
        }
        before.inputs.push(if last == first { second } else { first });
        let step = &mut program.steps[index];
        before.layers.append(&mut step.layers);
        (step.layers, step.kind, step.inputs) = (before.layers, before.kind, before.inputs);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::testing::{conv, network, steps};
    use striate_graph::{GraphError, NetworkBuilder, Value};
    use striate_layers::{Activation, Add, Flatten, Linear};

    #[test]
    fn convolutions_and_linear_layers_compute_the_activation_after_them() {
        for activation in [Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
            let network = network(|net, x| {
                let x = net.add("conv", conv(), x)?;
                let x = net.add("act", activation, x)?;
                let x = net.add("flatten", Flatten, x)?;
                let x = net.add("fc", Linear::new(5), x)?;
                net.add("act2", activation, x)
            });
            assert_eq!(steps(&network), ["Conv2d conv + act", "Flatten flatten", "Linear fc + act2"]);
        }
        let network = network(|net, x| {
            let x = net.add("conv", conv(), x)?;
            net.add("act", Activation::ScaledTanh, x)
        });
        assert_eq!(steps(&network), ["Conv2d conv", "ScaledTanh act [in place]"]);
    }

    #[test]
    fn a_convolution_with_two_readers_keeps_its_activation_apart() {
        let network = network(|net, x| {
            let y = net.add("conv", conv(), x)?;
            let a = net.add("relu", Activation::Relu, y)?;
            let b = net.add("tanh", Activation::Tanh, y)?;
            net.add("add", Add, [a, b])
        });
        assert_eq!(steps(&network), ["Conv2d conv", "ReLU relu", "Tanh tanh [in place]", "Add add [in place]"]);
    }

    /// Two convolutions and a way past them, as in a residual block.
    fn block(net: &mut NetworkBuilder, name: &str, x: Value) -> Result<Value, GraphError> {
        let mut block = net.scope(name);
        let y = block.add("conv1", conv(), x)?;
        let y = block.add("relu1", Activation::Relu, y)?;
        let y = block.add("conv2", conv(), y)?;
        let y = block.add("add", Add, [y, x])?;
        block.add("relu2", Activation::Relu, y)
    }

    #[test]
    fn residual_blocks_write_over_their_shortcut_but_not_over_the_networks_input() {
        let network = network(|net, x| {
            let x = block(net, "a", x)?;
            block(net, "b", x)
        });
        assert_eq!(
            steps(&network),
            [
                "Conv2d a.conv1 + a.relu1",
                "Conv2d a.conv2 + a.add + a.relu2",
                "Conv2d b.conv1 + b.relu1",
                "Conv2d b.conv2 + b.add + b.relu2 [in place]",
            ]
        );
    }

    #[test]
    fn a_shortcut_that_is_read_later_or_is_an_output_is_not_written_over() {
        let read_later = network(|net, x| {
            let x = net.add("stem", conv(), x)?;
            let y = block(net, "a", x)?;
            net.add("long", Add, [y, x])
        });
        assert_eq!(steps(&read_later)[2..], ["Conv2d a.conv2 + a.add + a.relu2", "Add long [in place]"]);
        let output = network(|net, x| {
            let x = net.add("stem", conv(), x)?;
            net.output("stem", x)?;
            block(net, "a", x)
        });
        assert_eq!(steps(&output)[2], "Conv2d a.conv2 + a.add + a.relu2");
    }

    #[test]
    fn a_convolution_does_not_write_over_what_it_reads_itself() {
        let network = network(|net, x| {
            let x = net.add("stem", conv(), x)?;
            let y = net.add("conv", conv(), x)?;
            net.add("add", Add, [x, y])
        });
        assert_eq!(steps(&network), ["Conv2d stem", "Conv2d conv + add"]);
    }

    #[test]
    fn of_two_convolutions_the_later_adds_the_other() {
        let network = network(|net, x| {
            let a = net.add("a", conv(), x)?;
            let b = net.add("b", conv(), x)?;
            let sum = net.add("add", Add, [b, a])?;
            net.add("relu", Activation::Relu, sum)
        });
        assert_eq!(steps(&network), ["Conv2d a", "Conv2d b + add + relu [in place]"]);
    }

    #[test]
    fn sums_that_no_convolution_can_compute_stay() {
        let network = network(|net, x| {
            let a = net.add("a", conv(), x)?;
            let b = net.add("b", conv(), x)?;
            let twice = net.add("twice", Add, [a, a])?;
            let sum = net.add("three", Add, [twice, b, x])?;
            let c = net.add("c", conv(), sum)?;
            let sum = net.add("sum", Add, [c, sum])?;
            net.add("tanh", Activation::Tanh, sum)
        });
        let expected = ["Conv2d a", "Conv2d b", "Add twice", "Add three [in place]", "Conv2d c + sum", "Tanh tanh [in place]"];
        assert_eq!(steps(&network), expected);
    }
}
