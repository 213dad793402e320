//! Measures cases one by one, each in a process of its own, and writes down what comes.
use crate::case::Mode;
use crate::peers::{Peer, Programs};
use crate::record::{Absent, OURS, Record, Results, Row, Run, Size, Writer};
use crate::turns::{Answer, Request, Side, Turns, take_turns};
use crate::{BenchError, Case, Sample, Spread};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use striate_models::find;
use striate_torch::Precision;

/// What our logits and those of others may differ by, relative to the largest: in float32, and in bfloat16.
const TOLERANCE: [f64; 2] = [1e-3, 0.1];

/// Letters of a reason that are told.
const REASON: usize = 240;

/// How it is measured.
#[derive(Debug)]
pub struct Options {
    /// What weights and inputs are drawn from.
    pub seed: u64,
    /// Turns of each side, where there are peers.
    pub rounds: usize,
    /// Who takes part beside us.
    pub peers: Vec<&'static Peer>,
    /// Where their programs are.
    pub programs: Programs,
}

/// Measures the cases and writes `results.jsonl` into the folder, line by line. Progress goes to standard error.
pub fn measure(cases: &[Case], options: &Options, folder: &Path) -> Result<Results, BenchError> {
    striate_files::create_folder(folder)?;
    let file = folder.join("results.jsonl");
    let mut writer = Writer::create(&file)?;
    let mut measuring = Measuring { options, limits: BTreeMap::new(), versions: BTreeMap::new() };
    writer.write(&Record::Run(Run::here(options.seed)))?;
    // Limits first, since others are held against them.
    let (products, others): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.mode == Mode::Product);
    for (index, case) in products.into_iter().chain(others).enumerate() {
        eprintln!("[{}/{}] {case}", index + 1, cases.len());
        for record in measuring.case(case)? {
            writer.write(&record)?;
        }
    }
    let mut results = Results::read(&file)?;
    // What peers are is known only now: the first line is written again.
    results.run.versions.extend(measuring.versions);
    drop(writer);
    results.write(&file)?;
    Ok(results)
}

struct Measuring<'a> {
    options: &'a Options,
    /// GFLOP/s of the best product by its id.
    limits: BTreeMap<String, f64>,
    versions: BTreeMap<String, String>,
}

impl Measuring<'_> {
    fn case(&mut self, case: &Case) -> Result<Vec<Record>, BenchError> {
        let peers: Vec<&Peer> = self.options.peers.iter().copied().filter(|peer| peer.takes(case)).collect();
        if case.mode == Mode::Product {
            return self.product(case).map(|(row, _)| vec![Record::Row(row.into())]);
        }
        let limit = case.limit().map(|product| self.limit(&product)).transpose()?;
        if !peers.is_empty() {
            return self.in_turns(case, &peers, limit);
        }
        Ok(vec![match self.sampled(case) {
            Ok(sample) => {
                let row = Row::new(case, OURS, sample.ms, sample.size, limit, sample.memory);
                Record::Row(Row { distance: sample.distance, ..row }.into())
            }
            Err(reason) => absent(case, OURS, reason),
        }])
    }

    /// The best of a product's samples, in GFLOP/s.
    fn limit(&mut self, product: &Case) -> Result<f64, BenchError> {
        match self.limits.get(&product.to_string()) {
            Some(limit) => Ok(*limit),
            None => self.product(product).map(|(_, limit)| limit),
        }
    }

    fn product(&mut self, case: &Case) -> Result<(Row, f64), BenchError> {
        let sample = self.sampled(case).map_err(BenchError::Failed)?;
        let best = sample.ms.iter().copied().fold(f64::INFINITY, f64::min);
        let limit = sample.size.flops.unwrap_or(0) as f64 / best / 1e6;
        self.limits.insert(case.to_string(), limit);
        Ok((Row::new(case, OURS, sample.ms, sample.size, Some(limit), sample.memory), limit))
    }

    /// Criterion's samples of a case, taken by this program in another process.
    fn sampled(&self, case: &Case) -> Result<Sample, String> {
        let run = || -> Result<Result<Sample, String>, BenchError> {
            let folder = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
            let answer = folder.path().join("answer.json");
            let log = fs::File::create(folder.path().join("log")).map_err(BenchError::io("write a temporary file"))?;
            let mut command = this_program()?;
            command.arg("sample").arg(case.to_string()).arg(self.options.seed.to_string()).arg(&answer);
            let ran = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).status();
            let status = ran.map_err(BenchError::io("run this program again"))?;
            let text = fs::read_to_string(&answer).ok().and_then(|text| serde_json::from_str(&text).ok());
            Ok(text.ok_or_else(|| {
                let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                log.lines().rfind(|line| !line.trim().is_empty()).map_or_else(|| format!("it ended with {status}"), str::to_owned)
            }))
        };
        run().unwrap_or_else(|error| Err(error.to_string()))
    }

    fn in_turns(&mut self, case: &Case, peers: &[&Peer], limit: Option<f64>) -> Result<Vec<Record>, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
        let mut command = this_program()?;
        command.arg("work");
        // Ours first: it writes what the others read.
        let mut sides = vec![Side::start(OURS, command, folder.path())?];
        let mut records = Vec::new();
        for peer in peers {
            match peer.start(&self.options.programs, case.threads, folder.path()) {
                Ok(side) => sides.push(side),
                Err(error) => records.push(absent(case, peer.name, error.to_string())),
            }
        }
        let tolerance = TOLERANCE[usize::from(case.precision == Precision::Bfloat16)];
        let turns = take_turns(&mut sides, &request(case, self.options.seed, folder.path()), self.options.rounds, tolerance);
        records.splice(0..0, rows(case, turns, limit, &mut self.versions));
        Ok(records)
    }
}

