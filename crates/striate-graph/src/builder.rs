use crate::graph::{Output, check_input, infer};
use crate::{Graph, GraphError, Node, NodeKind};
use std::collections::HashSet;
use striate_layers::{Op, Shape};
use striate_torch::Shown;

/// A value in a network that is being built: the output of a node. Its shape is [`NetworkBuilder::shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value(usize);

/// What a layer reads: one [`Value`], or several as an array, slice or vector.
#[derive(Debug, Clone)]
pub struct Inputs(Vec<usize>);

impl From<Value> for Inputs {
    fn from(value: Value) -> Self {
        Self(vec![value.0])
    }
}

impl<const N: usize> From<[Value; N]> for Inputs {
    fn from(values: [Value; N]) -> Self {
        values.as_slice().into()
    }
}

impl From<&[Value]> for Inputs {
    fn from(values: &[Value]) -> Self {
        Self(values.iter().map(|value| value.0).collect())
    }
}

impl From<Vec<Value>> for Inputs {
    fn from(values: Vec<Value>) -> Self {
        values.as_slice().into()
    }
}

/// The most nodes of a network: the deepest here, of 1202 layers, has some thousands.
const MAX_NODES: usize = 100_000;

/// The most bytes of a full name: tables are as wide as the longest.
const LONGEST_NAME: usize = 500;

/// What building a network remembers beside the network.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    names: HashSet<String>,
    /// The first thing wrong with an input.
    pub(crate) fault: Option<GraphError>,
}

/// Adds layers to a network, under names within a scope: the whole network, or a part of it that [`NetworkBuilder::scope`]
/// opens.
#[derive(Debug)]
pub struct NetworkBuilder<'a> {
    graph: &'a mut Graph,
    progress: &'a mut Progress,
    scope: String,
    place: usize,
}

impl<'a> NetworkBuilder<'a> {
    pub(crate) fn new(graph: &'a mut Graph, progress: &'a mut Progress) -> Self {
        Self { graph, progress, scope: String::new(), place: 0 }
    }

    /// An input of the network, for examples of this shape. The first is named `input`, further ones `input2`, `input3`, ...
    ///
    /// [`Graph::build`] fails if the shape can't be (see [`Shape::check`]), or if a layer has the name.
    pub fn input(&mut self, shape: impl Into<Shape>) -> Value {
        let name = match self.graph.inputs().count() {
            0 => "input".to_owned(),
            count => format!("input{}", count + 1),
        };
        let shape = shape.into();
        let sound = check_input(&name, &shape).and_then(|()| self.check_name(&name));
        if let Err(fault) = sound {
            self.progress.fault.get_or_insert(fault);
        }
        self.push_input(name, shape)
    }

    /// An input of that name, such as a part of a network may have kept.
    pub(crate) fn named_input(&mut self, name: &str, shape: Shape) -> Result<Value, GraphError> {
        check_node_name(name)?;
        check_input(name, &shape)?;
        self.check_name(name)?;
        self.check_count(name)?;
        Ok(self.push_input(name.to_owned(), shape))
    }

    fn push_input(&mut self, name: String, shape: Shape) -> Value {
        self.push(Node { name, kind: NodeKind::Input, inputs: Vec::new(), shape, place: self.place, number: 0, part: None })
    }

    /// Adds a layer that reads `inputs`. Its full name is `name` after the names of its scopes, with dots between; its
    /// parameters are named `<full name>.weight` and so on.
    ///
    /// Fails if the layer can't take the inputs' shapes, or if the name is taken.
    pub fn add(&mut self, name: &str, layer: impl Into<Op>, inputs: impl Into<Inputs>) -> Result<Value, GraphError> {
        let name = self.full_name(name);
        let op = layer.into();
        let inputs = inputs.into().0;
        check_node_name(&name)?;
        self.check_name(&name)?;
        self.check_count(&name)?;
        let shapes: Vec<Shape> = inputs.iter().map(|input| self.graph.nodes[*input].shape.clone()).collect();
        let shape = infer(&name, &op, &shapes)?;
        Ok(self.push(Node { name, kind: NodeKind::Layer(op), inputs, shape, place: self.place, number: 0, part: None }))
    }

