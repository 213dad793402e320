//! The lines of a results file.
use crate::{BenchError, Case, Spread};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use striate_files::Lines;

/// The name of our own side beside those of peers.
pub const OURS: &str = "striate";

/// A line of `results.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// The first line: what the others have in common.
    Run(Run),
    /// A measurement.
    Row(Box<Row>),
    /// A peer that should have been measured and was not.
    Absent(Absent),
}

impl Record {
    fn line(&self) -> Result<String, BenchError> {
        serde_json::to_string(self).map_err(|error| BenchError::Failed(error.to_string()))
    }
}

/// Where and how it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Seconds since 1970.
    pub time: u64,
    /// The processor's name.
    pub processor: String,
    /// Threads that the processor runs at once.
    pub cores: usize,
    /// The operating system and the architecture.
    pub system: String,
    /// What weights and inputs are drawn from.
    pub seed: u64,
    /// Versions: Striate, libtorch, and what peers told of themselves.
    pub versions: BTreeMap<String, String>,
}

/// The times of one side of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The case's id.
    pub id: String,
    /// The case, field by field.
    #[serde(flatten)]
    pub case: Case,
    /// Who did it: [`OURS`], or a peer.
    pub side: String,
    /// Milliseconds of each sample, in the order in which they were taken.
    pub ms: Vec<f64>,
    /// Their median and quartiles.
    pub spread: Spread,
    /// For a peer, its time over ours of the same round: above 1, ours is faster.
    pub ratio: Option<Spread>,
    /// Images a second by the median.
    pub images_per_second: Option<f64>,
    /// GFLOP/s by the median, the operations counted by their definition: an algorithm that needs fewer reaches more.
    pub gflops: Option<f64>,
    /// GFLOP/s over those of this machine's best matrix product with as many threads.
    pub of_limit: Option<f64>,
    /// Peak resident memory in MiB above what the process had before the first pass.
    pub rise_mib: Option<f64>,
    /// Peak resident memory of the whole process in MiB.
    pub peak_mib: Option<f64>,
    /// How far logits are from those of our network in float32, relative to the largest.
    pub distance: Option<f64>,
}

/// What one run of a case comes to, for rates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Images of one run.
    pub images: Option<u64>,
    /// Floating-point operations of one run.
    pub flops: Option<u64>,
}

impl Row {
    /// A row of these times; `limit` is in GFLOP/s, `memory` is the rise and the peak.
    pub fn new(case: &Case, side: &str, ms: Vec<f64>, size: Size, limit: Option<f64>, memory: Option<[f64; 2]>) -> Self {
        let spread = Spread::of(&ms);
        let gflops = size.flops.map(|flops| flops as f64 / spread.median / 1e6);
        Self {
            id: case.to_string(),
            case: case.clone(),
            side: side.to_owned(),
            ms,
            spread,
            ratio: None,
            images_per_second: size.images.map(|images| 1e3 * images as f64 / spread.median),
            gflops,
            of_limit: gflops.zip(limit).map(|(gflops, limit)| gflops / limit),
            rise_mib: memory.map(|[rise, _]| rise),
            peak_mib: memory.map(|[_, peak]| peak),
            distance: None,
        }
    }
}

/// A peer without times, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Absent {
    /// The case's id.
    pub id: String,
    /// The peer.
    pub side: String,
    /// In one line.
    pub reason: String,
}

/// What a results file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Where and how.
    pub run: Run,
    /// The measurements.
    pub rows: Vec<Row>,
    /// What is missing.
    pub absent: Vec<Absent>,
}

impl Results {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// There is none, or it is no results file: one line that says which line is wrong.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let refuse = |reason: String| BenchError::Usage(format!("{}: {reason}", path.display()));
        let text = striate_files::read_to_string(path)?;
        let (mut run, mut rows, mut absent) = (None, Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let record = serde_json::from_str(line)
                .map_err(|error| refuse(format!("line {} is none of a results.jsonl of this bench ({error})", index + 1)))?;
            match record {
                Record::Run(line) => run = Some(line),
                Record::Row(line) => rows.push(*line),
                Record::Absent(line) => absent.push(line),
            }
        }
        let run = run.ok_or_else(|| refuse("it has no line of a run, so it is no results.jsonl of this bench".to_owned()))?;
        Ok(Self { run, rows, absent })
    }

    /// Writes a file that [`read`](Self::read) reads.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), BenchError> {
        let rows = self.rows.iter().map(|row| Record::Row(row.clone().into()));
        let records =
            [Record::Run(self.run.clone())].into_iter().chain(rows).chain(self.absent.iter().cloned().map(Record::Absent));
        let lines: Result<Vec<String>, BenchError> = records.map(|record| record.line()).collect();
        Ok(striate_files::write_bytes(path, lines?.join("\n") + "\n")?)
    }
}

/// A results file that grows as measurements come.
#[derive(Debug)]
pub(crate) struct Writer(Lines);

impl Writer {
    pub(crate) fn create(path: &Path) -> Result<Self, BenchError> {
        striate_files::write_bytes(path, "")?;
        Ok(Self(Lines::append(path)?.0))
    }

    pub(crate) fn write(&mut self, record: &Record) -> Result<(), BenchError> {
        self.0.write(record.line()?)?;
        Ok(self.0.flush()?)
    }
}

impl Run {
    /// This machine, now.
    pub fn here(seed: u64) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let versions = [("striate", env!("CARGO_PKG_VERSION").to_owned()), ("libtorch", striate_torch::torch_version())];
        Self {
            time: now,
            processor: processor().unwrap_or_else(|| "unknown".to_owned()),
            cores: cores(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            seed,
            versions: versions.map(|(name, version)| (name.to_owned(), version)).into(),
        }
    }
}

/// Threads that this machine runs at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
