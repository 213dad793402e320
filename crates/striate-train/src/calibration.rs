//! Probabilities that can be believed: a temperature and a rule for unknown pictures, fitted at the end of a
//! training.
//!
//! ```
//! use striate_train::calibration::fit_temperature;
//! use striate_train::metrics::LabelledLogits;
//! use tch::Tensor;
//!
//! // Two of three answers are right, and the network is much surer than that.
//! let logits = Tensor::from_slice(&[9.0_f32, 0.0, 9.0, 0.0, 9.0, 0.0]).view([3, 2]);
//! let logits = LabelledLogits::new(&logits, &Tensor::from_slice(&[0_i64, 0, 1]))?;
//! assert!(fit_temperature(&logits)? > 5.0);
//! # Ok::<(), striate_train::TrainError>(())
//! ```
use crate::TrainError;
use crate::metrics::{LabelledLogits, Probabilities};
use crate::recipe::AnsweringSection;
use serde::{Deserialize, Serialize};
use striate_models::{Answering, Unknown};
use tch::{Kind, Tensor};

/// Temperatures from 1 / 100 to 100.
const WIDEST: f64 = 100.0;
/// Newton's method takes less than ten steps; halving the range this often is exact, too.
const MOST_STEPS: u32 = 100;
/// How closely a temperature is found.
const TOLERANCE: f64 = 1e-9;
/// A threshold that accepts all examples lies half of this below them.
const MARGIN: f64 = 0.01;

/// How a network answers, and what that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// The data that it was fitted on: `val` or `test`.
    pub by: String,
    /// How many examples it was fitted on.
    pub examples: u64,
    /// The temperature and the rule for unknown pictures.
    pub answering: Answering,
    /// The probabilities on the test set without a temperature.
    pub before: Probabilities,
    /// The probabilities on the test set with one. If the data have no `val`, they are measured on each half of
    /// the test set with the temperature of the other half: no example is judged by what was fitted on it.
    pub after: Probabilities,
}

/// Fits as the recipe says: on the part of the data that chose the best epoch (`judge`, named `by`), judged on
/// the test set, if that is another part.
///
/// # Errors
///
/// libtorch's.
pub fn calibrate(
    section: &AnsweringSection,
    by: &str,
    judge: &LabelledLogits,
    test: Option<&LabelledLogits>,
) -> Result<Calibrated, TrainError> {
    let fitted = |on: &LabelledLogits| if section.temperature { fit_temperature(on) } else { Ok(1.0) };
    let knows = section.unknown > 0.0 && !judge.is_multi_label();
    let unknown = knows.then(|| fit_unknown(judge, section.unknown)).transpose()?;
    let answering = Answering { tta: section.tta, temperature: fitted(judge)?, unknown };
    let crossed = test.is_none() && section.temperature && judge.examples() > 1;
    let after = if crossed {
        let [even, odd] = judge.halves()?;
        Probabilities::measure([(&even, fitted(&odd)?), (&odd, fitted(&even)?)])?
    } else {
        Probabilities::measure([(test.unwrap_or(judge), answering.temperature)])?
    };
    let before = Probabilities::measure([(test.unwrap_or(judge), 1.0)])?;
    Ok(Calibrated { by: by.to_owned(), examples: judge.examples() as u64, answering, before, after })
}

/// The temperature of the smallest negative log-likelihood (Guo 2017, <https://arxiv.org/abs/1706.04599>).
///
/// As in Platt's scaling, each of `N` targets counts for `1 - 1 / (N + 1)` only, and the rest is spread evenly over
/// the classes (or over there and not there). Without that, a few pictures with no mistake among them would be
/// a proof of certainty. From 0.01 to 100; 1 if the logits fix none.
///
/// # Errors
///
/// libtorch's.
pub fn fit_temperature(logits: &LabelledLogits) -> Result<f64, TrainError> {
    let (mut low, mut high, mut inverse) = (1.0 / WIDEST, WIDEST, 1.0);
    for _ in 0..MOST_STEPS {
        let Slope { slope, curvature } = Slope::at(logits, inverse)?;
        if !slope.is_finite() || curvature == 0.0 {
            return Ok(1.0);
        }
        *(if slope > 0.0 { &mut high } else { &mut low }) = inverse;
        let newton: f64 = inverse - slope / curvature;
        let next = if (low..high).contains(&newton) { newton } else { (low * high).sqrt() };
        if (next - inverse).abs() < TOLERANCE * inverse {
            break;
        }
        inverse = next;
    }
    Ok(1.0 / inverse)
}

