use crate::error::check;
use crate::{TestMetrics, TrainError};
use serde::{Deserialize, Serialize};

/// When a rate drops because nothing gets better: the rule of
/// `torch.optim.lr_scheduler.ReduceLROnPlateau`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlateauConfig {
    /// What each drop multiplies by.
    pub factor: f64,
    /// The epochs in a row that may bring nothing better; after one more the rate drops.
    pub patience: u64,
    /// The share of the best value by which a better one must differ from it.
    pub threshold: f64,
    /// The rate that no drop goes below.
    pub min_lr: f64,
    /// What has to get better.
    pub monitor: Monitor,
}

impl Default for PlateauConfig {
    fn default() -> Self {
        Self { factor: 0.1, patience: 10, threshold: 1e-4, min_lr: 0.0, monitor: Monitor::Loss }
    }
}

/// A figure of the data that the run is judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Monitor {
    /// The loss, which is to fall.
    #[default]
    Loss,
    /// The accuracy, which is to rise.
    Accuracy,
}

/// What the epochs of a run have brought so far: it belongs to how far the run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// The best value.
    best: Option<f64>,
    /// The epochs since that, or since the last drop.
    waited: u64,
    /// How often the rate has dropped.
    drops: u32,
}

impl PlateauConfig {
    pub(super) fn check(&self) -> Result<(), TrainError> {
        check(self.factor > 0.0 && self.factor < 1.0, "schedule.factor", self.factor, "must be above 0 and below 1")?;
        check((0.0..1.0).contains(&self.threshold), "schedule.threshold", self.threshold, "must be from 0 to below 1")?;
        check(self.min_lr.is_finite() && self.min_lr >= 0.0, "schedule.min_lr", self.min_lr, "must be 0 or larger")
    }

    /// The rate after all drops.
    pub(super) fn lowered(&self, base: f64, plateau: &Plateau) -> f64 {
        let drops = i32::try_from(plateau.drops).unwrap_or(i32::MAX);
        (base * self.factor.powi(drops)).max(self.min_lr.min(base))
    }

    /// Takes in how an epoch was judged.
    pub(super) fn judged(&self, plateau: &mut Plateau, test: &TestMetrics) {
        let (value, is_better): (f64, fn(f64, f64, f64) -> bool) = match self.monitor {
            Monitor::Loss => (test.loss, |value, best, threshold| value < best * (1.0 - threshold)),
            Monitor::Accuracy => (test.accuracy, |value, best, threshold| value > best * (1.0 + threshold)),
        };
        if plateau.best.is_none_or(|best| is_better(value, best, self.threshold)) {
            (plateau.best, plateau.waited) = (Some(value), 0);
        } else {
            plateau.waited += 1;
        }
        if plateau.waited > self.patience {
            (plateau.waited, plateau.drops) = (0, plateau.drops.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_pytorchs() {
        // ReduceLROnPlateau(mode, factor=0.5, patience=1, min_lr=0.06), stepped with these values
        let losses = [1.0, 0.8, 0.79999, 0.81, 0.5, 0.6, 0.5, 0.5, 0.7, 0.7];
        let accuracies = [0.5, 0.6, 0.60001, 0.55, 0.7, 0.7, 0.7, 0.7, 0.7, 0.71];
        let expected = [0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1, 0.1, 0.06, 0.06];
        for (monitor, values) in [(Monitor::Loss, losses), (Monitor::Accuracy, accuracies)] {
            let config = PlateauConfig { factor: 0.5, patience: 1, min_lr: 0.06, monitor, ..PlateauConfig::default() };
            let mut plateau = Plateau::default();
            let rates = values.map(|value| {
                let (loss, accuracy) = if monitor == Monitor::Loss { (value, 0.5) } else { (1.0, value) };
                config.judged(&mut plateau, &TestMetrics { loss, accuracy });
                config.lowered(0.4, &plateau)
            });
            assert_eq!(rates, expected, "{monitor:?}");
        }
    }
}