    /// Names a value as an output of the network. The first output is the one that classifies: by custom `logits`.
    pub fn output(&mut self, name: &str, value: Value) -> Result<(), GraphError> {
        self.push_output(Output { name: name.to_owned(), node: value.0, training_only: false })
    }

    /// Names a value as an output in training only, such as an auxiliary classifier: by custom `aux1`, `aux2`. In evaluation
    /// neither it nor what only it needs is computed.
    pub fn training_output(&mut self, name: &str, value: Value) -> Result<(), GraphError> {
        self.push_output(Output { name: name.to_owned(), node: value.0, training_only: true })
    }

    /// The shape of a value for one example.
    pub fn shape(&self, value: Value) -> &Shape {
        &self.graph.nodes[value.0].shape
    }

    /// A scope within this one: layers added through it have `name.` before their names.
    pub fn scope(&mut self, name: &str) -> NetworkBuilder<'_> {
        NetworkBuilder { scope: self.full_name(name), place: self.place, graph: self.graph, progress: self.progress }
    }

    /// A scope whose layers are numbered from 0, as those of `torch.nn.Sequential`.
    pub fn sequential(&mut self, name: &str) -> Sequential<'_> {
        Sequential { builder: self.scope(name), next: 0 }
    }

    /// The same scope, with layers placed on device number `place` of those given to [`crate::Network::new`].
    pub fn on(&mut self, place: usize) -> NetworkBuilder<'_> {
        NetworkBuilder { scope: self.scope.clone(), place, graph: self.graph, progress: self.progress }
    }

    fn check_name(&self, name: &str) -> Result<(), GraphError> {
        match self.progress.names.contains(name) {
            true => Err(GraphError::NameTaken { name: name.to_owned() }),
            false => Ok(()),
        }
    }

    fn check_count(&self, name: &str) -> Result<(), GraphError> {
        if self.graph.nodes.len() < MAX_NODES {
            return Ok(());
        }
        Err(GraphError::Option {
            option: format!("layer {name}"),
            reason: format!("is one more than the {MAX_NODES} that there may be"),
        })
    }

    fn full_name(&self, name: &str) -> String {
        if self.scope.is_empty() { name.to_owned() } else { format!("{}.{name}", self.scope) }
    }

    fn push_output(&mut self, output: Output) -> Result<(), GraphError> {
        if self.graph.outputs.iter().any(|taken| taken.name == output.name) {
            return Err(GraphError::NameTaken { name: output.name });
        }
        let evaluated = self.graph.outputs.iter().filter(|other| !other.training_only).count();
        let place = if output.training_only { self.graph.outputs.len() } else { evaluated };
        self.graph.outputs.insert(place, output);
        Ok(())
    }

    fn push(&mut self, node: Node) -> Value {
        let node = Node { number: self.graph.nodes.len(), ..node };
        self.progress.names.insert(node.name.clone());
        self.graph.nodes.push(node);
        Value(self.graph.nodes.len() - 1)
    }
}

fn check_node_name(name: &str) -> Result<(), GraphError> {
    let odd = name.contains(['/', ' ']) || name.len() > LONGEST_NAME || Shown(name).to_string() != name;
    if odd || name.split('.').any(str::is_empty) {
        return Err(GraphError::BadName { name: name.to_owned() });
    }
    Ok(())
}

/// A scope whose layers are numbered from 0, as those of `torch.nn.Sequential`.
#[derive(Debug)]
pub struct Sequential<'a> {
    builder: NetworkBuilder<'a>,
    next: usize,
}

