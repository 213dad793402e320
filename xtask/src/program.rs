//! Building and running the `striate` program, and the benchmarks.

use std::{
    env::consts::EXE_SUFFIX,
    ffi::OsString,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context, Result};

use crate::{check::metadata, setup, setup::Options, workspace::Workspace};

/// Builds the program if need be and becomes `striate NAME ARGS...`, in the caller's working directory.
pub(crate) fn run(workspace: &Workspace, name: &str, args: &[OsString]) -> Result<ExitCode> {
    setup::setup(workspace, &Options::default())?;
    let program = program_path(workspace)?;
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--package", "striate-cli"]);
    // The first build takes minutes, and cargo tells how far it is. Later ones take seconds.
    if program.exists() {
        build.arg("--quiet");
    }
    let built = build.status().context("cannot run cargo")?;
    if !built.success() {
        return Ok(exit_code(built));
    }
    let mut striate = Command::new(&program);
    striate.arg(name).args(args);
    become_command(striate).with_context(|| format!("cannot run {}", program.display()))
}

/// `cargo bench ARGS...` on the whole workspace.
pub(crate) fn bench(workspace: &Workspace, args: &[OsString]) -> Result<ExitCode> {
    setup::setup(workspace, &Options::default())?;
    let mut bench = workspace.cargo();
    bench.args(["bench", "--workspace"]).args(args);
    become_command(bench).context("cannot run cargo")
}

/// Where cargo puts the release build.
fn program_path(workspace: &Workspace) -> Result<PathBuf> {
    let metadata = metadata(workspace)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata tells no target folder")?;
    Ok(PathBuf::from(target).join("release").join(format!("striate{EXE_SUFFIX}")))
}

/// Replaces this process, so that signals reach the command and its exit code is ours.
fn become_command(mut command: Command) -> Result<ExitCode> {
    Err(command.exec().into())
}

/// The exit code of a finished command; 1 when a signal ended it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
