//! What the passes change: a network as a list of steps, with its parameters beside the layers.
use std::collections::HashMap;
use striate_graph::{Network, NodeKind};
use striate_layers::{Conv2d, Linear, Mode, Op, Shape};
use striate_torch::onednn::Post;
use tch::Tensor;

/// One thing to compute.
#[derive(Debug)]
pub(crate) struct Step {
    /// The layers that it stands for, in their order.
    pub(crate) layers: Vec<String>,
    pub(crate) kind: Kind,
    /// The steps that it reads: always earlier ones.
    pub(crate) inputs: Vec<usize>,
    /// The shape of its output for one example of the size that the network was built for.
    pub(crate) shape: Shape,
}

/// What a step computes.
#[derive(Debug)]
pub(crate) enum Kind {
    /// An input of the network.
    Input,
    /// A convolution; with `sum`, its second input is added before `post`.
    Conv { conv: Conv2d, weight: Tensor, bias: Option<Tensor>, sum: bool, post: Post },
    /// A linear layer.
    Linear { weight: Tensor, bias: Option<Tensor>, post: Post },
    /// These channels of a convolution that stands for several.
    Channels { start: i64, count: i64 },
    /// Any layer, as the network itself computes it.
    Layer { op: Op, params: Vec<Tensor> },
    /// Nothing reads it: another step does its work.
    Gone,
}

impl Kind {
    /// Whether the step adds no values and changes none: its output may be a view of its input.
    pub(crate) fn is_view(&self) -> bool {
        let view = |op: &Op| {
            matches!(op, Op::Dropout(_) | Op::StochasticDepth(_) | Op::Flatten(_) | Op::AdaptiveAvgPool2d(_) | Op::Custom(_))
        };
        matches!(self, Self::Channels { .. }) || matches!(self, Self::Layer { op, .. } if view(op))
    }
}

/// A network in evaluation as steps in an order in which they can run.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    /// The network's outputs: names, and the steps that they are.
    pub(crate) outputs: Vec<(String, usize)>,
}

impl Program {
    /// One step for each node that evaluation needs.
    pub(crate) fn of(network: &Network) -> Self {
        let graph = network.graph();
        let mut parameters = network.parameters();
        let mut steps = Vec::with_capacity(graph.nodes().len());
        for node in graph.nodes() {
            let count = graph.params(node).len();
            let mut params = parameters.by_ref().take(count).map(|param| param.tensor.detach());
            let kind = match &node.kind {
                NodeKind::Input => Kind::Input,
                NodeKind::Layer(Op::Conv2d(conv)) => match params.next() {
                    Some(weight) => Kind::Conv { conv: conv.clone(), weight, bias: params.next(), sum: false, post: Post::None },
                    None => Kind::Gone,
                },
                NodeKind::Layer(Op::Linear(Linear { .. })) => match params.next() {
                    Some(weight) => Kind::Linear { weight, bias: params.next(), post: Post::None },
                    None => Kind::Gone,
                },
                NodeKind::Layer(op) => Kind::Layer { op: op.clone(), params: params.collect() },
            };
            let (layers, inputs, shape) = (vec![node.name.clone()], node.inputs.clone(), node.shape.clone());
            steps.push(Step { layers, kind, inputs, shape });
        }
        let places: HashMap<&str, usize> = graph.nodes().iter().enumerate().map(|(i, node)| (node.name.as_str(), i)).collect();
        let outputs = graph.outputs_in(Mode::Eval).map(|(name, node)| (name.to_owned(), places[node.name.as_str()])).collect();
        let mut program = Self { steps, outputs };
        program.sweep();
        program
    }

    /// For each step, how often it is read; being an output counts too.
    pub(crate) fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.steps.len()];
        let read = self.steps.iter().flat_map(|step| &step.inputs).chain(self.outputs.iter().map(|(_, step)| step));
        read.for_each(|step| uses[*step] += 1);
        uses
    }

    /// Takes a step out, for another one that does its work and reads what it read.
    pub(crate) fn take(&mut self, step: usize) -> Step {
        let shape = self.steps[step].shape.clone();
        std::mem::replace(&mut self.steps[step], Step { layers: Vec::new(), kind: Kind::Gone, inputs: Vec::new(), shape })
    }

    /// Lets everything that reads `from` read `to`.
    pub(crate) fn redirect(&mut self, from: usize, to: usize) {
        let inputs = self.steps.iter_mut().flat_map(|step| &mut step.inputs);
        let outputs = self.outputs.iter_mut().map(|(_, step)| step);
        inputs.chain(outputs).filter(|step| **step == from).for_each(|step| *step = to);
    }

    /// Puts a step before the one at `place`.
    pub(crate) fn insert(&mut self, place: usize, step: Step) {
        self.renumber(|index| if index >= place { index + 1 } else { index });
        self.steps.insert(place, step);
    }

    /// Removes the steps that no output needs; inputs of the network stay.
    pub(crate) fn sweep(&mut self) {
        let mut needed: Vec<bool> = self.steps.iter().map(|step| matches!(step.kind, Kind::Input)).collect();
        self.outputs.iter().for_each(|(_, step)| needed[*step] = true);
        for index in (0..self.steps.len()).rev() {
            if needed[index] {
                self.steps[index].inputs.iter().for_each(|input| needed[*input] = true);
            }
        }
        let places: Vec<usize> =
            (0..needed.len()).map(|index| needed[..index].iter().filter(|needed| **needed).count()).collect();
        let mut needed = needed.into_iter();
        self.steps.retain(|_| needed.next().unwrap_or(false));
        self.renumber(|index| places[index]);
    }

    fn renumber(&mut self, place: impl Fn(usize) -> usize) {
        let inputs = self.steps.iter_mut().flat_map(|step| &mut step.inputs);
        inputs.chain(self.outputs.iter_mut().map(|(_, step)| step)).for_each(|step| *step = place(*step));
    }
}
