//! What an experiment is given: a scale, seeds, data, and a memory of what was measured before.
use crate::report::{self, OnData};
use crate::trials::Trials;
use crate::verdict::Check;
use crate::{Claim, LabError, Scale, Verdict};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use striate::SET_APART;
use striate::data::{Data, FOLDER};
use striate_datasets::{Split, find, source_files};
use striate_train::DataSection;
use striate_train::distributed::{Queue, Taken};
use time::OffsetDateTime;

/// The dataset that experiments train on unless told otherwise.
pub const DEFAULT_DATA: &str = "fashion-mnist";
/// The outcome, in a claim's folder.
const OUTCOME: &str = "outcome.json";

/// How experiments are run.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// How much they spend.
    pub scale: Scale,
    /// How many seeds each takes; by default as many as the claim says.
    pub seeds: Option<usize>,
    /// The first of them; the others follow it.
    pub first_seed: u64,
    /// What to train on, as in a recipe: a dataset of the catalogue, or a folder of pictures.
    pub data: DataSection,
    /// Where results go, a folder to each claim. Those on other data than [`DEFAULT_DATA`] lie in folders with the data's name in it.
    pub out: PathBuf,
    /// Ends the run after the measurement under way, with [`LabError::Stopped`].
    pub stop: Arc<AtomicBool>,
    /// Shares the measurements out among the processes of a queue, which all run the same claims and see the same folder.
    pub queue: Queue,
}

impl LabOptions {
    /// A quick run of the claim's own number of seeds on [`DEFAULT_DATA`], with results in `out`.
    pub fn quick(out: PathBuf) -> Self {
        Self {
            scale: Scale::Quick,
            seeds: None,
            first_seed: 0,
            data: DataSection { name: DEFAULT_DATA.to_owned(), ..DataSection::default() },
            out,
            stop: Arc::default(),
            queue: Queue::default(),
        }
    }
}

/// A claim's outcome, as it lies in the claim's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The claim's name.
    pub claim: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What it rests on.
    pub checks: Vec<Check>,
    /// What else is worth knowing.
    pub remarks: String,
    /// How much was spent.
    pub scale: Scale,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The dataset, for claims that train.
    pub data: String,
    /// Threads of one operator.
    pub threads: usize,
    /// The processor.
    pub machine: String,
    /// The day, such as `2026-01-31` (UTC).
    pub date: String,
    /// Time that the last run took; what had been measured before is not in it.
    pub seconds: f64,
}

/// A run of one experiment.
#[derive(Debug)]
pub struct Lab {
    options: LabOptions,
    claim: &'static Claim,
    trials: Trials,
    /// Whether what another process measures now can be asked for later.
    can_wait: bool,
    data_name: String,
    data: HashMap<(i64, usize, usize), Rc<Split>>,
}

impl Lab {
    /// How much is to be spent.
    pub fn scale(&self) -> Scale {
        self.options.scale
    }

    /// The seeds to measure with.
    pub fn seeds(&self) -> Vec<u64> {
        seeds(self.claim, &self.options)
    }

    /// The result of `measure`, or the one that was kept from an earlier run with the same `settings`: all that decides the
    /// result must be in them.
    pub fn trial<T: Serialize + DeserializeOwned>(
        &mut self,
        settings: Value,
        measure: impl FnOnce(&mut Self) -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        if let Some(known) = self.trials.find(&settings) {
            return Ok(known);
        }
        let queue = self.options.queue.clone();
        let key = format!("{}/{settings}", self.claim.name);
        let unreadable = |error: serde_json::Error| LabError::Usage(format!("{}: {error}", self.claim.name));
        loop {
            match queue.take(&key)? {
                Taken::Done(result) => return serde_json::from_slice(&result).map_err(unreadable),
                Taken::Elsewhere if self.can_wait => return Err(LabError::Elsewhere),
                _ if self.options.stop.load(Ordering::Relaxed) => return Err(LabError::Stopped),
                Taken::Elsewhere => queue.pause(),
                Taken::Mine(turn) => {
                    let started = Instant::now();
                    let result = measure(self)?;
                    self.trials.keep(settings.clone(), &result)?;
                    turn.done(&serde_json::to_vec(&result).map_err(unreadable)?)?;
                    let about = settings["what"].as_str().unwrap_or_default();
                    tracing::info!("{}: {about} ({:.1} s)", self.claim.name, started.elapsed().as_secs_f64());
                    return Ok(result);
                }
            }
        }
    }

