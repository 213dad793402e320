//! Networks frozen for serving.
//!
//! A [`Plan`] is made from a network once and computes what the network computes in evaluation, several times faster: batch norm is
//! folded into convolutions; activations and the additions of residual blocks are computed by the convolution before them;
//! 1x1 convolutions of one input are one convolution; weights are packed once; values are written over as soon as
//! nobody reads them again. Its [`std::fmt::Display`] lists the steps.
//!
//! ```
//! use striate_graph::{Graph, InitOptions, Network};
//! use striate_infer::{Plan, PlanOptions};
//! use striate_layers::{Activation, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear};
//! use tch::{Device, Kind, Tensor};
//!
//! let graph = Graph::build(|net| {
//!     let x = net.input([3, 32, 32]);
//!     let x = net.add("conv", Conv2d::same(8, 3).no_bias(), x)?;
//!     let x = net.add("bn", BatchNorm2d::new(), x)?;
//!     let x = net.add("relu", Activation::Relu, x)?;
//!     let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?;
//!     let x = net.add("flatten", Flatten, x)?;
//!     let x = net.add("fc", Linear::new(10), x)?;
//!     net.output("logits", x)
//! })?;
//! let network = Network::new(graph, &InitOptions::default())?;
//! let plan = Plan::new(&network, &PlanOptions::default())?;
//! assert!(plan.to_string().contains("conv + bn + relu"));
//! for (batch, size) in [(1, 32), (4, 48)] {
//!     let images = Tensor::zeros([batch, 3, size, size], (Kind::Float, Device::Cpu));
//!     assert_eq!(plan.forward(&images)?.logits().size(), [batch, 10]);
//! }
//! # Ok::<(), striate_infer::PlanError>(())
//! ```
//!
//! What is absent on purpose: training, taps, and architectures. A plan has copies of the network's parameters: later
//! changes of the network don't reach it.

mod conv;
mod error;
mod gate;
mod int8;
mod linear;
mod memory;
mod passes;
mod plan;
mod program;
mod recent;
mod recording;
mod schedule;
mod step;
mod steps;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
mod width;

pub use error::PlanError;
pub use gate::Gate;
pub use int8::Calibration;
pub use plan::{Plan, PlanOptions};
pub use striate_torch::Precision;
