//! What may change in the recipe of a run that goes on.
use crate::Error;
use crate::run_folder::RECIPE;
use std::path::Path;
use striate_train::{Recipe, TrainSection};

/// What a recipe's steps have that depends on how many epochs there are, if anything does.
fn depends_on_length(recipe: &Recipe) -> Option<&'static str> {
    if recipe.schedule.depends_on_length() {
        Some("learning rates")
    } else if recipe.average.depends_on_length() {
        Some("an average")
    } else {
        recipe.progressive.is_on().then_some("image sizes")
    }
}

/// Whether runs of these recipes differ in nothing that changes a value, the seed aside.
pub(crate) fn is_repeated(one: &Recipe, other: &Recipe) -> bool {
    let train = TrainSection { seed: one.train.seed, ..other.train.clone() };
    one.train.epochs == train.epochs && heeded(one.clone(), Recipe { train, ..other.clone() }, 0).is_ok()
}

/// Gives a run, of which `done` epochs are finished, so many epochs, or says why it can't have them.
pub(crate) fn extend(recipe: &mut Recipe, epochs: u64, done: u64) -> Result<(), String> {
    let was = recipe.train.epochs;
    if epochs != was
        && let Some(what) = depends_on_length(recipe)
    {
        return Err(format!(
            "epochs cannot change from {was} to {epochs}: it has {what} for a run of {was}; keep {was}, start a new run, or train on from its bundle"
        ));
    }
    if epochs < done {
        return Err(format!("epochs cannot change from {was} to {epochs}: {done} are done; set {done} or more"));
    }
    recipe.train.epochs = epochs;
    Ok(())
}

/// Writes the number of epochs into a run's recipe if it is another one, so that the run goes on with it if it is stopped.
pub(crate) fn keep_epochs(folder: &Path, epochs: u64) -> Result<(), Error> {
    let file = folder.join(RECIPE);
    if !file.is_file() {
        return Ok(());
    }
    let text = striate_files::read_to_string(&file)?;
    let mut recipe = Recipe::parse(&text, &file)?;
    if recipe.train.epochs != epochs {
        recipe.train.epochs = epochs;
        let why: String = text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        striate_files::write_bytes(&file, why + &recipe.to_toml())?;
    }
    Ok(())
}

/// The saved recipe of a run, changed as the edited one says, or why it can't be. `done` epochs are finished.
pub(crate) fn heeded(saved: Recipe, edited: Recipe, done: u64) -> Result<Recipe, String> {
    let mut recipe = saved.clone();
    recipe.data.dir.clone_from(&edited.data.dir);
    recipe.data.workers = edited.data.workers;
    recipe.data.cache = edited.data.cache;
    recipe.distill.teacher.clone_from(&edited.distill.teacher);
    recipe.train.devices.clone_from(&edited.train.devices);
    recipe.train.checkpoint_steps = edited.train.checkpoint_steps;
    recipe.train.keep_epochs = edited.train.keep_epochs;
    recipe.train.keep_steps = edited.train.keep_steps;
    recipe.train.keep_newest = edited.train.keep_newest;
    recipe.train.tensorboard = edited.train.tensorboard;
    recipe.answering.clone_from(&edited.answering);
    if edited.train.threads != 0 {
        recipe.train.threads = edited.train.threads;
    }
    extend(&mut recipe, edited.train.epochs, done)?;
    let same = Recipe { train: TrainSection { threads: recipe.train.threads, ..edited.train.clone() }, ..edited };
    match recipe.differing(&same).as_slice() {
        [] => Ok(recipe),
        keys => Err(format!(
            "{} cannot change within a run: set {} back, or start a new run",
            keys.join(", "),
            if keys.len() == 1 { "it" } else { "them" }
        )),
    }
}
