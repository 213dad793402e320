//! Which instructions our kernels use on this processor: `striate-cpu`, and what tells the shim.
use std::ffi::c_int;
#[doc(inline)]
pub use striate_cpu::{CpuError, Level, VARIABLE, check};

/// The number of the level in use, which the shim chooses kernels by (`csrc/kernels/levels.cpp`).
// SAFETY: no other function of the program has this name, and the shim declares it as it is.
#[unsafe(no_mangle)]
extern "C" fn striate_cpu_level() -> c_int {
    match Level::in_use() {
        Level::Avx512 => 2,
        Level::Avx2 => 1,
        _ => 0,
    }
}
