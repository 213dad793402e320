//! `runs`: what runs left in their folders.
use crate::error::CliError;
use crate::table::{Align, table};
use crate::{print, print_json};
use clap::Args;
use std::path::PathBuf;
use striate::runs::{Found, Record, State};
use striate_torch::Shown;

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Folder to look in, also below
    #[arg(default_value = "runs")]
    pub(crate) folder: PathBuf,
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn runs(args: &RunsArgs) -> Result<(), CliError> {
    let runs = found(Record::find(&args.folder)?);
    if args.json {
        return print_json(&runs);
    }
    let head = ["run", "model", "data", "seed", "epochs", "", "accuracy", "state", "changed (UTC)"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(runs.iter().map(row)).collect();
    let (left, right) = (Align::Left, Align::Right);
    print(&table([left, left, left, right, right, left, right, left, left], &rows))
}

/// The runs that were found; the others are told.
pub(crate) fn found(Found { runs, unreadable }: Found) -> Vec<Record> {
    for (folder, error) in unreadable {
        tracing::warn!("{} was left out: {error}", folder.display());
    }
    runs
}

fn row(run: &Record) -> Vec<String> {
    let accuracy = run.accuracy.map_or_else(String::new, |accuracy| format!("{:.2}%", 100.0 * accuracy));
    let judge = if run.accuracy.is_some() { run.judge.clone() } else { String::new() };
    let state = match run.state {
        State::Finished => "finished",
        State::Running => "running",
        State::Stopped => "stopped",
    };
    let changed = run.changed.get(..16).unwrap_or(&run.changed).replace('T', " ");
    vec![
        Shown(run.folder.display()).to_string(),
        Shown(&run.model).to_string(),
        Shown(&run.data).to_string(),
        run.seed.to_string(),
        format!("{}/{}", run.epochs_done, run.epochs),
        judge,
        accuracy,
        state.to_owned(),
        changed,
    ]
}
