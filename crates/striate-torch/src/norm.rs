//! Batch norm in training as one pass with what follows it, where libtorch's operators, one for each, read and write every map again.
use crate::cuda::kernels;
use crate::winograd::LANES;
use crate::{TorchError, ffi};
use std::ffi::c_char;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

/// What normalises, channel by channel; tensors are `[C]`, float32.
#[derive(Debug)]
pub struct BatchNorm<'a> {
    /// The scale; without it, 1.
    pub weight: Option<&'a Tensor>,
    /// The shift; without it, 0.
    pub bias: Option<&'a Tensor>,
    /// The running mean, which moves towards the batch's.
    pub running_mean: &'a Tensor,
    /// The running variance, which moves towards the batch's unbiased one.
    pub running_var: &'a Tensor,
    /// The number of batches so far, an int64 scalar, to which this one is added.
    pub counter: Option<&'a Tensor>,
    /// The share that the batch has in them.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

/// What follows.
#[derive(Debug, Clone, Copy, Default)]
pub struct After<'a> {
    /// Is added: a tensor of the same shape and type.
    pub other: Option<&'a Tensor>,
    /// A ReLU, after the addition.
    pub relu: bool,
}

/// Whether [`BatchNorm::forward`] takes these images, `[N, C, H, W]`: on the CPU, float32 or bfloat16 with a multiple of [`LANES`] channels; on a CUDA
/// device, where [`kernels`] can be had, float32, bfloat16 or float16 with a multiple of 8 channels.
pub fn takes(images: &Tensor) -> bool {
    let (kind, device) = (images.kind(), images.device());
    let [_, channels, _, _] = images.size()[..] else { return false };
    if kernels::serve(device, kind) {
        return channels % kernels::LANES == 0 && images.numel() < kernels::MOST;
    }
    device == Device::Cpu && matches!(kind, Kind::Float | Kind::BFloat16) && channels % LANES == 0
}

