//! What the exporter of a layer works with.
use crate::ExportError;
use crate::onnx::Attribute;
use crate::writer::Writer;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use striate_graph::{Graph, Node};
use striate_layers::Shape;

/// Writes the nodes of one layer: what it reads, its parameters, and the nodes that it becomes.
pub struct Nodes<'a, 'w> {
    pub(crate) writer: &'a mut Writer<'w>,
    pub(crate) graph: &'a Graph,
    pub(crate) node: &'a Node,
    pub(crate) inputs: Vec<String>,
    /// The step of the bytes that the first input is read through, in int8.
    pub(crate) step: Option<f32>,
}

impl Nodes<'_, '_> {
    /// The names of the values that the layer reads.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// The shapes of these values, each for one example.
    pub fn shapes(&self) -> Vec<Shape> {
        self.graph.input_shapes(self.node)
    }

    /// Adds a node of ONNX's operators (version 18) that gives one value: the value's name.
    pub fn add(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        self.writer.node(op, &format!("{}/{op}", self.node.name), inputs, attributes)
    }

    /// A parameter of the layer: the value's name.
    ///
    /// # Errors
    ///
    /// A layer without a parameter of that name.
    pub fn parameter(&mut self, name: &str) -> Result<String, ExportError> {
        let shape = self.shape_of(name)?;
        Ok(self.writer.parameter(&self.full(name), &shape, None))
    }

    /// A tensor of numbers, in the type in which the network computes: the value's name.
    ///
    /// # Errors
    ///
    /// Numbers that the type cannot hold.
    pub fn numbers(&mut self, name: &str, shape: &[i64], values: &[f32]) -> Result<String, ExportError> {
        self.writer.floats(&self.full(name), shape, values)
    }

    /// A row of whole numbers, as many operators take them: the value's name.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.writer.integers(&self.full(name), values)
    }

    /// The full name of something of the layer's.
    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}.{name}", self.node.name)
    }

    pub(crate) fn shape_of(&self, parameter: &str) -> Result<Vec<i64>, ExportError> {
        let spec = self.graph.params(self.node).into_iter().find(|spec| spec.name == parameter);
        spec.map(|spec| spec.shape).ok_or_else(|| self.fault(format!("has no parameter {parameter}")))
    }

    /// The values of a small parameter.
    pub(crate) fn values(&self, parameter: &str) -> Result<Vec<f32>, ExportError> {
        self.writer.weights.values(&self.full(parameter))
    }

    /// What the layer reads, if that is one value.
    pub(crate) fn input(&self) -> String {
        self.inputs.first().cloned().unwrap_or_default()
    }

    /// What is wrong with the layer.
    pub(crate) fn fault(&self, reason: String) -> ExportError {
        ExportError::Layer { layer: self.node.name.clone(), op: self.node.op_name(), reason }
    }
}

/// Writes the nodes of a layer whose options (see [`Layer::options`](striate_layers::Layer::options)) are given: the name of the value
/// that they give.
type Write = fn(&Value, &mut Nodes<'_, '_>) -> Result<String, ExportError>;

/// The nodes of layers of your own, by the layers' names.
///
/// ```
/// use striate_export::{CustomNodes, ExportOptions};
///
/// // A layer `Scale` that multiplies by its option.
/// let scale = CustomNodes::default().with("Scale", |options, nodes| {
///     let by = options.as_f64().unwrap_or(1.0) as f32;
///     let by = nodes.numbers("by", &[], &[by])?;
///     let input = nodes.inputs()[0].clone();
///     Ok(nodes.add("Mul", &[&input, &by], Vec::new()))
/// });
/// let options = ExportOptions { nodes: scale, ..ExportOptions::default() };
/// ```
#[derive(Clone, Default)]
pub struct CustomNodes {
    writers: BTreeMap<String, Write>,
}

impl CustomNodes {
    /// With the nodes of the layer whose [`Layer::name`](striate_layers::Layer::name) is `layer`.
    #[must_use]
    pub fn with(mut self, layer: &str, write: Write) -> Self {
        self.writers.insert(layer.to_owned(), write);
        self
    }

    pub(crate) fn get(&self, layer: &str) -> Option<Write> {
        self.writers.get(layer).copied()
    }
}

impl fmt::Debug for CustomNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.writers.keys()).finish()
    }
}
