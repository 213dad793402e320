use crate::{
    Activation, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Dropout, Flatten, Forward,
    Layer, LayerError, Linear, LocalResponseNorm, MaxPool2d, Mode, PadShortcut, RbfOutput, Softmax, SparseConv2d,
    StochasticDepth, Subsampling2d,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tch::Tensor;

macro_rules! ops {
    ($($variant:ident),* $(,)?) => {
        /// Any layer, as a node of a network has it: the built-in ones, which passes over a network match on, and one variant
        /// for a layer of your own.
        #[derive(Debug, Clone)]
        #[allow(missing_docs, reason = "each variant is the layer of its name")]
        pub enum Op {
            $($variant($variant),)*
            /// A layer of your own.
            Custom(Arc<dyn Forward>),
        }

        impl Op {
            /// What the layer inside says of itself.
            pub fn layer(&self) -> &dyn Layer {
                match self {
                    $(Self::$variant(layer) => layer,)*
                    Self::Custom(layer) => layer.as_ref(),
                }
            }

            /// Computes the layer: see [`Forward::forward`].
            pub fn forward(&self, params: &[Tensor], inputs: &[&Tensor], mode: Mode) -> Result<Tensor, LayerError> {
                match self {
                    $(Self::$variant(layer) => layer.forward(params, inputs, mode),)*
                    Self::Custom(layer) => layer.forward(params, inputs, mode),
                }
            }

            /// The layer as data: see [`LayerData`].
            ///
            /// # Errors
            ///
            /// [`LayerError::NoOptions`] if a layer of your own does not tell its options.
            pub fn to_data(&self) -> Result<LayerData, LayerError> {
                Ok(match self {
                    $(Self::$variant(layer) => LayerData::BuiltIn {
                        layer: stringify!($variant).to_owned(),
                        // Plain data of numbers and texts: nothing in it can fail.
                        options: serde_json::to_value(layer).unwrap_or_default(),
                    },)*
                    Self::Custom(layer) => LayerData::Custom {
                        custom: layer.name().to_owned(),
                        options: layer.options().ok_or(LayerError::NoOptions)?,
                    },
                })
            }

            /// The layer that [`to_data`](Self::to_data) described, where `custom` are those of your own that may be meant.
            ///
            /// # Errors
            ///
            /// [`LayerError::UnknownLayer`] for a layer that neither Striate nor `custom` has, [`LayerError::Option`] for
            /// options that it does not take.
            pub fn from_data(data: LayerData, custom: &CustomLayers) -> Result<Self, LayerError> {
                let (name, options) = match data {
                    LayerData::BuiltIn { layer, options } => (layer, options),
                    LayerData::Custom { custom: name, options } => return custom.make(&name, options),
                };
                match name.as_str() {
                    $(stringify!($variant) => Ok(Self::$variant(parse(&name, options)?)),)*
                    _ => Err(LayerError::UnknownLayer { name }),
                }
            }
        }

        $(impl From<$variant> for Op {
            fn from(layer: $variant) -> Self {
                Self::$variant(layer)
            }
        })*
    };
}

ops!(
    Activation,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    PadShortcut,
    RbfOutput,
    Softmax,
    SparseConv2d,
    StochasticDepth,
    Subsampling2d,
);

impl Op {
    /// A layer of your own as a node.
    pub fn custom(layer: impl Forward + 'static) -> Self {
        Self::Custom(Arc::new(layer))
    }
}

/// A layer as plain data, which files hold: its name, and its options as its fields name them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `layer` or `custom`, a name")]
pub enum LayerData {
    /// One of Striate's layers.
    BuiltIn {
        /// Its name, such as `Conv2d`.
        layer: String,
        /// Its fields; null if it has none.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        options: Value,
    },
    /// A layer of your own.
    Custom {
        /// What [`Layer::name`] says.
        custom: String,
        /// What [`Layer::options`] says.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        options: Value,
    },
}

type Make = fn(&str, Value) -> Result<Op, LayerError>;

/// Layers of your own by name, so that they are found again when a file names them.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use striate_layers::{CustomLayers, Forward, Layer, LayerError, Mode, Op, Shape};
/// use tch::Tensor;
///
/// #[derive(Debug, Serialize, Deserialize)]
/// struct Scale(f64);
///
/// impl Layer for Scale {
///     fn name(&self) -> &'static str {
///         "Scale"
///     }
///     fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
///         Ok(inputs[0].clone())
///     }
///     fn options(&self) -> Option<serde_json::Value> {
///         serde_json::to_value(self).ok()
///     }
/// }
///
/// impl Forward for Scale {
///     fn forward(&self, _: &[Tensor], inputs: &[&Tensor], _: Mode) -> Result<Tensor, LayerError> {
///         Ok(inputs[0] * self.0)
///     }
/// }
///
/// let known = CustomLayers::default().with::<Scale>("Scale");
/// let data = Op::custom(Scale(0.5)).to_data()?;
/// assert_eq!(Op::from_data(data, &known)?.layer().name(), "Scale");
/// # Ok::<(), LayerError>(())
/// ```
#[derive(Clone, Default)]
pub struct CustomLayers {
    makers: BTreeMap<String, Make>,
}

impl CustomLayers {
    /// With a layer whose [`Layer::name`] is `name`; it is made from what its [`Layer::options`] said.
    pub fn with<L: Forward + DeserializeOwned + 'static>(mut self, name: &str) -> Self {
        self.makers.insert(name.to_owned(), |name, options| Ok(Op::custom(parse::<L>(name, options)?)));
        self
    }

    fn make(&self, name: &str, options: Value) -> Result<Op, LayerError> {
        match self.makers.get(name) {
            Some(make) => make(name, options),
            None => Err(LayerError::UnknownLayer { name: name.to_owned() }),
        }
    }
}

