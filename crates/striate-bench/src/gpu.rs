//! A graphics card: ours and the PyTorch of the machine's own Python in turns, and one table.
//!
//! Time on a card is dear, so cases share what takes long. A side of PyTorch is one process for all cases. What torch.compile makes
//! is made for all cases at once, before any is measured; on its turn, it takes the code from its cache on disk.
use crate::case::{is_id, matches};
use crate::drive::{first_line, request, rows, this_program};
use crate::record::{OURS, Record, Row, Run, Writer};
use crate::report::{digits, factor};
use crate::turns::{Side, take_turns};
use crate::{BenchError, Case, Mode};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;
use striate_torch::Precision;

/// What PyTorch computes by: step by step, by one CUDA graph, and by torch.compile.
pub const GPU_SIDES: [&str; 3] = ["eager", "graph", "compile"];
/// As a side, fills the cache of torch.compile.
const WARM: &str = "warm";
/// What logits may differ by, relative to the largest: in TF32, and in bfloat16.
const TOLERANCE: [f64; 2] = [1e-2, 0.1];
/// Where the script of PyTorch's sides is: beside the program in an archive of `cargo xtask dist`.
const SCRIPT: &str = "share/striate/peers/torch_cuda.py";

/// How a card is measured.
#[derive(Debug)]
pub struct GpuOptions {
    /// A Python that has torch.
    pub python: PathBuf,
    /// What it runs.
    pub script: PathBuf,
    /// Some of [`GPU_SIDES`].
    pub sides: Vec<String>,
    /// Turns of each side.
    pub rounds: usize,
    /// Processes that fill the cache of torch.compile.
    pub compilers: usize,
    /// When no further case is begun.
    pub until: Option<Instant>,
    /// What weights and inputs are drawn from.
    pub seed: u64,
}

/// The script that lies with this program.
///
/// # Errors
///
/// The system does not tell where this program is.
pub fn gpu_script() -> Result<PathBuf, BenchError> {
    let program = std::env::current_exe().map_err(BenchError::io("find this program"))?;
    Ok(program.ancestors().nth(2).unwrap_or(Path::new(".")).join(SCRIPT))
}

/// What is measured on a card.
pub fn gpu_set(device: &str) -> Vec<Case> {
    use Precision::{Bfloat16, Float32};
    let case = |model, mode, batch, precision| Case { precision, device: device.to_owned(), ..Case::of(model, mode, batch, 1) };
    let mut cases = vec![
        case("resnet50", Mode::Train, 128, Bfloat16),
        case("resnet18", Mode::Train, 256, Bfloat16),
        case("googlenet", Mode::Train, 128, Bfloat16),
        case("vgg16", Mode::Train, 64, Bfloat16),
        case("resnet50", Mode::Train, 128, Float32),
        case("lenet5", Mode::Train, 128, Float32),
        case("resnet20-cifar", Mode::Train, 128, Bfloat16),
        case("resnet20-cifar", Mode::Train, 128, Float32),
    ];
    for model in ["resnet50", "googlenet", "vgg16"] {
        cases.extend([1, 64].map(|batch| case(model, Mode::Plan, batch, Bfloat16)));
    }
    cases
}

/// Those of the [set](gpu_set) that match one of the filters, all if there are none. An id is a filter too, whether the set has it or not.
///
/// # Errors
///
/// A filter that nothing matches, and a card that is not there.
pub fn gpu_select(device: &str, filters: &[String]) -> Result<Vec<Case>, BenchError> {
    let set = gpu_set(device);
    let mut cases = if filters.is_empty() { set.clone() } else { Vec::new() };
    for filter in filters {
        let found: Vec<Case> = match is_id(filter) {
            true => vec![filter.parse()?],
            false => set.iter().filter(|case| matches(&case.to_string(), filter)).cloned().collect(),
        };
        if found.is_empty() {
            return Err(BenchError::Usage(format!("no case of a card matches {filter}: `striate-bench gpu --list` prints them")));
        }
        cases.extend(found);
    }
    cases.iter().try_for_each(|case| case.torch_device().map(drop))?;
    Ok(cases)
}

