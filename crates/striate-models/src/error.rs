use std::path::PathBuf;
use striate_graph::GraphError;
use striate_torch::FileError;

/// Why a model can't be built, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No variant of that name.
    #[error("there is no model {name}: did you mean {nearest}?")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The most similar name.
        nearest: &'static str,
    },
    /// No option of that name.
    #[error("{model} has no option {option}: did you mean {nearest}?")]
    UnknownOption {
        /// The variant.
        model: &'static str,
        /// What was asked for.
        option: String,
        /// The most similar name.
        nearest: String,
    },
    /// An option with a value that it can't have.
    #[error("{model}: bad option: {reason}")]
    BadOption {
        /// The variant.
        model: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The layers don't fit one another, the input or the weights.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A file of weights can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of tensors that doesn't say what network it belongs to.
    #[error("{} holds weights only: a bundle also says what network they belong to; name the model beside the file", path.display())]
    NoBundle {
        /// The file.
        path: PathBuf,
    },
    /// A bundle whose description can't be read.
    #[error("{} was not written by this version of striate, or is damaged: {reason}", path.display())]
    BadBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A bundle whose weights don't fit the network that it names.
    #[error("{}: {source}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What doesn't fit.
        source: Box<GraphError>,
    },
}
