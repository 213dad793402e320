//! The learning rate of each step: a function of the step's number and, on a plateau, of how the
//! epochs before it were judged, so that a resumed run needs nothing else.
mod curve;
mod plateau;

pub use self::curve::Curve;
pub use self::plateau::{Monitor, Plateau, PlateauConfig};

use self::curve::Place;
use crate::error::check;
use crate::{TestMetrics, TrainError};
use serde::{Deserialize, Serialize};

/// How the learning rate moves over a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleConfig {
    /// The curve after the warmup.
    #[serde(flatten)]
    pub curve: Curve,
    /// What the lengths in the curve count: `step_size`, `milestones`, `period`.
    #[serde(default)]
    pub unit: Unit,
    /// The epochs, also in part, over which the learning rate first rises linearly; 0 for none.
    #[serde(default)]
    pub warmup_epochs: f64,
    /// The same in steps, in place of epochs.
    #[serde(default)]
    pub warmup_steps: u64,
    /// The share of the learning rate with which the warmup starts.
    #[serde(default = "ScheduleConfig::default_warmup_factor")]
    pub warmup_factor: f64,
    /// The epochs, also in part, at the end of the run that keep the rate which the curve has come
    /// to. A curve over the whole run ends where they begin.
    #[serde(default)]
    pub cooldown_epochs: f64,
}

/// What lengths of a schedule count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Epochs, also in part.
    #[default]
    Epochs,
    /// Steps.
    Steps,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::from(Curve::Constant)
    }
}

impl From<Curve> for ScheduleConfig {
    /// The curve without a warmup.
    fn from(curve: Curve) -> Self {
        Self {
            curve,
            unit: Unit::Epochs,
            warmup_epochs: 0.0,
            warmup_steps: 0,
            warmup_factor: Self::default_warmup_factor(),
            cooldown_epochs: 0.0,
        }
    }
}

impl ScheduleConfig {
    /// Whether the rate of a step depends on how many there will be: then a run cannot be made
    /// longer.
    pub fn depends_on_length(&self) -> bool {
        self.cooldown_epochs > 0.0 || self.curve.depends_on_length()
    }

    /// Warms up and cools down for a share of the time.
    pub fn shorten(&mut self, share: f64) {
        self.warmup_epochs *= share;
        self.warmup_steps = (self.warmup_steps as f64 * share).round() as u64;
        self.cooldown_epochs *= share;
    }

    fn default_warmup_factor() -> f64 {
        0.01
    }

    /// Refuses numbers that can't be, naming them.
    pub fn check(&self) -> Result<(), TrainError> {
        let (epochs, steps) = (self.warmup_epochs, self.warmup_steps);
        check(epochs.is_finite() && epochs >= 0.0, "schedule.warmup_epochs", epochs, "must be 0 or larger")?;
        check(epochs == 0.0 || steps == 0, "schedule.warmup_steps", steps, "excludes warmup_epochs: set one of both")?;
        let factor = self.warmup_factor;
        check((0.0..=1.0).contains(&factor), "schedule.warmup_factor", factor, "must be from 0 to 1")?;
        let epochs = self.cooldown_epochs;
        check(epochs.is_finite() && epochs >= 0.0, "schedule.cooldown_epochs", epochs, "must be 0 or larger")?;
        self.curve.check()
    }

    /// Refuses a run of these epochs if nothing of it would be left between warm-up and cool-down.
    /// Steps are counted where it is known how many an epoch has.
    pub(crate) fn check_length(&self, epochs: u64, steps_per_epoch: Option<u64>) -> Result<(), TrainError> {
        let epochs = epochs as f64;
        let (warmup, cooldown) = (self.warmup_epochs, self.cooldown_epochs);
        check(warmup < epochs, "schedule.warmup_epochs", warmup, "must be less than the run's epochs")?;
        let warmup = warmup + steps_per_epoch.map_or(0.0, |steps| self.warmup_steps as f64 / steps as f64);
        check(warmup < epochs, "schedule.warmup_steps", self.warmup_steps, "must be fewer than the run's steps")?;
        check(
            warmup + cooldown < epochs,
            "schedule.cooldown_epochs",
            cooldown,
            "must, with the warm-up, be less than the run's epochs",
        )
    }

