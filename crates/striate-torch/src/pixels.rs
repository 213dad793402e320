//! Pooling and concatenation of channels-last feature maps `[N, C, H, W]` in float32 or bfloat16 on the CPU, for inference: libtorch's
//! own keep indices for a backward pass or copy value by value.
//!
//! Channels of other tensors' pixels, as [`Tensor::narrow`] gives them, are taken as they are.
use crate::ffi;
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
    /// The distance between the values that it reads.
    pub dilation: [i64; 2],
}

/// The largest value of each window, for an output of this height and width. `None` if the tensor is no such feature map, or if the
/// window leaves its place with nothing to read.
pub fn max_pool(input: &Tensor, window: &Window, out_size: [i64; 2]) -> Option<Tensor> {
    let size = input.size();
    let fits = |axis: usize| {
        let [kernel, stride, padding, dilation] =
            [window.kernel_size, window.stride, window.padding, window.dilation].map(|pair| pair[axis]);
        let positive = kernel > 0 && stride > 0 && dilation > 0 && out_size[axis] > 0;
        // The last window begins within the input, and the first reaches into it.
        positive && padding >= 0 && 2 * padding <= kernel && (out_size[axis] - 1) * stride - padding < size[axis + 2]
    };
    // Dilated windows could straddle a narrow input without reading it.
    if size.len() != 4 || window.dilation != [1, 1] || !(fits(0) && fits(1)) {
        return None;
    }
    let pairs = [window.kernel_size, window.stride, window.padding, window.dilation].concat();
    // SAFETY: the tensor and the array of eight live for the call; every window reads a value of the input, as checked.
    ffi::tensor_where_taken(|out| unsafe { ffi::st_max_pool(input.as_ptr(), pairs.as_ptr(), out_size[0], out_size[1], out) })
}

/// The channels of all tensors one after another. `None` if they are no such feature maps, or not all of one type, batch, height and
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
        to_memory_format(&Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind), MemoryFormat::ChannelsLast).unwrap()
    }

    #[test]
    fn max_pooling_is_libtorchs_with_every_padding_and_rounding() {
        crate::manual_seed(1);
        for kind in [Kind::Float, Kind::BFloat16] {
            for (kernel, stride, padding, ceil) in
                [(3, 2, 1, false), (3, 1, 1, false), (2, 2, 0, false), (3, 2, 0, true), (2, 3, 1, true), (5, 1, 2, false)]
            {
                for size in [[2, 19, 9, 7], [1, 1, 6, 6], [3, 64, 5, 5]] {
                    let x = images(size, kind);
                    let pairs = [[kernel; 2], [stride; 2], [padding; 2], [1; 2]];
                    let expected = x.max_pool2d(pairs[0], pairs[1], pairs[2], pairs[3], ceil);
                    let out = [expected.size()[2], expected.size()[3]];
                    let window = Window { kernel_size: pairs[0], stride: pairs[1], padding: pairs[2], dilation: pairs[3] };
                    assert_eq!(max_pool(&x, &window, out).unwrap(), expected, "{kind:?} {window:?}");
                    let part = Tensor::cat(&[&x, &x], 1).narrow(1, size[1] / 2, size[1]);
                    let expected = part.max_pool2d(pairs[0], pairs[1], pairs[2], pairs[3], ceil);
                    assert_eq!(max_pool(&part, &window, out).unwrap(), expected);
                }
            }
        }
    }

    #[test]
    fn not_a_number_stays_and_what_does_not_fit_is_left_alone() {
        crate::manual_seed(1);
        let window = Window { kernel_size: [2, 2], stride: [2, 2], padding: [0, 0], dilation: [1, 1] };
        let x = images([1, 3, 4, 4], Kind::Float);
        let _ = x.get(0).get(1).get(0).get(0).fill_(f64::NAN);
        let pooled = max_pool(&x, &window, [2, 2]).unwrap();
        assert_eq!(pooled.isnan().sum(Kind::Int64).int64_value(&[]), 1);
        assert!(max_pool(&x, &window, [4, 2]).is_none());
        assert!(max_pool(&x.contiguous(), &window, [2, 2]).is_none());
        assert!(max_pool(&x.to_kind(Kind::Double), &window, [2, 2]).is_none());
        assert!(max_pool(&x.get(0), &window, [2, 2]).is_none());
        assert!(max_pool(&x, &Window { padding: [2, 0], ..window }, [2, 2]).is_none());
    }

    #[test]
    fn channels_follow_each_other_whole_or_parts_of_other_tensors() {
        crate::manual_seed(1);
        for kind in [Kind::Float, Kind::BFloat16] {
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
