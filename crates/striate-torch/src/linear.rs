use crate::{TorchError, ffi};
use tch::Tensor;

/// `input weight^T + bias` of `[N, in]` and `[out, in]`, with a ReLU after it if `relu`: float32 on the CPU, without gradients.
///
/// It reads the weight once for every 16 examples, and from 8 examples on is as fast as oneDNN with a weight that was packed for it. With one example or two
/// oneDNN is faster.
pub fn linear(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor, TorchError> {
    let bias = bias.map_or(std::ptr::null(), Tensor::as_ptr);
    // SAFETY: the tensors live for the call; the shim checks what they are.
    ffi::tensor_from(|out| unsafe { ffi::st_linear_batch(input.as_ptr(), weight.as_ptr(), bias, relu.into(), out) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn it_is_libtorchs_linear_layer() {
        crate::manual_seed(1);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        for (batch, input, output) in [(1, 1, 1), (3, 33, 7), (16, 2100, 40), (17, 5, 65), (40, 1024, 8), (0, 4, 4), (2, 0, 3)] {
            let (x, weight, bias) = (random(&[batch, input]), random(&[output, input]), random(&[output]));
            let expected = x.to_kind(Kind::Double).linear(&weight.to_kind(Kind::Double), Some(&bias.to_kind(Kind::Double)));
            for (bias, expected) in [(Some(&bias), expected.shallow_clone()), (None, &expected - &bias)] {
                for (relu, expected) in [(false, expected.shallow_clone()), (true, expected.relu())] {
                    let got = linear(&x, &weight, bias, relu).unwrap();
                    assert_eq!(got.size(), [batch, output]);
                    assert!(got.to_kind(Kind::Double).allclose(&expected, 1e-5, 1e-4, false), "{batch} {input} {output} {relu}");
                }
            }
        }
        let transposed = random(&[33, 3]).tr();
        let (weight, plain) = (random(&[7, 33]), transposed.contiguous());
        assert_eq!(linear(&transposed, &weight, None, false).unwrap(), linear(&plain, &weight, None, false).unwrap());
    }

    #[test]
    fn a_nan_is_given_on_and_what_does_not_fit_is_an_error() {
        let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
        let nan = ones(&[3, 4]) * f64::NAN;
        assert!(bool::try_from(linear(&nan, &ones(&[2, 4]), None, true).unwrap().isnan().all()).unwrap());
        let error = linear(&ones(&[3, 4]), &ones(&[2, 5]), None, false).unwrap_err().to_string();
        assert_eq!(error, "expected float32 [N, in] and a contiguous [out, in] on the CPU, got [3, 4] and [2, 5]");
        assert!(linear(&ones(&[3, 4]), &ones(&[2, 4]), Some(&ones(&[3])), false).is_err());
        assert!(linear(&ones(&[3, 4]).to_kind(Kind::Double), &ones(&[2, 4]), None, false).is_err());
    }
}
