//! Compiles the C++ shim against the libtorch that torch-sys found, and tells the crates above which link arguments
//! their programs and tests need to find libtorch at run time.
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=csrc");
    if std::env::var_os("CARGO_FEATURE_DOC_ONLY").is_some() {
        println!("cargo::metadata=LINK_ARGS=");
        return; // docs need no libtorch
    }
    // torch-sys has `links = "tch"`, so that its `libtorch_lib` arrives here.
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        println!("cargo::error=torch-sys did not say where libtorch is: run `cargo xtask setup`");
        return;
    };
    let lib = Path::new(&lib);
    let include = lib.with_file_name("include");
    let build = || {
        let mut build = cc::Build::new();
        build.cpp(true).warnings(false).std("c++20").define("_GLIBCXX_USE_CXX11_ABI", "1");
        build.include(&include).include(include.join("torch/csrc/api/include"));
        build
    };
    let cuda = lib.join("libtorch_cuda.so").exists();
    let mut shim = build();
    if let Some(headers) = cuda_headers(lib).filter(|_| cuda) {
        shim.define("STRIATE_CUDA_GRAPHS", None).include(headers);
    }
    shim.files(["csrc/shim.cpp", "csrc/cuda.cpp", "csrc/memory.cpp"]).compile("striate_shim");
    build()
        .file("csrc/conv_train.cpp")
        .file("csrc/int8.cpp")
        .file("csrc/norm.cpp")
        .file("csrc/pixels.cpp")
        .file("csrc/pointwise.cpp")
        .file("csrc/pool.cpp")
        .file("csrc/weight_gradient.cpp")
        .file("csrc/winograd.cpp")
        .file("csrc/winograd_train.cpp")
        .opt_level(3)
        .flag_if_supported("-fno-trapping-math")
        .flag_if_supported("-ffp-contract=fast")
        .flag_if_supported("-fopenmp")
        .flag_if_supported("-Wno-psabi")
        .compile("striate_kernels");

    let mut link_args = vec![format!("-Wl,-rpath,{}", lib.display())];
    if cuda {
        // Where nothing names a symbol of libtorch_cuda, a linker that drops unneeded libraries would drop CUDA with it.
        link_args.push("-Wl,--no-as-needed,-ltorch_cuda,-lc10_cuda,--as-needed".to_owned());
    }
    for arg in &link_args {
        println!("cargo::rustc-link-arg={arg}");
    }
    // Parted by what no path has, as cargo does it in CARGO_ENCODED_RUSTFLAGS.
    println!("cargo::metadata=LINK_ARGS={}", link_args.join("\u{1f}"));
}

/// The folder of CUDA's headers: of the wheels that libtorch was taken from, of packages beside Python's torch, or of a toolkit.
fn cuda_headers(lib: &Path) -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let toolkit = std::env::var_os("CUDA_HOME").map_or_else(|| "/usr/local/cuda".into(), PathBuf::from).join("include");
    let packages = lib.ancestors().nth(2)?;
    let wheels = packages.join("nvidia").read_dir().into_iter().flatten().flatten().map(|wheel| wheel.path().join("include"));
    let triton = packages.join("triton/backends/nvidia/include");
    let mut places = [lib.with_file_name("include")].into_iter().chain(wheels).chain([triton, toolkit]);
    places.find(|place| ["cuda_runtime_api.h", "crt/host_config.h"].iter().all(|header| place.join(header).exists()))
}
