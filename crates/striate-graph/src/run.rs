use crate::fuse::{Fused, Fusions};
use crate::{Graph, GraphError, Kernels, Network, NodeKind};
use std::collections::BTreeMap;
use striate_layers::{Forward, Layer, Mode, Op, Shape};
use striate_torch::norm::After;
use striate_torch::{MemoryFormat, may_overwrite, to_memory_format};
use tch::{Device, Kind, TchError, Tensor, nn};

/// What a forward pass gives: the network's outputs by name, and the taps that were asked for.
#[derive(Debug)]
pub struct Outputs {
    outputs: Vec<(String, Tensor)>,
    taps: Vec<(String, Tensor)>,
}

impl Outputs {
    /// What another way of running a network gives: its outputs by name, of which the first classifies, and no taps. None if
    /// there is no output.
    pub fn of(outputs: Vec<(String, Tensor)>) -> Option<Self> {
        (!outputs.is_empty()).then(|| Self { outputs, taps: Vec::new() })
    }

    /// The first output, which classifies: `[N, classes]`.
    pub fn logits(&self) -> &Tensor {
        // `Graph::build` and `Outputs::of` refuse a network without outputs in evaluation; those of training come after.
        &self.outputs[0].1
    }

    /// The output of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        find(&self.outputs, name)
    }

    /// The tapped value of the layer of that name, if it was asked for.
    pub fn tap(&self, name: &str) -> Option<&Tensor> {
        find(&self.taps, name)
    }

    /// All outputs of the mode that was asked for, in the order in which the network names them.
    pub fn outputs(&self) -> &[(String, Tensor)] {
        &self.outputs
    }

    /// All taps in the order in which they were asked for.
    pub fn taps(&self) -> &[(String, Tensor)] {
        &self.taps
    }
}

fn find<'a>(values: &'a [(String, Tensor)], name: &str) -> Option<&'a Tensor> {
    values.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The values of nodes, while they are needed.
#[derive(Default)]
struct Values {
    all: Vec<Option<Tensor>>,
    /// Of values that two nodes read: the second of these, and what it reads instead.
    twins: BTreeMap<usize, (usize, Tensor)>,
}

impl Values {
    /// The value of `node`, for its reader.
    fn get(&self, node: usize, reader: usize) -> Option<&Tensor> {
        match self.twins.get(&node) {
            Some((second, twin)) if *second == reader => Some(twin),
            _ => self.all[node].as_ref(),
        }
    }

    fn of_inputs(&self, graph: &Graph, reader: usize) -> Vec<&Tensor> {
        graph.nodes[reader].inputs.iter().filter_map(|input| self.get(*input, reader)).collect()
    }

    fn forget(&mut self, node: usize) {
        self.all[node] = None;
        self.twins.remove(&node);
    }
}

impl Network {
    /// Runs the network on a batch `[N, ...]` of its one input.
    ///
    /// Only layers that an output of this mode needs are computed: in evaluation, no auxiliary heads. Each intermediate value
    /// is freed after its last use, unless gradients need it; where no gradients are recorded, an activation or a sum is written
    /// over a value that nothing else needs. Fails if the batch doesn't fit the network, naming the layer
    /// that it doesn't fit.
    pub fn forward(&self, batch: &Tensor, mode: Mode) -> Result<Outputs, GraphError> {
        self.forward_with_taps(&[batch], mode, &[])
    }

