//! What a person sees while something runs: bars and lines on standard error that do not garble one another.
use crate::signals;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use striate_torch::Shown;
use striate_train::{Event, Listener, TrainError};
use tracing::{Level, Span, info_span};
use tracing_indicatif::span_ext::IndicatifSpanExt;
use tracing_indicatif::{IndicatifLayer, TickSettings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Log lines go to standard error above the bars. `STRIATE_LOG` chooses which, such as
/// `warn,striate=debug`; by default warnings, and what `striate` says.
pub(crate) fn start_logging() {
    // Bars are drawn when something changes: a thread for each, which indicatif would start, panics where the system refuses it.
    let ticks = TickSettings { default_tick_interval: None, ..TickSettings::default() };
    let bars = IndicatifLayer::new().with_tick_settings(ticks);
    let lines = fmt::layer()
        // The message is the only field that is used.
        .fmt_fields(debug_fn(|writer, _, value| write!(writer, "{}", Shown(format_args!("{value:?}")))))
        .with_writer(bars.get_stderr_writer())
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .log_internal_errors(false)
        .with_target(false);
    tracing_subscriber::registry().with(filter()).with(lines).with(bars).init();
}

/// Which log lines are told.
pub(crate) fn filter() -> Targets {
    let default = || Targets::new().with_default(Level::WARN).with_target("striate", Level::INFO);
    let asked = std::env::var("STRIATE_LOG").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or_else(default)
}

/// How often a long epoch is told of where no bar is seen.
const PULSE: Duration = Duration::from_secs(60);

/// A bar over the steps of each epoch, and a line after it. Where standard error is no terminal, a line now and then stands for
/// the bar.
pub(crate) struct EpochBars {
    epochs: u64,
    steps_per_epoch: u64,
    judge: &'static str,
    measure: &'static str,
    bar: Option<Span>,
    /// None on a terminal.
    pulse: Option<Pulse>,
}

/// When and where the epoch began in this process, and when it was told of last.
struct Pulse {
    began: Instant,
    first: Option<u64>,
    told: Instant,
}

impl Pulse {
    fn start() -> Self {
        Self { began: Instant::now(), first: None, told: Instant::now() }
    }

    /// The time that is left of an epoch after a step of it, if it is time to tell of it.
    fn left(&mut self, step: u64, steps: u64) -> Option<Duration> {
        let first = *self.first.get_or_insert(step);
        if self.told.elapsed() < PULSE {
            return None;
        }
        self.told = Instant::now();
        Some(left(self.began.elapsed(), step + 1 - first, steps - step))
    }
}

/// The time that `to_do` steps will take where `done` took `elapsed`.
fn left(elapsed: Duration, done: u64, to_do: u64) -> Duration {
    elapsed.mul_f64(to_do as f64 / done as f64)
}

impl EpochBars {
    pub(crate) fn new() -> Self {
        let pulse = (!std::io::stderr().is_terminal()).then(Pulse::start);
        Self { epochs: 0, steps_per_epoch: 0, judge: "", measure: "", bar: None, pulse }
    }

    fn start(&mut self, epoch: u64, done: u64) {
        self.pulse = self.pulse.as_ref().map(|_| Pulse::start());
        let bar = info_span!("epoch");
        let template = "epoch {msg} [{bar:30}] {pos}/{len} steps, {eta} left";
        bar.pb_set_style(&ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.pb_set_length(self.steps_per_epoch);
        bar.pb_set_position(done);
        bar.pb_set_message(&format!("{}/{}", epoch + 1, self.epochs));
        bar.pb_start();
        self.bar = Some(bar);
    }
}

impl Listener for EpochBars {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::RunStarted { epochs, steps_per_epoch, step, judge, measure } => {
                (self.epochs, self.steps_per_epoch) = (*epochs, *steps_per_epoch);
                (self.judge, self.measure) = (*judge, *measure);
                if *step > 0 {
                    tracing::info!("going on after step {step}");
                }
            }
            Event::EpochStarted { epoch } => self.start(*epoch, 0),
            Event::StepDone { epoch, step, loss, images_per_second, waiting, .. } => {
                let (step, steps) = (step - epoch * self.steps_per_epoch, self.steps_per_epoch);
                let message = || {
                    let pace = pace(*images_per_second, *waiting);
                    format!("{}/{} loss {loss:.4} {pace}", epoch + 1, self.epochs)
                };
                if let Some(pulse) = &mut self.pulse {
                    if let Some(left) = pulse.left(step, steps) {
                        crate::say(&format!("epoch {}, {step}/{steps} steps, {} left", message(), HumanDuration(left)));
                    }
                } else if let Some(bar) = &self.bar {
                    bar.pb_set_position(step);
                    bar.pb_set_message(&message());
                }
            }
            Event::StepSkipped { step, in_a_row, .. } => {
                tracing::warn!("step {step} was left out: its loss or gradients were NaN or infinite ({in_a_row} in a row)");
            }
            Event::RolledBack { failed, step, lr_scale } => {
                tracing::warn!(
                    "step {failed} was NaN or infinite: going back to step {step}, with {lr_scale} of the learning rate"
                );
            }
            #[rustfmt::skip]
            Event::EpochDone {
                epoch, train_loss, train_accuracy, test_loss, test_accuracy, raw, seconds, images_per_second, waiting, ..
            } => {
                self.bar = None;
                let (train, test) = (100.0 * train_accuracy, 100.0 * test_accuracy);
                let measure = self.measure;
                let raw = raw.map_or_else(String::new, |raw| {
                    format!(" (unaveraged: loss {:.4} {measure} {:.2}%)", raw.loss, 100.0 * raw.accuracy)
                });
                let line = format!(
                    "epoch {:>3}/{}  train loss {train_loss:.4} {measure} {train:.2}%  {} loss {test_loss:.4} {measure} {test:.2}%{raw}  {seconds:.1} s, {}",
                    epoch + 1,
                    self.epochs,
                    self.judge,
                    pace(*images_per_second, *waiting)
                );
                tracing_indicatif::suspend_tracing_indicatif(|| crate::say(&line));
            }
            _ => {}
        }
        Ok(())
    }
}

