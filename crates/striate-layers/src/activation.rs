use crate::shape::one;
use crate::{Forward, Layer, LayerError, Mode, Shape};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// A nonlinearity, value by value: any shape to the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// tanh(x).
    Tanh,
    /// 1.7159 tanh(2x / 3), the squashing function of LeNet-5 (LeCun 1998, appendix A): close to ±1 at ±1.
    ScaledTanh,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

/// The amplitude of [`Activation::ScaledTanh`].
const AMPLITUDE: f64 = 1.7159;

impl Activation {
    /// The same as [`Forward::forward`], written over the input.
    pub fn forward_in_place(&self, mut input: Tensor) -> Result<Tensor, LayerError> {
        Ok(match self {
            Self::Relu => input.f_relu_()?,
            Self::Tanh => input.f_tanh_()?,
            Self::ScaledTanh => input.f_mul_scalar_(2.0 / 3.0)?.f_tanh_()?.f_mul_scalar_(AMPLITUDE)?,
            Self::Sigmoid => input.f_sigmoid_()?,
        })
    }
}

impl Layer for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::Relu => "ReLU",
            Self::Tanh => "Tanh",
            Self::ScaledTanh => "ScaledTanh",
            Self::Sigmoid => "Sigmoid",
        }
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        one(inputs).cloned()
    }
}

impl Forward for Activation {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        Ok(match self {
            Self::Relu => input.f_relu()?,
            Self::Tanh => input.f_tanh()?,
            Self::ScaledTanh => input.f_mul_scalar(2.0 / 3.0)?.f_tanh()?.f_mul_scalar(AMPLITUDE)?,
            Self::Sigmoid => input.f_sigmoid()?,
        })
    }
}

/// Probabilities from logits: softmax over the first dimension of an example (features or channels), the shape unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Softmax;

impl Layer for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        one(inputs).cloned()
    }
}

impl Forward for Softmax {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        Ok(one(inputs)?.f_softmax(1, None::<tch::Kind>)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn in_place_is_the_same_in_the_same_memory() {
        for activation in [Activation::Relu, Activation::Tanh, Activation::ScaledTanh, Activation::Sigmoid] {
            let x = Tensor::from_slice(&[-1.5_f64, 0.0, 0.5]);
            let (expected, memory) = (activation.forward(&[], &[&x], Mode::Eval).unwrap(), x.data_ptr());
            let y = activation.forward_in_place(x).unwrap();
            assert!(y == expected && y.data_ptr() == memory);
        }
    }

    #[test]
    fn the_scaled_tanh_is_close_to_1_at_1() {
        let x = Tensor::from_slice(&[-1.0_f64, 0.0, 1.0]);
        let y = Vec::<f64>::try_from(Activation::ScaledTanh.forward(&[], &[&x], Mode::Eval).unwrap()).unwrap();
        let expected = 1.7159 * (2.0_f64 / 3.0).tanh();
        assert!((expected - 1.0).abs() < 1e-4);
        for (y, expected) in y.iter().zip([-expected, 0.0, expected]) {
            assert!((y - expected).abs() < 1e-12, "{y} {expected}");
        }
    }
}
