//! A network's definition as plain data, which files hold.
use crate::builder::Progress;
use crate::graph::Output;
use crate::{Graph, GraphError, NetworkBuilder, Node, NodeKind};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use striate_layers::{CustomLayers, LayerData, LayerError, Mode, Op, Shape};

/// The version of [`GraphDescription`].
const VERSION: u32 = 1;
/// The most places that a description may name: devices of one machine.
const MAX_PLACES: usize = 1024;

/// A [`Graph`] as plain data, from which it is built again with no code: what a bundle holds.
///
/// Shapes are not in it; they follow from the inputs, and are inferred when it is built. As JSON:
///
/// ```json
/// {
///   "version": 1,
///   "nodes": [
///     { "name": "input", "input": [1, 28, 28] },
///     { "name": "conv1", "from": ["input"], "layer": "Conv2d",
///       "options": { "out_channels": 6, "kernel_size": [5, 5], "...": "all its fields" } },
///     { "name": "scale", "from": ["conv1"], "custom": "Scale", "options": 0.5 },
///     { "name": "flatten", "from": ["scale"], "layer": "Flatten" }
///   ],
///   "outputs": [ { "name": "logits", "node": "flatten" } ]
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphDescription {
    /// The version of the description's form: 1.
    pub version: u32,
    /// Inputs and layers; each reads only nodes before it.
    pub nodes: Vec<NodeDescription>,
    /// The outputs; the first is the one that classifies.
    pub outputs: Vec<OutputDescription>,
}

/// An input or a layer of a [`GraphDescription`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Its full name, such as `layer1.0.conv1`.
    pub name: String,
    /// The names of the nodes that it reads; none for an input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// The place that it runs at: see [`Node::place`].
    #[serde(default, skip_serializing_if = "is_first")]
    pub place: usize,
    /// What it is.
    #[serde(flatten)]
    pub kind: NodeData,
}

/// What a node of a [`GraphDescription`] is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a node with `input` or with `from` and a layer")]
pub enum NodeData {
    /// An input, of this shape for one example.
    Input {
        /// The dimensions.
        input: Vec<i64>,
    },
    /// A layer.
    Layer(LayerData),
}

/// An output of a [`GraphDescription`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputDescription {
    /// Its name, such as `logits`.
    pub name: String,
    /// The name of the node that it is.
    pub node: String,
    /// Whether only training has it, as an auxiliary head.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub training_only: bool,
}

fn is_first(place: &usize) -> bool {
    *place == 0
}

impl Graph {
    /// The definition as plain data.
    ///
    /// # Errors
    ///
    /// A layer of your own that does not tell its options, and a network that was split over towers: describe the whole.
    pub fn to_description(&self) -> Result<GraphDescription, GraphError> {
        let describe = |node: &Node| {
            let bad = |source| GraphError::Layer { layer: node.name.clone(), op: node.op_name(), source };
            if node.part.is_some() {
                let reason = "is a part of a tower: describe the network before it is split".to_owned();
                return Err(GraphError::Option { option: format!("layer {}", node.name), reason });
            }
            let kind = match &node.kind {
                NodeKind::Input => NodeData::Input { input: node.shape.dims().to_vec() },
                NodeKind::Layer(op) => NodeData::Layer(op.to_data().map_err(bad)?),
            };
            let from = node.inputs.iter().map(|input| self.nodes[*input].name.clone()).collect();
            Ok(NodeDescription { name: node.name.clone(), from, place: node.place, kind })
        };
        let output = |output: &Output| OutputDescription {
            name: output.name.clone(),
            node: self.nodes[output.node].name.clone(),
            training_only: output.training_only,
        };
        Ok(GraphDescription {
            version: VERSION,
            nodes: self.nodes.iter().map(describe).collect::<Result<_, GraphError>>()?,
            outputs: self.outputs.iter().map(output).collect(),
        })
    }

