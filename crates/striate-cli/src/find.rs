//! `--find-batch-size` and `--find-lr` of `train`: what is set before a run.
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::signals;
use striate::{BatchSize, Recipe, Run};
use striate_train::LrRangeOptions;

/// Sets what the command line has looked for, and says what was found.
pub(crate) fn find(args: &TrainArgs, recipe: &mut Recipe) -> Result<(), CliError> {
    let run = |recipe: &Recipe| Run::new(recipe.clone()).stop_on(signals::stop());
    if args.find_batch_size {
        let BatchSize { images, predicted, measured, available } = run(recipe).find_batch_size(None)?;
        let measured = measured.map(|bytes| format!(", and took {}", megabytes(bytes))).unwrap_or_default();
        tracing::info!(
            "batches of {images} images: a step was predicted to take {}{measured}; there are {} to be had; the learning rate of {} images is kept",
            megabytes(predicted),
            megabytes(available),
            recipe.train.batch_size
        );
        recipe.train.batch_size = images;
    }
    if args.find_lr {
        let range = run(recipe).find_lr(LrRangeOptions::default())?.range;
        let Some(lr) = range.suggestion else {
            return Err(CliError::Usage("--find-lr: the loss fell at no learning rate: set one with --lr".to_owned()));
        };
        tracing::info!("learning rate {lr:.2e}: in {} steps with growing rates, the loss fell fastest there", range.points.len());
        recipe.train.lr = lr;
    }
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
