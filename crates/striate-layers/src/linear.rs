use crate::shape::{one, positive};
use crate::{Fans, Forward, Init, Layer, LayerError, Mode, ParamSpec, Receptive, Shape};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// A fully connected layer: `[N, F]` to `[N, out_features]`, as `torch.nn.Linear`.
///
/// The number of input features is inferred. Parameters: `weight` `[out_features, F]` and, unless switched off, `bias`
/// `[out_features]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Features of the output.
    pub out_features: i64,
    /// Whether a bias is added.
    pub bias: bool,
    /// How `weight` starts.
    pub weight_init: Init,
    /// How `bias` starts.
    pub bias_init: Init,
}

impl Linear {
    /// A fully connected layer with a bias.
    pub fn new(out_features: i64) -> Self {
        Self { out_features, bias: true, weight_init: Init::pytorch(), bias_init: Init::pytorch() }
    }

    /// Leaves the bias out.
    pub fn no_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// Sets how the weights and the biases start.
    pub fn init(self, weight_init: Init, bias_init: Init) -> Self {
        Self { weight_init, bias_init, ..self }
    }
}

impl Layer for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        one(inputs)?.as_vector()?;
        positive("out_features", self.out_features)?;
        Ok(Shape::vector(self.out_features))
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let in_features = inputs[0].numel();
        let fans = Fans { fan_in: in_features, fan_out: self.out_features };
        let weight = [self.out_features, in_features];
        let mut params = vec![ParamSpec::trainable("weight", weight, self.weight_init.clone(), fans)];
        if self.bias {
            params.push(ParamSpec::trainable("bias", [self.out_features], self.bias_init.clone(), fans));
        }
        params
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        inputs[0].numel().unsigned_abs().saturating_mul(self.out_features.unsigned_abs())
    }

    fn connections(&self, inputs: &[Shape]) -> u64 {
        self.macs(inputs).saturating_add(u64::from(self.bias) * self.out_features.unsigned_abs())
    }

    fn receptive(&self, _inputs: &[Shape]) -> Receptive {
        Receptive::Global
    }
}

impl Forward for Linear {
    fn forward(&self, params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        Ok(one(inputs)?.f_linear(&params[0], params.get(1))?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_image_must_be_flattened_first() {
        let error = Linear::new(10).output_shape(&[Shape::image(16, 5, 5)]).unwrap_err().to_string();
        assert_eq!(error, "expected an input of shape [F] (flatten it first), got [16, 5, 5]");
    }

    #[test]
    fn costs_follow_from_the_features() {
        let inputs = [Shape::vector(84)];
        let linear = Linear::new(10);
        assert_eq!((linear.macs(&inputs), linear.connections(&inputs)), (840, 850));
        assert_eq!(linear.clone().no_bias().connections(&inputs), 840);
        assert_eq!(linear.params(&inputs).iter().map(ParamSpec::numel).sum::<i64>(), 850);
    }
}
