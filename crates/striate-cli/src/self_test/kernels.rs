//! Kernels, each against the same in float64 by libtorch on the CPU.
use super::compare::{apart, normal};
use super::{Check, Found, Part};
use crate::error::CliError;
use striate_torch::cuda::kernels::self_check;
use striate_torch::norm::{After, BatchNorm};
use striate_torch::onednn::{self, Geometry, Post, Sum};
use striate_torch::optim::{AdamStep, LearningRate, SgdStep, fused_adam, fused_sgd};
use striate_torch::pixels::{Window, max_pool};
use striate_torch::{MemoryFormat, TorchError, conv, norm, pointwise, to_memory_format, winograd};
use tch::{Device, Kind, Tensor};

/// What computes something from tensors.
type Compute = fn(&[Tensor]) -> Result<Tensor, TorchError>;

/// A kernel, as data. Its inputs are, in this order, images and weights.
struct Kernel {
    what: &'static str,
    /// Where it can be used.
    serves: fn(Kind, Device) -> bool,
    /// Sizes of images, which have the type that is checked and are channels-last.
    images: &'static [&'static [i64]],
    /// Sizes of weights, float32.
    weights: &'static [&'static [i64]],
    ours: Compute,
    truth: Compute,
    /// Whether gradients are compared too: in float32, and in both types.
    gradients: [bool; 2],
    /// Bounds in float32 and in bfloat16.
    bounds: [f64; 2],
}

const FLOAT32: f64 = 2e-5;
const BFLOAT16: f64 = 2e-2;
const SAME: Geometry = Geometry { padding: [1, 1], stride: [1, 1], dilation: [1, 1], groups: 1 };
const HALVING: Geometry = Geometry { stride: [2, 2], ..SAME };
const POINT: Geometry = Geometry { padding: [0, 0], ..SAME };
const POOL: Window = Window { kernel_size: [3, 3], stride: [2, 2], padding: [1, 1] };
const EPS: f64 = 1e-5;

fn on_cuda(_: Kind, device: Device) -> bool {
    device.is_cuda()
}

fn winograd_serves(_: Kind, device: Device) -> bool {
    device == Device::Cpu && winograd::available()
}

fn windows_serve(kind: Kind, device: Device) -> bool {
    device == Device::Cpu && conv::suits(kind)
}

fn norm_serves(kind: Kind, device: Device) -> bool {
    Tensor::f_zeros([1, 32, 2, 2], (kind, device)).is_ok_and(|images| norm::takes(&images))
}

fn pool_serves(kind: Kind, device: Device) -> bool {
    let images = Tensor::f_zeros([1, 32, 3, 3], (kind, device)).map_err(TorchError::from);
    let images = images.and_then(|images| to_memory_format(&images, MemoryFormat::ChannelsLast));
    images.is_ok_and(|images| max_pool(&images, &POOL, [2, 2], true).is_some())
}

fn pooled(images: &Tensor) -> Result<Tensor, TorchError> {
    Ok(images.f_relu()?.f_max_pool2d(POOL.kernel_size, POOL.stride, POOL.padding, [1, 1], false)?)
}

fn onednn_serves(kind: Kind, device: Device) -> bool {
    onednn::takes(device, kind)
}

fn pointwise_serves(kind: Kind, device: Device) -> bool {
    device == Device::Cpu && pointwise::suits(kind, 32)
}

fn conv2d(t: &[Tensor], geometry: &Geometry) -> Result<Tensor, TorchError> {
    let Geometry { padding, stride, dilation, groups } = *geometry;
    Ok(t[0].f_conv2d(&t[1], t.get(2), stride, padding, dilation, groups)?)
}

/// Images, what is added, weight and bias: convolved, added and cut at 0 by libtorch.
fn conv_add_relu(t: &[Tensor], stride: [i64; 2], padding: [i64; 2]) -> Result<Tensor, TorchError> {
    Ok(t[0].f_conv2d(&t[2], Some(&t[3]), stride, padding, [1, 1], 1)?.f_add(&t[1])?.f_relu()?)
}

/// The same as our product of matrices.
fn product_relu(t: &[Tensor], stride: [i64; 2], padding: [i64; 2]) -> Result<Tensor, TorchError> {
    let weight = pointwise::Weight::new(&t[2].f_to_kind(t[0].kind())?, Some(&t[3]))?;
    weight.conv(&t[0], stride, padding, Some(&t[1]), RELU)
}

