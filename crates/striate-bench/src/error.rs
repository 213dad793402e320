use striate_datasets::DatasetError;
use striate_files::FilesError;
use striate_graph::GraphError;
use striate_infer::PlanError;
use striate_layers::LayerError;
use striate_models::ModelError;
use striate_torch::{FileError, TorchError};
use striate_train::TrainError;

/// Why nothing was measured: always one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A wrong call or bad input.
    #[error("{0}")]
    Usage(String),
    /// A program that measures did not do so.
    #[error("{0}")]
    Failed(String),
    /// Reading or writing failed.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried, such as `write FILE`.
        what: String,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A dataset or a loader refused.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A network cannot be frozen.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A network cannot be built or run.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A loss refused its input.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// An architecture is unknown or refuses its options.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file of tensors cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// An optimizer or a checkpoint refused.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// libtorch refused something.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<FilesError> for BenchError {
    fn from(error: FilesError) -> Self {
        Self::File(error.into())
    }
}

impl From<tch::TchError> for BenchError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

impl BenchError {
    /// For `map_err`: names what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io { what: what.into(), error }
    }
}
