//! `models` and `summary`: what there is, and what it is made of.
use crate::cli::{ModelsArgs, SummaryArgs};
use crate::error::CliError;
use crate::output::named;
use crate::source::{described, parse_options, with_classes};
use crate::table::{Align, table};
use crate::{diff, page, print, print_json};
use serde_json::{Value, json};
use striate_graph::{Summary, thousands};
use striate_models::{Model, Variant, variants};

/// A variant of the registry with what it is built as.
pub(crate) struct Row {
    pub(crate) variant: &'static Variant,
    pub(crate) model: Model,
    pub(crate) summary: Summary,
}

pub(crate) fn models(args: &ModelsArgs) -> Result<(), CliError> {
    if let [a, b] = &args.diff[..] {
        return diff::diff([a, b], args.json);
    }
    let rows: Result<Vec<Row>, CliError> = variants().map(row).collect();
    let rows = rows?;
    match (args.json, args.markdown) {
        (true, _) => print_json(&rows.iter().map(entry).collect::<Vec<_>>()),
        (_, true) => print(&page::markdown(&rows)),
        _ => print(&list(&rows)),
    }
}

fn row(variant: &'static Variant) -> Result<Row, CliError> {
    let model = variant.model(&[])?;
    let summary = model.graph()?.summary();
    Ok(Row { variant, model, summary })
}

/// An entry of the list for machines.
fn entry(row: &Row) -> Value {
    let Row { variant, model, summary } = row;
    json!({
        "name": variant.name,
        "family": variant.family,
        "paper": variant.paper.to_string(),
        "year": variant.paper.year,
        "place": variant.place,
        "about": variant.about,
        "deviations": variant.deviations,
        "torchvision": variant.torchvision,
        "input": model.input(),
        "classes": model.classes(),
        "params": summary.params,
        "macs": summary.macs,
        "receptive_field": summary.receptive_field,
        "options": model.config(),
    })
}

/// The list for people.
fn list(rows: &[Row]) -> String {
    let head = ["model", "parameters", "what it is"].map(str::to_owned).to_vec();
    let lines = rows.iter().map(|row| {
        let place = row.variant.place.map(|place| format!(" ({} {}, {place})", author(row.variant), row.variant.paper.year));
        let about = format!("{}{}", row.variant.about, place.unwrap_or_default());
        vec![row.variant.name.to_owned(), thousands(row.summary.params), about]
    });
    table([Align::Left, Align::Right, Align::Left], &std::iter::once(head).chain(lines).collect::<Vec<_>>())
}

/// The first author of the paper.
pub(crate) fn author(variant: &Variant) -> &'static str {
    variant.paper.authors.split(',').next().unwrap_or_default()
}

pub(crate) fn summary(args: &SummaryArgs) -> Result<(), CliError> {
    let mut options = parse_options(&args.options)?;
    if let Some(input) = &args.input {
        options.push(("input".to_owned(), json!(input)));
    }
    let graph = described(&args.model, &with_classes(options, args.classes))?;
    if let Some(path) = &args.svg {
        named(path, "svg")?;
        return Ok(striate_files::write_bytes(path, graph.to_svg())?);
    }
    let summary = graph.summary();
    match (args.json, args.markdown) {
        (true, _) => print_json(&summary),
        (_, true) => print(&summary.to_markdown()),
        _ => print(&summary.to_string()),
    }
}
