//! The program `striate-engine`, which `striate` becomes where it has to compute.
fn main() {
    striate_cli::striate_engine()
}
