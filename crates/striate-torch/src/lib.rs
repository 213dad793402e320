//! What [`tch`] does not bind of libtorch, or gets wrong, behind a safe API: a small C++ shim, and nothing that knows of layers, networks or data.
//!
//! - [`MemoryFormat`]: whether a batch of images lies as NCHW or NHWC, and conversion between the two;
//! - [`Generator`]: random numbers from a seed, with no global state; [`manual_seed`] for the operators that use libtorch's own;
//! - [`optim`]: fused optimizer steps over lists of parameters;
//! - [`foreach`]: operators over lists of tensors;
//! - [`onednn`]: convolutions and linear layers computed together with what follows them, for inference;
//! - [`pointwise`]: 1x1 convolutions and linear layers as matrix products, for inference;
//! - [`conv`]: convolutions with gradients of our own, for training;
//! - [`kernels`]: which of these computes which convolution;
//! - [`int8`]: values as bytes, and convolutions and linear layers of them, for inference;
//! - [`pixels`]: pooling and concatenation of channels-last feature maps;
//! - [`norm`]: batch norm in training together with the addition and the ReLU after it;
//! - [`winograd`]: 3x3 convolutions with a quarter of the multiplications, for inference and training;
//! - [`cpu`]: which instructions our kernels use;
//! - [`cuda`]: copies beside what a device computes, and recorded work;
//! - [`cudnn`]: convolutions computed together with what follows them on CUDA, for inference;
//! - [`distributed`]: several processes that sum their gradients;
//! - [`Frozen`]: a tensor that many threads read; [`Unfinished`]: one that many threads write, each a part;
//! - [`picture_from_bytes`] and [`picture_to_bytes`]: single pictures, moved by one thread, and [`resample`], in another size;
//! - [`jpeg`]: pixels of a JPEG's coefficients;
//! - [`keep_memory_warm`]: freed activations stay in the process;
//! - [`Precision`]: the types that networks compute in;
//! - [`TensorFile`]: `.safetensors` files with metadata, written atomically; [`StoredTensors`] reads their tensors as bytes;
//! - [`TorchError`]: libtorch's errors in one line, without its backtrace;
//! - [`Shown`]: texts from outside, as one line that a terminal does not obey; [`few`] of many names;
//! - [`Budget`]: how much memory a file may take to read;
//! - [`contained()`]: a reader's panic becomes an error, and the panic hook can ask which file it was;
//! - [`nearest`]: the known name that a mistyped one meant, for the errors of all crates.
//!
//! All other crates of the workspace forbid `unsafe`; what needs it is here.

#[cfg(test)]
mod any_shape;
mod budget;
mod bytes;
mod contained;
pub mod conv;
pub mod cpu;
pub mod cuda;
pub mod cudnn;
pub mod distributed;
mod error;
mod ffi;
pub mod foreach;
mod frozen;
mod generator;
pub mod int8;
pub mod jpeg;
pub mod kernels;
mod memory;
mod nearest;
pub mod norm;
mod normalise;
pub mod onednn;
pub mod optim;
mod parallel;
mod parts;
pub mod pixels;
pub mod pointwise;
mod precision;
mod runtime;
mod shown;
mod tensor_file;
pub mod winograd;

pub use budget::Budget;
pub use bytes::{FrozenBytes, Piece, Rect, Resampling, height_first, picture_from_bytes, picture_to_bytes, resample};
pub use contained::{contained, is_contained, last_file, note_file};
pub use error::{Lack, TorchError};
pub use frozen::Frozen;
pub use generator::{Generator, derive_seed, manual_seed};
pub use memory::{
    MemoryFormat, available_memory, keep_memory_warm, may_overwrite, memory_format, peak_memory, release_memory,
    reset_peak_memory, resident_memory, to_memory_format,
};
pub use nearest::{nearest, nearest_few};
pub use normalise::normalise;
pub use parallel::parallel;
pub use parts::{Memory, Part, Unfinished, Values};
pub use precision::{Precision, UnknownPrecision};
pub use runtime::{
    Autocast, NoGrad, ThreadWidth, autocast, build_config, exit, fast_cuda, fit_threads, no_grad, num_threads, set_num_threads,
    thread_width, torch_version,
};
pub use shown::{Shown, few, is_plain};
pub use tensor_file::{FileError, MAX_DIMS, StoredTensors, TensorFile};
