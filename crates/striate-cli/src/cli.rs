//! The command line.
mod train;

pub(crate) use self::train::{BackendArg, TrainArgs};
use crate::compare::CompareArgs;
use crate::data::args::DataArgs;
#[cfg(feature = "lab")]
use crate::lab::args::LabCommand;
use crate::runs::RunsArgs;
use crate::self_test::SelfTestArgs;
use crate::sweep::SweepArgs;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::Write;
#[cfg(feature = "serve")]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
#[cfg(feature = "serve")]
use std::time::Duration;
use striate::{Precision, Tta};
use striate_datasets::{ImageSize, Interpolation};
use striate_layers::Mode;
#[cfg(feature = "serve")]
use striate_serve::Served;
use striate_torch::cpu::Level;
use striate_train::Head;
use tch::Kind;

/// Train, evaluate, inspect and run the classic convolutional networks.
#[derive(Debug, Parser)]
#[command(name = "striate", version, long_version = long_version(), arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Let any file, however short, take this much memory to read [default: 67108864]
    #[arg(long, global = true, value_name = "BYTES")]
    pub(crate) read_budget: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a network; without arguments, LeNet-5 on the built-in digits
    Train(Box<TrainArgs>),
    /// Search over the fields of a recipe: grid, random, or successive halving
    Sweep(SweepArgs),
    /// List the runs in a folder: how far each is, and how well it does
    Runs(RunsArgs),
    /// Compare runs: in what their recipes differ, and whether one is better
    Compare(CompareArgs),
    /// Measure a bundle's accuracy on a test set
    Eval(EvalArgs),
    /// Classify pictures with a bundle
    Predict(PredictArgs),
    /// List the networks of the registry
    Models(ModelsArgs),
    /// Show every layer of a network: shape, parameters, multiply-adds, receptive field
    Summary(SummaryArgs),
    /// Compare the parameters and multiply-adds of designs and networks
    Cost(CostArgs),
    /// Run a network on a tensor; write its outputs and any layer's values
    Run(RunArgs),
    /// Write a bundle as ONNX, for other runtimes
    Export(ExportArgs),
    /// Answer pictures over HTTP: an API, and a page to try it
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Answer pictures over HTTP: not in this build
    #[cfg(not(feature = "serve"))]
    #[command(disable_help_flag = true)]
    Serve(LeftOut),
    /// Download datasets into the cache, or list them; check, preview, split and pack pictures
    Data(DataArgs),
    /// Test the claims of the classic papers, and look inside networks
    #[cfg(feature = "lab")]
    #[command(subcommand)]
    Lab(LabCommand),
    /// Test the claims of the classic papers, and look inside networks: not in this build
    #[cfg(not(feature = "lab"))]
    #[command(disable_help_flag = true)]
    Lab(LeftOut),
    /// Write a finished run's page: curves, confusion matrix, worst mistakes, recipe
    #[cfg(feature = "lab")]
    Report(ReportArgs),
    /// Write a finished run's page: not in this build
    #[cfg(not(feature = "lab"))]
    #[command(disable_help_flag = true)]
    Report(LeftOut),
    /// Inspect, convert or download weights
    #[command(subcommand)]
    Weights(WeightsCommand),
    /// Check kernels, networks, graphs and training on the devices of this machine
    SelfTest(SelfTestArgs),
    /// Measure the speed of networks, and of peers
    #[command(disable_help_flag = true)]
    Bench(Verbatim),
}

/// Arguments that another program reads, `--help` included.
#[derive(Debug, Args)]
pub(crate) struct Verbatim {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<std::ffi::OsString>,
}

/// Arguments of a command that this build leaves out.
#[cfg(not(all(feature = "lab", feature = "serve")))]
#[derive(Debug, Args)]
pub(crate) struct LeftOut {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _args: Vec<std::ffi::OsString>,
}