impl Sequential<'_> {
    /// Adds a layer under the next number.
    pub fn add(&mut self, layer: impl Into<Op>, inputs: impl Into<Inputs>) -> Result<Value, GraphError> {
        let name = self.number();
        self.builder.add(&name, layer, inputs)
    }

    /// A scope under the next number, for a block of layers.
    pub fn scope(&mut self) -> NetworkBuilder<'_> {
        let name = self.number();
        self.builder.scope(&name)
    }

    /// The shape of a value for one example.
    pub fn shape(&self, value: Value) -> &Shape {
        self.builder.shape(value)
    }

    fn number(&mut self) -> String {
        self.next += 1;
        (self.next - 1).to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_layers::{Activation, Add, Conv2d, Flatten, Linear};

    #[test]
    fn scopes_number_and_name_as_torch_does() {
        let graph = Graph::build(|net| {
            let x = net.input([3, 8, 8]);
            let mut stage = net.sequential("layer1");
            let mut block = stage.scope();
            let y = block.add("conv1", Conv2d::same(3, 3), x)?;
            let sum = block.add("add", Add, [x, y])?;
            let x = stage.add(Activation::Relu, sum)?;
            assert_eq!(stage.shape(x), &Shape::image(3, 8, 8));
            net.output("features", x)
        })
        .unwrap();
        let names: Vec<_> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["input", "layer1.0.conv1", "layer1.0.add", "layer1.1"]);
    }

    #[test]
    fn mistakes_name_the_layer() {
        let build = |define: fn(&mut NetworkBuilder, Value) -> Result<Value, GraphError>| {
            let built = Graph::build(|net| {
                let x = net.input([3, 8, 8]);
                let y = define(net, x)?;
                net.output("logits", y)
            });
            built.unwrap_err().to_string()
        };
        let error = build(|net, x| net.scope("head").add("fc", Linear::new(10), x));
        assert_eq!(error, "layer head.fc (Linear): expected an input of shape [F] (flatten it first), got [3, 8, 8]");
        let error = build(|net, x| {
            net.add("a", Flatten, x)?;
            net.add("a", Flatten, x)
        });
        assert_eq!(error, "the name a is taken: every input, every layer and every output needs a name of its own");
        assert!(build(|net, x| net.add("a b", Flatten, x)).contains("\"a b\""));
        assert!(build(|net, x| net.add("", Flatten, x)).contains("empty"));
        assert_eq!(Graph::build(|_| Ok(())).unwrap_err(), GraphError::NoOutput);
    }
    #[test]
    fn inputs_that_cannot_be_are_told_by_name() {
        let build = |shapes: [[i64; 3]; 2]| {
            let built = Graph::build(|net| {
                let x = net.input(shapes[0]);
                let x = net.add("flatten", Flatten, x)?;
                let y = net.input(shapes[1]);
                let y = net.add("conv", Conv2d::new(1, 3), y)?;
                net.output("a", x)?;
                net.output("b", y)
            });
            built.map(|_| ()).map_err(|error| error.to_string())
        };
        build([[3, 8, 8]; 2]).unwrap();
        let range = "each must be from 1 to 2147483647";
        let told = format!("input input: the shape [-3, 8, 8] has a dimension of -3: {range}");
        assert_eq!(build([[-3, 8, 8], [0, 8, 8]]).unwrap_err(), told);
        let told = format!("input input2: the shape [3, 0, 8] has a dimension of 0: {range}");
        assert_eq!(build([[3, 8, 8], [3, 0, 8]]).unwrap_err(), told);
        let error = build([[1, 3_037_000_500, 3_037_000_500], [3, 8, 8]]).unwrap_err();
        assert!(error.starts_with("input input: ") && error.contains("has a dimension of 3037000500"), "{error}");
        let error = build([[1 << 20; 3], [3, 8, 8]]).unwrap_err();
        assert!(error.contains("has over 1099511627776 values"), "{error}");

        let graph = Graph::build(|net| {
            let x = net.input([3, 8, 8]);
            let x = net.add("input2", Flatten, x)?;
            net.input([3]);
            net.output("logits", x)
        });
        assert_eq!(graph.unwrap_err(), GraphError::NameTaken { name: "input2".to_owned() });
    }

    #[test]
    fn sizes_that_nothing_can_have_name_their_layer() {
        let build = |input: [i64; 3], classes: i64| {
            let built = Graph::build(|net| {
                let x = net.input(input);
                let x = net.add("conv", Conv2d::same(1 << 20, 1), x)?;
                let x = net.add("flatten", Flatten, x)?;
                let x = net.add("fc", Linear::new(classes), x)?;
                net.output("logits", x)
            });
            built.unwrap_err().to_string()
        };
        let error = build([1, 1 << 10, 1 << 11], 10);
        assert!(error.starts_with("layer conv (Conv2d): the shape [1048576, 1024, 2048] has over"), "{error}");
        let error = build([1, 1, 1], i64::MAX);
        assert_eq!(error, "layer fc (Linear): out_features = 9223372036854775807 must be at most 2147483647");
        let error = build([1, 1, 1], 1 << 30);
        assert!(error.starts_with("layer fc (Linear): weight [1073741824, 1048576] has over"), "{error}");
    }
}
