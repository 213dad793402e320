use std::path::PathBuf;
use striate_datasets::DatasetError;
use striate_fetch::FetchError;
use striate_files::FilesError;
use striate_graph::GraphError;
use striate_infer::PlanError;
use striate_models::ModelError;
use striate_torch::{FileError, Shown, TorchError};
use striate_train::TrainError;

/// Why something could not be classified, trained or read. Every message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A wrong value of an option.
    #[error("{} {}", Shown(option), Shown(reason))]
    Option {
        /// The option and its value.
        option: String,
        /// Why it can't be.
        reason: String,
    },
    /// A bundle that does not say how images become inputs.
    #[error("{} does not say how images become inputs: make a bundle from its weights, with mean, standard deviation and size", Shown(path.display()))]
    NoPreprocess {
        /// The bundle.
        path: PathBuf,
    },
    /// A run's folder that can't be used.
    #[error("{} {}", Shown(path.display()), Shown(reason))]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A classifier for other classes than the data's.
    #[error("the weights tell {weights} classes apart and the data {data}: replace the head (`head = \"replace\"` in [model])")]
    OtherClasses {
        /// Classes of the weights.
        weights: usize,
        /// Classes of the data.
        data: usize,
    },
    /// Data that is not where it was.
    #[error("the data is not in {}: if it was moved, say where it is", Shown(path.display()))]
    MissingData {
        /// Where it is said to be.
        path: PathBuf,
    },
    /// A folder with pictures to train with alone.
    #[error(
        "{} has nothing to judge by: put pictures into a folder `val` or `test` beside `train`, or hold some out with `split = 0.2` in [data]",
        Shown(folder.display())
    )]
    NothingToJudgeBy {
        /// The folder.
        folder: PathBuf,
    },
    /// A figure could not be drawn.
    #[error("cannot draw a figure: {0}")]
    Figure(String),
    /// A stop was asked for, where there is nothing to save.
    #[error("stopped")]
    Stopped,
    /// Images could not be read.
    #[error(transparent)]
    Dataset(DatasetError),
    /// The network failed.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A network could not be frozen.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A model or a file of weights could not be built, read or written.
    #[error(transparent)]
    Model(ModelError),
    /// Training failed.
    #[error(transparent)]
    Train(TrainError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<DatasetError> for Error {
    fn from(error: DatasetError) -> Self {
        match error {
            DatasetError::Interrupted => Self::Stopped,
            other => Self::Dataset(other),
        }
    }
}

impl From<TrainError> for Error {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Stopped => Self::Stopped,
            other => Self::Train(other),
        }
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Fetch(FetchError::Stopped) => Self::Stopped,
            other => Self::Model(other),
        }
    }
}

impl From<FilesError> for Error {
    fn from(error: FilesError) -> Self {
        Self::File(error.into())
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

impl Error {
    pub(crate) fn option(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Option { option: option.into(), reason: reason.into() }
    }

    /// Whether something failed that was asked for rightly, such as libtorch. Otherwise what was given is wrong, or the disk
    /// or the network was at fault.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Dataset(error) | Self::Train(TrainError::Dataset(error)) => error.is_failure(),
            Self::Graph(error)
            | Self::Plan(PlanError::Graph(error))
            | Self::Model(ModelError::Graph(error))
            | Self::Train(TrainError::Graph(error)) => error.is_failure(),
            Self::Train(TrainError::Torch(_)) | Self::Torch(_) | Self::Figure(_) => true,
            _ => false,
        }
    }
}
