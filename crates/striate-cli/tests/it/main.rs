//! The `striate` program from end to end: what it writes, what it prints, and how it refuses.
#![allow(clippy::unwrap_used)]
mod bad_data;
mod changes;
mod checkpoints;
mod cost;
mod data;
mod devices;
mod diff;
mod distributed;
mod engine;
mod export;
#[cfg(debug_assertions)]
mod faults;
mod help;
mod input;
mod lab;
mod light;
mod models;
mod names;
mod report;
mod resume;
mod sandbox;
mod self_test;
mod serve;
mod several;
mod shown;
mod signals;
mod sources;
mod train;
mod tutorials;
mod weights;
