//! `cargo xtask check --sanitize`: kernels under AddressSanitizer and UndefinedBehaviorSanitizer, at each level of instructions.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use striate_cpu::Level;

use crate::workspace::Workspace;

/// As the build script has them, but for the optimisation and the sanitizers.
const FLAGS: [&str; 9] = [
    "-std=c++20",
    "-O1",
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fopenmp",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-w",
];
/// The program that calls every kernel.
const HARNESS: &str = "crates/striate-torch/csrc/sanitize/main.cpp";
/// What a kernel that is compiled for each level begins with.
const OF_LEVEL: &str = "\nnamespace LEVEL {";

/// Compiles the kernels with the program that calls them, and runs it at each level that this processor has.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let source = workspace.root.join("crates/striate-torch/csrc");
    let folder = tempfile::tempdir()?;
    let mut objects = Vec::new();
    let mut compile = |file: &Path, level: Option<usize>| -> Result<()> {
        let object = folder.path().join(format!("{}.o", objects.len()));
        let level = level.map(|level| format!("-DSTRIATE_LEVEL={level}"));
        succeed(compiler().args(FLAGS).args(level).arg("-c").arg(file).arg("-o").arg(&object))?;
        objects.push(object);
        Ok(())
    };
    for entry in fs::read_dir(source.join("kernels"))? {
        let file = entry?.path();
        if file.extension().is_none_or(|extension| extension != "cpp") {
            continue;
        }
        if fs::read_to_string(&file)?.contains(OF_LEVEL) {
            (0..Level::ALL.len()).try_for_each(|level| compile(&file, Some(level)))?;
        } else {
            compile(&file, None)?;
        }
    }
    compile(&workspace.root.join(HARNESS), None)?;
    let program = folder.path().join("sanitize");
    succeed(compiler().args(FLAGS).args(&objects).arg("-o").arg(&program))?;
    for (number, level) in Level::ALL.into_iter().enumerate().filter(|(_, level)| *level <= Level::of_processor()) {
        eprintln!("kernels at {level}");
        succeed(Command::new(&program).env("STRIATE_SANITIZED_LEVEL", number.to_string()))?;
    }
    eprintln!("the sanitizers found nothing");
    Ok(ExitCode::SUCCESS)
}

/// Fails if the program that calls the kernels no longer fits them: that takes a second, and running it a minute.
pub(crate) fn fits(workspace: &Workspace) -> Result<()> {
    succeed(compiler().args(FLAGS).arg("-fsyntax-only").arg(workspace.root.join(HARNESS)))
}

/// `CXX`, which may have words before the compiler, or `c++`.
fn compiler() -> Command {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("c++"));
    command.args(words);
    command
}

fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    Ok(())
}
