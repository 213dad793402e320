use crate::{Graph, LayerSummary, Node, NodeKind};
use serde::Serialize;
use striate_layers::Op;

/// Where two networks, `a` and `b`, differ: their layers beside one another in order, and what each has in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GraphDiff {
    /// Whether both are one network: the same layers under the same names, wired alike, with the same outputs.
    pub identical: bool,
    /// What `a` has in all.
    pub a: Totals,
    /// What `b` has in all.
    pub b: Totals,
    /// All layers of both in an order that is that of either.
    pub entries: Vec<DiffEntry>,
}

/// What a network has in all: see [`crate::Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Nodes, of which some are inputs.
    pub layers: usize,
    /// Trained values.
    pub params: u64,
    /// Multiply-adds in evaluation.
    pub macs: u64,
    /// The names of the outputs in training.
    pub outputs: Vec<String>,
}

/// A layer of either network, or one of each that stand in the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiffEntry {
    /// What became of it from `a` to `b`.
    pub change: Change,
    /// The layer of `a`.
    pub a: Option<LayerSummary>,
    /// The layer of `b`.
    pub b: Option<LayerSummary>,
    /// In what the two differ.
    pub differences: Vec<Difference>,
}

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Nothing.
    Same,
    /// It has another name, and no other difference.
    Renamed,
    /// It is another.
    Changed,
    /// `b` has none in its place.
    OnlyA,
    /// `a` has none in its place.
    OnlyB,
}

/// One property in which two layers differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `name`, `op`, `output`, `params`, `macs`, `inputs`, `place`, `training_only`, or an option of the layer such as
    /// `padding`.
    pub what: String,
    /// Its value in `a`.
    pub a: String,
    /// Its value in `b`.
    pub b: String,
}

impl Graph {
    /// Where this network, `a`, and another, `b`, differ.
    ///
    /// Layers are aligned by their kinds, so that names may differ; among alignments with equally many layers of a kind, names,
    /// output shapes and options decide. A layer can stand in the place of one of another kind with the same role, such as one
    /// activation or pooling for another.
    pub fn diff(&self, other: &Self) -> GraphDiff {
        let sides = [self, other].map(|graph| graph.nodes.iter().map(Side::new).collect::<Vec<_>>());
        let pairs = align(&sides[0], &sides[1]);
        let partners = Partners::new(&pairs, [self, other]);
        let summaries = [self.summary(), other.summary()];
        let entries: Vec<DiffEntry> = pairs
            .iter()
            .map(|&(a, b)| {
                let layer = |graph: usize, index: usize| summaries[graph].layers[index].clone();
                let (change, differences) = match (a, b) {
                    (Some(a), Some(b)) => {
                        let mut differences = own_differences(&sides[0][a], &sides[1][b], &layer(0, a), &layer(1, b));
                        if !partners.fit(&self.nodes[a].inputs, &other.nodes[b].inputs) {
                            let [a, b] = [layer(0, a), layer(1, b)].map(|layer| layer.inputs.join(", "));
                            differences.push(Difference { what: "inputs".to_owned(), a, b });
                        }
                        (change(&differences), differences)
                    }
                    (Some(_), None) => (Change::OnlyA, Vec::new()),
                    (None, _) => (Change::OnlyB, Vec::new()),
                };
                DiffEntry { change, a: a.map(|a| layer(0, a)), b: b.map(|b| layer(1, b)), differences }
            })
            .collect();
        let outputs = |graph: &Self| graph.outputs().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        let [a, b] = [self, other].map(outputs);
        let same_outputs = a == b && {
            let nodes = |graph: &Self| graph.outputs.iter().map(|output| output.node).collect::<Vec<_>>();
            partners.fit(&nodes(self), &nodes(other))
        };
        let total = |graph: usize, outputs| {
            let summary = &summaries[graph];
            Totals { layers: summary.layers.len(), params: summary.params, macs: summary.macs, outputs }
        };
        let identical = same_outputs && entries.iter().all(|entry| entry.change == Change::Same);
        GraphDiff { identical, a: total(0, a), b: total(1, b), entries }
    }
}

/// What decides which nodes stand in the same place.
struct Side<'a> {
    node: &'a Node,
    op: &'static str,
    role: &'static str,
    /// The layer's options by name, as its `Debug` text has them: layers are plain data.
    options: Vec<(String, String)>,
}

