//! Passes on the link arguments that striate-torch found, so that this package's tests, examples and programs find libtorch.
fn main() {
    println!("cargo::rerun-if-env-changed=DEP_STRIATE_TORCH_LINK_ARGS");
    for arg in std::env::var("DEP_STRIATE_TORCH_LINK_ARGS").unwrap_or_default().split_whitespace() {
        println!("cargo::rustc-link-arg={arg}");
    }
}
