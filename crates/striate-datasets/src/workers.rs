//! Threads that make the batches ahead of the one that is used.

use crate::DatasetError;
use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use striate_torch::{Memory, Part, TorchError, Unfinished, Values};
use tch::Tensor;

/// Batches that are made ahead of the one that is used.
const AHEAD: usize = 2;
/// The most examples that a worker takes at once.
const MOST: usize = 16;
/// Fewer values are not worth another thread.
const LEAST: usize = 16 * 1024;

/// What the batches of an epoch are made of.
pub(crate) trait Work: Send + Sync + 'static {
    /// Batches in the epoch.
    fn batches(&self) -> usize;

    /// The examples of a batch, by their places in the epoch.
    fn places(&self, batch: usize) -> Range<usize>;

    /// The shape `[C, H, W]` of every example.
    fn shape(&self) -> [i64; 3];

    /// What examples are written into.
    fn memory(&self) -> Memory;

    /// Writes the example at a place of the epoch: floats channel by channel, bytes pixel by pixel.
    fn write(&self, place: usize, out: Values<'_>) -> Result<(), DatasetError>;
}

/// Writes the examples of a part, unless it is told to stop.
fn write(work: &dyn Work, mut places: Range<usize>, mut part: Part, stop: &AtomicBool) -> Result<(), DatasetError> {
    let len = work.shape().iter().product::<i64>().unsigned_abs() as usize;
    part.try_for_each(len, |out| match places.next() {
        Some(place) if !stop.load(Ordering::Relaxed) => work.write(place, out),
        _ => Ok(()),
    })
}

/// A batch's memory, in parts of so many examples.
fn begin(work: &dyn Work, batch: usize, examples: usize) -> Result<(Unfinished, Vec<Part>), TorchError> {
    let [channels, height, width] = work.shape();
    let count = work.places(batch).len().cast_signed() as i64;
    let size = match work.memory() {
        Memory::Floats => [count, channels, height, width],
        Memory::Bytes | Memory::PinnedBytes => [count, height, width, channels],
    };
    Unfinished::new(&size, work.memory(), examples * (channels * height * width).unsigned_abs() as usize)
}

/// A batch's images `[B, C, H, W]`, however they lie.
fn end(work: &dyn Work, images: Unfinished) -> Result<Tensor, DatasetError> {
    let images = images.finish()?;
    Ok(match work.memory() {
        Memory::Floats => images,
        Memory::Bytes | Memory::PinnedBytes => images.f_permute([0, 3, 1, 2])?,
    })
}

/// Makes a batch's images `[B, C, H, W]` at once, on this thread and those of libtorch's operators.
pub(crate) fn in_line(work: &dyn Work, batch: usize) -> Result<Tensor, DatasetError> {
    let places = work.places(batch);
    let values = work.shape().iter().product::<i64>().unsigned_abs() as usize;
    let examples = places.len().div_ceil(striate_torch::num_threads()).max(LEAST / values.max(1)).max(1);
    let (images, parts) = begin(work, batch, examples)?;
    let parts = portions(places, examples).zip(parts).collect();
    let written = striate_torch::parallel(parts, |(places, part)| write(work, places, part, &AtomicBool::new(false)));
    written.into_iter().collect::<Result<(), _>>()?;
    end(work, images)
}

/// Places in portions of so many, the last perhaps of fewer.
fn portions(places: Range<usize>, examples: usize) -> impl Iterator<Item = Range<usize>> {
    places.clone().step_by(examples).map(move |start| start..places.end.min(start + examples))
}

/// Threads that live as long as an epoch: a new one costs less than a small picture.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    work: Arc<dyn Work>,
    examples: usize,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

struct State {
    /// The batch at the front of `batches`.
    first: usize,
    /// Batches in the making, and those that are made and not yet taken.
    batches: VecDeque<Making>,
}

