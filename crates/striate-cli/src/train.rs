//! `train`: from a recipe to a run's folder with a bundle in it.
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::eval::{report, set_threads};
use crate::progress::EpochBars;
use crate::{devices, print, print_json, recipes, source};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use striate_datasets::{Dataset, Fit, LoadOptions, Loader, LoaderOptions, Normalise, Preprocess, Split, load};
use striate_graph::{InitOptions, Network};
use striate_models::{Bundle, BundleInfo, Model};
use striate_torch::write_atomically;
use striate_train::{BEST, Checkpoint, CheckpointConfig, JsonLines, LAST, Outcome, Recipe, TrainError, Trainer, evaluate};

/// The resolved recipe in a run's folder.
const RECIPE: &str = "recipe.toml";
/// The results of a finished run, the last file that it writes.
const SUMMARY: &str = "summary.json";
/// The bundle of the weights at the end of a run.
const MODEL: &str = "model.safetensors";
/// The events of a run.
const METRICS: &str = "metrics.jsonl";
/// Images of one evaluation step.
const EVAL_BATCH: usize = 256;

pub(crate) fn train(args: &TrainArgs) -> Result<(), CliError> {
    let started = Instant::now();
    let stop = stop_on_interrupt()?;
    let run = Run::open(args)?;
    if let Some(summary) = run.finished()? {
        tracing::info!("the run in {} is finished: these are its results", run.folder.display());
        return tell(&summary, &run.folder, args.json);
    }
    set_threads(run.recipe.train.threads)?;
    let devices = devices::parse(&run.recipe.train.devices)?;
    let data = load(&run.recipe.data.name, &run.load_options())?;
    let (model, preprocess) = fit_together(&run.recipe, &data)?;
    let data = Split { train: data.train.fit(&preprocess)?, test: data.test.fit(&preprocess)? };
    let seed = run.recipe.train.seed;
    let options = InitOptions { devices, seed, ..InitOptions::default() };
    let mut network = Network::new(model.graph()?, &options)?;
    network.set_memory_format(run.recipe.train.memory_format.into())?;
    let info = BundleInfo::new(&model, data.train.classes(), serde_json::to_value(&preprocess).unwrap_or_default());
    let augment = run.recipe.augment.clone();
    let batches = LoaderOptions { augment, ..LoaderOptions::train(run.recipe.train.batch_size, seed) };
    let train_loader = Loader::new(&data.train, preprocess.clone(), batches)?;
    let test_loader = Loader::new(&data.test, preprocess, LoaderOptions::eval(EVAL_BATCH))?;

    let config = run.recipe.train_config(model.loss(), model.aux_weight())?;
    let trainer = Trainer::new(&network, &train_loader, &test_loader, config)?;
    // Only what can run gets a folder.
    run.create()?;
    let mut trainer = trainer
        .checkpoints(run.checkpoints(&info))
        .listener(EpochBars::new())
        .listener(JsonLines::append(&run.folder.join(METRICS))?)
        .stop_on(stop);
    if run.resumed {
        trainer.resume(&run.folder.join(LAST))?;
    }
    let outcome = trainer.run()?;
    let folder = run.folder.display();
    if outcome == Outcome::Stopped {
        let step = trainer.progress().step;
        return Err(CliError::Stopped(format!("stopped after step {step}; go on with: train --resume {folder}")));
    }
    let best = trainer.progress().best_accuracy;
    let seconds = started.elapsed().as_secs_f64();
    let evaluation = evaluate(&network, &test_loader, model.loss())?;
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
    summary["test"] = report(&evaluation, data.test.classes());
    let metrics = [("test_accuracy".to_owned(), evaluation.accuracy), ("test_loss".to_owned(), evaluation.loss)].into();
    Bundle { info: BundleInfo { metrics, ..info }, state: network.state() }.write(&run.folder.join(MODEL))?;
    write_text(&run.folder.join(SUMMARY), &format!("{summary:#}\n"))?;
    tell(&summary, &run.folder, args.json)
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

/// A run: what it does, and the folder that it writes to.
struct Run {
    recipe: Recipe,
    folder: PathBuf,
    resumed: bool,
}

impl Run {
    /// A new run that the command line describes, or one that was stopped.
    fn open(args: &TrainArgs) -> Result<Self, CliError> {
        if let Some(folder) = &args.resume {
            let mut recipe = recipe_of(&folder.join(LAST))?;
            if let Some(data) = &args.data_dir {
                recipe.data.dir.clone_from(data);
            }
            recipe.train.threads = args.threads.unwrap_or(recipe.train.threads);
            if let Some(devices) = &args.devices {
                recipe.train.devices.clone_from(devices);
            }
            return Ok(Self { recipe, folder: folder.clone(), resumed: true });
        }
        let recipe = recipes::resolve(args)?;
        let folder = match &args.out {
            Some(folder) if folder.join(LAST).exists() || folder.join(BEST).exists() => {
                let folder = folder.display();
                return Err(CliError::Usage(format!("{folder} holds a run already: --resume it, or give another --out")));
            }
            Some(folder) => folder.clone(),
            None => free_folder(&format!("{}-{}", recipe.model.name, recipe.data.name)),
        };
        Ok(Self { recipe, folder, resumed: false })
    }

    fn load_options(&self) -> LoadOptions {
        let dir = &self.recipe.data.dir;
        LoadOptions { root: (!dir.as_os_str().is_empty()).then(|| dir.clone()) }
    }

    /// The results, if the run has been resumed and nothing is left to do.
    fn finished(&self) -> Result<Option<Value>, CliError> {
        let path = self.folder.join(SUMMARY);
        if !self.resumed || !path.is_file() || !self.folder.join(MODEL).is_file() {
            return Ok(None);
        }
        let damaged = |reason: String| {
            CliError::Usage(format!(
                "{} cannot be read ({reason}): delete it and resume again to have it written anew",
                path.display()
            ))
        };
        let text = std::fs::read_to_string(&path).map_err(|error| damaged(error.to_string()))?;
        serde_json::from_str(&text).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Makes the folder. What a run that died before its first checkpoint left in it is replaced.
    fn create(&self) -> Result<(), CliError> {
        if !self.resumed {
            let metrics = self.folder.join(METRICS);
            if metrics.exists() {
                write_text(&metrics, "")?;
            }
            write_text(&self.folder.join(RECIPE), &self.recipe.to_toml())?;
        }
        Ok(())
    }

    fn checkpoints(&self, info: &BundleInfo) -> CheckpointConfig {
        CheckpointConfig {
            folder: self.folder.clone(),
            every_steps: Some(self.recipe.train.checkpoint_steps).filter(|steps| *steps > 0),
            bundle: serde_json::to_value(info).unwrap_or_default(),
            recipe: serde_json::to_value(&self.recipe).unwrap_or_default(),
        }
    }
}

fn recipe_of(checkpoint: &Path) -> Result<Recipe, CliError> {
    let recipe = Checkpoint::read(checkpoint)?.recipe;
    let bad = |error: serde_json::Error| TrainError::Checkpoint { path: checkpoint.into(), reason: error.to_string() };
    Ok(serde_json::from_value(recipe).map_err(bad)?)
}

/// The first of `runs/NAME-1`, `runs/NAME-2`, ... that does not exist.
fn free_folder(name: &str) -> PathBuf {
    let numbered = |number: u32| Path::new("runs").join(format!("{name}-{number}"));
    (1..).map(numbered).find(|folder| !folder.exists()).unwrap_or_else(|| numbered(0))
}

fn write_text(path: &Path, text: &str) -> Result<(), CliError> {
    Ok(write_atomically(path, |temporary| std::fs::write(temporary, text))?)
}

/// The model for the dataset's classes and channels, and how its images become the model's inputs.
fn fit_together(recipe: &Recipe, data: &Split) -> Result<(Model, Preprocess), CliError> {
    let options = serde_json::to_value(&recipe.model.options).unwrap_or_default();
    let mut options: Vec<(String, Value)> = options.as_object().cloned().unwrap_or_default().into_iter().collect();
    let shape = data.train.shape();
    let given = |options: &[(String, Value)], name: &str| options.iter().any(|(option, _)| option == name);
    if !given(&options, "classes") {
        options.push(("classes".to_owned(), json!(data.train.classes().len())));
    }
    if !given(&options, "input") {
        let [_, height, width] = source::model(&recipe.model.name, &options)?.input();
        options.push(("input".to_owned(), json!([shape[0], height, width])));
    }
    let model = source::model(&recipe.model.name, &options)?;
    let preprocess = Preprocess::new(shape, model.input(), fit(shape, model.input()), Normalise::of(&data.train)?)?;
    Ok((model, preprocess))
}

/// Images that are a little smaller than the input, as MNIST's 28 for LeNet's 32, are padded as LeCun did; others resized.
fn fit(image: [i64; 3], input: [i64; 3]) -> Fit {
    let close = |axis: usize| image[axis] <= input[axis] && 5 * image[axis] >= 4 * input[axis];
    if close(1) && close(2) { Fit::Pad } else { Fit::Resize }
}

/// The first Ctrl-C asks the run to save itself and stop; a second one ends the program at once.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| CliError::Failed(format!("cannot catch Ctrl-C: {error}")))?;
    Ok(stop)
}
