use std::path::PathBuf;
use striate_files::FilesError;
use striate_graph::GraphError;
use striate_models::ModelError;
use striate_torch::{FileError, Shown};

/// Why a bundle could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The bundle cannot be read, or is none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The bundle's weights cannot be read, or the export cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The weights don't fit the network.
    #[error("{}: {source}", Shown(path.display()))]
    Misfit {
        /// The bundle.
        path: PathBuf,
        /// What doesn't fit.
        source: Box<GraphError>,
    },
    /// A layer of your own without nodes.
    #[error("layer {layer} ({op}) is a layer of your own, and ONNX has none of its kind: register its nodes with CustomNodes")]
    Custom {
        /// The layer's full name.
        layer: String,
        /// The kind of layer.
        op: &'static str,
    },
    /// A layer that has no such parameter, or whose nodes failed.
    #[error("layer {} ({op}) {}", Shown(layer), Shown(reason))]
    Layer {
        /// The layer's full name.
        layer: String,
        /// The kind of layer.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Weights that no network takes.
    #[error("{}: {} has values that are NaN or infinite: export another checkpoint", Shown(path.display()), Shown(name))]
    NotFinite {
        /// The bundle.
        path: PathBuf,
        /// The parameter.
        name: String,
    },
    /// Values that float16 cannot hold.
    #[error("{} has values beyond 65504, the largest of float16: export it in float32", Shown(name))]
    TooLarge {
        /// The parameter.
        name: String,
    },
    /// A bundle that does not say how pictures become inputs.
    #[error("{} does not say how pictures become inputs: export the network alone, with normalised inputs", Shown(path.display()))]
    NoPictures {
        /// The bundle.
        path: PathBuf,
    },
    /// A way of resizing pictures that this crate has no nodes for.
    #[error("ONNX nodes for {} are not written yet: export the network alone, with normalised inputs", Shown(what))]
    Resizing {
        /// The way.
        what: String,
    },
    /// A bundle without a calibration for int8.
    #[error("{} has no int8 calibration: store one in the bundle first", Shown(path.display()))]
    NoCalibration {
        /// The bundle.
        path: PathBuf,
    },
    /// An export that tract cannot run.
    #[error("tract cannot run the export: {}", Shown(reason))]
    Run {
        /// tract's reason.
        reason: String,
    },
    /// An output that would replace what is read.
    #[error("{} is the bundle itself: write the export to another file", Shown(path.display()))]
    SameFile {
        /// The file.
        path: PathBuf,
    },
}

impl From<FilesError> for ExportError {
    fn from(error: FilesError) -> Self {
        Self::File(error.into())
    }
}
