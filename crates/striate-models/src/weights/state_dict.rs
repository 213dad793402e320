//! Writing what `torch.save` writes of a state dict: a zip archive of a pickle and of each tensor's values.
use super::pytorch::DTYPES;
use crate::ModelError;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use striate_torch::FileError;
use tch::{Device, Tensor};
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

/// What stands before every entry's name.
const FOLDER: &str = "archive";

/// Writes tensors as a PyTorch state dict, whole or not at all: `torch.load(path, weights_only=True)` gives a dict of them.
///
/// # Errors
///
/// A file that cannot be written, and a tensor of a type that PyTorch has no storage for.
pub fn write_state_dict(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), ModelError> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        stored.push((name.as_str(), Storage::new(path, name, tensor)?));
    }
    let pickle = pickle(&stored);
    Ok(striate_files::write(path, |out| archive(out, &pickle, &stored).map_err(io::Error::other)).map_err(FileError::from)?)
}

fn archive(out: &mut dyn Write, pickle: &[u8], stored: &[(&str, Storage)]) -> Result<(), zip::result::ZipError> {
    let mut archive = ZipWriter::new_stream(out);
    // The same tensors give the same bytes each time.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(true);
    let mut entry = |name: &str, content: &[u8]| {
        archive.start_file(format!("{FOLDER}/{name}"), options)?;
        Ok::<(), zip::result::ZipError>(archive.write_all(content)?)
    };
    entry("data.pkl", pickle)?;
    entry("byteorder", b"little")?;
    for (key, (_, storage)) in stored.iter().enumerate() {
        entry(&format!("data/{key}"), &storage.bytes()?)?;
    }
    entry("version", b"3\n")?;
    archive.finish().map(|_| ())
}

/// A contiguous tensor on the CPU, and PyTorch's class of its values.
struct Storage {
    class: &'static str,
    tensor: Tensor,
}

impl Storage {
    fn new(path: &Path, name: &str, tensor: &Tensor) -> Result<Self, ModelError> {
        let class = DTYPES.iter().find(|(_, _, kind, _)| *kind == Some(tensor.kind())).map(|(class, ..)| *class);
        let unsupported =
            || FileError::UnsupportedType { path: path.into(), name: name.to_owned(), dtype: format!("{:?}", tensor.kind()) };
        let class = class.ok_or_else(unsupported)?;
        let torch = |source: tch::TchError| FileError::Torch { path: path.into(), name: name.to_owned(), source: source.into() };
        let tensor =
            tensor.f_detach().and_then(|tensor| tensor.f_to_device(Device::Cpu)).and_then(|tensor| tensor.f_contiguous());
        Ok(Self { class, tensor: tensor.map_err(torch)? })
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let count = self.tensor.numel();
        let mut bytes = vec![0; count * self.tensor.kind().elt_size_in_bytes()];
        self.tensor.f_copy_data_u8(&mut bytes, count).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// A dict of tensors in the pickle protocol's second version. What the letters mean is in Python's `pickletools`.
fn pickle(stored: &[(&str, Storage)]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (key, (name, storage)) in stored.iter().enumerate() {
        let size = storage.tensor.size();
        text(&mut out, name);
        // _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", storage.class).bytes());
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        integer(&mut out, storage.tensor.numel().cast_signed() as i64);
        out.extend(b"tQK\0");
        tuple(&mut out, &size);
        tuple(&mut out, &storage.tensor.stride());
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    // A file's names are far shorter than 4 GB.
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn integer(out: &mut Vec<u8>, value: i64) {
    match i32::try_from(value) {
        Ok(value) => {
            out.push(b'J');
            out.extend(value.to_le_bytes());
        }
        Err(_) => {
            out.extend(b"\x8a\x08");
            out.extend(value.to_le_bytes());
        }
    }
}

fn tuple(out: &mut Vec<u8>, values: &[i64]) {
    out.push(b'(');
    values.iter().for_each(|value| integer(out, *value));
    out.push(b't');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Weights, WeightsFormat};
    use tch::Kind;

    /// `pickletools.optimize(pickle.dumps({"a": 1}, 2))` begins and ends so, and numbers of Python's `struct.pack("<q", 2**33)`.
    #[test]
    fn the_pickle_is_what_python_reads() {
        let tensor = Tensor::from_slice(&[1.0_f32, 2.0]);
        let stored = [("a", Storage { class: "FloatStorage", tensor })];
        let bytes = pickle(&stored);
        assert!(bytes.starts_with(b"\x80\x02}(X\x01\0\0\0a") && bytes.ends_with(b"RtRu."));
        let mut large = Vec::new();
        integer(&mut large, 1 << 33);
        assert_eq!(large, [0x8a, 8, 0, 0, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn tensors_of_all_kinds_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/x.pth");
        let values = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
        let kinds =
            [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Int, Kind::Int16, Kind::Uint8, Kind::Int8];
        let mut tensors: BTreeMap<String, Tensor> =
            kinds.iter().map(|kind| (format!("layer.{kind:?}"), values.to_kind(*kind).transpose(0, 2))).collect();
        tensors.insert("mask".to_owned(), values.gt(5.0));
        tensors.insert("count".to_owned(), Tensor::from(7_i64));
        tensors.insert("none".to_owned(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)));
        write_state_dict(&path, &tensors).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let back = Weights::read(&path).unwrap();
        assert_eq!((back.format, back.tensors.len()), (WeightsFormat::PytorchZip, tensors.len()));
        for (name, tensor) in &tensors {
            assert_eq!((back.tensors[name].kind(), &back.tensors[name]), (tensor.kind(), tensor), "{name}");
        }
        write_state_dict(&path, &tensors).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same bytes each time");
    }

    #[test]
    fn a_type_that_pytorch_has_no_storage_for_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pth");
        let tensors = [("odd".to_owned(), Tensor::zeros([2], (Kind::ComplexHalf, Device::Cpu)))].into();
        let error = write_state_dict(&path, &tensors).unwrap_err().to_string();
        assert!(error.ends_with("x.pth: tensor odd has the unsupported type ComplexHalf"), "{error}");
        assert!(!path.exists());
    }
}