/// How fast images are trained with, and how much of the time goes by without any.
fn pace(images_per_second: f64, waiting: f64) -> String {
    format!("{} images/s, {:.0}% waiting for data", images_per_second.round(), 100.0 * waiting)
}

/// A bar of bytes.
pub(crate) struct Download(ProgressBar);

impl Download {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::no_length();
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Whether to go on.
    pub(crate) fn update(&self, file: &str, done: u64, total: Option<u64>) -> bool {
        if self.0.message() != file {
            self.0.set_message(file.to_owned());
        }
        if let Some(total) = total {
            self.0.set_length(total);
        }
        self.0.set_position(done);
        !signals::stopped()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar over what comes before the first step: downloads, and pictures that are looked at.
pub(crate) struct Work(ProgressBar);

impl Work {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::no_length();
        let template = "{msg} [{bar:30}] {human_pos}/{human_len}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    pub(crate) fn update(&self, what: &str, done: u64, of: Option<u64>) {
        match of {
            Some(of) if done >= of => self.0.finish_and_clear(),
            _ => {
                self.0.set_message(Shown(what).to_string());
                self.0.set_length(of.unwrap_or(done));
                self.0.set_position(done);
            }
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_steps_of_this_process() {
        // A resumed epoch: 10 steps took a minute, 25 are to do.
        assert_eq!(left(Duration::from_secs(60), 10, 25), Duration::from_secs(150));
        let mut pulse = Pulse::start();
        assert_eq!((pulse.left(6, 40), pulse.first), (None, Some(6)), "it is not time yet");
        assert_eq!(pace(1234.5, 0.034), "1235 images/s, 3% waiting for data");
    }
}
