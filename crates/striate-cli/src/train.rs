//! `train`: from a recipe to a run's folder with a bundle in it.
use crate::cli::{BackendArg, TrainArgs};
use crate::compare::percent;
use crate::error::CliError;
use crate::eval::check_threads;
use crate::find::find;
use crate::output::counted;
use crate::progress::{EpochBars, Work};
use crate::spread::{joined, stopped, tell_once};
use crate::{launch, print, print_json, recipes, signals};
use std::path::Path;
use std::time::Duration;
use striate::Recipe;
use striate::train::calibration::Calibrated;
use striate::{Answering, BUNDLE, Member, Outcome, REPORT, Run, SEEDS, Seeds, SeedsOutcome, SeedsReport, Summary, group_file};
use striate_datasets::DatasetError;
use striate_torch::Shown;
use striate_train::distributed::{Backend, Place, World, WorldOptions};
use striate_train::{Event, Listener, TrainError, Workers};

pub(crate) fn train(args: &TrainArgs) -> Result<(), CliError> {
    #[cfg(not(feature = "lab"))]
    if args.report {
        return Err(crate::left_out("train --report"));
    }
    let seeds = over_seeds(args)?;
    match (args.nproc, seeds) {
        (Some(_), Some(_)) if args.max_restarts > 0 => {
            let reason = "--max-restarts is for one run: of several, another process goes on with the one of a process that dies";
            return Err(CliError::Usage(reason.to_owned()));
        }
        (Some(count), Some(_)) => return launch::spread(count),
        (Some(count), None) => return launch::launch(args, count),
        (None, Some(seeds)) => return train_seeds(seeds, args),
        (None, None) => {}
    }
    let place = Place::from_env()?;
    if place.is_some() {
        striate_torch::distributed::quiet();
    }
    let run = match &args.resume {
        Some(folder) => resumed(folder, args)?,
        None => {
            let mut chosen = recipes::resolve(args)?;
            if place.is_some() && (args.find_lr || args.find_batch_size) {
                return Err(CliError::Usage(
                    "--find-lr and --find-batch-size take one process: run them without a launcher".to_owned(),
                ));
            }
            find(args, &mut chosen.recipe)?;
            let run = Run::new(chosen.recipe);
            let run = if let Some(folder) = &args.out { run.folder(folder) } else { run };
            if let Some(why) = chosen.why.as_ref().filter(|_| place.as_ref().is_none_or(|place| place.rank == 0)) {
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
    let world = place.map_or_else(|| Ok(World::one()), |place| World::join(place, world_options(args, run.recipe())))?;
    let is_first = world.is_first();
    match in_sight(run.world(world), is_first).run().map_err(|error| advised(error, args))? {
        Outcome::Finished { .. } if !is_first => Ok(()),
        Outcome::Stopped { .. } if !is_first => Err(CliError::Told(130)),
        Outcome::Finished { folder, summary } => tell(&summary, &folder, args),
        Outcome::Stopped { folder, step } => {
            Err(CliError::Stopped(format!("stopped after step {step}; go on with: train --resume {}", folder.display())))
        }
    }
}

/// Says what helps against pictures that cannot be read. A run that goes on has the pictures that it began with.
fn advised(error: striate::Error, args: &TrainArgs) -> CliError {
    match error {
        striate::Error::Dataset(DatasetError::Image { .. } | DatasetError::BadPictures { .. }) if args.resume.is_none() => {
            CliError::Usage(format!("{error} (--skip-bad skips what cannot be read)"))
        }
        other => other.into(),
    }
}

/// How this process works together with others.
fn world_options(args: &TrainArgs, recipe: &Recipe) -> WorldOptions {
    let on_gpu = recipe.train.devices.iter().any(|device| device.starts_with("cuda"));
    let backend = match args.backend {
        Some(BackendArg::Gloo) => Backend::Gloo,
        Some(BackendArg::Nccl) => Backend::Nccl,
        None if on_gpu && Backend::Nccl.is_there() => Backend::Nccl,
        None => Backend::Gloo,
    };
    WorldOptions { backend, timeout: Duration::from_secs(args.timeout), ..WorldOptions::default() }
}

/// Lets a signal stop a run, and shows what it does, unless another process does that.
fn in_sight<'a>(run: Run<'a>, shown: bool) -> Run<'a> {
    let run = run.listener(SavesItself).stop_on(signals::stop());
    if !shown {
        return run;
    }
    let work = Work::new();
    run.listener(EpochBars::new()).on_progress(move |what, done, of| work.update(what, done, of))
}

/// The same of several runs.
pub(crate) fn watched<'a>(shown: bool) -> impl FnMut(Run<'a>, Member<'_>) -> Run<'a> {
    move |run, member| {
        tracing::info!("{}, {} of {}", member.name, member.number, member.of);
        in_sight(run, shown)
    }
}

/// The runs over seeds that are asked for, if any are.
fn over_seeds(args: &TrainArgs) -> Result<Option<Seeds<'static>>, CliError> {
    if let Some(folder) = &args.resume {
        return match group_file(folder) {
            Some(file) if file.ends_with(SEEDS) && args.epochs.is_some() => Err(CliError::Usage(format!(
                "{} holds runs of several seeds: give --epochs with the folder of one of them",
                folder.display()
            ))),
            Some(file) if file.ends_with(SEEDS) => Ok(Some(Seeds::resume(folder)?)),
            Some(_) => Err(CliError::Usage(format!("{0} holds a sweep: go on with: sweep --resume {0}", folder.display()))),
            None => Ok(None),
        };
    }
    let Some(count) = args.seeds else { return Ok(None) };
    let chosen = recipes::resolve(args)?;
    let seeds = Seeds::new(chosen.recipe, count);
    let seeds = if let Some(folder) = &args.out { seeds.folder(folder) } else { seeds };
    Ok(Some(if let Some(why) = chosen.why { seeds.why(why) } else { seeds }))
}

