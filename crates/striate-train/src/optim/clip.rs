use super::{Optimizer, Param};
use crate::TrainError;
use crate::error::check;
use striate_torch::foreach;
use tch::{Device, Tensor};

/// The smallest norm that adaptive clipping takes a parameter to have, so that one of zeros can
/// begin to move.
const SMALLEST_NORM: f64 = 1e-3;
/// Keeps norms of 0 from being divided by.
const EPS: f64 = 1e-6;

/// How large gradients are made smaller before a step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Clip {
    /// All gradients together are scaled down to this norm, if theirs is larger: `torch.nn.utils.clip_grad_norm_`.
    Norm(f64),
    /// Each number of a gradient is brought into the range from minus this to this:
    /// `torch.nn.utils.clip_grad_value_`.
    Value(f64),
    /// The gradient of each unit (an output channel, or a bias as a whole) is scaled down to this
    /// share of its weights' norm, if it is larger (Brock 2021, arXiv:2102.06171). The layers that
    /// give outputs are left out.
    Adaptive(f64),
}

impl Clip {
    /// The number that it clips to.
    pub(crate) fn limit(self) -> f64 {
        let (Self::Norm(limit) | Self::Value(limit) | Self::Adaptive(limit)) = self;
        limit
    }

    /// Refuses a limit that can't be.
    pub(crate) fn check(self) -> Result<(), TrainError> {
        let name = match self {
            Self::Norm(_) => "train.clip_norm",
            Self::Value(_) => "train.clip_value",
            Self::Adaptive(_) => "train.clip_adaptive",
        };
        let limit = self.limit();
        check(limit.is_finite() && limit > 0.0, name, limit, "must be above 0, or 0 for no limit")
    }

    /// Clips an optimizer's gradients. It reads nothing back from a GPU.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn apply(self, optimizer: &Optimizer) -> Result<(), TrainError> {
        let grads = optimizer.grads()?;
        match self {
            Self::Norm(limit) => scale_down(&by_device(grads), limit),
            Self::Value(limit) => Ok(by_device(grads).iter().try_for_each(|(_, grads)| foreach::clamp(grads, -limit, limit))?),
            Self::Adaptive(share) => {
                grads.iter().filter(|(param, _)| !param.head).try_for_each(|(param, grad)| adapt(param, grad, share))
            }
        }
    }
}

/// Gradients in lists of one device, as operators over lists take them.
fn by_device(grads: Vec<(&Param, Tensor)>) -> Vec<(Device, Vec<Tensor>)> {
    let mut devices: Vec<(Device, Vec<Tensor>)> = Vec::new();
    for (_, grad) in grads {
        match devices.iter_mut().find(|(device, _)| *device == grad.device()) {
            Some((_, grads)) => grads.push(grad),
            None => devices.push((grad.device(), vec![grad])),
        }
    }
    devices
}

/// Scales all gradients down to a norm that they have together.
fn scale_down(devices: &[(Device, Vec<Tensor>)], limit: f64) -> Result<(), TrainError> {
    let Some((first, _)) = devices.first() else { return Ok(()) };
    let mut norms = Vec::new();
    for (_, grads) in devices {
        norms.push(Tensor::f_stack(&foreach::norms(grads)?, 0)?.f_norm()?.f_to_device(*first)?);
    }
    let norm = Tensor::f_stack(&norms, 0)?.f_norm()?;
    let scale = norm.f_add_scalar(EPS)?.f_reciprocal()?.f_mul_scalar(limit)?.f_clamp_max(1.0)?;
    // On the CPU it costs nothing to know.
    if *first == Device::Cpu && f64::try_from(&scale)? >= 1.0 {
        return Ok(());
    }
    for (device, grads) in devices {
        foreach::mul_scalar(grads, &scale.f_to_device(*device)?)?;
    }
    Ok(())
}

fn adapt(param: &Param, grad: &Tensor, share: f64) -> Result<(), TrainError> {
    let largest = unit_norms(&param.tensor.f_detach()?)?.f_clamp_min(SMALLEST_NORM)?.f_mul_scalar(share)?;
    let scale = largest.f_div(&unit_norms(grad)?.f_clamp_min(EPS)?)?.f_clamp_max(1.0)?;
    let _ = grad.shallow_clone().f_mul_(&scale)?;
    Ok(())
}

/// The norm of each output channel, in a shape that spreads over all of it; that of the whole where
/// there is one dimension.
fn unit_norms(tensor: &Tensor) -> Result<Tensor, TrainError> {
    let rest: Vec<i64> = (1..i64::try_from(tensor.dim()).unwrap_or_default()).collect();
    Ok(if rest.is_empty() { tensor.f_norm()? } else { tensor.f_norm_scalaropt_dim(2.0, rest, true)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::OptimizerConfig;
    use tch::Kind;

    #[test]
    fn adaptive_clipping_leaves_heads_as_they_are() {
        let tensor = |name: &str, head| {
            let tensor = Tensor::ones([1, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            Param { head, ..Param::from((name.to_owned(), tensor)) }
        };
        let params = [tensor("conv.weight", false), tensor("fc.weight", true)];
        params.iter().for_each(|param| (&param.tensor * 3.0).sum(Kind::Float).backward());
        let optimizer = Optimizer::new(OptimizerConfig::default(), params).unwrap();
        Clip::Adaptive(0.5).apply(&optimizer).unwrap();
        // Weights of norm 2: gradients of norm 6 become those of norm 1.
        let clipped: Vec<f64> = optimizer.grads().unwrap().iter().map(|(_, grad)| grad.double_value(&[0, 0])).collect();
        assert_eq!(clipped, [0.5, 3.0]);
    }
}
