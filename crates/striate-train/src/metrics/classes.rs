use super::{LabelledLogits, top_k_correct};
use crate::{Judge, TrainError};
use serde::{Deserialize, Serialize};
use tch::Tensor;

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

    /// What the matrix says of each class.
    pub fn counts(&self) -> Vec<ClassCounts> {
        let cell = |target: usize, answer: usize| self.counts[target * self.classes + answer];
        let class = |class: usize| ClassCounts {
            examples: (0..self.classes).map(|answer| cell(class, answer)).sum(),
            predicted: (0..self.classes).map(|target| cell(target, class)).sum(),
            correct: cell(class, class),
        };
        (0..self.classes).map(class).collect()
    }
}

/// How often a class was there, was answered, and both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Examples of this class.
    pub examples: u64,
    /// Answers of this class.
    pub predicted: u64,
    /// Answers of this class that are right.
    pub correct: u64,
}

impl ClassCounts {
    /// The share of the answers of this class that are right; none if there are none.
    pub fn precision(&self) -> Option<f64> {
        share(self.correct, self.predicted)
    }

    /// The share of this class's examples that were found; none if there are none.
    pub fn recall(&self) -> Option<f64> {
        share(self.correct, self.examples)
    }

    /// The harmonic mean of precision and recall; 0 where nothing is right.
    pub fn f1(&self) -> f64 {
        2.0 * self.correct as f64 / (self.predicted + self.examples).max(1) as f64
    }
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

/// How well one class is told from the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// How many examples have this class.
    pub examples: u64,
    /// The share of the answers of this class that are right; none if there are none.
    pub precision: Option<f64>,
    /// The share of this class's examples that were found; none if there are none.
    pub recall: Option<f64>,
    /// The harmonic mean of both; 0 where nothing is right.
    pub f1: f64,
    /// The area under the ROC curve of this class against the rest: how often an example of the class has a
    /// higher probability of it than one of the rest. Equal ones count half. None unless there are both.
    pub auroc: Option<f64>,
    /// The area under precision over recall, without interpolation; none if the class has no examples.
    pub average_precision: Option<f64>,
}

/// How well classes are told apart that exclude each other.
///
/// Means over classes leave out those that have no figure of their own, as scikit-learn does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SingleLabelScores {
    /// The share with the right class among the five likeliest.
    pub top5: f64,
    /// The mean recall of the classes; none if there was no example.
    pub balanced_accuracy: Option<f64>,
    /// The mean F1 of the classes that have examples or answers.
    pub macro_f1: Option<f64>,
    /// The mean AUROC of the classes, each against the rest.
    pub auroc: Option<f64>,
    /// How often each class (rows) was taken for each (columns).
    pub confusion: Vec<Vec<u64>>,
    /// Each class.
    #[serde(default)]
    pub per_class: Vec<ClassMetrics>,
}

/// How well classes are found that do not exclude each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelScores {
    /// The probability from which on a class is an answer.
    pub threshold: f64,
    /// The mean of the classes' average precisions, which depend on no threshold; none if no class has an
    /// example.
    pub mean_average_precision: Option<f64>,
    /// The mean AUROC of the classes.
    pub auroc: Option<f64>,
    /// F1 of all answers together.
    pub micro_f1: f64,
    /// The mean of the classes' F1.
    pub macro_f1: f64,
    /// Each class.
    pub per_class: Vec<ClassMetrics>,
}

impl SingleLabelScores {
    pub(crate) fn of(all: &LabelledLogits) -> Result<Self, TrainError> {
        let (mut confusion, mut top5, mut log_sums) = (ConfusionMatrix::new(all.classes()), 0, Vec::new());
        all.in_parts(|logits, targets| {
            confusion.add(logits, targets)?;
            top5 += top_k_correct(logits, targets, 5)?;
            log_sums.push(logits.f_logsumexp([1_i64].as_slice(), false)?);
            Ok(())
        })?;
        let log_sums = Tensor::f_cat(&log_sums, 0)?;
        let counts = confusion.counts();
        let mut per_class = Vec::new();
        for (class, counts) in counts.iter().enumerate() {
            // Logarithms of the probabilities, of which no two round to 1.
            let scores = all.column(class)?.f_sub(&log_sums)?;
            per_class.push(ClassMetrics::new(*counts, &scores, &all.targets().f_eq(class as i64)?)?);
        }
        let seen = counts.iter().filter(|class| class.examples + class.predicted > 0);
        Ok(Self {
            top5: top5 as f64 / all.examples() as f64,
            balanced_accuracy: mean(per_class.iter().filter_map(|class| class.recall)),
            macro_f1: mean(seen.map(ClassCounts::f1)),
            auroc: mean(per_class.iter().filter_map(|class| class.auroc)),
            confusion: confusion.rows(),
            per_class,
        })
    }
}

