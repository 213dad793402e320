use super::Optimizer;
use crate::TrainError;
use crate::error::check;
use tch::{Device, Tensor};

/// How large gradients are made smaller before a step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Clip {
    /// All gradients together are scaled down to this norm, if theirs is larger: `torch.nn.utils.clip_grad_norm_`.
    Norm(f64),
}

impl Clip {
    /// Refuses a limit that can't be.
    pub(crate) fn check(self) -> Result<(), TrainError> {
        let Self::Norm(norm) = self;
        check(norm.is_finite() && norm > 0.0, "train.clip_norm", norm, "must be above 0, or 0 for no limit")
    }

    /// Clips an optimizer's gradients. It reads nothing back from a GPU.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn apply(self, optimizer: &Optimizer) -> Result<(), TrainError> {
        let mut grads: Vec<Tensor> = optimizer.grads()?.into_iter().map(|(_, grad)| grad).collect();
        let Self::Norm(max_norm) = self;
        let Some(first) = grads.first() else { return Ok(()) };
        let device = first.device();
        let norms = grads.iter().map(|grad| grad.f_norm()?.f_to_device(device)).collect::<Result<Vec<_>, _>>()?;
        let norm = Tensor::f_stack(&norms, 0)?.f_norm()?;
        let scale = norm.f_add_scalar(1e-6)?.f_reciprocal()?.f_mul_scalar(max_norm)?.f_clamp_max(1.0)?;
        // On the CPU it costs nothing to know.
        if device == Device::Cpu && f64::try_from(&scale)? >= 1.0 {
            return Ok(());
        }
        for grad in &mut grads {
            let _ = grad.f_mul_(&scale.f_to_device(grad.device())?)?;
        }
        Ok(())
    }
}
