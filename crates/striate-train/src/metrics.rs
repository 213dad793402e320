//! What is measured of predictions, counted in integers so that no figure depends on the order of batches.
use crate::TrainError;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

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

/// How many examples of a batch have exactly the classes that they should: those whose probability (sigmoid) is at least `threshold`.
/// `logits` `[N, classes]`, `targets` `[N, classes]`, where what is above one half is there.
pub fn exact_matches(logits: &Tensor, targets: &Tensor, threshold: f64) -> Result<u64, TrainError> {
    let right = logits.f_to_kind(Kind::Double)?.f_sigmoid()?.f_ge(threshold)?.f_eq_tensor(&targets.f_gt(0.5)?)?;
    Ok(right.f_all_dim(1, false)?.f_sum(Kind::Int64)?.f_int64_value(&[])?.unsigned_abs())
}

/// What networks answer of classes that do not exclude each other, gathered over batches.
#[derive(Debug)]
pub struct MultiLabelAnswers {
    classes: usize,
    /// Row by row, a row for each example.
    probabilities: Vec<f64>,
    targets: Vec<bool>,
}

impl MultiLabelAnswers {
    /// None yet.
    pub fn new(classes: usize) -> Self {
        Self { classes, probabilities: Vec::new(), targets: Vec::new() }
    }

    /// Takes note of a batch: `logits` `[N, classes]`, `targets` `[N, classes]` of 0 and 1.
    pub fn add(&mut self, logits: &Tensor, targets: &Tensor) -> Result<(), TrainError> {
        // Double, in which large logits stay apart.
        let probabilities = logits.f_to_kind(Kind::Double)?.f_sigmoid()?.f_flatten(0, -1)?.f_to_device(Device::Cpu)?;
        let targets = targets.f_gt(0.5)?.f_flatten(0, -1)?.f_to_device(Device::Cpu)?;
        if probabilities.numel() != targets.numel() {
            return Err(TrainError::BeyondClasses { classes: self.classes });
        }
        self.probabilities.extend(Vec::<f64>::try_from(probabilities)?);
        self.targets.extend(Vec::<bool>::try_from(targets)?);
        Ok(())
    }

    /// The figures, where a class is answered if its probability is at least `threshold`.
    pub fn scores(&self, threshold: f64) -> MultiLabelScores {
        let column = |class: usize| {
            let of = |values: usize| (class..values).step_by(self.classes.max(1));
            of(self.targets.len()).map(|place| (self.probabilities[place], self.targets[place])).collect::<Vec<_>>()
        };
        let (mut classes, mut all) = (Vec::new(), [0; 3]);
        for class in 0..self.classes {
            let mut column = column(class);
            let count = |is: fn(bool, bool) -> bool| {
                column.iter().filter(|(probability, target)| is(*probability >= threshold, *target)).count() as u64
            };
            let counts @ [correct, predicted, examples] =
                [count(|answer, target| answer && target), count(|answer, _| answer), count(|_, target| target)];
            all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
            classes.push(LabelMetrics {
                examples,
                precision: share(correct, predicted),
                recall: share(correct, examples),
                f1: f1(counts),
                average_precision: average_precision(&mut column),
            });
        }
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let precisions: Vec<f64> = classes.iter().filter_map(|class: &LabelMetrics| class.average_precision).collect();
        MultiLabelScores {
            threshold,
            mean_average_precision: (!precisions.is_empty()).then(|| mean(precisions)),
            micro_f1: f1(all),
            macro_f1: mean(classes.iter().map(|class| class.f1).collect()),
            per_class: classes,
        }
    }
}

/// The harmonic mean of precision and recall; 0 where nothing is right.
fn f1([correct, predicted, examples]: [u64; 3]) -> f64 {
    2.0 * correct as f64 / (predicted + examples).max(1) as f64
}

/// The mean precision over the examples of a class, each at the threshold that just takes it in, as scikit-learn's
/// `average_precision_score`: no interpolation. None if there are no examples.
fn average_precision(answers: &mut [(f64, bool)]) -> Option<f64> {
    let examples = answers.iter().filter(|(_, target)| *target).count();
    answers.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let (mut seen, mut right, mut sum) = (0, 0, 0.0);
    for same in answers.chunk_by(|(one, _), (other, _)| one == other) {
        let more = same.iter().filter(|(_, target)| *target).count();
        (seen, right) = (seen + same.len(), right + more);
        sum += more as f64 * right as f64 / seen as f64;
    }
    (examples > 0).then(|| sum / examples as f64)
}

/// How well classes are found that do not exclude each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelScores {
    /// The probability from which on a class is an answer.
    pub threshold: f64,
    /// The mean of the classes' average precisions, which depend on no threshold; none if no class has an example.
    pub mean_average_precision: Option<f64>,
    /// F1 of all answers together.
    pub micro_f1: f64,
    /// The mean of the classes' F1.
    pub macro_f1: f64,
    /// Each class.
    pub per_class: Vec<LabelMetrics>,
}

