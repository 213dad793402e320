//! Pictures to train with and to judge by: a dataset of the catalogue, in memory, or files that are decoded batch by batch.
use crate::Error;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use striate_datasets::{
    Batch, Check, Dataset, DatasetError, DecodeOptions, Fit, FolderParts, ImageFolder, ImageSize, InMemory, Interpolation,
    LoadOptions, Loaded, Normalise, PartFolders, PictureFile, Preprocess, Problem, Reason, Split, Task, find, is_source,
    load_with, survey_classes,
};
use striate_models::TrainedOn;
use striate_torch::derive_seed;
use striate_train::DataSection;
use tch::Tensor;

/// What a recipe calls data that are pictures in files; its `dir` has them: a folder, a list or shards.
pub const FOLDER: &str = "image-folder";
/// Pictures of a folder whose mean and deviation are measured: with more, the figures change in their fourth digit.
pub(crate) const SAMPLE: usize = 10_000;
/// Sets the seeds of splits apart from others that are derived from the same seed.
pub(crate) const SPLIT_SEEDS: u64 = 0x5350_4c54;
/// The same for the part that is trained on.
const PART_SEEDS: u64 = 0x5041_5254;
/// The same for samples.
const SAMPLE_SEEDS: u64 = 0x5341_4d50;
/// Pictures of a sample that are decoded together.
const DECODED_AT_ONCE: usize = 256;

/// Bytes of the longest name of a folder that a run is called by.
const LONGEST: usize = 64;

/// Told what takes long: what it is, how much is done, and of how much if that is known. Its `false` ends the work.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, Option<u64>) -> bool;

/// The section of a recipe for what a person names: a dataset of the catalogue, a folder, a list (`.csv`, `.tsv`), or shards
/// (`.tar`, a pattern of theirs, or an address).
///
/// # Errors
///
/// A path to none of these.
pub fn section(data: &str) -> Result<DataSection, Error> {
    let of_name = |name: &str, dir: PathBuf| DataSection { name: name.to_owned(), dir, ..DataSection::default() };
    let source = Path::new(data);
    let unknown = match find(data) {
        Err(unknown) if data != FOLDER => unknown,
        _ => return Ok(of_name(data, PathBuf::new())),
    };
    if is_source(source) {
        let place = if data.contains("://") { Ok(source.to_owned()) } else { std::path::absolute(source) };
        return Ok(of_name(FOLDER, place.map_err(|error| Error::option(data, format!("cannot be found: {error}")))?));
    }
    match () {
        () if source.exists() => {
            Err(Error::option(data, "is no folder, list (.csv, .tsv) or shard (.tar): name the folder that holds the pictures"))
        }
        // `flowers/` is a folder's name.
        () if source.extension().is_none() && !data.contains(std::path::is_separator) => Err(match unknown {
            DatasetError::UnknownName { nearest: None, known, .. } => {
                Error::option(data, format!("is no folder here, and no dataset: the datasets are {}", known.join(", ")))
            }
            near => near.into(),
        }),
        () => Err(Error::option(data, "does not exist: name a folder of pictures, a list, shards, or a dataset")),
    }
}

/// What people call the data: the dataset's name; of pictures of their own that of the folder, list or shard, if it can be part
/// of a name.
pub(crate) fn short_name(section: &DataSection) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let own = section.dir.file_stem().and_then(OsStr::to_str).map(|name| name.replace(' ', "-"));
    let own = own.filter(|name| section.name == FOLDER && name.len() <= LONGEST && name.chars().all(plain));
    own.unwrap_or_else(|| section.name.clone())
}

/// A dataset with its parts, as it lies there: not yet resized.
#[derive(Debug)]
pub struct Data {
    images: Images,
    /// The normalisation that is customary for these files, if one is.
    customary: Option<Normalise>,
    source: TrainedOn,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for a whole run")]
enum Images {
    Memory { train: InMemory, val: Option<InMemory>, test: Option<InMemory> },
    Folder(FolderParts),
}

/// One part of a dataset, as it lies there.
#[derive(Debug)]
pub enum Opened {
    /// In memory.
    Memory(InMemory),
    /// In files.
    Folder(ImageFolder),
}

/// The parts of a dataset as a network wants them, but for normalising.
pub struct Parts {
    /// What a network learns from.
    pub train: Box<dyn Dataset>,
    /// By what the best epoch is chosen, if the data has a part for that.
    pub val: Option<Box<dyn Dataset>>,
    /// What the network is judged by in the end.
    pub test: Option<Box<dyn Dataset>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |part: &Option<Box<dyn Dataset>>| part.as_ref().map(|part| part.len());
        let (val, test) = (count(&self.val), count(&self.test));
        f.debug_struct("Parts").field("train", &self.train.len()).field("val", &val).field("test", &test).finish()
    }
}

