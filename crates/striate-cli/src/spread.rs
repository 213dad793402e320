//! Independent pieces of work, shared out among processes.
use crate::error::CliError;
use crate::{launch, signals};
use clap::Args;
use std::time::Duration;
use striate_train::distributed::{Place, Queue};

#[derive(Debug, Args)]
pub(crate) struct SpreadArgs {
    /// Share the trials out among this many processes on this machine
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    nproc: Option<u64>,
    /// Give a process's trial to another after this many seconds without a sign of life
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl SpreadArgs {
    /// The queue of this process and of those that were started with it. Nothing if this one has started others, which have done
    /// all.
    pub(crate) fn queue(&self) -> Result<Option<Queue>, CliError> {
        match self.nproc {
            Some(count) => launch::spread(count).map(|()| None),
            None => joined(self.timeout).map(Some),
        }
    }
}

/// The queue that the environment speaks of; of this process alone, where it speaks of none.
pub(crate) fn joined(timeout: u64) -> Result<Queue, CliError> {
    let Some(place) = Place::from_env()? else { return Ok(Queue::default()) };
    striate_torch::distributed::quiet();
    Ok(Queue::join(place, Duration::from_secs(timeout), signals::stop())?)
}

/// Has one of the processes tell something.
pub(crate) fn tell_once(queue: &Queue, key: &str, mut tell: impl FnMut() -> Result<(), CliError>) -> Result<(), CliError> {
    queue.once(&format!("told/{key}"), || tell().map(|()| Some(Vec::new()))).map(|_| ())
}

/// How a process ends that was asked to stop: one of several says so.
pub(crate) fn stopped(queue: &Queue, line: String) -> CliError {
    if queue.rank() == 0 { CliError::Stopped(line) } else { CliError::Told(130) }
}
