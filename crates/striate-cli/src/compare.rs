//! `compare`: runs side by side.
use crate::error::CliError;
use crate::output::named;
use crate::runs::found;
use crate::table::{Align, table};
use crate::{print, print_json};
use clap::Args;
use std::path::{Path, PathBuf};
use striate::compare::{Better, Comparison, Figure, Pair, Side};
use striate::runs::Record;
use striate::verdict::{Interval, short};
use striate_graph::thousands;
use striate_torch::Shown;

#[derive(Debug, Args)]
#[command(after_help = "\
Runs whose recipes differ in nothing but the seed are one side. If each side has several seeds, a
95% interval says whether one recipe is better: paired if both sides have the same seeds, otherwise
Welch's.")]
pub(crate) struct CompareArgs {
    /// Runs, folders of runs (such as those of train --seeds), or patterns such as 'runs/lenet5-*'
    #[arg(required = true, value_name = "RUN or FOLDER")]
    pub(crate) runs: Vec<PathBuf>,
    /// Draw the accuracy after each epoch into this file (.svg)
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print the comparison as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn compare(args: &CompareArgs) -> Result<(), CliError> {
    let mut runs = Vec::new();
    for path in &args.runs {
        let mut here = Vec::new();
        for folder in folders(path)? {
            here.extend(found(Record::find(&folder)?));
        }
        if here.is_empty() {
            return Err(CliError::Usage(format!("{} holds no run: name a run's folder, or one with runs in it", path.display())));
        }
        runs.extend(here);
    }
    let comparison = Comparison::of(runs)?;
    if let Some(file) = &args.output {
        named(file, "svg")?;
        striate_files::write_bytes(file, comparison.to_svg()?)?;
    }
    if args.json {
        return print_json(&comparison);
    }
    print(&text(&comparison))
}

/// The folder of this name, or those whose names are of this pattern.
fn folders(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    let Some(pattern) = path.to_str().filter(|name| name.contains(['*', '?', '[']) && !path.exists()) else {
        return Ok(vec![path.to_owned()]);
    };
    let wrong = |reason: String| CliError::Usage(format!("{pattern}: {reason}"));
    let matched = glob::glob(pattern).map_err(|error| wrong(format!("not a pattern of folders: {}", error.msg)))?;
    let folders: Vec<PathBuf> = matched.filter_map(Result::ok).filter(|path| path.is_dir()).collect();
    if folders.is_empty() { Err(wrong("no folder is called so".to_owned())) } else { Ok(folders) }
}

fn text(comparison: &Comparison) -> String {
    let Comparison { sides, differences, pairs, notes, .. } = comparison;
    let columns: Vec<Align> = std::iter::once(Align::Left).chain(sides.iter().map(|_| Align::Right)).collect();
    let names = || sides.iter().map(|side| side.name.clone());
    let row = |first: &str, cells: Vec<String>| std::iter::once(first.to_owned()).chain(cells).collect::<Vec<String>>();
    let mut rows = Vec::new();
    if !differences.is_empty() {
        rows.push(row("recipe", names().collect()));
        rows.extend(
            differences
                .iter()
                .map(|difference| row(&difference.key, difference.values.iter().map(|value| Shown(value).to_string()).collect())),
        );
        rows.push(vec![String::new()]);
    }
    rows.push(row("figure", names().collect()));
    let mut figures: Vec<&str> = Vec::new();
    for figure in sides.iter().flat_map(|side| &side.figures) {
        if !figures.contains(&figure.name.as_str()) {
            figures.push(&figure.name);
        }
    }
    rows.extend(figures.into_iter().map(|name| {
        let of = |side: &Side| side.figures.iter().find(|figure| figure.name == name).map_or_else(String::new, shown);
        row(name, sides.iter().map(of).collect())
    }));
    let mut text: String = sides.iter().map(side_line).collect();
    text += &format!("\n{}", table(columns, &rows));
    let lines: Vec<String> = pairs.iter().map(verdict).chain(notes.iter().map(|note| Shown(note).to_string())).collect();
    if lines.is_empty() { text } else { format!("{text}\n{}\n", lines.join("\n")) }
}

/// Which runs a side has.
fn side_line(side: &Side) -> String {
    let folders: Vec<String> = side.runs.iter().map(|run| Shown(run.folder.display()).to_string()).collect();
    let seeds: Vec<String> = side.seeds().iter().map(u64::to_string).collect();
    match &folders[..] {
        [only] => format!("{}  {only} (seed {})\n", side.name, seeds[0]),
        [first, rest @ ..] => {
            format!("{}  {first} and {} more (seeds {})\n", side.name, rest.len(), seeds.join(", "))
        }
        [] => String::new(),
    }
}

/// A figure with its interval, if there is one.
fn shown(Figure { share, value, .. }: &Figure) -> String {
    let Interval { mean, low, high, .. } = *value;
    match (share, low.is_finite() && low < high) {
        (true, true) => percent(value),
        (true, false) => format!("{:.2}%", 100.0 * mean),
        (false, true) => format!("{} [{}, {}]", short(mean), short(low), short(high)),
        (false, false) if mean.fract() == 0.0 && mean >= 0.0 => thousands(mean as u64),
        (false, false) => short(mean),
    }
}

/// A share with its interval.
pub(crate) fn percent(Interval { mean, low, high, .. }: &Interval) -> String {
    format!("{:.2}% [{:.2}, {:.2}]", 100.0 * mean, 100.0 * low, 100.0 * high)
}

fn verdict(pair: &Pair) -> String {
    let Pair { first, second, difference, paired, better } = pair;
    let [mean, low, high] = [difference.mean, difference.low, difference.high].map(|share| 100.0 * share);
    let how = if *paired { format!("paired over {} seeds", difference.n) } else { format!("unpaired, {} runs", difference.n) };
    let told = match better {
        Better::First => format!("{first} is better"),
        Better::Second => format!("{second} is better"),
        Better::Undecided => "undecided, because 0 is in the interval".to_owned(),
    };
    format!("{second} less {first}: accuracy {mean:+.2} points [{low:.2}, {high:.2}], {how}: {told}")
}
