//! Our kernels for NVIDIA GPUs: batch norm in training with what follows it, max pooling, and the gradient of a ReLU after a convolution, of channels-last float32, bfloat16 and float16 images.
//!
//! They are CUDA C++ (`csrc/cuda/kernels.cu`), compiled at first use for the card that is there by NVRTC, which comes with CUDA's libtorch, and kept in the
//! user's cache folder. Where that fails, libtorch's operators serve, and one warning says why. [`crate::norm`], [`crate::pixels`] and [`crate::conv`] use them.
pub use super::check::{Check, self_check};
use super::nvrtc::Nvrtc;
use crate::{TorchError, ffi};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind};

const SOURCE: &str = concat!(
    include_str!("../../csrc/cuda/parameters.h"),
    include_str!("../../csrc/cuda/device.h"),
    include_str!("../../csrc/cuda/kernels.cu"),
    "\0"
);

/// The types of values that kernels are compiled for, each apart, in the order of `STRIATE_ELEMENT`.
pub(super) const ELEMENTS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];

/// What channels come in multiples of.
pub(crate) const LANES: i64 = 8;
/// Fewer values than this have places that are counted in 32 bits.
pub(crate) const MOST: usize = 1 << 32;

/// Makes the kernels for images of this type on this CUDA device ready, as their first use does.
///
/// # Errors
///
/// Why there are none: another device or type, no NVRTC, no driver, one that is too old, or a card that NVRTC doesn't know.
pub fn prepare(device: Device, kind: Kind) -> Result<(), TorchError> {
    static READY: Mutex<BTreeMap<(i32, i32), Result<(), TorchError>>> = Mutex::new(BTreeMap::new());
    let Device::Cuda(number) = device else {
        return Err(TorchError::new(&format!("{device:?} has no kernels: they are for CUDA devices")));
    };
    let number = i32::try_from(number).map_err(|_| TorchError::new("there is no such CUDA device"))?;
    let element = element(kind)?;
    let mut ready = READY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ready.entry((number, element)).or_insert_with(|| load(number, element)).clone()
}

/// Whether the kernels serve images of this type on this device; the first time that a CUDA device lacks them is told.
pub(crate) fn serve(device: Device, kind: Kind) -> bool {
    #[cfg(test)]
    if device == Device::Cpu {
        return host::is_on();
    }
    if !matches!(device, Device::Cuda(_)) || !ELEMENTS.contains(&kind) {
        return false;
    }
    static TOLD: AtomicBool = AtomicBool::new(false);
    match prepare(device, kind) {
        Ok(()) => true,
        Err(error) => {
            if !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "batch norm and max pooling run by libtorch's operators, which are slower than Striate's kernels: {error}"
                );
            }
            false
        }
    }
}

fn element(kind: Kind) -> Result<i32, TorchError> {
    let place = ELEMENTS.iter().position(|element| *element == kind).and_then(|place| i32::try_from(place).ok());
    place.ok_or_else(|| TorchError::new(&format!("there are no kernels for {kind:?}: use float32, bfloat16 or float16")))
}

fn load(device: i32, element: i32) -> Result<(), TorchError> {
    let mut capability = 0;
    // SAFETY: the number is written where the call succeeds.
    ffi::check(unsafe { ffi::st_cuda_capability(device, &mut capability) })?;
    let cache = striate_files::cache_folder().map(|cache| cache.join("kernels"));
    let cubin = cubin(capability, element, cache.as_deref()).map_err(|error| TorchError::new(&error))?;
    // SAFETY: the compiler's output, whole, for this card, of which the driver keeps a copy.
    ffi::check(unsafe { ffi::st_cuda_load(device, element, cubin.as_ptr().cast()) })
}

fn source() -> Result<&'static CStr, String> {
    CStr::from_bytes_with_nul(SOURCE.as_bytes()).map_err(|error| error.to_string())
}

fn options(capability: i32, element: i32) -> Vec<String> {
    vec![format!("--gpu-architecture=sm_{capability}"), format!("-DSTRIATE_ELEMENT={element}"), "--std=c++17".to_owned()]
}

