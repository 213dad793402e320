use crate::LayerError;
use serde::{Deserialize, Serialize};
use std::fmt;
use striate_torch::MAX_DIMS;

/// The largest dimension of a shape, and the largest option of a layer.
const MAX_DIM: i64 = i32::MAX as i64;
/// The most values of a shape or of a parameter: 4 TiB of float32. Sums of products of what is within both limits don't
/// overflow, or stop at the largest number.
const MAX_VALUES: i64 = 1 << 40;

/// The shape of one example, without the batch: `[C, H, W]` for an image or a feature map, `[F]` for a vector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape(Vec<i64>);

impl Shape {
    /// A shape of any dimensions.
    pub fn new(dims: impl Into<Vec<i64>>) -> Self {
        Self(dims.into())
    }

    /// `[channels, height, width]`.
    pub fn image(channels: i64, height: i64, width: i64) -> Self {
        Self(vec![channels, height, width])
    }

    /// `[features]`.
    pub fn vector(features: i64) -> Self {
        Self(vec![features])
    }

    /// The dimensions.
    pub fn dims(&self) -> &[i64] {
        &self.0
    }

    /// The number of values; the largest number where it is larger still.
    pub fn numel(&self) -> i64 {
        numel(&self.0)
    }

    /// Whether a value of this shape can be: it has at most 63 dimensions, which are 64 with the batch; each is from 1 to
    /// 2³¹ - 1; and there are at most 2⁴⁰ values.
    pub fn check(&self) -> Result<(), LayerError> {
        self.check_dims()?;
        check_values(&format!("the shape {self}"), &self.0)
    }

    fn check_dims(&self) -> Result<(), LayerError> {
        let dims = self.0.len();
        if dims >= MAX_DIMS {
            return Err(LayerError::option(format!("a shape of {dims} dimensions"), format!("must have fewer than {MAX_DIMS}")));
        }
        match self.0.iter().find(|dim| !(1..=MAX_DIM).contains(*dim)) {
            Some(dim) => {
                let reason = format!("has a dimension of {dim}: each must be from 1 to {MAX_DIM}");
                Err(LayerError::option(format!("the shape {self}"), reason))
            }
            None => Ok(()),
        }
    }

    /// `[C, H, W]`, or an error that says what was expected.
    pub fn as_image(&self) -> Result<[i64; 3], LayerError> {
        self.check_dims()?;
        <[i64; 3]>::try_from(self.0.as_slice())
            .map_err(|_| LayerError::InputShape { expected: "[C, H, W]".to_owned(), got: self.clone() })
    }

    /// `F` of `[F]`, or an error that says what was expected.
    pub fn as_vector(&self) -> Result<i64, LayerError> {
        self.check_dims()?;
        match self.0.as_slice() {
            [features] => Ok(*features),
            _ => Err(LayerError::InputShape { expected: "[F] (flatten it first)".to_owned(), got: self.clone() }),
        }
    }

    /// The shape of one example of a batch: all dimensions but the first.
    pub fn of_batch(batch: &tch::Tensor) -> Self {
        Self(batch.size().get(1..).unwrap_or_default().to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl From<[i64; 3]> for Shape {
    fn from(dims: [i64; 3]) -> Self {
        Self(dims.to_vec())
    }
}

impl From<[i64; 1]> for Shape {
    fn from(dims: [i64; 1]) -> Self {
        Self(dims.to_vec())
    }
}

/// A value for the height and one for the width: made from one number for both, or from `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair(pub [i64; 2]);

impl From<i64> for Pair {
    fn from(both: i64) -> Self {
        Self([both, both])
    }
}

impl From<[i64; 2]> for Pair {
    fn from(pair: [i64; 2]) -> Self {
        Self(pair)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.0[0], self.0[1])
    }
}

/// The product of dimensions; the largest number where it is larger still.
pub(crate) fn numel(dims: &[i64]) -> i64 {
    dims.iter().copied().fold(1, i64::saturating_mul)
}

pub(crate) fn check_values(what: &str, dims: &[i64]) -> Result<(), LayerError> {
    if numel(dims) <= MAX_VALUES {
        return Ok(());
    }
    Err(LayerError::option(what, format!("has over {MAX_VALUES} values: use a smaller input or a narrower layer")))
}

/// Fails if an option is below 1 or larger than any dimension can be.
pub(crate) fn positive(option: &str, value: i64) -> Result<(), LayerError> {
    in_range(option, 1, value)
}

/// Fails if an option is below `least` or larger than any dimension can be.
pub(crate) fn in_range(option: &str, least: i64, value: i64) -> Result<(), LayerError> {
    let reason = match value {
        _ if value < least => format!("must be at least {least}"),
        _ if value > MAX_DIM => format!("must be at most {MAX_DIM}"),
        _ => return Ok(()),
    };
    Err(LayerError::option(format!("{option} = {value}"), reason))
}

/// The only input of a layer that takes one.
pub(crate) fn one<T>(inputs: &[T]) -> Result<&T, LayerError> {
    match inputs {
        [input] => Ok(input),
        _ => Err(LayerError::InputCount { expected: "one input", got: inputs.len() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_libtorch_cannot_have_are_refused_shortly() {
        Shape::new(vec![1; 63]).check().unwrap();
        let error = Shape::new(vec![1; 100_000]).check().unwrap_err().to_string();
        assert_eq!(error, "a shape of 100000 dimensions must have fewer than 64");
        let error = Shape::new(vec![1; 64]).as_image().unwrap_err().to_string();
        assert_eq!(error, "a shape of 64 dimensions must have fewer than 64");
    }
}
