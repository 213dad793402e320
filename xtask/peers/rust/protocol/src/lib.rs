//! What the Rust peers of `cargo xtask bench --peers` have in common: a process does a case's work when it is its turn, and answers
//! as crates/striate-bench/src/turns.rs says.

mod networks;
mod shared;

pub use networks::{Layer, network};
pub use shared::{Array, Shared};

use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

/// So small that weights stay what they are.
pub const LR: f64 = 1e-6;
pub const MOMENTUM: f64 = 0.9;

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is to be done.
pub struct Request {
    /// The network's name in Striate's registry.
    pub model: String,
    /// Whether a run is a training step, and not a forward pass.
    pub trains: bool,
    pub threads: i32,
    /// What losses of auxiliary outputs count.
    pub aux_weight: f64,
    /// The `.safetensors` of weights, images, labels and logits.
    pub shared: PathBuf,
}

/// Work that can begin.
pub struct Ready {
    pub run: Box<dyn FnMut() -> Outcome<()>>,
    /// How far the logits are from those of the file, relative to the largest.
    pub distance: f64,
    /// What [`resident_before`] gave before the first pass.
    pub base: Option<f64>,
}

/// Resident memory in MiB, from which on the peak counts.
pub fn resident_before() -> Option<f64> {
    std::fs::write("/proc/self/clear_refs", "5").ok();
    status("VmRSS")
}

/// A figure of this process in MiB.
fn status(key: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Answers on standard output until standard input ends.
pub fn serve(versions: Value, prepare: impl FnOnce(&Request) -> Outcome<Ready>) -> Outcome<()> {
    // Where others panic, the last line that is written is what is told; libtorch's many lines come escaped.
    std::panic::set_hook(Box::new(|panic| {
        let reason = panic.payload_as_str().unwrap_or("it panicked");
        eprintln!("{}", reason.split("\\n").next().unwrap_or_default());
    }));
    let mut lines = std::io::stdin().lock().lines();
    let Some(line) = lines.next() else { return Ok(()) };
    let ready = request(&serde_json::from_str(&line?)?).and_then(|request| prepare(&request));
    let Ready { mut run, distance, base } = match ready {
        Ok(ready) => ready,
        Err(error) => return refuse(&*error),
    };
    say(&json!({"ready": {"distance": distance, "versions": versions}}))?;
    for line in lines {
        let line = line?;
        let Some(repeats) = line.strip_prefix("run ") else {
            let memory = base.zip(status("VmHWM")).map(|(base, peak)| [peak - base, peak]);
            say(&json!({"memory": memory}))?;
            continue;
        };
        let repeats: usize = repeats.parse()?;
        let start = Instant::now();
        for _ in 0..repeats {
            if let Err(error) = run() {
                return refuse(&*error);
            }
        }
        say(&json!({"ms": 1e3 * start.elapsed().as_secs_f64() / repeats as f64}))?;
    }
    Ok(())
}

fn request(line: &Value) -> Outcome<Request> {
    let case = &line["case"];
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("the request lacks something");
    Ok(Request {
        model: text(&case["model"])?,
        trains: case["mode"] == "train",
        threads: i32::try_from(case["threads"].as_i64().unwrap_or(1))?,
        aux_weight: line["aux_weight"].as_f64().unwrap_or(0.0),
        shared: text(&line["shared"])?.into(),
    })
}

fn refuse(error: &dyn Error) -> Outcome<()> {
    say(&json!({"error": error.to_string().lines().next()}))
}

fn say(answer: &Value) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}
