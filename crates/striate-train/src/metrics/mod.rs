//! Figures of predictions. None depends on how examples are put into batches.
mod classes;
mod logits;
mod probabilities;

pub use classes::{ClassCounts, ClassMetrics, ConfusionMatrix, MultiLabelScores, SingleLabelScores};
pub use logits::LabelledLogits;
pub use probabilities::Probabilities;

use crate::TrainError;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The mean loss and the accuracy of the examples seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// The sum of the examples' losses.
    pub loss_sum: f64,
    /// How many examples.
    pub examples: u64,
    /// How many of them were classified correctly.
    pub correct: u64,
}

impl Running {
    /// Counts a batch of `examples` whose mean loss is `loss`.
    pub fn add(&mut self, loss: f64, examples: u64, correct: u64) {
        self.loss_sum += loss * examples as f64;
        self.examples += examples;
        self.correct += correct;
    }

    /// The mean loss; NaN if there was no example.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.examples as f64
    }

    /// The share that was classified correctly; NaN if there was no example.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.examples as f64
    }
}

/// How many examples of a batch have their target among the `k` largest logits. `logits` `[N, classes]`, `targets` `[N]`.
///
/// Of equal logits the first class counts as the largest, as in `argmax`; NaN is larger than any number.
pub fn top_k_correct(logits: &Tensor, targets: &Tensor, k: i64) -> Result<u64, TrainError> {
    let correct = if k == 1 {
        logits.f_argmax(1, false)?.f_eq_tensor(targets)?
    } else {
        let column = targets.f_unsqueeze(1)?;
        let target_logits = logits.f_gather(1, &column, false)?;
        let class = Tensor::f_arange(logits.size2()?.1, (Kind::Int64, logits.device()))?;
        let tied_before = logits.f_eq_tensor(&target_logits)?.f_logical_and(&class.f_lt_tensor(&column)?)?;
        let ahead = logits.f_le_tensor(&target_logits)?.f_logical_not()?.f_logical_or(&tied_before)?;
        ahead.f_sum_dim_intlist(1, false, Kind::Int64)?.f_lt(k)?
    };
    Ok(correct.f_sum(Kind::Int64)?.f_int64_value(&[])?.unsigned_abs())
}

/// Examples whose figures `tests/metrics/make.py` has from other libraries.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod example {
    use super::LabelledLogits;
    use tch::Tensor;

    const EXAMPLES: i64 = 60;
    const CLASSES: i64 = 7;

    fn rows<T: tch::kind::Element>(cell: impl Fn(i64, i64) -> T) -> Tensor {
        let cells: Vec<T> = (0..EXAMPLES * CLASSES).map(|at| cell(at / CLASSES, at % CLASSES)).collect();
        Tensor::from_slice(&cells).view([EXAMPLES, CLASSES])
    }

    fn noise(i: i64, c: i64) -> f32 {
        ((7 * i + 13 * c + 5 * i * c) % 17) as f32 / 4.0 - 2.0
    }

    /// Of classes that exclude each other; of the last one there is none.
    pub(crate) fn one_class() -> LabelledLogits {
        let target = |i: i64| (i * i + i / 3) % 6;
        let logits = rows(|i, c| noise(i, c) + if c == target(i) { 1.0 } else { 0.0 });
        let targets: Vec<i64> = (0..EXAMPLES).map(target).collect();
        LabelledLogits::new(&logits, &Tensor::from_slice(&targets)).unwrap()
    }

    /// Of classes that do not; of the second and the last one there is none.
    pub(crate) fn several_classes() -> LabelledLogits {
        let there = |i: i64, c: i64| (i * i + 2 * c + i * c * c) % 5 < 2 && c < 6;
        let logits = rows(|i, c| noise(i, c) + if there(i, c) { 2.0 } else { 0.0 });
        LabelledLogits::new(&logits, &rows(|i, c| f32::from(u8::from(there(i, c))))).unwrap()
    }

    #[track_caller]
    pub(crate) fn close(got: impl Into<Option<f64>>, expected: f64) {
        let got = got.into().unwrap();
        assert!((got - expected).abs() < 1e-9, "{got} {expected}");
    }
}

/// How many examples of a batch have exactly the classes that they should: those whose probability (sigmoid) is at least `threshold`.
/// `logits` `[N, classes]`, `targets` `[N, classes]`, where what is above one half is there.
pub fn exact_matches(logits: &Tensor, targets: &Tensor, threshold: f64) -> Result<u64, TrainError> {
    let right = logits.f_to_kind(Kind::Double)?.f_sigmoid()?.f_ge(threshold)?.f_eq_tensor(&targets.f_gt(0.5)?)?;
    Ok(right.f_all_dim(1, false)?.f_sum(Kind::Int64)?.f_int64_value(&[])?.unsigned_abs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logits(rows: &[[f32; 3]]) -> Tensor {
        Tensor::from_slice(rows.as_flattened()).view([-1, 3])
    }

    #[test]
    fn the_mean_is_over_examples_not_batches() {
        let mut running = Running::default();
        running.add(1.0, 30, 15);
        running.add(4.0, 10, 10);
        assert_eq!((running.loss(), running.accuracy()), (1.75, 0.625));
    }

    #[test]
    fn ties_and_nan_are_counted_as_argmax_does() {
        let logits = logits(&[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [f32::NAN, 5.0, 1.0], [0.0, 1.0, 2.0]]);
        let targets = Tensor::from_slice(&[0_i64, 1, 1, 0]);
        let counts = [1, 2, 3].map(|k| top_k_correct(&logits, &targets, k).unwrap());
        assert_eq!(counts, [1, 3, 4]);
    }

    /// scikit-learn has no such figure: row by row.
    #[test]
    fn exact_matches_have_every_class_and_no_other() {
        let rows = [[2.0, -1.0, 0.5], [0.5, 0.5, -2.0], [-1.0, 0.5, 3.0], [0.5, -3.0, -0.5], [-0.25, 1.5, -0.5]];
        let targets = logits(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        assert_eq!(exact_matches(&logits(&rows), &targets, 0.6).unwrap(), 2);
        assert_eq!(exact_matches(&logits(&rows), &(targets * 0.8 + 0.1), 0.6).unwrap(), 2, "targets may be mixed");
    }

    proptest! {
        #[test]
        fn top_1_is_the_diagonal(examples in prop::collection::vec((0_i64..3, prop::array::uniform3(-2_i8..2)), 1..20)) {
            let rows: Vec<[f32; 3]> = examples.iter().map(|(_, row)| row.map(f32::from)).collect();
            let targets: Vec<i64> = examples.iter().map(|(target, _)| *target).collect();
            let (logits, targets) = (logits(&rows), Tensor::from_slice(&targets));
            let mut matrix = ConfusionMatrix::new(3);
            matrix.add(&logits, &targets).unwrap();
            let rows = matrix.rows();
            let diagonal: u64 = (0..3).map(|class| rows[class][class]).sum();
            prop_assert_eq!(top_k_correct(&logits, &targets, 1).unwrap(), diagonal);
            prop_assert!(top_k_correct(&logits, &targets, 2).unwrap() >= diagonal);
            prop_assert_eq!(top_k_correct(&logits, &targets, 3).unwrap(), examples.len() as u64);
        }
    }
}
