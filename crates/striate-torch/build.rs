//! Compiles the C++ shim against the libtorch that torch-sys found, and has every program and test of
//! whatever depends on this crate look for libtorch there.
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// They read no header of libtorch's, so that each compiles in seconds.
const KERNELS: [&str; 2] = ["levels", "pixels"];

/// Of these too, and of each there is one for every level of instructions.
const KERNELS_OF_LEVELS: [&str; 11] = [
    "bytes",
    "jpeg",
    "norm",
    "outer",
    "pointwise",
    "pool",
    "resample",
    "weight_gradient",
    "winograd",
    "winograd_train",
    "winograd_weight",
];

/// Older ones do not know the instructions that kernels are compiled for. `cargo xtask doctor` says so too.
const OLDEST_GCC: u32 = 11;

/// The levels of an x86-64 processor, as `striate_cpu_level` numbers them. Others have the first.
const LEVELS: [&str; 3] = ["0", "1", "2"];

fn main() {
    println!("cargo::rerun-if-changed=csrc");
    if env::var_os("CARGO_FEATURE_DOC_ONLY").is_some() {
        return; // docs need no libtorch
    }
    // torch-sys has `links = "tch"`, so that its `libtorch_lib` arrives here.
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") else {
        println!("cargo::error=torch-sys did not say where libtorch is: run `cargo xtask setup`");
        return;
    };
    let lib = Path::new(&lib);
    if let Some(version) = gcc_version().filter(|version| *version < OLDEST_GCC) {
        println!("cargo::error=GCC {version} is too old: install GCC {OLDEST_GCC} or newer, or set CXX to one that is there");
        return;
    }
    if !only_lints() {
        compile_operators(lib);
        compile_kernels();
    }
    if let Err(error) = find_at_run_time(lib) {
        println!("cargo::error=cannot write the arguments of the linker: {error}");
    }
}

/// Whether `cargo clippy` runs this. It links nothing, and cargo keeps what it makes of a workspace apart from what builds make:
/// all C++ would be compiled once more.
fn only_lints() -> bool {
    println!("cargo::rerun-if-env-changed=RUSTC_WORKSPACE_WRAPPER");
    env::var_os("RUSTC_WORKSPACE_WRAPPER")
        .is_some_and(|wrapper| Path::new(&wrapper).file_stem() == Some("clippy-driver".as_ref()))
}

/// C++ as libtorch has it. Its debug information would be that of libtorch's headers, many megabytes
/// for each program to link.
fn cpp() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).warnings(false).std("c++20").define("_GLIBCXX_USE_CXX11_ABI", "1").debug(false);
    build
}

/// The major version of the compiler, if it is GCC.
fn gcc_version() -> Option<u32> {
    let compiler = cpp().try_get_compiler().ok().filter(cc::Tool::is_like_gnu)?;
    let output = compiler.to_command().arg("-dumpversion").output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().split('.').next()?.parse().ok()
}

fn compile_operators(lib: &Path) {
    let include = lib.with_file_name("include");
    let mut build = cpp();
    build.include(&include).include(include.join("torch/csrc/api/include")).opt_level(2);
    // Gloo's headers, of which libtorch has none, are those in `csrc/gloo`.
    build.include("csrc").define("USE_C10D_GLOO", None);
    if lib.join("libtorch_cuda.so").exists() {
        build.define("STRIATE_CUDA", None);
        if let Some(headers) = cuda_headers(lib) {
            build.define("STRIATE_CUDA_GRAPHS", None).include(headers);
            // c10d's header of NCCL includes CUDA's of half types, and that one of CCCL's.
            if let (Some(nccl), Some(cccl)) = (header_folder(lib, &["nccl.h"]), header_folder(lib, &["nv/target"])) {
                build.define("STRIATE_NCCL", None).define("USE_C10D_NCCL", None).include(nccl).include(cccl);
            }
        }
    }
    build.files(["csrc/operators.cpp", "csrc/memory.cpp"]).compile("striate_operators");
}

fn compile_kernels() {
    let levels = if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") { &LEVELS[..] } else { &LEVELS[..1] };
    kernels(&KERNELS).compile("striate_kernels");
    for level in levels {
        kernels(&KERNELS_OF_LEVELS).define("STRIATE_LEVEL", *level).compile(&format!("striate_kernels_{level}"));
    }
}

fn kernels(names: &[&str]) -> cc::Build {
    let mut build = cpp();
    build
        .files(names.iter().map(|name| format!("csrc/kernels/{name}.cpp")))
        .opt_level(3)
        .flag_if_supported("-fno-trapping-math")
        .flag_if_supported("-ffp-contract=fast")
        .flag_if_supported("-fopenmp")
        .flag_if_supported("-Wno-psabi");
    build
}

/// Adds libtorch's folder to the run-time path of all programs and tests above, after the folder `lib` beside a program's own:
/// an archive with programs in `bin` and libtorch in `lib` runs wherever it is unpacked.
///
/// Cargo hands folders of libraries on to whatever depends on this crate, but link arguments to this
/// crate's own targets only. A folder's name that begins with an `@` is one that the linker's driver
/// (GCC or Clang) replaces by the arguments in the file of that name. The first of them is a folder.
fn find_at_run_time(lib: &Path) -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let arguments = out.join("libtorch.args");
    let lib = lib.display();
    fs::write(&arguments, format!("\"{lib}\"\n\"-Wl,-rpath,$ORIGIN/../lib\"\n\"-Wl,-rpath,{lib}\"\n"))?;
    println!("cargo::rustc-link-search=native=@{}", arguments.display());
    Ok(())
}

fn cuda_headers(lib: &Path) -> Option<PathBuf> {
    header_folder(lib, &["cuda_runtime_api.h", "crt/host_config.h"])
}

/// The folder that has these headers: of the wheels that libtorch was taken from, of packages beside Python's torch, or of a toolkit.
fn header_folder(lib: &Path, headers: &[&str]) -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let toolkit = std::env::var_os("CUDA_HOME").map_or_else(|| "/usr/local/cuda".into(), PathBuf::from).join("include");
    let packages = lib.ancestors().nth(2)?;
    let wheels = packages.join("nvidia").read_dir().into_iter().flatten().flatten().map(|wheel| wheel.path().join("include"));
    let triton = packages.join("triton/backends/nvidia/include");
    let places = [lib.with_file_name("include")].into_iter().chain(wheels).chain([triton, toolkit]);
    let mut places = places.flat_map(|place| [place.join("cccl"), place]);
    places.find(|place| headers.iter().all(|header| place.join(header).exists()))
}
