//! `cargo xtask bench`: the program of `striate-bench`, with the peers that it is to be held against.

use std::{
    env::consts::EXE_SUFFIX,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    program::{Built, STRIATE, become_command, build, exit_code, target},
    python,
    workspace::Workspace,
};

/// A package and its program.
const BENCH: (&str, &str) = ("striate-bench", "striate-bench");
/// Does in Python what the program asks.
const SCRIPT: &str = "xtask/peers/bench.py";
/// The package of the Rust peers, which belongs to no workspace, so that ordinary builds know nothing of it.
const RUST_PEERS: &str = "xtask/peers/rust/Cargo.toml";

/// Builds the program, makes the peers ready if `args` ask for them, and becomes `striate-bench ARGS...`.
pub(crate) fn run(workspace: &Workspace, args: &[OsString]) -> Result<ExitCode> {
    // `striate` too, whose start is measured.
    let folder = match build(workspace, &[STRIATE, BENCH])? {
        Built::Programs(folder) => folder,
        Built::Failed(code) => return Ok(code),
    };
    let program = folder.join(format!("{}{EXE_SUFFIX}", BENCH.1));
    let mut bench = Command::new(&program);
    bench.args(args);
    if wants(args, "--peers") && !wants(args, "--list") {
        if !wants(args, "--python") {
            let python = python::with_torch(workspace.libtorch_version()?, true)?;
            bench.arg("--python").arg(python).arg(workspace.root.join(SCRIPT));
        }
        if !wants(args, "--rust-peers") {
            match rust_peers(workspace)? {
                Ok(peers) => bench.arg("--rust-peers").arg(peers),
                Err(code) => return Ok(code),
            };
        }
    }
    become_command(bench).with_context(|| format!("cannot run {}", program.display()))
}

/// Whether an option is among the arguments, with a value or without.
fn wants(args: &[OsString], option: &str) -> bool {
    args.iter().filter_map(|arg| arg.to_str()).any(|arg| arg.split('=').next() == Some(option))
}

/// Builds the Rust peers.
fn rust_peers(workspace: &Workspace) -> Result<Result<PathBuf, ExitCode>> {
    let target = target(workspace)?.join("peers");
    let program = target.join(format!("release/striate-peers{EXE_SUFFIX}"));
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--locked", "--manifest-path", RUST_PEERS, "--target-dir"]).arg(&target);
    if program.exists() {
        build.arg("--quiet");
    }
    let built = build.status().context("cannot run cargo")?;
    Ok(if built.success() { Ok(program) } else { Err(exit_code(built)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_made_ready_only_if_they_are_asked_for() {
        let args = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(wants(&args("--full --peers"), "--peers"));
        assert!(wants(&args("--peers=pytorch"), "--peers"));
        assert!(!wants(&args("--filter --peerless"), "--peers"));
    }
}
