use super::kernels::{self, ELEMENTS};
use crate::conv::conv_relu;
use crate::norm::{After, BatchNorm};
use crate::onednn::Geometry;
use crate::pixels::{Window, max_pool};
use crate::{Generator, MemoryFormat, TorchError, to_memory_format};
use tch::{Device, Kind, Tensor};

const MOMENTUM: f64 = 0.3;
const EPS: f64 = 1e-3;

/// How far results of a kernel are from those of libtorch in float64, computed from the same values.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Check {
    /// What was computed: the operator, the type, the size, and which of its results.
    pub name: String,
    /// The largest difference, as a share of the largest value.
    pub error: f64,
    /// What rounding to the type explains.
    pub bound: f64,
}

impl Check {
    /// Whether the results are right.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// Computes with every kernel on a CUDA device, and compares with libtorch in float64 on the CPU: some hundred small cases, forward and backward.
///
/// # Errors
///
/// Those of [`prepare`](kernels::prepare) and of libtorch. Wrong results are no errors: see [`Check::holds`].
pub fn self_check(device: Device) -> Result<Vec<Check>, TorchError> {
    let mut cases = Cases { device, random: Generator::new(1), checks: Vec::new() };
    for kind in ELEMENTS {
        if device != Device::Cpu {
            kernels::prepare(device, kind)?;
        }
        for size in
            [[5, 8, 1, 1], [3, 16, 17, 19], [1, 24, 5, 3], [3, 64, 17, 23], [2, 72, 33, 9], [1, 520, 3, 3], [4, 256, 9, 11]]
        {
            for (added, relu, affine) in
                [(false, false, true), (false, true, true), (true, true, true), (true, false, true), (true, true, false)]
            {
                cases.norm(kind, size, added, relu, affine)?;
            }
        }
        for (kernel, stride, padding) in [(3, 2, 1), (3, 1, 1), (2, 2, 0), (5, 1, 2), (2, 3, 1)] {
            for relu in [false, true] {
                cases.pool(kind, [2, 48, 9, 7], kernel, stride, padding, relu)?;
            }
        }
        for (size, out, kernel, stride) in
            [([3, 3, 17, 19], 64, 3, 1), ([2, 16, 9, 11], 72, 1, 1), ([1, 8, 7, 5], 520, 3, 2), ([5, 8, 1, 1], 8, 1, 1)]
        {
            cases.conv_relu(kind, size, out, kernel, stride)?;
        }
    }
    Ok(cases.checks)
}

struct Cases {
    device: Device,
    random: Generator,
    checks: Vec<Check>,
}

/// libtorch's values for libtorch to compute with: float64 on the CPU.
fn exact(tensor: &Tensor) -> Result<Tensor, TorchError> {
    Ok(tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.set_requires_grad(true))
}

impl Cases {
    fn normal(&mut self, size: &[i64], std: f64) -> Result<Tensor, TorchError> {
        let mut tensor = Tensor::f_empty(size, (Kind::Float, Device::Cpu))?;
        self.random.normal(&mut tensor, 0.0, std)?;
        Ok(tensor)
    }

    /// Images on the device, with a mean of their own for each channel.
    fn images(&mut self, size: [i64; 4], kind: Kind, far: f64) -> Result<Tensor, TorchError> {
        let images = self.normal(&size, 1.0)? + self.normal(&[1, size[1], 1, 1], far)?;
        self.placed(&to_memory_format(&images.f_to_kind(kind)?, MemoryFormat::ChannelsLast)?)
    }

    fn placed(&self, tensor: &Tensor) -> Result<Tensor, TorchError> {
        Ok(tensor.f_to_device(self.device)?)
    }

    fn compare(&mut self, case: &str, kind: Kind, results: &[(&str, &Tensor, Tensor)]) -> Result<(), TorchError> {
        let bound = match kind {
            Kind::Float => 2e-5,
            Kind::BFloat16 => 6e-3,
            _ => 1.5e-3,
        };
        for (name, got, expected) in results {
            let expected = expected.f_detach()?;
            let difference = (exact(got)?.f_detach()?.f_sub(&expected)?).f_abs()?.f_max()?.f_double_value(&[])?;
            // NaN, too, is no small difference.
            let error = if difference.is_nan() {
                f64::INFINITY
            } else {
                difference / expected.f_abs()?.f_max()?.f_double_value(&[])?.max(1e-6)
            };
            self.checks.push(Check { name: format!("{case}: {name}"), error, bound });
        }
        Ok(())
    }