    /// Runs the network on a batch for each of its inputs, and keeps the values of the layers named in `taps`. Gradients of
    /// a tap come from [`Tensor::run_backward`]. A tapped layer is computed in either mode.
    pub fn forward_with_taps(&self, batches: &[&Tensor], mode: Mode, taps: &[&str]) -> Result<Outputs, GraphError> {
        let taps: Vec<usize> = taps.iter().map(|name| self.graph.index_of(name)).collect::<Result<_, _>>()?;
        let needed = self.graph.needed(mode, &taps);
        let shapes: Vec<Shape> = batches.iter().map(|batch| Shape::of_batch(batch)).collect();
        self.graph.check_inputs_where(&shapes, &needed)?;
        let one_device = self.graph.places() == 1;
        let _autocast = self.autocast.map(|kind| striate_torch::autocast(self.device(), kind));
        let cast = match self.autocast {
            Some(kind) if one_device && mode.is_train() && self.is_fast() && matches!(self.device(), Device::Cuda(_)) => {
                self.cast_weights(&needed, kind)?
            }
            _ => BTreeMap::new(),
        };
        let mut last_uses = self.graph.last_uses(&needed);
        for tap in &taps {
            last_uses[*tap] = self.graph.nodes.len();
        }
        let together = mode.is_train() && one_device && self.is_fast();
        let fusions = if together { self.fusions(&needed, &taps) } else { Fusions::default() };
        fusions.prolong(&self.graph, &mut last_uses);
        let mut batches = batches.iter();
        let mut values = Values::default();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let value = match &node.kind {
                NodeKind::Input => batches.next().map(|batch| self.laid_out(batch)).transpose()?,
                NodeKind::Layer(_) if !needed[index] || fusions.is_within(index) => None,
                NodeKind::Layer(_) if let Some(fused) = fusions.at(index) => {
                    let (value, twin) = self.run_fused(index, fused, &cast, &values, fusions.second_reader(index))?;
                    values.twins.extend(twin.map(|twin| (index, twin)));
                    Some(value)
                }
                NodeKind::Layer(op) => match self.run_in_place(index, op, &mut values.all, &last_uses)? {
                    Some(value) => Some(value),
                    None => {
                        let params = cast.get(&index).unwrap_or(&self.params[index]);
                        Some(self.run_layer(index, op, params, &values, mode, one_device)?)
                    }
                },
            };
            values.all.push(value);
            let fused = fusions.at(index).into_iter().flat_map(|fused| fused.reads(&self.graph));
            for input in fused.chain(node.inputs.iter().copied()).filter(|input| last_uses[*input] == index) {
                values.forget(input);
            }
        }
        let value = |index: usize| values.all[index].as_ref().map_or_else(Tensor::new, Tensor::shallow_clone);
        let outputs = self.graph.outputs.iter().filter(|output| output.is_in(mode));
        let outputs = outputs.map(|output| Ok((output.name.clone(), value(output.node).f_to_kind(self.kind())?)));
        let outputs = outputs.collect::<Result<_, TchError>>()?;
        let taps = taps.iter().map(|index| (self.graph.nodes[*index].name.clone(), value(*index))).collect();
        Ok(Outputs { outputs, taps })
    }

    /// A batch of images channels-last, if the network runs so.
    fn laid_out(&self, batch: &Tensor) -> Result<Tensor, GraphError> {
        match self.memory_format {
            MemoryFormat::ChannelsLast if batch.dim() == 4 => Ok(to_memory_format(batch, MemoryFormat::ChannelsLast)?),
            _ => Ok(batch.shallow_clone()),
        }
    }

    /// An activation or a sum of two values, written over a value that it is the last to read, if nobody else sees its memory.
    fn run_in_place(
        &self,
        index: usize,
        op: &Op,
        values: &mut [Option<Tensor>],
        last_uses: &[usize],
    ) -> Result<Option<Tensor>, GraphError> {
        let node = &self.graph.nodes[index];
        let free = |input: usize| last_uses[input] == index && values[input].as_ref().is_some_and(may_overwrite);
        let error = |source| GraphError::Layer { layer: node.name.clone(), op: op.layer().name(), source };
        match (op, node.inputs.as_slice()) {
            (Op::Activation(activation), [input]) if free(*input) => {
                values[*input].take().map(|value| activation.forward_in_place(value)).transpose().map_err(error)
            }
            (Op::Add(_), &[a, b]) => {
                let (into, other) = if free(a) { (a, b) } else { (b, a) };
                let one_device = self.graph.nodes[a].place == self.graph.nodes[b].place;
                if a == b || !free(into) || !one_device {
                    return Ok(None);
                }
                let sum = values[into].take().zip(values[other].as_ref());
                Ok(sum.map(|(mut sum, other)| sum.f_add_(other)).transpose()?)
            }
            _ => Ok(None),
        }
    }

    fn is_fast(&self) -> bool {
        self.kernels == Kernels::Fast && self.memory_format == MemoryFormat::ChannelsLast
    }

    fn fusions(&self, needed: &[bool], taps: &[usize]) -> Fusions<'_> {
        let mut kept = vec![false; self.graph.nodes.len()];
        let outputs = self.graph.outputs.iter().map(|output| output.node);
        outputs.chain(taps.iter().copied()).for_each(|node| kept[node] = true);
        self.graph.fusions(needed, &kept, &self.frozen, matches!(self.device(), Device::Cuda(_)))
    }

    /// What is computed at a node in training, together where it can be, and a twin of it for its second reader, if it has one.
    fn run_fused(
        &self,
        index: usize,
        fused: Fused,
        cast: &BTreeMap<usize, Vec<Tensor>>,
        values: &Values,
        second_reader: Option<usize>,
    ) -> Result<(Tensor, Option<(usize, Tensor)>), GraphError> {
        let name = |index: usize| self.graph.nodes[index].name.clone();
        let (layer, node, added, relu) = match fused {
            Fused::Pool { layer, relu } => {
                let error = |source| GraphError::Layer { layer: name(index), op: layer.name(), source };
                return Ok((layer.forward_fast(&values.of_inputs(&self.graph, relu), true).map_err(error)?, None));
            }
            Fused::Conv { layer, node } => {
                let error = |source| GraphError::Layer { layer: name(node), op: layer.name(), source };
                let inputs = values.of_inputs(&self.graph, node);
                // The bias as it is, whose gradient is not rounded.
                let weight = cast.get(&node).unwrap_or(&self.params[node]).iter().take(1);
                let params: Vec<Tensor> = weight.chain(&self.params[node][1..]).map(Tensor::shallow_clone).collect();
                let [input] = inputs.as_slice() else {
                    return Ok((layer.forward(&params, &inputs, Mode::Train).map_err(error)?.f_relu_()?, None));
                };
                let kind = self.autocast.unwrap_or(input.kind());
                return Ok((layer.forward_relu(&params, input, kind).map_err(error)?, None));
            }
            Fused::Norm { layer, node, added, relu } => (layer, node, added, relu),
        };
        let other = added.and_then(|added| values.get(added.other, added.sum));
        let (params, inputs) = (&self.params[node], values.of_inputs(&self.graph, node));
        let error = |source| GraphError::Layer { layer: name(node), op: layer.name(), source };
        let together = |input: &Tensor| layer.takes(input) && other.is_none_or(|other| other.kind() == input.kind());
        if let &[input] = inputs.as_slice()
            && together(input)
            && self.kind() == Kind::Float
        {
            let after = After { other, relu };
            return match second_reader {
                Some(reader) => {
                    let [value, twin] = layer.forward_fast_for_two(params, input, after).map_err(error)?;
                    Ok((value, Some((reader, twin))))
                }
                None => Ok((layer.forward_fast(params, input, after).map_err(error)?, None)),
            };
        }
        let mut output = layer.forward(params, &inputs, Mode::Train).map_err(error)?;
        if let Some(other) = other {
            output = output.f_add(other)?;
        }
        Ok((if relu { output.f_relu_()? } else { output }, None))
    }

    fn run_layer(
        &self,
        index: usize,
        op: &Op,
        params: &[Tensor],
        values: &Values,
        mode: Mode,
        one_device: bool,
    ) -> Result<Tensor, GraphError> {
        let node = &self.graph.nodes[index];
        let mode = if self.frozen[index] { Mode::Eval } else { mode };
        let inputs = values.of_inputs(&self.graph, index);
        let error = |source| GraphError::Layer { layer: node.name.clone(), op: op.layer().name(), source };
        if one_device {
            let output = match (op, inputs.as_slice()) {
                (Op::Conv2d(conv), [input]) if self.is_fast() => conv.forward_fast(params, input, mode),
                (Op::MaxPool2d(pool), inputs) if self.is_fast() => pool.forward_fast(inputs, false),
                _ => op.forward(params, &inputs, mode),
            };
            return output.map_err(error);
        }
        let device = self.devices[node.place];
        let moved: Vec<Tensor> = inputs.iter().map(|input| input.f_to_device(device)).collect::<Result<_, _>>()?;
        op.forward(params, &moved.iter().collect::<Vec<_>>(), mode).map_err(error)
    }
}

