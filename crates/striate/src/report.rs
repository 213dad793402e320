use serde::{Deserialize, Serialize};
use striate_train::metrics::MultiLabelScores;
use striate_train::{Evaluation, Scores};

/// The figures of an evaluation as plain data, as `summary.json` has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many examples.
    pub examples: u64,
    /// The mean loss.
    pub loss: f64,
    /// The share whose answer is right: the likeliest class, or exactly the classes that a picture has.
    pub accuracy: f64,
    /// The classes' names.
    pub classes: Vec<String>,
    /// What else was measured.
    #[serde(flatten)]
    pub scores: ReportScores,
}

/// What is measured beside loss and accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReportScores {
    /// Of classes that exclude each other.
    SingleLabel {
        /// The share with the right class among the five likeliest.
        top5: f64,
        /// How often each class (rows) was taken for each (columns).
        confusion: Vec<Vec<u64>>,
    },
    /// Of classes that do not.
    MultiLabel(MultiLabelScores),
}

impl Report {
    /// The figures of an evaluation on a dataset with these classes.
    pub fn new(evaluation: &Evaluation, classes: &[String]) -> Self {
        Self {
            examples: evaluation.examples,
            loss: evaluation.loss,
            accuracy: evaluation.accuracy,
            classes: classes.to_vec(),
            scores: match &evaluation.scores {
                Scores::SingleLabel { top5, confusion } => ReportScores::SingleLabel { top5: *top5, confusion: confusion.rows() },
                Scores::MultiLabel(scores) => ReportScores::MultiLabel(scores.clone()),
            },
        }
    }

    /// What the accuracy is: `accuracy`, or `exact match` where pictures have several classes.
    pub fn measure(&self) -> &'static str {
        match self.scores {
            ReportScores::SingleLabel { .. } => "accuracy",
            ReportScores::MultiLabel(_) => "exact match",
        }
    }

    /// How often each class (rows) was taken for each (columns); empty where classes do not exclude each other.
    pub fn confusion(&self) -> &[Vec<u64>] {
        match &self.scores {
            ReportScores::SingleLabel { confusion, .. } => confusion,
            ReportScores::MultiLabel(_) => &[],
        }
    }
}
