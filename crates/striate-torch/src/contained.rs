use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Runs a reader of bytes that may be hostile. If it panics, that becomes the error that `panicked` makes of the panic's message.
///
/// # Errors
///
/// Those of `read`, and `panicked`'s.
pub fn contained<T, E>(read: impl FnOnce() -> Result<T, E>, panicked: impl FnOnce(String) -> E) -> Result<T, E> {
    let before = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    CONTAINED.set(before);
    result.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(panicked(message.unwrap_or("no reason is given").to_owned()))
    })
}

/// Whether this thread is within [`contained`]. The panic hook runs before the panic is caught: ask this in yours to keep it quiet.
pub fn is_contained() -> bool {
    CONTAINED.get()
}

/// Notes that this thread reads a file from now on, for [`last_file`].
pub fn note_file(path: &Path) {
    LAST.with_borrow_mut(|last| *last = Some(path.to_owned()));
}

/// The last file that this thread began to read. A panic hook can tell it.
pub fn last_file() -> Option<PathBuf> {
    LAST.with_borrow(Clone::clone)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_told_as_contained_to_the_hook() {
        assert!(!is_contained());
        let error = contained::<(), String>(
            || {
                assert!(is_contained());
                contained::<(), String>(|| Err("within".to_owned()), |panic| panic).unwrap_err();
                assert!(is_contained(), "an inner one does not end the outer one");
                panic!("index {}\nout of range", 7)
            },
            |panic| format!("it failed ({panic})"),
        );
        assert_eq!(error.unwrap_err(), "it failed (index 7\nout of range)");
        assert!(!is_contained());
    }

    #[test]
    fn a_thread_knows_its_last_file() {
        note_file(Path::new("a"));
        note_file(Path::new("b"));
        assert_eq!(last_file(), Some("b".into()));
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(last_file(), None)).join().unwrap());
    }
}
