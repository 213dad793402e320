//! What starts several processes on one machine keeps their store.
use super::place::{Place, world};
use super::queue::given_up;
use super::watch::{fault_in, tell_fault};
use super::{KEYS, of_first};
use crate::TrainError;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;
use striate_torch::distributed::Store;

/// How long this process waits for its own store.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the store for processes of this machine that are started together, as torchrun does. So it outlives each of them, and says
/// why one ended.
#[derive(Debug)]
pub struct Meeting {
    _server: Store,
    port: u16,
}

impl Meeting {
    /// A store on the loopback interface, at a port that is free.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub fn open() -> Result<Self, TrainError> {
        let failed = |error: std::io::Error| world(format!("cannot listen on this machine ({error})"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { _server: Store::serve(listener, KEYS, TIMEOUT)?, port })
    }

    /// A start of all `size` processes: number 0, then one more each time that all are started again.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn attempt(&self, number: u64, size: usize) -> Result<Attempt, TrainError> {
        let store = Store::connect(&Ipv4Addr::LOCALHOST.to_string(), self.port, &format!("{KEYS}/{number}"), TIMEOUT)?;
        Ok(Attempt { store, port: self.port, number, size })
    }
}

/// A start of all processes of a [`Meeting`].
#[derive(Debug)]
pub struct Attempt {
    store: Store,
    port: u16,
    number: u64,
    size: usize,
}

impl Attempt {
    /// Where a process stands: for [`World::join`](super::World::join).
    pub fn place(&self, rank: usize) -> Place {
        let Self { port, number: attempt, size, .. } = *self;
        Place { rank, size, local_rank: rank, host: Ipv4Addr::LOCALHOST.to_string(), port, by_launcher: true, attempt }
    }

    /// The same as a process's environment: torchrun's.
    pub fn variables(&self, rank: usize) -> [(&'static str, String); 8] {
        let Place { rank, size, local_rank, host, port, attempt, .. } = self.place(rank);
        [
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", size.to_string()),
            ("LOCAL_RANK", local_rank.to_string()),
            ("LOCAL_WORLD_SIZE", size.to_string()),
            ("MASTER_ADDR", host),
            ("MASTER_PORT", port.to_string()),
            ("TORCHELASTIC_USE_AGENT_STORE", "True".to_owned()),
            ("TORCHELASTIC_RESTART_COUNT", attempt.to_string()),
        ]
    }

    /// Tells all processes why they end.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn end(&self, reason: &str) -> Result<(), TrainError> {
        Ok(tell_fault(&self.store, reason)?)
    }

    /// Says that a process of a [`Queue`](super::Queue) is lost, so that the others take what it had.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn give_up(&self, rank: usize) -> Result<(), TrainError> {
        Ok(self.store.set(&given_up(&rank.to_string()), b"")?)
    }

    /// Whether others have found that a process of a queue is lost, though it may only hang.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn is_given_up(&self, rank: usize) -> Result<bool, TrainError> {
        Ok(self.store.has(&given_up(&rank.to_string()))?)
    }

    /// Why they end, if somebody said it.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn fault(&self) -> Result<Option<String>, TrainError> {
        Ok(fault_in(&self.store)?)
    }

    /// The text that rank 0 gave all others under this key, if it did: see [`World::of_first`](super::World::of_first).
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn of_first(&self, key: &str) -> Result<Option<String>, TrainError> {
        let key = of_first(key);
        if !self.store.has(&key)? {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&self.store.get(&key, TIMEOUT)?).into_owned()))
    }
}
