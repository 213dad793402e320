//! Signals that ask the program to end: SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1.
use crate::error::CliError;
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use striate_train::distributed::Place;

/// How long a command may take to end in order, where it has nothing to save.
const GRACE: Duration = Duration::from_millis(100);

/// For so long after the first signal, others are the same one for a process of several.
const LAUNCHERS: Duration = Duration::from_secs(2);

/// Set by the first signal.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// Whether the command saves itself before it ends, however long that takes.
static SAVES: AtomicBool = AtomicBool::new(false);
/// Whether the program has begun to end, so that only one thread tells why.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Whether SIGHUP is no reason to end.
static OUTLIVES_HANGUP: AtomicBool = AtomicBool::new(false);
/// What the last line says when a command is ended.
static FAREWELL: Mutex<&str> = Mutex::new("stopped");

/// The flag that the first signal sets, for whoever can end in order.
pub(crate) fn stop() -> Arc<AtomicBool> {
    Arc::clone(&STOP)
}

/// Whether a signal has come.
pub(crate) fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// From now on the command ends by itself once [`stop`] is set, and saves what it did.
pub(crate) fn saves_itself() {
    SAVES.store(true, Ordering::Relaxed);
}

/// From now on SIGHUP does not end the command, which does something else then.
#[cfg(feature = "serve")]
pub(crate) fn goes_on_after_hangup() {
    OUTLIVES_HANGUP.store(true, Ordering::Relaxed);
}

/// What to say if the command has to be ended.
#[cfg(feature = "lab")]
pub(crate) fn farewell(line: &'static str) {
    *FAREWELL.lock().unwrap_or_else(PoisonError::into_inner) = line;
}

/// Catches the signals. After the first, a command that does not [save itself](saves_itself) has a moment to end in order, and is
/// ended then: files are written whole or not at all, so nothing is half done. A second signal ends any command at once.
pub(crate) fn catch() -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot catch signals: {error}"));
    // `nohup` has it ignored.
    let caught: Vec<i32> = [SIGINT, SIGTERM, SIGUSR1].into_iter().chain((!is_ignored(SIGHUP)).then_some(SIGHUP)).collect();
    for signal in &caught {
        flag::register(*signal, stop()).map_err(failed)?;
    }
    let mut signals = Signals::new(caught).map_err(failed)?;
    let watch = move || {
        let mut signals = signals.forever().filter(|signal| *signal != SIGHUP || !OUTLIVES_HANGUP.load(Ordering::Relaxed));
        signals.next();
        if !SAVES.load(Ordering::Relaxed) {
            std::thread::sleep(GRACE);
        }
        if SAVES.load(Ordering::Relaxed) {
            let first = Instant::now();
            signals.next();
            // A terminal's signal may come from a launcher once more.
            while first.elapsed() < LAUNCHERS && matches!(Place::from_env(), Ok(Some(_))) {
                signals.next();
            }
        }
        let line = *FAREWELL.lock().unwrap_or_else(PoisonError::into_inner);
        begin_to_end();
        striate_files::remove_temporaries();
        let error = CliError::Stopped(line.to_owned());
        crate::say(&format!("error: {error}"));
        striate_torch::exit(error.exit_code());
    };
    // The thread that watches takes no signal itself: when this one holds them back, nobody takes them.
    held().thread_block().map_err(|error| failed(error.into()))?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
    // Those that came while `striate` became `striate-engine` come now.
    held().thread_unblock().map_err(|error| failed(error.into()))
}

/// Called before the last line is told. Of several threads, the first one goes on; the others wait for the end.
pub(crate) fn begin_to_end() {
    if ENDING.swap(true, Ordering::SeqCst) {
        loop {
            std::thread::park();
        }
    }
}

/// Holds signals back until the program that replaces this one [catches](catch) them; call it while no thread but that of [`catch`]
/// runs beside. An error if one has come already.
pub(crate) fn hold() -> Result<(), CliError> {
    // What cannot be held back ends the next program as it would any other.
    let _ = held().thread_block();
    if stopped() { Err(CliError::Stopped("stopped".to_owned())) } else { Ok(()) }
}

fn held() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1].into_iter().collect()
}

/// Whether the one who started this program had the signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
