//! `train`: from a recipe to a run's folder with a bundle in it.
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::eval::{report, set_threads};
use crate::progress::EpochBars;
use crate::source::{self, load_weights};
use crate::{devices, images, print, print_json, recipes};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use striate_datasets::{Dataset, Fit, InMemory, LoadOptions, Loader, LoaderOptions, Normalise, Preprocess};
use striate_graph::{InitOptions, Network};
use striate_models::{Bundle, BundleInfo, Model};
use striate_torch::write_atomically;
use striate_train::{
    BEST, Checkpoint, CheckpointConfig, JsonLines, LAST, ModelSection, Outcome, Recipe, TrainError, TrainSection, Trainer,
    evaluate,
};

/// The resolved recipe in a run's folder.
pub(crate) const RECIPE: &str = "recipe.toml";
/// The results of a finished run, the last file that it writes.
const SUMMARY: &str = "summary.json";
/// The bundle of the weights at the end of a run.
pub(crate) const MODEL: &str = "model.safetensors";
/// The events of a run.
const METRICS: &str = "metrics.jsonl";
/// Images of one evaluation step.
const EVAL_BATCH: usize = 256;

pub(crate) fn train(args: &TrainArgs) -> Result<(), CliError> {
    let started = Instant::now();
    let stop = stop_on_interrupt()?;
    let run = Run::open(args)?;
    if let Some((folder, summary)) = run.finished()? {
        tracing::info!("the run in {} is finished: these are its results", folder.display());
        return tell(&summary, folder, args.json);
    }
    set_threads(run.recipe.train.threads)?;
    // A mistaken model is told before a dataset is downloaded.
    source::model(&run.recipe.model.name, &options_of(&run.recipe))?;
    let devices = devices::parse(&run.recipe.train.devices)?;
    let (model, preprocess, data) = images::for_recipe(&run.recipe, &run.load_options())?;
    let seed = run.recipe.train.seed;
    let options = InitOptions { devices, seed, ..InitOptions::default() };
    let mut network = Network::new(model.graph()?, &options)?;
    run.recipe.train.set_up(&mut network)?;
    let ModelSection { weights, head, freeze_through, .. } = &run.recipe.model;
    if !weights.is_empty() && !run.resumed {
        load_weights(&network, &source::weights(weights)?, *head)?;
    }
    if !freeze_through.is_empty() {
        network.freeze_through(freeze_through)?;
    }
    let info = BundleInfo::new(&model, data.train.classes(), serde_json::to_value(&preprocess).unwrap_or_default());
    let augment = run.recipe.augment.clone();
    let TrainSection { batch_size, drop_last, .. } = run.recipe.train;
    let batches = LoaderOptions { augment, drop_last, ..LoaderOptions::train(batch_size, seed) };
    let train_loader = Loader::new(&*data.train, preprocess.clone(), batches)?;
    let test_loader = Loader::new(&*data.test, preprocess, LoaderOptions::eval(EVAL_BATCH))?;

    let config = run.recipe.train_config(model.loss(), model.aux_weight())?;
    let trainer = Trainer::new(&network, &train_loader, &test_loader, config)?;
    // Only what can run gets a folder.
    let Claim { folder, .. } = &run.claim()?;
    let mut trainer = trainer.checkpoints(run.checkpoints(folder, &info)).listener(EpochBars::new()).stop_on(stop);
    if run.resumed {
        trainer.resume(&folder.join(LAST))?;
    }
    let mut trainer = trainer.listener(JsonLines::append(&folder.join(METRICS))?);
    if trainer.run()? == Outcome::Stopped {
        let (step, folder) = (trainer.progress().step, folder.display());
        return Err(CliError::Stopped(format!("stopped after step {step}; go on with: train --resume {folder}")));
    }
    let best = trainer.progress().best_accuracy;
    let seconds = started.elapsed().as_secs_f64();
    let again; // only if the former process did all but this
    let evaluation = match trainer.evaluation() {
        Some(evaluation) => evaluation,
        None => {
            again = evaluate(&network, &test_loader, model.loss())?;
            &again
        }
    };
    let mut summary = json!({
        "model": run.recipe.model.name,
        "data": run.recipe.data.name,
        "params": network.graph().summary().params,
        "epochs": run.recipe.train.epochs,
        "steps": trainer.progress().step,
        "seed": seed,
        "threads": striate_torch::num_threads(),
        "seconds": seconds,
        "best_test_accuracy": best,
        "libtorch": striate_torch::torch_version(),
        "striate": env!("CARGO_PKG_VERSION"),
    });
    summary["test"] = report(evaluation, data.test.classes());
    let metrics = [("test_accuracy".to_owned(), evaluation.accuracy), ("test_loss".to_owned(), evaluation.loss)].into();
    Bundle { info: BundleInfo { metrics, ..info }, state: network.state() }.write(&folder.join(MODEL))?;
    write_text(&folder.join(SUMMARY), &format!("{summary:#}\n"))?;
    tell(&summary, folder, args.json)
}

