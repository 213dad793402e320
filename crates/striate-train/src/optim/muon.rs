use super::{Decay, Group, Rule, Slot, check_momentum, sgd};
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use striate_torch::foreach;
use tch::{Kind, Tensor};

/// The polynomial that singular values go through in a Newton-Schulz step: `a x + b x^3 + c x^5`.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Keeps zeros from being divided by 0.
const NORM_EPS: f64 = 1e-7;

/// Hyperparameters of Muon for convolutions, as Keller Jordan's `airbench94_muon` has it.
///
/// Filters of convolutions step along their momentum with all singular values brought near 1; each
/// is a matrix `[out_channels, in_channels * kernel]`. All else, and what a group calls
/// [`plain`](super::ParamGroup::plain), is trained by SGD with Nesterov's momentum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MuonConfig {
    /// Momentum of filters.
    pub momentum: f64,
    /// Nesterov's momentum of filters.
    pub nesterov: bool,
    /// Newton-Schulz steps; more bring the singular values nearer to each other.
    pub newton_schulz_steps: u32,
    /// Whether each step first scales a filter bank to a norm of the root of its number of filters.
    /// It changes what a network without norms computes.
    pub renormalise: bool,
    /// Momentum of all else.
    pub sgd_momentum: f64,
    /// What multiplies the learning rate of all else.
    pub sgd_lr_scale: f64,
    /// Weight decay: decoupled for filters, and L2 for all else.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of
    /// batch norm.
    pub decay_1d: bool,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self {
            momentum: 0.6,
            nesterov: true,
            newton_schulz_steps: 5,
            renormalise: false,
            sgd_momentum: 0.85,
            sgd_lr_scale: 1.0,
            weight_decay: 0.0,
            decay_1d: true,
        }
    }
}

impl Rule for MuonConfig {
    fn check(&self) -> Result<(), TrainError> {
        check_momentum(self.momentum, self.nesterov)?;
        let steps = self.newton_schulz_steps;
        check((1..=20).contains(&steps), "optimizer.newton_schulz_steps", steps, "must be from 1 to 20")?;
        let (momentum, scale) = (self.sgd_momentum, self.sgd_lr_scale);
        check(momentum > 0.0 && momentum < 1.0, "optimizer.sgd_momentum", momentum, "must be above 0 and below 1")?;
        check(scale.is_finite() && scale >= 0.0, "optimizer.sgd_lr_scale", scale, "must be 0 or larger")
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot::zeros("muon.momentum")]
    }

    fn decay(&self) -> Decay {
        Decay { weight_decay: self.weight_decay, decay_1d: self.decay_1d }
    }

    fn step(&self, group: &Group<'_>) -> Result<(), TrainError> {
        let (filters, rest) = group.split(|param| param.dim() == 4 && !group.plain);
        self.step_filters(&filters)?;
        let rest = Group { lr_scale: rest.lr_scale * self.sgd_lr_scale, ..rest };
        sgd::step(&rest, &rest.grads, (self.sgd_momentum, true), rest.weight_decay)
    }
}

impl MuonConfig {
    fn step_filters(&self, filters: &Group<'_>) -> Result<(), TrainError> {
        let momenta = filters.slot(0);
        foreach::mul_value(momenta, self.momentum)?;
        foreach::add(momenta, &filters.grads, 1.0)?;
        let directions = foreach::copies(momenta)?;
        if self.nesterov {
            foreach::mul_value(&directions, self.momentum)?;
            foreach::add(&directions, &filters.grads, 1.0)?;
        }
        if self.renormalise {
            let roots: Vec<Tensor> = filters.params.iter().map(|param| Tensor::from((param.size()[0] as f64).sqrt())).collect();
            let norms = foreach::norms(&filters.params)?;
            foreach::clamp(&norms, NORM_EPS, f64::INFINITY)?;
            foreach::div(&filters.params, &norms)?;
            foreach::mul(&filters.params, &roots)?;
        }
        let updates = directions.iter().map(|direction| orthogonal(direction, self.newton_schulz_steps));
        let updates = updates.collect::<Result<Vec<_>, _>>()?;
        filters.add_decay(&updates)?;
        Ok(foreach::descend(&filters.params, &updates, &filters.rate()?)?)
    }
}

/// Of filters `[out_channels, ...]` as a matrix: about the nearest one with orthonormal rows or
/// columns. It is computed in bfloat16 on a GPU, and on the CPU in the filters' own type.
fn orthogonal(filters: &Tensor, steps: u32) -> Result<Tensor, TrainError> {
    let kind = if filters.device().is_cuda() { Kind::BFloat16 } else { filters.kind() };
    let matrix = filters.f_flatten(1, -1)?.f_to_kind(kind)?;
    let tall = matrix.size()[0] > matrix.size()[1];
    let turned = |matrix: Tensor| if tall { matrix.f_transpose(0, 1) } else { Ok(matrix) };
    let mut x = turned(matrix.f_div(&matrix.f_norm()?.f_add_scalar(NORM_EPS)?)?)?;
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..steps {
        let squares = x.f_mm(&x.f_transpose(0, 1)?)?;
        let polynomial = squares.f_mul_scalar(b)?.f_add(&squares.f_mm(&squares)?.f_mul_scalar(c)?)?;
        x = x.f_mul_scalar(a)?.f_add(&polynomial.f_mm(&x)?)?;
    }
    Ok(turned(x)?.f_to_kind(filters.kind())?.f_reshape(filters.size())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::optim::{Optimizer, OptimizerConfig, Param, SgdConfig};
    use tch::Device;

    #[test]
    fn plain_filters_are_trained_by_sgd() {
        let stepped = |config: OptimizerConfig| {
            let filters = Tensor::arange(16, (Kind::Float, Device::Cpu)).view([2, 2, 2, 2]).set_requires_grad(true);
            let param = Param { plain: true, ..Param::from(("conv.weight".to_owned(), filters.shallow_clone())) };
            let mut optimizer = Optimizer::new(config, [param]).unwrap();
            for lr in [0.1, 0.05] {
                filters.square().sum(Kind::Float).backward();
                optimizer.step(lr).unwrap();
                optimizer.zero_grad().unwrap();
            }
            filters
        };
        let sgd = SgdConfig { momentum: 0.85, nesterov: true, ..SgdConfig::default() };
        assert_eq!(stepped(OptimizerConfig::Muon(MuonConfig::default())), stepped(OptimizerConfig::Sgd(sgd)));
    }

    #[test]
    fn filters_of_zeros_stay_numbers() {
        let filters = Tensor::zeros([2, 3, 1, 1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let config = OptimizerConfig::Muon(MuonConfig { renormalise: true, ..MuonConfig::default() });
        let mut optimizer = Optimizer::new(config, [("conv.weight".to_owned(), filters.shallow_clone())]).unwrap();
        (&filters * 0.0).sum(Kind::Float).backward();
        optimizer.step(0.1).unwrap();
        assert_eq!(filters.abs().max().double_value(&[]), 0.0);
    }
}
