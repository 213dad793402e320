//! `train`: from a recipe to a run's folder with a bundle in it.
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::eval::check_threads;
use crate::progress::{EpochBars, Work};
use crate::{print, print_json, recipes, signals};
use std::path::Path;
use striate::train::calibration::Calibrated;
use striate::{Answering, BUNDLE, Outcome, Run, Summary};
use striate_torch::Shown;
use striate_train::{Event, Listener, TrainError, Workers};

pub(crate) fn train(args: &TrainArgs) -> Result<(), CliError> {
    let run = match &args.resume {
        Some(folder) => resumed(folder, args)?,
        None => {
            let chosen = recipes::resolve(args)?;
            let run = Run::new(chosen.recipe);
            let run = if let Some(folder) = &args.out { run.folder(folder) } else { run };
            if let Some(why) = &chosen.why {
                tracing::info!("{why}; the run's folder has it in full");
            }
            if let Some(why) = chosen.why { run.why(why) } else { run }
        }
    };
    check_threads(run.recipe().train.threads)?;
    if let (Some(summary), Some(folder)) = (run.finished()?, &args.resume) {
        tracing::info!("the run in {} is finished: these are its results", folder.display());
        return tell(&summary, folder, args.json);
    }
    let work = Work::new();
    let run = run
        .listener(EpochBars::new())
        .listener(SavesItself)
        .stop_on(signals::stop())
        .on_progress(|what, done, of| work.update(what, done, of));
    match run.run()? {
        Outcome::Finished { folder, summary } => tell(&summary, &folder, args.json),
        Outcome::Stopped { folder, step } => {
            Err(CliError::Stopped(format!("stopped after step {step}; go on with: train --resume {}", folder.display())))
        }
    }
}

/// A run that was stopped, where the command line says what may change.
fn resumed(folder: &Path, args: &TrainArgs) -> Result<Run<'static>, CliError> {
    let mut run = Run::resume(folder)?;
    let recipe = run.recipe_mut();
    if let Some(data) = &args.data_dir {
        recipe.data.dir = recipes::absolute(data)?;
    }
    recipe.train.threads = args.threads.unwrap_or(recipe.train.threads);
    recipe.data.workers = args.workers.map_or(recipe.data.workers, Workers::Number);
    recipes::cache_of(args, &mut recipe.data)?;
    if let Some(devices) = &args.devices {
        recipe.train.devices.clone_from(devices);
    }
    Ok(run)
}

/// Prints the results of a finished run.
fn tell(summary: &Summary, folder: &Path, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(summary);
    }
    let (test, seconds, epochs, folder) = (&summary.test, summary.seconds, summary.epochs, Shown(folder.display()));
    let (accuracy, measure) = (100.0 * test.accuracy, test.measure());
    let val = summary.val.as_ref().map(|val| format!("val {measure}  {:.2}% ({} images)\n", 100.0 * val.accuracy, val.examples));
    let calibrated = summary.calibrated.as_ref().map(|calibrated| {
        let Calibrated { by, answering: Answering { temperature, .. }, before, after, .. } = calibrated;
        let (before, after) = (before.calibration_error, after.calibration_error);
        let halves = if summary.val.is_none() { ", each half of it with the temperature of the other" } else { "" };
        format!("probabilities temperature {temperature:.3} from {by}; calibration error on test {after:.4}, was {before:.4}{halves}\n")
    });
    print(&format!(
        "{}test {measure} {accuracy:.2}% ({} images) after {epochs} epochs in {seconds:.1} s\n{}run folder    {folder}\nbundle        {folder}/{BUNDLE}\n",
        val.unwrap_or_default(),
        test.examples,
        calibrated.unwrap_or_default(),
    ))
}

/// Once the run has begun, a signal makes it save itself.
struct SavesItself;

impl Listener for SavesItself {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if matches!(event, Event::RunStarted { .. }) {
            signals::saves_itself();
        }
        Ok(())
    }
}
