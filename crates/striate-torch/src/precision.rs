use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The type of numbers that a network computes in. Text and files name it as [`Precision::name`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    #[serde(alias = "fp32")]
    Float32,
    /// Convolutions and linear layers in bfloat16, which has 8 bits of mantissa; what is sensitive to rounding in float32. In training,
    /// parameters, their gradients and the loss stay float32.
    #[serde(alias = "bf16")]
    Bfloat16,
    /// As bfloat16, in a type with 11 bits of mantissa and a small range, for which training scales the loss. For training alone.
    #[serde(alias = "fp16")]
    Float16,
    /// Weights and feature maps in bytes, for inference.
    Int8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Float32, Self::Bfloat16, Self::Float16, Self::Int8];

    /// `float32`, `bfloat16`, `float16` or `int8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no [`Precision`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no precision {0:?}: use float32, bfloat16, float16 or int8")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    /// Reads a name; `fp32`, `bf16` and `fp16` are short ones.
    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        match name {
            "float32" | "fp32" => Ok(Self::Float32),
            "bfloat16" | "bf16" => Ok(Self::Bfloat16),
            "float16" | "fp16" => Ok(Self::Float16),
            "int8" => Ok(Self::Int8),
            _ => Err(UnknownPrecision(name.to_owned())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_have_the_same_names() {
        let names = ["float32", "bfloat16", "float16", "int8"];
        for (precision, name) in Precision::ALL.into_iter().zip(names) {
            assert_eq!(precision.to_string(), name);
            assert_eq!(name.parse(), Ok(precision));
            let json = serde_json::to_string(&precision).unwrap();
            assert_eq!(json, format!("{name:?}"));
            assert_eq!(serde_json::from_str::<Precision>(&json).unwrap(), precision);
        }
        for (short, precision) in [("fp32", Precision::Float32), ("bf16", Precision::Bfloat16), ("fp16", Precision::Float16)] {
            assert_eq!(short.parse(), Ok(precision));
            assert_eq!(serde_json::from_value::<Precision>(short.into()).unwrap(), precision);
        }
        let error = "fp8".parse::<Precision>().unwrap_err().to_string();
        assert_eq!(error, "there is no precision \"fp8\": use float32, bfloat16, float16 or int8");
    }
}