impl<'a> Side<'a> {
    fn new(node: &'a Node) -> Self {
        let options = node.layer().map_or_else(Vec::new, |layer| options(&format!("{layer:?}")));
        Self { node, op: node.op_name(), role: role(node), options }
    }

    /// How much speaks for putting two nodes beside one another; nothing if they have different roles. A common kind weighs
    /// more than all else, so that as many layers as possible find one of their kind.
    fn likeness(&self, other: &Self) -> Option<u32> {
        let name = if self.node.name == other.node.name { 4 } else { 0 };
        if self.op == other.op {
            let output = if self.node.shape == other.node.shape { 2 } else { 0 };
            return Some(8 + name + output + u32::from(self.options == other.options));
        }
        (self.role == other.role).then_some(4 + name)
    }
}

/// What a layer is for; layers of one role can replace one another.
fn role(node: &Node) -> &'static str {
    let NodeKind::Layer(op) = &node.kind else { return "input" };
    match op {
        Op::Conv2d(_) | Op::SparseConv2d(_) => "convolution",
        Op::MaxPool2d(_) | Op::AvgPool2d(_) | Op::Subsampling2d(_) | Op::AdaptiveAvgPool2d(_) | Op::AdaptiveMaxPool2d(_) => {
            "pooling"
        }
        Op::Activation(_) | Op::Softmax(_) => "activation",
        Op::BatchNorm2d(_) | Op::LocalResponseNorm(_) => "normalisation",
        Op::Linear(_) | Op::RbfOutput(_) => "dense",
        Op::Add(_)
        | Op::Concat(_)
        | Op::Dropout(_)
        | Op::Flatten(_)
        | Op::PadShortcut(_)
        | Op::StochasticDepth(_)
        | Op::Custom(_) => node.op_name(),
    }
}

/// The fields in the `Debug` text of a struct, such as `Conv2d { kernel_size: Pair([3, 3]), bias: true }`.
fn options(debug: &str) -> Vec<(String, String)> {
    let Some((_, fields)) = debug.split_once(" { ") else { return Vec::new() };
    let mut depth = 0_usize;
    let at_top = |c: char| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    let fields = fields.strip_suffix(" }").unwrap_or(fields).split(at_top);
    fields.filter_map(|field| field.split_once(": ")).map(|(name, value)| (name.trim().to_owned(), readable(value))).collect()
}

/// `Pair([3, 3])`, or padding of as much, as `3x3`.
fn readable(value: &str) -> String {
    let pair = value.strip_prefix("Explicit(").unwrap_or(value).strip_prefix("Pair([");
    match pair.map(|pair| pair.trim_end_matches([')', ']'])) {
        Some(pair) => pair.replace(", ", "x"),
        None => value.to_owned(),
    }
}

/// The places of both sequences, each node in one, in order: the alignment with the largest sum of likenesses
/// (Needleman-Wunsch, with no cost for a gap).
fn align(a: &[Side], b: &[Side]) -> Vec<(Option<usize>, Option<usize>)> {
    // Most variants have long ends in common, and the table is quadratic.
    let same = |(a, b): &(&Side, &Side)| a.likeness(b) == a.likeness(a);
    let head = a.iter().zip(b).take_while(same).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(same).count();
    let (rows, columns) = (a.len() - head - tail, b.len() - head - tail);
    let mut best = vec![0_u32; columns + 1];
    let mut steps = vec![Step::SkipA; rows * columns];
    for row in (0..rows).rev() {
        let below = best.clone();
        for column in (0..columns).rev() {
            let mut choice = (below[column], Step::SkipA);
            if best[column + 1] > choice.0 {
                choice = (best[column + 1], Step::SkipB);
            }
            if let Some(likeness) = a[head + row].likeness(&b[head + column])
                && below[column + 1] + likeness >= choice.0
            {
                choice = (below[column + 1] + likeness, Step::Pair);
            }
            (best[column], steps[row * columns + column]) = choice;
        }
    }
    let mut pairs: Vec<_> = (0..head).map(|index| (Some(index), Some(index))).collect();
    let (mut row, mut column) = (0, 0);
    while row < rows || column < columns {
        let step = match (row < rows, column < columns) {
            (true, true) => steps[row * columns + column],
            (true, false) => Step::SkipA,
            (false, _) => Step::SkipB,
        };
        let (from_a, from_b) = (step != Step::SkipB, step != Step::SkipA);
        pairs.push((from_a.then_some(head + row), from_b.then_some(head + column)));
        row += usize::from(from_a);
        column += usize::from(from_b);
    }
    pairs.extend((0..tail).map(|index| (Some(a.len() - tail + index), Some(b.len() - tail + index))));
    pairs
}

