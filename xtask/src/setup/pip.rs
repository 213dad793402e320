//! libtorch from PyTorch's wheel, for machines that reach nothing but a Python package index.
//!
//! The wheel is a CUDA build, and its libraries are the same for every Python. A CPU-only libtorch is a part of it: without
//! `libtorch_cuda.so` nothing asks for CUDA, but `libtorch_cpu.so` is linked with CUDA's runtime and its profiler interface, which
//! lie in wheels of their own.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use striate_fetch::FetchError;

use super::{Wanted, unpack};
use crate::python;

/// The part of the wheel's libraries that makes a CPU-only libtorch.
const CPU_LIBRARIES: [&str; 3] = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"];
/// What `libtorch_cpu.so` needs of CUDA: the packages, whose names may end with CUDA's version, and the libraries in them.
const CPU_NEEDS: [(&str, &str); 2] = [("nvidia-cuda-runtime", "libcudart.so"), ("nvidia-cuda-cupti", "libcupti.so")];

/// Downloads the wheels into `downloads`, and puts their headers and libraries into `folder`.
pub(super) fn install(folder: &Path, downloads: &Path, wanted: Wanted) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("only Linux wheels are known to work: set LIBTORCH to a libtorch of your own");
    }
    if python::output(&["-m", "pip", "--version"]).is_none() {
        bail!("there is no `python3 -m pip` (on Debian, `apt-get install python3-pip` brings it)");
    }
    let sizes = if wanted.cuda { "2.5 GB to download, 3.9 GB" } else { "540 MB to download, 486 MB" };
    eprintln!("getting libtorch {} out of PyTorch's Python wheel: {sizes} on disk", wanted.version);
    let torch = download(downloads, "torch", &format!("torch=={}", wanted.version))?;
    unpack::unpack(&torch, folder, |path| place_of_torch(path, wanted.cuda))?;
    for needed in cuda_requirements(downloads, &torch)? {
        let library = CPU_NEEDS.iter().find(|(package, _)| needed.name.starts_with(package)).map(|(_, library)| *library);
        if !wanted.cuda && library.is_none() {
            continue;
        }
        let wheel = download(downloads, &needed.name, &format!("{}{}", needed.name, needed.version))?;
        unpack::unpack(&wheel, folder, |path| if wanted.cuda { place_of_cuda(path) } else { place_of_library(path, library?) })?;
    }
    finish(folder, wanted.version)
}

/// The names by which torch-sys links, and the file by which it tells the version.
fn finish(folder: &Path, version: &str) -> Result<()> {
    for (link, target) in [("libtorch.so", "libtorch_cpu.so"), ("libgomp.so", "libgomp.so.1")] {
        let link = folder.join("lib").join(link);
        match symlink(target, &link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(FetchError::io("create", &link, e).into());
            }
            _ => {}
        }
    }
    let file = folder.join("build-version");
    Ok(striate_files::write_new(&file, |file| writeln!(file, "{version}")).map_err(FetchError::from)?)
}

/// Where a file of the torch wheel belongs.
fn place_of_torch(path: &Path, cuda: bool) -> Option<PathBuf> {
    let path = path.strip_prefix("torch").ok()?;
    let library = path.strip_prefix("lib").ok();
    let needed = match library {
        Some(name) => cuda || CPU_LIBRARIES.iter().any(|library| name == Path::new(library)),
        None => path.starts_with("include"),
    };
    needed.then(|| path.to_owned())
}

/// Where a file of one of CUDA's wheels belongs: `nvidia/cu13/lib/libcublas.so.13` and the headers beside it.
fn place_of_cuda(path: &Path) -> Option<PathBuf> {
    let inner: PathBuf = path.strip_prefix("nvidia").ok()?.components().skip(1).collect();
    (inner.starts_with("lib") || inner.starts_with("include")).then_some(inner)
}

