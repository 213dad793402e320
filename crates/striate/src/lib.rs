//! The front door to Striate: train, fine-tune and ship image classifiers with the classic convolutional networks.
//!
//! - [`Classifier`] opens a bundle, which is a trained network in one file, and says what is in pictures: from any number of
//!   threads, which share one copy of the weights;
//! - [`Run`] is a training run as a value: a recipe in, events, checkpoints and a bundle out, and it can go on where it stopped;
//! - the crates behind them, under plain names: [`layers`], [`graph`], [`models`], [`datasets`], [`train`], [`infer`], and [`tch`].
//!
//! ```no_run
//! use striate::{Classifier, Run, recipes};
//!
//! // A folder with train/CLASS/*.jpg and val/CLASS/*.jpg.
//! let recipe = recipes::for_data("resnet18", "flowers")?;
//! let bundle = Run::new(recipe).run()?.bundle()?;
//!
//! let classifier = Classifier::open(bundle)?;
//! let answer = classifier.classify(std::path::Path::new("rose.jpg"))?;
//! println!("{} ({:.1}%)", answer.top[0].class, 100.0 * answer.top[0].probability);
//! # Ok::<(), striate::Error>(())
//! ```
//!
//! The crate's folder `examples` has programs to start from: `train_folder`, `fine_tune`, `fast`, a network of your own that is trained as
//! fast as one knows how, and `serve`, a service of your own.
//!
//! What is absent on purpose: the terminal. Whoever calls brings progress bars and signal handlers, and decides about the whole
//! process: [`keep_memory_warm`] is for programs that compute much.

mod cached;
pub mod cam;
pub mod check;
mod classifier;
pub mod compare;
pub mod data;
mod edited;
mod error;
pub mod figure;
mod find;
mod group;
mod machine;
mod pace;
mod prepared;
mod preview;
pub mod recipes;
mod report;
mod run;
mod run_folder;
pub mod runs;
mod seeds;
pub mod split;
mod summary;
mod sweep;
mod together;
pub mod verdict;
mod weights;

pub use classifier::{Answer, Classifier, ClassifierOptions, Prediction, devices};
pub use error::Error;
pub use find::{BatchSize, LrFound, SET_APART};
pub use group::{Member, group_file};
pub use machine::machine;
pub use prepared::Prepared;
pub use preview::Sheet;
pub use report::Report;
pub use run::{Outcome, Run};
pub use run_folder::{BUNDLE, RECIPE, REPORT, new_folder};
pub use seeds::{SEEDS, Seeds, SeedsOutcome, SeedsReport};
pub use striate_datasets as datasets;
pub use striate_datasets::Picture;
pub use striate_graph as graph;
pub use striate_infer as infer;
pub use striate_layers as layers;
pub use striate_models as models;
pub use striate_models::{Answering, Bundle, BundleInfo, Registry, Tta, Unknown};
pub use striate_torch::{Precision, keep_memory_warm};
pub use striate_train as train;
pub use striate_train::{Recipe, Scores};
pub use summary::Summary;
pub use sweep::{SWEEP, Search, Sweep, Swept, Trial, TrialState};
pub use tch;
pub use together::FOLDER;
pub use weights::{load, weights};
