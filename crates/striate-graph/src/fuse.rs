//! What a forward pass in training computes together: batch norm, the addition of a shortcut, and a ReLU.
use crate::{Graph, NodeKind};
use striate_layers::{Activation, Op};

/// A batch norm that is computed at the last node of what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fused {
    /// The batch norm.
    pub(crate) norm: usize,
    /// What is added to it.
    pub(crate) other: Option<usize>,
    /// Whether a ReLU follows.
    pub(crate) relu: bool,
}

impl Fused {
    /// What it is computed from.
    pub(crate) fn reads(self, graph: &Graph) -> impl Iterator<Item = usize> {
        graph.nodes[self.norm].inputs.iter().copied().chain(self.other)
    }
}

/// For each node, what is computed at it, and whether it is computed within a later one.
#[derive(Debug, Default)]
pub(crate) struct Fusions {
    at: Vec<Option<Fused>>,
    within: Vec<bool>,
}

impl Fusions {
    /// What is computed at a node, if it ends such a chain.
    pub(crate) fn at(&self, node: usize) -> Option<Fused> {
        self.at.get(node).copied().flatten()
    }

    /// Whether the node's own value is never made.
    pub(crate) fn is_within(&self, node: usize) -> bool {
        self.within.get(node).copied().unwrap_or(false)
    }
}

impl Graph {
    /// The chains among the nodes that are needed. The values of nodes that are `kept` are made; batch norms that are `frozen` are left alone.
    pub(crate) fn fusions(&self, needed: &[bool], kept: &[bool], frozen: &[bool]) -> Fusions {
        let mut readers = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| needed[*index]) {
            node.inputs.iter().for_each(|input| readers[*input].push(index));
        }
        // The one node that reads a value that nobody else sees.
        let only_reader = |index: usize| match readers[index].as_slice() {
            [reader] if !kept[index] => Some(*reader),
            _ => None,
        };
        let op = |index: usize| match &self.nodes[index].kind {
            NodeKind::Layer(op) => Some(op),
            NodeKind::Input => None,
        };
        let mut fusions = Fusions { at: vec![None; self.nodes.len()], within: vec![false; self.nodes.len()] };
        for norm in (0..self.nodes.len()).filter(|index| needed[*index] && !frozen[*index]) {
            if !matches!(op(norm), Some(Op::BatchNorm2d(_))) {
                continue;
            }
            let (mut chain, mut other) = (vec![norm], None);
            if let Some(sum) = only_reader(norm)
                && let (Some(Op::Add(_)), &[a, b]) = (op(sum), self.nodes[sum].inputs.as_slice())
            {
                // Of two batch norms that are added, one is computed with the sum.
                let other_is_within = fusions.within[if a == norm { b } else { a }];
                if !other_is_within {
                    chain.push(sum);
                    other = Some(if a == norm { b } else { a });
                }
            }
            let last = chain[chain.len() - 1];
            let is_relu = |reader: &usize| matches!(op(*reader), Some(Op::Activation(Activation::Relu)));
            let relu = only_reader(last).filter(is_relu);
            chain.extend(relu);
            if let Some(end) = chain.pop() {
                chain.into_iter().for_each(|index| fusions.within[index] = true);
                fusions.at[end] = Some(Fused { norm, other, relu: relu.is_some() });
            }
        }
        fusions
    }
}
