//! The program finds libtorch at run time where torch-sys found it.
fn main() {
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    match std::env::var("DEP_TCH_LIBTORCH_LIB") {
        Ok(lib) => println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}"),
        Err(_) => println!("cargo::error=torch-sys did not say where libtorch is: run `cargo xtask setup`"),
    }
}
