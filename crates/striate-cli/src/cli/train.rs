//! What `train` takes.
use super::{HeadArg, shape};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Default, Args)]
pub(crate) struct TrainArgs {
    /// Model name, bundle, or recipe (a .toml file)
    #[arg(value_name = "MODEL, BUNDLE or RECIPE")]
    pub(crate) what: Option<String>,
    /// Dataset name, or a folder laid out as train/CLASS/*.jpg and val/CLASS/*.jpg (or test), a list
    /// (.csv, .tsv) of paths and labels, or shards (.tar, a pattern, an address); with --split, one part
    /// is enough
    #[arg(long, value_name = "NAME or FOLDER")]
    pub(crate) data: Option<String>,
    /// Read the dataset's files from this folder; nothing is downloaded
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Use this recipe of those that come with Striate (docs/recipes.md), such as cifar-paper [default:
    /// chosen by what there is to do]
    #[arg(long, value_name = "NAME")]
    pub(crate) recipe: Option<String>,
    /// Passes over the training set
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) epochs: Option<u64>,
    /// Images per step
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) batch_size: Option<usize>,
    /// Peak learning rate
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// Find the learning rate first: where the loss falls fastest while the rate grows
    #[arg(long, conflicts_with = "lr")]
    pub(crate) find_lr: bool,
    /// Find the batch size first: the largest power of two whose step fits into memory
    #[arg(long, conflicts_with = "batch_size")]
    pub(crate) find_batch_size: bool,
    /// Optimizer: sgd, adam, adamw, rmsprop, lamb, lars, lion or muon
    #[arg(long, value_name = "KIND")]
    pub(crate) optimizer: Option<String>,
    /// Learning-rate schedule: constant, step, multistep, cosine, cosine-restarts, polynomial,
    /// plateau, exponential or onecycle
    #[arg(long, value_name = "KIND")]
    pub(crate) schedule: Option<String>,
    /// float32, or bfloat16 or float16 for convolutions and linear layers
    #[arg(long)]
    pub(crate) precision: Option<String>,
    /// When the loss becomes NaN or infinite: stop, skip the step, or rollback to the last checkpoint
    /// and halve the learning rate
    #[arg(long, value_name = "ACTION")]
    pub(crate) on_nan: Option<String>,
    /// Seed for initial weights, order and augmentation
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// Train with this many seeds, from --seed on, and report the mean with a 95% interval
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub(crate) seeds: Option<u64>,
    /// Threads for each operator; 0 uses all cores
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Threads that decode and transform pictures ahead; 0 makes each batch when it is needed [default:
    /// chosen by the data]
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// Where to keep decoded pictures: auto, off, memory or file
    #[arg(long, value_name = "WHERE")]
    pub(crate) cache: Option<String>,
    /// Comma-separated devices, such as cpu or cuda:0; several split a network that has that many
    /// towers
    #[arg(long, value_name = "DEVICES", value_delimiter = ',')]
    pub(crate) devices: Option<Vec<String>>,
    /// Train with this many processes on this machine, each with a part of every batch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) nproc: Option<u64>,
    /// What carries gradients between processes: gloo or nccl [default: nccl for GPUs, if it is built in]
    #[arg(long, value_enum)]
    pub(crate) backend: Option<BackendArg>,
    /// Give up a process after this many seconds without an answer, and end the others
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Start all processes again from the last checkpoint when one dies, at most this often
    #[arg(long, value_name = "K", default_value_t = 0, requires = "nproc")]
    pub(crate) max_restarts: u64,
    /// Set an option of the model, such as activation=tanh
    #[arg(long = "option", short = 'o', value_name = "NAME=VALUE")]
    pub(crate) options: Vec<String>,
    /// Input channels, height and width [default: the dataset's channels, the model's height and width]
    #[arg(long, value_name = "C,H,W", allow_hyphen_values = true, value_parser = shape)]
    pub(crate) input: Option<[i64; 3]>,
    /// Start from these weights: a file, one of several networks in a file (FILE#KEY), or a published
    /// name
    #[arg(long, value_name = "FILE or NAME")]
    pub(crate) weights: Option<String>,
    /// Fine-tune these weights (as for --weights) with a new classifier: it is trained alone for an
    /// epoch, then all layers, the first ones least. Without MODEL, for published weights and bundles
    #[arg(long, value_name = "FILE or NAME", conflicts_with = "weights")]
    pub(crate) fine_tune: Option<String>,
    /// Keep the classifier of the weights, or replace it with a new one
    #[arg(long, value_enum)]
    pub(crate) head: Option<HeadArg>,
    /// Freeze every layer from the input through this one
    #[arg(long, value_name = "LAYER")]
    pub(crate) freeze_through: Option<String>,
    /// Hold out this fraction of each class's training pictures, drawn by the seed, to choose the best
    /// epoch
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    pub(crate) split: Option<f64>,
    /// Train on this fraction of each class's training pictures, drawn by the seed
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    pub(crate) part: Option<f64>,
    /// Skip and count pictures that cannot be read; by default, they are an error
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Refuse larger pictures before decoding them [default: 89478485]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_pixels: Option<u64>,
    /// Write the run into this folder [default: a new one in runs/]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Resume a stopped run, or those of several seeds, from its folder; with --epochs, train a run for
    /// this many epochs in all, if its schedule does not depend on their number
    #[arg(long, value_name = "FOLDER", conflicts_with_all = [
        "what", "data", "recipe", "seeds", "batch_size", "lr", "find_lr", "find_batch_size", "optimizer", "schedule", "precision", "on_nan",
        "seed", "options", "input", "weights", "fine_tune", "head", "freeze_through", "split", "part", "skip_bad", "max_pixels", "out",
    ])]
    pub(crate) resume: Option<PathBuf>,
    /// Write event files for TensorBoard into the run's folder
    #[arg(long)]
    pub(crate) tensorboard: bool,
    /// Write report.html, the run's page, in the end
    #[arg(long)]
    pub(crate) report: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What carries gradients between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendArg {
    /// TCP
    Gloo,
    /// NVIDIA's library, for GPUs
    Nccl,
}
