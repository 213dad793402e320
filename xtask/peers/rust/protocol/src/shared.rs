//! The file that ours writes, for peers that have no reader of their own.
use crate::Outcome;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::Path;

/// Float32 values and their shape.
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// What the file holds.
pub struct Shared {
    /// By torchvision's names.
    pub weights: HashMap<String, Array>,
    /// `[N, C, H, W]`.
    pub images: Array,
    /// `[N]`.
    pub labels: Vec<i64>,
    /// `[N, classes]`.
    pub logits: Array,
}

impl Shared {
    pub fn read(path: &Path) -> Outcome<Self> {
        let bytes = std::fs::read(path)?;
        let mut weights = HashMap::new();
        let mut labels = Vec::new();
        for (name, view) in SafeTensors::deserialize(&bytes)?.iter() {
            match view.dtype() {
                Dtype::F32 => {
                    let values = view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                    weights.insert(name.to_owned(), Array { shape: view.shape().to_vec(), values });
                }
                Dtype::I64 if name == "bench.labels" => {
                    labels = view.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
                }
                // Batch norms count their batches.
                _ => {}
            }
        }
        let mut input = |name: &str| weights.remove(name).ok_or(format!("the file has no {name}"));
        let (images, logits) = (input("bench.images")?, input("bench.logits")?);
        Ok(Self { images, logits, labels, weights })
    }

    /// The weight of this name.
    pub fn weight(&self, name: &str) -> Outcome<&Array> {
        Ok(self.weights.get(name).ok_or(format!("the file has no {name}"))?)
    }

    /// How far these logits are from the file's, relative to the largest.
    pub fn distance(&self, logits: &[f32]) -> f64 {
        if logits.len() != self.logits.values.len() {
            return f64::NAN;
        }
        let pairs = || logits.iter().zip(&self.logits.values);
        // A NaN must not get lost in a maximum.
        if logits.iter().any(|logit| logit.is_nan()) {
            return f64::NAN;
        }
        let furthest = pairs().map(|(got, expected)| f64::from((got - expected).abs())).fold(0.0, f64::max);
        furthest / pairs().map(|(_, expected)| f64::from(expected.abs())).fold(0.0, f64::max)
    }
}
