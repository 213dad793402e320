//! Independent pieces of work, which processes share out among themselves.
use super::ask::ask;
use super::place::{Place, world};
use super::watch::{fault_in, sign_of, tell_fault};
use super::{KEYS, PATIENCE, connect, difference, serve};
use crate::TrainError;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use striate_torch::TorchError;
use striate_torch::distributed::Store;

/// How often a process that waits for others looks again. Of many processes, each looks less often.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a process ends that cannot reach the queue.
const LOST: &str =
    "the queue of work cannot be reached: whoever keeps it was killed or stopped, or its machine cannot be reached";
/// Why a process ends that was taken for lost.
const GIVEN_UP: &str = "this process gave no sign of life for so long that another took its work";

/// A queue of independent pieces of work, such as the trials of a sweep, for processes that may come late and die early.
///
/// All processes name the same pieces by the same keys. Each takes a piece that no other has, and learns the results of all. If a
/// process dies or is stopped, another takes its piece. A clone is the same queue; the default is one for a single process.
///
/// ```
/// use striate_train::distributed::Queue;
///
/// # use striate_train::TrainError;
/// let queue = Queue::default();
/// let keys = ["small".to_owned(), "large".to_owned()];
/// let results = queue.all(&keys, |at| Ok::<_, TrainError>(Some(keys[at].len().to_string().into_bytes())))?;
/// assert_eq!(results, Some(vec![b"5".to_vec(), b"5".to_vec()]));
/// # Ok::<(), TrainError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Queue(Option<Arc<Several>>);

/// What a process that asks for a piece of work learns.
#[derive(Debug)]
pub enum Taken<'q> {
    /// It is this process's to do.
    Mine(Turn<'q>),
    /// It is done, with this result.
    Done(Vec<u8>),
    /// Another process does it.
    Elsewhere,
}

/// A piece of work that this process does. If it is dropped before it is [done](Self::done), another process may take the piece.
#[derive(Debug)]
pub struct Turn<'q> {
    queue: Option<&'q Several>,
    key: String,
    number: u64,
    is_done: bool,
}

#[derive(Debug)]
struct Several {
    place: Place,
    timeout: Duration,
    store: Arc<Store>,
    life: Arc<Life>,
    /// The thread that gives signs of life.
    thread: Thread,
    /// The last signs of the processes that others wait for, and since when they are the last.
    signs: Mutex<HashMap<String, (Vec<u8>, Instant)>>,
}

#[derive(Debug)]
struct Life {
    end: AtomicBool,
    /// Set if this process is asked to stop, or has to.
    stop: Arc<AtomicBool>,
    /// Why it has to.
    fault: Mutex<Option<String>>,
}

