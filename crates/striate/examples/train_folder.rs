//! Trains a network on a folder of pictures, then asks it what is in one of them.
//!
//! The folder has one folder per class in `train`, and pictures to judge by in `val` or `test`:
//! `flowers/train/rose/1.jpg`, `flowers/val/rose/7.jpg`. From the root of the repository:
//!
//! ```console
//! $ cargo run --release -p striate --example train_folder -- flowers resnet20-cifar 10
//! ```
//!
//! Model and epochs may be left out. The run's folder, `runs/MODEL-FOLDER-1`, holds all that
//! it writes.
use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use striate::models::Registry;
use striate::train::{Event, Listener, ModelSection, TrainError};
use striate::{Classifier, Outcome, Run, data, recipes};

const USAGE: &str = "usage: train_folder FOLDER [MODEL] [EPOCHS]";

/// Prints a line after each epoch. A listener is told of everything that happens in a run.
struct Epochs;

impl Listener for Epochs {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if let Event::EpochDone { epoch, train_loss, test_accuracy, .. } = event {
            println!("epoch {}: loss {train_loss:.4}, accuracy {test_accuracy:.4}", epoch + 1);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match train() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Striate's errors are sentences that say what to do.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn train() -> Result<(), Box<dyn Error>> {
    // Training is faster if freed memory stays in the process. This is for programs to decide, not
    // for libraries.
    striate::keep_memory_warm();
    // Shows what Striate logs, such as files that it leaves out.
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = env::args().skip(1);
    let folder = args.next().ok_or(USAGE)?;
    // It takes pictures of 32x32 and learns in minutes. `resnet18` takes 224x224: better for
    // photographs, and slower.
    let name = args.next().unwrap_or_else(|| "resnet20-cifar".to_owned());

    // A recipe is plain data. Striate has one for each kind of work; what you want otherwise, you
    // change.
    let model = ModelSection { name, ..ModelSection::default() };
    let chosen = recipes::choose(model, data::section(&folder)?, &Registry::default())?;
    println!("{}", chosen.why);
    let mut recipe = chosen.recipe;
    if let Some(epochs) = args.next() {
        recipe.set_epochs(epochs.parse()?);
    }

    // The number of classes, and the mean and deviation of the pictures, come from the folder.
    let outcome = Run::new(recipe).why(chosen.why).listener(Epochs).run()?;
    let bundle = outcome.bundle()?;
    if let Outcome::Finished { summary, .. } = &outcome {
        println!("accuracy {:.4} on {} pictures", summary.test.accuracy, summary.test.examples);
    }
    println!("bundle {}", bundle.display());

    // The bundle is all that your product needs: network, weights, classes and preprocessing in one
    // file.
    let classifier = Classifier::open(&bundle)?;
    let picture = any_picture(&Path::new(&folder).join("train"))?;
    let prediction = classifier.classify(&picture)?;
    println!("{}:", picture.display());
    for answer in prediction.top {
        println!("  {:.3} {}", answer.probability, answer.class);
    }
    Ok(())
}

/// The first picture of the first class.
fn any_picture(train: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let first = |folder: &Path| -> Result<PathBuf, Box<dyn Error>> {
        let entries = folder.read_dir()?.collect::<Result<Vec<_>, _>>()?;
        let first = entries.into_iter().map(|entry| entry.path()).min();
        first.ok_or_else(|| format!("{} is empty", folder.display()).into())
    };
    first(&first(train)?)
}
