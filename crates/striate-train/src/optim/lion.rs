use super::{Decay, Group, Rule, Slot, check_betas};
use crate::TrainError;
use serde::{Deserialize, Serialize};
use striate_torch::foreach;

/// Hyperparameters of Lion (Chen 2023, arXiv:2302.06675): steps by the sign of a momentum, which
/// take a learning rate 3 to 10 times smaller than AdamW's, and a weight decay so much larger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LionConfig {
    /// How much of the momentum is in the step, and how much of it stays.
    pub betas: [f64; 2],
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of
    /// batch norm.
    pub decay_1d: bool,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.99], weight_decay: 0.0, decay_1d: true }
    }
}

impl Rule for LionConfig {
    fn check(&self) -> Result<(), TrainError> {
        check_betas(self.betas)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::zeros("lion.exp_avg")]
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        let (exp_avgs, [beta1, beta2]) = (group.slot(0), self.betas);
        let updates = foreach::copies(exp_avgs)?;
        foreach::lerp(&updates, &group.grads, 1.0 - beta1)?;
        foreach::sign(&updates)?;
        group.add_decay(&updates)?;
        foreach::descend(&group.params, &updates, &group.rate()?)?;
        Ok(foreach::lerp(exp_avgs, &group.grads, 1.0 - beta2)?)
    }
}
