//! Weights from files: `.safetensors`, bundles, and what `torch.save` writes; and files for PyTorch.
mod allowance;
mod candidates;
mod content;
mod doubts;
mod fit;
mod names;
mod pickle;
mod pytorch;
mod state_dict;

use crate::{BundleInfo, ModelError, Pretrained, Registry, TrainedOn, pretrained};
use content::{Content, content};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use striate_datasets::Preprocess;
use striate_graph::{GraphError, is_finite};
use striate_torch::{FileError, TensorFile, contained, note_file};
use tch::Tensor;

pub use fit::Loaded;
pub use state_dict::write_state_dict;

/// How a file keeps its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightsFormat {
    /// A `.safetensors` file that holds weights only.
    Safetensors,
    /// A `.safetensors` file that also describes its network.
    Bundle,
    /// The archive that PyTorch writes since 1.6.
    PytorchZip,
    /// The sequence of pickles that PyTorch wrote before 1.6.
    PytorchLegacy,
}

impl std::fmt::Display for WeightsFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Bundle => "bundle",
            Self::PytorchZip => "PyTorch, zip",
            Self::PytorchLegacy => "PyTorch, before 1.6",
        })
    }
}

/// Named tensors from a file of any format.
///
/// Tensors with a `/` in their names, such as the state of an optimizer in a checkpoint, are left out. So are the parts of
/// names that wrappers add (`module.` of data parallel training, `_orig_mod.` of `torch.compile`), but for a bundle's.
#[derive(Debug)]
#[non_exhaustive]
pub struct Weights {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: WeightsFormat,
    /// The tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// What a bundle says beside them.
    pub info: Option<BundleInfo>,
    /// Under which key of the file the tensors are, such as `state_dict`; deeper ones have dots between the keys.
    pub key: Option<String>,
    /// The keys of other networks in the file, such as `state_dict_ema`: [`Weights::read_at`] reads them.
    pub others: Vec<String>,
    /// The architecture that a training script named in the file.
    pub arch: Option<String>,
}

impl Weights {
    /// Tensors as if a file held them.
    pub fn new(path: &Path, format: WeightsFormat, tensors: BTreeMap<String, Tensor>) -> Self {
        Self { path: path.into(), format, tensors, info: None, key: None, others: Vec::new(), arch: None }
    }

    /// Reads a file; its content decides the format, whatever its name.
    ///
    /// A file of PyTorch may hold the tensors by name, or a whole `torch.nn.Module`, under any key. Where several networks
    /// are in it, the one under a usual key (`state_dict`, `model`, ...) is taken before averages of its weights (EMA);
    /// [`key`](Self::key) and [`others`](Self::others) tell. No code in it is run.
    ///
    /// # Errors
    ///
    /// One line that names the file, if it can't be read, is truncated or damaged, declares more than it holds, is of
    /// another format, holds several networks of which none is the likelier, holds tensors of a type that libtorch or the
    /// format has not, or would have PyTorch run something.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Self::read_with(path, &Registry::default())
    }

    /// [`read`](Self::read), where `registry` has layers and architectures of your own that a bundle may name, and the memory that
    /// a file may take.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read).
    pub fn read_with(path: &Path, registry: &Registry) -> Result<Self, ModelError> {
        Self::read_key(path, None, registry)
    }

    /// Reads the tensors under `key` of the file, which is one of [`others`](Self::others) or the beginning of names:
    /// `encoder` gives `encoder.conv1.weight` as `conv1.weight`.
    ///
    /// # Errors
    ///
    /// Those of [`Weights::read`], and [`ModelError::UnknownKey`].
    pub fn read_at(path: &Path, key: &str) -> Result<Self, ModelError> {
        Self::read_key(path, Some(key), &Registry::default())
    }

    fn read_key(path: &Path, key: Option<&str>, registry: &Registry) -> Result<Self, ModelError> {
        let mut weights = reading(path, || match content(path)? {
            Content::Safetensors => read_safetensors(path, key, registry),
            Content::Pytorch => pytorch::read(path, key, &registry.budget()),
        })?;
        weights.tensors.retain(|name, _| !name.contains('/'));
        if weights.info.is_none() {
            weights.tensors = names::unwrapped(weights.tensors);
        }
        Ok(weights)
    }
}

