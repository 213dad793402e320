<<<<<<< HEAD
//! The program `striate`.
=======
//! The `striate` program: a thin front to the crates. Results go to standard output; progress and errors to standard error.

mod cli;
mod cost;
mod data;
mod devices;
mod diff;
mod error;
mod eval;
mod images;
mod lab;
mod models;
mod page;
mod predict;
mod progress;
mod recipes;
mod run;
mod source;
mod table;
mod train;
mod weights;

use clap::Parser;
use cli::{Cli, Command};
use error::CliError;
use std::io::Write;

>>>>>>> bench
fn main() {
    striate_cli::striate()
}
