use super::{Decay, Group, Rule, Slot, check_eps, check_momentum, sgd, trust_ratios};
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use striate_torch::foreach;

/// Hyperparameters of LARS (You 2017, arXiv:1708.03888): SGD with gradients that are scaled by the
/// norm of their parameter over their own, as in timm's `Lars`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LarsConfig {
    /// Momentum; 0 keeps no state.
    pub momentum: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// What the ratio of the norms is multiplied by.
    pub trust_coefficient: f64,
    /// Added to the ratio's denominator.
    pub eps: f64,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of
    /// batch norm.
    pub decay_1d: bool,
    /// Whether gradients are scaled where there is no weight decay too.
    pub always_adapt: bool,
}

impl Default for LarsConfig {
    fn default() -> Self {
        Self {
            momentum: 0.9,
            nesterov: false,
            trust_coefficient: 0.001,
            eps: 1e-8,
            weight_decay: 1e-4,
            decay_1d: false,
            always_adapt: false,
        }
    }
}

impl Rule for LarsConfig {
    fn check(&self) -> Result<(), TrainError> {
        check_momentum(self.momentum, self.nesterov)?;
        let trust = self.trust_coefficient;
        check(trust.is_finite() && trust > 0.0, "optimizer.trust_coefficient", trust, "must be above 0")?;
        check_eps(self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        if self.momentum == 0.0 { Vec::new() } else { vec![Slot::zeros("lars.momentum")] }
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        let grads = group.decaying_grads()?;
        if self.always_adapt || group.weight_decay != 0.0 {
            let ratios = trust_ratios(&group.params, &group.grads, |of_param, of_grad| {
                let denominator = of_param.f_mul_scalar(group.weight_decay)?.f_add(of_grad)?.f_add_scalar(self.eps)?;
                of_param.f_mul_scalar(self.trust_coefficient)?.f_div(&denominator)
            })?;
            foreach::mul(&grads, &ratios)?;
        }
        sgd::step(group, &grads, (self.momentum, self.nesterov), 0.0)
    }
}