fn batch_norm(t: &[Tensor], other: Option<&Tensor>, relu: bool) -> Result<Tensor, TorchError> {
    let channels = t[0].size()[1];
    let running = |value: f64| Tensor::f_full([channels], value, (t[t.len() - 1].kind(), t[0].device()));
    let (mean, var) = (running(0.0)?, running(1.0)?);
    let (weight, bias) = (&t[t.len() - 2], &t[t.len() - 1]);
    if t[0].kind() == Kind::Double {
        let mut y = t[0].f_batch_norm(Some(weight), Some(bias), Some(&mean), Some(&var), true, 0.1, EPS, false)?;
        if let Some(other) = other {
            y = y.f_add(other)?;
        }
        return Ok(if relu { y.f_relu()? } else { y });
    }
    let norm = BatchNorm {
        weight: Some(weight),
        bias: Some(bias),
        running_mean: &mean,
        running_var: &var,
        counter: None,
        momentum: 0.1,
        eps: EPS,
    };
    norm.forward(&t[0], After { other, relu })
}

/// All of them. One of a new kind is a line here.
const KERNELS: &[Kernel] = &[
    Kernel {
        what: "3x3 convolution by Winograd's algorithm",
        serves: winograd_serves,
        images: &[&[2, 32, 14, 14]],
        weights: &[&[48, 32, 3, 3], &[48]],
        ours: |t| winograd::conv(&t[0], &t[1], Some(&t[2]), [1, 1]),
        truth: |t| conv2d(t, &SAME),
        gradients: [true, true],
        bounds: [FLOAT32, BFLOAT16],
    },
    Kernel {
        what: "3x3 convolution at stride 2 by windows",
        serves: windows_serve,
        images: &[&[2, 32, 13, 13]],
        weights: &[&[48, 32, 3, 3], &[48]],
        ours: |t| conv::conv(&t[0], &t[1], Some(&t[2]), &HALVING),
        truth: |t| conv2d(t, &HALVING),
        gradients: [true, true],
        bounds: [FLOAT32, BFLOAT16],
    },
    Kernel {
        what: "1x1 convolution",
        serves: windows_serve,
        images: &[&[2, 32, 9, 9]],
        weights: &[&[64, 32, 1, 1]],
        ours: |t| conv::conv(&t[0], &t[1], None, &POINT),
        truth: |t| conv2d(t, &POINT),
        gradients: [true, true],
        bounds: [FLOAT32, BFLOAT16],
    },
    Kernel {
        what: "3x3 convolution by libtorch",
        serves: on_cuda,
        images: &[&[2, 32, 14, 14]],
        weights: &[&[48, 32, 3, 3], &[48]],
        ours: |t| {
            let kind = t[0].kind();
            conv2d(&[t[0].shallow_clone(), t[1].f_to_kind(kind)?, t[2].f_to_kind(kind)?], &SAME)
        },
        truth: |t| conv2d(t, &SAME),
        gradients: [true, true],
        bounds: [1e-4, BFLOAT16],
    },
    Kernel {
        what: "batch norm, training",
        serves: norm_serves,
        images: &[&[4, 32, 7, 7]],
        weights: &[&[32], &[32]],
        ours: |t| batch_norm(t, None, false),
        truth: |t| batch_norm(t, None, false),
        gradients: [true, true],
        bounds: [FLOAT32, BFLOAT16],
    },
    // Where rounding decides whether a ReLU passes a value, gradients differ by all of it: bfloat16's are not compared.
    Kernel {
        what: "batch norm, addition and ReLU, training",
        serves: norm_serves,
        images: &[&[4, 32, 7, 7], &[4, 32, 7, 7]],
        weights: &[&[32], &[32]],
        ours: |t| batch_norm(t, Some(&t[1]), true),
        truth: |t| batch_norm(t, Some(&t[1]), true),
        gradients: [true, false],
        bounds: [FLOAT32, BFLOAT16],
    },
    Kernel {
        what: "3x3 max pooling and ReLU, training",
        serves: pool_serves,
        images: &[&[2, 32, 13, 13]],
        weights: &[],
        // It serves, or it would not be here.
        ours: |t| max_pool(&t[0], &POOL, [7, 7], true).map_or_else(|| pooled(&t[0]), Ok),
        truth: |t| pooled(&t[0]),
        gradients: [true, false],
        bounds: [1e-6, 0.0],
    },
    Kernel {
        what: "plan's 3x3 convolution, addition and ReLU (Winograd)",
        serves: winograd_serves,
        images: &[&[2, 32, 14, 14], &[2, 48, 14, 14]],
        weights: &[&[48, 32, 3, 3], &[48]],
        ours: |t| winograd::Weight::new(&t[2])?.conv(&t[0], Some(&t[3]), [1, 1], Some(&t[1]), RELU),
        truth: |t| conv_add_relu(t, [1, 1], [1, 1]),
        gradients: [false, false],
        bounds: [FLOAT32, BFLOAT16],
    },
    Kernel {
        what: "plan's 1x1 convolution, addition and ReLU",
        serves: pointwise_serves,
        images: &[&[2, 32, 9, 9], &[2, 48, 9, 9]],
        weights: &[&[48, 32, 1, 1], &[48]],
        ours: |t| product_relu(t, [1, 1], [0, 0]),
        truth: |t| conv_add_relu(t, [1, 1], [0, 0]),
        gradients: [false, false],
        bounds: [FLOAT32, BFLOAT16],
    },
    Kernel {
        what: "plan's 5x5 convolution, addition and ReLU (windows)",
        serves: pointwise_serves,
        images: &[&[2, 32, 9, 9], &[2, 48, 5, 9]],
        weights: &[&[48, 32, 5, 5], &[48]],
        ours: |t| product_relu(t, [2, 1], [2, 2]),
        truth: |t| conv_add_relu(t, [2, 1], [2, 2]),
        gradients: [false, false],
        bounds: [FLOAT32, BFLOAT16],
    },
    Kernel {
        what: "plan's 5x5 convolution and ReLU (oneDNN)",
        serves: onednn_serves,
        images: &[&[2, 32, 9, 9]],
        weights: &[&[48, 32, 5, 5], &[48]],
        ours: |t| {
            let weight = onednn::pack_conv(&t[1].f_to_kind(t[0].kind())?, &SAME, [2, 32, 9, 9])?;
            onednn::conv(&t[0], &weight, Some(&t[2].f_to_kind(t[0].kind())?), &SAME, Post::Relu)
        },
        truth: |t| Ok(conv2d(t, &SAME)?.f_relu()?),
        gradients: [false, false],
        bounds: [FLOAT32, BFLOAT16],
    },
];