impl Data {
    /// Opens what a recipe names, and downloads it first if need be. What is left out of a folder is logged.
    ///
    /// # Errors
    ///
    /// A dataset or folder that is not there or not sound, and an interruption of a download.
    pub fn open(section: &DataSection, progress: Progress) -> Result<Self, Error> {
        let decode = DecodeOptions { max_pixels: section.max_pixels };
        let mut customary = None;
        let source;
        let images = if section.name == FOLDER {
            if !is_source(&section.dir) {
                return Err(Error::MissingData { path: section.dir.clone() });
            }
            let name = section.dir.file_name().unwrap_or(section.dir.as_os_str());
            source = TrainedOn { name: name.to_string_lossy().into_owned(), licence: None };
            // The images' size follows from the model, which follows from the classes.
            Images::Folder(
                FolderParts::open_with(&section.dir, section.skip_bad, progress)?.map(|part| Ok(part.decoded_with(decode)))?,
            )
        } else {
            let root = Some(&section.dir).filter(|dir| !dir.as_os_str().is_empty()).cloned();
            let entry = find(&section.name)?;
            customary = entry.normalise();
            source = TrainedOn::from(entry);
            match load_with(&section.name, &LoadOptions { root, ..LoadOptions::default() }, progress)? {
                Loaded::Memory(Split { train, test }) => Images::Memory { train, val: None, test: Some(test) },
                Loaded::Files(parts) => Images::Folder(parts.map(|part| Ok(part.decoded_with(decode)))?),
            }
        };
        let data = Self { images, customary, source };
        if let Images::Folder(parts) = &data.images {
            for part in parts.iter().filter(|part| !part.left_out().is_harmless()) {
                tracing::warn!("{}: {}", part.name(), part.left_out());
            }
            let files = || parts.iter().flat_map(ImageFolder::files);
            let mut several = files().filter(|file| file.labels().len() > 1);
            if let Some(first) = several.next() {
                let (several, all) = (1 + several.count(), files().count());
                let line = format!(
                    "{several} of {all} pictures {} several classes, such as {}: each class is answered by itself",
                    if several == 1 { "has" } else { "have" },
                    first.path().display()
                );
                // So few may be mistakes of a list.
                if several * 20 < all { tracing::warn!("{line}") } else { tracing::info!("{line}") }
            }
            let files = files().map(PictureFile::path);
            if let Some(formats) = formats(files) {
                tracing::info!("pictures of several formats: {formats}");
            }
        }
        Ok(data)
    }

