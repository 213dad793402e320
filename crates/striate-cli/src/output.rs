//! Folders that results go to, and how results are counted.
use crate::error::CliError;
use std::fmt::Display;
use std::path::Path;

/// `1 picture`, `2 pictures`.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    let s = if count == N::from(1) { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// Refuses a file.
pub(crate) fn no_file(folder: &Path, option: &str) -> Result<(), CliError> {
    match folder.is_file() {
        true => Err(CliError::Usage(format!("{} is a file, not a folder: give another {option}", folder.display()))),
        false => Ok(()),
    }
}

/// Refuses a name that ends otherwise than files of this kind.
pub(crate) fn named(file: &Path, ending: &str) -> Result<(), CliError> {
    match file.extension() {
        Some(other) if !other.eq_ignore_ascii_case(ending) => {
            Err(CliError::Usage(format!("{}: this is written as .{ending}: give the file a name that ends so", file.display())))
        }
        _ => Ok(()),
    }
}

/// Refuses a folder that holds something, and a file.
pub(crate) fn new_or_empty(folder: &Path, option: &str) -> Result<(), CliError> {
    no_file(folder, option)?;
    let refuse = |reason: &str| Err(CliError::Usage(format!("{} {reason}: give another {option}", folder.display())));
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => refuse("holds files already"),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => refuse(&format!("cannot be written ({error})")),
        _ => Ok(()),
    }
}
