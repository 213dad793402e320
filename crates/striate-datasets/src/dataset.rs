use crate::classes::{places, relabel};
use crate::{DatasetError, Interpolation, PictureFile, Pixels, Preprocess, View, resize};
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use striate_torch::{Frozen, FrozenBytes, Generator, MemoryFormat, to_memory_format};
use tch::{Device, Kind, Tensor};

/// How many classes a picture has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Task {
    /// One: classes exclude each other.
    #[default]
    SingleLabel,
    /// Any number, or none.
    MultiLabel,
}

/// Labelled pictures, from which batches of images of one shape are taken by index.
pub trait Dataset {
    /// A short name for messages and reports, such as `fashion-mnist`.
    fn name(&self) -> &str;

    /// The number of examples.
    fn len(&self) -> usize;

    /// Whether there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes' names; a label is an index into them.
    fn classes(&self) -> &[String];

    /// The shape of every image: `[C, H, W]`.
    fn shape(&self) -> [i64; 3];

    /// How many classes each picture has.
    fn task(&self) -> Task {
        Task::SingleLabel
    }

    /// The same examples one by one, for the threads of a [`Loader`](crate::Loader).
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory.
    fn examples(&self) -> Result<Arc<dyn Examples>, DatasetError>;

    /// The examples at `indices` (`[B]`, int64, each below [`len`](Self::len)), in that order: raw images, uint8.
    ///
    /// # Errors
    ///
    /// An index that is out of range, or an example that cannot be read.
    fn batch(&self, indices: &Tensor) -> Result<Batch, DatasetError>;
}

/// The examples of a [`Dataset`] one by one, on any thread.
pub trait Examples: Send + Sync {
    /// The picture of an example as it lies in the dataset, in any size.
    ///
    /// # Errors
    ///
    /// An example that is not there or cannot be read.
    fn picture(&self, index: usize) -> Result<Pixels<'_>, DatasetError>;

    /// What is seen of a picture, which `view` chooses by its width and height. Nothing else of it need be decoded.
    ///
    /// # Errors
    ///
    /// An example that is not there or cannot be read, and `view`'s.
    fn viewed(
        &self,
        index: usize,
        view: &mut dyn FnMut([usize; 2]) -> Result<View, DatasetError>,
    ) -> Result<Pixels<'_>, DatasetError> {
        let picture = self.picture(index)?;
        view([picture.width, picture.height])?.of(picture)
    }

    /// What brings a picture of this width and height to the dataset's shape. All of it, unless told otherwise.
    fn fit(&self, has: [usize; 2]) -> View {
        View::whole(has)
    }

    /// The file that the picture is read from, if it does not lie in memory.
    fn file(&self, _index: usize) -> Option<&PictureFile> {
        None
    }

    /// The index of its class; of several the first, and -1 if it has none.
    fn label(&self, index: usize) -> i64;

    /// The indices of its classes.
    fn labels(&self, index: usize) -> Cow<'_, [i64]> {
        vec![self.label(index)].into()
    }

    /// The examples of each archive, in their order, where they lie in archives.
    fn shards(&self) -> Vec<Range<usize>> {
        Vec::new()
    }

    /// Whether the pictures lie in memory, so that reading one takes no time.
    fn in_memory(&self) -> bool {
        false
    }

    /// Where the picture lies, for people: the path of its file, or its number in a dataset in memory.
    fn place(&self, index: usize) -> PathBuf {
        self.file(index).map_or_else(|| PathBuf::from(index.to_string()), |file| file.path().to_owned())
    }
}

/// Some examples as two tensors.
#[derive(Debug)]
pub struct Batch {
    /// `[B, C, H, W]`: uint8 from a [`Dataset`], normalised float32 from a [`Loader`](crate::Loader).
    pub images: Tensor,
    /// `[B]`, int64: indices of classes; of pictures that are mixed, the class of the larger share; of those with several classes,
    /// the first, or -1.
    pub labels: Tensor,
    /// `[B, classes]`, float32: where pictures are mixed, the share of each class; where they may have several classes, 1 for each
    /// that they have and 0 for the others.
    pub targets: Option<Tensor>,
}

impl Batch {
    /// Images with their labels.
    pub fn new(images: Tensor, labels: Tensor) -> Self {
        Self { images, labels, targets: None }
    }

