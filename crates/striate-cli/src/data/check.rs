//! `data check`: what is wrong with data, as a table, as JSON and as a page.
use crate::data::args::DataCheckArgs;
use crate::error::CliError;
use crate::eval::{section, set_threads};
use crate::output::counted;
use crate::progress::Work;
use crate::table::{Align, table};
use crate::{print, print_json, signals, source};
use serde::Serialize;
use striate::check::{CheckOptions, Checked};
use striate::datasets::{Count, Finding, Survey};
use striate::{Classifier, ClassifierOptions};
use striate_torch::Shown;

/// With more classes than this, only the smallest and the largest are listed.
const CLASSES: usize = 20;
/// The groups of a finding that are listed.
const GROUPS: usize = 5;
/// The pictures of a group that are listed.
const OF_GROUP: usize = 3;

#[derive(Serialize)]
struct Report<'a> {
    data: &'a str,
    errors: usize,
    #[serde(flatten)]
    survey: &'a Survey,
}

pub(crate) fn check(args: &DataCheckArgs) -> Result<(), CliError> {
    set_threads(args.threads)?;
    let mut section = section(&args.source, args.data_dir.as_deref())?;
    section.max_pixels = args.max_pixels.unwrap_or(section.max_pixels);
    let classifier = args.bundle.as_ref().map(|path| -> Result<Classifier, CliError> {
        let mut options = ClassifierOptions::default();
        options.stop = signals::stop();
        Ok(Classifier::of(&source::bundle(path)?, path, options)?)
    });
    let classifier = classifier.transpose()?;
    let mut options = CheckOptions::default();
    (options.classifier, options.doubts, options.alike) = (classifier.as_ref(), args.doubts, !args.exact);
    let work = Work::new();
    let checked = Checked::new(&section, &options, &mut |what, done, of| {
        work.update(what, done, of);
        !signals::stopped()
    })?;
    drop(work);
    if let Some(page) = &args.page {
        striate_files::write_bytes(page, striate_lab::data_page(&checked)?)?;
    }
    let errors = checked.survey.findings.iter().filter(|finding| finding.error).count();
    match args.json {
        true => print_json(&Report { data: &checked.name, errors, survey: &checked.survey })?,
        false => {
            let page = args.page.as_ref().map(|page| format!("\npage {}\n", Shown(page.display())));
            print(&format!("{}{}", describe(&checked), page.unwrap_or_default()))?;
        }
    }
    match errors {
        0 => Ok(()),
        1 => Err(CliError::Found(format!("{}: 1 error", Shown(&checked.name)))),
        more => Err(CliError::Found(format!("{}: {more} errors", Shown(&checked.name)))),
    }
}

fn describe(checked: &Checked) -> String {
    let survey = &checked.survey;
    let (pictures, classes) = (survey.len(), survey.classes.len());
    let mut text = format!(
        "{}: {}, {classes} class{}\n\n",
        Shown(&checked.name),
        counted(pictures, "picture"),
        if classes == 1 { "" } else { "es" }
    );
    text += &describe_classes(survey);
    if let Some(sizes) = &survey.sizes {
        let size = |[width, height]: [u32; 2]| format!("{width}x{height}");
        let (smallest, median, largest) = (size(sizes.smallest), size(sizes.median), size(sizes.largest));
        text += &format!("\nsizes    {smallest} to {largest}, median {median}\n");
    }
    for (name, counts) in [("colours", &survey.colours), ("formats", &survey.formats)] {
        if !counts.is_empty() {
            let list = counts.iter().map(|Count { what, pictures, .. }| format!("{pictures} {what}")).collect::<Vec<_>>();
            text += &format!("{name}  {}\n", list.join(", "));
        }
    }
    for finding in &survey.findings {
        text += &format!("\n{}  {}: {}\n", if finding.error { "error" } else { "note " }, finding.message, finding.advice);
        text += &describe_groups(checked, finding);
    }
    if survey.findings.is_empty() {
        text += "\nnothing was found\n";
    }
    text
}

/// How many pictures each part has of each class.
fn describe_classes(survey: &Survey) -> String {
    // No more parts are known.
    const COLUMNS: [Align; 4] = [Align::Left, Align::Right, Align::Right, Align::Right];
    let count = |class: usize| survey.parts.iter().map(|part| part.pictures[class]).sum::<usize>();
    let mut order: Vec<usize> = (0..survey.classes.len()).collect();
    if order.len() > CLASSES {
        order.sort_by_key(|class| std::cmp::Reverse(count(*class)));
    }
    let row = |name: String, counts: &mut dyn Iterator<Item = String>| {
        let mut row: Vec<String> = [name].into_iter().chain(counts).collect();
        row.resize(COLUMNS.len(), String::new());
        row
    };
    let of_class = |class: &usize| {
        row(Shown(&survey.classes[*class]).to_string(), &mut survey.parts.iter().map(|part| part.pictures[*class].to_string()))
    };
    let mut rows = vec![row("class".to_owned(), &mut survey.parts.iter().map(|part| part.part.clone()))];
    if order.len() > CLASSES {
        let (first, last) = (&order[..CLASSES / 2], &order[order.len() - CLASSES / 2..]);
        rows.extend(first.iter().map(of_class));
        rows.push(vec![format!("... {} more", order.len() - CLASSES)]);
        rows.extend(last.iter().map(of_class));
    } else {
        rows.extend(order.iter().map(of_class));
    }
    rows.push(row("all".to_owned(), &mut survey.parts.iter().map(|part| part.pictures.iter().sum::<usize>().to_string())));
    table(COLUMNS, &rows)
}

fn describe_groups(checked: &Checked, finding: &Finding) -> String {
    let mut text = String::new();
    for group in finding.groups.iter().take(GROUPS) {
        let mut names: Vec<String> = group.iter().take(OF_GROUP).map(|seen| Shown(checked.place(seen)).to_string()).collect();
        if group.len() > OF_GROUP {
            names.push(format!("{} more", group.len() - OF_GROUP));
        }
        let note = group.iter().map(|seen| seen.note.as_str()).find(|note| !note.is_empty());
        let note = note.map(|note| format!(": {}", Shown(note))).unwrap_or_default();
        text += &format!("       {}{note}\n", names.join(" = "));
    }
    match finding.groups.len() {
        more if more > GROUPS => text + &format!("       ... {} more\n", more - GROUPS),
        _ => text,
    }
}
