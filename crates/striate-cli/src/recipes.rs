//! The recipe that a command line asks for.
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::source::{bundle_in, no_folder, parse_options};
use std::path::{Path, PathBuf};
use striate::{Registry, data, recipes};
use striate_models::{Weights, find_pretrained};
use striate_train::{DataSection, Head, ModelSection, Recipe, Workers};
use toml::Value;

/// A recipe, complete and checked, and why it was taken if nobody named one.
pub(crate) struct Resolved {
    pub(crate) recipe: Recipe,
    pub(crate) why: Option<String>,
}

pub(crate) fn resolve(args: &TrainArgs) -> Result<Resolved, CliError> {
    let data = args.data.as_deref().map(data::section).transpose()?;
    let mut why = None;
    let mut recipe = match args.what.as_deref() {
        Some(file) if file.ends_with(".toml") => {
            let mut recipe = Recipe::read(Path::new(file))?;
            if let Some(DataSection { name, dir, .. }) = data {
                recipe.data.name = name;
                recipe.data.dir = if dir.as_os_str().is_empty() { recipe.data.dir } else { dir };
            }
            let other = [(args.fine_tune.is_some(), "--fine-tune"), (args.recipe.is_some(), "--recipe")];
            if let Some((_, option)) = other.iter().find(|(given, _)| *given) {
                return Err(CliError::Usage(format!("{file} is a recipe, and {option} names another: leave one out")));
            }
            model_of(args, &mut recipe.model)?;
            recipe
        }
        name => {
            let of_weights = args.fine_tune.as_deref().filter(|_| name.is_none()).map(model_of_weights).transpose()?;
            let name = name.or(of_weights.as_deref());
            if let Some(name) = name.filter(|name| striate_models::find(name).is_err()) {
                let path = Path::new(name);
                if args.data.is_none() && path.is_dir() && bundle_in(path).is_none() {
                    return Err(CliError::Usage(format!(
                        "{name} is a folder, not a model: to train on its pictures, pass --data {name}"
                    )));
                }
                no_folder(path)?;
            }
            let built_in = args.recipe.as_deref().map(recipes::named).transpose()?;
            let mut model = match (name, &built_in) {
                (None, Some(recipe)) => recipe.model.clone(),
                (name, _) => ModelSection { name: name.unwrap_or("lenet5").to_owned(), ..ModelSection::default() },
            };
            if model.name.ends_with(".safetensors") || Path::new(&model.name).is_file() {
                // The same file, wherever the run is gone on with; a folder whose name is no text cannot stand here.
                if let Some(name) = absolute(Path::new(&model.name))?.to_str() {
                    model.name = name.to_owned();
                }
            }
            model_of(args, &mut model)?;
            match built_in {
                Some(mut recipe) => {
                    why = args.recipe.as_ref().map(|name| format!("the recipe {name}, which was asked for"));
                    recipe.model = model;
                    if let Some(DataSection { name, dir, .. }) = data {
                        (recipe.data.name, recipe.data.dir) = (name, dir);
                    }
                    recipe
                }
                None => {
                    let chosen = recipes::choose(model, data.unwrap_or_default(), &Registry::default())?;
                    why = Some(chosen.why).filter(|_| chosen.kind != recipes::Kind::Dataset);
                    chosen.recipe
                }
            }
        }
    };
    if let Some(folder) = &args.data_dir {
        recipe.data.dir = absolute(folder)?;
    }
    if let Some(epochs) = args.epochs {
        recipe.set_epochs(epochs);
    }
    let train = &mut recipe.train;
    train.batch_size = args.batch_size.unwrap_or(train.batch_size);
    train.lr = args.lr.unwrap_or(train.lr);
    train.seed = args.seed.unwrap_or(train.seed);
    train.threads = args.threads.unwrap_or(train.threads);
    train.tensorboard |= args.tensorboard;
    if let Some(devices) = &args.devices {
        train.devices.clone_from(devices);
    }
    if let Some(precision) = &args.precision {
        train.precision = named("--precision", precision, Value::from(precision.as_str()))?;
    }
    if let Some(action) = &args.on_nan {
        train.on_nan = named("--on-nan", action, Value::from(action.as_str()))?;
    }
    if let Some(kind) = &args.optimizer {
        recipe.optimizer = named("--optimizer", kind, of_kind(kind))?;
    }
    if let Some(kind) = &args.schedule {
        recipe.schedule = named("--schedule", kind, of_kind(kind))?;
    }
    recipe.data.split = args.split.unwrap_or(recipe.data.split);
    recipe.data.part = args.part.unwrap_or(recipe.data.part);
    recipe.data.skip_bad |= args.skip_bad;
    recipe.data.workers = args.workers.map_or(recipe.data.workers, Workers::Number);
    cache_of(args, &mut recipe.data)?;
    recipe.data.max_pixels = args.max_pixels.unwrap_or(recipe.data.max_pixels);
    recipe.check()?;
    Ok(Resolved { recipe, why })
}

/// Where the command line says that decoded pictures are kept.
pub(crate) fn cache_of(args: &TrainArgs, data: &mut DataSection) -> Result<(), CliError> {
    if let Some(cache) = &args.cache {
        data.cache = named("--cache", cache, Value::from(cache.as_str()))?;
    }
    Ok(())
}

/// The model that published weights are of, or the bundle that a file is.
fn model_of_weights(weights: &str) -> Result<String, CliError> {
    let path = Path::new(weights);
    if path.extension().is_none() && !path.exists() {
        return Ok(find_pretrained(weights)?.model.to_owned());
    }
    let part_of_a_file = !path.exists() && weights.contains('#');
    match part_of_a_file || Weights::read(path)?.info.is_none() {
        true => Err(CliError::Usage(format!("{weights} does not say which network it is of: name the MODEL too"))),
        false => Ok(weights.to_owned()),
    }
}

/// What the command line says of the model.
fn model_of(args: &TrainArgs, model: &mut ModelSection) -> Result<(), CliError> {
    for (name, value) in parse_options(&args.options)? {
        model.options.insert(name, Value::from(value.as_str().unwrap_or_default()));
    }
    if let Some(input) = args.input {
        model.options.insert("input".to_owned(), Value::from(input.to_vec()));
    }
    if let Some(weights) = args.weights.as_ref().or(args.fine_tune.as_ref()) {
        model.weights.clone_from(weights);
    }
    if let Some(layer) = &args.freeze_through {
        model.freeze_through.clone_from(layer);
    }
    model.head = args.head.map_or(if args.fine_tune.is_some() { Head::Replace } else { model.head }, Head::from);
    Ok(())
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_brings_its_network_and_data_unless_others_are_named() {
        let asked = |what: Option<&str>, data: Option<&str>| {
            let [what, data] = [what, data].map(|name| name.map(str::to_owned));
            let args = TrainArgs { what, data, recipe: Some("fashion-mnist-fast".to_owned()), ..TrainArgs::default() };
            resolve(&args).unwrap().recipe
        };
        let own = recipes::named("fashion-mnist-fast").unwrap();
        assert_eq!(own.model.options["width"], Value::from(32));
        assert_eq!(asked(None, None), own);
        let other = asked(Some("resnet56-cifar"), Some("cifar-10"));
        assert_eq!((other.model.name.as_str(), other.data.name.as_str()), ("resnet56-cifar", "cifar-10"));
        assert_eq!((other.model.options.len(), other.optimizer), (0, own.optimizer));
    }
}
