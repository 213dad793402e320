//! Averages of weights over a run, by which it is judged and with which it ends.
mod ema;
mod norms;
mod swa;

pub use self::ema::{Buffers, Ema, EmaConfig};
pub use self::swa::{Anneal, Swa, SwaConfig};

use crate::{Hook, TrainError, WEIGHTS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use striate_datasets::Loader;
use striate_graph::Network;
use striate_layers::ParamKind;
use striate_torch::foreach;
use tch::Tensor;

/// Which average of the weights a run keeps: the section `[average]` of a recipe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum AverageConfig {
    /// None.
    #[default]
    None,
    /// A moving average over steps.
    Ema(EmaConfig),
    /// The mean of the last epochs.
    Swa(SwaConfig),
}

impl AverageConfig {
    /// Refuses values that can't be, naming them as a recipe does.
    ///
    /// # Errors
    ///
    /// The first such.
    pub fn check(&self) -> Result<(), TrainError> {
        match self {
            Self::None => Ok(()),
            Self::Ema(config) => config.check(),
            Self::Swa(config) => config.check(),
        }
    }

    /// Whether what is done in a step depends on how many there will be.
    pub fn depends_on_length(&self) -> bool {
        match self {
            Self::None => false,
            Self::Ema(config) => config.scaled,
            Self::Swa(_) => true,
        }
    }

    /// What keeps the average in a run of so many epochs on what `train` loads.
    pub(crate) fn hook<'a>(
        &self,
        network: &'a Network,
        train: &'a Loader<'a>,
        epochs: u64,
    ) -> Result<Option<Box<dyn Hook + 'a>>, TrainError> {
        Ok(match self {
            Self::None => None,
            Self::Ema(config) => Some(Box::new(Ema::new(network, &config.for_run(train.batch_size(), epochs))?)),
            Self::Swa(config) => Some(Box::new(Swa::new(network, train, config.clone(), epochs)?)),
        })
    }

    /// The learning rate in an epoch for which the schedule has `scheduled`, and for the epoch `E` has `in_epoch(E)`.
    pub(crate) fn lr(&self, scheduled: f64, epoch: u64, epochs: u64, in_epoch: impl Fn(u64) -> f64) -> f64 {
        match self {
            Self::Swa(config) => config.lr(scheduled, epoch, epochs, in_epoch),
            Self::None | Self::Ema(_) => scheduled,
        }
    }
}

/// A copy of a network's state that moves towards it.
#[derive(Debug)]
struct Average {
    averaged: Copies,
    /// What is copied anew, and not averaged.
    copied: Copies,
}

/// Copies of a part of a network's state.
#[derive(Debug, Default)]
struct Copies {
    names: Vec<String>,
    tensors: Vec<Tensor>,
    /// The network's own. Where it lies in one piece they are its memory: asking for them in each step takes longer than averaging a
    /// small network.
    live: Vec<Tensor>,
}

impl Average {
    /// A copy of the network's state as it is. Counters are never averaged, and buffers if `buffers` says so.
    fn of(network: &Network, buffers: Buffers) -> Result<Self, TrainError> {
        let kinds = network.state_kinds();
        let (mut averaged, mut copied) = (Copies::default(), Copies::default());
        for (name, tensor) in network.state() {
            let part = match kinds.get(&name) {
                Some(ParamKind::Trainable) => &mut averaged,
                Some(ParamKind::Buffer) if buffers == Buffers::Average => &mut averaged,
                _ => &mut copied,
            };
            part.names.push(name);
            part.tensors.push(copy_of(&tensor)?);
            part.live.push(tensor);
        }
        Ok(Self { averaged, copied })
    }

    /// Moves towards the network's state by a share of the way.
    fn approach(&mut self, network: &Network, share: f64) -> Result<(), TrainError> {
        if network.graph().places() > 1 {
            let state = network.state();
            for part in [&mut self.averaged, &mut self.copied] {
                part.live = part.names.iter().map(|name| state[name].shallow_clone()).collect();
            }
        }
        foreach::lerp(&self.averaged.tensors, &self.averaged.live, share)?;
        let mut copies = self.copied.tensors.iter_mut().zip(&self.copied.live);
        copies.try_for_each(|(tensor, live)| Ok(tensor.f_copy_(live)?))
    }

    /// Takes over what is copied anew from a state.
    fn copy_buffers(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        let mut copies = self.copied.tensors.iter_mut().zip(&self.copied.names);
        copies.try_for_each(|(tensor, name)| Ok(tensor.f_copy_(&state[name])?))
    }

