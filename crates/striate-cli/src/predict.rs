//! `predict`: the likeliest classes of pictures.
use crate::cli::PredictArgs;
use crate::error::CliError;
use crate::eval::calibration;
use crate::pictures::{Named, pictures};
use crate::{print, print_json, say, signals, source};
use serde::Serialize;
use std::path::Path;
use striate::datasets::DecodeOptions;
use striate::{Answer, Classifier, ClassifierOptions, devices};
use striate_torch::Shown;

/// What a network says of one picture.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    #[serde(serialize_with = "striate_files::path::serialize")]
    image: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<Vec<Answer>>,
    /// Whether the picture is none of the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) fn predict(args: &PredictArgs) -> Result<(), CliError> {
    let bundle = source::bundle(&args.bundle)?;
    let mut options = ClassifierOptions::default();
    options.stop = signals::stop();
    options.devices = devices(&args.devices)?;
    options.precision = args.plan.precision;
    options.calibration = calibration(&args.plan, None, &bundle, &args.bundle)?;
    options.top = args.top;
    options.threshold = args.threshold;
    options.tta = args.tta;
    options.decode = DecodeOptions { max_pixels: args.max_pixels.unwrap_or(options.decode.max_pixels) };
    let classifier = Classifier::of(&bundle, &args.bundle, options)?;
    drop(bundle);
    let pictures = pictures(&args.images)?;
    let mut refused = Vec::new();
    let mut predictions = Vec::new();
    for (Named { name: image, .. }, result) in pictures.iter().zip(classifier.classify_all(&pictures)) {
        let (top, unknown, error) = match result {
            Ok(striate::Prediction { top, unknown }) => (Some(top), Some(unknown), None),
            // A picture's own fault leaves the others their answers; anything else ends it.
            Err(error @ striate::Error::Dataset(_)) => {
                let line = error.to_string();
                refused.push(line.clone());
                (None, None, Some(line))
            }
            Err(error) => return Err(error.into()),
        };
        predictions.push(Prediction { image, top, unknown, error });
    }
    if args.json {
        print_json(&predictions)?;
    } else {
        for Prediction { image, top, unknown, .. } in &predictions {
            let Some(top) = top else { continue };
            let answers: Vec<String> = top.iter().map(|a| format!("{} {:.1}%", a.class, 100.0 * a.probability)).collect();
            let answers = if answers.is_empty() { "none of the classes".to_owned() } else { answers.join(", ") };
            let answers = if *unknown == Some(true) { format!("unknown; likeliest {answers}") } else { answers };
            print(&format!("{}\n", Shown(format!("{}: {answers}", image.display()))))?;
        }
    }
    match refused.as_slice() {
        [] => Ok(()),
        [one] => Err(CliError::Usage(one.clone())),
        several => {
            several.iter().for_each(|line| say(&format!("not read: {line}")));
            let (bad, all) = (several.len(), pictures.len());
            let others = if bad < all { "; the others have their answers" } else { "" };
            Err(CliError::Usage(format!("{bad} of {all} pictures cannot be read{others}")))
        }
    }
}
