//! Times of a case by criterion.
use crate::record::Size;
use crate::work::Work;
use crate::{BenchError, Case};
use criterion::{BatchSize, Criterion, SamplingMode};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// At least so many samples; a case that takes seconds is measured as long as that takes.
const SAMPLES: usize = 10;
const WARM_UP: Duration = Duration::from_millis(700);
const MEASURE: Duration = Duration::from_secs(2);

/// What was measured of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds of each of criterion's samples.
    pub ms: Vec<f64>,
    /// Images and operations of one run.
    pub size: Size,
    /// See [`Work::distance`].
    pub distance: Option<f64>,
    /// The peak above the start, and the whole process's, in MiB.
    pub memory: Option<[f64; 2]>,
}

/// Lets criterion measure a case under its id; what it finds lies in its output folder.
pub fn bench(criterion: &mut Criterion, case: &Case, work: &mut Work) -> Result<(), BenchError> {
    let id = case.to_string();
    let (group, name) = id.split_once('/').unwrap_or((&id, ""));
    let mut group = criterion.benchmark_group(group);
    group.sampling_mode(SamplingMode::Flat).sample_size(SAMPLES).warm_up_time(WARM_UP).measurement_time(MEASURE);
    let mut failed = None;
    group.bench_function(name, |bencher| {
        let run = |()| {
            if let Err(error) = work.run() {
                failed.get_or_insert(error);
            }
        };
        bencher.iter_batched(|| (), run, BatchSize::PerIteration);
    });
    group.finish();
    failed.map_or(Ok(()), Err)
}

/// Prepares a case and measures it in this process, which should do nothing else, so that memory is the case's own.
pub fn sample(case: &Case, seed: u64) -> Result<Sample, BenchError> {
    let mut work = Work::prepare(case, seed, None)?;
    let folder = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
    let mut criterion = Criterion::default().without_plots().output_directory(folder.path());
    bench(&mut criterion, case, &mut work)?;
    let ms = times(folder.path())?;
    let size = Size { images: work.images, flops: work.flops };
    Ok(Sample { ms, size, distance: work.distance, memory: work.peak() })
}

/// Criterion's file of raw times.
#[derive(Deserialize)]
struct Raw {
    iters: Vec<f64>,
    /// Nanoseconds.
    times: Vec<f64>,
}

fn times(folder: &Path) -> Result<Vec<f64>, BenchError> {
    let missing = || BenchError::Failed("criterion left no new/sample.json".to_owned());
    let path = find(folder).ok_or_else(missing)?;
    let text = fs::read_to_string(&path).map_err(BenchError::io(format!("read {}", path.display())))?;
    let raw: Raw = serde_json::from_str(&text).map_err(|error| BenchError::Failed(format!("{}: {error}", path.display())))?;
    Ok(raw.times.iter().zip(&raw.iters).map(|(time, iters)| time / iters / 1e6).collect())
}

fn find(folder: &Path) -> Option<std::path::PathBuf> {
    let sample = folder.join("new/sample.json");
    if sample.exists() {
        return Some(sample);
    }
    fs::read_dir(folder).ok()?.filter_map(Result::ok).filter(|entry| entry.path().is_dir()).find_map(|entry| find(&entry.path()))
}
