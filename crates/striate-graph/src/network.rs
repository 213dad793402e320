use crate::{Graph, GraphError, Node};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use striate_layers::{ParamKind, ParamSpec};
use striate_torch::{Generator, MemoryFormat, TorchError, derive_seed, to_memory_format};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// What sets the seeds of parameters apart from others that are derived from the same seed.
const PARAMETER_SEEDS: u64 = 0x5041_5241;

/// Where a network's parameters live and how they start.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// One device for the whole network, or one for each place that the network names. A network that names none is put on
    /// several devices in as many towers, if it has them: see [`Graph::in_towers`].
    pub devices: Vec<Device>,
    /// The type of floating-point parameters.
    pub kind: Kind,
    /// The seed of their initial values: the same for the same network on any device.
    pub seed: u64,
}

impl Default for InitOptions {
    /// The CPU, float32, seed 0.
    fn default() -> Self {
        Self { devices: vec![Device::Cpu], kind: Kind::Float, seed: 0 }
    }
}

/// One parameter of a network.
#[derive(Debug)]
pub struct Parameter {
    /// Its full name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// Its value; clones of it share memory with it.
    pub tensor: Tensor,
    /// Whether gradients train it.
    pub kind: ParamKind,
}

/// What computes the layers of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// libtorch's operators, which PyTorch runs too; they can be derived more than once.
    #[default]
    Libtorch,
    /// Where a channels-last network on a CPU is faster with them, those of [`striate_torch`]: convolutions by Winograd's
    /// algorithm, max pooling, and in training batch norm together with the addition and the ReLU after it. Results differ by up to some 1e-5 of
    /// the largest value. They have first derivatives only.
    ///
    /// On a GPU, max pooling and batch norm with what follows it, by [`striate_torch::cuda::kernels`] where those can be had, and
    /// weights that are cast together. Whatever else is faster there holds for the whole process: see [`striate_torch::fast_cuda`].
    Fast,
}

/// A network with parameters: a [`Graph`] and, in a [`VarStore`] that it owns, a tensor for each parameter.
///
/// The store names parameters as torchvision does and may hold other variables of yours beside them. A `Network` is also a
/// [`tch::nn::ModuleT`] that gives the first output; as everywhere in tch, that form panics where
/// [`Network::forward`] returns an error.
#[derive(Debug)]
pub struct Network {
    pub(crate) graph: Graph,
    /// For each node its parameters, in the order in which its layer takes them.
    pub(crate) params: Vec<Vec<Tensor>>,
    pub(crate) frozen: Vec<bool>,
    pub(crate) devices: Vec<Device>,
    pub(crate) memory_format: MemoryFormat,
    pub(crate) kernels: Kernels,
    pub(crate) autocast: Option<Kind>,
    vs: VarStore,
    kind: Kind,
    /// Of what parameters that are made are drawn; otherwise they are zeros.
    seed: Option<u64>,
}

impl Network {
    /// Gives every layer of `graph` its parameters. Fails if there are too few devices, or libtorch has no memory for them.
    ///
    /// Training runs faster if the program calls [`striate_torch::keep_memory_warm`] first.
    pub fn new(graph: Graph, options: &InitOptions) -> Result<Self, GraphError> {
        Self::made(graph, options, Some(options.seed))
    }

    /// The same with zeros for all parameters, to load weights into: drawing values takes longer than reading them. Layers that it
    /// gets later are drawn from the seed of `options`. Fails as [`new`](Self::new) does.
    pub fn zeros(graph: Graph, options: &InitOptions) -> Result<Self, GraphError> {
        Ok(Self { seed: Some(options.seed), ..Self::made(graph, options, None)? })
    }

