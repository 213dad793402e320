//! From the program that describes networks to those that compute.
use crate::error::CliError;
use crate::libtorch::{LOADER_PATH, loader_path};
use crate::signals;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The program that links libtorch. It lies beside this one.
const ENGINE: &str = "striate-engine";
/// The program that measures speed, which an archive has too.
const BENCH: &str = "striate-bench";

/// How often a thread of libgomp, libtorch's OpenMP, looks whether the others are done before it sleeps: a tenth of a millisecond on an Intel Xeon.
///
/// Its own 300,000 hold a core for 3 ms, while a thread that it waits for may want that core. With fewer, threads sleep between
/// a network's operators: 3000 cost nothing in the plan of ResNet-18 and 8% of LeNet-5's training step, 1000 cost 15 to 20%.
const SPINS: (&str, &str) = ("GOMP_SPINCOUNT", "10000");
/// With it, a user chose how threads wait.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Replaces this program by the one that computes, with the same command line: so that signals reach it, and its exit code is
/// this one's. Returns only if that fails.
pub(crate) fn take_over() -> Result<(), CliError> {
    let mut command_line = std::env::args_os();
    let name = command_line.next();
    let mut command = beside(ENGINE)?;
    if let Some(name) = name {
        command.arg0(name);
    }
    signals::hold()?;
    become_it(command.args(command_line))
}

/// Replaces this program by the one that measures. Returns only if that fails.
pub(crate) fn bench(args: &[OsString]) -> Result<(), CliError> {
    become_it(beside(BENCH)?.args(args))
}

/// A program that lies beside this one, and finds libtorch.
fn beside(name: &str) -> Result<Command, CliError> {
    let program = std::env::current_exe().and_then(std::fs::canonicalize);
    let program = program.map_err(|error| CliError::Failed(format!("cannot find the folder of this program: {error}")))?;
    let mut command = Command::new(program.with_file_name(name));
    // It is read once, when the library is loaded.
    if [SPINS.0, WAIT_POLICY].iter().all(|name| std::env::var_os(name).is_none()) {
        command.env(SPINS.0, SPINS.1);
    }
    if let Some(root) = program.ancestors().nth(2)
        && let Some(path) = loader_path(root)?
    {
        command.env(LOADER_PATH, path);
    }
    Ok(command)
}

fn become_it(command: &mut Command) -> Result<(), CliError> {
    let error = command.exec();
    let program = command.get_program().display();
    Err(CliError::Failed(match error.kind() {
        ErrorKind::NotFound => format!("{program} is missing, which computes for striate: install all programs into one folder"),
        _ => format!("cannot run {program}: {error}"),
    }))
}
