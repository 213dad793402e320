//! `cargo xtask test`: everything that a change has to pass.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{browser, check, program::exit_code, setup, setup::Options, workspace::Workspace};

/// Runs every step, and stops at the first that fails.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::setup(workspace, &Options::default())?;
    announce("cargo xtask check");
    let checked = check::run(workspace)?;
    if checked != ExitCode::SUCCESS {
        return Ok(checked);
    }
    browser::install_where_possible();
    for step in steps(has_nextest(workspace)) {
        announce(&format!("cargo {step}"));
        let mut cargo = workspace.cargo();
        if step.starts_with("doc ") {
            cargo.env("RUSTDOCFLAGS", "-D warnings");
        }
        let status = cargo.args(step.split(' ')).status().context("cannot run cargo")?;
        if !status.success() {
            eprintln!("error: `cargo {step}` failed");
            return Ok(exit_code(status));
        }
    }
    eprintln!("all checks and tests passed");
    Ok(ExitCode::SUCCESS)
}

/// Arguments of cargo, from what fails fastest to what takes longest. Features stay as they are: `doc-only` links no libtorch.
fn steps(nextest: bool) -> [&'static str; 6] {
    [
        "fmt --all --check",
        "clippy --workspace --all-targets -- -D warnings",
        if nextest { "nextest run --workspace" } else { "test --workspace --lib --bins --tests" },
        "test --workspace --doc",
        "doc --workspace --no-deps",
        "package --workspace --no-verify --allow-dirty --offline --quiet",
    ]
}

fn announce(step: &str) {
    eprintln!("\n=== {step}");
}

fn has_nextest(workspace: &Workspace) -> bool {
    let mut cargo: Command = workspace.cargo();
    cargo.args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}