    /// What `measure` gives for each item. What other processes measure at the time is asked for again later.
    pub(crate) fn each<I: Copy, T>(
        &mut self,
        items: &[I],
        mut measure: impl FnMut(&mut Self, I) -> Result<T, LabError>,
    ) -> Result<Vec<T>, LabError> {
        let mut results: Vec<Option<T>> = items.iter().map(|_| None).collect();
        while results.iter().any(Option::is_none) {
            for (item, result) in items.iter().zip(&mut results).filter(|(_, result)| result.is_none()) {
                self.can_wait = true;
                let measured = measure(self, *item);
                self.can_wait = false;
                *result = match measured {
                    Err(LabError::Elsewhere) => None,
                    measured => Some(measured?),
                };
            }
            if results.iter().any(Option::is_none) {
                if self.options.stop.load(Ordering::Relaxed) {
                    return Err(LabError::Stopped);
                }
                self.options.queue.pause();
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// What tells the data from all other: a dataset's name, or a folder's with a digest of what is in it.
    pub(crate) fn data_name(&self) -> &str {
        &self.data_name
    }

    /// The flag that ends the run.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.options.stop)
    }

    /// So many images to train and to test with, or as many as there are, `size` pixels high and wide: see [`Data::sample`].
    pub fn data(&mut self, size: i64, train: usize, test: usize) -> Result<Rc<Split>, LabError> {
        if let Some(split) = self.data.get(&(size, train, test)) {
            return Ok(Rc::clone(split));
        }
        let stop = self.stop();
        let mut go_on = |_: &str, _: u64, _: Option<u64>| !stop.load(Ordering::Relaxed);
        let section = &self.options.data;
        let data = match Data::open(section, &mut go_on)?.to_train(section, 0, &mut go_on) {
            // A folder without parts.
            Err(striate::Error::NothingToJudgeBy { .. }) => {
                let section = DataSection { split: SET_APART, ..section.clone() };
                Data::open(&section, &mut go_on)?.to_train(&section, 0, &mut go_on)
            }
            data => data,
        };
        let split = Rc::new(data?.sample(size, train, test)?);
        self.data.insert((size, train, test), Rc::clone(&split));
        Ok(split)
    }
}

/// A name of the data under which what was measured on it is found again. Of files it holds a digest of names and lengths.
fn data_name(section: &DataSection) -> Result<String, LabError> {
    if section.name != FOLDER {
        // A claim that takes no data must not hide a mistyped name.
        return Ok(find(&section.name)?.name.to_owned());
    }
    let mut digest = Sha256::new();
    for path in source_files(&section.dir)? {
        let length = path.metadata().map_or(0, |file| file.len());
        digest.update(path.strip_prefix(&section.dir).unwrap_or(&path).as_os_str().as_encoded_bytes());
        digest.update(length.to_le_bytes());
    }
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}, {digest}", shown_name(section)))
}

/// The data's name for people.
fn shown_name(section: &DataSection) -> String {
    match section.dir.file_name() {
        Some(name) if section.name == FOLDER => name.to_string_lossy().into_owned(),
        _ => section.name.clone(),
    }
}

fn seeds(claim: &Claim, options: &LabOptions) -> Vec<u64> {
    let count = if claim.is_exact() { 0 } else { options.seeds.unwrap_or(options.scale.pick(claim.seeds)) };
    (0..count as u64).map(|seed| options.first_seed + seed).collect()
}

/// Puts a claim to the test and writes into the folder `<out>/<claim>`, or `<out>/<claim>/<data>` with other data than [`DEFAULT_DATA`]:
/// `trials.jsonl` (every measurement; each further process of a queue has a file with its number), `numbers.csv`, `figure.svg` and
/// `outcome.json`; then `<out>/index.html` anew, a page of all outcomes in `out`, those of one claim side by side.
///
/// What an earlier run with the same settings has measured is not measured again.
///
/// # Errors
///
/// Data that is unknown or missing, a file that can't be written, a folder that another run uses; [`LabError::Stopped`] if it was asked
/// to stop.
pub fn run(claim: &'static Claim, options: &LabOptions) -> Result<Outcome, LabError> {
    let started = Instant::now();
    let data_name = data_name(&options.data)?;
    let folder = options.out.join(results(claim, &options.data));
    striate_files::create_folder(&folder)?;
    let queue = &options.queue;
    let (scale, seeds) = (options.scale.to_string(), format!("{:?}", seeds(claim, options)));
    queue.agree(&[("version of Striate", env!("CARGO_PKG_VERSION")), ("scale", &scale), ("data", &data_name)])?;
    queue.agree(&[(&format!("list of seeds of {}", claim.name), &seeds)])?;
    let trials = Trials::open(&folder, queue.rank())?;
    let mut lab = Lab { options: options.clone(), claim, trials, can_wait: false, data_name, data: HashMap::new() };
    let finding = (claim.run)(&mut lab)?;
    let outcome = Outcome {
        claim: claim.name.to_owned(),
        verdict: finding.verdict(),
        checks: finding.checks.clone(),
        remarks: finding.remarks.clone(),
        scale: options.scale,
        seeds: lab.seeds(),
        data: if claim.is_exact() { String::new() } else { shown_name(&options.data) },
        threads: striate_torch::num_threads(),
        machine: striate::machine(),
        date: OffsetDateTime::now_utc().date().to_string(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let write = || {
        striate_files::write_bytes(&folder.join("numbers.csv"), finding.table.to_csv())?;
        striate_files::write_bytes(&folder.join("figure.svg"), &finding.figure)?;
        let json = serde_json::to_string_pretty(&outcome).map_err(|error| LabError::Figure(error.to_string()))?;
        striate_files::write_bytes(&folder.join(OUTCOME), json + "\n")?;
        striate_files::write_bytes(&options.out.join("index.html"), report::page(&outcomes(&options.out)))?;
        Ok::<_, LabError>(Some(Vec::new()))
    };
    queue.once(&format!("{}/outcome", claim.name), write)?.ok_or(LabError::Stopped)?;
    Ok(outcome)
}

/// Where the results of a claim go, within the folder of all.
fn results(claim: &Claim, data: &DataSection) -> PathBuf {
    let folder = PathBuf::from(claim.name);
    match data.name.as_str() {
        _ if claim.is_exact() => folder,
        DEFAULT_DATA => folder,
        FOLDER => folder.join(data.dir.file_name().unwrap_or(FOLDER.as_ref())),
        name => folder.join(name),
    }
}

/// The outcomes that lie in a folder of results, in the order of the claims: on the default data first, then by the name of the data.
fn outcomes(out: &Path) -> Vec<(&'static Claim, Vec<OnData>)> {
    let read = |folder: PathBuf| {
        let within = out.join(&folder);
        let outcome = serde_json::from_slice(&striate_files::read(&within.join(OUTCOME)).ok()?).ok()?;
        let figure = striate_files::read_to_string(&within.join("figure.svg")).ok()?;
        Some(OnData { folder, outcome, figure })
    };
    let of_claim = |claim: &'static Claim| {
        let folder = PathBuf::from(claim.name);
        let mut others: Vec<_> = (out.join(&folder).read_dir().into_iter().flatten().flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| folder.join(entry.file_name()))
            .collect();
        others.sort();
        let all: Vec<OnData> = std::iter::once(folder).chain(others).filter_map(read).collect();
        (!all.is_empty()).then_some((claim, all))
    };
    crate::claims().iter().filter_map(of_claim).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{claims, find_claim};
    use std::fs;

    fn options(out: &Path) -> LabOptions {
        LabOptions { seeds: Some(2), data: DataSection::default(), ..LabOptions::quick(out.into()) }
    }

    #[test]
    fn exact_claims_hold() {
        let out = tempfile::tempdir().unwrap();
        for claim in claims().iter().filter(|claim| claim.is_exact()) {
            let outcome = run(claim, &options(out.path())).unwrap();
            assert_eq!(outcome.verdict, Verdict::Supported, "{outcome:#?}");
            for file in ["numbers.csv", "figure.svg", "outcome.json", "trials.jsonl"] {
                assert!(out.path().join(claim.name).join(file).is_file(), "{} {file}", claim.name);
            }
        }
        let page = fs::read_to_string(out.path().join("index.html")).unwrap();
        for claim in claims() {
            assert_eq!(page.contains(&format!("<section id=\"{}\">", claim.name)), claim.is_exact(), "{}", claim.name);
        }
    }

    #[test]
    fn a_stopped_run_goes_on_where_it_was() {
        striate_torch::set_num_threads(1);
        let out = tempfile::tempdir().unwrap();
        let claim = find_claim("gradient-norms").unwrap();
        let folder = out.path().join(results(claim, &options(out.path()).data));
        let trials = || fs::read_to_string(folder.join("trials.jsonl")).unwrap();
        let stopped = LabOptions { stop: Arc::new(true.into()), ..options(out.path()) };
        assert!(matches!(run(claim, &stopped), Err(LabError::Stopped)));
        assert_eq!(trials(), "");
        assert!(!folder.join(OUTCOME).exists());

        let first = run(claim, &options(out.path())).unwrap();
        let all = trials();
        assert_eq!(all.lines().count(), 2 * 4);
        // As a run that was killed within its fifth measurement has left it.
        let half: String = all.lines().take(4).map(|line| format!("{line}\n")).collect();
        fs::write(folder.join("trials.jsonl"), half + "{\"settings\":").unwrap();
        let second = run(claim, &options(out.path())).unwrap();
        assert_eq!(trials(), all);
        assert_eq!(second.checks, first.checks);
        // Nothing is left to measure, so that a run that is to stop ends well.
        assert_eq!(run(claim, &stopped).unwrap().checks, first.checks);
        // Other seeds are other measurements.
        let other = run(claim, &LabOptions { first_seed: 100, ..options(out.path()) }).unwrap();
        assert_eq!((other.seeds, trials().lines().count()), (vec![100, 101], 4 * 4));
    }

    #[test]
    fn outcomes_on_several_data_stand_side_by_side() {
        striate_torch::set_num_threads(1);
        let out = tempfile::tempdir().unwrap();
        let claim = find_claim("gradient-norms").unwrap();
        let page = || fs::read_to_string(out.path().join("index.html")).unwrap();
        let outcome = run(claim, &options(out.path())).unwrap();
        assert!(page().contains("<th>Measured</th>") && !page().contains("<figcaption>"));
        // As if it had been run on the default data, too, with one point more.
        let folder = out.path().join(claim.name);
        fs::copy(folder.join("digits/figure.svg"), folder.join("figure.svg")).unwrap();
        let more = Check { what: "one point more".to_owned(), ..outcome.checks[0].clone() };
        let other = Outcome {
            data: DEFAULT_DATA.to_owned(),
            verdict: Verdict::Undecided,
            checks: [outcome.checks.clone(), vec![more]].concat(),
            ..outcome.clone()
        };
        fs::write(folder.join(OUTCOME), serde_json::to_string(&other).unwrap()).unwrap();
        run(claim, &options(out.path())).unwrap();
        let page = page();
        let of = |data: &str| {
            format!("{}</span> <small>{data}</small>", if data == DEFAULT_DATA { other.verdict } else { outcome.verdict })
        };
        assert!(page.contains(&of(DEFAULT_DATA)) && page.contains(&of("digits")));
        assert!(page.contains("<th>Measured on fashion-mnist</th><th>Verdict</th><th>Measured on digits</th>"));
        assert!(page.contains("</td><td></td><td></td></tr>"), "digits lack the point");
        for file in ["gradient-norms/numbers.csv", "gradient-norms/digits/numbers.csv"] {
            assert!(page.contains(&format!("<a href=\"{file}\">")), "{file}");
        }
    }
}
