//! Stochastic weight averaging.
use super::{Average, Buffers, copy_of, norms, with_weights};
use crate::error::check;
use crate::hook::misfit;
use crate::{Hook, Moment, TrainError, WEIGHTS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use striate_datasets::Loader;
use striate_graph::Network;
use tch::Tensor;

/// Under what it keeps how far it is: epochs before this one are in the average, and before that one in batch norm's statistics.
const EPOCHS: &str = "epochs";

/// Stochastic weight averaging (Izmailov 2018, arXiv:1803.05407): the mean of the weights at the end of the last epochs, as
/// `torch.optim.swa_utils.AveragedModel`.
///
/// Nobody trained with the mean, so that batch norm has no statistics for it. They are measured after each epoch that is averaged, on
/// the whole training set, by a forward pass: as `torch.optim.swa_utils.update_bn`, with the batches of that epoch, transformed as
/// they were. It costs about a third of an epoch, and nothing without batch norm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwaConfig {
    /// The share of the run's epochs before the first that is averaged, rounded down to whole ones.
    pub from: f64,
    /// Epochs between two that are averaged.
    pub every: u64,
    /// The learning rate that the averaged epochs come to; 0 to leave it to the schedule.
    pub lr: f64,
    /// Epochs in which the learning rate comes to `lr`.
    pub anneal_epochs: u64,
    /// How it comes there.
    pub anneal: Anneal,
}

/// How a learning rate comes to another: `torch.optim.swa_utils.SWALR`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anneal {
    /// By half a wave of the cosine.
    #[default]
    Cosine,
    /// In equal steps.
    Linear,
}

impl Default for SwaConfig {
    /// Every epoch of the last quarter at the schedule's learning rate.
    fn default() -> Self {
        Self { from: 0.75, every: 1, lr: 0.0, anneal_epochs: 10, anneal: Anneal::Cosine }
    }
}

impl SwaConfig {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        check((0.0..1.0).contains(&self.from), "average.from", self.from, "must be from 0 to below 1")?;
        check(self.every > 0, "average.every", self.every, "must be 1 or larger")?;
        check(self.lr.is_finite() && self.lr >= 0.0, "average.lr", self.lr, "must be 0 or larger")
    }

    /// The first epoch that is averaged.
    fn first(&self, epochs: u64) -> u64 {
        (self.from * epochs as f64) as u64
    }

    /// How many averaged epochs there are before this one, if it is averaged.
    fn number(&self, epoch: u64, epochs: u64) -> Option<u64> {
        let since = epoch.checked_sub(self.first(epochs))?;
        since.is_multiple_of(self.every).then_some(since / self.every)
    }

    pub(super) fn lr(&self, scheduled: f64, epoch: u64, epochs: u64, in_epoch: impl Fn(u64) -> f64) -> f64 {
        let first = self.first(epochs);
        if self.lr == 0.0 || epoch < first {
            return scheduled;
        }
        let done = match self.anneal_epochs {
            0 => 1.0,
            anneal => ((epoch - first) as f64 / anneal as f64).min(1.0),
        };
        let share = match self.anneal {
            Anneal::Cosine => (1.0 - (std::f64::consts::PI * done).cos()) / 2.0,
            Anneal::Linear => done,
        };
        self.lr * share + in_epoch(first) * (1.0 - share)
    }
}

/// Keeps the average of a [`SwaConfig`].
pub struct Swa<'a> {
    config: SwaConfig,
    /// Epochs of the run.
    epochs: u64,
    network: &'a Network,
    train: &'a Loader<'a>,
    /// From the first epoch on that is averaged.
    average: Option<Average>,
    /// Epochs before this one are in the average.
    averaged: u64,
    /// Batch norm's statistics are those of the average of the epochs before this one.
    measured: u64,
}

impl std::fmt::Debug for Swa<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swa").field("config", &self.config).field("averaged", &self.averaged).finish_non_exhaustive()
    }
}

impl<'a> Swa<'a> {
    /// An average of the network's weights in a run of so many epochs; batch norm's statistics are measured on what `train` loads.
    ///
    /// # Errors
    ///
    /// Values that can't be.
    pub fn new(network: &'a Network, train: &'a Loader<'a>, config: SwaConfig, epochs: u64) -> Result<Self, TrainError> {
        config.check()?;
        Ok(Self { config, epochs, network, train, average: None, averaged: 0, measured: 0 })
    }

    /// Batch norm's statistics for the average.
    fn measure(&self, average: &mut Average, at: &Moment<'_>) -> Result<(), TrainError> {
        if norms::of(self.network).is_empty() {
            return Ok(());
        }
        let measured = with_weights(self.network, &average.weights(), || {
            norms::measure(self.network, self.train, at)?;
            // Before the network has its own again.
            self.network.state().iter().map(|(name, tensor)| Ok((name.clone(), copy_of(tensor)?))).collect()
        })?;
        average.copy_buffers(&measured)
    }
}

impl Hook for Swa<'_> {
    fn name(&self) -> &'static str {
        "swa"
    }

    fn averages(&self) -> bool {
        true
    }

    fn epoch_done(&mut self, at: &Moment<'_>) -> Result<(), TrainError> {
        let epoch = at.progress.epoch;
        // An epoch whose evaluation was stopped is done twice.
        if self.averaged <= epoch
            && let Some(number) = self.config.number(epoch, self.epochs)
        {
            match &mut self.average {
                Some(average) => average.approach(self.network, 1.0 / (number as f64 + 1.0))?,
                None => self.average = Some(Average::of(self.network, Buffers::Copy)?),
            }
            self.averaged = epoch + 1;
        }
        if self.measured < self.averaged
            && let Some(mut average) = self.average.take()
        {
            let measured = self.measure(&mut average, at);
            self.average = Some(average);
            measured?;
            self.measured = self.averaged;
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let epochs = Tensor::from_slice(&[self.averaged.cast_signed(), self.measured.cast_signed()]);
        let average = self.average.as_ref().map(Average::state).unwrap_or_default();
        average.into_iter().chain([(EPOCHS.to_owned(), epochs)]).collect()
    }

    /// The average is there from some epoch on.
    fn misfit(&self, state: &BTreeMap<String, Tensor>) -> Option<String> {
        let mut own = BTreeMap::from([(EPOCHS.to_owned(), Tensor::from_slice(&[0_i64; 2]))]);
        if state.len() > own.len() {
            own.extend(self.network.state().into_iter().map(|(name, tensor)| (format!("{WEIGHTS}{name}"), tensor)));
        }
        misfit(&own, state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        let epoch = |place| Ok::<_, TrainError>(state[EPOCHS].f_int64_value(&[place])?.cast_unsigned());
        (self.averaged, self.measured) = (epoch(0)?, epoch(1)?);
        self.average = None;
        if state.len() > 1 {
            let mut average = Average::of(self.network, Buffers::Copy)?;
            average.load_state(state)?;
            self.average = Some(average);
        }
        Ok(())
    }
}
