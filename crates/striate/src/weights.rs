//! Weights by name, and into a network.
use crate::Error;
use std::path::Path;
use striate_graph::Network;
use striate_models::{Registry, Weights, find_pretrained};
use striate_train::Head;

/// The weights of a file, of one of several networks in it (`FILE#KEY`), or published ones by their name, which are fetched unless the
/// cache has them; `progress` is told of that, and its `false` ends it.
///
/// # Errors
///
/// A file that cannot be read, an unknown name or key, a download that fails, and [`Error::Stopped`].
pub fn weights(
    name: &str,
    registry: &Registry,
    progress: &mut dyn FnMut(&str, u64, Option<u64>) -> bool,
) -> Result<Weights, Error> {
    let path = Path::new(name);
    let part = if path.exists() { None } else { name.rsplit_once('#') };
    let weights = match part {
        Some((file, key)) => Weights::read_at(Path::new(file), key)?,
        None if path.extension().is_some() || path.exists() => Weights::read_with(path, registry)?,
        None => {
            let published = find_pretrained(name)?;
            Weights::read(&published.fetch(&mut |done, total| progress(published.file, done, total))?)?
        }
    };
    if let (Some(key), Some(other), None) = (&weights.key, weights.others.first(), part) {
        tracing::warn!("{name}: the weights under {key} are taken; {name}#{other} names the others");
    }
    Ok(weights)
}

/// Loads all of the weights into a network, or all but the classifier's, and logs what may be unexpected in that. `architecture` is the
/// network's name in a registry, if it has one.
///
/// # Errors
///
/// Weights that do not fit.
pub fn load(network: &Network, weights: &Weights, head: Head, architecture: Option<&str>) -> Result<(), Error> {
    let loaded = match head {
        Head::Keep => weights.load(network)?,
        Head::Replace => weights.load_body(network)?,
    };
    for note in loaded.notes() {
        tracing::info!("{}: {note}", weights.path.display());
    }
    if let Some(doubt) = weights.doubt(network.graph()) {
        tracing::warn!("{doubt}");
    }
    if let Some((ours, other)) = architecture.and_then(|ours| Some((ours, weights.other_architecture(ours)?))) {
        tracing::warn!("{} says that it is of {other}, not of {ours}: is that the same network?", weights.path.display());
    }
    Ok(())
}
