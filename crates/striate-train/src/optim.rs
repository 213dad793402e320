//! Optimizers over named parameters, whose whole state can be saved and loaded.
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use striate_torch::optim::{AdamWStep, LearningRate, SgdStep, clear_grads, fused_adamw, fused_sgd};
use tch::{Device, Kind, Tensor};

/// Which optimizer, with its hyperparameters; the learning rate is given at each step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OptimizerConfig {
    /// Stochastic gradient descent, the rule of `torch.optim.SGD`.
    Sgd(SgdConfig),
    /// Adam with decoupled weight decay, the rule of `torch.optim.AdamW`.
    AdamW(AdamWConfig),
}

/// Hyperparameters of stochastic gradient descent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SgdConfig {
    /// Momentum; 0 keeps no state.
    pub momentum: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of batch norm.
    pub decay_1d: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false, weight_decay: 0.0, decay_1d: true }
    }
}

/// Hyperparameters of AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdamWConfig {
    /// Decay of the running means of the gradient and of its square.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether weight decay applies to one-dimensional parameters too: biases, and the weights of batch norm.
    pub decay_1d: bool,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, decay_1d: true }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::Sgd(SgdConfig::default())
    }
}

impl OptimizerConfig {
    /// Refuses hyperparameters that can't be, naming them.
    pub fn check(&self) -> Result<(), TrainError> {
        let decay = self.weight_decay();
        check(decay.is_finite() && decay >= 0.0, "optimizer.weight_decay", decay, "must be 0 or larger")?;
        match self {
            Self::Sgd(sgd) => {
                check((0.0..1.0).contains(&sgd.momentum), "optimizer.momentum", sgd.momentum, "must be from 0 to below 1")?;
                let has_momentum = !sgd.nesterov || sgd.momentum > 0.0;
                check(has_momentum, "optimizer.nesterov", sgd.nesterov, "takes a momentum above 0")
            }
            Self::AdamW(adamw) => {
                let betas = adamw.betas.iter().all(|beta| (0.0..1.0).contains(beta));
                check(betas, "optimizer.betas", adamw.betas, "must both be from 0 to below 1")?;
                check(adamw.eps.is_finite() && adamw.eps > 0.0, "optimizer.eps", adamw.eps, "must be above 0")
            }
        }
    }

    fn weight_decay(&self) -> f64 {
        match self {
            Self::Sgd(sgd) => sgd.weight_decay,
            Self::AdamW(adamw) => adamw.weight_decay,
        }
    }

    fn decay_1d(&self) -> bool {
        match self {
            Self::Sgd(sgd) => sgd.decay_1d,
            Self::AdamW(adamw) => adamw.decay_1d,
        }
    }

    /// The names of what it keeps for each parameter.
    fn slots(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd(sgd) if sgd.momentum == 0.0 => &[],
            Self::Sgd(_) => &["sgd.momentum"],
            Self::AdamW(_) => &[EXP_AVG, EXP_AVG_SQ, STEP],
        }
    }
}

const EXP_AVG: &str = "adamw.exp_avg";
const EXP_AVG_SQ: &str = "adamw.exp_avg_sq";
const STEP: &str = "adamw.step";

/// An optimizer over named parameters.
///
/// The state exists from the start, as zeros: what [`state`](Self::state) gives depends on the configuration and the
/// parameters alone, and [`load_state`](Self::load_state) can tell what is missing.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    names: Vec<String>,
    params: Vec<Tensor>,
    /// By slot, then by parameter.
    state: Vec<Vec<Tensor>>,
}

impl Optimizer {
    /// An optimizer of these parameters, which it changes in place. Their names appear in its state.
    pub fn new(config: OptimizerConfig, params: Vec<(String, Tensor)>) -> Result<Self, TrainError> {
        config.check()?;
        let (names, params): (Vec<_>, Vec<_>) = params.into_iter().unzip();
        let zeros = |slot: &str, param: &Tensor| match slot {
            STEP => Tensor::f_zeros([0_i64; 0], (Kind::Float, param.device())),
            _ => param.f_detach()?.f_zeros_like(),
        };
        let slots = config.slots().iter();
        let state = slots.map(|slot| params.iter().map(|param| zeros(slot, param)).collect()).collect::<Result<_, _>>()?;
        Ok(Self { config, names, params, state })
    }

