use crate::conv::divides_channels;
use crate::drawn;
use crate::shape::{one, positive};
use crate::{Fans, Forward, Init, Layer, LayerError, Mode, ParamKind, ParamSpec, Shape};
use serde::{Deserialize, Serialize};
use striate_torch::distributed::Group;
use striate_torch::norm;
use tch::Tensor;

/// Batch normalisation over `[N, C, H, W]`, each channel apart, as `torch.nn.BatchNorm2d` (Ioffe and Szegedy 2015,
/// arXiv:1502.03167).
///
/// Parameters, each `[C]`: `weight` (starts at 1) and `bias` (0), unless `affine` is off, then the running statistics
/// `running_mean` and `running_var`, then the int64 scalar `num_batches_tracked`. In [`Mode::Train`] the batch is normalised
/// by its own mean and biased variance, and the running statistics move towards its mean and unbiased variance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm2d {
    /// Added to the variance: 1e-5 (1e-3 in GoogLeNet and Inception).
    pub eps: f64,
    /// The share that a new batch has in the running statistics, or `None` for the mean over all batches so far.
    pub momentum: Option<f64>,
    /// Whether a scale and a shift per channel are learned.
    pub affine: bool,
    /// How the scale starts; 0 makes a residual branch start as nothing ("zero gamma").
    pub weight_init: Init,
}

impl BatchNorm2d {
    /// PyTorch's defaults: `eps` 1e-5, `momentum` 0.1, affine.
    pub fn new() -> Self {
        Self { eps: 1e-5, momentum: Some(0.1), affine: true, weight_init: Init::ones() }
    }

    /// Sets `eps`.
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }
}

impl Default for BatchNorm2d {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer for BatchNorm2d {
    fn name(&self) -> &'static str {
        "BatchNorm2d"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let input = one(inputs)?;
        input.as_image()?;
        Ok(input.clone())
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let channels = inputs[0].dims()[0];
        let mut params = Vec::new();
        if self.affine {
            params.push(ParamSpec::trainable("weight", [channels], self.weight_init.clone(), Fans::NONE));
            params.push(ParamSpec::trainable("bias", [channels], Init::zeros(), Fans::NONE));
        }
        params.push(ParamSpec::buffer("running_mean", [channels], Init::zeros()));
        params.push(ParamSpec::buffer("running_var", [channels], Init::ones()));
        params.push(ParamSpec { kind: ParamKind::Counter, ..ParamSpec::buffer("num_batches_tracked", [], Init::zeros()) });
        params
    }
}

impl Forward for BatchNorm2d {
    fn forward(&self, params: &[Tensor], inputs: &[&Tensor], mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        let norm = self.prepared(params, input, mode)?;
        if let Some(counter) = norm.counter {
            let _no_grad = striate_torch::no_grad();
            let _ = counter.shallow_clone().f_add_scalar_(1)?;
        }
        if let Some(group) = self.group(mode) {
            return Ok(group.batch_norm(input, &norm)?);
        }
        let norm::BatchNorm { weight, bias, running_mean, running_var, momentum, eps, .. } = norm;
        Ok(input.f_batch_norm(weight, bias, Some(running_mean), Some(running_var), mode.is_train(), momentum, eps, true)?)
    }
}

impl BatchNorm2d {
    /// Whether [`forward_fast`](Self::forward_fast) takes this input: not where the statistics are those of several processes.
    pub fn takes(&self, input: &Tensor) -> bool {
        norm::takes(input) && self.group(Mode::Train).is_none()
    }

    /// In [`Mode::Train`], what [`Forward::forward`] computes, and what follows it, in one pass. Fails unless it [takes](Self::takes) the input.
    pub fn forward_fast(&self, params: &[Tensor], input: &Tensor, after: norm::After) -> Result<Tensor, LayerError> {
        Ok(self.prepared(params, input, Mode::Train)?.forward(input, after)?)
    }

    /// The same for each of two readers, by [`norm::BatchNorm::forward_for_two`].
    pub fn forward_fast_for_two(&self, params: &[Tensor], input: &Tensor, after: norm::After) -> Result<[Tensor; 2], LayerError> {
        Ok(self.prepared(params, input, Mode::Train)?.forward_for_two(input, after)?)
    }

    /// The processes over whose batch its statistics are taken, if they are more than this one.
    fn group(&self, mode: Mode) -> Option<Group> {
        drawn::part().filter(|_| mode.is_train()).and_then(|part| part.norms)
    }

    /// The parameters in their places; in training, with the counter of batches.
    fn prepared<'a>(&self, params: &'a [Tensor], input: &Tensor, mode: Mode) -> Result<norm::BatchNorm<'a>, LayerError> {
        let (affine, state) = params.split_at(if self.affine { 2 } else { 0 });
        let (weight, bias) = (affine.first(), affine.get(1));
        let [mean, var, counter] = state else {
            return Err(LayerError::option("batch norm", "was given the parameters of another layer"));
        };
        let mut momentum = self.momentum.unwrap_or(0.0);
        if mode.is_train() {
            let size = input.size();
            if size.len() == 4 && size[0] * size[2] * size[3] == 1 && self.group(mode).is_none() {
                let reason = "has no variance over one value per channel: train with a larger batch or image";
                return Err(LayerError::option("batch norm", reason));
            }
            if self.momentum.is_none() {
                momentum = 1.0 / (counter.f_double_value(&[])? + 1.0);
            }
        }
        let counter = mode.is_train().then_some(counter);
        Ok(norm::BatchNorm { weight, bias, running_mean: mean, running_var: var, counter, momentum, eps: self.eps })
    }
}

