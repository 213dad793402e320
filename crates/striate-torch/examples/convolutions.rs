//! The best of many runs of single 3x3 convolutions, oneDNN's direct one against Winograd's algorithm, in float32 and bfloat16:
//! `convolutions [THREADS]`. GFLOP/s count the direct convolution's operations in both.
use std::time::{Duration, Instant};
use striate_torch::onednn::{self, Geometry, Post, Sum};
use striate_torch::{MemoryFormat, TorchError, to_memory_format, winograd};
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
const TIME: Duration = Duration::from_millis(200);

fn best(run: impl Fn() -> Result<Tensor, TorchError>) -> Result<f64, TorchError> {
    let (mut best, mut runs, start) = (f64::MAX, 0, Instant::now());
    while runs < 5 || start.elapsed() < TIME {
        let start = Instant::now();
        let _ = run()?;
        best = best.min(1e3 * start.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    striate_torch::set_num_threads(std::env::args().nth(1).map_or(Ok(2), |threads| threads.parse())?);
    striate_torch::keep_memory_warm();
    let _no_grad = striate_torch::no_grad();
    let geometry = Geometry { padding: [1, 1], stride: [1, 1], dilation: [1, 1], groups: 1 };
    let sum = Sum { relu: true, in_place: false };
    for [channels, out_channels, size, batch] in SHAPES {
        let weight = Tensor::f_randn([out_channels, channels, 3, 3], (Kind::Float, Device::Cpu))?;
        let bias = Tensor::f_randn([out_channels], (Kind::Float, Device::Cpu))?;
        let transformed = winograd::Weight::new(&weight)?;
        let mut line = format!("{channels}x{size}x{size} to {out_channels}, batch {batch}:");
        for kind in [Kind::Float, Kind::BFloat16] {
            let images = Tensor::f_randn([batch, channels, size, size], (Kind::Float, Device::Cpu))?.f_to_kind(kind)?;
            let images = to_memory_format(&images, MemoryFormat::ChannelsLast)?;
            let weight = to_memory_format(&weight.f_to_kind(kind)?, MemoryFormat::ChannelsLast)?;
            let packed = onednn::pack_conv(&weight, &geometry, [1, channels, size, size])?;
            let own_bias = bias.f_to_kind(kind)?;
            let direct = best(|| onednn::conv(&images, &packed, Some(&own_bias), &geometry, Post::Relu))?;
            let winograd = best(|| transformed.conv(&images, Some(&bias), [1, 1], None, sum))?;
            let speed = |ms: f64| 18e-6 * (channels * out_channels * size * size * batch) as f64 / ms;
            let (ratio, speeds) = (direct / winograd, [direct, winograd].map(speed));
            line += &format!(
                "  {kind:?} {direct:.2} ms {:.0} GFLOP/s, {winograd:.2} ms {:.0}, ratio {ratio:.2}",
                speeds[0], speeds[1]
            );
        }
        println!("{line}");
    }
    Ok(())
}