impl Queue {
    /// Joins the queue of the processes that were started with this one; others may come later. Rank 0 or the launcher keeps it.
    ///
    /// After `timeout` without a sign of life, a process counts as lost. Whoever cannot reach the queue any more sets `stop`,
    /// so that it ends before another takes its piece.
    ///
    /// # Errors
    ///
    /// A port in use, a host that cannot be reached, a rank that two processes have.
    pub fn join(place: Place, timeout: Duration, stop: Arc<AtomicBool>) -> Result<Self, TrainError> {
        let (prefix, patience) = (format!("{KEYS}/{}", place.attempt), timeout * PATIENCE);
        let store = if place.keeps_store() { serve(&place, &prefix, patience)? } else { connect(&place, &prefix, patience)? };
        let rank = place.rank;
        if store.add(&format!("came/{rank}"), 1)? > 1 {
            return Err(world(format!("two processes say that they are rank {rank}: give each its own RANK")));
        }
        store.add("came", 1)?;
        let life = Arc::new(Life { end: AtomicBool::new(false), stop, fault: Mutex::default() });
        // Not to be asked while the other one waits for something.
        let (own, of_thread) = (Arc::new(connect(&place, &prefix, patience)?), Arc::clone(&life));
        own.set(&sign_of(rank), b"0")?;
        let live = move || of_thread.live(&own, rank, timeout);
        let thread = thread::Builder::new().name("life".to_owned()).spawn(live).map_err(|error| world(error.to_string()))?;
        let (thread, store) = (thread.thread().clone(), Arc::new(store));
        Ok(Self(Some(Arc::new(Several { place, timeout, store, life, thread, signs: Mutex::default() }))))
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |several| several.place.rank)
    }

    /// This process's number on its machine, from 0: that of its GPU.
    pub fn local_rank(&self) -> usize {
        self.0.as_ref().map_or(0, |several| several.place.local_rank)
    }

    /// Whether there is no other process.
    pub fn is_one(&self) -> bool {
        self.0.is_none()
    }

    /// Refuses facts, each a name and a value, that the first process to come has otherwise.
    ///
    /// # Errors
    ///
    /// Facts that differ, and the loss of the queue; so it is with all of these.
    pub fn agree(&self, facts: &[(&str, &str)]) -> Result<(), TrainError> {
        for (name, value) in facts {
            let told = || Ok::<_, TrainError>(Some(value.as_bytes().to_vec()));
            let Some(first) = self.once(&format!("fact/{name}"), told)? else { return Ok(()) };
            let first = String::from_utf8_lossy(&first).into_owned();
            if first != *value {
                let (rank, differ) = (self.rank(), difference(value, &first));
                let reason = format!("rank {rank} and the first to come have another {name}: {differ}");
                return Err(TrainError::Process { reason });
            }
        }
        Ok(())
    }

    /// Takes a piece of work, unless it is done, or a process that lives has it.
    ///
    /// # Errors
    ///
    /// As [`agree`](Self::agree).
    pub fn take(&self, key: &str) -> Result<Taken<'_>, TrainError> {
        let mine = |queue, number| Taken::Mine(Turn { queue, key: key.to_owned(), number, is_done: false });
        let Some(several) = &self.0 else { return Ok(mine(None, 0)) };
        if let Some(result) = self.known(key)? {
            return Ok(Taken::Done(result));
        }
        let Some(turn) = several.turn(key)? else { return Ok(Taken::Elsewhere) };
        // A process may be given up just after it has done a piece.
        Ok(self.known(key)?.map_or_else(|| mine(Some(several), turn), Taken::Done))
    }

    /// The result of a piece that is done.
    ///
    /// # Errors
    ///
    /// As [`agree`](Self::agree).
    pub fn known(&self, key: &str) -> Result<Option<Vec<u8>>, TrainError> {
        let Some(several) = &self.0 else { return Ok(None) };
        if let Some(reason) = several.life.fault().clone() {
            return Err(TrainError::Process { reason });
        }
        let (key, timeout) = (done_of(key), several.timeout);
        several.ask(move |store| value(store, &key, timeout))
    }

    /// Has all pieces done, and gives their results. This process does those that no other has: `work` gets their places among the
    /// keys. Nothing if `work` was asked to stop and gave nothing, or if a stop was asked for while others worked.
    ///
    /// # Errors
    ///
    /// What `work` fails with, after which another process may take the piece; else as [`agree`](Self::agree).
    pub fn all<E: From<TrainError>>(
        &self,
        keys: &[String],
        mut work: impl FnMut(usize) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<Vec<u8>>>, E> {
        let mut results: Vec<Option<Vec<u8>>> = vec![None; keys.len()];
        loop {
            for (at, key) in keys.iter().enumerate() {
                if results[at].is_some() {
                    continue;
                }
                results[at] = match self.take(key)? {
                    Taken::Done(result) => Some(result),
                    Taken::Elsewhere => None,
                    Taken::Mine(turn) => {
                        let Some(result) = work(at)? else { return Ok(None) };
                        turn.done(&result)?;
                        Some(result)
                    }
                };
            }
            if results.iter().all(Option::is_some) {
                return Ok(Some(results.into_iter().flatten().collect()));
            }
            if self.is_stopped() {
                return Ok(None);
            }
            self.pause();
        }
    }

    /// The same of one piece.
    ///
    /// # Errors
    ///
    /// As [`all`](Self::all).
    pub fn once<E: From<TrainError>>(
        &self,
        key: &str,
        mut work: impl FnMut() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        Ok(self.all(&[key.to_owned()], |_| work())?.and_then(|results| results.into_iter().next()))
    }

    /// Waits a little for others.
    pub fn pause(&self) {
        let size = self.0.as_ref().map_or(1, |several| several.place.size);
        thread::sleep(PAUSE.max(Duration::from_millis(size as u64)));
    }

    fn is_stopped(&self) -> bool {
        self.0.as_ref().is_some_and(|several| several.life.stop.load(Ordering::Relaxed) && several.life.fault().is_none())
    }
}

