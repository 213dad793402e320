//! `--nproc`: starts processes on this machine and watches them. Of those that train together, it starts all again when one dies.
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::signals;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use striate_torch::available_memory;
use striate_torch::cpu::Cores;
use striate_train::LAST;
use striate_train::distributed::{Attempt, Meeting};

/// The options that are this process's own. Each has a value.
const OWN: [&str; 2] = ["--nproc", "--max-restarts"];
/// What a process takes as soon as it begins; the network and its data come on top.
const LEAST_MEMORY: u64 = 64 << 20;
/// How often the processes are looked at.
const PAUSE: Duration = Duration::from_millis(10);
/// The exit codes of a stop, and of an error that starting again does not help against.
const STOPPED: i32 = 130;
const USAGE: i32 = 2;

/// How all processes of an attempt ended.
struct Ended {
    codes: Vec<Option<i32>>,
    /// What was seen of the first that failed.
    reason: Option<String>,
}

pub(crate) fn launch(args: &TrainArgs, count: u64) -> Result<(), CliError> {
    let size = usize::try_from(count).unwrap_or(usize::MAX);
    if args.find_lr || args.find_batch_size {
        let reason = "--nproc trains with known batches: leave out --find-lr and --find-batch-size";
        return Err(CliError::Usage(reason.to_owned()));
    }
    // They save themselves, and this waits for them.
    signals::saves_itself();
    let meeting = Meeting::open()?;
    let mut command_line = for_workers(std::env::args_os().skip(1));
    for number in 0..=args.max_restarts {
        let attempt = meeting.attempt(number, size)?;
        let timeout = Some(Duration::from_secs(args.timeout));
        let ended = Workers::start(&command_line, &attempt, size)?.watch(&attempt, timeout);
        let any = |code| ended.codes.contains(&Some(code));
        if ended.codes.iter().all(|code| *code == Some(0)) {
            return Ok(());
        } else if any(STOPPED) {
            return Err(CliError::Told(130));
        } else if any(USAGE) {
            return Err(CliError::Told(2));
        } else if signals::stopped() && !any(1) {
            // The signal ended them before they could heed it.
            return Err(CliError::Stopped("stopped".to_owned()));
        }
        let reason = ended.reason.unwrap_or_else(|| "a process ended".to_owned());
        if number == args.max_restarts {
            return Err(if any(1) { CliError::Told(1) } else { CliError::Failed(reason) });
        }
        tracing::warn!("{reason}: all start again, {} of {}", number + 1, args.max_restarts);
        if let Some(folder) = attempt.of_first(striate::FOLDER)? {
            command_line = again(args, command_line, Path::new(&folder))?;
        }
    }
    Err(CliError::Told(1))
}

/// Starts processes that share independent pieces of work out among themselves.
pub(crate) fn spread(count: u64) -> Result<(), CliError> {
    let size = usize::try_from(count).unwrap_or(usize::MAX);
    signals::saves_itself();
    let meeting = Meeting::open()?;
    let attempt = meeting.attempt(0, size)?;
    let command_line = for_workers(std::env::args_os().skip(1));
    let ended = Workers::start(&command_line, &attempt, size)?.watch(&attempt, None);
    // One that ends well has seen that all is done.
    let codes = [USAGE, 1, 0, STOPPED];
    match codes.into_iter().find(|code| ended.codes.contains(&Some(*code))).and_then(|code| u8::try_from(code).ok()) {
        Some(0) => {
            if let Some(reason) = ended.reason {
                tracing::warn!("{reason}: the others did its part");
            }
            Ok(())
        }
        Some(code) => Err(CliError::Told(code)),
        None if signals::stopped() => Err(CliError::Stopped("stopped".to_owned())),
        None => Err(CliError::Failed(ended.reason.unwrap_or_else(|| "a process ended".to_owned()))),
    }
}

/// The command line of each process.
fn for_workers(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut kept, mut skip) = (Vec::new(), false);
    for arg in args {
        let text = arg.to_string_lossy().into_owned();
        if std::mem::take(&mut skip) {
            continue;
        }
        skip = OWN.contains(&text.as_str());
        let joined = OWN.iter().any(|own| text.strip_prefix(own).is_some_and(|rest| rest.starts_with('=')));
        if !skip && !joined {
            kept.push(arg);
        }
    }
    kept
}

/// The command line after a fault: it goes on from the last checkpoint, or begins again where there is none.
fn again(args: &TrainArgs, former: Vec<OsString>, folder: &Path) -> Result<Vec<OsString>, CliError> {
    let folder =
        std::path::absolute(folder).map_err(|error| CliError::Failed(format!("cannot find {}: {error}", folder.display())))?;
    if !folder.join(LAST).exists() {
        let given = args.out.is_some() || args.resume.is_some();
        let out = (!given).then(|| [OsString::from("--out"), folder.into()]).into_iter().flatten();
        // Of one that began there before, the folder is known.
        let known = former.iter().any(|arg| arg == "--out");
        return Ok(if known { former } else { former.into_iter().chain(out).collect() });
    }
    let mut line: Vec<OsString> = vec!["train".into(), "--resume".into(), folder.into(), "--timeout".into()];
    line.push(args.timeout.to_string().into());
    let number = |name: &str, value: Option<usize>| value.map(|value| [OsString::from(name), value.to_string().into()]);
    line.extend([number("--threads", args.threads), number("--workers", args.workers)].into_iter().flatten().flatten());
    if let Some(data) = &args.data_dir {
        line.extend(["--data-dir".into(), PathBuf::into_os_string(data.clone())]);
    }
    if let Some(devices) = &args.devices {
        line.extend(["--devices".into(), devices.join(",").into()]);
    }
    for (name, value) in
        [("--cache", args.cache.clone()), ("--backend", args.backend.map(|backend| format!("{backend:?}").to_lowercase()))]
    {
        line.extend(value.map(|value| [OsString::from(name), value.into()]).into_iter().flatten());
    }
    if let (Some(epochs), Some(_)) = (args.epochs, &args.resume) {
        line.extend(["--epochs".into(), epochs.to_string().into()]);
    }
    let switches = [("--tensorboard", args.tensorboard), ("--report", args.report), ("--json", args.json)];
    line.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| OsString::from(name)));
    Ok(line)
}

