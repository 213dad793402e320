//! Training of image classifiers: one loop for every network and dataset.
//!
//! - [`Recipe`] says in one TOML file what a run does; every key has a default, and a wrong one is told by name;
//! - [`Trainer`] runs it: forward, loss, backward, [`Optimizer`] at the learning rate that the [`ScheduleConfig`] gives, and
//!   after each epoch [`evaluate`]; it tells every [`Listener`] each [`Event`];
//! - a [`Hook`] sees network, gradients and optimizer in every step, and a [`Rule`] is an optimizer: both may be yours;
//! - [`Step`] is that training step alone, for loops of your own;
//! - [`Checkpoint`] keeps a run in one file, from which it goes on bit by bit; the same file is a bundle of the network;
//! - [`distributed`]: several processes train one network together;
//! - [`metrics`] counts, and [`calibration`] makes probabilities believable.
//!
//! ```
//! use striate_datasets::{Fit, Loader, LoaderOptions, Normalise, Preprocess, digits};
//! use striate_graph::{Graph, InitOptions, Network};
//! use striate_layers::{Flatten, Linear, loss::Loss};
//! use striate_train::{Recipe, Trainer};
//!
//! let data = digits()?;
//! let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Resize, Normalise::of(&data.train)?)?;
//! let train = Loader::new(&data.train, preprocess.clone(), LoaderOptions::train(64, 1))?;
//! let test = Loader::new(&data.test, preprocess, LoaderOptions::eval(256))?;
//! let graph = Graph::build(|net| {
//!     let x = net.input([1, 8, 8]);
//!     let x = net.add("flatten", Flatten, x)?;  // [64]
//!     let x = net.add("fc", Linear::new(10), x)?; // [10]
//!     net.output("logits", x)
//! })?;
//! let network = Network::new(graph, &InitOptions::default())?;
//!
//! let recipe = Recipe::parse("[train]\nepochs = 3", "softmax.toml".as_ref())?;
//! let mut trainer = Trainer::new(&network, &train, &test, recipe.train_config(Loss::default(), 0.0)?)?;
//! trainer.run()?;
//! assert!(trainer.progress().best_accuracy > Some(0.85));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is absent on purpose: any particular architecture, progress bars, and the program's way of running.

mod average;
pub mod calibration;
mod checkpoint;
mod csv;
mod distill;
pub mod distributed;
mod error;
mod evaluate;
mod event;
mod feed;
mod hook;
mod kept;
mod lr_range;
mod memory;
pub mod metrics;
pub mod optim;
pub mod picture;
mod progressive;
pub mod recipe;
mod scaler;
pub mod schedule;
mod step;
mod stopping;
mod tensorboard;
mod trainer;

pub use average::{Anneal, AverageConfig, Buffers, Ema, EmaConfig, Swa, SwaConfig};
pub use checkpoint::{Checkpoint, Progress, TestMetrics};
pub use csv::MetricsCsv;
pub use distill::{DistillSection, Teacher};
pub use error::TrainError;
pub use evaluate::{Evaluation, Judge, Scores, evaluate, evaluate_over, evaluate_with};
pub use event::{Event, JsonLines, Listener};
pub use hook::{Hook, Moment, WEIGHTS};
pub use kept::{Keep, kept_checkpoints, sweep_kept};
pub use lr_range::{LrPoint, LrRange, LrRangeOptions, lr_range};
pub use optim::{AdamConfig, AdamWConfig, Clip, Optimizer, OptimizerConfig, Param, ParamGroup, ParamKind, Rule, SgdConfig};
pub use progressive::Progressive;
pub use recipe::{
    AnsweringSection, Auto, ClassWeights, DataSection, Head, Layout, LossKind, LossSection, ModelSection, NamedWeights,
    PreprocessFrom, Recipe, Tf32, TrainSection, Workers,
};
pub use schedule::{Curve, Plateau, PlateauConfig, ScheduleConfig};
pub use step::{Objective, Step, StepOptions, StepOutput};
pub use stopping::{Patience, Waiting};
pub use striate_torch::Precision;
pub use tensorboard::{TensorBoard, event_files};
pub use trainer::{BEST, CheckpointConfig, LAST, OnNan, Outcome, ROLLBACK, Recovery, TrainConfig, Trainer};
