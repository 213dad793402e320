//! What a forward pass in training computes together: batch norm, the addition of a shortcut, and a ReLU; on a GPU, a convolution, its bias and a ReLU; a ReLU
//! and max pooling.
use crate::{Graph, NodeKind};
use striate_layers::{Activation, BatchNorm2d, Conv2d, MaxPool2d, Op};

/// Layers that are computed at the last node of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fused<'a> {
    /// A batch norm and what follows it.
    Norm {
        layer: &'a BatchNorm2d,
        /// Its node.
        node: usize,
        /// What is added to it.
        added: Option<Added>,
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// A convolution with a bias and the ReLU that follows it.
    Conv {
        layer: &'a Conv2d,
        /// Its node.
        node: usize,
    },
    /// A max pooling of what a ReLU gives.
    Pool {
        layer: &'a MaxPool2d,
        /// The ReLU's node.
        relu: usize,
    },
}

/// What is added to a batch norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    /// The addition's node.
    pub(crate) sum: usize,
    /// The other that it reads.
    pub(crate) other: usize,
}

impl Fused<'_> {
    /// What it is computed from.
    pub(crate) fn reads(self, graph: &Graph) -> impl Iterator<Item = usize> {
        let (first, other) = match self {
            Self::Norm { node, added, .. } => (node, added.map(|added| added.other)),
            Self::Conv { node, .. } => (node, None),
            Self::Pool { relu, .. } => (relu, None),
        };
        graph.nodes[first].inputs.iter().copied().chain(other)
    }
}

/// For each node, what is computed at it, and whether it is computed within a later one.
#[derive(Debug, Default)]
pub(crate) struct Fusions<'a> {
    at: Vec<Option<Fused<'a>>>,
    within: Vec<bool>,
    second_readers: Vec<Option<usize>>,
}

impl<'a> Fusions<'a> {
    /// What is computed at a node, if it ends such a chain.
    pub(crate) fn at(&self, node: usize) -> Option<Fused<'a>> {
        self.at.get(node).copied().flatten()
    }

    /// Has what a chain is computed from live until its last node.
    pub(crate) fn prolong(&self, graph: &Graph, last_uses: &mut [usize]) {
        for (index, fused) in self.at.iter().enumerate() {
            fused.iter().flat_map(|fused| fused.reads(graph)).for_each(|input| last_uses[input] = last_uses[input].max(index));
        }
    }

    /// The second of the two nodes that read what is computed at a node, if that adds their gradients better than anybody else.
    pub(crate) fn second_reader(&self, node: usize) -> Option<usize> {
        self.second_readers.get(node).copied().flatten()
    }

    /// Whether the node's own value is never made.
    pub(crate) fn is_within(&self, node: usize) -> bool {
        self.within.get(node).copied().unwrap_or(false)
    }
}

impl Graph {
    /// The chains among the nodes that are needed. The values of nodes that are `kept` are made; batch norms that are `frozen` are left alone. A ReLU belongs
    /// to a convolution before it `with_convolutions`, and else to max pooling after it.
    pub(crate) fn fusions(&self, needed: &[bool], kept: &[bool], frozen: &[bool], with_convolutions: bool) -> Fusions<'_> {
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
        let is_relu = |reader: &usize| matches!(op(*reader), Some(Op::Activation(Activation::Relu)));
        let count = self.nodes.len();
        let mut fusions = Fusions { at: vec![None; count], within: vec![false; count], second_readers: vec![None; count] };
        for norm in (0..self.nodes.len()).filter(|index| needed[*index] && !frozen[*index]) {
            let Some(Op::BatchNorm2d(layer)) = op(norm) else { continue };
            let (mut chain, mut added) = (vec![norm], None);
            if let Some(sum) = only_reader(norm)
                && let (Some(Op::Add(_)), &[a, b]) = (op(sum), self.nodes[sum].inputs.as_slice())
            {
                // Of two batch norms that are added, one is computed with the sum.
                let other_is_within = fusions.within[if a == norm { b } else { a }];
                if !other_is_within {
                    chain.push(sum);
                    added = Some(Added { sum, other: if a == norm { b } else { a } });
                }
            }
            let last = chain[chain.len() - 1];
            let relu = only_reader(last).filter(is_relu);
            chain.extend(relu);
            if let Some(end) = chain.pop() {
                chain.into_iter().for_each(|index| fusions.within[index] = true);
                fusions.at[end] = Some(Fused::Norm { layer, node: norm, added, relu: relu.is_some() });
                if let ([_, second], Some(_), Some(_)) = (readers[end].as_slice(), added, relu) {
                    fusions.second_readers[end] = Some(*second);
                }
            }
        }
        for conv in (0..self.nodes.len()).filter(|index| needed[*index] && with_convolutions) {
            if let (Some(Op::Conv2d(layer)), Some(relu)) = (op(conv), only_reader(conv).filter(is_relu))
                && layer.bias
                && layer.groups == 1
            {
                fusions.within[conv] = true;
                fusions.at[relu] = Some(Fused::Conv { layer, node: conv });
            }
        }
        for relu in (0..self.nodes.len()).filter(|index| needed[*index]) {
            if let (Some(Op::Activation(Activation::Relu)), Some(pool)) = (op(relu), only_reader(relu))
                && let Some(Op::MaxPool2d(layer)) = op(pool)
                && fusions.at[relu].is_none()
            {
                fusions.within[relu] = true;
                fusions.at[pool] = Some(Fused::Pool { layer, relu });
            }
        }
        fusions
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{InitOptions, Kernels, Network};
    use striate_layers::{AdaptiveAvgPool2d, Add, BatchNorm2d, Conv2d, Flatten, Linear, Mode, Padding};
    use striate_torch::MemoryFormat;
    use tch::{Device, Kind, Tensor};

