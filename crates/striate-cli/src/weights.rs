//! `weights`: what files of weights hold, other formats of them, and published ones.
use crate::cli::{ConvertArgs, HeadArg, InspectArgs, WeightsCommand};
use crate::error::CliError;
use crate::eval::measure;
use crate::source::{self, model, parse_options, with_classes};
use crate::table::width;
use crate::{print, print_json};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use striate_datasets::{ImageSize, Normalise, Preprocess};
use striate_files::FilesError;
use striate_files::path::Exact;
use striate_graph::{InitOptions, Network};
use striate_models::{Bundle, BundleInfo, Model, Pretrained, TrainedOn, Weights, find_pretrained, pretrained, write_state_dict};
use striate_torch::{Shown, TensorFile};
use tch::{Kind, Tensor};

pub(crate) fn weights(command: &WeightsCommand) -> Result<(), CliError> {
    match command {
        WeightsCommand::Inspect(args) => inspect(args),
        WeightsCommand::Convert(args) => convert(args),
        WeightsCommand::List(args) => list(args.json),
        WeightsCommand::Fetch(args) => fetch(&args.names),
    }
}

fn inspect(args: &InspectArgs) -> Result<(), CliError> {
    let weights = source::weights(&args.file)?;
    for name in weights.not_finite()? {
        tracing::warn!("{name} has values that are NaN or infinite");
    }
    let Weights { path, format, tensors, info, key, others, .. } = weights;
    let values: usize = tensors.values().map(Tensor::numel).sum();
    if args.json {
        let entry = |(name, tensor): (&String, &Tensor)| json!({ "name": name, "shape": tensor.size(), "dtype": kind_name(tensor.kind()) });
        let entries: Vec<Value> = tensors.iter().map(entry).collect();
        let info = info.map(|info| info.to_metadata()).transpose()?;
        let info: Option<Value> = info.and_then(|(_, text)| serde_json::from_str(&text).ok());
        return print_json(
            &json!({ "file": Exact(&path), "format": format, "values": values, "tensors": entries, "bundle": info, "key": key, "others": others }),
        );
    }
    let mut text = format!("{}: {format}, {} tensors, {values} values\n", Shown(path.display()), tensors.len());
    if let Some(info) = &info {
        let origin = info.origin.as_ref().map(|origin| format!(", options {}", json!(origin.options))).unwrap_or_default();
        text += &format!("{} with {} classes{}\n", Shown(info.name()), info.classes.len(), Shown(origin));
        if let Some(licence) = &info.licence {
            text += &format!("licence: {}\n", Shown(licence));
        }
        for TrainedOn { name, licence } in &info.trained_on {
            let licence = licence.as_ref().map(|licence| format!(" ({licence})")).unwrap_or_default();
            text += &format!("trained on {}{}\n", Shown(name), Shown(licence));
        }
    }
    let shown: Vec<String> = tensors.keys().map(|name| Shown(name).to_string()).collect();
    let width = width(shown.iter().map(String::as_str));
    for (name, tensor) in shown.iter().zip(tensors.values()) {
        text += &format!("{name:width$}  {:8}  {:?}\n", kind_name(tensor.kind()), tensor.size());
    }
    print(&text)
}

fn convert(args: &ConvertArgs) -> Result<(), CliError> {
    let extension = args.to.extension().and_then(OsStr::to_str);
    let to_pytorch = match extension {
        Some("safetensors") => false,
        Some("pth" | "pt") => true,
        _ => {
            let to = args.to.display();
            let line = "weights are written as .safetensors or, for PyTorch, as .pth: give the file a name that ends so";
            return Err(CliError::Usage(format!("{to}: {line}")));
        }
    };
    let described = args.calibrate.is_some() || args.std.is_some() || args.class_names.is_some() || args.licence.is_some();
    if to_pytorch && described {
        let to = args.to.display();
        let line = "a file for PyTorch holds weights only: write a bundle (.safetensors) to keep a calibration, normalisation, names \
                    or a licence";
        return Err(CliError::Usage(format!("{to}: {line}")));
    }
    let weights = source::weights(&args.from)?;
    if let [first, ..] = weights.not_finite()?[..] {
        return Err(CliError::Usage(format!(
            "{}: {first} has values that are NaN or infinite: no network takes them",
            args.from
        )));
    }
    let (tensors, info) = match &args.model {
        Some(name) => {
            let model = model(name, &options(args, name)?)?;
            let double = weights.tensors.values().any(|tensor| tensor.kind() == Kind::Double);
            let kind = if double { Kind::Double } else { Kind::Float };
            let network = Network::new(model.graph()?, &InitOptions { kind, ..InitOptions::default() })?;
            striate::load(&network, &weights, args.head.into(), Some(name))?;
            // The network holds one type; what it was given keeps its own.
            let state = network.state().into_iter();
            let tensors = state.map(|(name, tensor)| {
                let kind = weights.tensors.get(&name).map_or(tensor.kind(), Tensor::kind);
                Ok((name, tensor.f_to_kind(kind)?))
            });
            (tensors.collect::<Result<BTreeMap<_, _>, CliError>>()?, Some(describe(args, &weights, &model)?))
        }
        None => (weights.tensors, weights.info),
    };
    let tensors = tensors.into_iter().map(|(name, tensor)| {
        let tensor = cast(args, &name, tensor)?;
        Ok((name, tensor))
    });
    let state = tensors.collect::<Result<BTreeMap<_, _>, CliError>>()?;
    match info {
        _ if to_pytorch => Ok(write_state_dict(&args.to, &state)?),
        Some(info) => {
            let mut bundle = Bundle { info, state };
            if let Some(data) = &args.calibrate {
                bundle.info.calibration = Some(measure(data, None, &bundle, &args.to)?);
            }
            if let Some(licence) = &args.licence {
                bundle.info.licence = Some(licence.clone());
            }
            Ok(bundle.write(&args.to)?)
        }
        None => {
            let of_bundles = [("--calibrate", args.calibrate.is_some()), ("--licence", args.licence.is_some())];
            if let Some((option, _)) = of_bundles.into_iter().find(|(_, given)| *given) {
                let line = format!("{option} is for bundles: name the --model that the weights are for");
                return Err(CliError::Usage(line));
            }
            Ok(TensorFile { tensors: state, ..TensorFile::default() }.write(&args.to)?)
        }
    }
}

