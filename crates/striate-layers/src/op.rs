use crate::{
    Activation, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Dropout, Flatten, Forward,
    Layer, LayerError, Linear, LocalResponseNorm, MaxPool2d, Mode, PadShortcut, RbfOutput, Softmax, SparseConv2d, Subsampling2d,
};
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
    Subsampling2d,
);

impl Op {
    /// A layer of your own as a node.
    pub fn custom(layer: impl Forward + 'static) -> Self {
        Self::Custom(Arc::new(layer))
    }
}
