//! Which instructions our kernels use on this processor, and how many threads run at once: `striate-cpu`, and what tells the shim.
use std::ffi::c_int;
#[doc(inline)]
pub use striate_cpu::{Cores, CpuError, Level, VARIABLE, check};

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    /// This program's tests of kernels, and of their level, by parts of their names.
    const KERNELS: [&str; 11] = [
        "any_shape::",
        "bytes::tests::",
        "conv::tests::",
        "cpu::tests::the_level",
        "int8::tests::",
        "jpeg::tests::",
        "kernels::tests::",
        "norm::tests::",
        "pixels::tests::",
        "pointwise::tests::",
        "winograd::tests::",
    ];

    /// At each level below the one in use, in a process of its own.
    #[test]
    fn kernels_are_right_with_fewer_instructions_too() {
        for level in Level::ALL.into_iter().filter(|level| *level < Level::in_use()) {
            let mut tests = Command::new(std::env::current_exe().unwrap());
            let output = tests.args(KERNELS).env(VARIABLE, level.name()).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{level}: {text}");
            // Names that fit none would leave nothing to fail.
            assert!(KERNELS.iter().all(|name| text.contains(&format!("test {name}"))), "{level}: {text}");
        }
    }

    #[test]
    fn the_level_is_what_the_environment_asks_for() {
        let asked = std::env::var(VARIABLE).unwrap_or_else(|_| Level::of_processor().to_string());
        assert_eq!(Level::in_use().name(), asked);
    }
}
