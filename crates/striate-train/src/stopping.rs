//! When a run stops before its last epoch.
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};

/// How long a run goes on that does not get better: see [`Waiting`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Patience {
    /// How many epochs in a row may be no better than the best one before them; 0 for any number.
    pub epochs: u64,
    /// By how much an epoch has to be better, as a share of all examples.
    pub min_delta: f64,
}

impl Patience {
    /// Refuses values that can't be.
    pub(crate) fn check(self) -> Result<(), TrainError> {
        check((0.0..1.0).contains(&self.min_delta), "train.min_delta", self.min_delta, "must be from 0 to below 1")
    }
}

/// How long a run has been waiting to get better, as in Keras' `EarlyStopping`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// The accuracy of the last epoch that was better.
    pub best: Option<f64>,
    /// Epochs since then.
    pub epochs: u64,
}

impl Waiting {
    /// An epoch ended with this accuracy.
    pub(crate) fn note(&mut self, accuracy: f64, min_delta: f64) {
        let better = self.best.is_none_or(|best| accuracy > best + min_delta);
        *self = if better { Self { best: Some(accuracy), epochs: 0 } } else { Self { epochs: self.epochs + 1, ..*self } };
    }

    /// Whether it was too long.
    pub(crate) fn is_over(self, patience: Patience) -> bool {
        patience.epochs > 0 && self.epochs >= patience.epochs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In which of these epochs a run stops.
    fn stops(patience: Patience, accuracies: &[f64]) -> Option<usize> {
        let mut waiting = Waiting::default();
        accuracies.iter().position(|accuracy| {
            waiting.note(*accuracy, patience.min_delta);
            waiting.is_over(patience)
        })
    }

    #[test]
    fn it_stops_after_so_many_epochs_without_a_better_one() {
        let accuracies = [0.5, 0.75, 0.75, 0.625, 0.875, 0.875, 0.8125, 0.75];
        let patience = |epochs| Patience { epochs, min_delta: 0.0 };
        assert_eq!([0, 1, 2, 3, 4].map(|epochs| stops(patience(epochs), &accuracies)), [None, Some(2), Some(3), Some(7), None]);
        // A better one has to be better by so much than the last that was, and not than the one
        // before.
        let slow = [0.5, 0.5625, 0.625, 0.6875];
        assert_eq!(stops(Patience { epochs: 3, min_delta: 0.125 }, &slow), None);
        assert_eq!(stops(Patience { epochs: 3, min_delta: 0.25 }, &slow), Some(3));
    }
}
