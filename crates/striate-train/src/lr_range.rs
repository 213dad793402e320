//! Which learning rates train: the loss while the rate grows.
use crate::error::check;
use crate::{Curve, Event, Listener, TrainConfig, TrainError, Trainer};
use serde::Serialize;
use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use striate_datasets::Loader;
use striate_graph::Network;

/// The weight of the past in the smoothed loss: about ten steps count.
const MEMORY: f64 = 0.9;
/// The test ends where the smoothed loss is so many times its least value.
const BLOWN_UP: f64 = 4.0;
/// The share of the points at the start that the smoothed loss settles in.
const SETTLING: usize = 10;

/// The rates that are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LrRangeOptions {
    /// The rate of the first step.
    pub from: f64,
    /// The rate of the last step.
    pub to: f64,
    /// About how many steps; whole epochs are taken.
    pub steps: usize,
}

impl Default for LrRangeOptions {
    /// 100 steps from 10⁻⁵ to 10.
    fn default() -> Self {
        Self { from: 1e-5, to: 10.0, steps: 100 }
    }
}

/// A step of the test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LrPoint {
    /// Its number, from 1.
    pub step: u64,
    /// Its learning rate.
    pub lr: f64,
    /// The loss of its batch, before the step.
    pub loss: f64,
    /// The exponential mean of the losses so far, corrected for its start.
    pub smoothed: f64,
}

/// The loss while the learning rate grew.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LrRange {
    /// The steps, until the loss blew up or the last rate was reached.
    pub points: Vec<LrPoint>,
    /// Whether the loss blew up before the last rate.
    pub blew_up: bool,
    /// The rate at which the smoothed loss is least.
    pub lowest: Option<f64>,
    /// The rate at which the smoothed loss falls fastest against the logarithm of the rate. None if it never fell.
    pub suggestion: Option<f64>,
}

