//! A table of a run's epochs.
use crate::{Event, Listener, TrainError};
use std::path::{Path, PathBuf};
use striate_files::Lines;

/// Writes a row of a CSV file for each epoch: its figures, for a spreadsheet or a data frame.
///
/// Columns are `epoch` (counted from 1), `step` (steps done), `lr` (of the last step; empty if a run went on when all steps of the
/// epoch were done), loss and accuracy of training and of what judges the run, `best` (1 or 0), `seconds` of training,
/// `images_per_second`, `waiting` (the share of these seconds that the loop waited for batches) and `peak_memory` (bytes, empty
/// where the system does not tell). The names of the columns say what judges: `test_accuracy` or `val_accuracy`, or
/// `test_exact_match` where pictures have several classes.
///
/// A resumed run keeps the rows of the epochs that it does not do again, so no epoch is in the file twice.
#[derive(Debug)]
pub struct MetricsCsv {
    path: PathBuf,
    header: String,
    /// Open from the first epoch on.
    file: Option<Lines>,
    lr: Option<f64>,
}

impl MetricsCsv {
    /// Writes into this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), header: String::new(), file: None, lr: None }
    }

    /// Opens the file with the rows of the first `done` epochs.
    fn open(&self, done: u64) -> Result<Lines, TrainError> {
        let kept: String = rows(&self.path, &self.header, done).into_iter().map(|row| format!("{row}\n")).collect();
        striate_files::write_bytes(&self.path, format!("{}\n{kept}", self.header))?;
        Ok(Lines::append(&self.path)?.0)
    }
}

/// The rows of the first `done` epochs in a file that has this header. One that was made by another version is made anew.
fn rows(path: &Path, header: &str, done: u64) -> Vec<String> {
    let text = striate_files::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(header) {
        return Vec::new();
    }
    let epoch = |row: &&str| row.split(',').next().and_then(|epoch| epoch.parse::<u64>().ok());
    lines.filter(|row| epoch(row).is_some_and(|epoch| epoch <= done)).map(str::to_owned).collect()
}

impl Listener for MetricsCsv {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::RunStarted { judge, measure, .. } => {
                let measure = measure.replace(' ', "_");
                self.header = format!(
                    "epoch,step,lr,train_loss,train_{measure},{judge}_loss,{judge}_{measure},best,seconds,images_per_second,waiting,\
                     peak_memory"
                );
            }
            Event::EpochStarted { epoch } if self.file.is_none() => self.file = Some(self.open(*epoch)?),
            Event::StepDone { lr, .. } => self.lr = Some(*lr),
            #[rustfmt::skip]
            Event::EpochDone {
                epoch, step, train_loss, train_accuracy, test_loss, test_accuracy, best, seconds, images_per_second, waiting,
                peak_memory, ..
            } => {
                let (epoch, best) = (epoch + 1, u8::from(*best));
                let lr = self.lr.map_or_else(String::new, |lr| lr.to_string());
                let peak = peak_memory.map_or_else(String::new, |peak| peak.to_string());
                let row = format!(
                    "{epoch},{step},{lr},{train_loss},{train_accuracy},{test_loss},{test_accuracy},{best},{seconds:.3},\
                     {images_per_second:.1},{waiting:.4},{peak}"
                );
                if let Some(file) = &mut self.file {
                    file.write(row)?;
                    file.flush()?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        self.file.as_mut().map_or(Ok(()), |file| Ok(file.sync()?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEADER: &str =
        "epoch,step,lr,train_loss,train_accuracy,val_loss,val_accuracy,best,seconds,images_per_second,waiting,peak_memory";

    /// The events of a process that does the epochs from `first` to before `end`.
    fn process(path: &Path, first: u64, end: u64, loss: f64) {
        let mut csv = MetricsCsv::new(path);
        let (judge, measure) = ("val", "accuracy");
        csv.on_event(&Event::RunStarted { epochs: 9, steps_per_epoch: 5, step: 5 * first, judge, measure }).unwrap();
        for epoch in first..end {
            csv.on_event(&Event::EpochStarted { epoch }).unwrap();
            let step = 5 * (epoch + 1);
            csv.on_event(&Event::StepDone { epoch, step, loss, lr: 0.1, images_per_second: 8.0, waiting: 0.5 }).unwrap();
            let done = Event::EpochDone {
                epoch,
                step,
                train_loss: loss,
                train_accuracy: 0.25,
                test_loss: 1.5,
                test_accuracy: 1.0 / 3.0,
                raw: None,
                best: true,
                seconds: 2.0,
                images_per_second: 1234.56,
                waiting: 0.0625,
                peak_memory: Some(4096),
            };
            csv.on_event(&done).unwrap();
        }
        // As a kill does.
        std::mem::forget(csv);
    }

    #[test]
    fn a_resumed_run_has_each_epoch_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        process(&path, 0, 3, 2.0);
        let row = |epoch: u64, loss: f64| {
            format!("{epoch},{},0.1,{loss},0.25,1.5,0.3333333333333333,1,2.000,1234.6,0.0625,4096\n", 5 * epoch)
        };
        let text = || std::fs::read_to_string(&path).unwrap();
        assert_eq!(text(), format!("{HEADER}\n{}{}{}", row(1, 2.0), row(2, 2.0), row(3, 2.0)));
        // A run that died before it saved itself after the third epoch does that again, and one line was cut off.
        std::fs::write(&path, format!("{}4,20,0", text())).unwrap();
        process(&path, 2, 4, 0.5);
        assert_eq!(text(), format!("{HEADER}\n{}{}{}{}", row(1, 2.0), row(2, 2.0), row(3, 0.5), row(4, 0.5)));
        // Nothing is left to do.
        process(&path, 4, 4, 0.0);
        assert_eq!(text().lines().count(), 5);
    }

    #[test]
    fn a_table_with_other_columns_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        std::fs::write(&path, "epoch,loss\n1,2\n").unwrap();
        process(&path, 1, 2, 2.0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(HEADER) && text.lines().count() == 2, "{text}");
    }
}
