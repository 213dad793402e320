use crate::Shape;
use striate_torch::{Shown, TorchError};

/// Why a layer can't take its inputs, or failed. A network puts the layer's full name before the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A wrong number of inputs.
    #[error("takes {expected}, got {got} inputs")]
    InputCount {
        /// Such as `one input`.
        expected: &'static str,
        /// How many there were.
        got: usize,
    },
    /// An input of the wrong shape.
    #[error("expected an input of shape {expected}, got {got}")]
    InputShape {
        /// What it takes, such as `[C, H, W]`.
        expected: String,
        /// What it was given.
        got: Shape,
    },
    /// A window that doesn't fit into its input.
    #[error("the input {got} is too small for a window of {height}x{width}: use a larger image or fewer downsampling layers")]
    TooSmall {
        /// Height that the window covers, dilation included.
        height: i64,
        /// Width that the window covers, dilation included.
        width: i64,
        /// What it was given.
        got: Shape,
    },
    /// An option that doesn't fit the input or the other options.
    #[error("{} {}", Shown(option), Shown(reason))]
    Option {
        /// The option and its value, such as `groups = 3`.
        option: String,
        /// Why it can't be.
        reason: String,
    },
    /// A layer of your own that does not tell its options.
    #[error("cannot be written to a file: it does not tell its options (implement `Layer::options`)")]
    NoOptions,
    /// A layer that a file names and nobody has.
    #[error("{} is no layer of Striate's, and none of that name is registered here", Shown(name))]
    UnknownLayer {
        /// Its name in the file.
        name: String,
    },
    /// Two parameters under one name.
    #[error("a parameter named {} exists already: give one of the two layers another name", Shown(name))]
    NameTaken {
        /// The full name.
        name: String,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<tch::TchError> for LayerError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

impl LayerError {
    pub(crate) fn option(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Option { option: option.into(), reason: reason.into() }
    }
}
