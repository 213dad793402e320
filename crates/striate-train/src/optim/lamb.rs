use super::{Decay, Group, Rule, Slot, check_betas, check_eps, trust_ratios};
use crate::TrainError;
use serde::{Deserialize, Serialize};
use striate_torch::foreach;
use tch::{Kind, Tensor};

/// Hyperparameters of LAMB (You 2019, arXiv:1904.00962): steps of Adam, each as long as its
/// parameter's norm says. With [clipping](crate::Clip) to a norm of 1 it is timm's `Lamb`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LambConfig {
    /// Decay of the running means of the gradient and of its square.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay, which is added to the step before that is scaled.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of
    /// batch norm.
    pub decay_1d: bool,
    /// Whether steps are scaled where there is no weight decay too.
    pub always_adapt: bool,
}

impl Default for LambConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-6, weight_decay: 0.01, decay_1d: false, always_adapt: false }
    }
}

impl Rule for LambConfig {
    fn check(&self) -> Result<(), TrainError> {
        check_betas(self.betas)?;
        check_eps(self.eps)
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::zeros("lamb.exp_avg"), Slot::zeros("lamb.exp_avg_sq"), Slot::scalar("lamb.step")]
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        let [exp_avgs, exp_avg_sqs, steps] = [0, 1, 2].map(|slot| group.slot(slot));
        let ([beta1, beta2], grads) = (self.betas, &group.grads);
        foreach::lerp(exp_avgs, grads, 1.0 - beta1)?;
        foreach::mul_value(exp_avg_sqs, beta2)?;
        foreach::addcmul(exp_avg_sqs, grads, grads, 1.0 - beta2)?;
        foreach::add_value(steps, 1.0)?;
        let steps = Tensor::f_stack(steps, 0)?.f_to_kind(Kind::Double)?;
        let correction = |beta| Tensor::f_pow_scalar(beta, &steps)?.f_neg()?.f_add_scalar(1.0);
        let denominators = foreach::copies(exp_avg_sqs)?;
        foreach::sqrt(&denominators)?;
        foreach::div(&denominators, &correction(beta2)?.f_sqrt()?.f_unbind(0)?)?;
        foreach::add_value(&denominators, self.eps)?;
        let updates = foreach::copies(exp_avgs)?;
        foreach::div(&updates, &correction(beta1)?.f_unbind(0)?)?;
        foreach::div(&updates, &denominators)?;
        group.add_decay(&updates)?;
        if self.always_adapt || group.weight_decay != 0.0 {
            foreach::mul(&updates, &trust_ratios(&group.params, &updates, |of_param, of_update| of_param.f_div(of_update))?)?;
        }
        Ok(foreach::descend(&group.params, &updates, &group.rate()?)?)
    }
}
