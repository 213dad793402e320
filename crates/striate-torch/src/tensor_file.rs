use crate::TorchError;
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Why a file of tensors could not be read or written. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not a sound `.safetensors` file: truncated, too long, or no such file at all.
    #[error("{} is damaged or not a .safetensors file ({reason}): restore it from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A tensor's type has no counterpart in libtorch or in the format.
    #[error("{}: tensor {name} has the unsupported type {dtype}", path.display())]
    UnsupportedType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// libtorch failed on a tensor.
    #[error("{}: tensor {name}: {source}", path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// libtorch's reason.
        source: TorchError,
    },
}

/// Named tensors with text metadata: the content of a `.safetensors` file.
#[derive(Debug, Default)]
pub struct TensorFile {
    /// The tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads a whole file. The header is checked against the file's length before anything of the size that it declares is
    /// allocated.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = std::fs::read(path).map_err(|source| FileError::Io { action: "read", path: path.into(), source })?;
        let damaged = |error: safetensors::SafeTensorError| FileError::Damaged { path: path.into(), reason: error.to_string() };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let kind = kind_of(view.dtype()).ok_or_else(|| FileError::UnsupportedType {
                path: path.into(),
                name: name.to_owned(),
                dtype: format!("{:?}", view.dtype()),
            })?;
            let shape: Vec<i64> = view.shape().iter().map(|dim| *dim as i64).collect();
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|source| FileError::Torch {
                path: path.into(),
                name: name.to_owned(),
                source: source.into(),
            })?;
            tensors.insert(name.to_owned(), tensor);
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { tensors, metadata })
    }

    /// Writes the file atomically (see [`write_atomically`]). Tensors of any device, memory format and layout are taken.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            views.push((name.as_str(), CpuView::new(path, name, tensor)?));
        }
        let metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        let metadata = (!metadata.is_empty()).then_some(metadata);
        write_atomically(path, |temporary| {
            safetensors::serialize_to_file(views, metadata, temporary).map_err(std::io::Error::other)
        })
    }
}

/// Writes a file under a temporary name in the same folder, flushes it to the disk and renames it: a reader, or a crash at
/// any moment, sees the former file whole or the new one whole. The folder is made if it is missing.
pub fn write_atomically(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), FileError> {
    let result = || {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".striate-").suffix(".tmp");
        // Temporary files are their owner's alone; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder)?.into_temp_path();
        write(&temporary)?;
        std::fs::File::open(&temporary)?.sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    };
    result().map_err(|source| FileError::Io { action: "write", path: path.into(), source })
}

/// A contiguous CPU tensor whose bytes are copied out one tensor at a time while the file is written.
struct CpuView {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl CpuView {
    fn new(path: &Path, name: &str, tensor: &Tensor) -> Result<Self, FileError> {
        let dtype = dtype_of(tensor.kind()).ok_or_else(|| FileError::UnsupportedType {
            path: path.into(),
            name: name.to_owned(),
            dtype: format!("{:?}", tensor.kind()),
        })?;
        let torch = |source: tch::TchError| FileError::Torch { path: path.into(), name: name.to_owned(), source: source.into() };
        let tensor = tensor.f_detach().and_then(|t| t.f_to_device(Device::Cpu)).and_then(|t| t.f_contiguous()).map_err(torch)?;
        let shape = tensor.size().iter().map(|dim| *dim as usize).collect();
        Ok(Self { tensor, dtype, shape })
    }
}

impl View for CpuView {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

const KINDS: [(Kind, Dtype); 9] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Int16, Dtype::I16),
    (Kind::Uint8, Dtype::U8),
    (Kind::Bool, Dtype::BOOL),
];

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.iter().find(|(_, d)| *d == dtype).map(|(kind, _)| *kind)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|(k, _)| *k == kind).map(|(_, dtype)| *dtype)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{MemoryFormat, to_memory_format};

    fn example() -> TensorFile {
        let images = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([1, 2, 3, 4]);
        let images = to_memory_format(&images, MemoryFormat::ChannelsLast).unwrap();
        let tensors = [
            ("images".to_owned(), images),
            ("half".to_owned(), Tensor::from_slice(&[0.5_f32, 2.0]).to_kind(Kind::BFloat16)),
            ("count".to_owned(), Tensor::from(7_i64)),
            ("none".to_owned(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
        ];
        let metadata = [("classes".to_owned(), "10".to_owned())];
        TensorFile { tensors: tensors.into(), metadata: metadata.into() }
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/x.safetensors");
        let file = example();
        file.write(&path).unwrap();
        let back = TensorFile::read(&path).unwrap();
        assert_eq!(back.metadata, file.metadata);
        assert_eq!(back.tensors.len(), file.tensors.len());
        for (name, tensor) in &file.tensors {
            assert_eq!(back.tensors[name].kind(), tensor.kind(), "{name}");
            assert_eq!(&back.tensors[name], tensor, "{name}");
        }
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }

    #[test]
    fn damage_is_told_with_the_name_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        example().write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let huge_header = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
        for damaged in [&bytes[..bytes.len() - 1], &bytes[..5], b"", &[&bytes[..], b"x"].concat(), &huge_header] {
            std::fs::write(&path, damaged).unwrap();
            let error = TensorFile::read(&path).unwrap_err().to_string();
            assert!(error.contains("x.safetensors") && error.contains("damaged"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_former_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        std::fs::write(&path, "former").unwrap();
        let full = |temporary: &Path| {
            std::fs::write(temporary, "half of")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        };
        let error = write_atomically(&path, full).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("x.txt"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "former");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
