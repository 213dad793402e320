//! Batch norm in evaluation is a scale and a shift per channel: after a convolution they go into its weight and bias.
use crate::program::{Kind, Program};
use striate_layers::Op;
use striate_torch::TorchError;
use striate_torch::onednn::Post;
use tch::{Kind as Type, Tensor};

/// Folds each batch norm into the convolution before it, if nothing else reads that.
pub(crate) fn batch_norm(program: &mut Program) -> Result<(), TorchError> {
    let uses = program.uses();
    for index in 0..program.steps.len() {
        let step = &program.steps[index];
        let (Kind::Layer { op: Op::BatchNorm2d(norm), params }, &[input]) = (&step.kind, step.inputs.as_slice()) else {
            continue;
        };
        let Kind::Conv { weight, bias, sum: false, post: Post::None, .. } = &program.steps[input].kind else { continue };
        if uses[input] != 1 {
            continue;
        }
        let (scale, shift) = scale_and_shift(params, norm.affine, norm.eps)?;
        let (weight, bias) = folded(weight, bias.as_ref(), &scale, &shift)?;
        let mut before = program.take(input);
        let Kind::Conv { conv, sum, post, .. } = before.kind else { continue };
        let step = &mut program.steps[index];
        before.layers.append(&mut step.layers);
        (step.layers, step.inputs) = (before.layers, before.inputs);
        step.kind = Kind::Conv { conv, weight, bias: Some(bias), sum, post };
    }
    Ok(())
}

/// What batch norm multiplies each channel by and what it adds then, in float64.
fn scale_and_shift(params: &[Tensor], affine: bool, eps: f64) -> Result<(Tensor, Tensor), TorchError> {
    let statistics = &params[if affine { 2 } else { 0 }..];
    let [mean, variance] = [0, 1].map(|index| statistics[index].f_to_kind(Type::Double));
    let mut scale = (variance?.f_add_scalar(eps)?).f_rsqrt()?;
    if affine {
        scale = scale.f_mul(&params[0])?;
    }
    let mut shift = mean?.f_mul(&scale)?.f_neg()?;
    if affine {
        shift = shift.f_add(&params[1])?;
    }
    Ok((scale, shift))
}

/// `scale * (conv(x, weight) + bias) + shift` as one convolution's weight and bias.
fn folded(weight: &Tensor, bias: Option<&Tensor>, scale: &Tensor, shift: &Tensor) -> Result<(Tensor, Tensor), TorchError> {
    let kind = weight.kind();
    let shift = match bias {
        Some(bias) => scale.f_mul(bias)?.f_add(shift)?,
        None => shift.shallow_clone(),
    };
    let weight = weight.f_to_kind(Type::Double)?.f_mul(&scale.f_view([-1, 1, 1, 1])?)?;
    Ok((weight.f_to_kind(kind)?, shift.f_to_kind(kind)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::testing::{conv, network, steps};
    use striate_layers::{Activation, BatchNorm2d, Concat, Conv2d};

    #[test]
    fn batch_norm_goes_into_the_convolution_with_or_without_bias_and_affine() {
        for (bias, affine) in [(true, true), (false, true), (true, false), (false, false)] {
            let network = network(|net, x| {
                let x = net.add("conv", Conv2d { bias, ..conv().groups(2) }, x)?;
                net.add("bn", BatchNorm2d { affine, ..BatchNorm2d::new().eps(1e-3) }, x)
            });
            assert_eq!(steps(&network), ["Conv2d conv + bn"]);
        }
    }

    #[test]
    fn a_convolution_that_others_read_keeps_its_values() {
        let network = network(|net, x| {
            let y = net.add("conv", conv(), x)?;
            let normed = net.add("bn", BatchNorm2d::new(), y)?;
            let normed = net.add("relu", Activation::Relu, normed)?;
            net.add("concat", Concat, [y, normed])
        });
        assert_eq!(steps(&network), ["Conv2d conv", "BatchNorm2d bn", "ReLU relu [in place]", "Concat concat"]);
    }

    #[test]
    fn an_output_keeps_its_values() {
        let network = network(|net, x| {
            let y = net.add("conv", conv(), x)?;
            net.output("raw", y)?;
            net.add("bn", BatchNorm2d::new(), y)
        });
        assert_eq!(steps(&network), ["Conv2d conv", "BatchNorm2d bn"]);
    }

    #[test]
    fn batch_norm_after_an_activation_or_before_a_convolution_stays() {
        let network = network(|net, x| {
            let x = net.add("bn", BatchNorm2d::new(), x)?;
            let x = net.add("conv", conv(), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            net.add("bn2", BatchNorm2d::new(), x)
        });
        assert_eq!(steps(&network), ["BatchNorm2d bn", "Conv2d conv + relu", "BatchNorm2d bn2"]);
    }
}
