//! `data preview`: a contact sheet of what a network will see.
use crate::cli::TrainArgs;
use crate::data::args::DataPreviewArgs;
use crate::error::CliError;
use crate::output::{counted, named};
use crate::progress::Work;
use crate::{print, recipes, signals};
use std::path::Path;
use striate::datasets::Transform;
use striate::{Recipe, Run};
use striate_torch::Shown;

/// What is held out of data that have nothing to judge by, as a training run would want it.
const SPLIT: f64 = 0.2;

pub(crate) fn preview(args: &DataPreviewArgs) -> Result<(), CliError> {
    named(&args.output, "png")?;
    let train = TrainArgs {
        what: args.recipe.clone().or_else(|| args.model.clone()),
        data: Some(args.source.clone()),
        data_dir: args.data_dir.clone(),
        seed: args.seed,
        input: args.input,
        ..TrainArgs::default()
    };
    let mut recipe = recipes::resolve(&train)?.recipe;
    if !args.transforms.is_empty() {
        recipe.transforms = transforms(&args.transforms)?;
    }
    let work = Work::new();
    let sheet = |recipe: Recipe| {
        let run = Run::new(recipe).stop_on(signals::stop()).on_progress(|what, done, of| work.update(what, done, of));
        run.preview(args.count, args.epochs)
    };
    let sheet = match sheet(recipe.clone()) {
        Err(striate::Error::NothingToJudgeBy { .. }) => {
            recipe.data.split = SPLIT;
            sheet(recipe)?
        }
        sheet => sheet?,
    };
    drop(work);
    striate_files::write_bytes(&args.output, sheet.to_png()?)?;
    print(&format!("{} in {}\n", counted(sheet.rows.len(), "picture"), Shown(args.output.display())))
}

/// Transforms as a command line has them: a kind, or one with keys, as in `affine, degrees = 30`.
fn transforms(given: &[String]) -> Result<Vec<Transform>, CliError> {
    let table = |text: &String| {
        let (kind, keys) = text.split_once(',').unwrap_or((text, ""));
        format!("{{ kind = {}, {keys} }}", toml::Value::from(kind.trim()))
    };
    let list: Vec<String> = given.iter().map(table).collect();
    Ok(Recipe::parse(&format!("transforms = [{}]", list.join(", ")), Path::new("--transform"))?.transforms)
}
