//! A graph of ONNX that grows node by node.
use crate::onnx::{Attribute, GraphProto, NodeProto, Type, ValueInfo};
use crate::weights::{Weights, floats, scale_rows};
use crate::{ExportError, Precision};
use half::f16;
use std::borrow::Cow;
use std::collections::HashSet;

/// The largest byte of a weight in int8.
const MAX_WEIGHT: f32 = 127.0;

/// A tensor of the file. Large ones are read when they are written.
#[derive(Debug)]
pub(crate) struct Constant {
    pub(crate) name: String,
    pub(crate) dims: Vec<i64>,
    pub(crate) of: Type,
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// As they are written.
    Bytes(Vec<u8>),
    /// A parameter whose rows are multiplied by factors, if there are some, and then divided by the steps of bytes, if it becomes
    /// int8.
    Parameter { name: String, factors: Option<Vec<f64>>, steps: Option<Vec<f32>> },
}

impl Constant {
    /// How many bytes the file has of it.
    pub(crate) fn len(&self) -> u64 {
        self.dims.iter().map(|dim| dim.unsigned_abs()).product::<u64>() * self.of.size()
    }

    /// The values as the file has them.
    pub(crate) fn bytes(&self, weights: &Weights) -> Result<Cow<'_, [u8]>, ExportError> {
        let (name, factors, steps) = match &self.data {
            Data::Bytes(bytes) => return Ok(bytes.into()),
            Data::Parameter { name, factors, steps } => (name, factors, steps),
        };
        let mut bytes = weights.bytes(name)?;
        if let Some(factors) = factors {
            scale_rows(&mut bytes, factors);
        }
        Ok(match (self.of, steps) {
            (Type::Int8, Some(steps)) => in_bytes(&bytes, steps).into(),
            (Type::Float16, _) => halved(floats(&bytes), name)?.into(),
            _ => bytes.into(),
        })
    }
}

/// Rows of numbers as bytes of int8, which stand for so many of their row's step.
fn in_bytes(values: &[u8], steps: &[f32]) -> Vec<u8> {
    let row = values.len() / steps.len().max(1);
    let rows = values.chunks_exact(row.max(1)).zip(steps);
    // Rounding to even, as libtorch does it.
    rows.flat_map(|(row, step)| floats(row).map(move |value| ((value / step).round_ties_even() as i8).cast_unsigned())).collect()
}

fn halved(values: impl Iterator<Item = f32>, name: &str) -> Result<Vec<u8>, ExportError> {
    let mut bytes = Vec::with_capacity(2 * values.size_hint().0);
    for value in values {
        let half = f16::from_f32(value);
        if !half.is_finite() {
            return Err(ExportError::TooLarge { name: name.to_owned() });
        }
        bytes.extend(half.to_le_bytes());
    }
    Ok(bytes)
}

/// The graph, its tensors, and the names that are taken.
#[derive(Debug)]
pub(crate) struct Writer<'w> {
    pub(crate) weights: &'w Weights,
    pub(crate) precision: Precision,
    pub(crate) graph: GraphProto,
    pub(crate) constants: Vec<Constant>,
    names: HashSet<String>,
}

impl<'w> Writer<'w> {
    pub(crate) fn new(weights: &'w Weights, precision: Precision) -> Self {
        Self { weights, precision, graph: GraphProto::default(), constants: Vec::new(), names: HashSet::new() }
    }

    /// The type in which the network computes.
    pub(crate) fn float(&self) -> Type {
        if self.precision == Precision::Float16 { Type::Float16 } else { Type::Float32 }
    }

