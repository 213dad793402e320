//! The sections of a recipe that say what is trained, on what, and how.
use crate::error::check;
use crate::optim::Clip;
use crate::{Keep, OnNan, TrainConfig, TrainError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use striate_datasets::{Cache, DecodeOptions, Sampler};
use striate_graph::{Kernels, Network};
use striate_models::Tta;
use striate_torch::{MemoryFormat, Precision};
use tch::Kind;
use toml::Table;

/// How the trained network answers. What is fitted for it at the end is kept in the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnsweringSection {
    /// Whether a temperature is fitted, which makes probabilities believable.
    pub temperature: bool,
    /// The share of known pictures that are accepted; pictures below their threshold are unknown. 0 to accept all.
    pub unknown: f64,
    /// Views of each picture that are averaged when the run is judged at its end, and afterwards: `"off"`, `"flip"`,
    /// `"flip-shift"` or `"flip-shift=2"`.
    pub tta: Tta,
}

impl Default for AnsweringSection {
    fn default() -> Self {
        Self { temperature: true, unknown: 0.99, tta: Tta::Off }
    }
}

/// The network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelSection {
    /// Its name in the registry, or the path of a bundle, whose network and weights are taken.
    pub name: String,
    /// Options of its architecture, which the registry checks.
    pub options: Table,
    /// The weights to start from: a file, or the name of published ones; empty to start from random ones.
    pub weights: String,
    /// Whether the classifier of these weights is kept.
    pub head: Head,
    /// The layer through which, from the input on, everything stays as it is; empty to train all layers.
    pub freeze_through: String,
    /// The licence of the weights that come out; empty for that of the weights to start from, if they have one.
    pub licence: String,
}

/// What becomes of the classifier of weights that a run starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// It is loaded like the rest.
    #[default]
    Keep,
    /// A new one is started, for the classes of the run's dataset.
    Replace,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self {
            name: "lenet5".to_owned(),
            options: Table::new(),
            weights: String::new(),
            head: Head::Keep,
            freeze_through: String::new(),
            licence: String::new(),
        }
    }
}

/// The dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataSection {
    /// Its name; `image-folder` for a folder of pictures.
    pub name: String,
    /// The folder that holds its files; empty for where they are looked for by default.
    #[serde(with = "striate_files::path")]
    pub dir: PathBuf,
    /// The fraction of each class's training pictures that is set apart, by the seed, to choose the best epoch by; 0 for none.
    pub split: f64,
    /// The fraction of each class's training pictures that is trained on, drawn by the seed; 1 for all.
    pub part: f64,
    /// Whether pictures that cannot be read are left out and counted; otherwise they are an error before the first epoch.
    pub skip_bad: bool,
    /// A picture with more pixels is refused before it is decoded.
    pub max_pixels: u64,
    /// Whose mean, deviation, size and interpolation images are brought to.
    pub preprocess: PreprocessFrom,
    /// Threads that make batches ahead; they change no value.
    pub workers: Workers,
    /// Where decoded pictures are kept: `"auto"`, `"off"`, `"memory"` or `"file"`. It changes no value.
    pub cache: Cache,
    /// Which training pictures are in an epoch: `"each"`, `"balanced"`, `{ weighted = [..] }` or `{ repeated = 3 }`.
    pub sampler: Sampler,
}

/// Threads that make batches beside those that compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of threads or `auto`")]
pub enum Workers {
    /// So many; with 0 a batch is made when it is needed.
    Number(usize),
    /// `"auto"`: as many as the data need.
    Chosen(Auto),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// Chosen.
    #[default]
    Auto,
}

impl Workers {
    /// The number, if there is one: as [`LoaderOptions`](striate_datasets::LoaderOptions) take it.
    pub fn number(self) -> Option<usize> {
        match self {
            Self::Number(number) => Some(number),
            Self::Chosen(Auto::Auto) => None,
        }
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::Chosen(Auto::Auto)
    }
}

