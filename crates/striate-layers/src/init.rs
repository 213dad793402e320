use serde::{Deserialize, Serialize};
use std::sync::Arc;
use striate_torch::{Generator, TorchError};
use tch::{Kind, Tensor};

/// How many inputs and outputs a unit has: what initialisations scale by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fans {
    /// Inputs of one output unit (in_channels / groups x kernel area).
    pub fan_in: i64,
    /// Outputs that one input unit feeds (out_channels x kernel area; PyTorch's definition).
    pub fan_out: i64,
}

impl Fans {
    /// For parameters whose initialisation scales by nothing.
    pub const NONE: Self = Self { fan_in: 1, fan_out: 1 };
}

/// Which fan a Kaiming initialisation keeps the variance of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fan {
    /// Keeps the variance of the forward pass.
    In,
    /// Keeps the variance of the backward pass.
    Out,
}

/// How a parameter starts. Every choice is explicit; the default of layers is [`Init::pytorch`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// One value everywhere.
    Constant(f64),
    /// U(`low`, `high`).
    Uniform {
        /// The lowest value.
        low: f64,
        /// The highest value.
        high: f64,
    },
    /// N(`mean`, `std`²): AlexNet and VGG draw their weights from N(0, 0.01²).
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
    },
    /// N(0, `std`²) cut off at ±`bound` (GoogLeNet and Inception in torchvision: bound 2).
    TruncatedNormal {
        /// The standard deviation.
        std: f64,
        /// The largest absolute value.
        bound: f64,
    },
    /// U(-b, b), b = `gain` sqrt(3 / fan) (He 2015, arXiv:1502.01852).
    KaimingUniform {
        /// sqrt(2) for ReLU.
        gain: f64,
        /// Which fan.
        fan: Fan,
    },
    /// N(0, `gain`² / fan) (He 2015, arXiv:1502.01852).
    KaimingNormal {
        /// sqrt(2) for ReLU.
        gain: f64,
        /// Which fan.
        fan: Fan,
    },
    /// U(-b, b), b = `gain` sqrt(6 / (fan_in + fan_out)) (Glorot 2010).
    XavierUniform {
        /// 1 for linear units and sigmoids, 5/3 for tanh.
        gain: f64,
    },
    /// N(0, 2 `gain`² / (fan_in + fan_out)) (Glorot 2010).
    XavierNormal {
        /// 1 for linear units and sigmoids, 5/3 for tanh.
        gain: f64,
    },
    /// U(-2.4 / fan_in, 2.4 / fan_in) (LeCun 1998).
    LeCunUniform,
    /// These values, in row-major order.
    Values(Arc<[f32]>),
}

impl Init {
    /// PyTorch's default for the weights and biases of convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    pub fn pytorch() -> Self {
        Self::KaimingUniform { gain: (1.0_f64 / 3.0).sqrt(), fan: Fan::In }
    }

    /// He's initialisation for layers before a ReLU: N(0, 2 / fan).
    pub fn he_normal(fan: Fan) -> Self {
        Self::KaimingNormal { gain: std::f64::consts::SQRT_2, fan }
    }

    /// Zero everywhere.
    pub fn zeros() -> Self {
        Self::Constant(0.0)
    }

    /// One everywhere.
    pub fn ones() -> Self {
        Self::Constant(1.0)
    }

    /// Fills a CPU tensor, drawing from `generator`. An error if [`Init::Values`] holds another number of values.
    pub fn fill(&self, tensor: &mut Tensor, fans: Fans, generator: &mut Generator) -> Result<(), TorchError> {
        let fan = |fan: Fan| match fan {
            Fan::In => fans.fan_in as f64,
            Fan::Out => fans.fan_out as f64,
        };
        let fan_sum = (fans.fan_in + fans.fan_out) as f64;
        let _no_grad = striate_torch::no_grad();
        match self {
            Self::Constant(value) => tensor.f_fill_(*value).map(drop).map_err(TorchError::from),
            Self::Uniform { low, high } => generator.uniform(tensor, *low, *high),
            Self::Normal { mean, std } => generator.normal(tensor, *mean, *std),
            Self::TruncatedNormal { std, bound } => truncated_normal(tensor, *std, *bound, generator),
            Self::KaimingUniform { gain, fan: of } => symmetric(tensor, gain * (3.0 / fan(*of)).sqrt(), generator),
            Self::KaimingNormal { gain, fan: of } => generator.normal(tensor, 0.0, gain / fan(*of).sqrt()),
            Self::XavierUniform { gain } => symmetric(tensor, gain * (6.0 / fan_sum).sqrt(), generator),
            Self::XavierNormal { gain } => generator.normal(tensor, 0.0, gain * (2.0 / fan_sum).sqrt()),
            Self::LeCunUniform => symmetric(tensor, 2.4 / fans.fan_in as f64, generator),
            Self::Values(values) => {
                let values = Tensor::f_from_slice(values)?.f_view(tensor.size().as_slice())?;
                tensor.f_copy_(&values).map_err(TorchError::from)
            }
        }
    }
}