    const RELU: Activation = Activation::Relu;

    /// A batch norm of each kind: with a ReLU; added to another and then a ReLU; added to what was there; read twice; alone.
    fn graph() -> Graph {
        Graph::build(|net| {
            let x = net.input([32, 12, 10]);
            let conv = || Conv2d::new(48, 3).padding(1).no_bias();
            let mut norm_of = |name: &str, x| {
                let x = net.add(&format!("{name}_conv"), conv(), x)?;
                net.add(&format!("{name}_bn"), BatchNorm2d::new(), x)
            };
            let (stem, a, b) = (norm_of("stem", x)?, norm_of("a", x)?, norm_of("b", x)?);
            let stem = net.add("stem_relu", RELU, stem)?;
            let sum = net.add("sum", Add, [a, b])?;
            let sum = net.add("sum_relu", RELU, sum)?;
            let joined = net.add("joined", Add, [stem, sum])?;
            let mut norm_of = |name: &str, x| {
                let x = net.add(&format!("{name}_conv"), conv(), x)?;
                net.add(&format!("{name}_bn"), BatchNorm2d::new(), x)
            };
            let c = norm_of("c", joined)?;
            let last = net.add("last", Add, [joined, c])?;
            let twice = net.add("twice_bn", BatchNorm2d::new(), last)?;
            let one = net.add("one_relu", RELU, twice)?;
            let both = net.add("both", Add, [one, twice])?;
            let reduced = net.add("reduced", Conv2d::new(32, 1), both)?;
            let uneven = net.add("uneven", Conv2d::new(24, 1).padding(Padding::Same), reduced)?;
            let narrow = net.add("narrow_bn", BatchNorm2d::new(), uneven)?;
            let narrow = net.add("narrow_relu", RELU, narrow)?;
            let narrow = net.add("norm_pool", MaxPool2d::new(3).stride(2).padding(1), narrow)?;
            let narrow = net.add("plain", Conv2d::new(20, 3).padding(1), narrow)?;
            let narrow = net.add("plain_relu", RELU, narrow)?;
            let narrow = net.add("plain_pool", MaxPool2d::new(2), narrow)?;
            let pooled = net.add("pool", AdaptiveAvgPool2d::new(1), narrow)?;
            let flat = net.add("flatten", Flatten, pooled)?;
            let logits = net.add("fc", Linear::new(5), flat)?;
            net.output("logits", logits)
        })
        .unwrap()
    }

