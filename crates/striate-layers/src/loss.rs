//! Losses: from logits `[N, classes]` and targets to a scalar, the mean over the batch. Targets are `[N]` (int64 class numbers); cross
//! entropy also takes `[N, classes]`, the probability of each class, and binary cross entropy takes nothing else.
use crate::LayerError;
use serde::{Deserialize, Serialize};
use tch::{Reduction, Tensor};

/// A loss with its options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// [`cross_entropy`].
    CrossEntropy {
        /// The share of the target's probability that is spread over all classes.
        label_smoothing: f64,
    },
    /// [`binary_cross_entropy`], for classes that do not exclude each other.
    BinaryCrossEntropy {
        /// How far targets are drawn to one half.
        label_smoothing: f64,
    },
    /// [`rbf_loss`].
    Rbf {
        /// The distance of the rubbish class.
        j: f64,
    },
}

impl Default for Loss {
    /// Cross entropy without label smoothing.
    fn default() -> Self {
        Self::CrossEntropy { label_smoothing: 0.0 }
    }
}

impl Loss {
    /// The same loss of targets as they are, by which test sets are judged.
    pub fn unsmoothed(self) -> Self {
        match self {
            Self::CrossEntropy { .. } => Self::default(),
            Self::BinaryCrossEntropy { .. } => Self::BinaryCrossEntropy { label_smoothing: 0.0 },
            other => other,
        }
    }

    /// Whether it is of classes that do not exclude each other: an example has any number of them.
    pub fn is_multi_label(self) -> bool {
        matches!(self, Self::BinaryCrossEntropy { .. })
    }

    /// The mean loss of a batch: a scalar from logits `[N, classes]` and targets `[N]` or, for both cross entropies, `[N, classes]`.
    pub fn compute(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor, LayerError> {
        match *self {
            Self::CrossEntropy { label_smoothing } => cross_entropy(logits, targets, label_smoothing),
            Self::BinaryCrossEntropy { label_smoothing } => binary_cross_entropy(logits, targets, label_smoothing),
            Self::Rbf { j } => rbf_loss(logits, targets, j),
        }
    }
}

/// Cross entropy of softmax, as `torch.nn.functional.cross_entropy`. `label_smoothing` from 0 to 1 spreads that share of
/// the target's probability evenly over all classes.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, label_smoothing: f64) -> Result<Tensor, LayerError> {
    Ok(logits.f_cross_entropy_loss(targets, None::<&Tensor>, Reduction::Mean, -100, label_smoothing)?)
}

/// Binary cross entropy of sigmoid, as `torch.nn.functional.binary_cross_entropy_with_logits`: the mean over examples and classes.
/// `targets` (`[N, classes]`) are probabilities, each on its own. `label_smoothing` from 0 to 1 draws them to one half by that share, as in
/// Keras.
pub fn binary_cross_entropy(logits: &Tensor, targets: &Tensor, label_smoothing: f64) -> Result<Tensor, LayerError> {
    let targets = targets.f_mul_scalar(1.0 - label_smoothing)?.f_add_scalar(0.5 * label_smoothing)?;
    let none = None::<&Tensor>;
    Ok(logits.f_binary_cross_entropy_with_logits(&targets, none, none, Reduction::Mean)?)
}

/// The discriminative loss of LeNet-5's radial basis functions (LeCun 1998, equation 9): the distance `y` to the target's
/// code plus `log(exp(-j) + sum over all classes of exp(-y))`, where the logits are `-y`.
///
/// It is a cross entropy with one more class, "rubbish", whose distance is always `j`: classes that are already farther than
/// `j` are no longer pushed away.
pub fn rbf_loss(logits: &Tensor, targets: &Tensor, j: f64) -> Result<Tensor, LayerError> {
    let target_logits = logits.f_gather(1, &targets.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
    let rubbish = logits.f_narrow(1, 0, 1)?.f_full_like(-j)?;
    let all = Tensor::f_cat(&[logits, &rubbish], 1)?.f_logsumexp([1_i64].as_slice(), false)?;
    Ok(all.f_sub(&target_logits)?.f_mean(logits.kind())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_rbf_loss_is_equation_9() {
        let (y, target, j) = ([3.0_f64, 0.5, 9.0], 0, 2.0);
        let logits = -Tensor::from_slice(&y).view([1, 3]);
        let loss = rbf_loss(&logits, &Tensor::from_slice(&[target]), j).unwrap().double_value(&[]);
        let sum: f64 = y.iter().map(|y| (-y).exp()).sum();
        assert!((loss - (y[0] + ((-j).exp() + sum).ln())).abs() < 1e-12, "{loss}");
    }

    #[test]
    fn smoothing_spreads_the_target() {
        let logits = Tensor::from_slice(&[1.0_f64, 2.0, 4.0]).view([1, 3]);
        let loss = cross_entropy(&logits, &Tensor::from_slice(&[2_i64]), 0.3).unwrap().double_value(&[]);
        let log_sum = (1.0_f64.exp() + 2.0_f64.exp() + 4.0_f64.exp()).ln();
        let expected = 0.1 * (log_sum - 1.0) + 0.1 * (log_sum - 2.0) + 0.8 * (log_sum - 4.0);
        assert!((loss - expected).abs() < 1e-12, "{loss} {expected}");
    }

    #[test]
    fn classes_that_exclude_nothing_are_judged_one_by_one() {
        let logits = [1.0_f64, -2.0, 0.5, 3.0];
        let targets = [1.0_f64, 0.0, 0.0, 0.25];
        let loss = |smoothing: f64| {
            let tensor = |values: &[f64]| Tensor::from_slice(values).view([2, 2]);
            binary_cross_entropy(&tensor(&logits), &tensor(&targets), smoothing).unwrap().double_value(&[])
        };
        let expected = |smoothing: f64| -> f64 {
            let one = |(logit, target): (&f64, &f64)| {
                let (p, y) = (1.0 / (1.0 + (-logit).exp()), target * (1.0 - smoothing) + 0.5 * smoothing);
                -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
            };
            logits.iter().zip(&targets).map(one).sum::<f64>() / 4.0
        };
        for smoothing in [0.0, 0.2] {
            assert!((loss(smoothing) - expected(smoothing)).abs() < 1e-12);
        }
        let smoothed = Loss::BinaryCrossEntropy { label_smoothing: 0.2 };
        assert!(smoothed.is_multi_label() && smoothed.unsmoothed() == Loss::BinaryCrossEntropy { label_smoothing: 0.0 });
    }

    #[test]
    fn targets_may_be_probabilities() {
        let logits = Tensor::from_slice(&[1.0_f64, 2.0, 4.0]).view([1, 3]);
        let loss = |targets: &[f64]| {
            let targets = Tensor::from_slice(targets).view([1, 3]);
            cross_entropy(&logits, &targets, 0.0).unwrap().double_value(&[])
        };
        let log_sum = (1.0_f64.exp() + 2.0_f64.exp() + 4.0_f64.exp()).ln();
        let expected = 0.25 * (log_sum - 1.0) + 0.75 * (log_sum - 4.0);
        assert!((loss(&[0.25, 0.0, 0.75]) - expected).abs() < 1e-12);
    }
}
