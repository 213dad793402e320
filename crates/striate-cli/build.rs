//! Passes on the link arguments that striate-torch found, so that this package's tests, examples and programs find libtorch; but
//! `striate`, of its two programs, is to need none.
fn main() {
    println!("cargo::rerun-if-env-changed=DEP_STRIATE_TORCH_LINK_ARGS");
    let Ok(args) = std::env::var("DEP_STRIATE_TORCH_LINK_ARGS") else {
        println!(
            "cargo::error=this package must depend on striate-torch itself: cargo tells only such packages where libtorch is"
        );
        return;
    };
    for arg in args.split_terminator('\u{1f}') {
        // It needs libtorch nevertheless where a linker keeps libraries that nothing names.
        let targets: &[&str] =
            if arg.starts_with("-Wl,-rpath") { &[""] } else { &["-bin=striate-engine", "-tests", "-examples"] };
        targets.iter().for_each(|target| println!("cargo::rustc-link-arg{target}={arg}"));
    }
    // Programs offer libtorch the inline functions of its headers that they also have, and what is offered counts as called.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-arg-bin=striate=-Wl,--exclude-libs,ALL");
    }
}