    fn made(mut graph: Graph, options: &InitOptions, seed: Option<u64>) -> Result<Self, GraphError> {
        let devices = match options.devices.as_slice() {
            [one] => vec![*one; graph.places()],
            devices if graph.places() == 1 && devices.len() > 1 => {
                graph = graph.in_towers(devices.len())?;
                devices.to_vec()
            }
            devices if devices.len() >= graph.places() => devices.to_vec(),
            devices => return Err(GraphError::Devices { needed: graph.places(), got: devices.len() }),
        };
        let mut network = Self {
            graph: Graph::empty(),
            params: Vec::new(),
            frozen: Vec::new(),
            vs: VarStore::new(devices[0]),
            devices,
            memory_format: MemoryFormat::Contiguous,
            kernels: Kernels::default(),
            autocast: None,
            kind: options.kind,
            seed,
        };
        network.set_graph(graph, &[])?;
        // What initialising took is not what a step will take.
        striate_torch::release_memory();
        Ok(network)
    }

    /// Makes `graph` the network's: parameters of the same name and shape stay, except those of the nodes `anew`; others are made
    /// or removed. What is made is not frozen.
    pub(crate) fn set_graph(&mut self, graph: Graph, anew: &[usize]) -> Result<(), GraphError> {
        let mut former: BTreeMap<String, Tensor> = self.parameters().map(|p| (p.name, p.tensor)).collect();
        let frozen: BTreeMap<&str, bool> =
            self.graph.nodes.iter().map(|n| n.name.as_str()).zip(self.frozen.iter().copied()).collect();
        let mut frozen: Vec<bool> =
            graph.nodes.iter().map(|node| frozen.get(node.name.as_str()).copied().unwrap_or(false)).collect();
        let mut made = Vec::new();
        let mut params = Vec::with_capacity(graph.nodes.len());
        for (index, node) in graph.nodes.iter().enumerate() {
            let specs = graph.params(node);
            let fits = |spec: &ParamSpec| former.get(&full_name(node, spec)).is_some_and(|old| old.size() == spec.shape);
            if !anew.contains(&index) && specs.iter().all(fits) {
                params.push(specs.iter().filter_map(|spec| former.remove(&full_name(node, spec))).collect());
                continue;
            }
            frozen[index] = false;
            let mut tensors = Vec::with_capacity(specs.len());
            for (spec, tensor) in self.create(&graph, index)? {
                tensors.push(tensor.shallow_clone());
                made.push((full_name(node, &spec), tensor, spec.kind));
            }
            params.push(tensors);
        }
        self.update_store(&former, made)?;
        (self.graph, self.params, self.frozen) = (graph, params, frozen);
        Ok(())
    }

    /// The parameters of a node, initialised from a seed of its own, on its device.
    fn create(&self, graph: &Graph, index: usize) -> Result<Vec<(ParamSpec, Tensor)>, GraphError> {
        let node = &graph.nodes[index];
        let Some(layer) = node.layer() else { return Ok(Vec::new()) };
        // A part is cut out of the whole, so that it starts alike in towers and without.
        let (layer, inputs) = match &node.part {
            Some(part) => (part.op.layer(), part.inputs.clone()),
            None => (layer, graph.input_shapes(node)),
        };
        let generator = |seed| Generator::new(derive_seed(seed, &[PARAMETER_SEEDS, node.number as u64]));
        let error = |source| GraphError::Layer { layer: node.name.clone(), op: layer.name(), source };
        let params =
            striate_layers::create_params(layer, &inputs, self.kind, self.seed.map(generator).as_mut()).map_err(error)?;
        let place = |(spec, tensor): (ParamSpec, Tensor)| {
            let tensor = match &node.part {
                Some(part) => part.of(&tensor)?,
                None => tensor,
            };
            let tensor = tensor.f_to_device(self.devices[node.place])?;
            let tensor = if tensor.dim() == 4 { to_memory_format(&tensor, self.memory_format)? } else { tensor };
            let tensor = tensor.f_set_requires_grad(spec.kind == ParamKind::Trainable)?;
            Ok((spec, tensor))
        };
        params.into_iter().map(place).collect()
    }

