//! Striate's own commands: sets up libtorch, builds, tests, and runs the program.
fn main() {}
