//! A picture among others: where its bytes are, and its classes.

use crate::decode::read_file;
use crate::{DatasetError, DecodeOptions};
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

/// A picture of an [`ImageFolder`](crate::ImageFolder): a file, or a member of a tar archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureFile {
    path: PathBuf,
    member: Option<Box<Member>>,
    labels: Labels,
}

/// A part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) archive: Arc<Path>,
    /// Where its bytes begin.
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The name that the picture had before it was packed, below the folder of its class.
    pub(crate) name: Option<Box<str>>,
}

/// Indices of classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Labels {
    One(i64),
    Several(Box<[i64]>),
}

/// Where the bytes of a picture are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// What messages name.
    pub(crate) path: &'a Path,
    pub(crate) member: Option<&'a Member>,
}

impl PictureFile {
    pub(crate) fn new(path: PathBuf, labels: Labels) -> Self {
        Self { path, member: None, labels }
    }

    /// A member of an archive, with its name there.
    pub(crate) fn of_archive(name: &str, member: Member, labels: Labels) -> Self {
        Self { path: member.archive.join(name), member: Some(Box::new(member)), labels }
    }

    /// The file; of a member of an archive, the archive's path followed by the member's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The archive that it is a member of.
    pub fn archive(&self) -> Option<&Path> {
        self.member.as_ref().map(|member| &*member.archive)
    }

    /// The index of its class; of several the first, and -1 if it has none.
    pub fn label(&self) -> i64 {
        self.labels().first().copied().unwrap_or(-1)
    }

    /// The indices of its classes.
    pub fn labels(&self) -> &[i64] {
        match &self.labels {
            Labels::One(label) => slice::from_ref(label),
            Labels::Several(labels) => labels,
        }
    }

    /// Its bytes: the content of a picture's file.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Image`] if it cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, DatasetError> {
        let bytes = read_file(self.place(), &DecodeOptions { max_pixels: u64::MAX });
        bytes.map(Into::into).map_err(|reason| DatasetError::Image { path: self.path.clone(), reason })
    }

    /// What changes if its bytes do: paths, lengths and times. None if it is gone.
    pub(crate) fn stamp(&self) -> Option<Vec<u8>> {
        let file = fs::metadata(self.place().file()).ok()?;
        let within = self.member.as_ref().map(|member| (member.offset, member.length));
        let mut stamp = std::path::absolute(&self.path).ok()?.into_os_string().into_encoded_bytes();
        stamp.extend(format!("\0{} {:?} {within:?}\0", file.len(), file.modified().ok()?).bytes());
        Some(stamp)
    }

    /// The name that it had in the folder of its class, if an archive tells it.
    pub(crate) fn former_name(&self) -> Option<&str> {
        self.member.as_ref()?.name.as_deref()
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place { path: &self.path, member: self.member.as_deref() }
    }

    pub(crate) fn relabel(&mut self, labels: Labels) {
        self.labels = labels;
    }
}

impl Labels {
    /// The same classes, which are at these places now.
    pub(crate) fn at(labels: &[i64], places: &[i64], several: bool) -> Self {
        let mut moved = labels.iter().map(|label| places[label.unsigned_abs() as usize]);
        match (several, labels) {
            (false, [_]) => Self::One(moved.next().unwrap_or_default()),
            _ => {
                let mut moved: Vec<i64> = moved.collect();
                moved.sort_unstable();
                moved.dedup();
                Self::Several(moved.into())
            }
        }
    }
}

impl Place<'_> {
    /// The file to open.
    pub(crate) fn file(&self) -> &Path {
        self.member.map_or(self.path, |member| &member.archive)
    }
}

impl<'a> From<&'a Path> for Place<'a> {
    fn from(path: &'a Path) -> Self {
        Self { path, member: None }
    }
}