    /// Images with the classes of each, of so many.
    pub(crate) fn labelled(
        images: Tensor,
        task: Task,
        labels: impl Iterator<Item = impl Deref<Target = [i64]>>,
        classes: usize,
    ) -> Result<Self, DatasetError> {
        let (mut first, mut rows) = (Vec::new(), Vec::new());
        for labels in labels {
            first.push(labels.first().copied().unwrap_or(-1));
            if task == Task::MultiLabel {
                let start = rows.len();
                rows.resize(start + classes, 0.0_f32);
                labels.iter().for_each(|label| rows[start + label.unsigned_abs() as usize] = 1.0);
            }
        }
        let targets = (task == Task::MultiLabel)
            .then(|| Ok::<_, DatasetError>(Tensor::f_from_slice(&rows)?.f_view([first.len() as i64, classes as i64])?));
        Ok(Self { images, labels: Tensor::f_from_slice(&first)?, targets: targets.transpose()? })
    }

    /// What a loss takes: the shares of classes if there are any, else the labels.
    pub fn targets(&self) -> &Tensor {
        self.targets.as_ref().unwrap_or(&self.labels)
    }
}

/// Some examples of a dataset, in an order of their own.
pub struct Subset<'d> {
    dataset: &'d dyn Dataset,
    indices: Tensor,
}

impl std::fmt::Debug for Subset<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subset").field("dataset", &self.dataset.name()).field("len", &self.len()).finish()
    }
}

impl<'d> Subset<'d> {
    /// The examples at `indices`.
    ///
    /// # Errors
    ///
    /// No index, or one that is out of range.
    pub fn new(dataset: &'d dyn Dataset, indices: &[i64]) -> Result<Self, DatasetError> {
        let outside = |index: &&i64| usize::try_from(**index).map_or(true, |index| index >= dataset.len());
        match (indices.is_empty(), indices.iter().find(outside)) {
            (true, _) => Err(DatasetError::option("indices", "select at least one example")),
            (_, Some(index)) => Err(no_example(index, dataset.len())),
            _ => Ok(Self { dataset, indices: Tensor::f_from_slice(indices)? }),
        }
    }

    /// So many of the examples, drawn from the seed; 0, or more than there are, takes all.
    ///
    /// # Errors
    ///
    /// A dataset without examples.
    pub fn drawn(dataset: &'d dyn Dataset, count: usize, seed: u64) -> Result<Self, DatasetError> {
        let all = i64::try_from(dataset.len()).unwrap_or(i64::MAX);
        if count == 0 || count >= dataset.len() {
            return Self::new(dataset, &(0..all).collect::<Vec<_>>());
        }
        let order = Vec::<i64>::try_from(Generator::new(seed).permutation(all)?)?;
        Self::new(dataset, &order[..count])
    }
}

impl Dataset for Subset<'_> {
    fn name(&self) -> &str {
        self.dataset.name()
    }

    fn len(&self) -> usize {
        self.indices.numel()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn shape(&self) -> [i64; 3] {
        self.dataset.shape()
    }

    fn task(&self) -> Task {
        self.dataset.task()
    }

    fn batch(&self, indices: &Tensor) -> Result<Batch, DatasetError> {
        self.dataset.batch(&self.indices.f_index_select(0, indices)?)
    }

    fn examples(&self) -> Result<Arc<dyn Examples>, DatasetError> {
        let indices = Vec::<i64>::try_from(&self.indices)?.into_iter().map(|index| index.unsigned_abs() as usize).collect();
        Ok(Arc::new(Chosen { examples: self.dataset.examples()?, indices }))
    }
}

/// The examples of a [`Subset`].
struct Chosen {
    examples: Arc<dyn Examples>,
    // `Subset::new` has checked them.
    indices: Vec<usize>,
}

impl Examples for Chosen {
    fn picture(&self, index: usize) -> Result<Pixels<'_>, DatasetError> {
        self.examples.picture(self.indices[index])
    }

    fn viewed(
        &self,
        index: usize,
        view: &mut dyn FnMut([usize; 2]) -> Result<View, DatasetError>,
    ) -> Result<Pixels<'_>, DatasetError> {
        self.examples.viewed(self.indices[index], view)
    }

    fn fit(&self, has: [usize; 2]) -> View {
        self.examples.fit(has)
    }

    fn file(&self, index: usize) -> Option<&PictureFile> {
        self.examples.file(self.indices[index])
    }

    fn label(&self, index: usize) -> i64 {
        self.examples.label(self.indices[index])
    }

    fn labels(&self, index: usize) -> Cow<'_, [i64]> {
        self.examples.labels(self.indices[index])
    }

    fn in_memory(&self) -> bool {
        self.examples.in_memory()
    }
}

