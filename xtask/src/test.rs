//! `cargo xtask test`: everything that a change has to pass.

use std::{
    fmt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use striate_cpu::{Level, VARIABLE};

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
        announce(&step.to_string());
        let status = workspace.cargo().args(step.cargo.split(' ')).envs(step.variable).status().context("cannot run cargo")?;
        if !status.success() {
            eprintln!("error: `{step}` failed");
            return Ok(exit_code(status));
        }
    }
    eprintln!("all checks and tests passed");
    Ok(ExitCode::SUCCESS)
}

/// Arguments of cargo, and an environment variable.
struct Step {
    cargo: &'static str,
    variable: Option<(&'static str, &'static str)>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, value)) = self.variable {
            write!(f, "{name}={value:?} ")?;
        }
        write!(f, "cargo {}", self.cargo)
    }
}

/// From what fails fastest to what takes longest. Features stay as they are: `doc-only` links no libtorch.
fn steps(nextest: bool) -> Vec<Step> {
    let plain = |cargo| Step { cargo, variable: None };
    let mut steps = vec![
        plain("fmt --all --check"),
        plain("clippy --workspace --all-targets -- -D warnings"),
        plain(if nextest { "nextest run --workspace" } else { "test --workspace --lib --bins --tests" }),
    ];
    // Layers and plans on kernels for fewer instructions than this processor has. The kernels' own tests take care of that themselves.
    let compute = if nextest {
        "nextest run -p striate-layers -p striate-infer"
    } else {
        "test -p striate-layers -p striate-infer --lib --tests"
    };
    let fewer = Level::ALL.into_iter().filter(|level| *level < Level::of_processor());
    steps.extend(fewer.map(|level| Step { cargo: compute, variable: Some((VARIABLE, level.name())) }));
    steps.extend([
        plain("test --workspace --doc"),
        Step { cargo: "doc --workspace --no-deps", variable: Some(("RUSTDOCFLAGS", "-D warnings")) },
        plain("package --workspace --no-verify --allow-dirty --offline --quiet"),
    ]);
    steps
}

fn announce(step: &str) {
    eprintln!("\n=== {step}");
}

fn has_nextest(workspace: &Workspace) -> bool {
    let mut cargo: Command = workspace.cargo();
    cargo.args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}
