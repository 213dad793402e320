//! What `torch.save` writes: pickles, whose programs are interpreted and never run.
use super::pickle::forbidden_call;
use super::{Weights, WeightsFormat, read_error, read_head};
use crate::ModelError;
use pytorch_reader::{DType, FileFormat, PickleValue, PytorchError, PytorchReader};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use striate_torch::FileError;
use tch::{Kind, Tensor};

/// Where training scripts put the weights among other things.
const KEYS: [&str; 3] = ["state_dict", "model_state_dict", "model"];
/// Objects that may stand in a file and are skipped: tensors themselves, and what training scripts keep beside the weights.
const HARMLESS: [&str; 8] = [
    "torch.Tensor",
    "torch.TypedStorage",
    "torch.UntypedStorage",
    "torch.device",
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "int",
];
/// How many bytes a file may unpack to for each of its own: tensors may share their values, and archives be compressed.
const EXPANSION: u64 = 4;
/// What any file may unpack to beyond that: expanded tensors are as small in a file as one of their values.
const ALLOWANCE: u64 = 64 << 20;

pub(super) fn read(path: &Path) -> Result<Weights, ModelError> {
    let reader = open(path)?;
    let format = match reader.metadata().format_type {
        FileFormat::Zip => WeightsFormat::PytorchZip,
        _ => WeightsFormat::PytorchLegacy,
    };
    let tensors = reader.into_tensors().into_iter().map(|(name, tensor)| Ok((name, to_torch(path, &tensor)?)));
    Ok(Weights { path: path.into(), format, tensors: tensors.collect::<Result<BTreeMap<_, _>, ModelError>>()?, info: None })
}

/// A reader of the file's tensors; an error if it is damaged, has none, or is more than data.
pub(super) fn open(path: &Path) -> Result<PytorchReader, ModelError> {
    let length = std::fs::metadata(path).map_err(|error| read_error(path, error))?.len();
    refuse_tar(path)?;
    check_archive(path, length)?;
    // A program that makes no sense is the reader's to tell.
    let scanned = scan(path, length);
    if let Ok(Some(global)) = &scanned {
        return Err(ModelError::Refused { path: path.into(), global: shortened(global) });
    }
    let root = PytorchReader::read_pickle_data(path, None).map_err(|error| damaged(path, error))?;
    scanned.map_err(|error| damaged(path, error.into()))?;
    if let Some(global) = refused(&root) {
        return Err(ModelError::Refused { path: path.into(), global: global.to_owned() });
    }
    let PickleValue::Dict(entries) = root else { return Err(ModelError::NoWeights { path: path.into() }) };
    let reader = match KEYS.into_iter().find(|key| matches!(entries.get(*key), Some(PickleValue::Dict(_)))) {
        Some(key) => PytorchReader::with_top_level_key(path, key),
        None => PytorchReader::new(path),
    };
    let reader = reader.map_err(|error| damaged(path, error))?;
    if reader.is_empty() {
        return Err(ModelError::NoWeights { path: path.into() });
    }
    let declared = reader.tensors().values().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.byte_len() as u64));
    check_size(path, length, declared)?;
    Ok(reader)
}

/// Entries of a tar archive may be sparse and so declare any size.
fn refuse_tar(path: &Path) -> Result<(), ModelError> {
    if read_head(path, 262)?.ends_with(b"ustar") {
        let reason = "an archive of PyTorch before 0.1.10: load it with PyTorch and save it again".to_owned();
        return Err(ModelError::DamagedPickle { path: path.into(), reason });
    }
    Ok(())
}

/// The first thing that a pickle of the file calls and may not, even where its result is thrown away.
fn scan(path: &Path, length: u64) -> std::io::Result<Option<String>> {
    /// In an old file, pickles of a magic number, a version, the system, the content, and the names of the storages that follow.
    const LEGACY_PICKLES: usize = 5;
    let mut file = BufReader::new(File::open(path)?);
    if file.fill_buf()?.starts_with(b"PK") {
        let mut archive = zip::ZipArchive::new(file)?;
        for index in 0..archive.len() {
            let entry = archive.by_index(index).map_err(std::io::Error::other)?;
            if entry.name()?.ends_with(".pkl") {
                let at_most = length.saturating_mul(EXPANSION).saturating_add(ALLOWANCE);
                if let Some(global) = forbidden_call(&mut BufReader::new(entry.take(at_most)))? {
                    return Ok(Some(global));
                }
            }
        }
        return Ok(None);
    }
    for _ in 0..LEGACY_PICKLES {
        if file.fill_buf()?.is_empty() {
            break;
        }
        if let Some(global) = forbidden_call(&mut file)? {
            return Ok(Some(global));
        }
    }
    Ok(None)
}

/// Fails if the entries of a zip archive declare far more bytes than the file has.
fn check_archive(path: &Path, length: u64) -> Result<(), ModelError> {
    let file = File::open(path).map_err(|error| read_error(path, error))?;
    // What is no archive, or a damaged one, is told by the reader.
    let Ok(mut archive) = zip::ZipArchive::new(std::io::BufReader::new(file)) else { return Ok(()) };
    let sizes = (0..archive.len()).map(|index| archive.by_index_raw(index).map_or(0, |entry| entry.size()));
    let declared = sizes.fold(0, u64::saturating_add);
    check_size(path, length, declared)
}

fn check_size(path: &Path, length: u64, declared: u64) -> Result<(), ModelError> {
    if declared > length.saturating_mul(EXPANSION).saturating_add(ALLOWANCE) {
        return Err(ModelError::TooLarge { path: path.into(), declared, length });
    }
    Ok(())
}

/// The first object in the tree that only running something could make.
fn refused(value: &PickleValue) -> Option<&str> {
    match value {
        PickleValue::Unsupported(name) if !HARMLESS.contains(&name.as_str()) => Some(name),
        PickleValue::List(values) => values.iter().find_map(refused),
        PickleValue::Dict(entries) => entries.values().find_map(refused),
        _ => None,
    }
}

fn to_torch(path: &Path, tensor: &pytorch_reader::Tensor) -> Result<Tensor, ModelError> {
    let name = || tensor.name.clone();
    let kind = kind_of(tensor.dtype()).ok_or_else(|| {
        let dtype = format!("{:?}", tensor.dtype());
        FileError::UnsupportedType { path: path.into(), name: name(), dtype }
    })?;
    let bytes = tensor.read().map_err(|error| damaged(path, error.into()))?;
    let shape: Vec<i64> = tensor.shape().iter().map(|dim| *dim as i64).collect();
    let torch = |source: tch::TchError| FileError::Torch { path: path.into(), name: name(), source: source.into() };
    Ok(Tensor::f_from_data_size(&bytes, &shape, kind).map_err(torch)?)
}

fn kind_of(dtype: DType) -> Option<Kind> {
    Some(match dtype {
        DType::F64 => Kind::Double,
        DType::F32 => Kind::Float,
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::I64 => Kind::Int64,
        DType::I32 => Kind::Int,
        DType::I16 => Kind::Int16,
        DType::I8 => Kind::Int8,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
        DType::U64 | DType::U32 | DType::U16 => return None,
    })
}

/// What the reader found wrong, in one line of bounded length: its messages may quote the file.
fn damaged(path: &Path, error: PytorchError) -> ModelError {
    match error {
        PytorchError::Io(error) if !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => {
            read_error(path, error)
        }
        error => ModelError::DamagedPickle { path: path.into(), reason: shortened(&error.to_string()) },
    }
}

/// A text from a file in one line of bounded length.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}