/// The compiled kernels, from the cache folder or else for it.
fn cubin(capability: i32, element: i32, cache: Option<&Path>) -> Result<Vec<u8>, String> {
    let (nvrtc, options) = (Nvrtc::get()?, options(capability, element));
    let file = cache.map(|cache| cache.join(file_name(nvrtc.version, &options)));
    if let Some(cubin) = file.as_deref().and_then(read) {
        return Ok(cubin);
    }
    let cubin = nvrtc.compile(source()?, &options)?.cubin;
    if let Some(file) = file
        && let Err(error) = write(&file, &cubin)
    {
        tracing::debug!("kernels are not kept: {error}");
    }
    Ok(cubin)
}

/// Everything that the kernels depend on, as a name.
fn file_name(version: (i32, i32), options: &[String]) -> PathBuf {
    let all = format!("NVRTC {version:?}\n{options:?}\n{SOURCE}");
    let digest: String = Sha256::digest(all).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}.cubin").into()
}

/// A file's content behind its digest, if it is whole.
fn read(file: &Path) -> Option<Vec<u8>> {
    let bytes = striate_files::read(file).ok()?;
    let (digest, cubin) = bytes.split_first_chunk::<32>()?;
    (Sha256::digest(cubin).as_slice() == digest).then(|| cubin.to_vec())
}

fn write(file: &Path, cubin: &[u8]) -> Result<(), striate_files::FilesError> {
    striate_files::write(file, |file| {
        file.write_all(&Sha256::digest(cubin))?;
        file.write_all(cubin)
    })
}

