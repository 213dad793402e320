//! What a run does about losses that are no numbers.
use super::{LAST, Trainer};
use crate::{Event, TrainError};
use serde::{Deserialize, Serialize};

/// In a run that goes back: the checkpoint before [`LAST`], if that was made because a stop was
/// asked for. So where it goes back to does not depend on stops.
pub const ROLLBACK: &str = "rollback.safetensors";

/// Updates that may be left out one after another: far more than a scale of float16 takes to become
/// small enough.
const MOST_SKIPPED: u64 = 32;
/// How often a run goes back.
const MOST_ROLLBACKS: i32 = 3;

/// What a run does when a loss, a gradient or a weight is no number any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnNan {
    /// It ends with an error; the last checkpoint stays.
    #[default]
    Stop,
    /// It leaves out the update of a step whose loss or gradients are no numbers, and ends where
    /// that happens 32 times in a row.
    Skip,
    /// It goes back to the last checkpoint, and on from there with half the learning rate: three
    /// times at most.
    Rollback,
}

/// What a run has done about that so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recovery {
    /// Updates that were left out.
    pub skipped: u64,
    /// How many of them since the last that was made.
    pub skipped_in_a_row: u64,
    /// How often it went back.
    pub rollbacks: i32,
    /// Whether it goes back to [`ROLLBACK`].
    pub interrupted: bool,
}

impl Recovery {
    /// What learning rates are multiplied by: one half for each time that the run went back.
    pub fn lr_scale(&self) -> f64 {
        0.5_f64.powi(self.rollbacks)
    }
}

impl Trainer<'_> {
    /// Takes note of whether the update of the step at hand was left out.
    pub(super) fn note_update(&mut self, skipped: bool) -> Result<(), TrainError> {
        let recovery = &mut self.progress.recovery;
        if !skipped {
            recovery.skipped_in_a_row = 0;
            return Ok(());
        }
        recovery.skipped += 1;
        recovery.skipped_in_a_row += 1;
        match recovery.skipped_in_a_row {
            MOST_SKIPPED.. => Err(self.diverged("the losses or gradients of 32 steps in a row became", self.progress.step)),
            _ => Ok(()),
        }
    }

    /// Before the first step: a checkpoint to go back to.
    pub(super) fn prepare_rollback(&mut self) -> Result<(), TrainError> {
        if self.config.on_nan != OnNan::Rollback || self.progress.step > 0 {
            return Ok(());
        }
        if self.checkpoints.is_none() {
            let option = "train.on_nan = \"rollback\"".to_owned();
            return Err(TrainError::Option { option, reason: "goes back to checkpoints: save some" });
        }
        self.save(LAST)
    }

    /// Saves a run that a stop was asked of.
    pub(super) fn save_interrupted(&mut self) -> Result<(), TrainError> {
        if let (OnNan::Rollback, false, Some(checkpoints)) =
            (self.config.on_nan, self.progress.recovery.interrupted, &self.checkpoints)
        {
            if self.world.is_first() {
                let last = striate_files::read(&checkpoints.folder.join(LAST))?;
                striate_files::write_bytes(&checkpoints.folder.join(ROLLBACK), last)?;
            }
            self.progress.recovery.interrupted = true;
        }
        self.save(LAST)
    }

    /// Saves a run where it always does.
    pub(super) fn save_regular(&mut self) -> Result<(), TrainError> {
        self.progress.recovery.interrupted = false;
        self.save(LAST)
    }

    /// Goes back to the last checkpoint where the configuration says so; gives the error back
    /// otherwise.
    pub(super) fn roll_back(&mut self, error: TrainError) -> Result<(), TrainError> {
        let (TrainError::Diverged { step, .. }, Some(checkpoints)) = (&error, &self.checkpoints) else { return Err(error) };
        let mut recovery = self.progress.recovery;
        if self.config.on_nan != OnNan::Rollback || recovery.rollbacks >= MOST_ROLLBACKS {
            return Err(error);
        }
        let to = checkpoints.folder.join(if recovery.interrupted { ROLLBACK } else { LAST });
        self.resume(&to)?;
        recovery.rollbacks += 1;
        self.progress.recovery = recovery;
        self.emit(Event::RolledBack { failed: *step, step: self.progress.step, lr_scale: recovery.lr_scale() })
    }
}
