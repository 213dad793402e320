//! Datasets of images for classification, and the batches that networks are trained with.
//!
//! - [`load`] gives a dataset of the [`catalogue()`] by name: embedded, from a folder, or downloaded into the cache;
//! - [`Dataset`] is what a loader needs of a dataset, [`InMemory`] a dataset in one tensor, and [`ImageFolder`] one of files that
//!   are decoded batch by batch;
//! - [`Preprocess`] says how an image becomes a network's input, in training and in prediction alike;
//! - [`Loader`] makes batches, with [`Augment`]ation, exactly reproducible from any batch on;
//! - [`idx`] reads and writes the files of the MNIST family; [`decode_image`] reads a JPEG or PNG.
//!
//! Nothing here knows of layers, networks or training.

mod augment;
mod catalogue;
mod dataset;
mod digits;
mod download;
mod error;
mod folder;
pub mod idx;
mod loader;
mod package;
mod preprocess;
mod resize;
mod source;

pub use augment::Augment;
pub use catalogue::{Entry, catalogue, find};
pub use dataset::{Batch, Dataset, InMemory, Split};
pub use digits::digits;
pub use error::DatasetError;
pub use folder::ImageFolder;
pub use loader::{Epoch, Loader, LoaderOptions};
pub use preprocess::{Fit, ImageSize, Normalise, Preprocess, channel_statistics, decode_image};
pub use source::{LoadOptions, fetch, load};
