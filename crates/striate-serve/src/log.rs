//! Log lines of a program that serves.
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Writes the log lines of the whole process to standard error as JSON, which escapes what steers a terminal. It is for programs
/// without log lines of their own.
///
/// # Panics
///
/// If the process writes log lines already.
pub fn log_as_json(which: Targets) {
    let lines = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).log_internal_errors(false);
    tracing_subscriber::registry().with(which).with(lines).init();
}
