//! Runs side by side: in what their recipes differ, how well they do, and whether one recipe is better than another.
use crate::Error;
use crate::edited::is_repeated;
use crate::figure::{Axis, Labels, Series, lines};
use crate::runs::{Record, State};
use crate::verdict::{Check, Interval, Verdict};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use striate_train::Recipe;
use toml::{Table, Value};

/// Runs of one recipe, with different seeds.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Side {
    /// What it is called here: A, B, ...
    pub name: String,
    /// Its runs, by their seeds.
    pub runs: Vec<Record>,
    /// Its figures, over its runs.
    pub figures: Vec<Figure>,
}

/// A figure of several runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it is, such as `test accuracy`.
    pub name: String,
    /// Whether it is a share, which people read in percent.
    pub share: bool,
    /// Its mean, with an interval.
    pub value: Interval,
}

/// A key that not all recipes have the same value for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key, such as `train.lr`.
    pub key: String,
    /// The value that each side has, as TOML; empty where it has none.
    pub values: Vec<String>,
}

/// Which of two recipes is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The one that the other is held against.
    First,
    /// The other.
    Second,
    /// The runs do not tell.
    Undecided,
}

/// A side held against the first one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The first side.
    pub first: String,
    /// The other.
    pub second: String,
    /// The accuracy of the second less that of the first.
    pub difference: Interval,
    /// Whether runs of the same seed were held against one another; otherwise the interval is Welch's.
    pub paired: bool,
    /// What follows, by the rule of [`crate::verdict`].
    pub better: Better,
}

/// Runs side by side.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// In what the recipes differ.
    pub differences: Vec<Difference>,
    /// Runs by their recipes.
    pub sides: Vec<Side>,
    /// The other sides against the first.
    pub pairs: Vec<Pair>,
    /// What the one who reads this should know, such as why a pair is missing.
    pub notes: Vec<String>,
}

impl Comparison {
    /// Compares runs. Those whose recipes differ in nothing but the seed are one side.
    ///
    /// # Errors
    ///
    /// No run.
    pub fn of(runs: Vec<Record>) -> Result<Self, Error> {
        let mut notes = Vec::new();
        let mut groups: Vec<Vec<Record>> = Vec::new();
        for run in runs {
            let Some(group) = groups.iter_mut().find(|group| is_same(&group[0].recipe, &run.recipe)) else {
                groups.push(vec![run]);
                continue;
            };
            // A copy is no further measurement.
            match group.iter().find(|other| other.seed == run.seed) {
                Some(other) if other.folder == run.folder => {}
                Some(other) => notes.push(format!(
                    "{} was left out: it has the recipe and the seed of {}",
                    run.folder.display(),
                    other.folder.display()
                )),
                None => group.push(run),
            }
        }
        if groups.is_empty() {
            return Err(Error::option("a comparison", "needs runs: name folders of some"));
        }
        let sides: Vec<Side> = groups.into_iter().enumerate().map(|(index, runs)| Side::new(index, runs)).collect();
        let mut pairs = Vec::new();
        for side in &sides[1..] {
            match Pair::of(&sides[0], side) {
                Ok(pair) => pairs.push(pair),
                Err(reason) => notes.push(format!("{} and {} cannot be told apart: {reason}", sides[0].name, side.name)),
            }
            let [first, second] = [&sides[0], side].map(|side| &side.runs[0].recipe);
            if place(first) != place(second) {
                let dirs = format!("{} and {}", first.data.dir.display(), second.data.dir.display());
                let names = format!("{} and {}", sides[0].name, side.name);
                notes.push(format!("{names} have data of their own, in {dirs}: they may be judged by other pictures"));
            }
        }
        if pairs.len() > 1 {
            notes.push(format!("each of the {} intervals is one of 95% by itself: of twenty, one misses the truth", pairs.len()));
        }
        Ok(Self { differences: differences(&sides), sides, pairs, notes })
    }

    /// The accuracy after each epoch, a line for each side, as SVG; where a side has several runs, through their mean.
    ///
    /// # Errors
    ///
    /// No run with a finished epoch.
    pub fn to_svg(&self) -> Result<String, Error> {
        let series: Vec<Series> = (self.sides.iter())
            .map(|side| {
                let curves: Vec<Vec<f64>> =
                    side.runs.iter().map(|run| run.curve.iter().map(|figures| 100.0 * figures.accuracy).collect()).collect();
                Series::mean(side.name.clone(), &curves)
            })
            .collect();
        let of = self.sides.iter().flat_map(|side| &side.runs).map(|run| format!("{} {}", run.epoch_judge, run.measure));
        let y = of.collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>().join(", ") + " (%)";
        lines(Labels { title: "After each epoch", x: "epoch", y: &y }, Axis::Linear, &series)
    }
}

