//! What the classic papers claim about convolutional networks, as experiments that give a verdict; and a look inside a network.

mod error;
pub mod inspect;
mod page;

pub use error::LabError;
