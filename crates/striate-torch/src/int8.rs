//! Values as bytes, a quarter of their size, and oneDNN's convolutions and linear layers of them, for inference on the CPU.
//!
//! Inputs and outputs are uint8 with one [`Scale`] a tensor; weights are int8 with one for each output channel; sums are exact, in int32. Feature
//! maps come out channels-last.
use crate::onednn::{self, Geometry, Sum};
use crate::{Frozen, TorchError, ffi};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// The largest byte of a value, and the largest of a weight.
pub const MAX: i64 = 255;
const MAX_WEIGHT: f64 = 127.0;
/// The batch that a linear layer's weight is packed for; it is as good for others.
const TYPICAL_BATCH: i64 = 16;

/// Whether this processor multiplies bytes (AVX-512 VNNI or AVX-VNNI; older instructions overflow), and libtorch has the operators.
pub fn available() -> bool {
    // SAFETY: no precondition.
    unsafe { ffi::st_has_int8() != 0 }
}

/// What bytes stand for: `step * (byte - zero_point)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The distance between two values.
    pub step: f64,
    /// The byte of 0, 0 to [`MAX`].
    pub zero_point: i64,
}

impl Scale {
    /// The nearest bytes of float32 values.
    pub fn quantize(self, values: &Tensor) -> Result<Tensor, TorchError> {
        let scale = self.for_shim()?;
        // SAFETY: the tensor lives for the call; the shim checks what it is.
        ffi::tensor_from(|out| unsafe { ffi::st_quantize(values.as_ptr(), scale, out) })
    }

    /// The values of bytes, in float32.
    pub fn dequantize(self, bytes: &Tensor) -> Result<Tensor, TorchError> {
        let scale = self.for_shim()?;
        // SAFETY: as above.
        ffi::tensor_from(|out| unsafe { ffi::st_dequantize(bytes.as_ptr(), scale, out) })
    }

    /// Whether the step is a number above 0 and the zero point is a byte.
    pub fn is_valid(self) -> bool {
        self.step > 0.0 && self.step.is_finite() && (0..=MAX).contains(&self.zero_point)
    }

    fn for_shim(self) -> Result<ffi::CScale, TorchError> {
        if !self.is_valid() {
            return Err(TorchError::new(&format!("a scale has a step above 0 and a zero point of 0 to {MAX}, got {self:?}")));
        }
        Ok(ffi::CScale { step: self.step, zero_point: self.zero_point })
    }
}

/// How many of float32 values lie in each of equal parts of `low..=high`: added to `counts`, one number a part. Zeros, which every scale keeps, are
/// left out.
pub fn count(values: &Tensor, low: f64, high: f64, counts: &mut [i64]) -> Result<(), TorchError> {
    if !(low.is_finite() && high.is_finite()) {
        return Err(TorchError::new(&format!("expected a range of finite numbers, got {low} to {high}")));
    }
    if counts.is_empty() || high <= low {
        return Ok(());
    }
    // SAFETY: the tensor and the slice live for the call, which writes within the slice.
    ffi::check(unsafe { ffi::st_count(values.as_ptr(), low, high, counts.as_mut_ptr(), counts.len().cast_signed() as i64) })
}

/// A weight in int8, packed for oneDNN, and what multiplies each output channel.
#[derive(Debug)]
struct Weight {
    packed: Frozen,
    scales: Frozen,
    bias: Option<Frozen>,
}

/// The largest value of each output channel becomes 127: the bytes, and the scales.
fn quantize_weight(weight: &Tensor) -> Result<(Tensor, Tensor), TorchError> {
    let rows = weight.f_flatten(1, -1)?.f_to_kind(Kind::Float)?;
    // A channel of zeros has any scale.
    let scales =
        rows.f_abs()?.f_amax([1], true)?.f_clamp_min(f64::from(f32::MIN_POSITIVE) * MAX_WEIGHT)?.f_div_scalar(MAX_WEIGHT)?;
    let bytes = rows.f_div(&scales)?.f_round()?.f_to_kind(Kind::Int8)?;
    Ok((bytes.f_view(weight.size().as_slice())?, scales.f_flatten(0, -1)?))
}

/// A convolution of bytes.
#[derive(Debug)]
pub struct Conv {
    weight: Weight,
    input: Scale,
}

