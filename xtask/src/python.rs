//! The Python on the PATH, which may have a torch already and is one of the ways to get one; and one that surely has it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
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
/// What fixtures and peers need beside PyTorch and torchvision.
const PACKAGES: [&str; 7] = ["numpy", "safetensors", "scipy", "timm", "onnx", "onnxruntime", "openvino"];
/// Prints the version of PyTorch if it is there with all the packages that are named as arguments, without importing any of them.
const CHECK: &str = "import sys, importlib.util, importlib.metadata; \
    missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]; \
    print('' if missing else importlib.metadata.version('torch').split('+')[0])";

/// A Python that has PyTorch of this version, torchvision, numpy, safetensors, scipy and timm, and, if
/// `peers` are to run in it, ONNX Runtime and OpenVINO: the one on the PATH if it has them, else
/// one in an environment of its own in the cache folder, which is made at first.
pub(crate) fn with_torch(version: &str, peers: bool) -> Result<PathBuf> {
    let needed = |python: &Path| has(python, version, &PACKAGES[..if peers { PACKAGES.len() } else { 4 }]);
    let own = PathBuf::from(interpreter());
    if needed(&own) {
        return Ok(own);
    }
    let (_, torchvision) = TORCHVISION
        .iter()
        .find(|(torch, _)| *torch == version)
        .with_context(|| format!("no torchvision is known for PyTorch {version}: add it to xtask/src/python.rs"))?;
    let install = |python: &Path| {
        let mut packages = vec![format!("torch=={version}"), format!("torchvision=={torchvision}")];
        packages.extend(PACKAGES.map(str::to_owned));
        succeed(Command::new(python).args(["-m", "pip", "install", "--quiet"]).args(packages))
            .context("PyTorch cannot be installed for Python")
    };
    let environment = cache_dir()?.join("python").join(version);
    let python = environment.join("bin/python");
    install_dir(
        &environment,
        || eprintln!("waiting for another Python environment to be made ..."),
        |folder| {
            eprintln!("making a Python environment with PyTorch {version} in {} (about 5 GB)", environment.display());
            succeed(Command::new(interpreter()).args(["-m", "venv"]).arg(folder))
                .context("there is no `python3 -m venv` (on Debian, `apt-get install python3-venv` brings it)")?;
            install(&folder.join("bin/python"))
        },
    )?;
    // One that was made before peers needed more.
    if !needed(&python) {
        install(&python)?;
    }
    Ok(python)
}

fn has(python: &Path, version: &str, packages: &[&str]) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", CHECK, "torch", "torchvision"]).args(packages).stdin(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success());
    output.is_some_and(|output| String::from_utf8_lossy(&output.stdout).trim() == version)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { bail!("it ended with {status}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_without_the_packages_is_not_taken() {
        assert!(!has(Path::new("/nowhere/python"), "2.13.0", &[]));
        assert!(!has(Path::new(&interpreter()), "2.13.0", &["no_such_package"]));
        assert!(!has(Path::new(&interpreter()), "0.0.1", &[]));
    }
}