/// The two parts of a dataset.
#[derive(Debug)]
pub struct Split<D = InMemory> {
    /// What a network learns from.
    pub train: D,
    /// What it is judged by.
    pub test: D,
}

/// A dataset whose images all lie in one tensor.
///
/// ```
/// use striate_datasets::{Dataset, InMemory};
/// use tch::{Device, Kind, Tensor};
/// let images = Tensor::zeros([4, 3, 32, 32], (Kind::Uint8, Device::Cpu));
/// let labels = Tensor::from_slice(&[0_i64, 1, 1, 0]);
/// let data = InMemory::new("mine", images, &labels, vec!["cat".into(), "dog".into()])?;
/// assert_eq!((data.len(), data.shape()), (4, [3, 32, 32]));
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
#[derive(Debug)]
pub struct InMemory {
    name: String,
    images: Tensor,
    labels: Tensor,
    classes: Vec<String>,
}

impl InMemory {
    /// A dataset of `images` (`[N, C, H, W]`, uint8) and `labels` (`[N]`, any integers), where every label is an index into
    /// `classes`.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Inconsistent`] when they have other types or shapes, there are no examples, or a label has no class.
    pub fn new(name: impl Into<String>, images: Tensor, labels: &Tensor, classes: Vec<String>) -> Result<Self, DatasetError> {
        let name = name.into();
        let inconsistent = |reason| Err(DatasetError::Inconsistent { dataset: name.clone(), reason });
        let size = images.size();
        if images.kind() != Kind::Uint8 || size.len() != 4 {
            return inconsistent(format!("images are [N, C, H, W] of uint8, not {size:?} of {:?}", images.kind()));
        }
        if labels.size() != [size[0]] {
            return inconsistent(format!("{} images need as many labels, not {:?}", size[0], labels.size()));
        }
        if images.numel() == 0 {
            return inconsistent(format!("there is no image in {size:?}"));
        }
        let labels = labels.f_to_kind(Kind::Int64)?;
        check_labels(&name, &labels, classes.len())?;
        let data = Self { name, images: images.shallow_clone(), labels, classes };
        data.with_images(images)
    }

    /// All images: `[N, C, H, W]`, uint8.
    pub fn images(&self) -> &Tensor {
        &self.images
    }

    /// All labels: `[N]`, int64.
    pub fn labels(&self) -> &Tensor {
        &self.labels
    }

    /// The same examples with images of another size, bilinearly resized and rounded. Where the size shrinks, every source
    /// pixel has its share (antialiasing).
    ///
    /// # Errors
    ///
    /// A size below one.
    pub fn resize(&self, height: i64, width: i64) -> Result<Self, DatasetError> {
        self.with_images(resize::resize(&self.images, [height, width], Interpolation::Bilinear)?)
    }

    /// The same examples with zeros around each image, which stays in the centre (an odd rest goes to the bottom and right).
    ///
    /// # Errors
    ///
    /// A size below the images'.
    pub fn pad_to(&self, height: i64, width: i64) -> Result<Self, DatasetError> {
        self.with_images(resize::pad_to(&self.images, height, width)?)
    }

    /// The same examples in the size that `preprocess` wants, once and for all, so that a [`Loader`](crate::Loader) need not do it
    /// picture by picture. Grey images keep their one channel, which a loader repeats.
    ///
    /// # Errors
    ///
    /// See [`Preprocess::fit`].
    pub fn fit(&self, preprocess: &Preprocess) -> Result<Self, DatasetError> {
        let [channels, height, width] = self.shape();
        preprocess.check_channels(channels)?;
        if [height, width] == preprocess.input[1..] {
            return self.with_images(self.images.shallow_clone());
        }
        let of_channels = Preprocess { input: [channels, preprocess.input[1], preprocess.input[2]], ..preprocess.clone() };
        self.with_images(of_channels.place(&self.images)?)
    }

