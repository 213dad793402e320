//! oneDNN's operators for inference that compute a convolution or a linear layer together with what follows it, on weights packed once.
//!
//! They record no gradients. Inputs, weights, biases and what is added have one type, float32 or bfloat16, and live on the CPU;
//! feature maps come out channels-last.
use crate::{TorchError, ffi};
use std::ffi::CStr;
use tch::{Device, Kind, Tensor};

/// Whether this libtorch has these operators.
pub fn available() -> bool {
    // SAFETY: no precondition.
    unsafe { ffi::st_has_onednn() != 0 }
}

/// Whether this processor computes them in bfloat16.
pub fn supports_bf16() -> bool {
    // SAFETY: no precondition.
    available() && unsafe { ffi::st_has_bf16() != 0 }
}

/// Whether these operators compute values of this type on this device.
pub fn takes(device: Device, kind: Kind) -> bool {
    device == Device::Cpu
        && match kind {
            Kind::Float => available(),
            Kind::BFloat16 => supports_bf16(),
            _ => false,
        }
}

/// What is done to each value of the output before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Post {
    /// Nothing.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// tanh(x).
    Tanh,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

impl Post {
    fn name(self) -> &'static CStr {
        match self {
            Self::None => c"none",
            Self::Relu => c"relu",
            Self::Tanh => c"tanh",
            Self::Sigmoid => c"sigmoid",
        }
    }
}

/// How a convolution's kernel moves; pairs are height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Zeros on each side.
    pub padding: [i64; 2],
    /// The kernel's step.
    pub stride: [i64; 2],
    /// The distance between the values that it reads.
    pub dilation: [i64; 2],
    /// Groups of channels.
    pub groups: i64,
}

impl Geometry {
    /// Padding, stride and dilation, once they are what libtorch can divide by.
    pub(crate) fn pairs(&self) -> Result<[i64; 6], TorchError> {
        let positive = [self.stride, self.dilation].iter().flatten().all(|step| *step > 0) && self.groups > 0;
        if !positive || self.padding.iter().any(|zeros| *zeros < 0) {
            return Err(TorchError::new(&format!(
                "stride, dilation and groups must be above 0, and padding 0 or more: got {self:?}"
            )));
        }
        let ([top, left], [down, across], [high, wide]) = (self.padding, self.stride, self.dilation);
        Ok([top, left, down, across, high, wide])
    }
}

/// A weight `[out, in / groups, kernel height, kernel width]` in the layout that oneDNN's convolution reads fastest for inputs
/// `[N, C, H, W]` of this size. It fits inputs of any size; where another layout would be faster for them, each call repacks it.
/// What it gives is opaque: only [`conv`] and [`conv_add`] read it.
pub fn pack_conv(weight: &Tensor, geometry: &Geometry, input_size: [i64; 4]) -> Result<Tensor, TorchError> {
    check(&[weight])?;
    let pairs = geometry.pairs()?;
    // SAFETY: tensors and arrays live for the call, and the arrays have the lengths that the shim reads.
    ffi::tensor_from(|out| unsafe {
        ffi::st_pack_conv(weight.as_ptr(), pairs.as_ptr(), geometry.groups, input_size.as_ptr(), out)
    })
}

/// `post(convolution + bias)` of `[N, C, H, W]`, with a packed weight or an ordinary one.
pub fn conv(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Geometry,
    post: Post,
) -> Result<Tensor, TorchError> {
    check(&[input])?;
    let pairs = geometry.pairs()?;
    // SAFETY: as above; the name is a static NUL-terminated string.
    ffi::tensor_from(|out| unsafe {
        let (input, weight, post) = (input.as_ptr(), weight.as_ptr(), post.name().as_ptr());
        ffi::st_conv(input, weight, pointer(bias), pairs.as_ptr(), geometry.groups, post, out)
    })
}

/// What [`conv_add`] does with the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Whether max(x, 0) follows the addition.
    pub relu: bool,
    /// Whether the result may be written over what was added.
    pub in_place: bool,
}

