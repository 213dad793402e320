use crate::ffi;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::Result;

/// What `body` makes of each item, in their order, computed on as many threads as libtorch's operators use, and by these very threads.
/// Within such a call, on this thread alone. Once all have ended, the first panic of any goes on here.
///
/// Sharing work out takes some microseconds: give each item more than that to do.
///
/// ```
/// let squares = striate_torch::parallel(vec![1, 2, 3], |number| number * number);
/// assert_eq!(squares, [1, 4, 9]);
/// ```
pub fn parallel<T: Send, R: Send>(items: Vec<T>, body: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() <= 1 {
        return items.into_iter().map(body).collect();
    }
    let work: Vec<_> = items.into_iter().map(|item| Mutex::new(Work::Item(item))).collect();
    let each = |number: usize| {
        if let Some(work) = work.get(number) {
            let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
            if let Work::Item(item) = std::mem::replace(&mut *work, Work::Begun) {
                *work = Work::Ended(catch_unwind(AssertUnwindSafe(|| body(item))));
            }
        }
    };
    run(work.len(), &each);
    let ended = |work: Mutex<Work<T, R>>| match work.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Work::Ended(Ok(result)) => result,
        Work::Ended(Err(panic)) => resume_unwind(panic),
        Work::Item(_) | Work::Begun => unreachable!("each number was called once"),
    };
    work.into_iter().map(ended).collect()
}

enum Work<T, R> {
    Item(T),
    Begun,
    Ended(Result<R>),
}

/// Calls `each`, which does not panic, with each of 0..count.
fn run<F: Fn(usize) + Sync>(count: usize, each: &F) {
    unsafe extern "C" fn call<F: Fn(usize) + Sync>(context: *mut c_void, number: i64) {
        // SAFETY: `run` gives its `each`, which outlives the calls and may be used by several threads.
        let each = unsafe { &*context.cast_const().cast::<F>() };
        each(number.unsigned_abs() as usize);
    }
    // SAFETY: `call` takes what `context` is, and nothing unwinds out of it.
    unsafe { ffi::st_parallel(call::<F>, std::ptr::from_ref(each).cast_mut().cast(), count.cast_signed() as i64) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn results_are_in_order_and_inner_calls_are_serial() {
        assert!(parallel(Vec::<u8>::new(), |item| item).is_empty());
        let inner = |number: usize| {
            let threads = parallel((0..3).collect(), |_: usize| thread::current().id());
            assert_eq!(threads, [thread::current().id(); 3]);
            number * 2
        };
        assert_eq!(parallel((0..100).collect(), inner), (0..100).map(|number| number * 2).collect::<Vec<_>>());
    }

    #[test]
    fn it_takes_as_many_threads_as_operators_do() {
        let threads = |width: usize| {
            let _width = crate::thread_width(width);
            let together = Barrier::new(width);
            let ids = parallel((0..width).collect(), |_| {
                together.wait();
                thread::current().id()
            });
            ids.into_iter().collect::<HashSet<_>>().len()
        };
        assert_eq!([threads(1), threads(2), threads(3)], [1, 2, 3]);
    }

    #[test]
    fn a_panic_goes_on_once_all_have_ended() {
        let ended = Mutex::new(Vec::new());
        let body = |number: usize| {
            assert_ne!(number, 2, "on purpose");
            ended.lock().unwrap().push(number);
        };
        let panic = catch_unwind(AssertUnwindSafe(|| parallel((0..5).collect(), body))).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("on purpose"));
        let mut ended = ended.into_inner().unwrap();
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 3, 4]);
    }
}
