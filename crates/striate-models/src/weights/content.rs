//! What a file is, by its first bytes.
use super::read_error;
use crate::ModelError;
use std::io::Read;
use std::path::Path;
use striate_torch::FileError;

/// A format of weights.
pub(super) enum Content {
    Safetensors,
    /// What `torch.save` wrote.
    Pytorch,
}

/// How files begin that people take for weights, and what they are.
const OTHERS: [(&[u8], &str); 11] = [
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`"),
    (b"<", "a web page or XML, not the file itself: download it again by its direct address"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes it: load it in Python and save its weights as .safetensors"),
    (b"\x1f\x8b", "compressed with gzip: unpack it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it with unzstd"),
    (b"\xfd7zXZ", "compressed with xz: unpack it with unxz"),
    (b"BZh", "compressed with bzip2: unpack it with bunzip2"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"\x93NUMPY", "one array of NumPy (.npy): save all arrays by name as .safetensors"),
    (b"GGUF", "a GGUF file, of language models: get the weights as .safetensors or .pth"),
    (b"{", "JSON: name the file that holds the weights, not their index or configuration"),
];
const ONNX: &str = "an ONNX model, a graph: save the weights of the PyTorch model with torch.save(model.state_dict(), FILE)";
const TAR: &str = "a tar archive: unpack it or, if PyTorch before 0.1.10 wrote it, load it with PyTorch and save it again";
/// Where a tar archive says what it is.
const TAR_PLACE: usize = 257;

/// The format of a file; its name counts only where the content says nothing.
pub(super) fn content(path: &Path) -> Result<Content, ModelError> {
    let mut head = Vec::new();
    let file = striate_files::open(path).map_err(FileError::from)?;
    file.take(TAR_PLACE as u64 + 5).read_to_end(&mut head).map_err(|error| read_error(path, error))?;
    if head.get(8) == Some(&b'{') {
        return Ok(Content::Safetensors);
    }
    let other = OTHERS.iter().find(|(start, _)| head.trim_ascii_start().starts_with(start)).map(|(_, what)| *what);
    // A version, then a field of text: the first two of a model in Protocol Buffers.
    let onnx = matches!(head[..], [0x08, 1..=0x1f, 0x12 | 0x1a | 0x22 | 0x2a | 0x32 | 0x3a, ..]).then_some(ONNX);
    let tar = head.get(TAR_PLACE..).is_some_and(|rest| rest == b"ustar").then_some(TAR);
    if let Some(what) = other.or(onnx).or(tar) {
        return Err(ModelError::NotWeights { path: path.into(), what });
    }
    let pytorch = head.starts_with(b"PK") || head.starts_with(b"\x80");
    let named = path.extension().is_some_and(|extension| extension == "safetensors");
    Ok(if named && !pytorch { Content::Safetensors } else { Content::Pytorch })
}
