use striate_datasets::DatasetError;
use striate_files::FilesError;
use striate_graph::GraphError;
use striate_layers::LayerError;
use striate_models::ModelError;
use striate_torch::{FileError, TorchError};
use striate_train::TrainError;

/// Why an experiment, or a look inside, gave no result: always one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A wrong call or bad input.
    #[error("{0}")]
    Usage(String),
    /// A figure could not be drawn.
    #[error("cannot draw a figure: {0}")]
    Figure(String),
    /// It was asked to stop; what is measured is kept.
    #[error("stopped; the same command goes on where it was")]
    Stopped,
    /// Another process measures this now: its result can be asked for again later.
    #[error("another process measures this")]
    Elsewhere,
    /// Data or a training run is not as it must be.
    #[error(transparent)]
    Run(#[from] striate::Error),
    /// The data is missing or bad.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A network cannot be built or run.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A layer refused its input.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// An architecture, its options or a bundle are wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A training run failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// libtorch refused something.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<FilesError> for LabError {
    fn from(error: FilesError) -> Self {
        Self::File(error.into())
    }
}

impl From<tch::TchError> for LabError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}