    /// The steps of the warm-up.
    fn warmup(&self, steps_per_epoch: f64) -> f64 {
        self.warmup_steps as f64 + (self.warmup_epochs * steps_per_epoch).round()
    }

    /// The learning rate of a step, counted from 0, in a run of `total_steps`; `base` is the run's
    /// learning rate, after what [`lowered`](Self::lowered) makes of it.
    pub fn lr(&self, base: f64, step: u64, total_steps: u64, steps_per_epoch: u64) -> f64 {
        let (step, total, per_epoch) = (step as f64, total_steps as f64, steps_per_epoch as f64);
        let warmup = self.warmup(per_epoch);
        let end = (total - (self.cooldown_epochs * per_epoch).round()).max(0.0);
        let unit = if self.unit == Unit::Epochs { per_epoch } else { 1.0 };
        let at = step.min(end);
        let rate = self.curve.rate(base, Place { step: at, since: (at - warmup).max(0.0), length: end - warmup, unit });
        if step < warmup { rate * (self.warmup_factor + (1.0 - self.warmup_factor) * step / warmup) } else { rate }
    }

    /// What drops on a plateau have made of a run's learning rate.
    pub fn lowered(&self, base: f64, plateau: &Plateau) -> f64 {
        if let Curve::Plateau(config) = &self.curve { config.lowered(base, plateau) } else { base }
    }

