//! Several runs: over seeds, and as the trials of a sweep.
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use striate::compare::{Better, Comparison};
use striate::graph::Graph;
use striate::layers::{Flatten, Linear};
use striate::runs::{Record, State};
use striate::train::{Event, Listener, TrainError};
use striate::verdict::Interval;
use striate::{
    BUNDLE, Bundle, Member, Outcome, RECIPE, Recipe, Run, SEEDS, SWEEP, Seeds, SeedsOutcome, Sweep, Trial, TrialState,
};
use tempfile::TempDir;

/// Three epochs of 9 steps on the digits.
const RECIPE_TEXT: &str = "
    [model]
    name = 'lenet5'
    [data]
    split = 0.1
    [train]
    epochs = 3
    batch_size = 100
    lr = 0.05
    threads = 1
    [schedule]
    kind = 'cosine'
";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A sweep's file.
    fn file(&self, name: &str, sweep: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, format!("{RECIPE_TEXT}\n[sweep]\n{sweep}")).unwrap();
        path
    }
}

fn recipe() -> Recipe {
    Recipe::parse(RECIPE_TEXT, Path::new("r.toml")).unwrap()
}

/// Asks for a stop once so many steps are done in this process.
struct StopAfter(Arc<AtomicBool>, Rc<Cell<u64>>);

