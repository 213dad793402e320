//! The `striate` program from end to end: what it writes, what it prints, and how it refuses.
#![allow(clippy::unwrap_used)]
mod checkpoints;
mod devices;
mod help;
mod input;
mod models;
mod resume;
mod sandbox;
mod train;
mod weights;
