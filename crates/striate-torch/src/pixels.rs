//! Pooling and concatenation of channels-last feature maps `[N, C, H, W]` in float32, bfloat16 or uint8 on the CPU: libtorch's own write and keep
//! indices of eight bytes, or copy value by value. Pooling on CUDA devices too, of float32, bfloat16 or float16.
//!
//! Channels of other tensors' pixels, as [`Tensor::narrow`] gives them, are taken as they are.
use crate::{cuda::kernels, ffi};
use tch::Tensor;

/// A window of max pooling; pairs are height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its size.
    pub kernel_size: [i64; 2],
    /// Its step.
    pub stride: [i64; 2],
    /// Places on each side that count as no value; at most half the size.
    pub padding: [i64; 2],
}

/// The largest value of each window, for an output of this height and width, and with `relu` no less than 0: pooling after a ReLU. With
/// gradients, which take one byte for each value of the output, and no second ones. Of values that are equal the first has the gradient; a
/// NaN is given on, and its gradient is the largest number's, or on CUDA devices its own.
///
/// `None` if the tensor is no such feature map, if gradients are wanted and the window has more than 255 places, or if it leaves its place with nothing to read.
pub fn max_pool(input: &Tensor, window: &Window, out_size: [i64; 2], relu: bool) -> Option<Tensor> {
    let size = input.size();
    let fits = |axis: usize| {
        let [kernel, stride, padding] = [window.kernel_size, window.stride, window.padding].map(|pair| pair[axis]);
        let positive = kernel > 0 && stride > 0 && out_size[axis] > 0;
        // The last window begins within the input, and the first reaches into it.
        positive && padding >= 0 && 2 * padding <= kernel && (out_size[axis] - 1) * stride - padding < size[axis + 2]
    };
    if size.len() != 4 || !(fits(0) && fits(1)) {
        return None;
    }
    let pairs = [window.kernel_size, window.stride, window.padding].concat();
    let [height, width] = out_size;
    // A CUDA device's are loaded by the first call.
    kernels::serve(input.device(), input.kind());
    // SAFETY: the tensor and the array of six live for the call; every window reads a value of the input, as checked.
    ffi::tensor_where_taken(|out| unsafe {
        ffi::st_max_pool(input.as_ptr(), pairs.as_ptr(), height, width, i32::from(relu), out)
    })
}