fn train_seeds(seeds: Seeds<'_>, args: &TrainArgs) -> Result<(), CliError> {
    check_threads(seeds.recipe().train.threads)?;
    let queue = joined(args.timeout)?;
    if !queue.is_one() {
        signals::saves_itself();
    }
    match seeds.queue(queue.clone()).each(watched(queue.is_one())).run()? {
        SeedsOutcome::Finished { folder, report } => tell_once(&queue, "seeds", || tell_seeds(&folder, &report, args.json)),
        SeedsOutcome::Stopped { folder, seed } => {
            Err(stopped(&queue, format!("stopped in seed {seed}; go on with: train --resume {}", folder.display())))
        }
    }
}

fn tell_seeds(folder: &Path, report: &SeedsReport, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(report);
    }
    let SeedsReport { judge, measure, seeds, accuracy, .. } = report;
    let seeds = seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let folder = Shown(folder.display());
    print(&format!("{judge} {measure} {}, mean and 95% interval over seeds {seeds}\nrun folders   {folder}\n", percent(accuracy)))
}

/// A run that was stopped, where the command line says what may change.
fn resumed(folder: &Path, args: &TrainArgs) -> Result<Run<'static>, CliError> {
    let mut run = Run::resume(folder)?;
    if let Some(epochs) = args.epochs {
        run = run.extend_to(epochs)?;
    }
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
    let (test, seconds, folder) = (&summary.test, summary.seconds, Shown(folder.display()));
    let epochs = summary.stopped_after.map_or_else(String::new, |done| format!("{done} of ")) + &summary.epochs.to_string();
    let of_epochs = if summary.epochs == 1 { "epoch" } else { "epochs" };
    let part = summary.tested_on();
    let (accuracy, measure) = (100.0 * test.accuracy, test.measure());
    let val = summary
        .val
        .as_ref()
        .map(|val| format!("val {measure}  {:.2}% ({})\n", 100.0 * val.accuracy, counted(val.examples, "image")));
    let page = if args.report { format!("report        {folder}/{REPORT}\n") } else { String::new() };
    let calibrated = summary.calibrated.as_ref().map(|calibrated| {
        let Calibrated { by, answering: Answering { temperature, .. }, before, after, .. } = calibrated;
        let (before, after) = (before.calibration_error, after.calibration_error);
        let halves = if summary.val.is_none() { " (each half with the other's)" } else { "" };
        format!("probabilities temperature {temperature:.3} from {by}; calibration error on {part} {after:.4} with it{halves}, {before:.4} without\n")
    });
    print(&format!(
        "{}{part} {measure} {accuracy:.2}% ({}) after {epochs} {of_epochs} in {seconds:.1} s\n{}run folder    {folder}\nbundle        {folder}/{BUNDLE}\n{page}",
        val.unwrap_or_default(),
        counted(test.examples, "image"),
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
