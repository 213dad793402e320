//! The bench matrix: `cargo xtask bench` builds and runs this.
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use striate_bench::{
    BenchError, Case, GPU_SIDES, GpuOptions, Options, Programs, QUIET, Results, busy_cores, choose, cores, gpu_script,
    gpu_select, gpu_set, measure, measure_gpu, plots, publish, sample, select, serve, slower, table,
};

/// Measure the speed of networks, and of peers; print a table, and write it with all samples and figures into a folder
#[derive(Parser)]
#[command(name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    other: Option<Other>,
    /// Measure only cases that match: parts of an id, such as 'resnet*/plan/b16'. Several must all match. Whole ids are each measured, even if no set has them
    #[arg(long, value_name = "PATTERN")]
    filter: Vec<String>,
    /// Choose among all networks, batches, precisions and devices; by default, among a set that takes some minutes
    #[arg(long)]
    full: bool,
    /// List the ids of the cases, and measure none
    #[arg(long)]
    list: bool,
    /// Measure peers too, in turns: all, or those of these names
    #[arg(long, value_name = "NAMES", num_args = 0..=1, require_equals = true, value_delimiter = ',', default_missing_value = "all")]
    peers: Vec<String>,
    /// Turns of each side, with peers
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rounds: u64,
    /// Threads of the cases that take more than one [default: as many as the machine runs at once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: Option<u64>,
    /// Seed for weights and inputs [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Compare with an earlier run's results.jsonl; exit code 1 if a case is slower by more than the threshold
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Percent by which a case may be slower than the baseline
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    threshold: f64,
    /// Make table, figures and comparison from these results, and measure nothing
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Write the tables into this document too, between its lines <!-- bench --> and <!-- /bench -->
    #[arg(long, value_name = "FILE")]
    publish: Option<PathBuf>,
    /// Write results into this folder [default: a new one in target/bench]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Python with the packages of peers, and their script; cargo xtask bench --peers gives both
    #[arg(long, num_args = 2, value_names = ["PYTHON", "SCRIPT"])]
    python: Option<Vec<PathBuf>>,
    /// Folder with the programs of the Rust peers; cargo xtask bench --peers gives it
    #[arg(long, value_name = "FOLDER")]
    rust_peers: Option<PathBuf>,
}

/// What else the program does; the hidden ones in processes of its own.
#[derive(Subcommand)]
enum Other {
    /// Measure a graphics card: Striate, and PyTorch (eager, in a CUDA graph, by torch.compile), in turns
    Gpu(GpuArgs),
    /// Takes turns with others
    #[command(hide = true)]
    Work,
    /// Has criterion measure one case
    #[command(hide = true)]
    Sample { id: String, seed: u64, answer: PathBuf },
}

#[derive(clap::Args)]
struct GpuArgs {
    /// Measure only cases that match one of these: parts of an id, such as 'resnet*/train', or a whole id
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    filter: Vec<String>,
    /// List the ids of the cases, and measure none
    #[arg(long)]
    list: bool,
    /// Device
    #[arg(long, value_name = "DEVICE", default_value = "cuda:0")]
    device: String,
    /// Python that has torch
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// Script of PyTorch's sides [default: share/striate/peers/torch_cuda.py of this archive]
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Ways in which PyTorch computes
    #[arg(long, value_name = "SIDES", value_delimiter = ',', default_values = GPU_SIDES, value_parser = GPU_SIDES)]
    sides: Vec<String>,
    /// Measure Striate alone
    #[arg(long, conflicts_with = "sides")]
    alone: bool,
    /// Turns of each side
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rounds: u64,
    /// Begin no further case after this many seconds
    #[arg(long, value_name = "SECONDS")]
    limit_seconds: Option<u64>,
    /// Processes in which torch.compile works for all cases before the first is measured; 0 leaves it to each case [default: a fourth of the
    /// cores, at most 4]
    #[arg(long, value_name = "N")]
    compilers: Option<usize>,
    /// Seed for weights and inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write all times into results.jsonl in this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            return match print(&error.render().to_string()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("error: {error}");
                    ExitCode::from(2)
                }
            };
        }
        Err(error) => {
            let text = error.render().to_string();
            eprintln!("{}", text.lines().next().unwrap_or_default());
            return ExitCode::from(2);
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, BenchError::Failed(_) | BenchError::Torch(_)) { 1 } else { 2 })
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, BenchError> {
    striate_torch::cpu::check().map_err(|error| BenchError::Usage(error.to_string()))?;
    if matches!(cli.other, Some(Other::Work | Other::Sample { .. })) {
        striate_torch::keep_memory_warm();
    }
    match &cli.other {
        Some(Other::Gpu(args)) => gpu(args)?,
        Some(Other::Work) => serve(std::io::stdin().lock(), std::io::stdout())?,
        Some(Other::Sample { id, seed, answer }) => {
            let sample = sample(&id.parse()?, *seed)?;
            let text = serde_json::to_string(&sample).map_err(|error| BenchError::Failed(error.to_string()))?;
            striate_files::write_bytes(answer, &text)?;
        }
        None => return matrix(&cli),
    }
    Ok(ExitCode::SUCCESS)
}