const RELU: Sum = Sum { relu: true, in_place: false };

/// The kernels that serve a device, and the optimizers' steps.
pub(super) fn checks(device: Device) -> Vec<Check> {
    let mut checks = Vec::new();
    for kernel in KERNELS {
        for (index, (kind, name)) in [(Kind::Float, "float32"), (Kind::BFloat16, "bfloat16")].into_iter().enumerate() {
            if (kernel.serves)(kind, device) {
                let gradients = kernel.gradients[index];
                let what = format!("{}{}, {name}", kernel.what, if gradients { ", gradients" } else { "" });
                let run = move || Ok(Found::Apart(compare(kernel, kind, device, gradients)?));
                checks.push(Check::new((Part::Kernels, device), what, kernel.bounds[index], run));
            }
        }
    }
    let mut add_steps = |name, run: fn(Device) -> Result<f64, CliError>| {
        let run = move || Ok(Found::Apart(run(device)?));
        checks.push(Check::new((Part::Kernels, device), format!("two steps of fused {name}"), 2e-6, run));
    };
    add_steps("SGD", sgd);
    add_steps("AdamW", adamw);
    if device.is_cuda() {
        let run = move || {
            let shares = self_check(device)?.into_iter().map(|check| check.error / check.bound);
            Ok(Found::Apart(shares.fold(0.0, f64::max)))
        };
        checks.push(Check::new((Part::Kernels, device), "all kernels of training, errors by their bounds", 1.0, run));
    }
    checks
}