/// Where a run has it from how images become inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PreprocessFrom {
    /// From the weights that it starts from, if they say it, and otherwise from the data.
    #[default]
    Auto,
    /// From the weights.
    Weights,
    /// From the data's own statistics.
    Data,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            name: "digits".to_owned(),
            dir: PathBuf::new(),
            split: 0.0,
            part: 1.0,
            skip_bad: false,
            max_pixels: DecodeOptions::default().max_pixels,
            preprocess: PreprocessFrom::Auto,
            workers: Workers::default(),
            cache: Cache::default(),
            sampler: Sampler::default(),
        }
    }
}

/// The run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainSection {
    /// How often the training set is gone through.
    pub epochs: u64,
    /// Examples in a batch.
    pub batch_size: usize,
    /// Whether an epoch leaves out a last batch that would be smaller.
    pub drop_last: bool,
    /// The learning rate that the schedule starts from.
    pub lr: f64,
    /// The batch size that `lr` is meant for; for another it is scaled in proportion (Goyal 2017,
    /// arXiv:1706.02677). 0 takes it as it is.
    pub lr_batch: usize,
    /// What initial weights, order, augmentation and dropout are drawn from.
    pub seed: u64,
    /// The type of numbers that the network computes with.
    pub precision: Precision,
    /// Whether a GPU multiplies float32 in TF32: `true`, `false` or `"auto"`, which is as `kernels` says.
    pub tf32: Tf32,
    /// How images and feature maps lie in memory.
    pub memory_format: Layout,
    /// What computes the layers: `fast`, which on a GPU lets products of float32 run in TF32, or `libtorch`.
    pub kernels: Kernels,
    /// Threads of one operator; 0 for as many as the process may run at once where it runs. Exact repetition takes the same number.
    pub threads: usize,
    /// Whether the step on a GPU is recorded once and then launched as one CUDA graph.
    pub cuda_graph: bool,
    /// Whether batch norm takes its statistics over the batch of all processes, where there are several.
    pub sync_batch_norm: bool,
    /// The type that gradients are sent to other processes in.
    pub compress_gradients: Precision,
    /// Where to compute: `cpu`, `cuda:0`, ...; several for a network in as many towers.
    pub devices: Vec<String>,
    /// The share of the target's probability that the loss spreads over all classes.
    pub label_smoothing: f64,
    /// The norm that all gradients together are scaled down to; 0 for no limit.
    pub clip_norm: f64,
    /// The largest size of a number in a gradient; 0 for no limit.
    pub clip_value: f64,
    /// The norm of a unit's gradient over that of its weights that it is scaled down to, in all
    /// layers but the last; 0 for no limit.
    pub clip_adaptive: f64,
    /// In how many parts each batch goes through the network, one after the other, which takes less memory. Batches, steps and
    /// learning rates stay the same.
    pub accumulate: usize,
    /// What multiplies the learning rate once for each block between a parameter and the outputs; 1 for none.
    pub layer_decay: f64,
    /// What is done when a loss, a gradient or a weight is no number: `"stop"`, `"skip"` or `"rollback"`.
    pub on_nan: OnNan,
    /// After how many epochs that are no better than the best before them the run stops; 0 for none.
    pub patience: u64,
    /// By how much an epoch's accuracy must be better for that.
    pub min_delta: f64,
    /// Steps between two checkpoints within an epoch; 0 for one at each epoch's end only.
    pub checkpoint_steps: u64,
    /// Epochs between two checkpoints that are kept under names of their own; 0 for none.
    pub keep_epochs: u64,
    /// Steps between two checkpoints that are kept under names of their own; 0 for none.
    pub keep_steps: u64,
    /// How many of these are kept, the newest of either kind; 0 for all.
    pub keep_newest: u64,
    /// Whether event files for TensorBoard are written.
    pub tensorboard: bool,
}

