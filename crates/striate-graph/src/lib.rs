//! A network is a graph of layers, defined once.
//!
//! [`Graph::build`] takes a function that adds named layers to a [`NetworkBuilder`] and gets back values whose shapes are
//! known at once: input channels are inferred, and a layer that doesn't fit is an error that names it. A [`Graph`] holds no
//! tensors, so that [`Graph::summary`] costs nothing for the largest network. [`Network::new`] gives it parameters, on one
//! device or several; everything a network does reads the same list of nodes: [`Network::forward`], taps of any
//! intermediate value, freezing, truncating, replacing the head, and the [`GraphDescription`] that a file holds.
//!
//! ```
//! use striate_graph::{Graph, InitOptions, Network};
//! use striate_layers::{Activation, Conv2d, Flatten, Linear, MaxPool2d, Mode};
//! use tch::{Device, Kind, Tensor};
//!
//! let graph = Graph::build(|net| {
//!     let x = net.input([1, 28, 28]);
//!     let mut features = net.sequential("features");
//!     let x = features.add(Conv2d::same(8, 5), x)?;        // [8, 28, 28]
//!     let x = features.add(Activation::Relu, x)?;
//!     let x = features.add(MaxPool2d::new(2), x)?;         // [8, 14, 14]
//!     let x = net.add("flatten", Flatten, x)?;             // [1568]
//!     let x = net.add("classifier", Linear::new(10), x)?;  // [10]
//!     net.output("logits", x)
//! })?;
//! assert_eq!(graph.summary().params, 8 * 25 + 8 + 1568 * 10 + 10);
//!
//! let network = Network::new(graph, &InitOptions::default())?;
//! let images = Tensor::zeros([4, 1, 28, 28], (Kind::Float, Device::Cpu));
//! let outputs = network.forward_with_taps(&[&images], Mode::Eval, &["features.0"])?;
//! assert_eq!(outputs.logits().size(), [4, 10]);
//! assert_eq!(outputs.tap("features.0").map(|tap| tap.size()), Some(vec![4, 8, 28, 28]));
//! # Ok::<(), striate_graph::GraphError>(())
//! ```
//!
//! What is absent on purpose: data, losses, optimizers, and any particular architecture.

mod builder;
mod cast;
mod description;
mod diff;
mod edit;
mod error;
mod fuse;
mod graph;
mod network;
mod run;
mod summary;
mod svg;
mod towers;

pub use builder::{Inputs, NetworkBuilder, Sequential, Value};
pub use description::{GraphDescription, NodeData, NodeDescription, OutputDescription};
pub use diff::{Change, DiffEntry, Difference, GraphDiff, Totals};
pub use error::GraphError;
pub use graph::{Graph, Node, NodeKind};
pub use network::{InitOptions, Kernels, Network, Parameter, is_finite};
pub use run::Outputs;
pub use summary::{Cost, LayerSummary, Summary, thousands};