impl MultiLabelScores {
    /// The figures, where a class is answered if its probability is at least the judge's threshold.
    pub(crate) fn of(all: &LabelledLogits, Judge { threshold, temperature, .. }: Judge) -> Result<Self, TrainError> {
        let (mut per_class, mut sum) = (Vec::new(), ClassCounts::default());
        for class in 0..all.classes() {
            let logits = all.column(class)?;
            let answered = logits.f_div_scalar(temperature)?.f_sigmoid()?.f_ge(threshold)?;
            let there = all.targets().f_select(1, class as i64)?;
            let counts = ClassCounts {
                examples: count(&there)?,
                predicted: count(&answered)?,
                correct: count(&answered.f_logical_and(&there)?)?,
            };
            sum.examples += counts.examples;
            sum.predicted += counts.predicted;
            sum.correct += counts.correct;
            per_class.push(ClassMetrics::new(counts, &logits, &there)?);
        }
        Ok(Self {
            threshold,
            mean_average_precision: mean(per_class.iter().filter_map(|class| class.average_precision)),
            auroc: mean(per_class.iter().filter_map(|class| class.auroc)),
            micro_f1: sum.f1(),
            macro_f1: mean(per_class.iter().map(|class| class.f1)).unwrap_or_default(),
            per_class,
        })
    }
}

impl ClassMetrics {
    /// Of each example: a score (float64) that grows with the probability of the class, and whether it has the class.
    fn new(counts: ClassCounts, scores: &Tensor, there: &Tensor) -> Result<Self, TrainError> {
        let (auroc, average_precision) = areas(scores, there)?;
        let (examples, f1) = (counts.examples, counts.f1());
        Ok(Self { examples, precision: counts.precision(), recall: counts.recall(), f1, auroc, average_precision })
    }
}

/// The areas under the ROC curve, and under precision over recall: as scikit-learn's `roc_auc_score` and
/// `average_precision_score`.
fn areas(scores: &Tensor, there: &Tensor) -> Result<(Option<f64>, Option<f64>), TrainError> {
    let mut of_class = Vec::<f64>::try_from(scores.f_masked_select(there)?)?;
    if of_class.is_empty() {
        return Ok((None, None));
    }
    of_class.sort_unstable_by(f64::total_cmp);
    let equal: Vec<&[f64]> = of_class.chunk_by(|one, other| one == other).collect();
    // Only examples of the class change the curves. So the others are not sorted, but counted between them: the place 2i + 1 is that
    // of scores equal to the class's i-th, and 2i that of scores below it and above the one before.
    let marks = Tensor::from_slice(&equal.iter().map(|scores| scores[0]).collect::<Vec<_>>());
    let below = scores.f_bucketize(&marks, false, false)?;
    let same = scores.f_eq_tensor(&marks.f_take(&below.f_clamp_max(equal.len() as i64 - 1)?)?)?;
    let places = below.f_add(&below)?.f_add(&same)?;
    let counts = Vec::<i64>::try_from(places.f_bincount(None::<&Tensor>, 2 * equal.len() as i64 + 1)?)?;
    let (mut seen, mut found, mut ahead, mut precisions) = (0.0, 0.0, 0.0, 0.0);
    for (place, count) in counts.into_iter().enumerate().rev() {
        let (count, more) = (count as f64, if place % 2 == 1 { equal[place / 2].len() as f64 } else { 0.0 });
        ahead += (count - more) * (found + more / 2.0);
        (seen, found) = (seen + count, found + more);
        precisions += if more > 0.0 { more * found / seen } else { 0.0 };
    }
    let pairs = found * (seen - found);
    Ok(((pairs > 0.0).then(|| ahead / pairs), Some(precisions / found)))
}

