//! `cargo xtask setup`: the libtorch that torch-sys wants, from the first place that has it.

mod archive;
mod libtorch;
mod pip;
mod unpack;

use std::{env, fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use striate_fetch::{FetchError, cache_dir, install_dir, replace_dir};

pub(crate) use libtorch::Libtorch;

use crate::{doctor, python, workspace::Workspace};

/// What `setup` is asked for.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Asks for a libtorch that can use an NVIDIA GPU
    #[arg(long)]
    pub(crate) cuda: bool,
    /// Forgets the libtorch that is in use, and installs anew
    #[arg(long)]
    pub(crate) force: bool,
}

/// The libtorch that is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) version: &'static str,
    pub(crate) cuda: bool,
}

impl Wanted {
    /// The name of the folder that it is installed in.
    fn folder_name(self) -> String {
        format!("{}-{}", self.version, if self.cuda { "cuda" } else { "cpu" })
    }

    /// What the download and the installed folder need together, at most. `STRIATE_LIBTORCH_DISK_SPACE` says another number
    /// of bytes: the libtorch of the tests is small.
    fn disk_space(self) -> u64 {
        let said = env::var("STRIATE_LIBTORCH_DISK_SPACE").ok().and_then(|bytes| bytes.parse().ok());
        said.unwrap_or(if self.cuda { CUDA_DISK_SPACE } else { CPU_DISK_SPACE })
    }
}

/// 527 MB of wheel and 486 MB of folder.
const CPU_DISK_SPACE: u64 = 1_050_000_000;
/// 2.5 GB of wheels and 3.9 GB of folder.
const CUDA_DISK_SPACE: u64 = 6_500_000_000;

/// `cargo xtask setup`.
pub(crate) fn setup_and_tell(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let libtorch = setup(workspace, options)?;
    eprintln!("libtorch {libtorch}");
    if !libtorch.has_cuda() && doctor::gpu().is_ok() {
        eprintln!("this machine has an NVIDIA GPU: `cargo xtask setup --cuda` installs a libtorch that uses it");
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds or installs libtorch and notes it for cargo. Takes no time when that was done before.
pub(crate) fn setup(workspace: &Workspace, options: &Options) -> Result<Libtorch> {
    let wanted = Wanted { version: workspace.libtorch_version()?, cuda: options.cuda };
    let libtorch = if let Some(path) = workspace.users_libtorch() {
        let libtorch = Libtorch::at(&path).and_then(|libtorch| libtorch.suited_to(wanted));
        libtorch.context("LIBTORCH is set to a folder that does not do (unset it to let `cargo xtask setup` install one)")?
    } else if let Some(libtorch) = workspace.noted_libtorch().filter(|_| !options.force).and_then(|path| suitable(&path, wanted))
    {
        return Ok(libtorch);
    } else if let Some(libtorch) = python::torch().and_then(|path| suitable(&path, wanted)) {
        libtorch
    } else {
        install(wanted, options.force)?
    };
    workspace.note_libtorch(libtorch.path())?;
    Ok(libtorch)
}

fn suitable(path: &Path, wanted: Wanted) -> Option<Libtorch> {
    Libtorch::at(path).and_then(|libtorch| libtorch.suited_to(wanted)).ok()
}

/// Installs libtorch into the cache folder, once for all checkouts of a user.
fn install(wanted: Wanted, force: bool) -> Result<Libtorch> {
    let cache = cache_dir()?;
    let dest = cache.join("libtorch").join(wanted.folder_name());
    let waiting = || eprintln!("waiting for another `cargo xtask setup` ...");
    let build = |folder: &Path| {
        let downloads = cache.join("downloads").join(wanted.folder_name());
        require_space(&cache, wanted.disk_space())?;
        download_into(folder, &downloads, wanted)?;
        Libtorch::at(folder)?.suited_to(wanted)?;
        // An archive that is unpacked is of no more use; one that could not be removed does no harm.
        let _ = fs::remove_dir_all(&downloads);
        anyhow::Ok(())
    };
    match force {
        true => replace_dir(&dest, waiting, build)?,
        false => drop(install_dir(&dest, waiting, build)?),
    }
    Libtorch::at(&dest)?
        .suited_to(wanted)
        .with_context(|| format!("run `cargo xtask setup --force` to replace {}", dest.display()))
}

/// Fills `folder` from the official archive, or else from Python's package index.
fn download_into(folder: &Path, downloads: &Path, wanted: Wanted) -> Result<()> {
    let from_archive = match archive::install(folder, downloads, wanted) {
        Err(error) if !is_of_the_disk(&error) => error,
        done => return done,
    };
    eprintln!("not from PyTorch's own archive: {from_archive:#}");
    match pip::install(folder, downloads, wanted) {
        Err(error) if !is_of_the_disk(&error) => Err(error).with_context(|| {
            let version = wanted.version;
            format!("libtorch {version} comes neither from PyTorch's archive ({from_archive:#}) nor from pip")
        }),
        done => done,
    }
}

/// Whether this machine's disk is at fault, and no other way to libtorch would do better.
fn is_of_the_disk(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(FetchError::DiskFull { .. } | FetchError::Io { .. }))
}

/// Fails when the disk that holds `folder` has less than `needed` bytes left.
fn require_space(folder: &Path, needed: u64) -> Result<()> {
    let free = fs4::available_space(folder).with_context(|| format!("cannot tell the free space of {}", folder.display()))?;
    if free < needed {
        bail!(
            "installing libtorch takes {} MB and {} has {} MB left: free some space, or set STRIATE_HOME to a folder on another disk",
            needed / 1_000_000,
            folder.display(),
            free / 1_000_000
        );
    }
    Ok(())
}

/// A progress bar over bytes, on standard error and only where that is a terminal.
fn progress_bar(label: &'static str, total: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
    let bar = ProgressBar::new(total).with_prefix(label).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}
