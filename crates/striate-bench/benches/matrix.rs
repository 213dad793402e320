//! The default set of the bench matrix under plain `cargo bench`; `cargo xtask bench` measures each case in a process of its own.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use striate_bench::{Work, bench, cores, default_set};

fn matrix(criterion: &mut Criterion) {
    for case in default_set(cores()) {
        if let Err(error) = Work::prepare(&case, 0, None).and_then(|mut work| bench(criterion, &case, &mut work)) {
            eprintln!("{case}: {error}");
        }
    }
}

criterion_group!(benches, matrix);
criterion_main!(benches);