    /// Builds the network that [`to_description`](Self::to_description) described, where `custom` are the layers of your own that
    /// it may name. The description may come from anybody: everything in it is checked as [`Graph::build`] checks it, before
    /// anything is allocated.
    ///
    /// # Errors
    ///
    /// Those of [`Graph::build`]; a node that reads one that is not before it, so that no circles are possible; a layer that is
    /// neither Striate's nor in `custom`; another version.
    pub fn from_description(description: GraphDescription, custom: &CustomLayers) -> Result<Self, GraphError> {
        if description.version != VERSION {
            let reason = format!("is not {VERSION}, which this version of striate reads: use a newer one");
            return Err(GraphError::Option {
                option: format!("version {} of the network's description", description.version),
                reason,
            });
        }
        let (mut graph, mut progress) = (Self::empty(), Progress::default());
        let mut net = NetworkBuilder::new(&mut graph, &mut progress);
        let mut places = HashMap::new();
        for node in description.nodes {
            let find = |name: &String| {
                places.get(name).copied().ok_or_else(|| GraphError::Option {
                    option: format!("layer {}", node.name),
                    reason: format!("reads {name}, which is not before it"),
                })
            };
            let from = node.from.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            if node.place >= MAX_PLACES {
                let reason = format!("must be below {MAX_PLACES}");
                return Err(GraphError::Option { option: format!("layer {}: place = {}", node.name, node.place), reason });
            }
            let mut net = net.on(node.place);
            let value = match node.kind {
                NodeData::Input { input } => net.named_input(&node.name, Shape::new(input))?,
                NodeData::Layer(data) => {
                    let op = Op::from_data(data, custom).map_err(|source| unknown(&node.name, source))?;
                    net.add(&node.name, op, from)?
                }
            };
            places.insert(node.name, value);
        }
        for OutputDescription { name, node, training_only } in description.outputs {
            let value = *places.get(&node).ok_or_else(|| GraphError::Option {
                option: format!("output {name}"),
                reason: format!("is {node}, which is no node"),
            })?;
            if training_only { net.training_output(&name, value)? } else { net.output(&name, value)? }
        }
        if graph.outputs_in(Mode::Eval).next().is_none() {
            return Err(GraphError::NoOutput);
        }
        Ok(graph)
    }
}