impl Side {
    fn new(index: usize, mut runs: Vec<Record>) -> Self {
        runs.sort_by_key(|run| run.seed);
        let letter = char::from(b'A' + (index % 26) as u8);
        let name = if index < 26 { letter.to_string() } else { format!("{letter}{}", index / 26) };
        let accuracy = |run: &Record| format!("{} {}", run.judge, run.measure);
        let judged = &runs[0];
        let mut figures = Vec::new();
        let mut add = |name: String, share: bool, value: &dyn Fn(&Record) -> Option<f64>| {
            let values: Vec<f64> = runs.iter().filter_map(value).collect();
            if !values.is_empty() {
                figures.push(Figure { name, share, value: Interval::of(&values) });
            }
        };
        add(accuracy(judged), true, &|run| run.accuracy.filter(|_| accuracy(run) == accuracy(judged)));
        add(format!("{} loss", judged.judge), false, &|run| run.loss.filter(|_| run.judge == judged.judge));
        add(format!("best {} {}", judged.epoch_judge, judged.measure), true, &|run| {
            run.best_accuracy.filter(|_| run.epoch_judge == judged.epoch_judge)
        });
        add("train loss".to_owned(), false, &|run| run.curve.last().map(|last| last.train_loss));
        add("epochs".to_owned(), false, &|run| Some(run.epochs_done as f64));
        add("parameters".to_owned(), false, &|run| run.summary.as_ref().map(|summary| summary.params as f64));
        add("seconds of training".to_owned(), false, &|run| Some(run.seconds));
        Self { name, runs, figures }
    }

    /// The seeds of its runs.
    pub fn seeds(&self) -> Vec<u64> {
        self.runs.iter().map(|run| run.seed).collect()
    }
}

/// Whether two recipes differ in the seed alone, or in what changes no value.
fn is_same(one: &Recipe, other: &Recipe) -> bool {
    is_repeated(one, other) && place(one) == place(other) && one.distill.teacher == other.distill.teacher
}

/// Where a recipe's data lies, however it writes that.
fn place(recipe: &Recipe) -> PathBuf {
    recipe.data.dir.canonicalize().unwrap_or_else(|_| recipe.data.dir.clone())
}

impl Pair {
    /// Holds `second` against `first`, or says why it can't be.
    fn of(first: &Side, second: &Side) -> Result<Self, String> {
        let all = || first.runs.iter().chain(&second.runs);
        if let Some(run) = all().find(|run| run.state != State::Finished) {
            return Err(format!("{} is not finished", run.folder.display()));
        }
        let of = |run: &Record| format!("{} {} of {}", run.judge, run.measure, run.data);
        if let [one, other, ..] = all().map(of).collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>().as_slice() {
            return Err(format!("there is the {one}, and the {other}"));
        }
        let [a, b] = [first, second].map(|side| side.runs.iter().filter_map(|run| run.accuracy).collect::<Vec<f64>>());
        let paired = first.seeds() == second.seeds();
        let difference = if paired { Interval::of_differences(&b, &a) } else { Interval::of_independent(&b, &a) };
        if !difference.low.is_finite() {
            return Err("one run does not show how much is chance: train each with several seeds".to_owned());
        }
        let holds = |check: Check| check.verdict == Verdict::Supported;
        let better = match (holds(Check::above("", difference, 0.0)), holds(Check::below("", difference, 0.0))) {
            (true, _) => Better::Second,
            (_, true) => Better::First,
            _ => Better::Undecided,
        };
        Ok(Self { first: first.name.clone(), second: second.name.clone(), difference, paired, better })
    }
}

/// The keys that sides differ in, the seed aside.
fn differences(sides: &[Side]) -> Vec<Difference> {
    let recipes: Vec<&Recipe> = sides.iter().map(|side| &side.runs[0].recipe).collect();
    let mut keys: Vec<String> = recipes.iter().flat_map(|recipe| recipes[0].differing(recipe)).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| key != "train.seed");
    let tables: Vec<Table> = recipes.iter().map(|recipe| Table::try_from(recipe).unwrap_or_default()).collect();
    let row = |key: String| Difference { values: tables.iter().map(|table| value(table, &key)).collect(), key };
    keys.into_iter().map(row).collect()
}

