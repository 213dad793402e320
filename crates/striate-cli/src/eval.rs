//! `eval`: a bundle on a dataset's test set.
use crate::cli::{EvalArgs, PlanArgs};
use crate::error::CliError;
use crate::output::counted;
use crate::progress::Download;
use crate::table::{Align, table, width};
use crate::{print, print_json, signals, source};
use std::path::Path;
use striate::data::{self, Opened};
use striate::infer::Calibration;
use striate::train::metrics::{ClassMetrics, Probabilities};
use striate::{Bundle, Classifier, ClassifierOptions, Precision, Report, Scores, devices};
use striate_torch::Shown;
use striate_train::DataSection;

/// More cores than this no machine has, and libtorch overflows its stack with many more.
const MAX_THREADS: usize = 1024;

pub(crate) fn eval(args: &EvalArgs) -> Result<(), CliError> {
    set_threads(args.threads)?;
    let bundle = source::bundle(&args.bundle)?;
    let known = args.data_dir.as_deref().filter(|_| args.plan.calibrate.as_ref() == Some(&args.data));
    let mut options = ClassifierOptions::default();
    options.stop = signals::stop();
    options.devices = devices(&args.devices)?;
    options.precision = args.plan.precision;
    options.calibration = calibration(&args.plan, known, &bundle, &args.bundle)?;
    options.threshold = args.threshold;
    options.tta = args.tta;
    let classifier = Classifier::of(&bundle, &args.bundle, options)?;
    drop(bundle);
    let data = opened(&section(&args.data, args.data_dir.as_deref())?, Opened::to_judge)?;
    let report = classifier.evaluate(data, args.batch_size)?;
    if args.json {
        return print_json(&report);
    }
    print(&describe(&report))
}

/// The section of a recipe for `--data` and `--data-dir`.
pub(crate) fn section(data: &str, dir: Option<&Path>) -> Result<DataSection, CliError> {
    let section = data::section(data)?;
    let dir = dir.map_or_else(|| Ok(section.dir.clone()), crate::recipes::absolute)?;
    if section.name == data::FOLDER && dir.as_os_str().is_empty() {
        let name = data::FOLDER;
        return Err(CliError::Usage(format!("{name}: name the folder with --data-dir, or in place of {name}")));
    }
    Ok(DataSection { dir, ..section })
}

/// Opens data, and shows a download that this takes.
pub(crate) fn opened(
    section: &DataSection,
    open: impl FnOnce(&DataSection, data::Progress) -> Result<Opened, striate::Error>,
) -> Result<Opened, CliError> {
    let bar = Download::new();
    Ok(open(section, &mut |what, done, of| bar.update(what, done, of))?)
}

/// What int8 needs, measured on training pictures; none if the bundle's own is taken. `dir` has the dataset's files, if they lie
/// elsewhere than in the cache.
pub(crate) fn calibration(
    args: &PlanArgs,
    dir: Option<&Path>,
    bundle: &Bundle,
    path: &Path,
) -> Result<Option<Calibration>, CliError> {
    match (args.precision, &args.calibrate) {
        (Precision::Int8, Some(data)) => measure(data, dir, bundle, path).map(Some),
        (Precision::Int8, None) if bundle.info.calibration.is_none() => Err(CliError::Usage(
            "--precision int8 needs images: name a dataset or a folder with --calibrate, or keep a calibration in the bundle (`weights convert --calibrate`)"
                .to_owned(),
        )),
        (Precision::Int8, None) => Ok(None),
        (_, Some(_)) => Err(CliError::Usage("--calibrate is for --precision int8 only".to_owned())),
        (_, None) => Ok(None),
    }
}

/// What int8 needs, measured on training pictures of `data`.
pub(crate) fn measure(data: &str, dir: Option<&Path>, bundle: &Bundle, path: &Path) -> Result<Calibration, CliError> {
    let data = opened(&section(data, dir)?, Opened::to_train)?;
    let preprocess = preprocess_of(&bundle.info, path)?;
    Ok(Classifier::calibrate(bundle, path, &*data.fit(preprocess)?)?)
}

/// How the bundle's network wants its images.
pub(crate) fn preprocess_of<'b>(
    info: &'b striate::BundleInfo,
    path: &Path,
) -> Result<&'b striate::datasets::Preprocess, CliError> {
    info.preprocess.as_ref().ok_or_else(|| striate::Error::NoPreprocess { path: path.into() }.into())
}

