//! The command line of `lab`.
use crate::cli::count;
use crate::spread::SpreadArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use striate_lab::DEFAULT_DATA;

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// List the claims that you can test
    List(LabListArgs),
    /// Test claims: measure, plot, give a verdict
    Run(LabRunArgs),
    /// Show feature maps and the evidence for each answer, as pictures and one HTML page
    Inspect(LabInspectArgs),
    /// Plot the loss around a network's weights on a plane of random directions
    Surface(LabSurfaceArgs),
    /// Find a learning rate: raise it step by step and watch the loss
    Lr(LabLrArgs),
    /// Show which classes a network confuses, and its worst mistakes
    Confusion(LabConfusionArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LabListArgs {
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LabRunArgs {
    /// Names from lab list, or all
    #[arg(required = true, value_name = "CLAIM")]
    pub(crate) claims: Vec<String>,
    /// Use small networks and few steps: up to 5 minutes a claim on two cores [default]
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// Use deeper networks, or more images, steps and seeds: up to 20 minutes a claim on two cores
    #[arg(long)]
    pub(crate) full: bool,
    /// Number of seeds [default: the claim's own]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) seeds: Option<u16>,
    /// First seed; the others follow it
    #[arg(long, value_name = "SEED", default_value_t = 0, allow_negative_numbers = true, value_parser = first_seed)]
    pub(crate) first_seed: u64,
    /// Dataset name, or a folder as for train
    #[arg(long, value_name = "NAME or FOLDER", default_value = DEFAULT_DATA)]
    pub(crate) data: String,
    /// Read the dataset's files from this folder; nothing is downloaded
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Threads for each operator; 0 uses all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Write results into this folder; those on several datasets go side by side [default:
    /// lab/quick or lab/full]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) spread: SpreadArgs,
    /// Print the outcomes as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A seed that others can follow.
fn first_seed(text: &str) -> Result<u64, String> {
    const LARGEST: u64 = u64::MAX / 2;
    let seed = text.parse().ok().filter(|seed| *seed <= LARGEST);
    seed.ok_or_else(|| format!("give a whole number from 0 to {LARGEST}"))
}

#[derive(Debug, Args)]
pub(crate) struct LabInspectArgs {
    /// Bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    /// Pictures, folders of pictures, or names of datasets, whose test sets are taken
    #[arg(required = true, value_name = "PICTURE, FOLDER or NAME")]
    pub(crate) images: Vec<PathBuf>,
    /// Show all feature maps of this layer [default: some of the last layer of each size]
    #[arg(long = "layer", value_name = "LAYER")]
    pub(crate) layers: Vec<String>,
    /// Compute Grad-CAM and Grad-CAM++ at this layer [default: the last with feature maps]
    #[arg(long, value_name = "LAYER")]
    pub(crate) cam_layer: Option<String>,
    /// Draw the receptive field of this place in a layer's feature maps, counted from 0
    #[arg(long = "unit", value_name = "LAYER:ROW,COLUMN")]
    pub(crate) units: Vec<String>,
    /// Classes to show for each picture
    #[arg(long, default_value_t = 5, allow_negative_numbers = true, value_parser = count)]
    pub(crate) top: usize,
    /// Pictures to show; statistics cover all
    #[arg(long, default_value_t = 4)]
    pub(crate) show: usize,
    #[command(flatten)]
    pub(crate) output: LabOutput,
    /// Threads for each operator; 0 uses all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, Args)]
pub(crate) struct LabSurfaceArgs {
    /// Bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) data: LabData,
    /// Points on each side of the grid; an odd number puts the weights in the middle
    #[arg(long, default_value_t = 15)]
    pub(crate) points: usize,
    /// Extent of the grid; 1 moves each filter by its own length
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) reach: f64,
    /// Average the loss over this many training images; 0 uses all
    #[arg(long, default_value_t = 500)]
    pub(crate) examples: usize,
    /// Seed for the directions and the images
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: LabOutput,
    #[command(flatten)]
    pub(crate) compute: LabCompute,
}

#[derive(Debug, Args)]
pub(crate) struct LabLrArgs {
    /// Model name, bundle, or recipe (a .toml file)
    #[arg(value_name = "MODEL, BUNDLE or RECIPE")]
    pub(crate) what: String,
    /// Dataset name, or a folder as for train [default: the recipe's]
    #[arg(long, value_name = "NAME or FOLDER")]
    pub(crate) data: Option<String>,
    /// Read the dataset's files from this folder; nothing is downloaded
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Learning rate of the first step
    #[arg(long, default_value_t = 1e-5, allow_negative_numbers = true)]
    pub(crate) from: f64,
    /// Learning rate of the last step
    #[arg(long, default_value_t = 10.0, allow_negative_numbers = true)]
    pub(crate) to: f64,
    /// Approximate number of steps
    #[arg(long, default_value_t = 100)]
    pub(crate) steps: usize,
    /// Images per step [default: the recipe's]
    #[arg(long)]
    pub(crate) batch_size: Option<usize>,
    /// Optimizer, such as sgd or adamw [default: the recipe's]
    #[arg(long, value_name = "KIND")]
    pub(crate) optimizer: Option<String>,
    /// Seed for initial weights, order and augmentation
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) output: LabOutput,
    #[command(flatten)]
    pub(crate) compute: LabCompute,
}

#[derive(Debug, Args)]
pub(crate) struct LabConfusionArgs {
    /// Bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) data: LabData,
    /// Worst mistakes to show
    #[arg(long, default_value_t = 24)]
    pub(crate) worst: usize,
    #[command(flatten)]
    pub(crate) output: LabOutput,
    #[command(flatten)]
    pub(crate) compute: LabCompute,
}

/// The dataset of a look inside.
#[derive(Debug, Args)]
pub(crate) struct LabData {
    /// Dataset name, or a folder as for train
    #[arg(long = "data", value_name = "NAME or FOLDER")]
    pub(crate) name: String,
    /// Read the dataset's files from this folder; nothing is downloaded
    #[arg(long = "data-dir", value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
}

/// Where the results of a look inside go.
#[derive(Debug, Args)]
pub(crate) struct LabOutput {
    /// Write into this new or empty folder [default: a new one in lab/]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a look inside is computed.
#[derive(Debug, Args)]
pub(crate) struct LabCompute {
    /// Threads for each operator; 0 uses all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Comma-separated devices, such as cpu or cuda:0; several split a network that has that many
    /// towers
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', default_value = "cpu")]
    pub(crate) devices: Vec<String>,
}
