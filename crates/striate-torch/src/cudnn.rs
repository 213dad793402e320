//! cuDNN's convolutions, and cuBLAS's products, together with the ReLU after them, for inference on CUDA devices.
use crate::onednn::{Geometry, pointer};
use crate::{TorchError, ffi};
use tch::{Cuda, Kind, Tensor};

/// Whether there is a CUDA device, and a cuDNN in this libtorch.
pub fn available() -> bool {
    Cuda::cudnn_is_available()
}

/// Whether these operators compute values of this type.
pub fn takes(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Half | Kind::BFloat16)
}

/// `max(convolution + bias + other, 0)` of `[N, C, H, W]` in one group. Weight, bias and `other` have the type of the input and lie
/// where it does. With a channels-last weight, what it gives is channels-last. Records no gradients.
///
/// # Errors
///
/// Several groups, tensors that do not fit, a convolution that cuDNN has no algorithm for, and tensors that are not on CUDA.
pub fn conv_relu(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Geometry,
    other: Option<&Tensor>,
) -> Result<Tensor, TorchError> {
    if geometry.groups != 1 {
        return Err(TorchError::new(&format!("this convolution of cuDNN's has one group: got {}", geometry.groups)));
    }
    let pairs = geometry.pairs()?;
    // SAFETY: tensors and the array live for the call, and the array has the length that the shim reads.
    ffi::tensor_from(|out| unsafe {
        ffi::st_cudnn_conv_relu(input.as_ptr(), weight.as_ptr(), pointer(bias), pairs.as_ptr(), pointer(other), out)
    })
}

/// `max(input weight^T + bias, 0)` of `[N, in]`, with a weight `[out, in]`, all of one type. On CUDA, the ReLU is the end of the product;
/// the CPU computes it after that.
///
/// # Errors
///
/// Tensors that do not fit.
pub fn linear_relu(input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, TorchError> {
    // tch's own function takes `use_gelu` for a factor of the bias.
    // SAFETY: the tensors live for the call.
    ffi::tensor_from(|out| unsafe { ffi::st_linear_relu(input.as_ptr(), weight.as_ptr(), bias.as_ptr(), out) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{MemoryFormat, memory_format, to_memory_format};
    use tch::Device;

    const GEOMETRY: Geometry = Geometry { padding: [1, 1], stride: [2, 1], dilation: [1, 1], groups: 1 };

    #[test]
    fn without_cuda_one_line_says_so() {
        let [x, w] = [[1, 8, 6, 6], [8, 8, 3, 3]].map(|size| Tensor::ones(size, (Kind::Float, Device::Cpu)));
        let error = conv_relu(&x, &w, None, &GEOMETRY, None).unwrap_err().to_string();
        assert!(error.contains("cudnn_convolution_relu") && !error.contains('\n'), "{error}");
        let error = conv_relu(&x, &w, None, &Geometry { groups: 2, ..GEOMETRY }, None).unwrap_err().to_string();
        assert_eq!(error, "this convolution of cuDNN's has one group: got 2");
    }

    #[test]
    fn a_linear_layer_ends_in_its_relu() {
        let [x, bias] = [&[1.0_f32, 2.0][..], &[0.5, -20.0, 1.0]].map(Tensor::from_slice);
        let weight = Tensor::from_slice(&[1.0_f32, 1.0, 2.0, 3.0, -4.0, 1.0]).view([3, 2]);
        let got = linear_relu(&x.view([1, 2]), &weight, &bias).unwrap();
        assert_eq!(got, Tensor::from_slice(&[3.5_f32, 0.0, 0.0]).view([1, 3]));
    }

    /// Skipped where there is no CUDA device.
    #[test]
    fn it_is_a_convolution_a_sum_and_a_relu() {
        if !available() {
            return eprintln!("skipped: there is no CUDA device, or no cuDNN");
        }
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cuda(0)));
        let (x, w) = (random(&[3, 16, 14, 14]), random(&[32, 16, 3, 3]) * 0.1);
        let (bias, other) = (random(&[32]), random(&[3, 32, 7, 14]));
        for (kind, most) in [(Kind::Float, 2e-3), (Kind::Half, 4e-3), (Kind::BFloat16, 2e-2)] {
            let [x, w, other] =
                [&x, &w, &other].map(|tensor| to_memory_format(&tensor.to_kind(kind), MemoryFormat::ChannelsLast).unwrap());
            let b = bias.to_kind(kind);
            for (bias, other) in [(Some(&b), None), (Some(&b), Some(&other)), (None, Some(&other)), (None, None)] {
                let got = conv_relu(&x, &w, bias, &GEOMETRY, other).unwrap();
                assert_eq!(memory_format(&got), Some(MemoryFormat::ChannelsLast));
                let double = |tensor: &Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double);
                let mut expected = double(&x).conv2d(&double(&w), bias.map(double).as_ref(), [2, 1], [1, 1], [1, 1], 1);
                if let Some(other) = other {
                    expected += double(other);
                }
                let expected = expected.relu();
                let worst = ((double(&got) - &expected).abs().max() / expected.max()).double_value(&[]);
                assert!(worst < most, "{kind:?}: {worst:.1e}");
            }
        }
    }
}
