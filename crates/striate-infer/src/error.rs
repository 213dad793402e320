use striate_graph::GraphError;
use striate_torch::TorchError;

/// Why a network can't be frozen, or its feature maps can't be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A device or a processor that has no int8.
    #[error("int8 needs a CPU with AVX-512 VNNI or AVX-VNNI, and libtorch's oneDNN: use float32 or bfloat16")]
    NoInt8,
    /// Plans compute in no float16 on a CPU.
    #[error("float16 needs a CUDA device: use float32 or bfloat16")]
    NoFloat16,
    /// A plan in int8 without a calibration.
    #[error("int8 needs a calibration: measure one with `Calibration::measure`")]
    NotCalibrated,
    /// A calibration without images.
    #[error("int8 needs at least one image to calibrate")]
    NoImages,
    /// Calibration images from which a layer computes NaN or infinity.
    #[error("{layers}: the calibration images give values that are not finite: check the weights and the preprocessing")]
    NotFinite {
        /// The layers that gave them.
        layers: String,
    },
    /// A calibration of another network, or of another version of its plan.
    #[error("the calibration does not fit the network: {reason}: measure one of this network")]
    Misfit {
        /// What is wrong, naming a layer.
        reason: String,
    },
    /// The network failed, or libtorch did.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl From<TorchError> for PlanError {
    fn from(error: TorchError) -> Self {
        Self::Graph(error.into())
    }
}

impl From<tch::TchError> for PlanError {
    fn from(error: tch::TchError) -> Self {
        TorchError::from(error).into()
    }
}
