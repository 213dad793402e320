//! Pictures in files: a folder for each class, a list, or shards.

mod file;
mod gather;
mod list;
mod pack;
mod parts;
mod scan;
mod shard;
mod source;

pub use file::PictureFile;
pub(crate) use file::Place;
pub use pack::{Packed, ShardSize, pack, unpack};
pub use parts::{FolderParts, PartFolders};
pub use scan::{LeftOut, Reason};
pub use source::{is_source, source_files};

pub(crate) use parts::has_folders;

use crate::check::check_file;
use crate::classes::{file_name, normal, places};
use crate::dataset::no_example;
use crate::decode::{decode_file, decode_raw_file};
use crate::{Batch, Check, Dataset, DatasetError, DecodeOptions, Examples, Pixels, Preprocess, Task, View};
use file::Labels;
pub(crate) use scan::is_of_system;
use scan::{Entry, Walk, entries};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::Tensor;

/// Files per thread that are checked between two calls of `progress`.
const CHECKED: usize = 16;
/// Files whose headers are checked before an epoch: in a second or two.
const HEADERS: usize = 50_000;

/// Pictures in files, which are decoded when they are needed. [`open`](Self::open) takes a folder for
/// each class; [`FolderParts`] also takes lists and shards.
///
/// A folder for each class is `root/class/picture.jpg`, as torchvision's dataset of this name reads
/// it. The classes are the folders' names in alphabetical order. All pictures below a
/// class's folder belong to it, however deep they lie.
///
/// Hidden files and folders are ignored. Links are followed, but never in circles. Files that are no
/// readable pictures are [left out](Self::left_out) and counted. Two names are the same if they
/// differ only in how accents are encoded (Unicode's NFC and NFD).
///
/// Files are decoded when you take a batch, each as [`decode_image`](crate::decode_image) does it, on a
/// [`Loader`](crate::Loader)'s workers or on as many threads as libtorch's operators use. Only the
/// pictures of a few batches are in memory.
///
/// ```no_run
/// use striate_datasets::{
///     Check, ImageFolder, ImageSize, Interpolation, Loader, LoaderOptions, Normalise, Preprocess,
/// };
/// let raw = Preprocess {
///     image: ImageSize::ShorterSide { shorter_side: 256 },
///     input: [3, 224, 224],
///     normalise: Normalise::identity(),
///     interpolation: Interpolation::Bilinear,
/// };
/// let train = ImageFolder::open("flowers/train", raw.clone())?;
/// if !train.left_out().is_empty() {
///     eprintln!("{}", train.left_out());
/// }
/// train.require(Check::Headers, &mut |_, _| true)?; // before an epoch finds them
/// let preprocess = Preprocess { normalise: train.statistics(10_000, &mut |_, _| true)?.normalise, ..raw };
/// let loader = Loader::new(&train, preprocess, LoaderOptions::train(64, 0))?;
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
#[derive(Debug)]
pub struct ImageFolder {
    name: String,
    root: PathBuf,
    files: Arc<Vec<PictureFile>>,
    classes: Vec<String>,
    task: Task,
    preprocess: Preprocess,
    options: DecodeOptions,
    left_out: LeftOut,
}

