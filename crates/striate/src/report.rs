use crate::Error;
use serde::{Deserialize, Serialize};
use striate_models::{Answering, Unknown};
use striate_train::metrics::Probabilities;
use striate_train::{Evaluation, Scores};

/// The figures of an evaluation as plain data, as `summary.json` has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many examples.
    pub examples: u64,
    /// The mean loss of the logits as they are, which no temperature divides.
    pub loss: f64,
    /// The share whose answer is right: the likeliest class, or exactly the classes that a picture has.
    pub accuracy: f64,
    /// The classes' names.
    pub classes: Vec<String>,
    /// What divides the logits before they become probabilities; none in reports of former versions.
    pub temperature: Option<f64>,
    /// How far the probabilities can be believed; none in reports of former versions.
    pub probabilities: Option<Probabilities>,
    /// The share of the examples that are said to be none of the classes, if there is a rule for it. Their answers count
    /// nevertheless.
    pub unknown: Option<f64>,
    /// What else was measured.
    #[serde(flatten)]
    pub scores: Scores,
}

impl Report {
    /// The figures of an evaluation on a dataset with these classes, whose logits become answers in this way.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn new(evaluation: &Evaluation, classes: &[String], answering: &Answering) -> Result<Self, Error> {
        let Answering { temperature, unknown, .. } = *answering;
        let share = |rule: Unknown| -> Result<f64, Error> {
            let energies = Unknown::energies(evaluation.logits.logits())?;
            let unknown = energies.into_iter().filter(|energy| rule.refuses(*energy)).count();
            Ok(unknown as f64 / evaluation.examples as f64)
        };
        Ok(Self {
            examples: evaluation.examples,
            loss: evaluation.loss,
            accuracy: evaluation.accuracy,
            classes: classes.to_vec(),
            temperature: Some(temperature),
            probabilities: Some(Probabilities::measure([(&evaluation.logits, temperature)])?),
            unknown: unknown.map(share).transpose()?,
            scores: evaluation.scores()?,
        })
    }

    /// What the accuracy is: `accuracy`, or `exact match` where pictures have several classes.
    pub fn measure(&self) -> &'static str {
        match self.scores {
            Scores::SingleLabel(_) => "accuracy",
            Scores::MultiLabel(_) => "exact match",
        }
    }

    /// How often each class (rows) was taken for each (columns); empty where classes do not exclude each other.
    pub fn confusion(&self) -> &[Vec<u64>] {
        match &self.scores {
            Scores::SingleLabel(scores) => &scores.confusion,
            Scores::MultiLabel(_) => &[],
        }
    }
}