    /// Changes every parameter that has a gradient; the others, and their state, stay as they are.
    pub fn step<'l>(&mut self, lr: impl Into<LearningRate<'l>>) -> Result<(), TrainError> {
        let lr = lr.into();
        // Fused steps take parameters of one device and one weight decay.
        let mut groups: Vec<((bool, Device), Group)> = Vec::new();
        for (i, param) in self.params.iter().enumerate() {
            let grad = param.f_grad()?;
            if grad.defined() {
                let decays = self.config.decay_1d() || param.dim() > 1;
                let kind = (decays, param.device());
                let place = groups.iter().position(|(other, _)| *other == kind).unwrap_or_else(|| {
                    groups.push((kind, Group::default()));
                    groups.len() - 1
                });
                groups[place].1.push(param, grad, self.state.iter().map(|slot| &slot[i]));
            }
        }
        for ((decays, _), group) in &groups {
            self.step_group(group, lr, if *decays { self.config.weight_decay() } else { 0.0 })?;
        }
        Ok(())
    }

    fn step_group(&self, group: &Group, lr: LearningRate, weight_decay: f64) -> Result<(), TrainError> {
        let Group { params, grads, state } = group;
        match &self.config {
            OptimizerConfig::Sgd(sgd) => {
                // A buffer of zeros becomes the gradient in its first step, as PyTorch's missing one does.
                let (momentum, nesterov) = (sgd.momentum, sgd.nesterov);
                let step = SgdStep { lr, momentum, weight_decay, nesterov, first_step: false };
                let momenta = state.first().map_or(&[][..], Vec::as_slice);
                fused_sgd(params, grads, momenta, step)?;
            }
            OptimizerConfig::AdamW(adamw) => {
                let [exp_avgs, exp_avg_sqs, steps] = state.as_slice() else { return Ok(()) };
                for step in steps {
                    let _ = step.shallow_clone().f_add_scalar_(1.0)?;
                }
                let [beta1, beta2] = adamw.betas;
                let step = AdamWStep { lr, beta1, beta2, weight_decay, eps: adamw.eps };
                fused_adamw(params, grads, exp_avgs, exp_avg_sqs, steps, step)?;
            }
        }
        Ok(())
    }

    /// Forgets the gradients, so that the next backward pass writes new ones.
    pub fn zero_grad(&mut self) -> Result<(), TrainError> {
        Ok(clear_grads(&self.params)?)
    }

    /// Scales all gradients down, if their norm taken together is above `max_norm`; returns the norm before that, a scalar on the first
    /// gradient's device. The rule of `torch.nn.utils.clip_grad_norm_`. It reads nothing back from a GPU.
    pub fn clip_grad_norm(&mut self, max_norm: f64) -> Result<Tensor, TrainError> {
        let grads = self.params.iter().map(Tensor::f_grad).collect::<Result<Vec<_>, _>>()?;
        let mut grads: Vec<Tensor> = grads.into_iter().filter(Tensor::defined).collect();
        if grads.is_empty() {
            return Ok(Tensor::f_zeros([0_i64; 0], (Kind::Float, Device::Cpu))?);
        }
        let device = grads[0].device();
        let norms = grads.iter().map(|grad| grad.f_norm()?.f_to_device(device)).collect::<Result<Vec<_>, _>>()?;
        let norm = Tensor::f_stack(&norms, 0)?.f_norm()?;
        let scale = norm.f_add_scalar(1e-6)?.f_reciprocal()?.f_mul_scalar(max_norm)?.f_clamp_max(1.0)?;
        // On the CPU it costs nothing to know.
        if device == Device::Cpu && f64::try_from(&scale)? >= 1.0 {
            return Ok(norm);
        }
        for grad in &mut grads {
            let _ = grad.f_mul_(&scale.f_to_device(grad.device())?)?;
        }
        Ok(norm)
    }

    /// The state by name, such as `sgd.momentum.conv1.weight`, `adamw.exp_avg.conv1.weight` or `adamw.step.conv1.weight`:
    /// the tensors that the next step changes, not copies.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for (slot, tensors) in self.config.slots().iter().zip(&self.state) {
            for (name, tensor) in self.names.iter().zip(tensors) {
                state.insert(format!("{slot}.{name}"), tensor.shallow_clone());
            }
        }
        state
    }

    /// Takes over a state that [`state`](Self::state) gave.
    ///
    /// Fails if it has other names, shapes or types than this optimizer's, and then changes nothing.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        self.check_state(state)?;
        let _guard = striate_torch::no_grad();
        for (name, tensor) in &mut self.state() {
            tensor.f_copy_(&state[name])?;
        }
        Ok(())
    }

    /// Whether [`load_state`](Self::load_state) would take it.
    pub(crate) fn check_state(&self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        mismatch(&self.state(), state).map_or(Ok(()), |reason| Err(TrainError::OptimizerState { reason }))
    }
}

