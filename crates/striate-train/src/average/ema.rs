//! An exponential moving average of weights.
use super::Average;
use crate::error::check;
use crate::{Hook, Moment, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use striate_graph::Network;
use tch::Tensor;

/// An exponential moving average: after a step, `average = decay * average + (1 - decay) * weights`.
///
/// It begins as a copy of the weights after the first step. With `every = 1` it is timm's `ModelEmaV3`; with `scaled` and without
/// `warmup`, the `ExponentialMovingAverage` of torchvision's reference for classification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaConfig {
    /// The share of itself that it keeps at each update, from 0 to below 1.
    pub decay: f64,
    /// Steps between two updates. The first step of an epoch has one.
    pub every: u64,
    /// Epochs in which it is the weights: torchvision's are those of the learning rate's warm-up, timm counts them in steps.
    pub after_epochs: f64,
    /// Whether the decay begins small and rises: in the k-th step after the first it is 1 - (1 + k / `warmup_gamma`)^-`warmup_power`,
    /// and never more than [`decay`](Self::decay).
    pub warmup: bool,
    /// See [`warmup`](Self::warmup).
    pub warmup_gamma: f64,
    /// See [`warmup`](Self::warmup).
    pub warmup_power: f64,
    /// The least decay while it rises.
    pub min_decay: f64,
    /// Whether the decay is adjusted to the run as torchvision does: 1 - (1 - decay) * batch size * [`every`](Self::every) / epochs, and
    /// at least 0.
    pub scaled: bool,
    /// What becomes of batch norm's statistics.
    pub buffers: Buffers,
}

/// What an average has of a network's buffers, such as batch norm's statistics. Counters are always copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Buffers {
    /// Their average.
    #[default]
    Average,
    /// The network's own.
    Copy,
}

impl Default for EmaConfig {
    /// timm's, with the decay's warm-up, by which it fits runs of any length.
    fn default() -> Self {
        Self {
            decay: 0.9999,
            every: 1,
            after_epochs: 0.0,
            warmup: true,
            warmup_gamma: 1.0,
            warmup_power: 2.0 / 3.0,
            min_decay: 0.0,
            scaled: false,
            buffers: Buffers::Average,
        }
    }
}

impl EmaConfig {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        let share = |decay: f64| (0.0..1.0).contains(&decay);
        check(share(self.decay), "average.decay", self.decay, "must be from 0 to below 1")?;
        check(self.every > 0, "average.every", self.every, "must be 1 or larger")?;
        let after = self.after_epochs;
        check(after.is_finite() && after >= 0.0, "average.after_epochs", after, "must be 0 or larger")?;
        let above_0 = |value: f64| value.is_finite() && value > 0.0;
        check(above_0(self.warmup_gamma), "average.warmup_gamma", self.warmup_gamma, "must be above 0")?;
        check(above_0(self.warmup_power), "average.warmup_power", self.warmup_power, "must be above 0")?;
        let least = share(self.min_decay) && self.min_decay <= self.decay;
        check(least, "average.min_decay", self.min_decay, "must be from 0 to `average.decay`")
    }

    /// With the decay [`scaled`](Self::scaled) for a run, if it is to be.
    pub(super) fn for_run(&self, batch_size: usize, epochs: u64) -> Self {
        let adjusted = (1.0 - self.decay) * batch_size as f64 * self.every as f64 / epochs as f64;
        match self.scaled {
            true => Self { decay: 1.0 - adjusted.min(1.0), scaled: false, ..self.clone() },
            false => self.clone(),
        }
    }

    /// The decay of the update after `done` other steps of the run; 0 makes a copy.
    fn decay_after(&self, done: u64, steps_per_epoch: u64) -> f64 {
        let since = done as f64 - self.after_epochs * steps_per_epoch as f64;
        match self.warmup {
            _ if since <= 0.0 => 0.0,
            false => self.decay,
            true => (1.0 - (1.0 + since / self.warmup_gamma).powf(-self.warmup_power)).min(self.decay).max(self.min_decay),
        }
    }
}

/// Keeps the average of an [`EmaConfig`].
#[derive(Debug)]
pub struct Ema {
    config: EmaConfig,
    average: Average,
}

impl Ema {
    /// An average that begins as the network is. `config` is taken as it is: [`scaled`](EmaConfig::scaled) is for the
    /// [`Trainer`](crate::Trainer), which knows the run.
    ///
    /// # Errors
    ///
    /// Values that can't be, and a lack of memory.
    pub fn new(network: &Network, config: &EmaConfig) -> Result<Self, TrainError> {
        config.check()?;
        Ok(Self { config: config.clone(), average: Average::of(network, config.buffers)? })
    }
}

impl Hook for Ema {
    fn name(&self) -> &'static str {
        "ema"
    }

    fn averages(&self) -> bool {
        true
    }

    fn after_update(&mut self, at: &Moment<'_>) -> Result<(), TrainError> {
        let (done, per_epoch) = (at.progress.step, at.progress.steps_per_epoch);
        if !(done % per_epoch).is_multiple_of(self.config.every) {
            return Ok(());
        }
        self.average.approach(at.network, 1.0 - self.config.decay_after(done, per_epoch))
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        self.average.state()
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        self.average.load_state(state)
    }
}
