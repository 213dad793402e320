//! How a run is saved, and goes on.
use super::{BEST, CheckpointConfig, LAST, Trainer};
use crate::kept::KeptAt;
use crate::{Checkpoint, Event, Listener, Progress, TrainError};
use std::collections::BTreeMap;
use std::path::Path;
use striate_datasets::{Batch, Dataset};
use striate_torch::derive_seed;
use tch::{Kind, Tensor};

/// Examples that tell whether a run goes on with the same data.
const FINGERPRINTED: i64 = 256;

impl Trainer<'_> {
    /// Goes on where a checkpoint was saved: call it before [`run`](Self::run).
    ///
    /// Fails, and changes nothing, if the checkpoint is of another network, optimizer, seed, data, test data or number of steps in an
    /// epoch.
    pub fn resume(&mut self, path: &Path) -> Result<(), TrainError> {
        let unfit = |reason: String| TrainError::Checkpoint { path: path.into(), reason };
        let Checkpoint { model, optimizer, hooks, progress, .. } = Checkpoint::read(path)?;
        let (there, here) = (progress.steps_per_epoch, self.progress.steps_per_epoch);
        if there != here {
            return Err(unfit(format!(
                "its epochs have {there} steps, here they have {here}: take the same data and batch size"
            )));
        }
        if progress.data != self.progress.data {
            return Err(unfit(format!(
                "it was trained on {}, here are {}: take the same data",
                progress.data, self.progress.data
            )));
        }
        if let (Some(there), Some(here)) = (&progress.test_data, &self.progress.test_data)
            && there != here
        {
            return Err(unfit(format!("it was judged by {there}, here are {here}: take the same data")));
        }
        if progress.teacher != self.progress.teacher {
            return Err(unfit("it has learned from another teacher, or from none: take the same".to_owned()));
        }
        if progress.seed != self.config.seed {
            return Err(unfit(format!("its seed is {}, here it is {}: take the same", progress.seed, self.config.seed)));
        }
        let before = progress.epoch.checked_mul(here);
        if before.and_then(|before| progress.step.checked_sub(before)).is_none_or(|done| done > here) {
            return Err(unfit(format!("its step {} does not lie in its epoch {}", progress.step, progress.epoch)));
        }
        if optimizer.is_empty() && !self.step.state().is_empty() {
            return Err(unfit(format!("it holds no optimizer's state: resume from {LAST}")));
        }
        self.step.check_state(&optimizer).map_err(|error| unfit(error.to_string()))?;
        self.check_hooks(&hooks).map_err(unfit)?;
        self.network.load_state(&model).map_err(|error| unfit(error.to_string()))?;
        self.step.load_state(&optimizer)?;
        for hook in &mut self.hooks {
            hook.load_state(&state_of(hook.name(), &hooks)).map_err(|error| unfit(error.to_string()))?;
        }
        let test_data = self.progress.test_data.take();
        self.progress = Progress { test_data, ..progress };
        Ok(())
    }

    /// The state of all hooks, by hook and name.
    pub(super) fn hooks_state(&self) -> BTreeMap<String, Tensor> {
        let named = |name: &str, state: BTreeMap<String, Tensor>| -> Vec<(String, Tensor)> {
            state.into_iter().map(|(of, tensor)| (format!("{name}/{of}"), tensor)).collect()
        };
        self.hooks.iter().flat_map(|hook| named(hook.name(), hook.state())).collect()
    }

    /// Why the run's hooks cannot take this state, if they cannot: it is of other hooks, or of other tensors.
    fn check_hooks(&self, given: &BTreeMap<String, Tensor>) -> Result<(), String> {
        let is_kept = |name: &&String| self.hooks.iter().any(|hook| own_name(hook.name(), name).is_some());
        if let Some(name) = given.keys().find(|name| !is_kept(name)) {
            return Err(format!("it has {name}, which this run does not keep"));
        }
        for hook in &self.hooks {
            let state = state_of(hook.name(), given);
            if let Some(name) = hook.misfit(&state) {
                let what = if state.contains_key(&name) { "it has another" } else { "it lacks" };
                return Err(format!("{what} {}/{name}: take the recipe that it was trained by", hook.name()));
            }
        }
        Ok(())
    }

    pub(super) fn save(&mut self, name: &str) -> Result<(), TrainError> {
        if !self.world.is_first() {
            return self.world.meet();
        }
        let Some(checkpoints) = &self.checkpoints else { return self.world.meet() };
        let path = checkpoints.folder.join(name);
        let mut info = checkpoints.bundle.clone();
        if let Some(test) = self.progress.test {
            let measure = if self.config.loss.is_multi_label() { "exact_match" } else { "accuracy" };
            let named = |measure: &str| format!("{}_{measure}", self.judge);
            info.metrics = [(named(measure), test.accuracy), (named("loss"), test.loss)].into();
        }
        // The best is there to be used, and the last to go on from.
        let (model, optimizer, hooks) = match name {
            BEST => (self.weights(), BTreeMap::new(), BTreeMap::new()),
            _ => (self.network.state(), self.step.state(), self.hooks_state()),
        };
        let checkpoint =
            Checkpoint { model, optimizer, hooks, progress: self.progress.clone(), recipe: checkpoints.recipe.clone() };
        // The checkpoint must not have steps of which the listeners know nothing after a crash.
        self.listeners.iter_mut().try_for_each(Listener::before_checkpoint)?;
        checkpoint.write(&info, &path)?;
        self.world.meet()?;
        self.emit(Event::CheckpointSaved { path, step: self.progress.step })
    }

    /// Saves what is due after a step within an epoch.
    pub(super) fn save_what_is_due(&mut self) -> Result<(), TrainError> {
        let Some(CheckpointConfig { every_steps, keep, .. }) = &self.checkpoints else { return Ok(()) };
        let step = self.progress.step;
        let last = every_steps.is_some_and(|every| step.is_multiple_of(every));
        if last || keep.is_due(KeptAt::Step(step)) {
            self.share_buffers()?;
            self.check_weights()?;
            self.keep(&[KeptAt::Step(step)])?;
        }
        if last { self.save_regular() } else { Ok(()) }
    }

    /// Saves the moments that are kept, and then removes those that are too many.
    pub(super) fn keep(&mut self, moments: &[KeptAt]) -> Result<(), TrainError> {
        let Some(CheckpointConfig { keep, folder, .. }) = &self.checkpoints else { return Ok(()) };
        let (keep, folder) = (*keep, folder.clone());
        for moment in moments.iter().filter(|moment| keep.is_due(**moment)) {
            self.save(&moment.file())?;
            if self.world.is_first() {
                keep.remove_older(&folder, *moment)?;
            }
        }
        Ok(())
    }

    /// A step may ruin the weights though its loss was sound: what is saved must be sound too.
    pub(super) fn check_weights(&self) -> Result<(), TrainError> {
        for tensor in self.network.state().values().chain(self.hooks_state().values()) {
            if tensor.is_floating_point() && tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(self.diverged("a weight became", self.progress.step.saturating_sub(1)));
            }
        }
        Ok(())
    }
}

