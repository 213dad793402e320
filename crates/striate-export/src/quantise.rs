//! Which values of a network in int8 are bytes, and what these stand for.
use std::collections::HashMap;
use striate_graph::{Graph, Node, NodeKind};
use striate_infer::Calibration;
use striate_layers::Op;
use striate_torch::int8::Scale;

/// For each node of the graph, the scale of the bytes that its value becomes, if it does.
///
/// A plan computes several layers in one step, and its calibration has the scale of what the last of them gives. A value becomes bytes if
/// a convolution or a linear layer reads it, if only through layers that pass values on.
pub(crate) fn scales(graph: &Graph, needed: &[bool], calibration: &Calibration) -> Vec<Option<Scale>> {
    let mut steps: HashMap<&str, (usize, Scale)> = HashMap::new();
    for (number, (layers, scale)) in calibration.steps().enumerate() {
        steps.extend(layers.map(|layer| (layer, (number, scale))));
    }
    let nodes = graph.nodes();
    let step = |node: &Node| steps.get(node.name.as_str()).copied();
    let readers =
        |index: usize| nodes.iter().enumerate().filter(move |(reader, node)| needed[*reader] && node.inputs.contains(&index));
    let mut scales = vec![None; nodes.len()];
    for (index, node) in nodes.iter().enumerate().filter(|(index, _)| needed[*index]) {
        scales[index] = match step(node) {
            // Within a step, values stay numbers.
            Some((number, scale)) => {
                let leaves = readers(index).any(|(_, reader)| step(reader).is_none_or(|(other, _)| other != number));
                leaves.then_some(scale)
            }
            None if passes_on(node) => node.inputs.first().and_then(|input| scales[*input]),
            None => None,
        };
    }
    // From the end, so that it is known of each reader whether bytes are of use to it.
    let mut of_use = vec![false; nodes.len()];
    for index in (0..nodes.len()).rev() {
        of_use[index] = readers(index).any(|(reader, node)| match &node.kind {
            NodeKind::Layer(Op::Conv2d(_) | Op::Linear(_)) => true,
            _ => passes_on(node) && step(node).is_none() && of_use[reader],
        });
    }
    scales.into_iter().zip(of_use).map(|(scale, of_use)| scale.filter(|_| of_use)).collect()
}

/// Whether a layer gives values of its inputs as they are.
fn passes_on(node: &Node) -> bool {
    matches!(
        &node.kind,
        NodeKind::Layer(Op::MaxPool2d(_) | Op::Concat(_) | Op::Flatten(_) | Op::Dropout(_) | Op::StochasticDepth(_))
    )
}
