//! Every layer equals PyTorch, forward and backward, and starts as PyTorch starts it.
//!
//! The goldens and the script that made them with PyTorch are in `tests/goldens`.
#![allow(clippy::unwrap_used)]

mod cases;
mod harness;
mod init;

use cases::cases;
use harness::{Case, Golden, Tolerance, compare, goldens};
use std::error::Error;
use striate_torch::{MemoryFormat, to_memory_format};
use tch::{Kind, Tensor};

const DOUBLE: Tolerance = Tolerance { relative: 1e-10, absolute: 1e-12 };
const SINGLE: Tolerance = Tolerance { relative: 1e-4, absolute: 1e-5 };

/// Runs a case and compares all that comes out with the golden.
fn check(case: &Case, golden: &Golden, tolerance: Tolerance) -> Result<(), Box<dyn Error>> {
    compare(&golden.expected, &case.run(&golden.given)?, tolerance)
}

/// Checks every case on a changed golden, and tells all that fail.
fn check_all(tolerance: Tolerance, change: impl Fn(&Tensor) -> Tensor) {
    let goldens = goldens();
    let check_one = |case: &Case| {
        let golden = goldens.cases[case.name].map(&change);
        check(case, &golden, tolerance).err().map(|error| format!("{}: {error}", case.name))
    };
    let failures: Vec<String> = cases().iter().filter_map(check_one).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn is_float(tensor: &Tensor) -> bool {
    tensor.kind() == Kind::Double
}

#[test]
fn cases_and_goldens_have_the_same_names() {
    let cases = cases();
    let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    names.sort_unstable();
    let golden: Vec<String> = goldens().cases.into_keys().collect();
    assert_eq!(names, golden);
}

#[test]
fn layers_equal_pytorch_in_float64() {
    check_all(DOUBLE, Tensor::shallow_clone);
}

#[test]
fn layers_equal_pytorch_in_float32() {
    check_all(SINGLE, |tensor| if is_float(tensor) { tensor.to_kind(Kind::Float) } else { tensor.shallow_clone() });
}

#[test]
fn layers_equal_pytorch_in_channels_last() {
    check_all(DOUBLE, |tensor| match tensor.dim() {
        4 => to_memory_format(tensor, MemoryFormat::ChannelsLast).unwrap(),
        _ => tensor.shallow_clone(),
    });
}

/// The checks above can fail: 1e-6 more in any one value that a case is given is noticed.
#[test]
fn a_change_of_any_input_or_parameter_is_noticed() {
    let (goldens, cases) = (goldens(), cases());
    for name in ["conv2d_groups", "linear", "batch_norm2d_train", "sparse_conv2d_lenet_c3", "rbf_output", "rbf_loss"] {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        for changed in goldens.cases[name].given.keys() {
            let mut golden = goldens.cases[name].map(Tensor::copy);
            let tensor = &golden.given[changed];
            if !is_float(tensor) {
                continue;
            }
            let _ = tensor.view([-1]).get(0).f_add_scalar_(1e-6).unwrap();
            assert!(check(case, &golden, DOUBLE).is_err(), "{name}: {changed}");
            golden.given.remove(changed);
            assert!(case.run(&golden.given).is_err(), "{name} without {changed}");
        }
    }
}