#[cfg(feature = "lab")]
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folder of a finished run
    pub(crate) run: PathBuf,
    /// Number of mistakes to show
    #[arg(long, value_name = "N", default_value_t = crate::report::WORST)]
    pub(crate) worst: usize,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    /// Dataset name, a source as for train, or one part of it, such as a folder laid out as CLASS/*.jpg
    #[arg(long, value_name = "NAME or FOLDER")]
    pub(crate) data: String,
    /// Read the dataset's files from this folder; nothing is downloaded
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Images per step
    #[arg(long, default_value_t = 256)]
    pub(crate) batch_size: usize,
    /// Threads for each operator; 0 uses all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Comma-separated devices, such as cpu or cuda:0; several split a network that has that many
    /// towers
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', default_value = "cpu")]
    pub(crate) devices: Vec<String>,
    /// For a network whose classes do not exclude each other: take classes from this probability on for
    /// answers [default: the bundle's]
    #[arg(long, value_name = "PROBABILITY", allow_negative_numbers = true)]
    pub(crate) threshold: Option<f64>,
    /// Average the answers over views of each picture: off, flip, flip-shift (by one pixel) or
    /// flip-shift=PIXELS [default: the bundle's]
    #[arg(long, value_name = "VIEWS")]
    pub(crate) tta: Option<Tta>,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Parses the name of a precision.
fn precision() -> impl TypedValueParser<Value = Precision> {
    let names = [
        PossibleValue::new("float32").alias("fp32"),
        PossibleValue::new("bfloat16").alias("bf16"),
        PossibleValue::new("float16").alias("fp16"),
        PossibleValue::new("int8"),
    ];
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}

