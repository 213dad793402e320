use crate::{
    Activation, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Dropout, Flatten, Layer,
    Linear, LocalResponseNorm, MaxPool2d, PadShortcut, RbfOutput, Softmax, SparseConv2d, Subsampling2d,
};
use std::sync::Arc;

macro_rules! ops {
    ($($variant:ident),* $(,)?) => {
        /// Any layer, as a node of a network has it: the built-in ones, which passes over a network match on, and one variant
        /// for a layer of your own.
        #[derive(Debug, Clone)]
        #[allow(missing_docs, reason = "each variant is the layer of its name")]
        pub enum Op {
            $($variant($variant),)*
            /// A layer of your own.
            Custom(Arc<dyn Layer>),
        }

        impl Op {
            /// The layer inside.
            pub fn layer(&self) -> &dyn Layer {
                match self {
                    $(Self::$variant(layer) => layer,)*
                    Self::Custom(layer) => layer.as_ref(),
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
    pub fn custom(layer: impl Layer + 'static) -> Self {
        Self::Custom(Arc::new(layer))
    }
}
