//! `report`: the page of a finished run.
use crate::cli::ReportArgs;
use crate::error::CliError;
use crate::progress::Work;
use crate::{print, signals};
use std::path::{Path, PathBuf};
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
    let work = Work::new();
    let run = Run::resume(folder)?.stop_on(signals::stop()).on_progress(|what, done, of| work.update(what, done, of));
    let page = run_page(run, folder, worst)?;
    let path = folder.join(REPORT);
    striate_files::write_bytes(&path, page)?;
    Ok(path)
}
