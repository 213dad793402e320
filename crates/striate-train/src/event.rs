//! What a run tells those who listen.
use crate::TrainError;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use striate_torch::FileError;

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
        /// Whether no earlier epoch had that accuracy.
        best: bool,
        /// Time that training took, without evaluation.
        seconds: f64,
        /// The mean speed of training.
        images_per_second: f64,
    },
    /// A checkpoint is on the disk.
    CheckpointSaved {
        /// Its file.
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
}

impl<L: Listener + ?Sized> Listener for Box<L> {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        (**self).on_event(event)
    }
}

/// Writes each event as a line of JSON; the file is up to date after each epoch and checkpoint.
///
/// A resumed run appends. If the former one was killed, the steps after its last checkpoint are in the file twice: the later
/// line of a step holds.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl JsonLines {
    /// Opens the file, or makes it, to write at its end; the part of a line that a killed run has left there is cut off.
    pub fn append(path: &Path) -> Result<Self, TrainError> {
        let open = || {
            let mut file = File::options().create(true).read(true).append(true).open(path)?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            file.set_len(whole as u64)?;
            Ok(file)
        };
        let file = open().map_err(|source| write_error(path, source))?;
        Ok(Self { path: path.into(), file: BufWriter::new(file) })
    }

    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        // In one piece, so that the buffer never ends within a line.
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        if !matches!(event, Event::StepDone { .. }) {
            self.file.flush()?;
        }
        Ok(())
    }
}

impl Listener for JsonLines {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        self.write(event).map_err(|source| write_error(&self.path, source))
    }
}

fn write_error(path: &Path, source: std::io::Error) -> TrainError {
    FileError::Io { action: "write", path: path.into(), source }.into()
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
        let step = Event::StepDone { epoch: 0, step: 1, loss: 0.1 + 0.2, lr: 0.1, images_per_second: 1.0 / 3.0 };
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
