//! The command line of `lab`.
use crate::cli::count;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use striate_lab::DEFAULT_DATA;

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// List the claims that can be put to the test
    List(LabListArgs),
    /// Put claims to the test: measure, draw, judge
    Run(LabRunArgs),
    /// Show what a network computes of images, and what its answers rest on, as pictures and one HTML page
    Inspect(LabInspectArgs),
    /// Show the loss around a network's weights, on a plane of random directions
    Surface(LabSurfaceArgs),
    /// Find a learning rate: train with one that grows, and watch the loss
    Lr(LabLrArgs),
    /// Show which classes a network takes for which, and its worst mistakes
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
    /// Names that `lab list` gives, or all
    #[arg(required = true, value_name = "CLAIM")]
    pub(crate) claims: Vec<String>,
    /// Small networks and few steps, up to 5 minutes a claim on two cores; the default
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// Deeper networks, or more images, steps and seeds: up to 20 minutes a claim on two cores
    #[arg(long)]
    pub(crate) full: bool,
    /// How many seeds; by default as many as the claim says
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) seeds: Option<u16>,
    /// The first seed; the others follow it
    #[arg(long, value_name = "SEED", default_value_t = 0, allow_negative_numbers = true, value_parser = first_seed)]
    pub(crate) first_seed: u64,
    /// The dataset to train on
    #[arg(long, value_name = "NAME", default_value = DEFAULT_DATA)]
    pub(crate) data: String,
    /// A folder with the dataset's files, instead of the cache or a download
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Threads of one operator; 0 takes all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Where results go; by default lab/quick or lab/full, or such as lab/quick-mnist with --data mnist
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
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
    /// A bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    /// Pictures, or folders of them
    #[arg(required = true, value_name = "IMAGE or FOLDER")]
    pub(crate) images: Vec<PathBuf>,
    /// A layer whose feature maps to show, all of them; by default some maps of the last layer of each size
    #[arg(long = "layer", value_name = "LAYER")]
    pub(crate) layers: Vec<String>,
    /// The layer of Grad-CAM and Grad-CAM++; by default the last with feature maps
    #[arg(long, value_name = "LAYER")]
    pub(crate) cam_layer: Option<String>,
    /// A place in a layer's feature maps whose receptive field to draw, counted from 0
    #[arg(long = "unit", value_name = "LAYER:ROW,COLUMN")]
    pub(crate) units: Vec<String>,
    /// How many classes to show for each image
    #[arg(long, default_value_t = 5, allow_negative_numbers = true, value_parser = count)]
    pub(crate) top: usize,
    /// How many of the images to show; statistics are of all
    #[arg(long, default_value_t = 4)]
    pub(crate) show: usize,
    #[command(flatten)]
    pub(crate) output: LabOutput,
    /// Threads of one operator; 0 takes all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, Args)]
pub(crate) struct LabSurfaceArgs {
    /// A bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) data: LabData,
    /// Points on each side of the grid; an odd number has the weights themselves in the middle
    #[arg(long, default_value_t = 15)]
    pub(crate) points: usize,
    /// How far the grid reaches: at 1, each filter is moved by as much as it is long
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) reach: f64,
    /// Training images that the loss is the mean of; 0 takes all
    #[arg(long, default_value_t = 500)]
    pub(crate) examples: usize,
    /// What the directions and the images are drawn from
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: LabOutput,
    #[command(flatten)]
    pub(crate) compute: LabCompute,
}

#[derive(Debug, Args)]
pub(crate) struct LabLrArgs {
    /// A model of the registry, or a recipe (a .toml file)
    #[arg(value_name = "MODEL or RECIPE")]
    pub(crate) what: String,
    /// Dataset name, or a folder as for `train`; by default the recipe's
    #[arg(long, value_name = "NAME or FOLDER")]
    pub(crate) data: Option<String>,
    /// A folder with the dataset's files, instead of the cache or a download
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The learning rate of the first step
    #[arg(long, default_value_t = 1e-5, allow_negative_numbers = true)]
    pub(crate) from: f64,
    /// The learning rate of the last step
    #[arg(long, default_value_t = 10.0, allow_negative_numbers = true)]
    pub(crate) to: f64,
    /// About how many steps
    #[arg(long, default_value_t = 100)]
    pub(crate) steps: usize,
    /// Images in one step; by default the recipe's
    #[arg(long)]
    pub(crate) batch_size: Option<usize>,
    /// sgd or adamw; by default the recipe's
    #[arg(long, value_name = "KIND")]
    pub(crate) optimizer: Option<String>,
    /// What initialisation, order and augmentation are drawn from
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) output: LabOutput,
    #[command(flatten)]
    pub(crate) compute: LabCompute,
}

#[derive(Debug, Args)]
pub(crate) struct LabConfusionArgs {
    /// A bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) data: LabData,
    /// How many of the worst mistakes to show
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
    /// Dataset name, or a folder as for `train`
    #[arg(long = "data", value_name = "NAME or FOLDER")]
    pub(crate) name: String,
    /// A folder with the dataset's files, instead of the cache or a download
    #[arg(long = "data-dir", value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
}

/// Where the results of a look inside go.
#[derive(Debug, Args)]
pub(crate) struct LabOutput {
    /// The folder to write, which must be new or empty; by default a new one in lab/
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a look inside is computed.
#[derive(Debug, Args)]
pub(crate) struct LabCompute {
    /// Threads of one operator; 0 takes all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Comma-separated devices, such as cpu or cuda:0; several split a network that has that many towers
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', default_value = "cpu")]
    pub(crate) devices: Vec<String>,
}
