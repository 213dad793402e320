//! `cargo xtask doctor`: what is there, what is missing, and how to mend it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};
use striate_cpu::{Cores, Level};
use striate_fetch::cache_dir;

use crate::{
    python,
    setup::{Libtorch, Wanted},
    workspace::{Workspace, parse_toml},
};

/// The oldest GCC that compiles our kernels: older ones do not know their instructions. `striate-torch`'s build script says so too.
const OLDEST_GCC: u32 = 11;

/// What was found, or else what is missing and how to mend it.
type Finding = Result<String, String>;

/// Prints all findings; fails when something is missing without which nothing can be built.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let needed = [
        ("rust", rust(workspace)?),
        ("C++ compiler", cpp_compiler()),
        ("processor", processor()),
        ("threads", Ok(Cores::found().to_string())),
        ("libtorch", libtorch(workspace)),
        ("cache", cache()),
    ];
    let optional = [("python", python()), ("GPU", gpu()), ("CUDA", cuda(workspace)), ("datasets", datasets())];
    for (name, finding) in &needed {
        tell(name, finding, "missing");
    }
    for (name, finding) in &optional {
        tell(name, finding, "note");
    }
    let complete = needed.iter().all(|(_, finding)| finding.is_ok());
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(name: &str, finding: &Finding, otherwise: &str) {
    match finding {
        Ok(found) => println!("{:8} {name:13} {found}", "ok"),
        Err(mend) => println!("{otherwise:8} {name:13} {mend}"),
    }
}

fn rust(workspace: &Workspace) -> Result<Finding> {
    let manifest = parse_toml(&workspace.root.join("Cargo.toml"))?;
    let wanted = manifest["workspace"]["package"]["rust-version"].as_str().context("Cargo.toml lacks a rust-version")?;
    let Some(found) = first_line("rustc", &["--version"]) else {
        return Ok(Err("install Rust with rustup".to_owned()));
    };
    let new_enough = version_parts(found.split(' ').nth(1).unwrap_or_default()) >= version_parts(wanted);
    let cargo = first_line("cargo", &["--version"]).unwrap_or_default();
    Ok(if new_enough {
        Ok(format!("{found}; {cargo}"))
    } else {
        Err(format!("{found} is older than {wanted}: run `rustup update stable`"))
    })
}

/// The numbers of a version, for comparison.
fn version_parts(version: &str) -> Vec<u32> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

fn cpp_compiler() -> Finding {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    // It may have words before the compiler, as `ccache g++`.
    let words: Vec<_> = compiler.split_whitespace().chain(["--version"]).collect();
    let found = first_line(words[0], &words[1..])
        .ok_or_else(|| format!("{compiler} cannot be run: install a C++ compiler (on Debian, `apt-get install g++`)"))?;
    match gcc_version(&found) {
        Some(version) if version < OLDEST_GCC => {
            Err(format!("{found} is too old: install GCC {OLDEST_GCC} or newer, or set CXX to one that is there"))
        }
        _ => Ok(found),
    }
}

/// The major version in the line that GCC prints, `g++ (Debian 12.2.0-14) 12.2.0`. None of another compiler.
fn gcc_version(line: &str) -> Option<u32> {
    let (_, version) = line.rsplit_once(") ").filter(|(name, _)| !name.contains("clang"))?;
    version_parts(version).first().copied()
}

/// The instructions that kernels use.
fn processor() -> Finding {
    let level = striate_cpu::check().map_err(|error| error.to_string())?;
    Ok(match level {
        Level::Baseline => format!("{level}: kernels are libtorch's, ours need AVX2 and FMA"),
        _ => format!("{level}: kernels use these instructions"),
    })
}