/// The learning-rate range test (Smith 2015, arXiv:1506.01186, section 3.3): trains with a rate that grows by equal ratios from step
/// to step, and notes the loss, until that is four times what it was at its least, or no number. `config` says all but
/// the rates and the epochs. The network is changed: take one that is not needed afterwards.
///
/// # Errors
///
/// Rates that cannot be, or loaders that do not fit the network.
pub fn lr_range(
    network: &Network,
    train: &Loader,
    test: &Loader,
    config: &TrainConfig,
    options: LrRangeOptions,
) -> Result<LrRange, TrainError> {
    let LrRangeOptions { from, to, steps } = options;
    let grows = from > 0.0 && to > from && to.is_finite();
    check(grows, "the learning rate", format_args!("{from} to {to}"), "must grow: give two above 0, the larger second")?;
    check(steps > 1, "steps", steps, "must be at least 2")?;
    let config = TrainConfig {
        epochs: steps.div_ceil(train.len()) as u64,
        lr: from,
        schedule: Curve::Exponential { final_factor: to / from }.into(),
        ..config.clone()
    };
    let points = Rc::new(RefCell::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let watch = Watch { points: Rc::clone(&points), stop: Arc::clone(&stop), mean: 0.0, least: f64::INFINITY };
    let mut trainer = Trainer::new(network, train, test, config)?.listener(watch).stop_on(Arc::clone(&stop));
    let diverged = match trainer.run() {
        Ok(_) => false,
        Err(TrainError::Diverged { .. }) => true,
        Err(error) => return Err(error),
    };
    drop(trainer);
    let blew_up = diverged || stop.load(Ordering::Relaxed);
    let points = points.take();
    let (lowest, suggestion) = judge(&points);
    Ok(LrRange { points, blew_up, lowest, suggestion })
}

/// Notes each step, and ends the run where the loss blows up.
struct Watch {
    points: Rc<RefCell<Vec<LrPoint>>>,
    stop: Arc<AtomicBool>,
    mean: f64,
    least: f64,
}

impl Listener for Watch {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        let Event::StepDone { step, loss, lr, .. } = event else { return Ok(()) };
        self.mean = MEMORY * self.mean + (1.0 - MEMORY) * loss;
        let smoothed = self.mean / (1.0 - MEMORY.powf(*step as f64));
        self.points.borrow_mut().push(LrPoint { step: *step, lr: *lr, loss: *loss, smoothed });
        self.least = self.least.min(smoothed);
        if smoothed > BLOWN_UP * self.least {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The rates of the least smoothed loss, and of its steepest fall before that.
fn judge(points: &[LrPoint]) -> (Option<f64>, Option<f64>) {
    let lowest = (0..points.len()).min_by(|a, b| points[*a].smoothed.total_cmp(&points[*b].smoothed));
    let settled = points.len() / SETTLING;
    let slope = |at: usize| {
        let (before, after) = (points[at - 1], points[at + 1]);
        (after.smoothed - before.smoothed) / (after.lr / before.lr).ln()
    };
    let candidates = settled.max(1)..lowest.unwrap_or_default().min(points.len().saturating_sub(1));
    let steepest = candidates.min_by(|a, b| slope(*a).total_cmp(&slope(*b))).filter(|at| slope(*at) < 0.0);
    let rate = |at: usize| points[at].lr;
    (lowest.map(rate), steepest.map(rate))
}

impl LrRange {
    /// The steps as CSV: `step,lr,loss,smoothed`.
    pub fn to_csv(&self) -> String {
        let mut csv = "step,lr,loss,smoothed\n".to_owned();
        for LrPoint { step, lr, loss, smoothed } in &self.points {
            let _ = writeln!(csv, "{step},{lr},{loss},{smoothed}");
        }
        csv
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_datasets::{Fit, LoaderOptions, Normalise, Preprocess, digits};
    use striate_graph::{Graph, InitOptions};
    use striate_layers::{Flatten, Linear};

    fn range(options: LrRangeOptions) -> Result<LrRange, TrainError> {
        let data = digits().unwrap();
        let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Resize, Normalise::of(&data.train).unwrap()).unwrap();
        let test = data.test.range(0..20).unwrap();
        let train = Loader::new(&data.train, preprocess.clone(), LoaderOptions::train(64, 1)).unwrap();
        let test = Loader::new(&test, preprocess, LoaderOptions::eval(20)).unwrap();
        let graph = Graph::build(|net| {
            let x = net.input([1, 8, 8]);
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(10), x)?;
            net.output("logits", x)
        });
        let network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
        lr_range(&network, &train, &test, &TrainConfig::default(), options)
    }

    #[test]
    fn the_rate_grows_by_equal_ratios_until_the_loss_blows_up() {
        // 15 steps an epoch.
        let tested = range(LrRangeOptions { from: 1e-4, to: 1e3, steps: 40 }).unwrap();
        assert!(tested.blew_up && tested.points.len() < 45, "{tested:?}");
        let ratio = 1e7_f64.powf(1.0 / 44.0);
        for pair in tested.points.windows(2) {
            assert!((pair[1].lr / pair[0].lr / ratio - 1.0).abs() < 1e-9);
        }
        assert_eq!((tested.points[0].step, tested.points[0].lr, tested.points[0].smoothed), (1, 1e-4, tested.points[0].loss));
        let (suggestion, lowest) = (tested.suggestion.unwrap(), tested.lowest.unwrap());
        assert!(1e-3 < suggestion && suggestion < lowest && lowest < 100.0, "{suggestion} {lowest}");
        let calm = range(LrRangeOptions { from: 1e-4, to: 1e-2, steps: 15 }).unwrap();
        assert!(!calm.blew_up && calm.points.len() == 15 && (calm.points[14].lr - 1e-2).abs() < 1e-9);
        assert_eq!(calm.to_csv().lines().count(), 16);
    }

    #[test]
    fn the_steepest_fall_before_the_least_loss_is_suggested() {
        let point = |(index, smoothed): (usize, f64)| {
            let step = index as u64 + 1;
            LrPoint { step, lr: 10f64.powi(index as i32 - 5), loss: smoothed, smoothed }
        };
        let points = |losses: &[f64]| losses.iter().copied().enumerate().map(point).collect::<Vec<_>>();
        assert_eq!(judge(&points(&[2.0, 1.9, 1.8, 1.0, 0.5, 0.4, 3.0])), (Some(1.0), Some(1e-2)));
        assert_eq!(judge(&points(&[1.0, 2.0, 3.0])), (Some(1e-5), None));
        assert_eq!(judge(&[]), (None, None));
    }

    #[test]
    fn rates_that_cannot_grow_are_refused() {
        for (from, to) in [(0.0, 1.0), (1.0, 1.0), (1.0, f64::INFINITY), (f64::NAN, 1.0)] {
            let told = range(LrRangeOptions { from, to, steps: 10 }).unwrap_err().to_string();
            assert!(told.ends_with("must grow: give two above 0, the larger second"), "{told}");
        }
        assert!(range(LrRangeOptions { steps: 1, ..LrRangeOptions::default() }).unwrap_err().to_string().contains("steps = 1"));
    }
}
