use crate::preprocess::decode_raw;
use crate::{Batch, Dataset, DatasetError, Preprocess};
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::Tensor;

/// What files of images end in, in small letters.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// JPEG and PNG files in a folder for each class, `root/class/image.jpg`, as torchvision's dataset of this name reads them: the
/// classes are the folders' names in alphabetical order, the images of a class are all that lie in its folder, however deep.
///
/// Files are decoded when a batch is taken, by as many threads as libtorch's operators use, each as
/// [`decode_image`](crate::decode_image) would for the same [`Preprocess`]; only what a batch needs is in memory.
///
/// ```no_run
/// use striate_datasets::{ImageFolder, ImageSize, Loader, LoaderOptions, Normalise, Preprocess, channel_statistics};
/// let raw = Preprocess {
///     image: ImageSize::ShorterSide { shorter_side: 256 },
///     input: [3, 224, 224],
///     normalise: Normalise::identity(),
/// };
/// let train = ImageFolder::open("flowers/train", raw.clone())?;
/// let preprocess = Preprocess { normalise: channel_statistics(&train)?, ..raw };
/// let loader = Loader::new(&train, preprocess, LoaderOptions::train(64, 0))?;
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
#[derive(Debug)]
pub struct ImageFolder {
    name: String,
    files: Vec<(PathBuf, i64)>,
    classes: Vec<String>,
    preprocess: Preprocess,
}

impl ImageFolder {
    /// The images below `root`. Each is resized and cropped or padded as `preprocess` says; normalising is left to a
    /// [`Loader`](crate::Loader).
    ///
    /// # Errors
    ///
    /// A folder that cannot be read, no class, a class without an image, or a `preprocess` that has no sense. An image that cannot
    /// be decoded is an error of the batch that it belongs to.
    pub fn open(root: impl AsRef<Path>, preprocess: Preprocess) -> Result<Self, DatasetError> {
        let root = root.as_ref();
        check(&preprocess)?;
        let fault = |folder: &Path, reason: &str| DatasetError::Inconsistent {
            dataset: folder.display().to_string(),
            reason: reason.to_owned(),
        };
        let (mut files, mut classes) = (Vec::new(), Vec::new());
        for folder in entries(root)?.into_iter().filter(|path| path.is_dir()) {
            let before = files.len();
            let class = classes.len().cast_signed() as i64;
            collect(&folder, &mut |file| files.push((file, class)))?;
            if files.len() == before {
                return Err(fault(&folder, "this folder of a class has no JPEG or PNG file: add some, or remove it"));
            }
            classes.push(file_name(&folder));
        }
        if classes.is_empty() {
            return Err(fault(root, "it has no folders: put the images of each class into a folder of the class's name"));
        }
        Ok(Self { name: file_name(root), files, classes, preprocess })
    }

    /// The same images, resized and cropped or padded as another `preprocess` says; the folders are not read again.
    ///
    /// # Errors
    ///
    /// A `preprocess` that has no sense.
    pub fn fit(self, preprocess: &Preprocess) -> Result<Self, DatasetError> {
        check(preprocess)?;
        Ok(Self { preprocess: preprocess.clone(), ..self })
    }

    /// The files, with the index of each one's class: in the order of the examples.
    pub fn files(&self) -> &[(PathBuf, i64)] {
        &self.files
    }
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
            file.ok_or_else(|| DatasetError::option("indices", format!("{index} is no example of the {}", self.files.len())))
        };
        let indices = Vec::<i64>::try_from(indices)?;
        let chosen = indices.iter().map(chosen).collect::<Result<Vec<_>, _>>()?;
        let images = decode(&chosen, &self.preprocess)?;
        let labels: Vec<i64> = chosen.iter().map(|(_, class)| *class).collect();
        Ok(Batch { images: Tensor::f_cat(&images, 0)?.f_contiguous()?, labels: Tensor::f_from_slice(&labels)? })
    }
}

/// Files are decoded as grey or as colour.
fn check(preprocess: &Preprocess) -> Result<(), DatasetError> {
    preprocess.check()?;
    preprocess.check_channels(if preprocess.input[0] == 1 { 1 } else { 3 })
}

/// Decodes files side by side; the first that cannot be decoded is the error.
fn decode(files: &[&(PathBuf, i64)], preprocess: &Preprocess) -> Result<Vec<Tensor>, DatasetError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut decoded = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((path, _)) = files.get(index) else { return decoded };
            decoded.push((index, decode_raw(path, preprocess)));
        }
    };
    let mut decoded = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..striate_torch::num_threads().min(files.len())).map(|_| scope.spawn(work)).collect();
        let mut decoded = work();
        for worker in workers {
            decoded.extend(worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        decoded
    });
    decoded.sort_by_key(|(index, _)| *index);
    decoded.into_iter().map(|(_, image)| image).collect()
}

/// Hands on every file of an image below a folder, in alphabetical order.
fn collect(folder: &Path, found: &mut dyn FnMut(PathBuf)) -> Result<(), DatasetError> {
    for path in entries(folder)? {
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|end| EXTENSIONS.iter().any(|known| end.eq_ignore_ascii_case(known))) {
            found(path);
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut entries = list().map_err(|error| DatasetError::io("read", folder, error))?;
    entries.sort();
    Ok(entries)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{ImageSize, Loader, LoaderOptions, Normalise, decode_image};
    use image::{Rgb, RgbImage};

    /// Writes an image of one colour, but for a white column at the left.
    fn write(path: &Path, [width, height]: [u32; 2], colour: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let pixel = |x, _| if x == 0 { Rgb([255; 3]) } else { Rgb([colour, 10, 20]) };
        RgbImage::from_fn(width, height, pixel).save(path).unwrap();
    }

    fn preprocess(side: i64) -> Preprocess {
        let image = ImageSize::ShorterSide { shorter_side: side };
        Preprocess { image, input: [3, side, side], normalise: Normalise::identity() }
    }

    fn flowers() -> tempfile::TempDir {
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
            data.files().iter().map(|(path, class)| (path.strip_prefix(folder.path()).unwrap().to_str().unwrap(), *class));
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
            let Batch { images, labels } = data.batch(&Tensor::from_slice(&[3_i64, 0, 2, 1, 0])).unwrap();
            assert_eq!(Vec::<i64>::try_from(labels).unwrap(), [1, 0, 1, 0, 0]);
            assert_eq!((images.size(), images.is_contiguous()), (vec![5, 3, 8, 8], true));
            for (place, index) in [3, 0, 2, 1, 0].into_iter().enumerate() {
                let alone = decode_image(&data.files()[index].0, &preprocess(8)).unwrap();
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
    fn what_is_missing_or_damaged_is_told_and_never_left_out() {
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
        assert!(open().unwrap_err().to_string().contains("lily: this folder of a class has no JPEG or PNG file"));
        let rose = folder.path().join("rose");
        let error = ImageFolder::open(&rose, preprocess(8)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: it has no folders", rose.display())), "{error}");
        assert!(ImageFolder::open(folder.path().join("none"), preprocess(8)).unwrap_err().to_string().starts_with("cannot read"));
        let four = Preprocess { input: [4, 8, 8], ..preprocess(8) };
        let told = |result: Result<ImageFolder, DatasetError>| result.unwrap_err().to_string();
        fs::remove_dir(folder.path().join("lily")).unwrap();
        assert!(told(open().unwrap().fit(&four)).contains("the network takes 4"));
        assert!(told(ImageFolder::open(folder.path(), four)).contains("the network takes 4"));
    }
}