fn gpu(args: &GpuArgs) -> Result<(), BenchError> {
    let begun = Instant::now();
    if args.list {
        let ids: Vec<String> = gpu_set(&args.device).iter().map(Case::to_string).collect();
        return print(&(ids.join("\n") + "\n"));
    }
    let cases = gpu_select(&args.device, &args.filter)?;
    let sides = if args.alone { Vec::new() } else { args.sides.clone() };
    let options = GpuOptions {
        python: args.python.clone(),
        script: args.script.clone().map_or_else(gpu_script, Ok)?,
        sides,
        rounds: usize::try_from(args.rounds).unwrap_or(usize::MAX),
        compilers: args.compilers.unwrap_or_else(|| (cores() / 4).clamp(1, 4)),
        until: args.limit_seconds.map(|seconds| begun + Duration::from_secs(seconds)),
        seed: args.seed,
    };
    measure_gpu(&cases, &options, args.out.as_deref(), print)
}

fn matrix(cli: &Cli) -> Result<ExitCode, BenchError> {
    let threads = cli.threads.and_then(|threads| usize::try_from(threads).ok()).unwrap_or_else(cores);
    // What is wrong with these is told before anything is measured.
    let baseline = cli.baseline.as_deref().map(Results::read).transpose()?;
    if !(cli.threshold.is_finite() && cli.threshold >= 0.0) {
        return Err(BenchError::Usage(format!("--threshold {}: must be 0 or more percent", cli.threshold)));
    }
    if let Some(document) = &cli.publish {
        publish(document, None)?;
    }
    let results = match &cli.results {
        Some(path) => Results::read(path)?,
        None => {
            let cases = select(cli.full, threads, &cli.filter)?;
            if cli.list {
                let ids: Vec<String> = cases.iter().map(Case::to_string).collect();
                print(&(ids.join("\n") + "\n"))?;
                return Ok(ExitCode::SUCCESS);
            }
            let (options, folder) = (options(cli)?, folder(cli)?);
            if let Some(cores) = busy_cores().filter(|cores| *cores > QUIET) {
                eprintln!("warning: other programs use {cores:.1} cores: times will be too long");
            }
            let results = measure(&cases, &options, &folder)?;
            eprintln!("results in {}", folder.display());
            results
        }
    };
    let page = table(&results);
    print(&page)?;
    if cli.results.is_none() || cli.out.is_some() {
        let folder = folder(cli)?;
        striate_files::write_bytes(&folder.join("table.md"), &page)?;
        for (name, svg) in plots(&results)? {
            striate_files::write_bytes(&folder.join(name), &svg)?;
        }
    }
    if let Some(document) = &cli.publish {
        publish(document, Some(&page))?;
    }
    match baseline {
        Some(baseline) => compare(&baseline, &results, cli.threshold),
        None if results.rows.is_empty() => Err(BenchError::Failed("nothing was measured".to_owned())),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn options(cli: &Cli) -> Result<Options, BenchError> {
    let python = cli.python.clone().and_then(|paths| <[PathBuf; 2]>::try_from(paths).ok());
    Ok(Options {
        // Below 2^53, so that every reader of JSON keeps it.
        seed: cli.seed.unwrap_or_else(|| now_nanos() % (1 << 53)),
        rounds: usize::try_from(cli.rounds).unwrap_or(usize::MAX),
        peers: choose(&cli.peers)?,
        programs: Programs { python, rust: cli.rust_peers.clone() },
    })
}

fn now_nanos() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

/// Where results go; the same each time it is asked.
fn folder(cli: &Cli) -> Result<PathBuf, BenchError> {
    static NOW: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    if let Some(folder) = &cli.out {
        return Ok(folder.clone());
    }
    let this = std::env::current_exe().map_err(|error| BenchError::Io { what: "find this program".to_owned(), error })?;
    // It lies in target/release.
    let target = this.ancestors().nth(2).unwrap_or(Path::new("."));
    Ok(target.join("bench").join(NOW.get_or_init(|| now_nanos() / 1_000_000_000).to_string()))
}

fn compare(baseline: &Results, now: &Results, threshold: f64) -> Result<ExitCode, BenchError> {
    let (changes, count) = slower(baseline, now, threshold);
    if changes.is_empty() {
        return Err(BenchError::Usage("the baseline has none of these cases".to_owned()));
    }
    if baseline.run.processor != now.run.processor {
        eprintln!("warning: the baseline was measured on another processor ({})", baseline.run.processor);
    }
    let lines = changes.iter().map(|change| {
        let mark = if change.ratio > 1.0 + threshold / 100.0 { "slower" } else { "" };
        format!("| {} | {:.3} | {:.3} | {:.2} | {mark} |\n", change.id, change.ms[0], change.ms[1], change.ratio)
    });
    let head = "\n| case | baseline, ms | now, ms | ratio | |\n|---|---|---|---|---|\n";
    print(&(head.to_owned() + &lines.collect::<String>()))?;
    if count > 0 {
        eprintln!("error: {count} of {} cases are slower than the baseline by more than {threshold}%", changes.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// A reader that has enough, such as `head`, is no matter.
fn print(text: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(BenchError::Io { what: "write to standard output".to_owned(), error })
        }
        _ => Ok(()),
    }
}
