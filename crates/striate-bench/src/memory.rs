//! Peak memory of this process.
use std::fs;

const KIB: f64 = 1024.0;

/// Resident memory in MiB at one moment, from which on the peak counts.
#[derive(Debug)]
pub(crate) struct Base(Option<f64>);

impl Base {
    /// Now.
    pub(crate) fn now() -> Self {
        // Where this cannot be, the peak is that of the whole process.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self(status("VmRSS"))
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
        let peak = status("VmHWM")?;
        Some([peak - self.0?, peak])
    }
}

fn status(key: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / KIB)
}
