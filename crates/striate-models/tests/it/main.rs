//! Networks equal torchvision's: names of parameters, outputs, gradients and running statistics.
#![allow(clippy::unwrap_used)]

mod fixture;
mod parity;
