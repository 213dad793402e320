use crate::builder::Progress;
use crate::network::whole_name;
use crate::towers::Part;
use crate::{GraphError, NetworkBuilder};
use std::collections::{BTreeMap, HashSet};
use striate_layers::{Layer, Mode, Op, ParamSpec, Shape, infer_shape};
use striate_torch::nearest_few;
use tch::Tensor;

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// An input of the network.
    Input,
    /// A layer.
    Layer(Op),
}

/// One node of a network: an input, or a layer with what it reads.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its full name, with dots between scopes, such as `layer1.0.conv1`.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
    /// The nodes that it reads, by their place in [`Graph::nodes`]: always earlier ones.
    pub inputs: Vec<usize>,
    /// The shape of its output for one example.
    pub shape: Shape,
    /// The place that it runs at: an index into the devices given to [`crate::Network::new`].
    pub place: usize,
    /// Its place in the network as it was defined, which its initial values follow from.
    pub(crate) number: usize,
    /// What it is of a layer that was split over towers.
    pub(crate) part: Option<Part>,
}

impl Node {
    /// The layer, unless the node is an input.
    pub fn layer(&self) -> Option<&dyn Layer> {
        match &self.kind {
            NodeKind::Input => None,
            NodeKind::Layer(op) => Some(op.layer()),
        }
    }

    /// The kind of layer, such as `Conv2d`, or `Input`.
    pub fn op_name(&self) -> &'static str {
        self.layer().map_or("Input", Layer::name)
    }
}

/// The definition of a network: nodes in an order in which they can run, with all shapes known, and no tensors.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) outputs: Vec<Output>,
}

/// A named output: a node, by its place in [`Graph::nodes`].
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) node: usize,
    pub(crate) training_only: bool,
}

impl Output {
    /// Whether a forward pass in this mode gives it.
    pub(crate) fn is_in(&self, mode: Mode) -> bool {
        mode.is_train() || !self.training_only
    }
}

impl Graph {
    /// Builds a network with a function that adds its layers; see the [crate's example](crate).
    ///
    /// Fails with the first input that can't be or layer that doesn't fit, if a name is used twice, or if there is no output in
    /// evaluation.
    pub fn build(define: impl FnOnce(&mut NetworkBuilder) -> Result<(), GraphError>) -> Result<Self, GraphError> {
        let (mut graph, mut progress) = (Self::empty(), Progress::default());
        let defined = define(&mut NetworkBuilder::new(&mut graph, &mut progress));
        // What is wrong with an input comes before what follows from it.
        progress.fault.map_or(defined, Err)?;
        if graph.outputs_in(Mode::Eval).next().is_none() {
            return Err(GraphError::NoOutput);
        }
        Ok(graph)
    }

    pub(crate) fn empty() -> Self {
        Self { nodes: Vec::new(), outputs: Vec::new() }
    }

