//! Convolutions with gradients on the CPU, in float32 or bfloat16: the gradient of the weight is a sum of outer products of our own. 1x1 convolutions at stride 1
//! are matrix products of our own forward and back; of all others libtorch computes the output and the gradient of the input.
use crate::onednn::Geometry;
use crate::{TorchError, ffi, pointwise, winograd};
use tch::{Kind, Tensor};

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{MemoryFormat, to_memory_format};
    use tch::Device;

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
