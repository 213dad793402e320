//! Networks equal torchvision's (names of parameters, outputs, gradients and running statistics), and weights are read.
#![allow(clippy::unwrap_used)]

mod fixture;
mod parity;
mod sweep;
mod weights;
