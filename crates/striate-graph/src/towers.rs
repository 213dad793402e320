//! One network in several towers, each on a device of its own.
use crate::graph::{Output, infer};
use crate::{Graph, GraphError, Node, NodeKind};
use striate_layers::{Concat, Conv2d, Linear, LocalResponseNorm, Op, Shape};
use tch::{TchError, Tensor};

/// One tower's part of a layer that was split.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The name of the whole layer.
    pub(crate) layer: String,
    /// The whole layer.
    pub(crate) op: Op,
    /// What the whole layer reads.
    pub(crate) inputs: Vec<Shape>,
    /// The tower, from 0.
    pub(crate) index: i64,
    /// The number of towers.
    pub(crate) count: i64,
}

impl Part {
    /// This part of a parameter of the whole layer: its share of the filters or features, in memory of its own.
    pub(crate) fn of(&self, whole: &Tensor) -> Result<Tensor, TchError> {
        let length = whole.size()[0] / self.count;
        whole.f_narrow_copy(0, self.index * length, length)
    }
}

/// How one tower has its part of a layer.
enum Split {
    /// From its own part of the values that the layer reads.
    Own(Op),
    /// From the values of all towers.
    All(Op),
}

impl Split {
    fn of(op: &Op, count: i64) -> Option<Self> {
        Some(match op {
            Op::Conv2d(conv) if conv.groups == count => {
                Self::Own(Conv2d { out_channels: conv.out_channels / count, groups: 1, ..conv.clone() }.into())
            }
            Op::Conv2d(conv) if conv.groups == 1 && conv.out_channels % count == 0 => {
                Self::All(Conv2d { out_channels: conv.out_channels / count, ..conv.clone() }.into())
            }
            Op::Linear(linear) if linear.out_features % count == 0 => {
                Self::All(Linear { out_features: linear.out_features / count, ..linear.clone() }.into())
            }
            Op::LocalResponseNorm(norm) if norm.groups == count => {
                Self::Own(LocalResponseNorm { groups: 1, ..norm.clone() }.into())
            }
            Op::Activation(_)
            | Op::MaxPool2d(_)
            | Op::AvgPool2d(_)
            | Op::AdaptiveAvgPool2d(_)
            | Op::AdaptiveMaxPool2d(_)
            | Op::Flatten(_) => Self::Own(op.clone()),
            _ => return None,
        })
    }
}