impl Turn<'_> {
    /// Tells the result to all.
    ///
    /// # Errors
    ///
    /// The loss of the queue.
    pub fn done(mut self, result: &[u8]) -> Result<(), TrainError> {
        self.is_done = true;
        let Some(several) = self.queue else { return Ok(()) };
        let (key, result) = (done_of(&self.key), result.to_owned());
        several.ask(move |store| store.set(&key, &result))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(several) = self.queue.filter(|several| !self.is_done && several.life.fault().is_none()) else { return };
        // If it does not arrive, the others find out that this process is gone.
        let key = over(&self.key, self.number);
        let _ = several.ask(move |store| store.add(&key, 1));
    }
}

impl Several {
    /// The number of the turn at a piece, if it is now this process's.
    fn turn(&self, key: &str) -> Result<Option<u64>, TrainError> {
        let (rank, timeout, of) = (self.place.rank, self.timeout, key.to_owned());
        let (turn, owner) = self.ask(move |store| {
            let mut turn = 0;
            while store.add(&over(&of, turn), 0)? > 0 {
                turn += 1;
            }
            if store.add(&format!("claim/{turn}/{of}"), 1)? == 1 {
                store.set(&owner_of(turn, &of), rank.to_string().as_bytes())?;
                return Ok((turn, None));
            }
            Owner::find(store, &owner_of(turn, &of), timeout).map(|owner| (turn, Some(owner)))
        })?;
        let Some(owner) = owner else { return Ok(Some(turn)) };
        if self.is_lost(&owner_of(turn, key), &owner) {
            let key = over(key, turn);
            self.ask(move |store| {
                if let Some(rank) = owner.rank {
                    store.set(&given_up(&rank), b"")?;
                }
                store.add(&key, 1)
            })?;
        }
        Ok(None)
    }

    /// Whether the owner of a turn gives no signs of life any more.
    fn is_lost(&self, turn: &str, owner: &Owner) -> bool {
        let mut signs = self.signs.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, since) = signs.entry(turn.to_owned()).or_insert_with(|| (owner.sign.clone(), Instant::now()));
        if *last != owner.sign {
            (*last, *since) = (owner.sign.clone(), Instant::now());
        }
        owner.is_given_up || since.elapsed() > self.timeout
    }

    /// The store's answer, as long as the queue is not lost.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> Result<T, TorchError> + Send + 'static,
    ) -> Result<T, TrainError> {
        let answer = ask(&self.store, || self.life.fault().is_none(), question);
        let known = || self.life.fault().clone();
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => {
                Err(TrainError::Process { reason: known().unwrap_or_else(|| format!("cannot reach the queue of work: {error}")) })
            }
            None => Err(TrainError::Process { reason: known().unwrap_or_else(|| LOST.to_owned()) }),
        }
    }
}

/// The process that has a turn.
struct Owner {
    /// Unknown of one that died before it said so.
    rank: Option<String>,
    is_given_up: bool,
    /// Its last sign of life.
    sign: Vec<u8>,
}

impl Owner {
    fn find(store: &Store, key: &str, timeout: Duration) -> Result<Self, TorchError> {
        let Some(rank) = value(store, key, timeout)? else {
            return Ok(Self { rank: None, is_given_up: false, sign: Vec::new() });
        };
        let rank = String::from_utf8_lossy(&rank).into_owned();
        let sign = value(store, &format!("sign/{rank}"), timeout)?.unwrap_or_default();
        Ok(Self { is_given_up: store.has(&given_up(&rank))?, rank: Some(rank), sign })
    }
}

