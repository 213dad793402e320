//! `models --diff`: where two networks differ, layer by layer.
use crate::error::CliError;
use crate::source::described;
use crate::table::{Align, table};
use crate::{print, print_json};
use serde_json::json;
use std::collections::BTreeMap;
use striate_graph::{Change, DiffEntry, GraphDiff, LayerSummary, thousands};
use striate_torch::Shown;

/// Prints where the models or bundles `a` and `b` differ.
pub(crate) fn diff(names: [&str; 2], as_json: bool) -> Result<(), CliError> {
    let [a, b] = names;
    let diff = described(a, &[])?.diff(&described(b, &[])?);
    if as_json {
        let mut value = json!(diff);
        (value["a"]["name"], value["b"]["name"]) = (a.into(), b.into());
        return print_json(&value);
    }
    print(&text(names.map(|name| Shown(name).to_string()).each_ref().map(String::as_str), &diff))
}

fn text(names: [&str; 2], diff: &GraphDiff) -> String {
    let [a, b] = names;
    if diff.identical {
        let (params, macs) = (thousands(diff.a.params), thousands(diff.a.macs));
        return format!("{a} and {b} are the same network: {} layers, {params} parameters, {macs} MACs\n", diff.a.layers);
    }
    let mut rows = vec![["", "layer", "op", "output", "params", "MACs", "also"].map(str::to_owned).to_vec()];
    for run in diff.entries.chunk_by(|a, b| is_alike(a) && is_alike(b)) {
        match run {
            [entry] if !is_alike(entry) => rows.push(row(entry)),
            alike => rows.push(vec![told_alike(alike)]),
        }
    }
    let layers = table([Align::Left; 7], &rows);
    format!("-  only in {a}   +  only in {b}   ~  in both, from {a} to {b}\n\n{layers}\n{}", totals(names, diff))
}

/// Whether two layers are the same but for their names.
fn is_alike(entry: &DiffEntry) -> bool {
    matches!(entry.change, Change::Same | Change::Renamed)
}

/// One line for layers that are the same in both.
fn told_alike(entries: &[DiffEntry]) -> String {
    let layers = if entries.len() == 1 { "1 layer".to_owned() } else { format!("{} layers", entries.len()) };
    let renamed = entries.iter().filter(|entry| entry.change == Change::Renamed).count();
    match renamed {
        0 => format!("   ... {layers} alike"),
        _ if renamed == entries.len() => format!("   ... {layers} alike, under other names"),
        _ => format!("   ... {layers} alike, {renamed} under other names"),
    }
}

/// A layer that only one network has, or that differs.
fn row(entry: &DiffEntry) -> Vec<String> {
    let mark = match entry.change {
        Change::OnlyA => "-",
        Change::OnlyB => "+",
        Change::Changed | Change::Same | Change::Renamed => "~",
    };
    let both = |cell: fn(&LayerSummary) -> String| {
        let cells: Vec<String> = [&entry.a, &entry.b].into_iter().flatten().map(cell).collect();
        match &cells[..] {
            [a, b] if a != b => format!("{a} -> {b}"),
            cells => cells.first().cloned().unwrap_or_default(),
        }
    };
    let op = match [&entry.a, &entry.b] {
        [Some(a), Some(b)] if a.op == b.op && a.options != b.options => format!("{} {} -> {}", a.op, a.options, b.options),
        _ => both(|layer| format!("{} {}", layer.op, layer.options).trim_end().to_owned()),
    };
    let name = both(|layer| layer.name.clone());
    let output = both(|layer| format!("{:?}", layer.output));
    let (params, macs) = (both(|layer| count(layer.params)), both(|layer| count(layer.macs)));
    vec![mark.to_owned(), name, op, output, params, macs, also(entry)]
}

fn count(n: u64) -> String {
    if n == 0 { "-".to_owned() } else { thousands(n) }
}

/// What the other columns show.
const SHOWN: [&str; 12] = [
    "name",
    "op",
    "output",
    "params",
    "macs",
    "kernel_size",
    "stride",
    "out_channels",
    "out_features",
    "output_size",
    "size",
    "p",
];

/// The differences that no other column shows.
fn also(entry: &DiffEntry) -> String {
    let rest = entry.differences.iter().filter(|difference| !SHOWN.contains(&difference.what.as_str()));
    let (inits, others): (Vec<_>, Vec<_>) = rest.partition(|difference| difference.what.ends_with("_init"));
    let mut told: Vec<String> = others.iter().map(|other| format!("{} {} -> {}", other.what, other.a, other.b)).collect();
    if !inits.is_empty() {
        told.push("initialisation".to_owned());
    }
    told.join(", ")
}

/// What both have in all, and the kinds of layers that only one has.
fn totals(names: [&str; 2], diff: &GraphDiff) -> String {
    let [a, b] = names;
    let mut rows = vec![vec![String::new(), a.to_owned(), b.to_owned(), "difference".to_owned()]];
    let counts = [
        ("layers", diff.a.layers as u64, diff.b.layers as u64),
        ("parameters", diff.a.params, diff.b.params),
        ("MACs", diff.a.macs, diff.b.macs),
    ];
    for (what, a, b) in counts {
        rows.push(vec![what.to_owned(), thousands(a), thousands(b), change(a, b)]);
    }
    let mut text = table([Align::Left, Align::Right, Align::Right, Align::Right], &rows);
    if diff.a.outputs != diff.b.outputs {
        text += &format!("outputs in training: {} -> {}\n", diff.a.outputs.join(", "), diff.b.outputs.join(", "));
    }
    for (name, change) in [(a, Change::OnlyA), (b, Change::OnlyB)] {
        let kinds = kinds(diff, change);
        if !kinds.is_empty() {
            text += &format!("only in {name}: {kinds}\n");
        }
    }
    text
}

/// `b` against `a`, with the share of `a` that it is.
fn change(a: u64, b: u64) -> String {
    let sign = if b < a { "-" } else { "+" };
    match a.abs_diff(b) {
        0 => "none".to_owned(),
        difference if a == 0 => format!("{sign}{}", thousands(difference)),
        difference => format!("{sign}{} ({:+.2}%)", thousands(difference), 100.0 * (b as f64 / a as f64 - 1.0)),
    }
}

/// How many layers of each kind underwent the change.
fn kinds(diff: &GraphDiff, change: Change) -> String {
    let mut kinds = BTreeMap::new();
    for entry in diff.entries.iter().filter(|entry| entry.change == change) {
        let layer = entry.a.as_ref().or(entry.b.as_ref());
        *kinds.entry(layer.map(|layer| layer.op.as_str()).unwrap_or_default()).or_insert(0) += 1;
    }
    kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}
