//! Loads a dataset by name and times a pass of the loader over it: `cargo run --release --example epoch -- fashion-mnist`.
use std::time::Instant;
use striate_datasets::{DatasetError, Fit, LoadOptions, Loader, LoaderOptions, Normalise, Preprocess, channel_statistics, load};

fn main() -> Result<(), DatasetError> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "digits".to_owned());
    let start = Instant::now();
    let data = load(&name, &LoadOptions::default())?.train;
    println!("{name}: {:?} examples loaded in {:.2?}", data.images().size(), start.elapsed());

    let start = Instant::now();
    println!("{:?} computed in {:.2?}", channel_statistics(&data, usize::MAX, &mut |_, _| true)?, start.elapsed());

    let start = Instant::now();
    let preprocess = Preprocess::new([1, 28, 28], [1, 32, 32], Fit::Resize, Normalise::of(&data)?)?;
    let data = data.fit(&preprocess)?;
    println!("brought to {:?} in {:.2?}", preprocess.input, start.elapsed());

    let loader = Loader::new(&data, preprocess, LoaderOptions::train(128, 1))?;
    let start = Instant::now();
    for batch in loader.epoch(0)? {
        batch?;
    }
    println!("{} batches in {:.2?} on {} threads", loader.len(), start.elapsed(), striate_torch::num_threads());
    Ok(())
}
