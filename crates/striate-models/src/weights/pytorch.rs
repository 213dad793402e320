//! What `torch.save` writes: a zip archive, or before 1.6 a sequence of pickles, with the values of tensors apart.
use super::allowance::{Allowance, Exceeded};
use super::candidates::{candidates, choose, named};
use super::pickle::{self, Fault, Pickle, TensorSpec};
use super::{Weights, WeightsFormat, read_error, shortened};
use crate::ModelError;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Seek, SeekFrom, copy, sink};
use std::path::{Path, PathBuf};
use striate_torch::{Budget, FileError};
use tch::{Kind, Tensor};
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config, ZipFile};

/// The most letters of a file that a message quotes.
const LONGEST: usize = 200;

/// A type of values: PyTorch's class of storages of it, its name, libtorch's, and the bytes of a value.
type Dtype = (&'static str, &'static str, Option<Kind>, u64);

#[rustfmt::skip]
pub(super) const DTYPES: [Dtype; 18] = [
    ("FloatStorage", "float32", Some(Kind::Float), 4),
    ("DoubleStorage", "float64", Some(Kind::Double), 8),
    ("HalfStorage", "float16", Some(Kind::Half), 2),
    ("BFloat16Storage", "bfloat16", Some(Kind::BFloat16), 2),
    ("LongStorage", "int64", Some(Kind::Int64), 8),
    ("IntStorage", "int32", Some(Kind::Int), 4),
    ("ShortStorage", "int16", Some(Kind::Int16), 2),
    ("CharStorage", "int8", Some(Kind::Int8), 1),
    ("ByteStorage", "uint8", Some(Kind::Uint8), 1),
    ("BoolStorage", "bool", Some(Kind::Bool), 1),
    ("ComplexFloatStorage", "complex64", None, 8),
    ("ComplexDoubleStorage", "complex128", None, 16),
    ("QUInt8Storage", "quint8", None, 1),
    ("QInt8Storage", "qint8", None, 1),
    ("QInt32Storage", "qint32", None, 4),
    ("", "uint16", None, 2),
    ("", "uint32", None, 4),
    ("", "uint64", None, 8),
];
/// The class of storages whose tensors say their type.
const UNTYPED: &str = "UntypedStorage";

pub(super) fn read(path: &Path, key: Option<&str>, budget: &Budget) -> Result<Weights, ModelError> {
    let mut checkpoint = Checkpoint::open(path, budget)?;
    let found = candidates(&checkpoint.pickle, &mut checkpoint.allowance).map_err(|exceeded| too_large(path, &exceeded))?;
    let chosen = choose(found, key, path)?;
    let tensors = checkpoint.tensors(chosen.taken.tensors)?;
    let format = match checkpoint.contents {
        Contents::Zip { .. } => WeightsFormat::PytorchZip,
        Contents::Legacy { .. } => WeightsFormat::PytorchLegacy,
    };
    let arch = named(&checkpoint.pickle);
    Ok(Weights { key: chosen.taken.key, others: chosen.others, arch, ..Weights::new(path, format, tensors) })
}

/// Fails as [`read`] does, short of reading the values of tensors.
pub(super) fn check(path: &Path, budget: &Budget) -> Result<(), ModelError> {
    let mut checkpoint = Checkpoint::open(path, budget)?;
    let found = candidates(&checkpoint.pickle, &mut checkpoint.allowance).map_err(|exceeded| too_large(path, &exceeded))?;
    choose(found, None, path).map(|_| ())
}

struct Checkpoint {
    path: PathBuf,
    allowance: Allowance,
    pickle: Pickle,
    contents: Contents,
}

/// Where the values lie.
enum Contents {
    Zip {
        archive: ZipArchive<BufReader<File>>,
        /// What comes before every entry's name.
        folder: String,
    },
    Legacy {
        file: File,
        /// Where each storage begins, and its bytes.
        places: HashMap<String, (u64, u64)>,
    },
}

