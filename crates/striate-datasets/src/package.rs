//! Files of a Debian package, without installing it.

use crate::{DatasetError, catalogue::Package};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Downloads and unpacks a package into a temporary folder inside `folder`. It takes `apt-get` and `dpkg-deb`, and no privileges.
pub(crate) fn unpack(package: Package, folder: &Path) -> Result<TempDir, DatasetError> {
    tracing::info!("downloading the Debian package {}", package.name);
    let temporary = TempDir::new_in(folder).map_err(|error| DatasetError::io("create a folder in", folder, error))?;
    let path = temporary.path();
    let options = ["-qq", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"];
    run(package, Command::new("apt-get").args(options).args(["download", package.name]).current_dir(path))?;
    let entries = std::fs::read_dir(path).map_err(|error| DatasetError::io("read", path, error))?;
    let is_deb = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let deb = entries.filter_map(Result::ok).map(|entry| entry.path()).find(is_deb);
    let deb = deb.ok_or_else(|| fault(package, "apt-get left no file"))?;
    run(package, Command::new("dpkg-deb").arg("-x").args([&deb, path]))?;
    Ok(temporary)
}

fn run(package: Package, command: &mut Command) -> Result<(), DatasetError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.map_err(|error| fault(package, &format!("{program} cannot be run ({error})")))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().map(str::trim).find(|line| line.starts_with("E:")).unwrap_or("it gave no reason");
    let hint = if line.contains("Unable to locate") || line.contains("No candidate") || line.contains("Failed to fetch") {
        "; run `apt-get update` first"
    } else {
        ""
    };
    Err(fault(package, &format!("{program} failed ({}){hint}", line.trim_start_matches("E: "))))
}

fn fault(package: Package, reason: &str) -> DatasetError {
    DatasetError::Package { package: package.name, reason: reason.to_owned() }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PACKAGE: Package = Package { name: "dataset-x", folder: "usr/share/datasets/x" };

    fn shell(script: &str) -> Result<(), DatasetError> {
        run(PACKAGE, Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_failed_program_is_told_with_what_to_do() {
        shell("exit 0").unwrap();
        let error = shell("echo 'W: old' >&2; echo 'E: Unable to locate package dataset-x' >&2; exit 100").unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not download Debian package dataset-x: sh failed (Unable to locate package dataset-x); run `apt-get update` first"
        );
        assert!(shell("exit 1").unwrap_err().to_string().ends_with("sh failed (it gave no reason)"));
        let missing = run(PACKAGE, &mut Command::new("striate-no-such-program")).unwrap_err().to_string();
        assert!(missing.contains("striate-no-such-program cannot be run"), "{missing}");
    }
}
