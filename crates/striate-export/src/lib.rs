//! Bundles as ONNX: one file that any runtime opens, with its preprocessing in it.
//!
//! ```no_run
//! use std::path::Path;
//! use striate_export::{ExportOptions, Onnx};
//!
//! let onnx = Onnx::of_bundle(Path::new("flowers.safetensors"), &ExportOptions::default())?;
//! onnx.write(Path::new("flowers.onnx"))?;
//! # Ok::<(), striate_export::ExportError>(())
//! ```
//!
//! | | default | `raw` |
//! |---|---|---|
//! | input | `images`, uint8 `[batch, height, width, C]`, of any size | the network's inputs, such as `input`: normalised float32 `[batch, C, H, W]` |
//! | in the file | resizing, cropping, normalising, the network, softmax (or sigmoid) | the network |
//! | output | `probabilities`, float32 `[batch, classes]` | the network's outputs, such as `logits`: float32 |
//!
//! The network is exported as in evaluation: without dropout and auxiliary heads. Names of classes, the preprocessing, where the
//! network comes from, what it was trained on and the licence of its weights are in the file's metadata. Operators are those of version 18.
//!
//! A bundle has its graph and its weights as data, so nothing here computes with libtorch, and a program that does no more than
//! export links none. *Absent*: running the result, but for a check with tract behind the feature `check`.

#[cfg(feature = "check")]
mod check;
mod error;
mod file;
mod layers;
mod nodes;
mod onnx;
mod picture;
mod pool;
mod quantise;
mod weights;
mod writer;

use file::{Content, LARGEST};
use onnx::{IR_VERSION, ModelProto, OPSET, OperatorSetId, StringEntry, Type, ValueInfo};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use striate_graph::{Node, NodeKind};
use striate_layers::{BatchNorm2d, Mode, Op};
use striate_models::{BundleInfo, Registry};
use weights::Weights;
use writer::Writer;

#[cfg(feature = "check")]
pub use check::{Batch, Runner, Values};
pub use error::ExportError;
pub use nodes::{CustomNodes, Nodes};
pub use onnx::Attribute;

/// The type in which an exported network computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// As it was trained.
    #[default]
    Float32,
    /// Weights and values of half the size. Inputs and outputs stay float32.
    Float16,
    /// Convolutions and linear layers read bytes, by the bundle's calibration: `QuantizeLinear` and `DequantizeLinear` stand around
    /// them, from which runtimes make operators of int8.
    Int8,
}

/// How a bundle is exported.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// From normalised inputs to the network's outputs, without preprocessing and probabilities.
    pub raw: bool,
    /// The type in which the network computes.
    pub precision: Precision,
    /// Whether batch norm goes into the weights of the convolution before it. int8 always has it there.
    pub fold: bool,
    /// Entries of the file's metadata beside those that the bundle gives, or in their place.
    pub metadata: BTreeMap<String, String>,
    /// Layers and architectures of your own that the bundle may name.
    pub registry: Registry,
    /// The nodes of layers of your own.
    pub nodes: CustomNodes,
}

impl Default for ExportOptions {
    /// Pictures to probabilities, float32, batch norm folded.
    fn default() -> Self {
        Self {
            raw: false,
            precision: Precision::default(),
            fold: true,
            metadata: BTreeMap::new(),
            registry: Registry::default(),
            nodes: CustomNodes::default(),
        }
    }
}

/// A bundle as ONNX, ready to be written. Large weights are read from the bundle while it is written.
#[derive(Debug)]
pub struct Onnx {
    path: PathBuf,
    content: Content,
}

impl Onnx {
    /// Exports a bundle.
    ///
    /// # Errors
    ///
    /// A file that is missing, damaged or no bundle; weights that don't fit the network; a layer of your own without nodes; a bundle
    /// that lacks what the options ask for.
    pub fn of_bundle(path: &Path, options: &ExportOptions) -> Result<Self, ExportError> {
        let info = BundleInfo::read_with(path, &options.registry)?;
        let weights = Weights::open(path)?;
        let misfit = |source| ExportError::Misfit { path: path.into(), source: Box::new(source) };
        info.graph.check_shapes(&weights.shapes()).map_err(misfit)?;
        let mut writer = Writer::new(&weights, options.precision);
        Exporter { path, info: &info, options }.write(&mut writer)?;
        let Writer { mut graph, constants, .. } = writer;
        graph.name = info.name().to_owned();
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "striate".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            opset_import: vec![OperatorSetId { domain: String::new(), version: OPSET }],
            metadata_props: metadata(&info, &options.metadata),
        };
        Ok(Self { path: path.into(), content: Content { weights, model, graph, constants } })
    }

    /// Writes the file whole or not at all. If tensors take more than 2 GB, they are in a second file, `NAME.data`, which has to stay
    /// beside the first.
    ///
    /// # Errors
    ///
    /// A file that cannot be written or is the bundle, weights that cannot be read, are not finite, or are too large for float16.
    pub fn write(&self, to: &Path) -> Result<(), ExportError> {
        if is_same(&self.path, to) {
            return Err(ExportError::SameFile { path: to.into() });
        }
        self.content.write(to, LARGEST)
    }

    /// The inputs and outputs with their shapes: `images [batch, height, width, 3] to probabilities [batch, 10]`.
    pub fn signature(&self) -> String {
        let values = |values: &[ValueInfo]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let graph = &self.content.graph;
        format!("{} to {}", values(&graph.input), values(&graph.output))
    }

    /// Bytes of all tensors.
    pub fn tensors_len(&self) -> u64 {
        self.content.tensors_len()
    }
}

