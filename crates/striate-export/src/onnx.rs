//! The messages of an ONNX file, as far as they are written here: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.
//!
//! Field numbers and names are that file's.
use prost::Message;
use std::fmt;

/// The version of the format (2022-08), the first that has operator set 18.
pub(crate) const IR_VERSION: i64 = 8;
/// The operator set: the first whose `Resize` is antialiased.
pub(crate) const OPSET: i64 = 18;

/// The type of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Float32 = 1,
    Uint8 = 2,
    Int8 = 3,
    Int32 = 6,
    Int64 = 7,
    Float16 = 10,
}

impl Type {
    /// Bytes of a value.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Uint8 | Self::Int8 => 1,
            Self::Float16 => 2,
            Self::Float32 | Self::Int32 => 4,
            Self::Int64 => 8,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSetId>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata_props: Vec<StringEntry>,
}

/// The number of `graph` in a model.
pub(crate) const GRAPH: u32 = 7;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSetId {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StringEntry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// A graph without its initializers, which are written one by one.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfo>,
}

/// The number of `initializer` in a graph.
pub(crate) const INITIALIZER: u32 = 5;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<Attribute>,
}

/// An attribute of a node.
#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(float, tag = "2")]
    pub(crate) f: f32,
    #[prost(int64, tag = "3")]
    pub(crate) i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) s: Vec<u8>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub(crate) r#type: i32,
}

impl Attribute {
    /// A number.
    pub fn float(name: &str, value: f64) -> Self {
        Self { name: name.to_owned(), f: value as f32, r#type: 1, ..Self::default() }
    }

    /// A whole number.
    pub fn int(name: &str, value: i64) -> Self {
        Self { name: name.to_owned(), i: value, r#type: 2, ..Self::default() }
    }

    /// A text.
    pub fn text(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), s: value.into(), r#type: 3, ..Self::default() }
    }

    /// Whole numbers.
    pub fn ints(name: &str, values: impl Into<Vec<i64>>) -> Self {
        Self { name: name.to_owned(), ints: values.into(), r#type: 7, ..Self::default() }
    }
}

/// A tensor without its values.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<StringEntry>,
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

/// The number of `raw_data`, a tensor's values.
pub(crate) const RAW_DATA: u32 = 9;
/// What `data_location` says of values in another file.
pub(crate) const EXTERNAL: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(oneof = "Size", tags = "1, 2")]
    pub(crate) value: Option<Size>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Size {
    #[prost(int64, tag = "1")]
    Fixed(i64),
    /// A size that each call may choose anew.
    #[prost(string, tag = "2")]
    Named(String),
}

impl ValueInfo {
    pub(crate) fn new(name: &str, of: Type, sizes: impl IntoIterator<Item = Size>) -> Self {
        let dim = sizes.into_iter().map(|size| Dimension { value: Some(size) }).collect();
        let tensor_type = TensorType { elem_type: of as i32, shape: Some(TensorShape { dim }) };
        Self { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
    }

    /// A value for each example of a batch of any size.
    pub(crate) fn of_batch(name: &str, of: Type, shape: &[i64]) -> Self {
        let batch = Size::Named("batch".to_owned());
        Self::new(name, of, std::iter::once(batch).chain(shape.iter().map(|size| Size::Fixed(*size))))
    }
}

impl fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensor = self.r#type.as_ref().and_then(|of| of.tensor_type.as_ref());
        let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).into_iter().flat_map(|shape| &shape.dim);
        let sizes = dims.map(|dim| match &dim.value {
            Some(Size::Fixed(size)) => size.to_string(),
            Some(Size::Named(name)) => name.clone(),
            None => "?".to_owned(),
        });
        write!(f, "{} [{}]", self.name, sizes.collect::<Vec<_>>().join(", "))
    }
}