    fn update_store(&self, gone: &BTreeMap<String, Tensor>, made: Vec<(String, Tensor, ParamKind)>) -> Result<(), GraphError> {
        // A poisoned lock only says that another thread panicked; the map itself is sound.
        let mut store = self.vs.variables_.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let taken = |name: &String| store.named_variables.contains_key(name) && !gone.contains_key(name);
        if let Some((name, _, _)) = made.iter().find(|(name, _, _)| taken(name)) {
            return Err(GraphError::NameTaken { name: name.clone() });
        }
        for (name, tensor) in gone {
            store.named_variables.remove(name);
            store.trainable_variables.retain(|var| var.tensor.data_ptr() != tensor.data_ptr());
        }
        drop(store);
        for (name, tensor, kind) in made {
            let (scope, name) = name.rsplit_once('.').unwrap_or(("", &name));
            let path = scope.split('.').filter(|part| !part.is_empty()).fold(self.vs.root(), |path, part| path / part);
            let _ = path.add(name, tensor, kind == ParamKind::Trainable);
        }
        Ok(())
    }

    /// The definition of the network.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The store that holds the parameters under their full names.
    pub fn var_store(&self) -> &VarStore {
        &self.vs
    }

    /// The device that inputs are taken on.
    pub fn device(&self) -> Device {
        self.devices[0]
    }

    /// The devices of its places, as it was given them.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The type of the floating-point parameters.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How images and feature maps lie in memory while the network runs.
    pub fn memory_format(&self) -> MemoryFormat {
        self.memory_format
    }

    /// Lays the weights of convolutions out in another memory format; batches of images follow in each forward pass. On a
    /// CPU, channels-last is the faster one for most networks. Results differ by rounding at most. Optimizers made before
    /// would keep state of the old layout: set the format first.
    pub fn set_memory_format(&mut self, format: MemoryFormat) -> Result<(), GraphError> {
        let _no_grad = striate_torch::no_grad();
        for param in self.params.iter_mut().flatten().filter(|param| param.dim() == 4) {
            let converted = to_memory_format(param, format)?;
            param.set_data(&converted);
        }
        self.memory_format = format;
        // The former weights lay in pieces that activations would not fit into.
        striate_torch::release_memory();
        Ok(())
    }

    /// Sets what computes the layers.
    pub fn set_kernels(&mut self, kernels: Kernels) {
        self.kernels = kernels;
    }

    /// Computes in a half type (`Kind::BFloat16`, on a GPU also `Kind::Half`) what it is fit for, as PyTorch's `torch.autocast` does: convolutions
    /// and linear layers, while parameters, their gradients and the outputs stay what they are. `None` ends it.
    pub fn set_autocast(&mut self, kind: Option<Kind>) {
        self.autocast = kind;
    }

