//! Libraries that are opened when they are first needed.
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

const NOW: c_int = 2;
/// Of what is opened already alone.
#[cfg(target_os = "linux")]
const NO_LOAD: c_int = 4;
#[cfg(not(target_os = "linux"))]
const NO_LOAD: c_int = 0x10;

/// A library, which stays open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Library(*mut c_void);

// SAFETY: a handle is only read, and the loader has locks of its own.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens a library by its path, or by a name that the loader looks up.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        Self::with(path, NOW)
    }

    /// The library of that name, if the process has it already.
    pub(crate) fn opened(name: &str) -> Option<Self> {
        Self::with(Path::new(name), NOW | NO_LOAD).ok()
    }

    fn with(path: &Path, flags: c_int) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| "its path has a NUL".to_owned())?;
        // SAFETY: the name lives for the call. What a library does when it is loaded is its own: it is one of NVIDIA's, or of a test.
        let library = unsafe { dlopen(name.as_ptr(), flags) };
        if !library.is_null() {
            return Ok(Self(library));
        }
        // SAFETY: the message is this thread's until its next call.
        let message = unsafe { dlerror() };
        // SAFETY: it is null or a NUL-terminated string.
        Err(if message.is_null() { String::new() } else { unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned() })
    }

    /// The function of that name.
    ///
    /// # Safety
    ///
    /// `F` is the type of a pointer to that function.
    pub(crate) unsafe fn function<F: Copy>(self, name: &CStr) -> Result<F, String> {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>(), "it is no pointer");
        // SAFETY: the library is open and the name lives for the call.
        let function = unsafe { dlsym(self.0, name.as_ptr()) };
        if function.is_null() {
            return Err(format!("it has no function {}", name.to_string_lossy()));
        }
        // SAFETY: `F` is a pointer to it, as the caller knows.
        Ok(unsafe { std::mem::transmute_copy(&function) })
    }
}

/// The folders of the libraries in this process whose file names begin like this, as Linux tells them.
pub(crate) fn folders_of(name: &str) -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let named = paths.filter(|path| path.file_name().is_some_and(|file| file.as_encoded_bytes().starts_with(name.as_bytes())));
    let mut folders: Vec<PathBuf> = named.filter_map(|path| path.parent().map(Path::to_owned)).collect();
    folders.dedup();
    folders
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_and_what_is_missing_is_told() {
        let names = ["libc.so.6", "libSystem.B.dylib"];
        let library = names.iter().find_map(|name| Library::open(Path::new(name)).ok()).unwrap();
        // SAFETY: C's `abs`.
        let abs: unsafe extern "C" fn(c_int) -> c_int = unsafe { library.function(c"abs") }.unwrap();
        // SAFETY: it takes any number but the least.
        assert_eq!(unsafe { abs(-3) }, 3);
        // SAFETY: there is none.
        let missing = unsafe { library.function::<*const c_void>(c"striate_has_none") };
        assert_eq!(missing.unwrap_err(), "it has no function striate_has_none");
        assert!(Library::open(Path::new("/nowhere/libnothing.so")).unwrap_err().contains("libnothing"));
        assert!(Library::opened("libnothing.so").is_none());
    }

    #[test]
    fn libtorchs_folder_is_known() {
        let _ = tch::Tensor::from(1.0);
        if cfg!(target_os = "linux") {
            assert_eq!(folders_of("libtorch_cpu.so").len(), 1);
        }
        assert!(folders_of("libnothing").is_empty());
    }
}