    /// Ready to train with: split, and the part of it, if the recipe says so; without bad pictures or held to have none.
    ///
    /// # Errors
    ///
    /// A picture that cannot be read, unless the recipe skips these; nothing to judge by; an interruption.
    pub fn to_train(self, section: &DataSection, seed: u64, progress: Progress) -> Result<Self, Error> {
        let (split, part) = (section.split, section.part);
        if split == 0.0 && !self.can_be_judged() {
            return Err(Error::NothingToJudgeBy { folder: section.dir.clone() });
        }
        let images = match self.images {
            Images::Folder(parts) => {
                let parts = parts.map(|part| match section.skip_bad {
                    true => part.without_bad(&mut |done, of| progress("decoding", done as u64, Some(of as u64))),
                    false => {
                        part.require(Check::Headers, &mut |done, of| progress("checking", done as u64, Some(of as u64)))?;
                        Ok(part)
                    }
                })?;
                // What was left out before was told when the data were opened.
                for (part, bad) in parts.iter().map(|part| (part, part.left_out().only(|reason| *reason == Reason::Bad))) {
                    if !bad.is_empty() {
                        tracing::warn!("{}: {bad}", part.name());
                    }
                }
                Images::Folder(match split {
                    0.0 => parts,
                    fraction => {
                        match (&parts.val, &parts.test) {
                            (Some(val), Some(_)) => tracing::warn!(
                                "the {} pictures of `{}` are not used, since a part of `train` is split off in their place: leave out the split to use them",
                                val.len(),
                                val.name()
                            ),
                            (Some(val), None) => tracing::info!("`{}` is used once, at the end, as a test set", val.name()),
                            (None, _) => {}
                        }
                        let Split { train, test } = parts.train.split(fraction, derive_seed(seed, &[SPLIT_SEEDS]))?;
                        FolderParts { train, val: Some(test), test: parts.test.or(parts.val) }
                    }
                })
            }
            Images::Memory { train, test, .. } if split > 0.0 => {
                let Split { train, test: val } = split_memory(&train, split, seed)?;
                Images::Memory { train, val: Some(val), test }
            }
            memory => memory,
        };
        let part_seed = derive_seed(seed, &[PART_SEEDS]);
        let images = match images {
            whole if part == 1.0 => whole,
            Images::Folder(parts) => {
                Images::Folder(FolderParts { train: parts.train.split(1.0 - part, part_seed)?.train, ..parts })
            }
            Images::Memory { train, val, test } => {
                Images::Memory { train: split_memory(&train, 1.0 - part, part_seed)?.train, val, test }
            }
        };
        let data = Self { images, ..self };
        let found = survey_classes(&data.parts())?;
        // A run tells of one class itself.
        let told: Vec<String> = found
            .iter()
            .filter(|finding| finding.problem != Problem::OneClass)
            .map(|finding| format!("{}: {}", finding.message, finding.advice))
            .collect();
        if !told.is_empty() {
            tracing::warn!("{}", told.join("; "));
        }
        Ok(data)
    }

