//! `cargo xtask fixtures`: what tests compare with, made anew by PyTorch.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{program::exit_code, python, workspace::Workspace};

/// The script of the models' parity, which can also make them at full size.
const PARITY: &str = "crates/striate-models/tests/parity/make_fixtures.py";

/// What `fixtures` is asked for.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Makes those of whole models into this folder, for tests with STRIATE_FULL_PARITY=FOLDER, and no others
    #[arg(long, value_name = "FOLDER")]
    full: Option<PathBuf>,
}

/// Runs every script below a `tests` folder: each writes the fixtures beside it.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let python = python::with_torch(workspace.libtorch_version()?, false)?;
    let python = |script: &Path, args: &[&Path]| -> Result<ExitCode> {
        eprintln!("{}", script.display());
        let status = Command::new(&python).arg(script).args(args).status().context("cannot run Python")?;
        Ok(exit_code(status))
    };
    if let Some(folder) = &options.full {
        return python(&workspace.root.join(PARITY), &[Path::new("--full"), folder]);
    }
    for script in scripts(&workspace.root)? {
        let done = python(&script, &[])?;
        if done != ExitCode::SUCCESS {
            return Ok(done);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn scripts(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for package in entries(&root.join("crates"))? {
        let tests = package.join("tests");
        let folders = if tests.is_dir() { entries(&tests)? } else { Vec::new() };
        for folder in folders.into_iter().filter(|path| path.is_dir()) {
            found
                .extend(entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "py")));
        }
    }
    if found.is_empty() {
        bail!("{} holds no scripts that make fixtures", root.display());
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    let mut paths = read().with_context(|| format!("cannot read {}", folder.display()))?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_of_all_crates_are_found() {
        let workspace = Workspace::find().expect("this is a workspace");
        let scripts = scripts(&workspace.root).expect("there are scripts");
        assert!(scripts.contains(&workspace.root.join(PARITY)), "{scripts:?}");
        let crates: Vec<_> = scripts.iter().filter_map(|path| path.ancestors().nth(3)?.file_name()).collect();
        assert!(crates.contains(&"striate-layers".as_ref()), "{crates:?}");
    }
}
