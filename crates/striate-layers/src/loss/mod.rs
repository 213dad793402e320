//! Losses: from logits `[N, classes]` and targets to a scalar, the mean over the batch. Targets are
//! `[N]` (int64 class numbers) or `[N, classes]`, the probability of each class. Losses of classes
//! that do not exclude each other take the latter alone, and [`rbf_loss`] the former.
//!
//! Some take class weights, `[classes]`: how much an example counts that has the class.
mod bce;
mod cross_entropy;
mod focal;
mod rbf;

pub use self::bce::{binary_cross_entropy, one_vs_rest};
pub use self::cross_entropy::cross_entropy;
pub use self::focal::{focal, sigmoid_focal};
pub use self::rbf::rbf_loss;

use crate::LayerError;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A loss with its options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
    /// [`one_vs_rest`].
    OneVsRest {
        /// The share of the target's probability that is spread over all classes.
        label_smoothing: f64,
    },
    /// [`focal`].
    Focal {
        /// How little examples count that are classified well.
        gamma: f64,
        /// The share of the target's probability that is spread over all classes.
        label_smoothing: f64,
    },
    /// [`sigmoid_focal`], for classes that do not exclude each other.
    SigmoidFocal {
        /// How little classes count that are told rightly.
        gamma: f64,
        /// The weight of classes that are there; those that are not have the rest of 1. Below 0,
        /// both have 1.
        alpha: f64,
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
    /// The plain loss by which test sets are judged: the same for every way of training, so that
    /// its values can be compared.
    pub fn unsmoothed(self) -> Self {
        match self {
            Self::CrossEntropy { .. } | Self::OneVsRest { .. } | Self::Focal { .. } => Self::default(),
            Self::BinaryCrossEntropy { .. } | Self::SigmoidFocal { .. } => Self::BinaryCrossEntropy { label_smoothing: 0.0 },
            Self::Rbf { .. } => self,
        }
    }

    /// Whether it is of classes that do not exclude each other: an example has any number of them.
    pub fn is_multi_label(self) -> bool {
        matches!(self, Self::BinaryCrossEntropy { .. } | Self::SigmoidFocal { .. })
    }

    /// Whether targets may be probabilities, and classes have weights.
    pub fn takes_probabilities(self) -> bool {
        !matches!(self, Self::Rbf { .. })
    }

    /// The mean loss of a batch: a scalar from logits `[N, classes]` and targets `[N]` or, unless
    /// it is [`rbf_loss`], `[N, classes]`.
    ///
    /// # Errors
    ///
    /// Targets of another shape.
    pub fn compute(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor, LayerError> {
        self.weighted(logits, targets, None)
    }

    /// [`compute`](Self::compute) with class weights, which [`rbf_loss`] ignores.
    ///
    /// # Errors
    ///
    /// Targets or weights of another shape.
    pub fn weighted(&self, logits: &Tensor, targets: &Tensor, weights: Option<&Tensor>) -> Result<Tensor, LayerError> {
        match *self {
            Self::CrossEntropy { label_smoothing } => cross_entropy(logits, targets, label_smoothing, weights),
            Self::BinaryCrossEntropy { label_smoothing } => binary_cross_entropy(logits, targets, label_smoothing, weights),
            Self::OneVsRest { label_smoothing } => one_vs_rest(logits, targets, label_smoothing, weights),
            Self::Focal { gamma, label_smoothing } => focal(logits, targets, gamma, label_smoothing, weights),
            Self::SigmoidFocal { gamma, alpha } => sigmoid_focal(logits, targets, gamma, alpha, weights),
            Self::Rbf { j } => rbf_loss(logits, targets, j),
        }
    }

    /// What a batch counts in a mean over several, if that is not its number of examples: where
    /// examples count by their classes, the sum of their weights.
    ///
    /// # Errors
    ///
    /// A target beyond the classes.
    pub fn batch_weight(&self, targets: &Tensor, weights: Option<&Tensor>) -> Result<Option<Tensor>, LayerError> {
        match (self, weights) {
            (Self::CrossEntropy { .. } | Self::Focal { .. }, Some(weights)) if targets.dim() == 1 => {
                Ok(Some(weights.f_index_select(0, targets)?.f_sum(Kind::Float)?))
            }
            _ => Ok(None),
        }
    }
}

/// Targets as probabilities `[N, classes]`, of which `label_smoothing` is spread over all classes.
fn probabilities(logits: &Tensor, targets: &Tensor, label_smoothing: f64) -> Result<Tensor, LayerError> {
    let classes = logits.size().last().copied().unwrap_or(1);
    let hard = || targets.f_one_hot(classes)?.f_to_kind(logits.kind());
    let probabilities = if targets.dim() == 1 { hard()? } else { targets.shallow_clone() };
    if label_smoothing == 0.0 {
        return Ok(probabilities);
    }
    Ok(probabilities.f_mul_scalar(1.0 - label_smoothing)?.f_add_scalar(label_smoothing / classes as f64)?)
}

/// Targets and logits of four examples and three classes, by which the losses' values were computed
/// elsewhere.
#[cfg(test)]
pub(crate) mod examples {
    use tch::Tensor;

    pub(crate) fn logits() -> Tensor {
        Tensor::from_slice(&[1.0_f64, -2.0, 0.5, 0.3, 0.1, -1.5, 2.0, 3.0, -0.5, -1.0, 0.25, 0.75]).view([4, 3])
    }

    pub(crate) fn labels() -> Tensor {
        Tensor::from_slice(&[2_i64, 0, 1, 0])
    }

    pub(crate) fn shares() -> Tensor {
        Tensor::from_slice(&[0.2_f64, 0.3, 0.5, 1.0, 0.0, 0.0, 0.0, 0.75, 0.25, 0.1, 0.1, 0.8]).view([4, 3])
    }

    pub(crate) fn several() -> Tensor {
        Tensor::from_slice(&[1.0_f64, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]).view([4, 3])
    }

    pub(crate) fn weights() -> Tensor {
        Tensor::from_slice(&[0.5_f64, 2.0, 1.25])
    }

    pub(crate) fn close(loss: Result<Tensor, crate::LayerError>, expected: f64) {
        let loss = loss.map_or(f64::NAN, |loss| loss.double_value(&[]));
        assert!((loss - expected).abs() < 1e-12, "{loss}, expected {expected}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_bundles_of_before_say_is_read() {
        for (text, loss) in [
            (r#"{"cross_entropy":{"label_smoothing":0.1}}"#, Loss::CrossEntropy { label_smoothing: 0.1 }),
            (r#"{"binary_cross_entropy":{"label_smoothing":0.0}}"#, Loss::BinaryCrossEntropy { label_smoothing: 0.0 }),
            (r#"{"rbf":{"j":1.5}}"#, Loss::Rbf { j: 1.5 }),
        ] {
            assert_eq!(serde_json::from_str::<Loss>(text).unwrap(), loss);
        }
    }

    #[test]
    fn all_ways_to_train_are_judged_by_the_plain_loss() {
        let (several, plain) = (Loss::BinaryCrossEntropy { label_smoothing: 0.0 }, Loss::default());
        for (loss, judge) in [
            (Loss::CrossEntropy { label_smoothing: 0.1 }, plain),
            (Loss::OneVsRest { label_smoothing: 0.1 }, plain),
            (Loss::Focal { gamma: 2.0, label_smoothing: 0.0 }, plain),
            (Loss::BinaryCrossEntropy { label_smoothing: 0.2 }, several),
            (Loss::SigmoidFocal { gamma: 2.0, alpha: 0.25 }, several),
            (Loss::Rbf { j: 1.0 }, Loss::Rbf { j: 1.0 }),
        ] {
            assert_eq!((loss.unsmoothed(), loss.is_multi_label()), (judge, judge == several));
        }
    }

    /// The mean of a batch is that of its halves, each by its weight.
    #[test]
    fn halves_of_a_batch_count_by_their_weight() {
        let (logits, labels, weights) = (examples::logits(), examples::labels(), examples::weights());
        for loss in [Loss::default(), Loss::Focal { gamma: 2.0, label_smoothing: 0.1 }] {
            let whole = loss.weighted(&logits, &labels, Some(&weights));
            let halves = [0, 2].map(|start| {
                let (logits, labels) = (logits.narrow(0, start, 2), labels.narrow(0, start, 2));
                let weight = loss.batch_weight(&labels, Some(&weights)).unwrap().unwrap().double_value(&[]);
                (loss.weighted(&logits, &labels, Some(&weights)).unwrap().double_value(&[]) * weight, weight)
            });
            examples::close(whole, (halves[0].0 + halves[1].0) / (halves[0].1 + halves[1].1));
            assert!(loss.batch_weight(&examples::shares(), Some(&weights)).unwrap().is_none());
        }
    }
}
