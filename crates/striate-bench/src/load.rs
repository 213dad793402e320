//! Epochs of the loader.
use crate::case::{CIFAR, CIFAR_IN_MEMORY, DECODE, Mode};
use crate::work::Run;
use crate::{BenchError, Case};
use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};
use std::os::unix::fs::symlink;
use std::path::Path;
use striate_datasets::{
    Batch, Cached, Dataset, DatasetError, Fit, ImageFolder, ImageSize, InMemory, Interpolation, Loader, LoaderOptions, Normalise,
    Preprocess, RandAugment, RandomCrop, RandomHorizontalFlip, RandomResizedCrop, Transform, TrivialAugment,
};
use striate_torch::{Generator, derive_seed};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Images of an epoch from memory: as many as Fashion-MNIST has.
const LOADED: i64 = 60_000;
/// Batches of an epoch from files.
const BATCHES: u64 = 4;
/// The same of small ones.
const SMALL_BATCHES: u64 = 16;
/// Size and quality of the files: those of photographs, as ImageNet's mostly are.
const HEIGHT: i64 = 375;
const WIDTH: i64 = 500;
const QUALITY: u8 = 90;
const CLASSES: u64 = 3;
/// Names a folder of classes of photographs, which are loaded in place of pictures that are drawn. `xtask/peers/photographs.py` makes one.
const PHOTOGRAPHS: &str = "STRIATE_BENCH_PHOTOGRAPHS";
/// The same for small pictures, such as CIFAR-10's as JPEGs.
const SMALL: &str = "STRIATE_BENCH_SMALL_PICTURES";

/// An epoch, shuffled and normalised, and how many images it has.
/// Files lie below `share`'s name, if there is one, so that others can load them too.
pub(crate) fn load(case: &Case, seed: u64, share: Option<&Path>) -> Result<(Run, u64), BenchError> {
    let pictures = Pictures::open(case, seed, share)?;
    let (count, threads) = (pictures.count(), case.threads);
    let run: Run = match case.model == DECODE {
        true => Box::new(move || pictures.decode(threads)),
        false => Box::new(move || {
            pictures.epoch(&mut |batch| {
                let _ = std::hint::black_box(batch);
                Ok(())
            })
        }),
    };
    Ok((run, count))
}

/// What an epoch of a case loads, and how.
pub(crate) struct Pictures {
    data: Box<dyn Dataset>,
    preprocess: Preprocess,
    options: LoaderOptions,
    /// Where the files are, as long as they are needed.
    _folder: Option<TempDir>,
}

impl Pictures {
    pub(crate) fn open(case: &Case, seed: u64, share: Option<&Path>) -> Result<Self, BenchError> {
        let (data, preprocess, folder) = if case.is_of_files() { from_files(case, seed, share)? } else { from_memory(case)? };
        let batch_size = usize::try_from(case.batch).unwrap_or(1);
        let options = LoaderOptions { transforms: transforms(case), ..LoaderOptions::train(batch_size, seed) };
        let mut pictures = Self { data, preprocess, options, _folder: folder };
        if case.model == CIFAR_IN_MEMORY || case.mode == Mode::FedMemory {
            pictures.data = Box::new(Cached::in_memory(pictures.data, false)?);
            // Decodes them.
            pictures.epoch(&mut |_| Ok(()))?;
        }
        Ok(pictures)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.data.len() as u64
    }

    /// Gives each batch of an epoch.
    pub(crate) fn epoch(&self, take: &mut dyn FnMut(Batch) -> Result<(), BenchError>) -> Result<(), BenchError> {
        let loader = Loader::new(&*self.data, self.preprocess.clone(), self.options.clone())?;
        loader.epoch(0)?.try_for_each(|batch| take(batch?))
    }

    /// Decodes each picture whole, and nothing more.
    fn decode(&self, threads: usize) -> Result<(), BenchError> {
        let (examples, count) = (&*self.data.examples()?, self.data.len());
        let share = |first: usize| {
            (first..count).step_by(threads).try_for_each(|index| {
                let _ = std::hint::black_box(examples.picture(index)?);
                Ok::<(), DatasetError>(())
            })
        };
        std::thread::scope(|scope| {
            let share = &share;
            let decoding: Vec<_> = (0..threads).map(|first| scope.spawn(move || share(first))).collect();
            let ended = |_| BenchError::Failed("a thread that decodes pictures ended".to_owned());
            decoding.into_iter().try_for_each(|thread| Ok(thread.join().map_err(ended)??))
        })
    }
}

type Opened = (Box<dyn Dataset>, Preprocess, Option<TempDir>);

fn from_memory(case: &Case) -> Result<Opened, BenchError> {
    let images = Tensor::f_randint(256, [LOADED, 1, case.size, case.size], (Kind::Uint8, Device::Cpu))?;
    let labels = Tensor::f_randint(10, [LOADED], (Kind::Int64, Device::Cpu))?;
    let data = InMemory::new("random", images, &labels, (0..10).map(|class| class.to_string()).collect())?;
    let shape = [1, case.size, case.size];
    let preprocess = Preprocess::new(shape, shape, Fit::Pad, Normalise { mean: vec![0.286], std: vec![0.353] })?;
    Ok((Box::new(data), preprocess, None))
}

