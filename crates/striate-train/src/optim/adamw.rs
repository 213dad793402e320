use super::{Decay, Group, Rule, Slot, adam, check_betas, check_eps};
use crate::TrainError;
use serde::{Deserialize, Serialize};

/// Hyperparameters of AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdamWConfig {
    /// Decay of the running means of the gradient and of its square.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of batch norm.
    pub decay_1d: bool,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, decay_1d: true }
    }
}

impl Rule for AdamWConfig {
    fn check(&self) -> Result<(), TrainError> {
        check_betas(self.betas)?;
        check_eps(self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::zeros("adamw.exp_avg"), Slot::zeros("adamw.exp_avg_sq"), Slot::scalar("adamw.step")]
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        adam::step(group, self.betas, self.eps, true)
    }
}
