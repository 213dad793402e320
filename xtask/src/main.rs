//! Striate's own commands: sets up libtorch, builds, tests, and runs the program.
//!
//! This binary links no libtorch, so that it builds in seconds on a machine that has none yet.

mod bench;
mod check;
mod dependencies;
mod dist;
mod doctor;
mod fixtures;
mod program;
mod python;
mod sanitize;
mod setup;
mod test;
mod wishes;
mod workspace;

use std::{ffi::OsString, io::ErrorKind, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use striate_fetch::FetchError;
use striate_files::FilesError;

use crate::{setup::Options, workspace::Workspace};

/// Sets up, builds, tests and runs Striate.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install libtorch
    Setup(Options),
    /// List missing tools, and how to fix each
    Doctor,
    /// Check the rules between crates and on the code of others, such as allowed dependencies
    Check(CheckOptions),
    /// Check, lint and test everything
    Test,
    /// Measure the speed of networks, and of peers
    Bench(Verbatim),
    /// Pack the programs for machines that have no Rust
    Dist(dist::Options),
    /// Regenerate test fixtures with PyTorch, in a Python environment of its own
    Fixtures(fixtures::Options),
    /// Train a network
    Train(Verbatim),
    /// Search over the fields of a recipe
    Sweep(Verbatim),
    /// List runs
    Runs(Verbatim),
    /// Compare runs
    Compare(Verbatim),
    /// Measure a bundle's accuracy on a test set
    Eval(Verbatim),
    /// Classify pictures with a bundle
    Predict(Verbatim),
    /// List the networks of the registry
    Models(Verbatim),
    /// Show every layer of a network
    Summary(Verbatim),
    /// Compare the parameters and multiply-adds of designs and networks
    Cost(Verbatim),
    /// Run a network on a tensor
    Run(Verbatim),
    /// Inspect, convert or download weights
    Weights(Verbatim),
    /// Test the claims of the classic papers, and look inside networks
    Lab(Verbatim),
    /// Check kernels, networks, graphs and training on the devices of this machine
    SelfTest(Verbatim),
    /// Write a finished run's page
    Report(Verbatim),
    /// Write a bundle as ONNX, for other runtimes
    Export(Verbatim),
    /// Answer pictures over HTTP
    Serve(Verbatim),
    /// Download datasets, or list them; check, preview and split pictures
    Data(Verbatim),
}

#[derive(Args)]
struct CheckOptions {
    /// Run the kernels under AddressSanitizer and UndefinedBehaviorSanitizer instead; takes some minutes
    #[arg(long)]
    sanitize: bool,
}

/// Arguments that another program reads, `--help` included.
#[derive(Args)]
#[command(disable_help_flag = true)]
struct Verbatim {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return print(&usage),
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            if is_of_the_user(&error) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Help, the version, or what is wrong with the command line.
fn print(usage: &clap::Error) -> ExitCode {
    match usage.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitCode::from(2)
        }
        _ if usage.use_stderr() => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    }
}

/// Whether it is the user's own disk, and no server or tool, that failed.
fn is_of_the_user(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<FilesError>() || cause.downcast_ref::<FetchError>().is_some_and(FetchError::is_local))
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let striate = |name: &str, verbatim: Verbatim| program::run(&workspace, name, &verbatim.args);
    match command {
        Command::Setup(options) => setup::setup_and_tell(&workspace, &options),
        Command::Doctor => doctor::run(&workspace),
        Command::Check(CheckOptions { sanitize: true }) => sanitize::run(&workspace),
        Command::Check(_) => check::run(&workspace),
        Command::Test => test::run(&workspace),
        Command::Bench(verbatim) => bench::run(&workspace, &verbatim.args),
        Command::Dist(options) => dist::run(&workspace, &options),
        Command::Fixtures(options) => fixtures::run(&workspace, &options),
        Command::Train(verbatim) => striate("train", verbatim),
        Command::Sweep(verbatim) => striate("sweep", verbatim),
        Command::Runs(verbatim) => striate("runs", verbatim),
        Command::Compare(verbatim) => striate("compare", verbatim),
        Command::Eval(verbatim) => striate("eval", verbatim),
        Command::Predict(verbatim) => striate("predict", verbatim),
        Command::Models(verbatim) => striate("models", verbatim),
        Command::Summary(verbatim) => striate("summary", verbatim),
        Command::Cost(verbatim) => striate("cost", verbatim),
        Command::Run(verbatim) => striate("run", verbatim),
        Command::Weights(verbatim) => striate("weights", verbatim),
        Command::Export(verbatim) => striate("export", verbatim),
        Command::Serve(verbatim) => striate("serve", verbatim),
        Command::Data(verbatim) => striate("data", verbatim),
        Command::SelfTest(verbatim) => striate("self-test", verbatim),
        Command::Report(verbatim) => striate("report", verbatim),
        Command::Lab(verbatim) => striate("lab", verbatim),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
