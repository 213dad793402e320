use super::{Decay, Group, Rule, Slot, SlotForm};
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use striate_torch::optim::{AdamStep, fused_adam};

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
        let betas = self.betas.iter().all(|beta| (0.0..1.0).contains(beta));
        check(betas, "optimizer.betas", self.betas, "must both be from 0 to below 1")?;
        check(self.eps.is_finite() && self.eps > 0.0, "optimizer.eps", self.eps, "must be above 0")
    }

    fn slots(&self) -> Vec<Slot> {
        vec![
            Slot { name: "adamw.exp_avg", form: SlotForm::Parameter },
            Slot { name: "adamw.exp_avg_sq", form: SlotForm::Parameter },
            Slot { name: "adamw.step", form: SlotForm::Scalar },
        ]
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        let [exp_avgs, exp_avg_sqs, steps] = group.state.as_slice() else { return Ok(()) };
        for step in steps {
            let _ = step.shallow_clone().f_add_scalar_(1.0)?;
        }
        let ([beta1, beta2], eps, weight_decay) = (self.betas, self.eps, group.weight_decay);
        let scaled = group.lr.scaled(group.lr_scale)?;
        let step = AdamStep { lr: scaled.rate(), beta1, beta2, weight_decay, decoupled: true, eps };
        Ok(fused_adam(&group.params, &group.grads, exp_avgs, exp_avg_sqs, steps, step)?)
    }
}
