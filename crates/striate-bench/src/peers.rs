//! Others that do the same work.
use crate::case::{Case, Mode};
use crate::{BenchError, turns::Side};
use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::Command;
use striate_torch::{Precision, nearest};

/// What a peer's process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// `xtask/peers/bench.py`.
    Python,
    /// A package of `xtask/peers/rust`.
    Rust,
}

/// Another way to do the same.
#[derive(Debug)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    program: Program,
    modes: &'static [Mode],
    precisions: &'static [Precision],
    env: &'static [(&'static str, &'static str)],
}

const FORWARD: &[Mode] = &[Mode::Infer, Mode::Plan];
const BOTH: &[Mode] = &[Mode::Infer, Mode::Plan, Mode::Train];
const FP32: &[Precision] = &[Precision::Float32];
const ANY: &[Precision] = &[Precision::Float32, Precision::Bfloat16];
/// glibc keeps what is freed, as our allocator does.
const KEEP_MEMORY: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592");

/// All of them.
pub const PEERS: &[Peer] = &[
    python("pytorch", &[Mode::Infer, Mode::Plan, Mode::Train, Mode::Start], FP32),
    python("pytorch-channels-last", BOTH, ANY),
    python("torchvision", &[Mode::Load], FP32),
    Peer { env: &[KEEP_MEMORY], ..python("pytorch-tuned", BOTH, FP32) },
    python("pytorch-ddp", &[Mode::Pair, Mode::Apart], FP32),
    python("pytorch-compile", BOTH, FP32),
    python("onnxruntime", FORWARD, FP32),
    python("openvino", FORWARD, ANY),
    rust("tch"),
    rust("candle"),
    rust("burn"),
];

const fn python(name: &'static str, modes: &'static [Mode], precisions: &'static [Precision]) -> Peer {
    Peer { name, program: Program::Python, modes, precisions, env: &[] }
}

const fn rust(name: &'static str) -> Peer {
    Peer { program: Program::Rust, ..python(name, BOTH, FP32) }
}

/// Where the programs of peers are; one that is not there is left out.
#[derive(Debug, Default)]
pub struct Programs {
    /// A Python that has the packages, and the script.
    pub python: Option<[PathBuf; 2]>,
    /// The folder with the programs of the Rust peers: `striate-peer-NAME`.
    pub rust: Option<PathBuf>,
}

/// The peers of these names, or all.
///
/// # Errors
///
/// An unknown name; the error tells the nearest.
pub fn choose(names: &[String]) -> Result<Vec<&'static Peer>, BenchError> {
    let known = || PEERS.iter().map(|peer| peer.name);
    let unknown = |name: &&String| *name != "all" && known().all(|known| known != name.as_str());
    if let Some(name) = names.iter().find(unknown) {
        let all: Vec<_> = known().collect();
        let near = nearest(name, known()).map_or_else(|| all.join(", "), |near| format!("did you mean {near}?"));
        return Err(BenchError::Usage(format!("there is no peer {name}: {near}")));
    }
    Ok(PEERS.iter().filter(|peer| names.iter().any(|name| name == "all" || name == peer.name)).collect())
}

impl Peer {
    /// Whether it does what the case says. Peers run on the CPU.
    pub fn takes(&self, case: &Case) -> bool {
        let shared = case.mode != Mode::Load || case.is_of_files();
        shared && self.modes.contains(&case.mode) && self.precisions.contains(&case.precision) && case.device == "cpu"
    }

    /// Starts its process.
    pub fn start(&self, programs: &Programs, threads: usize, folder: &Path) -> Result<Side, BenchError> {
        let absent = |what: &str| BenchError::Usage(format!("{what} was not given"));
        let mut command = match self.program {
            Program::Python => {
                let [python, script] = programs.python.as_ref().ok_or_else(|| absent("--python"))?;
                let mut command = Command::new(python);
                command.arg(script);
                command
            }
            Program::Rust => {
                let programs = programs.rust.as_ref().ok_or_else(|| absent("--rust-peers"))?;
                Command::new(programs.join(format!("striate-peer-{}{EXE_SUFFIX}", self.name)))
            }
        };
        command.envs(self.env.iter().copied()).current_dir(folder);
        command.envs(["OMP_NUM_THREADS", "RAYON_NUM_THREADS"].map(|name| (name, threads.to_string())));
        Side::start(self.name, command, folder)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_chosen_by_name_and_take_what_they_can() {
        assert_eq!(choose(&["all".to_owned()]).unwrap().len(), PEERS.len());
        let error = choose(&["pytorch-compil".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("did you mean pytorch-compile?"), "{error}");
        let openvino = choose(&["openvino".to_owned()]).unwrap()[0];
        let plan = Case::of("resnet18", Mode::Plan, 1, 2);
        assert!(openvino.takes(&plan) && !openvino.takes(&Case { mode: Mode::Train, ..plan.clone() }));
        assert!(!openvino.takes(&Case { device: "cuda:0".to_owned(), ..plan }));
        let torchvision = choose(&["torchvision".to_owned()]).unwrap()[0];
        let load = |model| torchvision.takes(&Case::of(model, Mode::Load, 64, 2));
        assert!(
            load("loader-imagenet-train")
                && load("loader-decode")
                && load("loader-cifar-jpeg")
                && load("loader-cifar-memory")
                && !load("loader-plain"),
            "memory is not shared"
        );
    }
}
