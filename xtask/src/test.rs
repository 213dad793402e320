//! `cargo xtask test`: everything that a change has to pass.

use std::{
    fmt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use striate_cpu::{Level, VARIABLE};

use crate::{check, program::exit_code, sanitize, setup, setup::Options, wishes, workspace::Workspace};

/// Runs every step, and stops at the first that fails.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::setup(workspace, &Options::default())?;
    announce("cargo xtask check");
    let checked = check::run(workspace)?;
    if checked != ExitCode::SUCCESS {
        return Ok(checked);
    }
    sanitize::fits(workspace)?;
    wishes::CHROMIUM.come_true();
    wishes::CHROMEDRIVER.come_true();
    wishes::STRACE.come_true();
    let onnx_runtime = wishes::onnx_runtime(workspace);
    for step in steps(has_nextest(workspace)) {
        announce(&step.to_string());
        let mut cargo = workspace.cargo();
        cargo.args(step.cargo.split(' ')).envs([WAITING]).envs(step.variable);
        cargo.envs(onnx_runtime.as_ref().map(|library| (wishes::ONNX_RUNTIME, library)));
        let status = cargo.status().context("cannot run cargo")?;
        if !status.success() {
            eprintln!("error: `{step}` failed");
            return Ok(exit_code(status));
        }
    }
    eprintln!("all checks and tests passed");
    Ok(ExitCode::SUCCESS)
}

/// Tests share the cores, and threads that spin while they wait take most of the time from those that work.
const WAITING: (&str, &str) = ("OMP_WAIT_POLICY", "passive");
/// An emulator of a processor with AVX2, and of one without. It shows instructions that a processor lacks, which [`VARIABLE`] does not.
const OLDER: [&str; 2] = ["qemu-x86_64 -cpu Haswell", "qemu-x86_64 -cpu Nehalem"];
/// Tests of each kernel, as many as an emulator runs in some seconds.
const EMULATED: &str = "test -p striate-torch --lib -- --test-threads=1 cpu::tests::the_level kernels::tests winograd::tests::bfloat16 \
    pointwise::tests::it_is_the_convolution norm::tests pixels::tests::of_equal conv::tests::autocasting";

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
    // Chosen by an expression, not by `-p`, they are those of the step before: with other features they would be compiled anew.
    let compute = if nextest {
        "nextest run --workspace -E package(striate-layers)+package(striate-infer)"
    } else {
        "test -p striate-layers -p striate-infer --lib --tests"
    };
    let fewer = Level::ALL.into_iter().filter(|level| *level < Level::of_processor());
    steps.extend(fewer.map(|level| Step { cargo: compute, variable: Some((VARIABLE, level.name())) }));
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) && wishes::QEMU.come_true() {
        steps.extend(
            OLDER
                .map(|runner| Step { cargo: EMULATED, variable: Some(("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner)) }),
        );
    }
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
