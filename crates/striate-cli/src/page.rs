//! `models --markdown`: the page docs/models.md.
use crate::models::{Row, author};
use striate_graph::thousands;
use striate_models::{Paper, Variant};

const HEAD: &str = "\
# Models

Every network of the registry, as `cargo xtask models --markdown` prints it: the texts stand beside the code in
`crates/striate-models`, and `cargo xtask models --markdown > docs/models.md` writes this page anew.

Parameters count auxiliary heads too. MACs are the multiply-adds of convolutions and linear layers in evaluation, for one
image. *Sees* is the receptive field of the last feature map: the part of the image, borders aside, that one of its values
depends on. A network under *torchvision* has torchvision's names and shapes of parameters, so that its weights load.
`cargo xtask models --diff A B` shows where two networks differ, `cargo xtask summary MODEL` all layers of one.
";

/// The page.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let families = rows.chunk_by(|a, b| a.variant.family == b.variant.family);
    HEAD.to_owned() + &families.map(family).collect::<String>()
}

/// A family: its papers, its table, and its variants' deviations.
fn family(rows: &[Row]) -> String {
    let mut papers: Vec<(&Paper, &str)> = Vec::new();
    for Row { variant, .. } in rows {
        if !papers.iter().any(|(paper, _)| *paper == variant.paper) {
            papers.push((variant.paper, author(variant)));
        }
    }
    let papers: Vec<String> = papers.iter().map(|(paper, author)| citation(paper, author)).collect();
    let mut text = format!("\n## {}\n\n{}\n\n", rows[0].variant.family, papers.join("\n"));
    text += "| model | what it is | paper | year | torchvision | parameters | MACs | input | sees |\n";
    text += "|---|---|---|---|---|---:|---:|---|---|\n";
    for row in rows {
        text += &table_row(row);
    }
    text + &deviations(rows)
}

fn citation(paper: &Paper, author: &str) -> String {
    let link = paper.arxiv.map(|number| format!(", [arXiv:{number}](https://arxiv.org/abs/{number})"));
    let Paper { authors, year, title, .. } = paper;
    format!("- {author} {year}: {authors}, *{title}*{}", link.unwrap_or_default())
}

fn table_row(row: &Row) -> String {
    let Row { variant, model, summary } = row;
    let place = variant.place.map(|place| format!(", {place}")).unwrap_or_default();
    let torchvision = variant.torchvision.as_ref().map(|theirs| format!("`{}`", theirs.name)).unwrap_or_default();
    let [height, width] = summary.receptive_field;
    let cells = [
        format!("`{}`", variant.name),
        variant.about.to_owned(),
        format!("{}{place}", author(variant)),
        variant.paper.year.to_string(),
        torchvision,
        thousands(summary.params),
        thousands(summary.macs),
        model.input().map(|size| size.to_string()).join("x"),
        format!("{height}x{width}"),
    ];
    format!("| {} |\n", cells.join(" | "))
}

/// What variants deviate in from their papers, then from torchvision; variants with the same deviations share a list.
fn deviations(rows: &[Row]) -> String {
    let from_paper = grouped(rows, |variant| variant.deviations);
    let from_torchvision = grouped(rows, |variant| variant.torchvision.as_ref().map_or(&[], |theirs| theirs.deviations));
    let list = |from: &str, groups: Vec<(&[&str], Vec<String>)>| {
        let lists = groups.into_iter().map(|(deviations, names)| {
            let lines: String = deviations.iter().map(|deviation| format!("- {deviation}\n")).collect();
            format!("\nDeviations of {} from {from}:\n\n{lines}", names.join(", "))
        });
        lists.collect::<String>()
    };
    list("the paper", from_paper) + &list("torchvision", from_torchvision)
}

/// The lists that are not empty, each with the names of the variants that have it.
fn grouped(rows: &[Row], of: fn(&'static Variant) -> &'static [&'static str]) -> Vec<(&'static [&'static str], Vec<String>)> {
    let mut groups: Vec<(&[&str], Vec<String>)> = Vec::new();
    for Row { variant, .. } in rows {
        let (deviations, name) = (of(variant), format!("`{}`", variant.name));
        match groups.iter_mut().find(|(group, _)| *group == deviations) {
            _ if deviations.is_empty() => {}
            Some((_, names)) => names.push(name),
            None => groups.push((deviations, vec![name])),
        }
    }
    groups
}