    /// The examples in `range`, sharing this one's memory.
    ///
    /// # Errors
    ///
    /// A range that is empty or reaches beyond the last example.
    pub fn range(&self, range: Range<usize>) -> Result<Self, DatasetError> {
        if range.is_empty() || range.end > self.len() {
            let reason = format!("{range:?} is no part of the {} examples of {}", self.len(), self.name);
            return Err(DatasetError::option("range", reason));
        }
        let (start, length) = (range.start.cast_signed() as i64, range.len().cast_signed() as i64);
        Ok(Self { labels: self.labels.f_narrow(0, start, length)?, ..self.with_images(self.images.f_narrow(0, start, length)?)? })
    }

    /// A copy of the examples at `indices`, in that order.
    ///
    /// # Errors
    ///
    /// No index, or one that is out of range.
    pub fn select(&self, indices: &[i64]) -> Result<Self, DatasetError> {
        if indices.is_empty() {
            return Err(DatasetError::option("indices", "select at least one example"));
        }
        let Batch { images, labels, .. } = self.batch(&Tensor::from_slice(indices))?;
        Ok(Self { labels, ..self.with_images(images)? })
    }

    /// The same examples with labels that index `classes`: this dataset's classes, found by name,
    /// in any order, and perhaps others.
    ///
    /// # Errors
    ///
    /// [`DatasetError::OtherClasses`] when a class of this dataset is not among them.
    pub fn with_classes(&self, classes: &[String]) -> Result<Self, DatasetError> {
        let places = places(&self.name, &self.classes, classes)?;
        let labels = relabel(&self.labels, &places)?;
        Ok(Self { labels, classes: classes.to_vec(), ..self.with_images(self.images.shallow_clone())? })
    }

    /// The same examples on another device, where [`batch`](Dataset::batch) takes them from. A [`Loader`](crate::Loader) copies
    /// them back.
    ///
    /// # Errors
    ///
    /// A device that is missing or full.
    pub fn to_device(&self, device: Device) -> Result<Self, DatasetError> {
        Ok(Self { labels: self.labels.f_to_device(device)?, ..self.with_images(self.images.f_to_device(device)?)? })
    }

    fn with_images(&self, images: Tensor) -> Result<Self, DatasetError> {
        // Pixel by pixel, as loaders read pictures.
        let images = to_memory_format(&images, MemoryFormat::ChannelsLast)?;
        Ok(Self { name: self.name.clone(), images, labels: self.labels.shallow_clone(), classes: self.classes.clone() })
    }
}

impl Dataset for InMemory {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.numel()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shape(&self) -> [i64; 3] {
        image_shape(&self.images)
    }

    fn batch(&self, indices: &Tensor) -> Result<Batch, DatasetError> {
        let indices = indices.f_to_device(self.images.device())?;
        let images = self.images.f_index_select(0, &indices)?.f_contiguous()?;
        Ok(Batch::new(images, self.labels.f_index_select(0, &indices)?))
    }

    fn examples(&self) -> Result<Arc<dyn Examples>, DatasetError> {
        let pixels = self.images.f_to_device(Device::Cpu)?.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        let labels = Vec::try_from(self.labels.f_to_device(Device::Cpu)?)?;
        Ok(Arc::new(Memory { shape: self.shape(), pixels: FrozenBytes::new(Frozen::new(pixels))?, labels }))
    }
}

/// The examples of an [`InMemory`]: pictures in one tensor `[N, H, W, C]`.
struct Memory {
    shape: [i64; 3],
    pixels: FrozenBytes,
    labels: Vec<i64>,
}

impl Examples for Memory {
    fn picture(&self, index: usize) -> Result<Pixels<'_>, DatasetError> {
        let [channels, height, width] = self.shape.map(|size| size.unsigned_abs() as usize);
        let len = channels * height * width;
        let picture = self.pixels.get(index * len..(index + 1) * len).ok_or_else(|| no_example(index, self.labels.len()))?;
        Ok(Pixels::new([width, height], channels, picture))
    }

    fn label(&self, index: usize) -> i64 {
        self.labels[index]
    }

    fn labels(&self, index: usize) -> Cow<'_, [i64]> {
        slice::from_ref(&self.labels[index]).into()
    }

    fn in_memory(&self) -> bool {
        true
    }
}

pub(crate) fn no_example(index: impl Display, examples: usize) -> DatasetError {
    DatasetError::option("indices", format!("{index} is no example of the {examples}"))
}

/// The `[C, H, W]` of a batch `[N, C, H, W]`.
pub(crate) fn image_shape(images: &Tensor) -> [i64; 3] {
    let size = images.size();
    [size[1], size[2], size[3]]
}

