//! A search over the fields of a recipe.
mod space;

use self::space::{Candidate, SECTION, resolve};
use crate::figure::{Bar, Labels, bars};
use crate::group::{Each, Ended, Group, Member, go_on, read_with};
use crate::run::name_of;
use crate::runs::{EpochFigures, Record, State, is_run};
use crate::{Error, Run};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use striate_files::FilesError;
use striate_train::TrainError;
use striate_train::distributed::Queue;
use toml::{Table, Value};

pub use self::space::Search;

/// The file in a sweep's folder that says what it searches.
pub const SWEEP: &str = "sweep.toml";
/// Its results: as a table, for programs, and as a figure.
const TABLE: &str = "trials.csv";
const JSON: &str = "trials.json";
const FIGURE: &str = "trials.svg";
/// Trials in the figure.
const DRAWN: usize = 40;
/// Digits of a trial's name.
const NAME: usize = 12;

/// A search over the fields of a recipe, from a file that is a recipe with a section `[sweep]`:
///
/// ```toml
/// [model]
/// name = "lenet5"
///
/// [sweep]
/// kind = "halving" # or "grid", "random"
/// trials = 27
///
/// [sweep.fields]
/// train.lr = { min = 1e-4, max = 1e-1, log = true }
/// train.batch_size = [32, 64, 128]
/// ```
///
/// Each trial is a run, in a folder named by the start of the SHA-256 of its recipe. Trials are ranked by what judges each epoch: the part
/// `val` if the data has one. They run one after another, or several at once in the processes of a [`queue`](Self::queue). A sweep
/// that was stopped goes on where it was.
///
/// Between two rungs of a halving, a trial is paused and goes on from its checkpoint. This is exact under every schedule, because each trial
/// has the recipe's epochs from the start: on a rung, all stand at the same point of their schedules.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let file = folder.path().join("lr.toml");
/// # let runs = folder.path().join("runs");
/// std::fs::write(&file, "
///     [train]
///     epochs = 1
///     threads = 1
///     [sweep]
///     kind = 'grid'
///     fields = { train.lr = [0.001, 0.01] }
/// ").unwrap();
/// let swept = striate::Sweep::read(&file)?.folder(&runs).run()?;
/// assert!(swept.trials.len() == 2 && swept.trials[0].accuracy >= swept.trials[1].accuracy);
/// # Ok::<(), striate::Error>(())
/// ```
pub struct Sweep<'a> {
    search: Search,
    candidates: Vec<Candidate>,
    text: String,
    name: String,
    folder: Option<PathBuf>,
    resumed: bool,
    queue: Queue,
    each: Each<'a>,
    told: Box<dyn FnMut(&Trial) + 'a>,
}

impl std::fmt::Debug for Sweep<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep").field("search", &self.search).field("trials", &self.candidates.len()).finish_non_exhaustive()
    }
}

/// How far a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialState {
    /// It has not begun.
    Waiting,
    /// It is done with its rung, and waits for the others on it.
    Paused,
    /// Others were better on its rung.
    Dropped,
    /// It has all its epochs.
    Finished,
    /// It could not run.
    Failed,
}

/// A recipe that a sweep tries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trial {
    /// The name of its folder.
    pub name: String,
    /// What it has for each field of the sweep.
    pub values: Table,
    /// How far it is.
    pub state: TrialState,
    /// Epochs that are done.
    pub epochs: u64,
    /// The part of the data that it is ranked by.
    pub judge: Option<String>,
    /// The accuracy after them.
    pub accuracy: Option<f64>,
    /// The loss after them.
    pub loss: Option<f64>,
    /// Of a finished trial that is ranked by `val`, the accuracy on the test set, if there is one.
    pub test_accuracy: Option<f64>,
    /// Why it could not run.
    pub error: Option<String>,
}

/// What a sweep came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// Its folder.
    pub folder: PathBuf,
    /// Its trials, the best first.
    pub trials: Vec<Trial>,
    /// Whether it was asked to stop before the end.
    pub stopped: bool,
}