impl Conv {
    /// From a floating-point weight `[out, in / groups, kernel height, kernel width]` and bias `[out]`, for inputs `[N, C, H, W]` of this scale. It is
    /// packed for this size; inputs of other sizes work too, and may run slower.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        geometry: &Geometry,
        input: Scale,
        input_size: [i64; 4],
    ) -> Result<Self, TorchError> {
        check_available()?;
        let (bytes, scales) = quantize_weight(weight)?;
        let (pairs, scale) = (geometry.pairs()?, input.for_shim()?);
        // SAFETY: tensors and arrays live for the call, and the arrays have the lengths that the shim reads.
        let packed = ffi::tensor_from(|out| unsafe {
            let (bytes, scales) = (bytes.as_ptr(), scales.as_ptr());
            ffi::st_int8_pack_conv(bytes, scales, scale, pairs.as_ptr(), geometry.groups, input_size.as_ptr(), out)
        })?;
        Ok(Self { weight: Weight { packed: packed.into(), scales: scales.into(), bias: copy_of(bias)? }, input })
    }

    /// `convolution + bias`, with a ReLU if asked for: bytes of the scale `output`, or float32 without one.
    pub fn forward(&self, input: &Tensor, geometry: &Geometry, relu: bool, output: Option<Scale>) -> Result<Tensor, TorchError> {
        check_bytes(input)?;
        let (Weight { packed, scales, bias }, pairs) = (&self.weight, geometry.pairs()?);
        let (scale, output) = (self.input.for_shim()?, output.map(Scale::for_shim).transpose()?);
        // SAFETY: tensors, the array and the scale live for the call.
        ffi::tensor_from(|out| unsafe {
            ffi::st_int8_conv(
                input.as_ptr(),
                scale,
                packed.as_ptr(),
                scales.as_ptr(),
                onednn::pointer(bias.as_deref()),
                pairs.as_ptr(),
                geometry.groups,
                relu.into(),
                output.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
                out,
            )
        })
    }

    /// `convolution + bias + other`, where `other` is bytes of a scale of their own: bytes of the scale `output`.
    pub fn forward_add(
        &self,
        input: &Tensor,
        geometry: &Geometry,
        other: (&Tensor, Scale),
        output: Scale,
        sum: Sum,
    ) -> Result<Tensor, TorchError> {
        check_bytes(input)?;
        check_bytes(other.0)?;
        let (Weight { packed, scales, bias }, pairs) = (&self.weight, geometry.pairs()?);
        let [scale, output, other_scale] = [self.input, output, other.1].map(Scale::for_shim);
        let (scale, output, other_scale) = (scale?, output?, other_scale?);
        // SAFETY: tensors and the array live for the call.
        ffi::tensor_from(|out| unsafe {
            ffi::st_int8_conv_add(
                input.as_ptr(),
                scale,
                packed.as_ptr(),
                scales.as_ptr(),
                onednn::pointer(bias.as_deref()),
                pairs.as_ptr(),
                geometry.groups,
                sum.relu.into(),
                output,
                other.0.as_ptr(),
                other_scale,
                sum.in_place.into(),
                out,
            )
        })
    }
}

/// A linear layer of bytes.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    in_features: i64,
    step: f64,
}

impl Linear {
    /// From a floating-point weight `[out, in]` and bias `[out]`, for inputs `[N, in]` of this scale.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, input: Scale) -> Result<Self, TorchError> {
        check_available()?;
        input.for_shim()?;
        let [out_features, in_features] = weight.size()[..] else {
            return Err(TorchError::new(&format!("expected a weight [out, in], got {:?}", weight.size())));
        };
        if let Some(bias) = bias.filter(|bias| bias.size() != [out_features]) {
            return Err(TorchError::new(&format!("expected a bias [{out_features}], got {:?}", bias.size())));
        }
        let (bytes, scales) = quantize_weight(weight)?;
        // What the zero point adds to each sum is a bias too; oneDNN would compute it in every call.
        let offset = bytes
            .f_sum_dim_intlist(1, false, Kind::Double)?
            .f_mul(&scales)?
            .f_mul_scalar(-input.step * input.zero_point as f64)?;
        let bias = match bias {
            Some(bias) => offset.f_add(bias)?,
            None => offset,
        };
        // SAFETY: the tensor lives for the call.
        let packed = ffi::tensor_from(|out| unsafe { ffi::st_int8_pack_linear(bytes.as_ptr(), TYPICAL_BATCH, out) })?;
        let weight = Weight { packed: packed.into(), scales: scales.into(), bias: copy_of(Some(&bias))? };
        Ok(Self { weight, in_features, step: input.step })
    }

    /// `input weight^T + bias`, with a ReLU if asked for: bytes of the scale `output`, or float32 without one.
    pub fn forward(&self, input: &Tensor, relu: bool, output: Option<Scale>) -> Result<Tensor, TorchError> {
        check_bytes(input)?;
        if !matches!(input.size()[..], [_, features] if features == self.in_features) {
            return Err(TorchError::new(&format!("expected examples [N, {}], got {:?}", self.in_features, input.size())));
        }
        let Weight { packed, scales, bias } = &self.weight;
        let output = output.map(Scale::for_shim).transpose()?;
        // SAFETY: tensors and the scale live for the call.
        ffi::tensor_from(|out| unsafe {
            ffi::st_int8_linear(
                input.as_ptr(),
                self.step,
                packed.as_ptr(),
                scales.as_ptr(),
                onednn::pointer(bias.as_deref()),
                relu.into(),
                output.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
                out,
            )
        })
    }
}

