//! `cargo xtask test`: everything that a change has to pass.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
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
    let cargo = |args: &str| {
        let mut cargo = workspace.cargo();
        cargo.args(args.split(' ')).envs(onnx_runtime.as_ref().map(|library| (wishes::ONNX_RUNTIME, library)));
        Step { name: format!("cargo {args}"), command: cargo }
    };
    // From what fails fastest to what takes longest. Features stay as they are: `doc-only` links no libtorch.
    let first = [
        cargo("fmt --all --check"),
        cargo("clippy --workspace --all-targets -- -D warnings"),
        // In one process for each crate: libtorch takes a quarter of a second to start, and most of these tests take less. One after
        // another: the process has one generator of random numbers, for example.
        cargo("test --workspace --lib --bins -- --test-threads=1"),
        cargo(if has_nextest(workspace) {
            "nextest run --workspace -E kind(test)+kind(example)"
        } else {
            "test --workspace --test * --example scaling"
        }),
    ];
    let last = [
        cargo("test --workspace --doc"),
        cargo("doc --workspace --no-deps").with("RUSTDOCFLAGS", "-D warnings"),
        cargo("package --workspace --no-verify --allow-dirty --offline --quiet"),
    ];
    for step in first {
        if let Some(code) = step.failure()? {
            return Ok(code);
        }
    }
    for step in of_older_processors(&programs(workspace)?)?.into_iter().chain(last) {
        if let Some(code) = step.failure()? {
            return Ok(code);
        }
    }
    eprintln!("all checks and tests passed");
    Ok(ExitCode::SUCCESS)
}

/// Tests share the cores, and threads that spin while they wait take most of the time from those that work.
const WAITING: (&str, &str) = ("OMP_WAIT_POLICY", "passive");
/// What computes with the kernels. The kernels' own tests run at every level by themselves.
const COMPUTE: [&str; 2] = ["striate-layers", "striate-infer"];
/// Emulated processors: one with AVX2, and one without. They show instructions that a processor lacks, which [`VARIABLE`] does not.
const OLDER: [&str; 2] = ["Haswell", "Nehalem"];
/// Tests of each kernel, as many as an emulator runs in some seconds.
const EMULATED: &str = "cpu::tests::the_level kernels::tests winograd::tests::bfloat16 pointwise::tests::it_is_the_convolution \
    norm::tests pixels::tests::of_equal conv::tests::autocasting";

/// A command, and what it is called.
struct Step {
    name: String,
    command: Command,
}

impl Step {
    fn with(mut self, variable: &str, value: &str) -> Self {
        self.command.env(variable, value);
        Self { name: format!("{variable}={value:?} {}", self.name), ..self }
    }

    /// Runs it. If it fails, its exit code, which has been told.
    fn failure(mut self) -> Result<Option<ExitCode>> {
        announce(&self.name);
        self.command.envs([WAITING]);
        let status = self.command.status().with_context(|| format!("cannot run {}", self.name))?;
        if !status.success() {
            eprintln!("error: `{}` failed", self.name);
        }
        Ok((!status.success()).then(|| exit_code(status)))
    }
}

/// A program with tests of a package.
struct Program {
    /// Such as `lib`.
    kind: String,
    package: PathBuf,
    path: PathBuf,
}

impl Program {
    /// Runs its tests where cargo would.
    fn step(&self, args: &[&str]) -> Step {
        self.step_of(Command::new(&self.path), args)
    }

    /// The same by a command that runs a program.
    fn step_by(&self, runner: &str, options: &[&str], args: &[&str]) -> Step {
        let mut command = Command::new(runner);
        command.args(options).arg(&self.path);
        let step = self.step_of(command, args);
        Step { name: format!("{runner} {} {}", options.join(" "), step.name), ..step }
    }

    fn step_of(&self, mut command: Command, args: &[&str]) -> Step {
        command.args(args).current_dir(&self.package);
        let package = self.package.file_name().unwrap_or_default().display();
        Step { name: format!("{package} ({}) {}", self.kind, args.join(" ")), command }
    }
}

/// The programs of all tests. Cargo has built them before, with the features of the whole workspace: for `-p`, it would build them
/// anew with fewer.
fn programs(workspace: &Workspace) -> Result<Vec<Program>> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-run", "--quiet", "--message-format", "json"]);
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests cannot be built");
    }
    let messages = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let messages: Vec<Value> = messages.map(serde_json::from_slice).collect::<Result<_, _>>()?;
    let program = |message: &Value| {
        let path = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
        let package = Path::new(message["manifest_path"].as_str()?).parent()?;
        let kind = message["target"]["kind"][0].as_str()?;
        Some(Program { kind: kind.to_owned(), package: package.to_owned(), path: path.into() })
    };
    Ok(messages.iter().filter_map(program).collect())
}

/// Layers and plans on kernels for fewer instructions than this processor has, and kernels on processors that have fewer.
fn of_older_processors(programs: &[Program]) -> Result<Vec<Step>> {
    let of = |package| {
        let programs: Vec<&Program> = programs.iter().filter(|program| program.package.ends_with(package)).collect();
        if programs.is_empty() { Err(anyhow!("{package} has no tests")) } else { Ok(programs) }
    };
    let compute: Vec<&Program> = COMPUTE.into_iter().map(of).collect::<Result<Vec<_>>>()?.concat();
    let kernels = of("striate-torch")?;
    let fewer = Level::ALL.into_iter().filter(|level| *level < Level::of_processor());
    let mut steps: Vec<Step> = fewer
        .flat_map(|level| {
            compute.iter().map(move |program| program.step(&["--quiet", "--test-threads=1"]).with(VARIABLE, level.name()))
        })
        .collect();
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) && wishes::QEMU.come_true() {
        let args: Vec<&str> = ["--test-threads=1"].into_iter().chain(EMULATED.split(' ')).collect();
        let emulated = |cpu| kernels.iter().map(|program| program.step_by("qemu-x86_64", &["-cpu", cpu], &args)).collect();
        steps.extend(OLDER.into_iter().flat_map::<Vec<_>, _>(emulated));
    }
    Ok(steps)
}

fn announce(step: &str) {
    eprintln!("\n=== {step}");
}

fn has_nextest(workspace: &Workspace) -> bool {
    let mut cargo = workspace.cargo();
    cargo.args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}