impl Checkpoint {
    /// Reads all but the tensors' values; an error if the file is damaged, or is more than data.
    fn open(path: &Path, budget: &Budget) -> Result<Self, ModelError> {
        let length = std::fs::metadata(path).map_err(|error| read_error(path, error))?.len();
        let mut file = BufReader::new(File::open(path).map_err(|error| read_error(path, error))?);
        let zip = file.fill_buf().map_err(|error| read_error(path, error))?.starts_with(b"PK");
        let mut allowance = Allowance::new(budget.of_file(length));
        let open = if zip { open_zip } else { open_legacy };
        let (pickle, contents) = open(path, length, file, &mut allowance)?;
        Ok(Self { path: path.into(), allowance, pickle, contents })
    }

    /// Tensors that share values in the file are read once.
    fn tensors(&mut self, specs: Vec<(String, TensorSpec)>) -> Result<BTreeMap<String, Tensor>, ModelError> {
        let path = self.path.clone();
        let unsupported = |name: &str, spec: &TensorSpec| FileError::UnsupportedType {
            path: path.clone(),
            name: name.to_owned(),
            dtype: dtype_of(spec).map_or(spec.dtype.as_deref().unwrap_or(&spec.storage.class), |dtype| dtype.1).to_owned(),
        };
        let mut declared = 0_u64;
        for (name, spec) in &specs {
            let (_, _, Some(_), bytes) = dtype_of(spec).ok_or_else(|| unsupported(name, spec))? else {
                return Err(unsupported(name, spec).into());
            };
            let count = spec.size.iter().fold(1_u64, |count, size| count.saturating_mul(u64::try_from(*size).unwrap_or(0)));
            declared = declared.saturating_add(count.saturating_mul(bytes));
        }
        self.allowance.take(declared).map_err(|exceeded| too_large(&path, &exceeded))?;
        let mut storages = HashMap::new();
        let mut tensors = BTreeMap::new();
        for (name, spec) in specs {
            let Some((_, dtype, Some(kind), bytes)) = dtype_of(&spec) else { return Err(unsupported(&name, &spec).into()) };
            let torch =
                |source: tch::TchError| FileError::Torch { path: path.clone(), name: name.clone(), source: source.into() };
            let id = (spec.storage.key.clone(), dtype);
            if !storages.contains_key(&id) {
                let values = self.storage(&spec.storage.key)?;
                let count = values.len() as u64 / bytes;
                let values = &values[..(count * bytes) as usize];
                storages.insert(id.clone(), Tensor::f_from_data_size(values, &[count as i64], kind).map_err(torch)?);
            }
            let values = &storages[&id];
            let start = within(&spec, values.numel()).ok_or_else(|| {
                damaged(&path, format!("tensor {name} has values beyond the {} that are there", values.numel()))
            })?;
            let view = values.f_as_strided(&spec.size, &spec.stride, start);
            let tensor = view.and_then(|view| if spec.negated { view.f_neg() } else { view.f_contiguous() });
            tensors.insert(name.clone(), tensor.and_then(|tensor| tensor.f_contiguous()).map_err(torch)?);
        }
        Ok(tensors)
    }

    /// The bytes of a storage.
    fn storage(&mut self, key: &str) -> Result<Vec<u8>, ModelError> {
        let path = &self.path;
        let mut bytes = Vec::new();
        let mut take = |size| self.allowance.take(size).map_err(|exceeded| too_large(path, &exceeded));
        match &mut self.contents {
            Contents::Zip { archive, folder } => {
                let mut entry = archive.by_name(&format!("{folder}data/{key}")).map_err(|error| damaged(path, error))?;
                let size = entry.size();
                take(size)?;
                entry.by_ref().take(size).read_to_end(&mut bytes).map_err(|error| fault(path, Fault::Io(error)))?;
                verify(&mut entry).map_err(|error| fault(path, Fault::Io(error)))?;
            }
            Contents::Legacy { file, places } => {
                let (start, size) =
                    *places.get(key).ok_or_else(|| damaged(path, format!("the values of storage {key} are missing")))?;
                take(size)?;
                file.seek(SeekFrom::Start(start)).map_err(|error| read_error(path, error))?;
                file.take(size).read_to_end(&mut bytes).map_err(|error| read_error(path, error))?;
            }
        }
        Ok(bytes)
    }
}