    fn norm(&mut self, kind: Kind, size: [i64; 4], added: bool, relu: bool, affine: bool) -> Result<(), TorchError> {
        let channels = [size[1]];
        let far = if kind == Kind::Float { 30.0 } else { 3.0 };
        let (x, other, upstream) = (self.images(size, kind, far)?, self.images(size, kind, 1.0)?, self.images(size, kind, 0.0)?);
        let second = self.images(size, kind, 0.0)?;
        let (weight, bias) = (self.normal(&channels, 1.0)?, self.normal(&channels, 1.0)?);
        let (mean, var) = (self.normal(&channels, 1.0)?, self.normal(&channels, 1.0)?.f_square()?);
        let exactly = [&x, &weight, &bias, &other].map(exact).into_iter().collect::<Result<Vec<_>, _>>()?;
        let exact_running = [exact(&mean)?.f_detach()?, exact(&var)?.f_detach()?];
        let [x, weight, bias, other] =
            [x, self.placed(&weight)?, self.placed(&bias)?, other].map(|tensor| tensor.set_requires_grad(true));
        let counter = Tensor::f_zeros([] as [i64; 0], (Kind::Int64, self.device))?;
        let running = || Ok::<_, TorchError>([self.placed(&mean)?.f_mul_scalar(1.0)?, self.placed(&var)?.f_mul_scalar(1.0)?]);
        let forward = |running: &[Tensor; 2]| {
            let norm = BatchNorm {
                weight: affine.then_some(&weight),
                bias: affine.then_some(&bias),
                running_mean: &running[0],
                running_var: &running[1],
                counter: Some(&counter),
                momentum: MOMENTUM,
                eps: EPS,
            };
            norm.forward_for_two(&x, After { other: added.then_some(&other), relu })
        };
        let moved = running()?;
        let outputs = forward(&moved)?;
        let inputs: Vec<&Tensor> = [&x]
            .into_iter()
            .chain(affine.then_some([&weight, &bias]).into_iter().flatten())
            .chain(added.then_some(&other))
            .collect();
        let counted = counter.f_int64_value(&[])?;
        // Each reader gives a gradient.
        let gradients = |[y, twin]: &[Tensor; 2]| {
            let sum = y.f_mul(&upstream)?.f_sum(Kind::Float)?.f_add(&twin.f_mul(&second)?.f_sum(Kind::Float)?)?;
            Ok::<_, TorchError>(Tensor::f_run_backward(&[sum], &inputs, false, false)?)
        };
        let got = gradients(&outputs)?;
        // Equal inputs give equal bits.
        let again = forward(&running()?)?;
        let same = counted == 1 && again == outputs && gradients(&again)?.iter().zip(&got).all(|(a, b)| a == b);
        let [y, _] = outputs;

        let [ex, eweight, ebias, eother] = exactly.as_slice() else { return Ok(()) };
        let (eweight, ebias) = (affine.then_some(eweight), affine.then_some(ebias));
        let sum =
            ex.f_batch_norm(eweight, ebias, Some(&exact_running[0]), Some(&exact_running[1]), true, MOMENTUM, EPS, false)?;
        let sum = if added { sum.f_add(eother)? } else { sum };
        // A value near zero may have another sign in float64, and gradients go by ours.
        let passed = if relu { sum.f_mul(&exact(&y)?.f_detach()?.f_gt(0.0)?)? } else { sum.f_add_scalar(0.0)? };
        let exact_inputs: Vec<&Tensor> = [Some(ex), eweight, ebias, added.then_some(eother)].into_iter().flatten().collect();
        let expected = Tensor::f_run_backward(
            &[passed.f_mul(&exact(&upstream.f_add(&second)?)?.f_detach()?)?.f_sum(Kind::Double)?],
            &exact_inputs,
            false,
            false,
        )?;

        let [exact_mean, exact_var] = exact_running;
        let mut results = vec![
            ("output", &y, if relu { sum.f_relu()? } else { sum }),
            ("running mean", &moved[0], exact_mean),
            ("running variance", &moved[1], exact_var),
        ];
        results.extend(got.iter().zip(expected).map(|(got, expected)| ("gradient", got, expected)));
        let case = format!("batch norm {kind:?} {size:?}, added {added}, ReLU {relu}, affine {affine}");
        self.compare(&case, kind, &results)?;
        self.checks.push(Check { name: format!("{case}: again"), error: f64::from(u8::from(!same)), bound: 0.0 });
        Ok(())
    }