/// What is done to pictures, beside decoding and normalising.
fn transforms(case: &Case) -> Vec<Transform> {
    let flip = Transform::HorizontalFlip(RandomHorizontalFlip::default());
    let sized = |transform| vec![Transform::RandomResizedCrop(RandomResizedCrop::default()), transform];
    let preset = |name| Transform::preset(name).unwrap_or_default();
    match case.model.as_str() {
        "loader-plain" => preset("none"),
        "loader-crop-flip" | CIFAR | CIFAR_IN_MEMORY => preset("cifar"),
        "loader-affine" => preset("digits"),
        // Resized to the case's size on the shorter side and cropped in the middle before.
        "loader-jpeg" => vec![Transform::RandomCrop(RandomCrop { padding: u32::try_from(case.size / 8).unwrap_or(0) }), flip],
        "loader-imagenet-eval" => preset("imagenet-eval"),
        "loader-rand-augment" => sized(Transform::RandAugment(RandAugment::default())),
        "loader-trivial-augment" => sized(Transform::TrivialAugment(TrivialAugment::default())),
        _ if case.mode == Mode::FedMemory => vec![flip],
        _ => sized(flip),
    }
}

fn from_files(case: &Case, seed: u64, share: Option<&Path>) -> Result<Opened, BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
    let shared = share.map_or_else(|| folder.path().join("pictures"), |share| share.with_extension("pictures"));
    let small = [CIFAR, CIFAR_IN_MEMORY].contains(&case.model.as_str());
    let named = if small { SMALL } else { PHOTOGRAPHS };
    if let Some(given) = std::env::var_os(named) {
        let given = std::path::absolute(given).map_err(BenchError::io(format!("find the folder of {named}")))?;
        symlink(given, &shared).map_err(BenchError::io(format!("make a link to the folder of {named}")))?;
    } else {
        let (batches, size) = if small { (SMALL_BATCHES, [case.size; 2]) } else { (BATCHES, [HEIGHT, WIDTH]) };
        for number in 0..batches * case.batch.unsigned_abs() {
            picture(&shared.join(format!("{}/{number}.jpg", number % CLASSES)), size, derive_seed(seed, &[number]))?;
        }
    }
    let image = ImageSize::ShorterSide { shorter_side: case.size };
    let normalise = Normalise { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    let preprocess = Preprocess { image, input: [3, case.size, case.size], normalise, interpolation: Interpolation::default() };
    let data = ImageFolder::open(&shared, preprocess.clone())?;
    Ok((Box::new(data), preprocess, Some(folder)))
}

/// Writes a picture of smooth noise at every scale, the finer the fainter, as in photographs: a file of about a photograph's size.
fn picture(path: &Path, [height, width]: [i64; 2], seed: u64) -> Result<(), BenchError> {
    let mut generator = Generator::new(seed);
    let mut pixels = Tensor::f_full([1, 3, height, width], 128.0, (Kind::Float, Device::Cpu))?;
    for octave in 0..8 {
        let mut noise = Tensor::f_zeros([1, 3, 3 << octave, 4 << octave], (Kind::Float, Device::Cpu))?;
        generator.normal(&mut noise, 0.0, 48.0 * 0.62_f64.powi(octave))?;
        pixels = pixels.f_add(&noise.f_upsample_bicubic2d([height, width], false, None, None)?)?;
    }
    let pixels = pixels.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?.f_permute([0, 2, 3, 1])?.f_contiguous()?;
    let bytes = Vec::<u8>::try_from(pixels.f_view([-1])?)?;
    let (mut jpeg, [height, width]) = (Vec::new(), [height, width].map(|side| u32::try_from(side).unwrap_or(1)));
    let written = JpegEncoder::new_with_quality(&mut jpeg, QUALITY).write_image(&bytes, width, height, ExtendedColorType::Rgb8);
    written.map_err(|error| BenchError::Failed(format!("a picture: {error}")))?;
    Ok(striate_files::write_new(path, |file| file.write_all(&jpeg))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn pictures_are_of_a_photographs_size_and_differ() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, seed| {
            let path = folder.path().join("a").join(name);
            picture(&path, [HEIGHT, WIDTH], seed).unwrap();
            fs::read(path).unwrap()
        };
        let (one, other) = (write("1.jpg", 1), write("2.jpg", 2));
        assert_ne!(one, other);
        assert_eq!(one, write("again.jpg", 1));
        assert!((40_000..160_000).contains(&one.len()), "{}", one.len());
        let picture = image::load_from_memory(&one).unwrap().into_rgb8();
        assert_eq!((picture.width(), picture.height()), (500, 375));
        let (least, most) = (picture.iter().min().unwrap(), picture.iter().max().unwrap());
        assert!(most - least > 150, "{least} to {most}");
    }
}