impl fmt::Debug for CustomLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.makers.keys()).finish()
    }
}

fn parse<L: DeserializeOwned>(name: &str, options: Value) -> Result<L, LayerError> {
    serde_json::from_value(options).map_err(|error| LayerError::option(name, format!("has bad options: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Init, Padding};

    /// A layer comes back from text with every option, to the last bit of its numbers.
    #[test]
    fn layers_come_back_from_text() {
        let conv = Conv2d::new(6, [5, 3]).padding(Padding::Same).no_bias().init(Init::pytorch(), Init::zeros());
        let ops = [
            conv.into(),
            Activation::Relu.into(),
            Add.into(),
            Dropout::new(0.1 + 0.2).into(),
            BatchNorm2d::new().eps(1e-3).into(),
            MaxPool2d::new(3).stride(2).ceil_mode().into(),
            SparseConv2d::lenet_c3().into(),
            RbfOutput::digits(10).into(),
            LocalResponseNorm::alexnet().into(),
        ];
        for op in ops as [Op; 9] {
            let text = serde_json::to_string(&op.to_data().unwrap()).unwrap();
            let back = Op::from_data(serde_json::from_str(&text).unwrap(), &CustomLayers::default()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{op:?}"), "{text}");
        }
        let add = serde_json::to_string(&Op::from(Add).to_data().unwrap()).unwrap();
        assert_eq!(add, r#"{"layer":"Add"}"#);
    }

    #[test]
    fn what_no_layer_is_is_told() {
        let told = |text: &str| {
            let data = serde_json::from_str(text).unwrap();
            Op::from_data(data, &CustomLayers::default()).unwrap_err().to_string()
        };
        assert!(told(r#"{"layer":"Conv3d"}"#).starts_with("Conv3d is no layer of Striate's"));
        assert!(told(r#"{"custom":"Mine"}"#).starts_with("Mine is no layer of Striate's"));
        assert!(told(r#"{"layer":"Dropout","options":{"q":1}}"#).contains("`q`"));
        assert!(told(r#"{"layer":"Flatten","options":{"dim":1}}"#).contains("Flatten has bad options"));
    }
}