/// The first few names that differ between two states, or the first tensor that does.
fn mismatch(own: &BTreeMap<String, Tensor>, given: &BTreeMap<String, Tensor>) -> Option<String> {
    let lacking = |these: &BTreeMap<String, Tensor>, those: &BTreeMap<String, Tensor>| {
        let names: Vec<_> = those.keys().filter(|name| !these.contains_key(*name)).map(String::as_str).collect();
        let rest = names.len().saturating_sub(3);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("{}{more}", names[..names.len().min(3)].join(", ")))
    };
    if let Some(names) = lacking(given, own) {
        return Some(format!("it lacks {names}"));
    }
    if let Some(names) = lacking(own, given) {
        return Some(format!("it has {names}, which this optimizer does not keep"));
    }
    let differs = |(name, tensor): &(&String, &Tensor)| {
        let given = &given[*name];
        given.size() != tensor.size() || given.kind() != tensor.kind()
    };
    let (name, tensor) = own.iter().find(differs)?;
    let tell = |tensor: &Tensor| format!("{:?} {:?}", tensor.kind(), tensor.size());
    Some(format!("{name} is {}, expected {}", tell(&given[name]), tell(tensor)))
}

/// The parameters of one fused step.
#[derive(Default)]
struct Group {
    params: Vec<Tensor>,
    grads: Vec<Tensor>,
    state: Vec<Vec<Tensor>>,
}

