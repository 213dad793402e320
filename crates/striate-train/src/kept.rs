//! Checkpoints that are kept under names of their own.
use crate::TrainError;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use striate_files::FilesError;

/// How the files' names end.
const END: &str = ".safetensors";

/// Which checkpoints of a run are kept beside the last and the best. Each is whole: it can be used, and resumed from.
///
/// They are called `epoch-10.safetensors`, after 10 epochs, and `step-500.safetensors`, after 500 steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Keeps one whenever so many epochs are done.
    pub epochs: Option<u64>,
    /// Keeps one whenever so many steps are done.
    pub steps: Option<u64>,
    /// Keeps so many of each kind, the newest; all of them if it is none. An older one is removed once the newer is whole.
    pub newest: Option<u64>,
}

/// When a checkpoint is made: after so many epochs or steps of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptAt {
    Epoch(u64),
    Step(u64),
}

impl KeptAt {
    /// The name of its file.
    pub(crate) fn file(self) -> String {
        format!("{self}{END}")
    }

    /// The moment of a file of this name, if it is one's.
    fn of(file: &str) -> Option<Self> {
        let (kind, number) = file.strip_suffix(END)?.split_once('-')?;
        let number = number.parse().ok()?;
        let moment = match kind {
            "epoch" => Self::Epoch(number),
            "step" => Self::Step(number),
            _ => return None,
        };
        // Not `step-007`, which nobody wrote here.
        (moment.file() == file).then_some(moment)
    }

    fn number(self) -> u64 {
        match self {
            Self::Epoch(number) | Self::Step(number) => number,
        }
    }

    fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl fmt::Display for KeptAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch(number) => write!(f, "epoch-{number}"),
            Self::Step(number) => write!(f, "step-{number}"),
        }
    }
}

impl Keep {
    /// Whether a checkpoint is kept at this moment.
    pub(crate) fn is_due(&self, moment: KeptAt) -> bool {
        let every = match moment {
            KeptAt::Epoch(_) => self.epochs,
            KeptAt::Step(_) => self.steps,
        };
        every.is_some_and(|every| moment.number().is_multiple_of(every))
    }

    /// Removes the checkpoints of one kind that are too many, the oldest first. What is newer than `moment` is of a run that died
    /// after it, and will be written again.
    pub(crate) fn remove_older(&self, folder: &Path, moment: KeptAt) -> Result<(), TrainError> {
        let Some(newest) = self.newest else { return Ok(()) };
        let mut older = moments(folder, KeptAt::of)?;
        older.retain(|other| other.is_like(moment) && other.number() <= moment.number());
        older.sort_by_key(|moment| std::cmp::Reverse(moment.number()));
        for moment in older.into_iter().skip(usize::try_from(newest).unwrap_or(usize::MAX)) {
            let path = folder.join(moment.file());
            fs::remove_file(&path).map_err(FilesError::new("remove", &path))?;
        }
        Ok(())
    }
}

/// The checkpoints in a folder that have names of their own, in no order.
///
/// # Errors
///
/// A folder that cannot be read.
pub fn kept_checkpoints(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    Ok(moments(folder, KeptAt::of)?.into_iter().map(|moment| folder.join(moment.file())).collect())
}

/// Removes what a process that was killed has left of its work on such checkpoints, as [`striate_files::sweep`] does.
///
/// # Errors
///
/// A folder that cannot be read, and what cannot be removed.
pub fn sweep_kept(folder: &Path) -> Result<(), TrainError> {
    // `.NAME.RANDOM.tmp`
    let half = |name: &str| KeptAt::of(name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?.0);
    for moment in moments(folder, half)? {
        striate_files::sweep(&folder.join(moment.file()))?;
    }
    Ok(())
}

/// The moments that names in a folder stand for.
fn moments(folder: &Path, of: impl Fn(&str) -> Option<KeptAt>) -> Result<Vec<KeptAt>, FilesError> {
    let read = || -> std::io::Result<Vec<KeptAt>> {
        let mut moments = Vec::new();
        for entry in fs::read_dir(folder)? {
            moments.extend(entry?.file_name().to_str().and_then(&of));
        }
        Ok(moments)
    };
    read().map_err(FilesError::new("read", folder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_oldest_of_a_kind_go() {
        let folder = tempfile::tempdir().unwrap();
        let others = ["step-007.safetensors", "step-1.pt", "epoch-x.safetensors", "step-1.safetensors.bak", "last.safetensors"];
        let all = ["epoch-9", "epoch-10", "step-8", "step-9", "step-10", "step-12"].map(|name| format!("{name}.safetensors"));
        for name in all.iter().map(String::as_str).chain(others) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(kept_checkpoints(folder.path()).unwrap().len(), all.len());
        let keep = Keep { newest: Some(2), ..Keep::default() };
        // The run that came to step 12 died, and this one is at 10.
        keep.remove_older(folder.path(), KeptAt::Step(10)).unwrap();
        keep.remove_older(folder.path(), KeptAt::Epoch(10)).unwrap();
        let mut left: Vec<_> = kept_checkpoints(folder.path()).unwrap();
        left.sort();
        let expected = ["epoch-10", "epoch-9", "step-10", "step-12", "step-9"];
        assert_eq!(left, expected.map(|name| folder.path().join(format!("{name}.safetensors"))));
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn half_written_ones_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let [half, other] = [".step-5.safetensors.abcdefghijkl.tmp", ".x.safetensors.abcdefghijkl.tmp"];
        for name in ["step-5.safetensors", half, other] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        sweep_kept(folder.path()).unwrap();
        let is_there = |name: &str| folder.path().join(name).exists();
        assert_eq!((is_there("step-5.safetensors"), is_there(half), is_there(other)), (true, false, true));
    }

    #[test]
    fn a_moment_is_due_at_multiples() {
        let keep = Keep { epochs: Some(2), steps: None, newest: None };
        let due = [KeptAt::Epoch(1), KeptAt::Epoch(4), KeptAt::Step(4)].map(|moment| keep.is_due(moment));
        assert_eq!(due, [false, true, false]);
    }
}