impl Graph {
    /// Whether a network with this graph takes examples of these shapes, one for each input, in evaluation: each layer must
    /// fit and have the parameters that it was built with. The error names the layer that doesn't.
    pub fn check_inputs(&self, shapes: &[Shape]) -> Result<(), GraphError> {
        if self.inputs().map(|node| &node.shape).eq(shapes) {
            return Ok(());
        }
        self.check_inputs_where(shapes, &self.needed(Mode::Eval, &[]))
    }

    /// Shapes that the network was built for pass at once; others pass if every layer that is needed takes them with the
    /// parameters that it has.
    fn check_inputs_where(&self, shapes: &[Shape], needed: &[bool]) -> Result<(), GraphError> {
        if self.inputs().map(|node| &node.shape).eq(shapes) {
            return Ok(());
        }
        let other = self.with_inputs_where(shapes, needed)?;
        let nodes = self.nodes.iter().zip(&other.nodes).zip(needed);
        for ((node, other_node), _) in nodes.filter(|(_, needed)| **needed) {
            if self.params(node).iter().map(|p| &p.shape).ne(other.params(other_node).iter().map(|p| &p.shape)) {
                let (input, got) = self.inputs().zip(shapes).find(|(input, shape)| input.shape != **shape).unzip();
                return Err(GraphError::InputSize {
                    input: input.map(|input| input.name.clone()).unwrap_or_default(),
                    expected: input.map_or_else(|| Shape::new([]), |input| input.shape.clone()),
                    got: got.cloned().unwrap_or_else(|| Shape::new([])),
                    layer: node.name.clone(),
                });
            }
        }
        Ok(())
    }
}