    /// All parameters, layer by layer in the order of the network. Those of towers are each tower's own.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter> + '_ {
        self.specs().map(|(node, spec, tensor)| Parameter {
            name: full_name(node, &spec),
            tensor: tensor.shallow_clone(),
            kind: spec.kind,
        })
    }

    fn specs(&self) -> impl Iterator<Item = (&Node, ParamSpec, &Tensor)> {
        self.graph.nodes.iter().zip(&self.params).flat_map(|(node, tensors)| {
            self.graph.params(node).into_iter().zip(tensors).map(move |(spec, tensor)| (node, spec, tensor))
        })
    }

    /// The parameters that gradients train now: all trainable ones of layers that are not frozen.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let trained = self.parameters().filter(|param| param.tensor.requires_grad());
        trained.map(|param| (param.name, param.tensor)).collect()
    }

    /// The kind of each parameter in [`state`](Self::state).
    pub fn state_kinds(&self) -> BTreeMap<String, ParamKind> {
        self.specs().map(|(node, spec, _)| (whole_name(node, &spec), spec.kind)).collect()
    }

    /// The values of all parameters by name; they share memory with the network's. Those that are split over towers are put
    /// together, on the first device, under the name of the whole: the same state as that of the network on one device.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
        for (node, spec, tensor) in self.specs() {
            state.entry(whole_name(node, &spec)).or_default().push(tensor.detach());
        }
        let whole = |mut parts: Vec<Tensor>| match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(&parts.iter().map(|part| part.to_device(self.device())).collect::<Vec<_>>(), 0),
        };
        state.into_iter().map(|(name, parts)| (name, whole(parts))).collect()
    }

    /// Copies values into the parameters, converting their type to the network's.
    ///
    /// Fails, and changes nothing, if a parameter is missing, if `state` holds a name that the network has not, if a shape
    /// differs (the error lists all of them), if a value is NaN, or infinite in the network's type, or if a variance is below 0.
    pub fn load_state(&self, state: &BTreeMap<String, Tensor>) -> Result<(), GraphError> {
        self.graph.check_state(state)?;
        let _no_grad = striate_torch::no_grad();
        for (node, spec, tensor) in self.specs() {
            let name = whole_name(node, &spec);
            let value = &state[&name];
            // A value can be too large for the network's type.
            let other = value.kind() != tensor.kind();
            if !is_finite(value)? || other && !is_finite(&value.f_to_kind(tensor.kind())?)? {
                return Err(GraphError::NotFinite { name });
            }
            if spec.name == "running_var" && value.f_lt(0.0)?.f_any()?.f_int64_value(&[])? != 0 {
                return Err(GraphError::NegativeVariance { name });
            }
        }
        for (node, spec, tensor) in self.specs() {
            let value = &state[&whole_name(node, &spec)];
            match &node.part {
                Some(part) => tensor.shallow_clone().f_copy_(&part.of(value)?)?,
                None => tensor.shallow_clone().f_copy_(value)?,
            }
        }
        Ok(())
    }

    /// Freezes the layer of that name, or the last one of the scope of that name, and every layer that it depends on: their
    /// parameters get no gradients, and they run as in evaluation, so that batch norm's statistics stay.
    pub fn freeze_through(&mut self, name: &str) -> Result<(), GraphError> {
        for index in self.graph.through(name)? {
            self.set_frozen(index, true)?;
        }
        Ok(())
    }

    /// Whether the layer of that name is frozen.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.graph.nodes.iter().zip(&self.frozen).any(|(node, frozen)| *frozen && node.name == name)
    }

    /// Trains every layer again.
    pub fn unfreeze(&mut self) -> Result<(), GraphError> {
        for index in 0..self.graph.nodes.len() {
            self.set_frozen(index, false)?;
        }
        Ok(())
    }

    fn set_frozen(&mut self, index: usize, frozen: bool) -> Result<(), GraphError> {
        self.frozen[index] = frozen;
        let specs = self.graph.params(&self.graph.nodes[index]);
        for (spec, tensor) in specs.iter().zip(&self.params[index]) {
            let trained = !frozen && spec.kind == ParamKind::Trainable;
            let _ = tensor.f_set_requires_grad(trained)?;
        }
        Ok(())
    }
}

