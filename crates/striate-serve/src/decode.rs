//! Threads that decode pictures, so that nothing else waits for a large one.
use crate::ServeError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use striate_torch::{num_threads, thread_width};

/// Files from this size on have threads of their own, so that a small one never waits behind several of them.
const LARGE: usize = 512 * 1024;

type Work = Box<dyn FnOnce() + Send>;

/// As many threads as cores for small files, and a quarter as many, at least one, for large ones. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Decoders {
    small: Sender<Work>,
    large: Sender<Work>,
}

impl Decoders {
    pub(crate) fn start() -> Result<Self, ServeError> {
        let cores = num_threads();
        Ok(Self { small: lane("decode", cores)?, large: lane("decode-large", cores.div_ceil(4))? })
    }

    /// Runs `work`, for a file of so many bytes, on one of the threads.
    pub(crate) fn run(&self, bytes: usize, work: impl FnOnce() + Send + 'static) {
        let lane = if bytes < LARGE { &self.small } else { &self.large };
        // The threads are there as long as this is.
        let _ = lane.send(Box::new(work));
    }
}

fn lane(name: &str, threads: usize) -> Result<Sender<Work>, ServeError> {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..threads {
        let receiver = Arc::clone(&receiver);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || decode(&receiver))?;
    }
    Ok(sender)
}

fn decode(work: &Mutex<Receiver<Work>>) {
    // One core each: together they have all.
    let _width = thread_width(1);
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return };
        // A panic is that picture's alone: whoever waits for it sees that nothing comes.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}
