//! What a run tells those who listen.
use crate::{TestMetrics, TrainError};
use serde::Serialize;
use std::path::{Path, PathBuf};
use striate_files::{FilesError, Lines};
use striate_graph::Network;

/// Something that happened in a run. Epochs count from 0; a step's number is the count of steps done, itself included.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A run starts, or goes on.
    RunStarted {
        /// Epochs of the whole run.
        epochs: u64,
        /// Steps in each.
        steps_per_epoch: u64,
        /// Steps that were done before: 0 unless the run was resumed.
        step: u64,
        /// What it is judged by after each epoch: `test`, or `val` where the test set is kept for the end.
        judge: &'static str,
        /// What its accuracies are: `accuracy`, or `exact match` where pictures have several classes.
        measure: &'static str,
    },
    /// An epoch starts, or goes on.
    EpochStarted {
        /// Its number.
        epoch: u64,
    },
    /// The parameters have changed once.
    StepDone {
        /// The epoch's number.
        epoch: u64,
        /// The step's number in the run.
        step: u64,
        /// The mean loss of the batch.
        loss: f64,
        /// The learning rate of the step.
        lr: f64,
        /// The mean speed in this epoch so far.
        images_per_second: f64,
        /// The share of this epoch so far that the loop waited for batches, from 0 to 1.
        waiting: f64,
    },
    /// A step whose loss or gradients were no numbers was left out: the parameters stay as they were.
    StepSkipped {
        /// The epoch's number.
        epoch: u64,
        /// The step's number in the run.
        step: u64,
        /// How many have been left out one after another.
        in_a_row: u64,
    },
    /// The run goes back to its last checkpoint, since a loss or a weight was no number.
    RolledBack {
        /// The step that failed.
        failed: u64,
        /// The steps done at the checkpoint. Those after it are done again.
        step: u64,
        /// What learning rates are multiplied by from here on.
        lr_scale: f64,
    },
    /// An epoch is over and the test set was evaluated.
    EpochDone {
        /// Its number.
        epoch: u64,
        /// The step's number in the run.
        step: u64,
        /// The mean loss over the training examples, each taken when its batch was trained with.
        train_loss: f64,
        /// The accuracy on the same.
        train_accuracy: f64,
        /// The mean loss on the test set.
        test_loss: f64,
        /// The accuracy on the test set.
        test_accuracy: f64,
        /// How the network's own weights do, where the run is judged by their average.
        #[serde(skip_serializing_if = "Option::is_none")]
        raw: Option<TestMetrics>,
        /// Whether no earlier epoch had that accuracy.
        best: bool,
        /// Time that training took, without evaluation.
        seconds: f64,
        /// The mean speed of training.
        images_per_second: f64,
        /// The share of these seconds that the loop waited for batches, from 0 to 1.
        waiting: f64,
        /// The most memory that the process has had, in bytes: see [`striate_torch::peak_memory`].
        #[serde(skip_serializing_if = "Option::is_none")]
        peak_memory: Option<u64>,
    },
    /// A checkpoint is on the disk.
    CheckpointSaved {
        /// Its file.
        #[serde(serialize_with = "striate_files::path::serialize")]
        path: PathBuf,
        /// The steps done before it.
        step: u64,
    },
    /// The run is over, or was stopped.
    RunDone {
        /// Whether all epochs are done.
        finished: bool,
        /// Steps done.
        step: u64,
        /// The best accuracy on the test set, if an epoch was finished.
        best_accuracy: Option<f64>,
    },
}

/// Who is told of a run's events: a progress bar, a log, a plot.
pub trait Listener {
    /// Takes note of an event, between two steps: be quick. An error ends the run.
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError>;

    /// A checkpoint is about to be written: whatever must be on the disk before it has to be written now. An error ends the run.
    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        Ok(())
    }

    /// Looks at the network after an epoch, right after [`Event::EpochDone`]. An error ends the run.
    fn after_epoch(&mut self, network: &Network) -> Result<(), TrainError> {
        let _ = network;
        Ok(())
    }
}

impl<L: Listener + ?Sized> Listener for Box<L> {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        (**self).on_event(event)
    }

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        (**self).before_checkpoint()
    }

    fn after_epoch(&mut self, network: &Network) -> Result<(), TrainError> {
        (**self).after_epoch(network)
    }
}

/// Writes each event as a line of JSON. Lines are in the file after each epoch, and on the disk before
/// each checkpoint.
///
/// A resumed run appends. If the former one was killed, the steps after its last checkpoint are in the file twice: the later
/// line of a step holds.
#[derive(Debug)]
pub struct JsonLines {
    file: Lines,
}

impl JsonLines {
    /// Opens the file, or makes it, to write at its end; the part of a line that a killed run has left there is cut off.
    pub fn append(path: &Path) -> Result<Self, TrainError> {
        let (file, _) = Lines::append(path)?;
        Ok(Self { file })
    }
}

impl Listener for JsonLines {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        let line = serde_json::to_vec(event).map_err(std::io::Error::from);
        self.file.write(line.map_err(FilesError::new("write", self.file.path()))?)?;
        if !matches!(event, Event::StepDone { .. }) {
            self.file.flush()?;
        }
        Ok(())
    }

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        Ok(self.file.sync()?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_run_leaves_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"event\":\"epoch_started\",\"epoch\":0}\n{\"event\":\"step_do").unwrap();
        let mut lines = JsonLines::append(&path).unwrap();
        let (loss, images_per_second) = (0.1 + 0.2, 1.0 / 3.0);
        let step = Event::StepDone { epoch: 0, step: 1, loss, lr: 0.1, images_per_second, waiting: 0.5 };
        for _ in 0..500 {
            lines.on_event(&step).unwrap(); // far more than the buffer holds
        }
        // As a kill does, this drops what is in the buffer.
        std::mem::forget(lines);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n') && text.lines().count() > 2);
        text.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
    }
}
