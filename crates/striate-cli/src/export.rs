//! `export`: a bundle as ONNX.
use crate::cli::{ExportArgs, ExportPrecision};
use crate::error::CliError;
use crate::output::named;
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
    // What is wrong with writing over the bundle is told later.
    if args.output != args.bundle {
        named(&args.output, "onnx")?;
    }
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
    use crate::eval::{opened, section};
    use crate::source;
    use std::path::Path;
    use striate::data::Opened;
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

    /// How many pictures of a source are compared at most: tract takes a second or so for each of a large network.
    const PICTURES: usize = 200;

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

    /// Runs the export with tract, and the bundle, on random inputs or pictures of `--data`: one line, or an error if they differ by
    /// more than the precision explains.
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
        let Agreement { difference, agree, count } = match &args.data {
            None => compare(&args.bundle, args.raw, onnx)?,
            Some(data) => compare_on(&args.bundle, data, onnx)?,
        };
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

    /// Compares the probabilities of random pictures.
    fn pictures(path: &Path, bundle: &Bundle, runner: &Runner, agreement: &mut Agreement) -> Result<(), CliError> {
        let classifier = classifier(path, bundle)?;
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
            let pixels = picture.f_to_kind(Kind::Uint8)?.f_permute([1, 2, 0])?.f_contiguous()?;
            picture_alike(&classifier, runner, &pixels, agreement)?;
        }
        Ok(())
    }

    /// Runs the export of a bundle with tract, and the bundle, on pictures of a source.
    fn compare_on(path: &Path, data: &str, onnx: &Onnx) -> Result<Agreement, CliError> {
        let bundle = source::bundle(path)?;
        let classifier = classifier(path, &bundle)?;
        let runner = Runner::new(onnx)?;
        // Whole pictures, since the export resizes them itself.
        let data = match opened(&section(data, None)?, Opened::to_judge)? {
            Opened::Folder(folder) => Opened::Folder(folder.fit(classifier.preprocess()).map_err(striate::Error::from)?),
            memory => memory,
        };
        let (count, examples) = (data.dataset().len(), data.dataset().examples().map_err(striate::Error::from)?);
        let mut agreement = Agreement { difference: 0.0, agree: 0, count: 0 };
        let channels = classifier.preprocess().input[0];
        for index in spread(count) {
            let picture = examples.picture(index).map_err(striate::Error::from)?;
            let shape = [picture.height, picture.width, picture.channels].map(|size| size as i64);
            let pixels = Tensor::f_from_slice(&picture.data)?.f_view(shape)?;
            // Grey for a network of colours is the same in each of them.
            let pixels = if shape[2] == 1 { pixels.f_expand([-1, -1, channels], false)?.f_contiguous()? } else { pixels };
            picture_alike(&classifier, &runner, &pixels, &mut agreement)?;
        }
        Ok(agreement)
    }

    /// The places of [`PICTURES`] examples of so many, from the first on in equal steps; all if they are fewer.
    pub(super) fn spread(count: usize) -> impl Iterator<Item = usize> {
        let most = count.min(PICTURES);
        (0..most).map(move |number| number * count / most)
    }

    /// What answers with all classes.
    fn classifier(path: &Path, bundle: &Bundle) -> Result<Classifier, CliError> {
        let mut options = ClassifierOptions::default();
        options.top = bundle.info.classes.len();
        options.threshold = bundle.info.threshold.map(|_| 0.0);
        Ok(Classifier::of(bundle, path, options)?)
    }

    /// Compares the probabilities of a picture (`[H, W, C]`, uint8).
    fn picture_alike(
        classifier: &Classifier,
        runner: &Runner,
        pixels: &Tensor,
        agreement: &mut Agreement,
    ) -> Result<(), CliError> {
        let mut ours = vec![0.0; classifier.info().classes.len()];
        for answer in classifier.classify(&pixels.f_permute([2, 0, 1])?)?.top {
            ours[answer.index] = answer.probability;
        }
        let pixels = pixels.f_unsqueeze(0)?;
        let batch = Batch { shape: sizes(&pixels), values: Values::Bytes(pixels.f_flatten(0, -1)?.try_into()?) };
        for theirs in runner.run(&[batch])? {
            agreement.add(&ours, &theirs, 1.0);
        }
        Ok(())
    }

    fn sizes(tensor: &Tensor) -> Vec<usize> {
        tensor.size().iter().map(|size| size.unsigned_abs() as usize).collect()
    }
}

#[cfg(all(test, feature = "check"))]
mod tests {
    use super::check::spread;

    #[test]
    fn pictures_are_spread_over_all_of_a_source() {
        assert_eq!(spread(3).collect::<Vec<_>>(), [0, 1, 2]);
        let of_many: Vec<usize> = spread(1000).collect();
        assert_eq!((of_many.len(), of_many[1], of_many[199]), (200, 5, 995));
        assert_eq!(spread(0).count(), 0);
    }
}
