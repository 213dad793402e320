use crate::LayerError;
use std::fmt;

/// The shape of one example, without the batch: `[C, H, W]` for an image or a feature map, `[F]` for a vector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

    /// The number of values.
    pub fn numel(&self) -> i64 {
        self.0.iter().product()
    }

    /// `[C, H, W]`, or an error that says what was expected.
    pub fn as_image(&self) -> Result<[i64; 3], LayerError> {
        <[i64; 3]>::try_from(self.0.as_slice())
            .map_err(|_| LayerError::InputShape { expected: "[C, H, W]".to_owned(), got: self.clone() })
    }

    /// `F` of `[F]`, or an error that says what was expected.
    pub fn as_vector(&self) -> Result<i64, LayerError> {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// The only input of a layer that takes one.
pub(crate) fn one<T>(inputs: &[T]) -> Result<&T, LayerError> {
    match inputs {
        [input] => Ok(input),
        _ => Err(LayerError::InputCount { expected: "one input", got: inputs.len() }),
    }
}
