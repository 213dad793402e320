//! The learning rate of each step: a pure function of the step's number, so that a resumed run needs nothing of it.
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate moves over a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleConfig {
    /// The curve after the warmup.
    #[serde(flatten)]
    pub curve: Curve,
    /// The epochs, also in part, over which the learning rate first rises linearly; 0 for none.
    #[serde(default)]
    pub warmup_epochs: f64,
    /// The share of the learning rate with which the warmup starts.
    #[serde(default = "ScheduleConfig::default_warmup_factor")]
    pub warmup_factor: f64,
}

/// The curve that the learning rate follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Curve {
    /// The base rate throughout.
    Constant,
    /// Times `gamma` every `step_size` epochs, as `torch.optim.lr_scheduler.StepLR`.
    Step {
        /// Epochs between two drops, counted from the start of the run.
        #[serde(default = "Curve::default_step_size")]
        step_size: f64,
        /// What each drop multiplies by.
        #[serde(default = "Curve::default_gamma")]
        gamma: f64,
    },
    /// Times `gamma` at each of the `milestones`, as `torch.optim.lr_scheduler.MultiStepLR`.
    MultiStep {
        /// Epochs, counted from the start of the run.
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
    /// From the base rate at the first step to `final_factor` times it at the last, by equal ratios, as
    /// `torch.optim.lr_scheduler.ExponentialLR` steps by step.
    Exponential {
        /// The rate at the end over the base rate; above 1 it rises.
        #[serde(default = "Curve::default_final_factor")]
        final_factor: f64,
    },
    /// Up to the base rate and down again, both half cosines: the rates of `torch.optim.lr_scheduler.OneCycleLR`,
    /// which by default moves the momentum too; here it stays.
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

    fn check(&self) -> Result<(), TrainError> {
        let positive = |name: &str, value: f64| check(value.is_finite() && value > 0.0, name, value, "must be above 0");
        match self {
            Self::Constant => Ok(()),
            Self::Step { step_size, gamma } => {
                positive("schedule.step_size", *step_size)?;
                positive("schedule.gamma", *gamma)
            }
            Self::MultiStep { milestones, gamma } => {
                let ascending = milestones.iter().all(|m| m.is_finite() && *m >= 0.0) && milestones.is_sorted();
                check(ascending, "schedule.milestones", milestones, "must be epochs in ascending order")?;
                positive("schedule.gamma", *gamma)
            }
            Self::Cosine { min_lr } => {
                check(min_lr.is_finite() && *min_lr >= 0.0, "schedule.min_lr", min_lr, "must be 0 or larger")
            }
            Self::Exponential { final_factor } => positive("schedule.final_factor", *final_factor),
            Self::OneCycle { pct_start, div_factor, final_div_factor } => {
                check((0.0..=1.0).contains(pct_start), "schedule.pct_start", pct_start, "must be from 0 to 1")?;
                positive("schedule.div_factor", *div_factor)?;
                positive("schedule.final_div_factor", *final_div_factor)
            }
        }
    }
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::from(Curve::Constant)
    }
}

impl From<Curve> for ScheduleConfig {
    /// The curve without a warmup.
    fn from(curve: Curve) -> Self {
        Self { curve, warmup_epochs: 0.0, warmup_factor: Self::default_warmup_factor() }
    }
}

impl ScheduleConfig {
    /// Whether the rate of a step depends on how many there will be: then a run cannot be made longer.
    pub fn depends_on_length(&self) -> bool {
        match self.curve {
            Curve::Constant | Curve::Step { .. } | Curve::MultiStep { .. } => false,
            Curve::Cosine { .. } | Curve::Exponential { .. } | Curve::OneCycle { .. } => true,
        }
    }

    fn default_warmup_factor() -> f64 {
        0.01
    }

    /// Refuses numbers that can't be, naming them.
    pub fn check(&self) -> Result<(), TrainError> {
        let epochs = self.warmup_epochs;
        check(epochs.is_finite() && epochs >= 0.0, "schedule.warmup_epochs", epochs, "must be 0 or larger")?;
        let factor = self.warmup_factor;
        check((0.0..=1.0).contains(&factor), "schedule.warmup_factor", factor, "must be from 0 to 1")?;
        self.curve.check()
    }