/// `convolution + bias + other`, with a ReLU if asked for: the end of a residual block.
pub fn conv_add(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Geometry,
    other: &Tensor,
    sum: Sum,
) -> Result<Tensor, TorchError> {
    check(&[input, other])?;
    // Written over, a tensor of another memory format would be left as it was.
    let in_place = sum.in_place && crate::memory_format(other) == Some(crate::MemoryFormat::ChannelsLast);
    let (pairs, relu) = (geometry.pairs()?, i32::from(sum.relu));
    // SAFETY: tensors and the array live for the call.
    ffi::tensor_from(|out| unsafe {
        let (input, weight, other) = (input.as_ptr(), weight.as_ptr(), other.as_ptr());
        ffi::st_conv_add(input, weight, pointer(bias), pairs.as_ptr(), geometry.groups, other, relu, i32::from(in_place), out)
    })
}

/// A weight `[out, in]` in the layout that oneDNN's matrix product reads fastest for inputs `[batch, in]`. What it gives is
/// opaque: only [`linear`] reads it.
pub fn pack_linear(weight: &Tensor, batch: i64) -> Result<Tensor, TorchError> {
    check(&[weight])?;
    // SAFETY: the tensor lives for the call.
    ffi::tensor_from(|out| unsafe { ffi::st_pack_linear(weight.as_ptr(), batch, out) })
}

/// `post(input weight^T + bias)` of `[N, in]`, with a packed weight or an ordinary one.
pub fn linear(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, post: Post) -> Result<Tensor, TorchError> {
    check(&[input])?;
    // SAFETY: tensors live for the call; the name is a static NUL-terminated string.
    ffi::tensor_from(|out| unsafe { ffi::st_linear(input.as_ptr(), weight.as_ptr(), pointer(bias), post.name().as_ptr(), out) })
}

pub(crate) fn pointer(tensor: Option<&Tensor>) -> *const torch_sys::C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

