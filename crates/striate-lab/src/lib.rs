//! What the classic papers claim about convolutional networks, as experiments that give a verdict; and a look inside a network.

mod chart;
pub mod confusion;
mod error;
pub mod inspect;
pub mod lr_range;
mod page;
pub mod surface;

pub use error::LabError;
