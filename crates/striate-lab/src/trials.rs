//! What was measured already, kept line by line, so that a run that was stopped goes on where it was.
use crate::LabError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, TryLockError};
use std::path::Path;
use striate_files::{FilesError, Lines};

/// One measurement: its settings, all that decides its result, and the result.
#[derive(Debug, Serialize, Deserialize)]
struct Trial {
    settings: Value,
    result: Value,
}

/// A file of trials that this process alone writes.
#[derive(Debug)]
pub(crate) struct Trials {
    file: Lines,
    /// The same file.
    _lock: File,
    known: Vec<Trial>,
}

impl Trials {
    /// Opens the file, or makes it. What a killed run has left of a line is cut off.
    pub(crate) fn open(path: &Path) -> Result<Self, LabError> {
        // Nothing is cut off before the lock is held: the line may be growing.
        let (lock, _) = striate_files::open_lock(path)?;
        // Where a file can't be locked, nobody can.
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            let folder = path.parent().unwrap_or(path).display();
            return Err(LabError::Usage(format!("{folder} is another run's: wait for it, or choose another folder")));
        }
        let (file, text) = Lines::append(path)?;
        let mut known = Vec::new();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            let trial = serde_json::from_slice(line).map_err(|error| {
                LabError::Usage(format!("{} line {}: {error}: delete the file to start anew", path.display(), number + 1))
            })?;
            known.push(trial);
        }
        Ok(Self { file, _lock: lock, known })
    }

    /// The result of these settings, if it is known.
    pub(crate) fn find<T: DeserializeOwned>(&self, settings: &Value) -> Option<T> {
        let trial = self.known.iter().rfind(|trial| trial.settings == *settings)?;
        serde_json::from_value(trial.result.clone()).ok()
    }

    /// Keeps a result.
    pub(crate) fn keep<T: Serialize>(&mut self, settings: Value, result: &T) -> Result<(), LabError> {
        let json = |error: serde_json::Error| FilesError::new("write", self.file.path())(error.into());
        let trial = Trial { settings, result: serde_json::to_value(result).map_err(json)? };
        let line = serde_json::to_vec(&trial).map_err(json)?;
        self.file.write(line)?;
        self.file.sync()?;
        self.known.push(trial);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_are_found_again_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trials.jsonl");
        let mut trials = Trials::open(&path).unwrap();
        trials.keep(json!({"seed": 1}), &0.1).unwrap();
        trials.keep(json!({"seed": 2}), &(0.1 + 0.2)).unwrap();
        assert!(Trials::open(&path).unwrap_err().to_string().contains("another run's"));
        drop(trials);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "{\"settings\":{\"se").unwrap();
        let mut trials = Trials::open(&path).unwrap();
        assert_eq!(trials.find::<f64>(&json!({"seed": 2})), Some(0.1 + 0.2));
        assert_eq!(trials.find::<f64>(&json!({"seed": 3})), None);
        trials.keep(json!({"seed": 3}), &1.0).unwrap();
        drop(trials);
        assert_eq!(Trials::open(&path).unwrap().find::<f64>(&json!({"seed": 3})), Some(1.0));
    }

    #[test]
    fn a_foreign_file_is_told_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trials.jsonl");
        std::fs::write(&path, "not ours\n").unwrap();
        assert!(Trials::open(&path).unwrap_err().to_string().contains("line 1"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not ours\n");
    }
}
