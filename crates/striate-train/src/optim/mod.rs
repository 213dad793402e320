//! Optimizers over named parameters, whose whole state can be saved and loaded.
//!
//! A [`Rule`] is one optimizer: a file with its hyperparameters, what it keeps, and its step.
//! [`Optimizer`] does the rest for all of them: it keeps the state by name, and steps the
//! parameters of one learning rate and weight decay together.
mod adam;
mod adamw;
mod clip;
mod group;
mod lamb;
mod lars;
mod lion;
mod muon;
mod param_groups;
mod rmsprop;
mod sgd;

pub use self::adam::AdamConfig;
pub use self::adamw::AdamWConfig;
pub use self::clip::Clip;
pub use self::group::Group;
pub use self::lamb::LambConfig;
pub use self::lars::LarsConfig;
pub use self::lion::LionConfig;
pub use self::muon::MuonConfig;
pub use self::param_groups::{ParamGroup, ParamKind, Pattern, blocks, grouped};
pub use self::rmsprop::RmspropConfig;
pub use self::sgd::SgdConfig;

use self::group::trust_ratios;

use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use striate_torch::few;
use striate_torch::optim::{LearningRate, clear_grads};
use tch::{Device, Kind, Tensor};

/// The rule of an optimizer: its hyperparameters, what it keeps for each parameter, and what a step does.
///
/// The learning rate is given at each step, so that a rule has none of its own.
pub trait Rule: Debug + Send + Sync {
    /// Refuses hyperparameters that can't be, naming them as a recipe does.
    ///
    /// # Errors
    ///
    /// The first such.
    fn check(&self) -> Result<(), TrainError>;

    /// What it keeps for each parameter.
    fn slots(&self) -> Vec<Slot>;

    /// The weight decay of parameters that no group gives one.
    fn decay(&self) -> Decay;

    /// Changes the parameters and the state of a group, all of one device.
    ///
    /// # Errors
    ///
    /// What libtorch refuses, such as parameters of half precision.
    fn step(&self, group: &Group<'_>) -> Result<(), TrainError>;
}

/// Something that a rule keeps for each parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// Its name in the state, such as `sgd.momentum`.
    pub name: &'static str,
    /// Its form.
    pub form: SlotForm,
    /// The value that all of it starts with.
    pub start: f64,
}

impl Slot {
    /// Of the parameter's form, from zeros on.
    pub fn zeros(name: &'static str) -> Self {
        Self { name, form: SlotForm::Parameter, start: 0.0 }
    }

    /// A scalar, from 0 on.
    pub fn scalar(name: &'static str) -> Self {
        Self { name, form: SlotForm::Scalar, start: 0.0 }
    }
}

/// The form of what a rule keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotForm {
    /// That of the parameter.
    Parameter,
    /// A float32 scalar.
    Scalar,
}

/// How much parameters decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decay {
    /// The weight decay.
    pub weight_decay: f64,
    /// Whether it applies to one-dimensional parameters too: biases, and the weights of batch norm.
    pub decay_1d: bool,
}

impl Decay {
    fn check(self) -> Result<(), TrainError> {
        let decay = self.weight_decay;
        check(decay.is_finite() && decay >= 0.0, "optimizer.weight_decay", decay, "must be 0 or larger")
    }
}

