//! The page of all outcomes: one file that needs nothing else; it links the numbers that lie beside it.
use crate::page::{document, escape};
use crate::{Claim, Outcome};
use std::fmt::Write;

const TITLE: &str = "Claims of the classic networks";

/// The page of these outcomes, each with its figure.
pub(crate) fn page(outcomes: &[(&'static Claim, Outcome, String)]) -> String {
    let mut body = String::new();
    let mut overview = String::new();
    for (claim, outcome, figure) in outcomes {
        let name = claim.name;
        let _ = writeln!(
            overview,
            "<tr><td><a href=\"#{name}\">{}</a></td><td>{}</td><td>{}</td></tr>",
            escape(claim.title),
            badge(&outcome.verdict.to_string()),
            escape(claim.source),
        );
        body += &section(claim, outcome, figure);
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

fn section(claim: &Claim, outcome: &Outcome, figure: &str) -> String {
    let rows: String = (outcome.checks.iter())
        .map(|check| {
            let verdict = badge(&check.verdict.to_string());
            format!("<tr><td>{}</td><td>{}</td><td>{verdict}</td></tr>\n", escape(&check.what), escape(&check.measured))
        })
        .collect();
    let remarks = match outcome.remarks.as_str() {
        "" => String::new(),
        remarks => format!("<p>{}</p>\n", escape(remarks)),
    };
    let mut rerun = format!("cargo xtask lab run {} --{}", claim.name, outcome.scale);
    let how = format!(
        "A {} run of {}; {}; {}; {:.0} s, without what had been measured before.",
        outcome.scale,
        outcome.date,
        outcome.machine,
        threads(outcome.threads),
        outcome.seconds
    );
    if !claim.is_exact() {
        let _ = write!(rerun, " --seeds {}", outcome.seeds.len());
        if let Some(first) = outcome.seeds.first().filter(|first| **first != 0) {
            let _ = write!(rerun, " --first-seed {first}");
        }
        let _ = write!(rerun, " --data {}", outcome.data);
    }
    let _ = write!(rerun, " --threads {}", outcome.threads);
    format!(
        "<section id=\"{}\">\n<h2>{} {}</h2>\n<p>{}</p>\n<p><small>{}</small></p>\n<figure>{}</figure>\n\
         <table><thead><tr><th>Point</th><th>Measured</th><th>Verdict</th></tr></thead><tbody>\n{rows}</tbody></table>\n{remarks}\
         <dl><dt>Hypothesis</dt><dd>{}</dd><dt>Refuted if</dt><dd>{}</dd><dt>Recipe</dt><dd>{}</dd><dt>Again</dt><dd><code>{}</code></dd>\
         <dt>Numbers</dt><dd><a href=\"{0}/numbers.csv\">numbers.csv</a>, <a href=\"{0}/outcome.json\">outcome.json</a></dd></dl>\n\
         <p><small>{}</small></p>\n</section>\n",
        claim.name,
        escape(claim.title),
        badge(&outcome.verdict.to_string()),
        escape(claim.claim),
        escape(claim.source),
        figure.trim(),
        escape(claim.hypothesis),
        escape(claim.refuted_if),
        escape(&claim.recipe.at(outcome.scale)),
        escape(&rerun),
        escape(&how),
    )
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

fn badge(verdict: &str) -> String {
    format!("<span class=\"verdict {verdict}\">{verdict}</span>")
}
