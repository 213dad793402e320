//! Has `striate`, which needs no libtorch, link none. Programs offer libtorch the inline functions of
//! its headers that they also have, and what is offered counts as called.
fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-arg-bin=striate=-Wl,--exclude-libs,ALL");
    }
}
