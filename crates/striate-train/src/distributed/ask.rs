//! Asking the store without hanging with the one that keeps it.
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use striate_torch::TorchError;
use striate_torch::distributed::Store;

/// How often one that waits for an answer asks whether to go on.
const PAUSE: Duration = Duration::from_millis(20);

/// The answer of the store, or nothing once `waits` is false. A process that is stopped keeps its connections, and c10d waits for its
/// answer for ever: so a thread of its own asks, which is left behind then.
pub(super) fn ask<T: Send + 'static>(
    store: &Arc<Store>,
    waits: impl Fn() -> bool,
    question: impl FnOnce(&Store) -> Result<T, TorchError> + Send + 'static,
) -> Option<Result<T, TorchError>> {
    let (sender, answers) = channel();
    let store = Arc::clone(store);
    let asks = move || {
        // Nobody listens any more if it came too late.
        let _ = sender.send(question(&store));
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(asks).ok()?;
    loop {
        match answers.recv_timeout(PAUSE) {
            Ok(answer) => return Some(answer),
            Err(RecvTimeoutError::Timeout) if waits() => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Instant;

    #[test]
    fn a_store_that_does_not_answer_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let store = Arc::new(Store::serve(listener, "test", Duration::from_secs(30)).unwrap());
        assert_eq!(ask(&store, || true, |store| store.add("number", 3)).unwrap().unwrap(), 3);
        let began = Instant::now();
        let never = |_: &Store| loop {
            std::thread::park();
        };
        assert!(ask::<()>(&store, || began.elapsed() < 3 * PAUSE, never).is_none());
    }
}
