//! Weights from files: `.safetensors`, bundles, and what `torch.save` writes.
mod fit;
mod pickle;
mod pytorch;

use crate::{BundleInfo, ModelError, Registry};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use striate_graph::{GraphError, is_finite};
use striate_torch::{FileError, TensorFile};
use tch::Tensor;

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

/// Named tensors from a file of any format, under the names that a network's parameters have.
///
/// Tensors with a `/` in their names, such as the state of an optimizer in a checkpoint, are left out, and a `module.` before
/// every name, which PyTorch's data parallel training leaves there, is taken off.
#[derive(Debug)]
pub struct Weights {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: WeightsFormat,
    /// The tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// What a bundle says beside them.
    pub info: Option<BundleInfo>,
}

impl Weights {
    /// Reads a file; its content decides the format.
    ///
    /// A file of PyTorch may hold the tensors themselves by name, or under `state_dict`, `model_state_dict` or `model` among
    /// other things, or a whole `torch.nn.Module`. No code in it is run.
    ///
    /// # Errors
    ///
    /// One line that names the file, if it can't be read, is truncated or damaged, declares more than it holds, holds
    /// tensors of a type that libtorch or the format has not, or would have PyTorch run something.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Self::read_with(path, &Registry::default())
    }

    /// [`read`](Self::read), where `registry` has layers and architectures of your own that a bundle may name.
    pub fn read_with(path: &Path, registry: &Registry) -> Result<Self, ModelError> {
        let mut weights = if is_safetensors(path)? { read_safetensors(path, registry)? } else { pytorch::read(path)? };
        weights.tensors.retain(|name, _| !name.contains('/'));
        const PARALLEL: &str = "module.";
        if weights.tensors.keys().all(|name| name.starts_with(PARALLEL)) {
            let tensors = weights.tensors.into_iter();
            weights.tensors = tensors.map(|(name, tensor)| (name[PARALLEL.len()..].to_owned(), tensor)).collect();
        }
        Ok(weights)
    }
}

impl Weights {
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
    if is_safetensors(path)? {
        return BundleInfo::from_metadata(&TensorFile::read_metadata(path)?, path, registry);
    }
    pytorch::open(path).map(|_| None)
}

/// Whether the file is named, or begins, as a `.safetensors` file: eight bytes of length, then JSON.
fn is_safetensors(path: &Path) -> Result<bool, ModelError> {
    let head = read_head(path, 9)?;
    Ok(head.get(8) == Some(&b'{') || path.extension().is_some_and(|extension| extension == "safetensors"))
}

/// The first bytes of the file, fewer if it is shorter.
fn read_head(path: &Path, count: u64) -> Result<Vec<u8>, ModelError> {
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(count).read_to_end(&mut head)).map_err(|error| read_error(path, error))?;
    Ok(head)
}

fn read_error(path: &Path, source: std::io::Error) -> ModelError {
    FileError::Io { action: "read", path: path.into(), source }.into()
}

fn read_safetensors(path: &Path, registry: &Registry) -> Result<Weights, ModelError> {
    let TensorFile { tensors, metadata } = TensorFile::read(path)?;
    let info = BundleInfo::from_metadata(&metadata, path, registry)?;
    let format = if info.is_some() { WeightsFormat::Bundle } else { WeightsFormat::Safetensors };
    Ok(Weights { path: path.into(), format, tensors, info })
}