fn open_zip(path: &Path, _: u64, file: BufReader<File>, allowance: &mut Allowance) -> Result<(Pickle, Contents), ModelError> {
    // PyTorch puts nothing before its archives. Looking for something there takes the zip64 records at the end for it.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, file).map_err(|error| damaged(path, error))?;
    let names = archive.file_names().map(|name| name.map(std::borrow::Cow::into_owned));
    let names: Vec<String> = names.collect::<Result<_, _>>().map_err(|error| damaged(path, error))?;
    if names.iter().any(|name| name == "constants.pkl" || name.ends_with("/constants.pkl")) {
        return Err(ModelError::NotWeights { path: path.into(), what: SCRIPTED });
    }
    let Some(main) = names.iter().find(|name| *name == MAIN || name.ends_with(&format!("/{MAIN}"))) else {
        return Err(ModelError::NotWeights { path: path.into(), what: other_zip(&names) });
    };
    let folder = main[..main.len() - MAIN.len()].to_owned();
    let mut content = None;
    for name in names.iter().filter(|name| name.ends_with(".pkl")) {
        let mut entry = archive.by_name(name).map_err(|error| damaged(path, error))?;
        let size = entry.size().min(allowance.left());
        let mut unpacked = BufReader::new(entry.by_ref().take(size));
        let pickle = pickle::read(&mut unpacked, allowance).map_err(|error| fault(path, error))?;
        let rest = copy(&mut unpacked, &mut sink()).and_then(|_| verify(&mut entry));
        rest.map_err(|error| fault(path, Fault::Io(error)))?;
        if name == main {
            content = Some(pickle);
        }
    }
    let mut order = String::new();
    if let Ok(entry) = archive.by_name(&format!("{folder}byteorder")) {
        entry.take(6).read_to_string(&mut order).map_err(|error| fault(path, Fault::Io(error)))?;
    }
    if order == "big" {
        return Err(ModelError::NotWeights { path: path.into(), what: BIG_ENDIAN });
    }
    let pickle = content.ok_or_else(|| damaged(path, format!("no {MAIN}")))?;
    Ok((pickle, Contents::Zip { archive, folder }))
}

/// Compares what was read of an entry, all of it, with its checksum. PyTorch writes 0 where it was told to compute none.
fn verify(entry: &mut ZipFile<'_, impl Read>) -> std::io::Result<()> {
    // The archive's reader compares when it is asked for more than there is.
    if entry.crc32() == 0 { Ok(()) } else { entry.read(&mut [0]).map(|_| ()) }
}

/// What a zip archive with these names is that has no pickle.
fn other_zip(names: &[String]) -> &'static str {
    let has = |end: &str| names.iter().any(|name| name.ends_with(end));
    if has("archive_format") || has("serialized_exported_program.json") {
        EXPORTED
    } else if has(".data/extern_modules") {
        PACKAGE
    } else if !names.is_empty() && names.iter().all(|name| name.ends_with(".npy")) {
        NPZ
    } else {
        ZIP
    }
}

/// The pickle of an archive that holds what was saved.
const MAIN: &str = "data.pkl";
const SCRIPTED: &str = "a scripted module (torch.jit.save), which is a program: load it with torch.jit.load and save its weights with torch.save(model.state_dict(), FILE)";
const EXPORTED: &str = "an exported program (torch.export.save): load it with torch.export.load and save its weights with torch.save(program.state_dict, FILE)";
const PACKAGE: &str = "a package of code (torch.package): load the model in it with PyTorch and save its weights with torch.save(model.state_dict(), FILE)";
const OTHER_TENSORS: &str = "a file with quantised, sparse or nested tensors, or with some that have no values: save plain ones with PyTorch (tensor.dequantize(), tensor.to_dense())";
const NPZ: &str = "an archive of NumPy arrays (.npz): load them in Python and save them as .safetensors";
const ZIP: &str = "a zip archive without weights of PyTorch (data.pkl): unpack it if the weights are in it";
const BIG_ENDIAN: &str = "from a big-endian machine: load it with PyTorch and save it again as .safetensors";

