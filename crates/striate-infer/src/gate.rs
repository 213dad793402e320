use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After waiting for this long, a call takes the next place, before calls that come later.
const PATIENCE: Duration = Duration::from_millis(2);

/// Shares the cores out among threads that call one plan: as many calls run at once as there are places, one core each, and the
/// others wait.
///
/// Left alone, each calling thread starts as many threads as there are cores: they get in each other's way, and every call has
/// feature maps of its own in memory. One core each needs no waiting within an operator and gives the most images per second.
/// A call that is alone has all cores, since then it ends sooner; its results may differ in the last bits, as they do between
/// numbers of threads. It has no more than its thread's operators have at that time
/// ([`thread_width`](striate_torch::thread_width)): a small network is quicker on one.
///
/// ```
/// # let forward = || 7;
/// let gate = striate_infer::Gate::new(striate_torch::num_threads());
/// let outputs = gate.pass(|| forward());
/// # assert_eq!(outputs, 7);
/// ```
#[derive(Debug)]
pub struct Gate {
    places: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: VecDeque<Arc<Turn>>,
}

/// A call that waits.
#[derive(Debug)]
struct Turn {
    since: Instant,
    /// Whether a place was handed to it.
    given: AtomicBool,
    wake: Condvar,
}

/// A place, which is given up when this is dropped.
struct Place<'a>(&'a Gate);

impl Gate {
    /// A gate with so many places, at least one: the number of cores to use.
    pub fn new(places: usize) -> Self {
        let places = places.max(1);
        Self { places, state: Mutex::new(State { free: places, waiting: VecDeque::new() }) }
    }

    /// The number of places.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Runs `call` on this thread as soon as there is a place.
    pub fn pass<T>(&self, call: impl FnOnce() -> T) -> T {
        let (_place, alone) = self.enter();
        let most = self.places.min(striate_torch::num_threads());
        let _width = striate_torch::thread_width(if alone { most } else { 1 });
        call()
    }

    /// Waits for a place. Also whether nobody else has one.
    fn enter(&self) -> (Place<'_>, bool) {
        let mut state = self.lock();
        // Who is running may go on at once: waking a thread takes as long as a small network's whole call.
        if state.free == 0 {
            let turn = Arc::new(Turn { since: Instant::now(), given: AtomicBool::new(false), wake: Condvar::new() });
            state.waiting.push_back(Arc::clone(&turn));
            while state.free == 0 && !turn.given.load(Ordering::Relaxed) {
                state = turn.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if turn.given.load(Ordering::Relaxed) {
                return (Place(self), false);
            }
            state.waiting.retain(|other| !Arc::ptr_eq(other, &turn));
        }
        state.free -= 1;
        let alone = state.free + 1 == self.places && state.waiting.is_empty();
        if state.free > 0 {
            wake_next(&state);
        }
        (Place(self), alone)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a call leaves the state sound: its place is given up all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        match state.waiting.front().cloned() {
            Some(turn) if turn.since.elapsed() >= PATIENCE => {
                state.waiting.pop_front();
                turn.given.store(true, Ordering::Relaxed);
                turn.wake.notify_one();
            }
            _ => {
                state.free += 1;
                wake_next(&state);
            }
        }
    }
}

/// Lets the call that has waited longest look for a place.
fn wake_next(state: &State) {
    if let Some(turn) = state.waiting.front() {
        turn.wake.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    #[test]
    fn no_more_calls_run_than_there_are_places_and_all_come_through() {
        let (gate, inside, most, done) = (Gate::new(2), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for call in 0..50 {
                        gate.pass(|| {
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_micros(call * 20));
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), done.into_inner()), (2, 400));
    }

    #[test]
    fn a_call_that_is_alone_has_all_cores_and_others_one_each() {
        striate_torch::set_num_threads(3);
        let (gate, threads) = (Gate::new(2), striate_torch::num_threads);
        let (first, second) =
            gate.pass(|| (threads(), std::thread::scope(|scope| scope.spawn(|| gate.pass(threads)).join().unwrap())));
        assert_eq!((first, second, threads()), (2, 1, 3));
        {
            let _width = striate_torch::thread_width(1);
            assert_eq!(gate.pass(threads), 1, "it has more than its thread allows");
        }
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gate.pass(|| panic!("on purpose"))));
        assert!(panicked.is_err() && gate.pass(threads) == 2, "its place was not given up");
    }

    /// Whoever has waited for long goes before those that come later, and in order.
    #[test]
    fn who_waits_is_not_overtaken_for_ever() {
        let gate = Gate::new(1);
        let (tell, order) = mpsc::channel();
        std::thread::scope(|scope| {
            gate.pass(|| {
                for number in 0..4 {
                    let (tell, gate) = (tell.clone(), &gate);
                    scope.spawn(move || gate.pass(|| tell.send(number).unwrap()));
                    while gate.lock().waiting.len() <= number {
                        std::thread::yield_now();
                    }
                }
                std::thread::sleep(2 * PATIENCE);
            });
        });
        drop(tell);
        assert_eq!(order.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
