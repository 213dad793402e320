//! The passes: each makes the program do the same with less.
mod bias;
mod fold;
mod fuse;
mod identity;
mod merge;

pub(crate) use bias::join as join_biases;

use crate::program::Program;
use striate_torch::TorchError;

/// All passes, in the order in which each finds most.
pub(crate) fn run(program: &mut Program) -> Result<(), TorchError> {
    identity::remove(program);
    fold::batch_norm(program)?;
    fuse::activations(program);
    fuse::additions(program);
    fuse::activations(program);
    merge::siblings(program)?;
    program.sweep();
    Ok(())
}
