//! Convolutions and linear layers on the CPU, in float32 or bfloat16: matrix products of what each window reads, or of examples, and weights, at up to 95% of
//! what the processor can multiply. They gain most over oneDNN where layers are small or weights come from memory, from which they are fetched ahead. They
//! record no gradients: [`conv`](crate::conv::conv) does.
use crate::onednn::Sum;
use crate::winograd::{self, LANES};
use crate::{Frozen, MemoryFormat, TorchError, ffi, memory_format};
use tch::{Device, Kind, Tensor};

/// Whether this processor is fast at it, for so many values of this type beside each other: the input channels times the width of a window. In bfloat16 it is
/// an even number.
pub fn suits(kind: Kind, together: i64) -> bool {
    winograd::available() && takes(kind, together)
}

/// Whether this processor can do it, fast or not.
pub(crate) fn takes(kind: Kind, together: i64) -> bool {
    match kind {
        Kind::Float => true,
        // SAFETY: no precondition.
        Kind::BFloat16 => together % 2 == 0 && unsafe { ffi::st_has_bf16_products() != 0 },
        _ => false,
    }
}

/// A weight and a bias that are packed.
#[derive(Debug)]
pub struct Weight {
    panels: Frozen,
    /// With zeros up to whole vectors.
    bias: Frozen,
    out_channels: i64,
    kernel_size: [i64; 2],
}

