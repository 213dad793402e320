//! Which instructions Striate's kernels use: the most that the processor has, or less if `STRIATE_CPU` says so. And how many
//! threads run at once.
//!
//! The variable is for tests and measurements. It limits our kernels alone; `ATEN_CPU_CAPABILITY` limits libtorch's, and
//! `ONEDNN_MAX_CPU_ISA` oneDNN's.
mod cores;

pub use cores::Cores;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::LazyLock;

/// The environment variable with the name of a [`Level`], which [`Level::in_use`] does not exceed.
pub const VARIABLE: &str = "STRIATE_CPU";

/// Instructions that kernels are compiled for, from the fewest to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// What every processor of the architecture has. Convolutions are libtorch's and oneDNN's.
    Baseline,
    /// AVX2 with FMA: vectors of 8 floats.
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL: vectors of 16 floats.
    Avx512,
}

/// [`VARIABLE`] asks for something that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// It names no level.
    #[error("{VARIABLE} is {value:?}: set it to baseline, avx2 or avx512, or unset it")]
    Unknown {
        /// What it is.
        value: OsString,
    },
    /// The processor has less.
    #[error("{VARIABLE} is {asked}, but this processor has {most} at most: ask for less, or unset it")]
    Lacking {
        /// The level that it names.
        asked: Level,
        /// The processor's.
        most: Level,
    },
}

impl Level {
    /// All levels, from the fewest instructions to the most.
    pub const ALL: [Self; 3] = [Self::Baseline, Self::Avx2, Self::Avx512];

    /// The name that [`VARIABLE`] takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The most that this processor, and its system, can do.
    pub fn of_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512cd")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }

    /// What kernels use, the same as long as the process runs. A [`VARIABLE`] that [`check`] refuses counts for nothing here.
    pub fn in_use() -> Self {
        static LEVEL: LazyLock<Level> = LazyLock::new(|| check().unwrap_or_else(|_| Level::of_processor()));
        *LEVEL
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the environment asks for, or else the most that the processor can do. Programs call this when they start.
///
/// # Errors
///
/// [`VARIABLE`] names no level, or one that the processor lacks.
pub fn check() -> Result<Level, CpuError> {
    let most = Level::of_processor();
    std::env::var_os(VARIABLE).map_or(Ok(most), |value| limited(&value, most))
}

fn limited(value: &OsStr, most: Level) -> Result<Level, CpuError> {
    match Level::ALL.into_iter().find(|level| level.name() == value) {
        None => Err(CpuError::Unknown { value: value.to_owned() }),
        Some(asked) if asked > most => Err(CpuError::Lacking { asked, most }),
        Some(asked) => Ok(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_what_is_asked_for_up_to_what_there_is() {
        let limited = |value: &str, most| limited(OsStr::new(value), most).map_err(|error| error.to_string());
        for most in Level::ALL {
            assert_eq!(limited("baseline", most), Ok(Level::Baseline));
        }
        assert_eq!(limited("avx2", Level::Avx512), Ok(Level::Avx2));
        let lacking = "STRIATE_CPU is avx512, but this processor has avx2 at most: ask for less, or unset it";
        assert_eq!(limited("avx512", Level::Avx2), Err(lacking.to_owned()));
        let unknown = "STRIATE_CPU is \"AVX2\": set it to baseline, avx2 or avx512, or unset it";
        assert_eq!(limited("AVX2", Level::Avx512), Err(unknown.to_owned()));
    }
}
