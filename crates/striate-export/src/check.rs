//! Exports, run by tract: a runtime that shares no code with libtorch.
use crate::file::Failure;
use crate::{ExportError, Onnx};
use std::io::Cursor;
use tract_onnx::prelude::*;

/// The values of a [`Batch`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Of pictures.
    Bytes(Vec<u8>),
    /// Of normalised inputs.
    Floats(Vec<f32>),
}

/// An input of an export.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its shape, with the batch as its first dimension.
    pub shape: Vec<usize>,
    /// Its values in row-major order.
    pub values: Values,
}

/// An export, read back and run by tract.
#[derive(Debug)]
pub struct Runner {
    model: InferenceModel,
}

impl Runner {
    /// Reads what [`Onnx::write`] would write.
    ///
    /// # Errors
    ///
    /// An export that cannot be written, and one that tract cannot read.
    pub fn new(onnx: &Onnx) -> Result<Self, ExportError> {
        let mut bytes = Vec::new();
        onnx.content.write_to(&mut bytes, None).map_err(|failure| match failure {
            Failure::Export(error) => error,
            Failure::Io(error) => ExportError::Run { reason: error.to_string() },
        })?;
        let model = tract_onnx::onnx().model_for_read(&mut Cursor::new(bytes)).map_err(reason)?;
        Ok(Self { model })
    }

    /// The values of each output for these inputs, in row-major order.
    ///
    /// # Errors
    ///
    /// Inputs that do not fit, and operators that tract lacks.
    pub fn run(&self, inputs: &[Batch]) -> Result<Vec<Vec<f32>>, ExportError> {
        let run = || -> TractResult<Vec<Vec<f32>>> {
            let mut model = self.model.clone();
            let mut values = TVec::new();
            for (index, Batch { shape, values: of }) in inputs.iter().enumerate() {
                let tensor = match of {
                    Values::Bytes(bytes) => Tensor::from_shape(shape, bytes)?,
                    Values::Floats(floats) => Tensor::from_shape(shape, floats)?,
                };
                model.set_input_fact(index, InferenceFact::dt_shape(tensor.datum_type(), shape))?;
                values.push(tensor.into_tvalue());
            }
            let outputs = model.into_optimized()?.into_runnable()?.run(values)?;
            outputs.iter().map(|output| Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())).collect()
        };
        run().map_err(reason)
    }
}

fn reason(error: TractError) -> ExportError {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    ExportError::Run { reason: causes.join(": ") }
}
