//! `sweep`: a search over the fields of a recipe.
use crate::error::CliError;
use crate::spread::{SpreadArgs, stopped, tell_once};
use crate::table::{Align, table};
use crate::train::watched;
use crate::{print, print_json, signals};
use clap::Args;
use std::path::PathBuf;
use striate::{RECIPE, Sweep, Swept, Trial, TrialState};
use striate_torch::Shown;

#[derive(Debug, Args)]
#[command(after_help = "\
The file is a recipe with a section [sweep]:

  [sweep]
  kind = \"halving\"          # or \"random\", or \"grid\": every combination of lists
  trials = 27               # how many are drawn; not for a grid
  seed = 0                  # what they are drawn from
  eta = 3                   # halving: one of three goes on from rung to rung
  min_epochs = 1            # halving: epochs of the first rung

  [sweep.fields]
  train.lr = { min = 1e-4, max = 1e-1, log = true }
  train.batch_size = [32, 64, 128]

Each trial is a run, in a folder named by the hash of its recipe.")]
pub(crate) struct SweepArgs {
    /// Recipe with a section [sweep] (a .toml file)
    #[arg(required_unless_present = "resume", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Write the trials into this folder [default: a new one in runs/]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Resume a stopped sweep from its folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["file", "out"])]
    pub(crate) resume: Option<PathBuf>,
    #[command(flatten)]
    spread: SpreadArgs,
    /// List the trials and train none
    #[arg(long, conflicts_with_all = ["out", "resume"])]
    pub(crate) dry_run: bool,
    /// Print the results as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn sweep(args: &SweepArgs) -> Result<(), CliError> {
    let sweep = match (&args.resume, &args.file) {
        (Some(folder), _) => Sweep::resume(folder)?,
        (None, Some(file)) => Sweep::read(file)?,
        (None, None) => return Err(CliError::Usage("sweep needs a file: a recipe with a section [sweep]".to_owned())),
    };
    let sweep = if let Some(folder) = &args.out { sweep.folder(folder) } else { sweep };
    let trials = sweep.trials()?;
    if args.dry_run {
        return if args.json { print_json(&trials) } else { print(&rows(&trials)) };
    }
    let Some(queue) = args.spread.queue()? else { return Ok(()) };
    if queue.rank() == 0 {
        tracing::info!("{} trials", trials.len());
    }
    if !queue.is_one() {
        signals::saves_itself();
    }
    let sweep = sweep.queue(queue.clone()).each(watched(queue.is_one())).on_trial(|trial| {
        if let Some(error) = &trial.error {
            tracing::warn!("trial {} ({}) failed: {error}", trial.name, trial.describe());
        }
    });
    let swept = sweep.run()?;
    if swept.stopped {
        return Err(stopped(&queue, format!("stopped; go on with: sweep --resume {}", Shown(swept.folder.display()))));
    }
    tell_once(&queue, "trials", || tell(&swept, args.json))
}

fn tell(swept: &Swept, json: bool) -> Result<(), CliError> {
    let Swept { folder, trials, .. } = swept;
    let at = Shown(folder.display());
    if trials.iter().any(|trial| trial.judge.as_deref() == Some("test")) {
        tracing::warn!(
            "trials were ranked by the test set, which flatters the best one: hold a part out to rank by (split = 0.1 in [data])"
        );
    }
    if json {
        return print_json(trials);
    }
    let best = trials.first().map_or_else(String::new, |best| format!("best recipe  {at}/{}/{RECIPE}\n", best.name));
    print(&format!("{}\n{best}table        {at}/trials.csv\nfigure       {at}/trials.svg\n", rows(trials)))
}

/// The trials as a table.
fn rows(trials: &[Trial]) -> String {
    let fields: Vec<&String> = trials.first().map(|trial| trial.values.keys().collect()).unwrap_or_default();
    let judge = trials.iter().find_map(|trial| trial.judge.as_deref()).unwrap_or("");
    let accuracy = format!("{judge} accuracy");
    let tested = trials.iter().any(|trial| trial.test_accuracy.is_some());
    let mut head = vec!["trial".to_owned()];
    head.extend(fields.iter().map(|field| Shown(field).to_string()));
    head.extend(["epochs", accuracy.trim()].map(str::to_owned));
    head.extend(tested.then(|| "test accuracy".to_owned()));
    let mut columns = vec![Align::Left; head.len()];
    columns[1 + fields.len()..].fill(Align::Right);
    head.push("state".to_owned());
    columns.push(Align::Left);
    let percent = |share: Option<f64>| share.map_or_else(String::new, |share| format!("{:.2}%", 100.0 * share));
    let row = |trial: &Trial| {
        let mut row = vec![trial.name.clone()];
        row.extend(fields.iter().map(|field| Shown(&trial.values[field.as_str()]).to_string()));
        let state = match trial.state {
            TrialState::Waiting => "waiting",
            TrialState::Paused => "paused",
            TrialState::Dropped => "dropped",
            TrialState::Finished => "finished",
            TrialState::Failed => "failed",
        };
        row.extend([trial.epochs.to_string(), percent(trial.accuracy)]);
        row.extend(tested.then(|| percent(trial.test_accuracy)));
        row.push(state.to_owned());
        row
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(trials.iter().map(row)).collect();
    table(columns, &rows)
}