/// The processes of an attempt. Those that live when this is dropped are killed.
struct Workers(Vec<Child>);

impl Workers {
    fn start(command_line: &[OsString], attempt: &Attempt, size: usize) -> Result<Self, CliError> {
        fits(size, available_memory())?;
        let failed = |error: std::io::Error| CliError::Failed(format!("cannot start a process: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let cores = Cores::found().usable;
        let mut workers = Self(Vec::new());
        for rank in 0..size {
            let mut command = Command::new(&program);
            // A signal of the terminal reaches this process alone, which passes it on once.
            command.args(command_line).stdin(Stdio::null()).process_group(0).envs(attempt.variables(rank));
            if std::env::var_os("OMP_NUM_THREADS").is_none() {
                command.env("OMP_NUM_THREADS", (cores / size).max(1).to_string());
            }
            workers.0.push(command.spawn().map_err(failed)?);
        }
        Ok(workers)
    }

    /// Waits until all have ended. If they work together, with a timeout, the others end once one has failed: they get the time that they
    /// take to find that out, and are killed then, since one that was stopped cannot end by itself. Otherwise the others take over what
    /// one had that failed, or that hangs and is killed.
    fn watch(mut self, attempt: &Attempt, timeout: Option<Duration>) -> Ended {
        let mut ended: Vec<Option<ExitStatus>> = vec![None; self.0.len()];
        let (mut reason, mut failed_at, mut passed_on) = (None, None::<Instant>, false);
        while ended.iter().any(Option::is_none) {
            for (rank, (child, status)) in self.0.iter_mut().zip(&mut ended).enumerate() {
                if status.is_some() {
                    continue;
                }
                *status = child.try_wait().unwrap_or(Some(ExitStatus::from_raw(1 << 8)));
                let Some(status) = status else {
                    if timeout.is_none() && attempt.is_given_up(rank).unwrap_or(false) {
                        let _ = child.kill();
                    }
                    continue;
                };
                if timeout.is_none() {
                    let _ = attempt.give_up(rank);
                }
                if !status.success() && status.code() != Some(STOPPED) && failed_at.is_none() {
                    failed_at = Some(Instant::now());
                    let how = told(rank, *status);
                    // The process itself may have said more.
                    reason = attempt.fault().ok().flatten().or(Some(how.clone()));
                    if timeout.is_some() {
                        let _ = attempt.end(&how);
                    }
                }
            }
            if signals::stopped() && !std::mem::replace(&mut passed_on, true) {
                self.each_left(&ended, Signal::SIGTERM);
            }
            if failed_at.zip(timeout).is_some_and(|(since, timeout)| since.elapsed() > timeout / 4) {
                self.each_left(&ended, Signal::SIGKILL);
            }
            thread::sleep(PAUSE);
        }
        self.0.clear();
        Ended { codes: ended.into_iter().map(|status| status.and_then(|status| status.code())).collect(), reason }
    }

    fn each_left(&self, ended: &[Option<ExitStatus>], signal: Signal) {
        for (child, _) in self.0.iter().zip(ended).filter(|(_, status)| status.is_none()) {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Refuses processes that would take the machine's memory from all others as soon as they begin.
fn fits(size: usize, available: Option<u64>) -> Result<(), CliError> {
    let Some(most) = available.map(|bytes| bytes / LEAST_MEMORY).filter(|most| *most < size as u64) else { return Ok(()) };
    let reason = format!("--nproc {size}: memory is free for {most} processes at most, before they hold any data: take fewer");
    Err(CliError::Usage(reason))
}

/// How a process ended.
fn told(rank: usize, status: ExitStatus) -> String {
    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => format!("rank {rank} was killed by {signal}"),
        _ => format!("rank {rank} ended with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_processes_than_memory_holds_are_not_started() {
        assert!(fits(16, Some(1 << 30)).is_ok() && fits(4096, None).is_ok());
        let told = fits(17, Some(1 << 30)).map_err(|error| error.to_string());
        assert_eq!(
            told,
            Err("--nproc 17: memory is free for 16 processes at most, before they hold any data: take fewer".to_owned())
        );
    }

    #[test]
    fn workers_get_the_command_line_without_what_starts_them() {
        let line = ["train", "--nproc", "2", "lenet5", "--max-restarts=3", "--nproc=4", "--epochs", "2"];
        assert_eq!(for_workers(line.iter().map(OsString::from)), ["train", "lenet5", "--epochs", "2"]);
    }

    #[test]
    fn how_a_process_ended_is_told() {
        assert_eq!(told(1, ExitStatus::from_raw(9)), "rank 1 was killed by SIGKILL");
        assert_eq!(told(0, ExitStatus::from_raw(3 << 8)), "rank 0 ended with exit status: 3");
    }
}
