use std::path::PathBuf;
use striate_datasets::DatasetError;
use striate_files::FilesError;
use striate_graph::GraphError;
use striate_layers::LayerError;
use striate_models::ModelError;
use striate_torch::{FileError, Shown, TorchError};

/// Why a training run can't start, go on, or be resumed. Every message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// An option of a run that can't be.
    #[error("{} {reason}", Shown(option))]
    Option {
        /// The option and its value, such as `lr = -1`.
        option: String,
        /// Why it can't be.
        reason: &'static str,
    },
    /// A recipe that can't be read.
    #[error("{}: {}", Shown(path.display()), Shown(reason))]
    Recipe {
        /// The recipe's file.
        path: PathBuf,
        /// What is wrong in it, and where.
        reason: String,
    },
    /// A sound file of tensors that is no checkpoint, or doesn't fit the run.
    #[error("{}: {}", Shown(path.display()), Shown(reason))]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// The state of another optimizer, or of other parameters.
    #[error("the optimizer's state does not fit: {}", Shown(reason))]
    OptimizerState {
        /// The names and shapes that don't.
        reason: String,
    },
    /// A network for other classes than the dataset's.
    #[error(
        "the network gives {network:?}, but {} has {classes} classes: set the network's classes or replace its head",
        Shown(dataset)
    )]
    Classes {
        /// The shape of the network's logits for one example.
        network: Vec<i64>,
        /// The dataset.
        dataset: String,
        /// How many classes it has.
        classes: usize,
    },
    /// Pictures with several classes for a network that answers with one, or the other way round.
    #[error("{} has {}: {}", Shown(dataset), if *several { "pictures with several classes, and the network answers with one" }
        else { "one class for each picture, and the network answers with several" },
        "train a network on it, or take other data")]
    Labels {
        /// The dataset.
        dataset: String,
        /// Whether its pictures have several.
        several: bool,
    },
    /// A loss or a weight that is no number any more.
    #[error(
        "{what} NaN or infinite in epoch {} at step {step} with learning rate {lr:.3e}: lower it, warm up or clip gradients{}",
        epoch + 1, kept(checkpoint)
    )]
    Diverged {
        /// `the loss became`, `a weight became` or `the test loss became`.
        what: &'static str,
        /// The epoch, counted from 0.
        epoch: u64,
        /// The step's number in the run, counted from 1.
        step: u64,
        /// Its learning rate.
        lr: f64,
        /// The last good checkpoint, which is kept.
        checkpoint: Option<PathBuf>,
    },
    /// A teacher that cannot teach the network.
    #[error("the teacher {} {}", Shown(path.display()), Shown(reason))]
    Teacher {
        /// The teacher's bundle.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A step that takes more memory than there is.
    #[error(
        "not enough memory on {device} for a batch of {batch}{}: take a smaller one, or send it through in more parts (`accumulate`)",
        fits.map_or_else(String::new, |fits| format!(", and about {fits} would fit"))
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Images that went through the network at once.
        batch: usize,
        /// About how many would fit, if that can be said.
        fits: Option<u64>,
    },
    /// A target, or a column of the logits, of a class that there isn't.
    #[error("a target or a column of the logits is beyond the {classes} classes")]
    BeyondClasses {
        /// How many classes there are.
        classes: usize,
    },
    /// A network whose layers are all frozen.
    #[error("the network has nothing to train: freeze fewer layers")]
    NothingToTrain,
    /// A training set whose last batch has one example, over which batch norm has no variance.
    #[error("the last batch has one example, over which {layer} has no variance: take another batch size, or `drop_last = true`")]
    LoneExample {
        /// The layer.
        layer: String,
    },
    /// A step that can't be recorded as a CUDA graph.
    #[error("the training step cannot be recorded: {reason}: train with `cuda_graph = false`")]
    NotRecorded {
        /// Why not.
        reason: String,
    },
    /// Processes that cannot meet to train together.
    #[error("{}", Shown(reason))]
    World {
        /// Why not, and what to do.
        reason: String,
    },
    /// Another process of the run failed, or is lost.
    #[error("{}", Shown(reason))]
    Process {
        /// Which, and why as far as it is known.
        reason: String,
    },
    /// A stop was asked for during an evaluation. A [`Trainer`](crate::Trainer) saves itself then, and its run ends as
    /// [`Outcome::Stopped`](crate::Outcome::Stopped).
    #[error("stopped during an evaluation")]
    Stopped,
    /// A picture that can't be encoded.
    #[error("cannot encode a picture: {reason}")]
    Picture {
        /// Why not.
        reason: String,
    },
    /// A network failed.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A batch could not be loaded.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The network's description could not be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A loss failed.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<FilesError> for TrainError {
    fn from(error: FilesError) -> Self {
        Self::File(error.into())
    }
}

impl From<tch::TchError> for TrainError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

fn kept(checkpoint: &Option<PathBuf>) -> String {
    checkpoint.as_ref().map_or_else(String::new, |path| format!("; the last good checkpoint is {}", Shown(path.display())))
}

/// Refuses the value of an option unless `ok`. What is no number to reckon with is told as that, whatever else it must be.
pub(crate) fn check(ok: bool, name: &str, value: impl std::fmt::Debug, reason: &'static str) -> Result<(), TrainError> {
    if ok {
        return Ok(());
    }
    let value = format!("{value:?}");
    let reason = if ["inf", "-inf", "NaN"].contains(&value.as_str()) { "must be a finite number" } else { reason };
    Err(TrainError::Option { option: format!("{name} = {value}"), reason })
}
