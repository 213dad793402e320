//! NVIDIA's compiler of CUDA C++, which is a library that comes with CUDA's libtorch. It needs no card.
use super::dynamic::{Library, folders_of};
use std::env;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::sync::OnceLock;

/// The newest first.
const NAMES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc.so.12"];
/// A folder that has NVRTC, to be used in place of the one beside libtorch.
const FOLDER: &str = "STRIATE_NVRTC";

type Program = *mut c_void;
type Create =
    unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Bytes = unsafe extern "C" fn(Program, *mut u8) -> c_int;

/// The compiler's functions.
#[derive(Debug)]
pub(crate) struct Nvrtc {
    create: Create,
    compile: Compile,
    log_size: Size,
    log: Bytes,
    cubin_size: Size,
    cubin: Bytes,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    /// Its version, major and minor.
    pub(crate) version: (i32, i32),
}

/// What the compiler made, and what it said.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) cubin: Vec<u8>,
    #[cfg(test)] // which read there what kernels take
    pub(crate) log: String,
}

impl Nvrtc {
    /// The compiler, opened by the first call; an error says why there is none.
    pub(crate) fn get() -> Result<&'static Self, String> {
        static NVRTC: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
        NVRTC.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self, String> {
        let library = find()?;
        // It looks for this by name alone, and finds what is in the process already.
        for folder in folders_of("libnvrtc.so") {
            for builtins in files(&folder, "libnvrtc-builtins.so.") {
                let _ = Library::open(&builtins);
            }
        }
        // SAFETY: the types are those of <nvrtc.h>; `nvrtcResult` is an int.
        unsafe {
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = library.function(c"nvrtcVersion")?;
            let (mut major, mut minor) = (0, 0);
            if version(&mut major, &mut minor) != 0 {
                return Err("NVRTC does not tell its version".to_owned());
            }
            Ok(Self {
                create: library.function(c"nvrtcCreateProgram")?,
                compile: library.function(c"nvrtcCompileProgram")?,
                log_size: library.function(c"nvrtcGetProgramLogSize")?,
                log: library.function(c"nvrtcGetProgramLog")?,
                cubin_size: library.function(c"nvrtcGetCUBINSize")?,
                cubin: library.function(c"nvrtcGetCUBIN")?,
                destroy: library.function(c"nvrtcDestroyProgram")?,
                version: (major, minor),
            })
        }
    }

    /// Compiles a source without includes. An error is the first line that names one.
    pub(crate) fn compile(&self, source: &CStr, options: &[String]) -> Result<Compiled, String> {
        let options: Vec<CString> = options.iter().filter_map(|option| CString::new(option.as_str()).ok()).collect();
        let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        // SAFETY: the source is a NUL-terminated string, and there are no headers.
        if unsafe { (self.create)(&mut program, source.as_ptr(), c"kernels.cu".as_ptr(), 0, null(), null()) } != 0 {
            return Err("NVRTC takes no program".to_owned());
        }
        // SAFETY: the program and the options live for the call.
        let code = unsafe { (self.compile)(program, c_int::try_from(pointers.len()).unwrap_or(0), pointers.as_ptr()) };
        let log = String::from_utf8_lossy(&bytes(program, self.log_size, self.log)).trim_end_matches('\0').to_owned();
        let result = if code == 0 {
            Ok(Compiled {
                cubin: bytes(program, self.cubin_size, self.cubin),
                #[cfg(test)]
                log,
            })
        } else {
            let line = log.lines().find(|line| line.contains("error")).unwrap_or_default();
            Err(format!("NVRTC {}.{} gave error {code}: {}", self.version.0, self.version.1, line.trim()))
        };
        // SAFETY: it was created, and is destroyed once, here.
        unsafe { (self.destroy)(&mut program) };
        result
    }
}

fn bytes(program: Program, size: Size, get: Bytes) -> Vec<u8> {
    let mut count = 0;
    // SAFETY: the program lives, and `count` is written.
    if unsafe { size(program, &mut count) } != 0 {
        return Vec::new();
    }
    let mut bytes = vec![0; count];
    // SAFETY: the program lives, and there is room for `count` bytes.
    if unsafe { get(program, bytes.as_mut_ptr()) } == 0 { bytes } else { Vec::new() }
}

/// The folder that is asked for, what the process has, what lies beside libtorch or in Python's packages there, what the system finds.
fn find() -> Result<Library, String> {
    if let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) {
        let mut opened = NAMES.iter().map(|name| Library::open(&folder.join(name)));
        return opened.find_map(Result::ok).ok_or_else(|| format!("{FOLDER} is {}, which has no NVRTC", folder.display()));
    }
    let mut folders = folders_of("libtorch_cpu.so");
    let packages: Vec<PathBuf> = folders.iter().filter_map(|lib| Some(lib.ancestors().nth(2)?.join("nvidia"))).collect();
    folders.extend(packages.iter().flat_map(|nvidia| files(nvidia, "")).map(|package| package.join("lib")));
    let opened = NAMES.iter().find_map(|name| Library::opened(name));
    let beside = || NAMES.iter().find_map(|name| folders.iter().find_map(|folder| Library::open(&folder.join(name)).ok()));
    let by_name = || NAMES.iter().find_map(|name| Library::open(Path::new(name)).ok());
    opened.or_else(beside).or_else(by_name).ok_or_else(|| "NVRTC (libnvrtc.so) is not there, which comes with CUDA".to_owned())
}

/// What in a folder has a name that begins like this.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|file| file.as_encoded_bytes().starts_with(name.as_bytes()))).collect()
}
