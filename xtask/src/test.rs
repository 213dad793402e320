//! `cargo xtask test`: everything that a change has to pass.

use std::{
    collections::VecDeque,
    io::{Write, stderr},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Output, Stdio},
    sync::{Mutex, PoisonError},
    thread,
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
    let build = [
        cargo("fmt --all --check"),
        cargo("clippy --workspace --all-targets -- -D warnings"),
        cargo("test --workspace --no-run"),
    ];
    if let Some(code) = one_by_one(build)? {
        return Ok(code);
    }
    let programs = programs(workspace)?;
    // One core is often enough for each of them.
    let mut beside_each_other = vec![
        cargo("doc --workspace --no-deps").with("RUSTDOCFLAGS", "-D warnings"),
        cargo("test --workspace --doc"),
        cargo("package --workspace --no-verify --allow-dirty --offline --quiet"),
    ];
    beside_each_other.extend(of_older_processors(&programs)?);
    beside_each_other.extend(
        programs
            .iter()
            .filter(|program| ["lib", "bin"].contains(&program.kind.as_str()))
            .map(|program| program.step(&IN_ONE_PROCESS)),
    );
    if let Some(code) = side_by_side(beside_each_other)? {
        return Ok(code);
    }
    // These start programs, and share the cores by themselves.
    let across_crates = cargo(if has_nextest(workspace) {
        "nextest run --workspace -E kind(test)+kind(example)"
    } else {
        "test --workspace --test * --example scaling"
    });
    if let Some(code) = across_crates.failure()? {
        return Ok(code);
    }
    eprintln!("all checks and tests passed");
    Ok(ExitCode::SUCCESS)
}

/// Arguments of a program of unit tests. They run in one process for each crate: libtorch takes a quarter of a second to start, and most
/// of them take less. They run one after another: the process has one generator of random numbers, for example.
const IN_ONE_PROCESS: [&str; 2] = ["--quiet", "--test-threads=1"];
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
        Ok(self.code_of_failure(status))
    }

    /// The same, told when it has ended.
    fn failure_told_at_the_end(mut self) -> Result<Option<ExitCode>> {
        self.command.envs([WAITING]);
        let Output { status, stdout, stderr: told } =
            self.command.output().with_context(|| format!("cannot run {}", self.name))?;
        // In one piece, so that no other step's output comes between.
        stderr().write_all(&[format!("\n=== {}\n", self.name).as_bytes(), &stdout, &told].concat())?;
        Ok(self.code_of_failure(status))
    }

    fn code_of_failure(&self, status: ExitStatus) -> Option<ExitCode> {
        if status.success() {
            return None;
        }
        eprintln!("error: `{}` failed", self.name);
        Some(exit_code(status))
    }
}

/// Stops at the first step that fails.
fn one_by_one(steps: impl IntoIterator<Item = Step>) -> Result<Option<ExitCode>> {
    steps.into_iter().find_map(|step| step.failure().transpose()).transpose()
}

/// Runs as many steps at a time as there are cores, in their order. No further one begins when one has failed.
fn side_by_side(steps: Vec<Step>) -> Result<Option<ExitCode>> {
    let waiting = Mutex::new(VecDeque::from(steps));
    let lock = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let worker = || -> Result<Option<ExitCode>> {
        loop {
            let Some(step) = lock().pop_front() else { return Ok(None) };
            let failure = step.failure_told_at_the_end();
            if !matches!(failure, Ok(None)) {
                lock().clear();
                return failure;
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    failures.into_iter().find_map(Result::transpose).transpose()
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
        command.args(args).current_dir(&self.package).env("CARGO_MANIFEST_DIR", &self.package);
        let package = self.package.file_name().unwrap_or_default().display();
        Step { name: format!("{package} ({}) {}", self.kind, args.join(" ")), command }
    }
}

/// The programs of all tests, which cargo has built before.
fn programs(workspace: &Workspace) -> Result<Vec<Program>> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--message-format", "json"]);
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
        .flat_map(|level| compute.iter().map(move |program| program.step(&IN_ONE_PROCESS).with(VARIABLE, level.name())))
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