/// What a recipe has for a key, as TOML.
fn value(table: &Table, key: &str) -> String {
    let (section, rest) = key.split_once('.').unwrap_or((key, ""));
    let value = table.get(section).and_then(|section| if rest.is_empty() { Some(section) } else { section.get(rest) });
    match value {
        // Of a list of transforms, their keys would fill the page.
        Some(Value::Array(list)) if list.iter().all(Value::is_table) => {
            let kinds = list.iter().filter_map(|transform| transform.get("kind")?.as_str());
            format!("[{}]", kinds.collect::<Vec<_>>().join(", "))
        }
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A finished run with an accuracy, of a recipe with this text in `[train]`.
    fn run(train: &str, seed: u64, accuracy: f64) -> Record {
        let recipe = Recipe::parse(&format!("[train]\nepochs = 1\n{train}\nseed = {seed}"), Path::new("r.toml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let events = format!(
            "{{\"event\":\"epoch_done\",\"epoch\":0,\"train_loss\":1.5,\"train_accuracy\":0.25,\"test_loss\":1.25,\"test_accuracy\":{accuracy},\"seconds\":2.5}}\n"
        );
        std::fs::write(folder.path().join("metrics.jsonl"), events).unwrap();
        std::fs::write(folder.path().join(crate::RECIPE), recipe.to_toml()).unwrap();
        let finished = State::Finished;
        Record { folder: format!("{train}-{seed}").into(), state: finished, ..Record::read(folder.path()).unwrap() }
    }

    #[test]
    fn runs_that_differ_in_the_seed_alone_are_one_side() {
        let runs = [("lr = 0.1", 1), ("lr = 0.2", 0), ("lr = 0.1\nthreads = 2", 0), ("lr = 0.1\ncheckpoint_steps = 9", 0)];
        let comparison = Comparison::of(runs.map(|(train, seed)| run(train, seed, 0.5)).into()).unwrap();
        let seeds: Vec<Vec<u64>> = comparison.sides.iter().map(Side::seeds).collect();
        assert_eq!(seeds, [vec![0, 1], vec![0]]);
        let lr = comparison.differences.iter().find(|difference| difference.key == "train.lr").unwrap();
        assert_eq!(lr.values, ["0.1", "0.2"]);
        assert!(comparison.notes[0].contains("was left out: it has the recipe and the seed of"), "{:?}", comparison.notes);
        assert!(comparison.pairs.is_empty() && comparison.notes[1].contains("several seeds"), "{:?}", comparison.notes);
        assert!(comparison.to_svg().unwrap().contains("test accuracy (%)"));
    }

    #[test]
    fn the_same_seeds_are_paired() {
        let of = |lr: &str, shift: f64, seeds: [u64; 3]| -> Vec<Record> {
            let accuracies = [0.5, 0.7, 0.9];
            seeds.iter().zip(accuracies).map(|(seed, accuracy)| run(lr, *seed, accuracy + shift)).collect()
        };
        // Each seed gains 0.05 or a little less, far less than the seeds scatter.
        let gained = vec![run("lr = 0.2", 0, 0.55), run("lr = 0.2", 1, 0.75), run("lr = 0.2", 2, 0.94)];
        let paired = Comparison::of([of("lr = 0.1", 0.0, [0, 1, 2]), gained].concat()).unwrap();
        let [pair] = &paired.pairs[..] else { panic!("{paired:?}") };
        assert_eq!((pair.paired, pair.better), (true, Better::Second), "{pair:?}");
        // scipy.stats.t.interval(0.95, 2, loc=0.14 / 3, scale=scipy.stats.sem([0.05, 0.05, 0.04]))
        assert!((pair.difference.low - 0.032_324_5).abs() < 1e-6, "{pair:?}");

        let other = Comparison::of([of("lr = 0.1", 0.0, [0, 1, 2]), of("lr = 0.2", 0.05, [3, 4, 5])].concat()).unwrap();
        assert_eq!((other.pairs[0].paired, other.pairs[0].better), (false, Better::Undecided));
        let worse = Comparison::of([of("lr = 0.1", 0.0, [0, 1, 2]), of("lr = 0.2", -0.5, [0, 1, 2])].concat()).unwrap();
        assert_eq!(worse.pairs[0].better, Better::First);
    }

    #[test]
    fn runs_on_other_data_are_another_side() {
        let mut other = run("lr = 0.1", 0, 0.7);
        other.recipe.data.dir = "/no/such/folder".into();
        let comparison = Comparison::of(vec![run("lr = 0.1", 0, 0.5), other]).unwrap();
        assert_eq!(comparison.sides.len(), 2);
        assert!(comparison.differences.iter().any(|difference| difference.key == "data.dir"), "{:?}", comparison.differences);
        assert!(comparison.notes.iter().any(|note| note.contains("judged by other pictures")), "{:?}", comparison.notes);
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        let seeds = |train: &str| [0, 1].map(|seed| run(train, seed, 0.5)).to_vec();
        let note = |runs: Vec<Record>| Comparison::of(runs).unwrap().notes.join("\n");
        let mut unfinished = seeds("lr = 0.2");
        unfinished[1].state = State::Stopped;
        assert!(note([seeds("lr = 0.1"), unfinished].concat()).contains("-1 is not finished"));
        let mut other = seeds("lr = 0.2");
        other.iter_mut().for_each(|run| run.data = "mnist".to_owned());
        let told = note([seeds("lr = 0.1"), other].concat());
        assert!(told.contains("there is the test accuracy of digits, and the test accuracy of mnist"), "{told}");
        assert!(Comparison::of(Vec::new()).is_err());
    }
}