/// The tensor in the type that was asked for; whole numbers keep theirs.
fn cast(args: &ConvertArgs, name: &str, tensor: Tensor) -> Result<Tensor, CliError> {
    let double = tensor.kind() == Kind::Double;
    let asked = args.dtype.kind().filter(|_| tensor.is_floating_point());
    // Networks compute in float32, whatever a file holds.
    let Some(kind) = asked.or(double.then_some(Kind::Float)) else { return Ok(tensor) };
    let result = tensor.f_to_kind(kind)?;
    let finite = |tensor: &Tensor| -> Result<bool, CliError> { Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0) };
    if finite(&tensor)? && !finite(&result)? {
        let (from, kind) = (&args.from, kind_name(kind));
        let advice = if kind == "float32" { "no network computes with them" } else { "use bfloat16 or float32" };
        return Err(CliError::Usage(format!("{from}: {name} has values that are too large for {kind}: {advice}")));
    }
    Ok(if asked.is_some() { result } else { tensor })
}

/// The model's options; the size that images are cropped to is that of its input.
fn options(args: &ConvertArgs, name: &str) -> Result<Vec<(String, Value)>, CliError> {
    let mut options = with_classes(parse_options(&args.options)?, args.classes);
    let exact = args.resize.and_then(|size| if let ImageSize::Exact(size) = size { Some(size) } else { None });
    if let Some([height, width]) = args.crop.or(exact) {
        let [channels, ..] = model(name, &options)?.input();
        options.push(("input".to_owned(), json!([channels, height, width])));
    }
    Ok(options)
}

/// What the bundle says: its classes, and how images become inputs, as far as they are known.
fn describe(args: &ConvertArgs, weights: &Weights, model: &Model) -> Result<BundleInfo, CliError> {
    let known = weights.path.file_name().and_then(|name| pretrained().iter().find(|weights| name == weights.file));
    // What a bundle says of itself stays true where it fits the model.
    let theirs = weights.info.as_ref();
    let fitting = |theirs: &BundleInfo| theirs.preprocess.clone().filter(|preprocess| preprocess.input == model.input());
    let preprocess = preprocess(args, known, model)?.or_else(|| theirs.and_then(fitting));
    let keep = matches!(args.head, HeadArg::Keep);
    let theirs = theirs.filter(|theirs| keep && theirs.classes.len() as i64 == model.classes());
    let names = match theirs {
        Some(theirs) if args.class_names.is_none() => theirs.classes.clone(),
        _ => class_names(args, known, model)?,
    };
    if preprocess.is_none() {
        let to = args.to.display();
        tracing::warn!(
            "{to} does not say how images become inputs: give --mean and --std, and --resize and --crop unless it stretches images, to predict and evaluate with it"
        );
    }
    let (licence, trained_on) = (weights.licence(), weights.trained_on());
    let info = BundleInfo { licence, trained_on, ..BundleInfo::of_model(model, &names, preprocess)? };
    Ok(match theirs {
        Some(theirs) => BundleInfo { loss: theirs.loss, threshold: theirs.threshold, ..info },
        None => info,
    })
}