fn unknown(layer: &str, source: LayerError) -> GraphError {
    GraphError::Description { layer: layer.to_owned(), source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{InitOptions, Network};
    use striate_layers::{Activation, Add, BatchNorm2d, Conv2d, Flatten, Forward, Layer, Linear, Mode, ParamSpec};
    use tch::{Device, Kind, Tensor};

    #[derive(Debug, Serialize, Deserialize)]
    struct Scale {
        by: f64,
    }

    impl Layer for Scale {
        fn name(&self) -> &'static str {
            "Scale"
        }
        fn options(&self) -> Option<serde_json::Value> {
            serde_json::to_value(self).ok()
        }
        fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
            Ok(inputs[0].clone())
        }
        fn params(&self, _: &[Shape]) -> Vec<ParamSpec> {
            Vec::new()
        }
    }

    impl Forward for Scale {
        fn forward(&self, _: &[Tensor], inputs: &[&Tensor], _: Mode) -> Result<Tensor, LayerError> {
            Ok(inputs[0].f_mul_scalar(self.by)?)
        }
    }

    fn residual() -> Graph {
        Graph::build(|net| {
            let x = net.input([2, 6, 6]);
            let mut block = net.scope("block");
            let y = block.add("conv", Conv2d::same(2, 3).no_bias(), x)?;
            let y = block.add("bn", BatchNorm2d::new(), y)?;
            let y = block.add("scale", Op::custom(Scale { by: 0.1 + 0.2 }), y)?;
            let x = block.add("add", Add, [x, y])?;
            let x = net.on(1).add("relu", Activation::Relu, x)?;
            let x = net.add("flatten", Flatten, x)?;
            let aux = net.add("aux", Linear::new(3), x)?;
            let x = net.add("fc", Linear::new(3), x)?;
            net.training_output("aux1", aux)?;
            net.output("logits", x)
        })
        .unwrap()
    }

    fn custom() -> CustomLayers {
        CustomLayers::default().with::<Scale>("Scale")
    }

    fn from_text(text: &str) -> Result<Graph, GraphError> {
        Graph::from_description(serde_json::from_str(text).unwrap(), &custom())
    }

    #[test]
    fn a_network_comes_back_from_text() {
        let graph = residual();
        let text = serde_json::to_string(&graph.to_description().unwrap()).unwrap();
        let back = from_text(&text).unwrap();
        assert_eq!(format!("{:?}", back.nodes), format!("{:?}", graph.nodes));
        assert_eq!(format!("{:?}", back.outputs), format!("{:?}", graph.outputs));
        let batch = Tensor::ones([2, 2, 6, 6], (Kind::Float, Device::Cpu));
        let logits = |graph: Graph| {
            let network = Network::new(graph, &InitOptions::default()).unwrap();
            network.forward(&batch, Mode::Eval).unwrap().logits().copy()
        };
        assert_eq!(logits(back), logits(graph));
    }

    #[test]
    fn a_truncated_network_and_a_second_input_keep_their_names() {
        let two = Graph::build(|net| {
            let a = net.input([4]);
            let b = net.input([4]);
            let a = net.add("a", Linear::new(2), a)?;
            let b = net.add("b", Linear::new(2), b)?;
            let sum = net.add("sum", Add, [a, b])?;
            net.output("logits", sum)
        });
        let cut = two.unwrap().truncate("b", "features").unwrap();
        let back = Graph::from_description(cut.to_description().unwrap(), &custom()).unwrap();
        let names: Vec<&str> = back.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["input2", "b"]);
        assert_eq!(back.outputs().next().unwrap().0, "features");
    }

    #[test]
    fn what_is_hostile_or_unknown_is_one_line() {
        let net = |nodes: &str, output: &str| {
            let text = format!(r#"{{"version":1,"nodes":[{nodes}],"outputs":[{{"name":"logits","node":"{output}"}}]}}"#);
            from_text(&text).unwrap_err().to_string()
        };
        let input = r#"{"name":"input","input":[4]}"#;
        let circle = r#"{"name":"a","from":["b"],"layer":"Flatten"},{"name":"b","from":["a"],"layer":"Flatten"}"#;
        assert_eq!(net(&format!("{input},{circle}"), "b"), "layer a reads b, which is not before it");
        let own = r#"{"name":"a","from":["a"],"layer":"Flatten"}"#;
        assert_eq!(net(own, "a"), "layer a reads a, which is not before it");
        assert_eq!(
            net(&format!("{input},{input}"), "input"),
            "the name input is taken: every input, every layer and every output needs a name of its own"
        );
        assert_eq!(net(input, "nothing"), "output logits is nothing, which is no node");
        assert!(net(r#"{"name":"input","input":[4294967296,4294967296,9]}"#, "input").starts_with("input input: the shape"));
        assert!(net(r#"{"name":"input","input":[-1]}"#, "input").contains("has a dimension of -1"));
        let fc = |out: &str| format!(r#"{input},{{"name":"fc","from":["input"],"layer":"Linear","options":{out}}}"#);
        let rest = r#""bias":true,"weight_init":"le_cun_uniform","bias_init":{"constant":0}"#;
        assert!(net(&fc(&format!(r#"{{"out_features":9223372036854775807,{rest}}}"#)), "fc").contains("must be at most"));
        assert_eq!(net(&fc("{}"), "fc"), "layer fc: Linear has bad options: missing field `out_features`");
        let unknown = r#"{"name":"x","from":["input"],"custom":"Mine"}"#;
        assert_eq!(
            net(&format!("{input},{unknown}"), "x"),
            "layer x: Mine is no layer of Striate's, and none of that name is registered here"
        );
        let place = r#"{"name":"x","from":["input"],"layer":"Flatten","place":18446744073709551615}"#;
        assert!(net(&format!("{input},{place}"), "x").contains("must be below 1024"));
        let many = (0..100_001).map(|n| format!(r#"{{"name":"n{n}","from":["input"],"layer":"Flatten"}}"#));
        let many = format!("{input},{}", many.collect::<Vec<_>>().join(","));
        assert!(net(&many, "n0").contains("100000"));
        let later = from_text(r#"{"version":2,"nodes":[],"outputs":[]}"#).unwrap_err().to_string();
        assert!(later.starts_with("version 2 of the network's description"), "{later}");
        assert_eq!(from_text(r#"{"version":1,"nodes":[],"outputs":[]}"#).unwrap_err(), GraphError::NoOutput);
    }

    #[test]
    fn what_no_file_can_hold_is_told() {
        #[derive(Debug)]
        struct Silent;
        impl Layer for Silent {
            fn name(&self) -> &'static str {
                "Silent"
            }
            fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
                Ok(inputs[0].clone())
            }
        }
        impl Forward for Silent {
            fn forward(&self, _: &[Tensor], inputs: &[&Tensor], _: Mode) -> Result<Tensor, LayerError> {
                Ok(inputs[0].shallow_clone())
            }
        }
        let graph = Graph::build(|net| {
            let x = net.input([4]);
            let x = net.add("quiet", Op::custom(Silent), x)?;
            net.output("logits", x)
        });
        let error = graph.unwrap().to_description().unwrap_err().to_string();
        assert!(error.starts_with("layer quiet (Silent): cannot be written to a file"), "{error}");
    }
}
