//! What was measured already, kept line by line, so that a run that was stopped goes on where it was.
use crate::LabError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use striate_files::{FilesError, Lines};

/// What has been measured, in a claim's folder: the name's start and end.
const TRIALS: &str = "trials";
const ENDING: &str = ".jsonl";

/// One measurement: its settings, all that decides its result, and the result.
#[derive(Debug, Serialize, Deserialize)]
struct Trial {
    settings: Value,
    result: Value,
}

/// Files of trials: one that this process alone writes, and those of other processes.
#[derive(Debug)]
pub(crate) struct Trials {
    file: Lines,
    /// The same file.
    _lock: File,
    known: Vec<Trial>,
}

impl Trials {
    /// Opens the file of the process of this number in a folder, or makes it, and reads those of all others. What a killed run has left
    /// of a line is cut off.
    pub(crate) fn open(folder: &Path, rank: usize) -> Result<Self, LabError> {
        let path = folder.join(file_of(rank));
        // Nothing is cut off before the lock is held: the line may be growing.
        let (lock, _) = striate_files::open_lock(&path)?;
        // Where a file can't be locked, nobody can.
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            let folder = folder.display();
            return Err(LabError::Usage(format!("{folder} is another run's: wait for it, or choose another folder")));
        }
        let (file, text) = Lines::append(&path)?;
        let mut known = parsed(&path, &text)?;
        for path in files(folder)?.into_iter().filter(|other| *other != path) {
            let text = striate_files::read(&path)?;
            // The last line may be growing.
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            known.extend(parsed(&path, &text[..whole])?);
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

/// Of the first process, the file has no number.
fn file_of(rank: usize) -> String {
    if rank == 0 { format!("{TRIALS}{ENDING}") } else { format!("{TRIALS}-{rank}{ENDING}") }
}

/// The files of all processes.
fn files(folder: &Path) -> Result<Vec<PathBuf>, LabError> {
    let is_one = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let number = name.strip_prefix(TRIALS).and_then(|name| name.strip_suffix(ENDING));
        number
            .is_some_and(|number| number.is_empty() || number.strip_prefix('-').is_some_and(|rank| rank.parse::<usize>().is_ok()))
    };
    let entries = std::fs::read_dir(folder).map_err(FilesError::new("read", folder))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
    files.sort();
    Ok(files)
}

fn parsed(path: &Path, text: &[u8]) -> Result<Vec<Trial>, LabError> {
    let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let trial = |(number, line)| {
        serde_json::from_slice(line).map_err(|error| {
            LabError::Usage(format!("{} line {}: {error}: delete the file to start anew", path.display(), number + 1))
        })
    };
    lines.map(trial).collect()
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
        let mut trials = Trials::open(folder.path(), 0).unwrap();
        trials.keep(json!({"seed": 1}), &0.1).unwrap();
        trials.keep(json!({"seed": 2}), &(0.1 + 0.2)).unwrap();
        assert!(Trials::open(folder.path(), 0).unwrap_err().to_string().contains("another run's"));
        drop(trials);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "{\"settings\":{\"se").unwrap();
        let mut trials = Trials::open(folder.path(), 0).unwrap();
        assert_eq!(trials.find::<f64>(&json!({"seed": 2})), Some(0.1 + 0.2));
        assert_eq!(trials.find::<f64>(&json!({"seed": 3})), None);
        trials.keep(json!({"seed": 3}), &1.0).unwrap();
        drop(trials);
        assert_eq!(Trials::open(folder.path(), 0).unwrap().find::<f64>(&json!({"seed": 3})), Some(1.0));
    }

    #[test]
    fn each_process_writes_a_file_and_reads_all() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Trials::open(folder.path(), 0).unwrap();
        let mut other = Trials::open(folder.path(), 12).unwrap();
        first.keep(json!({"seed": 1}), &1.0).unwrap();
        other.keep(json!({"seed": 2}), &2.0).unwrap();
        // It is being written.
        std::fs::write(folder.path().join("trials-3.jsonl"), "{\"settings\":{\"seed\":3},\"result\":3.0}\n{\"set").unwrap();
        std::fs::write(folder.path().join("trials-x.jsonl"), "not ours").unwrap();
        let third = Trials::open(folder.path(), 1).unwrap();
        for seed in 1..4 {
            assert_eq!(third.find::<f64>(&json!({ "seed": seed })), Some(f64::from(seed)));
        }
        assert_eq!(first.find::<f64>(&json!({"seed": 2})), None);
    }

    #[test]
    fn a_foreign_file_is_told_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trials.jsonl");
        std::fs::write(&path, "not ours\n").unwrap();
        assert!(Trials::open(folder.path(), 0).unwrap_err().to_string().contains("line 1"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not ours\n");
    }
}
