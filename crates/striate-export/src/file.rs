//! Files of ONNX, tensor by tensor: none but the one that is written is in memory.
use crate::ExportError;
use crate::onnx::{EXTERNAL, GRAPH, GraphProto, INITIALIZER, ModelProto, RAW_DATA, StringEntry, TensorProto};
use crate::weights::Weights;
use crate::writer::Constant;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::io::{self, Write};
use std::path::Path;
use striate_files::FilesError;

/// The most bytes of tensors in the file itself: 2 GiB, the most of a message, less what the rest may take.
pub(crate) const LARGEST: u64 = (1 << 31) - (1 << 26);
/// Smaller tensors stay in the file even if others do not.
const SMALL: u64 = 1024;

/// All that a file has.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) weights: Weights,
    pub(crate) model: ModelProto,
    pub(crate) graph: GraphProto,
    pub(crate) constants: Vec<Constant>,
}

impl Content {
    /// Bytes of all tensors.
    pub(crate) fn tensors_len(&self) -> u64 {
        self.constants.iter().map(Constant::len).sum()
    }

    /// Writes everything into one file, or tensors into a second one, `NAME.data`, if they take more than `largest` bytes.
    pub(crate) fn write(&self, path: &Path, largest: u64) -> Result<(), ExportError> {
        if self.tensors_len() <= largest {
            return whole(path, |out| self.write_to(out, None));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".data");
        let data = path.with_file_name(&name);
        let new = !data.exists() && !path.exists();
        let written = whole(&data, |out| {
            let mut large = self.constants.iter().filter(|constant| constant.len() >= SMALL);
            large.try_for_each(|constant| Ok(out.write_all(&constant.bytes(&self.weights)?)?))
        });
        let written = written.and_then(|()| whole(path, |out| self.write_to(out, Some(&name.to_string_lossy()))));
        if written.is_err() && new && !path.exists() {
            // Nothing refers to it. If it cannot be removed, the first error is still the one to tell.
            let _ = std::fs::remove_file(&data);
        }
        written
    }

    /// Writes the file. With `data`, the name of another, large tensors are there.
    pub(crate) fn write_to(&self, out: &mut dyn Write, data: Option<&str>) -> Result<(), Failure> {
        let mut offset = 0;
        let mut tensors = Vec::with_capacity(self.constants.len());
        for constant in &self.constants {
            let Constant { name, dims, of, .. } = constant;
            let mut tensor =
                TensorProto { dims: dims.clone(), data_type: *of as i32, name: name.clone(), ..TensorProto::default() };
            if let Some(data) = data.filter(|_| constant.len() >= SMALL) {
                let entries =
                    [("location", data.to_owned()), ("offset", offset.to_string()), ("length", constant.len().to_string())];
                let entries = entries.map(|(key, value)| StringEntry { key: key.to_owned(), value });
                (tensor.external_data, tensor.data_location) = (entries.into(), EXTERNAL);
                offset += constant.len();
            }
            tensors.push((tensor, constant));
        }
        let length = |(tensor, constant): &(TensorProto, &Constant)| {
            let values = if tensor.data_location == EXTERNAL { 0 } else { field_len(RAW_DATA, constant.len()) };
            tensor.encoded_len() as u64 + values
        };
        let graph_len =
            self.graph.encoded_len() as u64 + tensors.iter().map(|tensor| field_len(INITIALIZER, length(tensor))).sum::<u64>();
        let mut head = self.model.encode_to_vec();
        begin(&mut head, GRAPH, graph_len);
        out.write_all(&head)?;
        out.write_all(&self.graph.encode_to_vec())?;
        for tensor in &tensors {
            let (message, constant) = tensor;
            let mut head = Vec::new();
            begin(&mut head, INITIALIZER, length(tensor));
            head.extend(message.encode_to_vec());
            if message.data_location == EXTERNAL {
                out.write_all(&head)?;
                continue;
            }
            begin(&mut head, RAW_DATA, constant.len());
            out.write_all(&head)?;
            out.write_all(&constant.bytes(&self.weights)?)?;
        }
        Ok(())
    }
}

/// The key and the length of a field of bytes.
fn begin(head: &mut Vec<u8>, field: u32, length: u64) {
    encode_key(field, WireType::LengthDelimited, head);
    encode_varint(length, head);
}

/// What a field of so many bytes takes.
fn field_len(field: u32, length: u64) -> u64 {
    (key_len(field) + encoded_len_varint(length)) as u64 + length
}