/// How far a kernel's output and gradients are from those in float64.
fn compare(kernel: &Kernel, kind: Kind, device: Device, gradients: bool) -> Result<f64, TorchError> {
    let images = kernel.images.iter().map(|size| (size, kind, 1.0));
    // Products of so many values would be large.
    let scale = |size: &[i64]| (1.0 / size[1..].iter().product::<i64>().max(1) as f64).sqrt();
    let weights = kernel.weights.iter().map(|size| (size, Kind::Float, scale(size)));
    let (mut ours, mut exact) = (Vec::new(), Vec::new());
    for (seed, (size, kind, scale)) in images.chain(weights).enumerate() {
        let rounded = normal(size, seed as u64)?.f_mul_scalar(scale)?.f_to_kind(kind)?;
        exact.push(rounded.f_to_kind(Kind::Double)?.f_detach()?.f_set_requires_grad(gradients)?);
        let lies = if size.len() == 4 { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous };
        ours.push(to_memory_format(&rounded.f_to_device(device)?, lies)?.f_detach()?.f_set_requires_grad(gradients)?);
    }
    let (got, expected) = ((kernel.ours)(&ours)?, (kernel.truth)(&exact)?);
    let mut worst = apart([(&got, &expected)])?;
    if gradients {
        // Rounded, so that both get the same.
        let direction = normal(&expected.size(), 99)?.f_to_kind(got.kind())?;
        for output in [&got, &expected] {
            let direction = direction.f_to_kind(output.kind())?.f_to_device(output.device())?;
            output.f_mul(&direction)?.f_sum(output.kind())?.f_backward()?;
        }
        for (got, expected) in ours.iter().zip(&exact) {
            worst = f64::max(worst, apart([(&got.f_grad()?, &expected.f_grad()?)])?);
        }
    }
    Ok(worst)
}

/// A parameter, and two gradients.
fn to_step(device: Device) -> Result<[Tensor; 3], TorchError> {
    let draw = |seed| Ok::<_, TorchError>(normal(&[1000], seed)?.f_to_kind(Kind::Float)?.f_to_device(device)?);
    Ok([draw(1)?, draw(2)?, draw(3)?])
}

fn exact(tensor: &Tensor) -> Result<Tensor, TorchError> {
    Ok(tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)
}

/// Momentum 0.9, learning rate 0.1, weight decay 0.01: the rule of `torch.optim.SGD`.
fn sgd(device: Device) -> Result<f64, CliError> {
    let [param, first, second] = to_step(device)?;
    let momentum = param.f_zeros_like()?;
    let (mut p, mut m) = (exact(&param)?, exact(&momentum)?);
    for (index, grad) in [first, second].iter().enumerate() {
        let step =
            SgdStep { lr: LearningRate::Value(0.1), momentum: 0.9, weight_decay: 0.01, nesterov: false, first_step: index == 0 };
        fused_sgd(&[param.shallow_clone()], &[grad.shallow_clone()], &[momentum.shallow_clone()], step)?;
        m = m.f_mul_scalar(0.9)?.f_add(&exact(grad)?.f_add(&p.f_mul_scalar(0.01)?)?)?;
        p = p.f_sub(&m.f_mul_scalar(0.1)?)?;
    }
    Ok(apart([(&param, &p), (&momentum, &m)])?)
}

/// Learning rate 0.1, weight decay 0.01, betas 0.9 and 0.99: the rule of `torch.optim.AdamW`.
fn adamw(device: Device) -> Result<f64, CliError> {
    let [param, first, second] = to_step(device)?;
    let [average, square] = [param.f_zeros_like()?, param.f_zeros_like()?];
    let (mut p, mut a, mut s) = (exact(&param)?, exact(&average)?, exact(&square)?);
    for (index, grad) in [first, second].iter().enumerate() {
        let count = index as i32 + 1;
        let number = Tensor::f_full([0_i64; 0], f64::from(count), (Kind::Float, device))?;
        let step =
            AdamStep { lr: LearningRate::Value(0.1), beta1: 0.9, beta2: 0.99, weight_decay: 0.01, decoupled: true, eps: 1e-8 };
        let list = |tensor: &Tensor| [tensor.shallow_clone()];
        fused_adam(&list(&param), &list(grad), &list(&average), &list(&square), &[number], step)?;
        let grad = exact(grad)?;
        a = a.f_mul_scalar(0.9)?.f_add(&grad.f_mul_scalar(0.1)?)?;
        s = s.f_mul_scalar(0.99)?.f_add(&grad.f_square()?.f_mul_scalar(0.01)?)?;
        let size = s.f_div_scalar(1.0 - 0.99_f64.powi(count))?.f_sqrt()?.f_add_scalar(1e-8)?;
        let step = a.f_div_scalar(1.0 - 0.9_f64.powi(count))?.f_div(&size)?;
        p = p.f_mul_scalar(1.0 - 0.1 * 0.01)?.f_sub(&step.f_mul_scalar(0.1)?)?;
    }
    Ok(apart([(&param, &p), (&average, &a), (&square, &s)])?)
}
