//! Fused optimizer steps: one pass over each parameter, its gradient and its state.
//!
//! Parameters must be float32 or float64 and dense: libtorch's CPU kernels skip half types in silence, so these refuse them.
use crate::{TorchError, ffi};
use tch::{Kind, Tensor};

/// What a step's learning rate is read from.
#[derive(Debug, Clone, Copy)]
pub enum LearningRate<'a> {
    /// It is this number.
    Value(f64),
    /// A float32 scalar on the parameters' device: a recorded step (see [`cuda::Graph`](crate::cuda::Graph)) reads it anew whenever it is
    /// replayed.
    Tensor(&'a Tensor),
}

impl From<f64> for LearningRate<'_> {
    fn from(value: f64) -> Self {
        Self::Value(value)
    }
}

impl<'a> LearningRate<'a> {
    /// The rate times `scale`; the rate itself where that is 1.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn scaled(self, scale: f64) -> Result<ScaledRate<'a>, TorchError> {
        Ok(match self {
            Self::Value(value) => ScaledRate::Value(value * scale),
            Self::Tensor(tensor) if scale == 1.0 => ScaledRate::Tensor(tensor),
            Self::Tensor(tensor) => ScaledRate::Made(tensor.f_mul_scalar(scale)?),
        })
    }

    /// The two arguments of the C interface.
    fn arguments(self) -> (f64, *const torch_sys::C_tensor) {
        match self {
            Self::Value(value) => (value, std::ptr::null()),
            Self::Tensor(tensor) => (0.0, tensor.as_ptr()),
        }
    }
}

/// A [`LearningRate`] times a number.
#[derive(Debug)]
pub enum ScaledRate<'a> {
    /// It is this number.
    Value(f64),
    /// As it was.
    Tensor(&'a Tensor),
    /// Computed on the device of the rate.
    Made(Tensor),
}

impl ScaledRate<'_> {
    /// For a step.
    pub fn rate(&self) -> LearningRate<'_> {
        match self {
            Self::Value(value) => LearningRate::Value(*value),
            Self::Tensor(tensor) => LearningRate::Tensor(tensor),
            Self::Made(tensor) => LearningRate::Tensor(tensor),
        }
    }
}

/// The hyperparameters of a step of stochastic gradient descent.
#[derive(Debug, Clone, Copy)]
pub struct SgdStep<'a> {
    /// Learning rate.
    pub lr: LearningRate<'a>,
    /// Momentum; 0 uses no buffers.
    pub momentum: f64,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Whether the momentum buffers are still to be filled: they then take the gradient as it is.
    pub first_step: bool,
}

/// One step of SGD (the rule of `torch.optim.SGD`) over lists of equal length: `params` and `momenta` change.
pub fn fused_sgd(params: &[Tensor], grads: &[Tensor], momenta: &[Tensor], step: SgdStep<'_>) -> Result<(), TorchError> {
    let momenta_len = if step.momentum == 0.0 { params.len() } else { momenta.len() };
    check_lists(params, &[grads.len(), momenta_len])?;
    if params.is_empty() {
        return Ok(());
    }
    let (params, grads, momenta) = (ffi::pointers(params), ffi::pointers(grads), ffi::pointers(momenta));
    let (lr, lr_tensor) = step.lr.arguments();
    // SAFETY: the pointers live for the call, and the lists have the lengths checked above.
    ffi::check(unsafe {
        ffi::st_fused_sgd(
            params.as_ptr(),
            grads.as_ptr(),
            momenta.as_ptr(),
            params.len(),
            lr,
            lr_tensor,
            step.momentum,
            step.weight_decay,
            i32::from(step.nesterov),
            i32::from(step.first_step),
        )
    })
}

/// The hyperparameters of a step of Adam.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep<'a> {
    /// Learning rate.
    pub lr: LearningRate<'a>,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Whether weight decay acts on the parameters themselves (AdamW), and not through the
    /// gradient.
    pub decoupled: bool,
    /// Added to the denominator.
    pub eps: f64,
}

/// One step of Adam (the rule of `torch.optim.Adam` or `AdamW`) over lists of equal length.
/// `params`, `exp_avgs` and `exp_avg_sqs` change; `steps` holds for each parameter the number of
/// this step, counted from 1, as a float32 scalar tensor.
pub fn fused_adam(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    step: AdamStep<'_>,
) -> Result<(), TorchError> {
    check_lists(params, &[grads.len(), exp_avgs.len(), exp_avg_sqs.len(), steps.len()])?;
    if params.is_empty() {
        return Ok(());
    }
    let lists = [params, grads, exp_avgs, exp_avg_sqs, steps].map(ffi::pointers);
    let (lr, lr_tensor) = step.lr.arguments();
    // SAFETY: the pointers live for the call, and the lists have the lengths checked above.
    ffi::check(unsafe {
        ffi::st_fused_adam(
            lists[0].as_ptr(),
            lists[1].as_ptr(),
            lists[2].as_ptr(),
            lists[3].as_ptr(),
            lists[4].as_ptr(),
            params.len(),
            lr,
            lr_tensor,
            step.beta1,
            step.beta2,
            step.weight_decay,
            step.eps,
            i32::from(step.decoupled),
        )
    })
}

