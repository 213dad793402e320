use crate::optim::Param;
use crate::{Progress, TrainError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use striate_graph::Network;
use tch::Tensor;

/// What the names of a hook's state begin with that are [`weights`](Hook) to use in place of the network's.
pub const WEIGHTS: &str = "weights/";

/// A part of training that sees the network: an average of weights, a record of gradients, a rule of your own.
///
/// The trainer calls its hooks in the order in which they were added. What a hook must know to go on bit by bit belongs in its
/// [`state`](Self::state), which every checkpoint has.
///
/// A hook may average weights: its state then has tensors under [`WEIGHTS`] and the names of [`Network::state`]. The run is judged by
/// them, beside the network's own, and ends with them in the network. A run has one such hook at most.
pub trait Hook {
    /// Under what its state is saved: one word, no other hook's of the run.
    fn name(&self) -> &'static str;

    /// An epoch begins, or goes on.
    ///
    /// # Errors
    ///
    /// An error ends the run; so it is with all of these.
    fn epoch_started(&mut self, _at: &Moment<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    /// Whether its state has [`WEIGHTS`], or will have them later in the run.
    fn averages(&self) -> bool {
        false
    }

    /// Whether it is called [after a backward pass](Self::after_backward). Steps are then not recorded as CUDA graphs.
    fn reads_gradients(&self) -> bool {
        false
    }

    /// The gradients of the whole batch are there, and the parameters as they were. It may change gradients.
    fn after_backward(&mut self, _at: &Moment<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    /// A step is done: the parameters have changed, and gradients are forgotten.
    fn after_update(&mut self, _at: &Moment<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    /// All steps of an epoch are done, and the network is about to be evaluated.
    fn epoch_done(&mut self, _at: &Moment<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    /// What it has to know to go on: the tensors themselves, not copies.
    fn state(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::new()
    }

    /// A name because of which it cannot take over a state, if there is one. Unless a hook says otherwise, a state must have the names,
    /// shapes and types of its own.
    fn misfit(&self, state: &BTreeMap<String, Tensor>) -> Option<String> {
        misfit(&self.state(), state)
    }

    /// Takes over a state that fits.
    fn load_state(&mut self, _state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        Ok(())
    }
}

/// When a [`Hook`] is called, and of what.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The network.
    pub network: &'a Network,
    /// The parameters that are trained.
    pub params: &'a [Param],
    /// How far the run is: while a step is done, its steps are those before it.
    pub progress: &'a Progress,
    /// Steps of the whole run.
    pub steps: u64,
    /// The learning rate of the step.
    pub lr: f64,
    pub(crate) stop: Option<&'a AtomicBool>,
}

impl Moment<'_> {
    /// Whether the run was asked to stop. What takes long can end with [`TrainError::Stopped`] after an epoch, and is called again when
    /// the run goes on.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// The first name that only one of two states has, or of which they have other shapes or types.
pub(crate) fn misfit(own: &BTreeMap<String, Tensor>, given: &BTreeMap<String, Tensor>) -> Option<String> {
    let differs = |name: &&String| match (own.get(*name), given.get(*name)) {
        (Some(own), Some(given)) => own.size() != given.size() || own.kind() != given.kind(),
        _ => true,
    };
    own.keys().chain(given.keys()).find(differs).cloned()
}

/// The weights that hooks' state has in place of the network's, if it has some; the state is by hook and name, as in a checkpoint.
pub(crate) fn weights_of(state: &BTreeMap<String, Tensor>) -> Option<BTreeMap<String, Tensor>> {
    let weight = |(name, tensor): (&String, &Tensor)| {
        let (_, name) = name.split_once('/')?;
        Some((name.strip_prefix(WEIGHTS)?.to_owned(), tensor.shallow_clone()))
    };
    let weights: BTreeMap<_, _> = state.iter().filter_map(weight).collect();
    (!weights.is_empty()).then_some(weights)
}
