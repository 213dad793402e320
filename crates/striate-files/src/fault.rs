//! Failures on demand, for tests.

/// Fails if a test asked for it: call it before each operation that may fail. Release builds have none of it.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn point(_operation: &str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
pub(crate) use injected::point;
#[cfg(debug_assertions)]
pub use injected::{faults_done, inject_fault};

#[cfg(debug_assertions)]
mod injected {
    use std::cell::Cell;
    use std::io;

    /// Which operation of a thread fails.
    #[derive(Clone, Copy)]
    struct Plan {
        first: u64,
        /// Whether all that follow fail too.
        lasting: bool,
    }

    thread_local! {
        static PLAN: Cell<Option<Plan>> = Cell::new(of_environment());
        /// Operations so far, and how many of them failed.
        static DONE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    }

    fn of_environment() -> Option<Plan> {
        let text = std::env::var("STRIATE_FAULT").ok()?;
        Some(Plan { first: text.trim_end_matches('+').parse().ok()?, lasting: text.ends_with('+') })
    }

    /// Has the operation of this number fail from now on in this thread, and all that follow if `lasting`; 0 stands for none. Only in
    /// debug builds.
    pub fn inject_fault(number: u64, lasting: bool) {
        PLAN.set(Some(Plan { first: number, lasting }).filter(|plan| plan.first > 0));
        DONE.set((0, 0));
    }

    /// How many operations of this thread have failed on demand. Only in debug builds.
    pub fn faults_done() -> u64 {
        DONE.get().1
    }

    /// Fails if a test asked for it: call it before each operation that may fail. Release builds have none of it.
    pub(crate) fn point(operation: &str) -> io::Result<()> {
        let Some(Plan { first, lasting }) = PLAN.get() else { return Ok(()) };
        let (done, failed) = DONE.get();
        let number = done + 1;
        let fails = number == first || lasting && number > first;
        DONE.set((number, failed + u64::from(fails)));
        if number == first {
            eprintln!("injected fault {number}: {operation}");
        }
        match operation {
            _ if !fails => Ok(()),
            "create" | "write" | "make a folder" => Err(io::ErrorKind::StorageFull.into()),
            // The system's number of an error of the device.
            _ => Err(io::Error::from_raw_os_error(5)),
        }
    }
}
