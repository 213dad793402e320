//! How far apart tensors are.
use striate_torch::{Generator, TorchError};
use tch::{Device, Kind, Tensor};

/// The largest difference of all pairs, each as a share of the largest expected value.
pub(super) fn apart<'a>(pairs: impl IntoIterator<Item = (&'a Tensor, &'a Tensor)>) -> Result<f64, TorchError> {
    let mut worst = 0.0;
    for (got, expected) in pairs {
        let [got, expected] = [got, expected].map(|tensor| tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double));
        let (got, expected) = (got?, expected?);
        let largest = |tensor: &Tensor| tensor.f_abs()?.f_max()?.f_double_value(&[]);
        let share = largest(&got.f_sub(&expected)?)? / largest(&expected)?.max(f64::MIN_POSITIVE);
        // A NaN stays.
        worst = if share > worst || share.is_nan() { share } else { worst };
    }
    Ok(worst)
}

/// Values of a standard normal distribution, float64 on the CPU.
pub(super) fn normal(size: &[i64], seed: u64) -> Result<Tensor, TorchError> {
    let mut values = Tensor::f_zeros(size, (Kind::Float, Device::Cpu))?;
    Generator::new(seed).normal(&mut values, 0.0, 1.0)?;
    Ok(values.f_to_kind(Kind::Double)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_pair_counts_in_shares_of_its_largest_value() {
        let [a, b, c] = [[1.0, -4.0], [1.5, -4.0], [f64::NAN, 1.0]].map(|values| Tensor::from_slice(&values));
        assert_eq!(apart([(&a, &a), (&b, &a)]).unwrap(), 0.125);
        assert!(apart([(&c, &a), (&a, &a)]).unwrap().is_nan());
    }
}
