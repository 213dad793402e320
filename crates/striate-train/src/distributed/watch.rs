//! Each process says again and again that it lives, and learns which one does not.
use super::Place;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use striate_torch::TorchError;
use striate_torch::distributed::Store;

/// Why the run ends, in one line.
const FAULT: &str = "fault";

/// A thread that writes a sign of life into the store. Rank 0 reads those of all, and the others that of rank 0: so the store is asked
/// twice by each process in each interval, however many there are.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    rank: usize,
    size: usize,
    /// Whether rank 0 keeps the store.
    by_first: bool,
    timeout: Duration,
    /// Operations with other processes that this one has begun.
    begun: AtomicU64,
    end: AtomicBool,
    seen: Mutex<Seen>,
}

/// What this process knows of the others.
#[derive(Debug)]
struct Seen {
    fault: Option<String>,
    /// Of the processes that it watches: the last sign, what that process had begun, and since when that is the last.
    others: Vec<Other>,
    /// When the store last answered.
    answered: Instant,
}

#[derive(Debug)]
struct Other {
    rank: usize,
    sign: Vec<u8>,
    begun: u64,
    since: Instant,
}

impl Watch {
    /// Watches by a client of the store of its own, since others may wait for something. All processes have written a first sign.
    pub(super) fn start(store: Store, place: &Place, timeout: Duration) -> std::io::Result<Self> {
        let Place { rank, size, by_launcher, .. } = *place;
        let others = if rank == 0 { 1..size } else { 0..1 };
        let other = |rank| Other { rank, sign: Vec::new(), begun: 0, since: Instant::now() };
        let seen = Seen { fault: None, others: others.map(other).collect(), answered: Instant::now() };
        let (begun, end, seen) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(seen));
        let shared = Arc::new(Shared { rank, size, by_first: !by_launcher, timeout, begun, end, seen });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || of_thread.run(&store))?;
        Ok(Self { shared, thread })
    }

    /// An operation with other processes begins.
    pub(super) fn begin(&self) {
        self.shared.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the store is there to be asked.
    pub(super) fn is_answered(&self) -> bool {
        self.shared.seen().answered.elapsed() <= self.shared.silence()
    }

    /// Why the run ends, if that is known.
    pub(super) fn fault(&self) -> Option<String> {
        let seen = self.shared.seen();
        seen.fault.clone().or_else(|| self.shared.gone(&seen))
    }

    /// Why an operation with the others failed: waits until it is known, but not longer than a process may be silent.
    pub(super) fn reason(&self, error: &str) -> String {
        let asked = Instant::now();
        loop {
            if let Some(fault) = self.fault() {
                return fault;
            }
            // Signs of after the error are there.
            if asked.elapsed() > 3 * self.shared.interval()
                && let Some(rank) = self.hanging()
            {
                return format!("rank {rank} hangs: it sends nothing, and lives");
            }
            if asked.elapsed() > self.shared.silence() + self.shared.interval() {
                return format!("cannot reach the other processes: {error}");
            }
            std::thread::sleep(self.shared.interval() / 4);
        }
    }

    /// A process that lives, and has not begun what this one waits for.
    fn hanging(&self) -> Option<usize> {
        let (seen, own) = (self.shared.seen(), self.shared.begun.load(Ordering::Relaxed));
        let lives = |other: &&Other| other.since.elapsed() < self.shared.interval() * 5 / 2;
        let last = seen.others.iter().filter(lives).min_by_key(|other| other.begun)?;
        (last.begun < own).then_some(last.rank)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        // It may wait for a store that is gone, and has all that it needs.
        self.thread.thread().unpark();
    }
}

impl Shared {
    fn interval(&self) -> Duration {
        self.timeout / 20
    }

    /// After so long without a sign, a process counts as gone. An operation with it fails a little later.
    fn silence(&self) -> Duration {
        self.timeout / 2
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, store: &Store) {
        let mut number = 0_u64;
        while !self.end.load(Ordering::Relaxed) {
            number += 1;
            // A store that is gone is told by the time that it has not answered.
            if self.look(store, number).is_ok() {
                self.seen().answered = Instant::now();
            }
            std::thread::park_timeout(self.interval());
        }
    }

    fn look(&self, store: &Store, number: u64) -> Result<(), TorchError> {
        let begun = self.begun.load(Ordering::Relaxed);
        store.set(&sign_of(self.rank), format!("{number} {begun}").as_bytes())?;
        let watched: Vec<usize> = self.seen().others.iter().map(|other| other.rank).collect();
        for (place, rank) in watched.into_iter().enumerate() {
            let sign = store.get(&sign_of(rank), self.silence())?;
            let other = &mut self.seen().others[place];
            if other.sign != sign {
                let text = String::from_utf8_lossy(&sign).into_owned();
                other.begun = text.split_once(' ').and_then(|(_, begun)| begun.parse().ok()).unwrap_or(0);
                (other.sign, other.since) = (sign, Instant::now());
            }
        }
        if self.seen().fault.is_some() {
            return Ok(());
        }
        let mut fault = fault_in(store)?;
        if fault.is_none() && self.rank == 0 {
            fault = self.gone(&self.seen());
            if let Some(fault) = &fault {
                tell_fault(store, fault)?;
            }
        }
        self.seen().fault = fault;
        Ok(())
    }

    /// A process that gives no more signs.
    fn gone(&self, seen: &Seen) -> Option<String> {
        if seen.answered.elapsed() > self.silence() {
            let keeper = if self.by_first { "rank 0" } else { "whoever started the processes" };
            return Some(format!("{keeper} does not answer: it was killed or stopped, or its machine cannot be reached"));
        }
        let silent = seen.others.iter().find(|other| other.since.elapsed() > self.silence())?;
        let of = self.size;
        Some(format!(
            "rank {} of {of} gives no sign of life: it was killed or stopped, or its machine cannot be reached",
            silent.rank
        ))
    }
}

/// The key of a process's signs.
pub(super) fn sign_of(rank: usize) -> String {
    format!("sign/{rank}")
}

/// Why the run ends, if somebody said it.
pub(super) fn fault_in(store: &Store) -> Result<Option<String>, TorchError> {
    if !store.has(FAULT)? {
        return Ok(None);
    }
    let fault = store.get(FAULT, Duration::from_secs(1))?;
    Ok(Some(String::from_utf8_lossy(&fault).into_owned()))
}

/// Says why the run ends, unless somebody said it before.
pub(super) fn tell_fault(store: &Store, fault: &str) -> Result<(), TorchError> {
    if store.add("faults", 1)? == 1 { store.set(FAULT, fault.as_bytes()) } else { Ok(()) }
}
