use crate::{Shown, TorchError, contained, note_file};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorInfo};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use striate_files::FilesError;
use tch::{Device, Kind, Tensor};

/// Why a file of tensors could not be read or written. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", Shown(path.display()))]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not a sound `.safetensors` file: truncated, too long, or no such file at all.
    #[error("{} is damaged or not a .safetensors file ({}): restore it from a copy", Shown(path.display()), Shown(reason))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A tensor's type has no counterpart in libtorch or in the format.
    #[error("{}: tensor {} has the unsupported type {}", Shown(path.display()), Shown(name), Shown(dtype))]
    UnsupportedType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// libtorch failed on a tensor.
    #[error("{}: tensor {}: {source}", Shown(path.display()), Shown(name))]
    Torch {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// libtorch's reason.
        source: TorchError,
    },
}

impl From<FilesError> for FileError {
    fn from(FilesError { action, path, source }: FilesError) -> Self {
        Self::Io { action, path, source }
    }
}

/// The largest header that the format allows, in bytes.
const LARGEST_HEADER: u64 = 100_000_000;
/// The most dimensions that libtorch's operators take.
pub const MAX_DIMS: usize = 64;

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
    /// allocated, and a tensor of more than 64 dimensions, which libtorch cannot compute with, is refused.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        reading(path, || {
            let mut file = striate_files::open(path)?;
            let header = read_header(&mut file, path)?;
            let mut tensors = BTreeMap::new();
            // Values lie in the order of the keys, one tensor behind another.
            for name in header.offset_keys() {
                let Some(info) = header.info(&name) else { continue };
                let tensor = read_tensor(&mut file, path, &name, info)?;
                tensors.insert(name, tensor);
            }
            Ok(Self { tensors, metadata: metadata_of(&header) })
        })
    }

    /// The metadata of a file, of which no more than the header is read. Damage is told as [`TensorFile::read`] tells it, but for
    /// types and dimensions that libtorch has not.
    pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>, FileError> {
        reading(path, || {
            let mut file = striate_files::open(path)?;
            read_header(&mut file, path).map(|header| metadata_of(&header))
        })
    }

    /// Writes the file whole or not at all (see [`striate_files::write()`]), one tensor after another. Tensors of any device, memory format and
    /// layout are taken.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            tensors.push(CpuTensor::new(path, name, tensor)?);
        }
        // Wide types first, as the format's own library writes them, so that every value lies at a multiple of its size.
        tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype));
        let header = self.header(&tensors);
        let write = striate_files::write(path, |file| {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            tensors.iter().try_for_each(|tensor| file.write_all(&tensor.bytes()?))
        });
        Ok(write?)
    }

    /// The header of a file with these tensors in this order, padded so that the values after it are aligned.
    fn header(&self, tensors: &[CpuTensor<'_>]) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".to_owned(), serde_json::json!(self.metadata));
        }
        let mut start = 0;
        for CpuTensor { name, tensor, dtype } in tensors {
            let end = start + tensor.numel() * tensor.kind().elt_size_in_bytes();
            let info = serde_json::json!({ "dtype": dtype, "shape": tensor.size(), "data_offsets": [start, end] });
            header.insert((*name).to_owned(), info);
            start = end;
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        header
    }
}

/// The tensors of a `.safetensors` file as they lie there: read one by one, as bytes, without libtorch.
#[derive(Debug)]
pub struct StoredTensors {
    path: PathBuf,
    file: File,
    /// Where the values begin.
    start: u64,
    header: Metadata,
}

impl StoredTensors {
    /// Opens a file and reads its header, which is checked as [`TensorFile::read`] checks it.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        reading(path, || {
            let mut file = striate_files::open(path)?;
            let header = read_header(&mut file, path)?;
            let start = file.stream_position().map_err(|source| cannot_read(path, source))?;
            Ok(Self { path: path.into(), file, start, header })
        })
    }

    /// The names of the tensors and their shapes.
    pub fn shapes(&self) -> BTreeMap<String, Vec<i64>> {
        let tensors = self.header.tensors().into_iter();
        tensors.map(|(name, info)| (name, info.shape.iter().map(|dim| dim.cast_signed() as i64).collect())).collect()
    }

    /// The type of a tensor and its values in row-major order, as little-endian bytes; `None` if the file has none of that name.
    ///
    /// # Errors
    ///
    /// Values that cannot be read, and a type that libtorch has not.
    pub fn read(&self, name: &str) -> Result<Option<(Kind, Vec<u8>)>, FileError> {
        let Some(info) = self.header.info(name) else { return Ok(None) };
        let kind = kind_in(&self.path, name, info)?;
        let (start, end) = info.data_offsets;
        let io = |source| cannot_read(&self.path, source);
        let mut values = room(end - start).map_err(io)?;
        values.resize(end - start, 0);
        self.file.read_exact_at(&mut values, self.start + start as u64).map_err(io)?;
        Ok(Some((kind, values)))
    }
}

