//! Operators over lists of tensors, in place and without gradients: a GPU computes a list in one
//! kernel or a few.
//!
//! The lists of a call have equal lengths; tensors of the same place have equal shapes, types and
//! devices. An empty list is nothing to do.
use crate::ffi::{self, ForeachOp};
use crate::optim::ScaledRate;
use crate::runtime::half_number;
use crate::{TorchError, optim};
use tch::{Kind, Tensor};

/// `x + scale * other`.
///
/// # Errors
///
/// Lists of other lengths, and what libtorch refuses; so it is with all of these.
pub fn add(tensors: &[Tensor], others: &[Tensor], scale: f64) -> Result<(), TorchError> {
    run(ForeachOp::Add, tensors, &[others], scale)
}

/// `x + value`.
///
/// # Errors
///
/// As [`add`].
pub fn add_value(tensors: &[Tensor], value: f64) -> Result<(), TorchError> {
    run(ForeachOp::AddValue, tensors, &[], value)
}

/// `x * factor`, each with its own factor: a tensor of its shape, or a scalar.
///
/// # Errors
///
/// As [`add`].
pub fn mul(tensors: &[Tensor], factors: &[Tensor]) -> Result<(), TorchError> {
    run(ForeachOp::Mul, tensors, &[factors], 0.0)
}

/// `x * value`.
///
/// # Errors
///
/// As [`add`].
pub fn mul_value(tensors: &[Tensor], value: f64) -> Result<(), TorchError> {
    run(ForeachOp::MulValue, tensors, &[], value)
}

/// `x * factor`, with one scalar for all.
///
/// # Errors
///
/// As [`add`].
pub fn mul_scalar(tensors: &[Tensor], factor: &Tensor) -> Result<(), TorchError> {
    if tensors.is_empty() {
        return Ok(());
    }
    let (pointers, factor) = (ffi::pointers(tensors), factor.as_ptr());
    // SAFETY: the pointers live for the call, which reads one of `factor`.
    ffi::check(unsafe {
        ffi::st_foreach(ForeachOp::MulTensor, pointers.as_ptr(), &raw const factor, std::ptr::null(), pointers.len(), 0.0)
    })
}

/// `x / divisor`.
///
/// # Errors
///
/// As [`add`].
pub fn div(tensors: &[Tensor], divisors: &[Tensor]) -> Result<(), TorchError> {
    run(ForeachOp::Div, tensors, &[divisors], 0.0)
}

/// `x + weight * (other - x)`.
///
/// # Errors
///
/// As [`add`].
pub fn lerp(tensors: &[Tensor], others: &[Tensor], weight: f64) -> Result<(), TorchError> {
    run(ForeachOp::Lerp, tensors, &[others], weight)
}

/// `x + scale * a * b`.
///
/// # Errors
///
/// As [`add`].
pub fn addcmul(tensors: &[Tensor], a: &[Tensor], b: &[Tensor], scale: f64) -> Result<(), TorchError> {
    run(ForeachOp::Addcmul, tensors, &[a, b], scale)
}

/// `x + scale * a / b`.
///
/// # Errors
///
/// As [`add`].
pub fn addcdiv(tensors: &[Tensor], a: &[Tensor], b: &[Tensor], scale: f64) -> Result<(), TorchError> {
    run(ForeachOp::Addcdiv, tensors, &[a, b], scale)
}

/// The square root of `x`.
///
/// # Errors
///
/// As [`add`].
pub fn sqrt(tensors: &[Tensor]) -> Result<(), TorchError> {
    run(ForeachOp::Sqrt, tensors, &[], 0.0)
}

/// -1, 0 or 1, as `x` is below, at or above 0.
///
/// # Errors
///
/// As [`add`].
pub fn sign(tensors: &[Tensor]) -> Result<(), TorchError> {
    run(ForeachOp::Sign, tensors, &[], 0.0)
}

/// `x`, or the nearest number from `min` to `max`.
///
/// # Errors
///
/// As [`add`].
pub fn clamp(tensors: &[Tensor], min: f64, max: f64) -> Result<(), TorchError> {
    run(ForeachOp::ClampMin, tensors, &[], min)?;
    run(ForeachOp::ClampMax, tensors, &[], max)
}

/// The values of `others`.
///
/// # Errors
///
/// As [`add`].
pub fn copy(tensors: &[Tensor], others: &[Tensor]) -> Result<(), TorchError> {
    run(ForeachOp::Copy, tensors, &[others], 0.0)
}

