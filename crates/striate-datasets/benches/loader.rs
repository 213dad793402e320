//! Images a second of the loader over a set of Fashion-MNIST's size, on one thread: shuffled, normalised, in batches of 128.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use striate_datasets::{Augment, Dataset, DatasetError, Fit, InMemory, Loader, LoaderOptions, Normalise, Preprocess};
use tch::{Device, Kind, Tensor};

const IMAGES: i64 = 60_000;

fn dataset() -> Result<InMemory, DatasetError> {
    let images = Tensor::f_randint(256, [IMAGES, 1, 32, 32], (Kind::Uint8, Device::Cpu))?;
    let labels = Tensor::f_randint(10, [IMAGES], (Kind::Int64, Device::Cpu))?;
    InMemory::new("random", images, &labels, (0..10).map(|class| class.to_string()).collect())
}

fn loader(c: &mut Criterion) {
    striate_torch::set_num_threads(1);
    let Ok(data) = dataset() else { return };
    let shape = data.shape();
    let mut group = c.benchmark_group("loader/60000x1x32x32/batch128");
    group.throughput(Throughput::Elements(IMAGES.unsigned_abs())).sample_size(10);
    let crop_and_flip = Augment { pad_crop: 4, hflip: true, ..Augment::default() };
    let affine = Augment { rotate_degrees: 10.0, translate: 0.1, scale: [0.9, 1.1], ..Augment::default() };
    for (name, augment) in [("plain", Augment::default()), ("crop_flip", crop_and_flip), ("affine", affine)] {
        let normalise = Normalise { mean: vec![0.286], std: vec![0.353] };
        let preprocess = Preprocess::new(shape, shape, Fit::Pad, normalise);
        let options = LoaderOptions { augment, ..LoaderOptions::train(128, 1) };
        let loader = preprocess.and_then(|preprocess| Loader::new(&data, preprocess, options));
        group.bench_function(name, |b| {
            b.iter(|| {
                for batch in loader.as_ref().map(|loader| loader.epoch(0)).into_iter().flatten().flatten() {
                    let _ = black_box(batch);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, loader);
criterion_main!(benches);
