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
pub(crate) const BENCH: (&str, &str) = ("striate-bench", "striate-bench");
/// Does in Python what the program asks.
const SCRIPT: &str = "xtask/peers/bench.py";
/// Does so for `striate-bench gpu`.
pub(crate) const CUDA_SCRIPT: &str = "xtask/peers/torch_cuda.py";
/// Has a package for each of the Rust peers, in a folder of its name, and one that they share. They belong to no workspace, so that
/// ordinary builds know nothing of them.
const RUST_PEERS: &str = "xtask/peers/rust";
const SHARED: &str = "protocol";
/// They run where they are built.
const NATIVE: &str = r#"build.rustflags=["-Ctarget-cpu=native"]"#;

/// Builds the program, makes the peers ready if `args` ask for them, and becomes `striate-bench ARGS...`.
pub(crate) fn run(workspace: &Workspace, args: &[OsString]) -> Result<ExitCode> {
    // `striate` too, whose start is measured.
    let folder = match build(workspace, &[STRIATE, BENCH], None)? {
        Built::Programs(folder) => folder,
        Built::Failed(code) => return Ok(code),
    };
    let program = folder.join(format!("{}{EXE_SUFFIX}", BENCH.1));
    let mut bench = Command::new(&program);
    bench.args(args);
    if args.first().is_some_and(|first| first == "gpu") && !wants(args, "--script") {
        bench.arg("--script").arg(workspace.root.join(CUDA_SCRIPT));
    }
    if wants(args, "--peers") && !wants(args, "--list") {
        let (rust, others) = rust_peers(workspace, args)?;
        if others && !wants(args, "--python") {
            let python = python::with_torch(workspace.libtorch_version()?, true)?;
            bench.arg("--python").arg(python).arg(workspace.root.join(SCRIPT));
        }
        if !rust.is_empty() && !wants(args, "--rust-peers") {
            match build_peers(workspace, &rust)? {
                Ok(folder) => bench.arg("--rust-peers").arg(folder),
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

/// The Rust peers that the arguments name, and whether they name others too.
fn rust_peers(workspace: &Workspace, args: &[OsString]) -> Result<(Vec<String>, bool)> {
    let folder = workspace.root.join(RUST_PEERS);
    let mut known = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        known.extend(entry?.file_name().into_string().ok().filter(|name| name != SHARED));
    }
    known.sort();
    Ok(named(known, args))
}

fn named(known: Vec<String>, args: &[OsString]) -> (Vec<String>, bool) {
    let given = args.iter().filter_map(|arg| arg.to_str()?.strip_prefix("--peers="));
    let names: Vec<&str> = given.flat_map(|names| names.split(',')).collect();
    if names.is_empty() || names.contains(&"all") {
        return (known, true);
    }
    let others = names.iter().any(|name| !known.iter().any(|known| known == name));
    (known.into_iter().filter(|known| names.contains(&known.as_str())).collect(), others)
}

/// Builds these Rust peers; the folder of their programs.
fn build_peers(workspace: &Workspace, names: &[String]) -> Result<Result<PathBuf, ExitCode>> {
    let target = target(workspace)?.join("peers");
    let folder = target.join("release");
    for name in names {
        let mut build = workspace.cargo();
        let manifest = format!("{RUST_PEERS}/{name}/Cargo.toml");
        build
            .args(["build", "--release", "--locked", "--config", NATIVE, "--manifest-path", &manifest, "--target-dir"])
            .arg(&target);
        if folder.join(format!("striate-peer-{name}{EXE_SUFFIX}")).exists() {
            build.arg("--quiet");
        }
        let built = build.status().context("cannot run cargo")?;
        if !built.success() {
            return Ok(Err(exit_code(built)));
        }
    }
    Ok(Ok(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn peers_are_made_ready_only_if_they_are_asked_for() {
        assert!(wants(&args("--full --peers"), "--peers"));
        assert!(wants(&args("--peers=pytorch"), "--peers"));
        assert!(!wants(&args("--filter --peerless"), "--peers"));
    }

    #[test]
    fn python_is_made_ready_only_for_its_own_peers() {
        let known = || ["burn", "candle", "tch"].map(str::to_owned).to_vec();
        let named = |text: &str| named(known(), &args(text));
        assert_eq!(named("--peers --rounds 3"), (known(), true));
        assert_eq!(named("--peers=all"), (known(), true));
        assert_eq!(named("--peers=tch,burn"), (vec!["burn".to_owned(), "tch".to_owned()], false));
        assert_eq!(named("--peers=openvino,tch"), (vec!["tch".to_owned()], true));
        assert_eq!(named("--peers=openvino"), (Vec::new(), true));
    }
}