    /// All of it, by the network's names.
    fn weights(&self) -> BTreeMap<String, Tensor> {
        let parts = [&self.averaged, &self.copied].into_iter();
        parts.flat_map(|part| part.names.iter().cloned().zip(part.tensors.iter().map(Tensor::shallow_clone))).collect()
    }

    /// All of it, by the names that a hook's state has.
    fn state(&self) -> BTreeMap<String, Tensor> {
        self.weights().into_iter().map(|(name, tensor)| (format!("{WEIGHTS}{name}"), tensor)).collect()
    }

    /// Takes over what [`state`](Self::state) gave.
    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        for (name, tensor) in &mut self.state() {
            tensor.f_copy_(&state[name])?;
        }
        Ok(())
    }
}

/// A copy that lies in memory as the tensor does.
fn copy_of(tensor: &Tensor) -> Result<Tensor, TrainError> {
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}

/// What `with` gives while the network has other weights.
pub(crate) fn with_weights<T>(
    network: &Network,
    weights: &BTreeMap<String, Tensor>,
    with: impl FnOnce() -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    let own = network.state().into_iter().map(|(name, tensor)| Ok((name, copy_of(&tensor)?)));
    let own = own.collect::<Result<BTreeMap<_, _>, TrainError>>()?;
    network.load_state(weights)?;
    let got = with();
    network.load_state(&own)?;
    got
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Moment, Progress};
    use serde::Deserialize;
    use striate_datasets::{Fit, InMemory, LoaderOptions, Normalise, Preprocess};
    use striate_graph::{Graph, InitOptions};
    use striate_layers::{BatchNorm2d, Conv2d, Flatten, Linear};
    use tch::{Device, Kind};

    const STEPS_PER_EPOCH: u64 = 4;
    const EPOCHS: u64 = 3;
    const BATCH: usize = 5;

    /// What `tests/goldens/average.py` wrote.
    #[derive(Deserialize)]
    struct Goldens {
        ema: Vec<EmaGolden>,
        swa: BTreeMap<String, Vec<f64>>,
        swa_lrs: Vec<LrGolden>,
    }

    #[derive(Deserialize)]
    struct EmaGolden {
        config: EmaConfig,
        states: Vec<BTreeMap<String, Vec<f64>>>,
    }

    #[derive(Deserialize)]
    struct LrGolden {
        anneal: Anneal,
        anneal_epochs: u64,
        lrs: Vec<f64>,
    }

    fn goldens() -> Goldens {
        serde_json::from_str(include_str!("../../tests/goldens/average.json")).unwrap()
    }

    /// Gives a network the weights and buffers that the run of the goldens has at a moment.
    fn fill(network: &Network, moment: u64) {
        let _no_grad = striate_torch::no_grad();
        for (number, mut param) in network.parameters().enumerate() {
            if param.tensor.is_floating_point() {
                let places = Tensor::arange(param.tensor.numel() as i64, (Kind::Double, Device::Cpu));
                // Above 0, as variances are.
                let values = (places * 0.7 + moment as f64 + number as f64).sin() + 1.5;
                param.tensor.copy_(&values.view_as(&param.tensor));
            } else {
                let _ = param.tensor.fill_(moment as i64);
            }
        }
    }

    fn progress(epoch: u64, step: u64) -> Progress {
        Progress { seed: 3, steps_per_epoch: STEPS_PER_EPOCH, epoch, step, ..Progress::default() }
    }

    fn moment<'a>(network: &'a Network, progress: &'a Progress) -> Moment<'a> {
        Moment { network, params: &[], progress, steps: EPOCHS * STEPS_PER_EPOCH, lr: 0.1, stop: None }
    }

    fn check(got: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Vec<f64>>, far: f64) {
        for (name, expected) in expected {
            let got = got[&format!("{WEIGHTS}{name}")].to_kind(Kind::Double).flatten(0, -1);
            let worst = (&got - Tensor::from_slice(expected)).abs().max().double_value(&[]);
            assert!(worst < far, "{name}: {worst:.1e} of {expected:?}");
        }
    }

    #[test]
    fn moving_averages_are_timms_and_torchvisions() {
        for EmaGolden { config, states } in goldens().ema {
            let graph = Graph::build(|net| {
                let x = net.input([2, 1, 1]);
                let x = net.add("bn", BatchNorm2d::new(), x)?;
                net.output("logits", x)
            });
            let network = Network::new(graph.unwrap(), &InitOptions { kind: Kind::Double, ..InitOptions::default() }).unwrap();
            fill(&network, 0);
            let mut ema = Ema::new(&network, &config.for_run(BATCH, EPOCHS)).unwrap();
            for (step, expected) in (0..).zip(states) {
                fill(&network, step + 1);
                ema.after_update(&moment(&network, &progress(step / STEPS_PER_EPOCH, step))).unwrap();
                let expected = expected.into_iter().map(|(name, values)| (format!("bn.{name}"), values)).collect();
                check(&ema.state(), &expected, 1e-12);
                let updated = (step % STEPS_PER_EPOCH).is_multiple_of(config.every);
                let counter = &ema.state()["weights/bn.num_batches_tracked"];
                assert_eq!(counter.int64_value(&[]) == (step + 1) as i64, updated);
            }
        }
    }

    /// Ten images whose pixels are those of the goldens.
    fn images() -> (InMemory, Preprocess) {
        let pixels =
            (Tensor::arange(90, (Kind::Int64, Device::Cpu)) * 37).remainder(251).to_kind(Kind::Uint8).view([10, 1, 3, 3]);
        let labels = Tensor::arange(10, (Kind::Int64, Device::Cpu)).remainder(2);
        let data = InMemory::new("pixels", pixels, &labels, ["a", "b"].map(str::to_owned).to_vec()).unwrap();
        let normalise = Normalise { mean: vec![0.5], std: vec![0.25] };
        (data, Preprocess::new([1, 3, 3], [1, 3, 3], Fit::Pad, normalise).unwrap())
    }

    fn network(momentum: Option<f64>) -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 3, 3]);
            let x = net.add("conv", Conv2d::same(2, 3), x)?;
            let x = net.add("bn", BatchNorm2d { momentum, ..BatchNorm2d::new() }, x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(2), x)?;
            net.output("logits", x)
        });
        Network::new(graph.unwrap(), &InitOptions::default()).unwrap()
    }

    #[test]
    fn the_mean_of_epochs_is_torchs_with_batch_norms_statistics() {
        let (data, preprocess) = images();
        let train = Loader::new(&data, preprocess, LoaderOptions::eval(4)).unwrap();
        let config = SwaConfig { from: 0.4, ..SwaConfig::default() };
        for momentum in [Some(0.3), None] {
            let network = network(momentum);
            let mut swa = Swa::new(&network, &train, config.clone(), 5).unwrap();
            for epoch in 0..5 {
                // The first two epochs are not averaged.
                fill(&network, (epoch + 1) % 3);
                let own = network.state()["conv.weight"].copy();
                assert_eq!(swa.state().len() > 1, epoch > 2);
                let progress = progress(epoch, 0);
                swa.epoch_done(&moment(&network, &progress)).unwrap();
                // An epoch whose evaluation was stopped is done again.
                swa.epoch_done(&moment(&network, &progress)).unwrap();
                assert_eq!(network.state()["conv.weight"], own);
                assert_eq!(network.state()["bn.num_batches_tracked"].int64_value(&[]), ((epoch + 1) % 3) as i64);
            }
            check(&swa.state(), &goldens().swa, 1e-5);
        }
    }

    #[test]
    fn a_stop_while_statistics_are_measured_loses_nothing() {
        let (data, preprocess) = images();
        let train = Loader::new(&data, preprocess, LoaderOptions::eval(4)).unwrap();
        let (network, config) = (network(Some(0.3)), SwaConfig { from: 0.0, ..SwaConfig::default() });
        let mut swa = Swa::new(&network, &train, config.clone(), 3).unwrap();
        let flag = true.into();
        for epoch in 0..3 {
            fill(&network, epoch);
            let progress = progress(epoch, 0);
            let stopped = swa.epoch_done(&Moment { stop: Some(&flag), ..moment(&network, &progress) });
            assert!(matches!(stopped, Err(TrainError::Stopped)));
            let state: BTreeMap<_, _> = swa.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
            // As another process goes on.
            let mut other = Swa::new(&network, &train, config.clone(), 3).unwrap();
            assert_eq!(other.misfit(&state), None);
            other.load_state(&state).unwrap();
            other.epoch_done(&moment(&network, &progress)).unwrap();
            swa = other;
        }
        check(&swa.state(), &goldens().swa, 1e-5);
        let mut lacking = swa.state();
        lacking.remove("weights/fc.bias");
        assert_eq!(swa.misfit(&lacking).as_deref(), Some("weights/fc.bias"));
    }

    /// A network that has two towers up to its norm, on so many devices.
    fn in_towers(devices: usize) -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 3, 3]);
            let x = net.add("conv1", Conv2d::same(4, 3), x)?;
            let x = net.add("conv2", Conv2d::same(4, 3).groups(2), x)?;
            let x = net.add("bn", BatchNorm2d::new(), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(2), x)?;
            net.output("logits", x)
        });
        let options = InitOptions { devices: vec![Device::Cpu; devices], seed: 3, ..InitOptions::default() };
        Network::new(graph.unwrap(), &options).unwrap()
    }

    #[test]
    fn averages_of_towers_are_those_of_the_whole() {
        let (data, preprocess) = images();
        let train = Loader::new(&data, preprocess, LoaderOptions::eval(4)).unwrap();
        let averaged = |network: &Network| {
            let mut ema = Ema::new(network, &EmaConfig { decay: 0.5, warmup: false, ..EmaConfig::default() }).unwrap();
            let mut swa = Swa::new(network, &train, SwaConfig { from: 0.0, ..SwaConfig::default() }, 2).unwrap();
            for epoch in 0..2 {
                let state = network.state().into_iter().map(|(name, tensor)| {
                    let counts = tensor.kind() == Kind::Int64;
                    (name, if counts { tensor } else { tensor * 0.5 + (epoch + 1) as f64 })
                });
                network.load_state(&state.collect()).unwrap();
                ema.after_update(&moment(network, &progress(epoch, epoch * STEPS_PER_EPOCH))).unwrap();
                swa.epoch_done(&moment(network, &progress(epoch, STEPS_PER_EPOCH * (epoch + 1)))).unwrap();
            }
            [ema.state(), swa.state()]
        };
        let (whole, towers) = (in_towers(1), in_towers(2));
        assert!(towers.graph().places() == 2 && towers.state() == whole.state());
        let start = whole.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect::<BTreeMap<_, _>>();
        for (whole, towers) in averaged(&whole).into_iter().zip(averaged(&towers)) {
            assert_eq!(whole.keys().collect::<Vec<_>>(), towers.keys().collect::<Vec<_>>());
            for (name, tensor) in &whole {
                let largest = |tensor: &Tensor| tensor.to_kind(Kind::Double).abs().max().double_value(&[]);
                let off = largest(&(tensor - &towers[name])) / largest(tensor).max(1.0);
                assert!(off < 1e-5, "{name}: {off}");
                let moved = name.strip_prefix(WEIGHTS).is_none_or(|name| *tensor != start[name]);
                assert!(moved || name.ends_with("num_batches_tracked"), "{name}");
            }
        }
    }

    #[test]
    fn learning_rates_come_to_the_averages_as_torchs_do() {
        for LrGolden { anneal, anneal_epochs, lrs } in goldens().swa_lrs {
            let config = AverageConfig::Swa(SwaConfig { from: 0.4, lr: 0.02, anneal, anneal_epochs, ..SwaConfig::default() });
            // Epochs 4 to 9 of 10, where the schedule has 0.1 in epoch 4 and less later.
            let scheduled = |epoch: u64| 0.1 / (epoch - 3) as f64;
            for (epoch, expected) in (4..).zip(lrs) {
                let lr = config.lr(scheduled(epoch), epoch, 10, scheduled);
                assert!((lr - expected).abs() < 1e-12, "{lr} {expected}");
            }
            assert_eq!(config.lr(0.7, 3, 10, scheduled), 0.7);
            assert_eq!(AverageConfig::None.lr(0.7, 9, 10, scheduled), 0.7);
        }
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        let (ema, swa) = (EmaConfig::default, SwaConfig::default);
        let told = |config: AverageConfig| config.check().unwrap_err().to_string();
        assert_eq!(told(AverageConfig::Ema(EmaConfig { decay: 1.0, ..ema() })), "average.decay = 1.0 must be from 0 to below 1");
        assert!(told(AverageConfig::Ema(EmaConfig { min_decay: 1.0, ..ema() })).ends_with("must be from 0 to `average.decay`"));
        assert!(told(AverageConfig::Ema(EmaConfig { every: 0, ..ema() })).starts_with("average.every = 0"));
        assert!(told(AverageConfig::Ema(EmaConfig { after_epochs: f64::NAN, ..ema() })).starts_with("average.after_epochs"));
        assert!(told(AverageConfig::Swa(SwaConfig { from: 1.0, ..swa() })).starts_with("average.from = 1.0"));
        assert!(told(AverageConfig::Swa(SwaConfig { lr: -1.0, ..swa() })).starts_with("average.lr = -1.0"));
    }
}
