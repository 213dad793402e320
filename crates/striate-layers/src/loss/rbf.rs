use crate::LayerError;
use tch::Tensor;

/// The discriminative loss of LeNet-5's radial basis functions (LeCun 1998, equation 9): the
/// distance `y` to the target's code plus `log(exp(-j) + sum over all classes of exp(-y))`, where
/// the logits are `-y`.
///
/// It is a cross entropy with one more class, "rubbish", whose distance is always `j`: classes that
/// are already farther than `j` are no longer pushed away.
///
/// # Errors
///
/// Targets that are not `[N]`.
pub fn rbf_loss(logits: &Tensor, targets: &Tensor, j: f64) -> Result<Tensor, LayerError> {
    let target_logits = logits.f_gather(1, &targets.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
    let rubbish = logits.f_narrow(1, 0, 1)?.f_full_like(-j)?;
    let all = Tensor::f_cat(&[logits, &rubbish], 1)?.f_logsumexp([1_i64].as_slice(), false)?;
    Ok(all.f_sub(&target_logits)?.f_mean(logits.kind())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::examples::close;

    #[test]
    fn the_rbf_loss_is_equation_9() {
        let (y, target, j) = ([3.0_f64, 0.5, 9.0], 0, 2.0);
        let logits = -Tensor::from_slice(&y).view([1, 3]);
        let sum: f64 = y.iter().map(|y| (-y).exp()).sum();
        close(rbf_loss(&logits, &Tensor::from_slice(&[target]), j), y[0] + ((-j).exp() + sum).ln());
    }
}
