//! `lab list` and `lab run`.
use super::args::{LabListArgs, LabRunArgs};
use crate::error::CliError;
use crate::eval::{section, set_threads};
use crate::output::no_file;
use crate::spread::tell_once;
use crate::table::{Align, table};
use crate::{print, print_json, signals};
use serde_json::{Value, json};
use std::path::PathBuf;
use striate_lab::{Claim, LabOptions, Outcome, Scale, claims, find_claim};
use striate_torch::Shown;

/// The name that stands for every claim.
const ALL: &str = "all";

pub(super) fn list(args: &LabListArgs) -> Result<(), CliError> {
    if args.json {
        return print_json(&claims().iter().map(describe).collect::<Vec<_>>());
    }
    let minutes = |minutes: f64| if minutes < 1.0 { "< 1 min".to_owned() } else { format!("{minutes:.0} min") };
    let row = |claim: &Claim| {
        let [quick, full] = claim.minutes.map(minutes);
        vec![claim.name.to_owned(), claim.title.to_owned(), quick, full]
    };
    let header = ["claim", "what it says", "--quick", "--full"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(header).chain(claims().iter().map(row)).collect();
    print(&table([Align::Left, Align::Left, Align::Right, Align::Right], &rows))
}

fn describe(claim: &Claim) -> Value {
    json!({
        "name": claim.name,
        "title": claim.title,
        "claim": claim.claim,
        "source": claim.source,
        "hypothesis": claim.hypothesis,
        "refuted_if": claim.refuted_if,
        "recipe": {"quick": claim.recipe.at(Scale::Quick), "full": claim.recipe.at(Scale::Full)},
        "seeds": {"quick": claim.seeds[0], "full": claim.seeds[1]},
        "minutes": {"quick": claim.minutes[0], "full": claim.minutes[1]},
    })
}

pub(super) fn run(args: &LabRunArgs) -> Result<(), CliError> {
    let chosen: Vec<&'static Claim> = match args.claims.iter().any(|name| name == ALL) {
        true => claims().iter().collect(),
        false => args.claims.iter().map(|name| find_claim(name)).collect::<Result<_, _>>()?,
    };
    set_threads(args.threads)?;
    let scale = if args.full { Scale::Full } else { Scale::Quick };
    let data = section(&args.data, args.data_dir.as_deref())?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("lab/{scale}")));
    no_file(&out, "--out")?;
    if args.seeds == Some(1) && chosen.iter().any(|claim| !claim.is_exact()) {
        tracing::warn!("one seed gives no interval: what is measured over seeds stays undecided");
    }
    let Some(queue) = args.spread.queue()? else { return Ok(()) };
    let options = LabOptions {
        scale,
        seeds: args.seeds.map(usize::from),
        first_seed: args.first_seed,
        data,
        out,
        stop: signals::stop(),
        queue: queue.clone(),
    };
    signals::farewell("stopped; the same command goes on where it was");
    let minutes: f64 = chosen.iter().map(|claim| scale.pick(claim.minutes)).sum();
    if minutes >= 1.0 && queue.rank() == 0 {
        tracing::info!("up to {:.0} minutes on two cores, but for what is measured already", minutes.ceil());
    }
    let mut outcomes = Vec::new();
    for claim in chosen {
        let outcome = striate_lab::run(claim, &options)?;
        if !args.json {
            tell_once(&queue, claim.name, || print(&text(claim, &outcome)))?;
        }
        outcomes.push(outcome);
    }
    tell_once(&queue, "all", || match args.json {
        true => print_json(&outcomes),
        false => print(&format!("{}\n", Shown(options.out.join("index.html").display()))),
    })
}

/// The outcome for people.
fn text(claim: &Claim, outcome: &Outcome) -> String {
    let mut text = format!("{}: {}\n", claim.title, outcome.verdict);
    for check in &outcome.checks {
        text += &format!("  {:<9}  {}: {}\n", check.verdict.to_string(), check.what, check.measured);
    }
    text + "\n"
}
