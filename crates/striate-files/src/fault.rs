//! Failures on demand, for tests.

use std::io;

/// Fails if a test asked for it: call it before each operation that may fail. Release builds have none of it.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn point(_operation: &str) -> io::Result<()> {
    Ok(())
}

/// Fails if a test asked for it: call it before each operation that may fail. Release builds have none of it.
#[cfg(debug_assertions)]
pub(crate) fn point(operation: &str) -> io::Result<()> {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    /// Which operation fails, and whether all that follow do.
    static PLAN: LazyLock<Option<(u64, bool)>> = LazyLock::new(|| {
        let text = std::env::var("STRIATE_FAULT").ok()?;
        Some((text.trim_end_matches('+').parse().ok()?, text.ends_with('+')))
    });
    static DONE: AtomicU64 = AtomicU64::new(0);
    let Some((first, lasting)) = *PLAN else { return Ok(()) };
    let number = DONE.fetch_add(1, Ordering::Relaxed) + 1;
    if number == first {
        eprintln!("injected fault {number}: {operation}");
    }
    if number == first || lasting && number > first {
        let space = matches!(operation, "create" | "write" | "make a folder");
        return Err(if space { io::ErrorKind::StorageFull.into() } else { io::Error::from_raw_os_error(5) });
    }
    Ok(())
}
