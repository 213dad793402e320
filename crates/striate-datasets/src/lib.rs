//! Datasets of images for classification, and the batches that networks are trained with.
//!
//! - [`load`] gives a dataset of the [`catalogue()`] by name: embedded, from a folder, or downloaded into the cache. An [`Entry`] says
//!   what it is, where its files come from, and of which format they are;
//! - [`Dataset`] is what a loader needs of a dataset. [`InMemory`] is a dataset in one tensor,
//!   [`ImageFolder`] one of files that are decoded batch by batch, and [`FolderParts`] their parts
//!   `train`, `val` and `test`: of a folder, a list or shards, which [`pack`] writes;
//! - [`Preprocess`] says how an image becomes a network's input, in training and in prediction alike;
//! - [`Transform`] is a step of what is done to each picture in training, and a list of them is the whole;
//! - [`Loader`] makes batches, on threads of its own if it is told to, exactly reproducible from any batch on;
//! - [`survey`] says what is wrong with a dataset: bad files, copies, pictures that look alike, and more;
//! - [`channel_statistics`] computes what pixels are normalised by;
//! - [`idx`] reads and writes the files of the MNIST family; [`decode_image`] turns a file, bytes or
//!   pixels into a network's input.
//!
//! Nothing here knows of layers, networks or training.

mod augment;
mod cache;
mod catalogue;
mod check;
mod classes;
mod dataset;
mod decode;
mod download;
mod error;
mod folder;
mod formats;
pub mod idx;
mod jpeg;
mod loader;
mod package;
mod pixels;
mod preprocess;
mod resize;
mod sampler;
mod source;
mod statistics;
mod survey;
mod transform;
mod unpack;
mod workers;

pub use augment::transforms_or_augment;
pub use cache::{Cache, Cached};
pub use catalogue::{Availability, Entry, catalogue, find, imagenet_classes};
pub use check::Check;
pub use dataset::{Batch, Dataset, Examples, InMemory, Split, Subset, Task};
pub use decode::{DecodeOptions, Picture, decode_image};
pub use error::DatasetError;
pub use folder::{
    FolderParts, ImageFolder, LeftOut, Packed, PartFolders, PictureFile, Reason, ShardSize, is_source, pack, picture_files,
    source_files, unpack,
};
pub use formats::{Loaded, digits};
pub use image;
pub use loader::{Epoch, Loader, LoaderOptions, Portion, Preview, PreviewInput, PreviewStep};
pub use pixels::{Pixels, View};
pub use preprocess::{Fit, ImageSize, Normalise, Normaliser, Preprocess};
pub use resize::Interpolation;
pub use sampler::Sampler;
pub use source::{LoadOptions, fetch, load, load_with};
pub use statistics::{Statistics, channel_statistics};
pub use survey::{
    Count, Finding, PartCounts, Problem, Seen, Sizes, Survey, SurveyOptions, ignored_files, survey, survey_classes,
};
pub use transform::{
    AugMix, AutoAugment, CentreCrop, ColourJitter, CutMix, Erased, FlipMode, MixUp, MixUpOrCutMix, Policy, RandAugment,
    RandomAffine, RandomAutocontrast, RandomCrop, RandomEqualise, RandomErasing, RandomGaussianBlur, RandomGrey,
    RandomHorizontalFlip, RandomInvert, RandomPerspective, RandomPosterise, RandomResizedCrop, RandomSharpness, RandomSolarise,
    RandomVerticalFlip, Resize, Sampling, Transform, TrivialAugment,
};
pub use unpack::unpack_archive;