/// The kernels on the CPU: `csrc/cuda/host.cpp`, compiled by the test that loads it.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod host {
    use super::super::dynamic::Library;
    use crate::ffi::{self, HostLaunch};
    use std::cell::Cell;
    use std::process::Command;
    use std::sync::OnceLock;

    thread_local!(static ON: Cell<bool> = const { Cell::new(false) });

    pub(crate) fn is_on() -> bool {
        ON.get()
    }

    /// While it lives, this thread computes on the CPU as it would on a GPU.
    pub(crate) struct Host;

    impl Host {
        pub(crate) fn new() -> Self {
            ON.set(true);
            // SAFETY: the function takes what `cuda_kernels.cpp` calls it with, and its library stays open.
            unsafe { ffi::st_host_kernels(Some(launcher())) };
            Self
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            ON.set(false);
            // SAFETY: no precondition.
            unsafe { ffi::st_host_kernels(None) };
        }
    }

    fn launcher() -> HostLaunch {
        static LAUNCHER: OnceLock<HostLaunch> = OnceLock::new();
        *LAUNCHER.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let library = folder.path().join("libhost.so");
            let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
            let mut words = compiler.split_whitespace();
            let mut command = Command::new(words.next().unwrap());
            // The card fuses products and sums only where the source does.
            command.args(words).args([
                "-std=c++20",
                "-O1",
                "-ffp-contract=off",
                "-shared",
                "-fPIC",
                "-Wno-unknown-pragmas",
                "-o",
            ]);
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/csrc/cuda/host.cpp");
            assert!(command.arg(&library).arg(source).status().unwrap().success());
            let library = Library::open(&library).unwrap();
            // SAFETY: it has this type there.
            unsafe { library.function(c"striate_host_launch") }.unwrap()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The cards that are told apart, from Turing to the newest Blackwell.
    const CAPABILITIES: [i32; 7] = [75, 80, 86, 89, 90, 100, 120];

    /// NVRTC, or none with a line that says so: `STRIATE_NVRTC` names a folder that has it.
    fn nvrtc() -> Option<&'static Nvrtc> {
        Nvrtc::get().inspect_err(|error| eprintln!("skipped: {error}")).ok()
    }

    /// Numbers before `what` in what the assembler says of a kernel.
    fn resource(said: &str, what: &str) -> u32 {
        let before = said.split(what).next().unwrap_or_default();
        before.rsplit([' ', '\n']).find_map(|word| word.parse().ok()).unwrap()
    }

    #[test]
    fn kernels_compile_for_every_card_and_keep_their_values_in_registers() {
        let Some(nvrtc) = nvrtc() else { return };
        let halves = CAPABILITIES.map(|capability| (capability, 1));
        for (capability, element) in halves.into_iter().chain([(90, 0), (90, 2)]) {
            let mut options = options(capability, element);
            options.push("--ptxas-options=-v".to_owned());
            let compiled = nvrtc.compile(source().unwrap(), &options).unwrap();
            let kernels: Vec<&str> = compiled.log.split("Compiling entry function '").skip(1).collect();
            assert_eq!(kernels.len(), 18);
            for said in kernels {
                let name = said.split('\'').next().unwrap();
                let (registers, spilled) = (resource(said, " registers"), resource(said, " bytes spill stores"));
                eprintln!(
                    "sm_{capability} {:?} {name}: {registers} registers, {spilled} bytes spilled",
                    ELEMENTS[usize::try_from(element).unwrap()]
                );
                assert!(registers <= 64 && spilled <= 32, "{said}");
            }
        }
        let error = nvrtc.compile(c"int broken(", &options(90, 0)).unwrap_err();
        assert!(error.starts_with("NVRTC ") && error.contains("kernels.cu(1): error"), "{error}");
        assert!(nvrtc.compile(source().unwrap(), &options(1, 0)).unwrap_err().contains("gpu-architecture"));
    }

    #[test]
    fn what_is_compiled_is_kept_and_a_damaged_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kept.cubin");
        assert_eq!(read(&file), None);
        write(&file, b"machine code").unwrap();
        assert_eq!(read(&file).unwrap(), b"machine code");
        let whole = std::fs::read(&file).unwrap();
        let changed = [&whole[..whole.len() - 1], b"x"].concat();
        for damaged in [&whole[..whole.len() - 1], &whole[..20], &changed, b""] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(read(&file), None);
        }
        let name = |version, capability, element| file_name(version, &options(capability, element));
        let all = [name((13, 0), 90, 1), name((13, 1), 90, 1), name((13, 0), 80, 1), name((13, 0), 90, 2)];
        assert!(all.iter().enumerate().all(|(i, a)| all[..i].iter().all(|b| a != b)));

        if nvrtc().is_none() {
            return;
        }
        let compiled = cubin(90, 0, Some(folder.path())).unwrap();
        let kept = folder.path().join(name(Nvrtc::get().unwrap().version, 90, 0));
        assert_eq!(read(&kept).unwrap(), compiled);
        std::fs::write(&kept, &compiled).unwrap();
        assert_eq!(cubin(90, 0, Some(folder.path())).unwrap(), compiled);
        assert_eq!(read(&kept).unwrap(), compiled);
        // A folder that cannot be written costs time, and nothing else.
        assert_eq!(cubin(90, 0, Some(&kept)).unwrap(), compiled);
    }

    #[test]
    fn where_there_are_none_one_line_says_why() {
        let told = |device, kind| prepare(device, kind).unwrap_err().to_string();
        assert_eq!(told(Device::Cpu, Kind::Float), "Cpu has no kernels: they are for CUDA devices");
        assert_eq!(told(Device::Cuda(0), Kind::Double), "there are no kernels for Double: use float32, bfloat16 or float16");
        if !tch::Cuda::is_available() {
            assert!(!told(Device::Cuda(0), Kind::Float).is_empty());
            assert!(!serve(Device::Cuda(0), Kind::Float) && !serve(Device::Cpu, Kind::Float));
        }
    }

    /// Skipped where there is no CUDA device.
    #[test]
    fn on_a_card_the_kernels_compute_what_float64_does() {
        for device in (0..usize::try_from(tch::Cuda::device_count()).unwrap()).map(Device::Cuda) {
            let checks = self_check(device).unwrap();
            assert!(checks.iter().all(Check::holds), "{:#?}", checks.iter().filter(|check| !check.holds()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn on_the_cpu_the_kernels_compute_what_float64_does() {
        crate::set_num_threads(1); // values are few
        let _host = host::Host::new();
        let checks = self_check(Device::Cpu).unwrap();
        let wrong: Vec<_> = checks.iter().filter(|check| !check.holds()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(checks.len() > 600, "{}", checks.len());
        // Rounding is seen, so that the kernels did compute.
        for kind in ["Float", "BFloat16", "Half"] {
            let worst = checks.iter().filter(|check| check.name.contains(kind)).map(|check| check.error / check.bound);
            assert!(worst.fold(0.0, f64::max) > 0.1);
        }
    }
}
