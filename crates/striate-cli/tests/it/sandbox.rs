//! A folder of its own for each test, the program run in it, and the inputs that tests write.
use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin;
use std::path::{Path, PathBuf};
use std::process::Child;
use striate_datasets::{Fit, Normalise, Preprocess, idx};
use striate_graph::{InitOptions, Network};
use striate_models::{Bundle, BundleInfo, find};
use striate_torch::TensorFile;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// A run of one epoch with large batches.
pub(crate) const QUICK: [&str; 6] = ["--epochs", "1", "--batch-size", "300", "--threads", "1"];

pub(crate) struct Sandbox(TempDir);

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file of the sandbox and returns its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The names in the sandbox, or in a folder of it, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The program in the sandbox, with no cache of datasets and without colours.
    pub(crate) fn striate(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(self.0.path()).args(args).env_remove("STRIATE_LOG").env("COLUMNS", "110");
        command
    }

    /// Runs a command that succeeds, and returns its standard output.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.striate(args).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "striate {args:?}: {err}");
        out
    }

    /// The same for a command that prints JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Trains LeNet-5 for an epoch into the folder `run`.
    #[track_caller]
    pub(crate) fn train_quickly(&self) {
        self.ok(&[&["train", "--out", "run"], &QUICK[..]].concat());
    }

    /// Runs a command that is refused as a wrong call or bad input: exit code 2. Returns the line that says why.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        error_line(self.striate(args), 2)
    }

    /// The same, and checks that the line holds all of `parts`.
    #[track_caller]
    pub(crate) fn refused_with(&self, args: &[&str], parts: &[&str]) {
        let line = self.refused(args);
        for part in parts {
            assert!(line.contains(part), "striate {args:?}: {part:?} is not in {line:?}");
        }
    }

    /// A bundle of LeNet-5 with first weights for so many classes, for images of digits.
    pub(crate) fn bundle(&self, name: &str, classes: i64) -> PathBuf {
        let model = find("lenet5").unwrap().model(&[("classes", classes.into())]).unwrap();
        let network = Network::new(model.graph().unwrap(), &InitOptions::default()).unwrap();
        let preprocess = Preprocess::new([1, 8, 8], [1, 32, 32], Fit::Resize, Normalise::identity()).unwrap();
        let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
        let info = BundleInfo::of_model(&model, &names, Some(preprocess)).unwrap();
        let path = self.path(name);
        Bundle { info, state: network.state() }.write(&path).unwrap();
        path
    }

    /// A file with one tensor.
    pub(crate) fn tensor(&self, file: &str, name: &str, tensor: Tensor) {
        TensorFile { tensors: [(name.to_owned(), tensor)].into(), ..TensorFile::default() }.write(&self.path(file)).unwrap();
    }

    /// A folder on a disk of this size, which is soon full; none where a file system of one's own is refused, as to anybody but root.
    pub(crate) fn small_disk(&self, name: &str, size: &str) -> Option<SmallDisk> {
        let disk = self.path(name);
        std::fs::create_dir(&disk).unwrap();
        let mounted = run_quietly("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "small"], &disk);
        if !mounted {
            eprintln!("skipped: a file system of one's own takes root");
        }
        mounted.then_some(SmallDisk(disk))
    }

    /// A folder with MNIST's four files: 20 images of noise to train with, and 10 to test with.
    pub(crate) fn mnist(&self, folder: &str) {
        for (part, count) in [("train", 20), ("t10k", 10)] {
            let noise = Tensor::arange(count * 784, (Kind::Int64, Device::Cpu)).remainder(251).to_kind(Kind::Uint8);
            let labels = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(10).to_kind(Kind::Uint8);
            let path = |file: &str| self.path(&format!("{folder}/{part}-{file}"));
            idx::write_images(&path("images-idx3-ubyte"), &noise.view([count, 1, 28, 28])).unwrap();
            idx::write_labels(&path("labels-idx1-ubyte"), &labels).unwrap();
        }
    }
}

/// A file system that ends with the test.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run_quietly("umount", &[], &self.0);
    }
}

fn run_quietly(program: &str, args: &[&str], path: &Path) -> bool {
    let ran = std::process::Command::new(program).args(args).arg(path).stderr(std::process::Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// The program's file.
pub(crate) fn program() -> PathBuf {
    cargo_bin!("striate").into()
}

/// Runs a command that ends with `code`, and returns the one line of standard error that starts with `error:`.
#[track_caller]
pub(crate) fn error_line(mut command: Command, code: i32) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{command:?}: {err}");
    assert_eq!(out, "", "{command:?}: standard output holds results only");
    // Beside the error there are only the lines of epochs and of the log.
    let other = |line: &&str| !line.starts_with("epoch ") && !line.trim_start().starts_with("INFO ");
    let lines: Vec<&str> = err.lines().filter(other).collect();
    assert!(matches!(lines[..], [line] if line.starts_with("error: ")), "{command:?}: {err}");
    for leak in ["panicked", "Exception raised", "defect of striate", "\u{1b}["] {
        assert!(!err.contains(leak), "{command:?}: {err}");
    }
    lines[0].to_owned()
}

/// The tensors of a file, and the bytes of each, so that equality is of bits.
pub(crate) fn bits(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = |tensor: &Tensor| {
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        bytes
    };
    TensorFile::read(path).unwrap().tensors.iter().map(|(name, tensor)| (name.clone(), bytes(tensor))).collect()
}

/// Whether two figures are equal up to the rounding of a plan.
pub(crate) fn close(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
    (one - other).abs() <= 1e-5 * other.abs()
}

/// Sends the signal of Ctrl-C.
pub(crate) fn interrupt(child: &Child) {
    let status = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(status.success());
}