/// A step of an alignment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Pair,
    SkipA,
    SkipB,
}

/// For each node of either network, the node of the other that stands in its place.
struct Partners {
    of_a: Vec<Option<usize>>,
    of_b: Vec<Option<usize>>,
}

impl Partners {
    fn new(pairs: &[(Option<usize>, Option<usize>)], graphs: [&Graph; 2]) -> Self {
        let [mut of_a, mut of_b] = graphs.map(|graph| vec![None; graph.nodes.len()]);
        for (a, b) in pairs {
            if let (Some(a), Some(b)) = (a, b) {
                (of_a[*a], of_b[*b]) = (Some(*b), Some(*a));
            }
        }
        Self { of_a, of_b }
    }

    /// Whether two layers read the same. One that reads a layer that only its network has does so too: that layer is listed.
    fn fit(&self, a: &[usize], b: &[usize]) -> bool {
        let alone = a.iter().any(|a| self.of_a[*a].is_none()) || b.iter().any(|b| self.of_b[*b].is_none());
        alone || a.iter().map(|a| self.of_a[*a]).eq(b.iter().map(|b| Some(*b)))
    }
}

/// In what two layers differ by themselves.
fn own_differences(a: &Side, b: &Side, of_a: &LayerSummary, of_b: &LayerSummary) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, a: String, b: String| {
        if a != b {
            differences.push(Difference { what: what.to_owned(), a, b });
        }
    };
    compare("name", of_a.name.clone(), of_b.name.clone());
    compare("op", of_a.op.clone(), of_b.op.clone());
    if a.op == b.op {
        for ((what, a), (_, b)) in a.options.iter().zip(&b.options) {
            compare(what, a.clone(), b.clone());
        }
    }
    compare("output", format!("{:?}", of_a.output), format!("{:?}", of_b.output));
    compare("params", of_a.params.to_string(), of_b.params.to_string());
    compare("macs", of_a.macs.to_string(), of_b.macs.to_string());
    compare("place", a.node.place.to_string(), b.node.place.to_string());
    compare("training_only", of_a.training_only.to_string(), of_b.training_only.to_string());
    differences
}