/// How images become inputs: as the arguments say, and else as the published weights were measured.
fn preprocess(args: &ConvertArgs, known: Option<&Pretrained>, model: &Model) -> Result<Option<Preprocess>, CliError> {
    let given = args.mean.clone().zip(args.std.clone()).map(|(mean, std)| Normalise { mean, std });
    if given.iter().flat_map(|given| &given.mean).any(|mean| mean.abs() > 1.0) {
        let line = "--mean is of pixels from 0 to 1: divide it, and --std, by 255 if the weights take pixels from 0 to 255";
        return Err(CliError::Usage(line.to_owned()));
    }
    let normalise = given.or_else(|| known.map(|weights| Normalise { mean: weights.mean.into(), std: weights.std.into() }));
    let Some(normalise) = normalise else {
        return match args.resize {
            Some(_) => Err(CliError::Usage("--resize is half of what a bundle needs: give --mean and --std too".to_owned())),
            None => Ok(None),
        };
    };
    let input @ [_, height, width] = model.input();
    let published = known.map(|weights| weights.resize).filter(|shorter_side| *shorter_side >= height.max(width));
    let published = published.map(|shorter_side| ImageSize::ShorterSide { shorter_side });
    let image = match (args.resize.or(published), args.crop) {
        (Some(ImageSize::Exact(_)), Some(_)) => {
            let line = "--crop cuts the middle out of what --resize SIDE leaves, and HEIGHTxWIDTH stretches images: give the shorter side";
            return Err(CliError::Usage(line.to_owned()));
        }
        (None, Some(_)) => {
            let line = "--crop needs --resize SIDE: images are resized until their shorter side has so many pixels, then cropped";
            return Err(CliError::Usage(line.to_owned()));
        }
        (image, _) => image.unwrap_or(ImageSize::Exact([height, width])),
    };
    let preprocess = Preprocess { image, input, normalise, interpolation: args.interpolation.into() };
    preprocess.check()?;
    Ok(Some(preprocess))
}

/// The names of the classes, or their numbers where nothing names them.
fn class_names(args: &ConvertArgs, known: Option<&Pretrained>, model: &Model) -> Result<Vec<String>, CliError> {
    let Some(given) = &args.class_names else {
        return Ok(match known {
            Some(weights) if matches!(args.head, HeadArg::Keep) && weights.classes().count() as i64 == model.classes() => {
                weights.classes().map(str::to_owned).collect()
            }
            _ => (0..model.classes()).map(|class| class.to_string()).collect(),
        });
    };
    let names: Vec<String> = if !Path::new(given).exists() && given.contains(',') {
        given.split(',').map(|name| name.trim().to_owned()).collect()
    } else {
        let text = striate_files::read_to_string(Path::new(given));
        let told = |error: FilesError| CliError::Usage(format!("cannot read the classes' names from {given}: {}", error.source));
        let text = text.map_err(told)?;
        // Some editors of Windows begin a text so.
        let text = text.trim_start_matches('\u{feff}');
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    if names.len() as i64 != model.classes() {
        let (names, classes) = (names.len(), model.classes());
        return Err(CliError::Usage(format!("{given} names {names} classes, the network has {classes}: give a name for each")));
    }
    if let Some(place) = names.iter().position(String::is_empty) {
        return Err(CliError::Usage(format!("{given} has no name for class {place}: give a name for each")));
    }
    // ImageNet itself has two cranes.
    let mut seen = BTreeSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
        tracing::warn!("{given} names two classes {twice}: answers will not tell them apart");
    }
    Ok(names)
}

fn list(as_json: bool) -> Result<(), CliError> {
    if as_json {
        let row = |weights: &Pretrained| {
            let mut row = json!(weights);
            row["url"] = weights.url().into();
            row
        };
        return print_json(&pretrained().iter().map(row).collect::<Vec<_>>());
    }
    let width = pretrained().iter().map(|weights| weights.name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:>8}  {:>6}  {:>6}\n", "weights", "download", "top-1", "top-5");
    for weights in pretrained() {
        let download = format!("{} MB", weights.megabytes);
        text += &format!("{:width$}  {download:>8}  {:>5.2}%  {:>5.2}%\n", weights.name, weights.top1, weights.top5);
    }
    for licence in pretrained().iter().map(|weights| weights.licence).collect::<BTreeSet<_>>() {
        text += &format!("licence: {licence}\n");
    }
    print(&text)
}

fn fetch(names: &[String]) -> Result<(), CliError> {
    let all = names.iter().map(|name| find_pretrained(name)).collect::<Result<Vec<_>, _>>()?;
    for weights in all {
        print(&format!("{}: {}\n", weights.name, Shown(source::fetch(weights)?.display())))?;
    }
    Ok(())
}

/// PyTorch's name of a type.
fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Half => "float16".to_owned(),
        Kind::Float => "float32".to_owned(),
        Kind::Double => "float64".to_owned(),
        Kind::Int => "int32".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}
