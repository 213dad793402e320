use super::{Decay, Group, Rule, Slot, check_eps, check_momentum, check_share};
use crate::TrainError;
use serde::{Deserialize, Serialize};
use striate_torch::foreach;

/// Hyperparameters of RMSprop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RmspropConfig {
    /// Decay of the running mean of the squared gradient.
    pub alpha: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Momentum; 0 keeps no state.
    pub momentum: f64,
    /// Whether gradients are divided by their standard deviation, and not by the root of their mean
    /// square.
    pub centered: bool,
    /// Whether it is TensorFlow's: `eps` is added under the root, the mean square starts at 1, and
    /// the momentum holds steps, each with the learning rate of its time. Otherwise it is
    /// PyTorch's.
    pub tensorflow: bool,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of
    /// batch norm.
    pub decay_1d: bool,
}

impl Default for RmspropConfig {
    /// The defaults of `torch.optim.RMSprop`.
    fn default() -> Self {
        Self { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false, tensorflow: false, weight_decay: 0.0, decay_1d: true }
    }
}

impl Rule for RmspropConfig {
    fn check(&self) -> Result<(), TrainError> {
        check_share("optimizer.alpha", self.alpha)?;
        check_eps(self.eps)?;
        check_momentum(self.momentum, false)
    }

    fn slots(&self) -> Vec<Slot> {
        let start = if self.tensorflow { 1.0 } else { 0.0 };
        let mut slots = vec![Slot { start, ..Slot::zeros("rmsprop.square_avg") }];
        if self.centered {
            slots.push(Slot::zeros("rmsprop.grad_avg"));
        }
        if self.momentum > 0.0 {
            slots.push(Slot::zeros("rmsprop.momentum"));
        }
        slots
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        let (grads, rate) = (group.decaying_grads()?, group.rate()?);
        let square_avgs = group.slot(0);
        foreach::mul_value(square_avgs, self.alpha)?;
        foreach::addcmul(square_avgs, &grads, &grads, 1.0 - self.alpha)?;
        let denominators = foreach::copies(square_avgs)?;
        if self.centered {
            let grad_avgs = group.slot(1);
            foreach::lerp(grad_avgs, &grads, 1.0 - self.alpha)?;
            foreach::addcmul(&denominators, grad_avgs, grad_avgs, -1.0)?;
        }
        if self.tensorflow {
            foreach::add_value(&denominators, self.eps)?;
            foreach::sqrt(&denominators)?;
        } else {
            foreach::sqrt(&denominators)?;
            foreach::add_value(&denominators, self.eps)?;
        }
        let updates = foreach::copies(&grads)?;
        foreach::div(&updates, &denominators)?;
        if self.momentum == 0.0 {
            return Ok(foreach::descend(&group.params, &updates, &rate)?);
        }
        let momenta = group.slot(group.state.len() - 1);
        foreach::mul_value(momenta, self.momentum)?;
        if self.tensorflow {
            // What is added to the parameters.
            foreach::descend(momenta, &updates, &rate)?;
            return Ok(foreach::add(&group.params, momenta, 1.0)?);
        }
        foreach::add(momenta, &updates, 1.0)?;
        Ok(foreach::descend(&group.params, momenta, &rate)?)
    }
}
