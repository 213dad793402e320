//! The `striate` program: a thin front to the crates. Results go to standard output; progress and errors to standard error.

mod cli;
mod cost;
mod data;
mod devices;
mod diff;
mod error;
mod eval;
mod images;
mod lab;
mod models;
mod page;
mod predict;
mod progress;
mod recipes;
mod run;
mod source;
mod table;
mod train;
mod weights;

use clap::Parser;
use cli::{Cli, Command};
use error::CliError;
use std::io::Write;

fn main() {
    striate_torch::exit(execute());
}

/// Does what the command line says; the exit code.
fn execute() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::report_usage(&error),
    };
    progress::start_logging();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let reason = panic.payload_as_str().unwrap_or("no reason given").lines().next().unwrap_or_default();
        say(&format!("error: this is a defect of striate, please report it: {reason} ({place})"));
    }));
    match std::panic::catch_unwind(|| dispatch(cli.command)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            say(&format!("error: {error}"));
            error.exit_code()
        }
        Err(_) => 1,
    }
}

fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Train(args) => train::train(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Predict(args) => predict::predict(&args),
        Command::Models(args) => models::models(&args),
        Command::Summary(args) => models::summary(&args),
        Command::Cost(args) => cost::cost(&args),
        Command::Run(args) => run::run(&args),
        Command::Data(args) => data::data(&args),
        Command::Weights(command) => weights::weights(&command),
        Command::Lab(command) => lab::lab(&command),
    }
}

/// Writes a line to standard error. What cannot be written there is lost: nothing fails for it.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a result to standard output. A reader that has gone, as `head` does, ends the program quietly.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => striate_torch::exit(0),
        other => other.map_err(|error| CliError::Failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes a result to standard output as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
    print(&format!("{text}\n"))
}
