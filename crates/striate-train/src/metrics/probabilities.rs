use super::LabelledLogits;
use crate::TrainError;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

/// Bins of equal width between 0 and 1.
const BINS: usize = 15;

/// How far probabilities can be believed; 0 is best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Probabilities {
    /// Expected calibration error (Guo 2017, <https://arxiv.org/abs/1706.04599>, equation 3): how far
    /// the accuracy lies from the probability of the answer, on average over the examples in 15 bins of
    /// equal width. Where classes do not exclude each other: how far the share of a class lies from its
    /// probability, over all examples and classes together.
    pub calibration_error: f64,
    /// The mean negative logarithm of the target's probability. Where classes do not exclude each other,
    /// the mean binary cross entropy.
    pub nll: f64,
    /// The Brier score: the squared distance between probabilities and target, summed over the classes
    /// (so from 0 to 2), averaged over the examples. Where classes do not exclude each other, it is
    /// averaged over the classes, too.
    pub brier: f64,
}

impl Probabilities {
    /// Measures the softmax (or, where classes do not exclude each other, the sigmoid) of
    /// `logits / temperature`, over all examples of several parts, each with its own temperature.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn measure<'a>(parts: impl IntoIterator<Item = (&'a LabelledLogits, f64)>) -> Result<Self, TrainError> {
        let mut sums = Sums::default();
        for (part, temperature) in parts {
            part.in_parts(|logits, targets| {
                let logits = logits.f_div_scalar(temperature)?;
                if part.is_multi_label() { sums.add_several(&logits, targets) } else { sums.add_one(&logits, targets) }
            })?;
        }
        let Sums { bins, judged, nll, brier } = sums;
        let error = |Bin { probability, right }: &Bin| (probability - right).abs();
        let calibration_error = bins.iter().map(error).sum::<f64>() / judged;
        Ok(Self { calibration_error, nll: nll / judged, brier: brier / judged })
    }
}

#[derive(Default)]
struct Sums {
    bins: [Bin; BINS],
    /// Examples, or pairs of example and class.
    judged: f64,
    nll: f64,
    brier: f64,
}

/// Sums over the answers of a bin.
#[derive(Default)]
struct Bin {
    probability: f64,
    right: f64,
}

impl Sums {
    fn add_one(&mut self, logits: &Tensor, targets: &Tensor) -> Result<(), TrainError> {
        let log = logits.f_log_softmax(1, Kind::Double)?;
        let probabilities = log.f_exp()?;
        let column = targets.f_unsqueeze(1)?;
        let of_target = probabilities.f_gather(1, &column, false)?.f_sum(Kind::Double)?.f_double_value(&[])?;
        let squares = probabilities.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        self.nll -= log.f_gather(1, &column, false)?.f_sum(Kind::Double)?.f_double_value(&[])?;
        self.brier += squares - 2.0 * of_target + targets.numel() as f64;
        let (confidence, answer) = probabilities.f_max_dim(1, false)?;
        self.count(&confidence, &answer.f_eq_tensor(targets)?)
    }

    fn add_several(&mut self, logits: &Tensor, targets: &Tensor) -> Result<(), TrainError> {
        let there = targets.f_to_kind(Kind::Double)?;
        let (none, probabilities) = (None::<&Tensor>, logits.f_sigmoid()?);
        let entropy = logits.f_binary_cross_entropy_with_logits(&there, none, none, Reduction::Sum)?;
        self.nll += entropy.f_double_value(&[])?;
        self.brier += probabilities.f_sub(&there)?.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        self.count(&probabilities.f_flatten(0, -1)?, &targets.f_flatten(0, -1)?)
    }

    fn count(&mut self, probabilities: &Tensor, right: &Tensor) -> Result<(), TrainError> {
        self.judged += right.numel() as f64;
        for (probability, right) in Vec::<f64>::try_from(probabilities)?.into_iter().zip(Vec::<bool>::try_from(right)?) {
            // Each bin has its upper end. NaN is in the first, and makes the sum NaN.
            let place = ((probability * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
            self.bins[place].probability += probability;
            self.bins[place].right += f64::from(u8::from(right));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::example::{close, one_class, several_classes};

    fn check(logits: &LabelledLogits, temperature: f64, [calibration_error, nll, brier]: [f64; 3]) {
        let got = Probabilities::measure([(logits, temperature)]).unwrap();
        close(got.calibration_error, calibration_error);
        close(got.nll, nll);
        close(got.brier, brier);
    }

    #[test]
    fn figures_are_those_of_guo_and_scikit_learn() {
        check(&one_class(), 1.0, [0.145_694_545_212_321_28, 1.845_983_663_259_8, 0.810_988_945_576_738_3]);
        check(&one_class(), 2.0, [0.087_383_201_499_456_41, 1.775_611_189_299_222_6, 0.802_450_707_799_778_5]);
        check(&several_classes(), 1.0, [0.268_584_689_081_758_3, 0.624_188_264_527_197_2, 0.219_666_114_280_679_4]);
        check(&several_classes(), 2.0, [0.303_042_628_467_587_95, 0.597_843_648_346_949_6, 0.207_041_403_700_192_36]);
    }

    #[test]
    fn parts_add_up() {
        for logits in [one_class(), several_classes()] {
            let [even, odd] = logits.halves().unwrap();
            let (whole, halves) = ([(&logits, 1.5)], [(&even, 1.5), (&odd, 1.5)]);
            let [whole, halves] = [Probabilities::measure(whole), Probabilities::measure(halves)].map(Result::unwrap);
            close(halves.calibration_error, whole.calibration_error);
            close(halves.nll, whole.nll);
            close(halves.brier, whole.brier);
        }
    }
}
