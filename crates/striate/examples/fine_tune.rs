//! Teaches a trained network your own classes: its layers keep what they learned, and only its
//! classifier starts new.
//!
//! This takes far fewer pictures and epochs than training from scratch. The weights are published
//! ones by name (downloaded once), a file (`.pth` or `.safetensors`), or the bundle of an earlier
//! run. The folder is laid out as for `train_folder`: `flowers/train/rose/1.jpg`,
//! `flowers/val/rose/7.jpg`. From the root of the repository:
//!
//! ```console
//! $ cargo run --release -p striate --example fine_tune -- resnet18-imagenet1k-v1 resnet18 flowers
//! ```
//!
//! A number of epochs may follow.
use std::env;
use std::error::Error;
use std::process::ExitCode;
use striate::models::Registry;
use striate::train::{Event, Head, Listener, ModelSection, TrainError};
use striate::{Classifier, Outcome, Run, data, recipes};

const USAGE: &str = "usage: fine_tune WEIGHTS MODEL FOLDER [EPOCHS]";

/// Prints a line after each epoch.
struct Epochs;

impl Listener for Epochs {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if let Event::EpochDone { epoch, test_accuracy, .. } = event {
            println!("epoch {}: accuracy {test_accuracy:.4}", epoch + 1);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match fine_tune() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Striate's errors are sentences that say what to do.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fine_tune() -> Result<(), Box<dyn Error>> {
    striate::keep_memory_warm();
    // Shows what Striate logs, such as files that it leaves out.
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = env::args().skip(1);
    let mut next = || args.next().ok_or(USAGE);
    let (weights, name, folder) = (next()?, next()?, next()?);

    // The weights' classifier knows other classes than the folder has: replace it. To train the new
    // classifier alone, set `freeze_through` to the last layer that stays as it is: for a ResNet,
    // "avgpool".
    let model = ModelSection { name, weights, head: Head::Replace, ..ModelSection::default() };

    // For a model with weights this chooses the recipe for fine-tuning. Its learning rate is a
    // tenth of the usual one: with a larger rate the weights would lose what they know.
    let chosen = recipes::choose(model, data::section(&folder)?, &Registry::default())?;
    println!("{}", chosen.why);
    let mut recipe = chosen.recipe;
    if let Some(epochs) = args.next() {
        recipe.set_epochs(epochs.parse()?);
    }

    // Size, mean and deviation of the inputs come from the weights, not from your pictures: the
    // layers expect numbers like those that they were trained on. Published weights and bundles say
    // theirs. For a file that doesn't, they are measured on your pictures. The recipe's
    // `data.preprocess` changes this.
    let outcome = Run::new(recipe).why(chosen.why).listener(Epochs).run()?;
    let bundle = outcome.bundle()?;
    if let Outcome::Finished { summary, .. } = &outcome {
        println!("accuracy {:.4} on {} pictures", summary.test.accuracy, summary.test.examples);
    }

    // The new bundle keeps that preprocessing, so whoever opens it need not know any of this.
    let classifier = Classifier::open(&bundle)?;
    let normalise = &classifier.preprocess().normalise;
    println!("mean {:?}, deviation {:?}", normalise.mean, normalise.std);
    println!("classes {}", classifier.info().classes.join(", "));
    println!("bundle {}", bundle.display());
    Ok(())
}
