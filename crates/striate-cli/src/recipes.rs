//! The recipes that the program carries with it, and how a command line changes one.
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::images;
use crate::source::parse_options;
use std::path::{Path, PathBuf};
use striate_train::{Head, Recipe, TrainError};
use toml::Value;

/// Recipes for a model on a dataset; for any other pair, the first that has the dataset is taken with the model's name.
const RECIPES: [(&str, &str, &str); 3] = [
    ("lenet5", "digits", include_str!("../recipes/lenet5-digits.toml")),
    ("lenet5", "fashion-mnist", include_str!("../recipes/lenet5-fashion-mnist.toml")),
    ("lenet5-paper", "fashion-mnist", include_str!("../recipes/lenet5-paper-fashion-mnist.toml")),
];

/// The recipe that a command line asks for, complete and checked.
pub(crate) fn resolve(args: &TrainArgs) -> Result<Recipe, CliError> {
    let data = args.data.as_deref().map(images::named).transpose()?;
    let mut recipe = match args.what.as_deref() {
        Some(file) if file.ends_with(".toml") => Recipe::read(Path::new(file))?,
        model => built_in(model.unwrap_or("lenet5"), data.as_ref().map_or("digits", |(name, _)| name))?,
    };
    if let Some((name, folder)) = data {
        recipe.data.name = name;
        recipe.data.dir = folder.unwrap_or(recipe.data.dir);
    }
    if let Some(folder) = &args.data_dir {
        recipe.data.dir = absolute(folder)?;
    }
    let train = &mut recipe.train;
    train.epochs = args.epochs.unwrap_or(train.epochs);
    train.batch_size = args.batch_size.unwrap_or(train.batch_size);
    train.lr = args.lr.unwrap_or(train.lr);
    train.seed = args.seed.unwrap_or(train.seed);
    train.threads = args.threads.unwrap_or(train.threads);
    if let Some(devices) = &args.devices {
        train.devices.clone_from(devices);
    }
    if let Some(precision) = &args.precision {
        train.precision = named("--precision", precision, Value::from(precision.as_str()))?;
    }
    if let Some(kind) = &args.optimizer {
        recipe.optimizer = named("--optimizer", kind, of_kind(kind))?;
    }
    if let Some(kind) = &args.schedule {
        recipe.schedule = named("--schedule", kind, of_kind(kind))?;
    }
    for (name, value) in parse_options(&args.options)? {
        recipe.model.options.insert(name, Value::from(value.as_str().unwrap_or_default()));
    }
    let model = &mut recipe.model;
    if let Some(input) = args.input {
        model.options.insert("input".to_owned(), Value::from(input.to_vec()));
    }
    if let Some(weights) = &args.weights {
        model.weights.clone_from(weights);
    }
    if let Some(layer) = &args.freeze_through {
        model.freeze_through.clone_from(layer);
    }
    model.head = args.head.map_or(model.head, Head::from);
    recipe.check()?;
    Ok(recipe)
}

fn built_in(model: &str, data: &str) -> Result<Recipe, TrainError> {
    let exact = RECIPES.iter().find(|(for_model, for_data, _)| (*for_model, *for_data) == (model, data));
    let same_data = || RECIPES.iter().find(|(_, for_data, _)| *for_data == data);
    let (_, _, text) = exact.or_else(same_data).unwrap_or(&RECIPES[1]);
    let mut recipe = Recipe::parse(text, Path::new("the built-in recipe"))?;
    recipe.model.name = model.to_owned();
    recipe.data.name = data.to_owned();
    Ok(recipe)
}

/// The same folder, wherever the run is gone on with.
pub(crate) fn absolute(folder: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(folder).map_err(|error| CliError::Usage(format!("{}: {error}", folder.display())))
}

/// A section that says only its kind; everything else has its default.
fn of_kind(kind: &str) -> Value {
    Value::Table(toml::Table::from_iter([("kind".to_owned(), Value::from(kind))]))
}

fn named<T: serde::de::DeserializeOwned>(flag: &str, given: &str, value: Value) -> Result<T, CliError> {
    value.try_into().map_err(|error: toml::de::Error| CliError::Usage(format!("{flag} {given}: {}", error.message())))
}
