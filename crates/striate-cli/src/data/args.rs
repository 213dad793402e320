//! The command line of `data`.
#[cfg(not(feature = "lab"))]
use crate::cli::LeftOut;
use crate::cli::{count, shape};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use striate_datasets::ShardSize;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: Option<DataCommand>,
    /// Datasets to download; without a name, list all
    pub(crate) names: Vec<String>,
    /// Write test images of the dataset as PNG files into this new or empty folder
    #[arg(long, value_name = "FOLDER", requires = "names")]
    pub(crate) pictures: Option<PathBuf>,
    /// Write this many test images
    #[arg(long, default_value_t = 20, requires = "pictures", allow_negative_numbers = true, value_parser = count)]
    pub(crate) count: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Find bad files, copies, pictures that look alike, missing classes and more; exit code 1 if there
    /// are errors
    #[cfg(feature = "lab")]
    Check(DataCheckArgs),
    /// Find bad files, copies, pictures that look alike, missing classes and more: not in this build
    #[cfg(not(feature = "lab"))]
    #[command(disable_help_flag = true)]
    Check(LeftOut),
    /// Draw what the network will see in training into a PNG file
    Preview(DataPreviewArgs),
    /// Split a folder of classes into train, val and perhaps test
    Split(DataSplitArgs),
    /// Pack pictures into shards (tar archives), or shards into folders of classes
    Pack(DataPackArgs),
}

#[cfg(feature = "lab")]
#[derive(Debug, Args)]
pub(crate) struct DataCheckArgs {
    /// Dataset name, a folder as for train, or a folder laid out as CLASS/*.jpg
    #[arg(value_name = "NAME or FOLDER")]
    pub(crate) source: String,
    /// Read the dataset's files from this folder; nothing is downloaded
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Also list the pictures whose labels this network doubts most
    #[arg(long)]
    pub(crate) bundle: Option<PathBuf>,
    /// List this many of them
    #[arg(long, default_value_t = 20, requires = "bundle", allow_negative_numbers = true, value_parser = count)]
    pub(crate) doubts: usize,
    /// Look for copies only, and not for pictures that look alike
    #[arg(long)]
    pub(crate) exact: bool,
    /// Write a page with the pictures into this file
    #[arg(long, value_name = "FILE.html")]
    pub(crate) page: Option<PathBuf>,
    /// Report larger pictures as errors, without decoding them [default: 89478485]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_pixels: Option<u64>,
    /// Threads that look at pictures; 0 uses all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataPreviewArgs {
    /// Dataset name, a folder as for train, or a folder laid out as CLASS/*.jpg
    #[arg(value_name = "NAME or FOLDER")]
    pub(crate) source: String,
    /// Read the dataset's files from this folder; nothing is downloaded
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Recipe (a .toml file) [default: the one that train takes for the data and the model]
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub(crate) recipe: Option<String>,
    /// Model name or bundle [default: lenet5]
    #[arg(long, value_name = "MODEL or BUNDLE")]
    pub(crate) model: Option<String>,
    /// Use this transform in place of the recipe's; repeat it for a list. KEYS as in a recipe:
    /// 'affine, degrees = 30'
    #[arg(long = "transform", value_name = "KIND[, KEYS]")]
    pub(crate) transforms: Vec<String>,
    /// Input channels, height and width [default: the dataset's channels, the model's height and width]
    #[arg(long, value_name = "C,H,W", allow_hyphen_values = true, value_parser = shape)]
    pub(crate) input: Option<[i64; 3]>,
    /// Pictures: the first of the first epoch
    #[arg(long, default_value_t = 5, allow_negative_numbers = true, value_parser = count)]
    pub(crate) count: usize,
    /// Epochs that each picture is shown in
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) epochs: u64,
    /// Seed for order and augmentation
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// Write the sheet into this file
    #[arg(long, value_name = "FILE.png")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DataSplitArgs {
    /// Folder laid out as CLASS/*.jpg, or train/CLASS/*.jpg
    #[arg(value_name = "FOLDER")]
    pub(crate) source: PathBuf,
    /// New folder, which gets train/CLASS/*.jpg, val/CLASS/*.jpg and perhaps test/CLASS/*.jpg
    pub(crate) out: PathBuf,
    /// Fraction of each class's pictures for val
    #[arg(long, default_value_t = 0.2, allow_negative_numbers = true)]
    pub(crate) fraction: f64,
    /// Fraction for test
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) test: f64,
    /// Seed for what is drawn; val is what train --split holds out with the same seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Link the files (hard links) instead of copying them
    #[arg(long)]
    pub(crate) link: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataPackArgs {
    /// Folder or list as for train, which is packed, or shards, which are unpacked
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// New folder to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Pictures in a shard, or its size, such as 500MB [default: 10000 pictures, at most 1GB]; with it,
    /// shards are packed again
    #[arg(long, value_name = "COUNT or BYTES", value_parser = shard_size)]
    pub(crate) shard_size: Option<ShardSize>,
}

/// A number of pictures, or of bytes with a unit.
fn shard_size(text: &str) -> Result<ShardSize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    let unit = match text[digits.len()..].trim().to_lowercase().as_str() {
        "" => None,
        "kb" | "k" => Some(1_000),
        "mb" | "m" => Some(1_000_000),
        "gb" | "g" => Some(1_000_000_000),
        _ => Some(0),
    };
    let size = match (number, unit) {
        (Some(pictures), None) => Some(ShardSize { pictures, ..ShardSize::default() }),
        (Some(number), Some(unit)) => number.checked_mul(unit).map(|bytes| ShardSize { pictures: u64::MAX, bytes }),
        _ => None,
    };
    size.filter(|size| size.bytes > 0).ok_or_else(|| "give a number of pictures, or a size such as 500MB".to_owned())
}
