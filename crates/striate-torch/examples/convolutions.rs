//! The best of many runs of single convolutions, oneDNN's against ours, in float32 and bfloat16: `convolutions [THREADS [train]]`. For inference 3x3 by
//! Winograd's algorithm, then 1x1; or the forward pass and the gradients of input and weight: 3x3 by Winograd's algorithm, then others, whose gradients of weights
//! are sums of outer products. GFLOP/s count the direct convolution's operations.
use std::time::{Duration, Instant};
use striate_torch::onednn::{self, Geometry, Post, Sum};
use striate_torch::{MemoryFormat, TorchError, conv, pointwise, to_memory_format, winograd};
use tch::{Device, Kind, Tensor};

/// Input channels, output channels, height and width, batch.
const SHAPES: [[i64; 4]; 14] = [
    [64, 64, 56, 1],
    [64, 64, 56, 16],
    [128, 128, 28, 1],
    [128, 128, 28, 16],
    [256, 256, 14, 1],
    [256, 256, 14, 16],
    [512, 512, 7, 1],
    [512, 512, 7, 16],
    [64, 64, 224, 1],
    [256, 256, 56, 1],
    [512, 512, 28, 1],
    [512, 512, 14, 16],
    [16, 16, 32, 128],
    [96, 208, 14, 16],
];
/// Input channels, output channels, height and width, step, batch.
const POINTWISE: [[i64; 5]; 10] = [
    [64, 256, 56, 1, 1],
    [256, 64, 56, 1, 1],
    [128, 512, 28, 1, 1],
    [1024, 256, 14, 1, 1],
    [1024, 2048, 14, 2, 1],
    [2048, 512, 7, 1, 1],
    [832, 384, 7, 1, 1],
    [64, 256, 56, 1, 16],
    [256, 64, 56, 1, 16],
    [1024, 256, 14, 1, 16],
];
/// For training: input channels, output channels, height and width, the window's size and step, batch.
const TRAINED: [[i64; 6]; 16] = [
    [64, 256, 56, 1, 1, 8],
    [256, 64, 56, 1, 1, 8],
    [128, 512, 28, 1, 1, 8],
    [1024, 256, 14, 1, 1, 8],
    [256, 1024, 14, 1, 1, 8],
    [2048, 512, 7, 1, 1, 8],
    [256, 512, 56, 1, 2, 8],
    [1024, 2048, 14, 1, 2, 8],
    [64, 128, 56, 3, 2, 16],
    [128, 256, 28, 3, 2, 16],
    [256, 512, 14, 3, 2, 16],
    [512, 512, 7, 3, 1, 16],
    [256, 256, 14, 3, 1, 16],
    [64, 64, 56, 3, 1, 16],
    [16, 32, 28, 5, 1, 16],
    [64, 192, 27, 5, 1, 16],
];
const TIME: Duration = Duration::from_millis(200);

