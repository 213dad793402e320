//! The `striate` program: a thin front to the crates. Results go to standard output; progress and errors to standard error.
//!
//! It is two programs with one command line. `striate` reads it, does itself what describes networks, and for all else becomes
//! `striate-engine`, which lies beside it and is the one that needs libtorch.

mod cli;
mod compare;
mod cost;
mod data;
mod diff;
mod engine;
mod error;
mod eval;
mod export;
mod find;
#[cfg(feature = "lab")]
mod lab;
mod launch;
mod libtorch;
mod models;
mod output;
mod page;
mod pictures;
mod predict;
mod progress;
mod recipes;
#[cfg(feature = "lab")]
mod report;
mod run;
mod runs;
mod self_test;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod source;
mod spread;
mod sweep;
mod table;
mod train;
mod weights;

use clap::Parser;
use cli::{Cli, Command};
use error::CliError;
use std::io::Write;
use std::path::Path;
use striate_torch::{Budget, Shown, is_contained, is_plain, last_file};

/// The program `striate`, from start to end.
pub fn striate() -> ! {
    striate_torch::exit(execute::<Striate>())
}

/// The program `striate-engine`, from start to end.
pub fn striate_engine() -> ! {
    striate_torch::exit(execute::<Engine>())
}

/// What the two programs do differently.
trait Program {
    /// Does what needs libtorch.
    fn compute(run: impl FnOnce() -> Result<(), CliError>) -> Result<(), CliError> {
        Self::compute_and_log(progress::start_logging, run)
    }

    /// The same, with log lines of another form.
    fn compute_and_log(start_logging: impl FnOnce(), run: impl FnOnce() -> Result<(), CliError>) -> Result<(), CliError>;
}

struct Striate;

impl Program for Striate {
    /// Leaves `run` alone: what nothing calls is not linked, and neither is the libtorch that it needs.
    fn compute_and_log(_: impl FnOnce(), _run: impl FnOnce() -> Result<(), CliError>) -> Result<(), CliError> {
        engine::take_over()
    }
}

struct Engine;

impl Program for Engine {
    fn compute_and_log(start_logging: impl FnOnce(), run: impl FnOnce() -> Result<(), CliError>) -> Result<(), CliError> {
        striate_torch::cpu::check().map_err(|error| CliError::Usage(error.to_string()))?;
        start_logging();
        striate_torch::keep_memory_warm();
        striate_torch::fit_threads();
        run()
    }
}

/// Does what the command line says; the exit code.
fn execute<P: Program>() -> u8 {
    if let Err(error) = signals::catch() {
        say(&format!("error: {error}"));
        return error.exit_code();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::report_usage(&error),
    };
    if let Some(bytes) = cli.read_budget {
        Budget::set_default(bytes);
    }
    std::panic::set_hook(Box::new(|panic| {
        // A reader's panic becomes an error, which is told.
        if is_contained() {
            return;
        }
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        say(&defect(panic.payload_as_str().unwrap_or("no reason given"), &place, last_file().as_deref()));
    }));
    let ended = std::panic::catch_unwind(|| dispatch::<P>(cli.command));
    signals::begin_to_end();
    match ended {
        Ok(Ok(())) => 0,
        Ok(Err(CliError::Told(code))) => code,
        Ok(Err(error)) => {
            say(&format!("error: {error}"));
            error.exit_code()
        }
        Err(_) => 1,
    }
}

/// What a panic tells a user: the first line of its reason, where it was, and the last file that was read.
fn defect(reason: &str, place: &str, file: Option<&Path>) -> String {
    let reason = reason.lines().next().unwrap_or_default();
    let file = file.map(|file| format!(", the last file was {}", file.display())).unwrap_or_default();
    format!("error: this is a defect of striate, please report it: {reason} ({place}{file})")
}

fn dispatch<P: Program>(command: Command) -> Result<(), CliError> {
    match command {
        Command::Train(args) => P::compute(|| train::train(&args)),
        Command::Sweep(args) => P::compute(|| sweep::sweep(&args)),
        Command::Runs(args) => P::compute(|| runs::runs(&args)),
        Command::Compare(args) => P::compute(|| compare::compare(&args)),
        Command::Eval(args) => P::compute(|| eval::eval(&args)),
        Command::Predict(args) => P::compute(|| predict::predict(&args)),
        Command::Models(args) => models::models(&args),
        Command::Summary(args) => models::summary(&args),
        Command::Cost(args) => cost::cost(&args),
        Command::Run(args) => P::compute(|| run::run(&args)),
        Command::SelfTest(args) => P::compute(|| self_test::self_test(&args)),
        Command::Bench(args) => engine::bench(&args.args),
        #[cfg(feature = "check")]
        Command::Export(args) if args.check => P::compute(|| export::export_checked(&args)),
        #[cfg(not(feature = "check"))]
        Command::Export(args) if args.check => Err(left_out("export --check")),
        Command::Export(args) => export::export(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => P::compute_and_log(|| striate_serve::log_as_json(progress::filter()), || serve::serve(&args)),
        #[cfg(not(feature = "serve"))]
        Command::Serve(_) => Err(left_out("serve")),
        Command::Data(args) => P::compute(|| data::data(&args)),
        Command::Weights(command) => P::compute(|| weights::weights(&command)),
        #[cfg(feature = "lab")]
        Command::Lab(command) => P::compute(|| lab::lab(&command)),
        #[cfg(feature = "lab")]
        Command::Report(args) => P::compute(|| report::report(&args)),
        #[cfg(not(feature = "lab"))]
        Command::Report(_) => Err(left_out("report")),
        #[cfg(not(feature = "lab"))]
        Command::Lab(_) => Err(left_out("lab")),
    }
}

/// The answer to a command in a build that lacks it.
#[cfg(not(all(feature = "lab", feature = "check", feature = "serve")))]
pub(crate) fn left_out(command: &str) -> CliError {
    CliError::Usage(format!("this program was built without `{command}`: `cargo xtask {command}` builds it"))
}

/// Writes a line to standard error, escaped as [`Shown`] does it, in one piece, so that the lines of several processes stay apart. What
/// cannot be written there is lost: nothing fails for it.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", Shown(line)).as_bytes());
}

/// Writes a result to standard output, escaped as [`Shown`] does it but for the ends of lines: so put a name from outside into
/// `text` with `Shown`. A reader that has gone, as `head` does, ends the program quietly.
fn print(text: &str) -> Result<(), CliError> {
    let escape = |letter: char| letter.escape_default().to_string();
    write_out(&replaced(text, escape))
}

/// The text with what is not plain replaced, apart from the ends of lines.
fn replaced(text: &str, replace: impl Fn(char) -> String) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter == '\n' || is_plain(letter) { plain.push(letter) } else { plain += &replace(letter) }
    }
    plain
}

fn write_out(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// How writing to standard output went.
fn written(result: std::io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => striate_torch::exit(0),
        other => other.map_err(|error| CliError::Usage(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes a result to standard output as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?;
    // Only texts hold such letters, and JSON has escapes of its own.
    let escape = |letter: char| letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    write_out(&replaced(&format!("{text}\n"), escape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_names_the_file_it_was_at() {
        let line = defect("index 7\nmore", "x.rs:1:2", Some(Path::new("cat.png")));
        assert_eq!(line, "error: this is a defect of striate, please report it: index 7 (x.rs:1:2, the last file was cat.png)");
    }

    #[test]
    fn what_steers_a_terminal_is_replaced_and_lines_stay() {
        assert_eq!(replaced("a\u{1b}b\n猫\u{9b}", |_| "?".to_owned()), "a?b\n猫?");
    }
}
