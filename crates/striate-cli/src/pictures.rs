//! Pictures that a command line names: files, patterns of them, those in folders, and test sets of the catalogue.
use crate::error::CliError;
use crate::progress::Download;
use std::path::{Path, PathBuf};
use striate::datasets::{FolderParts, LoadOptions, Loaded, Picture, Split, find, load_with, picture_files};
use striate_datasets::Dataset;
use tch::Tensor;

/// A picture that was named.
pub(crate) struct Named {
    /// Its file, or its dataset and its number there.
    pub(crate) name: PathBuf,
    /// Its pixels, unless it is a file: uint8, `[C, H, W]`.
    pixels: Option<Tensor>,
}

impl Named {
    fn file(name: PathBuf) -> Self {
        Self { name, pixels: None }
    }
}

impl<'a> From<&'a Named> for Picture<'a> {
    fn from(named: &'a Named) -> Self {
        named.pixels.as_ref().map_or(Self::File(&named.name), Self::Tensor)
    }
}

/// What is named, in its order, and within a folder in the order of names. A file goes before a dataset of its name.
pub(crate) fn pictures(paths: &[PathBuf]) -> Result<Vec<Named>, CliError> {
    let mut pictures = Vec::new();
    for path in paths {
        match path.to_str().filter(|name| !path.exists() && find(name).is_ok()) {
            Some(dataset) => pictures.extend(test_set(dataset)?),
            None if path.is_dir() => {
                let files = picture_files(path).map_err(striate::Error::from)?;
                pictures.extend(files.into_iter().map(Named::file));
            }
            None => pictures.extend(files(path)?.into_iter().map(Named::file)),
        }
    }
    Ok(pictures)
}

/// The file of this name, or those whose names are of this pattern, in the order of names.
fn files(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    let Some(pattern) = path.to_str().filter(|name| name.contains(['*', '?', '[']) && !path.exists()) else {
        return Ok(vec![path.to_owned()]);
    };
    let visible = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let found = glob::glob_with(pattern, visible).map_err(|error| CliError::Usage(format!("{pattern}: {error}")))?;
    let files: Vec<PathBuf> = found.filter_map(Result::ok).filter(|file| !file.is_dir()).collect();
    match files.is_empty() {
        true => Err(CliError::Usage(format!("{pattern}: no file has a name of this pattern"))),
        false => Ok(files),
    }
}

fn test_set(dataset: &str) -> Result<Vec<Named>, CliError> {
    let bar = Download::new();
    let loaded = load_with(dataset, &LoadOptions::default(), &mut |file, done, total| bar.update(file, done, total))?;
    let test = match loaded {
        Loaded::Memory(Split { test, .. }) => test,
        Loaded::Files(FolderParts { train, val, test }) => {
            let judge = test.or(val).unwrap_or(train);
            return Ok(judge.files().iter().map(|file| Named::file(file.path().to_owned())).collect());
        }
    };
    let named = |number: usize| {
        let pixels = test.images().f_get(number as i64)?;
        Ok(Named { name: Path::new(dataset).join(number.to_string()), pixels: Some(pixels) })
    };
    (0..test.len()).map(named).collect()
}