/// Prints the results of a finished run.
fn tell(summary: &Value, folder: &Path, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(summary);
    }
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (accuracy, seconds) = (100.0 * number(&summary["test"]["accuracy"]), number(&summary["seconds"]));
    let (examples, epochs, folder) = (&summary["test"]["examples"], &summary["epochs"], folder.display());
    print(&format!(
        "test accuracy {accuracy:.2}% ({examples} images) after {epochs} epochs in {seconds:.1} s\nrun folder    {folder}\nbundle        {folder}/{MODEL}\n"
    ))
}

/// A run: what it does, and the folder that it writes to, or none to take a new one.
struct Run {
    recipe: Recipe,
    folder: Option<PathBuf>,
    resumed: bool,
}

/// A run's folder, which no other process writes to as long as this lives.
struct Claim {
    folder: PathBuf,
    _lock: File,
}

impl Run {
    /// A new run that the command line describes, or one that was stopped.
    fn open(args: &TrainArgs) -> Result<Self, CliError> {
        if let Some(folder) = &args.resume {
            let mut recipe = recipe_of(&folder.join(LAST))?;
            if let Some(data) = &args.data_dir {
                recipe.data.dir = recipes::absolute(data)?;
            }
            recipe.train.threads = args.threads.unwrap_or(recipe.train.threads);
            if let Some(devices) = &args.devices {
                recipe.train.devices.clone_from(devices);
            }
            return Ok(Self { recipe, folder: Some(folder.clone()), resumed: true });
        }
        let recipe = recipes::resolve(args)?;
        Ok(Self { recipe, folder: args.out.clone(), resumed: false })
    }

    fn load_options(&self) -> LoadOptions {
        let dir = &self.recipe.data.dir;
        LoadOptions { root: (!dir.as_os_str().is_empty()).then(|| dir.clone()) }
    }

    /// The results, if the run has been resumed and nothing is left to do.
    fn finished(&self) -> Result<Option<(&Path, Value)>, CliError> {
        let Some(folder) = self.folder.as_ref().filter(|_| self.resumed) else { return Ok(None) };
        let path = folder.join(SUMMARY);
        if !path.is_file() || !folder.join(MODEL).is_file() {
            return Ok(None);
        }
        let damaged = |reason: String| {
            CliError::Usage(format!(
                "{} cannot be read ({reason}): delete it and resume again to have it written anew",
                path.display()
            ))
        };
        let text = std::fs::read_to_string(&path).map_err(|error| damaged(error.to_string()))?;
        serde_json::from_str(&text).map(|summary| Some((folder.as_path(), summary))).map_err(|error| damaged(error.to_string()))
    }

