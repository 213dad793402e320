use super::probabilities;
use crate::LayerError;
use tch::{Reduction, Tensor};

/// Binary cross entropy of sigmoid, as `torch.nn.functional.binary_cross_entropy_with_logits`: the
/// mean over examples and classes. `targets` (`[N, classes]`) are probabilities, each on its own.
/// `label_smoothing` from 0 to 1 draws them to one half by that share, as in Keras. A class counts
/// by its weight, whether it is there or not.
///
/// # Errors
///
/// Targets or weights that do not fit.
pub fn binary_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    label_smoothing: f64,
    weights: Option<&Tensor>,
) -> Result<Tensor, LayerError> {
    let targets = targets.f_mul_scalar(1.0 - label_smoothing)?.f_add_scalar(0.5 * label_smoothing)?;
    Ok(logits.f_binary_cross_entropy_with_logits(&targets, weights, None::<&Tensor>, Reduction::Mean)?)
}

/// Binary cross entropy for classes that exclude each other: each is told from all others, as with
/// timm's `--bce-loss`. `targets` are `[N]` or probabilities; `label_smoothing` spreads as in cross
/// entropy.
///
/// # Errors
///
/// Targets or weights that do not fit.
pub fn one_vs_rest(
    logits: &Tensor,
    targets: &Tensor,
    label_smoothing: f64,
    weights: Option<&Tensor>,
) -> Result<Tensor, LayerError> {
    binary_cross_entropy(logits, &probabilities(logits, targets, label_smoothing)?, 0.0, weights)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::loss::examples::{close, labels, logits, several, weights};

    #[test]
    fn classes_that_exclude_nothing_are_judged_one_by_one() {
        let logits = [1.0_f64, -2.0, 0.5, 3.0];
        let targets = [1.0_f64, 0.0, 0.0, 0.25];
        let expected = |smoothing: f64| -> f64 {
            let one = |(logit, target): (&f64, &f64)| {
                let (p, y) = (1.0 / (1.0 + (-logit).exp()), target * (1.0 - smoothing) + 0.5 * smoothing);
                -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
            };
            logits.iter().zip(&targets).map(one).sum::<f64>() / 4.0
        };
        let tensor = |values: &[f64]| Tensor::from_slice(values).view([2, 2]);
        for smoothing in [0.0, 0.2] {
            close(binary_cross_entropy(&tensor(&logits), &tensor(&targets), smoothing, None), expected(smoothing));
        }
    }

    /// `torch.nn.functional.binary_cross_entropy_with_logits` of PyTorch 2.13, with
    /// `weight=weights` and, of classes that exclude each other,
    /// `torch.nn.functional.one_hot(labels)`, smoothed as `0.9 * one_hot + 0.1 / 3`.
    #[test]
    fn values_are_pytorchs() {
        close(binary_cross_entropy(&logits(), &several(), 0.0, None), 0.595008027131245);
        close(binary_cross_entropy(&logits(), &several(), 0.0, Some(&weights())), 0.7523878346653802);
        close(one_vs_rest(&logits(), &labels(), 0.0, None), 0.7783413604645784);
        close(one_vs_rest(&logits(), &labels(), 0.1, None), 0.7936191382423562);
        close(one_vs_rest(&logits(), &labels(), 0.0, Some(&weights())), 0.750304501332047);
        close(one_vs_rest(&logits(), &several(), 0.0, None), 0.595008027131245);
    }
}