/// The files of pictures below a folder, however deep, in the order of their names: those that [`ImageFolder`] would take.
/// What is left out is logged.
///
/// # Errors
///
/// A folder that cannot be read, or that holds no picture.
pub fn picture_files(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, DatasetError> {
    let folder = folder.as_ref();
    let mut left_out = LeftOut::default();
    let mut walk = Walk { root: Path::new(""), visited: HashSet::new(), pictures: Vec::new(), left_out: &mut left_out };
    walk.folder(folder)?;
    let pictures = walk.pictures;
    if pictures.is_empty() {
        let found = if left_out.is_empty() { String::new() } else { format!(": {left_out}") };
        let reason = format!("it holds no picture that is read{found}");
        return Err(DatasetError::Inconsistent { dataset: folder.display().to_string(), reason });
    }
    if !left_out.is_harmless() {
        tracing::warn!("{}: {left_out}", folder.display());
    }
    Ok(pictures)
}

impl ImageFolder {
    /// The pictures below `root`. Each is resized and cropped or padded as `preprocess` says;
    /// normalising is left to a [`Loader`](crate::Loader).
    ///
    /// # Errors
    ///
    /// A folder that cannot be read, no class, a class without a picture, or a `preprocess` that
    /// makes no sense. A picture that cannot be decoded is an error of the batch that it belongs to;
    /// [`require`](Self::require) and [`without_bad`](Self::without_bad) find it earlier.
    pub fn open(root: impl AsRef<Path>, preprocess: Preprocess) -> Result<Self, DatasetError> {
        let root = root.as_ref();
        check(&preprocess)?;
        let real_root = root.canonicalize().map_err(|error| DatasetError::io("read", root, error))?;
        let mut left_out = LeftOut::default();
        // Each class by its name, with its folders and files.
        let mut classes: BTreeMap<String, (Vec<PathBuf>, Vec<PathBuf>)> = BTreeMap::new();
        for entry in entries(root)? {
            let folder = match entry {
                Entry::Folder(folder) => folder,
                Entry::Picture(file) => {
                    left_out.add(Reason::NoClass, &file);
                    continue;
                }
                Entry::LeftOut(reason, file) => {
                    left_out.add(reason, &file);
                    continue;
                }
            };
            let mut here = LeftOut::default();
            let mut walk = Walk { root: &real_root, visited: HashSet::new(), pictures: Vec::new(), left_out: &mut here };
            walk.folder(&folder)?;
            let pictures = walk.pictures;
            // A link in a circle is no class.
            let is_loop = here.reasons().any(|(reason, _, path)| *reason == Reason::Loop && path == folder);
            if pictures.is_empty() && !is_loop {
                return Err(without_pictures(&folder, &here));
            }
            left_out.merge(here);
            if is_loop {
                continue;
            }
            let (folders, files) = classes.entry(normal(&file_name(&folder))).or_default();
            folders.push(folder);
            files.extend(pictures);
        }
        refuse_odd(root, &classes, &left_out)?;
        let label =
            |(files, class): (Vec<PathBuf>, i64)| files.into_iter().map(move |file| PictureFile::new(file, Labels::One(class)));
        let (classes, files): (Vec<_>, Vec<_>) = classes.into_iter().map(|(name, (_, files))| (name, files)).unzip();
        let files = Arc::new(files.into_iter().zip(0..).flat_map(label).collect());
        let (name, root, options) = (file_name(root), root.to_owned(), DecodeOptions::default());
        Ok(Self { name, root, files, classes, task: Task::SingleLabel, preprocess, options, left_out })
    }

    /// Pictures in files that a list names, each with the index of its class. `root` is the folder
    /// that holds them all.
    pub(crate) fn of_files(
        name: &str,
        root: &Path,
        files: Vec<(PathBuf, i64)>,
        classes: Vec<String>,
        preprocess: Preprocess,
    ) -> Self {
        let files = files.into_iter().map(|(file, class)| PictureFile::new(file, Labels::One(class))).collect();
        Self {
            name: name.to_owned(),
            root: root.to_owned(),
            files: Arc::new(files),
            classes,
            task: Task::SingleLabel,
            preprocess,
            options: DecodeOptions::default(),
            left_out: LeftOut::default(),
        }
    }

    /// The same pictures under another name, and with other names for the same classes.
    pub(crate) fn named(self, name: &str, classes: Vec<String>) -> Self {
        Self { name: name.to_owned(), classes, ..self }
    }

    /// The same pictures, resized and cropped or padded as another `preprocess` says; the folders
    /// are not read again.
    ///
    /// # Errors
    ///
    /// A `preprocess` that makes no sense.
    pub fn fit(self, preprocess: &Preprocess) -> Result<Self, DatasetError> {
        check(preprocess)?;
        Ok(Self { preprocess: preprocess.clone(), ..self })
    }

    /// The same pictures, decoded with other options.
    #[must_use]
    pub fn decoded_with(self, options: DecodeOptions) -> Self {
        Self { options, ..self }
    }

    /// The same pictures with labels that index `classes`: this folder's classes, found by name, in
    /// any order, and perhaps others.
    ///
    /// # Errors
    ///
    /// [`DatasetError::OtherClasses`] when a class of this folder is not among them.
    pub fn with_classes(mut self, classes: &[String]) -> Result<Self, DatasetError> {
        let places = places(&self.root.display().to_string(), &self.classes, classes)?;
        self.relabel(&places);
        Ok(Self { classes: classes.to_vec(), ..self })
    }

    /// The same pictures for a network that answers with several classes: each has those that it has.
    #[must_use]
    pub fn multi_label(mut self) -> Self {
        if self.task == Task::SingleLabel {
            self.task = Task::MultiLabel;
            self.relabel(&(0..self.classes.len().cast_signed() as i64).collect::<Vec<_>>());
        }
        self
    }

    /// Puts labels, which are indices of today's classes, at other places.
    fn relabel(&mut self, places: &[i64]) {
        let several = self.task == Task::MultiLabel;
        for file in Arc::make_mut(&mut self.files) {
            let labels = Labels::at(file.labels(), places, several);
            file.relabel(labels);
        }
    }

    /// The files with their classes, in the order of the examples.
    pub fn files(&self) -> &[PictureFile] {
        &self.files
    }

    /// How each picture becomes an example.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The files that are not among the pictures, and why.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Finds the files that cannot be read, as far as `check` looks: each one's index in
    /// [`files`](Self::files), and why. It uses as many threads as libtorch's operators do.
    ///
    /// `progress` gets the number of files done and the total. Return `false` from it to stop.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Interrupted`].
    pub fn check(
        &self,
        check: Check,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Vec<(usize, DatasetError)>, DatasetError> {
        self.check_some(check, 1, progress)
    }

    /// The same of one file in `every` so many.
    fn check_some(
        &self,
        check: Check,
        every: usize,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Vec<(usize, DatasetError)>, DatasetError> {
        let chosen: Vec<usize> = (0..self.files.len()).step_by(every).collect();
        let (mut bad, step) = (Vec::new(), CHECKED * striate_torch::num_threads());
        for (chunk, start) in chosen.chunks(step).zip((0..).step_by(step)) {
            if !progress(start, chosen.len()) {
                return Err(DatasetError::Interrupted);
            }
            let checked = side_by_side(chunk, |index| check_file(self.files[*index].place(), check, &self.options));
            bad.extend(chunk.iter().zip(checked).filter_map(|(index, file)| Some((*index, file.err()?))));
        }
        progress(chosen.len(), chosen.len());
        Ok(bad)
    }

    /// Fails if [`check`](Self::check) finds any file. Of more than 50,000 files, the headers of so many
    /// are checked, evenly spread: a folder of a million would hold up the first batch by half a minute. Others that are bad are
    /// found when they are decoded.
    ///
    /// # Errors
    ///
    /// The first file that cannot be read, with the number of others
    /// ([`DatasetError::BadPictures`]), or [`DatasetError::Interrupted`].
    pub fn require(&self, check: Check, progress: &mut dyn FnMut(usize, usize) -> bool) -> Result<(), DatasetError> {
        let every = if check == Check::Headers { self.files.len().div_ceil(HEADERS).max(1) } else { 1 };
        let mut bad = self.check_some(check, every, progress)?.into_iter().map(|(_, error)| error);
        let Some(first) = bad.next() else { return Ok(()) };
        match bad.count() {
            0 => Err(first),
            others => Err(DatasetError::BadPictures { first: Box::new(first), others }),
        }
    }

    /// Drops the pictures that cannot be decoded, and counts them in [`left_out`](Self::left_out).
    ///
    /// This decodes every file once, which takes as long as decoding does in an epoch. In return,
    /// every epoch has the same examples, and so has a resumed run, while the files don't change.
    ///
    /// # Errors
    ///
    /// A class of which no picture is left, or [`DatasetError::Interrupted`].
    pub fn without_bad(mut self, progress: &mut dyn FnMut(usize, usize) -> bool) -> Result<Self, DatasetError> {
        let bad = self.check(Check::Pixels, progress)?;
        let labels = |files: &[PictureFile]| files.iter().flat_map(PictureFile::labels).copied().collect::<HashSet<i64>>();
        let had = labels(&self.files);
        let mut bad = bad.into_iter().peekable();
        let mut index = 0;
        Arc::make_mut(&mut self.files).retain(|file| {
            let bad = bad.next_if(|(bad, _)| *bad == index);
            index += 1;
            if let Some((_, error)) = &bad {
                tracing::debug!("left out: {error}");
                self.left_out.add(Reason::Bad, file.path());
            }
            bad.is_none()
        });
        let has = labels(&self.files);
        match had.difference(&has).min().and_then(|label| self.classes.get(label.unsigned_abs() as usize)) {
            None => Ok(self),
            Some(class) => {
                let reason = format!("no picture of class {class} can be decoded: add some, or remove the class");
                Err(DatasetError::Inconsistent { dataset: self.root.display().to_string(), reason })
            }
        }
    }
}

fn without_pictures(folder: &Path, left_out: &LeftOut) -> DatasetError {
    let told = if left_out.is_empty() { String::new() } else { format!(" ({left_out})") };
    let reason = format!("this folder of a class has no picture that can be read{told}: add some, or remove it");
    DatasetError::Inconsistent { dataset: folder.display().to_string(), reason }
}

/// Fails where a folder holds something else than a folder of pictures for each class.
fn refuse_odd(
    root: &Path,
    classes: &BTreeMap<String, (Vec<PathBuf>, Vec<PathBuf>)>,
    left_out: &LeftOut,
) -> Result<(), DatasetError> {
    let fault = |reason| Err(DatasetError::Inconsistent { dataset: root.display().to_string(), reason });
    if classes.is_empty() {
        let pictures = left_out.reasons().find(|(reason, ..)| **reason == Reason::NoClass).map_or(0, |(_, count, _)| count);
        let has = match pictures {
            0 => "it has no folders".to_owned(),
            1 => "it has a picture, but no folders".to_owned(),
            more => format!("it has {more} pictures, but no folders"),
        };
        return fault(format!("{has}: put the pictures of each class into a folder of the class's name"));
    }
    let not_unicode = |folder: &&PathBuf| folder.file_name().is_some_and(|name| name.to_str().is_none());
    for (name, (folders, _)) in classes {
        if folders.len() > 1 && folders.iter().any(|folder| not_unicode(&folder)) {
            return fault(format!("several folders, whose names are no UTF-8, are named {name}: rename them"));
        }
    }
    // A download is often a folder in a folder.
    if let (Some((_, (folders, files))), 1) = (classes.first_key_value(), classes.len())
        && let [class] = &folders[..]
    {
        let inside =
            |file: &PathBuf| file.strip_prefix(class).ok().and_then(|file| Some(file.parent()?.iter().next()?.to_owned()));
        let inner: Option<HashSet<_>> = files.iter().map(inside).collect();
        if inner.is_some_and(|inner| inner.len() > 1) {
            return fault(format!("it has one folder, and the folders of classes seem to be in {}: name that", class.display()));
        }
    }
    Ok(())
}

impl Dataset for ImageFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shape(&self) -> [i64; 3] {
        self.preprocess.input
    }

    fn batch(&self, indices: &Tensor) -> Result<Batch, DatasetError> {
        let chosen = |index: &i64| {
            let file = usize::try_from(*index).ok().and_then(|index| self.files.get(index));
            file.ok_or_else(|| no_example(index, self.files.len()))
        };
        let indices = Vec::<i64>::try_from(indices)?;
        let chosen = indices.iter().map(chosen).collect::<Result<Vec<_>, _>>()?;
        let decode = |file: &&PictureFile| decode_raw_file(file.place(), &self.preprocess, &self.options);
        let images = side_by_side(&chosen, decode).into_iter().collect::<Result<Vec<_>, _>>()?;
        let images = Tensor::f_cat(&images, 0)?.f_contiguous()?;
        Batch::labelled(images, self.task, chosen.iter().map(|file| file.labels()), self.classes.len())
    }

    fn task(&self) -> Task {
        self.task
    }

    fn examples(&self) -> Result<Arc<dyn Examples>, DatasetError> {
        let (files, preprocess) = (Arc::clone(&self.files), self.preprocess.clone());
        Ok(Arc::new(Files { files, preprocess, options: self.options }))
    }
}

/// The examples of an [`ImageFolder`].
struct Files {
    files: Arc<Vec<PictureFile>>,
    preprocess: Preprocess,
    options: DecodeOptions,
}

impl Examples for Files {
    fn picture(&self, index: usize) -> Result<Pixels<'_>, DatasetError> {
        self.viewed(index, &mut |has| Ok(View::whole(has)))
    }

    fn viewed(
        &self,
        index: usize,
        view: &mut dyn FnMut([usize; 2]) -> Result<View, DatasetError>,
    ) -> Result<Pixels<'_>, DatasetError> {
        let file = self.files.get(index).ok_or_else(|| no_example(index, self.files.len()))?;
        decode_file(file.place(), self.preprocess.input[0], &self.options, view)
    }

    fn fit(&self, has: [usize; 2]) -> View {
        self.preprocess.view(has)
    }

    fn file(&self, index: usize) -> Option<&PictureFile> {
        self.files.get(index)
    }

    fn label(&self, index: usize) -> i64 {
        self.files[index].label()
    }

    fn labels(&self, index: usize) -> Cow<'_, [i64]> {
        self.files[index].labels().into()
    }

    fn shards(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let shards = self.files.chunk_by(|one, next| one.archive() == next.archive());
        let shards = shards.map(|shard| {
            start += shard.len();
            (start - shard.len()..start, shard[0].archive().is_some())
        });
        shards.filter_map(|(shard, of_archive)| of_archive.then_some(shard)).collect()
    }
}

