//! Building and running the `striate` program.

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
    let program = match build(workspace, &[STRIATE], part(name, args))? {
        Built::Programs(folder) => folder.join(format!("{}{EXE_SUFFIX}", STRIATE.1)),
        Built::Failed(code) => return Ok(code),
    };
    let mut striate = Command::new(&program);
    striate.arg(name).args(args);
    become_command(striate).with_context(|| format!("cannot run {}", program.display()))
}

/// What became of a build.
pub(crate) enum Built {
    /// The folder of the programs.
    Programs(PathBuf),
    /// Cargo has told why.
    Failed(ExitCode),
}

/// A package and the program of it that is called.
pub(crate) const STRIATE: (&str, &str) = ("striate-cli", "striate");

/// The feature of `striate` that a command takes, if it takes one: these take long to build.
fn part(name: &str, args: &[OsString]) -> Option<&'static str> {
    match name {
        "lab" | "report" => Some("lab"),
        "train" if args.iter().any(|arg| arg == "--report") => Some("lab"),
        "data" if args.first().is_some_and(|first| first == "check") => Some("lab"),
        "serve" => Some("serve"),
        "export" if args.iter().any(|arg| arg == "--check") => Some("check"),
        _ => None,
    }
}

/// Builds packages, with all programs of each, for release, and with one feature if there is one; gets libtorch if there is none.
pub(crate) fn build(workspace: &Workspace, packages: &[(&str, &str)], feature: Option<&str>) -> Result<Built> {
    setup::setup(workspace, &Options::default())?;
    let folder = target(workspace)?.join("release");
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--no-default-features"]);
    build.args(feature.iter().flat_map(|feature| ["--features", feature]));
    build.args(packages.iter().flat_map(|(package, _)| ["--package", package]));
    // The first build takes minutes, and cargo tells how far it is. Later ones take seconds, but for the first with a feature.
    if feature.is_none() && packages.iter().all(|(_, program)| folder.join(format!("{program}{EXE_SUFFIX}")).exists()) {
        build.arg("--quiet");
    }
    let built = build.status().context("cannot run cargo")?;
    Ok(if built.success() { Built::Programs(folder) } else { Built::Failed(exit_code(built)) })
}

/// Cargo's target folder.
pub(crate) fn target(workspace: &Workspace) -> Result<PathBuf> {
    let metadata = metadata(workspace, &["--no-deps"])?;
    let target = metadata["target_directory"].as_str().context("cargo metadata tells no target folder")?;
    Ok(PathBuf::from(target))
}

/// Replaces this process, so that signals reach the command and its exit code is ours.
pub(crate) fn become_command(mut command: Command) -> Result<ExitCode> {
    Err(command.exec().into())
}

/// The exit code of a finished command; 1 when a signal ended it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_a_feature_builds_it() {
        for (name, args, feature) in [
            ("lab", &["list"][..], Some("lab")),
            ("report", &["run"], Some("lab")),
            ("data", &["check", "x"], Some("lab")),
            ("train", &["--report"], Some("lab")),
            ("export", &["x.safetensors", "--check"], Some("check")),
            ("serve", &["x.safetensors"], Some("serve")),
            ("export", &["x.safetensors"], None),
            ("train", &["lenet5"], None),
            ("data", &["fetch", "check"], None),
            ("eval", &["--report"], None),
        ] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(part(name, &args), feature, "{name} {args:?}");
        }
    }
}