/// The dataset's name and size, and a number that depends on its labels and on some of its pixels: enough to tell data apart.
pub(super) fn fingerprint(data: &dyn Dataset) -> Result<String, TrainError> {
    let len = i64::try_from(data.len()).unwrap_or(i64::MAX);
    let indices: Vec<i64> = (0..FINGERPRINTED.min(len)).map(|index| index * len / FINGERPRINTED.min(len)).collect();
    let Batch { images, labels, .. } = data.batch(&Tensor::f_from_slice(&indices)?)?;
    let sums = images.f_flatten(1, -1)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64)?;
    let (sums, labels) = (Vec::<i64>::try_from(sums)?, Vec::<i64>::try_from(labels)?);
    let values: Vec<u64> = sums.into_iter().chain(labels).map(i64::cast_unsigned).collect();
    Ok(format!("{} ({} images, {:08x})", data.name(), data.len(), derive_seed(0, &values) >> 32))
}

/// A hook's part of the state of all.
fn state_of(hook: &str, all: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    all.iter().filter_map(|(name, tensor)| Some((own_name(hook, name)?.to_owned(), tensor.shallow_clone()))).collect()
}

/// What a hook calls a tensor of the state of all, if it is its own.
fn own_name<'n>(hook: &str, name: &'n str) -> Option<&'n str> {
    name.strip_prefix(hook)?.strip_prefix('/')
}
