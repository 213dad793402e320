//! The layers of the classic convolutional networks.
//!
//! A layer is plain data: what it computes, with no tensors inside. From the shapes of its inputs it tells, before anything
//! is allocated, the shape of its output ([`Layer::output_shape`]), the parameters it needs ([`Layer::params`]), what it
//! costs ([`Layer::macs`], [`Layer::connections`]) and what it sees ([`Layer::receptive`]). [`Forward::forward`] computes it
//! with parameters that somebody else keeps: a network, or a [`Module`] for a layer that stands alone.
//!
//! ```
//! use striate_layers::{Conv2d, Layer, Mode, Module, Shape};
//! use striate_torch::Generator;
//! use tch::{Device, Kind, Tensor, nn::VarStore};
//!
//! let conv = Conv2d::new(6, 5).padding(2);
//! let image = Shape::image(1, 28, 28);
//! assert_eq!(conv.output_shape(&[image.clone()])?, Shape::image(6, 28, 28));
//! assert_eq!(conv.macs(&[image.clone()]), 6 * 28 * 28 * 25);
//!
//! let vs = VarStore::new(Device::Cpu);
//! let conv = Module::new(&(vs.root() / "conv1"), conv, &[image], &mut Generator::new(0))?;
//! let y = conv.forward(&[&Tensor::zeros([8, 1, 28, 28], (Kind::Float, Device::Cpu))], Mode::Eval)?;
//! assert_eq!(y.size(), [8, 6, 28, 28]);
//! assert!(vs.variables().contains_key("conv1.weight"));
//! # Ok::<(), striate_layers::LayerError>(())
//! ```
//!
//! Defaults are PyTorch's: the initialisation of weights and biases, batch norm's `eps` and `momentum`, the divisor of
//! local response norm.

mod activation;
mod conv;
mod drawn;
mod error;
mod init;
mod layer;
mod lenet;
mod linear;
pub mod loss;
mod module;
mod norm;
mod op;
mod pool;
mod shape;
mod shortcut;
mod stochastic_depth;
mod structure;

pub use activation::{Activation, Softmax};
pub use conv::{Conv2d, Padding};
pub use error::LayerError;
pub use init::{Fan, Fans, Init};
pub use layer::{Forward, Layer, Mode, ParamKind, ParamSpec, Receptive, infer_shape};
pub use lenet::{RbfOutput, SparseConv2d, Subsampling2d};
pub use linear::Linear;
pub use module::{Module, create_params};
pub use norm::{BatchNorm2d, LocalResponseNorm};
pub use op::{CustomLayers, LayerData, Op};
pub use pool::{AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d};
pub use shape::{Pair, Shape};
pub use shortcut::{PadShortcut, ZeroChannels};
pub use stochastic_depth::StochasticDepth;
pub use structure::{Add, Concat, Dropout, Flatten};