/// Files are decoded as grey or as colour.
fn check(preprocess: &Preprocess) -> Result<(), DatasetError> {
    preprocess.check()?;
    preprocess.check_channels(if preprocess.input[0] == 1 { 1 } else { 3 })
}

/// Does the same with each, with as many threads as libtorch's operators use, or as the system gives;
/// the results are in order.
pub(crate) fn side_by_side<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = all.get(index) else { return done };
            done.push((index, one(item)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let workers: Vec<_> = (1..striate_torch::num_threads().min(all.len())).map_while(spawn).collect();
        let mut done = work();
        for worker in workers {
            done.extend(worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::{ImageSize, InMemory, Interpolation, Loader, LoaderOptions, Normalise, Transform, decode_image};
    use image::{Rgb, RgbImage};
    use std::fs;

    /// Writes an image of one colour, but for a white column at the left.
    pub(crate) fn write(path: &Path, [width, height]: [u32; 2], colour: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let pixel = |x, _| if x == 0 { Rgb([255; 3]) } else { Rgb([colour, 10, 20]) };
        RgbImage::from_fn(width, height, pixel).save(path).unwrap();
    }

    pub(crate) fn preprocess(side: i64) -> Preprocess {
        let image = ImageSize::ShorterSide { shorter_side: side };
        let interpolation = Interpolation::default();
        Preprocess { image, input: [3, side, side], normalise: Normalise::identity(), interpolation }
    }

    pub(crate) fn flowers() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("tulip/b.PNG"), [9, 8], 1);
        write(&root.join("tulip/a/deep.png"), [8, 12], 2);
        write(&root.join("rose/x.png"), [8, 8], 3);
        write(&root.join("rose/y.jpeg"), [20, 16], 4);
        fs::write(root.join("rose/notes.txt"), "not an image").unwrap();
        fs::write(root.join("readme.jpg"), "not in a class").unwrap();
        folder
    }

    #[test]
    fn classes_are_folders_and_every_image_is_found() {
        let folder = flowers();
        let data = ImageFolder::open(folder.path(), preprocess(8)).unwrap();
        assert_eq!(data.classes(), ["rose", "tulip"]);
        let files =
            data.files().iter().map(|file| (file.path().strip_prefix(folder.path()).unwrap().to_str().unwrap(), file.label()));
        let expected = [("rose/x.png", 0), ("rose/y.jpeg", 0), ("tulip/a/deep.png", 1), ("tulip/b.PNG", 1)];
        assert_eq!(files.collect::<Vec<_>>(), expected);
        assert_eq!((data.len(), data.shape()), (4, [3, 8, 8]));
        assert_eq!(data.name(), folder.path().file_name().unwrap().to_str().unwrap());
    }

    #[test]
    fn a_batch_is_what_each_file_decodes_to_with_any_number_of_threads() {
        let folder = flowers();
        let data = ImageFolder::open(folder.path(), preprocess(8)).unwrap();
        let before = striate_torch::num_threads();
        for threads in [1, 3, 9] {
            striate_torch::set_num_threads(threads);
            let Batch { images, labels, .. } = data.batch(&Tensor::from_slice(&[3_i64, 0, 2, 1, 0])).unwrap();
            assert_eq!(Vec::<i64>::try_from(labels).unwrap(), [1, 0, 1, 0, 0]);
            assert_eq!((images.size(), images.is_contiguous()), (vec![5, 3, 8, 8], true));
            for (place, index) in [3, 0, 2, 1, 0].into_iter().enumerate() {
                let alone = decode_image(data.files()[index].path(), &preprocess(8), &DecodeOptions::default()).unwrap();
                let image = images.get(place as i64).to_kind(tch::Kind::Float) / 255.0;
                assert!((image - alone).abs().max().double_value(&[]) < 1e-6, "{place}");
            }
            // The column is where it was, and the colours are told apart.
            assert_eq!(images.double_value(&[1, 0, 5, 0]), 255.0);
            assert_eq!((images.double_value(&[1, 0, 5, 4]), images.double_value(&[1, 2, 5, 4])), (3.0, 20.0));
        }
        striate_torch::set_num_threads(before);
        assert!(data.batch(&Tensor::from_slice(&[4_i64])).unwrap_err().to_string().starts_with("indices: 4"));
    }

    #[test]
    fn a_loader_takes_it_and_grey_networks_get_grey() {
        let folder = flowers();
        let grey = Preprocess { input: [1, 8, 8], ..preprocess(8) };
        let data = ImageFolder::open(folder.path(), preprocess(5)).unwrap().fit(&grey).unwrap();
        let loader = Loader::new(&data, grey, LoaderOptions::train(3, 1)).unwrap();
        let sizes: Vec<_> = loader.epoch(0).unwrap().map(|batch| batch.unwrap().images.size()).collect();
        assert_eq!(sizes, [[3, 1, 8, 8], [1, 1, 8, 8]]);
    }

    #[test]
    fn workers_and_memory_give_the_same_bits() {
        let folder = flowers();
        let preprocess = preprocess(8);
        let data = ImageFolder::open(folder.path(), preprocess.clone()).unwrap();
        let epoch = |data: &dyn Dataset, kinds: &[&str], workers| {
            let transforms = kinds.iter().flat_map(|name| Transform::preset(name).unwrap()).collect();
            let options = LoaderOptions { transforms, workers: Some(workers), ..LoaderOptions::train(3, 4) };
            let loader = Loader::new(data, preprocess.clone(), options).unwrap();
            let batches: Vec<_> = loader.epoch(1).unwrap().map(|batch| batch.unwrap().images).collect();
            Tensor::cat(&batches, 0)
        };
        let Batch { images, labels, .. } = data.batch(&Tensor::from_slice(&[0_i64, 1, 2, 3])).unwrap();
        let memory = InMemory::new("flowers", images, &labels, data.classes().to_vec()).unwrap();
        let expected = epoch(&data, &["cifar", "digits"], 0);
        assert_eq!(epoch(&data, &["cifar", "digits"], 3), expected);
        assert_eq!(epoch(&memory, &["cifar", "digits"], 0), expected);
        assert_eq!(epoch(&data, &["imagenet-train"], 0), epoch(&data, &["imagenet-train"], 2));
        assert_ne!(epoch(&data, &["imagenet-eval"], 2), epoch(&data, &["none"], 2), "of 9 rows and columns, 8 are cut out");
    }

    #[test]
    fn a_workers_error_names_the_file() {
        let folder = flowers();
        let damaged = folder.path().join("tulip/b.PNG");
        fs::write(&damaged, b"\x89PNG\r\n\x1a\n").unwrap();
        let data = ImageFolder::open(folder.path(), preprocess(8)).unwrap();
        let loader = Loader::new(&data, preprocess(8), LoaderOptions { workers: Some(2), ..LoaderOptions::eval(2) }).unwrap();
        let mut epoch = loader.epoch(0).unwrap();
        epoch.next().unwrap().unwrap();
        let error = epoch.next().unwrap().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} cannot be read as an image", damaged.display())), "{error}");
    }

    #[test]
    fn what_is_missing_or_damaged_is_told() {
        let folder = flowers();
        let open = || ImageFolder::open(folder.path(), preprocess(8));
        let damaged = folder.path().join("rose/y.jpeg");
        fs::write(&damaged, b"\xff\xd8\xff nothing more").unwrap();
        let error = open().unwrap().batch(&Tensor::from_slice(&[0_i64, 1])).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{} cannot be read as an image", damaged.display())) && !error.contains('\n'),
            "{error}"
        );
        fs::create_dir(folder.path().join("lily")).unwrap();
        assert!(open().unwrap_err().to_string().contains("lily: this folder of a class has no picture that can be read"));
        let rose = folder.path().join("rose");
        let error = ImageFolder::open(&rose, preprocess(8)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: it has 2 pictures, but no folders", rose.display())), "{error}");
        assert!(ImageFolder::open(folder.path().join("none"), preprocess(8)).unwrap_err().to_string().starts_with("cannot read"));
        let four = Preprocess { input: [4, 8, 8], ..preprocess(8) };
        let told = |result: Result<ImageFolder, DatasetError>| result.unwrap_err().to_string();
        fs::remove_dir(folder.path().join("lily")).unwrap();
        assert!(told(open().unwrap().fit(&four)).contains("the network takes 4"));
        assert!(told(ImageFolder::open(folder.path(), four)).contains("the network takes 4"));
    }

    #[test]
    fn labels_go_by_the_classes_names() {
        let folder = flowers();
        let wanted = ["tulip", "iris", "rose"].map(str::to_owned);
        let data = ImageFolder::open(folder.path(), preprocess(8)).unwrap().with_classes(&wanted).unwrap();
        assert_eq!(data.classes(), wanted);
        assert_eq!(data.files().iter().map(PictureFile::label).collect::<Vec<_>>(), [2, 2, 0, 0]);
        let error = data.with_classes(&wanted[..2]).unwrap_err().to_string();
        assert!(error.contains("it has classes that are not expected: rose"), "{error}");
    }

    #[test]
    fn bad_pictures_are_found_before_an_epoch_and_can_be_left_out() {
        let folder = flowers();
        let open = || ImageFolder::open(folder.path(), preprocess(8)).unwrap();
        let go_on = &mut |_, _| true;
        open().require(Check::Pixels, go_on).unwrap();
        assert_eq!(open().without_bad(go_on).unwrap().files(), open().files());
        for bad in ["rose/x.png", "tulip/a/deep.png"] {
            let bytes = fs::read(folder.path().join(bad)).unwrap();
            fs::write(folder.path().join(bad), &bytes[..bytes.len() / 2]).unwrap();
        }
        for check in [Check::Headers, Check::Pixels] {
            let found: Vec<_> = open().check(check, go_on).unwrap().into_iter().map(|(index, _)| index).collect();
            assert_eq!(found, [0, 2]);
        }
        let every_third = open().check_some(Check::Headers, 3, go_on).unwrap();
        assert_eq!(every_third.into_iter().map(|(index, _)| index).collect::<Vec<_>>(), [0]);
        let error = open().require(Check::Headers, go_on).unwrap_err().to_string();
        assert!(error.contains("x.png cannot be read") && error.ends_with("; 1 more cannot be read either: fix or remove them"));
        let data = open().without_bad(go_on).unwrap();
        let names = data.files().iter().map(|file| (file.path().file_name().unwrap().to_str().unwrap(), file.label()));
        assert_eq!(names.collect::<Vec<_>>(), [("y.jpeg", 0), ("b.PNG", 1)]);
        assert!(data.left_out().to_string().contains("2 that cannot be decoded"), "{}", data.left_out());
        assert!(matches!(open().check(Check::Headers, &mut |_, _| false), Err(DatasetError::Interrupted)));
        fs::write(folder.path().join("rose/y.jpeg"), "").unwrap();
        let error = open().without_bad(go_on).unwrap_err().to_string();
        assert!(error.contains("no picture of class rose can be decoded"), "{error}");
    }
}