/// A magic number, a version, the system, the content, the names of the storages; then each storage, after its length.
fn open_legacy(
    path: &Path,
    length: u64,
    mut file: BufReader<File>,
    allowance: &mut Allowance,
) -> Result<(Pickle, Contents), ModelError> {
    const CONTENT: usize = 3;
    const NAMES: usize = 4;
    let io = |error: Error| fault(path, Fault::Io(error));
    let mut pickles = Vec::new();
    while pickles.len() <= NAMES && (pickles.is_empty() || !file.fill_buf().map_err(io)?.is_empty()) {
        pickles.push(pickle::read(&mut file, allowance).map_err(|error| fault(path, error))?);
    }
    let mut places = HashMap::new();
    let Some(names) = pickles.get(NAMES) else {
        // A pickle alone: there are no values of tensors.
        return match pickles.len() {
            1 => Ok((pickles.remove(0), Contents::Legacy { file: file.into_inner(), places })),
            count => Err(damaged(path, format!("{count} of {} pickles", NAMES + 1))),
        };
    };
    let bytes_of: HashMap<&str, u64> =
        pickles[CONTENT].storages().filter_map(|storage| Some((&*storage.key, bytes_of_value(&storage.class)?))).collect();
    for key in names.items(&names.root) {
        let pickle::Value::Text(key) = key else { return Err(damaged(path, "a storage without a name")) };
        let mut count = [0; 8];
        file.read_exact(&mut count).map_err(io)?;
        let bytes = bytes_of.get(&**key).ok_or_else(|| damaged(path, format!("storage {key} has an unknown type")))?;
        let size = u64::from_le_bytes(count).saturating_mul(*bytes);
        let start = file.stream_position().map_err(io)?;
        if size > length.saturating_sub(start) {
            return Err(damaged(path, format!("storage {key} of {size} bytes ends beyond the end of the file")));
        }
        file.seek_relative(size as i64).map_err(io)?;
        places.insert(key.to_string(), (start, size));
    }
    Ok((pickles.swap_remove(CONTENT), Contents::Legacy { file: file.into_inner(), places }))
}

fn dtype_of(spec: &TensorSpec) -> Option<Dtype> {
    let wanted = spec.dtype.as_deref().and_then(|dtype| dtype.strip_prefix("torch."));
    let class = class_name(&spec.storage.class);
    DTYPES.into_iter().find(|dtype| wanted.map_or(dtype.0 == class, |wanted| dtype.1 == wanted))
}

fn bytes_of_value(class: &str) -> Option<u64> {
    let class = class_name(class);
    if class == UNTYPED {
        return Some(1);
    }
    DTYPES.iter().find(|dtype| dtype.0 == class).map(|dtype| dtype.3)
}

fn class_name(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}

/// Where a view begins, if all of it is within so many values.
fn within(spec: &TensorSpec, count: usize) -> Option<i64> {
    let start = spec.storage.start.checked_add(spec.offset).filter(|start| *start >= 0)?;
    if spec.size.len() != spec.stride.len() || spec.size.iter().chain(&spec.stride).any(|value| *value < 0) {
        return None;
    }
    if spec.size.contains(&0) {
        return Some(0);
    }
    let steps = spec
        .size
        .iter()
        .zip(&spec.stride)
        .try_fold(start, |last, (size, stride)| last.checked_add((size - 1).checked_mul(*stride)?));
    steps.filter(|last| *last < count as i64).map(|_| start)
}

fn too_large(path: &Path, exceeded: &Exceeded) -> ModelError {
    ModelError::TooLarge { path: path.into(), allowed: exceeded.whole }
}

fn fault(path: &Path, fault: Fault) -> ModelError {
    match fault {
        Fault::Calls(global) if global.starts_with("torch._utils._rebuild_") => {
            ModelError::NotWeights { path: path.into(), what: OTHER_TENSORS }
        }
        Fault::Calls(global) => ModelError::Refused { path: path.into(), global: shortened(&global, LONGEST) },
        Fault::Io(ref error) if let Some(exceeded) = error.get_ref().and_then(|inner| inner.downcast_ref()) => {
            too_large(path, exceeded)
        }
        Fault::Io(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => damaged(path, error),
        Fault::Io(error) => read_error(path, error),
    }
}

/// What is found wrong, in one line of bounded length: it may quote the file.
fn damaged(path: &Path, reason: impl std::fmt::Display) -> ModelError {
    ModelError::DamagedPickle { path: path.into(), reason: shortened(&reason.to_string(), LONGEST) }
}
