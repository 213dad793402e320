//! Training from end to end, resuming, and exporting what was trained.
use super::compare::apart;
use super::{Check, Found, Part};
use crate::error::CliError;
use striate::{Outcome, Recipe, Run, recipes};
use striate_torch::TensorFile;
use tch::Device;

/// LeNet-5 on the built-in digits gets more than this right. Ten seeds of these epochs gave 0.957 to 0.977.
const ACCURACY: f64 = 0.94;
const EPOCHS: u64 = 10;
/// A graphics card adds in another order each time.
const CUDA_RESUMED: f64 = 5e-2;

pub(super) fn checks(device: Device) -> Vec<Check> {
    let learned =
        Check::new((Part::Train, device), "LeNet-5 on the built-in digits, share of wrong answers", 1.0 - ACCURACY, move || {
            learned(device)
        });
    let bound = if device.is_cuda() { CUDA_RESUMED } else { 0.0 };
    let resumed =
        Check::new((Part::Train, device), "a run that was stopped and resumed, and one that was not", bound, move || {
            resumed(device)
        });
    vec![learned, resumed]
}

pub(super) fn export_checks(device: Device) -> Vec<Check> {
    // What is exported does not depend on where it was trained.
    let check = || Check::new((Part::Export, device), "an export by tract, and its bundle: probabilities", 1e-2, exported);
    (device == Device::Cpu).then(check).into_iter().collect()
}

/// A folder that is removed when the check ends.
fn temporary() -> Result<tempfile::TempDir, CliError> {
    tempfile::tempdir().map_err(|error| CliError::Failed(format!("cannot make a temporary folder: {error}")))
}

fn recipe(model: &str, epochs: u64, device: Device) -> Result<Recipe, CliError> {
    let mut recipe = recipes::for_data(model, "digits")?;
    recipe.train.epochs = epochs;
    recipe.train.devices = vec![super::name(device)];
    Ok(recipe)
}

fn learned(device: Device) -> Result<Found, CliError> {
    let folder = temporary()?;
    match Run::new(recipe("lenet5", EPOCHS, device)?).folder(folder.path().join("run")).run()? {
        Outcome::Finished { summary, .. } => Ok(Found::Apart(1.0 - summary.test.accuracy)),
        Outcome::Stopped { step, .. } => Err(CliError::Failed(format!("the run stopped after step {step}"))),
    }
}

/// How far the parameters are apart.
fn resumed(device: Device) -> Result<Found, CliError> {
    let folder = temporary()?;
    // It has batch norm and dropout.
    let recipe = recipe("vgg-tiny", 2, device)?;
    let path = |name: &str| folder.path().join(name);
    let whole = Run::new(recipe.clone()).folder(path("whole")).run()?.bundle()?;
    Run::new(recipe).folder(path("stopped")).pause_after(1).run()?;
    let resumed = Run::resume(path("stopped"))?.run()?.bundle()?;
    let [got, expected] = [resumed, whole].map(|bundle| TensorFile::read(&bundle));
    let (got, expected) = (got?.tensors, expected?.tensors);
    let pairs = expected.iter().filter_map(|(name, expected)| Some((got.get(name)?, expected)));
    Ok(Found::Apart(apart(pairs)?))
}

/// The largest difference of a probability.
#[cfg(feature = "check")]
fn exported() -> Result<Found, CliError> {
    use striate_export::{ExportOptions, Onnx};
    let folder = temporary()?;
    let bundle = Run::new(recipe("lenet5", 1, Device::Cpu)?).folder(folder.path().join("run")).run()?.bundle()?;
    let onnx = Onnx::of_bundle(&bundle, &ExportOptions::default())?;
    Ok(Found::Apart(crate::export::compare(&bundle, false, &onnx)?.difference))
}

#[cfg(not(feature = "check"))]
fn exported() -> Result<Found, CliError> {
    Ok(Found::Skipped("built without `export --check`"))
}
