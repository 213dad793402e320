//! `lab`: claims as experiments, and a look inside networks.
mod claims;

use crate::error::CliError;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use striate_lab::DEFAULT_DATA;

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// List the claims that can be put to the test
    List(ListArgs),
    /// Put claims to the test: measure, draw, judge
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Names that `lab list` gives, or all
    #[arg(required = true, value_name = "CLAIM")]
    claims: Vec<String>,
    /// Small networks and few steps, up to 5 minutes a claim on two cores; the default
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// What each claim deserves: up to hours
    #[arg(long)]
    full: bool,
    /// How many seeds; by default as many as the claim says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    seeds: Option<u16>,
    /// The first seed; the others follow it
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=u64::MAX / 2))]
    first_seed: u64,
    /// The dataset to train on
    #[arg(long, value_name = "NAME", default_value = DEFAULT_DATA)]
    data: String,
    /// A folder with the dataset's files, instead of the cache or a download
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Threads of one operator; 0 takes all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Where results go; by default runs/lab-quick or runs/lab-full
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print the outcomes as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn lab(command: &LabCommand) -> Result<(), CliError> {
    match command {
        LabCommand::List(args) => claims::list(args),
        LabCommand::Run(args) => claims::run(args),
    }
}
