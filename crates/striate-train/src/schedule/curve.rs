use super::PlateauConfig;
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// The curve that the learning rate follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Curve {
    /// The base rate throughout.
    Constant,
    /// Times `gamma` every `step_size`, as `torch.optim.lr_scheduler.StepLR`.
    Step {
        /// The [unit](super::Unit)s between two drops, counted from the start of the run.
        #[serde(default = "Curve::default_step_size")]
        step_size: f64,
        /// What each drop multiplies by.
        #[serde(default = "Curve::default_gamma")]
        gamma: f64,
    },
    /// Times `gamma` at each of the `milestones`, as `torch.optim.lr_scheduler.MultiStepLR`.
    MultiStep {
        /// [Unit](super::Unit)s, counted from the start of the run.
        #[serde(default)]
        milestones: Vec<f64>,
        /// What each drop multiplies by.
        #[serde(default = "Curve::default_gamma")]
        gamma: f64,
    },
    /// Half a cosine from the base rate after the warmup to `min_lr` at the end, as
    /// `torch.optim.lr_scheduler.CosineAnnealingLR` steps by step.
    Cosine {
        /// The rate at the end.
        #[serde(default)]
        min_lr: f64,
    },
    /// Half a cosine from the base rate to `min_lr`, again and again, as
    /// `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.
    #[serde(rename = "cosine-restarts")]
    CosineRestarts {
        /// The [unit](super::Unit)s of the first cycle.
        #[serde(default = "Curve::default_period")]
        period: f64,
        /// How many times as long as the one before it a cycle is.
        #[serde(default = "Curve::default_mult")]
        mult: f64,
        /// The rate at the end of a cycle.
        #[serde(default)]
        min_lr: f64,
    },
    /// From the base rate after the warmup to `min_lr` at the end by a power of the share that is
    /// left, as `torch.optim.lr_scheduler.PolynomialLR` steps by step.
    Polynomial {
        /// The power; 1 for a line.
        #[serde(default = "Curve::default_power")]
        power: f64,
        /// The rate at the end.
        #[serde(default)]
        min_lr: f64,
    },
    /// The base rate, and less each time that the run gets no better.
    Plateau(PlateauConfig),
    /// From the base rate at the first step to `final_factor` times it at the last, by equal
    /// ratios, as `torch.optim.lr_scheduler.ExponentialLR` steps by step.
    Exponential {
        /// The rate at the end over the base rate; above 1 it rises.
        #[serde(default = "Curve::default_final_factor")]
        final_factor: f64,
    },
    /// Up to the base rate and down again, both half cosines: the rates of
    /// `torch.optim.lr_scheduler.OneCycleLR`, which by default moves the momentum too; here it
    /// stays.
    OneCycle {
        /// The share of the run that rises.
        #[serde(default = "Curve::default_pct_start")]
        pct_start: f64,
        /// The base rate over the rate at the start.
        #[serde(default = "Curve::default_div_factor")]
        div_factor: f64,
        /// The rate at the start over the rate at the end.
        #[serde(default = "Curve::default_final_div_factor")]
        final_div_factor: f64,
    },
}

impl Curve {
    fn default_step_size() -> f64 {
        30.0
    }

    fn default_gamma() -> f64 {
        0.1
    }

    fn default_period() -> f64 {
        10.0
    }

    fn default_mult() -> f64 {
        1.0
    }

    fn default_power() -> f64 {
        1.0
    }

    fn default_final_factor() -> f64 {
        0.01
    }

    fn default_pct_start() -> f64 {
        0.3
    }

    fn default_div_factor() -> f64 {
        25.0
    }

    fn default_final_div_factor() -> f64 {
        1e4
    }

    /// Whether it spans the whole run.
    pub(super) fn depends_on_length(&self) -> bool {
        match self {
            Self::Constant | Self::Step { .. } | Self::MultiStep { .. } | Self::CosineRestarts { .. } | Self::Plateau(_) => false,
            Self::Cosine { .. } | Self::Polynomial { .. } | Self::Exponential { .. } | Self::OneCycle { .. } => true,
        }
    }