/// Measures the cases one by one, and says a line of the table as soon as it is known: first the head, then each case. The reason of a
/// gap goes to standard error. With a folder, `results.jsonl` in it has all times.
///
/// # Errors
///
/// A program that cannot be run, and a folder that cannot be written. A side that fails is a gap in the table.
pub fn measure_gpu(
    cases: &[Case],
    options: &GpuOptions,
    folder: Option<&Path>,
    mut say: impl FnMut(&str) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let temporary = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
    let create = |folder: &Path| {
        striate_files::create_folder(folder)?;
        Writer::create(&folder.join("results.jsonl"))
    };
    let mut writer = folder.map(create).transpose()?;
    let mut write = |record: &Record| writer.as_mut().map_or(Ok(()), |writer| writer.write(record));
    write(&Record::Run(Run::here(options.seed)))?;
    if options.sides.iter().any(|side| side == "compile") {
        let begun = Instant::now();
        compile_ahead(cases, options, temporary.path());
        eprintln!("torch.compile took {:.0} s for all cases", begun.elapsed().as_secs_f64());
    }
    say(&head(&options.sides))?;
    let mut peers: BTreeMap<&str, Side> = BTreeMap::new();
    for (index, case) in cases.iter().enumerate() {
        if options.until.is_some_and(|until| Instant::now() >= until) {
            let left: Vec<String> = cases[index..].iter().map(Case::to_string).collect();
            say(&format!("\nNot begun within the limit of time: {}\n", left.join(", ")))?;
            break;
        }
        eprintln!("[{}/{}] {case}", index + 1, cases.len());
        let mut command = this_program()?;
        command.arg("work");
        // Ours first: it writes what the others read. Each case has a process of its own, which gives its memory back.
        let mut taking = vec![Side::start(OURS, command, temporary.path())?];
        for side in &options.sides {
            let running = peers.remove(side.as_str());
            taking.push(running.map_or_else(|| start(side, options, temporary.path()), Ok)?);
        }
        let turns = take_turns(&mut taking, &request(case, options.seed, temporary.path()), options.rounds, tolerance(case));
        let names = options.sides.iter().map(String::as_str);
        peers.extend(names.zip(taking.drain(1..)).filter_map(|(name, mut side)| side.is_alive().then_some((name, side))));
        let records = rows(case, turns, None, &mut BTreeMap::new());
        records.iter().try_for_each(&mut write)?;
        say(&line(case, &records, &options.sides))?;
    }
    Ok(())
}

fn tolerance(case: &Case) -> f64 {
    TOLERANCE[usize::from(case.precision == Precision::Bfloat16)]
}

fn head(sides: &[String]) -> String {
    let names: String = sides.iter().map(|side| format!(" {side} |")).collect();
    format!("| case | striate, ms |{names} fastest of these / striate |\n|---|---|{}---|\n", "---|".repeat(sides.len()))
}

/// The case's line.
fn line(case: &Case, records: &[Record], sides: &[String]) -> String {
    let row = |name: &str| {
        records.iter().find_map(|record| match record {
            Record::Row(row) if row.side == name => Some(&**row),
            _ => None,
        })
    };
    let ms = |row: Option<&Row>| row.map_or_else(|| "-".to_owned(), |row| digits(row.spread.median));
    let mut line = format!("| {case} | {} |", ms(row(OURS)));
    for side in sides {
        let _ = write!(line, " {} |", ms(row(side)));
    }
    let fastest = sides.iter().filter_map(|side| row(side)?.ratio).min_by(|a, b| a.median.total_cmp(&b.median));
    let _ = writeln!(line, " {} |", fastest.as_ref().map_or_else(|| "-".to_owned(), factor));
    line
}

fn start(side: &str, options: &GpuOptions, folder: &Path) -> Result<Side, BenchError> {
    let mut command = Command::new(&options.python);
    command.arg(&options.script).current_dir(folder);
    // What this program needs to find libtorch is not what Python's own needs.
    command.env_remove("LD_LIBRARY_PATH");
    Side::start(side, command, folder)
}

/// Has torch.compile do its work for all cases, in several processes. What fails here fails again, and is told, when it counts.
fn compile_ahead(cases: &[Case], options: &GpuOptions, folder: &Path) {
    let queue = Mutex::new(cases.iter());
    let begun = Instant::now();
    // The other half is for measuring: what is not compiled by then is compiled on its turn.
    let half = options.until.map(|until| begun + until.saturating_duration_since(begun) / 2);
    let next = || queue.lock().ok().filter(|_| half.is_none_or(|half| Instant::now() < half)).and_then(|mut cases| cases.next());
    std::thread::scope(|scope| {
        for worker in 0..options.compilers.min(cases.len()) {
            scope.spawn(move || {
                let name = format!("{WARM}{worker}");
                let Ok(mut side) = start(&name, options, folder) else { return };
                while let Some(case) = next() {
                    let request = crate::turns::Request { side: WARM.to_owned(), ..request(case, options.seed, folder) };
                    if let Err(reason) = side.prepare(&request) {
                        eprintln!("  compiling {case}: {}", first_line(&reason));
                    }
                }
            });
        }
    });
}