/// Makes [`OptimizerConfig`] of rules, each with its documentation.
macro_rules! optimizers {
    ($($(#[$doc:meta])* $name:ident($config:ident),)*) => {
        /// Which optimizer, with its hyperparameters.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "lowercase")]
        #[non_exhaustive]
        pub enum OptimizerConfig {
            $($(#[$doc])* $name($config),)*
        }

        impl OptimizerConfig {
            /// Its rule.
            pub fn rule(&self) -> &dyn Rule {
                match self {
                    $(Self::$name(config) => config,)*
                }
            }
        }

        impl From<OptimizerConfig> for Box<dyn Rule> {
            fn from(config: OptimizerConfig) -> Self {
                match config {
                    $(OptimizerConfig::$name(config) => Box::new(config),)*
                }
            }
        }
    };
}

optimizers! {
    /// Stochastic gradient descent, the rule of `torch.optim.SGD`.
    Sgd(SgdConfig),
    /// The rule of `torch.optim.Adam`.
    Adam(AdamConfig),
    /// Adam with decoupled weight decay, the rule of `torch.optim.AdamW`.
    AdamW(AdamWConfig),
    /// The rule of `torch.optim.RMSprop`, or TensorFlow's.
    Rmsprop(RmspropConfig),
    /// Adam for large batches.
    Lamb(LambConfig),
    /// SGD for large batches.
    Lars(LarsConfig),
    /// Steps by the sign of a momentum.
    Lion(LionConfig),
    /// Steps of filters with all singular values alike, and SGD for all else.
    Muon(MuonConfig),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::Sgd(SgdConfig::default())
    }
}

impl OptimizerConfig {
    /// Refuses hyperparameters that can't be, naming them.
    ///
    /// # Errors
    ///
    /// The first such.
    pub fn check(&self) -> Result<(), TrainError> {
        self.rule().decay().check()?;
        self.rule().check()
    }
}

fn check_betas(betas: [f64; 2]) -> Result<(), TrainError> {
    let ok = betas.iter().all(|beta| (0.0..1.0).contains(beta));
    check(ok, "optimizer.betas", betas, "must both be from 0 to below 1")
}

fn check_eps(eps: f64) -> Result<(), TrainError> {
    check(eps.is_finite() && eps > 0.0, "optimizer.eps", eps, "must be above 0")
}

fn check_share(name: &str, share: f64) -> Result<(), TrainError> {
    check((0.0..1.0).contains(&share), name, share, "must be from 0 to below 1")
}

fn check_momentum(momentum: f64, nesterov: bool) -> Result<(), TrainError> {
    check_share("optimizer.momentum", momentum)?;
    check(!nesterov || momentum > 0.0, "optimizer.nesterov", nesterov, "takes a momentum above 0")
}

/// A parameter, and how it is trained.
#[derive(Debug)]
pub struct Param {
    /// Its name in the network and in the optimizer's state.
    pub name: String,
    /// Its values.
    pub tensor: Tensor,
    /// What the learning rate is multiplied by.
    pub lr_scale: f64,
    /// Its weight decay, if not the rule's.
    pub weight_decay: Option<f64>,
    /// The epoch, counted from 0, before which it stays as it is.
    pub from_epoch: u64,
    /// Whether Muon trains it by SGD. Other rules ignore it.
    pub plain: bool,
    /// Whether it belongs to a layer that gives an output, which adaptive clipping leaves out.
    pub head: bool,
}

impl From<(String, Tensor)> for Param {
    fn from((name, tensor): (String, Tensor)) -> Self {
        Self { name, tensor, lr_scale: 1.0, weight_decay: None, from_epoch: 0, plain: false, head: false }
    }
}

/// An optimizer over named parameters.
///
/// The state exists from the start: what [`state`](Self::state) gives depends on the rule and the
/// parameters alone, and [`load_state`](Self::load_state) can tell what is missing.
#[derive(Debug)]
pub struct Optimizer {
    rule: Box<dyn Rule>,
    params: Vec<Param>,
    /// By slot, then by parameter.
    state: Vec<Vec<Tensor>>,
}

impl Optimizer {
    /// An optimizer of these parameters, which it changes in place: by a configuration, or by a rule of your own.
    ///
    /// # Errors
    ///
    /// Hyperparameters that can't be.
    pub fn new(rule: impl Into<Box<dyn Rule>>, params: impl IntoIterator<Item = impl Into<Param>>) -> Result<Self, TrainError> {
        let rule = rule.into();
        rule.decay().check()?;
        rule.check()?;
        let params: Vec<Param> = params.into_iter().map(Into::into).collect();
        let started = |slot: &Slot, param: &Param| match slot.form {
            SlotForm::Scalar => Tensor::f_full([0_i64; 0], slot.start, (Kind::Float, param.tensor.device())),
            SlotForm::Parameter => param.tensor.f_detach()?.f_full_like(slot.start),
        };
        let slots = rule.slots();
        let state = slots.iter().map(|slot| params.iter().map(|param| started(slot, param)).collect());
        let state = state.collect::<Result<_, _>>()?;
        Ok(Self { rule, params, state })
    }

    /// The parameters.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Lets the parameters that train in this epoch have gradients, and no others.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn start_epoch(&mut self, epoch: u64) -> Result<(), TrainError> {
        for param in self.params.iter().filter(|param| param.from_epoch > 0) {
            let _ = param.tensor.f_set_requires_grad(param.from_epoch <= epoch)?;
        }
        Ok(())
    }

    /// Changes every parameter that has a gradient; the others, and their state, stay as they are.
    pub fn step<'l>(&mut self, lr: impl Into<LearningRate<'l>>) -> Result<(), TrainError> {
        let (lr, decay) = (lr.into(), self.rule.decay());
        let mut groups: Vec<(Device, Group)> = Vec::new();
        for (i, param) in self.params.iter().enumerate() {
            let grad = param.tensor.f_grad()?;
            if !grad.defined() {
                continue;
            }
            let decays = decay.decay_1d || param.tensor.dim() > 1;
            let weight_decay = param.weight_decay.unwrap_or(if decays { decay.weight_decay } else { 0.0 });
            let (device, lr_scale, plain) = (param.tensor.device(), param.lr_scale, param.plain);
            let fits = |(there, group): &(Device, Group)| {
                *there == device && group.lr_scale == lr_scale && group.weight_decay == weight_decay && group.plain == plain
            };
            let place = groups.iter().position(fits).unwrap_or_else(|| {
                let state = self.state.iter().map(|_| Vec::new()).collect();
                let (params, grads) = (Vec::new(), Vec::new());
                groups.push((device, Group { params, grads, state, lr, lr_scale, weight_decay, plain }));
                groups.len() - 1
            });
            groups[place].1.push(&param.tensor, grad, self.state.iter().map(|slot| &slot[i]));
        }
        groups.iter().try_for_each(|(_, group)| self.rule.step(group))
    }

    /// Forgets the gradients, so that the next backward pass writes new ones.
    pub fn zero_grad(&mut self) -> Result<(), TrainError> {
        let params: Vec<Tensor> = self.params.iter().map(|param| param.tensor.shallow_clone()).collect();
        Ok(clear_grads(&params)?)
    }

    /// The gradients that there are, with their parameters.
    pub(crate) fn grads(&self) -> Result<Vec<(&Param, Tensor)>, TrainError> {
        let all = self.params.iter().map(|param| Ok((param, param.tensor.f_grad()?)));
        let all = all.collect::<Result<Vec<_>, TrainError>>()?;
        Ok(all.into_iter().filter(|(_, grad)| grad.defined()).collect())
    }

    /// The state by name, such as `sgd.momentum.conv1.weight`, `adamw.exp_avg.conv1.weight` or `adamw.step.conv1.weight`:
    /// the tensors that the next step changes, not copies.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for (slot, tensors) in self.rule.slots().iter().zip(&self.state) {
            for (param, tensor) in self.params.iter().zip(tensors) {
                state.insert(format!("{}.{}", slot.name, param.name), tensor.shallow_clone());
            }
        }
        state
    }

    /// Takes over a state that [`state`](Self::state) gave.
    ///
    /// Fails if it has other names, shapes or types than this optimizer's, and then changes nothing.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        check_state(&self.state(), state)?;
        load(self.state(), state)
    }

    /// The parameters and the state: all that a step changes.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.params.iter().map(|param| &param.tensor).chain(self.state.iter().flatten())
    }
}

