use std::path::{Path, PathBuf};
use striate_fetch::FetchError;
use striate_files::FilesError;
use striate_torch::{FileError, Shown, TorchError, few};
use tch::TchError;

/// Why a dataset could not be found, read or turned into batches. Every message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", Shown(path.display()))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No dataset has this name.
    #[error("there is no dataset `{}`{}: the datasets are {}", Shown(name), did_you_mean(nearest.as_deref()), known.join(", "))]
    UnknownName {
        /// The name that was asked for.
        name: String,
        /// The name that looks most like it, if one does.
        nearest: Option<String>,
        /// All names.
        known: Vec<&'static str>,
    },
    /// A folder that was named lacks one of the dataset's files.
    #[error("{} has no {file}: name the folder that holds the files of {name}", Shown(folder.display()))]
    MissingFile {
        /// The dataset.
        name: &'static str,
        /// The folder that was searched.
        folder: PathBuf,
        /// The file's name, or what else is missing.
        file: String,
    },
    /// A file is not what its format demands.
    #[error("{} is not a sound {format} file: {}", Shown(path.display()), Shown(reason))]
    Unsound {
        /// The file.
        path: PathBuf,
        /// The format, such as `IDX`.
        format: &'static str,
        /// What is wrong in it.
        reason: String,
    },
    /// A file that was downloaded earlier can no longer be read.
    #[error("{} is damaged ({}): delete it, then try again to download it", Shown(path.display()), Shown(reason))]
    DamagedCache {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A file that was just downloaded or unpacked is another than the dataset's; it was removed.
    #[error("{from} has the {kind} {actual} where {expected} is expected: the file was removed, try another mirror")]
    WrongChecksum {
        /// Where the file came from.
        from: String,
        /// `MD5` or `SHA-256`.
        kind: &'static str,
        /// The checksum that it should have.
        expected: String,
        /// The checksum that it has.
        actual: String,
    },
    /// A file that somebody put into the cache is another than the dataset's. It stays there.
    #[error("{} is another file: its {kind} is {actual} and not {expected}", Shown(path.display()))]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// `MD5` or `SHA-256`.
        kind: &'static str,
        /// The checksum that it should have.
        expected: String,
        /// The checksum that it has.
        actual: String,
    },
    /// No source gave a file of the dataset.
    #[error(
        "no source gave {file} of {name} ({}): check the network, set STRIATE_MIRROR to a server that has it, or save it as {} yourself",
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        Shown(put.display())
    )]
    Unavailable {
        /// The dataset.
        name: &'static str,
        /// The file.
        file: String,
        /// Where it is found if somebody puts it there by hand.
        put: PathBuf,
        /// One reason a source, in the order in which they were tried.
        reasons: Vec<DatasetError>,
    },
    /// Its publisher gives the dataset to people only.
    #[error("{name} cannot be downloaded by a program: get it from {homepage}, then name its folder")]
    ByHand {
        /// The dataset.
        name: &'static str,
        /// Where to get it.
        homepage: &'static str,
    },
    /// A shard could not be downloaded.
    #[error("{reason}: check the network, or put the file {} into {} yourself", Shown(file), Shown(folder.display()))]
    Shard {
        /// Why not.
        reason: Box<FetchError>,
        /// Its name.
        file: String,
        /// The folder of the cache where it belongs.
        folder: PathBuf,
    },
    /// The system's package could not give the dataset.
    #[error("could not download Debian package {package}: {reason}")]
    Package {
        /// The package.
        package: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// Images, labels and classes do not fit together.
    #[error("{}: {}", Shown(dataset), Shown(reason))]
    Inconsistent {
        /// The dataset or file.
        dataset: String,
        /// What does not fit.
        reason: String,
    },
    /// An option is out of its range, or does not fit the dataset.
    #[error("{option}: {}", Shown(reason))]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// A file is not an image that can be decoded.
    #[error("{} cannot be read as an image: {}", Shown(path.display()), Shown(reason))]
    Image {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Bytes, or a tensor, are not an image that can be decoded.
    #[error("the picture cannot be read: {}", Shown(reason))]
    Picture {
        /// Why not.
        reason: String,
    },
    /// Several files are not images that can be decoded.
    #[error("{first}; {others} more cannot be read either: fix or remove them")]
    BadPictures {
        /// Why the first cannot be read.
        first: Box<DatasetError>,
        /// How many others there are.
        others: usize,
    },
    /// Classes are asked for by name, and there are none of these names.
    #[error("{}: {}", Shown(dataset), class_difference(missing, unknown))]
    OtherClasses {
        /// The dataset.
        dataset: String,
        /// Names that are expected, and that the dataset does not have.
        missing: Vec<String>,
        /// Names that the dataset has, and that are not expected.
        unknown: Vec<String>,
    },
    /// A class goes by a name that two of the expected ones have.
    #[error("{}: its class {} is the name of two that are expected: rename one of those", Shown(dataset), Shown(class))]
    AmbiguousClass {
        /// The dataset.
        dataset: String,
        /// The name.
        class: String,
    },
    /// A caller's callback ended the work.
    #[error("interrupted")]
    Interrupted,
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A download failed.
    #[error(transparent)]
    Fetch(FetchError),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl DatasetError {
    /// Whether libtorch failed. Otherwise what was given is wrong, such as a name or a file, or the disk or the network was at fault.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Torch(_) | Self::File(FileError::Torch { .. }))
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    pub(crate) fn shard(file: &str, folder: &Path, error: FetchError) -> Self {
        match Self::from(error) {
            Self::Fetch(reason) => Self::Shard { reason: Box::new(reason), file: file.to_owned(), folder: folder.into() },
            other => other,
        }
    }

    pub(crate) fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::Option { option, reason: reason.into() }
    }
}

impl From<FilesError> for DatasetError {
    fn from(FilesError { action, path, source }: FilesError) -> Self {
        Self::Io { action, path, source }
    }
}

impl From<FetchError> for DatasetError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Stopped => Self::Interrupted,
            other => Self::Fetch(other),
        }
    }
}

impl From<TchError> for DatasetError {
    fn from(error: TchError) -> Self {
        Self::Torch(error.into())
    }
}

fn class_difference(missing: &[String], unknown: &[String]) -> String {
    let parts = [("lacks the classes ", missing), ("has classes that are not expected: ", unknown)];
    let parts =
        parts.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("it {what}{}", few(names.iter())));
    parts.collect::<Vec<_>>().join("; ")
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libtorch_fails() {
        let path = Path::new("x");
        let error = |kind| std::io::Error::from(kind);
        assert!(!DatasetError::io("write", path, error(std::io::ErrorKind::StorageFull)).is_failure());
        assert!(!DatasetError::io("read", path, error(std::io::ErrorKind::NotFound)).is_failure());
        assert!(!DatasetError::from(FetchError::DiskFull { path: path.into() }).is_failure());
        assert!(!DatasetError::from(FetchError::Status { url: "x".to_owned(), status: 500 }).is_failure());
        assert!(
            !DatasetError::Unavailable { name: "mnist", file: "x".to_owned(), put: path.into(), reasons: Vec::new() }
                .is_failure()
        );
        assert!(!DatasetError::option("batch_size", "is 0").is_failure());
    }
}