fn check(tensors: &[&Tensor]) -> Result<(), TorchError> {
    if !available() {
        return Err(TorchError::new("this libtorch was built without oneDNN"));
    }
    match tensors.iter().find(|t| t.device() != Device::Cpu || !matches!(t.kind(), Kind::Float | Kind::BFloat16)) {
        Some(t) => {
            Err(TorchError::new(&format!("oneDNN takes float32 and bfloat16 on the CPU, got {:?} on {:?}", t.kind(), t.device())))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{MemoryFormat, to_memory_format};

    const GEOMETRY: Geometry = Geometry { padding: [1, 2], stride: [2, 1], dilation: [1, 1], groups: 2 };

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    fn images(size: &[i64]) -> Tensor {
        to_memory_format(&random(size), MemoryFormat::ChannelsLast).unwrap()
    }

    fn reference(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        x.conv2d(weight, Some(bias), GEOMETRY.stride, GEOMETRY.padding, GEOMETRY.dilation, GEOMETRY.groups)
    }

    #[test]
    fn a_packed_convolution_with_an_activation_is_both() {
        crate::manual_seed(1);
        let (weight, bias) = (random(&[8, 3, 3, 3]), random(&[8]));
        let packed = pack_conv(&weight, &GEOMETRY, [1, 6, 9, 9]).unwrap();
        for size in [[1, 6, 9, 9], [5, 6, 12, 7]] {
            let x = images(&size);
            let plain = reference(&x, &weight, &bias);
            let posts = [Post::None, Post::Relu, Post::Tanh, Post::Sigmoid];
            for (post, expected) in posts.into_iter().zip([plain.shallow_clone(), plain.relu(), plain.tanh(), plain.sigmoid()]) {
                let got = conv(&x, &packed, Some(&bias), &GEOMETRY, post).unwrap();
                assert!(got.allclose(&expected, 1e-4, 1e-5, false), "{post:?}");
            }
        }
    }

    #[test]
    fn a_sum_is_written_over_what_is_added_only_where_that_is_allowed() {
        crate::manual_seed(1);
        let (weight, bias, x) = (random(&[8, 3, 3, 3]), random(&[8]), images(&[2, 6, 9, 9]));
        let packed = pack_conv(&weight, &GEOMETRY, [1, 6, 9, 9]).unwrap();
        let plain = reference(&x, &weight, &bias);
        for (relu, in_place) in [(false, false), (true, false), (false, true), (true, true)] {
            let other = images(&plain.size());
            let before = other.copy();
            let sum = Sum { relu, in_place };
            let got = conv_add(&x, &packed, Some(&bias), &GEOMETRY, &other, sum).unwrap();
            let expected = &plain + &before;
            let expected = if relu { expected.relu() } else { expected };
            assert!(got.allclose(&expected, 1e-4, 1e-5, false), "{sum:?}");
            assert_eq!(got.data_ptr() == other.data_ptr(), in_place);
            assert!(in_place || other == before);
        }
        let contiguous = random(&plain.size());
        let sum = Sum { relu: false, in_place: true };
        let got = conv_add(&x, &packed, Some(&bias), &GEOMETRY, &contiguous, sum).unwrap();
        assert!(got.allclose(&(plain + contiguous), 1e-4, 1e-5, false));
    }

    #[test]
    fn maps_of_one_pixel_are_added_too() {
        crate::manual_seed(1);
        let geometry = Geometry { padding: [0, 0], stride: [2, 2], groups: 1, ..GEOMETRY };
        let (weight, bias, x) = (random(&[32, 16, 1, 1]), random(&[32]), images(&[3, 16, 2, 2]));
        let packed = pack_conv(&weight, &geometry, [1, 16, 2, 2]).unwrap();
        let plain = x.conv2d(&weight, Some(&bias), [2, 2], [0, 0], [1, 1], 1);
        for (relu, in_place) in [(false, false), (true, false), (false, true), (true, true)] {
            let other = images(&plain.size());
            let sum = &plain + &other;
            let expected = if relu { sum.relu() } else { sum };
            let got = conv_add(&x, &packed, Some(&bias), &geometry, &other, Sum { relu, in_place }).unwrap();
            assert!(got.allclose(&expected, 1e-4, 1e-5, false), "{relu} {in_place}");
        }
    }

    #[test]
    fn a_packed_linear_layer_takes_any_batch() {
        crate::manual_seed(1);
        let (weight, bias) = (random(&[10, 33]), random(&[10]));
        let packed = pack_linear(&weight, 1).unwrap();
        for batch in [1, 7] {
            let x = random(&[batch, 33]);
            let expected = x.linear(&weight, Some(&bias));
            assert!(linear(&x, &packed, Some(&bias), Post::Relu).unwrap().allclose(&expected.relu(), 1e-4, 1e-5, false));
            assert!(linear(&x, &weight, None, Post::None).unwrap().allclose(&(expected - &bias), 1e-4, 1e-5, false));
        }
    }

    #[test]
    fn what_onednn_does_not_take_is_an_error() {
        crate::manual_seed(1);
        let x = Tensor::zeros([1, 6, 9, 9], (Kind::Double, Device::Cpu));
        let error = conv(&x, &x, None, &GEOMETRY, Post::None).unwrap_err().to_string();
        assert_eq!(error, "oneDNN takes float32 and bfloat16 on the CPU, got Double on Cpu");
        let wrong = conv(&images(&[1, 5, 9, 9]), &random(&[8, 3, 3, 3]), None, &GEOMETRY, Post::None);
        assert!(wrong.is_err());
        for wrong in [
            Geometry { stride: [0, 1], ..GEOMETRY },
            Geometry { groups: 0, ..GEOMETRY },
            Geometry { padding: [0, -1], ..GEOMETRY },
        ] {
            let error = conv(&images(&[1, 6, 9, 9]), &random(&[8, 3, 3, 3]), None, &wrong, Post::None).unwrap_err();
            assert!(error.to_string().starts_with("stride, dilation and groups must be above 0"));
        }
    }
}
