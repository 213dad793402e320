//! Where two convolutions are added, one of them adds both biases: on CUDA a bias without a ReLU is a pass of its own.
use crate::program::{Kind, Program};
use striate_torch::TorchError;
use striate_torch::onednn::Post;
use tch::Tensor;

/// Moves the bias of a convolution that only another one adds into that one.
pub(crate) fn join(program: &mut Program) -> Result<(), TorchError> {
    let uses = program.uses();
    for index in 0..program.steps.len() {
        let step = &program.steps[index];
        let (Kind::Conv { sum: true, .. }, &[_, added]) = (&step.kind, step.inputs.as_slice()) else { continue };
        let moved = match &mut program.steps[added].kind {
            Kind::Conv { sum: false, post: Post::None, bias, .. } if uses[added] == 1 => bias.take(),
            _ => None,
        };
        if let (Some(moved), Kind::Conv { bias, .. }) = (moved, &mut program.steps[index].kind) {
            *bias = Some(match bias.as_ref() {
                Some(own) => Tensor::f_add(own, &moved)?,
                None => moved,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::passes;
    use crate::testing::{conv, network};
    use striate_graph::Network;
    use striate_layers::{Activation, Add, Conv2d};

    /// The biases of a network's convolutions, as its parameters have them and as the pass leaves them.
    fn biases(network: &Network) -> (Vec<Tensor>, Vec<Option<Tensor>>) {
        let _no_grad = striate_torch::no_grad();
        let own = network.parameters().filter(|param| param.name.ends_with("bias")).map(|param| param.tensor.detach());
        let mut program = Program::of(network);
        passes::run(&mut program).unwrap();
        join(&mut program).unwrap();
        let left = program.steps.iter().filter_map(|step| match &step.kind {
            Kind::Conv { bias, .. } => Some(bias.as_ref().map(Tensor::shallow_clone)),
            _ => None,
        });
        (own.collect(), left.collect())
    }

    #[test]
    fn the_sum_has_both_biases() {
        let network = network(|net, x| {
            let a = net.add("a", conv(), x)?;
            let b = net.add("b", conv(), x)?;
            let sum = net.add("add", Add, [a, b])?;
            net.add("relu", Activation::Relu, sum)
        });
        let (own, left) = biases(&network);
        assert_eq!(left, [None, Some(&own[0] + &own[1])]);
    }

    #[test]
    fn a_sum_without_a_bias_takes_the_others() {
        let network = network(|net, x| {
            let a = net.add("a", conv(), x)?;
            let b = net.add("b", Conv2d { bias: false, ..conv() }, x)?;
            net.add("add", Add, [a, b])
        });
        let (own, left) = biases(&network);
        assert_eq!(left, [None, Some(own[0].shallow_clone())]);
    }

    #[test]
    fn what_others_read_or_an_activation_follows_keeps_its_bias() {
        let network = network(|net, x| {
            let a = net.add("a", conv(), x)?;
            let b = net.add("b", conv(), a)?;
            let sum = net.add("add", Add, [a, b])?;
            let c = net.add("c", conv(), x)?;
            let c = net.add("relu", Activation::Relu, c)?;
            let d = net.add("d", conv(), sum)?;
            net.add("add2", Add, [c, d])
        });
        let (own, left) = biases(&network);
        let left: Vec<Tensor> = left.into_iter().map(Option::unwrap).collect();
        assert_eq!(left, own);
    }
}