impl Group {
    fn push<'a>(&mut self, param: &Tensor, grad: Tensor, state: impl ExactSizeIterator<Item = &'a Tensor>) {
        self.params.push(param.shallow_clone());
        self.grads.push(grad);
        self.state.resize_with(state.len(), Vec::new);
        for (slot, tensor) in self.state.iter_mut().zip(state) {
            slot.push(tensor.shallow_clone());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        lrs: Vec<f64>,
        weight: Vec<f64>,
        bias: Vec<f64>,
        weight_grads: Vec<Vec<f64>>,
        bias_grads: Vec<Option<Vec<f64>>>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        optimizer: OptimizerConfig,
        clip_norm: Option<f64>,
        float64: Params,
        float32: Params,
    }

    #[derive(Deserialize)]
    struct Params {
        weight: Vec<f64>,
        bias: Vec<f64>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../tests/goldens/optim.json")).unwrap()
    }

    fn params(golden: &Golden, kind: Kind) -> [Tensor; 2] {
        let tensor = |values: &[f64], shape: &[i64]| Tensor::from_slice(values).view(shape).to_kind(kind).set_requires_grad(true);
        [tensor(&golden.weight, &[2, 3]), tensor(&golden.bias, &[3])]
    }

    fn optimizer(config: &OptimizerConfig, [weight, bias]: &[Tensor; 2]) -> Optimizer {
        let named = [("fc.weight", weight), ("fc.bias", bias)].map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
        Optimizer::new(config.clone(), named.into()).unwrap()
    }

    /// Backward passes that give exactly the golden gradients, and the steps after them.
    fn run(optimizer: &mut Optimizer, params: &[Tensor; 2], golden: &Golden, clip: Option<f64>, steps: std::ops::Range<usize>) {
        for i in steps {
            let grads = [Some(&golden.weight_grads[i]), golden.bias_grads[i].as_ref()];
            for (param, grad) in params.iter().zip(grads) {
                if let Some(grad) = grad {
                    let grad = Tensor::from_slice(grad).view_as(param).to_kind(param.kind());
                    (param * grad).sum(param.kind()).backward();
                }
            }
            if let Some(max_norm) = clip {
                let _norm = optimizer.clip_grad_norm(max_norm).unwrap();
            }
            optimizer.step(golden.lrs[i]).unwrap();
            optimizer.zero_grad().unwrap();
        }
    }

    fn distance(tensor: &Tensor, expected: &[f64]) -> f64 {
        (tensor.detach().to_kind(Kind::Double).view(-1) - Tensor::from_slice(expected)).abs().max().double_value(&[])
    }

    #[test]
    fn five_steps_are_pytorchs() {
        let golden = golden();
        for case in &golden.cases {
            for (kind, expected, tolerance) in [(Kind::Double, &case.float64, 1e-10), (Kind::Float, &case.float32, 1e-6)] {
                let params = params(&golden, kind);
                let mut optimizer = optimizer(&case.optimizer, &params);
                run(&mut optimizer, &params, &golden, case.clip_norm, 0..5);
                let off = distance(&params[0], &expected.weight).max(distance(&params[1], &expected.bias));
                assert!(off < tolerance, "{:?} in {kind:?}: off by {off}", case.optimizer);
            }
        }
    }

    #[test]
    fn a_loaded_state_goes_on_bit_by_bit() {
        let golden = golden();
        for case in &golden.cases {
            let whole = params(&golden, Kind::Float);
            run(&mut optimizer(&case.optimizer, &whole), &whole, &golden, None, 0..5);
            let halves = params(&golden, Kind::Float);
            let mut first = optimizer(&case.optimizer, &halves);
            run(&mut first, &halves, &golden, None, 0..2);
            let mut second = optimizer(&case.optimizer, &halves);
            second.load_state(&first.state()).unwrap();
            run(&mut second, &halves, &golden, None, 2..5);
            assert!(whole[0] == halves[0] && whole[1] == halves[1], "{:?}", case.optimizer);
        }
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
        let golden = golden();
        let sgd = OptimizerConfig::default();
        let params = params(&golden, Kind::Float);
        let mut optimizer_ = optimizer(&sgd, &params);
        run(&mut optimizer_, &params, &golden, None, 0..2);
        let kept: BTreeMap<_, _> = optimizer_.state().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        let edit = |edit: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
            let mut state = BTreeMap::from([
                ("sgd.momentum.fc.bias".to_owned(), Tensor::ones([3], (Kind::Float, Device::Cpu))),
                ("sgd.momentum.fc.weight".to_owned(), Tensor::ones([2, 3], (Kind::Float, Device::Cpu))),
            ]);
            edit(&mut state);
            state
        };
        let double = Tensor::ones([2, 3], (Kind::Double, Device::Cpu));
        let cases = [
            (edit(&|state| drop(state.remove("sgd.momentum.fc.bias"))), "lacks sgd.momentum.fc.bias"),
            (edit(&|state| drop(state.insert("sgd.momentum.x".into(), Tensor::from(1)))), "has sgd.momentum.x, which"),
            (
                edit(&|state| drop(state.insert("sgd.momentum.fc.bias".into(), Tensor::from(1_f32)))),
                "Float [], expected Float [3]",
            ),
            (edit(&|state| drop(state.insert("sgd.momentum.fc.weight".into(), double.shallow_clone()))), "fc.weight is Double"),
        ];
        for (state, message) in cases {
            let error = optimizer_.load_state(&state).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert_eq!(optimizer_.state(), kept);
        }
    }

    #[test]
    fn hyperparameters_that_cannot_be_are_named() {
        let bad = [
            (OptimizerConfig::Sgd(SgdConfig { momentum: 1.0, ..Default::default() }), "optimizer.momentum = 1.0"),
            (OptimizerConfig::Sgd(SgdConfig { momentum: 0.0, nesterov: true, ..Default::default() }), "nesterov = true"),
            (OptimizerConfig::Sgd(SgdConfig { weight_decay: f64::NAN, ..Default::default() }), "weight_decay = NaN"),
            (OptimizerConfig::AdamW(AdamWConfig { betas: [0.9, 1.0], ..Default::default() }), "betas = [0.9, 1.0]"),
            (OptimizerConfig::AdamW(AdamWConfig { eps: 0.0, ..Default::default() }), "eps = 0.0"),
        ];
        for (config, message) in bad {
            let error = Optimizer::new(config, Vec::new()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
