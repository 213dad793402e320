//! What runs left in their folders: how far each has come, and how well it does.
use crate::data::short_name;
use crate::run_folder::METRICS;
use crate::summary::summary_in;
use crate::{Error, RECIPE, Summary};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use striate_train::Recipe;
use time::OffsetDateTime;

/// How many folders deep runs are looked for: runs of several seeds and trials of a sweep lie in a folder of theirs.
const DEPTH: usize = 3;

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All epochs are done, and the figures are written.
    Finished,
    /// A process trains there now.
    Running,
    /// It was stopped, killed, or failed.
    Stopped,
}

/// A run, as its folder tells it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// Its folder.
    #[serde(serialize_with = "striate_files::path::serialize")]
    pub folder: PathBuf,
    /// The model's name.
    pub model: String,
    /// The dataset's name, or the folder's.
    pub data: String,
    /// The seed.
    pub seed: u64,
    /// Whether it goes on.
    pub state: State,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Epochs that are done.
    pub epochs_done: u64,
    /// The part of the data that accuracy and loss are of: `test`, or `val` as long as there is no figure of a test set.
    pub judge: String,
    /// What the accuracy is: `accuracy`, or `exact match` where pictures have several classes.
    pub measure: String,
    /// The accuracy of the network as it is now.
    pub accuracy: Option<f64>,
    /// Its loss.
    pub loss: Option<f64>,
    /// The best accuracy after any epoch.
    pub best_accuracy: Option<f64>,
    /// Seconds of training, without evaluation.
    pub seconds: f64,
    /// When its figures were last written, such as `2026-11-26T18:09:20Z`.
    pub changed: String,
    /// What it does.
    #[serde(skip)]
    pub recipe: Recipe,
    /// The part of the data that it is judged by after each epoch.
    #[serde(skip)]
    pub epoch_judge: String,
    /// The figures of each epoch that is done.
    #[serde(skip)]
    pub curve: Vec<EpochFigures>,
    /// Its figures, if it is finished.
    #[serde(skip)]
    pub summary: Option<Summary>,
}

/// The figures of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct EpochFigures {
    /// Its number, from 0.
    pub epoch: u64,
    /// The mean loss over the training examples.
    pub train_loss: f64,
    /// The accuracy on the same.
    pub train_accuracy: f64,
    /// The mean loss on what the run is judged by.
    #[serde(rename = "test_loss")]
    pub loss: f64,
    /// The accuracy on the same.
    #[serde(rename = "test_accuracy")]
    pub accuracy: f64,
    /// Seconds of training.
    pub seconds: f64,
}

/// What was found below a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// The runs, the one that changed last at the end.
    pub runs: Vec<Record>,
    /// Folders that could not be read, and why.
    pub unreadable: Vec<(PathBuf, Error)>,
}

/// An event of a run, as far as it matters here.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    RunStarted {
        #[serde(default = "test")]
        judge: String,
        #[serde(default = "accuracy")]
        measure: String,
    },
    EpochDone(EpochFigures),
    #[serde(other)]
    Other,
}

fn test() -> String {
    "test".to_owned()
}

fn accuracy() -> String {
    "accuracy".to_owned()
}

impl Record {
    /// Reads the run in a folder.
    ///
    /// # Errors
    ///
    /// A folder without a run, and files that cannot be read.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        if !is_run(folder) {
            return Err(Error::Folder { path: folder.into(), reason: "holds no run: name the folder of one".to_owned() });
        }
        let recipe = Recipe::read(&folder.join(RECIPE))?;
        let summary = summary_in(folder).filter(|summary| summary.epochs >= recipe.train.epochs);
        let Metrics { judge: epoch_judge, measure, curve } = Metrics::read(&folder.join(METRICS))?;
        let last = curve.last();
        // If epochs were judged by `val`, the figures of a test set are the last ones of a run.
        let judge = if summary.as_ref().is_some_and(|summary| summary.val.is_some()) { test() } else { epoch_judge.clone() };
        let (accuracy, loss) = match &summary {
            Some(summary) => (Some(summary.test.accuracy), Some(summary.test.loss)),
            None => (last.map(|last| last.accuracy), last.map(|last| last.loss)),
        };
        Ok(Self {
            folder: folder.into(),
            model: recipe.model.name.clone(),
            data: short_name(&recipe.data),
            seed: recipe.train.seed,
            state: match &summary {
                Some(_) => State::Finished,
                None if is_in_use(folder) => State::Running,
                None => State::Stopped,
            },
            epochs: recipe.train.epochs,
            epochs_done: last.map_or(0, |last| last.epoch + 1),
            judge,
            measure,
            accuracy,
            loss,
            best_accuracy: curve.iter().map(|figures| figures.accuracy).reduce(f64::max),
            seconds: curve.iter().map(|figures| figures.seconds).sum(),
            changed: changed(&folder.join(METRICS)),
            recipe,
            epoch_judge,
            curve,
            summary,
        })
    }

    /// All runs in a folder and in those below it.
    ///
    /// # Errors
    ///
    /// A folder that is not there. What is wrong with one of several runs is told in [`Found::unreadable`].
    pub fn find(folder: &Path) -> Result<Found, Error> {
        if !folder.is_dir() {
            return Err(Error::Folder { path: folder.into(), reason: "is no folder: name one with runs".to_owned() });
        }
        let mut found = Found::default();
        gather(folder, DEPTH, &mut found);
        found.runs.sort_by(|a, b| (&a.changed, &a.folder).cmp(&(&b.changed, &b.folder)));
        Ok(found)
    }
}

/// Whether a folder is that of a run.
pub(crate) fn is_run(folder: &Path) -> bool {
    [RECIPE, METRICS].iter().all(|file| folder.join(file).is_file())
}

