//! The front door from end to end: classifying, training, and the examples that people start from.
#![allow(clippy::unwrap_used)]
mod classifier;
mod examples;
#[cfg(debug_assertions)]
mod faults;
mod run;
mod several;
mod soak;
mod split;
mod tints;
