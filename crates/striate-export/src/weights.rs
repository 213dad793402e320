//! Parameters of a bundle, read one by one.
use crate::ExportError;
use half::{bf16, f16};
use std::path::{Path, PathBuf};
use striate_torch::{FileError, StoredTensors};
use tch::Kind;

/// A bundle's parameters.
#[derive(Debug)]
pub(crate) struct Weights {
    path: PathBuf,
    stored: StoredTensors,
}

impl Weights {
    pub(crate) fn open(path: &Path) -> Result<Self, ExportError> {
        Ok(Self { path: path.into(), stored: StoredTensors::open(path)? })
    }

    /// The shapes of the network's parameters; tensors with a `/` in their names are not the network's.
    pub(crate) fn shapes(&self) -> std::collections::BTreeMap<String, Vec<i64>> {
        let mut shapes = self.stored.shapes();
        shapes.retain(|name, _| !name.contains('/'));
        shapes
    }

    /// The values of a parameter as bytes of float32. They are changed in place: a large parameter is in memory once.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, ExportError> {
        let unsupported = |dtype: String| FileError::UnsupportedType { path: self.path.clone(), name: name.to_owned(), dtype };
        let (kind, bytes) = self.stored.read(name)?.ok_or_else(|| unsupported("none".to_owned()))?;
        let bytes = match kind {
            Kind::Float => bytes,
            Kind::Double => converted(&bytes, |value| f64::from_le_bytes(value) as f32),
            Kind::Half => converted(&bytes, |value| f16::from_le_bytes(value).to_f32()),
            Kind::BFloat16 => converted(&bytes, |value| bf16::from_le_bytes(value).to_f32()),
            other => return Err(unsupported(format!("{other:?}")).into()),
        };
        let finite = floats(&bytes).all(f32::is_finite);
        if finite { Ok(bytes) } else { Err(ExportError::NotFinite { path: self.path.clone(), name: name.to_owned() }) }
    }

    /// The values of a small parameter.
    pub(crate) fn values(&self, name: &str) -> Result<Vec<f32>, ExportError> {
        Ok(floats(&self.bytes(name)?).collect())
    }
}

fn converted<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<u8> {
    bytes.as_chunks().0.iter().flat_map(|value| convert(*value).to_le_bytes()).collect()
}

/// The numbers that bytes of float32 hold.
pub(crate) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value))
}

/// Multiplies each row, of as many equally long ones as there are factors.
pub(crate) fn scale_rows(bytes: &mut [u8], factors: &[f64]) {
    let row = bytes.len() / factors.len().max(1);
    for (row, factor) in bytes.chunks_exact_mut(row.max(1)).zip(factors) {
        for value in row.as_chunks_mut().0 {
            *value = ((f64::from(f32::from_le_bytes(*value)) * factor) as f32).to_le_bytes();
        }
    }
}
