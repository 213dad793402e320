//! What the processes of a run tell each other before it begins.
use crate::Error;
use serde_json::json;
use std::path::{Path, PathBuf};
use striate_models::BundleInfo;
use striate_train::distributed::World;
use striate_train::{Progress, Recipe, Workers};

/// What rank 0 says of the run's folder under.
pub const FOLDER: &str = "folder";

/// Refuses a run that is another one elsewhere: by recipe, network, data, seed, step or build.
pub(crate) fn agree(world: &World, recipe: &Recipe, info: &BundleInfo, progress: &Progress) -> Result<(), Error> {
    if world.is_one() {
        return Ok(());
    }
    let mut recipe = recipe.clone();
    // These may differ between machines.
    (recipe.train.threads, recipe.train.devices, recipe.data.workers) = (0, Vec::new(), Workers::Number(0));
    recipe.data.dir = PathBuf::new();
    let network = info.to_metadata()?.1;
    let network = serde_json::from_str::<serde_json::Value>(&network).map_or(network, |value| format!("{:#}", json!(value)));
    Ok(world.agree(&[
        ("version of Striate", env!("CARGO_PKG_VERSION").to_owned()),
        ("libtorch", striate_torch::torch_version()),
        ("seed", progress.seed.to_string()),
        ("data to train on", progress.data.clone()),
        ("data to be judged by", progress.test_data.clone().unwrap_or_default()),
        ("line of the recipe", recipe.to_toml()),
        ("line of the network", network),
        ("number of steps done", progress.step.to_string()),
    ])?)
}

/// The run's folder, which rank 0 has claimed, for all.
pub(crate) fn folder(world: &World, own: Option<&Path>) -> Result<PathBuf, Error> {
    let told = world.of_first(FOLDER, &own.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())?;
    Ok(own.map_or_else(|| told.into(), Path::to_owned))
}
