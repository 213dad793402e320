//! 3x3 convolutions at stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308): a quarter of the
//! multiplications, on weights transformed and packed once, for inference on the CPU.
//!
//! It computes in float32; feature maps may be bfloat16, and come out channels-last. Results differ from a direct convolution's by
//! 2e-6 of the largest value, and by 1e-5 at worst in thousands of random convolutions. Transformed weights take four times the memory.
//! An infinity or a NaN reaches all 16 values of each tile that reads it, where a direct convolution gives it to 9 values at most.
use crate::cpu::Level;
use crate::onednn::Sum;
use crate::{Frozen, MemoryFormat, TorchError, ffi, memory_format};
use tch::{Device, Kind, Tensor};

/// Both channel counts are multiples of this.
pub const LANES: i64 = 16;
/// Height and width of a tile of the output.
pub const TILE: i64 = 4;
/// Whether this processor is fast at it: it has AVX2 and FMA, and `STRIATE_CPU` does not forbid them.
pub fn available() -> bool {
    Level::in_use() >= Level::Avx2
}

/// A weight that is transformed and packed.
#[derive(Debug)]
pub struct Weight {
    /// `[36, in * out]`.
    panels: Frozen,
    in_channels: i64,
    out_channels: i64,
}

impl Weight {
    /// Transforms and packs a weight `[out, in, 3, 3]`; both channel counts must be multiples of [`LANES`].
    pub fn new(weight: &Tensor) -> Result<Self, TorchError> {
        let [out_channels, in_channels, 3, 3] = weight.size()[..] else {
            return Err(TorchError::new(&format!(
                "Winograd's convolution takes a weight [out, in, 3, 3], got {:?}",
                weight.size()
            )));
        };
        if out_channels % LANES != 0 || in_channels % LANES != 0 {
            return Err(TorchError::new(&format!(
                "Winograd's convolution takes multiples of {LANES} channels, got {:?}",
                weight.size()
            )));
        }
        if weight.kind() != Kind::Float || weight.device() != Device::Cpu {
            return Err(TorchError::new("Winograd's convolution takes a float32 weight on the CPU"));
        }
        // SAFETY: the tensor lives for the call; what the shim relies on was checked.
        let panels = ffi::tensor_from(|out| unsafe { ffi::st_winograd_weight(weight.as_ptr(), out) })?;
        Ok(Self { panels: panels.into(), in_channels, out_channels })
    }

    /// `convolution + bias` (float32) of `[N, C, H, W]`, with `padding` zeros on each side, plus `other` if there is one.
    pub fn conv(
        &self,
        input: &Tensor,
        bias: Option<&Tensor>,
        padding: [i64; 2],
        other: Option<&Tensor>,
        sum: Sum,
    ) -> Result<Tensor, TorchError> {
        let size = input.size();
        let half = input.kind() == Kind::BFloat16;
        let maps =
            [Some(input), other].into_iter().flatten().all(|t| t.kind() == if half { Kind::BFloat16 } else { Kind::Float });
        let bias_fits = bias.is_none_or(|bias| bias.kind() == Kind::Float && bias.device() == Device::Cpu);
        if size.len() != 4 || size[1] != self.in_channels || !maps || !bias_fits || input.device() != Device::Cpu {
            let expected = self.in_channels;
            return Err(TorchError::new(&format!(
                "expected images of {expected} channels, and a float32 bias, on the CPU, got {size:?}"
            )));
        }
        let in_place = sum.in_place && other.is_some_and(|other| memory_format(other) == Some(MemoryFormat::ChannelsLast));
        let pointer = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null(), Tensor::as_ptr);
        // SAFETY: tensors and the array live for the call; the shim checks the other shapes.
        ffi::tensor_from(|out| unsafe {
            ffi::st_winograd(
                input.as_ptr(),
                self.panels.as_ptr(),
                pointer(bias),
                padding.as_ptr(),
                self.out_channels,
                pointer(other),
                i32::from(sum.relu),
                i32::from(in_place),
                out,
            )
        })
    }
}

