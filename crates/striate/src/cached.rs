//! Parts of a dataset whose pictures are decoded once.
use crate::Error;
use crate::data::{Parts, Progress};
use std::path::{Path, PathBuf};
use striate_datasets::{Cache, Cached, Dataset};
use striate_train::DataSection;

/// Below Striate's cache folder.
const FOLDER: &str = "pictures";

impl Parts {
    /// The same parts, with decoded pictures kept where the recipe says. No value changes. Parts in memory stay as they are. `whole`
    /// is as in [`Data::fit`](crate::data::Data::fit).
    ///
    /// # Errors
    ///
    /// A picture that cannot be read, a file that cannot be written, and an interruption.
    pub fn cached(self, section: &DataSection, whole: bool, progress: Progress) -> Result<Self, Error> {
        let mut left = Cache::SMALL;
        let mut keep = |part: Box<dyn Dataset>, name: &str, whole: bool| keep(part, name, whole, section, &mut left, progress);
        let train = keep(self.train, "train", whole)?;
        let mut judge = |part: Option<Box<dyn Dataset>>, name: &str| part.map(|part| keep(part, name, false)).transpose();
        Ok(Self { train, val: judge(self.val, "val")?, test: judge(self.test, "test")? })
    }
}

/// A part, kept; `left` are the bytes that may still be kept in memory by default.
fn keep(
    part: Box<dyn Dataset>,
    name: &str,
    whole: bool,
    section: &DataSection,
    left: &mut u64,
    progress: Progress,
) -> Result<Box<dyn Dataset>, Error> {
    if section.cache == Cache::Off || part.examples()?.in_memory() {
        return Ok(part);
    }
    let bytes = part.shape().iter().fold(part.len() as u64, |bytes, side| bytes.saturating_mul(side.unsigned_abs()));
    Ok(match section.cache {
        Cache::Memory => Box::new(Cached::in_memory(part, whole)?),
        Cache::Auto if !whole && bytes <= *left => {
            *left -= bytes;
            Box::new(Cached::in_memory(part, whole)?)
        }
        Cache::File => {
            let file = file(section, name, whole, part.shape())?;
            let mut told = |done: usize, of: usize| progress("caching", done as u64, Some(of as u64));
            Box::new(Cached::in_file(part, whole, &file, &mut told)?)
        }
        _ => part,
    })
}

/// Where a part of this data is kept.
fn file(section: &DataSection, part: &str, whole: bool, shape: [i64; 3]) -> Result<PathBuf, Error> {
    let dir = std::path::absolute(&section.dir).unwrap_or_else(|_| section.dir.clone());
    let text = format!("{} {part} {whole} {shape:?} {}", section.name, dir.display());
    let of_text = |error| Error::option("cache", format!("cannot be named: {error}"));
    let name = striate_fetch::sha256_reader(text.as_bytes()).map_err(of_text)?;
    let folder = striate_fetch::cache_dir().map_err(striate_datasets::DatasetError::from)?;
    Ok(Path::new(&folder).join(FOLDER).join(format!("{}.pixels", &name[..16])))
}
