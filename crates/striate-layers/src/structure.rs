use crate::drawn;
use crate::shape::one;
use crate::{Forward, Layer, LayerError, Mode, Shape};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Sets each value to zero with probability `p` in training and scales the others by 1 / (1 - p); passes everything in
/// evaluation (Hinton 2012, arXiv:1207.0580). Draws from libtorch's global generator: see `striate_torch::manual_seed`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// The share that is dropped, from 0 to below 1.
    pub p: f64,
}

impl Dropout {
    /// Drops this share.
    pub fn new(p: f64) -> Self {
        Self { p }
    }
}

impl Layer for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn describe(&self) -> String {
        format!("p={}", self.p)
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(LayerError::option(format!("p = {}", self.p), "must be from 0 to below 1"));
        }
        one(inputs).cloned()
    }
}

impl Forward for Dropout {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        match drawn::part().filter(|_| mode.is_train() && self.p > 0.0) {
            // What libtorch's operator computes on the CPU.
            Some(part) => Ok(input.f_mul(&drawn::kept(&part, &input.size(), 1.0 - self.p, input)?)?),
            None => Ok(input.f_dropout(self.p, mode.is_train())?),
        }
    }
}

/// Makes a vector of an example of any shape: `[N, C, H, W]` to `[N, C * H * W]`, channel by channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flatten;

impl Layer for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        Ok(Shape::vector(one(inputs)?.numel()))
    }
}

impl Forward for Flatten {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        Ok(one(inputs)?.f_flatten(1, -1)?)
    }
}

/// The sum of two or more inputs of one shape: the junction of a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add;

impl Layer for Add {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let first = several(inputs)?;
        match inputs.iter().find(|input| *input != first) {
            Some(other) => Err(LayerError::InputShape { expected: first.to_string(), got: other.clone() }),
            None => Ok(first.clone()),
        }
    }
}

impl Forward for Add {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let mut sum = several(inputs)?.shallow_clone();
        for input in &inputs[1..] {
            sum = sum.f_add(input)?;
        }
        Ok(sum)
    }
}

/// Two or more inputs one after another along their first dimension: `[N, C1, H, W]`, `[N, C2, H, W]`, ... to
/// `[N, C1 + C2 + ..., H, W]`, and vectors `[N, F1]`, `[N, F2]`, ... to `[N, F1 + F2 + ...]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concat;

impl Layer for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let first = several(inputs)?;
        let Some((_, rest)) = first.dims().split_first() else {
            return Err(LayerError::InputShape { expected: "[C, ...]".to_owned(), got: first.clone() });
        };
        let mut channels = 0;
        for input in inputs {
            match input.dims().split_first() {
                Some((more, other)) if other == rest => channels = i64::saturating_add(channels, *more),
                _ => {
                    let rest: String = rest.iter().map(|size| format!(", {size}")).collect();
                    return Err(LayerError::InputShape { expected: format!("[C{rest}]"), got: input.clone() });
                }
            }
        }
        Ok(Shape::new([&[channels], rest].concat()))
    }
}

impl Forward for Concat {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        several(inputs)?;
        Ok(Tensor::f_cat(inputs, 1)?)
    }
}

/// The first of two or more inputs.
fn several<T>(inputs: &[T]) -> Result<&T, LayerError> {
    match inputs {
        [first, _, ..] => Ok(first),
        _ => Err(LayerError::InputCount { expected: "two or more inputs", got: inputs.len() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn junctions_refuse_shapes_that_do_not_match() {
        let (a, b) = (Shape::image(8, 4, 4), Shape::image(8, 2, 4));
        let error = Add.output_shape(&[a.clone(), b.clone()]).unwrap_err().to_string();
        assert_eq!(error, "expected an input of shape [8, 4, 4], got [8, 2, 4]");
        let error = Concat.output_shape(&[a.clone(), b]).unwrap_err().to_string();
        assert_eq!(error, "expected an input of shape [C, 4, 4], got [8, 2, 4]");
        assert!(Add.output_shape(std::slice::from_ref(&a)).is_err());
        assert_eq!(Concat.output_shape(&[a.clone(), Shape::image(3, 4, 4)]).unwrap(), Shape::image(11, 4, 4));
        assert_eq!(Concat.output_shape(&[Shape::vector(5), Shape::vector(3)]).unwrap(), Shape::vector(8));
        assert!(Concat.output_shape(&[a, Shape::vector(3)]).is_err());
    }

    #[test]
    fn dropout_drops_its_share_in_training_only() {
        let x = Tensor::ones([100_000], (tch::Kind::Float, tch::Device::Cpu));
        striate_torch::manual_seed(3);
        let trained = Dropout::new(0.25).forward(&[], &[&x], Mode::Train).unwrap();
        let zeros = trained.eq(0.0).to_kind(tch::Kind::Float).mean(None).double_value(&[]);
        assert!((zeros - 0.25).abs() < 0.01, "{zeros}");
        assert!((trained.max().double_value(&[]) - 4.0 / 3.0).abs() < 1e-6);
        assert_eq!(Dropout::new(0.25).forward(&[], &[&x], Mode::Eval).unwrap(), x);
        assert!(Dropout::new(1.0).output_shape(&[Shape::vector(3)]).is_err());
    }
}