fn best(run: impl Fn() -> Result<(), TorchError>) -> Result<f64, TorchError> {
    let (mut best, mut runs, start) = (f64::MAX, 0, Instant::now());
    while runs < 5 || start.elapsed() < TIME {
        let start = Instant::now();
        run()?;
        best = best.min(1e3 * start.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    striate_torch::set_num_threads(std::env::args().nth(1).map_or(Ok(2), |threads| threads.parse())?);
    striate_torch::keep_memory_warm();
    let train = std::env::args().nth(2).is_some_and(|word| word == "train");
    for [channels, out_channels, size, batch] in SHAPES {
        print!("3x3 {channels}x{size}x{size} to {out_channels}, batch {batch}:");
        for kind in kinds() {
            let weight = Tensor::f_randn([out_channels, channels, 3, 3], (Kind::Float, Device::Cpu))?;
            let images = images([batch, channels, size, size], kind)?;
            let by_winograd = |images: &Tensor, weight: &Tensor| winograd::conv(images, weight, None, [1, 1]);
            let times = if train { training(&images, &weight, 1, by_winograd)? } else { inference(&images, &weight)? };
            tell(kind, times, channels * out_channels * size * size * batch * if train { 27 } else { 9 });
        }
        println!();
    }
    if train {
        for [channels, out_channels, size, window, step, batch] in TRAINED {
            print!("{window}x{window}/{step} {channels}x{size}x{size} to {out_channels}, batch {batch}:");
            for kind in kinds() {
                let weight = Tensor::f_randn([out_channels, channels, window, window], (Kind::Float, Device::Cpu))?;
                let geometry = Geometry { padding: [window / 2; 2], stride: [step; 2], dilation: [1, 1], groups: 1 };
                let ours = |images: &Tensor, weight: &Tensor| conv::conv(images, weight, None, &geometry);
                let times = training(&images([batch, channels, size, size], kind)?, &weight, step, ours)?;
                tell(kind, times, channels * out_channels * window * window * (size / step) * (size / step) * batch * 3);
            }
            println!();
        }
        return Ok(());
    }
    for [channels, out_channels, size, step, batch] in POINTWISE {
        print!("1x1/{step} {channels}x{size}x{size} to {out_channels}, batch {batch}:");
        for kind in kinds() {
            let images = images([batch, channels, size, size], kind)?;
            let weight = Tensor::f_randn([out_channels, channels, 1, 1], (Kind::Float, Device::Cpu))?;
            tell(kind, one_by_one(&images, &weight, step)?, channels * out_channels * (size / step) * (size / step) * batch);
        }
        println!();
    }
    Ok(())
}

/// The types that this processor has products of, as far as its instructions may be used.
fn kinds() -> impl Iterator<Item = Kind> {
    [Kind::Float, Kind::BFloat16].into_iter().filter(|kind| conv::suits(*kind) && onednn::takes(Device::Cpu, *kind))
}

fn images(size: [i64; 4], kind: Kind) -> Result<Tensor, TorchError> {
    to_memory_format(&Tensor::f_randn(size, (Kind::Float, Device::Cpu))?.f_to_kind(kind)?, MemoryFormat::ChannelsLast)
}

/// Prints oneDNN's time and ours.
fn tell(kind: Kind, [theirs, ours]: [f64; 2], macs: i64) {
    let [their_speed, speed] = [theirs, ours].map(|ms| 2e-6 * macs as f64 / ms);
    print!("  {kind:?} {theirs:.3} ms {their_speed:.0} GFLOP/s, {ours:.3} ms {speed:.0}, ratio {:.2}", theirs / ours);
}

/// With packed weights, bias and ReLU.
fn one_by_one(images: &Tensor, weight: &Tensor, step: i64) -> Result<[f64; 2], TorchError> {
    let _no_grad = striate_torch::no_grad();
    let geometry = Geometry { padding: [0, 0], stride: [step; 2], dilation: [1, 1], groups: 1 };
    let size = images.size();
    let weight = to_memory_format(&weight.f_to_kind(images.kind())?, MemoryFormat::ChannelsLast)?;
    let bias = Tensor::f_randn([weight.size()[0]], (Kind::Float, Device::Cpu))?;
    let own_bias = bias.f_to_kind(images.kind())?;
    let packed = onednn::pack_conv(&weight, &geometry, [1, size[1], size[2], size[3]])?;
    let theirs = best(|| onednn::conv(images, &packed, Some(&own_bias), &geometry, Post::Relu).map(drop))?;
    let weight = pointwise::Weight::new(&weight, Some(&bias))?;
    let sum = Sum { relu: true, in_place: false };
    Ok([theirs, best(|| weight.conv(images, [step; 2], [0, 0], None, sum).map(drop))?])
}

/// Direct and Winograd's, with packed weights, bias and ReLU.
fn inference(images: &Tensor, weight: &Tensor) -> Result<[f64; 2], TorchError> {
    let _no_grad = striate_torch::no_grad();
    let geometry = Geometry { padding: [1, 1], stride: [1, 1], dilation: [1, 1], groups: 1 };
    let bias = Tensor::f_randn([weight.size()[0]], (Kind::Float, Device::Cpu))?;
    let transformed = winograd::Weight::new(weight)?;
    let (own_weight, own_bias) = (weight.f_to_kind(images.kind())?, bias.f_to_kind(images.kind())?);
    let size = images.size();
    let own_weight = to_memory_format(&own_weight, MemoryFormat::ChannelsLast)?;
    let packed = onednn::pack_conv(&own_weight, &geometry, [1, size[1], size[2], size[3]])?;
    let sum = Sum { relu: true, in_place: false };
    let direct = best(|| onednn::conv(images, &packed, Some(&own_bias), &geometry, Post::Relu).map(drop))?;
    Ok([direct, best(|| transformed.conv(images, Some(&bias), [1, 1], None, sum).map(drop))?])
}

/// oneDNN's, with a weight of the images' type, and ours: forward and backward.
fn training(
    images: &Tensor,
    weight: &Tensor,
    step: i64,
    ours: impl Fn(&Tensor, &Tensor) -> Result<Tensor, TorchError>,
) -> Result<[f64; 2], TorchError> {
    let leaf = |tensor: &Tensor| tensor.f_detach()?.f_set_requires_grad(true);
    let (images, own_weight) =
        (leaf(images)?, leaf(&to_memory_format(&weight.f_to_kind(images.kind())?, MemoryFormat::ChannelsLast)?)?);
    let weight = leaf(&to_memory_format(weight, MemoryFormat::ChannelsLast)?)?;
    let padding = [weight.size()[2] / 2; 2];
    let direct = |weight: &Tensor| images.f_conv2d(weight, None::<Tensor>, [step; 2], padding, [1, 1], 1);
    let upstream = direct(&own_weight)?.f_detach()?;
    let back = |y: Tensor, weight: &Tensor| -> Result<(), TorchError> {
        Tensor::f_run_backward(&[y.f_mul(&upstream)?.f_sum(Kind::Float)?], &[&images, weight], false, false)?;
        Ok(())
    };
    Ok([best(|| back(direct(&own_weight)?, &own_weight))?, best(|| back(ours(&images, &weight)?, &weight))?])
}
