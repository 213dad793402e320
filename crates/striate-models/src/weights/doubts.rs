//! What shapes can't tell: weights of one wiring fit another of the same shapes, and answer wrongly there.
use super::Weights;
use striate_graph::{Graph, NodeKind};
use striate_layers::{Op, ZeroChannels};

impl Weights {
    /// What makes it doubtful that the weights were trained in `graph`, although they fit it; `architecture` is the graph's
    /// name in the registry, if it has one. Each is one line.
    pub fn doubts(&self, graph: &Graph, architecture: Option<&str>) -> Vec<String> {
        let path = self.path.display();
        let mut doubts = Vec::new();
        let behind = |op: &Op| matches!(op, Op::PadShortcut(shortcut) if shortcut.zeros == ZeroChannels::Behind);
        let pads = graph.nodes().iter().any(|node| matches!(&node.kind, NodeKind::Layer(op) if behind(op)));
        if pads && self.info.is_none() && self.tensors.keys().any(|name| name.ends_with("linear.weight")) {
            doubts.push(format!(
                "{path} calls its classifier `linear`, as repositories do that put half of a shortcut's zero channels before the \
                 others; the network puts all behind: if its answers are wrong, give it the option zero_channels = around"
            ));
        }
        let named = self.published().map(|weights| weights.model.to_owned()).or_else(|| self.arch.clone());
        if let (Some(named), Some(architecture)) = (named, architecture)
            && normal(&named) != normal(architecture)
        {
            doubts
                .push(format!("{path} says that it is of {named}, and is loaded into {architecture}: is that the same network?"));
        }
        doubts
    }
}

/// A name without what repositories write differently.
fn normal(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}