fn gather(folder: &Path, depth: usize, found: &mut Found) {
    if is_run(folder) {
        match Record::read(folder) {
            Ok(run) => found.runs.push(run),
            Err(error) => found.unreadable.push((folder.into(), error)),
        }
        return;
    }
    let below = match std::fs::read_dir(folder) {
        _ if depth == 0 => return,
        Ok(below) => below,
        Err(error) => {
            let error = Error::Folder { path: folder.into(), reason: format!("cannot be read: {error}") };
            return found.unreadable.push((folder.into(), error));
        }
    };
    let mut folders: Vec<PathBuf> = below.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.iter().for_each(|folder| gather(folder, depth - 1, found));
}

/// Whether a process trains in a folder.
pub(crate) fn is_in_use(folder: &Path) -> bool {
    let locked = |folder: File| matches!(folder.try_lock_shared(), Err(TryLockError::WouldBlock));
    File::open(folder).is_ok_and(locked)
}

/// When a file was last written, in universal time.
fn changed(file: &Path) -> String {
    let time = file.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let time = OffsetDateTime::from(time);
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", time.date())
}

/// What a run told of its epochs.
struct Metrics {
    judge: String,
    measure: String,
    curve: Vec<EpochFigures>,
}

impl Metrics {
    fn read(path: &Path) -> Result<Self, Error> {
        let cannot = |reason: String| Error::Folder { path: path.into(), reason: format!("cannot be read: {reason}") };
        let mut metrics = Self { judge: test(), measure: accuracy(), curve: Vec::new() };
        let mut lines = BufReader::new(striate_files::open(path)?);
        let mut line = String::new();
        let mut number = 0;
        loop {
            line.clear();
            number += 1;
            lines.read_line(&mut line).map_err(|error| cannot(error.to_string()))?;
            // The part of a line is being written, or was when the run was killed.
            if !line.ends_with('\n') {
                return Ok(metrics);
            }
            // Nearly all lines are these.
            if line.starts_with("{\"event\":\"step_done\"") {
                continue;
            }
            match serde_json::from_str(&line).map_err(|error| cannot(format!("line {number}: {error}")))? {
                Line::RunStarted { judge, measure } => (metrics.judge, metrics.measure) = (judge, measure),
                Line::EpochDone(figures) => {
                    // A run that was killed after this epoch's line and before its checkpoint has done it again.
                    metrics.curve.retain(|earlier| earlier.epoch < figures.epoch);
                    metrics.curve.push(figures);
                }
                Line::Other => {}
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const STARTED: &str = r#"{"event":"run_started","epochs":3,"steps_per_epoch":5,"step":0,"judge":"val","measure":"accuracy"}"#;

    fn epoch(epoch: u64, accuracy: f64) -> String {
        format!(
            r#"{{"event":"epoch_done","epoch":{epoch},"step":5,"train_loss":1.5,"train_accuracy":0.25,"test_loss":1.25,"test_accuracy":{accuracy},"best":true,"seconds":2.5,"images_per_second":9.0}}"#
        )
    }

    fn run(folder: &Path, lines: &[&str]) {
        std::fs::create_dir_all(folder).unwrap();
        let recipe = Recipe::parse("[train]\nepochs = 3\nseed = 7", Path::new("r.toml")).unwrap();
        std::fs::write(folder.join(RECIPE), recipe.to_toml()).unwrap();
        std::fs::write(folder.join(METRICS), lines.concat()).unwrap();
    }

    #[test]
    fn the_last_line_of_an_epoch_holds() {
        let place = tempfile::tempdir().unwrap();
        let step = "{\"event\":\"step_done\",\"epoch\":0,\"step\":1,\"loss\":1.0}\n";
        let lines = [STARTED, "\n", step, &epoch(0, 0.5), "\n", &epoch(1, 0.75), "\n", &epoch(1, 0.625), "\n", "{\"event\":\"ep"];
        run(place.path(), &lines);
        let record = Record::read(place.path()).unwrap();
        let accuracies: Vec<f64> = record.curve.iter().map(|figures| figures.accuracy).collect();
        assert_eq!(accuracies, [0.5, 0.625]);
        assert_eq!((record.epochs_done, record.epochs, record.seed, record.state), (2, 3, 7, State::Stopped));
        assert_eq!((record.accuracy, record.best_accuracy, record.judge.as_str()), (Some(0.625), Some(0.625), "val"));
        assert_eq!(record.seconds, 5.0);

        let _claimed = crate::run_folder::Claim::of(place.path()).unwrap();
        assert_eq!(Record::read(place.path()).unwrap().state, State::Running);
    }

    #[test]
    fn one_bad_run_hides_no_other() {
        let place = tempfile::tempdir().unwrap();
        run(&place.path().join("good"), &[STARTED, "\n"]);
        run(&place.path().join("several/seed-0"), &[STARTED, "\n"]);
        run(&place.path().join("bad"), &[STARTED, "\n", "{\n"]);
        let Found { runs, unreadable } = Record::find(place.path()).unwrap();
        let mut names: Vec<PathBuf> = runs.iter().map(|run| run.folder.strip_prefix(place.path()).unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, [Path::new("good"), Path::new("several/seed-0")]);
        let [(folder, error)] = &unreadable[..] else { panic!("{unreadable:?}") };
        let error = error.to_string();
        assert!(folder.ends_with("bad") && error.contains("metrics.jsonl cannot be read: line 2: "), "{error}");
        let error = Record::find(&place.path().join("none")).unwrap_err().to_string();
        assert!(error.ends_with("none is no folder: name one with runs"), "{error}");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // date -u -d @1700000000
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        file.as_file().set_modified(time).unwrap();
        assert_eq!(changed(file.path()), "2023-11-14T22:13:20Z");
    }
}