impl BatchNorm<'_> {
    /// Images normalised by the mean and variance of the batch, and what follows: channels-last, with gradients. Sums are kept in float64,
    /// and on CUDA devices in float32, of differences that are small.
    ///
    /// Fails unless [`takes`] is true, and with one value for each channel. A second derivative is an error.
    pub fn forward(&self, images: &Tensor, after: After) -> Result<Tensor, TorchError> {
        // SAFETY: as in `call`; there is no twin to own.
        ffi::tensor_from(|out| unsafe { self.call(images, after, out, std::ptr::null_mut()) })
    }

    /// The output for each of two readers: the same values in the same memory. Their gradients are added in the pass that reads them, and not
    /// in one of their own, as those of one tensor that is read twice.
    ///
    /// Fails as [`forward`](Self::forward) does.
    pub fn forward_for_two(&self, images: &Tensor, after: After) -> Result<[Tensor; 2], TorchError> {
        let mut twin = std::ptr::null_mut();
        // SAFETY: as in `call`.
        let first = ffi::tensor_from(|out| unsafe { self.call(images, after, out, &mut twin) })?;
        // SAFETY: a call that succeeded has written a tensor that is ours to own.
        Ok([first, unsafe { Tensor::from_ptr(twin) }])
    }

    /// # Safety
    ///
    /// Where the call succeeds, it writes a tensor to own to `out`, and one to `twin` unless that is null.
    unsafe fn call(&self, images: &Tensor, after: After, out: *mut *mut C_tensor, twin: *mut *mut C_tensor) -> *mut c_char {
        let pointer = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null(), Tensor::as_ptr);
        // SAFETY: tensors live for the call; the shim checks the shapes and types.
        unsafe {
            ffi::st_batch_norm(
                images.as_ptr(),
                pointer(self.weight),
                pointer(self.bias),
                pointer(after.other),
                self.running_mean.as_ptr(),
                self.running_var.as_ptr(),
                pointer(self.counter),
                self.momentum,
                self.eps,
                i32::from(after.relu),
                out,
                twin,
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CHANNELS: i64 = 80;

    /// Without scale and shift.
    fn plain<'a>(running_mean: &'a Tensor, running_var: &'a Tensor) -> BatchNorm<'a> {
        BatchNorm { weight: None, bias: None, running_mean, running_var, counter: None, momentum: 0.1, eps: 1e-5 }
    }

    fn random(size: &[i64], kind: Kind) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    /// libtorch's in float64 from the same values: output, running statistics, gradients of images, scale, shift and what is added.
    fn expected(inputs: &[Tensor; 4], added: bool, relu: bool, upstream: &Tensor) -> Vec<Tensor> {
        let [x, weight, bias, other] =
            inputs.each_ref().map(|tensor| tensor.detach().to_kind(Kind::Double).set_requires_grad(true));
        let mean = Tensor::zeros([CHANNELS], (Kind::Double, Device::Cpu));
        let var = Tensor::ones([CHANNELS], (Kind::Double, Device::Cpu));
        let y = x.batch_norm(Some(&weight), Some(&bias), Some(&mean), Some(&var), true, 0.3, 1e-3, false);
        let y = if added { y + &other } else { y };
        let y = if relu { y.relu() } else { y };
        (&y * upstream).sum(Kind::Double).backward();
        let mut all = vec![y, mean, var, x.grad(), weight.grad(), bias.grad()];
        all.extend(added.then(|| other.grad()));
        all
    }

    #[test]
    fn it_is_batch_norm_with_what_follows() {
        crate::manual_seed(3);
        for (size, kind, added, relu) in [
            ([2, CHANNELS, 1, 1], Kind::Float, false, false),
            ([3, CHANNELS, 17, 19], Kind::Float, false, true),
            ([3, CHANNELS, 17, 19], Kind::Float, true, true),
            ([1, CHANNELS, 5, 3], Kind::Float, true, false),
            ([4, CHANNELS, 9, 11], Kind::BFloat16, true, true),
            ([4, CHANNELS, 9, 11], Kind::BFloat16, false, true),
        ] {
            // Means far from zero.
            let far = random(&[1, CHANNELS, 1, 1], Kind::Float) * 3;
            let inputs = [
                (random(&size, Kind::Float) + far).to_kind(kind),
                random(&[CHANNELS], Kind::Float),
                random(&[CHANNELS], Kind::Float),
                random(&size, kind),
            ];
            let [x, weight, bias, other] = inputs.each_ref().map(|tensor| tensor.detach().set_requires_grad(true));
            let mean = Tensor::zeros([CHANNELS], (Kind::Float, Device::Cpu));
            let var = Tensor::ones([CHANNELS], (Kind::Float, Device::Cpu));
            let counter = Tensor::from(7_i64);
            let norm = BatchNorm {
                weight: Some(&weight),
                bias: Some(&bias),
                running_mean: &mean,
                running_var: &var,
                counter: Some(&counter),
                momentum: 0.3,
                eps: 1e-3,
            };
            let y = norm.forward(&x, After { other: added.then_some(&other), relu }).unwrap();
            assert_eq!((y.kind(), counter.int64_value(&[])), (kind, 8));
            let upstream = random(&size, kind);
            (y.to_kind(Kind::Double) * &upstream).sum(Kind::Double).backward();
            let mut got = vec![y, mean.shallow_clone(), var.shallow_clone(), x.grad(), weight.grad(), bias.grad()];
            got.extend(added.then(|| other.grad()));
            let bound = if kind == Kind::Float { 1e-5 } else { 1.5 / 256.0 };
            for (index, (got, expected)) in got.iter().zip(expected(&inputs, added, relu, &upstream)).enumerate() {
                let worst = ((got - &expected).abs().max() / expected.abs().max()).double_value(&[]);
                assert!(worst < bound, "{size:?} {kind:?} {added} {relu}, {index}: {worst:.1e}");
            }
        }
    }

    #[test]
    fn two_readers_have_what_one_that_is_read_twice_has() {
        crate::manual_seed(5);
        let size = [2, CHANNELS, 5, 4];
        for kind in [Kind::Float, Kind::BFloat16] {
            let [x, other] = [(); 2].map(|()| random(&size, kind));
            let upstream = [(); 2].map(|()| random(&size, kind));
            let [mean, var] = [0.0, 1.0].map(|value| Tensor::full([CHANNELS], value, (Kind::Float, Device::Cpu)));
            let norm = plain(&mean, &var);
            // Gradients where both read it, or only the first, or only the second.
            let gradients = |twins: bool, readers: &[usize]| {
                let [x, other] = [&x, &other].map(|tensor| tensor.detach().set_requires_grad(true));
                let after = After { other: Some(&other), relu: true };
                let outputs = match twins {
                    true => norm.forward_for_two(&x, after).unwrap(),
                    false => norm.forward(&x, after).map(|y| [y.shallow_clone(), y]).unwrap(),
                };
                assert_eq!(outputs[0].data_ptr(), outputs[1].data_ptr());
                let read = readers.iter().map(|reader| (&outputs[*reader] * &upstream[*reader]).sum(Kind::Float));
                read.reduce(|a, b| a + b).unwrap().backward();
                [x.grad(), other.grad()]
            };
            for readers in [&[0, 1][..], &[0], &[1]] {
                assert_eq!(gradients(true, readers), gradients(false, readers), "{kind:?} {readers:?}");
            }
        }
    }

    #[test]
    fn a_second_derivative_is_an_error() {
        let x = random(&[2, 16, 3, 3], Kind::Float).set_requires_grad(true);
        let channels = Tensor::ones([16], (Kind::Float, Device::Cpu));
        let norm = plain(&channels, &channels);
        let sum = norm.forward(&x, After::default()).unwrap().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[sum], &[&x], false, true).unwrap_err();
        assert!(TorchError::from(error).to_string().contains("no second derivative"));
    }

    #[test]
    fn what_it_does_not_take_is_an_error() {
        let channels = Tensor::ones([16], (Kind::Float, Device::Cpu));
        let norm = plain(&channels, &channels);
        let told = |images: &Tensor, other: Option<&Tensor>| match norm.forward(images, After { other, relu: false }) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let images = |size: [i64; 4]| Tensor::ones(size, (Kind::Float, Device::Cpu));
        assert_eq!(told(&images([2, 16, 3, 3]), None), "");
        assert!(!takes(&images([2, 24, 3, 3])) && told(&images([2, 24, 3, 3]), None).contains("multiple of 16 channels"));
        assert!(!takes(&images([2, 16, 3, 3]).to_kind(Kind::Double)));
        assert!(told(&images([1, 16, 1, 1]), None).contains("more than one value"));
        assert!(told(&images([2, 32, 3, 3]), None).contains("one for each channel"));
        assert!(told(&images([2, 16, 3, 3]), Some(&images([2, 16, 3, 4]))).contains("another shape"));
    }
}
