use super::{Decay, Group, Rule, Slot, check_momentum};
use crate::TrainError;
use serde::{Deserialize, Serialize};
use striate_torch::optim::{SgdStep, fused_sgd};
use tch::Tensor;

/// Hyperparameters of stochastic gradient descent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SgdConfig {
    /// Momentum; 0 keeps no state.
    pub momentum: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of batch norm.
    pub decay_1d: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false, weight_decay: 0.0, decay_1d: true }
    }
}

impl Rule for SgdConfig {
    fn check(&self) -> Result<(), TrainError> {
        check_momentum(self.momentum, self.nesterov)
    }

    fn slots(&self) -> Vec<Slot> {
        if self.momentum == 0.0 { Vec::new() } else { vec![Slot::zeros("sgd.momentum")] }
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        step(group, &group.grads, (self.momentum, self.nesterov), group.weight_decay)
    }
}

/// A step of SGD along `grads`. The group's first slot holds the momentum.
pub(super) fn step(
    group: &Group<'_>,
    grads: &[Tensor],
    (momentum, nesterov): (f64, bool),
    weight_decay: f64,
) -> Result<(), TrainError> {
    let rate = group.rate()?;
    // A buffer of zeros becomes the gradient in its first step, as PyTorch's missing one does.
    let step = SgdStep { lr: rate.rate(), momentum, weight_decay, nesterov, first_step: false };
    Ok(fused_sgd(&group.params, grads, group.slot(0), step)?)
}
