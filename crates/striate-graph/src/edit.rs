//! Changes to a network that is already defined: new lists of nodes from old ones.
use crate::graph::{Output, infer};
use crate::{Graph, GraphError, Network, NodeKind};
use striate_layers::Op;

impl Graph {
    /// The part of the network that the layer of that name needs, with that layer as its only output: a feature extractor.
    pub fn truncate(&self, layer: &str, output: &str) -> Result<Self, GraphError> {
        let last = self.index_of(layer)?;
        let kept = self.ancestors(&[last]);
        let mut places = vec![0; self.nodes.len()];
        let mut graph = Self::empty();
        for index in kept {
            places[index] = graph.nodes.len();
            let mut node = self.nodes[index].clone();
            node.inputs = node.inputs.iter().map(|input| places[*input]).collect();
            graph.nodes.push(node);
        }
        graph.outputs.push(Output { name: output.to_owned(), node: places[last], training_only: false });
        Ok(graph)
    }

    /// The same network for another number of classes: the last linear layer or convolution before each output gets that
    /// many features or channels.
    pub fn with_classes(&self, classes: i64) -> Result<Self, GraphError> {
        let mut graph = self.clone();
        for head in self.heads()? {
            match &mut graph.nodes[head].kind {
                NodeKind::Layer(Op::Linear(linear)) => linear.out_features = classes,
                NodeKind::Layer(Op::Conv2d(conv)) => conv.out_channels = classes,
                _ => {}
            }
        }
        for index in 0..graph.nodes.len() {
            if let NodeKind::Layer(op) = &graph.nodes[index].kind {
                let node = &graph.nodes[index];
                graph.nodes[index].shape = infer(&node.name, op, &graph.input_shapes(node))?;
            }
        }
        Ok(graph)
    }

    /// For each output, the layer that decides how many classes it has.
    fn heads(&self) -> Result<Vec<usize>, GraphError> {
        self.outputs.iter().map(|output| self.head(&output.name, output.node)).collect()
    }

    /// The layer that decides how many classes an output has: the last one before it that has parameters.
    pub(crate) fn head(&self, output: &str, mut index: usize) -> Result<usize, GraphError> {
        loop {
            let node = &self.nodes[index];
            match &node.kind {
                NodeKind::Layer(Op::Linear(_) | Op::Conv2d(_)) => return Ok(index),
                NodeKind::Layer(_) if self.params(node).is_empty() && node.inputs.len() == 1 => index = node.inputs[0],
                _ => {
                    let (output, layer) = (output.to_owned(), node.name.clone());
                    return Err(GraphError::FixedHead { output, layer, op: node.op_name() });
                }
            }
        }
    }

    /// The nodes that `ends` depend on, and `ends` themselves, in the order of the network.
    pub(crate) fn ancestors(&self, ends: &[usize]) -> Vec<usize> {
        let needed = self.depends(ends.iter().copied());
        (0..self.nodes.len()).filter(|index| needed[*index]).collect()
    }
}

impl Network {
    /// Cuts the network off after the layer of that name, whose value becomes the only output; the parameters of what
    /// remains stay.
    pub fn truncate(&mut self, layer: &str, output: &str) -> Result<(), GraphError> {
        self.set_graph(self.graph.truncate(layer, output)?, &[])
    }

    /// Starts a new head for this number of classes ([`Graph::with_classes`]), also if the former one had as many; it is trained
    /// even if the former one was frozen. All other parameters stay.
    pub fn replace_head(&mut self, classes: i64) -> Result<(), GraphError> {
        self.set_graph(self.graph.with_classes(classes)?, &self.graph.heads()?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::InitOptions;
    use striate_layers::{AdaptiveAvgPool2d, Concat, Conv2d, Flatten, Linear, Mode, RbfOutput};
    use tch::{Device, Kind, Tensor};

    fn branched() -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 6, 6]);
            let a = net.add("a", Conv2d::new(2, 3), x)?;
            let b = net.add("b", Conv2d::new(3, 3), x)?;
            let aux = net.add("aux_pool", AdaptiveAvgPool2d::global(), b)?;
            let aux = net.add("aux_flatten", Flatten, aux)?;
            let aux = net.add("aux_fc", Linear::new(4), aux)?;
            let x = net.add("concat", Concat, [a, b])?;
            let x = net.add("head", Conv2d::new(4, 1), x)?;
            let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
            let x = net.add("flatten", Flatten, x)?;
            net.output("logits", x)?;
            net.output("aux1", aux)
        });
        Network::new(graph.unwrap(), &InitOptions::default()).unwrap()
    }

    #[test]
    fn a_new_head_changes_every_output_and_no_other_parameter() {
        let mut network = branched();
        let before = network.state();
        network.replace_head(7).unwrap();
        let after = network.state();
        assert_eq!(after.len(), before.len());
        assert_eq!(after["a.weight"], before["a.weight"]);
        assert_eq!(after["head.weight"].size(), [7, 5, 1, 1]);
        assert_eq!(network.var_store().len(), after.len());
        assert_eq!(network.var_store().trainable_variables().len(), after.len());
        let outputs = network.forward(&Tensor::zeros([2, 1, 6, 6], (Kind::Float, Device::Cpu)), Mode::Eval).unwrap();
        assert_eq!(outputs.logits().size(), [2, 7]);
        assert_eq!(outputs.get("aux1").unwrap().size(), [2, 7]);
    }

    #[test]
    fn a_new_head_is_untrained_and_not_frozen() {
        let mut network = branched();
        let initial = network.state()["head.weight"].copy();
        let _ = network.state()["head.weight"].shallow_clone().fill_(0.5);
        network.freeze_through("flatten").unwrap();
        network.replace_head(4).unwrap();
        assert_eq!(network.state()["head.weight"], initial);
        let trainable = |network: &Network| network.trainable().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(trainable(&network), ["aux_fc.weight", "aux_fc.bias", "head.weight", "head.bias"]);
        let frozen = |network: &Network| {
            let nodes = network.graph().nodes().iter().zip(&network.frozen).filter(|(_, frozen)| **frozen);
            nodes.map(|(node, _)| node.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(frozen(&network), ["input", "a", "b", "concat", "pool", "flatten"]);
        assert_eq!(network.var_store().len(), network.state().len());
    }

    #[test]
    fn a_truncated_network_computes_what_the_tap_saw() {
        let mut network = branched();
        striate_torch::manual_seed(1);
        let batch = Tensor::randn([2, 1, 6, 6], (Kind::Float, Device::Cpu));
        let outputs = network.forward_with_taps(&[&batch], Mode::Eval, &["b", "concat"]).unwrap();
        network.truncate("b", "features").unwrap();
        assert_eq!(network.graph().nodes().len(), 2);
        assert_eq!(network.var_store().len(), 2);
        let features = network.forward(&batch, Mode::Eval).unwrap();
        assert_eq!(features.get("features"), outputs.tap("b"));
        assert!(features.get("logits").is_none());
    }

    #[test]
    fn a_head_of_fixed_codes_is_refused() {
        let graph = Graph::build(|net| {
            let x = net.input([84]);
            let x = net.add("output", RbfOutput::digits(10), x)?;
            net.output("logits", x)
        });
        let error = graph.unwrap().with_classes(5).unwrap_err().to_string();
        assert!(error.contains("layer output (RbfOutput)"), "{error}");
    }
}