/// Whether a tensor holds neither NaN nor infinite values.
pub fn is_finite(tensor: &Tensor) -> Result<bool, TorchError> {
    Ok(!tensor.is_floating_point() || tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}

fn full_name(node: &Node, spec: &ParamSpec) -> String {
    format!("{}.{}", node.name, spec.name)
}

/// The name of the parameter that the node's is, or is a part of.
pub(crate) fn whole_name(node: &Node, spec: &ParamSpec) -> String {
    format!("{}.{}", node.part.as_ref().map_or(&node.name, |part| &part.layer), spec.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_layers::{Activation, BatchNorm2d, Conv2d, Flatten, Linear, Mode};

    pub(crate) fn small() -> Graph {
        Graph::build(|net| {
            let x = net.input([1, 6, 6]);
            let x = net.add("conv", Conv2d::new(2, 3), x)?;
            let x = net.add("bn", BatchNorm2d::new(), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(3), x)?;
            net.output("logits", x)
        })
        .unwrap()
    }

    fn network(seed: u64) -> Network {
        Network::new(small(), &InitOptions { seed, ..InitOptions::default() }).unwrap()
    }

    #[test]
    fn parameters_come_in_order_and_by_name_from_the_store() {
        let network = network(0);
        let names: Vec<_> = network.parameters().map(|param| param.name).collect();
        let expected =
            ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"];
        assert_eq!(names[..7], expected);
        assert_eq!(names[7..], ["fc.weight", "fc.bias"]);
        assert_eq!(network.var_store().len(), 9);
        assert_eq!(network.var_store().trainable_variables().len(), 6);
        let same = |a: &Network, b: &Network| a.state()["conv.weight"] == b.state()["conv.weight"];
        assert!(same(&network, &self::network(0)) && !same(&network, &self::network(1)));
    }

    #[test]
    fn of_zeros_a_network_becomes_the_one_whose_weights_it_loads() {
        let options = InitOptions { seed: 1, ..InitOptions::default() };
        let mut zeros = Network::zeros(small(), &options).unwrap();
        let state = zeros.state();
        assert!(state.len() == 9 && state.values().all(|tensor| tensor.any().int64_value(&[]) == 0));
        let from = network(2);
        zeros.load_state(&from.state()).unwrap();
        assert_eq!(zeros.state(), from.state());
        // A head that it gets later starts as that of any network with the seed.
        let mut drawn = network(1);
        drawn.replace_head(5).unwrap();
        zeros.replace_head(5).unwrap();
        assert_eq!(zeros.state()["fc.weight"], drawn.state()["fc.weight"]);
    }

    #[test]
    fn a_state_loads_whole_or_not_at_all() {
        let (from, into) = (network(1), network(2));
        into.load_state(&from.state()).unwrap();
        assert_eq!(into.state(), from.state());

        let mut wrong = network(3).state();
        wrong.remove("conv.bias");
        wrong.insert("extra".to_owned(), Tensor::from(1.0));
        wrong.insert("fc.bias".to_owned(), Tensor::zeros([4], (Kind::Float, Device::Cpu)));
        let error = into.load_state(&wrong).unwrap_err().to_string();
        assert_eq!(
            error,
            "the weights do not fit: 1 missing (conv.bias); 1 unexpected (extra); 1 of another shape (fc.bias: [3] here, [4] in the file)"
        );
        let mut diverged = network(3).state();
        diverged.insert("fc.bias".to_owned(), Tensor::from_slice(&[0.0_f32, f32::NAN, 0.0]));
        assert!(into.load_state(&diverged).unwrap_err().to_string().contains("fc.bias"));
        diverged.insert("fc.bias".to_owned(), Tensor::from_slice(&[0.0_f64, 1e200, 0.0]));
        assert!(into.load_state(&diverged).unwrap_err().to_string().contains("fc.bias"), "infinite in float32");
        let mut negative = network(3).state();
        negative.insert("bn.running_var".to_owned(), -into.state()["bn.running_var"].ones_like());
        let told = "the weights hold negative variances, first in bn.running_var";
        assert!(into.load_state(&negative).unwrap_err().to_string().starts_with(told));
        assert_eq!(into.state(), from.state());
    }

    #[test]
    fn frozen_layers_neither_train_nor_move_their_statistics() {
        let mut network = network(0);
        network.freeze_through("relu").unwrap();
        let names: Vec<_> = network.trainable().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["fc.weight", "fc.bias"]);
        let mean = network.state()["bn.running_mean"].copy();
        striate_torch::manual_seed(1);
        let batch = Tensor::randn([4, 1, 6, 6], (Kind::Float, Device::Cpu));
        let train = |network: &Network| network.forward(&batch, Mode::Train).unwrap().logits().sum(Kind::Float).backward();
        train(&network);
        assert_eq!(network.state()["bn.running_mean"], mean);
        assert!(!network.params[1][0].grad().defined());
        network.unfreeze().unwrap();
        train(&network);
        assert_ne!(network.state()["bn.running_mean"], mean);
        assert!(network.params[1][0].grad().defined());
        let graph = Graph::build(|net| {
            let mut x = net.input([4]);
            let mut body = net.sequential("body");
            for _ in 0..2 {
                x = body.add(Linear::new(4), x)?;
            }
            let x = net.add("fc", Linear::new(2), x)?;
            net.output("logits", x)
        });
        let mut scoped = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
        scoped.freeze_through("body").unwrap();
        assert_eq!(scoped.trainable().len(), 2);
        let error = network.freeze_through("reluu").unwrap_err().to_string();
        assert_eq!(error, "there is no layer reluu: did you mean relu?");
    }
}
