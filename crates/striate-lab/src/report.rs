//! The page of all outcomes: one file that needs nothing else; it links the numbers that lie beside it.
use crate::page::{document, escape};
use crate::{Claim, Outcome, Verdict};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

const TITLE: &str = "Claims of the classic networks";

/// A claim's outcome on some data with its figure, and where both lie within the folder of all.
pub(crate) struct OnData {
    pub(crate) folder: PathBuf,
    pub(crate) outcome: Outcome,
    pub(crate) figure: String,
}

/// The page of these outcomes: for each claim one or more, each on other data.
pub(crate) fn page(outcomes: &[(&'static Claim, Vec<OnData>)]) -> String {
    let mut body = String::new();
    let mut overview = String::new();
    for (claim, outcomes) in outcomes {
        let _ = writeln!(
            overview,
            "<tr><td><a href=\"#{}\">{}</a></td><td>{}</td><td>{}</td></tr>",
            claim.name,
            escape(claim.title),
            verdicts(outcomes),
            escape(claim.source),
        );
        body += &section(claim, outcomes);
    }
    document(
        TITLE,
        &format!(
            "<h1>{TITLE}</h1>\n<p>Each claim as an experiment: what was measured, and what follows. An interval holds the mean over \
             seeds, or over turns where time is measured, with a confidence of 95% (Student's t); a point is supported if the whole interval is on its side, refuted if \
             none of it is, and undecided otherwise; a gain that may be none is refuted if the interval rules out the published one. A claim is refuted if one of its points is.</p>\n\
             <table><thead><tr><th>Claim</th><th>Verdict</th><th>Source</th></tr></thead><tbody>\n{overview}</tbody></table>\n{body}"
        ),
    )
}

/// The verdict, or one for each of the data.
fn verdicts(outcomes: &[OnData]) -> String {
    let verdict = |on: &OnData| match outcomes.len() {
        1 => badge(on.outcome.verdict),
        _ => format!("{} <small>{}</small>", badge(on.outcome.verdict), escape(&on.outcome.data)),
    };
    outcomes.iter().map(verdict).collect::<Vec<_>>().join(" ")
}

/// A claim: what was found on all data, then how.
fn section(claim: &Claim, outcomes: &[OnData]) -> String {
    let recipe = |on: &OnData| claim.recipe.at(on.outcome.scale);
    let recipes: BTreeSet<String> = outcomes.iter().map(recipe).collect();
    let recipes: String = recipes.iter().map(|recipe| format!("<dd>{}</dd>", escape(recipe))).collect();
    format!(
        "<section id=\"{}\">\n<h2>{} {}</h2>\n<p>{}</p>\n<p><small>{}</small></p>\n{}{}\
         <dl><dt>Hypothesis</dt><dd>{}</dd><dt>Refuted if</dt><dd>{}</dd><dt>Recipe</dt>{recipes}</dl>\n{}</section>\n",
        claim.name,
        escape(claim.title),
        verdicts(outcomes),
        escape(claim.claim),
        escape(claim.source),
        outcomes.iter().map(|on| figure(on, outcomes.len() > 1)).collect::<String>(),
        points(outcomes),
        escape(claim.hypothesis),
        escape(claim.refuted_if),
        outcomes.iter().map(|on| origin(claim, on)).collect::<String>(),
    )
}

fn figure(OnData { outcome, figure, .. }: &OnData, named: bool) -> String {
    let caption = if named { format!("<figcaption>On {}</figcaption>", escape(&outcome.data)) } else { String::new() };
    format!("<figure>{}{caption}</figure>\n", figure.trim())
}

/// The points of a claim, a row each, with a column for each of the data.
fn points(outcomes: &[OnData]) -> String {
    let mut points: Vec<&str> = Vec::new();
    for check in outcomes.iter().flat_map(|on| &on.outcome.checks) {
        if !points.contains(&check.what.as_str()) {
            points.push(&check.what);
        }
    }
    let cell = |on: &OnData, point: &str| match on.outcome.checks.iter().find(|check| check.what == point) {
        Some(check) => format!("<td>{}</td><td>{}</td>", escape(&check.measured), badge(check.verdict)),
        None => "<td></td><td></td>".to_owned(),
    };
    let row = |point: &&str| {
        let cells: String = outcomes.iter().map(|on| cell(on, point)).collect();
        format!("<tr><td>{}</td>{cells}</tr>\n", escape(point))
    };
    let measured = |on: &OnData| match outcomes.len() {
        1 => "<th>Measured</th><th>Verdict</th>".to_owned(),
        _ => format!("<th>Measured on {}</th><th>Verdict</th>", escape(&on.outcome.data)),
    };
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>Point</th>{}</tr></thead><tbody>\n{}</tbody></table></div>\n",
        outcomes.iter().map(measured).collect::<String>(),
        points.iter().map(row).collect::<String>(),
    )
}

/// Where an outcome is from: what else was seen, the command that measures it again, and the numbers.
fn origin(claim: &Claim, OnData { folder, outcome, .. }: &OnData) -> String {
    let remarks = match outcome.remarks.as_str() {
        "" => String::new(),
        remarks => format!("<p>{}</p>\n", escape(remarks)),
    };
    let mut rerun = format!("cargo xtask lab run {} --{}", claim.name, outcome.scale);
    let mut how = format!("A {} run of {}", outcome.scale, outcome.date);
    if !claim.is_exact() {
        let _ = write!(how, " on {}", outcome.data);
        let _ = write!(rerun, " --seeds {}", outcome.seeds.len());
        if let Some(first) = outcome.seeds.first().filter(|first| **first != 0) {
            let _ = write!(rerun, " --first-seed {first}");
        }
        let _ = write!(rerun, " --data {}", outcome.data);
    }
    let _ = write!(rerun, " --threads {}", outcome.threads);
    let _ = write!(
        how,
        "; {}; {}; {:.0} s, without what had been measured before.",
        outcome.machine,
        threads(outcome.threads),
        outcome.seconds
    );
    format!(
        "{remarks}<dl><dt>Again</dt><dd><code>{1}</code></dd>\
         <dt>Numbers</dt><dd><a href=\"{0}/numbers.csv\">numbers.csv</a>, <a href=\"{0}/outcome.json\">outcome.json</a></dd></dl>\n\
         <p><small>{2}</small></p>\n",
        escape(&folder.to_string_lossy()),
        escape(&rerun),
        escape(&how),
    )
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

fn badge(verdict: Verdict) -> String {
    format!("<span class=\"verdict {verdict}\">{verdict}</span>")
}
