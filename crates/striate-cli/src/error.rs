use striate_datasets::DatasetError;
use striate_export::ExportError;
use striate_fetch::FetchError;
use striate_files::FilesError;
use striate_graph::GraphError;
use striate_infer::PlanError;
#[cfg(feature = "lab")]
use striate_lab::LabError;
use striate_models::ModelError;
#[cfg(feature = "serve")]
use striate_serve::ServeError;
#[cfg(feature = "serve")]
use striate_torch::Shown;
use striate_torch::{FileError, TorchError};
use striate_train::TrainError;

/// What a bundle lacks that is to compute in int8.
const CALIBRATE: &str = "int8 needs a calibration: keep one in the bundle (`striate weights convert` and its --calibrate)";
/// What makes a bundle of a file that holds weights alone.
const MAKE_A_BUNDLE: &str = "`striate weights convert` with --model, --mean and --std";

/// Why a command ended: always one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A wrong call or bad input.
    #[error("{0}")]
    Usage(String),
    /// Something failed that was asked for rightly.
    #[error("{0}")]
    Failed(String),
    /// Something wrong was found, by a command that looks for it.
    #[cfg(feature = "lab")]
    #[error("{0}")]
    Found(String),
    /// The user stopped it.
    #[error("{0}")]
    Stopped(String),
    /// Another process has said why, and this one only ends with a code.
    #[error("another process has said why")]
    Told(u8),
    #[error(transparent)]
    Dataset(DatasetError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Model(ModelError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<DatasetError> for CliError {
    fn from(error: DatasetError) -> Self {
        match error {
            DatasetError::Interrupted => Self::Stopped("stopped".to_owned()),
            other => Self::Dataset(other),
        }
    }
}

impl From<striate::Error> for CliError {
    fn from(error: striate::Error) -> Self {
        match error {
            striate::Error::Dataset(error) => error.into(),
            striate::Error::Graph(error) => error.into(),
            striate::Error::Plan(error) => error.into(),
            striate::Error::Model(error) => error.into(),
            striate::Error::Train(error) => error.into(),
            striate::Error::File(error) => error.into(),
            striate::Error::Torch(error) => error.into(),
            striate::Error::Stopped => Self::Stopped(error.to_string()),
            error @ striate::Error::OtherClasses { .. } => Self::Usage(format!("{error} (--head replace)")),
            error @ striate::Error::NothingToJudgeBy { .. } => Self::Usage(format!("{error} (--split 0.2)")),
            error @ striate::Error::MissingData { .. } => Self::Usage(format!("{error} (--data-dir)")),
            error @ striate::Error::Figure(_) => Self::Failed(error.to_string()),
            other => Self::Usage(other.to_string()),
        }
    }
}

impl From<FilesError> for CliError {
    fn from(error: FilesError) -> Self {
        Self::File(error.into())
    }
}

impl From<tch::TchError> for CliError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

impl From<ModelError> for CliError {
    /// Says which arguments do what the library's error proposes.
    fn from(error: ModelError) -> Self {
        let arguments = match &error {
            ModelError::OtherClasses { file, .. } => format!("-o classes={file}, or --head replace"),
            ModelError::OtherHead { .. } => "--head replace".to_owned(),
            ModelError::NoAuxHeads { .. } => "-o aux_heads=false".to_owned(),
            ModelError::UnusedAuxHeads { .. } => "-o aux_heads=true".to_owned(),
            ModelError::UnknownModel { nearest: None, .. } => "`striate models` lists them".to_owned(),
            ModelError::UnknownWeights { nearest: None, .. } => "`striate weights list` prints it".to_owned(),
            ModelError::NoBundle { .. } => MAKE_A_BUNDLE.to_owned(),
            ModelError::Fetch(FetchError::Stopped) => return Self::Stopped(error.to_string()),
            ModelError::Fetch(FetchError::Unreachable { .. }) => {
                return Self::Usage(format!("{error}: download the file elsewhere, then name the MODEL and the file"));
            }
            ModelError::SeveralNetworks { path, .. } => format!("write {}#KEY", path.display()),
            _ => return Self::Model(error),
        };
        Self::Usage(format!("{error} ({arguments})"))
    }
}

impl From<ExportError> for CliError {
    /// Says which arguments do what the library's error proposes.
    fn from(error: ExportError) -> Self {
        let arguments = match error {
            ExportError::Model(error) => return error.into(),
            ExportError::File(error) => return error.into(),
            ExportError::Run { .. } => return Self::Failed(error.to_string()),
            ExportError::NoPictures { .. } | ExportError::Resizing { .. } => "--raw",
            ExportError::NoCalibration { .. } => "`striate weights convert` and its --calibrate",
            ExportError::TooLarge { .. } => "--precision float32",
            other => return Self::Usage(other.to_string()),
        };
        Self::Usage(format!("{error} ({arguments})"))
    }
}

#[cfg(feature = "serve")]
impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match &error {
            ServeError::TwoOfOneName { .. } => Self::Usage(format!("{error} (NAME=BUNDLE)")),
            ServeError::Bundle { source, .. } if matches!(**source, striate::Error::Model(ModelError::NoBundle { .. })) => {
                Self::Usage(format!("{error} ({MAKE_A_BUNDLE})"))
            }
            ServeError::Bundle { name, source } if matches!(**source, striate::Error::Plan(PlanError::NotCalibrated)) => {
                Self::Usage(format!("{}: {CALIBRATE}", Shown(name)))
            }
            _ if error.is_failure() => Self::Failed(error.to_string()),
            _ => Self::Usage(error.to_string()),
        }
    }
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Graph(error) => error.into(),
            PlanError::NotCalibrated => Self::Usage(CALIBRATE.to_owned()),
            other => Self::Usage(other.to_string()),
        }
    }
}

#[cfg(feature = "lab")]
impl From<LabError> for CliError {
    fn from(error: LabError) -> Self {
        match error {
            LabError::Dataset(DatasetError::Interrupted) => Self::Stopped(LabError::Stopped.to_string()),
            LabError::Usage(line) => Self::Usage(line),
            LabError::Run(error) => error.into(),
            LabError::Dataset(error) => error.into(),
            LabError::Graph(error) => error.into(),
            LabError::Model(error) => error.into(),
            LabError::File(error) => error.into(),
            LabError::Train(error) => error.into(),
            LabError::Torch(error) => error.into(),
            LabError::Stopped => Self::Stopped(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl CliError {
    /// 2 for what the one who called can mend: a wrong call, bad input, a full disk, no network, a loss that became NaN; 1 for a
    /// failure of libtorch, and for what `data check` found; 130 if the user stopped it.
    pub(crate) fn exit_code(&self) -> u8 {
        let failed = match self {
            Self::Stopped(_) => return 130,
            Self::Told(code) => return *code,
            Self::Failed(_) | Self::Torch(_) => true,
            #[cfg(feature = "lab")]
            Self::Found(_) => true,
            Self::Dataset(error) | Self::Train(TrainError::Dataset(error)) => error.is_failure(),
            Self::Graph(error) | Self::Model(ModelError::Graph(error)) | Self::Train(TrainError::Graph(error)) => {
                error.is_failure()
            }
            Self::Train(error) => matches!(error, TrainError::Torch(_) | TrainError::Process { .. }),
            Self::Model(_) | Self::Usage(_) | Self::File(_) => false,
        };
        if failed { 1 } else { 2 }
    }
}