fn change(differences: &[Difference]) -> Change {
    match differences {
        [] => Change::Same,
        [difference] if difference.what == "name" => Change::Renamed,
        _ => Change::Changed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{GraphError, NetworkBuilder, Value};
    use striate_layers::{Activation, Add, BatchNorm2d, Conv2d, Flatten, Init, Linear, MaxPool2d};

    fn graph(define: impl FnOnce(&mut NetworkBuilder, Value) -> Result<Value, GraphError>) -> Graph {
        Graph::build(|net| {
            let x = net.input([3, 8, 8]);
            let x = define(net, x)?;
            net.output("logits", x)
        })
        .unwrap()
    }

    /// Layers one after another, by name.
    fn chain(layers: Vec<(&str, Op)>) -> Graph {
        graph(|net, mut x| {
            for (name, op) in layers {
                x = net.add(name, op, x)?;
            }
            Ok(x)
        })
    }

    /// Names in `a` and `b`, and what became of the layer, for all that are not the same.
    fn changes(diff: &GraphDiff) -> Vec<(&str, &str, Change)> {
        fn name(layer: &Option<LayerSummary>) -> &str {
            layer.as_ref().map_or("", |layer| layer.name.as_str())
        }
        let entries = diff.entries.iter().filter(|entry| entry.change != Change::Same);
        entries.map(|entry| (name(&entry.a), name(&entry.b), entry.change)).collect()
    }

    fn conv(filters: i64) -> Op {
        Conv2d::same(filters, 3).into()
    }

    const RELU: Op = Op::Activation(Activation::Relu);

    #[test]
    fn a_network_is_identical_with_itself() {
        let a = chain(vec![("conv", conv(4)), ("relu", RELU), ("flatten", Flatten.into()), ("fc", Linear::new(2).into())]);
        let diff = a.diff(&a);
        assert!(diff.identical && diff.a == diff.b);
        assert_eq!(diff.entries.len(), 5);
        assert_eq!(diff.a.params, 3 * 9 * 4 + 4 + 4 * 64 * 2 + 2);
    }

    #[test]
    fn names_do_not_hide_that_layers_are_the_same() {
        let a = chain(vec![("features.0", conv(4)), ("features.1", RELU), ("features.2", conv(8))]);
        let b = chain(vec![("conv1", conv(4)), ("bn1", BatchNorm2d::new().into()), ("relu1", RELU), ("conv2", conv(8))]);
        let diff = a.diff(&b);
        assert!(!diff.identical);
        let expected = [
            ("features.0", "conv1", Change::Renamed),
            ("", "bn1", Change::OnlyB),
            ("features.1", "relu1", Change::Renamed),
            ("features.2", "conv2", Change::Renamed),
        ];
        assert_eq!(changes(&diff), expected);
        assert_eq!((diff.a.layers, diff.b.layers, diff.b.params - diff.a.params), (4, 5, 8));
    }

    #[test]
    fn options_that_no_shape_shows_are_told() {
        let a = chain(vec![("conv", conv(4))]);
        let b = chain(vec![("conv", Conv2d::new(4, 3).padding(1).groups(1).init(Init::zeros(), Init::zeros()).into())]);
        let differences = &a.diff(&b).entries[1].differences;
        let what: Vec<_> = differences.iter().map(|difference| difference.what.as_str()).collect();
        assert!(what.ends_with(&["weight_init", "bias_init"]), "{what:?}");
        assert_eq!(differences.last().unwrap().b, "Constant(0.0)");
        let strided = chain(vec![("conv", Conv2d::new(4, 3).stride(2).padding(1).into())]);
        let differences = b.diff(&strided).entries[1].differences.clone();
        let of = |what: &str| differences.iter().find(|difference| difference.what == what).map(|d| (d.a.as_str(), d.b.as_str()));
        assert_eq!(of("stride"), Some(("1x1", "2x2")));
        assert_eq!(of("output"), Some(("[4, 8, 8]", "[4, 4, 4]")));
        assert_eq!(of("macs"), Some(("6912", "1728")));
        assert_eq!(of("padding"), None);
    }

    #[test]
    fn one_activation_stands_in_the_place_of_another_but_not_of_a_convolution() {
        let a = chain(vec![("conv", conv(4)), ("squash", RELU), ("pool", MaxPool2d::new(2).into())]);
        let b = chain(vec![("conv", conv(4)), ("squash", Activation::Tanh.into()), ("extra", conv(4))]);
        let expected = [("squash", "squash", Change::Changed), ("pool", "", Change::OnlyA), ("", "extra", Change::OnlyB)];
        assert_eq!(changes(&a.diff(&b)), expected);
    }

    #[test]
    fn a_shortcut_that_starts_elsewhere_is_a_difference() {
        let residual = |early: bool| {
            graph(|net, x| {
                let stem = net.add("stem", conv(4), x)?;
                let relu = net.add("relu", RELU, stem)?;
                let y = net.add("conv", conv(4), relu)?;
                net.add("add", Add, [y, if early { stem } else { relu }])
            })
        };
        let diff = residual(true).diff(&residual(false));
        assert_eq!(changes(&diff), [("add", "add", Change::Changed)]);
        let difference = &diff.entries.last().unwrap().differences[0];
        assert_eq!(
            (difference.what.as_str(), difference.a.as_str(), difference.b.as_str()),
            ("inputs", "conv, stem", "conv, relu")
        );
    }

    #[test]
    fn outputs_count() {
        let named = |name: &str| {
            Graph::build(|net| {
                let x = net.input([3, 8, 8]);
                net.output(name, x)
            })
            .unwrap()
        };
        assert!(!named("a").diff(&named("b")).identical);
    }

    #[test]
    fn debug_texts_split_at_their_own_commas_only() {
        let found = options("Conv2d { kernel_size: Pair([3, 5]), init: Normal { mean: 0.0, std: 0.1 }, padding: Same }");
        let expected = [("kernel_size", "3x5"), ("init", "Normal { mean: 0.0, std: 0.1 }"), ("padding", "Same")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(options("Flatten").is_empty());
    }
}
