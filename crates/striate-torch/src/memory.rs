use crate::{TorchError, ffi};
use std::sync::OnceLock;
use tch::Tensor;

/// How the values of a batch of images `[N, C, H, W]` lie in memory. The shape is the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryFormat {
    /// NCHW: each channel's plane is contiguous.
    #[default]
    Contiguous,
    /// NHWC: all channels of a pixel are contiguous, which most convolution kernels run fastest on.
    ChannelsLast,
}

/// The memory format of a tensor; `None` if it is neither, such as a transposed view. A tensor that is both (one channel,
/// or 1x1 images) counts as contiguous.
pub fn memory_format(tensor: &Tensor) -> Option<MemoryFormat> {
    // SAFETY: the tensor lives for the call.
    match unsafe { ffi::st_memory_format(tensor.as_ptr()) } {
        0 => Some(MemoryFormat::Contiguous),
        1 => Some(MemoryFormat::ChannelsLast),
        _ => None,
    }
}

/// The same values in another memory format: a copy, or the tensor itself where it has that format already.
/// Channels-last takes four dimensions, `[N, C, H, W]`; any other number is an error.
pub fn to_memory_format(tensor: &Tensor, format: MemoryFormat) -> Result<Tensor, TorchError> {
    let channels_last = i32::from(format == MemoryFormat::ChannelsLast);
    // SAFETY: the tensor lives for the call, and `out` is written on success.
    ffi::tensor_from(|out| unsafe { ffi::st_to_memory_format(tensor.as_ptr(), channels_last, out) })
}

/// The most memory that this process has had in use at one time, in bytes, as Linux counts it (`VmHWM`); none on other systems.
pub fn peak_memory() -> Option<u64> {
    status("VmHWM:")
}

/// The memory that this process has in use, in bytes, as Linux counts it (`VmRSS`); none on other systems.
pub fn resident_memory() -> Option<u64> {
    status("VmRSS:")
}

/// The bytes that this process can still have, as Linux tells them: what the machine has free, and what the process's control group
/// and its limit of address space (`ulimit -v`) leave; none on other systems.
pub fn available_memory() -> Option<u64> {
    let machine = kilobytes("/proc/meminfo", "MemAvailable:");
    // Of version 2, and of version 1.
    let groups = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ];
    let left = groups.iter().filter_map(|(limit, used)| Some(number(limit, "")?.saturating_sub(number(used, "")?)));
    let addresses = || Some(number("/proc/self/limits", "Max address space")?.saturating_sub(status("VmSize:")?));
    machine.into_iter().chain(left).chain(addresses()).min()
}

/// A size in `/proc/self/status`, in bytes.
fn status(key: &str) -> Option<u64> {
    kilobytes("/proc/self/status", key)
}

/// A size that a file gives in kB, in bytes.
fn kilobytes(file: &str, key: &str) -> Option<u64> {
    number(file, key)?.checked_mul(1024)
}

