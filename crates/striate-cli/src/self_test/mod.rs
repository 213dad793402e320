//! `self-test`: whether this machine computes what it should. It checks kernels, networks, graphs and training on the devices that it
//! finds, against float64, libtorch's operators, or known results.
mod compare;
mod graphs;
mod kernels;
mod networks;
mod training;

use crate::error::CliError;
use crate::{print, signals};
use clap::{Args, ValueEnum};
use std::time::Instant;
use striate::devices;
use striate_torch::{Shown, cpu::Level, cuda::set_tf32, torch_version};
use tch::{Cuda, Device};

/// Arguments of `self-test`.
#[derive(Debug, Args)]
pub(crate) struct SelfTestArgs {
    /// Comma-separated devices, such as cpu or cuda:0 [default: cpu and every graphics card]
    #[arg(long, value_name = "DEVICES", value_delimiter = ',')]
    devices: Vec<String>,
    /// Comma-separated parts [default: all]
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_enum)]
    parts: Vec<Part>,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Each kernel against float64
    Kernels,
    /// Networks and plans against float64, and devices against each other
    Parity,
    /// Recorded steps and plans against the same work step by step
    Graphs,
    /// Training to a known accuracy, and resuming
    Train,
    /// An export against the network
    Export,
}

/// One thing to check.
struct Check {
    part: Part,
    device: Device,
    /// What is compared with what.
    what: String,
    /// How far apart the two may be.
    bound: f64,
    run: Box<dyn FnOnce() -> Result<Found, CliError>>,
}

/// What came of a check.
enum Found {
    /// How far apart the two are: mostly the largest difference, as a share of the largest value.
    Apart(f64),
    /// There is nothing to compare here, and why.
    Skipped(&'static str),
}

impl Check {
    fn new(
        (part, device): (Part, Device),
        what: impl Into<String>,
        bound: f64,
        run: impl FnOnce() -> Result<Found, CliError> + 'static,
    ) -> Self {
        Self { part, device, what: what.into(), bound, run: Box::new(run) }
    }
}

/// Runs the checks one by one and prints a line for each.
///
/// # Errors
///
/// A device that is not there, and checks that failed.
pub(crate) fn self_test(args: &SelfTestArgs) -> Result<(), CliError> {
    let devices = if args.devices.is_empty() { all_devices() } else { devices(&args.devices)? };
    let parts = if args.parts.is_empty() { Part::value_variants() } else { &args.parts };
    let (version, level) = (env!("CARGO_PKG_VERSION"), Level::in_use());
    print(&format!("striate {version}, libtorch {}, kernels for {level}\n", torch_version()))?;
    // So that float32 on a graphics card is float32: what TF32 leaves out would hide mistakes.
    set_tf32(false);
    let checks = devices.iter().flat_map(|device| parts.iter().flat_map(|part| checks(*part, *device)));
    tell(checks)
}

fn all_devices() -> Vec<Device> {
    let cards = usize::try_from(Cuda::device_count()).unwrap_or(0);
    [Device::Cpu].into_iter().chain((0..cards).map(Device::Cuda)).collect()
}

fn checks(part: Part, device: Device) -> Vec<Check> {
    match part {
        Part::Kernels => kernels::checks(device),
        Part::Parity => networks::checks(device),
        Part::Graphs => graphs::checks(device),
        Part::Train => training::checks(device),
        Part::Export => training::export_checks(device),
    }
}

/// Runs checks, and prints the table.
fn tell(checks: impl Iterator<Item = Check>) -> Result<(), CliError> {
    let (mut failed, mut done) = (0_usize, 0_usize);
    let begun = Instant::now();
    print(&line(["part", "device", "compared", "worst", "bound", "", "seconds"]))?;
    for check in checks {
        if signals::stopped() {
            return Err(CliError::Stopped("stopped".to_owned()));
        }
        let Check { part, device, what, bound, run } = check;
        let begun = Instant::now();
        let (worst, verdict) = match run() {
            // NaN is no agreement either.
            Ok(Found::Apart(worst)) if worst <= bound => (format!("{worst:.1e}"), "ok".to_owned()),
            Ok(Found::Apart(worst)) => (format!("{worst:.1e}"), "FAIL".to_owned()),
            Ok(Found::Skipped(why)) => ("-".to_owned(), format!("skipped: {why}")),
            Err(error) => ("-".to_owned(), format!("FAIL: {}", Shown(error.to_string()))),
        };
        failed += usize::from(verdict.starts_with("FAIL"));
        done += 1;
        let seconds = format!("{:.2}", begun.elapsed().as_secs_f64());
        let part = part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        print(&line([&part, &name(device), &what, &worst, &format!("{bound:.0e}"), &verdict, &seconds]))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    if failed > 0 {
        return Err(CliError::Failed(format!("{failed} of {done} checks failed")));
    }
    print(&format!("{done} checks passed or were skipped in {seconds:.0} s\n"))
}

fn line([part, device, what, worst, bound, verdict, seconds]: [&str; 7]) -> String {
    format!("{part:8} {device:7} {what:66} {worst:>8} {bound:>6}  {seconds:>7}  {verdict}").trim_end().to_owned() + "\n"
}

fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(bound: f64, found: impl FnOnce() -> Result<Found, CliError> + 'static) -> Check {
        Check::new((Part::Kernels, Device::Cpu), "one with another", bound, found)
    }

    #[test]
    fn a_check_beyond_its_bound_fails_all() {
        let good = || check(1e-3, || Ok(Found::Apart(1e-4)));
        let skipped = || check(1e-3, || Ok(Found::Skipped("there is none")));
        tell([good(), skipped()].into_iter()).unwrap();
        for bad in [
            check(1e-3, || Ok(Found::Apart(1e-2))),
            check(1e-3, || Ok(Found::Apart(f64::NAN))),
            check(1e-3, || Err(CliError::Usage("no memory".to_owned()))),
        ] {
            let error = tell([good(), bad, skipped()].into_iter()).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.exit_code()), ("1 of 3 checks failed", 1));
        }
    }

    #[test]
    fn every_part_checks_something_on_the_cpu() {
        for part in Part::value_variants() {
            assert!(!checks(*part, Device::Cpu).is_empty(), "{part:?}");
        }
    }
}