fn value(store: &Store, key: &str, timeout: Duration) -> Result<Option<Vec<u8>>, TorchError> {
    if store.has(key)? { store.get(key, timeout).map(Some) } else { Ok(None) }
}

impl Drop for Several {
    /// The one that keeps the queue waits until the others have seen that all is done. If it was stopped, they end with it.
    fn drop(&mut self) {
        let is_lost = self.life.fault().is_some();
        self.life.end.store(true, Ordering::Relaxed);
        self.thread.unpark();
        if is_lost {
            return;
        }
        if !self.place.keeps_store() {
            // If it does not arrive soon, rank 0 waits a little longer.
            let began = Instant::now();
            ask(&self.store, || began.elapsed() < self.timeout / 10, |store| store.add("left", 1));
            return;
        }
        if self.life.stop.load(Ordering::Relaxed) {
            let _ = tell_fault(&self.store, "rank 0 was stopped, which keeps the queue of work: start all again");
        }
        let came = self.store.add("came", 0).unwrap_or(0);
        let began = Instant::now();
        while began.elapsed() < self.timeout / 2 && self.store.add("left", 0).is_ok_and(|left| left + 1 < came) {
            thread::sleep(PAUSE / 5);
        }
    }
}

impl Life {
    fn fault(&self) -> MutexGuard<'_, Option<String>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives signs of life, until this process ends or the queue is lost.
    fn live(&self, store: &Arc<Store>, rank: usize, timeout: Duration) {
        let (mut number, mut answered) = (0_u64, Instant::now());
        while !self.end.load(Ordering::Relaxed) {
            number += 1;
            let is_near = || answered.elapsed() <= timeout / 2;
            let answer = ask(store, is_near, move |store| {
                store.set(&sign_of(rank), number.to_string().as_bytes())?;
                let fault = match store.has(&given_up(&rank.to_string()))? {
                    true => Some(GIVEN_UP.to_owned()),
                    false => fault_in(store)?,
                };
                if fault.is_some() {
                    // Whoever keeps the queue need not wait for this process.
                    store.add("left", 1)?;
                }
                Ok(fault)
            });
            let fault = match answer {
                Some(Ok(fault)) => {
                    answered = Instant::now();
                    fault
                }
                _ if !is_near() => Some(LOST.to_owned()),
                _ => None,
            };
            if fault.is_some() {
                *self.fault() = fault;
                self.stop.store(true, Ordering::Relaxed);
                return;
            }
            thread::park_timeout(timeout / 20);
        }
    }
}

fn owner_of(turn: u64, key: &str) -> String {
    format!("owner/{turn}/{key}")
}

fn done_of(key: &str) -> String {
    format!("done/{key}")
}

/// The key that is there once a turn at a piece has ended without a result.
fn over(key: &str, turn: u64) -> String {
    format!("over/{turn}/{key}")
}