/// Refuses a state that has other names, shapes or types than `own`.
pub(crate) fn check_state(own: &BTreeMap<String, Tensor>, given: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
    mismatch(own, given).map_or(Ok(()), |reason| Err(TrainError::OptimizerState { reason }))
}

/// Copies a state that [fits](check_state) into tensors.
pub(crate) fn load(own: BTreeMap<String, Tensor>, given: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
    let _no_grad = striate_torch::no_grad();
    own.into_iter().try_for_each(|(name, mut tensor)| Ok(tensor.f_copy_(&given[&name])?))
}

/// The first few names that differ between two states, or the first tensor that does.
fn mismatch(own: &BTreeMap<String, Tensor>, given: &BTreeMap<String, Tensor>) -> Option<String> {
    let lacking = |these: &BTreeMap<String, Tensor>, those: &BTreeMap<String, Tensor>| {
        let names: Vec<_> = those.keys().filter(|name| !these.contains_key(*name)).map(String::as_str).collect();
        (!names.is_empty()).then(|| few(names.iter()))
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

impl Drop for Optimizer {
    /// What was to train later can be trained by another.
    fn drop(&mut self) {
        for param in self.params.iter().filter(|param| param.from_epoch > 0) {
            let _ = param.tensor.set_requires_grad(true);
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
        clip: Option<Limit>,
        shape: Vec<i64>,
        float64: Params,
        float32: Params,
    }

    #[derive(Clone, Copy, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Limit {
        Norm(f64),
        Value(f64),
        Adaptive(f64),
    }

    impl From<Limit> for Clip {
        fn from(limit: Limit) -> Self {
            match limit {
                Limit::Norm(limit) => Self::Norm(limit),
                Limit::Value(limit) => Self::Value(limit),
                Limit::Adaptive(limit) => Self::Adaptive(limit),
            }
        }
    }

    #[derive(Deserialize)]
    struct Params {
        weight: Vec<f64>,
        bias: Vec<f64>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/goldens/optim.json")).unwrap()
    }

    fn params(golden: &Golden, shape: &[i64], kind: Kind) -> [Tensor; 2] {
        let tensor = |values: &[f64], shape: &[i64]| Tensor::from_slice(values).view(shape).to_kind(kind).set_requires_grad(true);
        [tensor(&golden.weight, shape), tensor(&golden.bias, &[3])]
    }

    fn optimizer(config: &OptimizerConfig, [weight, bias]: &[Tensor; 2]) -> Optimizer {
        let named = [("fc.weight", weight), ("fc.bias", bias)].map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
        Optimizer::new(config.clone(), named).unwrap()
    }

    /// Backward passes that give exactly the golden gradients, and the steps after them.
    fn run(optimizer: &mut Optimizer, params: &[Tensor; 2], golden: &Golden, clip: Option<Clip>, steps: std::ops::Range<usize>) {
        for i in steps {
            let grads = [Some(&golden.weight_grads[i]), golden.bias_grads[i].as_ref()];
            for (param, grad) in params.iter().zip(grads) {
                if let Some(grad) = grad {
                    let grad = Tensor::from_slice(grad).view_as(param).to_kind(param.kind());
                    (param * grad).sum(param.kind()).backward();
                }
            }
            if let Some(clip) = clip {
                clip.apply(optimizer).unwrap();
            }
            optimizer.step(golden.lrs[i]).unwrap();
            optimizer.zero_grad().unwrap();
        }
    }

    fn distance(tensor: &Tensor, expected: &[f64]) -> f64 {
        (tensor.detach().to_kind(Kind::Double).view(-1) - Tensor::from_slice(expected)).abs().max().double_value(&[])
    }

    #[test]
    fn five_steps_are_pytorchs_and_timms() {
        let golden = golden();
        for case in &golden.cases {
            for (kind, expected, tolerance) in [(Kind::Double, &case.float64, 1e-10), (Kind::Float, &case.float32, 1e-6)] {
                let params = params(&golden, &case.shape, kind);
                let mut optimizer = optimizer(&case.optimizer, &params);
                run(&mut optimizer, &params, &golden, case.clip.map(Clip::from), 0..5);
                let off = distance(&params[0], &expected.weight).max(distance(&params[1], &expected.bias));
                assert!(off < tolerance, "{:?} in {kind:?}: off by {off}", case.optimizer);
            }
        }
    }

    #[test]
    fn a_loaded_state_goes_on_bit_by_bit() {
        let golden = golden();
        for case in &golden.cases {
            let whole = params(&golden, &case.shape, Kind::Float);
            run(&mut optimizer(&case.optimizer, &whole), &whole, &golden, None, 0..5);
            let halves = params(&golden, &case.shape, Kind::Float);
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
        let params = params(&golden, &[2, 3], Kind::Float);
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
            (OptimizerConfig::Adam(AdamConfig { betas: [-0.1, 0.9], ..Default::default() }), "betas = [-0.1, 0.9]"),
            (OptimizerConfig::Rmsprop(RmspropConfig { alpha: 1.0, ..Default::default() }), "optimizer.alpha = 1.0"),
            (OptimizerConfig::Lamb(LambConfig { weight_decay: -1.0, ..Default::default() }), "weight_decay = -1.0"),
            (OptimizerConfig::Lars(LarsConfig { trust_coefficient: 0.0, ..Default::default() }), "trust_coefficient = 0.0"),
            (OptimizerConfig::Lion(LionConfig { betas: [0.9, 1.0], ..Default::default() }), "betas = [0.9, 1.0]"),
            (OptimizerConfig::Muon(MuonConfig { newton_schulz_steps: 0, ..Default::default() }), "newton_schulz_steps = 0"),
            (OptimizerConfig::Muon(MuonConfig { sgd_momentum: 0.0, ..Default::default() }), "sgd_momentum = 0.0"),
        ];
        for (config, message) in bad {
            let error = Optimizer::new(config, Vec::<Param>::new()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
