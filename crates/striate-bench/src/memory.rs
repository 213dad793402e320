//! Peak memory of this process.
use striate_torch::{peak_memory, reset_peak_memory, resident_memory};

const MIB: f64 = 1024.0 * 1024.0;

/// Resident memory in MiB at one moment, from which on the peak counts.
#[derive(Debug)]
pub(crate) struct Base(Option<f64>);

impl Base {
    /// Now.
    pub(crate) fn now() -> Self {
        // Where this cannot be, the peak is that of the whole process.
        reset_peak_memory();
        Self(resident_memory().map(mib))
    }

    /// For work that another process does.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Now, after freed memory that the process kept was given back.
    pub(crate) fn fresh() -> Self {
        striate_torch::release_memory();
        Self::now()
    }

    /// The peak since then: above what there was, and of the whole process, in MiB. Linux only.
    pub(crate) fn peak(&self) -> Option<[f64; 2]> {
        let peak = mib(peak_memory()?);
        Some([peak - self.0?, peak])
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