    /// The learning rate of a step, counted from 0, in a run of `total_steps`; `base` is the run's learning rate.
    pub fn lr(&self, base: f64, step: u64, total_steps: u64, steps_per_epoch: u64) -> f64 {
        let (step, total, per_epoch) = (step as f64, total_steps as f64, steps_per_epoch as f64);
        let warmup = (self.warmup_epochs * per_epoch).round();
        let since = (step - warmup).max(0.0);
        let length = total - warmup;
        let rate = match &self.curve {
            Curve::Constant => base,
            Curve::Step { step_size, gamma } => {
                let drops = (step / (step_size * per_epoch).round().max(1.0)).floor();
                base * gamma.powf(drops)
            }
            Curve::MultiStep { milestones, gamma } => {
                let drops = milestones.iter().filter(|epoch| (*epoch * per_epoch).round() <= step).count();
                base * gamma.powf(drops as f64)
            }
            Curve::Cosine { min_lr } => anneal(base, *min_lr, since, length),
            Curve::Exponential { final_factor } => base * final_factor.powf((since / (length - 1.0).max(1.0)).min(1.0)),
            Curve::OneCycle { pct_start, div_factor, final_div_factor } => {
                let (start, peak) = (base / div_factor, pct_start * length - 1.0);
                if since < peak {
                    anneal(start, base, since, peak)
                } else {
                    anneal(base, start / final_div_factor, since - peak, length - 1.0 - peak)
                }
            }
        };
        if step < warmup { rate * (self.warmup_factor + (1.0 - self.warmup_factor) * step / warmup) } else { rate }
    }
}

