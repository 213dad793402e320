use super::probabilities;
use crate::LayerError;
use tch::{Kind, Reduction, Tensor};

/// Focal loss of softmax (Lin 2017, arXiv:1708.02002, equation 4): cross entropy, in which what is
/// given probability `p` counts by `(1 - p)^gamma`. `gamma` is 0, which is cross entropy, or from 1
/// on: between, gradients have no limit. Targets, smoothing, class weights and the mean are as in
/// [`cross_entropy`](super::cross_entropy).
///
/// # Errors
///
/// Targets or weights that do not fit.
pub fn focal(
    logits: &Tensor,
    targets: &Tensor,
    gamma: f64,
    label_smoothing: f64,
    weights: Option<&Tensor>,
) -> Result<Tensor, LayerError> {
    let log = logits.f_log_softmax(1, logits.kind())?;
    let focus = log.f_exp()?.f_neg()?.f_add_scalar(1.0)?.f_pow_tensor_scalar(gamma)?;
    let mut losses = log.f_neg()?.f_mul(&focus)?.f_mul(&probabilities(logits, targets, label_smoothing)?)?;
    if let Some(weights) = weights {
        losses = losses.f_mul(weights)?;
    }
    let sum = losses.f_sum(losses.kind())?;
    match weights {
        Some(weights) if targets.dim() == 1 => Ok(sum.f_div(&weights.f_index_select(0, targets)?.f_sum(weights.kind())?)?),
        _ => Ok(sum.f_div_scalar(logits.size()[0])?),
    }
}

/// Focal loss of sigmoid, for classes that do not exclude each other: torchvision's
/// `sigmoid_focal_loss` with `reduction="mean"`. `targets` (`[N, classes]`) are probabilities, each
/// on its own. `alpha` is the weight of what is there, and the rest of 1 that of what is not; below
/// 0, both are 1. A class counts by its weight, whether it is there or not.
///
/// # Errors
///
/// Targets or weights that do not fit.
pub fn sigmoid_focal(
    logits: &Tensor,
    targets: &Tensor,
    gamma: f64,
    alpha: f64,
    weights: Option<&Tensor>,
) -> Result<Tensor, LayerError> {
    let none = None::<&Tensor>;
    let losses = logits.f_binary_cross_entropy_with_logits(targets, none, none, Reduction::None)?;
    // `a` where a class is there, and `b` where it is not.
    let either = |a: &Tensor, b: &Tensor| a.f_mul(targets)?.f_add(&b.f_mul(&targets.f_neg()?.f_add_scalar(1.0)?)?);
    let p = logits.f_sigmoid()?;
    let wrong = either(&p.f_neg()?.f_add_scalar(1.0)?, &p)?;
    let mut losses = losses.f_mul(&wrong.f_pow_tensor_scalar(gamma)?)?;
    if alpha >= 0.0 {
        losses = losses.f_mul(&targets.f_mul_scalar(2.0 * alpha - 1.0)?.f_add_scalar(1.0 - alpha)?)?;
    }
    if let Some(weights) = weights {
        losses = losses.f_mul(weights)?;
    }
    Ok(losses.f_mean(None::<Kind>)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::loss::cross_entropy;
    use crate::loss::examples::{close, labels, logits, several, shares, weights};

    /// In PyTorch, with `log = log_softmax(logits, 1)` and `each = -(1 - log.exp()) ** 2 * log`:
    /// the mean of `each.gather(1, labels[:, None])`, the same weighted, and the mean of
    /// `(each * shares).sum(1)`.
    #[test]
    fn what_is_classified_well_counts_little() {
        close(focal(&logits(), &labels(), 2.0, 0.0, None), 0.6234961092260602);
        close(focal(&logits(), &labels(), 2.0, 0.0, Some(&weights())), 0.3742145997178139);
        close(focal(&logits(), &shares(), 2.0, 0.0, None), 0.6595962828959844);
    }

    #[test]
    fn without_focus_it_is_cross_entropy() {
        for targets in [labels(), shares()] {
            for (smoothing, weights) in [(0.0, None), (0.1, None), (0.1, Some(weights()))] {
                let expected = cross_entropy(&logits(), &targets, smoothing, weights.as_ref()).unwrap().double_value(&[]);
                close(focal(&logits(), &targets, 0.0, smoothing, weights.as_ref()), expected);
            }
        }
    }

    /// `torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma, reduction="mean")` of
    /// torchvision 0.28; with weights, the mean of those of `reduction="none"` times the weights.
    #[test]
    fn several_classes_are_torchvisions() {
        close(sigmoid_focal(&logits(), &several(), 2.0, 0.25, None), 0.11089840257242985);
        close(sigmoid_focal(&logits(), &several(), 1.5, 0.75, None), 0.12604110571466134);
        close(sigmoid_focal(&logits(), &several(), 2.0, -1.0, None), 0.21616546508573342);
        close(sigmoid_focal(&logits(), &several(), 2.0, 0.25, Some(&weights())), 0.1459024224623249);
    }

    /// A probability of 1 in float32 has a gradient, too.
    #[test]
    fn gradients_of_certain_answers_are_numbers() {
        for gamma in [1.0, 2.0] {
            let logits = Tensor::from_slice(&[200.0_f32, 0.0, -200.0]).view([1, 3]).set_requires_grad(true);
            focal(&logits, &Tensor::from_slice(&[0_i64]), gamma, 0.0, None).unwrap().backward();
            let grad = logits.grad();
            assert_eq!(grad.isfinite().all().int64_value(&[]), 1, "{gamma} {grad:?}");
        }
    }
}