/// What sides are asked to do for a case; what they share goes into `folder`.
pub(crate) fn request(case: &Case, seed: u64, folder: &Path) -> Request {
    let model = find(&case.model).ok();
    Request {
        side: OURS.to_owned(),
        case: case.clone(),
        seed,
        shared: folder.join("shared.safetensors"),
        torchvision: model.and_then(|variant| Some(variant.torchvision.as_ref()?.name.to_owned())),
        aux_weight: model.and_then(|variant| Some(variant.model(&[]).ok()?.aux_weight())).unwrap_or(0.0),
    }
}

/// The rows of what came of the turns: ours, then the peers' with their ratios. The versions that they tell are added.
pub(crate) fn rows(case: &Case, turns: Vec<Turns>, limit: Option<f64>, known: &mut BTreeMap<String, String>) -> Vec<Record> {
    let ours = turns.iter().find(|turns| turns.side == OURS);
    let size = match ours.and_then(|turns| turns.ready.as_ref()) {
        Some(Answer::Ready { size, .. }) => *size,
        _ => Size::default(),
    };
    let our_ms = ours.and_then(|turns| turns.ms.clone().ok());
    let mut records = Vec::new();
    for Turns { side, ready, ms, memory } in turns {
        match ms {
            Ok(ms) => {
                let ratio = our_ms.as_ref().filter(|_| side != OURS).map(|ours| Spread::of_ratios(&ms, ours));
                let mut row = Row { ratio, ..Row::new(case, &side, ms, size, limit, memory) };
                if let Some(Answer::Ready { distance, versions, .. }) = ready {
                    row.distance = distance;
                    known.extend(versions);
                }
                records.push(Record::Row(row.into()));
            }
            Err(reason) => records.push(absent(case, &side, reason)),
        }
    }
    records
}

fn absent(case: &Case, side: &str, reason: String) -> Record {
    let reason = first_line(&reason);
    eprintln!("  {side}: {reason}");
    Record::Absent(Absent { id: case.to_string(), side: side.to_owned(), reason })
}

/// What is told of a reason.
pub(crate) fn first_line(reason: &str) -> String {
    reason.lines().next().unwrap_or_default().chars().take(REASON).collect()
}

pub(crate) fn this_program() -> Result<Command, BenchError> {
    Ok(Command::new(std::env::current_exe().map_err(BenchError::io("find this program"))?))
}