    /// The parts that there are, by name.
    fn parts(&self) -> Vec<(&'static str, &dyn Dataset)> {
        fn named<'d, D: Dataset>(train: &'d D, val: Option<&'d D>, test: Option<&'d D>) -> Vec<(&'static str, &'d dyn Dataset)> {
            let parts = [("train", Some(train)), ("val", val), ("test", test)];
            parts.into_iter().filter_map(|(name, part)| Some((name, part? as &dyn Dataset))).collect()
        }
        match &self.images {
            Images::Memory { train, val, test } => named(train, val.as_ref(), test.as_ref()),
            Images::Folder(FolderParts { train, val, test }) => named(train, val.as_ref(), test.as_ref()),
        }
    }

    fn can_be_judged(&self) -> bool {
        match &self.images {
            Images::Memory { val, test, .. } => val.is_some() || test.is_some(),
            Images::Folder(parts) => parts.val.is_some() || parts.test.is_some(),
        }
    }

    /// The same with labels as indices into `classes`, by name.
    ///
    /// # Errors
    ///
    /// A class that is not among them.
    pub fn with_classes(self, classes: &[String]) -> Result<Self, Error> {
        let images = match self.images {
            Images::Memory { train, val, test } => {
                let renamed = |part: InMemory| part.with_classes(classes);
                Images::Memory {
                    train: renamed(train)?,
                    val: val.map(renamed).transpose()?,
                    test: test.map(renamed).transpose()?,
                }
            }
            Images::Folder(parts) => Images::Folder(parts.map(|part| part.with_classes(classes))?),
        };
        Ok(Self { images, ..self })
    }

    /// The dataset's name, or the folder's.
    pub fn name(&self) -> &str {
        match &self.images {
            Images::Memory { train, .. } => train.name(),
            Images::Folder(parts) => parts.train.name(),
        }
    }

    /// What a bundle says of it: its name, and its licence if it is in the catalogue.
    pub(crate) fn source(&self) -> &TrainedOn {
        &self.source
    }

    /// The classes' names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        match &self.images {
            Images::Memory { train, .. } => train.classes(),
            Images::Folder(parts) => parts.train.classes(),
        }
    }

    /// How many classes each picture has.
    pub fn task(&self) -> Task {
        match &self.images {
            Images::Memory { train, .. } => train.task(),
            Images::Folder(parts) => parts.train.task(),
        }
    }

    /// Pictures to train with.
    pub fn len(&self) -> usize {
        match &self.images {
            Images::Memory { train, .. } => train.len(),
            Images::Folder(parts) => parts.train.len(),
        }
    }

    /// Whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The channels of its pictures: those of a folder are in colour.
    pub fn channels(&self) -> i64 {
        match &self.images {
            Images::Memory { train, .. } => train.shape()[0],
            Images::Folder(_) => 3,
        }
    }

    /// How these pictures become inputs of this shape, normalised by their own statistics. Images in memory that are a little smaller,
    /// as MNIST's 28 for LeNet's 32, are padded as LeCun did, and others resized; files are resized until the shorter side fits, and
    /// cropped in the middle.
    ///
    /// # Errors
    ///
    /// A picture that cannot be read, and an interruption.
    pub fn preprocess(self, input: [i64; 3], progress: Progress) -> Result<(Self, Preprocess), Error> {
        self.preprocess_by(input, SAMPLE, progress)
    }

    /// The same with the statistics of `sample` of a folder's pictures; with 0, nothing is measured, and they are not normalised.
    pub(crate) fn preprocess_by(self, input: [i64; 3], sample: usize, progress: Progress) -> Result<(Self, Preprocess), Error> {
        match self.images {
            Images::Memory { ref train, .. } => {
                let shape = train.shape();
                let preprocess = Preprocess::new(shape, input, fit(shape, input), Normalise::of(train)?)?;
                Ok((self, preprocess))
            }
            Images::Folder(parts) => {
                let raw = shaped(input, Interpolation::default());
                let parts = parts.fit(&raw)?;
                if sample == 0 {
                    return Ok((Self { images: Images::Folder(parts), ..self }, raw));
                }
                let fitting = |customary: &Normalise| customary.mean.len() as i64 == input[0];
                let normalise = match self.customary.clone().filter(fitting) {
                    Some(customary) => customary,
                    None => measured(&parts.train, sample, progress)?,
                };
                let preprocess = Preprocess { normalise, ..raw };
                Ok((Self { images: Images::Folder(parts), ..self }, preprocess))
            }
        }
    }

    /// At most so many pictures of the part to learn from and of the one to judge by, in memory, `size` pixels high and wide. Of a
    /// dataset in memory they are the first; of a folder, where these would be of one class, a sample that is always the same.
    ///
    /// # Errors
    ///
    /// A picture that cannot be read; nothing to judge by; pictures with several classes.
    pub fn sample(self, size: i64, train: usize, test: usize) -> Result<Split, Error> {
        if self.task() == Task::MultiLabel {
            return Err(Error::option(self.name(), "has pictures with several classes, and this takes one for each"));
        }
        let first = |part: &InMemory, count: usize| part.range(0..count.min(part.len()))?.resize(size, size);
        match self.images {
            Images::Memory { train: learn, val, test: judge } => {
                let judge = judge.or(val).ok_or_else(|| Error::NothingToJudgeBy { folder: learn.name().into() })?;
                Ok(Split { train: first(&learn, train)?, test: first(&judge, test)? })
            }
            Images::Folder(parts) => {
                let FolderParts { train: learn, val, test: judge } =
                    parts.fit(&shaped([3, size, size], Interpolation::default()))?;
                let judge = judge.or(val).ok_or_else(|| Error::NothingToJudgeBy { folder: learn.name().into() })?;
                Ok(Split { train: drawn(&learn, train)?, test: drawn(&judge, test)? })
            }
        }
    }

    /// The parts as a network wants them; with `whole`, pictures to train with that lie in memory stay as they are, for transforms
    /// that size them.
    ///
    /// # Errors
    ///
    /// A `preprocess` that does not fit the pictures.
    pub fn fit(self, preprocess: &Preprocess, whole: bool) -> Result<Parts, Error> {
        match self.images {
            Images::Memory { train, val, test } => {
                let boxed = |part: InMemory| Ok::<_, DatasetError>(Box::new(part.fit(preprocess)?) as Box<dyn Dataset>);
                let train = if whole { Box::new(train) } else { boxed(train)? };
                Ok(Parts { train, val: val.map(boxed).transpose()?, test: test.map(boxed).transpose()? })
            }
            Images::Folder(parts) => {
                let FolderParts { train, val, test } = parts.fit(preprocess)?;
                let boxed = |part: ImageFolder| Box::new(part) as Box<dyn Dataset>;
                Ok(Parts { train: boxed(train), val: val.map(boxed), test: test.map(boxed) })
            }
        }
    }
}

/// Images of your own, in memory: what [`Run::on`](crate::Run::on) takes.
impl From<Split> for Data {
    fn from(Split { train, test }: Split) -> Self {
        let source = TrainedOn { name: train.name().to_owned(), licence: None };
        Self { images: Images::Memory { train, val: None, test: Some(test) }, customary: None, source }
    }
}

