//! Trains a network of your own as fast as one knows how: airbench (Jordan 2024, arXiv:2404.00498, and
//! its successor with Muon), for pictures of about 32x32.
//!
//! From the root of the repository, on CIFAR-10, a folder of pictures, or Fashion-MNIST:
//!
//! ```console
//! $ cargo run --release -p striate --example fast -- cifar-10 --device cuda:0
//! ```
//!
//! Nothing here is in Striate's registry. The network is a function below. Its first layer whitens
//! patches of 2x2 pixels, is computed from the training pictures, and never trains. Filters step by
//! Muon, and all else by SGD with rates of its own. A picture is seen once each way in two epochs,
//! and from six sides when it is judged.
//!
//! What differs from airbench: ReLU in place of GELU, because it is computed together with the norm
//! before it, and no bias after whitening.
use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;
use striate::datasets::{FlipMode, Loader, LoaderOptions, RandomCrop, RandomHorizontalFlip, Transform};
use striate::graph::{Graph, GraphError, NetworkBuilder, Value};
use striate::layers::{Activation, BatchNorm2d, Conv2d, Flatten, Init, Linear, MaxPool2d};
use striate::tch::{IndexOp, Kind, Tensor};
use striate::train::optim::MuonConfig;
use striate::train::{Curve, Event, Listener, OptimizerConfig, ParamGroup, ScheduleConfig, TrainError};
use striate::{Outcome, Precision, Prepared, Recipe, Run, Tta, data};

const USAGE: &str = "usage: fast DATA [--device DEVICE] [--epochs N] [--batch-size N] [--width N] [--seed N] [--out FOLDER]";

/// Height and width of the patches that the first layer whitens.
const PATCH: i64 = 2;
/// Pictures that they are taken from.
const WHITENED: usize = 5000;
/// Keeps directions in which patches hardly differ from being blown up.
const WHITENING_EPS: f64 = 5e-4;
/// The batch size that the rates below are meant for.
const BATCH: f64 = 2000.0;
/// The rate of filters, which Muon's steps make nearly independent of their gradients.
const FILTER_LR: f64 = 0.24;
/// Rates of the loss of one picture, as airbench has them; it sums where Striate takes means.
const BIAS_LR: f64 = 0.053;
const HEAD_LR: f64 = 0.67;
/// Weight decay of biases and head: what they lose in a step is this times the pictures in it.
const DECAY: f64 = 2e-6;