    #[test]
    fn chains_end_where_their_value_is_read_by_others() {
        let graph = graph();
        let all = vec![true; graph.nodes.len()];
        let none = vec![false; graph.nodes.len()];
        let at = |name: &str| graph.index_of(name).unwrap();
        let ends_with = |kept: &[bool], frozen: &[bool], with_convolutions| -> Vec<String> {
            let fusions = graph.fusions(&all, kept, frozen, with_convolutions);
            let told = |index: usize| {
                let name = |index: usize| graph.nodes[index].name.as_str();
                Some(match fusions.at(index)? {
                    Fused::Norm { node, added, relu, .. } => {
                        let other = added.map_or(String::new(), |added| format!(" + {}", name(added.other)));
                        format!("{}: {}{other}{}", name(index), name(node), if relu { ", ReLU" } else { "" })
                    }
                    Fused::Conv { node, .. } => format!("{}: {}, ReLU", name(index), name(node)),
                    Fused::Pool { relu, .. } => format!("{}: {}", name(index), name(relu)),
                })
            };
            (0..graph.nodes.len()).filter_map(told).collect()
        };
        let ends = |kept: &[bool], frozen: &[bool]| ends_with(kept, frozen, false);
        let expected = [
            "b_bn: b_bn",
            "stem_relu: stem_bn, ReLU",
            "sum_relu: a_bn + b_bn, ReLU",
            "last: c_bn + joined",
            "twice_bn: twice_bn",
            "narrow_relu: narrow_bn, ReLU",
            "plain_pool: plain_relu",
        ];
        assert_eq!(ends(&none, &none), expected);
        let with = |name: &str| (0..none.len()).map(|index| index == at(name)).collect::<Vec<_>>();
        assert!(ends(&with("stem_bn"), &none).contains(&"stem_bn: stem_bn".to_owned()));
        assert!(ends(&with("sum"), &none).contains(&"sum: a_bn + b_bn".to_owned()));
        assert_eq!(ends(&with("plain_relu"), &none).len(), expected.len() - 1);
        assert_eq!(ends(&none, &with("stem_bn")).len(), expected.len() - 1);
        // A convolution has its ReLU before max pooling does, unless somebody sees what lies between.
        let with_convolutions = |kept: &[bool]| ends_with(kept, &none, true).split_off(expected.len() - 1);
        assert_eq!(with_convolutions(&none), ["plain_relu: plain, ReLU"]);
        assert_eq!(with_convolutions(&with("plain")), ["plain_pool: plain_relu"]);
        let fusions = graph.fusions(&all, &none, &none, true);
        assert!(fusions.is_within(at("plain")) && !fusions.is_within(at("plain_relu")));
        let mut last_uses = graph.last_uses(&all);
        fusions.prolong(&graph, &mut last_uses);
        assert_eq!(last_uses[at("norm_pool")], at("plain_relu"));
    }

    /// Loss, gradients and running statistics of a step.
    fn step(network: &Network, images: &Tensor, taps: &[&str]) -> (Vec<Tensor>, Vec<Tensor>) {
        let outputs = network.forward_with_taps(&[images], Mode::Train, taps).unwrap();
        assert_eq!(outputs.logits().kind(), Kind::Float);
        outputs.logits().cross_entropy_for_logits(&Tensor::from_slice(&[0_i64, 3, 1, 4])).backward();
        let taps = outputs.taps().iter().map(|(_, tap)| tap.shallow_clone()).collect();
        let all = network.parameters().map(|p| if p.tensor.requires_grad() { p.tensor.grad() } else { p.tensor.copy() });
        (std::iter::once(outputs.logits().detach()).chain(all).collect(), taps)
    }

    #[test]
    fn fast_kernels_train_as_the_others_do() {
        striate_torch::set_num_threads(2);
        striate_torch::manual_seed(4);
        let images = Tensor::randn([4, 32, 12, 10], (Kind::Float, Device::Cpu));
        let network = |kernels: Kernels, autocast: Option<Kind>| {
            let mut network = Network::new(graph(), &InitOptions { seed: 1, ..InitOptions::default() }).unwrap();
            network.set_memory_format(MemoryFormat::ChannelsLast).unwrap();
            network.set_kernels(kernels);
            network.set_autocast(autocast);
            network
        };
        let furthest = |a: &[Tensor], b: &[Tensor]| {
            assert_eq!(a.len(), b.len());
            let of = |(a, b): (&Tensor, &Tensor)| ((a - b).abs().max() / b.abs().max().clamp_min(1e-3)).double_value(&[]);
            a.iter().zip(b).map(of).fold(0.0, f64::max)
        };
        let taps = ["stem_bn", "sum", "last"];
        let (expected, expected_taps) = step(&network(Kernels::Libtorch, None), &images, &taps);
        for taps in [&taps[..], &[]] {
            let (got, tapped) = step(&network(Kernels::Fast, None), &images, taps);
            let worst = furthest(&got, &expected);
            assert!(worst > 0.0 && worst < 1e-4, "{worst:.1e}");
            assert!(furthest(&tapped, &expected_taps[..tapped.len()]) < 1e-4);
        }
        for kernels in [Kernels::Libtorch, Kernels::Fast] {
            let (half, tapped) = step(&network(kernels, Some(Kind::BFloat16)), &images, &taps);
            assert_eq!(tapped[0].kind(), Kind::BFloat16);
            let worst = furthest(&half[..1], &expected[..1]);
            assert!(worst > 1e-4 && worst < 0.05, "{worst:.1e}");
        }
    }