/// All parts of what a recipe names: `train`, and `val` and `test` if there are any. Where a part lacks a class that another has,
/// each counts its own.
///
/// # Errors
///
/// A dataset or folder that is not there or not sound, and an interruption of a download.
pub fn open_parts(section: &DataSection, progress: Progress) -> Result<Vec<(&'static str, Opened)>, Error> {
    let named = |train, val, test| {
        let parts = [("train", Some(train)), ("val", val), ("test", test)];
        parts.into_iter().filter_map(|(name, part)| Some((name, part?))).collect()
    };
    match Data::open(section, progress) {
        Ok(Data { images: Images::Memory { train, val, test }, .. }) => {
            Ok(named(Opened::Memory(train), val.map(Opened::Memory), test.map(Opened::Memory)))
        }
        Ok(Data { images: Images::Folder(FolderParts { train, val, test }), .. }) => {
            Ok(named(Opened::Folder(train), val.map(Opened::Folder), test.map(Opened::Folder)))
        }
        Err(error @ Error::Dataset(DatasetError::OtherClasses { .. })) => {
            let Some(PartFolders { train, val, test }) = PartFolders::find(&section.dir)? else { return Err(error) };
            let decode = DecodeOptions { max_pixels: section.max_pixels };
            let open = |folder| -> Result<Opened, Error> {
                let part = ImageFolder::open(folder, whole())?;
                Ok(Opened::Folder(part.decoded_with(decode)))
            };
            Ok(named(open(train)?, val.map(open).transpose()?, test.map(open).transpose()?))
        }
        Err(error) => Err(error),
    }
}

impl Opened {
    /// Its pictures, as they lie there.
    pub fn dataset(&self) -> &dyn Dataset {
        match self {
            Self::Memory(data) => data,
            Self::Folder(data) => data,
        }
    }

    /// What a network is judged by in the end: the part `test` of a dataset or folder, or `val`; a folder without parts as a whole.
    ///
    /// # Errors
    ///
    /// A dataset or folder that is not there or not sound, and an interruption of a download.
    pub fn to_judge(section: &DataSection, progress: Progress) -> Result<Self, Error> {
        Ok(match Data::open(section, progress)?.images {
            Images::Memory { train, test, .. } => Self::Memory(test.unwrap_or(train)),
            Images::Folder(FolderParts { train, val, test }) => Self::Folder(test.or(val).unwrap_or(train)),
        })
    }

    /// What a network learns from.
    ///
    /// # Errors
    ///
    /// A dataset or folder that is not there or not sound, and an interruption of a download.
    pub fn to_train(section: &DataSection, progress: Progress) -> Result<Self, Error> {
        Ok(match Data::open(section, progress)?.images {
            Images::Memory { train, .. } => Self::Memory(train),
            Images::Folder(parts) => Self::Folder(parts.train),
        })
    }

    /// The dataset's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Memory(data) => data.name(),
            Self::Folder(data) => data.name(),
        }
    }

    /// The same with labels as indices into `classes`, by name. Nothing is changed where a network has no classes.
    ///
    /// # Errors
    ///
    /// A class that is not among them.
    pub fn with_classes(self, classes: &[String]) -> Result<Self, Error> {
        Ok(match self {
            unchanged if classes.is_empty() => unchanged,
            Self::Memory(data) => Self::Memory(data.with_classes(classes)?),
            Self::Folder(data) => Self::Folder(data.with_classes(classes)?),
        })
    }

    /// The same for a network that answers with several classes: see [`ImageFolder::multi_label`]. Images in memory have one each.
    #[must_use]
    pub fn multi_label(self) -> Self {
        match self {
            Self::Folder(data) => Self::Folder(data.multi_label()),
            memory @ Self::Memory(_) => memory,
        }
    }

    /// As a network wants them, but for normalising.
    ///
    /// # Errors
    ///
    /// A `preprocess` that does not fit the pictures.
    pub fn fit(self, preprocess: &Preprocess) -> Result<Box<dyn Dataset>, Error> {
        Ok(match self {
            Self::Memory(data) => Box::new(data.fit(preprocess)?),
            Self::Folder(data) => Box::new(data.fit(preprocess)?),
        })
    }
}

