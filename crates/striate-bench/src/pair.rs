//! The other process of a pair: this program again, which takes the same requests.
use crate::drive::{request, this_program};
use crate::{BenchError, Case};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;
use striate_train::distributed::{Meeting, Place};

/// How long one waits for the other in a step.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The other process, for the first one of a pair; the other one has none.
pub(crate) struct Partner(Option<Other>);

struct Other {
    child: Child,
    input: ChildStdin,
    answers: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
    _meeting: Meeting,
}

impl Partner {
    /// Starts the other process, unless this is it, and says where this one stands.
    pub(crate) fn meet(case: &Case, seed: u64) -> Result<(Self, Place), BenchError> {
        if let Some(place) = Place::from_env()? {
            return Ok((Self(None), place));
        }
        let meeting = Meeting::open()?;
        let attempt = meeting.attempt(0, 2)?;
        let folder = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
        let mut command = this_program()?;
        command.arg("work").envs(attempt.variables(1)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(BenchError::io("run this program again"))?;
        let (Some(mut input), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Failed("the other process of a pair has no pipes".to_owned()));
        };
        let line = serde_json::to_string(&request(case, seed, folder.path()));
        let line = line.map_err(|error| BenchError::Failed(error.to_string()))?;
        writeln!(input, "{line}").map_err(BenchError::io("ask the other process of a pair"))?;
        let answers = BufReader::new(answers);
        let other = Other { child, input, answers, _folder: folder, _meeting: meeting };
        Ok((Self(Some(other)), attempt.place(0)))
    }

    /// Has it do a step.
    pub(crate) fn begin(&mut self) -> Result<(), BenchError> {
        let Some(other) = &mut self.0 else { return Ok(()) };
        writeln!(other.input, "run 1")
            .and_then(|()| other.input.flush())
            .map_err(BenchError::io("ask the other process of a pair"))
    }

    /// Waits until it is ready, or has done the step.
    pub(crate) fn end(&mut self) -> Result<(), BenchError> {
        let Some(other) = &mut self.0 else { return Ok(()) };
        let mut line = String::new();
        other.answers.read_line(&mut line).map_err(BenchError::io("hear the other process of a pair"))?;
        if line.starts_with("{\"ms\"") || line.starts_with("{\"ready\"") {
            return Ok(());
        }
        Err(BenchError::Failed(format!("the other process of a pair: {}", line.trim())))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
