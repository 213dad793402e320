use super::{Decay, Group, Rule, Slot, check_betas, check_eps};
use crate::TrainError;
use serde::{Deserialize, Serialize};
use striate_torch::foreach;
use striate_torch::optim::{AdamStep, fused_adam};

/// Hyperparameters of Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdamConfig {
    /// Decay of the running means of the gradient and of its square.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of
    /// batch norm.
    pub decay_1d: bool,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, decay_1d: true }
    }
}

impl Rule for AdamConfig {
    fn check(&self) -> Result<(), TrainError> {
        check_betas(self.betas)?;
        check_eps(self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::zeros("adam.exp_avg"), Slot::zeros("adam.exp_avg_sq"), Slot::scalar("adam.step")]
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        step(group, self.betas, self.eps, false)
    }
}

/// A step of Adam, or with `decoupled` weight decay of AdamW. The state is the two means, and the
/// number of steps.
pub(super) fn step(group: &Group<'_>, [beta1, beta2]: [f64; 2], eps: f64, decoupled: bool) -> Result<(), TrainError> {
    let [exp_avgs, exp_avg_sqs, steps] = [0, 1, 2].map(|slot| group.slot(slot));
    foreach::add_value(steps, 1.0)?;
    let (rate, weight_decay) = (group.rate()?, group.weight_decay);
    let step = AdamStep { lr: rate.rate(), beta1, beta2, weight_decay, decoupled, eps };
    Ok(fused_adam(&group.params, &group.grads, exp_avgs, exp_avg_sqs, steps, step)?)
}