/// How many files there are of each format by their names, the most frequent first, if they are of several.
fn formats<'p>(files: impl Iterator<Item = &'p Path>) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        let end = file.extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default();
        *counts.entry(end.replace("jpeg", "jpg")).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    let list = counts.iter().map(|(end, count)| format!("{count} .{end}")).collect::<Vec<_>>().join(", ");
    (counts.len() > 1).then_some(list)
}

/// The mean and deviation of a folder's pictures, or of a sample of them.
fn measured(folder: &ImageFolder, sample: usize, progress: Progress) -> Result<Normalise, Error> {
    let mut told = |done: usize, of: usize| progress("statistics", done as u64, Some(of as u64));
    let statistics = folder.statistics(sample, &mut told)?;
    if statistics.examples < folder.len() {
        tracing::info!("mean and deviation are of {} of {} pictures", statistics.examples, folder.len());
    }
    Ok(statistics.normalise)
}

/// For pictures that are not brought to any size.
pub(crate) fn whole() -> Preprocess {
    shaped([3, 1, 1], Interpolation::default())
}

/// Resized until the shorter side fits, and cropped in the middle.
fn shaped(input: [i64; 3], interpolation: Interpolation) -> Preprocess {
    let shorter_side = input[1].max(input[2]);
    let image = ImageSize::ShorterSide { shorter_side };
    Preprocess { image, input, normalise: Normalise::identity(), interpolation }
}

/// A preprocessing for inputs of another shape: pictures are resized in proportion. Where the channels are others, each is normalised
/// by the mean of the former values.
pub(crate) fn reshaped(preprocess: &Preprocess, input: [i64; 3]) -> Preprocess {
    let scaled = |size: i64, axis: usize| {
        let size = size as f64 * input[axis] as f64 / preprocess.input[axis].max(1) as f64;
        (size.round() as i64).max(1)
    };
    let image = match preprocess.image {
        ImageSize::ShorterSide { shorter_side } => {
            let side = scaled(shorter_side, 1).max(scaled(shorter_side, 2));
            ImageSize::ShorterSide { shorter_side: side.max(input[1]).max(input[2]) }
        }
        ImageSize::Exact([height, width]) => ImageSize::Exact([scaled(height, 1).min(input[1]), scaled(width, 2).min(input[2])]),
        other => other,
    };
    let Normalise { mean, std } = &preprocess.normalise;
    let average = |values: &[f64]| vec![values.iter().sum::<f64>() / values.len().max(1) as f64];
    let normalise = if input[0] == preprocess.input[0] {
        preprocess.normalise.clone()
    } else {
        Normalise { mean: average(mean), std: average(std) }
    };
    Preprocess { image, input, normalise, interpolation: preprocess.interpolation }
}

/// Whether images come to a network's input by padding or by resizing.
fn fit(image: [i64; 3], input: [i64; 3]) -> Fit {
    let close = |axis: usize| image[axis] <= input[axis] && 5 * image[axis] >= 4 * input[axis];
    if close(1) && close(2) { Fit::Pad } else { Fit::Resize }
}

/// So many pictures of a folder, in memory, in a mixed order.
fn drawn(folder: &ImageFolder, count: usize) -> Result<InMemory, Error> {
    let all = i64::try_from(folder.len()).unwrap_or(i64::MAX);
    let mut order: Vec<i64> = (0..all).collect();
    order.sort_by_key(|index| derive_seed(0, &[SAMPLE_SEEDS, index.cast_unsigned()]));
    order.truncate(count);
    let batches: Vec<Batch> =
        order.chunks(DECODED_AT_ONCE).map(|some| folder.batch(&Tensor::f_from_slice(some)?)).collect::<Result<_, _>>()?;
    let images: Vec<&Tensor> = batches.iter().map(|batch| &batch.images).collect();
    let labels: Vec<&Tensor> = batches.iter().map(|batch| &batch.labels).collect();
    let (images, labels) = (Tensor::f_cat(&images, 0)?, Tensor::f_cat(&labels, 0)?);
    Ok(InMemory::new(folder.name(), images, &labels, folder.classes().to_vec())?)
}

