//! The Python on the PATH, which may have a torch already and is one of the ways to get one.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
};

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