/// Why writing ended: on the side that is read, or on the one that is written.
pub(crate) enum Failure {
    Export(ExportError),
    Io(io::Error),
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self::Export(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes a file whole or not at all.
fn whole(path: &Path, content: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), ExportError> {
    let mut failed = None;
    let written = striate_files::write(path, |out| match content(out) {
        Ok(()) => Ok(()),
        Err(Failure::Io(error)) => Err(error),
        Err(Failure::Export(error)) => {
            failed = Some(error);
            Err(io::Error::other("stopped"))
        }
    });
    match failed {
        Some(error) => Err(error),
        None => written.map_err(|error: FilesError| error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{ExportOptions, Onnx};
    use striate_graph::{Graph, InitOptions, Network};
    use striate_layers::{Flatten, Linear};
    use striate_models::{Bundle, BundleInfo};
    use tempfile::TempDir;

    /// What a reader sees of a file here: its tensors.
    #[derive(Clone, PartialEq, Message)]
    struct ReadModel {
        #[prost(message, optional, tag = "7")]
        graph: Option<ReadGraph>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ReadGraph {
        #[prost(message, repeated, tag = "5")]
        initializer: Vec<ReadTensor>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ReadTensor {
        #[prost(string, tag = "8")]
        name: String,
        #[prost(bytes = "vec", tag = "9")]
        raw_data: Vec<u8>,
        #[prost(message, repeated, tag = "13")]
        external_data: Vec<StringEntry>,
        #[prost(int32, tag = "14")]
        data_location: i32,
    }

    /// A linear layer of 300 features, its weight, and its export.
    fn linear() -> (TempDir, Vec<u8>, Onnx) {
        let graph = Graph::build(|net| {
            let x = net.input([3, 10, 10]);
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(2), x)?;
            net.output("logits", x)
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.safetensors");
        let network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
        let state = network.state();
        let weight: Vec<f32> = Vec::try_from(state["fc.weight"].flatten(0, -1)).unwrap();
        Bundle { info: BundleInfo::new(network.graph().clone(), &[], None), state }.write(&path).unwrap();
        let onnx = Onnx::of_bundle(&path, &ExportOptions { raw: true, ..ExportOptions::default() }).unwrap();
        (folder, weight.iter().flat_map(|value| value.to_le_bytes()).collect(), onnx)
    }

    fn tensors(path: &Path) -> Vec<ReadTensor> {
        ReadModel::decode(&*std::fs::read(path).unwrap()).unwrap().graph.unwrap().initializer
    }

    #[test]
    fn large_tensors_lie_in_a_second_file() {
        let (folder, weight, onnx) = linear();
        let path = folder.path().join("x.onnx");
        onnx.content.write(&path, LARGEST).unwrap();
        let [one, bias] = tensors(&path).try_into().unwrap();
        assert_eq!((one.name.as_str(), &one.raw_data, bias.name.as_str()), ("fc.weight", &weight, "fc.bias"));
        assert!(!folder.path().join("x.onnx.data").exists());

        onnx.content.write(&path, 0).unwrap();
        let [two, same_bias] = tensors(&path).try_into().unwrap();
        let entries: Vec<(&str, &str)> = two.external_data.iter().map(|entry| (&*entry.key, &*entry.value)).collect();
        assert_eq!(entries, [("location", "x.onnx.data"), ("offset", "0"), ("length", "2400")]);
        assert_eq!((two.data_location, two.raw_data.len()), (1, 0));
        assert_eq!(std::fs::read(folder.path().join("x.onnx.data")).unwrap(), weight);
        assert_eq!(same_bias, bias, "small ones stay");
    }

    /// Whichever operation fails, neither file stays.
    #[test]
    #[cfg(debug_assertions)]
    fn a_failing_disk_leaves_nothing() {
        let (folder, _, onnx) = linear();
        let path = folder.path().join("x.onnx");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut fault = 1;
        loop {
            striate_files::inject_fault(fault, false);
            let written = onnx.content.write(&path, 0);
            striate_files::inject_fault(0, false);
            if written.is_ok() {
                break;
            }
            // Syncing the folder comes last: the files are there by then.
            let left = if path.exists() { 3 } else { 1 };
            assert_eq!(names(), left, "after operation {fault}");
            for name in ["x.onnx", "x.onnx.data"] {
                let _ = std::fs::remove_file(folder.path().join(name));
            }
            fault += 1;
        }
        assert!(fault > 6 && names() == 3);
    }
}
