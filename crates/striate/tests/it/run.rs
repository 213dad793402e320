//! Runs: stopped and resumed, edited, and on data of every layout.
use crate::tints::{self, Scale};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use striate::datasets::{FlipMode, InMemory, RandomHorizontalFlip, Split, Transform};
use striate::graph::{Graph, GraphError, NetworkBuilder};
use striate::layers::{Activation, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, Op};
use striate::models::{Architecture, Paper, TrainedOn, Variant};
use striate::tch::{Device, Kind, Tensor};
use striate::train::{
    AnsweringSection, AverageConfig, Checkpoint, ClassWeights, EmaConfig, Event, LAST, Listener, Progressive, SwaConfig,
    TrainError,
};
use striate::{
    Answering, Bundle, Classifier, ClassifierOptions, Outcome, Precision, RECIPE, Recipe, Registry, Run, Summary, Tta,
    models::variant,
};
use tempfile::TempDir;

/// A folder with data and runs.
struct Place(TempDir);

impl Place {
    /// With data in which each part has so many pictures of each class. The part `""` is the folder
    /// itself.
    fn new(parts: &[(&str, u32)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (part, count) in parts {
            tints::write(&place.path("data").join(part), tints::CLASSES, *count);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A recipe for two epochs of three steps, or so, on the data.
    fn recipe(&self, schedule: &str) -> Recipe {
        let text = format!(
            "[model]\nname = 'resnet-tiny'\n[data]\nname = 'image-folder'\ndir = '{}'\n\
             [train]\nepochs = 2\nbatch_size = 8\nlr = 0.02\nthreads = 1\n[schedule]\nkind = '{schedule}'\n[augment]\nhflip = true",
            self.path("data").display()
        );
        Recipe::parse(&text, Path::new("tints.toml")).unwrap()
    }

    fn edit(&self, run: &str, from: &str, to: &str) {
        let path = self.path(run).join(RECIPE);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    fn weights(&self, run: &str) -> Bundle {
        Bundle::read(&self.path(run).join(striate::BUNDLE)).unwrap()
    }

    /// Whether two runs came to the same bits.
    #[track_caller]
    fn same(&self, one: &str, other: &str) {
        assert_eq!(self.weights(one).state, self.weights(other).state);
    }
}

#[track_caller]
fn finished(run: Run<'_>) -> Summary {
    match run.run().unwrap() {
        Outcome::Finished { summary, .. } => *summary,
        stopped => panic!("{stopped:?}"),
    }
}

/// Colours that a mean over all pixels tells apart, in memory.
fn colours() -> Split {
    let part = |count: i64| {
        let labels = Tensor::arange(3 * count, (Kind::Int64, Device::Cpu)).remainder(3);
        let images = labels.one_hot(3).to_kind(Kind::Uint8) * 200;
        let images = images.view([-1, 3, 1, 1]).expand([-1, 3, 4, 4], false).contiguous();
        InMemory::new("colours", images, &labels, tints::classes()).unwrap()
    };
    Split { train: part(8), test: part(2) }
}

/// A run's figures without those of its machine.
fn untimed(summary: &Summary) -> Summary {
    Summary { seconds: 0.0, images_per_second: None, waiting: None, peak_memory: None, ..summary.clone() }
}

/// A network that sees the mean of all pixels.
fn mean() -> Graph {
    let graph = Graph::build(|net| {
        let x = net.input([3, 4, 4]);
        let x = net.add("mean", AdaptiveAvgPool2d::new(1), x)?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc", Linear::new(3), x)?;
        net.output("logits", x)
    });
    graph.unwrap()
}

/// A recipe for colours, with more keys of [train] and sections.
fn of_colours(more: &str) -> Recipe {
    let text = format!("[train]\nepochs = 8\nbatch_size = 6\nlr = 0.1\nthreads = 1\n{more}");
    Recipe::parse(&text, Path::new("colours.toml")).unwrap()
}

#[test]
fn a_run_with_a_teacher_and_weighted_classes_goes_on_to_the_same_bits() {
    let place = Place::new(&[]);
    let few = || Split { train: colours().train.range(0..20).unwrap(), ..colours() };
    finished(Run::new(of_colours("")).network(mean()).on(few()).folder(place.path("teacher")));
    let recipe = |teacher: &Path| {
        of_colours(&format!(
            "precision = 'float16'\non_nan = 'rollback'\n[loss]\nkind = 'focal'\nclass_weights = 'balanced'\n[distill]\nteacher = '{}'",
            teacher.display()
        ))
    };
    let teacher = place.path("teacher").join(striate::BUNDLE);
    let new = |folder: &str| Run::new(recipe(&teacher)).network(mean()).on(few()).folder(place.path(folder));
    let through = finished(new("through"));
    // Of 20 labels, 7, 7 and 6.
    let weights = ClassWeights::Each(vec![20.0 / 3.0 / 7.0, 20.0 / 3.0 / 7.0, 20.0 / 3.0 / 6.0]);
    let resolved = Recipe::read(&place.path("through").join(RECIPE)).unwrap();
    assert_eq!(resolved.loss.class_weights, weights);

    let flag = Arc::new(AtomicBool::new(false));
    new("stopped").listener(StopAt(9, Arc::clone(&flag))).stop_on(flag).run().unwrap();
    let moved = place.path("moved.safetensors");
    std::fs::rename(&teacher, &moved).unwrap();
    let missing = Run::resume(place.path("stopped")).unwrap().on(few()).run().unwrap_err().to_string();
    assert!(missing.contains("teacher/model.safetensors"), "{missing}");
    place.edit("stopped", &teacher.display().to_string(), &moved.display().to_string());
    let resumed = finished(Run::resume(place.path("stopped")).unwrap().on(few()));
    assert_eq!(untimed(&resumed), untimed(&through));
    place.same("through", "stopped");

    // With other pictures, mean and deviation are others too.
    let other = Run::new(recipe(&moved)).network(mean()).on(colours()).folder(place.path("other")).run();
    let told = other.unwrap_err().to_string();
    assert!(told.contains("moved.safetensors sees pictures as 4x4 with mean ") && !told.contains('\n'), "{told}");
    assert!(!place.path("other").exists());
}

/// With the kernels that recipes choose; in 11 bits of mantissa, losses differ a little.
#[test]
fn float16_trains_as_float32_does() {
    let place = Place::new(&[("train", 8), ("val", 2)]);
    let loss = |precision: Precision| {
        let mut recipe = place.recipe("constant");
        recipe.train.precision = precision;
        let summary = finished(Run::new(recipe).folder(place.path(precision.name())));
        assert_eq!(summary.recovery, striate::train::Recovery::default());
        summary.test.loss
    };
    let (exact, half) = (loss(Precision::Float32), loss(Precision::Float16));
    assert!(exact != half && (exact - half).abs() < 0.02 * exact, "{exact} {half}");
}

#[test]
fn a_run_that_gets_no_better_is_over() {
    let place = Place::new(&[]);
    let recipe = of_colours("patience = 2\nmin_delta = 0.99");
    let summary = finished(Run::new(recipe).network(mean()).on(colours()).folder(place.path("run")));
    assert_eq!((summary.epochs, summary.stopped_after), (8, Some(3)));
    let steps = Cell::new(0);
    let again = finished(Run::resume(place.path("run")).unwrap().on(colours()).listener(Steps(&steps)));
    assert_eq!((again, steps.get()), (summary, 0));
}

#[test]
fn a_network_of_ones_own_is_trained_on_tensors_of_ones_own_and_goes_on() {
    let place = Place::new(&[]);
    let new = |folder: &str| Run::new(of_colours("")).network(mean()).on(colours()).folder(place.path(folder));
    let through = finished(new("through"));
    assert_eq!((through.model.as_str(), through.data.as_str(), through.test.accuracy), ("network", "colours", 1.0));

    let flag = Arc::new(AtomicBool::new(false));
    new("stopped").listener(StopAt(9, Arc::clone(&flag))).stop_on(flag).run().unwrap();
    let error = Run::resume(place.path("stopped")).unwrap().run().unwrap_err().to_string();
    assert!(error.contains("colours"), "the data must be given again: {error}");
    let resumed = finished(Run::resume(place.path("stopped")).unwrap().on(colours()));
    assert_eq!(untimed(&resumed), untimed(&through));
    place.same("through", "stopped");

    let classifier = Classifier::open(place.path("through").join(striate::BUNDLE)).unwrap();
    let green = Tensor::from_slice(&[0_u8, 200, 0]).view([3, 1, 1]).expand([3, 4, 4], false).contiguous();
    assert_eq!(classifier.classify(&green).unwrap().top[0].class, tints::classes()[1]);
}

/// Asks for a stop at a step.
struct StopAt(u64, Arc<AtomicBool>);

impl Listener for StopAt {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if matches!(event, Event::StepDone { step, .. } if *step == self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Counts the steps that a process does.
struct Steps<'a>(&'a Cell<u64>);

impl Listener for Steps<'_> {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        self.0.set(self.0.get() + u64::from(matches!(event, Event::StepDone { .. })));
        Ok(())
    }
}

#[test]
fn a_run_that_was_stopped_and_resumed_equals_one_that_ran_through() {
    let place = Place::new(&[("train", 8), ("val", 2)]);
    let through = finished(Run::new(place.recipe("cosine")).folder(place.path("through")));
    assert_eq!((through.epochs, through.steps), (2, 6));

    let flag = Arc::new(AtomicBool::new(false));
    let run = Run::new(place.recipe("cosine")).folder(place.path("stopped"));
    let outcome = run.listener(StopAt(4, Arc::clone(&flag))).stop_on(flag).run().unwrap();
    assert_eq!(outcome, Outcome::Stopped { folder: place.path("stopped"), step: 4 });
    let error = outcome.bundle().unwrap_err().to_string();
    assert!(error.ends_with("holds a run that was stopped: resume it first"), "{error}");
    assert!(Run::resume(place.path("stopped")).unwrap().finished().unwrap().is_none());

    let steps = Cell::new(0);
    let resumed = finished(Run::resume(place.path("stopped")).unwrap().listener(Steps(&steps)));
    assert_eq!(steps.get(), 2, "4 of 6 steps are not done again");
    assert_eq!(untimed(&resumed), untimed(&through));
    place.same("through", "stopped");

    // A run that is over is not run again: its figures are read.
    let steps = Cell::new(0);
    let again = finished(Run::resume(place.path("through")).unwrap().listener(Steps(&steps)));
    assert_eq!((again, steps.get()), (through, 0));
}

/// With dropped branches, images that grow and flips in turns.
#[test]
fn a_run_that_ends_with_an_average_goes_on_to_the_same_bits() {
    let place = Place::new(&[("train", 8), ("val", 2)]);
    let ema = AverageConfig::Ema(EmaConfig { decay: 0.7, ..EmaConfig::default() });
    let swa = AverageConfig::Swa(SwaConfig { from: 0.4, lr: 0.01, ..SwaConfig::default() });
    for (name, average) in [("ema", ema), ("swa", swa)] {
        let mut recipe = place.recipe("constant");
        recipe.train.epochs = 3;
        recipe.average = average;
        recipe.progressive = Progressive { from: 16, until: 0.8, multiple: 4 };
        recipe.model.options.insert("stochastic_depth".to_owned(), 0.3.into());
        let flip = RandomHorizontalFlip { mode: FlipMode::Alternating, ..RandomHorizontalFlip::default() };
        recipe.transforms = vec![Transform::HorizontalFlip(flip)];
        recipe = Recipe::parse(&recipe.to_toml(), Path::new("average.toml")).unwrap();
        let folder = place.path(name);
        let through = finished(Run::new(recipe.clone()).folder(&folder));
        let last = Checkpoint::read(&folder.join(LAST)).unwrap();
        assert!(last.weights() == place.weights(name).state && last.model != last.weights());
        assert_eq!((through.raw, through.test.loss), (last.progress.raw, last.progress.test.unwrap().loss));
        assert_ne!(through.raw.unwrap().loss, through.test.loss);
        assert_eq!(Run::resume(&folder).unwrap().finished().unwrap(), Some(through.clone()));

        for step in [2, 3, 7] {
            let (flag, parts) = (Arc::new(AtomicBool::new(false)), format!("{name}-{step}"));
            let run = Run::new(recipe.clone()).folder(place.path(&parts));
            run.listener(StopAt(step, Arc::clone(&flag))).stop_on(flag).run().unwrap();
            let resumed = finished(Run::resume(place.path(&parts)).unwrap());
            assert_eq!(untimed(&resumed), untimed(&through));
            place.same(name, &parts);
        }
        place.edit(name, "epochs = 3\nbatch_size", "epochs = 4\nbatch_size");
        let error = Run::resume(&folder).unwrap_err().to_string();
        let what = if name == "swa" { "an average" } else { "image sizes" };
        assert!(error.contains(&format!("epochs cannot change from 3 to 4: it has {what} for a run of 3")), "{error}");
    }
}

#[test]
fn a_folder_that_holds_a_run_is_left_alone() {
    let place = Place::new(&[("train", 2), ("val", 1)]);
    finished(Run::new(place.recipe("constant")).folder(place.path("run")));
    let error = Run::new(place.recipe("constant")).folder(place.path("run")).run().unwrap_err().to_string();
    assert!(error.ends_with("holds a run already: resume it, or take another folder"), "{error}");
}

#[test]
fn more_epochs_are_heeded_where_the_schedule_does_not_depend_on_them() {
    let place = Place::new(&[("train", 8), ("val", 2)]);
    let mut three = place.recipe("constant");
    three.train.epochs = 3;
    finished(Run::new(three).folder(place.path("three")));

    finished(Run::new(place.recipe("constant")).folder(place.path("edited")));
    place.edit("edited", "epochs = 2\n", "epochs = 3\n");
    let steps = Cell::new(0);
    let summary = finished(Run::resume(place.path("edited")).unwrap().listener(Steps(&steps)));
    assert_eq!(steps.get(), 3, "the third epoch alone");
    assert_eq!((summary.epochs, summary.steps), (3, 9));
    place.same("three", "edited");

    finished(Run::new(place.recipe("constant")).why("why").folder(place.path("extended")));
    let extended = || Run::resume(place.path("extended")).unwrap().extend_to(3).unwrap();
    let paused = extended().pause_after(2).run().unwrap();
    assert_eq!(paused, Outcome::Stopped { folder: place.path("extended"), step: 6 });
    let text = std::fs::read_to_string(place.path("extended").join(RECIPE)).unwrap();
    assert!(text.starts_with("# why\n") && text.contains("epochs = 3\n"), "{text}");
    finished(Run::resume(place.path("extended")).unwrap());
    place.same("three", "extended");
    let error = extended().extend_to(2).unwrap_err().to_string();
    assert!(error.ends_with("epochs cannot change from 3 to 2: 3 are done; set 3 or more"), "{error}");
}

#[test]
fn a_resume_that_is_refused_changes_no_file() {
    let place = Place::new(&[("train", 8), ("val", 2)]);
    finished(Run::new(place.recipe("constant")).folder(place.path("run")));
    let file = place.path("run").join(RECIPE);
    let before = std::fs::read(&file).unwrap();
    tints::write(&place.path("data/train"), tints::CLASSES, 9);
    let error = Run::resume(place.path("run")).unwrap().extend_to(3).unwrap().run().unwrap_err().to_string();
    assert!(error.contains("take the same data"), "{error}");
    assert_eq!(std::fs::read(file).unwrap(), before);
}

#[test]
fn a_run_that_is_paused_between_epochs_goes_on_to_the_same_bits() {
    let place = Place::new(&[("train", 8), ("val", 2)]);
    finished(Run::new(place.recipe("cosine")).folder(place.path("through")));
    let outcome = Run::new(place.recipe("cosine")).folder(place.path("paused")).pause_after(1).run().unwrap();
    assert_eq!(outcome, Outcome::Stopped { folder: place.path("paused"), step: 3 });
    finished(Run::resume(place.path("paused")).unwrap().pause_after(2));
    place.same("through", "paused");
}

#[test]
fn an_edit_that_cannot_be_heeded_is_refused_by_its_key() {
    let place = Place::new(&[("train", 2), ("val", 1)]);
    finished(Run::new(place.recipe("cosine")).folder(place.path("run")));
    let refused = |from: &str, to: &str| {
        place.edit("run", from, to);
        let error = Run::resume(place.path("run")).unwrap_err().to_string();
        place.edit("run", to, from);
        assert!(error.contains(RECIPE) && !error.contains('\n'), "{error}");
        error
    };
    let error = refused("epochs = 2\n", "epochs = 3\n");
    assert!(error.contains("epochs cannot change from 2 to 3"), "{error}");
    let error = refused("lr = 0.02\n", "lr = 0.03\n");
    assert!(error.contains("train.lr cannot change within a run"), "{error}");
    Run::resume(place.path("run")).unwrap();
}

#[test]
fn a_run_with_val_and_test_reports_both() {
    let place = Place::new(&[("train", 2), ("val", 1), ("test", 3)]);
    let summary = finished(Run::new(place.recipe("constant")).folder(place.path("run")));
    assert_eq!((summary.test.examples, summary.val.map(|val| val.examples)), (9, Some(3)));
    // What was written is what was told.
    let told = finished(Run::resume(place.path("run")).unwrap());
    assert_eq!((told.test.examples, told.val.map(|val| val.examples)), (9, Some(3)));
}

#[test]
fn a_folder_without_parts_is_split() {
    let place = Place::new(&[("", 8)]);
    let mut recipe = place.recipe("constant");
    let error = Run::new(recipe.clone()).folder(place.path("run")).run().unwrap_err().to_string();
    assert!(error.contains("has nothing to judge by") && error.contains("split = 0.2"), "{error}");
    assert!(!place.path("run").exists(), "a run that cannot start leaves no folder");

    recipe.data.split = 0.25;
    let summary = finished(Run::new(recipe).folder(place.path("run")));
    // A fourth of each class's 8 pictures; 18 others in batches of 8, twice.
    assert_eq!((summary.test.examples, summary.steps), (6, 6));
    let per_class: Vec<u64> = summary.test.confusion().iter().map(|row| row.iter().sum()).collect();
    assert_eq!(per_class, [2, 2, 2]);
}

#[test]
fn a_part_of_the_pictures_is_trained_on_and_all_are_judged_by() {
    let place = Place::new(&[("train", 8), ("test", 3)]);
    let mut recipe = place.recipe("constant");
    (recipe.data.part, recipe.train.seed) = (0.5, 4);
    let trained_on = |recipe: &Recipe| {
        let data = Run::new(recipe.clone()).prepare().unwrap().data;
        let (train, places) = (data.train.len(), data.train.examples().unwrap());
        (data.test.unwrap().len(), (0..train).map(|index| places.place(index)).collect::<Vec<_>>())
    };
    let (test, half) = trained_on(&recipe);
    assert_eq!((half.len(), test), (12, 9), "four of each class");
    assert_eq!(trained_on(&recipe).1, half);
    recipe.train.seed = 5;
    assert_ne!(trained_on(&recipe).1, half);
    recipe.data.part = 1.0;
    assert_eq!(trained_on(&recipe).1.len(), 24);
    let share = "must be above 0 and at most 1";
    for (wrong, reason) in [(0.0, share), (1.5, share), (f64::NAN, "must be a finite number")] {
        recipe.data.part = wrong;
        let told = recipe.check().unwrap_err().to_string();
        assert!(told.contains("data.part") && told.contains(reason), "{told}");
    }
}

/// The temperature and the threshold come from `val`, and go into the bundle; `test` is judged with them.
#[test]
fn what_is_fitted_at_the_end_is_kept() {
    let place = Place::new(&[("train", 8), ("val", 4), ("test", 3)]);
    let mut recipe = place.recipe("constant");
    recipe.answering.tta = Tta::FlipShift(1000);
    let error = Run::new(recipe.clone()).folder(place.path("run")).run().unwrap_err().to_string();
    assert!(error.starts_with("answering.tta = flip-shift=1000 shifts pictures by 1000"), "{error}");
    recipe.answering.tta = Tta::Flip;
    let Summary { test, val, calibrated, .. } = finished(Run::new(recipe.clone()).folder(place.path("run")));
    let (val, calibrated) = (val.unwrap(), calibrated.unwrap());
    let answering = place.weights("run").info.answering;
    assert_eq!((calibrated.by.as_str(), calibrated.examples, calibrated.answering), ("val", 12, answering));
    assert!(answering.tta == Tta::Flip && answering.temperature != 1.0);
    // Of 12 pictures, 99% are all.
    assert_eq!((val.unknown, test.temperature), (Some(0.0), Some(answering.temperature)));
    assert_eq!(test.probabilities, Some(calibrated.after));
    assert!(calibrated.before != calibrated.after);
    let checkpoint = Bundle::read(&place.path("run").join(striate::train::LAST)).unwrap();
    assert_eq!(checkpoint.info.answering, Answering::default());

    recipe.answering = AnsweringSection { temperature: false, unknown: 0.0, tta: Tta::Off };
    let off = finished(Run::new(recipe).folder(place.path("off")));
    assert_eq!(place.weights("off").info.answering, Answering::default());
    assert_eq!((off.test.unknown, off.calibrated.map(|off| off.before == off.after)), (None, Some(true)));
    place.same("run", "off");
}

/// A network that goes on from another one keeps what that was trained on, and its licence unless it gets one of its own.
#[test]
fn the_data_and_the_licence_are_kept() {
    let place = Place::new(&[("train", 4), ("val", 2)]);
    let mut bundle = tints::bundle();
    let flowers = TrainedOn { name: "flowers".to_owned(), licence: Some("MIT".to_owned()) };
    (bundle.info.licence, bundle.info.trained_on) = (Some("CC-BY-4.0".to_owned()), vec![flowers.clone()]);
    bundle.write(&place.path("tints.safetensors")).unwrap();
    let data = TrainedOn { name: "data".to_owned(), licence: None };

    let mut recipe = place.recipe("constant");
    recipe.model.name = place.path("tints.safetensors").display().to_string();
    finished(Run::new(recipe.clone()).folder(place.path("tuned")));
    let tuned = place.weights("tuned").info;
    assert_eq!((tuned.licence.as_deref(), tuned.trained_on), (Some("CC-BY-4.0"), vec![flowers, data.clone()]));

    recipe.model.licence = "MIT-0".to_owned();
    recipe.model.name = place.path("tuned").join(striate::BUNDLE).display().to_string();
    finished(Run::new(recipe).folder(place.path("again")));
    let again = place.weights("again").info;
    assert_eq!((again.licence.as_deref(), again.trained_on.len()), (Some("MIT-0"), 2), "the same data are told once");

    finished(Run::new(place.recipe("constant")).folder(place.path("new")));
    let new = place.weights("new").info;
    assert_eq!((new.licence, new.trained_on), (None, vec![data]));
}

/// One convolution, and a layer of one's own.
#[derive(Serialize, Deserialize)]
struct OneConvolution {
    classes: i64,
    input: [i64; 3],
    width: i64,
}

impl Architecture for OneConvolution {
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
        let x = net.input(self.input);
        let x = net.add("conv", Conv2d::same(self.width, 3).no_bias(), x)?; // [width, H, W]
        let x = net.add("bn", BatchNorm2d::new(), x)?;
        let x = net.add("relu", Activation::Relu, x)?;
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [width, 1, 1]
        let x = net.add("flatten", Flatten, x)?; // [width]
        let x = net.add("scale", Op::custom(Scale { by: 2.0 }), x)?;
        let x = net.add("fc", Linear::new(self.classes), x)?; // [classes]
        net.output("logits", x)
    }
}

static PAPER: Paper = Paper { authors: "nobody", year: 2026, title: "One convolution", arxiv: None };
static MINE: &[Variant] = &[variant!(
    "one-convolution",
    "OneConvolution",
    &PAPER,
    "a convolution and a classifier",
    OneConvolution,
    OneConvolution { classes: 10, input: [3, 16, 16], width: 4 },
)];

#[test]
fn a_variant_of_ones_own_is_found_by_its_name() {
    let place = Place::new(&[("train", 4), ("val", 1)]);
    let mut recipe = place.recipe("constant");
    recipe.model.name = "one-convolution".to_owned();
    let error = Run::new(recipe.clone()).folder(place.path("run")).run().unwrap_err().to_string();
    assert!(error.starts_with("there is no model one-convolution"), "{error}");

    recipe.model.options.insert("width".to_owned(), 6.into());
    let registry = Registry::default().with_variants(MINE).with_layer::<Scale>("Scale");
    let flag = Arc::new(AtomicBool::new(false));
    let run = Run::new(recipe).registry(registry.clone()).folder(place.path("run"));
    run.listener(StopAt(1, Arc::clone(&flag))).stop_on(flag).run().unwrap();

    let error = Run::resume(place.path("run")).unwrap().run().unwrap_err().to_string();
    assert!(error.contains("Scale") && !error.contains('\n'), "{error}");
    let summary = finished(Run::resume(place.path("run")).unwrap().registry(registry.clone()));
    // Convolution, batch norm, and the classifier for the folder's three classes.
    assert_eq!((summary.model.as_str(), summary.params), ("one-convolution", 6 * 3 * 9 + 2 * 6 + 6 * 3 + 3));
    let mut options = ClassifierOptions::default();
    options.registry = registry;
    let classifier = Classifier::open_with(place.path("run").join(striate::BUNDLE), options).unwrap();
    assert_eq!(json!(classifier.info().origin)["options"]["width"], 6);
}

#[test]
fn a_finished_run_is_one_whose_files_are_whole_and_agree() {
    let place = Place::new(&[("train", 4), ("val", 1)]);
    for run in ["run", "other"] {
        let mut recipe = place.recipe("constant");
        recipe.train.seed = u64::from(run == "other");
        finished(Run::new(recipe).folder(place.path(run)));
    }
    let path = |file: &str| place.path("run").join(file);
    let is_finished = || Run::resume(place.path("run")).unwrap().finished().unwrap().is_some();
    assert!(is_finished());
    let (bundle, summary) = (std::fs::read(path(striate::BUNDLE)).unwrap(), std::fs::read(path("summary.json")).unwrap());
    let mut flipped = bundle.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let other = |file: &str| std::fs::read(place.path("other").join(file)).unwrap();
    for (what, file, bytes) in [
        ("cut off", striate::BUNDLE, bundle[..bundle.len() - 7].to_vec()),
        ("a flipped bit", striate::BUNDLE, flipped),
        ("another run's", striate::BUNDLE, other(striate::BUNDLE)),
        ("cut off", "summary.json", summary[..summary.len() / 2].to_vec()),
        ("empty", "summary.json", Vec::new()),
    ] {
        std::fs::write(path(file), bytes).unwrap();
        // A process that was killed while it wrote may leave this.
        let left = path(&format!(".{file}.0123456789ab.tmp"));
        std::fs::write(&left, "half").unwrap();
        assert!(!is_finished(), "{file}: {what}");
        finished(Run::resume(place.path("run")).unwrap());
        assert!(!left.exists());
        assert!(is_finished() && std::fs::read(path(striate::BUNDLE)).unwrap() == bundle, "{file}: {what}");
    }
}