impl<'a> Sweep<'a> {
    /// A new sweep, from its file. It takes the first of `runs/FILE-1`, `runs/FILE-2`, ... that does not exist, unless given a
    /// [`folder`](Self::folder).
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and one that asks for recipes that can't be: a field that no recipe has, or a value that it can't have.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let (text, base, section) = read_with(file, SECTION)?;
        let (search, candidates) = resolve(&base, section, file)?;
        let name = match file.file_stem() {
            Some(stem) => stem.to_string_lossy().into_owned(),
            None => candidates.first().map_or_else(String::new, |one| name_of(&one.recipe)),
        };
        let each: Each<'a> = Box::new(|run, _| run);
        let (queue, told) = (Queue::default(), Box::new(|_: &Trial| {}));
        Ok(Self { search, candidates, text, name, folder: None, resumed: false, queue, each, told })
    }

    /// A sweep that was stopped, from its folder. Trials that failed are tried again.
    ///
    /// # Errors
    ///
    /// A folder of no sweep.
    pub fn resume(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        Ok(Self { resumed: true, ..Self::read(&folder.join(SWEEP))?.folder(folder) })
    }

    /// Writes into this folder, which must not hold other runs.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Does this to each run before it starts: gives it listeners, data, or a flag to stop on.
    #[must_use]
    pub fn each(mut self, each: impl FnMut(Run<'a>, Member<'_>) -> Run<'a> + 'a) -> Self {
        self.each = Box::new(each);
        self
    }

    /// Shares the trials out among the processes of a queue, which all ask for the same sweep and see the same folder. If one dies,
    /// another goes on with its trial.
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queue = queue;
        self
    }

    /// Tells of each trial that this process is done with on a rung, has finished, or has failed with.
    #[must_use]
    pub fn on_trial(mut self, told: impl FnMut(&Trial) + 'a) -> Self {
        self.told = Box::new(told);
        self
    }

    /// How it searches.
    pub fn search(&self) -> &Search {
        &self.search
    }

    /// The recipes that it tries, before any has begun.
    ///
    /// # Errors
    ///
    /// None that a file can cause.
    pub fn trials(&self) -> Result<Vec<Trial>, Error> {
        self.candidates.iter().map(Trial::new).collect()
    }

    /// Trains until all trials are done or a stop is asked for. Results so far are in `trials.csv` and `trials.json`, and in the
    /// end in `trials.svg`.
    ///
    /// # Errors
    ///
    /// A folder or file that cannot be written, and the first trial's error if all failed. The error of one trial is kept in its
    /// [`Trial`].
    pub fn run(mut self) -> Result<Swept, Error> {
        let queue = self.queue.clone();
        queue.agree(&[("version of Striate", env!("CARGO_PKG_VERSION")), ("line of the sweep", &self.text)])?;
        let (folder, mut group) = Group::shared(&queue, self.folder.as_deref(), || match &self.folder {
            Some(folder) if self.resumed => Group::resume(folder, SWEEP),
            folder => Group::begin(folder.as_deref(), &self.name, SWEEP, &self.text),
        })?;
        let mut trials = self.trials()?;
        let mut alive: Vec<usize> = (0..trials.len()).collect();
        let mut first_error = None;
        let rungs = self.search.rungs(self.candidates.first().map_or(1, |one| one.recipe.train.epochs));
        for (rung, epochs) in rungs.iter().enumerate() {
            // Of the last rung, each has its own.
            let epochs = if rung + 1 == rungs.len() { u64::MAX } else { *epochs };
            let keys: Vec<String> = alive.iter().map(|index| format!("rung-{rung}/{}", trials[*index].name)).collect();
            let done = queue.all(&keys, |at| {
                let (index, member) = (alive[at], (at + 1, alive.len()));
                match self.one(&folder, index, &trials[index], epochs, member) {
                    Ok(Some(trial)) => trials[index] = trial,
                    Ok(None) => return Ok(None),
                    Err(error) => {
                        let trial = &mut trials[index];
                        (trial.state, trial.error) = (TrialState::Failed, Some(error.to_string()));
                        first_error.get_or_insert(error);
                    }
                }
                (self.told)(&trials[index]);
                if group.is_some() {
                    // With what others have done so far.
                    for (key, index) in keys.iter().zip(&alive) {
                        if let Some(result) = queue.known(key)? {
                            trials[*index] = trials[*index].told(&result)?;
                        }
                    }
                    write(&folder, &ranked(&trials))?;
                }
                Ok::<_, Error>(Some(serde_json::to_vec(&trials[index]).map_err(unreadable)?))
            })?;
            let Some(done) = done else {
                if group.is_some() {
                    write(&folder, &ranked(&trials))?;
                }
                return Ok(Swept { folder, trials: ranked(&trials), stopped: true });
            };
            for (result, index) in done.iter().zip(&alive) {
                trials[*index] = trials[*index].told(result)?;
            }
            if epochs < u64::MAX {
                alive = self.promoted(alive, &mut trials);
            }
        }
        let trials = ranked(&trials);
        let reported = queue.once("report", || {
            if trials.iter().all(|trial| trial.state == TrialState::Failed) {
                discard(&folder, &trials, group.take());
                let reason = trials.iter().find_map(|trial| trial.error.clone()).unwrap_or_default();
                return Err(first_error.take().unwrap_or_else(|| TrainError::Process { reason }.into()));
            }
            write(&folder, &trials)?;
            striate_files::write_bytes(&folder.join(FIGURE), figure(&self.name, &trials)?)?;
            Ok(Some(Vec::new()))
        })?;
        Ok(Swept { folder, trials, stopped: reported.is_none() })
    }

    /// Brings a trial to the end of a rung; nothing if it was stopped before.
    fn one(
        &mut self,
        folder: &Path,
        index: usize,
        trial: &Trial,
        epochs: u64,
        (number, of): (usize, usize),
    ) -> Result<Option<Trial>, Error> {
        let Candidate { values, recipe } = &self.candidates[index];
        let run = folder.join(&trial.name);
        let epochs = epochs.min(recipe.train.epochs);
        let reached = |run: &Path| -> Result<Option<Trial>, Error> {
            let record = if is_run(run) { Some(Record::read(run)?) } else { None };
            Ok(record.and_then(|record| trial.reached(&record, epochs)))
        };
        if let Some(trial) = reached(&run)? {
            return Ok(Some(trial));
        }
        let named: Vec<String> = values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let named = named.join(", ");
        let member = Member { name: &format!("trial {} ({named})", trial.name), number, of };
        let why = format!("a trial of the sweep {}: {named}", self.name);
        match go_on(&run, recipe, &why, epochs, &self.queue, |run| (self.each)(run, member))? {
            Ended::Finished(_) | Ended::Stopped => reached(&run),
        }
    }

    /// Of the trials on a rung, those that go on.
    fn promoted(&self, alive: Vec<usize>, trials: &mut [Trial]) -> Vec<usize> {
        let eta = match &self.search {
            Search::Halving { eta, .. } => usize::try_from(*eta).unwrap_or(usize::MAX),
            _ => 1,
        };
        let keep = (alive.len() / eta).max(1);
        let mut ranked: Vec<usize> = alive.into_iter().filter(|index| trials[*index].state != TrialState::Failed).collect();
        ranked.sort_by(|a, b| order(&trials[*a], &trials[*b]));
        for dropped in ranked.split_off(keep.min(ranked.len())) {
            trials[dropped].state = TrialState::Dropped;
        }
        ranked
    }
}