/// Sets a fraction of each class's examples apart, which the seed chooses.
fn split_memory(data: &InMemory, fraction: f64, seed: u64) -> Result<Split, Error> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::option(format!("split = {fraction}"), "must be between 0 and 1"));
    }
    let labels = Vec::<i64>::try_from(data.labels())?;
    let (mut stay, mut apart) = (Vec::new(), Vec::new());
    for class in 0..data.classes().len() {
        let mut of_class: Vec<i64> =
            (0..).zip(&labels).filter(|(_, label)| **label == class as i64).map(|(index, _)| index).collect();
        of_class.sort_by_key(|index| derive_seed(seed, &[SPLIT_SEEDS, index.cast_unsigned()]));
        let count = match of_class.len() {
            0 | 1 => 0,
            count => ((fraction * count as f64).round() as usize).clamp(1, count - 1),
        };
        apart.extend_from_slice(&of_class[..count]);
        stay.extend_from_slice(&of_class[count..]);
    }
    stay.sort_unstable();
    apart.sort_unstable();
    Ok(Split { train: data.select(&stay)?, test: data.select(&apart)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_datasets::digits;

    #[test]
    fn runs_are_called_by_the_folder_of_their_pictures() {
        let named =
            |name: &str, dir: &str| short_name(&DataSection { name: name.to_owned(), dir: dir.into(), ..DataSection::default() });
        assert_eq!(named(FOLDER, "/home/me/my flowers"), "my-flowers");
        assert_eq!(named(FOLDER, "lists/flowers.csv"), "flowers");
        // These cannot be part of a name.
        for dir in ["/", "", "shards/train-{0..9}.tar", "/home/\u{732b}", &"long".repeat(20)] {
            assert_eq!(named(FOLDER, dir), FOLDER);
        }
        assert_eq!(named("digits", "/mnt/digits-elsewhere"), "digits");
    }

    #[test]
    fn several_formats_are_counted() {
        let formats = |names: &[&str]| formats(names.iter().map(Path::new));
        assert_eq!(formats(&["a/1.png", "b/2.PNG"]), None);
        let several = formats(&["1.jpg", "2.webp", "3.jpeg", "4.JPG", "5.gif", "6.webp"]);
        assert_eq!(several.unwrap(), "3 .jpg, 2 .webp, 1 .gif");
    }

    /// torchvision's 256 and 224 for other sizes of input: in proportion, and never too small to crop from.
    #[test]
    fn preprocessing_follows_the_size_of_the_input() {
        let normalise = Normalise { mean: vec![0.1, 0.2, 0.3], std: vec![0.2, 0.2, 0.5] };
        let image = ImageSize::ShorterSide { shorter_side: 256 };
        let preprocess = Preprocess { image, input: [3, 224, 224], normalise, interpolation: Interpolation::Bicubic };
        assert_eq!(reshaped(&preprocess, [3, 224, 224]), preprocess);
        let side = |shorter_side| ImageSize::ShorterSide { shorter_side };
        assert_eq!(reshaped(&preprocess, [3, 112, 112]).image, side(128));
        assert_eq!(reshaped(&preprocess, [3, 112, 224]).image, side(256));
        let grey = reshaped(&preprocess, [1, 32, 32]);
        assert_eq!((grey.image, grey.interpolation), (side(37), Interpolation::Bicubic));
        assert!((grey.normalise.mean[0] - 0.2).abs() < 1e-12 && (grey.normalise.std[0] - 0.3).abs() < 1e-12);
        grey.check().unwrap();
        let padded = Preprocess { image: ImageSize::Exact([28, 28]), input: [1, 32, 32], ..grey };
        assert_eq!(reshaped(&padded, [1, 64, 64]).image, ImageSize::Exact([56, 56]));
    }

    #[test]
    fn a_split_takes_its_share_of_each_class_and_follows_the_seed() {
        let train = digits().unwrap().train;
        let labels = |data: &InMemory| Vec::<i64>::try_from(data.labels()).unwrap();
        let count = |data: &InMemory, class: i64| labels(data).iter().filter(|label| **label == class).count();
        let Split { train: stay, test: apart } = split_memory(&train, 0.2, 3).unwrap();
        assert_eq!(stay.len() + apart.len(), train.len());
        for class in 0..10 {
            assert_eq!(count(&apart, class), (0.2 * count(&train, class) as f64).round() as usize, "{class}");
        }
        let again = |seed| split_memory(&train, 0.2, seed).unwrap().test;
        assert_eq!(again(3).images(), apart.images());
        assert_ne!(again(4).images(), apart.images());
        assert!(split_memory(&train, 1.5, 0).unwrap_err().to_string().contains("split = 1.5"));
    }
}