/// The first number after a key at the start of a line; none if it is no number, such as `unlimited`.
fn number(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// Has [`peak_memory`] count from now on. It does nothing where Linux does not let it.
pub fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Keeps freed memory in the process, so that the activations of the next step need no page faults: a program that trains calls
/// it once, when it starts. It holds for the whole process until that ends, and for all that uses libtorch in it; no other function
/// of these crates calls it.
///
/// glibc returns every freed block over 32 MB to the system at once, and a step pays for faulting it in again. After this call
/// tensors of 1 MiB and more on the CPU come from an allocator that keeps what they free, and never holds more than was in use
/// at one time and a fourth of it: keeping memory raises the process's peak by at most that. It asks for huge pages. Tensors that
/// there are already stay as they are. `STRIATE_KEEP_MEMORY=0` in the environment switches it off. Returns whether memory is kept.
pub fn keep_memory_warm() -> bool {
    *KEPT.get_or_init(|| {
        let wanted = std::env::var_os("STRIATE_KEEP_MEMORY").is_none_or(|value| value != "0");
        if wanted {
            // SAFETY: this is called once; tensors that there are go back to the allocator that they came from.
            unsafe { ffi::st_keep_memory() }
        }
        wanted
    })
}

/// Gives the freed memory that [`keep_memory_warm`] kept back to the system: worth it after much that isn't needed again was
/// freed. A later step faults in again what it needs. Where no memory is kept, this does nothing.
pub fn release_memory() {
    if KEPT.get() == Some(&true) {
        // SAFETY: no precondition.
        unsafe { ffi::st_release_memory() }
    }
}

/// Whether memory is kept, once that is decided.
static KEPT: OnceLock<bool> = OnceLock::new();

/// Whether an operation may write its result into the tensor's memory with nobody noticing: this is the only handle of it,
/// no view shares its memory, and no gradients are recorded that might need its value.
pub fn may_overwrite(tensor: &Tensor) -> bool {
    // SAFETY: the tensor lives for the call.
    unsafe { ffi::st_may_overwrite(tensor.as_ptr()) == 1 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};
    use tch::{Device, Kind};

    /// What tests hold that look at, or give back, what the process keeps.
    static HELD: Mutex<()> = Mutex::new(());

    #[test]
    fn the_system_tells_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("meminfo");
        std::fs::write(&file, "MemTotal: 9 kB\nMemAvailable:    1234 kB\nMax address space         unlimited\n").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!((kilobytes(file, "MemAvailable:"), kilobytes(file, "MemFree:")), (Some(1_263_616), None));
        assert_eq!(number(file, "Max address space"), None);
        assert!(!cfg!(target_os = "linux") || available_memory().is_some_and(|bytes| bytes > 1_000_000));
    }

    #[test]
    fn only_memory_that_nobody_else_sees_may_be_overwritten() {
        let fresh = || Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let alone = fresh();
        assert!(!may_overwrite(&alone), "gradients are recorded");
        let _no_grad = crate::no_grad();
        assert!(may_overwrite(&alone));
        for other in [alone.shallow_clone(), alone.view([6]), alone.detach()] {
            assert!(!may_overwrite(&alone) && !may_overwrite(&other));
        }
        assert!(may_overwrite(&alone));
        assert!(!may_overwrite(&fresh().set_requires_grad(true)));
        assert!(!may_overwrite(&fresh().get(0).expand([4, 3], false)));
    }

    /// Tensors of many sizes come and go in several threads; none ever shares memory with another.
    #[test]
    fn kept_memory_is_of_one_tensor_at_a_time() {
        let _alone = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(keep_memory_warm());
        let come_and_go = |seed: u64| {
            let mut held: Vec<(Tensor, i64)> = Vec::new();
            for turn in 0..200 {
                let drawn = crate::derive_seed(seed, &[turn]);
                // From 0.9 MiB, which the former allocator gives, to 9 MiB; sizes recur.
                let kilobytes = 900 + 450 * i64::try_from(drawn % 19).unwrap();
                let value = i64::try_from(turn).unwrap();
                held.push((Tensor::full([kilobytes * 128], value, (Kind::Int64, Device::Cpu)), value));
                if held.len() > 6 {
                    let (tensor, value) = held.swap_remove(usize::try_from(drawn >> 32).unwrap() % 7);
                    assert_eq!(tensor.sum(Kind::Int64).int64_value(&[]), value * i64::try_from(tensor.numel()).unwrap());
                }
            }
        };
        std::thread::scope(|scope| (0..3).for_each(|seed| drop(scope.spawn(move || come_and_go(seed)))));
        release_memory();
        come_and_go(3);
    }

    /// What a kept block in pieces cannot serve is mapped anew, and as much of what is free given back first.
    #[test]
    #[cfg(target_os = "linux")]
    fn no_more_is_kept_than_was_in_use() {
        // In a process of its own: that of other tests holds their memory too.
        const ALONE: &str = "STRIATE_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = "memory::tests::no_more_is_kept_than_was_in_use";
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let output = alone.args(["--exact", name]).env(ALONE, "1").output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && told.contains("1 passed"), "{told}");
            return;
        }
        const MIB: i64 = 1 << 20;
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 4096 / MIB
        };
        let taken = |mib: i64| Tensor::ones([mib * MIB], (Kind::Uint8, Device::Cpu));
        assert!(keep_memory_warm());
        let before = resident();
        let whole = taken(256);
        drop(whole);
        assert!(resident() - before > 200, "it is not kept");
        let piece = taken(32);
        let larger = taken(240);
        let held = resident() - before;
        assert!((320..370).contains(&held), "{held} MiB for 272 and a fourth of it");
        drop((piece, larger));
        release_memory();
    }

    #[test]
    fn conversion_keeps_values_and_changes_strides() {
        let nchw = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([1, 2, 3, 4]);
        let nhwc = to_memory_format(&nchw, MemoryFormat::ChannelsLast).unwrap();
        assert_eq!(memory_format(&nhwc), Some(MemoryFormat::ChannelsLast));
        assert_eq!(nhwc.stride(), [24, 1, 8, 2]);
        assert_eq!(nhwc, nchw);
        let back = to_memory_format(&nhwc, MemoryFormat::Contiguous).unwrap();
        assert_eq!(memory_format(&back), Some(MemoryFormat::Contiguous));
        assert_eq!(memory_format(&nchw.transpose(2, 3)), None);
        let one_channel = Tensor::zeros([2, 1, 3, 4], (Kind::Float, Device::Cpu));
        assert_eq!(to_memory_format(&one_channel, MemoryFormat::ChannelsLast).unwrap().stride(), [12, 1, 4, 1]);
        assert!(to_memory_format(&nchw.view([2, 12]), MemoryFormat::ChannelsLast).is_err());
    }
}
