use super::{Decay, Group, Rule, Slot, SlotForm};
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use striate_torch::optim::{SgdStep, fused_sgd};

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
        check((0.0..1.0).contains(&self.momentum), "optimizer.momentum", self.momentum, "must be from 0 to below 1")?;
        let has_momentum = !self.nesterov || self.momentum > 0.0;
        check(has_momentum, "optimizer.nesterov", self.nesterov, "takes a momentum above 0")
    }

    fn slots(&self) -> Vec<Slot> {
        let momentum = Slot { name: "sgd.momentum", form: SlotForm::Parameter };
        if self.momentum == 0.0 { Vec::new() } else { vec![momentum] }
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        let &Self { momentum, nesterov, .. } = self;
        let scaled = group.lr.scaled(group.lr_scale)?;
        // A buffer of zeros becomes the gradient in its first step, as PyTorch's missing one does.
        let (lr, weight_decay) = (scaled.rate(), group.weight_decay);
        let step = SgdStep { lr, momentum, weight_decay, nesterov, first_step: false };
        let momenta = group.state.first().map_or(&[][..], Vec::as_slice);
        Ok(fused_sgd(&group.params, &group.grads, momenta, step)?)
    }
}
