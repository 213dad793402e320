//! `models` and `summary`: what there is, and what it is made of.
use crate::cli::{ModelsArgs, SummaryArgs};
use crate::error::CliError;
use crate::source::{Source, parse_options, with_classes};
use crate::{diff, print, print_json};
use serde_json::json;
use striate_models::variants;
use striate_torch::write_atomically;

pub(crate) fn models(args: &ModelsArgs) -> Result<(), CliError> {
    if let [a, b] = &args.diff[..] {
        return diff::diff([a, b], args.json);
    }
    let mut rows = Vec::new();
    for variant in variants() {
        let model = variant.model(&[])?;
        let summary = model.graph()?.summary();
        rows.push(json!({
            "name": variant.name,
            "family": variant.family,
            "paper": variant.paper,
            "about": variant.about,
            "input": model.input(),
            "classes": model.classes(),
            "params": summary.params,
            "macs": summary.macs,
            "options": model.config(),
        }));
    }
    if args.json {
        return print_json(&rows);
    }
    let width = variants().map(|variant| variant.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &rows {
        let name = row["name"].as_str().unwrap_or_default();
        let params = row["params"].as_u64().unwrap_or_default();
        text += &format!("{name:width$}  {params:>11}  {}\n", row["about"].as_str().unwrap_or_default());
    }
    print(&format!("{:width$}  {:>11}\n{text}", "model", "parameters"))
}

pub(crate) fn summary(args: &SummaryArgs) -> Result<(), CliError> {
    let mut options = parse_options(&args.options)?;
    if let Some(input) = &args.input {
        options.push(("input".to_owned(), json!(input)));
    }
    let source = Source::open(&args.model, &with_classes(options, args.classes))?;
    let graph = source.model.graph()?;
    if let Some(path) = &args.svg {
        return Ok(write_atomically(path, |temporary| std::fs::write(temporary, graph.to_svg()))?);
    }
    let summary = graph.summary();
    match (args.json, args.markdown) {
        (true, _) => print_json(&summary),
        (_, true) => print(&summary.to_markdown()),
        _ => print(&summary.to_string()),
    }
}