impl nn::ModuleT for Network {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Tensor {
        match self.forward(xs, if train { Mode::Train } else { Mode::Eval }) {
            Ok(outputs) => outputs.logits().shallow_clone(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{InitOptions, NetworkBuilder, Value};
    use striate_layers::{Activation, AdaptiveAvgPool2d, Add, Conv2d, Dropout, Flatten, Forward, Layer, LayerError, Linear};

    fn network(define: impl FnOnce(&mut NetworkBuilder, Value) -> Result<Value, GraphError>, devices: &[Device]) -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 6, 6]);
            let x = define(net, x)?;
            net.output("logits", x)
        });
        Network::new(graph.unwrap(), &InitOptions { devices: devices.to_vec(), kind: Kind::Double, seed: 5 }).unwrap()
    }

    fn images(size: i64) -> Tensor {
        striate_torch::manual_seed(1);
        Tensor::randn([3, 1, size, size], (Kind::Double, Device::Cpu))
    }

    fn convolutional(net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
        let x = net.add("conv", Conv2d::new(4, 3), x)?;
        let x = net.on(1).add("relu", Activation::Relu, x)?;
        let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
        let x = net.add("flatten", Flatten, x)?;
        net.add("fc", Linear::new(2), x)
    }

    #[test]
    fn other_sizes_run_where_the_parameters_allow_it() {
        let any_size = network(convolutional, &[Device::Cpu]);
        assert_eq!(any_size.forward(&images(9), Mode::Eval).unwrap().logits().size(), [3, 2]);
        let error = any_size.forward(&images(2), Mode::Eval).unwrap_err().to_string();
        assert!(error.starts_with("layer conv (Conv2d): the input [1, 2, 2] is too small"), "{error}");

        let one_size = network(
            |net, x| {
                let x = net.add("flatten", Flatten, x)?;
                net.add("fc", Linear::new(2), x)
            },
            &[Device::Cpu],
        );
        let error = one_size.forward(&images(7), Mode::Eval).unwrap_err().to_string();
        assert_eq!(error, "input input takes [1, 6, 6], got [1, 7, 7]: layer fc has parameters for [1, 6, 6] only");
        let error = one_size.forward_with_taps(&[], Mode::Eval, &[]).unwrap_err();
        assert_eq!(error, GraphError::InputCount { expected: 1, got: 0 });
    }

    #[test]
    fn places_change_nothing_but_the_device() {
        let (one, two) = (network(convolutional, &[Device::Cpu]), network(convolutional, &[Device::Cpu, Device::Cpu]));
        let batch = images(6);
        let logits = |network: &Network| network.forward(&batch, Mode::Train).unwrap().logits().shallow_clone();
        assert_eq!(logits(&one), logits(&two));
        let options = InitOptions { devices: vec![], ..InitOptions::default() };
        assert!(matches!(Network::new(one.graph.clone(), &options), Err(GraphError::Devices { needed: 2, got: 0 })));
    }

    #[test]
    fn a_convolution_with_its_relu_has_the_cast_weight_and_the_bias_as_it_is() {
        let network = network(convolutional, &[Device::Cpu]);
        let [conv, relu] = ["conv", "relu"].map(|name| network.graph.index_of(name).unwrap());
        let NodeKind::Layer(Op::Conv2d(layer)) = &network.graph.nodes[conv].kind else { unreachable!() };
        let [weight, bias] = network.params[conv].as_slice() else { unreachable!() };
        let values = Values { all: vec![Some(images(6))], ..Values::default() };
        let cast = BTreeMap::from([(conv, vec![weight * 2.0, bias.zeros_like()])]);
        let fused = Fused::Conv { layer, node: conv };
        for (cast, scale) in [(cast, 2.0), (BTreeMap::new(), 1.0)] {
            let (got, twin) = network.run_fused(relu, fused, &cast, &values, None).unwrap();
            let params = [weight * scale, bias.shallow_clone()];
            assert_eq!(got, layer.forward(&params, &[&images(6)], Mode::Train).unwrap().relu());
            assert!(twin.is_none() && !bias.eq_tensor(&bias.zeros_like()).all().is_nonzero());
        }
    }

    #[test]
    fn channels_last_changes_the_layout_and_no_value() {
        let single = || {
            let graph = network(convolutional, &[Device::Cpu]).graph;
            Network::new(graph, &InitOptions::default()).unwrap()
        };
        let (nchw, mut nhwc) = (single(), single());
        nhwc.set_memory_format(MemoryFormat::ChannelsLast).unwrap();
        nhwc.replace_head(5).unwrap();
        nhwc.replace_head(2).unwrap();
        nhwc.load_state(&nchw.state()).unwrap();
        let batch = images(6).to_kind(Kind::Float);
        let run = |network: &Network| {
            let outputs = network.forward_with_taps(&[&batch], Mode::Train, &["conv"]).unwrap();
            outputs.logits().sum(Kind::Float).backward();
            (outputs.logits().shallow_clone(), outputs.tap("conv").map(striate_torch::memory_format), network.params[1][0].grad())
        };
        let (contiguous, channels_last) = (run(&nchw), run(&nhwc));
        let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-5;
        assert!(close(&contiguous.0, &channels_last.0) && close(&contiguous.2, &channels_last.2));
        assert_eq!(contiguous.1, Some(Some(MemoryFormat::Contiguous)));
        assert_eq!(channels_last.1, Some(Some(MemoryFormat::ChannelsLast)));
    }

    #[test]
    fn taps_give_gradients_of_intermediate_values() {
        let network = network(convolutional, &[Device::Cpu]);
        let outputs = network.forward_with_taps(&[&images(6)], Mode::Eval, &["relu", "fc"]).unwrap();
        let relu = outputs.tap("relu").unwrap();
        let score = outputs.logits().select(1, 0).sum(Kind::Double);
        let gradient = &Tensor::run_backward(&[&score], &[relu], false, false)[0];
        // The mean over 16 places, then one row of the linear layer.
        let weight = network.state()["fc.weight"].get(0) / 16.0;
        let expected = weight.view([1, 4, 1, 1]).expand([3, 4, 4, 4], false);
        assert!((gradient - expected).abs().max().double_value(&[]) < 1e-15);
        assert_eq!(outputs.tap("fc"), Some(outputs.logits()));
        let error = network.forward_with_taps(&[&images(6)], Mode::Eval, &["rellu"]).unwrap_err().to_string();
        assert_eq!(error, "there is no layer rellu: did you mean relu?");
    }

    fn with_auxiliary_head(net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
        let aux = net.add("aux_conv", Conv2d::new(3, 5), x)?;
        let aux = net.add("aux_relu", Activation::Relu, aux)?;
        let aux = net.add("aux_flatten", Flatten, aux)?;
        let aux = net.add("aux_fc", Linear::new(3), aux)?;
        net.training_output("aux1", aux)?;
        convolutional(net, x)
    }

    #[test]
    fn evaluation_takes_sizes_that_only_an_auxiliary_head_has_no_parameters_for() {
        let auxiliary = |net: &mut NetworkBuilder, x| {
            let x = net.add("flatten", Flatten, x)?;
            let aux = net.add("aux_fc", Linear::new(3), x)?;
            net.training_output("aux1", aux)?;
            Ok(x)
        };
        let network = network(auxiliary, &[Device::Cpu]);
        assert_eq!(network.forward(&images(4), Mode::Eval).unwrap().logits().size(), [3, 16]);
        let error = network.forward(&images(4), Mode::Train).unwrap_err().to_string();
        assert!(error.ends_with("layer aux_fc has parameters for [1, 6, 6] only"), "{error}");
    }

    #[test]
    fn training_outputs_are_computed_in_training_and_where_a_tap_asks() {
        let network = network(with_auxiliary_head, &[Device::Cpu]);
        let names = |mode, taps: &[&str]| {
            let outputs = network.forward_with_taps(&[&images(6)], mode, taps).unwrap();
            let names: Vec<String> = outputs.outputs().iter().map(|(name, _)| name.clone()).collect();
            (names, outputs.tap("aux_relu").map(Tensor::size), outputs.logits().size())
        };
        assert_eq!(names(Mode::Train, &[]), (vec!["logits".to_owned(), "aux1".to_owned()], None, vec![3, 2]));
        assert_eq!(names(Mode::Eval, &[]), (vec!["logits".to_owned()], None, vec![3, 2]));
        assert_eq!(names(Mode::Eval, &["aux_relu"]).1, Some(vec![3, 3, 2, 2]));
        // Evaluation takes what only the auxiliary head can't.
        assert_eq!(network.forward(&images(4), Mode::Eval).unwrap().logits().size(), [3, 2]);
        let error = network.forward(&images(4), Mode::Train).unwrap_err().to_string();
        assert!(error.starts_with("layer aux_conv (Conv2d)"), "{error}");
        let summary = network.graph().summary();
        let training: Vec<&str> = summary.layers.iter().filter(|l| l.training_only).map(|l| l.name.as_str()).collect();
        assert_eq!(training, ["aux_conv", "aux_relu", "aux_flatten", "aux_fc"]);
        assert_eq!(summary.macs, 4 * 16 * 9 + 4 * 2);
        assert_eq!(summary.activation_bytes_inference, 4 * (2 * 4 * 16));
    }

    /// Values that an activation must not be written over: the batch, a tap, what another layer reads too, and what dropout
    /// and flatten only pass on.
    fn shared(net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
        let first = net.add("first", Activation::Relu, x)?;
        let tapped = net.add("conv", Conv2d::same(2, 3), first)?;
        let relu = net.add("relu", Activation::Relu, tapped)?;
        let passed = net.add("drop", Dropout::new(0.5), relu)?;
        let flat = net.add("flatten", Flatten, passed)?;
        let squashed = net.add("tanh", Activation::Tanh, flat)?;
        let again = net.add("flatten_again", Flatten, relu)?;
        let twice = net.add("twice", Add, [again, again])?;
        let sum = net.add("sum", Add, [squashed, twice])?;
        net.add("last", Activation::Sigmoid, sum)
    }

    #[test]
    fn nothing_that_is_seen_is_written_over() {
        let network = network(shared, &[Device::Cpu]);
        let (batch, names) = (images(6), ["conv", "relu", "flatten", "tanh", "twice", "sum"]);
        let before = batch.copy();
        let run = |taps: &[&str]| network.forward_with_taps(&[&batch], Mode::Eval, taps).unwrap();
        // Gradients are recorded here, so that nothing is written over.
        let expected = run(&names);
        let _no_grad = striate_torch::no_grad();
        let tapped = run(&names);
        assert_eq!((&batch, tapped.logits()), (&before, expected.logits()));
        for name in names {
            assert_eq!(tapped.tap(name), expected.tap(name), "{name}");
            let alone = run(&[name]);
            assert_eq!((alone.tap(name), alone.logits()), (expected.tap(name), expected.logits()), "{name}");
        }
        assert_eq!((run(&[]).logits(), &batch), (expected.logits(), &before));
    }

    /// Passes its input on, and notes where that lies.
    #[derive(Debug, Clone, Default)]
    struct Address(std::sync::Arc<std::sync::atomic::AtomicUsize>);

    impl Layer for Address {
        fn name(&self) -> &'static str {
            "Address"
        }

        fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
            Ok(inputs[0].clone())
        }
    }

    impl Forward for Address {
        fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
            self.0.store(inputs[0].data_ptr() as usize, std::sync::atomic::Ordering::Relaxed);
            Ok(inputs[0].shallow_clone())
        }
    }

    #[test]
    fn activations_and_sums_are_written_over_what_nothing_else_needs() {
        let (before, after) = (Address::default(), Address::default());
        let network = network(
            |net, x| {
                let y = net.add("conv", Conv2d::same(1, 3), x)?;
                let y = net.add("before", Op::custom(before.clone()), y)?;
                let y = net.add("relu", Activation::Relu, y)?;
                let y = net.add("add", Add, [x, y])?;
                net.add("after", Op::custom(after.clone()), y)
            },
            &[Device::Cpu],
        );
        let same = || {
            network.forward(&images(6), Mode::Eval).unwrap();
            before.0.load(std::sync::atomic::Ordering::Relaxed) == after.0.load(std::sync::atomic::Ordering::Relaxed)
        };
        assert!(!same());
        let _no_grad = striate_torch::no_grad();
        assert!(same());
    }

    #[derive(Debug)]
    struct Double;

    impl Layer for Double {
        fn name(&self) -> &'static str {
            "Double"
        }

        fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
            Ok(inputs[0].clone())
        }
    }

    impl Forward for Double {
        fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
            Ok(inputs[0].f_mul_scalar(2.0)?)
        }
    }

    #[test]
    fn a_layer_of_ones_own_is_a_node_like_any_other() {
        let network = network(
            |net, x| {
                let y = net.add("double", Op::custom(Double), x)?;
                net.add("add", Add, [x, y])
            },
            &[Device::Cpu],
        );
        let batch = images(6);
        assert_eq!(network.forward(&batch, Mode::Eval).unwrap().logits(), &(&batch * 3.0));
        assert_eq!(network.graph().summary().layers[1].op, "Double");
        use tch::nn::ModuleT;
        assert_eq!(network.forward_t(&batch, false), &batch * 3.0);
    }
}
