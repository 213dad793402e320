use crate::LayerError;
use tch::{Reduction, Tensor};

/// Cross entropy of softmax, as `torch.nn.functional.cross_entropy`. `label_smoothing` from 0 to 1
/// spreads that share of the target's probability evenly over all classes. With class weights and
/// targets `[N]`, the mean is over the examples' weights; with probabilities, over the examples.
///
/// # Errors
///
/// Targets or weights that do not fit.
pub fn cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    label_smoothing: f64,
    weights: Option<&Tensor>,
) -> Result<Tensor, LayerError> {
    Ok(logits.f_cross_entropy_loss(targets, weights, Reduction::Mean, -100, label_smoothing)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::examples::{close, labels, logits, shares, weights};

    #[test]
    fn smoothing_spreads_the_target() {
        let logits = Tensor::from_slice(&[1.0_f64, 2.0, 4.0]).view([1, 3]);
        let log_sum = (1.0_f64.exp() + 2.0_f64.exp() + 4.0_f64.exp()).ln();
        let expected = 0.1 * (log_sum - 1.0) + 0.1 * (log_sum - 2.0) + 0.8 * (log_sum - 4.0);
        close(cross_entropy(&logits, &Tensor::from_slice(&[2_i64]), 0.3, None), expected);
    }

    #[test]
    fn targets_may_be_probabilities() {
        let logits = Tensor::from_slice(&[1.0_f64, 2.0, 4.0]).view([1, 3]);
        let targets = Tensor::from_slice(&[0.25, 0.0, 0.75]).view([1, 3]);
        let log_sum = (1.0_f64.exp() + 2.0_f64.exp() + 4.0_f64.exp()).ln();
        close(cross_entropy(&logits, &targets, 0.0, None), 0.25 * (log_sum - 1.0) + 0.75 * (log_sum - 4.0));
    }

    /// `torch.nn.functional.cross_entropy(logits, targets, weight=weights, label_smoothing=...)` of
    /// PyTorch 2.13.
    #[test]
    fn classes_count_by_their_weights() {
        close(cross_entropy(&logits(), &labels(), 0.0, Some(&weights())), 0.8075055366916284);
        close(cross_entropy(&logits(), &labels(), 0.1, Some(&weights())), 0.9142532846445317);
        close(cross_entropy(&logits(), &shares(), 0.1, Some(&weights())), 1.4891983880133672);
    }
}