/// The convolution of `[N, in, H, W]` (float32 or bfloat16) with a float32 weight `[out, in, 3, 3]` and bias `[out]`, with `padding` zeros of
/// at most 2 on each side: channels-last, with gradients, which are computed by Winograd's algorithm too.
///
/// Both channel counts must be multiples of [`LANES`]. A second derivative is an error.
pub fn conv(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, padding: [i64; 2]) -> Result<Tensor, TorchError> {
    let bias = bias.map_or(std::ptr::null(), Tensor::as_ptr);
    // SAFETY: tensors and the array live for the call; the shim checks the shapes.
    ffi::tensor_from(|out| unsafe { ffi::st_conv3x3(input.as_ptr(), weight.as_ptr(), bias, padding.as_ptr(), out) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::to_memory_format;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn it_is_the_convolution_at_any_size_and_padding() {
        crate::manual_seed(1);
        for out in [16, 32, 48, 64, 80, 192] {
            let (weight, bias) = (random(&[out, 48, 3, 3]), random(&[out]));
            let packed = Weight::new(&weight).unwrap();
            for (size, padding) in
                [([2, 48, 14, 14], [1, 1]), ([1, 48, 7, 9], [0, 1]), ([3, 48, 3, 5], [2, 0]), ([1, 48, 1, 2], [1, 1])]
            {
                let x = random(&size);
                let expected = x.to_kind(Kind::Double).conv2d(
                    &weight.to_kind(Kind::Double),
                    Some(&bias.to_kind(Kind::Double)),
                    [1, 1],
                    padding,
                    [1, 1],
                    1,
                );
                let other = to_memory_format(&random(&expected.size()), MemoryFormat::ChannelsLast).unwrap();
                for (relu, in_place, added) in
                    [(false, false, None), (true, false, None), (true, false, Some(&other)), (false, true, Some(&other))]
                {
                    let expected = added.map_or_else(|| expected.shallow_clone(), |other| &expected + other);
                    let expected = if relu { expected.relu() } else { expected };
                    let got = packed.conv(&x, Some(&bias), padding, added, Sum { relu, in_place }).unwrap();
                    let worst = ((&got - &expected).abs().max() / expected.abs().max()).double_value(&[]);
                    assert!(worst < 2e-5, "{size:?} {padding:?}: {worst:.1e}");
                    assert_eq!(added.is_some_and(|other| other.data_ptr() == got.data_ptr()), in_place);
                }
            }
        }
    }

    /// Output and gradients of the convolution of float64.
    fn exact(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, padding: [i64; 2], upstream: &Tensor) -> Vec<Tensor> {
        let leaf = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double).set_requires_grad(true);
        let (x, weight, bias) = (leaf(x), leaf(weight), bias.map(leaf));
        let y = x.conv2d(&weight, bias.as_ref(), [1, 1], padding, [1, 1], 1);
        (&y * upstream).sum(Kind::Double).backward();
        [Some(y), Some(x.grad()), Some(weight.grad()), bias.map(|bias| bias.grad())].into_iter().flatten().collect()
    }

    #[test]
    fn gradients_are_those_of_the_convolution() {
        crate::manual_seed(2);
        // One tile and many, parts of one and several tiles high, panels of any width.
        for (channels, out, size, padding, layout, with_bias) in [
            (16, 16, [1, 1, 1], [1, 1], MemoryFormat::Contiguous, true),
            (48, 80, [2, 14, 14], [1, 1], MemoryFormat::ChannelsLast, false),
            (32, 192, [3, 7, 9], [0, 2], MemoryFormat::ChannelsLast, true),
            (64, 64, [4, 40, 36], [1, 1], MemoryFormat::Contiguous, true),
            (272, 256, [2, 28, 28], [1, 0], MemoryFormat::ChannelsLast, false),
            // Few tiles and many channels.
            (368, 272, [2, 9, 10], [1, 1], MemoryFormat::ChannelsLast, true),
            (272, 368, [1, 5, 6], [1, 1], MemoryFormat::Contiguous, false),
        ] {
            let leaf = |size: &[i64]| to_memory_format(&random(size), layout).unwrap().set_requires_grad(true);
            let (x, weight) = (leaf(&[size[0], channels, size[1], size[2]]), leaf(&[out, channels, 3, 3]));
            let bias = with_bias.then(|| random(&[out]).set_requires_grad(true));
            let y = conv(&x, &weight, bias.as_ref(), padding).unwrap();
            let upstream = random(&y.size());
            (&y * &upstream).sum(Kind::Float).backward();
            assert_eq!(weight.grad().stride(), weight.stride());
            let got = [Some(y), Some(x.grad()), Some(weight.grad()), bias.as_ref().map(Tensor::grad)];
            let expected = exact(&x, &weight, bias.as_ref(), padding, &upstream);
            assert_eq!(got.iter().flatten().count(), expected.len());
            for (index, (got, expected)) in got.iter().flatten().zip(&expected).enumerate() {
                let worst = ((got - expected).abs().max() / expected.abs().max()).double_value(&[]);
                assert!(worst < 2e-5, "{channels} {out} {size:?} {padding:?}, {index}: {worst:.1e}");
            }
        }
    }

    #[test]
    fn no_images_have_no_gradients() {
        let (x, weight) = (random(&[0, 16, 8, 8]).set_requires_grad(true), random(&[32, 16, 3, 3]).set_requires_grad(true));
        conv(&x, &weight, None, [1, 1]).unwrap().sum(Kind::Float).backward();
        assert_eq!(x.grad().size(), [0, 16, 8, 8]);
        assert_eq!(weight.grad(), Tensor::zeros_like(&weight));
    }

    #[test]
    fn a_second_derivative_is_an_error() {
        let (x, weight) = (random(&[1, 16, 8, 8]).set_requires_grad(true), random(&[16, 16, 3, 3]));
        let sum = conv(&x, &weight, None, [1, 1]).unwrap().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[sum], &[&x], false, true).unwrap_err();
        assert!(TorchError::from(error).to_string().contains("no second derivative"));
    }

    #[test]
    fn bfloat16_is_rounded_once() {
        crate::manual_seed(1);
        let (weight, bias) = (random(&[32, 16, 3, 3]), random(&[32]));
        let x = random(&[2, 16, 9, 9]).to_kind(Kind::BFloat16);
        let other = to_memory_format(&random(&[2, 32, 9, 9]).to_kind(Kind::BFloat16), MemoryFormat::ChannelsLast).unwrap();
        let exact = x.to_kind(Kind::Float).conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1) + &other.to_kind(Kind::Float);
        let sum = Sum { relu: false, in_place: false };
        let got = Weight::new(&weight).unwrap().conv(&x, Some(&bias), [1, 1], Some(&other), sum).unwrap();
        assert_eq!(got.kind(), Kind::BFloat16);
        let worst = ((got.to_kind(Kind::Float) - &exact).abs() / exact.abs().clamp_min(0.1)).max().double_value(&[]);
        assert!(worst > 1e-3 && worst < 1.01 / 256.0, "{worst}");
        let _ = x.get(0).get(0).get(0).get(0).fill_(f64::NAN);
        let spoilt = Weight::new(&weight).unwrap().conv(&x, Some(&bias), [1, 1], None, sum).unwrap();
        assert!(spoilt.isnan().sum(Kind::Int64).int64_value(&[]) > 0);
    }

    #[test]
    fn what_it_does_not_take_is_an_error() {
        crate::manual_seed(1);
        assert!(Weight::new(&random(&[32, 48, 5, 5])).unwrap_err().to_string().contains("[out, in, 3, 3]"));
        assert!(Weight::new(&random(&[8, 16, 3, 3])).unwrap_err().to_string().contains("multiples of 16"));
        let weight = Weight::new(&random(&[16, 16, 3, 3])).unwrap();
        let conv = |x: &Tensor, bias: &Tensor| weight.conv(x, Some(bias), [0, 0], None, Sum { relu: false, in_place: false });
        let (x, bias) = (random(&[1, 16, 8, 8]), random(&[16]));
        assert!(conv(&x, &bias).is_ok());
        assert!(conv(&random(&[1, 32, 8, 8]), &bias).is_err());
        assert!(conv(&x.to_kind(Kind::Double), &bias).is_err());
        assert!(conv(&x, &random(&[15])).is_err());
        assert!(conv(&x, &bias.to_kind(Kind::Double)).is_err());
        assert!(conv(&random(&[1, 16, 2, 8]), &bias).is_err());
    }
}