impl Trial {
    fn new(candidate: &Candidate) -> Result<Self, Error> {
        let text = candidate.recipe.to_toml();
        let hash = striate_fetch::sha256_reader(text.as_bytes()).map_err(FilesError::new("hash", Path::new(SWEEP)))?;
        Ok(Self {
            name: hash[..NAME].to_owned(),
            values: candidate.values.iter().cloned().collect(),
            state: TrialState::Waiting,
            epochs: 0,
            judge: None,
            accuracy: None,
            loss: None,
            test_accuracy: None,
            error: None,
        })
    }

    /// The trial after so many epochs of its run, if these are done. One that had more before it was resumed is told as it was then.
    fn reached(&self, record: &Record, epochs: u64) -> Option<Self> {
        let finished = record.state == State::Finished;
        let &EpochFigures { accuracy, loss, .. } = record.curve.iter().find(|figures| figures.epoch + 1 == epochs)?;
        if epochs == record.epochs && !finished {
            return None;
        }
        let tested = record.judge != record.epoch_judge && epochs == record.epochs;
        Some(Self {
            state: if epochs == record.epochs { TrialState::Finished } else { TrialState::Paused },
            epochs,
            judge: Some(record.epoch_judge.clone()),
            accuracy: Some(accuracy),
            loss: Some(loss),
            test_accuracy: record.accuracy.filter(|_| tested),
            error: None,
            ..self.clone()
        })
    }