impl Graph {
    /// The same network in `count` towers, tower number `n` at place `n`, as AlexNet had them: each has its share of the
    /// filters and features of every layer, `tower1.conv1` and `tower2.conv1` instead of `conv1`. They exchange values only
    /// where a layer reads all channels; a convolution in `count` groups, and a local response normalisation, reads its own
    /// tower's. The layers before outputs, and dropout, which draws for all channels at once, are at place 0.
    ///
    /// The towers compute what the network does. Every layer's value can still be tapped under its name: where it was split,
    /// the node of that name puts the parts together, and is computed only if something reads it.
    ///
    /// Fails if no convolution has `count` groups: then each layer would read all channels.
    pub fn in_towers(&self, count: usize) -> Result<Self, GraphError> {
        let towers = count as i64;
        let heads: Vec<usize> = self.outputs.iter().filter_map(|o| self.head(&o.name, o.node).ok()).collect();
        let mut graph = Self::empty();
        // For each node of this graph, where the other has its value, and where it has each tower's part if it is split.
        let (mut wholes, mut parts): (Vec<usize>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
        let mut apart = false;
        for (index, node) in self.nodes.iter().enumerate() {
            let whole_inputs: Vec<usize> = node.inputs.iter().map(|input| wholes[*input]).collect();
            let inputs_are_split = node.inputs.iter().all(|input| !parts[*input].is_empty());
            let split = match &node.kind {
                NodeKind::Layer(op) if !heads.contains(&index) => Split::of(op, towers).map(|split| (op, split)),
                _ => None,
            };
            let (whole, op, own) = match split {
                Some((whole, Split::Own(op))) if inputs_are_split => (whole, op, true),
                Some((whole, Split::All(op))) => (whole, op, false),
                _ => {
                    wholes.push(graph.push(Node { inputs: whole_inputs, ..node.clone() }));
                    parts.push(Vec::new());
                    continue;
                }
            };
            apart |= own && matches!(op, Op::Conv2d(_));
            let mut tops = Vec::with_capacity(count);
            // `place` counts towers; it indexes the parts of each input.
            #[allow(clippy::needless_range_loop)]
            for place in 0..count {
                let inputs =
                    if own { node.inputs.iter().map(|input| parts[*input][place]).collect() } else { whole_inputs.clone() };
                let name = format!("tower{}.{}", place + 1, node.name);
                let shapes: Vec<Shape> = inputs.iter().map(|input| graph.nodes[*input].shape.clone()).collect();
                let shape = infer(&name, &op, &shapes)?;
                let (layer, inputs_of_whole) = (node.name.clone(), self.input_shapes(node));
                let part = Part { layer, op: whole.clone(), inputs: inputs_of_whole, index: place as i64, count: towers };
                let kind = NodeKind::Layer(op.clone());
                tops.push(graph.push(Node { name, kind, inputs, shape, place, number: node.number, part: Some(part) }));
            }
            wholes.push(graph.push(Node { kind: NodeKind::Layer(Concat.into()), inputs: tops.clone(), ..node.clone() }));
            parts.push(tops);
        }
        if !apart {
            return Err(GraphError::NoTowers { devices: count });
        }
        graph.outputs = self.outputs.iter().map(|output| Output { node: wholes[output.node], ..output.clone() }).collect();
        Ok(graph)
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{InitOptions, Network};
    use striate_layers::{Activation, Dropout, Flatten, MaxPool2d, Mode};
    use tch::{Device, Kind};

    fn whole() -> Graph {
        Graph::build(|net| {
            let x = net.input([2, 9, 9]);
            let x = net.add("conv1", Conv2d::new(8, 2), x)?; // [8, 8, 8]
            let x = net.add("norm1", LocalResponseNorm::alexnet().groups(2), x)?;
            let x = net.add("conv2", Conv2d::same(6, 3).groups(2), x)?;
            let x = net.add("relu2", Activation::Relu, x)?;
            let x = net.add("pool2", MaxPool2d::new(2), x)?; // [6, 4, 4]
            let x = net.add("conv3", Conv2d::same(4, 3), x)?;
            let x = net.add("flatten", Flatten, x)?; // [64]
            let x = net.add("fc4", Linear::new(10), x)?;
            let x = net.add("drop4", Dropout::new(0.5), x)?;
            let x = net.add("fc5", Linear::new(7), x)?;
            let x = net.add("fc6", Linear::new(4), x)?;
            net.output("logits", x)
        })
        .unwrap()
    }

    fn network(devices: usize) -> Network {
        let options = InitOptions { devices: vec![Device::Cpu; devices], kind: Kind::Double, seed: 3 };
        Network::new(whole(), &options).unwrap()
    }

    fn close(a: &Tensor, b: &Tensor) -> bool {
        a.size() == b.size() && a.abs().max().double_value(&[]) > 0.0 && (a - b).abs().max().double_value(&[]) < 1e-12
    }

    #[test]
    fn towers_exchange_where_a_layer_reads_all_channels() {
        let graph = whole().in_towers(2).unwrap();
        assert_eq!(graph.summary().params, whole().summary().params);
        let needed = graph.needed(Mode::Eval, &[]);
        let crosses = |node: &Node| node.inputs.iter().any(|input| graph.nodes[*input].place != node.place);
        let crossing = graph.nodes.iter().zip(needed).filter(|(node, needed)| *needed && crosses(node));
        let crossing: Vec<&str> = crossing.map(|(node, _)| node.name.as_str()).collect();
        // The input, what the towers put together, and what the second one reads of it. An odd number is not split.
        assert_eq!(crossing, ["tower2.conv1", "pool2", "tower2.conv3", "flatten", "tower2.fc4", "fc4"]);
    }

    #[test]
    fn towers_start_and_compute_as_the_whole_does() {
        let (whole, towers) = (network(1), network(2));
        assert_eq!(towers.state(), whole.state());
        striate_torch::manual_seed(1);
        let images = Tensor::randn([3, 2, 9, 9], (Kind::Double, Device::Cpu));
        let run = |network: &Network| {
            striate_torch::manual_seed(1);
            let taps = ["norm1", "relu2", "flatten", "drop4"];
            let outputs = network.forward_with_taps(&[&images], Mode::Train, &taps).unwrap();
            outputs.logits().square().sum(Kind::Double).backward();
            let values = outputs.outputs().iter().chain(outputs.taps());
            values.map(|(_, value)| value.detach()).collect::<Vec<_>>()
        };
        for (whole, towers) in run(&whole).iter().zip(&run(&towers)) {
            assert!(close(whole, towers), "{whole:?} {towers:?}");
        }
        let gradient = |network: &Network, name: &str| {
            network.trainable().iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor.grad()).unwrap()
        };
        for (name, _) in whole.trainable() {
            let parts: Vec<Tensor> = match name.starts_with("fc5") || name.starts_with("fc6") {
                true => vec![gradient(&towers, &name)],
                false => [1, 2].map(|tower| gradient(&towers, &format!("tower{tower}.{name}"))).into(),
            };
            assert!(close(&gradient(&whole, &name), &Tensor::cat(&parts, 0)), "{name}");
        }
    }

    #[test]
    fn a_state_goes_from_towers_to_the_whole_and_back() {
        let (whole, towers) = (network(1), network(2));
        let other = Network::new(whole.graph().clone(), &InitOptions { seed: 8, kind: Kind::Double, ..InitOptions::default() });
        let other = other.unwrap();
        towers.load_state(&other.state()).unwrap();
        assert_eq!(towers.state(), other.state());
        whole.load_state(&towers.state()).unwrap();
        assert_eq!(whole.state(), other.state());
        let mut wrong = other.state();
        wrong.remove("conv2.bias");
        wrong.insert("fc4.bias".to_owned(), Tensor::zeros([5], (Kind::Float, Device::Cpu)));
        let error = towers.load_state(&wrong).unwrap_err().to_string();
        let expected = "1 missing (conv2.bias); 1 of another shape (fc4.bias: [10] here, [5] in the file)";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn towers_keep_their_parameters_under_a_new_head_and_when_cut_off() {
        let (mut whole, mut towers) = (network(1), network(2));
        for network in [&mut whole, &mut towers] {
            network.replace_head(6).unwrap();
        }
        assert_eq!(towers.state(), whole.state());
        for network in [&mut whole, &mut towers] {
            network.truncate("pool2", "features").unwrap();
        }
        assert_eq!(towers.state(), whole.state());
        let images = Tensor::ones([1, 2, 9, 9], (Kind::Double, Device::Cpu));
        let [whole, towers] = [whole, towers].map(|network| network.forward(&images, Mode::Eval).unwrap());
        assert!(close(whole.logits(), towers.logits()));
    }

    #[test]
    fn a_network_without_groups_has_no_towers() {
        let error = whole().in_towers(3).unwrap_err().to_string();
        assert_eq!(error, "the network has no 3 towers for 3 devices: give one device");
    }
}