fn libtorch(workspace: &Workspace) -> Finding {
    let version = workspace.libtorch_version().map_err(|error| format!("{error:#}"))?;
    if let Some(path) = workspace.users_libtorch() {
        let libtorch = Libtorch::at(&path).and_then(|libtorch| libtorch.suited_to(Wanted { version, cuda: false }));
        return libtorch.map(|libtorch| format!("{libtorch}, from LIBTORCH")).map_err(|error| {
            format!("LIBTORCH is wrong: {error:#}: set it to a folder with libtorch {version}, or unset it and run `cargo xtask setup`")
        });
    }
    let in_use = libtorch_in_use(workspace).ok_or_else(|| {
        format!("libtorch {version} is not set up: run `cargo xtask setup`, which {}", what_setup_would_do(version))
    })?;
    let source = match fs::canonicalize(in_use.path()).ok() {
        Some(path) if cache_dir().is_ok_and(|cache| path.starts_with(cache)) => "installed by setup",
        _ => "linked by setup",
    };
    let found = in_use.to_string();
    let suited = in_use.suited_to(Wanted { version, cuda: false });
    suited.map(|_| format!("{found}, {source}")).map_err(|error| format!("{error:#}: run `cargo xtask setup`"))
}

fn libtorch_in_use(workspace: &Workspace) -> Option<Libtorch> {
    Libtorch::at(&workspace.users_libtorch().or_else(|| workspace.noted_libtorch())?).ok()
}

fn what_setup_would_do(version: &'static str) -> String {
    let suits = |path: &PathBuf| Libtorch::at(path).and_then(|it| it.suited_to(Wanted { version, cuda: false })).is_ok();
    match python::torch().filter(suits) {
        Some(path) => format!("would use Python's torch in {}", path.display()),
        None => "would download it".to_owned(),
    }
}

/// The NVIDIA GPUs of this machine.
pub(crate) fn gpu() -> Finding {
    first_line("nvidia-smi", &["--list-gpus"]).ok_or_else(|| "none: there is no working nvidia-smi".to_owned())
}

fn cuda(workspace: &Workspace) -> Finding {
    let can = libtorch_in_use(workspace).is_some_and(|libtorch| libtorch.has_cuda());
    match (can, gpu()) {
        (true, Ok(_)) => Ok("libtorch and driver are there".to_owned()),
        (true, Err(_)) => Err("libtorch can use CUDA, but no GPU is seen: install NVIDIA's driver".to_owned()),
        (false, Ok(_)) => Err("libtorch is CPU-only: run `cargo xtask setup --cuda`".to_owned()),
        (false, Err(_)) => Err("not used: libtorch is CPU-only, and so is this machine".to_owned()),
    }
}

fn python() -> Finding {
    let found = python::output(&["--version"]).ok_or("none: only needed where setup cannot reach PyTorch's own archive")?;
    let pip = python::output(&["-m", "pip", "--version"]).ok_or_else(|| format!("{found} without pip: only needed by setup"))?;
    Ok(format!("{found} with {}", pip.split(" from ").next().unwrap_or(&pip)))
}

fn cache() -> Finding {
    let cache = cache_dir().map_err(|error| error.to_string())?;
    let existing = cache.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = fs4::available_space(existing).map_err(|error| format!("{}: {error}: set STRIATE_HOME", cache.display()))?;
    Ok(format!("{}, {} GB free (STRIATE_HOME moves it)", cache.display(), free / 1_000_000_000))
}

fn datasets() -> Finding {
    let folder = cache_dir().map_err(|error| error.to_string())?.join("datasets");
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    if names.is_empty() {
        return Err("none downloaded yet: `cargo xtask data` lists them".to_owned());
    }
    Ok(names.join(", "))
}

/// The first line that a program prints, if it can be run and succeeds.
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().filter(|_| output.status.success()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gcc_tells_its_version_and_others_have_none() {
        assert_eq!(gcc_version("g++ (Debian 12.2.0-14+deb12u1) 12.2.0"), Some(12));
        assert_eq!(gcc_version("c++ (Ubuntu 9.4.0-1ubuntu1~20.04.2) 9.4.0"), Some(9));
        assert_eq!(gcc_version("g++ (GCC) 8.5.0 20210514 (Red Hat 8.5.0-28)"), Some(8));
        assert_eq!(gcc_version("Debian clang version 14.0.6"), None);
        assert_eq!(gcc_version("Apple clang version 15.0.0 (clang-1500.3.9.4)"), None);
    }
}