/// `x - rate * update`. It may change the updates.
///
/// # Errors
///
/// As [`add`].
pub fn descend(tensors: &[Tensor], updates: &[Tensor], rate: &ScaledRate<'_>) -> Result<(), TorchError> {
    match rate.rate() {
        optim::LearningRate::Value(rate) => add(tensors, updates, -rate),
        optim::LearningRate::Tensor(rate) => {
            mul_scalar(updates, rate)?;
            add(tensors, updates, -1.0)
        }
    }
}

/// The Euclidean norm of each: scalars on the tensors' devices.
///
/// # Errors
///
/// As [`add`].
pub fn norms(tensors: &[Tensor]) -> Result<Vec<Tensor>, TorchError> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let pointers = ffi::pointers(tensors);
    let mut norms = vec![std::ptr::null_mut(); tensors.len()];
    // SAFETY: the pointers live for the call, and `norms` has room for as many.
    ffi::check(unsafe { ffi::st_foreach_norm(pointers.as_ptr(), pointers.len(), norms.as_mut_ptr()) })?;
    // SAFETY: each is a new tensor that nothing else frees.
    Ok(norms.into_iter().map(|norm| unsafe { Tensor::from_ptr(norm) }).collect())
}

/// The tensors, all of one type, in a half type, with gradients: those go back together too, when the last has come.
///
/// # Errors
///
/// Tensors of several types, another than bfloat16 or float16 for them, and what libtorch refuses.
pub fn cast(tensors: &[Tensor], kind: Kind) -> Result<Vec<Tensor>, TorchError> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    if tensors.iter().any(|tensor| tensor.kind() != first.kind()) {
        return Err(TorchError::new("tensors of several types: pass those of one"));
    }
    let number =
        half_number(kind).ok_or_else(|| TorchError::new(&format!("{kind:?} is no half type: use bfloat16 or float16")))?;
    let pointers = ffi::pointers(tensors);
    let mut cast = vec![std::ptr::null_mut(); tensors.len()];
    // SAFETY: the pointers live for the call, and `cast` has room for as many.
    ffi::check(unsafe { ffi::st_cast_all(pointers.as_ptr(), pointers.len(), number, cast.as_mut_ptr()) })?;
    // SAFETY: each is a new tensor that nothing else frees.
    Ok(cast.into_iter().map(|cast| unsafe { Tensor::from_ptr(cast) }).collect())
}

/// New tensors of the same values.
///
/// # Errors
///
/// As [`add`].
pub fn copies(tensors: &[Tensor]) -> Result<Vec<Tensor>, TorchError> {
    Ok(tensors.iter().map(Tensor::f_detach_copy).collect::<Result<_, _>>()?)
}

