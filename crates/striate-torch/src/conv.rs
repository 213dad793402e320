//! Convolutions with gradients on the CPU, in float32 or bfloat16: the gradient of the weight is a sum of outer products of our own. 1x1 convolutions at stride 1
//! are matrix products of our own forward and back; of all others libtorch computes the output and the gradient of the input.
//!
//! On CUDA devices, a convolution with the ReLU after it: [`conv_relu`].
use crate::cuda::kernels;
use crate::onednn::Geometry;
use crate::{TorchError, ffi, pointwise, winograd};
use tch::{Device, Kind, Tensor};

/// Whether this processor is fast at it, for images of this type.
pub fn suits(kind: Kind) -> bool {
    pointwise::suits(kind, winograd::LANES)
}

/// The convolution of `[N, in, H, W]`, float32 or bfloat16, with a float32 weight `[out, in, height, width]` and bias `[out]`: channels-last, with gradients. While
/// autocasting to bfloat16, images become such; the gradient of the weight is float32 all the same, and is not rounded to bfloat16 on the way. While autocasting to what
/// this processor has no products of, it is libtorch's convolution.
///
/// # Errors
///
/// Channels that are no multiples of [`LANES`](winograd::LANES) or come in groups, other types or devices, bfloat16 on a processor without products of it. A second derivative is an
/// error of the backward pass.
pub fn conv(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, geometry: &Geometry) -> Result<Tensor, TorchError> {
    if geometry.groups != 1 {
        return Err(TorchError::new(&format!("expected channels in one group, got {}", geometry.groups)));
    }
    let (bias, pairs) = (bias.map_or(std::ptr::null(), Tensor::as_ptr), geometry.pairs()?);
    // SAFETY: tensors and the array of six live for the call, which checks types and shapes.
    ffi::tensor_from(|out| unsafe { ffi::st_conv_train(input.as_ptr(), weight.as_ptr(), bias, pairs.as_ptr(), out) })
}

/// Whether [`conv_relu`] gives images of this size, `[N, out, H, W]`, in this type on this device: where [`kernels`] can be had, if `out` is a multiple of 8.
pub fn takes_relu(device: Device, kind: Kind, output: [i64; 4]) -> bool {
    let values = output.iter().try_fold(1, |product: i64, size| product.checked_mul(*size));
    let fits = values.and_then(|values| usize::try_from(values).ok()).is_some_and(|values| (1..kernels::MOST).contains(&values));
    fits && output[1] % kernels::LANES == 0 && kernels::serve(device, kind)
}