/// How many are true.
fn count(values: &Tensor) -> Result<u64, TrainError> {
    Ok(values.f_count_nonzero(None)?.f_int64_value(&[])?.unsigned_abs())
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::example::{close, one_class, several_classes};
    use striate_layers::loss::Loss;

    fn all(classes: &[ClassMetrics], of: impl Fn(&ClassMetrics) -> Option<f64>, expected: &[f64]) {
        let got: Vec<f64> = classes.iter().filter_map(of).collect();
        assert_eq!(got.len(), expected.len(), "{got:?}");
        got.into_iter().zip(expected).for_each(|(got, expected)| close(got, *expected));
    }

    #[test]
    fn classes_that_exclude_each_other_are_scored_as_by_scikit_learn() {
        let scores = SingleLabelScores::of(&one_class()).unwrap();
        close(scores.top5, 52.0 / 60.0);
        close(scores.balanced_accuracy, 0.328_754_578_754_578_77);
        close(scores.macro_f1, 0.296_962_866_493_020_8);
        close(scores.auroc, 0.709_850_011_347_479_4);
        let classes = &scores.per_class;
        // scikit-learn has a recall of 0 of the class without examples.
        assert_eq!((classes[6].recall, classes[6].precision, classes[6].auroc), (None, Some(0.0), None));
        assert_eq!(classes[6].average_precision, None);
        all(classes, |class| class.precision, &[5.0 / 18.0, 0.5, 1.0, 0.5, 4.0 / 9.0, 0.0, 0.0]);
        all(classes, |class| class.recall, &[5.0 / 13.0, 4.0 / 7.0, 3.0 / 13.0, 0.5, 2.0 / 7.0, 0.0]);
        all(classes, |class| Some(class.f1), &[10.0 / 31.0, 8.0 / 15.0, 0.375, 0.5, 8.0 / 23.0, 0.0, 0.0]);
        let areas = [0.639_934_533_551_554_8, 0.765_498_652_291_105_1, 1.0, 0.672_839_506_172_839_6];
        all(classes, |class| class.auroc, &[&areas[..], &[0.695_652_173_913_043_5, 0.485_175_202_156_334_25]].concat());
        let areas = [0.416_739_703_342_103_53, 0.581_746_031_746_031_7, 1.0, 0.332_702_020_202_020_2];
        let areas = [&areas[..], &[0.501_990_742_629_788_9, 0.121_028_320_821_962_53]].concat();
        all(classes, |class| class.average_precision, &areas);
        let diagonal: u64 = (0..7).map(|class| scores.confusion[class][class]).sum();
        assert_eq!(diagonal, 19);
    }

    #[test]
    fn classes_that_do_not_are_scored_as_by_scikit_learn() {
        let judge = Judge { threshold: 0.6, ..Loss::BinaryCrossEntropy { label_smoothing: 0.0 }.into() };
        let scores = MultiLabelScores::of(&several_classes(), judge).unwrap();
        // The sigmoid of 2 logit(0.6).
        let warm = Judge { threshold: 9.0 / 13.0, temperature: 0.5, ..judge };
        let same = MultiLabelScores { threshold: 0.6, ..MultiLabelScores::of(&several_classes(), warm).unwrap() };
        assert_eq!(same, scores);
        close(scores.micro_f1, 0.7);
        close(scores.macro_f1, 0.567_811_355_311_355_3);
        close(scores.mean_average_precision, 0.874_706_516_907_607_4);
        let classes = &scores.per_class;
        assert_eq!((classes[1].recall, classes[1].average_precision, classes[1].auroc), (None, None, None));
        all(classes, |class| class.precision, &[10.0 / 13.0, 0.0, 1.0, 5.0 / 9.0, 0.55, 16.0 / 21.0, 0.0]);
        all(classes, |class| class.recall, &[5.0 / 6.0, 1.0, 5.0 / 6.0, 11.0 / 12.0, 8.0 / 9.0]);
        let areas = [0.853_587_962_962_963, 1.0, 0.844_907_407_407_407_4, 0.815_972_222_222_222_2, 0.865_740_740_740_740_7];
        all(classes, |class| class.auroc, &areas);
        close(scores.auroc, areas.iter().sum::<f64>() / 5.0);
        let areas = [0.896_858_751_832_912_1, 1.0, 0.810_673_871_356_879, 0.762_166_137_370_311_5, 0.903_833_823_977_934_3];
        all(classes, |class| class.average_precision, &areas);
    }

    #[test]
    fn the_matrix_has_a_row_for_each_target() {
        let logits = |rows: &[[f32; 3]]| Tensor::from_slice(rows.as_flattened()).view([-1, 3]);
        let mut matrix = ConfusionMatrix::new(3);
        matrix.add(&logits(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), &Tensor::from_slice(&[0_i64, 0])).unwrap();
        matrix.add(&logits(&[[1.0, 0.0, 0.0]]), &Tensor::from_slice(&[1_i64])).unwrap();
        assert_eq!(matrix.rows(), [[1, 1, 0], [1, 0, 0], [0, 0, 0]]);
        let counts = matrix.counts();
        assert_eq!(counts[0], ClassCounts { examples: 2, predicted: 2, correct: 1 });
        assert_eq!(
            (counts[0].precision(), counts[1].recall(), counts[2].precision(), counts[2].recall()),
            (Some(0.5), Some(0.0), None, None)
        );
        let beyond = matrix.add(&logits(&[[1.0, 0.0, 0.0]]), &Tensor::from_slice(&[3_i64]));
        assert!(beyond.unwrap_err().to_string().contains("beyond the 3 classes"));
    }
}
