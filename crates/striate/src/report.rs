use serde::{Deserialize, Serialize};
use striate_train::Evaluation;

/// The figures of an evaluation as plain data, as `summary.json` has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many examples.
    pub examples: u64,
    /// The mean loss.
    pub loss: f64,
    /// The share whose likeliest class is right.
    pub accuracy: f64,
    /// The share with the right class among the five likeliest.
    pub top5: f64,
    /// The classes' names.
    pub classes: Vec<String>,
    /// How often each class (rows) was taken for each (columns).
    pub confusion: Vec<Vec<u64>>,
}

impl Report {
    /// The figures of an evaluation on a dataset with these classes.
    pub fn new(evaluation: &Evaluation, classes: &[String]) -> Self {
        Self {
            examples: evaluation.examples,
            loss: evaluation.loss,
            accuracy: evaluation.accuracy,
            top5: evaluation.top5,
            classes: classes.to_vec(),
            confusion: evaluation.confusion.rows(),
        }
    }
}
