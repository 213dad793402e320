//! The classic convolutional networks, each as its paper has it and as torchvision has it.
//!
//! [`find`] a variant in the registry by name, say what differs from it, and build its graph:
//!
//! ```
//! use striate_models::find;
//! let model = find("lenet5")?.model(&[("classes", "26".into())])?;
//! assert_eq!(model.graph()?.summary().params, 61_706 + 16 * 85);
//! # Ok::<(), striate_models::ModelError>(())
//! ```
//!
//! Each architecture is one file with a configuration of plain data ([`LeNetConfig`]) that can be used without the registry.
//! A [`Bundle`] is a network in one file: its weights, and what is needed to build it, feed it and read its answers.
//! [`Weights`] come from files of several formats, PyTorch's among them, and [`pretrained()`] lists torchvision's.

mod alexnet;
mod answering;
mod bundle;
mod designs;
mod error;
#[cfg(test)]
mod figures;
mod googlenet;
mod inception;
mod inception_v3;
mod lenet;
#[cfg(test)]
mod names;
mod nin;
mod pretrained;
mod registry;
mod resnet;
mod vgg;
mod weights;

pub use alexnet::{AlexNetConfig, AlexNetPaperConfig, Towers};
pub use answering::{Answering, Tta, Unknown};
pub use bundle::{Bundle, BundleInfo, Origin, TrainedOn};
pub use designs::{DESIGN_INPUT, Design, designs};
pub use error::ModelError;
pub use googlenet::{AuxPooling, GoogLeNetConfig, GoogLeNetNorm};
pub use inception::{ConvUnit, Inception};
pub use inception_v3::InceptionV3Config;
pub use lenet::{C3, LeNetConfig, LeNetOutput, LeNetPooling, Order};
pub use nin::{MlpConv, NinConfig, NinHead};
pub use pretrained::{Pretrained, find_pretrained, pretrained};
pub use registry::{Architecture, BuildError, Model, Paper, Registry, Torchvision, Variant, find, variants};
#[doc(hidden)]
pub use registry::{build, defaults, loss_of};
pub use resnet::{ActivationOrder, Block, ResNetConfig, Shortcut, Stem};
pub use vgg::VggConfig;
pub use weights::{Loaded, Weights, WeightsFormat, write_state_dict};