    /// Skipped where there is no CUDA device.
    #[test]
    fn on_a_card_fast_kernels_train_as_the_others_do() {
        if !tch::Cuda::is_available() {
            return eprintln!("skipped: there is no CUDA device");
        }
        striate_torch::manual_seed(4);
        let device = Device::Cuda(0);
        let images = Tensor::randn([4, 32, 12, 10], (Kind::Float, Device::Cpu)).to_device(device);
        let targets = Tensor::from_slice(&[0_i64, 3, 1, 4]).to_device(device);
        let gradients = |kernels: Kernels| {
            let options = InitOptions { seed: 1, devices: vec![device], ..InitOptions::default() };
            let mut network = Network::new(graph(), &options).unwrap();
            network.set_memory_format(MemoryFormat::ChannelsLast).unwrap();
            network.set_kernels(kernels);
            network.set_autocast(Some(Kind::BFloat16));
            let outputs = network.forward(&images, Mode::Train).unwrap();
            outputs.logits().cross_entropy_for_logits(&targets).backward();
            // Batch norm takes away what a bias before it adds: its gradient is nothing but rounding.
            let trained = network.parameters().filter(|p| p.tensor.requires_grad() && p.name != "uneven.bias");
            trained.map(|p| p.tensor.grad().flatten(0, -1)).collect::<Vec<_>>()
        };
        for (got, expected) in gradients(Kernels::Fast).iter().zip(gradients(Kernels::Libtorch)) {
            let off = ((got - &expected).norm() / expected.norm().clamp_min(1e-3)).double_value(&[]);
            assert!(off < 0.1, "{off:.1e}");
        }
    }

    /// A block with a shortcut of its own, one that adds its input, and another after these.
    fn residual() -> Graph {
        Graph::build(|net| {
            let mut x = net.input([32, 6, 5]);
            for (name, projected) in [("first", true), ("second", false), ("third", true)] {
                let mut block = net.scope(name);
                let body = block.add("conv", Conv2d::new(32, 3).padding(1).no_bias(), x)?;
                let body = block.add("bn", BatchNorm2d::new(), body)?;
                let shortcut = match projected {
                    true => block.add("projection", Conv2d::new(32, 1), x)?,
                    false => x,
                };
                let sum = block.add("sum", Add, [body, shortcut])?;
                x = block.add("relu", RELU, sum)?;
            }
            let pooled = net.add("pool", AdaptiveAvgPool2d::new(1), x)?;
            let flat = net.add("flatten", Flatten, pooled)?;
            let logits = net.add("fc", Linear::new(5), flat)?;
            net.output("logits", logits)
        })
        .unwrap()
    }

    #[test]
    fn the_second_reader_of_a_block_has_a_value_of_its_own() {
        let graph = residual();
        let all = vec![true; graph.nodes.len()];
        let none = vec![false; graph.nodes.len()];
        let fusions = graph.fusions(&all, &none, &none, false);
        let second =
            |name: &str| fusions.second_reader(graph.index_of(name).unwrap()).map(|reader| graph.nodes[reader].name.as_str());
        assert_eq!(second("first.relu"), Some("second.sum"));
        assert_eq!(second("second.relu"), Some("third.projection"));
        assert_eq!(second("third.relu"), None);

        striate_torch::manual_seed(6);
        let images = Tensor::randn([4, 32, 6, 5], (Kind::Float, Device::Cpu));
        let trained = |kernels: Kernels| {
            let mut network = Network::new(residual(), &InitOptions { seed: 2, ..InitOptions::default() }).unwrap();
            network.set_memory_format(MemoryFormat::ChannelsLast).unwrap();
            network.set_kernels(kernels);
            step(&network, &images, &["second.relu"])
        };
        let (expected, expected_taps) = trained(Kernels::Libtorch);
        let (got, taps) = trained(Kernels::Fast);
        for (got, expected) in got.iter().chain(&taps).zip(expected.iter().chain(&expected_taps)) {
            let worst = ((got - expected).abs().max() / expected.abs().max().clamp_min(1e-3)).double_value(&[]);
            assert!(worst < 1e-4, "{worst:.1e}");
        }
    }

    #[test]
    fn frozen_batch_norms_do_not_move() {
        let mut network = Network::new(graph(), &InitOptions::default()).unwrap();
        network.set_memory_format(MemoryFormat::ChannelsLast).unwrap();
        network.set_kernels(Kernels::Fast);
        network.freeze_through("stem_bn").unwrap();
        let images = Tensor::ones([4, 32, 12, 10], (Kind::Float, Device::Cpu));
        network.forward(&images, Mode::Train).unwrap();
        let state = network.state();
        let moved = |name: &str| state[&format!("{name}.running_mean")].abs().sum(Kind::Float).double_value(&[]) > 0.0;
        assert!(!moved("stem_bn") && moved("c_bn"));
    }
}
