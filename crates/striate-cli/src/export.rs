//! `export`: a bundle as ONNX.
use crate::cli::{ExportArgs, ExportPrecision};
use crate::error::CliError;
use crate::print;
use crate::source::no_folder;
use striate_export::{ExportOptions, Onnx, Precision};
use striate_torch::Shown;

/// Writes the file. Nothing here computes, so `striate` does it itself.
pub(crate) fn export(args: &ExportArgs) -> Result<(), CliError> {
    let onnx = prepared(args)?;
    onnx.write(&args.output)?;
    told(args, &onnx)
}

/// The same, if tract answers as the bundle does.
#[cfg(feature = "check")]
pub(crate) fn export_checked(args: &ExportArgs) -> Result<(), CliError> {
    let onnx = prepared(args)?;
    let agreement = check::agreement(args, &onnx)?;
    onnx.write(&args.output)?;
    told(args, &onnx)?;
    print(&format!("{agreement}\n"))
}

#[cfg(feature = "check")]
pub(crate) use check::compare;

fn prepared(args: &ExportArgs) -> Result<Onnx, CliError> {
    no_folder(&args.bundle)?;
    let metadata = args.metadata.iter().map(|entry| pair(entry)).collect::<Result<_, _>>()?;
    let (raw, precision, fold) = (args.raw, args.precision.into(), !args.no_fold);
    let options = ExportOptions { raw, precision, fold, metadata, ..ExportOptions::default() };
    Ok(Onnx::of_bundle(&args.bundle, &options)?)
}

fn pair(entry: &str) -> Result<(String, String), CliError> {
    let pair = entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    pair.ok_or_else(|| CliError::Usage(format!("--metadata {entry}: write it as NAME=VALUE")))
}

fn told(args: &ExportArgs, onnx: &Onnx) -> Result<(), CliError> {
    let megabytes = onnx.tensors_len() as f64 / 1e6;
    let signature = onnx.signature();
    print(&format!("{}: {}, {megabytes:.1} MB\n", Shown(args.output.display()), Shown(&signature)))
}

impl From<ExportPrecision> for Precision {
    fn from(precision: ExportPrecision) -> Self {
        match precision {
            ExportPrecision::Float32 => Self::Float32,
            ExportPrecision::Float16 => Self::Float16,
            ExportPrecision::Int8 => Self::Int8,
        }
    }
}

#[cfg(feature = "check")]
mod check {
    use super::{CliError, ExportArgs, Onnx};
    use crate::cli::ExportPrecision;
    use crate::source;
    use std::path::Path;
    use striate::{Classifier, ClassifierOptions};
    use striate_datasets::ImageSize;
    use striate_export::{Batch, Runner, Values};
    use striate_graph::InitOptions;
    use striate_layers::Mode;
    use striate_models::Bundle;
    use striate_torch::Generator;
    use tch::{Device, Kind, Tensor};

    /// Random inputs of the network, in one batch.
    const INPUTS: i64 = 4;
    /// Sides of random pictures, as shares of the size that they are resized to: as they are, larger, and smaller and longer.
    const SIDES: [[f64; 2]; 4] = [[1.0, 1.0], [1.3, 1.7], [2.1, 1.1], [0.6, 0.9]];

    /// How far two answers are apart.
    pub(crate) struct Agreement {
        /// The largest difference: of values, as a share of the largest; or of probabilities.
        pub(crate) difference: f64,
        /// How many have the same likeliest class.
        agree: usize,
        count: usize,
    }

    impl Agreement {
        fn add(&mut self, ours: &[f64], theirs: &[f32], scale: f64) {
            let differences = ours.iter().zip(theirs).map(|(ours, theirs)| (ours - f64::from(*theirs)).abs() / scale);
            self.difference = differences.fold(self.difference, f64::max);
            let ours_first = (0..ours.len()).max_by(|a, b| ours[*a].total_cmp(&ours[*b]));
            let theirs_first = (0..theirs.len()).max_by(|a, b| theirs[*a].total_cmp(&theirs[*b]));
            self.agree += usize::from(ours_first == theirs_first);
            self.count += 1;
        }
    }