/// Local response normalisation across channels: `x / (k + alpha / size * sum of x² over size channels)^beta`, as
/// `torch.nn.LocalResponseNorm`, for `[N, C, H, W]`. With several `groups` each group of channels is normalised apart, as if it
/// were alone.
///
/// AlexNet's paper has no division by `size`: its k = 2, n = 5, alpha = 1e-4, beta = 0.75 are [`LocalResponseNorm::alexnet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalResponseNorm {
    /// Neighbouring channels in the sum.
    pub size: i64,
    /// The weight of the mean of squares.
    pub alpha: f64,
    /// The exponent.
    pub beta: f64,
    /// The constant below.
    pub k: f64,
    /// Groups of channels that don't see each other.
    pub groups: i64,
}

impl LocalResponseNorm {
    /// PyTorch's defaults: alpha 1e-4, beta 0.75, k 1, one group.
    pub fn new(size: i64) -> Self {
        Self { size, alpha: 1e-4, beta: 0.75, k: 1.0, groups: 1 }
    }

    /// The constants of AlexNet (Krizhevsky 2012, section 3.3), in this layer's convention.
    pub fn alexnet() -> Self {
        Self { size: 5, alpha: 5.0 * 1e-4, beta: 0.75, k: 2.0, groups: 1 }
    }

    /// Sets the number of groups.
    pub fn groups(self, groups: i64) -> Self {
        Self { groups, ..self }
    }
}

impl Layer for LocalResponseNorm {
    fn name(&self) -> &'static str {
        "LocalResponseNorm"
    }

    fn describe(&self) -> String {
        match self.groups {
            1 => format!("n={}", self.size),
            groups => format!("n={}, {groups} groups", self.size),
        }
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let input = one(inputs)?;
        let [channels, _, _] = input.as_image()?;
        positive("size", self.size)?;
        divides_channels(self.groups, channels, "input")?;
        Ok(input.clone())
    }
}

impl Forward for LocalResponseNorm {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        // The mean of squares over neighbouring channels: groups as the channels of a 3-d average pooling, channels as their
        // depth. PyTorch puts the odd neighbour before the channel.
        let squares = input.f_mul(input)?.f_unflatten(1, [self.groups, -1])?;
        let padded = squares.f_constant_pad_nd([0, 0, 0, 0, self.size / 2, (self.size - 1) / 2])?;
        let mean = padded.f_avg_pool3d([self.size, 1, 1], 1, 0, false, true, None)?.f_flatten(1, 2)?;
        let scale = mean.f_mul_scalar(self.alpha)?.f_add_scalar(self.k)?.f_pow_tensor_scalar(self.beta)?;
        Ok(input.f_div(&scale)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_torch::Generator;
    use tch::{Device, Kind};

    #[test]
    fn without_momentum_the_statistics_are_the_mean_over_batches() {
        let norm = BatchNorm2d { momentum: None, ..BatchNorm2d::new() };
        let shape = [Shape::image(1, 1, 2)];
        let params = crate::create_params(&norm, &shape, Kind::Double, Some(&mut Generator::new(0))).unwrap();
        let params: Vec<Tensor> = params.into_iter().map(|(_, tensor)| tensor).collect();
        for mean in [3.0, 6.0] {
            let batch = Tensor::from_slice(&[mean - 1.0, mean + 1.0]).view([1, 1, 1, 2]);
            let _ = norm.forward(&params, &[&batch], Mode::Train).unwrap();
        }
        assert_eq!(params[2].double_value(&[0]), 4.5);
        assert_eq!(params[4].int64_value(&[]), 2);
    }

    #[test]
    fn groups_are_normalised_as_if_alone() {
        striate_torch::manual_seed(1);
        let input = Tensor::randn([2, 6, 3, 2], (Kind::Double, Device::Cpu));
        let norm = LocalResponseNorm { size: 4, alpha: 0.5, beta: 0.6, k: 1.5, groups: 1 };
        let run = |norm: &LocalResponseNorm, x: &Tensor| norm.forward(&[], &[x], Mode::Train).unwrap();
        let apart: Vec<Tensor> = input.chunk(2, 1).iter().map(|half| run(&norm, half)).collect();
        let grouped = run(&norm.clone().groups(2), &input);
        assert!((&grouped - Tensor::cat(&apart, 1)).abs().max().double_value(&[]) < 1e-14);
        assert_ne!(grouped, run(&norm, &input));
        let error = norm.groups(4).output_shape(&[Shape::image(6, 3, 2)]).unwrap_err().to_string();
        assert_eq!(error, "groups = 4 does not divide the 6 input channels");
    }

    #[test]
    fn one_value_per_channel_has_no_variance() {
        let norm = BatchNorm2d::new();
        let params = crate::create_params(&norm, &[Shape::image(2, 1, 1)], Kind::Float, Some(&mut Generator::new(0))).unwrap();
        let params: Vec<Tensor> = params.into_iter().map(|(_, tensor)| tensor).collect();
        let one = Tensor::ones([1, 2, 1, 1], (Kind::Float, Device::Cpu));
        let error = norm.forward(&params, &[&one], Mode::Train).unwrap_err().to_string();
        assert!(error.contains("larger batch"), "{error}");
        assert!(norm.forward(&params, &[&one], Mode::Eval).is_ok());
    }
}