/// The channels of all tensors one after another, without gradients. `None` if they are no such feature maps, or not all of one type, batch, height and
/// width.
pub fn concat_channels(tensors: &[Tensor]) -> Option<Tensor> {
    if tensors.is_empty() {
        return None;
    }
    let pointers = ffi::pointers(tensors);
    // SAFETY: the pointers live for the call.
    ffi::tensor_where_taken(|out| unsafe { ffi::st_concat_channels(pointers.as_ptr(), pointers.len(), out) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{MemoryFormat, memory_format, to_memory_format};
    use tch::{Device, Kind};

    fn images(size: [i64; 4], kind: Kind) -> Tensor {
        let values = match kind {
            Kind::Uint8 => Tensor::randint(256, size, (kind, Device::Cpu)),
            kind => Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind),
        };
        to_memory_format(&values, MemoryFormat::ChannelsLast).unwrap()
    }

    /// Outputs and gradients, from a gradient of the outputs.
    fn with_gradients(input: &Tensor, upstream: &Tensor, pool: impl Fn(&Tensor) -> Tensor) -> [Tensor; 2] {
        let input = input.detach().set_requires_grad(true);
        let output = pool(&input);
        (&output * upstream).sum(Kind::Float).backward();
        [output.detach(), input.grad()]
    }

    #[test]
    fn max_pooling_is_libtorchs_with_every_padding_and_rounding() {
        crate::manual_seed(1);
        for kind in [Kind::Float, Kind::BFloat16, Kind::Uint8] {
            for (kernel, stride, padding, ceil) in
                [(3, 2, 1, false), (3, 1, 1, false), (2, 2, 0, false), (3, 2, 0, true), (2, 3, 1, true), (5, 1, 2, false)]
            {
                for size in [[2, 19, 9, 7], [1, 1, 6, 6], [3, 64, 5, 5], [5, 6, 14, 14]] {
                    let x = images(size, kind);
                    let window = Window { kernel_size: [kernel; 2], stride: [stride; 2], padding: [padding; 2] };
                    // libtorch counts the places of uint8 maps in uint8.
                    let computed = if kind == Kind::Uint8 { Kind::Float } else { kind };
                    let libtorchs = |x: &Tensor| {
                        let pooled = x.to_kind(computed).max_pool2d([kernel; 2], [stride; 2], [padding; 2], [1, 1], ceil);
                        pooled.to_kind(kind)
                    };
                    let expected = libtorchs(&x);
                    let out = [expected.size()[2], expected.size()[3]];
                    assert_eq!(max_pool(&x, &window, out, false).unwrap(), expected, "{kind:?} {window:?}");
                    let part = Tensor::cat(&[&x, &x], 1).narrow(1, size[1] / 2, size[1]);
                    assert_eq!(max_pool(&part, &window, out, false).unwrap(), libtorchs(&part));
                    if kind == Kind::Uint8 {
                        continue; // no gradients
                    }
                    let upstream = images(expected.size().try_into().unwrap(), kind);
                    for relu in [false, true] {
                        let [got, got_gradient] = with_gradients(&x, &upstream, |x| max_pool(x, &window, out, relu).unwrap());
                        let [expected, gradient] = with_gradients(&x, &upstream, |x| match relu {
                            true => libtorchs(&x.relu()),
                            false => libtorchs(x),
                        });
                        assert_eq!(got, expected);
                        // libtorch adds up bfloat16 in bfloat16.
                        let close = if kind == Kind::Float { 0.0 } else { 0.05 };
                        assert!(got_gradient.allclose(&gradient, close, close, false), "{kind:?} {window:?} {size:?} {relu}");
                    }
                }
            }
        }
    }

    #[test]
    fn height_and_width_are_told_apart_and_gradients_may_lie_anyhow() {
        crate::manual_seed(1);
        let window = Window { kernel_size: [3, 2], stride: [1, 2], padding: [1, 0] };
        let libtorchs = |x: &Tensor| x.max_pool2d(window.kernel_size, window.stride, window.padding, [1, 1], false);
        for size in [[2, 6, 9, 8], [3, 33, 4, 10]] {
            let x = images(size, Kind::Float);
            // Channels of wider pixels; a gradient that is one number everywhere, and one that is not channels-last.
            let part = Tensor::cat(&[&x, &x], 1).narrow(1, 2, size[1]);
            let expected = libtorchs(&x).size();
            let out = [expected[2], expected[3]];
            let one = Tensor::ones([1], (Kind::Float, Device::Cpu)).expand(&expected, false);
            for upstream in [one, Tensor::randn(&expected, (Kind::Float, Device::Cpu))] {
                for x in [&x, &part] {
                    let got = with_gradients(x, &upstream, |x| max_pool(x, &window, out, false).unwrap());
                    assert_eq!(got, with_gradients(x, &upstream, libtorchs), "{size:?}");
                }
            }
        }
    }

    #[test]
    fn of_equal_values_the_first_has_the_gradient() {
        let window = Window { kernel_size: [2, 2], stride: [2, 2], padding: [0, 0] };
        let x = to_memory_format(&Tensor::ones([1, 3, 4, 4], (Kind::Float, Device::Cpu)), MemoryFormat::ChannelsLast).unwrap();
        let upstream = images([1, 3, 2, 2], Kind::Float);
        let [_, gradient] = with_gradients(&x, &upstream, |x| max_pool(x, &window, [2, 2], true).unwrap());
        assert_eq!(gradient.slice(2, 0, 4, 2).slice(3, 0, 4, 2), upstream);
        assert_eq!(gradient.count_nonzero(None::<i64>).int64_value(&[]), 12);
        let [_, gradient] = with_gradients(&(x * 0.0), &upstream, |x| max_pool(x, &window, [2, 2], true).unwrap());
        assert_eq!(gradient.count_nonzero(None::<i64>).int64_value(&[]), 0);
    }

    #[test]
    fn a_second_derivative_of_pooling_is_an_error() {
        let window = Window { kernel_size: [2, 2], stride: [2, 2], padding: [0, 0] };
        let x = images([1, 3, 4, 4], Kind::Float).set_requires_grad(true);
        let sum = max_pool(&x, &window, [2, 2], false).unwrap().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[sum], &[&x], false, true).unwrap_err();
        assert!(error.to_string().contains("no second derivative"));
    }

    #[test]
    fn not_a_number_stays_and_what_does_not_fit_is_left_alone() {
        crate::manual_seed(1);
        let window = Window { kernel_size: [2, 2], stride: [2, 2], padding: [0, 0] };
        let x = images([1, 3, 4, 4], Kind::Float);
        let _ = x.get(0).get(1).get(0).get(0).fill_(f64::NAN);
        for relu in [false, true] {
            let pooled = max_pool(&x, &window, [2, 2], relu).unwrap();
            assert_eq!(pooled.isnan().sum(Kind::Int64).int64_value(&[]), 1);
        }
        assert!(max_pool(&x, &window, [4, 2], false).is_none());
        assert!(max_pool(&x.contiguous(), &window, [2, 2], false).is_none());
        assert!(max_pool(&x.to_kind(Kind::Double), &window, [2, 2], false).is_none());
        assert!(max_pool(&x.get(0), &window, [2, 2], false).is_none());
        assert!(max_pool(&x, &Window { padding: [2, 0], ..window }, [2, 2], false).is_none());
        let large = Window { kernel_size: [16, 16], padding: [8, 8], ..window };
        assert!(max_pool(&x, &large, [2, 2], false).is_some());
        assert!(max_pool(&x.set_requires_grad(true), &large, [2, 2], false).is_none());
    }

    #[test]
    fn channels_follow_each_other_whole_or_parts_of_other_tensors() {
        crate::manual_seed(1);
        for kind in [Kind::Float, Kind::BFloat16, Kind::Uint8] {
            let (a, b) = (images([2, 5, 3, 4], kind), images([2, 8, 3, 4], kind));
            for parts in [vec![a.shallow_clone(), b.narrow(1, 2, 3)], vec![b.narrow(1, 7, 1)], vec![a.shallow_clone(), a, b]] {
                let joined = concat_channels(&parts).unwrap();
                assert_eq!(joined, Tensor::cat(&parts, 1));
                assert_ne!(memory_format(&joined), None);
            }
        }
        let (a, b) = (images([2, 5, 3, 4], Kind::Float), images([2, 5, 4, 3], Kind::Float));
        assert!(concat_channels(&[a.shallow_clone(), b]).is_none());
        assert!(concat_channels(&[a.shallow_clone(), images([2, 5, 3, 4], Kind::BFloat16)]).is_none());
        assert!(concat_channels(&[a.contiguous(), a]).is_none());
        assert!(concat_channels(&[]).is_none());
    }
}