/// How a plan computes.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Compute in this type; bfloat16 and int8 are faster on processors that support them, and less
    /// exact; float16 takes a GPU
    #[arg(long, value_name = "TYPE", default_value_t, value_parser = precision())]
    pub(crate) precision: Precision,
    /// For int8: measure the range of values on training images of this dataset or folder
    #[arg(long, value_name = "NAME or FOLDER")]
    pub(crate) calibrate: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    /// Bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    /// Pictures (JPEG, PNG, WebP, BMP, GIF, TIFF, PNM), patterns such as 'photos/*.jpg', folders of
    /// pictures, or names of datasets, whose test sets are taken
    #[arg(required = true, value_name = "PICTURE, FOLDER or NAME")]
    pub(crate) images: Vec<PathBuf>,
    /// Classes to show for each picture; where it can have several, all from the threshold on are shown
    #[arg(long, default_value_t = 5, allow_negative_numbers = true, value_parser = count)]
    pub(crate) top: usize,
    /// For a network whose classes do not exclude each other: show the classes from this probability on
    /// [default: the bundle's]
    #[arg(long, value_name = "PROBABILITY", allow_negative_numbers = true)]
    pub(crate) threshold: Option<f64>,
    /// Refuse larger pictures before decoding them [default: 89478485]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_pixels: Option<u64>,
    /// Comma-separated devices, such as cpu or cuda:0; several split a network that has that many
    /// towers
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', default_value = "cpu")]
    pub(crate) devices: Vec<String>,
    /// Average the answers over views of each picture: off, flip, flip-shift (by one pixel) or
    /// flip-shift=PIXELS [default: the bundle's]
    #[arg(long, value_name = "VIEWS")]
    pub(crate) tta: Option<Tta>,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "serve")]
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Bundles, such as a run's model.safetensors. Each is served under the name of its file, or of its
    /// folder if the file is called model.safetensors, or under the name that you write before it
    #[arg(required = true, value_name = "BUNDLE or NAME=BUNDLE")]
    pub(crate) bundles: Vec<Served>,
    /// Address and port; with 0.0.0.0 or [::], other machines can connect. Port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The most pictures that are computed together
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count)]
    pub(crate) max_batch: usize,
    /// How long a picture may wait for others, even if the network is idle
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    pub(crate) max_wait: u64,
    /// Pictures of one network that may wait; those beyond are refused with 429
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = count)]
    pub(crate) queue: usize,
    /// The most bytes of one request
    #[arg(long, value_name = "BYTES", default_value_t = 10_000_000, value_parser = count)]
    pub(crate) max_body: usize,
    /// Refuse larger pictures before decoding them
    #[arg(long, value_name = "COUNT", default_value_t = 25_000_000)]
    pub(crate) max_pixels: u64,
    /// How long a request may take
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// The most connections at a time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count)]
    pub(crate) connections: usize,
    /// How long to finish what was accepted, after a signal to end
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) drain: Duration,
    /// Classes to answer with where a request names no number
    #[arg(long, default_value_t = 5, value_parser = count)]
    pub(crate) top: usize,
    /// Compute in this type; int8 takes a bundle that is calibrated
    #[arg(long, value_name = "TYPE", default_value_t, value_parser = precision())]
    pub(crate) precision: Precision,
    /// Comma-separated devices, such as cpu or cuda:0; several split a network that has that many
    /// towers
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', default_value = "cpu")]
    pub(crate) devices: Vec<String>,
    /// Leave out explanations (Grad-CAM), which hold the weights in memory a second time
    #[arg(long)]
    pub(crate) no_explain: bool,
    /// File of lines NAME KEY: only requests with one of these keys are answered
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// File with the token that POST /admin/reload takes
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: Option<PathBuf>,
    /// Certificate and its chain (PEM): speak HTTPS
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Compare two models or bundles layer by layer
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    pub(crate) diff: Vec<String>,
    /// Print the registry or the comparison as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print docs/models.md: the registry, with every deviation from the papers
    #[arg(long, conflicts_with_all = ["json", "diff"])]
    pub(crate) markdown: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SummaryArgs {
    /// Model name or bundle
    #[arg(value_name = "MODEL or BUNDLE")]
    pub(crate) model: String,
    /// Input channels, height and width
    #[arg(long, value_name = "C,H,W", allow_hyphen_values = true, value_parser = shape)]
    pub(crate) input: Option<[i64; 3]>,
    /// Number of classes
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) classes: Option<i64>,
    /// Set an option of the model, such as activation=tanh
    #[arg(long = "option", short = 'o', value_name = "NAME=VALUE")]
    pub(crate) options: Vec<String>,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the table as Markdown
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Draw the network into this file instead of printing a table
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "markdown"])]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CostArgs {
    /// Designs or models to compare with the first one [default: all designs]
    #[arg(value_name = "DESIGN or MODEL")]
    pub(crate) names: Vec<String>,
    /// Input channels, height and width [default: 192,28,28 for designs, a model's own size]
    #[arg(long, value_name = "C,H,W", allow_hyphen_values = true, value_parser = shape)]
    pub(crate) input: Option<[i64; 3]>,
    /// Print the rows as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Model name or bundle
    #[arg(value_name = "MODEL or BUNDLE")]
    pub(crate) model: String,
    /// Load weights into a model: a file (.safetensors, .pth, .pt) or a published name; by default,
    /// the seed draws them
    #[arg(long, value_name = "FILE or NAME")]
    pub(crate) weights: Option<String>,
    /// Keep the classifier of the weights, or replace it with a new one
    #[arg(long, value_enum, default_value_t = HeadArg::Keep, requires = "weights")]
    pub(crate) head: HeadArg,
    /// Number of classes
    #[arg(long)]
    pub(crate) classes: Option<i64>,
    /// A .safetensors file with a tensor named input, [N, C, H, W]; a float64 tensor runs in float64
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Write the outputs and tapped layers, by name, into this .safetensors file
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Also write the values of this layer
    #[arg(long = "tap", value_name = "LAYER")]
    pub(crate) taps: Vec<String>,
    /// Run dropout and batch norm as in evaluation or as in training
    #[arg(long, value_enum, default_value_t = ModeArg::Eval)]
    pub(crate) mode: ModeArg,
    /// Comma-separated devices, such as cpu or cuda:0; several split a network that has that many
    /// towers
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', default_value = "cpu")]
    pub(crate) devices: Vec<String>,
    /// Set an option of the model, such as activation=tanh
    #[arg(long = "option", short = 'o', value_name = "NAME=VALUE")]
    pub(crate) options: Vec<String>,
    /// Seed for initial weights and dropout
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Bundle, such as a run's model.safetensors
    pub(crate) bundle: PathBuf,
    /// File to write (.onnx)
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Export the network alone, from normalised inputs to logits; by default, pictures of any size go
    /// in, and probabilities come out
    #[arg(long)]
    pub(crate) raw: bool,
    /// Compute in this type; int8 takes a bundle with a calibration
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = ExportPrecision::Float32)]
    pub(crate) precision: ExportPrecision,
    /// Keep batch norm as operators of its own; by default, it goes into convolutions
    #[arg(long)]
    pub(crate) no_fold: bool,
    /// Add an entry to the file's metadata, such as version=3, or replace one of the bundle's
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) metadata: Vec<String>,
    /// Also run the export with tract, and write it only if it answers as the bundle does
    #[arg(long)]
    pub(crate) check: bool,
    /// Check with up to 200 pictures of this dataset or source instead of random inputs
    #[arg(long, value_name = "NAME or FOLDER", requires = "check", conflicts_with = "raw")]
    pub(crate) data: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ExportPrecision {
    Float32,
    Float16,
    Int8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WeightsCommand {
    /// Show every tensor in a file: name, type, shape
    Inspect(InspectArgs),
    /// Write the weights of a file as .safetensors, as a bundle, or for PyTorch
    #[command(after_help = WIRINGS)]
    Convert(Box<ConvertArgs>),
    /// List published weights
    List(ListArgs),
    /// Download published weights into the cache, and print their paths
    Fetch(FetchArgs),
}

/// Differences that neither names nor shapes show.
const WIRINGS: &str = "\
Weights can fit a network and still give wrong answers. To check a bundle, run `striate eval` on a
few labelled images. If its accuracy is near chance, the weights may come from a network that
differs in one of these:
  shortcuts A of CIFAR ResNets   -o zero_channels=around puts half of the zeros before the channels
  stride of ResNet bottlenecks   3x3 (resnet50, torchvision) or first 1x1 (resnet50-v1, Caffe)
  scale of the input             --mean, --std for pixels in 0..1; divide those for 0..255 by 255
  order of the channels          R, G, B; for B, G, R (Caffe, OpenCV), reverse the first layer's
  epsilon of batch norm          PyTorch's 1e-5; Keras and TensorFlow often have 1e-3";

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// File of weights (.safetensors, bundle, .pth, .pt), one of several networks in a file (FILE#KEY),
    /// or a published name
    pub(crate) file: String,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// File of weights (.safetensors, bundle, .pth, .pt), one of several networks in a file (FILE#KEY),
    /// or a published name
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// File to write: .safetensors, or a state dict of PyTorch (.pth, .pt)
    #[arg(value_name = "TO")]
    pub(crate) to: PathBuf,
    /// Write a bundle of this model; the weights must fit it
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Convert floating-point values to this type
    #[arg(long, value_enum, default_value_t = DtypeArg::Keep)]
    pub(crate) dtype: DtypeArg,
    /// Keep the classifier of the weights, or replace it with a new one
    #[arg(long, value_enum, default_value_t = HeadArg::Keep, requires = "model")]
    pub(crate) head: HeadArg,
    /// Number of classes
    #[arg(long, requires = "model")]
    pub(crate) classes: Option<i64>,
    /// Set an option of the model, such as activation=tanh
    #[arg(long = "option", short = 'o', value_name = "NAME=VALUE", requires = "model")]
    pub(crate) options: Vec<String>,
    /// Resize images by this method
    #[arg(long, value_enum, default_value_t = InterpolationArg::Bilinear, requires = "std")]
    pub(crate) interpolation: InterpolationArg,
    /// Store an int8 calibration, measured on training images of this dataset or folder
    #[arg(long, value_name = "NAME or FOLDER")]
    pub(crate) calibrate: Option<String>,
    /// Subtract this mean from each channel of images scaled to 0..1
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', requires = "std")]
    pub(crate) mean: Option<Vec<f64>>,
    /// Divide each channel by this standard deviation
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', requires_all = ["mean", "model"])]
    pub(crate) std: Option<Vec<f64>>,
    /// Resize the shorter side of images to PIXELS, or images to HxW
    #[arg(long, value_name = "PIXELS or HxW", requires = "model", value_parser = image_size)]
    pub(crate) resize: Option<ImageSize>,
    /// Crop the middle of resized images to the network's input
    #[arg(long, value_name = "PIXELS or HxW", requires = "model", value_parser = sides)]
    pub(crate) crop: Option<[i64; 2]>,
    /// Class names: a file with one per line, or a comma-separated list
    #[arg(long, value_name = "FILE or NAMES", requires = "model")]
    pub(crate) class_names: Option<String>,
    /// Say in the bundle which licence the weights have, such as CC-BY-4.0
    #[arg(long, visible_alias = "license", value_name = "TEXT")]
    pub(crate) licence: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Names from weights list
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum HeadArg {
    Keep,
    Replace,
}

impl From<HeadArg> for Head {
    fn from(head: HeadArg) -> Self {
        match head {
            HeadArg::Keep => Self::Keep,
            HeadArg::Replace => Self::Replace,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum InterpolationArg {
    Bilinear,
    Bicubic,
}

impl From<InterpolationArg> for Interpolation {
    fn from(interpolation: InterpolationArg) -> Self {
        match interpolation {
            InterpolationArg::Bilinear => Self::Bilinear,
            InterpolationArg::Bicubic => Self::Bicubic,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DtypeArg {
    Float32,
    Float16,
    Bfloat16,
    Keep,
}

impl DtypeArg {
    /// The type to convert to, if any.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self {
            Self::Float32 => Some(Kind::Float),
            Self::Float16 => Some(Kind::Half),
            Self::Bfloat16 => Some(Kind::BFloat16),
            Self::Keep => None,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ModeArg {
    Eval,
    Train,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Eval => Self::Eval,
            ModeArg::Train => Self::Train,
        }
    }
}

/// A count above 0.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "give a whole number above 0".to_owned())
}

/// A time above 0 in seconds.
#[cfg(feature = "serve")]
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(|| "give seconds above 0, such as 30 or 0.5".to_owned())
}

/// One size for both sides, or `HEIGHTxWIDTH`.
fn sides(text: &str) -> Result<[i64; 2], String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.trim().parse::<i64>().ok().filter(|side| *side > 0);
    let sides = side(height).zip(side(width)).map(|(height, width)| [height, width]);
    sides.ok_or_else(|| "give pixels, such as 224 or 224x224".to_owned())
}

/// The size of the shorter side, or `HEIGHTxWIDTH`.
fn image_size(text: &str) -> Result<ImageSize, String> {
    let [height, width] = sides(text)?;
    Ok(if text.contains('x') { ImageSize::Exact([height, width]) } else { ImageSize::ShorterSide { shorter_side: height } })
}

/// Channels, height and width, written as `1,32,32`.
pub(crate) fn shape(text: &str) -> Result<[i64; 3], String> {
    let dims: Option<Vec<i64>> = text.split(',').map(|dim| dim.trim().parse().ok()).collect();
    let dims = dims.filter(|dims| dims.iter().all(|dim| *dim > 0));
    dims.and_then(|dims| dims.try_into().ok()).ok_or_else(|| "give three numbers above 0, such as 1,32,32".to_owned())
}

/// The version, and the instructions that kernels use.
fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{}\nkernels for {}", env!("CARGO_PKG_VERSION"), Level::in_use()));
    &TEXT
}

/// Help and version as clap prints them; a wrong call in one line.
pub(crate) fn report_usage(error: &clap::Error) -> u8 {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand) {
        let printed = error.print().and_then(|()| std::io::stdout().flush());
        if error.use_stderr() {
            return 2;
        }
        return match crate::written(printed) {
            Ok(()) => 0,
            Err(error) => {
                crate::say(&format!("error: {error}"));
                error.exit_code()
            }
        };
    }
    let text = error.to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or(&text);
    let told = told.split("\n\nFor more information").next().unwrap_or(told);
    let told = told.replace("\n\n  tip:", ";");
    let line = told.split_whitespace().collect::<Vec<_>>().join(" ");
    crate::say(&format!("{line} (--help tells more)"));
    2
}