/// How the negative log-likelihood changes with the inverse temperature, in which it is convex: its first and
/// second derivative.
struct Slope {
    slope: f64,
    curvature: f64,
}

impl Slope {
    fn at(logits: &LabelledLogits, inverse: f64) -> Result<Self, TrainError> {
        let spread = 1.0 / (logits.examples() as f64 + 1.0);
        let (mut slope, mut curvature) = (0.0, 0.0);
        let sum = |tensor: Tensor| -> Result<f64, TrainError> { Ok(tensor.f_sum(Kind::Double)?.f_double_value(&[])?) };
        logits.in_parts(|z, targets| {
            let scaled = z.f_mul_scalar(inverse)?;
            if logits.is_multi_label() {
                let there = targets.f_to_kind(Kind::Double)?.f_mul_scalar(1.0 - spread)?.f_add_scalar(0.5 * spread)?;
                let p = scaled.f_sigmoid()?;
                slope += sum(p.f_sub(&there)?.f_mul(z)?)?;
                curvature += sum(p.f_mul(&p.f_neg()?.f_add_scalar(1.0)?)?.f_mul(&z.f_square()?)?)?;
            } else {
                let mean_of = |weights: &Tensor, values: &Tensor| weights.f_mul(values)?.f_sum_dim_intlist(1, true, Kind::Double);
                let p = scaled.f_softmax(1, Kind::Double)?;
                let expected = mean_of(&p, z)?;
                let even = z.f_mean_dim([1_i64].as_slice(), true, Kind::Double)?.f_mul_scalar(spread)?;
                let wanted = z.f_gather(1, &targets.f_unsqueeze(1)?, false)?.f_mul_scalar(1.0 - spread)?.f_add(&even)?;
                slope += sum(expected.f_sub(&wanted)?)?;
                curvature += sum(mean_of(&p, &z.f_sub(&expected)?.f_square()?)?)?;
            }
            Ok(())
        })?;
        Ok(Self { slope, curvature })
    }
}