/// The key that is there once a process counts as lost.
pub(super) fn given_up(rank: &str) -> String {
    format!("given-up/{rank}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Attempt, Meeting};
    use super::*;
    use std::net::TcpListener;

    /// Enough for a busy machine.
    const TIMEOUT: Duration = Duration::from_secs(30);

    fn joined(place: Place, timeout: Duration) -> (Queue, Arc<AtomicBool>) {
        let stop = Arc::new(AtomicBool::new(false));
        (Queue::join(place, timeout, Arc::clone(&stop)).unwrap(), stop)
    }

    fn of_attempt(attempt: &Attempt, rank: usize) -> Queue {
        joined(attempt.place(rank), TIMEOUT).0
    }

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("piece {number}")).collect()
    }

    #[test]
    fn each_piece_is_done_once_and_all_learn_its_result() {
        let meeting = Meeting::open().unwrap();
        let attempt = meeting.attempt(0, 3).unwrap();
        let (keys, done) = (keys(20), Mutex::new(Vec::new()));
        let work = |at: usize| {
            thread::sleep(Duration::from_millis(5));
            done.lock().unwrap().push(at);
            Ok::<_, TrainError>(Some(at.to_string().into_bytes()))
        };
        let expected: Vec<Vec<u8>> = (0..20).map(|at: usize| at.to_string().into_bytes()).collect();
        thread::scope(|scope| {
            for rank in 0..3 {
                let (attempt, keys, expected) = (&attempt, &keys, &expected);
                scope.spawn(move || {
                    let queue = of_attempt(attempt, rank);
                    assert_eq!(queue.all(keys, work).unwrap().as_ref(), Some(expected));
                });
            }
        });
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn the_piece_of_a_process_that_dies_or_gives_it_back_is_given_out_again() {
        let meeting = Meeting::open().unwrap();
        let attempt = meeting.attempt(0, 4).unwrap();
        let queue = joined(attempt.place(0), Duration::from_secs(2)).0;
        let [silent, stopped] = [1, 3].map(|rank| of_attempt(&attempt, rank));
        let (told, its_stop) = joined(attempt.place(2), Duration::from_secs(2));
        for (other, key) in [(&silent, "a"), (&told, "b"), (&stopped, "c")] {
            let Taken::Mine(turn) = other.take(key).unwrap() else { panic!("{key} is new") };
            assert!(matches!(queue.take(key).unwrap(), Taken::Elsewhere));
            // A process that is killed gives nothing back.
            if key == "c" { drop(turn) } else { std::mem::forget(turn) }
        }
        assert!(matches!(queue.take("c").unwrap(), Taken::Mine(_)), "it was given back");
        assert!(!attempt.is_given_up(2).unwrap());
        attempt.give_up(2).unwrap();
        assert!(matches!(queue.take("b").unwrap(), Taken::Elsewhere), "it sees that now");
        let Taken::Mine(turn) = queue.take("b").unwrap() else { panic!("its process is given up") };
        turn.done(b"2").unwrap();
        assert_eq!(queue.known("b").unwrap(), Some(b"2".to_vec()));
        while !its_stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(told.take("d").unwrap_err().to_string(), GIVEN_UP);

        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            assert!(matches!(queue.take("a").unwrap(), Taken::Elsewhere), "its process lives");
            queue.pause();
        }
        drop(silent);
        let done = queue.once("a", || Ok::<_, TrainError>(Some(b"1".to_vec()))).unwrap();
        assert_eq!((done, attempt.is_given_up(1).unwrap()), (Some(b"1".to_vec()), true));
    }

    #[test]
    fn what_differs_is_told_and_a_stop_ends_the_wait() {
        let meeting = Meeting::open().unwrap();
        let attempt = meeting.attempt(0, 2).unwrap();
        let first = of_attempt(&attempt, 0);
        let (other, stop) = joined(attempt.place(1), TIMEOUT);
        first.agree(&[("colour", "red")]).unwrap();
        let error = other.agree(&[("colour", "blue")]).unwrap_err().to_string();
        assert_eq!(error, "rank 1 and the first to come have another colour: `blue` and `red`");
        let Taken::Mine(_turn) = first.take("a").unwrap() else { panic!("it is new") };
        stop.store(true, Ordering::Relaxed);
        assert_eq!(other.once("a", || -> Result<_, TrainError> { unreachable!("another has it") }).unwrap(), None);
        let error = Queue::join(attempt.place(1), TIMEOUT, Arc::default()).unwrap_err().to_string();
        assert_eq!(error, "two processes say that they are rank 1: give each its own RANK");
    }

    #[test]
    fn all_end_with_the_one_that_keeps_the_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let place =
            |rank| Place { rank, size: 2, local_rank: rank, host: "127.0.0.1".to_owned(), port, by_launcher: false, attempt: 0 };
        let (first, stop) = joined(place(0), TIMEOUT);
        let (other, stop_of_other) = joined(place(1), TIMEOUT);
        stop.store(true, Ordering::Relaxed);
        let ended = thread::spawn(move || drop(first));
        while !stop_of_other.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        let error = other.take("a").unwrap_err().to_string();
        assert_eq!(error, "rank 0 was stopped, which keeps the queue of work: start all again");
        drop(other);
        ended.join().unwrap();
    }
}
