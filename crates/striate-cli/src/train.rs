//! `train`: from a recipe to a run's folder with a bundle in it.
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::eval::check_threads;
use crate::progress::{EpochBars, Work};
use crate::{print, print_json, recipes, signals};
use std::path::Path;
use striate::{BUNDLE, Outcome, REPORT, Run, Summary};
use striate_torch::Shown;
use striate_train::{Event, Listener, TrainError, Workers};

pub(crate) fn train(args: &TrainArgs) -> Result<(), CliError> {
    #[cfg(not(feature = "lab"))]
    if args.report {
        return Err(crate::left_out("train --report"));
    }
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
        return tell(&summary, folder, args);
    }
    let work = Work::new();
    let run = run
        .listener(EpochBars::new())
        .listener(SavesItself)
        .stop_on(signals::stop())
        .on_progress(|what, done, of| work.update(what, done, of));
    match run.run()? {
        Outcome::Finished { folder, summary } => tell(&summary, &folder, args),
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
    recipe.train.tensorboard |= args.tensorboard;
    if let Some(devices) = &args.devices {
        recipe.train.devices.clone_from(devices);
    }
    Ok(run)
}

/// Prints the results of a finished run, and writes its page if that was asked for.
fn tell(summary: &Summary, folder: &Path, args: &TrainArgs) -> Result<(), CliError> {
    #[cfg(feature = "lab")]
    if args.report {
        crate::report::write(folder, crate::report::WORST)?;
    }
    if args.json {
        return print_json(summary);
    }
    let (test, seconds, epochs, folder) = (&summary.test, summary.seconds, summary.epochs, Shown(folder.display()));
    let part = summary.tested_on();
    let (accuracy, measure) = (100.0 * test.accuracy, test.measure());
    let val = summary.val.as_ref().map(|val| format!("val {measure}  {:.2}% ({} images)\n", 100.0 * val.accuracy, val.examples));
    let page = if args.report { format!("report        {folder}/{REPORT}\n") } else { String::new() };
    print(&format!(
        "{}{part} {measure} {accuracy:.2}% ({} images) after {epochs} epochs in {seconds:.1} s\nrun folder    {folder}\nbundle        {folder}/{BUNDLE}\n{page}",
        val.unwrap_or_default(),
        test.examples,
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
