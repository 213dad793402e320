//! `[loss]`: what training minimises.
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use striate_datasets::Dataset;
use striate_layers::loss::Loss;

/// The loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossSection {
    /// Which loss.
    pub kind: LossKind,
    /// For `focal`: how little counts what is classified well; 0, or from 1 on.
    pub gamma: f64,
    /// For `focal` with several classes a picture: the weight of classes that are there, from 0 to
    /// 1; below 0, they count as those that are not.
    pub alpha: f64,
    /// How much classes count.
    pub class_weights: ClassWeights,
    /// The power of the inverse frequency that balanced weights are: 1 to count all classes the
    /// same, 0 all pictures.
    pub power: f64,
}

impl Default for LossSection {
    fn default() -> Self {
        Self { kind: LossKind::Auto, gamma: 2.0, alpha: 0.25, class_weights: ClassWeights::default(), power: 1.0 }
    }
}

/// Which loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LossKind {
    /// The model's own: cross entropy, where the data have several classes a picture binary cross
    /// entropy, for others of their own.
    #[default]
    Auto,
    /// Cross entropy of softmax.
    CrossEntropy,
    /// Binary cross entropy: each class for itself.
    Bce,
    /// Focal loss, of softmax, or of sigmoid where the data have several classes a picture.
    Focal,
}

/// How much classes count: `"none"`, `"balanced"` or a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `none`, `balanced` or a list of numbers")]
pub enum ClassWeights {
    /// By a word.
    Named(NamedWeights),
    /// One for each class.
    Each(Vec<f64>),
}

/// How much classes count, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedWeights {
    /// All the same.
    None,
    /// The less, the more pictures of the training data have the class.
    Balanced,
}

impl Default for ClassWeights {
    fn default() -> Self {
        Self::Named(NamedWeights::None)
    }
}

impl ClassWeights {
    /// The weights as a list, empty if all count the same. Balanced ones are counted: those of a
    /// class with `n` of all `N` labels, of `C` classes, are `(N / (C n))^power`, and 1 if no
    /// example has it.
    ///
    /// # Errors
    ///
    /// A list of another length than the classes'.
    pub fn of(&self, data: &dyn Dataset, power: f64) -> Result<Vec<f64>, TrainError> {
        let classes = data.classes().len();
        match self {
            Self::Named(NamedWeights::None) => Ok(Vec::new()),
            Self::Named(NamedWeights::Balanced) => {
                let (examples, mut counts) = (data.examples()?, vec![0_u64; classes]);
                for index in 0..data.len() {
                    for label in examples.labels(index).iter() {
                        if let Some(count) = usize::try_from(*label).ok().and_then(|label| counts.get_mut(label)) {
                            *count += 1;
                        }
                    }
                }
                Ok(balanced(&counts, power))
            }
            Self::Each(weights) => {
                let option = || format!("{} weights", weights.len());
                check(
                    weights.len() == classes,
                    "loss.class_weights",
                    format_args!("{}", option()),
                    "must be one for each class",
                )?;
                Ok(weights.clone())
            }
        }
    }
}

fn balanced(counts: &[u64], power: f64) -> Vec<f64> {
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    counts.iter().map(|count| if *count == 0 { 1.0 } else { (mean / *count as f64).powf(power) }).collect()
}

