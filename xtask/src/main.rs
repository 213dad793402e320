//! Striate's own commands: sets up libtorch, builds, tests, and runs the program.
//!
//! This binary links no libtorch, so that it builds in seconds on a machine that has none yet.

mod bench;
mod browser;
mod check;
mod doctor;
mod fixtures;
mod program;
mod python;
mod setup;
mod test;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

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
    /// Finds or installs the libtorch that Striate is built against
    Setup(Options),
    /// Tells what is there, what is missing, and how to mend it
    Doctor,
    /// Checks the rules between the crates, such as who may depend on whom
    Check,
    /// Checks, lints, and tests everything
    Test,
    /// Measures how fast networks are, and others beside them
    Bench(Verbatim),
    /// Makes what tests compare with anew, by means of PyTorch in a Python environment of its own
    Fixtures(fixtures::Options),
    /// Runs `striate train`, which trains a network
    Train(Verbatim),
    /// Runs `striate eval`, which measures a trained network on a dataset
    Eval(Verbatim),
    /// Runs `striate predict`, which names what images show
    Predict(Verbatim),
    /// Runs `striate models`, which lists the architectures
    Models(Verbatim),
    /// Runs `striate summary`, which tells a network's layers, parameters and costs
    Summary(Verbatim),
    /// Runs `striate cost`, which compares what designs and networks cost
    Cost(Verbatim),
    /// Runs `striate run`, which puts a tensor through a network
    Run(Verbatim),
    /// Runs `striate weights`, which converts and inspects weights
    Weights(Verbatim),
    /// Runs `striate lab`, which puts claims to the test and looks inside networks
    Lab(Verbatim),
    /// Runs `striate data`, which downloads and inspects datasets
    Data(Verbatim),
}

/// Arguments that another program reads, `--help` included.
#[derive(Args)]
#[command(disable_help_flag = true)]
struct Verbatim {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let striate = |name: &str, verbatim: Verbatim| program::run(&workspace, name, &verbatim.args);
    match command {
        Command::Setup(options) => setup::setup_and_tell(&workspace, &options),
        Command::Doctor => doctor::run(&workspace),
        Command::Check => check::run(&workspace),
        Command::Test => test::run(&workspace),
        Command::Bench(verbatim) => bench::run(&workspace, &verbatim.args),
        Command::Fixtures(options) => fixtures::run(&workspace, &options),
        Command::Train(verbatim) => striate("train", verbatim),
        Command::Eval(verbatim) => striate("eval", verbatim),
        Command::Predict(verbatim) => striate("predict", verbatim),
        Command::Models(verbatim) => striate("models", verbatim),
        Command::Summary(verbatim) => striate("summary", verbatim),
        Command::Cost(verbatim) => striate("cost", verbatim),
        Command::Run(verbatim) => striate("run", verbatim),
        Command::Weights(verbatim) => striate("weights", verbatim),
        Command::Data(verbatim) => striate("data", verbatim),
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
