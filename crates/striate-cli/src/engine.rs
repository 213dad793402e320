//! From the program that describes networks to the one that computes them.
use crate::error::CliError;
use crate::signals;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The program that links libtorch. It lies beside this one.
const ENGINE: &str = "striate-engine";

/// Replaces this program by the one that computes, with the same command line: so that signals reach it, and its exit code is
/// this one's. Returns only if that fails.
pub(crate) fn take_over() -> Result<(), CliError> {
    let program = std::env::current_exe().and_then(std::fs::canonicalize);
    let program = program.map_err(|error| CliError::Failed(format!("cannot find the folder of this program: {error}")))?;
    let engine = program.with_file_name(ENGINE);
    let mut command_line = std::env::args_os();
    let mut command = Command::new(&engine);
    if let Some(name) = command_line.next() {
        command.arg0(name);
    }
    signals::hold()?;
    let error = command.args(command_line).exec();
    let engine = engine.display();
    Err(CliError::Failed(match error.kind() {
        ErrorKind::NotFound => format!("{engine} is missing, which computes for striate: install both programs into one folder"),
        _ => format!("cannot run {engine}: {error}"),
    }))
}