impl Listener for StopAfter {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if matches!(event, Event::StepDone { .. }) {
            self.1.set(self.1.get().saturating_sub(1));
            if self.1.get() == 0 {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// A network that learns the digits in no time.
fn linear() -> Graph {
    let graph = Graph::build(|net| {
        let x = net.input([1, 8, 8]);
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(10), x)?;
        net.output("logits", x)
    });
    graph.unwrap()
}

fn small<'a>(run: Run<'a>, _: Member<'_>) -> Run<'a> {
    run.network(linear())
}

/// What stops runs after so many steps, all runs together.
fn stop_after<'a>(steps: u64) -> impl FnMut(Run<'a>, Member<'_>) -> Run<'a> {
    let (flag, left) = (Arc::new(AtomicBool::new(false)), Rc::new(Cell::new(steps)));
    move |run, _| run.listener(StopAfter(Arc::clone(&flag), Rc::clone(&left))).stop_on(Arc::clone(&flag))
}

/// The same of small networks.
fn stopping<'a>(steps: u64) -> impl FnMut(Run<'a>, Member<'_>) -> Run<'a> {
    let mut stop = stop_after(steps);
    move |run, member| stop(small(run, member), member)
}

fn weights(run: &Path) -> impl PartialEq + use<> {
    Bundle::read(&run.join(BUNDLE)).unwrap().state
}

#[test]
fn runs_over_seeds_go_on_and_are_those_of_each_seed() {
    let place = Place::new();
    let folder = place.path("seeds");
    let mut from_four = recipe();
    from_four.train.seed = 4;
    let stopped = Seeds::new(from_four, 3).folder(&folder).each(stopping(40)).run().unwrap();
    assert_eq!(stopped, SeedsOutcome::Stopped { folder: folder.clone(), seed: 5 });
    let error = Seeds::new(recipe(), 3).folder(&folder).run().unwrap_err().to_string();
    assert!(error.ends_with("holds runs already: resume them, or take another folder"), "{error}");

    let started = RefCell::new(Vec::new());
    let resumed = Seeds::resume(&folder).unwrap().each(|run, member| {
        started.borrow_mut().push(format!("{} {}/{}", member.name, member.number, member.of));
        small(run, member)
    });
    let SeedsOutcome::Finished { report, .. } = resumed.run().unwrap() else { panic!("it was not stopped") };
    assert_eq!(*started.borrow(), ["seed 4 1/3", "seed 5 2/3", "seed 6 3/3"]);
    assert_eq!(report.seeds, [4, 5, 6]);
    let found = Record::find(&folder).unwrap();
    assert!(found.unreadable.is_empty() && found.runs.iter().all(|run| run.state == State::Finished));
    assert_eq!(report.accuracy, Interval::of(&report.accuracies));

    let mut alone = recipe();
    alone.train.seed = 5;
    let Outcome::Finished { summary, .. } = Run::new(alone).network(linear()).folder(place.path("alone")).run().unwrap() else {
        panic!()
    };
    assert_eq!(report.accuracies[1], summary.test.accuracy);
    assert!(weights(&place.path("alone")) == weights(&folder.join("seed-5")));
}

#[test]
fn seeds_that_cannot_run_leave_no_folder() {
    let place = Place::new();
    let mut unknown = recipe();
    unknown.model.name = "lenet6".to_owned();
    let error = Seeds::new(unknown, 2).folder(place.path("seeds")).run().unwrap_err().to_string();
    assert!(error.contains("did you mean lenet5?") && !place.path("seeds").exists(), "{error}");
    for count in [0, 1, 1001] {
        let error = Seeds::new(recipe(), count).folder(place.path("seeds")).run().unwrap_err().to_string();
        assert!(error.ends_with("seeds from 0 on cannot be: take 2 to 1000"), "{error}");
    }
    std::fs::create_dir(place.path("bad")).unwrap();
    for (text, told) in [("", "it has no section [seeds]"), ("[seeds]\ncuont = 2", "[seeds]: unknown field `cuont`")] {
        std::fs::write(place.path("bad").join(SEEDS), text).unwrap();
        let error = Seeds::resume(place.path("bad")).unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains('\n'), "{error}");
    }
}

/// A rate that learns nothing against one that does: three seeds are enough.
#[test]
fn seeds_tell_which_recipe_is_better() {
    let place = Place::new();
    for (name, lr) in [("good", 0.05), ("bad", 1e-6)] {
        let mut recipe = recipe();
        recipe.train.lr = lr;
        Seeds::new(recipe, 3).folder(place.path(name)).each(small).run().unwrap();
    }
    let runs = ["good", "bad"].map(|name| Record::find(&place.path(name)).unwrap().runs).concat();
    let comparison = Comparison::of(runs).unwrap();
    let keys: Vec<&str> = comparison.differences.iter().map(|difference| difference.key.as_str()).collect();
    assert_eq!(keys, ["train.lr"]);
    let [pair] = &comparison.pairs[..] else { panic!("{comparison:?}") };
    assert_eq!((pair.better, pair.paired), (Better::First, true), "{pair:?}");
    assert!(comparison.notes.is_empty());
    // The figures are those of the test set: `val` chose the best epoch.
    assert_eq!(comparison.sides[0].figures[0].name, "test accuracy");
    assert_eq!(comparison.sides[0].figures[2].name, "best val accuracy");
}

#[test]
fn a_grid_survives_a_trial_that_fails_and_goes_on_where_it_was_stopped() {
    let place = Place::new();
    let file = place.file("grid.toml", "kind = 'grid'\nfields = { model.name = ['lenet5', 'lenet6'], train.lr = [0.05, 1e-6] }");
    let folder = place.path("grid");
    let stopped = Sweep::read(&file).unwrap().folder(&folder).each(stop_after(30)).run().unwrap();
    assert!(stopped.stopped && stopped.trials.iter().filter(|trial| trial.state == TrialState::Finished).count() == 1);
    assert_eq!(std::fs::read(folder.join(SWEEP)).unwrap(), std::fs::read(&file).unwrap());

    let mut told = Vec::new();
    let swept = Sweep::resume(&folder).unwrap().on_trial(|trial: &Trial| told.push(trial.state)).run().unwrap();
    assert_eq!(told, [TrialState::Finished, TrialState::Finished, TrialState::Failed, TrialState::Failed]);
    assert!(!swept.stopped);
    let [best, worse, failed, _] = &swept.trials[..] else { panic!("{swept:?}") };
    assert_eq!(best.describe(), "model.name = \"lenet5\", train.lr = 0.05");
    assert!(best.accuracy > worse.accuracy && best.test_accuracy > worse.test_accuracy, "{swept:?}");
    assert_eq!((best.judge.as_deref(), best.epochs), (Some("val"), 3));
    assert!(failed.error.as_ref().unwrap().contains("did you mean lenet5?"), "{failed:?}");
    let table = std::fs::read_to_string(folder.join("trials.csv")).unwrap();
    let first = format!("{},finished,3,val,{},", best.name, best.accuracy.unwrap());
    assert!(table.starts_with("trial,state,epochs,judge,accuracy,loss,test_accuracy,error,model.name,train.lr\n"), "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with(&first) && table.lines().count() == 5, "{table}");
    assert!(std::fs::read_to_string(folder.join("trials.svg")).unwrap().contains("val accuracy (%)"));

    // The name of a trial is the hash of what it does.
    let text = std::fs::read_to_string(folder.join(&best.name).join(RECIPE)).unwrap();
    let (why, recipe) = text.split_once('\n').unwrap();
    assert_eq!(why, "# a trial of the sweep grid: model.name = \"lenet5\", train.lr = 0.05");
    assert!(striate_fetch::sha256_reader(recipe.as_bytes()).unwrap().starts_with(&best.name));
}

#[test]
fn a_halving_promotes_the_best_and_its_trials_equal_runs_of_their_own() {
    let place = Place::new();
    let sweep = "kind = 'halving'\ntrials = 4\neta = 2\nfields = { train.lr = { min = 1e-5, max = 0.1, log = true } }";
    let file = place.file("halving.toml", sweep);
    let folder = place.path("halving");
    // In the second trial on the second rung.
    let stopped = Sweep::read(&file).unwrap().folder(&folder).each(stopping(9 * 4 + 9 + 3)).run().unwrap();
    assert!(stopped.stopped);
    let swept = Sweep::resume(&folder).unwrap().each(small).run().unwrap();
    let through = Sweep::read(&file).unwrap().folder(place.path("through")).each(small).run().unwrap();
    assert_eq!(swept.trials, through.trials);

    let states: Vec<(TrialState, u64)> = swept.trials.iter().map(|trial| (trial.state, trial.epochs)).collect();
    assert_eq!(states, [(TrialState::Finished, 3), (TrialState::Dropped, 2), (TrialState::Dropped, 1), (TrialState::Dropped, 1)]);
    let [best, second, rest @ ..] = &swept.trials[..] else { panic!() };
    // Of the first rung, the two that were promoted were the best after one epoch.
    let after_one = |trial: &Trial| Record::read(&folder.join(&trial.name)).unwrap().curve[0].accuracy;
    assert!(rest.iter().all(|trial| after_one(trial) <= after_one(best).min(after_one(second))), "{swept:?}");

    let recipe = Recipe::read(&folder.join(&best.name).join(RECIPE)).unwrap();
    Run::new(recipe).network(linear()).folder(place.path("alone")).run().unwrap();
    assert!(weights(&place.path("alone")) == weights(&folder.join(&best.name)));
}

#[test]
fn a_sweep_of_which_no_trial_can_run_leaves_no_folder() {
    let place = Place::new();
    let file = place.file("none.toml", "kind = 'grid'\nfields = { model.name = ['lenet6', 'lenet7'] }");
    let error = Sweep::read(&file).unwrap().folder(place.path("none")).run().unwrap_err().to_string();
    assert!(error.contains("there is no model lenet6") && !place.path("none").exists(), "{error}");
}
