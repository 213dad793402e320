//! Pictures whose classes are told by a text, as in lists and shards: from these texts to datasets.

use super::file::Labels;
use super::parts::Part;
use super::source::unsized_yet;
use super::{FolderParts, ImageFolder, LeftOut, PictureFile, Reason};
use crate::classes::normal;
use crate::{DatasetError, DecodeOptions, Task};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file beside a list or shards that names the classes, one a line, in the order of their numbers.
pub(crate) const CLASSES: &str = "classes.txt";

/// No path and no class is longer, in bytes.
pub(crate) const LONGEST: usize = 4096;

/// What a text says of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    /// Its number.
    Number(u64),
    /// Its name, or its number if there is no such name.
    Text(String),
}

/// Pictures and their classes, as they are found.
pub(crate) struct Gathered {
    /// Below this folder the pictures lie.
    root: PathBuf,
    /// What the pictures are of, for messages.
    name: String,
    /// Whether the names are all that there are, and in the order of the classes.
    is_closed: bool,
    names: Vec<String>,
    /// The place of each among `names`.
    places: HashMap<String, i64>,
    parts: [(Vec<PictureFile>, LeftOut); 3],
    /// Whether what cannot be taken is left out and counted; otherwise it is an error.
    skip_bad: bool,
}

impl Gathered {
    /// None yet. If `root` or one of the other folders has a file of classes, there are no other classes.
    pub(crate) fn new(root: &Path, name: String, folders: &[&Path], skip_bad: bool) -> Result<Self, DatasetError> {
        let parts = [(); 3].map(|()| (Vec::new(), LeftOut::default()));
        let (names, places) = (Vec::new(), HashMap::new());
        let mut gathered = Self { root: root.to_owned(), name, is_closed: false, names, places, parts, skip_bad };
        let file = folders.iter().map(|folder| folder.join(CLASSES)).find(|file| file.exists());
        if let Some(file) = file {
            // Some editors of Windows begin a text so.
            let text = striate_files::read_to_string(&file)?;
            for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
                let fault = |reason: &str| fault(format!("{}, line {number}", file.display()), reason.to_owned());
                match line.trim() {
                    "" => return Err(fault("a class has no name: write one name a line")),
                    name if gathered.places.contains_key(&normal(name)) => {
                        return Err(fault("this class is named before: remove one of both lines"));
                    }
                    name => _ = gathered.class(name),
                }
            }
            gathered.is_closed = true;
        }
        Ok(gathered)
    }

    /// The place of a class of this name, which may be a new one.
    fn class(&mut self, name: &str) -> i64 {
        let next = self.names.len().cast_signed() as i64;
        *self.places.entry(normal(name)).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }

    /// The class that a label means, or why there is none.
    pub(crate) fn resolve(&mut self, label: &Label) -> Result<i64, String> {
        let text = match label {
            Label::Number(number) => number.to_string(),
            Label::Text(text) if text.is_empty() => return Err("it has no class".to_owned()),
            Label::Text(text) if text.len() > LONGEST => {
                return Err(format!("its class has {} bytes, more than {LONGEST}", text.len()));
            }
            Label::Text(text) if text.contains(['\n', '\r']) => {
                return Err("its class goes on in the next line: look for a quote that is missing".to_owned());
            }
            Label::Text(text) => text.clone(),
        };
        if !self.is_closed {
            return Ok(self.class(&text));
        }
        let count = self.names.len();
        let number = text.parse::<u64>().ok();
        let named = self.places.get(&normal(&text)).copied().filter(|_| matches!(label, Label::Text(_)));
        match (named, number) {
            (Some(place), _) => Ok(place),
            (None, Some(number)) if number < count as u64 => Ok(number.cast_signed()),
            (None, Some(number)) => {
                Err(format!("its class {number} is out of range: {CLASSES} names {count}, which count from 0"))
            }
            (None, None) => Err(format!("its class {text} is not in {CLASSES}: add it there, or mend the label")),
        }
    }

    /// Takes a picture, which `make` makes of its labels.
    pub(crate) fn add(&mut self, part: Part, labels: Vec<i64>, make: impl FnOnce(Labels) -> PictureFile) {
        let labels: BTreeSet<i64> = labels.into_iter().collect();
        let labels = match labels.first() {
            Some(one) if labels.len() == 1 => Labels::One(*one),
            _ => Labels::Several(labels.into_iter().collect()),
        };
        self.parts[part as usize].0.push(make(labels));
    }

    /// Leaves something out that cannot be taken, or fails for it.
    pub(crate) fn refuse(&mut self, part: Part, reason: Reason, path: &Path, error: DatasetError) -> Result<(), DatasetError> {
        if !self.skip_bad {
            return Err(error);
        }
        tracing::debug!("left out: {error}");
        self.leave_out(part, reason, path);
        Ok(())
    }

    /// Counts something that is not looked for.
    pub(crate) fn leave_out(&mut self, part: Part, reason: Reason, path: &Path) {
        self.parts[part as usize].1.add(reason, path);
    }

    /// The datasets. Classes are in the order of their file, or else of their names. If all pictures are of one part, they are the
    /// whole.
    pub(crate) fn finish(self) -> Result<FolderParts, DatasetError> {
        let Self { root, name, is_closed, mut names, places, parts, .. } = self;
        if parts.iter().all(|(files, _)| files.is_empty()) {
            let left_out = parts.into_iter().fold(LeftOut::default(), |mut all, (_, more)| {
                all.merge(more);
                all
            });
            let found = if left_out.is_empty() { String::new() } else { format!(" ({left_out})") };
            return Err(fault(name, format!("it names no picture that can be taken{found}: add some")));
        }
        if !is_closed {
            match names.iter().map(|name| name.parse::<u64>().ok()).collect::<Option<Vec<_>>>() {
                Some(_) => names.sort_by_cached_key(|name| (name.parse::<u64>().ok(), name.clone())),
                None => names.sort(),
            }
        }
        let mut sorted = vec![0; names.len()];
        for (class, place) in names.iter().zip(0..) {
            sorted[places[class].unsigned_abs() as usize] = place;
        }
        let several = parts.iter().flat_map(|(files, _)| files).any(|file| file.labels().len() != 1);
        let [train, val, test] = parts;
        let of = |(mut files, left_out): (Vec<PictureFile>, LeftOut), part: &str| {
            for file in &mut files {
                let labels = Labels::at(file.labels(), &sorted, several);
                file.relabel(labels);
            }
            ImageFolder {
                name: if part.is_empty() { name.clone() } else { part.to_owned() },
                root: root.clone(),
                files: Arc::new(files),
                classes: names.clone(),
                task: if several { Task::MultiLabel } else { Task::SingleLabel },
                preprocess: unsized_yet(),
                options: DecodeOptions::default(),
                left_out,
            }
        };
        let is_there = |part: &(Vec<PictureFile>, LeftOut)| !part.0.is_empty();
        let (train, val, test) = match [is_there(&train), is_there(&val), is_there(&test)] {
            [_, false, false] => (of(train, ""), None, None),
            [false, true, false] => (of(val, ""), None, None),
            [false, false, true] => (of(test, ""), None, None),
            [false, true, true] => {
                return Err(fault(name, "it has pictures to judge by, but none to train with: add a part `train`".to_owned()));
            }
            [true, has_val, has_test] => {
                (of(train, "train"), has_val.then(|| of(val, "val")), has_test.then(|| of(test, "test")))
            }
        };
        let seen: BTreeSet<i64> = train.files().iter().flat_map(PictureFile::labels).copied().collect();
        for part in [&val, &test].into_iter().flatten() {
            let unknown = part.files().iter().flat_map(PictureFile::labels).find(|label| !seen.contains(label));
            if let Some(class) = unknown.and_then(|label| names.get(label.unsigned_abs() as usize)) {
                let reason =
                    format!("its part `{}` has the class {class}, and no picture to train with has it: add some", part.name);
                return Err(fault(name, reason));
            }
        }
        Ok(FolderParts { train, val, test })
    }
}

pub(crate) fn fault(dataset: impl ToString, reason: String) -> DatasetError {
    DatasetError::Inconsistent { dataset: dataset.to_string(), reason }
}
