//! `report`: the page of a finished run.
use crate::cli::ReportArgs;
use crate::error::CliError;
use crate::progress::Work;
use crate::{print, signals};
use std::path::{Path, PathBuf};
use striate::runs::Record;
use striate::{REPORT, Run};
use striate_lab::run_page;
use striate_torch::Shown;

/// Mistakes that are shown if nobody asks for a number.
pub(crate) const WORST: usize = 12;

pub(crate) fn report(args: &ReportArgs) -> Result<(), CliError> {
    let page = write(&args.run, args.worst)?;
    print(&format!("report {}\n", Shown(page.display())))
}

/// Writes the page into the run's folder; its path.
pub(crate) fn write(folder: &Path, worst: usize) -> Result<PathBuf, CliError> {
    // Runs of several seeds lie in folders of their own.
    let of_seeds = Record::find(folder).ok().and_then(|found| found.runs.into_iter().find(|run| run.folder != folder));
    if let Some(run) = of_seeds {
        let (folder, run) = (folder.display(), run.folder.display());
        return Err(CliError::Usage(format!("{folder} holds several runs: name one of them, such as {run}")));
    }
    let work = Work::new();
    let run = Run::resume(folder)?.stop_on(signals::stop()).on_progress(|what, done, of| work.update(what, done, of));
    let page = run_page(run, folder, worst)?;
    let path = folder.join(REPORT);
    striate_files::write_bytes(&path, page)?;
    Ok(path)
}
