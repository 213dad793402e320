//! `eval`: a bundle on a dataset's test set.
use crate::cli::{EvalArgs, PlanArgs};
use crate::error::CliError;
use crate::{devices, images, print, print_json, source};
use serde_json::{Value, json};
use std::path::Path;
use striate_datasets::{Dataset, Loader, LoaderOptions, Preprocess};
use striate_graph::{GraphError, InitOptions, Network, Outputs};
use striate_infer::{Plan, PlanOptions, Precision};
use striate_layers::Mode;
use striate_models::BundleInfo;
use striate_train::{Evaluation, evaluate_with};
use tch::Tensor;

/// More cores than this no machine has, and libtorch overflows its stack with many more.
const MAX_THREADS: usize = 1024;
/// Images that int8 is calibrated on: more of them change the scales by little.
const CALIBRATION_BATCH: usize = 32;
const CALIBRATION_BATCHES: usize = 8;

pub(crate) fn eval(args: &EvalArgs) -> Result<(), CliError> {
    set_threads(args.threads)?;
    let devices = devices::parse(&args.devices)?;
    let bundle = source::bundle(&args.bundle)?;
    let preprocess = preprocess_of(&bundle.info, &args.bundle)?;
    let network = bundle.network(&args.bundle, &InitOptions { devices, ..InitOptions::default() })?;
    let known = args.data_dir.as_deref().filter(|_| args.plan.calibrate.as_ref() == Some(&args.data));
    let calibration = calibration(&args.plan, known, &preprocess)?;
    let data = images::to_judge_by(&args.data, args.data_dir.as_deref(), &preprocess)?;
    check_classes(&args.bundle, &bundle.info.classes, &*data)?;
    let loader = Loader::new(&*data, preprocess, LoaderOptions::eval(args.batch_size))?;
    let forward = inference(&network, args.plan.precision, &calibration)?;
    let evaluation = evaluate_with(&network, &loader, bundle.info.model()?.loss(), |images| Ok(forward(images)?))?;
    if args.json {
        return print_json(&report(&evaluation, data.classes()));
    }
    print(&describe(&evaluation, data.classes()))
}

/// The images that a plan in int8 is calibrated on: batches of training images, drawn by a fixed seed. `dir` has the dataset's files, if they lie
/// elsewhere than in the cache.
pub(crate) fn calibration(args: &PlanArgs, dir: Option<&Path>, preprocess: &Preprocess) -> Result<Vec<Tensor>, CliError> {
    let data = match (args.precision, &args.calibrate) {
        (Precision::Int8, Some(data)) => images::to_train_with(data, dir, preprocess)?,
        (Precision::Int8, None) => {
            return Err(CliError::Usage("--precision int8 needs images: name a dataset or a folder with --calibrate".to_owned()));
        }
        (_, Some(_)) => return Err(CliError::Usage("--calibrate is for --precision int8 only".to_owned())),
        (_, None) => return Ok(Vec::new()),
    };
    let loader = Loader::new(&*data, preprocess.clone(), LoaderOptions::train(CALIBRATION_BATCH, 0))?;
    let batches = loader.epoch(0)?.take(CALIBRATION_BATCHES);
    batches.map(|batch| Ok(batch?.images)).collect()
}

/// What runs the network in evaluation: a plan, or, if it is spread over several devices, the network itself. int8 is calibrated on `images`.
pub(crate) fn inference<'n>(network: &'n Network, precision: Precision, images: &[Tensor]) -> Result<Box<Forward<'n>>, CliError> {
    if network.graph().places() == 1 {
        let plan = match precision {
            Precision::Int8 => Plan::calibrated(network, images)?,
            precision => Plan::new(network, &PlanOptions { precision, ..PlanOptions::default() })?,
        };
        return Ok(Box::new(move |images| plan.forward(images)));
    }
    if !matches!(precision, Precision::Float32) {
        return Err(CliError::Usage("--precision takes float32 only with several --devices".to_owned()));
    }
    Ok(Box::new(|images| {
        let _no_grad = striate_torch::no_grad();
        network.forward(images, Mode::Eval)
    }))
}

pub(crate) type Forward<'a> = dyn Fn(&Tensor) -> Result<Outputs, GraphError> + 'a;

/// Refuses a dataset with another number of classes than the bundle's; warns of other names.
pub(crate) fn check_classes(bundle: &Path, ours: &[String], data: &dyn Dataset) -> Result<(), CliError> {
    let (bundle, name, theirs) = (bundle.display(), data.name(), data.classes());
    if ours.len() != theirs.len() {
        let (ours, theirs) = (ours.len(), theirs.len());
        return Err(CliError::Usage(format!(
            "{bundle} tells {ours} classes apart, but {name} has {theirs}: name a dataset with the same classes"
        )));
    }
    if ours != theirs {
        tracing::warn!("{bundle} was trained on other classes ({}) than {name} has ({})", ours.join(", "), theirs.join(", "));
    }
    Ok(())
}

/// Sets the threads of one operator; 0 leaves libtorch's choice, all cores.
pub(crate) fn set_threads(threads: usize) -> Result<(), CliError> {
    if threads > MAX_THREADS {
        return Err(CliError::Usage(format!("threads = {threads} must be at most {MAX_THREADS}: 0 takes all cores")));
    }
    if threads > 0 {
        striate_torch::set_num_threads(threads);
    }
    Ok(())
}

/// How the bundle's network wants its images.
pub(crate) fn preprocess_of(info: &BundleInfo, path: &Path) -> Result<Preprocess, CliError> {
    let preprocess: Preprocess = serde_json::from_value(info.preprocess.clone())
        .map_err(|error| CliError::Usage(format!("{}: it does not say how images become inputs: {error}", path.display())))?;
    preprocess.check().map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?;
    Ok(preprocess)
}

/// The figures of an evaluation for machines.
pub(crate) fn report(evaluation: &Evaluation, classes: &[String]) -> Value {
    json!({
        "examples": evaluation.examples,
        "loss": evaluation.loss,
        "accuracy": evaluation.accuracy,
        "top5": evaluation.top5,
        "classes": classes,
        "confusion": evaluation.confusion.rows(),
    })
}

/// The figures of an evaluation for people: accuracy, then targets in rows and answers in columns.
fn describe(evaluation: &Evaluation, classes: &[String]) -> String {
    let (accuracy, top5) = (100.0 * evaluation.accuracy, 100.0 * evaluation.top5);
    let mut text =
        format!("{} images: accuracy {accuracy:.2}%, top-5 {top5:.2}%, loss {:.4}\n", evaluation.examples, evaluation.loss);
    let rows = evaluation.confusion.rows();
    let name_width = classes.iter().map(String::len).max().unwrap_or(0);
    let width = rows.iter().flatten().map(|count| count.to_string().len()).max().unwrap_or(1).max(2);
    text += &format!("\n{:name_width$}  ", "");
    text += &(0..classes.len()).map(|class| format!("{class:>width$}")).collect::<Vec<_>>().join(" ");
    for (class, (name, row)) in classes.iter().zip(&rows).enumerate() {
        let cells: Vec<String> = row.iter().map(|count| format!("{count:>width$}")).collect();
        text += &format!("\n{name:name_width$}  {}  {class}", cells.join(" "));
    }
    text + "\n"
}