fn run(op: ForeachOp, tensors: &[Tensor], lists: &[&[Tensor]], value: f64) -> Result<(), TorchError> {
    if let Some(other) = lists.iter().find(|list| list.len() != tensors.len()) {
        return Err(TorchError::new(&format!("lists of {} and {} tensors: pass as many of each", tensors.len(), other.len())));
    }
    if tensors.is_empty() {
        return Ok(());
    }
    let pointers = ffi::pointers(tensors);
    let lists: Vec<_> = lists.iter().map(|list| ffi::pointers(list)).collect();
    let list = |which: usize| lists.get(which).map_or(std::ptr::null(), |list| list.as_ptr());
    // SAFETY: the pointers live for the call, the lists are as long as it reads, and callers pass
    // those that their operator takes.
    ffi::check(unsafe { ffi::st_foreach(op, pointers.as_ptr(), list(0), list(1), pointers.len(), value) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::Device;

    fn list(values: [[f64; 2]; 2]) -> Vec<Tensor> {
        values.iter().map(|values| Tensor::from_slice(values)).collect()
    }

    #[test]
    fn a_list_in_another_type_has_gradients() {
        let values = [vec![1.0_f32, -2.3], vec![0.1, 5.0, 7.0], vec![4.0]];
        let tensors = values.map(|values| Tensor::from_slice(&values).set_requires_grad(true));
        let cast = cast(&tensors, Kind::BFloat16).unwrap();
        assert!(cast.iter().zip(&tensors).all(|(cast, tensor)| *cast == tensor.to_kind(Kind::BFloat16)));
        // The last is not used.
        (&cast[0] * 2.0 + cast[1].get(2)).sum(Kind::Float).backward();
        assert_eq!(tensors[0].grad(), Tensor::from_slice(&[2.0_f32, 2.0]));
        assert_eq!(tensors[1].grad(), Tensor::from_slice(&[0.0_f32, 0.0, 2.0]));
        assert!(!tensors[2].grad().defined());
        assert!(super::cast(&[], Kind::Half).unwrap().is_empty());
        assert!(super::cast(&tensors, Kind::Double).unwrap_err().to_string().contains("no half type"));
        let two = [Tensor::from(1.0_f32), Tensor::from(1.0_f64)];
        assert!(super::cast(&two, Kind::Half).unwrap_err().to_string().contains("several types"));
    }

    #[test]
    fn each_operator_follows_its_formula() {
        let x = [[1.0, -2.0], [3.0, 0.25]];
        let (a, b) = ([[0.5, 4.0], [-1.0, 2.0]], [[2.0, -8.0], [0.5, 1.0]]);
        type Call = fn(&[Tensor], &[Tensor], &[Tensor]) -> Result<(), TorchError>;
        type Formula = fn(f64, f64, f64) -> f64;
        let cases: [(&str, Call, Formula); 12] = [
            ("add", |x, a, _| add(x, a, -3.0), |x, a, _| x - 3.0 * a),
            ("add_value", |x, _, _| add_value(x, 1.5), |x, _, _| x + 1.5),
            ("mul", |x, a, _| mul(x, a), |x, a, _| x * a),
            ("mul_value", |x, _, _| mul_value(x, 1.5), |x, _, _| x * 1.5),
            ("mul_scalar", |x, _, _| mul_scalar(x, &Tensor::from(-2.0)), |x, _, _| x * -2.0),
            ("div", |x, a, _| div(x, a), |x, a, _| x / a),
            ("lerp", |x, a, _| lerp(x, a, 0.25), |x, a, _| x + 0.25 * (a - x)),
            ("addcmul", |x, a, b| addcmul(x, a, b, 0.5), |x, a, b| x + 0.5 * a * b),
            ("addcdiv", |x, a, b| addcdiv(x, a, b, 0.5), |x, a, b| x + 0.5 * a / b),
            ("sign", |x, _, _| sign(x), |x, _, _| x.signum()),
            ("clamp", |x, _, _| clamp(x, -1.0, 2.0), |x, _, _| x.clamp(-1.0, 2.0)),
            ("copy", |x, a, _| copy(x, a), |_, a, _| a),
        ];
        for (name, call, formula) in cases {
            let got = list(x);
            call(&got, &list(a), &list(b)).unwrap();
            for (row, got) in got.iter().enumerate() {
                let expected: Vec<f64> = (0..2).map(|i| formula(x[row][i], a[row][i], b[row][i])).collect();
                assert_eq!(Vec::<f64>::try_from(got).unwrap(), expected, "{name}");
            }
        }
    }

    #[test]
    fn norms_and_roots() {
        let tensors = list([[3.0, 4.0], [0.0, 0.25]]);
        let found: Vec<f64> = norms(&tensors).unwrap().iter().map(|norm| norm.double_value(&[])).collect();
        assert_eq!(found, [5.0, 0.25]);
        sqrt(&tensors[1..]).unwrap();
        assert_eq!(Vec::<f64>::try_from(&tensors[1]).unwrap(), [0.0, 0.5]);
    }

    #[test]
    fn a_descent_is_one_by_number_or_tensor() {
        for scale in [1.0, 0.5] {
            let tensor = Tensor::from(0.25_f32);
            for rate in [optim::LearningRate::Value(0.25), optim::LearningRate::Tensor(&tensor)] {
                let x = list([[1.0, -2.0], [3.0, 0.25]]);
                descend(&x, &list([[4.0, 0.0], [1.0, -1.0]]), &rate.scaled(scale).unwrap()).unwrap();
                assert_eq!(Vec::<f64>::try_from(&x[0]).unwrap(), [1.0 - scale, -2.0]);
            }
        }
    }

    #[test]
    fn uneven_lists_are_refused_and_empty_ones_are_nothing_to_do() {
        let one = [Tensor::zeros([2], (Kind::Float, Device::Cpu))];
        let error = add(&one, &[], 1.0).unwrap_err().to_string();
        assert_eq!(error, "lists of 1 and 0 tensors: pass as many of each");
        add(&[], &[], 1.0).unwrap();
        mul_scalar(&[], &one[0]).unwrap();
        assert!(norms(&[]).unwrap().is_empty());
    }

    #[test]
    fn leaves_that_have_gradients_are_changed_without_one() {
        let leaf = Tensor::from_slice(&[1.0_f32, 2.0]).set_requires_grad(true);
        mul_value(&[leaf.shallow_clone()], 2.0).unwrap();
        assert!(leaf.is_leaf() && Vec::<f32>::try_from(leaf.detach()).unwrap() == [2.0, 4.0]);
    }
}
