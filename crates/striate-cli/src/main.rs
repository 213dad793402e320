//! The program `striate`.
fn main() {
    striate_cli::striate()
}