    /// Takes in how an epoch was judged that ended after `steps` of the run. Those of the warm-up
    /// do not count.
    pub fn judged(&self, plateau: &mut Plateau, test: &TestMetrics, steps: u64, steps_per_epoch: u64) {
        if let Curve::Plateau(config) = &self.curve
            && steps as f64 > self.warmup(steps_per_epoch as f64)
        {
            config.judged(plateau, test);
        }
    }
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
        let schedule = ScheduleConfig { warmup_epochs: 4.0, warmup_factor: 0.1, ..Curve::Cosine { min_lr: 0.01 }.into() };
        assert_close(&ten(&schedule), &warm);
        // PolynomialLR(total_iters=10, power=2)
        let polynomial = [0.4, 0.324, 0.256, 0.196, 0.144, 0.1, 0.064, 0.036, 0.016, 0.004];
        assert_close(&ten(&Curve::Polynomial { power: 2.0, min_lr: 0.0 }.into()), &polynomial);
        // CosineAnnealingWarmRestarts(T_0=3, T_mult=2, eta_min=0.01)
        let restarts = [0.4, 0.3025, 0.1075, 0.4, 0.373_874_953_737_965_6, 0.3025, 0.205, 0.1075, 0.036_125_046_262_034_45, 0.4];
        assert_close(&ten(&Curve::CosineRestarts { period: 3.0, mult: 2.0, min_lr: 0.01 }.into()), &restarts);
        // CosineAnnealingWarmRestarts(T_0=4)
        let (high, low) = (0.341_421_356_237_309_5, 0.058_578_643_762_690_51);
        let restarts = [0.4, high, 0.2, low, 0.4, high, 0.2, low, 0.4, high];
        assert_close(&ten(&Curve::CosineRestarts { period: 4.0, mult: 1.0, min_lr: 0.0 }.into()), &restarts);
    }

    #[test]
    fn other_curves_are_timms() {
        // PolyLRScheduler(t_initial=10, power=0.5, lr_min=0.1)
        let polynomial = [
            0.4,
            0.384_604_989_415_154_2,
            0.368_328_157_299_974_8,
            0.350_998_007_960_222_74,
            0.332_379_000_772_445_1,
            0.312_132_034_355_964_3,
            0.289_736_659_610_102_8,
            0.264_316_767_251_549_84,
            0.234_164_078_649_987_4,
            0.194_868_329_805_051_37,
        ];
        assert_close(&ten(&Curve::Polynomial { power: 0.5, min_lr: 0.1 }.into()), &polynomial);
        // CosineLRScheduler(t_initial=6, lr_min=0.1, warmup_t=2, warmup_lr_init=0.04,
        // warmup_prefix=True)
        let cosine = [0.04, 0.22, 0.4, 0.379_903_810_567_665_87, 0.325, 0.25, 0.175, 0.120_096_189_432_334_2, 0.1, 0.1];
        let cooled = ScheduleConfig { cooldown_epochs: 2.0, warmup_factor: 0.1, ..Curve::Cosine { min_lr: 0.1 }.into() };
        assert_close(&ten(&ScheduleConfig { warmup_epochs: 2.0, ..cooled.clone() }), &cosine);
        assert_close(&ten(&ScheduleConfig { warmup_steps: 2, ..cooled }), &cosine);
    }

    #[test]
    fn a_cooldown_keeps_the_rate_that_it_begins_with() {
        let steps = Curve::MultiStep { milestones: vec![2.0, 4.0, 9.0], gamma: 0.5 };
        let schedule = ScheduleConfig { cooldown_epochs: 3.0, ..steps.into() };
        assert_close(&ten(&schedule), &[0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]);
    }

    #[test]
    fn epochs_become_steps() {
        let schedule = ScheduleConfig::from(Curve::MultiStep { milestones: vec![1.5], gamma: 0.1 });
        assert_eq!([14, 15].map(|step| schedule.lr(1.0, step, 40, 10)), [1.0, 0.1]);
        let schedule = ScheduleConfig { unit: Unit::Steps, ..Curve::MultiStep { milestones: vec![15.0], gamma: 0.1 }.into() };
        assert_eq!([14, 15].map(|step| schedule.lr(1.0, step, 40, 10)), [1.0, 0.1]);
    }

    #[test]
    fn a_plateau_lowers_the_rate_once_the_warmup_is_over() {
        let config = PlateauConfig { patience: 0, factor: 0.5, ..PlateauConfig::default() };
        let schedule = ScheduleConfig { warmup_epochs: 2.0, warmup_factor: 0.0, ..Curve::Plateau(config).into() };
        let mut plateau = Plateau::default();
        let mut rates = Vec::new();
        for epoch in 0..6 {
            rates.push(schedule.lr(schedule.lowered(0.4, &plateau), epoch * 10, 60, 10));
            schedule.judged(&mut plateau, &TestMetrics { loss: 1.0, accuracy: 0.5 }, (epoch + 1) * 10, 10);
        }
        assert_eq!(rates, [0.0, 0.2, 0.4, 0.4, 0.2, 0.1]);
    }

    #[test]
    fn only_what_spans_the_run_depends_on_its_length() {
        let depends = |text: &str| serde_json::from_str::<ScheduleConfig>(text).unwrap().depends_on_length();
        for kind in ["constant", "step", "multistep", "cosine-restarts", "plateau"] {
            assert!(!depends(&format!(r#"{{"kind": "{kind}", "warmup_epochs": 2}}"#)), "{kind}");
            assert!(depends(&format!(r#"{{"kind": "{kind}", "cooldown_epochs": 2}}"#)), "{kind}");
        }
        for kind in ["cosine", "polynomial", "exponential", "onecycle"] {
            assert!(depends(&format!(r#"{{"kind": "{kind}"}}"#)), "{kind}");
        }
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
            (Curve::Polynomial { power: 0.0, min_lr: 0.0 }.into(), "schedule.power = 0.0"),
            (Curve::CosineRestarts { period: 5.0, mult: 0.5, min_lr: 0.0 }.into(), "schedule.mult = 0.5"),
            (Curve::Plateau(PlateauConfig { factor: 1.0, ..Default::default() }).into(), "schedule.factor = 1.0"),
            (ScheduleConfig { cooldown_epochs: f64::NAN, ..Default::default() }, "schedule.cooldown_epochs = NaN"),
            (ScheduleConfig { warmup_steps: 3, warmup_epochs: 1.0, ..Default::default() }, "schedule.warmup_steps = 3 excludes"),
        ];
        for (schedule, message) in bad {
            let error = schedule.check().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_run_is_longer_than_its_warmup_and_cooldown() {
        let schedule = ScheduleConfig { warmup_steps: 20, cooldown_epochs: 2.0, ..Default::default() };
        let told = |epochs, steps| schedule.check_length(epochs, steps).unwrap_err().to_string();
        assert!(told(2, None).starts_with("schedule.cooldown_epochs = 2.0 must, with the warm-up,"));
        assert!(told(4, Some(10)).starts_with("schedule.cooldown_epochs = 2.0 must, with the warm-up,"));
        assert!(told(2, Some(10)).starts_with("schedule.warmup_steps = 20 must be fewer"));
        schedule.check_length(5, Some(10)).unwrap();
    }

    fn curves() -> impl Strategy<Value = Curve> {
        prop_oneof![
            Just(Curve::Constant),
            (0.1..5.0).prop_map(|step_size| Curve::Step { step_size, gamma: 0.1 }),
            (0.0..0.4).prop_map(|min_lr| Curve::Cosine { min_lr }),
            (0.1..5.0, 1.0..3.0, 0.0..0.4).prop_map(|(period, mult, min_lr)| Curve::CosineRestarts { period, mult, min_lr }),
            (0.1..3.0, 0.0..0.4).prop_map(|(power, min_lr)| Curve::Polynomial { power, min_lr }),
            (0.0..=1.0).prop_map(|pct_start| Curve::OneCycle { pct_start, div_factor: 25.0, final_div_factor: 1e4 }),
        ]
    }

    proptest! {
        #[test]
        fn rates_stay_between_zero_and_the_base(curve in curves(), warmup in 0.0..3.0, cooldown in 0.0..3.0, epochs in 1_u64..6,
            per_epoch in 1_u64..9) {
            let schedule =
                ScheduleConfig { warmup_epochs: warmup, warmup_factor: 0.1, cooldown_epochs: cooldown, ..curve.into() };
            for step in 0..=epochs * per_epoch {
                let lr = schedule.lr(0.4, step, epochs * per_epoch, per_epoch);
                prop_assert!((0.0..=0.4 + 1e-12).contains(&lr), "{lr} at {step}");
            }
        }

        #[test]
        fn the_warmup_rises_evenly_into_the_curve(warmup in 1_u64..5, per_epoch in 1_u64..9, factor in 0.0..1.0) {
            let curve = Curve::Cosine { min_lr: 0.0 };
            let schedule = ScheduleConfig { warmup_epochs: warmup as f64, warmup_factor: factor, ..curve.into() };
            let lr = |step| schedule.lr(1.0, step, 10 * per_epoch, per_epoch);
            let rise = (1.0 - factor) / (warmup * per_epoch) as f64;
            for step in 0..warmup * per_epoch {
                prop_assert!((lr(step + 1) - lr(step) - rise).abs() < 1e-12, "{} to {}", lr(step), lr(step + 1));
            }
        }

        #[test]
        fn a_cosine_ends_at_its_floor(min_lr in 0.0..0.4, warmup in 0.0..1.0, steps in 2_u64..50) {
            let schedule =
                ScheduleConfig { warmup_epochs: warmup, warmup_factor: 0.1, ..Curve::Cosine { min_lr }.into() };
            prop_assert!((schedule.lr(0.4, steps, steps, 1) - min_lr).abs() < 1e-12);
        }
    }
}
