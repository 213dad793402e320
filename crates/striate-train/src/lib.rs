//! Training of image classifiers.
mod error;
pub mod optim;
pub mod schedule;

pub use error::TrainError;
pub use optim::{AdamWConfig, Optimizer, OptimizerConfig, SgdConfig};
pub use schedule::{Curve, ScheduleConfig};