    pub(super) fn check(&self) -> Result<(), TrainError> {
        let floor = |min_lr: f64| check(min_lr.is_finite() && min_lr >= 0.0, "schedule.min_lr", min_lr, "must be 0 or larger");
        let positive = |name: &str, value: f64| check(value.is_finite() && value > 0.0, name, value, "must be above 0");
        match self {
            Self::Constant => Ok(()),
            Self::Step { step_size, gamma } => {
                positive("schedule.step_size", *step_size)?;
                positive("schedule.gamma", *gamma)
            }
            Self::MultiStep { milestones, gamma } => {
                let ascending = milestones.iter().all(|m| m.is_finite() && *m >= 0.0) && milestones.is_sorted();
                check(ascending, "schedule.milestones", milestones, "must be 0 or larger, in ascending order")?;
                positive("schedule.gamma", *gamma)
            }
            Self::Cosine { min_lr } => floor(*min_lr),
            Self::CosineRestarts { period, mult, min_lr } => {
                positive("schedule.period", *period)?;
                check(mult.is_finite() && *mult >= 1.0, "schedule.mult", mult, "must be 1 or larger")?;
                floor(*min_lr)
            }
            Self::Polynomial { power, min_lr } => {
                positive("schedule.power", *power)?;
                floor(*min_lr)
            }
            Self::Plateau(plateau) => plateau.check(),
            Self::Exponential { final_factor } => positive("schedule.final_factor", *final_factor),
            Self::OneCycle { pct_start, div_factor, final_div_factor } => {
                check((0.0..=1.0).contains(pct_start), "schedule.pct_start", pct_start, "must be from 0 to 1")?;
                positive("schedule.div_factor", *div_factor)?;
                positive("schedule.final_div_factor", *final_div_factor)
            }
        }
    }

    /// The rate at a place of the run, but for the warm-up.
    pub(super) fn rate(&self, base: f64, Place { step, since, length, unit }: Place) -> f64 {
        let steps = |units: f64| (units * unit).round();
        match self {
            Self::Constant | Self::Plateau(_) => base,
            Self::Step { step_size, gamma } => base * gamma.powf((step / steps(*step_size).max(1.0)).floor()),
            Self::MultiStep { milestones, gamma } => {
                let drops = milestones.iter().filter(|milestone| steps(**milestone) <= step).count();
                base * gamma.powf(drops as f64)
            }
            Self::Cosine { min_lr } => anneal(base, *min_lr, since, length),
            Self::CosineRestarts { period, mult, min_lr } => {
                let (at, cycle) = in_cycle(since, steps(*period).max(1.0), *mult);
                anneal(base, *min_lr, at, cycle)
            }
            Self::Polynomial { power, min_lr } => min_lr + (base - min_lr) * (1.0 - share(since, length)).powf(*power),
            Self::Exponential { final_factor } => base * final_factor.powf((since / (length - 1.0).max(1.0)).min(1.0)),
            Self::OneCycle { pct_start, div_factor, final_div_factor } => {
                let (start, peak) = (base / div_factor, pct_start * length - 1.0);
                if since < peak {
                    anneal(start, base, since, peak)
                } else {
                    anneal(base, start / final_div_factor, since - peak, length - 1.0 - peak)
                }
            }
        }
    }
}

/// A place in a run, in steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Since the start of the run.
    pub(super) step: f64,
    /// Since the end of the warm-up.
    pub(super) since: f64,
    /// From the end of the warm-up to the start of the cool-down.
    pub(super) length: f64,
    /// Steps in a unit of the schedule.
    pub(super) unit: f64,
}

/// Where in its cycle a step is, and how long that cycle is, if the first has `cycle` steps and
/// each other `mult` times as many as the one before it.
fn in_cycle(since: f64, cycle: f64, mult: f64) -> (f64, f64) {
    if mult == 1.0 {
        return (since % cycle, cycle);
    }
    let (mut at, mut cycle) = (since, cycle);
    while at >= cycle {
        at -= cycle;
        cycle *= mult;
    }
    (at, cycle)
}

/// Which share of `length` lies behind `at`, from 0 to 1.
fn share(at: f64, length: f64) -> f64 {
    if length > 0.0 { (at / length).clamp(0.0, 1.0) } else { 1.0 }
}

/// Half a cosine from `from` at 0 to `to` at `length` and beyond.
fn anneal(from: f64, to: f64, at: f64, length: f64) -> f64 {
    to + (from - to) * (1.0 + (PI * share(at, length)).cos()) / 2.0
}
