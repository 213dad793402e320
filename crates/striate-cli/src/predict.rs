//! `predict`: the likeliest classes of images.
use crate::cli::PredictArgs;
use crate::error::CliError;
use crate::eval::{calibration, inference, preprocess_of};
use crate::{devices, print, print_json, source};
use serde::Serialize;
use std::path::{Path, PathBuf};
use striate_datasets::{DecodeOptions, decode_image};
use striate_graph::InitOptions;
use tch::{Kind, Tensor};

/// What a network says of one image.
#[derive(Debug, Serialize)]
struct Prediction {
    image: PathBuf,
    top: Vec<Answer>,
}

#[derive(Debug, Serialize)]
struct Answer {
    class: String,
    probability: f64,
}

pub(crate) fn predict(args: &PredictArgs) -> Result<(), CliError> {
    let devices = devices::parse(&args.devices)?;
    let bundle = source::bundle(&args.bundle)?;
    let preprocess = preprocess_of(&bundle.info, &args.bundle)?;
    let network = bundle.network(&args.bundle, &InitOptions { devices, ..InitOptions::default() })?;
    let forward = inference(&network, args.plan.precision, &calibration(&args.plan, None, &preprocess)?)?;
    let classify = |image: &PathBuf| {
        let input = decode_image(image, &preprocess, &DecodeOptions::default())?.f_to_device(network.device())?;
        classify(forward(&input)?.logits(), image, &bundle.info.classes, args.top)
    };
    let predictions: Vec<Prediction> = args.images.iter().map(classify).collect::<Result<_, _>>()?;
    if args.json {
        return print_json(&predictions);
    }
    for Prediction { image, top } in &predictions {
        let answers: Vec<String> = top.iter().map(|a| format!("{} {:.1}%", a.class, 100.0 * a.probability)).collect();
        print(&format!("{}: {}\n", image.display(), answers.join(", ")))?;
    }
    Ok(())
}

fn classify(logits: &Tensor, image: &Path, classes: &[String], top: usize) -> Result<Prediction, CliError> {
    let probabilities = logits.f_softmax(1, Kind::Double)?.f_select(0, 0)?;
    let count = i64::try_from(top.min(classes.len())).unwrap_or(1);
    let (values, indices) = probabilities.f_topk(count, 0, true, true)?;
    let values = Vec::<f64>::try_from(values)?;
    let indices = Vec::<i64>::try_from(indices)?;
    let answer = |(probability, index): (f64, i64)| {
        let class = usize::try_from(index).ok().and_then(|index| classes.get(index).cloned());
        Answer { class: class.unwrap_or_else(|| index.to_string()), probability }
    };
    Ok(Prediction { image: image.into(), top: values.into_iter().zip(indices).map(answer).collect() })
}