/// What the command line says.
struct Options {
    data: String,
    device: String,
    epochs: u64,
    batch_size: usize,
    /// Filters of the first block; the others have four times as many.
    width: i64,
    seed: u64,
    out: Option<String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let data = args.next().filter(|data| !data.starts_with('-')).ok_or(USAGE)?;
        let device = "cpu".to_owned();
        let mut options = Self { data, device, epochs: 8, batch_size: 1000, width: 64, seed: 0, out: None };
        while let Some(name) = args.next() {
            let value = args.next().ok_or(USAGE)?;
            match name.as_str() {
                "--device" => options.device = value,
                "--epochs" => options.epochs = value.parse()?,
                "--batch-size" => options.batch_size = value.parse()?,
                "--width" => options.width = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--out" => options.out = Some(value),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }
}

/// Prints a line after each epoch.
struct Epochs(Instant);

impl Listener for Epochs {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if let Event::EpochDone { epoch, train_loss, test_accuracy, .. } = event {
            let seconds = self.0.elapsed().as_secs_f64();
            println!("epoch {}: loss {train_loss:.4}, accuracy {test_accuracy:.4}, {seconds:.1} s", epoch + 1);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match train() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn train() -> Result<(), Box<dyn Error>> {
    striate::keep_memory_warm();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let started = Instant::now();
    let options = Options::parse(env::args().skip(1))?;
    let section = data::section(&options.data)?;
    let data = data::Data::open(&section, &mut |_, _, _| true)?;
    let graph = network([data.channels(), 32, 32], data.classes().len() as i64, options.width)?;

    let batch_size = options.batch_size.min(data.len());
    let mut run = Run::new(recipe(&options, batch_size)).network(graph).on(data);
    let recipe = run.recipe_mut();
    recipe.data = section;
    recipe.model.freeze_through = "whiten".to_owned();
    if let Some(out) = &options.out {
        run = run.folder(out);
    }
    let outcome = run.initialise(initialise).listener(Epochs(started)).run()?;
    if let Outcome::Finished { summary, .. } = &outcome {
        let seconds = started.elapsed().as_secs_f64();
        println!("accuracy {:.4} on {} pictures, {seconds:.1} s", summary.test.accuracy, summary.test.examples);
    }
    println!("bundle {}", outcome.bundle()?.display());
    Ok(())
}

/// Whitening, three blocks, and a linear layer. The first block has `width` filters.
fn network(input: [i64; 3], classes: i64, width: i64) -> Result<Graph, GraphError> {
    Graph::build(|net| {
        let x = net.input(input);
        let whitened = 2 * input[0] * PATCH * PATCH;
        let mut x = net.add("whiten", Conv2d::new(whitened, PATCH).no_bias(), x)?; // [24, 31, 31]
        x = net.add("relu", Activation::Relu, x)?;
        x = block(&mut net.scope("block1"), width, x)?; // [64, 15, 15]
        x = block(&mut net.scope("block2"), 4 * width, x)?; // [256, 7, 7]
        x = block(&mut net.scope("block3"), 4 * width, x)?; // [256, 3, 3]
        x = net.add("pool", MaxPool2d::new(3), x)?; // [256, 1, 1]
        x = net.add("flatten", Flatten, x)?;
        let weight_init = Init::Normal { mean: 0.0, std: 1.0 / (4 * width) as f64 };
        x = net.add("head", Linear { weight_init, ..Linear::new(classes) }.no_bias(), x)?;
        net.output("logits", x)
    })
}

fn block(net: &mut NetworkBuilder, width: i64, mut x: Value) -> Result<Value, GraphError> {
    let norm = || BatchNorm2d { momentum: Some(0.4), ..BatchNorm2d::new() };
    x = net.add("conv1", Conv2d::same(width, 3).no_bias(), x)?;
    x = net.add("pool", MaxPool2d::new(2), x)?;
    x = net.add("norm1", norm(), x)?;
    x = net.add("relu1", Activation::Relu, x)?;
    x = net.add("conv2", Conv2d::same(width, 3).no_bias(), x)?;
    x = net.add("norm2", norm(), x)?;
    net.add("relu2", Activation::Relu, x)
}

/// Muon and one straight line down; smoothing, shifts by two pixels, alternating flips.
fn recipe(options: &Options, batch_size: usize) -> Recipe {
    let mut recipe = Recipe::default();
    let batch = batch_size as f64;
    let train = &mut recipe.train;
    train.epochs = options.epochs;
    train.batch_size = batch_size;
    train.drop_last = true;
    train.lr = FILTER_LR * (batch / BATCH).sqrt();
    train.label_smoothing = 0.2;
    train.precision = Precision::Bfloat16;
    train.seed = options.seed;
    train.devices = vec![options.device.clone()];
    recipe.optimizer = OptimizerConfig::Muon(MuonConfig { newton_schulz_steps: 3, renormalise: true, ..MuonConfig::default() });
    recipe.schedule = ScheduleConfig { curve: Curve::Polynomial { power: 1.0, min_lr: 0.0 }, ..ScheduleConfig::default() };
    // airbench divides what the head gives by the head's inputs; here its weights are smaller instead,
    // and so is their rate.
    let inputs = (4 * options.width) as f64;
    let head = HEAD_LR * batch / (inputs * inputs);
    recipe.groups = vec![
        group("*norm?.weight", 0.0, 0.0),
        group("*norm?.bias", BIAS_LR * batch / recipe.train.lr, DECAY / BIAS_LR),
        group("head.weight", head / recipe.train.lr, DECAY * batch / head),
    ];
    recipe.transforms = vec![
        Transform::RandomCrop(RandomCrop { padding: 2 }),
        Transform::HorizontalFlip(RandomHorizontalFlip { mode: FlipMode::Alternating, ..RandomHorizontalFlip::default() }),
    ];
    recipe.answering.tta = Tta::FlipShift(1);
    recipe
}

fn group(params: &str, lr_scale: f64, weight_decay: f64) -> ParamGroup {
    let params = params.to_owned().try_into().unwrap_or_default();
    ParamGroup { params, lr_scale: Some(lr_scale), weight_decay: Some(weight_decay), ..ParamGroup::default() }
}

/// The values that training starts from: whitening filters of the data, and filters that pass on what
/// they get.
fn initialise(prepared: &Prepared) -> Result<(), striate::Error> {
    let options = LoaderOptions::train(WHITENED.min(prepared.data.train.len()), prepared.config.seed);
    let loader = Loader::new(&*prepared.data.train, prepared.preprocess.clone(), options)?;
    for (name, mut tensor) in prepared.network.state() {
        if name == "whiten.weight" {
            for batch in loader.epoch(0)?.take(1) {
                tensor.f_copy_(&whitening(&batch?.images)?)?;
            }
        } else if name.ends_with(".conv1.weight") || name.ends_with(".conv2.weight") {
            // [out_channels, in_channels, 3, 3]: the first filters give their inputs.
            let (filters, inputs, ..) = tensor.size4()?;
            let mut first = tensor.f_narrow(0, 0, filters.min(inputs))?;
            let _ = first.f_zero_()?;
            let _ = first.i((.., .., 1, 1)).f_fill_diagonal_(1.0, false)?;
        }
    }
    Ok(())
}

/// The eigenvectors of the covariance of all patches of `images` (`[N, C, H, W]`), each divided by the
/// deviation along it, and then their negatives: `[2 C PATCH PATCH, C, PATCH, PATCH]`.
fn whitening(images: &Tensor) -> Result<Tensor, striate::Error> {
    let channels = images.size()[1];
    let size = channels * PATCH * PATCH;
    let patches = images.f_unfold(2, PATCH, 1)?.f_unfold(3, PATCH, 1)?; // [N, C, H', W', 2, 2]
    let patches = patches.f_permute([0, 2, 3, 1, 4, 5])?.f_reshape([-1, size])?;
    let covariance = patches.f_tr()?.f_matmul(&patches)?.f_div_scalar(patches.size()[0] as f64)?;
    let (values, vectors) = covariance.f_linalg_eigh("L")?;
    let deviations = values.f_clamp_min(0.0)?.f_add_scalar(WHITENING_EPS)?.f_sqrt()?.f_unsqueeze(1)?;
    let filters = vectors.f_tr()?.f_div(&deviations)?;
    let filters = Tensor::f_cat(&[&filters, &filters.f_neg()?], 0)?;
    Ok(filters.f_to_kind(Kind::Float)?.f_reshape([2 * size, channels, PATCH, PATCH])?)
}
