//! A run over several seeds, and what is expected of further ones.
use crate::group::{Each, Ended, Group, Member, go_on, read_with, recipe_of, refuse};
use crate::run::name_of;
use crate::runs::Record;
use crate::verdict::Interval;
use crate::{Error, Run, Summary};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use striate_train::Recipe;
use striate_train::distributed::Queue;
use toml::Value;

/// The file in a folder of runs over seeds that has their recipe.
pub const SEEDS: &str = "seeds.toml";
/// What they came to, written once all are finished.
const REPORT: &str = "seeds.json";
/// The section of [`SEEDS`].
const SECTION: &str = "seeds";
/// The most seeds; with one there is no interval.
const MOST: u64 = 1000;

/// A run over several seeds: the recipe's own, and those that follow.
///
/// Each is a run in a folder of its own (`seed-0`, `seed-1`, ...), one after another, or several at once in the processes of a
/// [`queue`](Self::queue). One that was stopped goes on where it was, and those that are finished are not run again.
///
/// ```
/// use striate::{Recipe, Seeds, SeedsOutcome};
///
/// let recipe = Recipe::parse("[train]\nepochs = 1\nthreads = 1", "one-epoch.toml".as_ref())?;
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path().join("runs");
/// let outcome = Seeds::new(recipe, 2).folder(&folder).run()?;
/// let SeedsOutcome::Finished { report, .. } = outcome else { unreachable!("nobody stops it") };
/// assert_eq!((report.seeds.as_slice(), report.accuracy.n), (&[0, 1][..], 2));
/// # Ok::<(), striate::Error>(())
/// ```
pub struct Seeds<'a> {
    recipe: Recipe,
    count: u64,
    folder: Option<PathBuf>,
    resumed: bool,
    why: String,
    queue: Queue,
    each: Each<'a>,
}

impl std::fmt::Debug for Seeds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seeds").field("recipe", &self.recipe).field("count", &self.count).finish_non_exhaustive()
    }
}

/// How runs over seeds ended.
#[derive(Debug, Clone, PartialEq)]
pub enum SeedsOutcome {
    /// All are finished.
    Finished {
        /// Their folder.
        folder: PathBuf,
        /// Their figures.
        report: Box<SeedsReport>,
    },
    /// One was asked to stop, and saved itself first.
    Stopped {
        /// Their folder, from which they go on.
        folder: PathBuf,
        /// The seed of the one that was stopped.
        seed: u64,
    },
}

/// What runs over seeds came to, as `seeds.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedsReport {
    /// The model's name.
    pub model: String,
    /// The dataset's name.
    pub data: String,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The part of the data that the figures are of: `test`, or `val` if there is no other.
    pub judge: String,
    /// What the accuracies are: `accuracy`, or `exact match` where pictures have several classes.
    pub measure: String,
    /// The accuracy of each run.
    pub accuracies: Vec<f64>,
    /// Their mean, with the interval for it.
    pub accuracy: Interval,
    /// The mean loss, likewise.
    pub loss: Interval,
}

/// The seeds in [`SEEDS`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    count: u64,
}

impl<'a> Seeds<'a> {
    /// New runs over `count` seeds, from the recipe's own on. They take the first of `runs/MODEL-DATA-1`, ... that does not exist,
    /// unless given a [`folder`](Self::folder).
    pub fn new(recipe: Recipe, count: u64) -> Self {
        let each: Each<'a> = Box::new(|run, _| run);
        Self { recipe, count, folder: None, resumed: false, why: String::new(), queue: Queue::default(), each }
    }

    /// Runs that were stopped, from their folder.
    ///
    /// # Errors
    ///
    /// A folder of no such runs.
    pub fn resume(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let path = folder.join(SEEDS);
        let (_, table, section) = read_with(&path, SECTION)?;
        let section: Option<Section> = section
            .map(Value::try_into)
            .transpose()
            .map_err(|error: toml::de::Error| refuse(&path, format!("[{SECTION}]: {}", error.message())))?;
        let Some(Section { count }) = section else { return Err(refuse(&path, format!("it has no section [{SECTION}]"))) };
        Ok(Self { folder: Some(folder), resumed: true, ..Self::new(recipe_of(&table, &path)?, count) })
    }