/// Half a cosine from `from` at 0 to `to` at `length` and beyond.
fn anneal(from: f64, to: f64, at: f64, length: f64) -> f64 {
    let share = if length > 0.0 { (at / length).clamp(0.0, 1.0) } else { 1.0 };
    to + (from - to) * (1.0 + (PI * share).cos()) / 2.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rates of ten steps, one an epoch, at a base rate of 0.4.
    fn ten(schedule: &ScheduleConfig) -> Vec<f64> {
        (0..10).map(|step| schedule.lr(0.4, step, 10, 1)).collect()
    }

    fn assert_close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        let close = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close, "{got:?} {expected:?}");
    }

    #[test]
    fn the_curves_are_pytorchs() {
        // StepLR(step_size=4, gamma=0.5)
        assert_close(
            &ten(&Curve::Step { step_size: 4.0, gamma: 0.5 }.into()),
            &[0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1],
        );
        // MultiStepLR(milestones=[3, 6])
        assert_close(
            &ten(&Curve::MultiStep { milestones: vec![3.0, 6.0], gamma: 0.1 }.into()),
            &[0.4, 0.4, 0.4, 0.04, 0.04, 0.04, 0.004, 0.004, 0.004, 0.004],
        );
        // CosineAnnealingLR(T_max=10, eta_min=0.01)
        let cosine = [
            0.4,
            0.390_456_020_677_554_97,
            0.362_758_313_903_114_75,
            0.319_618_124_197_023_2,
            0.265_258_313_903_114_8,
            0.205,
            0.144_741_686_096_885_26,
            0.090_381_875_802_967_77,
            0.047_241_686_096_885_276,
            0.019_543_979_322_445_063,
        ];
        assert_close(&ten(&Curve::Cosine { min_lr: 0.01 }.into()), &cosine);
        // ExponentialLR(gamma=2)
        let doubled = [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8];
        assert_close(&ten(&Curve::Exponential { final_factor: 512.0 }.into()), &doubled);
        // OneCycleLR(max_lr=0.4, total_steps=10)
        let one_cycle = [
            0.016,
            0.208,
            0.4,
            0.380_193_852_805_389_53,
            0.324_698_261_579_905_2,
            0.244_504_808_774_515_72,
            0.155_496_791_225_484_3,
            0.075_303_338_420_094_8,
            0.019_807_747_194_610_516,
            1.6e-6,
        ];
        let curve: Curve = serde_json::from_str(r#"{"kind": "onecycle"}"#).unwrap();
        assert_close(&ten(&curve.into()), &one_cycle);
        // SequentialLR of LinearLR(0.1, total_iters=4) and CosineAnnealingLR(T_max=6, eta_min=0.01)
        let warm = [0.04, 0.13, 0.22, 0.31, 0.4, 0.373_874_953_737_965_6, 0.3025, 0.205, 0.1075, 0.036_125_046_262_034_45];
        let schedule = ScheduleConfig { curve: Curve::Cosine { min_lr: 0.01 }, warmup_epochs: 4.0, warmup_factor: 0.1 };
        assert_close(&ten(&schedule), &warm);
    }

    #[test]
    fn epochs_become_steps() {
        let schedule = ScheduleConfig::from(Curve::MultiStep { milestones: vec![1.5], gamma: 0.1 });
        assert_eq!([14, 15].map(|step| schedule.lr(1.0, step, 40, 10)), [1.0, 0.1]);
    }

    #[test]
    fn numbers_that_cannot_be_are_named() {
        let bad = [
            (ScheduleConfig { warmup_epochs: -1.0, ..Default::default() }, "schedule.warmup_epochs = -1.0"),
            (ScheduleConfig { warmup_factor: 2.0, ..Default::default() }, "schedule.warmup_factor = 2.0"),
            (Curve::Step { step_size: 0.0, gamma: 0.1 }.into(), "schedule.step_size = 0.0"),
            (Curve::MultiStep { milestones: vec![3.0, 1.0], gamma: 0.1 }.into(), "schedule.milestones = [3.0, 1.0]"),
            (Curve::Exponential { final_factor: 0.0 }.into(), "schedule.final_factor = 0.0"),
            (Curve::Cosine { min_lr: f64::NAN }.into(), "schedule.min_lr = NaN"),
        ];
        for (schedule, message) in bad {
            let error = schedule.check().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    fn curves() -> impl Strategy<Value = Curve> {
        prop_oneof![
            Just(Curve::Constant),
            (0.1..5.0).prop_map(|step_size| Curve::Step { step_size, gamma: 0.1 }),
            (0.0..0.4).prop_map(|min_lr| Curve::Cosine { min_lr }),
            (0.0..=1.0).prop_map(|pct_start| Curve::OneCycle { pct_start, div_factor: 25.0, final_div_factor: 1e4 }),
        ]
    }

    proptest! {
        #[test]
        fn rates_stay_between_zero_and_the_base(curve in curves(), warmup in 0.0..3.0, epochs in 1_u64..6, per_epoch in 1_u64..9) {
            let schedule = ScheduleConfig { curve, warmup_epochs: warmup, warmup_factor: 0.1 };
            for step in 0..=epochs * per_epoch {
                let lr = schedule.lr(0.4, step, epochs * per_epoch, per_epoch);
                prop_assert!((0.0..=0.4 + 1e-12).contains(&lr), "{lr} at {step}");
            }
        }

        #[test]
        fn the_warmup_rises_evenly_into_the_curve(warmup in 1_u64..5, per_epoch in 1_u64..9, factor in 0.0..1.0) {
            let curve = Curve::Cosine { min_lr: 0.0 };
            let schedule = ScheduleConfig { curve, warmup_epochs: warmup as f64, warmup_factor: factor };
            let lr = |step| schedule.lr(1.0, step, 10 * per_epoch, per_epoch);
            let rise = (1.0 - factor) / (warmup * per_epoch) as f64;
            for step in 0..warmup * per_epoch {
                prop_assert!((lr(step + 1) - lr(step) - rise).abs() < 1e-12, "{} to {}", lr(step), lr(step + 1));
            }
        }

        #[test]
        fn a_cosine_ends_at_its_floor(min_lr in 0.0..0.4, warmup in 0.0..1.0, steps in 2_u64..50) {
            let schedule = ScheduleConfig { curve: Curve::Cosine { min_lr }, warmup_epochs: warmup, warmup_factor: 0.1 };
            prop_assert!((schedule.lr(0.4, steps, steps, 1) - min_lr).abs() < 1e-12);
        }
    }
}