fn symmetric(tensor: &mut Tensor, bound: f64, generator: &mut Generator) -> Result<(), TorchError> {
    generator.uniform(tensor, -bound, bound)
}

/// Draws again what is refused, as `torch.nn.init.trunc_normal_` does: from the normal where bounds are wide, and where less
/// than 30% of it lie within them, from the uniform, accepted as often as the normal's density says.
fn truncated_normal(tensor: &mut Tensor, std: f64, bound: f64, generator: &mut Generator) -> Result<(), TorchError> {
    const WIDE: f64 = 0.385_320_466_407_567_6;
    let (mut candidates, mut chances) = (tensor.f_empty_like()?, tensor.f_empty_like()?);
    let mut pending = tensor.f_ones_like()?.f_to_kind(Kind::Bool)?;
    while pending.f_any()?.f_int64_value(&[])? != 0 {
        let refused = if bound > WIDE * std {
            generator.normal(&mut candidates, 0.0, std)?;
            candidates.f_abs()?.f_gt(bound)?
        } else {
            generator.uniform(&mut candidates, -bound, bound)?;
            generator.uniform(&mut chances, 0.0, 1.0)?;
            let log_density = candidates.f_div_scalar(std)?.f_square()?.f_mul_scalar(-0.5)?;
            chances.f_log()?.f_gt_tensor(&log_density)?
        };
        tensor.f_copy_(&candidates.f_where_self(&pending, tensor)?)?;
        pending = pending.f_logical_and(&refused)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::Device;

    const FANS: Fans = Fans { fan_in: 200, fan_out: 50 };

    fn draw(init: &Init) -> Tensor {
        let mut tensor = Tensor::empty([50_000], (Kind::Double, Device::Cpu));
        init.fill(&mut tensor, FANS, &mut Generator::new(1)).unwrap();
        tensor
    }

    #[test]
    fn every_initialisation_has_its_published_spread_and_bound() {
        let uniform = |bound: f64| (bound / 3.0_f64.sqrt(), bound);
        let normal = |std: f64| (std, f64::INFINITY);
        let cases = [
            (Init::Constant(0.5), (0.0, 0.5)),
            (Init::pytorch(), uniform(1.0 / 200.0_f64.sqrt())),
            (Init::Uniform { low: -2.0, high: 2.0 }, uniform(2.0)),
            (Init::Normal { mean: 0.0, std: 0.01 }, normal(0.01)),
            (Init::he_normal(Fan::In), normal((2.0_f64 / 200.0).sqrt())),
            (Init::he_normal(Fan::Out), normal((2.0_f64 / 50.0).sqrt())),
            (Init::XavierUniform { gain: 1.0 }, uniform((6.0_f64 / 250.0).sqrt())),
            (Init::XavierNormal { gain: 1.0 }, normal((2.0_f64 / 250.0).sqrt())),
            (Init::LeCunUniform, uniform(2.4 / 200.0)),
            // The variance of a normal cut at one standard deviation is 0.2911.
            (Init::TruncatedNormal { std: 0.1, bound: 0.1 }, (0.1 * 0.2911_f64.sqrt(), 0.1)),
            // Cut much closer, it is almost uniform.
            (Init::TruncatedNormal { std: 0.1, bound: 0.01 }, uniform(0.01)),
            (Init::TruncatedNormal { std: 0.1, bound: 0.0 }, (0.0, 0.0)),
        ];
        for (init, (std, bound)) in cases {
            let draws = draw(&init);
            let got = draws.std(false).double_value(&[]);
            assert!((got - std).abs() <= 0.02 * std, "{init:?}: std {got}, expected {std}");
            assert!(draws.abs().max().double_value(&[]) <= bound, "{init:?} exceeds {bound}");
        }
    }

    #[test]
    fn values_are_copied_and_their_number_is_checked() {
        let init = Init::Values(Arc::from([1.0, 2.0, 3.0, 4.0]));
        let mut tensor = Tensor::empty([2, 2], (Kind::Float, Device::Cpu));
        init.fill(&mut tensor, Fans::NONE, &mut Generator::new(0)).unwrap();
        assert_eq!(Vec::<f32>::try_from(tensor.view([-1])).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        let mut wrong = Tensor::empty([3], (Kind::Float, Device::Cpu));
        assert!(init.fill(&mut wrong, Fans::NONE, &mut Generator::new(0)).is_err());
    }
}