    /// Writes into this folder, which must not hold other runs.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// A line that says why the recipe was taken, as [`Run::why`].
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Does this to each run before it starts: gives it listeners, data, or a flag to stop on.
    #[must_use]
    pub fn each(mut self, each: impl FnMut(Run<'a>, Member<'_>) -> Run<'a> + 'a) -> Self {
        self.each = Box::new(each);
        self
    }

    /// Shares the runs out among the processes of a queue, which all ask for the same runs and see the same folder.
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queue = queue;
        self
    }

    /// What each run does, with the first seed.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Trains until all runs are finished or a stop is asked for.
    ///
    /// # Errors
    ///
    /// What [`Run::run`] fails with. Runs that are finished, and the last checkpoint of the one that failed, are kept.
    pub fn run(mut self) -> Result<SeedsOutcome, Error> {
        let first = self.recipe.train.seed;
        let fits = first.checked_add(self.count).is_some_and(|end| i64::try_from(end).is_ok());
        if !(2..=MOST).contains(&self.count) || !fits {
            return Err(Error::option(format!("{} seeds from {first} on", self.count), format!("cannot be: take 2 to {MOST}")));
        }
        let text = format!("{}\n[{SECTION}]\ncount = {}\n", self.recipe.to_toml(), self.count);
        let queue = self.queue.clone();
        queue.agree(&[("version of Striate", env!("CARGO_PKG_VERSION")), ("line of the recipe", &text)])?;
        let (folder, group) = Group::shared(&queue, self.folder.as_deref(), || match &self.folder {
            Some(folder) if self.resumed => Group::resume(folder, SEEDS),
            folder => Group::begin(folder.as_deref(), &name_of(&self.recipe), SEEDS, &text),
        })?;
        let keys: Vec<String> = (0..self.count).map(|number| format!("seed-{}", first + number)).collect();
        let mut seed = first;
        let ended = queue.all(&keys, |number| {
            seed = first + number as u64;
            match self.one(&folder, seed, number + 1)? {
                Ended::Finished(summary) => json(&summary).map(Some),
                Ended::Stopped => Ok(None),
            }
        });
        let summaries = match ended {
            Ok(Some(summaries)) => summaries,
            Ok(None) => return Ok(SeedsOutcome::Stopped { folder, seed }),
            Err(error) => {
                if let Some(group) = group {
                    group.discard_if_empty();
                }
                return Err(error);
            }
        };
        let summaries: Vec<Summary> = summaries.iter().map(|summary| parsed(summary)).collect::<Result<_, _>>()?;
        let report = queue.once("report", || {
            let report = json(&SeedsReport::of(&summaries, Record::read(&seed_folder(&folder, first))?.judge))?;
            striate_files::write_bytes(&folder.join(REPORT), [&report[..], b"\n"].concat())?;
            Ok::<_, Error>(Some(report))
        })?;
        let Some(report) = report else { return Ok(SeedsOutcome::Stopped { folder, seed }) };
        Ok(SeedsOutcome::Finished { folder, report: Box::new(parsed(&report)?) })
    }

    fn one(&mut self, folder: &Path, seed: u64, number: usize) -> Result<Ended, Error> {
        let mut recipe = self.recipe.clone();
        recipe.train.seed = seed;
        let name = format!("seed {seed}");
        let member = Member { name: &name, number, of: self.count as usize };
        let epochs = recipe.train.epochs;
        go_on(&seed_folder(folder, seed), &recipe, &self.why, epochs, &self.queue, |run| (self.each)(run, member))
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec_pretty(value).map_err(|error| Error::option("the report", error.to_string()))
}

fn parsed<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::option("the report", error.to_string()))
}

/// The folder of the run with a seed.
fn seed_folder(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("seed-{seed}"))
}

impl SeedsReport {
    /// Of runs that differ in the seed alone; there is one at least.
    fn of(summaries: &[Summary], judge: String) -> Self {
        let accuracies: Vec<f64> = summaries.iter().map(|summary| summary.test.accuracy).collect();
        let losses: Vec<f64> = summaries.iter().map(|summary| summary.test.loss).collect();
        let first = summaries.first();
        let text = |of: fn(&Summary) -> &str| first.map_or_else(String::new, |summary| of(summary).to_owned());
        Self {
            model: text(|summary| &summary.model),
            data: text(|summary| &summary.data),
            judge,
            measure: text(|summary| summary.test.measure()),
            seeds: summaries.iter().map(|summary| summary.seed).collect(),
            accuracy: Interval::of(&accuracies),
            loss: Interval::of(&losses),
            accuracies,
        }
    }
}