/// Whether two names lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// What the file says beside its graph: texts, of which those that are structured are JSON.
fn metadata(info: &BundleInfo, more: &BTreeMap<String, String>) -> Vec<StringEntry> {
    let mut entries = BTreeMap::new();
    let json = |value: serde_json::Value| value.to_string();
    entries.insert("classes", json(serde_json::json!(info.classes)));
    if let Some(preprocess) = &info.preprocess {
        entries.insert("preprocess", json(serde_json::json!(preprocess)));
    }
    if let Some(origin) = &info.origin {
        entries.insert("origin", json(serde_json::json!(origin)));
    }
    if let Some(threshold) = info.threshold {
        entries.insert("threshold", threshold.to_string());
    }
    if let Some(licence) = &info.licence {
        entries.insert("licence", licence.clone());
    }
    if !info.trained_on.is_empty() {
        entries.insert("trained_on", json(serde_json::json!(info.trained_on)));
    }
    entries.insert("metrics", json(serde_json::json!(info.metrics)));
    let entries = entries.into_iter().filter(|(key, _)| !more.contains_key(*key)).map(|(key, value)| (key.to_owned(), value));
    let entries = entries.chain(more.iter().map(|(key, value)| (key.clone(), value.clone())));
    entries.map(|(key, value)| StringEntry { key, value }).collect()
}

struct Exporter<'a> {
    path: &'a Path,
    info: &'a BundleInfo,
    options: &'a ExportOptions,
}

impl Exporter<'_> {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), ExportError> {
        let Self { path, info, options } = *self;
        let graph = &info.graph;
        let needed = graph.evaluated();
        let norms = if options.fold || options.precision == Precision::Int8 { self.folded(&needed) } else { BTreeMap::new() };
        let scales = match (options.precision, &info.calibration) {
            (Precision::Int8, Some(calibration)) => quantise::scales(graph, &needed, calibration),
            (Precision::Int8, None) => return Err(ExportError::NoCalibration { path: path.into() }),
            _ => vec![None; graph.nodes().len()],
        };
        // What each node gives: its values, and the same through bytes where it is read as such.
        let mut values: Vec<[String; 2]> = vec![Default::default(); graph.nodes().len()];
        for (index, node) in graph.nodes().iter().enumerate().filter(|(index, _)| needed[*index]) {
            let value = match &node.kind {
                NodeKind::Input => self.input(node, writer)?,
                NodeKind::Layer(_) if norms.values().any(|norm| *norm == index) => values[node.inputs[0]][0].clone(),
                NodeKind::Layer(op) => {
                    let inputs = node.inputs.iter().map(|input| values[*input][1].clone()).collect();
                    let step = node.inputs.first().and_then(|input| scales[*input]).map(|scale| scale.step as f32);
                    let norm = norms.get(&index).map(|norm| &graph.nodes()[*norm]).and_then(|node| Some((as_norm(node)?, node)));
                    layers::write(op, &mut Nodes { writer, graph, node, inputs, step }, norm, &options.nodes)?
                }
            };
            let read = match scales[index].filter(|_| !norms.contains_key(&index)) {
                Some(scale) => {
                    writer.quantised(&node.name, &value, scale.step as f32, u8::try_from(scale.zero_point).unwrap_or_default())
                }
                None => value.clone(),
            };
            values[index] = [value, read];
        }
        for (place, (name, node)) in graph.outputs_in(Mode::Eval).enumerate() {
            let index = graph.nodes().iter().position(|other| std::ptr::eq(other, node)).unwrap_or_default();
            let (value, shape) = (values[index][0].clone(), node.shape.dims());
            if options.raw || place > 0 || info.classes.is_empty() {
                let of = writer.float();
                writer.output(name, &value, shape, of);
            } else {
                let probabilities =
                    picture::probabilities(writer, &value, info.loss.is_multi_label(), info.answering.temperature);
                writer.output("probabilities", &probabilities, shape, Type::Float32);
            }
        }
        Ok(())
    }

    /// An input of the network: one of the file's, or what its pictures become.
    fn input(&self, node: &Node, writer: &mut Writer<'_>) -> Result<String, ExportError> {
        let Self { path, info, options } = *self;
        let value = match &info.preprocess {
            _ if options.raw => writer.input(&node.name, |name| ValueInfo::of_batch(name, Type::Float32, node.shape.dims())),
            Some(preprocess) if info.graph.inputs().count() == 1 => picture::input(writer, preprocess)?,
            _ => return Err(ExportError::NoPictures { path: path.into() }),
        };
        let of = writer.float();
        Ok(if of == Type::Float32 { value } else { writer.cast(&format!("{}/Cast", node.name), &value, of) })
    }

    /// The convolutions that a batch norm goes into, with that: nothing else reads what they give.
    fn folded(&self, needed: &[bool]) -> BTreeMap<usize, usize> {
        let nodes = self.info.graph.nodes();
        let mut uses = vec![0; nodes.len()];
        for (_, node) in nodes.iter().enumerate().filter(|(index, _)| needed[*index]) {
            node.inputs.iter().for_each(|input| uses[*input] += 1);
        }
        let is_output = |node: &Node| self.info.graph.outputs_in(Mode::Eval).any(|(_, output)| std::ptr::eq(output, node));
        let norms = nodes.iter().enumerate().filter(|(index, node)| needed[*index] && as_norm(node).is_some());
        let folds = norms.filter_map(|(index, node)| {
            let input = *node.inputs.first()?;
            let before = &nodes[input];
            let folds = matches!(before.kind, NodeKind::Layer(Op::Conv2d(_))) && uses[input] == 1 && !is_output(before);
            folds.then_some((input, index))
        });
        folds.collect()
    }
}

fn as_norm(node: &Node) -> Option<&BatchNorm2d> {
    match &node.kind {
        NodeKind::Layer(Op::BatchNorm2d(norm)) => Some(norm),
        _ => None,
    }
}
