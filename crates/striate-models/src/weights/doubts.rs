//! What shapes can't tell: weights of one wiring fit another of the same shapes, and answer wrongly there.
use super::Weights;
use striate_graph::{Graph, NodeKind};
use striate_layers::{Op, ZeroChannels};

impl Weights {
    /// What makes it doubtful that the weights were trained in `graph`, although they fit it, in one line.
    pub fn doubt(&self, graph: &Graph) -> Option<String> {
        let behind = |op: &Op| matches!(op, Op::PadShortcut(shortcut) if shortcut.zeros == ZeroChannels::Behind);
        let pads = graph.nodes().iter().any(|node| matches!(&node.kind, NodeKind::Layer(op) if behind(op)));
        let linear = self.info.is_none() && self.tensors.keys().any(|name| name.ends_with("linear.weight"));
        (pads && linear).then(|| {
            format!(
                "{} calls its classifier `linear`, as repositories do that put half of a shortcut's zero channels before the \
                 others; the network puts all behind: if its answers are wrong, give it the option zero_channels = around",
                self.path.display()
            )
        })
    }

    /// The architecture that the file says it is of, if that is another than `architecture`.
    pub fn other_architecture(&self, architecture: &str) -> Option<String> {
        let named = self.published().map(|weights| weights.model.to_owned()).or_else(|| self.arch.clone())?;
        (normal(&named) != normal(architecture)).then_some(named)
    }
}

/// A name without what repositories write differently.
fn normal(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}