/// Fails on the first of `labels` (integers, `[N]`) that is no index into `classes` classes.
pub(crate) fn check_labels(dataset: &str, labels: &Tensor, classes: usize) -> Result<(), DatasetError> {
    let classes = i64::try_from(classes).unwrap_or(i64::MAX);
    let wrong = labels.f_ge(classes)?.f_logical_or(&labels.f_lt(0)?)?.f_nonzero()?;
    if wrong.numel() == 0 {
        return Ok(());
    }
    let index = wrong.f_int64_value(&[0, 0])?;
    let label = labels.f_int64_value(&[index])?;
    let reason = format!("example {index} has the label {label}, but there are {classes} classes, counted from 0");
    Err(DatasetError::Inconsistent { dataset: dataset.to_owned(), reason })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// `len` images whose pixels count on from one image to the next, and labels 0, 1, 2, 0, 1, ...
    pub(crate) fn counting(len: i64, shape: [i64; 3]) -> InMemory {
        let pixels = len * shape.iter().product::<i64>();
        let images = Tensor::arange(pixels, (Kind::Int64, Device::Cpu)).to_kind(Kind::Uint8);
        let labels = Tensor::arange(len, (Kind::Int64, Device::Cpu)).remainder(3);
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        InMemory::new("counting", images.view([len, shape[0], shape[1], shape[2]]), &labels, classes).unwrap()
    }

    #[test]
    fn batches_are_taken_by_index() {
        let data = counting(5, [1, 2, 2]);
        assert_eq!((data.len(), data.shape()), (5, [1, 2, 2]));
        let batch = data.batch(&Tensor::from_slice(&[4_i64, 0])).unwrap();
        assert_eq!(Vec::<u8>::try_from(batch.images.flatten(0, -1)).unwrap(), [16, 17, 18, 19, 0, 1, 2, 3]);
        assert_eq!(Vec::<i64>::try_from(batch.labels).unwrap(), [1, 0]);
        assert!(data.batch(&Tensor::from_slice(&[5_i64])).is_err());
    }

    #[test]
    fn parts_keep_images_and_labels_together() {
        let data = counting(5, [1, 2, 2]);
        for part in [data.range(3..5).unwrap(), data.select(&[3, 4]).unwrap()] {
            assert_eq!(part.images(), &data.images.narrow(0, 3, 2));
            assert_eq!(part.labels(), &data.labels.narrow(0, 3, 2));
        }
        assert_eq!(data.range(3..6).unwrap_err().to_string(), "range: 3..6 is no part of the 5 examples of counting");
        assert!(data.range(2..2).is_err() && data.select(&[]).is_err() && data.select(&[5]).is_err());
    }

    #[test]
    fn classes_go_by_name() {
        let data = counting(5, [1, 2, 2]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let wanted = names(&["c", "x", "a", "b"]);
        let mapped = data.with_classes(&wanted).unwrap();
        assert_eq!((Vec::<i64>::try_from(mapped.labels()).unwrap(), mapped.classes()), (vec![2, 3, 0, 2, 3], &wanted[..]));
        assert_eq!(mapped.images().data_ptr(), data.images().data_ptr());
        assert_eq!(data.with_classes(data.classes()).unwrap().labels(), data.labels());
        let error = data.with_classes(&names(&["a", "b", "z"])).unwrap_err().to_string();
        assert_eq!(error, "counting: it lacks the classes z; it has classes that are not expected: c");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let new = |images: Tensor, labels: &[i64]| {
            let classes = vec!["a".to_owned(), "b".to_owned()];
            InMemory::new("mine", images, &Tensor::from_slice(labels), classes).unwrap_err().to_string()
        };
        let images = |n: i64, kind| Tensor::zeros([n, 1, 2, 2], (kind, Device::Cpu));
        assert_eq!(
            new(images(2, Kind::Uint8), &[0, 2]),
            "mine: example 1 has the label 2, but there are 2 classes, counted from 0"
        );
        assert!(new(images(2, Kind::Uint8), &[-1, 0]).contains("label -1"));
        assert_eq!(new(images(2, Kind::Uint8), &[0]), "mine: 2 images need as many labels, not [1]");
        assert_eq!(new(images(0, Kind::Uint8), &[]), "mine: there is no image in [0, 1, 2, 2]");
        assert!(new(images(2, Kind::Float), &[0, 1]).contains("of Float"));
    }
}