    /// Makes the folder, for this process alone. What a run that died before its first checkpoint left in it is replaced.
    fn claim(&self) -> Result<Claim, CliError> {
        let Recipe { model, data, .. } = &self.recipe;
        let made = match &self.folder {
            Some(folder) => std::fs::create_dir_all(folder).map(|()| folder.clone()),
            None => new_folder("runs", &format!("{}-{}", model.name, data.name)),
        };
        let failed =
            |folder: &Path, error: std::io::Error| CliError::Usage(format!("cannot write to {}: {error}", folder.display()));
        let folder = made.map_err(|error| failed(self.folder.as_deref().unwrap_or(Path::new("runs")), error))?;
        let lock = File::open(&folder).map_err(|error| failed(&folder, error))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::Usage(format!("{} is in use: another process trains there", folder.display())));
            }
            // Where a folder can't be locked, nobody can.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        if !self.resumed {
            if folder.join(LAST).exists() || folder.join(BEST).exists() {
                let folder = folder.display();
                return Err(CliError::Usage(format!("{folder} holds a run already: --resume it, or give another --out")));
            }
            let metrics = folder.join(METRICS);
            if metrics.exists() {
                write_text(&metrics, "")?;
            }
            write_text(&folder.join(RECIPE), &self.recipe.to_toml())?;
        }
        Ok(Claim { folder, _lock: lock })
    }

    fn checkpoints(&self, folder: &Path, info: &BundleInfo) -> CheckpointConfig {
        // Going on with other threads would not give the same bits.
        let mut recipe = self.recipe.clone();
        recipe.train.threads = striate_torch::num_threads();
        CheckpointConfig {
            folder: folder.into(),
            every_steps: Some(self.recipe.train.checkpoint_steps).filter(|steps| *steps > 0),
            bundle: serde_json::to_value(info).unwrap_or_default(),
            recipe: serde_json::to_value(&recipe).unwrap_or_default(),
        }
    }
}

fn recipe_of(checkpoint: &Path) -> Result<Recipe, CliError> {
    let recipe = Checkpoint::read(checkpoint)?.recipe;
    let bad = |reason: String| TrainError::Checkpoint { path: checkpoint.into(), reason };
    let recipe: Recipe = serde_json::from_value(recipe).map_err(|error| bad(error.to_string()))?;
    recipe.check().map_err(|error| bad(error.to_string()))?;
    Ok(recipe)
}

/// Makes the first of `PARENT/NAME-1`, `PARENT/NAME-2`, ... that does not exist.
pub(crate) fn new_folder(parent: &str, name: &str) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(parent)?;
    let mut number = 1;
    loop {
        let folder = Path::new(parent).join(format!("{name}-{number}"));
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            made => return made.map(|()| folder),
        }
    }
}

fn write_text(path: &Path, text: &str) -> Result<(), CliError> {
    Ok(write_atomically(path, |temporary| std::fs::write(temporary, text))?)
}

/// The options that the recipe gives its model.
pub(crate) fn options_of(recipe: &Recipe) -> Vec<(String, Value)> {
    let options = serde_json::to_value(&recipe.model.options).unwrap_or_default();
    options.as_object().cloned().unwrap_or_default().into_iter().collect()
}

/// The model for the dataset's classes and channels, and how its images become the model's inputs.
pub(crate) fn fit_together(recipe: &Recipe, train: &InMemory) -> Result<(Model, Preprocess), CliError> {
    let shape = train.shape();
    let model = model_for(recipe, shape[0], train.classes().len())?;
    let preprocess = Preprocess::new(shape, model.input(), fit(shape, model.input()), Normalise::of(train)?)?;
    Ok((model, preprocess))
}

/// The model for images of so many channels and classes, unless its options say otherwise.
pub(crate) fn model_for(recipe: &Recipe, channels: i64, classes: usize) -> Result<Model, CliError> {
    let mut options = options_of(recipe);
    let given = |options: &[(String, Value)], name: &str| options.iter().any(|(option, _)| option == name);
    if !given(&options, "classes") {
        options.push(("classes".to_owned(), json!(classes)));
    }
    if !given(&options, "input") {
        let [_, height, width] = source::model(&recipe.model.name, &options)?.input();
        options.push(("input".to_owned(), json!([channels, height, width])));
    }
    source::model(&recipe.model.name, &options)
}

/// Images that are a little smaller than the input, as MNIST's 28 for LeNet's 32, are padded as LeCun did; others resized.
fn fit(image: [i64; 3], input: [i64; 3]) -> Fit {
    let close = |axis: usize| image[axis] <= input[axis] && 5 * image[axis] >= 4 * input[axis];
    if close(1) && close(2) { Fit::Pad } else { Fit::Resize }
}

/// The first Ctrl-C, or SIGTERM, asks the run to save itself and stop; a second one ends the program at once.
pub(crate) fn stop_on_interrupt() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let register = || -> std::io::Result<()> {
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
            Ok(())
        };
        register().map_err(|error| CliError::Failed(format!("cannot catch Ctrl-C: {error}")))?;
    }
    Ok(stop)
}