/// Notes that the file is read, and makes a panic of the format's library an error.
fn reading<T>(path: &Path, read: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    note_file(path);
    contained(read, |panic| damaged(path, panic))
}

fn cannot_read(path: &Path, source: std::io::Error) -> FileError {
    FileError::Io { action: "read", path: path.into(), source }
}

fn damaged(path: &Path, reason: impl ToString) -> FileError {
    FileError::Damaged { path: path.into(), reason: reason.to_string() }
}

fn metadata_of(header: &Metadata) -> BTreeMap<String, String> {
    header.metadata().clone().unwrap_or_default().into_iter().collect()
}

/// The header of a file, checked against the file's length as `SafeTensors::read_metadata` does with all of its bytes. The file is
/// left where the values begin.
fn read_header(file: &mut File, path: &Path) -> Result<Metadata, FileError> {
    let io = |source| cannot_read(path, source);
    let damaged = |error: SafeTensorError| damaged(path, error);
    let length = file.metadata().map_err(io)?.len();
    let mut size = [0; 8];
    if length < 8 {
        return Err(damaged(SafeTensorError::HeaderTooSmall));
    }
    file.read_exact(&mut size).map_err(io)?;
    let size = u64::from_le_bytes(size);
    if size > LARGEST_HEADER {
        return Err(damaged(SafeTensorError::HeaderTooLarge));
    }
    if size > length - 8 {
        return Err(damaged(SafeTensorError::InvalidHeaderLength));
    }
    let mut header = Vec::new();
    file.take(size).read_to_end(&mut header).map_err(io)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    match header.data_len() as u64 == length - 8 - size {
        true => Ok(header),
        false => Err(damaged(SafeTensorError::MetadataIncompleteBuffer)),
    }
}

fn kind_in(path: &Path, name: &str, info: &TensorInfo) -> Result<Kind, FileError> {
    kind_of(info.dtype).ok_or_else(|| FileError::UnsupportedType {
        path: path.into(),
        name: name.to_owned(),
        dtype: format!("{:?}", info.dtype),
    })
}

/// Room for so many bytes, or an error where there is too little memory: a sparse file declares any number of them.
fn room(bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes)?;
    Ok(room)
}

/// The tensor whose values come next in the file.
fn read_tensor(file: &mut File, path: &Path, name: &str, info: &TensorInfo) -> Result<Tensor, FileError> {
    let kind = kind_in(path, name, info)?;
    let dims = info.shape.len();
    if dims > MAX_DIMS {
        return Err(damaged(path, format!("tensor {name} has {dims} dimensions, and libtorch computes with at most {MAX_DIMS}")));
    }
    let shape: Vec<i64> = info.shape.iter().map(|dim| *dim as i64).collect();
    let (start, end) = info.data_offsets;
    let io = |source| cannot_read(path, source);
    let mut values = room(end - start).map_err(io)?;
    if file.take((end - start) as u64).read_to_end(&mut values).map_err(io)? < end - start {
        return Err(io(ErrorKind::UnexpectedEof.into()));
    }
    Tensor::f_from_data_size(&values, &shape, kind).map_err(|source| FileError::Torch {
        path: path.into(),
        name: name.to_owned(),
        source: source.into(),
    })
}

/// A contiguous CPU tensor whose bytes are copied out one tensor at a time while the file is written.
struct CpuTensor<'a> {
    name: &'a str,
    tensor: Tensor,
    dtype: Dtype,
}

impl<'a> CpuTensor<'a> {
    fn new(path: &Path, name: &'a str, tensor: &Tensor) -> Result<Self, FileError> {
        let dtype = dtype_of(tensor.kind()).ok_or_else(|| FileError::UnsupportedType {
            path: path.into(),
            name: name.to_owned(),
            dtype: format!("{:?}", tensor.kind()),
        })?;
        let torch = |source: tch::TchError| FileError::Torch { path: path.into(), name: name.to_owned(), source: source.into() };
        let tensor = tensor.f_detach().and_then(|t| t.f_to_device(Device::Cpu)).and_then(|t| t.f_contiguous()).map_err(torch)?;
        Ok(Self { name, tensor, dtype })
    }

    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()];
        self.tensor.f_copy_data_u8(&mut bytes, self.tensor.numel()).map_err(std::io::Error::other)?;
        Ok(bytes)
    }
}