    /// All nodes; each reads only nodes before it.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The outputs in training, which are all, those of evaluation first: their names and the nodes that they are.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.outputs_in(Mode::Train)
    }

    /// The outputs in this mode: evaluation has none of those that [`NetworkBuilder::training_output`] named.
    pub fn outputs_in(&self, mode: Mode) -> impl Iterator<Item = (&str, &Node)> {
        self.outputs
            .iter()
            .filter(move |output| output.is_in(mode))
            .map(|output| (output.name.as_str(), &self.nodes[output.node]))
    }

    /// For each node, whether evaluation computes it: whether an output other than an auxiliary head depends on it.
    pub fn evaluated(&self) -> Vec<bool> {
        self.needed(Mode::Eval, &[])
    }

    /// For each node, whether a forward pass in this mode computes it: whether an output or one of `taps` depends on it.
    pub(crate) fn needed(&self, mode: Mode, taps: &[usize]) -> Vec<bool> {
        let outputs = self.outputs.iter().filter(|output| output.is_in(mode)).map(|output| output.node);
        self.depends(outputs.chain(taps.iter().copied()))
    }

    /// For each node, whether one of `ends` depends on it or is it.
    pub(crate) fn depends(&self, ends: impl Iterator<Item = usize>) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        for end in ends {
            needed[end] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            if needed[index] {
                for input in &self.nodes[index].inputs {
                    needed[*input] = true;
                }
            }
        }
        needed
    }

    /// The input nodes, in the order in which [`crate::Network::forward_with_taps`] takes their batches.
    pub fn inputs(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Input))
    }

    /// The node of that name; the error names the nearest ones, if some are near.
    pub fn node(&self, name: &str) -> Result<&Node, GraphError> {
        Ok(&self.nodes[self.index_of(name)?])
    }

    pub(crate) fn index_of(&self, name: &str) -> Result<usize, GraphError> {
        self.nodes.iter().position(|node| node.name == name).ok_or_else(|| {
            let nearest = nearest_few(name, self.nodes.iter().map(|node| node.name.as_str()));
            let nearest = nearest.into_iter().map(str::to_owned).collect();
            GraphError::UnknownLayer { name: name.to_owned(), nearest }
        })
    }

    /// Where the layer of that name lies among the [nodes](Self::nodes), or the last one of the scope of that name, and every node that
    /// it depends on.
    ///
    /// # Errors
    ///
    /// There is no such layer.
    pub fn through(&self, name: &str) -> Result<Vec<usize>, GraphError> {
        let in_scope = |node: &Node| node.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let last = match self.index_of(name) {
            Err(unknown) => self.nodes.iter().rposition(in_scope).ok_or(unknown)?,
            Ok(index) => index,
        };
        Ok(self.ancestors(&[last]))
    }

    /// The shapes that a node reads.
    pub fn input_shapes(&self, node: &Node) -> Vec<Shape> {
        node.inputs.iter().map(|input| self.nodes[*input].shape.clone()).collect()
    }

    /// The parameters of a node.
    pub fn params(&self, node: &Node) -> Vec<ParamSpec> {
        node.layer().map_or_else(Vec::new, |layer| layer.params(&self.input_shapes(node)))
    }

    /// Holds names and shapes of weights against the parameters of the network, before it has any.
    ///
    /// # Errors
    ///
    /// [`GraphError::Weights`] if a parameter is missing, if `state` holds a name that the network has not, or if a shape differs; it
    /// lists all of them.
    pub fn check_state(&self, state: &BTreeMap<String, Tensor>) -> Result<(), GraphError> {
        self.check_shapes(&state.iter().map(|(name, value)| (name.clone(), value.size())).collect())
    }

    /// [`check_state`](Self::check_state) of names and shapes alone.
    ///
    /// # Errors
    ///
    /// Those of [`check_state`](Self::check_state).
    pub fn check_shapes(&self, shapes: &BTreeMap<String, Vec<i64>>) -> Result<(), GraphError> {
        let (mut missing, mut mismatched, mut known) = (Vec::new(), Vec::new(), HashSet::new());
        for node in &self.nodes {
            for spec in self.params(node) {
                let (name, mut size) = (whole_name(node, &spec), spec.shape);
                if let Some(part) = &node.part {
                    size[0] *= part.count;
                }
                match shapes.get(&name) {
                    _ if !known.insert(name.clone()) => {}
                    None => missing.push(name),
                    Some(other) if *other != size => mismatched.push(format!("{name}: {size:?} here, {other:?} in the file")),
                    Some(_) => {}
                }
            }
        }
        let unexpected: Vec<String> = shapes.keys().filter(|name| !known.contains(*name)).cloned().collect();
        if missing.is_empty() && unexpected.is_empty() && mismatched.is_empty() {
            return Ok(());
        }
        Err(GraphError::Weights { missing, unexpected, mismatched })
    }

    /// The number of places that nodes are put at.
    pub fn places(&self) -> usize {
        self.nodes.iter().map(|node| node.place + 1).max().unwrap_or(1)
    }

    /// The same network for inputs of other shapes, one for each input. Layers whose parameters follow from the shape of
    /// their input, such as the first linear layer after a flatten, then have others.
    pub fn with_inputs(&self, shapes: &[Shape]) -> Result<Self, GraphError> {
        self.with_inputs_where(shapes, &vec![true; self.nodes.len()])
    }

    /// [`Graph::with_inputs`], where only `needed` nodes get new shapes.
    pub(crate) fn with_inputs_where(&self, shapes: &[Shape], needed: &[bool]) -> Result<Self, GraphError> {
        let expected = self.inputs().count();
        if shapes.len() != expected {
            return Err(GraphError::InputCount { expected, got: shapes.len() });
        }
        let mut graph = self.clone();
        let mut shapes = shapes.iter();
        for (index, needed) in needed.iter().enumerate() {
            let shape = match &graph.nodes[index].kind {
                NodeKind::Input => {
                    let node = &graph.nodes[index];
                    let shape = shapes.next().cloned().unwrap_or_else(|| node.shape.clone());
                    check_input(&node.name, &shape)?;
                    shape
                }
                NodeKind::Layer(_) if !needed => continue,
                NodeKind::Layer(op) => {
                    let node = &graph.nodes[index];
                    infer(&node.name, op, &graph.input_shapes(node))?
                }
            };
            graph.nodes[index].shape = shape;
        }
        Ok(graph)
    }

    /// For each node, the last of the `needed` nodes that reads it; itself if none does, and one past the end if it is an
    /// output.
    pub(crate) fn last_uses(&self, needed: &[bool]) -> Vec<usize> {
        let mut last: Vec<usize> = (0..self.nodes.len()).collect();
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| needed[*index]) {
            for input in &node.inputs {
                last[*input] = index;
            }
        }
        for output in &self.outputs {
            last[output.node] = self.nodes.len();
        }
        last
    }
}

/// The output shape of a layer, or an error with its name.
pub(crate) fn infer(name: &str, op: &Op, inputs: &[Shape]) -> Result<Shape, GraphError> {
    let layer = op.layer();
    infer_shape(layer, inputs).map_err(|source| GraphError::Layer { layer: name.to_owned(), op: layer.name(), source })
}

/// Fails, naming the input, if no value can be of its shape.
pub(crate) fn check_input(name: &str, shape: &Shape) -> Result<(), GraphError> {
    shape.check().map_err(|source| GraphError::Input { input: name.to_owned(), source })
}
