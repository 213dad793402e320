//! Passes on the link arguments that striate-torch found, so that this package's tests, examples and programs find libtorch.
fn main() {
    println!("cargo::rerun-if-env-changed=DEP_STRIATE_TORCH_LINK_ARGS");
    match std::env::var("DEP_STRIATE_TORCH_LINK_ARGS") {
        Ok(args) => args.split_terminator('\u{1f}').for_each(|arg| println!("cargo::rustc-link-arg={arg}")),
        Err(_) => println!(
            "cargo::error=this package must depend on striate-torch itself: cargo tells only such packages where libtorch is"
        ),
    }
}
