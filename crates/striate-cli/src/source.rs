//! What a command line names a network by: a model of the registry with options, or a bundle.
use crate::error::CliError;
use crate::progress;
use serde_json::Value;
use std::path::{Path, PathBuf};
use striate::{BUNDLE, Bundle, BundleInfo, Registry};
use striate_graph::Graph;
use striate_layers::Shape;
use striate_models::{Model, ModelError, Pretrained, Weights, find};
use striate_train::LAST;

/// A network's definition, and the bundle that it is of, if it is one's.
pub(crate) struct Source {
    pub(crate) graph: Graph,
    pub(crate) bundle: Option<Bundle>,
}

impl Source {
    /// Reads a bundle if `name` is that of a file, and looks in the registry otherwise.
    pub(crate) fn open(name: &str, options: &[(String, Value)]) -> Result<Self, CliError> {
        let Some(path) = bundle_file(name) else { return Ok(Self { graph: model(name, options)?.graph()?, bundle: None }) };
        let bundle = Bundle::read(path)?;
        Ok(Self { graph: changed(&bundle.info, options)?, bundle: Some(bundle) })
    }
}

/// Reads a bundle for a command that takes nothing else, and says what to name where something else was named.
pub(crate) fn bundle(path: &Path) -> Result<Bundle, CliError> {
    no_folder(path)?;
    let (name, usage) = (path.display(), |line: String| Err(CliError::Usage(line)));
    if !path.exists() && path.to_str().is_some_and(|name| find(name).is_ok()) {
        return usage(format!("{name} is a model's name: name a trained bundle of it, such as a run's {BUNDLE}"));
    }
    match Bundle::read(path) {
        Err(ModelError::NoBundle { .. }) => usage(format!(
            "{name} holds weights only: name a run's {BUNDLE}, or make a bundle with `striate weights convert` and its --model, --mean and --std"
        )),
        bundle => Ok(bundle?),
    }
}

/// Refuses a folder, and names the bundle in it.
pub(crate) fn no_folder(path: &Path) -> Result<(), CliError> {
    if !path.is_dir() {
        return Ok(());
    }
    let name = path.display();
    Err(CliError::Usage(match bundle_in(path) {
        Some(file) => format!("{name} is a folder: name the bundle in it, {}", file.display()),
        None => format!("{name} is a folder without a {BUNDLE}: name a bundle, such as a finished run's {BUNDLE}"),
    }))
}

/// The bundle in a run's folder, if there is one.
pub(crate) fn bundle_in(folder: &Path) -> Option<PathBuf> {
    [BUNDLE, LAST].map(|file| folder.join(file)).into_iter().find(|file| file.is_file())
}

/// The definition alone that [`Source::open`] gives, without reading weights: that takes no libtorch.
pub(crate) fn described(name: &str, options: &[(String, Value)]) -> Result<Graph, CliError> {
    match bundle_file(name) {
        Some(path) => changed(&BundleInfo::read(path)?, options),
        None => Ok(model(name, options)?.graph()?),
    }
}

/// The file that `name` is the name of, if it is none of the registry's.
fn bundle_file(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    (path.extension().is_some_and(|extension| extension == "safetensors") || path.is_file()).then_some(path)
}

/// A bundle's network with some options changed: classes and input of any, and all others of a registry's.
fn changed(info: &BundleInfo, options: &[(String, Value)]) -> Result<Graph, CliError> {
    let mut graph = info.graph.clone();
    for (name, value) in options {
        // A command line has texts.
        let value = value.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| value.clone());
        let dims = value.as_array().and_then(|dims| dims.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>());
        graph = match (name.as_str(), value.as_i64(), dims) {
            ("classes", Some(classes), _) => graph.with_classes(classes)?,
            ("input", _, Some(dims)) => graph.with_inputs(&[Shape::new(dims)])?,
            _ => return of_origin(info, options),
        };
    }
    Ok(graph)
}

/// The registry's network that a bundle's was, with other options.
fn of_origin(info: &BundleInfo, options: &[(String, Value)]) -> Result<Graph, CliError> {
    let Some(origin) = &info.origin else {
        let known = "the bundle's network is none of the registry's: only its classes and its input can be changed";
        return Err(CliError::Usage(known.to_owned()));
    };
    let mut all: Vec<(String, Value)> = origin.options.clone().into_iter().collect();
    all.extend(options.iter().cloned());
    Ok(model(&origin.architecture, &all)?.graph()?)
}

/// A model of the registry.
pub(crate) fn model(name: &str, options: &[(String, Value)]) -> Result<Model, CliError> {
    if find(name).is_err() {
        no_folder(Path::new(name))?;
    }
    let options: Vec<(&str, Value)> = options.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    Ok(find(name)?.model(&options)?)
}

/// The weights of a file, or published ones, which a progress bar shows being fetched.
pub(crate) fn weights(name: &str) -> Result<Weights, CliError> {
    let bar = progress::Download::new();
    Ok(striate::weights(name, &Registry::default(), &mut |file, done, total| bar.update(file, done, total))?)
}

/// Published weights in the cache, where a progress bar brings them first if they are missing.
pub(crate) fn fetch(published: &Pretrained) -> Result<PathBuf, CliError> {
    let bar = progress::Download::new();
    Ok(published.fetch(&mut |done, total| bar.update(published.file, done, total))?)
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