    /// Runs the export with tract, and the bundle, on random inputs: one line, or an error if they differ by more than the precision
    /// explains.
    pub(super) fn agreement(args: &ExportArgs, onnx: &Onnx) -> Result<String, CliError> {
        let (what, bound) = match args.raw {
            true => ("of the largest value", [1e-4, 0.02, 0.3]),
            false => ("of a probability", [0.01, 0.02, 0.2]),
        };
        let [float32, float16, int8] = bound;
        let bound = match args.precision {
            ExportPrecision::Float32 => float32,
            ExportPrecision::Float16 => float16,
            ExportPrecision::Int8 => int8,
        };
        let Agreement { difference, agree, count } = compare(&args.bundle, args.raw, onnx)?;
        let line = format!("tract: largest difference {difference:.1e} {what}, {agree} of {count} classes agree");
        // NaN is no agreement either.
        if difference <= bound { Ok(line) } else { Err(CliError::Failed(format!("{line}, beyond {bound}: nothing was written"))) }
    }

    /// Runs the export of a bundle with tract, and the bundle.
    pub(crate) fn compare(path: &Path, raw: bool, onnx: &Onnx) -> Result<Agreement, CliError> {
        let bundle = source::bundle(path)?;
        let runner = Runner::new(onnx)?;
        let mut agreement = Agreement { difference: 0.0, agree: 0, count: 0 };
        let compare = if raw { inputs } else { pictures };
        compare(path, &bundle, &runner, &mut agreement)?;
        Ok(agreement)
    }

    /// Compares the outputs for normalised inputs.
    fn inputs(path: &Path, bundle: &Bundle, runner: &Runner, agreement: &mut Agreement) -> Result<(), CliError> {
        let network = bundle.network(path, &InitOptions::default())?;
        let mut random = Generator::new(0);
        let mut tensors = Vec::new();
        for input in network.graph().inputs() {
            let mut tensor = Tensor::f_zeros([&[INPUTS], input.shape.dims()].concat(), (Kind::Float, Device::Cpu))?;
            random.normal(&mut tensor, 0.0, 1.0)?;
            tensors.push(tensor);
        }
        let _no_grad = striate_torch::no_grad();
        let ours = network.forward_with_taps(&tensors.iter().collect::<Vec<_>>(), Mode::Eval, &[])?;
        let batch = |tensor: &Tensor| -> Result<Batch, CliError> {
            Ok(Batch { shape: sizes(tensor), values: Values::Floats(tensor.f_flatten(0, -1)?.try_into()?) })
        };
        let theirs = runner.run(&tensors.iter().map(batch).collect::<Result<Vec<_>, _>>()?)?;
        for ((_, ours), theirs) in ours.outputs().iter().zip(&theirs) {
            let ours = Vec::<f64>::try_from(ours.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)?;
            let scale = ours.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
            let length = ours.len() / INPUTS.unsigned_abs() as usize;
            for (ours, theirs) in ours.chunks_exact(length).zip(theirs.chunks_exact(length)) {
                agreement.add(ours, theirs, scale);
            }
        }
        Ok(())
    }

    /// Compares the probabilities of pictures.
    fn pictures(path: &Path, bundle: &Bundle, runner: &Runner, agreement: &mut Agreement) -> Result<(), CliError> {
        let mut options = ClassifierOptions::default();
        options.top = bundle.info.classes.len();
        options.threshold = bundle.info.threshold.map(|_| 0.0);
        let classifier = Classifier::of(bundle, path, options)?;
        let preprocess = classifier.preprocess();
        let size = match preprocess.image {
            ImageSize::ShorterSide { shorter_side } => [shorter_side; 2],
            ImageSize::Exact(size) => size,
            _ => [preprocess.input[1], preprocess.input[2]],
        };
        let mut random = Generator::new(0);
        for share in SIDES {
            let [height, width] = [0, 1].map(|axis| ((size[axis] as f64 * share[axis]) as i64).max(1));
            let mut picture = Tensor::f_zeros([preprocess.input[0], height, width], (Kind::Float, Device::Cpu))?;
            random.uniform(&mut picture, 0.0, 256.0)?;
            let picture = picture.f_to_kind(Kind::Uint8)?;
            let mut ours = vec![0.0; bundle.info.classes.len()];
            for answer in classifier.classify(&picture)?.top {
                ours[answer.index] = answer.probability;
            }
            let pixels = picture.f_permute([1, 2, 0])?.f_unsqueeze(0)?.f_contiguous()?;
            let batch = Batch { shape: sizes(&pixels), values: Values::Bytes(pixels.f_flatten(0, -1)?.try_into()?) };
            for theirs in runner.run(&[batch])? {
                agreement.add(&ours, &theirs, 1.0);
            }
        }
        Ok(())
    }

    fn sizes(tensor: &Tensor) -> Vec<usize> {
        tensor.size().iter().map(|size| size.unsigned_abs() as usize).collect()
    }
}
