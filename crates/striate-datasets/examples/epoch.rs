//! Times epochs of the loader: `cargo run --release --example epoch -- DATASET or FOLDER [PRESET] [WORKERS] [memory]`.
//!
//! A folder of pictures has one folder for each class. With `memory`, its pictures are decoded once before. In place of a preset, name
//! transforms: `random-resized-crop,rand-augment`.
use std::path::Path;
use std::time::Instant;
use striate_datasets::{
    Dataset, DatasetError, Fit, ImageFolder, ImageSize, InMemory, Interpolation, LoadOptions, Loader, LoaderOptions, Normalise,
    Preprocess, Transform, load,
};
use tch::{Device, Kind, Tensor};

const EPOCHS: u64 = 3;
const BATCH: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    striate_torch::keep_memory_warm(); // as the program does
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |place: usize, default: &'static str| args.get(place).map_or(default, String::as_str);
    let (source, preset) = (arg(0, "digits"), arg(1, "cifar"));
    let (dataset, preprocess) = open(Path::new(source), preset, arg(3, "") == "memory")?;
    let of_kind = |kind: &str| toml::from_str(&format!("kind = '{kind}'"));
    let transforms = match Transform::preset(preset) {
        Some(transforms) => transforms,
        None => preset.split(',').map(of_kind).collect::<Result<_, _>>()?,
    };
    let options = LoaderOptions { transforms, workers: arg(2, "").parse().ok(), ..LoaderOptions::train(BATCH, 1) };
    let loader = Loader::new(&*dataset, preprocess, options)?;
    for epoch in 0..EPOCHS {
        let start = Instant::now();
        let images = loader.epoch(epoch)?.try_fold(0, |images, batch| Ok::<_, DatasetError>(images + batch?.images.size()[0]))?;
        let seconds = start.elapsed().as_secs_f64();
        println!("epoch {epoch}: {images} images in {seconds:.4} s, {:.0} a second", images as f64 / seconds);
    }
    Ok(())
}

/// The dataset as a loader of 32x32, or for ImageNet's presets of 224x224, takes it.
fn open(source: &Path, preset: &str, memory: bool) -> Result<(Box<dyn Dataset>, Preprocess), DatasetError> {
    if !source.is_dir() {
        let data = load(&source.display().to_string(), &LoadOptions::default())?.in_memory()?.train;
        let preprocess = Preprocess::new(data.shape(), [data.shape()[0], 32, 32], Fit::Resize, Normalise::of(&data)?)?;
        return Ok((Box::new(data.fit(&preprocess)?), preprocess));
    }
    let side = if preset.starts_with("imagenet") || preset.starts_with("random-resized") { 224 } else { 32 };
    let image = ImageSize::ShorterSide { shorter_side: side };
    let normalise = Normalise { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    let preprocess = Preprocess { image, input: [3, side, side], normalise, interpolation: Interpolation::Bilinear };
    let folder = ImageFolder::open(source, preprocess.clone())?;
    if !memory {
        return Ok((Box::new(folder), preprocess));
    }
    let all = folder.batch(&Tensor::f_arange(folder.len() as i64, (Kind::Int64, Device::Cpu))?)?;
    Ok((Box::new(InMemory::new("folder", all.images, &all.labels, folder.classes().to_vec())?), preprocess))
}