    fn conv_relu(&mut self, kind: Kind, size: [i64; 4], out: i64, kernel: i64, stride: i64) -> Result<(), TorchError> {
        let padding = [kernel / 2; 2];
        let weight_size = [out, size[1], kernel, kernel];
        // Of few bits, so that products of TF32 are exact.
        let [x, weight] = [self.images(size, Kind::BFloat16, 0.0)?, self.images(weight_size, Kind::BFloat16, 0.0)?];
        let [x, weight] = [x.f_to_kind(kind)?.set_requires_grad(true), weight.f_to_kind(kind)?.set_requires_grad(true)];
        let bias = self.normal(&[out], 2.0)?.f_to_kind(Kind::BFloat16)?.f_to_kind(Kind::Float)?;
        let bias = self.placed(&bias)?.set_requires_grad(true);
        let exactly = [&x, &weight, &bias].map(exact).into_iter().collect::<Result<Vec<_>, _>>()?;
        let y = conv_relu(&x, &weight, &bias, &Geometry { padding, stride: [stride; 2], dilation: [1, 1], groups: 1 })?;
        let sizes = y.size();
        let upstream = self.images([sizes[0], out, sizes[2], sizes[3]], Kind::BFloat16, 0.0)?.f_to_kind(kind)?;
        let got = Tensor::f_run_backward(&[y.f_mul(&upstream)?.f_sum(Kind::Float)?], &[&x, &weight, &bias], false, false)?;

        let [ex, eweight, ebias] = exactly.as_slice() else { return Ok(()) };
        let sum = ex.f_conv2d(eweight, Some(ebias), [stride; 2], padding, [1, 1], 1)?;
        // As for batch norm, gradients go by our signs.
        let passed = sum.f_mul(&exact(&y)?.f_detach()?.f_gt(0.0)?)?.f_mul(&exact(&upstream)?.f_detach()?)?;
        let expected = Tensor::f_run_backward(&[passed.f_sum(Kind::Double)?], &exactly, false, false)?;
        let case = format!("convolution and ReLU {kind:?} {size:?} to {out}, {kernel}/{stride}");
        let named = got.iter().zip(expected).zip(["gradient of images", "gradient of weight", "gradient of bias"]);
        let mut results: Vec<_> = named.map(|((got, expected), name)| (name, got, expected)).collect();
        // The bias's is a sum in float32, of values that are exact; the others are cuDNN's.
        let of_bias = results.split_off(2);
        results.push(("output", &y, sum.f_relu()?));
        self.compare(&case, if kind == Kind::Float { Kind::Half } else { kind }, &results)?;
        self.compare(&case, Kind::Float, &of_bias)
    }

    fn pool(&mut self, kind: Kind, size: [i64; 4], kernel: i64, stride: i64, padding: i64, relu: bool) -> Result<(), TorchError> {
        let x = self.images(size, kind, 1.0)?.set_requires_grad(true);
        let exactly = exact(&x)?;
        let pools = |x: &Tensor| x.f_max_pool2d([kernel; 2], [stride; 2], [padding; 2], [1, 1], false);
        let expected = if relu { pools(&exactly.f_relu()?)? } else { pools(&exactly)? };
        let out = expected.size();
        let window = Window { kernel_size: [kernel; 2], stride: [stride; 2], padding: [padding; 2] };
        let Some(pooled) = max_pool(&x, &window, [out[2], out[3]], relu) else {
            return Err(TorchError::new("max pooling does not take channels-last images"));
        };
        let upstream = self.images([out[0], out[1], out[2], out[3]], kind, 0.0)?;
        let got = Tensor::f_run_backward(&[pooled.f_mul(&upstream)?.f_sum(Kind::Float)?], &[&x], false, false)?;
        let exact_gradient = Tensor::f_run_backward(
            &[expected.f_mul(&exact(&upstream)?.f_detach()?)?.f_sum(Kind::Double)?],
            &[&exactly],
            false,
            false,
        )?;
        let mut results = vec![("output", &pooled, expected)];
        results.extend(got.iter().zip(exact_gradient).map(|(got, expected)| ("gradient", got, expected)));
        self.compare(&format!("max pooling {kind:?} {kernel}/{stride}, padding {padding}, ReLU {relu}"), kind, &results)
    }
}
