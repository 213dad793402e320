//! `cost`: what designs and networks take, side by side, before anything runs.
use crate::cli::CostArgs;
use crate::error::CliError;
use crate::source::model;
use crate::table::{Align, table};
use crate::{print, print_json};
use serde::Serialize;
use serde_json::Value;
use striate_graph::{Graph, thousands};
use striate_models::{DESIGN_INPUT, designs, variants};
use striate_torch::nearest;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    about: &'static str,
    input: Vec<i64>,
    output: Vec<i64>,
    params: u64,
    macs: u64,
    activation_bytes: u64,
    receptive_field: [i64; 2],
    /// What it is held against.
    against: String,
    /// The multiply-adds of `against` divided by its own.
    times_fewer_macs: f64,
}

pub(crate) fn cost(args: &CostArgs) -> Result<(), CliError> {
    let groups = if args.names.is_empty() { all(args.input)? } else { vec![(String::new(), rows(&args.names, args.input)?)] };
    if args.json {
        return print_json(&groups.into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>());
    }
    print(&text(&groups))
}

/// The designs, each group with its rows.
fn all(input: Option<[i64; 3]>) -> Result<Vec<(String, Vec<Row>)>, CliError> {
    let groups = designs().chunk_by(|a, b| a.group == b.group);
    groups
        .map(|group| {
            let names: Vec<String> = group.iter().map(|design| design.name.to_owned()).collect();
            Ok((group[0].group.to_owned(), rows(&names, input)?))
        })
        .collect()
}

/// A row for each name, all held against the first.
fn rows(names: &[String], input: Option<[i64; 3]>) -> Result<Vec<Row>, CliError> {
    let mut rows: Vec<Row> = Vec::new();
    for name in names {
        let (about, graph) = build(name, input)?;
        let summary = graph.summary();
        let (against, macs) = rows.first().map_or((name.clone(), summary.macs), |first| (first.name.clone(), first.macs));
        rows.push(Row {
            name: name.clone(),
            about,
            input: graph.inputs().next().map(|input| input.shape.dims().to_vec()).unwrap_or_default(),
            output: graph.outputs().next().map(|(_, output)| output.shape.dims().to_vec()).unwrap_or_default(),
            params: summary.params,
            macs: summary.macs,
            activation_bytes: summary.activation_bytes_training,
            receptive_field: summary.receptive_field,
            against,
            times_fewer_macs: macs as f64 / summary.macs as f64,
        });
    }
    Ok(rows)
}

/// A design or a model of the registry, at its own input or at the one given.
fn build(name: &str, input: Option<[i64; 3]>) -> Result<(&'static str, Graph), CliError> {
    if let Some(design) = designs().iter().find(|design| design.name == name) {
        return Ok((design.about, design.graph(input.unwrap_or(DESIGN_INPUT))?));
    }
    if !variants().any(|variant| variant.name == name) {
        let known = designs().iter().map(|design| design.name).chain(variants().map(|variant| variant.name));
        let told = match nearest(name, known) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "`striate cost` lists the designs and `striate models` the models".to_owned(),
        };
        return Err(CliError::Usage(format!("there is no design or model {name}: {told}")));
    }
    let options: Vec<(String, Value)> = input.iter().map(|input| ("input".to_owned(), (*input).to_vec().into())).collect();
    let model = model(name, &options)?;
    Ok((model.variant().about, model.graph()?))
}

fn text(groups: &[(String, Vec<Row>)]) -> String {
    let head = ["", "input", "output", "params", "MACs", "times fewer", "activations", "sees", ""];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for (title, rows) in groups {
        if !title.is_empty() {
            lines.extend([vec![String::new()], vec![title.clone()]]);
        }
        for row in rows {
            let [height, width] = row.receptive_field;
            lines.push(vec![
                row.name.clone(),
                format!("{:?}", row.input),
                format!("{:?}", row.output),
                thousands(row.params),
                thousands(row.macs),
                if row.name == row.against { "-".to_owned() } else { format!("{:.2}", row.times_fewer_macs) },
                format!("{:.1} MB", row.activation_bytes as f64 / 1e6),
                format!("{height}x{width}"),
                row.about.to_owned(),
            ]);
        }
    }
    use Align::{Left, Right};
    table([Left, Left, Left, Right, Right, Right, Right, Right, Left], &lines)
}
