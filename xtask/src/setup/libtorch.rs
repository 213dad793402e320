//! A libtorch folder: which version it is, and whether it has CUDA.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::Wanted;

/// The headers that tell the version, in newer and in older versions.
const VERSION_HEADERS: [&str; 2] = ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"];

/// The libraries that a program links.
const LIBRARIES: [&str; 3] = ["torch_cpu", "torch", "c10"];

/// A folder with libtorch's headers in `include` and its libraries in `lib`.
#[derive(Debug)]
pub(crate) struct Libtorch {
    path: PathBuf,
    version: String,
}

impl Libtorch {
    /// The libtorch in the folder `path`.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            bail!("{} is not there, or is no folder", path.display());
        }
        let libraries = LIBRARIES.map(|name| path.join("lib").join(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}")));
        for needed in libraries.into_iter().chain([path.join("include")]) {
            if !needed.exists() {
                bail!("{} is no whole libtorch: there is no {}", path.display(), needed.display());
            }
        }
        let version = version(path).with_context(|| format!("{} does not tell its version", path.display()))?;
        Ok(Self { path: path.to_owned(), version })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn has_cuda(&self) -> bool {
        self.path.join("lib").join(format!("{DLL_PREFIX}torch_cuda{DLL_SUFFIX}")).exists()
    }

    /// This libtorch, if it is what is wanted.
    pub(crate) fn suited_to(self, wanted: Wanted) -> Result<Self> {
        if self.version != wanted.version {
            bail!("{} is libtorch {} where {} is needed", self.path.display(), self.version, wanted.version);
        }
        if wanted.cuda && !self.has_cuda() {
            bail!("{} is a libtorch without CUDA", self.path.display());
        }
        Ok(self)
    }
}

impl fmt::Display for Libtorch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = if self.has_cuda() { "CPU and CUDA" } else { "CPU" };
        write!(f, "{} ({devices}) in {}", self.version, self.path.display())
    }
}

/// The version without its build tag: `2.13.0` for `2.13.0+cpu`.
fn version(path: &Path) -> Option<String> {
    if let Ok(version) = fs::read_to_string(path.join("build-version")) {
        return version.trim().split('+').next().map(str::to_owned);
    }
    VERSION_HEADERS.iter().find_map(|header| header_version(&fs::read_to_string(path.join(header)).ok()?))
}

/// The version that the lines `#define TORCH_VERSION_MAJOR 2` and so on tell.
fn header_version(header: &str) -> Option<String> {
    let part = |name: &str| {
        header.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["#define", key, value] if key == name => Some(value),
            _ => None,
        })
    };
    let [major, minor, patch] = ["TORCH_VERSION_MAJOR", "TORCH_VERSION_MINOR", "TORCH_VERSION_PATCH"].map(part);
    Some(format!("{}.{}.{}", major?, minor?, patch?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_a_header() {
        let header = "#pragma once\n/// Indicates the version.\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 13\n\
                      #define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION \\\n  \"2.13.0\"\n";
        assert_eq!(header_version(header).as_deref(), Some("2.13.0"));
        assert_eq!(header_version("#define TORCH_VERSION_MAJOR 2"), None);
    }
}