struct Making {
    images: Result<Unfinished, DatasetError>,
    /// Parts that no worker has taken, the first last, with their places.
    parts: Vec<(Range<usize>, Part)>,
    /// Parts that are not written.
    left: usize,
    /// What went wrong first, in the order of the examples.
    fault: Option<(usize, Fault)>,
}

enum Fault {
    Error(DatasetError),
    Panic(Box<dyn Any + Send>),
}

impl Workers {
    /// `count` threads that make the batches from `first` on, in their order. Fewer if the system gives no more.
    pub(crate) fn start(work: Arc<dyn Work>, first: usize, count: usize) -> Self {
        let batch = if first < work.batches() { work.places(first).len() } else { 0 };
        // A few parts for each worker, so that none waits long for the last.
        let examples = (batch / (4 * count)).clamp(1, MOST);
        let state = Mutex::new(State { first, batches: VecDeque::new() });
        let shared = Arc::new(Shared { work, examples, state, changed: Condvar::new(), stop: AtomicBool::new(false) });
        let spawn = |number| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("loader-{number}")).spawn(move || shared.run())
        };
        let threads = (0..count).map_while(|number| spawn(number).ok()).collect();
        Self { shared, threads }
    }

    /// The images of the next batch. Call it as often as there are batches.
    pub(crate) fn next(&mut self) -> Result<Tensor, DatasetError> {
        if self.threads.is_empty() {
            let mut state = self.shared.lock();
            state.first += 1;
            return in_line(&*self.shared.work, state.first - 1);
        }
        let mut state = self.shared.lock();
        let Making { images, fault, .. } = loop {
            match state.batches.front() {
                Some(batch) if batch.left == 0 => {
                    state.first += 1;
                    if let Some(batch) = state.batches.pop_front() {
                        break batch;
                    }
                }
                _ => state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        self.shared.changed.notify_all();
        match fault {
            Some((_, Fault::Error(error))) => Err(error),
            Some((_, Fault::Panic(panic))) => resume_unwind(panic),
            None => end(&*self.shared.work, images?),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // With the lock, or a worker that is about to wait would miss it.
        drop(self.shared.lock());
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Its panics are caught.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        // Pictures are many already.
        let _alone = striate_torch::thread_width(1);
        while let Some((batch, places, part)) = self.take() {
            let start = places.start;
            let written = catch_unwind(AssertUnwindSafe(|| write(&*self.work, places, part, &self.stop)));
            let fault = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Fault::Error(error)),
                Err(panic) => Some(Fault::Panic(panic)),
            };
            let mut state = self.lock();
            let place = batch - state.first;
            if let Some(making) = state.batches.get_mut(place) {
                making.left -= 1;
                if let Some(fault) = fault
                    && making.fault.as_ref().is_none_or(|(first, _)| start < *first)
                {
                    making.fault = Some((start, fault));
                }
                if making.left == 0 {
                    self.changed.notify_all();
                }
            }
        }
    }

    /// The next part that is to be written, once there is one; none if there will be no more.
    fn take(&self) -> Option<(usize, Range<usize>, Part)> {
        let mut state = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let first = state.first;
            for (making, batch) in state.batches.iter_mut().zip(first..) {
                if let Some((places, part)) = making.parts.pop() {
                    return Some((batch, places, part));
                }
            }
            let next = first + state.batches.len();
            if next >= self.work.batches() {
                return None;
            }
            if state.batches.len() < AHEAD {
                let making = self.begin(next);
                if making.left == 0 {
                    self.changed.notify_all();
                }
                state.batches.push_back(making);
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn begin(&self, batch: usize) -> Making {
        let places = self.work.places(batch);
        let (images, parts) = match begin(&*self.work, batch, self.examples) {
            Ok((images, parts)) => (Ok(images), parts),
            Err(error) => (Err(error.into()), Vec::new()),
        };
        let mut parts: Vec<_> = portions(places, self.examples).zip(parts).collect();
        parts.reverse();
        Making { images, left: parts.len(), parts, fault: None }
    }
}
