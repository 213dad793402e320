use crate::cpu::Cores;
use crate::ffi;
use std::ffi::CStr;
use std::marker::PhantomData;
use tch::{Device, Kind};

/// While it lives, operations on this thread record no gradients. The former state comes back when it is dropped, also
/// when a panic unwinds.
#[must_use = "gradients are recorded again as soon as this is dropped"]
pub struct NoGrad {
    _guard: tch::NoGradGuard,
}

impl std::fmt::Debug for NoGrad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NoGrad")
    }
}

/// Stops recording gradients on this thread until the value it returns is dropped.
pub fn no_grad() -> NoGrad {
    NoGrad { _guard: tch::no_grad_guard() }
}

/// While it lives, convolutions and products on this thread run in a half type. The former state comes back when it is dropped.
#[derive(Debug)]
#[must_use = "computes in the former type again as soon as this is dropped"]
pub struct Autocast {
    cuda: bool,
    former: i32,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

/// Computes in `kind` (bfloat16, or float16; with any other, in what the operands are) what a half type is fit for, on devices like
/// `device`, until the value it returns is dropped: PyTorch's `torch.autocast`.
pub fn autocast(device: Device, kind: Kind) -> Autocast {
    let cuda = matches!(device, Device::Cuda(_));
    // SAFETY: no precondition.
    let former = unsafe { ffi::st_autocast(cuda.into(), half_number(kind).unwrap_or(-1)) };
    Autocast { cuda, former, _thread: PhantomData }
}

/// The number of a half type in `c10::ScalarType`.
pub(crate) fn half_number(kind: Kind) -> Option<i32> {
    match kind {
        Kind::BFloat16 => Some(15),
        Kind::Half => Some(5),
        _ => None,
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: no precondition.
        unsafe { ffi::st_autocast(self.cuda.into(), self.former) };
    }
}

/// Has CUDA devices multiply float32 in TF32 (a mantissa of 10 bits, sums in float32), and cuDNN try out which of its algorithms is the fastest for each shape. It holds for the whole process.
pub fn fast_cuda() {
    // SAFETY: no precondition; these are switches, with CUDA or without.
    unsafe { ffi::st_fast_cuda() }
}

/// The version of the libtorch that this was compiled against, such as `2.13.0`.
pub fn torch_version() -> String {
    // SAFETY: the shim returns a static NUL-terminated string.
    unsafe { CStr::from_ptr(ffi::st_torch_version()) }.to_string_lossy().into_owned()
}

/// libtorch's own account of how it was built: compiler, CPU capability, BLAS, oneDNN, CUDA. Several lines.
pub fn build_config() -> String {
    // SAFETY: no precondition; the string is ours to free.
    ffi::take_string(unsafe { ffi::st_build_config() }).unwrap_or_default()
}

/// Ends the process with this exit code, at once: what is buffered for the standard streams is written, and nothing is destroyed.
///
/// libtorch takes some 70 ms to take apart the list of its operators when a program ends, which the system does at no cost.
/// As with [`std::process::exit`], values on the stack are not dropped: return from what owns any first.
pub fn exit(code: u8) -> ! {
    use std::io::Write;
    let _ = std::io::stdout().flush();
    // SAFETY: no precondition.
    unsafe { ffi::st_exit(code.into()) }
}

/// The number of threads that one operator may use.
pub fn num_threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Sets the number of threads that one operator may use, at least one. Results may differ in the last bits between
/// thread counts, and are reproducible at the same one.
pub fn set_num_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

/// Has operators use no more threads than run at once here ([`Cores::usable`]). libtorch's own number heeds the affinity and not
/// the quota of a control group, as containers have it. Programs call this when they start.
///
/// It changes nothing if `OMP_NUM_THREADS` or `MKL_NUM_THREADS` is set, which libtorch heeds.
pub fn fit_threads() {
    let asked = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"].iter().any(|name| std::env::var_os(name).is_some());
    let usable = Cores::found().usable;
    if !asked && usable < num_threads() {
        set_num_threads(usable);
    }
}

/// While it lives, operators that this thread calls use so many threads. The former number comes back when it is dropped.
#[derive(Debug)]
#[must_use = "operators use the former number of threads again as soon as this is dropped"]
pub struct ThreadWidth {
    former: i32,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

/// Has operators that this thread calls use `threads` threads, at least one, until the value it returns is dropped. Other threads keep
/// their number, unlike with [`set_num_threads`], whose number threads that start later take over.
pub fn thread_width(threads: usize) -> ThreadWidth {
    // SAFETY: no precondition.
    let former = unsafe { ffi::st_thread_width(i32::try_from(threads.max(1)).unwrap_or(i32::MAX)) };
    ThreadWidth { former, _thread: PhantomData }
}

impl Drop for ThreadWidth {
    fn drop(&mut self) {
        // SAFETY: no precondition.
        unsafe { ffi::st_thread_width(self.former) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn no_grad_ends_with_its_guard_and_survives_a_panic() {
        let x = Tensor::from_slice(&[1.0_f32]).set_requires_grad(true);
        {
            let _guard = no_grad();
            assert!(!(&x * 2.0).requires_grad());
        }
        assert!((&x * 2.0).requires_grad());
        let panicked = std::panic::catch_unwind(|| {
            let _guard = no_grad();
            panic!("on purpose");
        });
        assert!(panicked.is_err() && (&x * 2.0).requires_grad());
    }

    #[test]
    fn autocast_ends_with_its_guard() {
        let x = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let kind = || x.matmul(&x).kind();
        {
            let _outer = autocast(Device::Cpu, Kind::BFloat16);
            assert_eq!(kind(), Kind::BFloat16);
            {
                let _inner = autocast(Device::Cpu, Kind::Half);
                assert_eq!(kind(), Kind::Half);
            }
            assert_eq!(kind(), Kind::BFloat16);
        }
        assert_eq!(kind(), Kind::Float);
    }

    #[test]
    fn a_thread_width_is_its_threads_alone_and_ends() {
        set_num_threads(3);
        let elsewhere = || std::thread::spawn(num_threads).join().unwrap();
        {
            let _width = thread_width(1);
            assert_eq!((num_threads(), elsewhere()), (1, 3));
            {
                let _inner = thread_width(2);
                assert_eq!(num_threads(), 2);
            }
            assert_eq!(num_threads(), 1);
        }
        assert_eq!((num_threads(), elsewhere()), (3, 3));
    }

    #[test]
    fn version_and_build_are_told() {
        assert!(torch_version().starts_with("2."), "{}", torch_version());
        assert!(build_config().contains("PyTorch built with"));
    }
}