impl Weights {
    /// The published weights that the file is by its name.
    fn published(&self) -> Option<&'static Pretrained> {
        self.path.file_name().and_then(|name| pretrained().iter().find(|weights| name == weights.file))
    }

    /// How images became inputs when the weights were trained, if the file is a bundle or published.
    pub fn preprocess(&self) -> Option<Preprocess> {
        match &self.info {
            Some(info) => info.preprocess.clone(),
            None => self.published().and_then(|weights| weights.preprocess().ok()),
        }
    }

    /// The classes that the weights were trained on, if the file is a bundle or published.
    pub fn classes(&self) -> Option<Vec<String>> {
        match &self.info {
            Some(info) => Some(info.classes.clone()).filter(|classes| !classes.is_empty()),
            None => self.published().map(|weights| weights.classes().map(str::to_owned).collect()),
        }
    }

    /// The licence of the weights, if the file is a bundle that has one, or published.
    pub fn licence(&self) -> Option<String> {
        match &self.info {
            Some(info) => info.licence.clone(),
            None => self.published().map(|weights| weights.licence.to_owned()),
        }
    }

    /// The data that the weights were trained on, if the file is a bundle or published.
    pub fn trained_on(&self) -> Vec<TrainedOn> {
        match &self.info {
            Some(info) => info.trained_on.clone(),
            None => self.published().and_then(Pretrained::trained_on).into_iter().collect(),
        }
    }

    /// The names of the tensors that hold NaN or infinite values: a network takes none of them.
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory.
    pub fn not_finite(&self) -> Result<Vec<&str>, ModelError> {
        let mut names = Vec::new();
        for (name, tensor) in &self.tensors {
            if !is_finite(tensor).map_err(GraphError::from)? {
                names.push(name.as_str());
            }
        }
        Ok(names)
    }
}

/// What a file says beside its weights if it is a bundle; the weights are not read.
pub(crate) fn info(path: &Path, registry: &Registry) -> Result<Option<BundleInfo>, ModelError> {
    reading(path, || match content(path)? {
        Content::Safetensors => BundleInfo::from_metadata(&TensorFile::read_metadata(path)?, path, registry),
        Content::Pytorch => pytorch::check(path, &registry.budget()).map(|()| None),
    })
}

/// Notes that the file is read, and makes a panic of one of the formats' libraries an error.
fn reading<T>(path: &Path, read: impl FnOnce() -> Result<T, ModelError>) -> Result<T, ModelError> {
    note_file(path);
    contained(read, |panic| ModelError::DamagedPickle { path: path.into(), reason: panic })
}

fn read_error(path: &Path, source: std::io::Error) -> ModelError {
    FileError::Io { action: "read", path: path.into(), source }.into()
}

/// A text from a file of bounded length.
pub(crate) fn shortened(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

fn read_safetensors(path: &Path, key: Option<&str>, registry: &Registry) -> Result<Weights, ModelError> {
    let TensorFile { mut tensors, metadata } = TensorFile::read(path)?;
    let info = BundleInfo::from_metadata(&metadata, path, registry)?;
    if let Some(key) = key {
        let under = tensors.into_iter().filter_map(|(name, tensor)| Some((candidates::below(&name, key)?.to_owned(), tensor)));
        tensors = under.collect();
        if tensors.is_empty() {
            let key = shortened(key, 100);
            return Err(ModelError::UnknownKey { path: path.into(), key, known: candidates::NAMES.to_owned() });
        }
    }
    let format = if info.is_some() { WeightsFormat::Bundle } else { WeightsFormat::Safetensors };
    Ok(Weights { info, ..Weights::new(path, format, tensors) })
}