/// Forgets the gradients of `tensors`, as PyTorch's `zero_grad(set_to_none=True)`: the next backward pass writes new ones
/// instead of adding to zeros.
pub fn clear_grads(tensors: &[Tensor]) -> Result<(), TorchError> {
    let pointers = ffi::pointers(tensors);
    // SAFETY: the pointers live for the call.
    ffi::check(unsafe { ffi::st_clear_grads(pointers.as_ptr(), pointers.len()) })
}

/// Multiplies the gradients of one device by `inverse_scale` in place; `found` becomes 1 if a value of theirs is no number, and else stays
/// as it is. Both are float32 scalars on the gradients' device, and nothing is read back from it: as in PyTorch's `torch.amp.GradScaler`.
///
/// # Errors
///
/// Gradients on several devices.
pub fn unscale(grads: &[Tensor], found: &Tensor, inverse_scale: &Tensor) -> Result<(), TorchError> {
    if grads.is_empty() {
        return Ok(());
    }
    let pointers = ffi::pointers(grads);
    // SAFETY: the pointers live for the call.
    ffi::check(unsafe { ffi::st_unscale(pointers.as_ptr(), pointers.len(), found.as_ptr(), inverse_scale.as_ptr()) })
}

fn check_lists(params: &[Tensor], lengths: &[usize]) -> Result<(), TorchError> {
    if let Some(other) = lengths.iter().find(|len| **len != params.len()) {
        return Err(TorchError::new(&format!("{} parameters but {other} gradients or states", params.len())));
    }
    let half = params.iter().find(|param| !matches!(param.kind(), Kind::Float | Kind::Double));
    match half {
        Some(param) => Err(TorchError::new(&format!("a parameter is {:?}: keep parameters float32 or float64", param.kind()))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::Device;

    const SGD: SgdStep =
        SgdStep { lr: LearningRate::Value(0.1), momentum: 0.9, weight_decay: 0.01, nesterov: false, first_step: true };

    #[test]
    fn sgd_follows_its_formula() {
        let param = Tensor::from_slice(&[1.0_f64, -2.0]);
        let grad = Tensor::from_slice(&[0.5_f64, 0.25]);
        let momentum = Tensor::zeros([2], (Kind::Double, Device::Cpu));
        let lists = ([param.shallow_clone()], [grad], [momentum]);
        fused_sgd(&lists.0, &lists.1, &lists.2, SGD).unwrap();
        fused_sgd(&lists.0, &lists.1, &lists.2, SgdStep { first_step: false, ..SGD }).unwrap();
        let (mut p, mut m) = ([1.0, -2.0], [0.0, 0.0]);
        for _ in 0..2 {
            for i in 0..2 {
                m[i] = 0.9 * m[i] + [0.5, 0.25][i] + 0.01 * p[i];
                p[i] -= 0.1 * m[i];
            }
        }
        let got = Vec::<f64>::try_from(&param).unwrap();
        assert!((got[0] - p[0]).abs() < 1e-12 && (got[1] - p[1]).abs() < 1e-12, "{got:?} {p:?}");
    }

    #[test]
    fn gradients_are_unscaled_and_what_is_no_number_is_found() {
        let scalar = |value: f32| Tensor::from(value);
        let (grads, found) = ([Tensor::from_slice(&[8.0_f32, -2.0]), Tensor::from_slice(&[4.0_f32])], scalar(0.0));
        unscale(&grads, &found, &scalar(0.25)).unwrap();
        assert_eq!((&grads[0], &grads[1]), (&Tensor::from_slice(&[2.0_f32, -0.5]), &Tensor::from_slice(&[1.0_f32])));
        assert_eq!(f64::try_from(&found).unwrap(), 0.0);
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let found = scalar(0.0);
            unscale(&[Tensor::from_slice(&[1.0, bad])], &found, &scalar(1.0)).unwrap();
            unscale(&grads, &found, &scalar(1.0)).unwrap();
            assert_eq!(f64::try_from(&found).unwrap(), 1.0, "it stays");
        }
    }

    #[test]
    fn half_parameters_and_uneven_lists_are_refused() {
        let half = Tensor::zeros([2], (Kind::BFloat16, Device::Cpu));
        let error = fused_sgd(&[half.shallow_clone()], &[half.shallow_clone()], &[half], SGD).unwrap_err();
        assert!(error.to_string().contains("keep parameters float32"), "{error}");
        let one = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        assert!(fused_sgd(&[one], &[], &[], SGD).is_err());
    }

    #[test]
    fn cleared_gradients_are_undefined() {
        let x = Tensor::from_slice(&[1.0_f32]).set_requires_grad(true);
        (&x * 2.0).sum(Kind::Float).backward();
        assert!(x.grad().defined());
        clear_grads(&[x.shallow_clone()]).unwrap();
        assert!(!x.grad().defined());
    }
}
