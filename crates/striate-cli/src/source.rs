//! What a command line names a network by: a model of the registry with options, or a bundle.
use crate::error::CliError;
use crate::progress;
use crate::train::MODEL;
use serde_json::Value;
use std::path::{Path, PathBuf};
use striate_graph::Network;
use striate_models::{Bundle, BundleInfo, Model, ModelError, Pretrained, Weights, find, find_pretrained};
use striate_train::{Head, LAST};

/// A model of the registry, or a bundle's model with its bundle.
pub(crate) struct Source {
    pub(crate) model: Model,
    pub(crate) bundle: Option<Bundle>,
}

impl Source {
    /// Reads a bundle if `name` is that of a file, and looks in the registry otherwise.
    pub(crate) fn open(name: &str, options: &[(String, Value)]) -> Result<Self, CliError> {
        let Some(path) = bundle_file(name) else { return Ok(Self { model: model(name, options)?, bundle: None }) };
        let bundle = Bundle::read(path)?;
        Ok(Self { model: changed(&bundle.info, options)?, bundle: Some(bundle) })
    }
}

/// Reads a bundle for a command that takes nothing else, and says what to name where something else was named.
pub(crate) fn bundle(path: &Path) -> Result<Bundle, CliError> {
    let (name, usage) = (path.display(), |line: String| Err(CliError::Usage(line)));
    if path.is_dir() {
        return match [MODEL, LAST].map(|file| path.join(file)).into_iter().find(|file| file.is_file()) {
            Some(file) => usage(format!("{name} is a folder: name the bundle in it, {}", file.display())),
            None => usage(format!("{name} is a folder without a {MODEL}: name a bundle, such as a finished run's {MODEL}")),
        };
    }
    if !path.exists() && path.to_str().is_some_and(|name| find(name).is_ok()) {
        return usage(format!("{name} is a model's name: name a trained bundle of it, such as a run's {MODEL}"));
    }
    match Bundle::read(path) {
        Err(ModelError::NoBundle { .. }) => usage(format!(
            "{name} holds weights only: name a run's {MODEL}, or make a bundle with `striate weights convert` and its --model, --mean and --std"
        )),
        bundle => Ok(bundle?),
    }
}

/// The model alone that [`Source::open`] gives, without reading weights: that takes no libtorch.
pub(crate) fn described(name: &str, options: &[(String, Value)]) -> Result<Model, CliError> {
    match bundle_file(name) {
        Some(path) => changed(&BundleInfo::read(path)?, options),
        None => model(name, options),
    }
}

/// The file that `name` is the name of, if it is none of the registry's.
fn bundle_file(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    (path.extension().is_some_and(|extension| extension == "safetensors") || path.is_file()).then_some(path)
}

/// A bundle's model with some options changed.
fn changed(info: &BundleInfo, options: &[(String, Value)]) -> Result<Model, CliError> {
    let mut info = info.clone();
    info.config.extend(options.iter().cloned());
    Ok(info.model()?)
}

/// A model of the registry.
pub(crate) fn model(name: &str, options: &[(String, Value)]) -> Result<Model, CliError> {
    let options: Vec<(&str, Value)> = options.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    Ok(find(name)?.model(&options)?)
}

/// The weights of a file, of one of several networks in it (`FILE#KEY`), or published ones by their name, which are fetched
/// unless the cache has them.
pub(crate) fn weights(name: &str) -> Result<Weights, CliError> {
    let path = Path::new(name);
    let part = if path.exists() { None } else { name.rsplit_once('#') };
    let weights = match part {
        Some((file, key)) => Weights::read_at(Path::new(file), key)?,
        None if path.extension().is_some() || path.exists() => Weights::read(path)?,
        None => Weights::read(&fetch(find_pretrained(name)?)?)?,
    };
    if let (Some(key), Some(other), None) = (&weights.key, weights.others.first(), part) {
        tracing::warn!("{name}: the weights under {key} are taken; {name}#{other} names the others");
    }
    Ok(weights)
}

/// Published weights in the cache, where a progress bar brings them first if they are missing.
pub(crate) fn fetch(published: &Pretrained) -> Result<PathBuf, CliError> {
    let bar = progress::Download::new();
    Ok(published.fetch(&mut |done, total| bar.update(published.file, done, total))?)
}

/// Loads all of the weights into a network, or all but the classifier's, and tells what may be unexpected in that.
pub(crate) fn load_weights(network: &Network, weights: &Weights, head: Head) -> Result<(), CliError> {
    let loaded = match head {
        Head::Keep => weights.load(network)?,
        Head::Replace => weights.load_body(network)?,
    };
    if let Some(doubt) = weights.doubt(network.graph()) {
        tracing::warn!("{doubt}");
    }
    let path = weights.path.display();
    for (layer, name) in &loaded.renamed {
        tracing::info!("{path}: {name} is taken for {layer}, whose shape it has");
    }
    if let [first, ..] = &loaded.ignored[..] {
        tracing::info!("{path}: {} tensors are none of the network's and left out, such as {first}", loaded.ignored.len());
    }
    Ok(())
}

/// Options of the form `NAME=VALUE`.
pub(crate) fn parse_options(options: &[String]) -> Result<Vec<(String, Value)>, CliError> {
    let parse = |option: &String| match option.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), Value::from(value))),
        None => Err(CliError::Usage(format!("--option {option}: write it as NAME=VALUE"))),
    };
    options.iter().map(parse).collect()
}

/// The options with the number of classes that the command line gives in an argument of its own.
pub(crate) fn with_classes(mut options: Vec<(String, Value)>, classes: Option<i64>) -> Vec<(String, Value)> {
    options.extend(classes.map(|classes| ("classes".to_owned(), Value::from(classes))));
    options
}