    /// The trial as the process that did it told it.
    fn told(&self, result: &[u8]) -> Result<Self, Error> {
        Ok(Self { values: self.values.clone(), ..serde_json::from_slice(result).map_err(unreadable)? })
    }

    /// What it has for each field, in words.
    pub fn describe(&self) -> String {
        self.values.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
    }
}

/// The best trials first.
fn ranked(trials: &[Trial]) -> Vec<Trial> {
    let mut trials = trials.to_vec();
    trials.sort_by(order);
    trials
}

/// Those that came further, then those with the higher accuracy, then those with the lower loss.
fn order(a: &Trial, b: &Trial) -> Ordering {
    let figures = |trial: &Trial| (trial.accuracy.unwrap_or(-1.0), -trial.loss.unwrap_or(f64::MAX));
    let failed = |trial: &Trial| trial.state == TrialState::Failed;
    let ((accuracy_a, loss_a), (accuracy_b, loss_b)) = (figures(a), figures(b));
    (failed(a).cmp(&failed(b)))
        .then(b.epochs.cmp(&a.epochs))
        .then(accuracy_b.total_cmp(&accuracy_a))
        .then(loss_b.total_cmp(&loss_a))
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::option(JSON, error.to_string())
}

/// Removes results that name no run, and the group's folder if it has none.
fn discard(folder: &Path, trials: &[Trial], group: Option<Group>) {
    let Some(group) = group else { return };
    if trials.iter().all(|trial| !folder.join(&trial.name).exists()) {
        let _ = [TABLE, JSON].map(|file| std::fs::remove_file(folder.join(file)));
    }
    group.discard_if_empty();
}

/// Writes the results so far.
fn write(folder: &Path, trials: &[Trial]) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(trials).map_err(unreadable)?;
    striate_files::write_bytes(&folder.join(JSON), json + "\n")?;
    Ok(striate_files::write_bytes(&folder.join(TABLE), table(trials)?)?)
}

/// The results as CSV.
fn table(trials: &[Trial]) -> Result<Vec<u8>, Error> {
    let fields: Vec<&String> = trials.first().map(|trial| trial.values.keys().collect()).unwrap_or_default();
    let head = ["trial", "state", "epochs", "judge", "accuracy", "loss", "test_accuracy", "error"];
    let mut rows = vec![head.iter().map(|name| (*name).to_owned()).chain(fields.iter().map(|field| (*field).clone())).collect()];
    for trial in trials {
        let figure = |figure: Option<f64>| figure.map_or_else(String::new, |figure| figure.to_string());
        let state = serde_json::to_value(trial.state).ok().and_then(|state| state.as_str().map(str::to_owned));
        let mut row = vec![trial.name.clone(), state.unwrap_or_default(), trial.epochs.to_string()];
        row.push(trial.judge.clone().unwrap_or_default());
        row.extend([trial.accuracy, trial.loss, trial.test_accuracy].map(figure));
        row.push(trial.error.clone().unwrap_or_default());
        row.extend(fields.iter().map(|field| match &trial.values[field.as_str()] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }));
        rows.push(row);
    }
    let failed = |error: csv::Error| Error::option(TABLE, error.to_string());
    let mut table = csv::Writer::from_writer(Vec::new());
    for row in &rows {
        table.write_record::<&Vec<String>, &String>(row).map_err(failed)?;
    }
    table.into_inner().map_err(|error| Error::option(TABLE, error.to_string()))
}

/// The accuracy of the best trials.
fn figure(name: &str, trials: &[Trial]) -> Result<String, Error> {
    let judged = trials.iter().filter_map(|trial| Some((trial, trial.accuracy?))).take(DRAWN);
    let drawn: Vec<Bar> = judged
        .map(|(trial, accuracy)| Bar::exact(format!("{}; epoch {}", trial.describe(), trial.epochs), 100.0 * accuracy))
        .collect();
    let judge = trials.iter().find_map(|trial| trial.judge.as_deref()).unwrap_or("test");
    bars(Labels { title: name, x: &format!("{judge} accuracy (%)"), y: "" }, &drawn)
}