    /// That name, or with a number behind it if it is taken.
    pub(crate) fn name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{wanted}_{number}");
        }
        name
    }

    /// Adds a node that gives one value, and names the value.
    pub(crate) fn node(&mut self, op: &str, name: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        let output = self.name(name);
        let input = inputs.iter().map(|input| (*input).to_owned()).collect();
        let (name, op_type) = (output.clone(), op.to_owned());
        self.graph.node.push(NodeProto { input, output: vec![output.clone()], name, op_type, attribute });
        output
    }

    fn constant(&mut self, name: &str, dims: &[i64], of: Type, data: Data) -> String {
        let name = self.name(name);
        self.constants.push(Constant { name: name.clone(), dims: dims.to_vec(), of, data });
        name
    }

    /// Float32 numbers.
    pub(crate) fn float32(&mut self, name: &str, dims: &[i64], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, dims, Type::Float32, Data::Bytes(bytes))
    }

    /// Numbers in the type in which the network computes.
    pub(crate) fn floats(&mut self, name: &str, dims: &[i64], values: &[f32]) -> Result<String, ExportError> {
        if self.float() == Type::Float32 {
            return Ok(self.float32(name, dims, values));
        }
        let bytes = halved(values.iter().copied(), name)?;
        Ok(self.constant(name, dims, Type::Float16, Data::Bytes(bytes)))
    }

    /// Whole numbers in a row.
    pub(crate) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[values.len().cast_signed() as i64], Type::Int64, Data::Bytes(bytes))
    }

    /// A byte, as the zero point of a quantised value.
    pub(crate) fn byte(&mut self, name: &str, value: u8) -> String {
        self.constant(name, &[], Type::Uint8, Data::Bytes(vec![value]))
    }

    /// A parameter, its rows multiplied by factors if there are some, in the type in which the network computes.
    pub(crate) fn parameter(&mut self, name: &str, dims: &[i64], factors: Option<Vec<f64>>) -> String {
        let data = Data::Parameter { name: name.to_owned(), factors, steps: None };
        self.constant(name, dims, self.float(), data)
    }

    /// The same as bytes that are made numbers again, one step for each row: the value and the steps.
    pub(crate) fn quantised_parameter(
        &mut self,
        name: &str,
        dims: &[i64],
        factors: Option<Vec<f64>>,
    ) -> Result<(String, Vec<f32>), ExportError> {
        let mut bytes = self.weights.bytes(name)?;
        if let Some(factors) = &factors {
            scale_rows(&mut bytes, factors);
        }
        let row = bytes.len() / dims[0].unsigned_abs() as usize;
        let largest = |row: &[u8]| floats(row).fold(0.0, |largest: f32, value| largest.max(value.abs()));
        // A row of zeros has any step.
        let steps = bytes.chunks_exact(row).map(|row| largest(row).max(f32::MIN_POSITIVE * MAX_WEIGHT) / MAX_WEIGHT);
        let steps: Vec<f32> = steps.collect();
        let data = Data::Parameter { name: name.to_owned(), factors, steps: Some(steps.clone()) };
        let quantised = self.constant(&format!("{name}_int8"), dims, Type::Int8, data);
        Ok((self.dequantised(name, &quantised, &steps, None), steps))
    }

    /// A bias in int32, as runtimes add it to the sums of products of bytes.
    pub(crate) fn quantised_bias(&mut self, name: &str, values: &[f64], steps: &[f32]) -> String {
        let rounded = values.iter().zip(steps).map(|(value, step)| (value / f64::from(*step)).round_ties_even() as i32);
        let bytes = rounded.flat_map(i32::to_le_bytes).collect();
        let dims = [values.len().cast_signed() as i64];
        let quantised = self.constant(&format!("{name}_int32"), &dims, Type::Int32, Data::Bytes(bytes));
        self.dequantised(name, &quantised, steps, None)
    }

    /// A value as bytes of this step and zero point, made numbers again.
    pub(crate) fn quantised(&mut self, name: &str, value: &str, step: f32, zero_point: u8) -> String {
        let scale = self.float32(&format!("{name}_scale"), &[], &[step]);
        let zero = self.byte(&format!("{name}_zero_point"), zero_point);
        let bytes = self.node("QuantizeLinear", &format!("{name}/QuantizeLinear"), &[value, &scale, &zero], Vec::new());
        self.node("DequantizeLinear", &format!("{name}/DequantizeLinear"), &[&bytes, &scale, &zero], Vec::new())
    }

    fn dequantised(&mut self, name: &str, bytes: &str, steps: &[f32], zero_point: Option<&str>) -> String {
        let scale = self.float32(&format!("{name}_scale"), &[steps.len().cast_signed() as i64], steps);
        let inputs: Vec<&str> = [bytes, &scale].into_iter().chain(zero_point).collect();
        self.node("DequantizeLinear", &format!("{name}/DequantizeLinear"), &inputs, vec![Attribute::int("axis", 0)])
    }

    /// In another type.
    pub(crate) fn cast(&mut self, name: &str, value: &str, to: Type) -> String {
        self.node("Cast", name, &[value], vec![Attribute::int("to", to as i64)])
    }

    pub(crate) fn input(&mut self, name: &str, info: impl FnOnce(&str) -> ValueInfo) -> String {
        let name = self.name(name);
        self.graph.input.push(info(&name));
        name
    }

    /// Makes a value an output, under its name, in float32.
    pub(crate) fn output(&mut self, name: &str, value: &str, shape: &[i64], of: Type) {
        let op = if of == Type::Float32 { "Identity" } else { "Cast" };
        let attributes = if of == Type::Float32 { Vec::new() } else { vec![Attribute::int("to", Type::Float32 as i64)] };
        let name = self.node(op, name, &[value], attributes);
        self.graph.output.push(ValueInfo::of_batch(&name, Type::Float32, shape));
    }
}
