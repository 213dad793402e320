//! The Python on the PATH, which may have a torch already and is one of the ways to get one; and one that surely has it.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use striate_fetch::{cache_dir, install_dir};

/// Finds the folder of the torch package without importing it, which would take seconds.
const FIND_TORCH: &str = "import importlib.util; print(importlib.util.find_spec('torch').submodule_search_locations[0])";

/// The Python of the active virtual environment, or else the one on the PATH.
pub(crate) fn interpreter() -> OsString {
    match env::var_os("VIRTUAL_ENV") {
        Some(environment) => PathBuf::from(environment).join("bin/python").into(),
        None => "python3".into(),
    }
}

/// The folder of the torch package that Python would import.
pub(crate) fn torch() -> Option<PathBuf> {
    output(&["-c", FIND_TORCH]).map(PathBuf::from)
}

/// What Python prints when it is run with `args`, if it succeeds.
pub(crate) fn output(args: &[&str]) -> Option<String> {
    let output = Command::new(interpreter()).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The torchvision that belongs to a version of PyTorch.
const TORCHVISION: [(&str, &str); 2] = [("2.11.0", "0.26.0"), ("2.13.0", "0.28.0")];
/// Prints the version of PyTorch if everything is there that fixtures and peers need.
const CHECK_PEERS: &str = "import numpy, safetensors, torchvision, torch; print(torch.__version__.split('+')[0])";

/// A Python that has PyTorch of this version, torchvision, numpy and safetensors: the one on the PATH if it has them, else one in
/// an environment of its own in the cache folder, which is made at first.
pub(crate) fn with_torch(version: &str) -> Result<PathBuf> {
    if output(&["-c", CHECK_PEERS]).as_deref() == Some(version) {
        return Ok(interpreter().into());
    }
    let (_, torchvision) = TORCHVISION
        .iter()
        .find(|(torch, _)| *torch == version)
        .with_context(|| format!("no torchvision is known for PyTorch {version}: add it to xtask/src/python.rs"))?;
    let environment = cache_dir()?.join("python").join(version);
    install_dir(
        &environment,
        || eprintln!("waiting for another Python environment to be made ..."),
        |folder| {
            eprintln!("making a Python environment with PyTorch {version} in {} (about 5 GB)", environment.display());
            let python = folder.join("bin/python");
            succeed(Command::new(interpreter()).args(["-m", "venv"]).arg(folder))
                .context("there is no `python3 -m venv` (on Debian, `apt-get install python3-venv` brings it)")?;
            let packages =
                [format!("torch=={version}"), format!("torchvision=={torchvision}"), "numpy".into(), "safetensors".into()];
            succeed(Command::new(python).args(["-m", "pip", "install", "--quiet"]).args(packages))
                .context("PyTorch cannot be installed for Python")
        },
    )?;
    Ok(environment.join("bin/python"))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { bail!("it ended with {status}") }
}