impl LossSection {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let gamma = self.gamma == 0.0 || (1.0..=100.0).contains(&self.gamma);
        check(gamma, "loss.gamma", self.gamma, "must be 0, or from 1 to 100")?;
        check(self.alpha.is_finite() && self.alpha <= 1.0, "loss.alpha", self.alpha, "must be at most 1")?;
        check((0.0..=10.0).contains(&self.power), "loss.power", self.power, "must be from 0 to 10")?;
        let ClassWeights::Each(weights) = &self.class_weights else { return Ok(()) };
        let sound = weights.iter().all(|weight| weight.is_finite() && *weight > 0.0) && !weights.is_empty();
        check(sound, "loss.class_weights", weights, "must be above 0")
    }

    /// The loss of a model whose own is `model`, with this share of smoothing.
    pub(super) fn of(&self, model: Loss, label_smoothing: f64) -> Result<Loss, TrainError> {
        let gamma = self.gamma;
        let loss = match (self.kind, model.is_multi_label()) {
            (LossKind::Auto, _) => match model {
                Loss::CrossEntropy { .. } if label_smoothing != 0.0 => Loss::CrossEntropy { label_smoothing },
                Loss::BinaryCrossEntropy { .. } if label_smoothing != 0.0 => Loss::BinaryCrossEntropy { label_smoothing },
                other => other,
            },
            (LossKind::CrossEntropy, false) => Loss::CrossEntropy { label_smoothing },
            (LossKind::CrossEntropy, true) => {
                let option = "loss.kind = \"cross-entropy\"".to_owned();
                return Err(TrainError::Option { option, reason: "takes one class a picture: take `bce` or `focal`" });
            }
            (LossKind::Bce, false) => Loss::OneVsRest { label_smoothing },
            (LossKind::Bce, true) => Loss::BinaryCrossEntropy { label_smoothing },
            (LossKind::Focal, false) => Loss::Focal { gamma, label_smoothing },
            (LossKind::Focal, true) => Loss::SigmoidFocal { gamma, alpha: self.alpha },
        };
        let smooths = loss.takes_probabilities() && !matches!(loss, Loss::SigmoidFocal { .. });
        let reason = "takes cross entropy, `bce`, or `focal` for one class a picture, and this loss is another";
        check(label_smoothing == 0.0 || smooths, "train.label_smoothing", label_smoothing, reason)?;
        let weighs = self.class_weights == ClassWeights::default() || loss.takes_probabilities();
        let weights = &self.class_weights;
        check(weighs, "loss.class_weights", weights, "takes cross entropy, and this model has a loss of its own")?;
        Ok(loss)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Recipe;
    use striate_datasets::InMemory;
    use tch::{Device, Kind, Tensor};

    fn section(text: &str) -> Result<LossSection, TrainError> {
        Ok(Recipe::parse(&format!("[loss]\n{text}"), "r.toml".as_ref())?.loss)
    }

    #[test]
    fn the_work_and_the_kind_decide_the_loss() {
        let several = Loss::BinaryCrossEntropy { label_smoothing: 0.0 };
        let of = |text: &str, model: Loss, smoothing: f64| section(text).unwrap().of(model, smoothing);
        for (text, model, smoothing, expected) in [
            ("", Loss::default(), 0.1, Loss::CrossEntropy { label_smoothing: 0.1 }),
            ("", several, 0.1, Loss::BinaryCrossEntropy { label_smoothing: 0.1 }),
            ("", Loss::Rbf { j: 1.0 }, 0.0, Loss::Rbf { j: 1.0 }),
            ("kind = 'cross-entropy'", Loss::Rbf { j: 1.0 }, 0.1, Loss::CrossEntropy { label_smoothing: 0.1 }),
            ("kind = 'bce'", Loss::default(), 0.1, Loss::OneVsRest { label_smoothing: 0.1 }),
            ("kind = 'bce'", several, 0.0, several),
            ("kind = 'focal'", Loss::default(), 0.1, Loss::Focal { gamma: 2.0, label_smoothing: 0.1 }),
            ("kind = 'focal'\ngamma = 1.5\nalpha = -1", several, 0.0, Loss::SigmoidFocal { gamma: 1.5, alpha: -1.0 }),
        ] {
            assert_eq!(of(text, model, smoothing).unwrap(), expected, "{text}");
        }
        let refused = |text: &str, model: Loss, smoothing: f64| of(text, model, smoothing).unwrap_err().to_string();
        assert!(refused("kind = 'cross-entropy'", several, 0.0).ends_with("takes one class a picture: take `bce` or `focal`"));
        assert!(refused("", Loss::Rbf { j: 1.0 }, 0.1).starts_with("train.label_smoothing = 0.1 takes cross entropy"));
        assert!(refused("kind = 'focal'", several, 0.1).starts_with("train.label_smoothing = 0.1 takes cross entropy"));
        assert!(refused("class_weights = 'balanced'", Loss::Rbf { j: 1.0 }, 0.0).starts_with("loss.class_weights = "));
    }

    /// scikit-learn's `compute_class_weight("balanced", ...)` of the labels 0, 0, 0, 1 and 2, 2:
    /// `[2/3, 2, 1]`.
    #[test]
    fn rare_classes_count_more() {
        let images = Tensor::zeros([6, 1, 2, 2], (Kind::Uint8, Device::Cpu));
        let labels = Tensor::from_slice(&[0_i64, 2, 0, 1, 0, 2]);
        let data = InMemory::new("x", images, &labels, ["a", "b", "c"].map(str::to_owned).to_vec()).unwrap();
        let of = |text: &str| {
            let section = section(text).unwrap();
            section.class_weights.of(&data, section.power)
        };
        assert_eq!(of("").unwrap(), Vec::<f64>::new());
        assert_eq!(of("class_weights = 'balanced'").unwrap(), [2.0 / 3.0, 2.0, 1.0]);
        assert_eq!(of("class_weights = 'balanced'\npower = 0.5").unwrap()[1], 2.0_f64.sqrt());
        assert_eq!(of("class_weights = [1, 2, 0.5]").unwrap(), [1.0, 2.0, 0.5]);
        let two = of("class_weights = [1.0, 2.0]").unwrap_err().to_string();
        assert_eq!(two, "loss.class_weights = 2 weights must be one for each class");
        assert_eq!(balanced(&[3, 0, 3], 1.0), [2.0 / 3.0, 1.0, 2.0 / 3.0]);
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        for (text, told) in [
            ("gamma = 0.5", "loss.gamma = 0.5 must be 0, or from 1 to 100"),
            ("alpha = 2.0", "loss.alpha = 2.0 must be at most 1"),
            ("power = -1.0", "loss.power = -1.0 must be from 0 to 10"),
            ("class_weights = [1.0, 0.0]", "loss.class_weights = [1.0, 0.0] must be above 0"),
            ("class_weights = 'some'", "expected `none`, `balanced` or a list of numbers"),
            ("knid = 'focal'", "unknown key `knid` in [loss]: did you mean `kind`?"),
        ] {
            let error = section(text).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains('\n'), "{error}");
        }
    }
}