/// Sets the threads of one operator; 0 leaves all cores that the process may use.
pub(crate) fn set_threads(threads: usize) -> Result<(), CliError> {
    check_threads(threads)?;
    if threads > 0 {
        striate_torch::set_num_threads(threads);
    }
    Ok(())
}

/// Refuses more threads than libtorch can have.
pub(crate) fn check_threads(threads: usize) -> Result<(), CliError> {
    if threads > MAX_THREADS {
        return Err(CliError::Usage(format!("threads = {threads} must be at most {MAX_THREADS}: 0 takes all cores")));
    }
    Ok(())
}

/// The figures of an evaluation for people.
fn describe(report: &Report) -> String {
    let classes = report.classes.iter().map(|class| Shown(class).to_string()).collect::<Vec<_>>();
    let (accuracy, measure) = (100.0 * report.accuracy, report.measure());
    let start = format!("{}: {measure} {accuracy:.2}%", counted(report.examples, "image"));
    let probabilities = probabilities(report);
    match &report.scores {
        Scores::SingleLabel(scores) => format!(
            "{start}{}, loss {:.4}\nbalanced accuracy {}, macro F1 {}, AUROC {}\n{probabilities}{}\n{}",
            // Among five classes the right one is always one of the first five.
            if classes.len() > 5 { format!(", top-5 {:.2}%", 100.0 * scores.top5) } else { String::new() },
            report.loss,
            percent(scores.balanced_accuracy),
            percent(scores.macro_f1),
            percent(scores.auroc),
            confused(&classes, &scores.confusion),
            each(&classes, &scores.per_class),
        ),
        Scores::MultiLabel(scores) => format!(
            "{start}, loss {:.4}\nmean average precision {}, AUROC {}, at threshold {}: F1 {} of all answers, {} of the mean class\n{probabilities}\n{}",
            report.loss,
            percent(scores.mean_average_precision),
            percent(scores.auroc),
            scores.threshold,
            percent(Some(scores.micro_f1)),
            percent(Some(scores.macro_f1)),
            each(&classes, &scores.per_class),
        ),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.2}%", 100.0 * share))
}

/// How far the probabilities can be believed.
fn probabilities(report: &Report) -> String {
    let (Some(temperature), Some(probabilities)) = (report.temperature, report.probabilities) else { return String::new() };
    let Probabilities { calibration_error, nll, brier } = probabilities;
    let unknown = report.unknown.map(|share| format!("; {:.2}% unknown", 100.0 * share)).unwrap_or_default();
    format!("temperature {temperature:.3}: calibration error {calibration_error:.4}, NLL {nll:.4}, Brier {brier:.4}{unknown}\n")
}

/// How well each class was told from the others.
fn each(classes: &[String], per_class: &[ClassMetrics]) -> String {
    let columns = ["images", "precision", "recall", "F1", "AUROC", "average"];
    let head = std::iter::once(String::new()).chain(columns.map(str::to_owned)).collect();
    let row = |(name, class): (&String, &ClassMetrics)| {
        let shares = [class.precision, class.recall, Some(class.f1), class.auroc, class.average_precision].map(percent);
        [name.clone(), class.examples.to_string()].into_iter().chain(shares).collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(classes.iter().zip(per_class).map(row)).collect();
    let [left, right] = [Align::Left, Align::Right];
    table([left, right, right, right, right, right, right], &rows)
}

/// Targets in rows and answers in columns, which have the numbers that stand before the names of the rows.
fn confused(classes: &[String], rows: &[Vec<u64>]) -> String {
    let number_width = classes.len().saturating_sub(1).to_string().len();
    let names = classes.iter().enumerate().map(|(class, name)| format!("{class:number_width$} {name}"));
    let names: Vec<String> = names.collect();
    let name_width = width(names.iter().map(String::as_str));
    let count_width = rows.iter().flatten().map(|count| count.to_string().len()).max().unwrap_or(1).max(2);
    let mut text = format!("\n{:name_width$}  ", "");
    text += &(0..classes.len()).map(|class| format!("{class:>count_width$}")).collect::<Vec<_>>().join(" ");
    for (name, row) in names.iter().zip(rows) {
        let cells: Vec<String> = row.iter().map(|count| format!("{count:>count_width$}")).collect();
        text += &format!("\n{name:name_width$}  {}", cells.join(" "));
    }
    text + "\n"
}
