//! The libtorch of this machine, for an archive that brings none.
//!
//! `cargo xtask dist --without-libtorch` puts a note into the archive's `lib` that says which libtorch its programs want. Where there is a
//! note, `LIBTORCH` is looked at, then the Python of the active environment or of the PATH.
use crate::error::CliError;
use serde::Deserialize;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The note's place in the archive.
const NOTE: &str = "lib/libtorch.toml";
/// The variable by which the system's loader is told of further folders.
pub(crate) const LOADER_PATH: &str = "LD_LIBRARY_PATH";
/// Finds the folder of the torch package without importing it, which would take seconds.
const FIND_TORCH: &str =
    "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')";

/// What an archive wants.
#[derive(Debug, Deserialize)]
struct Wanted {
    version: String,
    cuda: bool,
}

/// Where the loader must look so that a program of the archive in the folder `root` starts; nothing if the archive has its libtorch, or
/// if this is no archive.
///
/// # Errors
///
/// This machine has no libtorch, or none that fits: the line says which one is wanted.
pub(crate) fn loader_path(root: &Path) -> Result<Option<OsString>, CliError> {
    let note = root.join(NOTE);
    let Ok(text) = fs::read_to_string(&note) else { return Ok(None) };
    let wanted: Wanted = toml::from_str(&text)
        .map_err(|_| CliError::Failed(format!("{} is damaged: unpack the archive again", note.display())))?;
    let given = env::var_os("LIBTORCH").filter(|path| !path.is_empty());
    let (from, torch) = match given {
        Some(path) => ("LIBTORCH", Some(PathBuf::from(path))),
        None => ("Python's torch", torch_of_python()),
    };
    let torch = torch.ok_or_else(|| wanted.refuse("this machine's Python has no torch"))?;
    wanted.check(&torch).map_err(|reason| wanted.refuse(&format!("{from}, {}, {reason}", torch.display())))?;
    let mut folders = vec![torch.join("lib")];
    folders.extend(cuda_of_wheels(&torch));
    folders.extend(env::var_os(LOADER_PATH).iter().flat_map(env::split_paths));
    let path = env::join_paths(folders).map_err(|error| CliError::Usage(format!("{}: {error}", torch.display())))?;
    Ok(Some(path))
}

impl Wanted {
    fn refuse(&self, found: &str) -> CliError {
        let Self { version, cuda } = self;
        let cuda = if *cuda { " with CUDA" } else { "" };
        CliError::Usage(format!(
            "{found}, but these programs need libtorch {version}{cuda}: activate a Python environment that has torch=={version}, or set \
             LIBTORCH to a folder of that libtorch"
        ))
    }

    /// What is wrong with the libtorch in a folder.
    fn check(&self, torch: &Path) -> Result<(), String> {
        match version(torch) {
            None => Err("is no libtorch".to_owned()),
            Some(version) if version != self.version => Err(format!("has version {version}")),
            Some(_) if self.cuda && !torch.join("lib/libtorch_cuda.so").exists() => Err("was built without CUDA".to_owned()),
            Some(_) => Ok(()),
        }
    }
}

/// The version of a libtorch, or of Python's package, without its build tag: `2.13.0` for `2.13.0+cpu`.
fn version(torch: &Path) -> Option<String> {
    let of_libtorch = || fs::read_to_string(torch.join("build-version")).ok();
    let of_package = || {
        let text = fs::read_to_string(torch.join("version.py")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(line.trim_matches(['\'', '"']).to_owned())
    };
    let version = of_libtorch().or_else(of_package)?;
    version.trim().split('+').next().map(str::to_owned)
}

/// The folder of the torch package that the Python of the active environment, or of the PATH, would import.
fn torch_of_python() -> Option<PathBuf> {
    let python =
        env::var_os("VIRTUAL_ENV").map_or_else(|| "python3".into(), |environment| Path::new(&environment).join("bin/python"));
    let output = Command::new(python).args(["-c", FIND_TORCH]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(PathBuf::from(folder.trim())).filter(|folder| !folder.as_os_str().is_empty())
}

/// The folders of CUDA's libraries that lie beside Python's torch, in wheels of their own.
fn cuda_of_wheels(torch: &Path) -> Vec<PathBuf> {
    let wheels = torch.with_file_name("nvidia").read_dir().into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = wheels.map(|wheel| wheel.path().join("lib")).filter(|lib| lib.is_dir()).collect();
    folders.sort();
    folders
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_without_python() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(version(folder.path()), None);
        fs::write(folder.path().join("version.py"), "from typing import Optional\n__version__ = '2.11.0+cu130'\ndebug = False\n")
            .unwrap();
        assert_eq!(version(folder.path()).as_deref(), Some("2.11.0"));
        fs::write(folder.path().join("build-version"), "2.13.0+cpu\n").unwrap();
        assert_eq!(version(folder.path()).as_deref(), Some("2.13.0"));
    }
}