fn copy_of(bias: Option<&Tensor>) -> Result<Option<Frozen>, TorchError> {
    let copy = bias.map(|bias| bias.f_to_dtype(Kind::Float, false, true)).transpose()?;
    Ok(copy.map(Frozen::new))
}

fn check_available() -> Result<(), TorchError> {
    match available() {
        true => Ok(()),
        false => Err(TorchError::new("int8 needs a processor with AVX-512 VNNI or AVX-VNNI, and a libtorch with oneDNN")),
    }
}

fn check_bytes(tensor: &Tensor) -> Result<(), TorchError> {
    if tensor.kind() == Kind::Uint8 && tensor.device() == Device::Cpu {
        return Ok(());
    }
    Err(TorchError::new(&format!("expected uint8 on the CPU, got {:?} on {:?}", tensor.kind(), tensor.device())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Generator, MemoryFormat, memory_format, to_memory_format};
    use std::cell::RefCell;

    thread_local! {
        /// A test's own numbers: tests side by side would share libtorch's.
        static DRAWN: RefCell<Generator> = RefCell::new(Generator::new(1));
    }

    fn random(size: &[i64]) -> Tensor {
        let mut drawn = Tensor::zeros(size, (Kind::Float, Device::Cpu));
        DRAWN.with_borrow_mut(|generator| generator.normal(&mut drawn, 0.0, 1.0)).unwrap();
        drawn
    }

    fn bytes(size: &[i64]) -> Tensor {
        let mut drawn = Tensor::zeros(size, (Kind::Float, Device::Cpu));
        DRAWN.with_borrow_mut(|generator| generator.uniform(&mut drawn, 0.0, (MAX + 1) as f64)).unwrap();
        to_memory_format(&drawn.floor().clamp_max(MAX as f64).to_kind(Kind::Uint8), MemoryFormat::ChannelsLast).unwrap()
    }

    /// Whether this machine has int8; says so if not.
    fn skipped() -> bool {
        if !available() {
            println!("skipped: no AVX-512 VNNI or AVX-VNNI");
        }
        !available()
    }

    /// The values of bytes in float64.
    fn exact(bytes: &Tensor, scale: Scale) -> Tensor {
        (bytes.to_kind(Kind::Double) - scale.zero_point as f64) * scale.step
    }

    /// What a weight is once it is rounded, in float64.
    fn rounded(weight: &Tensor) -> Tensor {
        let (bytes, scales) = quantize_weight(weight).unwrap();
        let worst = (bytes.to_kind(Kind::Float).flatten(1, -1) * scales.view([-1, 1]) - weight.flatten(1, -1)).abs()
            / scales.view([-1, 1]);
        assert!(worst.max().double_value(&[]) < 0.501);
        let mut shape = vec![1; weight.dim()];
        shape[0] = -1;
        bytes.to_kind(Kind::Double) * scales.to_kind(Kind::Double).view(shape.as_slice())
    }

    /// Fails unless bytes are those of values in float64, one step more or less; and unless most values are told apart.
    fn assert_near(got: &Tensor, expected: &Tensor, scale: Scale) {
        let expected = (expected / scale.step + scale.zero_point as f64).round().clamp(0.0, 255.0);
        let worst = (got.to_kind(Kind::Double) - &expected).abs().max().double_value(&[]);
        assert!(got.kind() == Kind::Uint8 && worst <= 1.0, "{worst} of {scale:?}");
        assert!(expected.std(false).double_value(&[]) > 10.0, "the bytes are all alike");
    }

    fn assert_same(got: &Tensor, expected: &Tensor) {
        let worst = ((got - expected).abs().max() / expected.abs().max()).double_value(&[]);
        assert!(got.kind() == Kind::Float && worst < 1e-5, "{worst:.1e}");
    }

    const SCALES: [Scale; 2] = [Scale { step: 0.02, zero_point: 0 }, Scale { step: 0.015, zero_point: 120 }];
    const GEOMETRY: Geometry = Geometry { padding: [1, 2], stride: [2, 1], dilation: [1, 1], groups: 2 };

    #[test]
    fn bytes_are_the_nearest_values_and_those_outside_the_ends() {
        for scale in SCALES {
            let x = to_memory_format(&(random(&[3, 7, 5, 9]) * 3.0), MemoryFormat::ChannelsLast).unwrap();
            for x in [&x, &x.narrow(1, 2, 4), &x.contiguous(), &x.flatten(1, -1)] {
                let bytes = scale.quantize(x).unwrap();
                assert_near(&bytes, &x.to_kind(Kind::Double), scale);
                assert_eq!(memory_format(&bytes), memory_format(x).or(Some(MemoryFormat::ChannelsLast)));
                assert_same(&scale.dequantize(&bytes).unwrap(), &exact(&bytes, scale));
                assert_eq!(scale.quantize(&scale.dequantize(&bytes).unwrap()).unwrap(), bytes);
            }
            let part = bytes(&[2, 6, 3, 3]);
            assert_same(&scale.dequantize(&part.narrow(1, 1, 3)).unwrap(), &exact(&part.narrow(1, 1, 3), scale));
        }
        let error = SCALES[0].dequantize(&random(&[2])).unwrap_err().to_string();
        assert_eq!(error, "expected uint8 on the CPU");
        assert!(SCALES[0].quantize(&bytes(&[1, 1, 1, 1])).is_err());
    }

    #[test]
    fn values_are_counted_in_equal_parts_but_for_zeros() {
        let values = Tensor::from_slice(&[-1.0_f32, -0.6, 0.0, 0.1, 0.9, 1.0, 3.0, f32::NAN, 0.0, 0.6]);
        let mut counts = [1, 0, 0, 0];
        count(&values, -1.0, 1.0, &mut counts).unwrap();
        assert_eq!(counts, [3, 0, 1, 3]);
        count(&values, 1.0, 1.0, &mut counts).unwrap();
        assert_eq!(counts, [3, 0, 1, 3]);
        assert!(count(&values.to_kind(Kind::Double), 0.0, 1.0, &mut counts).is_err());
    }

    #[test]
    fn a_convolution_is_that_of_the_rounded_values() {
        if skipped() {
            return;
        }
        for (input, bias) in [(SCALES[0], true), (SCALES[1], true), (SCALES[1], false)] {
            let (weight, shift) = (random(&[8, 3, 3, 3]), random(&[8]));
            let bias = bias.then_some(&shift);
            let conv = Conv::new(&weight, bias, &GEOMETRY, input, [1, 6, 9, 9]).unwrap();
            let bias = bias.map(|bias| bias.to_kind(Kind::Double));
            for size in [[1, 6, 9, 9], [5, 6, 12, 7]] {
                let x = bytes(&size);
                let Geometry { padding, stride, dilation, groups } = GEOMETRY;
                let plain = exact(&x, input).conv2d(&rounded(&weight), bias.as_ref(), stride, padding, dilation, groups);
                for (relu, expected) in [(false, plain.shallow_clone()), (true, plain.relu())] {
                    let output = Scale { step: 0.2, zero_point: if relu { 0 } else { 100 } };
                    let got = conv.forward(&x, &GEOMETRY, relu, Some(output)).unwrap();
                    assert_near(&got, &expected, output);
                    assert_eq!(memory_format(&got), Some(MemoryFormat::ChannelsLast));
                    assert_same(&conv.forward(&x, &GEOMETRY, relu, None).unwrap(), &expected);
                }
            }
        }
    }

    #[test]
    fn a_sum_is_written_over_what_is_added_only_where_that_is_allowed() {
        if skipped() {
            return;
        }
        let geometry = |padding| Geometry { padding: [padding; 2], stride: [1, 1], dilation: [1, 1], groups: 1 };
        for (size, kernel) in [([2, 16, 9, 7], 3), ([3, 16, 1, 1], 1)] {
            let (weight, bias, x) = (random(&[32, 16, kernel, kernel]), random(&[32]), bytes(&size));
            let geometry = geometry(kernel / 2);
            let conv = Conv::new(&weight, Some(&bias), &geometry, SCALES[1], size).unwrap();
            let plain = exact(&x, SCALES[1]).conv2d(
                &rounded(&weight),
                Some(&bias.to_kind(Kind::Double)),
                [1, 1],
                geometry.padding,
                [1, 1],
                1,
            );
            let spread = plain.std(false).double_value(&[]);
            for (relu, in_place) in [(false, false), (true, false), (false, true), (true, true)] {
                let (other, scale) = (bytes(&plain.size()), Scale { step: spread / 50.0, zero_point: 70 });
                let before = other.copy();
                let expected = &plain + exact(&other, scale);
                let expected = if relu { expected.relu() } else { expected };
                let output = Scale { step: spread / 25.0, zero_point: if relu { 0 } else { 100 } };
                let got = conv.forward_add(&x, &geometry, (&other, scale), output, Sum { relu, in_place }).unwrap();
                assert_near(&got, &expected, output);
                assert_eq!(got.data_ptr() == other.data_ptr(), in_place);
                assert!(in_place || other == before);
                let lies_otherwise = before.contiguous();
                let sum = Sum { relu, in_place };
                assert_eq!(conv.forward_add(&x, &geometry, (&lies_otherwise, scale), output, sum).unwrap(), got);
            }
        }
    }

    #[test]
    fn a_linear_layer_is_that_of_the_rounded_values() {
        if skipped() {
            return;
        }
        for input in SCALES {
            let (weight, bias) = (random(&[40, 133]), random(&[40]));
            let spread = 133_f64.sqrt() * 74.0 * input.step;
            for bias in [Some(&bias), None] {
                let layer = Linear::new(&weight, bias, input).unwrap();
                for batch in [1, 7] {
                    let x = bytes(&[batch, 133, 1, 1]).flatten(1, -1);
                    let plain = exact(&x, input).linear(&rounded(&weight), bias.map(|bias| bias.to_kind(Kind::Double)).as_ref());
                    for (relu, expected) in [(false, plain.shallow_clone()), (true, plain.relu())] {
                        let output = Scale { step: spread / 25.0, zero_point: if relu { 0 } else { 100 } };
                        assert_near(&layer.forward(&x, relu, Some(output)).unwrap(), &expected, output);
                        assert_same(&layer.forward(&x, relu, None).unwrap(), &expected);
                    }
                }
            }
        }
    }

    #[test]
    fn what_it_does_not_take_is_an_error() {
        if skipped() {
            return;
        }
        let conv = Conv::new(&random(&[8, 3, 3, 3]), None, &GEOMETRY, SCALES[0], [1, 6, 9, 9]).unwrap();
        let error = conv.forward(&random(&[1, 6, 9, 9]), &GEOMETRY, false, None).unwrap_err().to_string();
        assert_eq!(error, "expected uint8 on the CPU, got Float on Cpu");
        assert!(conv.forward(&bytes(&[1, 5, 9, 9]), &GEOMETRY, false, None).is_err());
        assert!(conv.forward(&bytes(&[1, 6, 9, 9]), &Geometry { groups: 0, ..GEOMETRY }, false, None).is_err());
        let wrong = Scale { step: 1.0, zero_point: 256 };
        let error = wrong.quantize(&random(&[2])).unwrap_err().to_string();
        assert_eq!(error, format!("a scale has a step above 0 and a zero point of 0 to 255, got {wrong:?}"));
        assert!(count(&random(&[2]), f64::NEG_INFINITY, 1.0, &mut [0]).is_err());
        let linear = Linear::new(&random(&[3, 4]), None, SCALES[0]).unwrap();
        let wrong = Tensor::zeros([2, 5], (Kind::Uint8, Device::Cpu));
        let error = linear.forward(&wrong, false, None).unwrap_err().to_string();
        assert_eq!(error, "expected examples [N, 4], got [2, 5]");
        assert!(Linear::new(&random(&[3, 4]), Some(&random(&[1])), SCALES[0]).is_err());
        // A channel of zeros stays one.
        let (weight, scales) = quantize_weight(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))).unwrap();
        assert_eq!(weight.count_nonzero(None::<i64>).int64_value(&[]), 0);
        assert!(bool::try_from(scales.isfinite().all()).unwrap());
    }
}