/// `max(convolution + bias, 0)` of `[N, in, H, W]` on a CUDA device, channels-last, with gradients: one operator of cuDNN's, and backward one pass that takes the
/// gradient through the ReLU and sums it up, in float32, for the bias. Where cuDNN has no algorithm for it, libtorch computes the output.
///
/// The weight `[out, in, height, width]` has the images' type; while autocasting, both get that of autocasting. The bias `[out]` may be float32 all the same, and its
/// gradient is then not rounded.
///
/// # Errors
///
/// What [`takes_relu`] is false for, channels in groups, and tensors that do not fit. A second derivative is an error of the backward pass.
pub fn conv_relu(input: &Tensor, weight: &Tensor, bias: &Tensor, geometry: &Geometry) -> Result<Tensor, TorchError> {
    if geometry.groups != 1 {
        return Err(TorchError::new(&format!("expected channels in one group, got {}", geometry.groups)));
    }
    let pairs = geometry.pairs()?;
    // SAFETY: as in `conv`.
    ffi::tensor_from(|out| unsafe { ffi::st_conv_relu(input.as_ptr(), weight.as_ptr(), bias.as_ptr(), pairs.as_ptr(), out) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::kernels::host::Host;
    use crate::{MemoryFormat, to_memory_format};

    const POINT: [[i64; 2]; 4] = [[1, 1], [0, 0], [1, 1], [1, 1]];

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    fn geometry([_, padding, stride, dilation]: [[i64; 2]; 4]) -> Geometry {
        Geometry { padding, stride, dilation, groups: 1 }
    }

    /// Few pixels and several chunks of them, even and odd numbers, sums for each thread and shared ones, panels of every width, strips; windows that move in
    /// every way.
    #[test]
    fn gradients_are_those_of_the_convolution() {
        crate::manual_seed(2);
        for threads in [1, 2, 3] {
            crate::set_num_threads(threads);
            for (channels, out, size, window, layout, with_bias) in [
                (16, 16, [1, 1, 1], POINT, MemoryFormat::Contiguous, true),
                (48, 80, [2, 14, 14], POINT, MemoryFormat::ChannelsLast, false),
                (320, 528, [1, 9, 15], POINT, MemoryFormat::ChannelsLast, true),
                (64, 32, [3, 7, 9], POINT, MemoryFormat::Contiguous, false),
                (576, 272, [1, 13, 8], POINT, MemoryFormat::ChannelsLast, false),
                (64, 2064, [1, 3, 4], POINT, MemoryFormat::ChannelsLast, false),
                (16, 32, [0, 7, 9], POINT, MemoryFormat::ChannelsLast, true),
                (32, 48, [2, 9, 7], [[1, 1], [0, 0], [2, 2], [1, 1]], MemoryFormat::ChannelsLast, false),
                (32, 48, [3, 15, 12], [[3, 3], [1, 1], [2, 2], [1, 1]], MemoryFormat::ChannelsLast, true),
                (16, 16, [2, 9, 11], [[3, 2], [2, 0], [1, 3], [1, 2]], MemoryFormat::Contiguous, true),
                (80, 176, [2, 7, 5], [[5, 3], [2, 1], [1, 1], [1, 1]], MemoryFormat::ChannelsLast, false),
                (592, 32, [1, 6, 6], [[3, 3], [1, 1], [1, 1], [1, 1]], MemoryFormat::Contiguous, false),
                (16, 32, [0, 7, 9], [[3, 3], [1, 1], [2, 2], [1, 1]], MemoryFormat::Contiguous, true),
                (16, 16, [1, 19, 21], [[3, 3], [1, 1], [1, 1], [1, 1]], MemoryFormat::ChannelsLast, false),
                (16, 32, [2, 3, 3], [[1, 1], [2, 1], [1, 1], [1, 1]], MemoryFormat::ChannelsLast, false),
                (32, 16, [3, 1, 1], [[3, 3], [1, 1], [1, 1], [1, 1]], MemoryFormat::ChannelsLast, true),
            ] {
                for kind in [Kind::Float, Kind::BFloat16].into_iter().filter(|kind| pointwise::takes(*kind, winograd::LANES)) {
                    let leaf = |values: &Tensor, kind| values.detach().to_kind(kind).set_requires_grad(true);
                    let lay_out = |values: Tensor| to_memory_format(&values.to_kind(kind).to_kind(Kind::Float), layout).unwrap();
                    let [images, weight] = [[size[0], channels, size[1], size[2]], [out, channels, window[0][0], window[0][1]]]
                        .map(|size| lay_out(random(&size)));
                    let bias = with_bias.then(|| random(&[out]).to_kind(kind));
                    let (x, w, b) =
                        (leaf(&images, kind), leaf(&weight, Kind::Float), bias.as_ref().map(|b| leaf(b, Kind::Float)));
                    let y = conv(&x, &w, b.as_ref(), &geometry(window)).unwrap();
                    let upstream = random(&y.size()).to_kind(kind);
                    (&y * &upstream).sum(Kind::Float).backward();
                    assert_eq!(w.grad().stride(), w.stride());
                    assert_eq!((w.grad().kind(), y.kind(), x.grad().kind()), (Kind::Float, kind, kind));
                    let [_, padding, stride, dilation] = window;
                    let (exact_x, exact_w) = (leaf(&images, Kind::Double), leaf(&weight, Kind::Double));
                    let exact_b = bias.as_ref().map(|bias| leaf(bias, Kind::Double));
                    let exact = exact_x.conv2d(&exact_w, exact_b.as_ref(), stride, padding, dilation, 1);
                    (&exact * upstream.to_kind(Kind::Double)).sum(Kind::Double).backward();
                    // What comes out in bfloat16 was rounded to it; the gradients of weights and biases were not.
                    let rounded = if kind == Kind::Float { 3e-6 } else { 4e-3 };
                    let mut pairs = vec![(y.detach(), exact.detach(), rounded), (x.grad(), exact_x.grad(), rounded)];
                    pairs.push((w.grad(), exact_w.grad(), 1e-6));
                    pairs.extend(b.zip(exact_b).map(|(b, exact)| (b.grad(), exact.grad(), 1e-6)));
                    for (number, (got, expected, most)) in pairs.into_iter().enumerate() {
                        assert_eq!(got.size(), expected.size());
                        let largest = expected.abs().sum(Kind::Double).clamp_min(1e-9);
                        let off = ((got.to_kind(Kind::Double) - &expected).abs().sum(Kind::Double) / largest).double_value(&[]);
                        assert!(off < most, "{channels} {out} {size:?} {window:?} {threads} {kind:?} {number}: {off:.1e}");
                    }
                }
            }
        }
    }

    /// Images of float32 while autocasting: to bfloat16, to float16, which is libtorch's, and in a part that does not autocast.
    #[test]
    fn autocasting_is_heeded() {
        crate::manual_seed(3);
        for window in [POINT, [[3, 3], [1, 1], [2, 2], [1, 1]]] {
            let leaf =
                |size: &[i64]| to_memory_format(&random(size), MemoryFormat::ChannelsLast).unwrap().set_requires_grad(true);
            let (x, weight) = (leaf(&[2, 32, 9, 9]), leaf(&[48, 32, window[0][0], window[0][1]]));
            let gradients = |autocasting: Kind| {
                let _autocast = crate::autocast(Device::Cpu, autocasting);
                let y = conv(&x, &weight, None, &geometry(window)).unwrap();
                let sum = (&y * y.detach()).sum(Kind::Float);
                let gradients = Tensor::run_backward(&[sum], &[&x, &weight], false, false);
                assert!(gradients.iter().all(|gradient| gradient.kind() == Kind::Float));
                (y.kind(), gradients)
            };
            let (kind, exact) = gradients(Kind::Float);
            assert_eq!(kind, Kind::Float);
            for autocasting in [Kind::BFloat16, Kind::Half] {
                let (kind, got) = gradients(autocasting);
                assert_eq!(kind, autocasting);
                for (got, exact) in got.iter().zip(&exact) {
                    let off = ((got - exact).abs().sum(Kind::Double) / exact.abs().sum(Kind::Double)).double_value(&[]);
                    assert!(off > 0.0 && off < 1e-2, "{window:?} {autocasting:?} {off:.1e}");
                }
                let _autocast = crate::autocast(Device::Cpu, autocasting);
                assert_eq!(gradients(Kind::Float).0, Kind::Float);
            }
        }
    }

    /// Forward and backward, what is frozen has no gradient, and the bias's is a sum in float32.
    #[test]
    fn cuda_with_a_relu_heeds_autocasting_and_what_is_frozen() {
        crate::manual_seed(4);
        let _host = Host::new();
        let (images, weights, shifts) = (random(&[3, 5, 9, 7]), random(&[24, 5, 3, 3]), random(&[24]));
        let upstream = random(&[3, 24, 5, 4]).to_kind(Kind::BFloat16);
        let window = geometry([[3, 3], [1, 1], [2, 2], [1, 1]]);
        for frozen in [None, Some(0), Some(1), Some(2)] {
            let leaf = |(index, tensor): (usize, &Tensor)| tensor.detach().set_requires_grad(frozen != Some(index));
            let inputs: Vec<Tensor> = [&images, &weights, &shifts].into_iter().enumerate().map(leaf).collect();
            let y = {
                let _autocast = crate::autocast(Device::Cpu, Kind::BFloat16);
                conv_relu(&inputs[0], &inputs[1], &inputs[2], &window).unwrap()
            };
            assert_eq!((y.kind(), crate::memory_format(&y)), (Kind::BFloat16, Some(MemoryFormat::ChannelsLast)));
            (&y * &upstream).sum(Kind::Float).backward();

            let rounded = [&images, &weights, &shifts].map(|tensor| tensor.to_kind(Kind::BFloat16).to_kind(Kind::Double));
            let exact = rounded.map(|tensor| tensor.set_requires_grad(true));
            let sum = exact[0].conv2d(&exact[1], Some(&exact[2]), [2, 2], [1, 1], [1, 1], 1);
            let passed = (&sum * y.gt(0.0).detach()) * upstream.to_kind(Kind::Double);
            passed.sum(Kind::Double).backward();
            let off = |got: &Tensor, expected: &Tensor| ((got - expected).abs().max() / expected.abs().max()).double_value(&[]);
            assert!(off(&y, &sum.relu()) < 4e-3);
            for (index, (input, exact)) in inputs.iter().zip(&exact).enumerate() {
                let gradient = input.grad();
                assert_eq!(gradient.defined(), frozen != Some(index));
                if gradient.defined() {
                    let (off, most) = (off(&gradient, &exact.grad()), [6e-3, 6e-3, 1e-6][index]);
                    assert!(gradient.kind() == Kind::Float && off < most, "{frozen:?} {index}: {off:.1e}");
                }
            }
        }
    }

    #[test]
    fn cuda_with_a_relu_says_what_it_does_not_take() {
        let geometry = geometry(POINT);
        let [x, weight] = [[1, 16, 8, 8], [8, 16, 1, 1]].map(|size| random(&size).set_requires_grad(true));
        let told = |x: &Tensor, weight: &Tensor, bias: &Tensor| conv_relu(x, weight, bias, &geometry).unwrap_err().to_string();
        assert!(!takes_relu(Device::Cpu, Kind::Float, [1, 8, 8, 8]));
        assert!(told(&x, &weight, &random(&[8])).contains("a GPU whose kernels are loaded"));
        let _host = Host::new();
        assert!(takes_relu(Device::Cpu, Kind::Float, [1, 8, 8, 8]));
        assert!(
            !takes_relu(Device::Cpu, Kind::Float, [1, 12, 8, 8]) && !takes_relu(Device::Cpu, Kind::Float, [1 << 20, 8, 32, 32])
        );
        assert!(told(&x, &random(&[12, 16, 1, 1]), &random(&[12])).contains("a multiple of 8"));
        assert!(told(&x, &weight, &random(&[7])).contains("a bias for each output channel"));
        assert!(told(&x, &weight.to_kind(Kind::BFloat16), &random(&[8])).contains("of the images' type"));
        let grouped = Geometry { groups: 2, ..geometry };
        assert!(conv_relu(&x, &weight, &random(&[8]), &grouped).unwrap_err().to_string().contains("one group"));
        let sum = conv_relu(&x, &weight, &random(&[8]), &geometry).unwrap().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[sum], &[&x], false, true).unwrap_err();
        assert!(TorchError::from(error).to_string().contains("no second derivative"));
    }

    #[test]
    fn it_has_no_second_derivative_and_fits_its_channels() {
        let conv = |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>| conv(x, weight, bias, &geometry(POINT));
        let (x, weight) = (random(&[1, 16, 8, 8]).set_requires_grad(true), random(&[16, 16, 1, 1]));
        let sum = conv(&x, &weight, None).unwrap().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[sum], &[&x], false, true).unwrap_err();
        assert!(TorchError::from(error).to_string().contains("no second derivative"));
        for (x, weight) in [
            ([1, 16, 8, 8], [8, 16, 1, 1]),
            ([1, 8, 8, 8], [16, 8, 1, 1]),
            ([1, 16, 8, 8], [16, 32, 1, 1]),
            ([1, 16, 8, 8], [16, 16, 9, 9]),
        ] {
            assert!(conv(&random(&x), &random(&weight), None).is_err(), "{x:?} {weight:?}");
        }
        assert!(conv(&x, &weight, Some(&random(&[15]))).is_err());
        assert!(conv(&x.to_kind(Kind::Double), &weight, None).is_err());
        let grouped = Geometry { groups: 2, ..geometry(POINT) };
        assert!(super::conv(&x, &weight, None, &grouped).unwrap_err().to_string().contains("one group"));
    }
}
