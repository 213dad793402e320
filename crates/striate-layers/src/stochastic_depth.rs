use crate::drawn;
use crate::shape::one;
use crate::{Forward, Layer, LayerError, Mode, Shape};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Drops the whole residual branch of an example with probability `p` in training and scales the others by 1 / (1 - p); passes
/// everything in evaluation (Huang 2016, arXiv:1603.09382), as torchvision's `StochasticDepth` in its mode `row`. Draws from
/// libtorch's global generator: see `striate_torch::manual_seed`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StochasticDepth {
    /// The share of examples whose branch is dropped, from 0 to below 1.
    pub p: f64,
}

impl StochasticDepth {
    /// Drops this share.
    pub fn new(p: f64) -> Self {
        Self { p }
    }
}

impl Layer for StochasticDepth {
    fn name(&self) -> &'static str {
        "StochasticDepth"
    }

    fn describe(&self) -> String {
        format!("p={}", self.p)
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(LayerError::option(format!("p = {}", self.p), "must be from 0 to below 1"));
        }
        one(inputs).cloned()
    }
}

impl Forward for StochasticDepth {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        if !mode.is_train() || self.p == 0.0 {
            return Ok(input.shallow_clone());
        }
        let mut size = input.size();
        size.iter_mut().skip(1).for_each(|size| *size = 1);
        let survival = 1.0 - self.p;
        if let Some(part) = drawn::part() {
            return Ok(input.f_mul(&drawn::kept(&part, &size, survival, input)?)?);
        }
        let mut kept = Tensor::f_empty(size, (input.kind(), input.device()))?;
        let kept = kept.f_bernoulli_float_(survival)?.f_div_scalar_(survival)?;
        Ok(input.f_mul(&kept)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn whole_examples_are_dropped_in_training_only() {
        let x = Tensor::arange(4000 * 6, (Kind::Float, Device::Cpu)).view([4000, 2, 3, 1]) + 1.0;
        let layer = StochasticDepth::new(0.2);
        striate_torch::manual_seed(3);
        let trained = layer.forward(&[], &[&x], Mode::Train).unwrap();
        // Each example is 0, or 1.25 times what it was.
        let factors = (&trained / &x).flatten(1, -1);
        let (least, most) = (factors.amin([1_i64].as_slice(), false), factors.amax([1_i64].as_slice(), false));
        assert!((&most - &least).abs().max().double_value(&[]) < 1e-6);
        let dropped = most.eq(0.0);
        let share = dropped.to_kind(Kind::Float).mean(None).double_value(&[]);
        assert!((share - 0.2).abs() < 0.03, "{share}");
        let kept = most.masked_select(&dropped.logical_not()) - 1.25;
        assert!(kept.abs().max().double_value(&[]) < 1e-6);
        assert_eq!(layer.forward(&[], &[&x], Mode::Eval).unwrap(), x);
    }

    #[test]
    fn it_drops_the_examples_that_torchvision_drops() {
        let x = Tensor::ones([16, 2], (Kind::Float, Device::Cpu));
        striate_torch::manual_seed(7);
        let trained = StochasticDepth::new(0.2).forward(&[], &[&x], Mode::Train).unwrap();
        // torch.manual_seed(7); torchvision.ops.stochastic_depth(torch.ones(16, 2), 0.2, "row")[:, 0]
        let expected: [f32; 16] = [1.25, 1.25, 0.0, 1.25, 0.0, 0.0, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 0.0];
        for feature in 0..2 {
            assert_eq!(Vec::<f32>::try_from(trained.select(1, feature)).unwrap(), expected);
        }
    }

    #[test]
    fn a_branch_of_which_nothing_is_left_is_refused() {
        for p in [1.0, -0.1, f64::NAN] {
            let error = StochasticDepth::new(p).output_shape(&[Shape::vector(3)]).unwrap_err().to_string();
            assert!(error.contains("must be from 0 to below 1"), "{error}");
        }
        assert_eq!(StochasticDepth::new(0.5).output_shape(&[Shape::image(2, 3, 4)]).unwrap(), Shape::image(2, 3, 4));
    }
}
