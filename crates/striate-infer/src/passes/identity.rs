//! Layers that do nothing in evaluation.
use crate::program::{Kind, Program};
use striate_layers::{Activation, Op};

/// Removes dropout, stochastic depth, flattening of vectors, and a ReLU of what a ReLU gave.
pub(crate) fn remove(program: &mut Program) {
    for index in 0..program.steps.len() {
        let step = &program.steps[index];
        let &[input] = step.inputs.as_slice() else { continue };
        let does_nothing = match &step.kind {
            Kind::Layer { op: Op::Dropout(_) | Op::StochasticDepth(_), .. } => true,
            Kind::Layer { op: Op::Flatten(_), .. } => program.steps[input].shape.dims().len() == 1,
            kind => is_relu(kind) && is_relu(&program.steps[input].kind),
        };
        // The network's input is no value of the plan's own that it could give away.
        if does_nothing && !matches!(program.steps[input].kind, Kind::Input) {
            program.redirect(index, input);
            program.take(index);
        }
    }
    program.sweep();
}

fn is_relu(kind: &Kind) -> bool {
    matches!(kind, Kind::Layer { op: Op::Activation(Activation::Relu), .. })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::testing::{conv, network, steps};
    use striate_layers::{Activation, AdaptiveAvgPool2d, Dropout, Flatten, Linear, StochasticDepth};

    #[test]
    fn dropout_and_what_does_nothing_are_gone() {
        let network = network(|net, x| {
            let x = net.add("conv", conv(), x)?;
            let x = net.add("dropout", Dropout::new(0.5), x)?;
            let x = net.add("depth", StochasticDepth::new(0.5), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            let x = net.add("relu2", Activation::Relu, x)?;
            let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("flatten2", Flatten, x)?;
            let x = net.add("fc", Linear::new(3), x)?;
            net.add("dropout2", Dropout::new(0.5), x)
        });
        assert_eq!(steps(&network), ["Conv2d conv + relu", "AdaptiveAvgPool2d pool", "Flatten flatten", "Linear fc"]);
    }

    #[test]
    fn an_input_is_never_given_away() {
        let network = network(|net, x| net.add("dropout", Dropout::new(0.5), x));
        assert_eq!(steps(&network), ["Dropout dropout"]);
    }
}