const KINDS: [(Kind, Dtype); 10] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Int16, Dtype::I16),
    (Kind::Int8, Dtype::I8),
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
    use safetensors::SafeTensors;

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
        assert_eq!(TensorFile::read_metadata(&path).unwrap(), file.metadata);
        assert_eq!(back.tensors.len(), file.tensors.len());
        for (name, tensor) in &file.tensors {
            assert_eq!(back.tensors[name].kind(), tensor.kind(), "{name}");
            assert_eq!(&back.tensors[name], tensor, "{name}");
        }
        let stored = StoredTensors::open(&path).unwrap();
        assert_eq!(stored.shapes()["images"], [1, 2, 3, 4]);
        let (kind, bytes) = stored.read("images").unwrap().unwrap();
        let expected: Vec<u8> = (0..24_u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        assert_eq!((kind, bytes), (Kind::Float, expected));
        assert!(stored.read("count2").unwrap().is_none());
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }

    #[test]
    fn every_type_of_libtorchs_that_the_format_has_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let values = Tensor::from_slice(&[-3.0_f32, 0.0, 1.0]).abs();
        let tensors = KINDS.iter().map(|(kind, _)| (format!("{kind:?}"), values.to_kind(*kind))).collect();
        TensorFile { tensors, ..TensorFile::default() }.write(&path).unwrap();
        let back = TensorFile::read(&path).unwrap().tensors;
        let kinds: Vec<&str> = back.keys().map(String::as_str).collect();
        let all = ["BFloat16", "Bool", "Double", "Float", "Half", "Int", "Int16", "Int64", "Int8", "Uint8"];
        assert_eq!(kinds, all);
        for (kind, _) in KINDS {
            assert_eq!(back[&format!("{kind:?}")], values.to_kind(kind));
        }
    }

    /// More than a processor can address.
    #[test]
    fn too_little_memory_is_an_error() {
        assert_eq!(room(1 << 62).unwrap_err().kind(), ErrorKind::OutOfMemory);
    }

    #[test]
    fn damage_is_told_with_the_name_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        example().write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let huge_header = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
        let no_json = [2_u64.to_le_bytes().as_slice(), b"{]"].concat();
        let longer = [&bytes[..], b"x"].concat();
        for damaged in [&bytes[..bytes.len() - 1], &bytes[..20], &bytes[..5], b"", &longer, &huge_header, &no_json] {
            std::fs::write(&path, damaged).unwrap();
            let error = TensorFile::read(&path).unwrap_err().to_string();
            assert!(error.contains("x.safetensors") && error.contains("damaged"), "{error}");
            assert!(!error.contains('\n'), "{error}");
            assert_eq!(TensorFile::read_metadata(&path).unwrap_err().to_string(), error);
        }
    }

    /// A file of one tensor of one value, with this name and these dimensions.
    fn one_value(path: &Path, name: &str, dims: usize) {
        let shape = vec![1; dims];
        let header = serde_json::json!({ name: { "dtype": "F32", "shape": shape, "data_offsets": [0, 4] } }).to_string();
        std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()).unwrap();
    }

    #[test]
    fn what_libtorch_cannot_have_is_refused_and_shown_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        one_value(&path, "a", 64);
        assert_eq!(TensorFile::read(&path).unwrap().tensors["a"].dim(), 64);
        one_value(&path, "a\n\u{1b}[31m", 100_000);
        let error = TensorFile::read(&path).unwrap_err().to_string();
        let told = r"tensor a\n\u{1b}[31m has 100000 dimensions, and libtorch computes with at most 64";
        assert!(error.contains(told), "{error}");
    }

    #[test]
    fn of_a_huge_file_with_a_damaged_header_no_more_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        one_value(&path, "a", 1);
        // A hole of 8 TiB takes no room on the disk.
        File::options().write(true).open(&path).unwrap().set_len(1 << 43).unwrap();
        let error = TensorFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("MetadataIncompleteBuffer") || error.contains("incomplete"), "{error}");
    }

    #[test]
    fn a_file_has_the_same_bytes_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let mut file = example();
        file.metadata.extend(["a", "b", "c"].map(|name| (name.to_owned(), "x".to_owned())));
        file.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(start % 8, 0);
        let types: Vec<Dtype> = {
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let mut views: Vec<_> = file.iter().filter(|(_, view)| !view.data().is_empty()).collect();
            views.sort_by_key(|(_, view)| view.data().as_ptr());
            views.iter().map(|(_, view)| view.dtype()).collect()
        };
        assert_eq!(types, [Dtype::I64, Dtype::F32, Dtype::BF16]);
        file.write(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