/// A threshold that the share `accepted` of these examples, or a little more, lies above. It lies halfway between
/// two examples, so that rounding does not move any across.
///
/// # Errors
///
/// A share that is not from 0 to 1, no examples, and libtorch's errors.
pub fn fit_unknown(logits: &LabelledLogits, accepted: f64) -> Result<Unknown, TrainError> {
    let mut energies = Vec::new();
    logits.in_parts(|logits, _| {
        energies.extend(Unknown::energies(logits)?);
        Ok(())
    })?;
    energies.sort_unstable_by(f64::total_cmp);
    let refused = ((1.0 - accepted) * energies.len() as f64 + TOLERANCE).floor() as usize;
    let (Some(lowest), true) = (energies.get(refused).or(energies.last()), (0.0..=1.0).contains(&accepted)) else {
        return Err(TrainError::Option { option: format!("unknown = {accepted}"), reason: "must be from 0 to 1" });
    };
    let below = refused.checked_sub(1).map_or(lowest - MARGIN, |last| energies[last]);
    Ok(Unknown { energy: (below + lowest) / 2.0, accepted })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::example::{close, one_class, several_classes};
    use striate_models::Tta;

    /// SciPy's `minimize_scalar` over the logarithm of the temperature, in `tests/metrics/make.py`: six digits.
    #[test]
    fn temperatures_are_those_that_scipy_finds() {
        for (logits, expected) in [(one_class(), 1.790_409_728), (several_classes(), 1.702_040_499)] {
            let temperature = fit_temperature(&logits).unwrap();
            assert!((temperature / expected - 1.0).abs() < 1e-6, "{temperature}");
            // It lies in a minimum, found to more digits than SciPy's.
            assert!(Slope::at(&logits, 1.0 / temperature).unwrap().slope.abs() < 1e-6);
        }
    }

    fn rows(rows: &[[f32; 2]], targets: &[i64]) -> LabelledLogits {
        LabelledLogits::new(&Tensor::from_slice(rows.as_flattened()).view([-1, 2]), &Tensor::from_slice(targets)).unwrap()
    }

    /// Two classes and equal margins `m`: the probability of the target is `1 - 1 / (2 (N + 1))` then.
    #[test]
    fn no_mistake_is_no_certainty() {
        for (count, margin) in [(1, 1.0), (9, 0.1), (9, 40.0)] {
            let logits = rows(&vec![[margin, 0.0]; count], &vec![0; count]);
            let temperature = fit_temperature(&logits).unwrap();
            let p = 1.0 / (1.0 + (-f64::from(margin) / temperature).exp());
            close(p, 1.0 - 0.5 / (count as f64 + 1.0));
        }
    }

    #[test]
    fn without_evidence_nothing_changes() {
        assert_eq!(fit_temperature(&rows(&[[3.0, 3.0]], &[1])).unwrap(), 1.0);
        assert_eq!(fit_temperature(&rows(&[[f32::NAN, 3.0]], &[1])).unwrap(), 1.0);
    }

    /// SciPy's sorted `logsumexp`: the third is 1.968, the fourth 2.022, and so on.
    #[test]
    fn the_stated_share_is_accepted() {
        let logits = one_class();
        let between = [
            (1.0, 0, 1.940_953_110_415_090_8 - 0.01, 1.940_953_110_415_090_8),
            (0.95, 3, 1.967_988_581_475_827_8, 2.022_321_323_907_451),
            (0.9, 6, 2.173_421_704_632_162, 2.191_612_784_027_860_5),
        ];
        for (accepted, refused, below, lowest) in between {
            let unknown = fit_unknown(&logits, accepted).unwrap();
            close(unknown.energy, (below + lowest) / 2.0);
            let energies = Unknown::energies(logits.logits()).unwrap();
            assert_eq!(energies.into_iter().filter(|energy| unknown.refuses(*energy)).count(), refused, "{accepted}");
        }
        assert_eq!(fit_unknown(&logits, 0.0).unwrap().accepted, 0.0);
        let error = fit_unknown(&logits, 1.5).unwrap_err().to_string();
        assert_eq!(error, "unknown = 1.5 must be from 0 to 1");
    }

    #[test]
    fn nothing_is_judged_by_what_was_fitted_on_it() {
        let (section, judge) = (AnsweringSection { tta: Tta::Flip, ..AnsweringSection::default() }, one_class());
        let alone = calibrate(&section, "test", &judge, None).unwrap();
        let [even, odd] = judge.halves().unwrap();
        let crossed = [(&even, fit_temperature(&odd).unwrap()), (&odd, fit_temperature(&even).unwrap())];
        assert_eq!(alone.after, Probabilities::measure(crossed).unwrap());
        assert_eq!(alone.before, Probabilities::measure([(&judge, 1.0)]).unwrap());
        assert_eq!((alone.examples, alone.answering.temperature), (60, fit_temperature(&judge).unwrap()));
        assert_eq!((alone.answering.tta, alone.answering.unknown), (Tta::Flip, Some(fit_unknown(&judge, 0.99).unwrap())));

        let with_val = calibrate(&section, "val", &even, Some(&odd)).unwrap();
        assert_eq!(with_val.after, Probabilities::measure([(&odd, fit_temperature(&even).unwrap())]).unwrap());
        assert_eq!(with_val.before, Probabilities::measure([(&odd, 1.0)]).unwrap());
    }

    #[test]
    fn both_can_be_switched_off() {
        let off = AnsweringSection { temperature: false, unknown: 0.0, tta: Tta::Off };
        let plain = calibrate(&off, "test", &one_class(), None).unwrap();
        assert_eq!((plain.answering, plain.before), (Answering::default(), plain.after));
        let several = calibrate(&AnsweringSection::default(), "test", &several_classes(), None).unwrap();
        assert_eq!(several.answering.unknown, None);
        assert!(several.answering.temperature > 1.5);
    }
}