impl Default for TrainSection {
    fn default() -> Self {
        let TrainConfig { epochs, lr, seed, .. } = TrainConfig::default();
        Self {
            epochs,
            batch_size: 64,
            drop_last: false,
            lr,
            lr_batch: 0,
            seed,
            precision: Precision::Float32,
            tf32: Tf32::default(),
            memory_format: Layout::ChannelsLast,
            kernels: Kernels::Fast,
            threads: 0,
            cuda_graph: false,
            sync_batch_norm: false,
            compress_gradients: Precision::Float32,
            devices: vec!["cpu".to_owned()],
            label_smoothing: 0.0,
            clip_norm: 0.0,
            clip_value: 0.0,
            clip_adaptive: 0.0,
            accumulate: 1,
            layer_decay: 1.0,
            on_nan: OnNan::default(),
            patience: 0,
            min_delta: 0.0,
            checkpoint_steps: 0,
            keep_epochs: 0,
            keep_steps: 0,
            keep_newest: 0,
            tensorboard: false,
        }
    }
}

impl TrainSection {
    /// The learning rate for the run's batch size.
    pub fn scaled_lr(&self) -> f64 {
        if self.lr_batch == 0 { self.lr } else { self.lr * self.batch_size as f64 / self.lr_batch as f64 }
    }

    /// The half type that gradients are sent in.
    pub(super) fn compressed(&self) -> Option<Kind> {
        match self.compress_gradients {
            Precision::Bfloat16 => Some(Kind::BFloat16),
            Precision::Float16 => Some(Kind::Half),
            _ => None,
        }
    }

    /// How gradients are clipped.
    pub(super) fn clip(&self) -> Result<Option<Clip>, TrainError> {
        let clips = [Clip::Norm(self.clip_norm), Clip::Value(self.clip_value), Clip::Adaptive(self.clip_adaptive)];
        let mut set = clips.into_iter().filter(|clip| clip.limit() != 0.0);
        let (first, second) = (set.next(), set.next());
        let others = "exclude each other: set one of them and leave the others at 0";
        let names = format_args!("clip_norm, clip_value and clip_adaptive");
        check(second.is_none(), "train", names, others)?;
        Ok(first)
    }

    /// Which checkpoints are kept.
    pub fn keep(&self) -> Keep {
        let some = |count: u64| Some(count).filter(|count| *count > 0);
        Keep { epochs: some(self.keep_epochs), steps: some(self.keep_steps), newest: some(self.keep_newest) }
    }

    /// Makes a network compute as the section says. Call it before you make an optimizer for the network.
    ///
    /// `kernels = "fast"` on a GPU also switches the whole process to TF32 and to cuDNN's fastest algorithms (see
    /// [`striate_torch::fast_cuda`]), and `tf32`, if it is set, to TF32 or from it.
    pub fn set_up(&self, network: &mut Network) -> Result<(), TrainError> {
        network.set_memory_format(self.memory_format.into())?;
        network.set_kernels(self.kernels);
        if network.devices().iter().any(|device| device.is_cuda()) {
            if self.kernels == Kernels::Fast {
                striate_torch::fast_cuda();
            }
            if let Tf32::Set(on) = self.tf32 {
                striate_torch::cuda::set_tf32(on);
            }
        }
        network.set_autocast(match self.precision {
            Precision::Bfloat16 => Some(Kind::BFloat16),
            Precision::Float16 => Some(Kind::Half),
            _ => None,
        });
        Ok(())
    }
}

/// Whether a GPU multiplies float32 in TF32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false or `auto`")]
pub enum Tf32 {
    /// It does, or not.
    Set(bool),
    /// `"auto"`: as `kernels` says.
    Chosen(Auto),
}

impl Default for Tf32 {
    fn default() -> Self {
        Self::Chosen(Auto::Auto)
    }
}

/// How images and feature maps lie in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// NHWC, which most convolutions on a CPU run fastest on.
    #[default]
    ChannelsLast,
    /// NCHW.
    Contiguous,
}

impl From<Layout> for MemoryFormat {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::ChannelsLast => Self::ChannelsLast,
            Layout::Contiguous => Self::Contiguous,
        }
    }
}