/// How well one class is found among others that it does not exclude.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelMetrics {
    /// How many examples have this class.
    pub examples: u64,
    /// The share of the answers of this class that are right; none if there are none.
    pub precision: Option<f64>,
    /// The share of this class's examples that were found; none if there are none.
    pub recall: Option<f64>,
    /// The harmonic mean of both; 0 where nothing is right.
    pub f1: f64,
    /// The area under precision over recall; none if the class has no examples.
    pub average_precision: Option<f64>,
}

/// How often each class was taken for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    /// Row by row, a row for each target.
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// A matrix of zeros.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts a batch: `logits` `[N, classes]`, `targets` `[N]`.
    pub fn add(&mut self, logits: &Tensor, targets: &Tensor) -> Result<(), TrainError> {
        let cells = targets.f_mul_scalar(self.classes as i64)?.f_add(&logits.f_argmax(1, false)?)?;
        let counts = Vec::<i64>::try_from(cells.f_bincount(None::<&Tensor>, self.counts.len() as i64)?)?;
        if counts.len() != self.counts.len() {
            return Err(TrainError::BeyondClasses { classes: self.classes });
        }
        self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.unsigned_abs());
        Ok(())
    }

    /// The counts: a row for each class of the targets, and in it a column for each predicted class.
    pub fn rows(&self) -> Vec<Vec<u64>> {
        self.counts.chunks(self.classes.max(1)).map(<[u64]>::to_vec).collect()
    }

    /// Precision and recall of each class.
    pub fn per_class(&self) -> Vec<ClassMetrics> {
        let rows = self.rows();
        let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
        let class = |class: usize| {
            let predicted = rows.iter().map(|row| row[class]).sum();
            let examples = rows[class].iter().sum();
            let correct = rows[class][class];
            ClassMetrics { examples, precision: share(correct, predicted), recall: share(correct, examples) }
        };
        (0..rows.len()).map(class).collect()
    }
}

/// How well one class is told from the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// How many examples are of this class.
    pub examples: u64,
    /// The share of the examples predicted as this class that are of it; none if nothing was.
    pub precision: Option<f64>,
    /// The share of this class's examples that were predicted as it; none if there are none.
    pub recall: Option<f64>,
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

    /// scikit-learn 1.9's average_precision_score, f1_score, precision_score and recall_score (zero_division=0), with a tie in
    /// each of the first two classes; the third has no example.
    #[test]
    fn several_classes_are_scored_as_scikit_learn_does() {
        let rows = [[2.0, -1.0, 0.5], [0.5, 0.5, -2.0], [-1.0, 0.5, 3.0], [0.5, -3.0, -0.5], [-0.25, 1.5, -0.5]];
        let targets = logits(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        let all = logits(&rows);
        let mut answers = MultiLabelAnswers::new(3);
        for (start, length) in [(0, 2), (2, 3)] {
            answers.add(&all.narrow(0, start, length), &targets.narrow(0, start, length)).unwrap();
        }
        let scores = answers.scores(0.6);
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        let class = |class: usize| &scores.per_class[class];
        close(class(0).average_precision.unwrap(), 0.755_555_555_555_555_5);
        close(class(1).average_precision.unwrap(), 0.833_333_333_333_333_3);
        assert_eq!((class(2).average_precision, class(2).recall, class(2).precision), (None, None, Some(0.0)));
        close(scores.mean_average_precision.unwrap(), (0.755_555_555_555_555_5 + 0.833_333_333_333_333_3) / 2.0);
        close(scores.micro_f1, 0.615_384_615_384_615_4);
        close(scores.macro_f1, 0.488_888_888_888_888_93);
        close(class(0).precision.unwrap(), 2.0 / 3.0);
        close(class(1).recall.unwrap(), 1.0);
        close(class(1).f1, 0.8);
        assert_eq!(exact_matches(&all, &targets, 0.6).unwrap(), 2);
        assert_eq!(exact_matches(&all, &(targets * 0.8 + 0.1), 0.6).unwrap(), 2, "targets may be mixed");
    }

    #[test]
    fn the_matrix_has_a_row_for_each_target() {
        let mut matrix = ConfusionMatrix::new(3);
        matrix.add(&logits(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), &Tensor::from_slice(&[0_i64, 0])).unwrap();
        matrix.add(&logits(&[[1.0, 0.0, 0.0]]), &Tensor::from_slice(&[1_i64])).unwrap();
        assert_eq!(matrix.rows(), [[1, 1, 0], [1, 0, 0], [0, 0, 0]]);
        let classes = matrix.per_class();
        assert_eq!(classes[0], ClassMetrics { examples: 2, precision: Some(0.5), recall: Some(0.5) });
        assert_eq!(classes[1], ClassMetrics { examples: 1, precision: Some(0.0), recall: Some(0.0) });
        assert_eq!(classes[2], ClassMetrics { examples: 0, precision: None, recall: None });
        let beyond = matrix.add(&logits(&[[1.0, 0.0, 0.0]]), &Tensor::from_slice(&[3_i64]));
        assert!(beyond.unwrap_err().to_string().contains("beyond the 3 classes"));
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