impl Weight {
    /// Packs a weight `[out, in, kernel height, kernel width]` or `[out, in]`, float32 or one that [`suits`], and a bias `[out]`, which is kept in float32.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self, TorchError> {
        let (out_channels, in_channels, kernel_size) = match weight.size()[..] {
            [out, channels] => (out, channels, [1, 1]),
            [out, channels, height, width] => (out, channels, [height, width]),
            _ => {
                let size = weight.size();
                return Err(TorchError::new(&format!("expected a weight [out, in] or [out, in, height, width], got {size:?}")));
            }
        };
        let [height, width] = kernel_size;
        if !takes(weight.kind(), in_channels * width) {
            let (kind, together) = (weight.kind(), in_channels * width);
            return Err(TorchError::new(&format!("this processor has no products of {together} values in {kind:?}")));
        }
        let padded = Tensor::f_zeros([(out_channels + LANES - 1) / LANES * LANES], (Kind::Float, Device::Cpu))?;
        if let Some(bias) = bias {
            if bias.size() != [out_channels] {
                return Err(TorchError::new(&format!("expected a bias [{out_channels}], got {:?}", bias.size())));
            }
            padded.f_narrow(0, 0, out_channels)?.f_copy_(bias)?;
        }
        // As windows lie in channels-last images.
        let windows = weight.f_view([out_channels, in_channels, height, width])?.f_permute([0, 2, 3, 1])?;
        let matrix = windows.f_contiguous()?.f_view([out_channels, height * width * in_channels])?;
        // SAFETY: the tensor lives for the call, which checks what it is.
        let panels = ffi::tensor_from(|out| unsafe { ffi::st_pointwise_weight(matrix.as_ptr(), out) })?;
        Ok(Self { panels: panels.into(), bias: padded.into(), out_channels, kernel_size })
    }

    /// Height and width of the window.
    pub fn kernel_size(&self) -> [i64; 2] {
        self.kernel_size
    }

    /// `input weight^T + bias` of `[N, in]`, with a ReLU after it if `relu`.
    pub fn linear(&self, input: &Tensor, relu: bool) -> Result<Tensor, TorchError> {
        let [examples, features] = input.size()[..] else {
            return Err(TorchError::new(&format!("expected examples [N, in], got {:?}", input.size())));
        };
        let pixels = input.f_contiguous()?.f_view([examples, features, 1, 1])?;
        Ok(self.conv(&pixels, [1, 1], [0, 0], None, Sum { relu, in_place: false })?.f_view([examples, self.out_channels])?)
    }

    /// `convolution + bias` of images `[N, in, H, W]` of the weight's type, plus `other` if there is one: channels-last. Images that are neither channels-last nor,
    /// for a window of one pixel, some channels of such are copied, and so are those that get `padding`: zeros on each side, by height and width.
    pub fn conv(
        &self,
        input: &Tensor,
        stride: [i64; 2],
        padding: [i64; 2],
        other: Option<&Tensor>,
        sum: Sum,
    ) -> Result<Tensor, TorchError> {
        if stride.iter().any(|step| *step < 1) || padding.iter().any(|zeros| *zeros < 0) {
            return Err(TorchError::new(&format!(
                "expected steps above 0 and no less than 0 zeros, got {stride:?} and {padding:?}"
            )));
        }
        let window = [self.kernel_size, stride, padding];
        let in_place = sum.in_place && other.is_some_and(|other| memory_format(other) == Some(MemoryFormat::ChannelsLast));
        let (panels, bias, other) = (self.panels.as_ptr(), self.bias.as_ptr(), other.map_or(std::ptr::null(), Tensor::as_ptr));
        // SAFETY: tensors and the array of six live for the call, which checks types and shapes.
        ffi::tensor_from(|out| unsafe {
            let (input, window, relu, in_place) =
                (input.as_ptr(), window.as_flattened().as_ptr(), i32::from(sum.relu), i32::from(in_place));
            ffi::st_pointwise(input, panels, bias, window, self.out_channels, other, relu, in_place, out)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::to_memory_format;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    fn images(size: &[i64], kind: Kind) -> Tensor {
        to_memory_format(&random(size).to_kind(kind), MemoryFormat::ChannelsLast).unwrap()
    }

    fn double(tensor: &Tensor) -> Tensor {
        tensor.to_kind(Kind::Double)
    }

    /// Of one image, and of sizes that leave blocks and panels of every height and width unfilled.
    #[test]
    fn it_is_the_convolution_with_what_follows() {
        crate::manual_seed(1);
        for kind in [Kind::Float, Kind::BFloat16].into_iter().filter(|kind| takes(*kind, 2)) {
            let tolerance = if kind == Kind::Float { 1e-5 } else { 1.0 / 256.0 };
            for (batch, channels, out, side, stride) in [
                (1, 64, 256, 9, [1, 1]),
                (2, 18, 24, 7, [2, 2]),
                (3, 130, 100, 4, [1, 1]),
                (1, 32, 40, 8, [3, 1]),
                (1, 512, 7, 1, [2, 2]),
                (2, 6, 180, 1, [1, 1]),
                (0, 8, 8, 3, [1, 1]),
            ] {
                let (weight, bias) = (random(&[out, channels, 1, 1]).to_kind(kind), random(&[out]));
                let x = images(&[batch, channels, side, side + 1], kind);
                let part = to_memory_format(&Tensor::cat(&[&x, &x, &x], 1), MemoryFormat::ChannelsLast).unwrap().narrow(
                    1,
                    channels / 2,
                    channels,
                );
                for (x, bias) in [(&x, Some(&bias)), (&part, None), (&x.contiguous(), None)] {
                    let packed = Weight::new(&weight, bias).unwrap();
                    let plain = double(x).conv2d(&double(&weight), bias.map(double), stride, [0, 0], [1, 1], 1);
                    for (relu, in_place, added) in
                        [(false, false, false), (true, false, false), (true, false, true), (false, true, true)]
                    {
                        let other = added.then(|| images(&plain.size(), kind));
                        let sum = other.as_ref().map_or_else(|| plain.shallow_clone(), |other| &plain + double(other));
                        let expected = if relu { sum.relu() } else { sum };
                        let got = packed.conv(x, stride, [0, 0], other.as_ref(), Sum { relu, in_place }).unwrap();
                        assert_eq!(got.size(), expected.size());
                        // A map of one pixel may lie in either way.
                        let may = other.as_ref().is_some_and(|other| memory_format(other) == Some(MemoryFormat::ChannelsLast));
                        let written_over = other.is_some_and(|other| other.data_ptr() == got.data_ptr());
                        assert!(batch == 0 || written_over == (in_place && may), "{batch} {channels} {out}");
                        assert!(
                            double(&got).allclose(&expected, tolerance, 1e-4, false),
                            "{kind:?} {batch} {channels} {out} {relu} {added}"
                        );
                    }
                }
            }
        }
    }

    /// Windows of odd sizes, steps and zeros, of images that have them whole, in part, or not at all.
    #[test]
    fn it_is_the_convolution_of_any_window() {
        crate::manual_seed(1);
        for kind in [Kind::Float, Kind::BFloat16].into_iter().filter(|kind| takes(*kind, 2)) {
            let tolerance = if kind == Kind::Float { 1e-5 } else { 1.0 / 256.0 };
            for (batch, channels, out, size, window, stride, padding) in [
                (1, 1, 6, [28, 28], [5, 5], [1, 1], [2, 2]),
                (3, 6, 16, [14, 14], [5, 5], [1, 1], [0, 0]),
                (2, 3, 64, [23, 31], [7, 7], [2, 2], [3, 3]),
                (1, 34, 40, [9, 8], [3, 5], [3, 1], [0, 2]),
                (2, 130, 10, [5, 6], [1, 3], [1, 2], [1, 0]),
                (1, 4, 8, [3, 3], [3, 3], [1, 1], [0, 0]),
                (2, 4, 8, [2, 3], [3, 3], [1, 1], [0, 0]),
                (0, 2, 8, [4, 4], [3, 3], [1, 1], [1, 1]),
            ] {
                if !takes(kind, channels * window[1]) {
                    continue;
                }
                let (weight, bias) = (random(&[out, channels, window[0], window[1]]).to_kind(kind), random(&[out]));
                let x = images(&[batch, channels, size[0], size[1]], kind);
                let wide = images(&[batch, 2 * channels, size[0], size[1]], kind);
                let packed = Weight::new(&weight, Some(&bias)).unwrap();
                for x in [&x, &x.contiguous(), &wide.narrow(1, 1, channels)] {
                    let got = packed.conv(x, stride, padding, None, Sum { relu: true, in_place: false }).unwrap();
                    let out_size = [0, 1].map(|axis| ((size[axis] + 2 * padding[axis] - window[axis]) / stride[axis] + 1).max(0));
                    assert_eq!(got.size(), [batch, out, out_size[0], out_size[1]]);
                    if got.numel() > 0 {
                        let expected = double(x).conv2d(&double(&weight), Some(double(&bias)), stride, padding, [1, 1], 1).relu();
                        assert!(
                            double(&got).allclose(&expected, tolerance, 1e-3, false),
                            "{kind:?} {size:?} {window:?} {stride:?}"
                        );
                    }
                }
            }
        }
    }

    /// Of more values than are multiplied at a time, and more examples than a block has, on one thread, which takes several blocks.
    #[test]
    fn it_is_the_linear_layer_of_any_batch() {
        crate::set_num_threads(1);
        crate::manual_seed(1);
        for kind in [Kind::Float, Kind::BFloat16].into_iter().filter(|kind| takes(*kind, 2)) {
            let tolerance = if kind == Kind::Float { 1e-5 } else { 1.0 / 256.0 };
            for (batch, input, output) in
                [(1, 2, 1), (3, 34, 7), (16, 2100, 140), (17, 6, 65), (130, 1024, 72), (61, 1500, 300), (0, 4, 4)]
            {
                let (weight, bias) = (random(&[output, input]).to_kind(kind), random(&[output]));
                let x = random(&[input, batch]).to_kind(kind).tr();
                let packed = Weight::new(&weight, Some(&bias)).unwrap();
                let expected = double(&x).linear(&double(&weight), Some(&double(&bias)));
                for (relu, expected) in [(true, expected.relu()), (false, expected)] {
                    let got = packed.linear(&x, relu).unwrap();
                    assert_eq!(got.size(), [batch, output]);
                    assert!(double(&got).allclose(&expected, tolerance, 1e-3, false), "{kind:?} {batch} {input} {output}");
                }
            }
        }
    }

    /// Pixels that lie in no rows: one that is repeated, and a part of each row of some of the channels.
    #[test]
    fn images_of_any_layout_are_read() {
        crate::manual_seed(1);
        let weight = random(&[20, 16, 1, 1]);
        let packed = Weight::new(&weight, None).unwrap();
        let part = images(&[1, 64, 8, 8], Kind::Float).narrow(1, 0, 16).narrow(3, 0, 5);
        for x in [random(&[2, 16, 1, 1]).expand([2, 16, 8, 8], false), part] {
            let got = packed.conv(&x, [1, 1], [0, 0], None, Sum { relu: false, in_place: false }).unwrap();
            assert!(got.allclose(&x.conv2d(&weight, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1), 1e-4, 1e-4, false));
        }
    }

    #[test]
    fn what_is_read_is_not_written_over() {
        crate::manual_seed(1);
        let (weight, x) = (random(&[130, 130, 1, 1]), images(&[1, 130, 4, 4], Kind::Float));
        let expected = x.conv2d(&weight, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1) + &x;
        let got =
            Weight::new(&weight, None).unwrap().conv(&x, [1, 1], [0, 0], Some(&x), Sum { relu: false, in_place: true }).unwrap();
        assert!(got.allclose(&expected, 1e-4, 1e-4, false));
    }

    #[test]
    fn a_nan_is_given_on_and_what_does_not_fit_is_an_error() {
        crate::manual_seed(1);
        let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
        let packed = Weight::new(&ones(&[5, 4, 1, 1]), None).unwrap();
        let sum = Sum { relu: true, in_place: false };
        let x = images(&[1, 4, 3, 3], Kind::Float);
        assert!(bool::try_from(packed.conv(&(&x * f64::NAN), [1, 1], [0, 0], None, sum).unwrap().isnan().all()).unwrap());
        let message = |x: &Tensor| packed.conv(x, [1, 1], [0, 0], None, sum).unwrap_err().to_string();
        assert_eq!(message(&x.narrow(1, 0, 3)), "the weight is for other channels");
        for wrong in [x.to_kind(Kind::Double), x.get(0)] {
            assert_eq!(message(&wrong), "expected images of the weight's type on the CPU");
        }
        assert!(packed.conv(&x, [0, 1], [0, 0], None, sum).is_err() && packed.conv(&x, [1, 1], [-1, 0], None, sum).is_err());
        assert!(packed.conv(&x, [1, 1], [0, 0], Some(&x), sum).unwrap_err().to_string().contains("another shape"));
        let error = Weight::new(&ones(&[5, 4, 3]), None).unwrap_err().to_string();
        assert_eq!(error, "expected a weight [out, in] or [out, in, height, width], got [5, 4, 3]");
        assert_eq!(packed.linear(&x, true).unwrap_err().to_string(), "expected examples [N, in], got [1, 4, 3, 3]");
        assert!(Weight::new(&ones(&[5, 4, 1, 1]).to_kind(Kind::Double), None).is_err());
        assert!(Weight::new(&ones(&[5, 4, 1, 1]), Some(&ones(&[1]))).is_err());
        assert!(Weight::new(&ones(&[5, 0]), None).is_err());
        assert!(Weight::new(&ones(&[5, 3, 1, 1]).to_kind(Kind::BFloat16), None).is_err());
    }
}