/// Where a file of one of CUDA's wheels belongs, if it is `library`.
fn place_of_library(path: &Path, library: &str) -> Option<PathBuf> {
    place_of_cuda(path).filter(|path| path.parent() == Some(Path::new("lib")) && file_name(path).starts_with(library))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// A line `Requires-Dist: NAME[EXTRA,...]VERSION; MARKER` of a wheel's metadata.
#[derive(Debug, PartialEq)]
struct Requirement {
    name: String,
    extras: Vec<String>,
    /// With its comparison, such as `==13.0.96.*`.
    version: String,
    marker: String,
}

impl Requirement {
    fn parse(line: &str) -> Option<Self> {
        let (requirement, marker) = line.strip_prefix("Requires-Dist:").map(|rest| rest.split_once(';').unwrap_or((rest, "")))?;
        let requirement = requirement.replace([' ', '(', ')'], "");
        let end = requirement.find(['=', '<', '>', '!', '~']).unwrap_or(requirement.len());
        let (name, version) = requirement.split_at(end);
        let (name, extras) = name.trim_end_matches(']').split_once('[').unwrap_or((name, ""));
        let extras = extras.split(',').filter(|extra| !extra.is_empty()).map(str::to_owned).collect();
        Some(Self { name: name.to_owned(), extras, version: version.to_owned(), marker: marker.trim().to_owned() })
    }

    /// Whether this is what its package requires for one of `extras`.
    fn is_for(&self, extras: &[String]) -> bool {
        extras.iter().any(|extra| {
            self.marker.ends_with(&format!("extra == '{extra}'")) || self.marker.ends_with(&format!("extra == \"{extra}\""))
        })
    }
}

fn requirements(wheel: &Path) -> Result<Vec<Requirement>> {
    Ok(unpack::read_text(wheel, ".dist-info/METADATA")?.lines().filter_map(Requirement::parse).collect())
}

/// The wheels with CUDA's libraries that the torch wheel requires: itself, or by way of extras of `cuda-toolkit`. The headers of CUDA's
/// runtime, which is among them, need those of `crt`.
fn cuda_requirements(downloads: &Path, torch: &Path) -> Result<Vec<Requirement>> {
    let (toolkit, others): (Vec<_>, Vec<_>) = requirements(torch)?.into_iter().partition(|needed| needed.name == "cuda-toolkit");
    let mut found: Vec<_> = others.into_iter().filter(|needed| needed.name.starts_with("nvidia-")).collect();
    for toolkit in toolkit {
        let wheel = download(downloads, &toolkit.name, &format!("{}{}", toolkit.name, toolkit.version))?;
        let extras = [toolkit.extras, vec!["crt".to_owned()]].concat();
        found.extend(requirements(&wheel)?.into_iter().filter(|needed| needed.is_for(&extras)));
    }
    Ok(found)
}

/// Has pip download one wheel into a folder of its own, which tells which file that is.
///
/// Pip verifies the hash that its index gives, also of a file that is there from an earlier attempt.
fn download(downloads: &Path, name: &str, requirement: &str) -> Result<PathBuf> {
    let folder = downloads.join(name);
    striate_files::create_folder(&folder).map_err(FetchError::from)?;
    let output = Command::new(python::interpreter())
        .args(["-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", requirement, "-d"])
        .arg(&folder)
        .stdin(Stdio::null())
        // Standard output belongs to the program that is run after setup; pip draws its progress bar on it.
        .stdout(io::stderr())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|pip| pip.wait_with_output())
        .context("cannot run pip")?;
    if !output.status.success() {
        bail!("pip cannot download {requirement}: {}", reason(&String::from_utf8_lossy(&output.stderr)));
    }
    let wheels = fs::read_dir(&folder).map_err(|e| FetchError::io("read", &folder, e))?;
    let wheel = wheels.flatten().map(|entry| entry.path()).find(|path| path.extension() == Some(OsStr::new("whl")));
    wheel.with_context(|| format!("pip left no wheel of {requirement} in {}", folder.display()))
}

/// The one line of pip's complaints that says most.
fn reason(stderr: &str) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines()
        .find_map(|line| line.strip_prefix("ERROR: ").filter(|line| *line != "Exception:"))
        .or_else(|| lines().next_back())
        .unwrap_or("it tells no reason");
    let hint = if line.contains("No space left") { " (pip also needs room in TMPDIR)" } else { "" };
    format!("{line}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_requirements_as_wheels_tell_them() {
        let toolkit = Requirement::parse(r#"Requires-Dist: cuda-toolkit[cudart,cupti]==13.0.3; platform_system == "Linux""#);
        let expected = Requirement {
            name: "cuda-toolkit".to_owned(),
            extras: vec!["cudart".to_owned(), "cupti".to_owned()],
            version: "==13.0.3".to_owned(),
            marker: r#"platform_system == "Linux""#.to_owned(),
        };
        assert_eq!(toolkit.as_ref(), Some(&expected));
        let runtime = "Requires-Dist: nvidia-cuda-runtime==13.0.96.*; (sys_platform == 'linux') and extra == 'cudart'";
        let runtime = Requirement::parse(runtime).filter(|needed| needed.is_for(&expected.extras));
        assert_eq!(runtime.map(|needed| needed.version).as_deref(), Some("==13.0.96.*"));
        let all = "Requires-Dist: nvidia-cublas==13.1.0.3.*; (sys_platform == 'linux') and extra == 'all'";
        assert!(Requirement::parse(all).is_some_and(|needed| !needed.is_for(&expected.extras)));
        assert_eq!(Requirement::parse("Requires-Dist: filelock").map(|needed| needed.name).as_deref(), Some("filelock"));
        assert_eq!(Requirement::parse("Requires-Python: >=3.10"), None);
    }

    #[test]
    fn places_files_of_the_wheels() {
        let torch = |path, cuda| place_of_torch(Path::new(path), cuda).map(|path| path.display().to_string());
        assert_eq!(torch("torch/lib/libc10.so", false).as_deref(), Some("lib/libc10.so"));
        assert_eq!(torch("torch/include/ATen/ATen.h", false).as_deref(), Some("include/ATen/ATen.h"));
        assert_eq!(torch("torch/lib/libtorch_cuda.so", false), None);
        assert_eq!(torch("torch/lib/libtorch_cuda.so", true).as_deref(), Some("lib/libtorch_cuda.so"));
        assert_eq!(torch("torch/nn/__init__.py", true), None);
        let runtime = Path::new("nvidia/cu13/lib/libcudart.so.13");
        assert_eq!(place_of_library(runtime, "libcudart.so"), Some("lib/libcudart.so.13".into()));
        assert_eq!(place_of_library(runtime, "libcupti.so"), None);
        assert_eq!(place_of_cuda(Path::new("nvidia/cu13/include/cuda.h")), Some("include/cuda.h".into()));
    }

    #[test]
    fn tells_pips_reason_in_one_line() {
        let stderr =
            "WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement torch==9\nERROR: No match\n";
        assert_eq!(reason(stderr), "Could not find a version that satisfies the requirement torch==9");
        let crash = "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device\n";
        assert_eq!(reason(crash), "OSError: [Errno 28] No space left on device (pip also needs room in TMPDIR)");
    }
}
