//! The front door from end to end: classifying, training, and the examples that people start from.
#![allow(clippy::unwrap_used)]
mod classifier;
mod examples;
mod run;
mod tints;
