//! Programs and a library that tests wish for, and do not need.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use striate_fetch::{cache_dir, install_dir};

use crate::{python, workspace::Workspace};

/// One of them.
pub(crate) struct Wish {
    /// Names that it goes by.
    names: &'static [&'static str],
    /// Debian's package with it.
    package: &'static str,
    /// What is done with it.
    purpose: &'static str,
}

/// A browser.
pub(crate) const CHROMIUM: Wish =
    Wish { names: &["chromium", "chromium-browser", "google-chrome"], package: "chromium", purpose: "open a page in it" };
/// What clicks in a browser.
pub(crate) const CHROMEDRIVER: Wish = Wish { names: &["chromedriver"], package: "chromium-driver", purpose: "click on a page" };
/// A processor of another kind.
pub(crate) const QEMU: Wish =
    Wish { names: &["qemu-x86_64"], package: "qemu-user", purpose: "run kernels as on older processors" };

/// What refuses calls of the system.
pub(crate) const STRACE: Wish = Wish { names: &["strace"], package: "strace", purpose: "refuse threads and memory to a program" };

impl Wish {
    /// Whether it is there, or could be installed where that needs no password: as root, with apt. Says so if not.
    pub(crate) fn come_true(&self) -> bool {
        if self.names.iter().any(|name| succeeds(Command::new(name).arg("--version"))) {
            return true;
        }
        let Self { package, purpose, .. } = self;
        if is_root() {
            eprintln!("installing {package}, for tests that {purpose} ...");
            let apt = |args: &[&str]| succeeds(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"));
            let install = || apt(&["install", "--yes", "--no-install-recommends", package]);
            if install() || (apt(&["update"]) && install()) {
                return true;
            }
        }
        eprintln!("no {package}: tests that {purpose} are skipped");
        false
    }
}

/// Names ONNX Runtime's library to programs that load it.
pub(crate) const ONNX_RUNTIME: &str = "ORT_DYLIB_PATH";
/// The example that does.
const PREDICT_ORT: &str = "crates/striate-export/examples/predict_ort/Cargo.toml";
/// Prints where the library of Python's package is.
const FIND_ONNX_RUNTIME: &str = "import importlib.util, pathlib; package = importlib.util.find_spec('onnxruntime'); \
    print(next(pathlib.Path(package.submodule_search_locations[0]).glob('capi/libonnxruntime.so*')))";

/// ONNX Runtime's library: the one that [`ONNX_RUNTIME`] names, that of Python, or one that pip brings into the cache folder. Says so
/// if there is none, or if the packages of the example that loads it cannot be had.
pub(crate) fn onnx_runtime(workspace: &Workspace) -> Option<PathBuf> {
    let named = env::var_os(ONNX_RUNTIME).map(PathBuf::from);
    let found = named.or_else(|| python::output(&["-c", FIND_ONNX_RUNTIME]).map(PathBuf::from)).or_else(installed);
    let fetched = || succeeds(workspace.cargo().args(["fetch", "--locked", "--manifest-path", PREDICT_ORT]));
    let library = found.filter(|library| library.is_file() && fetched());
    if library.is_none() {
        eprintln!("no ONNX Runtime, or no packages of the example that loads it: the test that runs it is skipped");
    }
    library
}

/// The library of the package in the cache folder, which is brought there at first.
fn installed() -> Option<PathBuf> {
    let folder = cache_dir().ok()?.join("onnxruntime");
    let install = |folder: &Path| {
        eprintln!("installing onnxruntime, for the test that predicts with it ...");
        let mut pip = Command::new(python::interpreter());
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--retries=1", "--target"]).arg(folder).arg("onnxruntime");
        anyhow::ensure!(succeeds(&mut pip), "pip cannot install onnxruntime");
        Ok(())
    };
    install_dir(&folder, || eprintln!("waiting for another to install onnxruntime ..."), install).ok()?;
    let files = std::fs::read_dir(folder.join("onnxruntime/capi")).ok()?;
    let is_library =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"));
    files.flatten().map(|entry| entry.path()).find(is_library)
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
