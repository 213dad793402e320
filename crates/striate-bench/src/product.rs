//! The product of two square matrices that others are held against: the fastest of those that there are.
use crate::BenchError;
use crate::work::Run;
use std::time::{Duration, Instant};
use striate_torch::onednn::{self, Post, Sum};
use striate_torch::pointwise;
use tch::{Device, Kind, Tensor};

/// Runs of each, of which the shortest counts.
const TRIES: usize = 3;

/// The fastest product of matrices `[size, size]`: libtorch's (on a CPU MKL's, which is slow on some processors), oneDNN's with a packed matrix, or that of
/// our 1x1 convolution.
pub(crate) fn product(size: i64, kind: Kind, device: Device) -> Result<Run, BenchError> {
    let matrix = || Tensor::f_randn([size, size], (kind, device));
    let (left, right) = (matrix()?, matrix()?);
    let mut ways: Vec<Run> = Vec::new();
    let on_cpu = device == Device::Cpu;
    if on_cpu && (onednn::supports_bf16() || (kind == Kind::Float && onednn::available())) {
        let (left, packed) = (left.shallow_clone(), onednn::pack_linear(&right, size)?);
        ways.push(way(move || onednn::linear(&left, &packed, None, Post::None)));
    }
    if on_cpu && pointwise::suits(kind, size) {
        let pixels = left.f_view([size, size, 1, 1])?;
        let weight = pointwise::Weight::new(&right.f_view([size, size, 1, 1])?, None)?;
        ways.push(way(move || weight.conv(&pixels, [1, 1], [0, 0], None, Sum { relu: false, in_place: false })));
    }
    let mut best = way(move || left.f_matmul(&right));
    let mut least = shortest(&mut best)?;
    for mut way in ways {
        let time = shortest(&mut way)?;
        if time < least {
            (best, least) = (way, time);
        }
    }
    Ok(best)
}

fn way<E: Into<BenchError>>(product: impl Fn() -> Result<Tensor, E> + 'static) -> Run {
    Box::new(move || product().map(drop).map_err(Into::into))
}

fn shortest(run: &mut Run) -> Result<Duration, BenchError> {
    let mut least = Duration::MAX;
    for _ in 0..TRIES {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}
