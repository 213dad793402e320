//! The figures of a finished run.
use crate::run_folder::SUMMARY;
use crate::{Report, Scores};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use striate_train::calibration::Calibrated;
use striate_train::{Recovery, TestMetrics};

/// The figures of a finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The model's name.
    pub model: String,
    /// The dataset's name, or the folder's.
    pub data: String,
    /// How many values the network learned.
    pub params: u64,
    /// Epochs.
    pub epochs: u64,
    /// Steps.
    pub steps: u64,
    /// The seed.
    pub seed: u64,
    /// Threads of one operator.
    pub threads: usize,
    /// Seconds that the last process took.
    pub seconds: f64,
    /// The epochs that were done, if the run stopped early since it got no better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_after: Option<u64>,
    /// What was done about losses that were no numbers.
    #[serde(default)]
    pub recovery: Recovery,
    /// How the network's own weights of the last epoch do on what the run was judged by, where it ends with an average of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<TestMetrics>,
    /// Training examples a second, over all epochs that the last process trained; none if it trained no epoch to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// The share of that time that the loop waited for batches, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f64>,
    /// The most memory that the last process had, in bytes, if the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// The machine of the last process.
    #[serde(default)]
    pub machine: String,
    /// The part of the data that judged each epoch: `val` if there is one, otherwise `test`.
    #[serde(default = "test")]
    pub judge: String,
    /// The best accuracy after any epoch, on that part.
    #[serde(alias = "best_test_accuracy")]
    pub best_accuracy: Option<f64>,
    /// libtorch's version.
    pub libtorch: String,
    /// Striate's version.
    pub striate: String,
    /// How the network of the last epoch does on the pictures that no epoch was chosen by. If there are none, it is how it does on
    /// those that [judge](Self::judge) the epochs: [`tested_on`](Self::tested_on) tells.
    pub test: Report,
    /// How it does on the part `val`, if the data has it beside a test set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<Report>,
    /// What was fitted for its answers at the end, and what that changed; none in runs of former versions.
    pub calibrated: Option<Calibrated>,
}

impl Summary {
    /// The part of the data that [`test`](Self::test) is of: `test`, or `val` if there is no test set beside it.
    pub fn tested_on(&self) -> &str {
        if self.val.is_some() { "test" } else { &self.judge }
    }
}

/// What judged the epochs of runs that did not say it.
fn test() -> String {
    "test".to_owned()
}

/// The figures of a finished run in its folder, if they can be read.
pub(crate) fn summary_in(folder: &Path) -> Option<Summary> {
    serde_json::from_slice(&striate_files::read(&folder.join(SUMMARY)).ok()?).ok()
}

/// What a bundle says of how its network did.
pub(crate) fn metrics(summary: &Summary) -> BTreeMap<String, f64> {
    let (test, part) = (&summary.test, summary.tested_on());
    let more = match &test.scores {
        Scores::SingleLabel(_) => None,
        Scores::MultiLabel(scores) => scores.mean_average_precision.map(|mean| ("mean_average_precision", mean)),
    };
    let name = test.measure().replace(' ', "_");
    let all = [(name.as_str(), test.accuracy), ("loss", test.loss)].into_iter().chain(more);
    all.map(|(name, value)| (format!("{part}_{name}"), value)).collect()
}
