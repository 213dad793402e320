use crate::{Graph, Node};
use serde::Serialize;
use std::fmt;
use striate_layers::{Layer, Mode, ParamKind, Receptive, Shape};

/// What a network has and costs, layer by layer, for one example: known without running it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Trained values, those of auxiliary heads too.
    pub params: u64,
    /// Values that no gradient trains: running statistics, fixed codes.
    pub buffers: u64,
    /// Multiply-adds of convolutions and linear layers in evaluation, which runs no auxiliary heads.
    pub macs: u64,
    /// Connections in evaluation as LeCun counts them: every weight and bias once for each output value that uses it.
    pub connections: u64,
    /// Bytes of all activations in float32: what training keeps.
    pub activation_bytes_training: u64,
    /// The most bytes of activations that are alive at once in evaluation, in float32.
    pub activation_bytes_inference: u64,
    /// Height and width of what a value of the last feature map sees of the input, borders aside: the largest receptive field
    /// before the first layer that sees everything.
    pub receptive_field: [i64; 2],
    /// The nodes in their order.
    pub layers: Vec<LayerSummary>,
}

/// One row of a [`Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerSummary {
    /// The full name.
    pub name: String,
    /// The kind of layer, such as `Conv2d`, or `Input`.
    pub op: String,
    /// The layer's options in a few characters.
    pub options: String,
    /// The names of the nodes that it reads.
    pub inputs: Vec<String>,
    /// The shape of its output, without the batch.
    pub output: Vec<i64>,
    /// Trained values.
    pub params: u64,
    /// Values that no gradient trains.
    pub buffers: u64,
    /// Multiply-adds.
    pub macs: u64,
    /// Connections.
    pub connections: u64,
    /// Bytes of its output in float32.
    pub activation_bytes: u64,
    /// Height and width of what one output value sees of the input; the whole input behind a linear layer or global pooling.
    pub receptive_field: [i64; 2],
    /// The distance in the input between what two neighbouring output values see.
    pub stride: [i64; 2],
    /// Whether evaluation does without it: a layer of an auxiliary head.
    pub training_only: bool,
}

/// What a network takes for one example in evaluation: see [`Graph::cost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// The most bytes of activations that are alive at once, in float32.
    pub bytes: u64,
    /// Multiply-adds of convolutions and linear layers.
    pub macs: u64,
    /// How many values the other layers read, each as often as a window is moved over it.
    pub reads: u64,
}

/// What a value sees of the input: `(size, stride)` for height and width.
type Field = [(i64, i64); 2];

impl Graph {
    /// What the network has and costs, for one example of the shape that it was built for (see [`Graph::with_inputs`] for
    /// others). Nothing is allocated but the table.
    pub fn summary(&self) -> Summary {
        let mut fields: Vec<Field> = Vec::with_capacity(self.nodes.len());
        let mut layers = Vec::with_capacity(self.nodes.len());
        let mut sees_all: Vec<bool> = Vec::with_capacity(self.nodes.len());
        let mut receptive_field = [1; 2];
        for (node, needed) in self.nodes.iter().zip(self.needed(Mode::Eval, &[])) {
            let field = self.field(node, &fields);
            let global = node.layer().is_some_and(|layer| layer.receptive(&self.input_shapes(node)) == Receptive::Global);
            sees_all.push(global || node.inputs.iter().any(|input| sees_all[*input]));
            if needed && sees_all.last() == Some(&false) {
                receptive_field = [0, 1].map(|axis| receptive_field[axis].max(field[axis].0));
            }
            layers.push(self.layer_summary(node, field, !needed));
            fields.push(field);
        }
        let total = |total: u64, more: u64| total.saturating_add(more);
        let sum = |of: fn(&LayerSummary) -> u64| layers.iter().map(of).fold(0, total);
        let evaluation = |of: fn(&LayerSummary) -> u64| layers.iter().filter(|layer| !layer.training_only).map(of).fold(0, total);
        Summary {
            params: sum(|layer| layer.params),
            buffers: sum(|layer| layer.buffers),
            macs: evaluation(|layer| layer.macs),
            connections: evaluation(|layer| layer.connections),
            activation_bytes_training: sum(|layer| layer.activation_bytes),
            activation_bytes_inference: self.cost().bytes,
            receptive_field,
            layers,
        }
    }

    /// What a forward pass in evaluation takes for one example: little more than a walk over the nodes.
    pub fn cost(&self) -> Cost {
        let needed = self.needed(Mode::Eval, &[]);
        let bytes = |index: usize| if needed[index] { float_bytes(&self.nodes[index]) } else { 0 };
        let mut cost = Cost { bytes: self.peak_bytes(&needed, bytes), macs: 0, reads: 0 };
        for (node, _) in self.nodes.iter().zip(&needed).filter(|(_, needed)| **needed) {
            let Some(layer) = node.layer() else { continue };
            let inputs = self.input_shapes(node);
            match layer.macs(&inputs) {
                0 => cost.reads = cost.reads.saturating_add(reads(node, layer, &inputs)),
                macs => cost.macs = cost.macs.saturating_add(macs),
            }
        }
        cost
    }

    fn layer_summary(&self, node: &Node, field: Field, training_only: bool) -> LayerSummary {
        let inputs = self.input_shapes(node);
        let count = |trained: bool| {
            let params = self.params(node);
            let counted = params.iter().filter(|param| (param.kind == ParamKind::Trainable) == trained);
            counted.map(|param| param.numel().unsigned_abs()).sum()
        };
        LayerSummary {
            name: node.name.clone(),
            op: node.op_name().to_owned(),
            options: node.layer().map_or_else(String::new, Layer::describe),
            inputs: node.inputs.iter().map(|input| self.nodes[*input].name.clone()).collect(),
            output: node.shape.dims().to_vec(),
            params: count(true),
            buffers: count(false),
            macs: node.layer().map_or(0, |layer| layer.macs(&inputs)),
            connections: node.layer().map_or(0, |layer| layer.connections(&inputs)),
            activation_bytes: float_bytes(node),
            receptive_field: field.map(|(size, _)| size),
            stride: field.map(|(_, stride)| stride),
            training_only,
        }
    }

    fn field(&self, node: &Node, fields: &[Field]) -> Field {
        let image = self.inputs().next().and_then(|input| input.shape.as_image().ok());
        let everything = image.map_or([(1, 1); 2], |[_, height, width]| [(height, height), (width, width)]);
        if image.is_some() && node.inputs.iter().any(|input| fields[*input] == everything) {
            return everything; // whatever window moves over such values
        }
        let widest = |axis: usize| {
            let inputs = node.inputs.iter().map(|input| fields[*input][axis]);
            inputs.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1))).unwrap_or((1, 1))
        };
        let before = [widest(0), widest(1)];
        match node.layer().map_or(Receptive::Pointwise, |layer| layer.receptive(&self.input_shapes(node))) {
            Receptive::Pointwise => before,
            Receptive::Window { kernel, stride, dilation } => [0, 1].map(|axis| {
                let (size, step) = before[axis];
                let more = ((kernel.0[axis] - 1) * dilation.0[axis]).saturating_mul(step);
                (size.saturating_add(more), step.saturating_mul(stride.0[axis]))
            }),
            Receptive::Global => everything,
        }
    }

    /// Walks through the nodes as a forward pass in evaluation does, freeing each value after its last use.
    fn peak_bytes(&self, needed: &[bool], bytes: impl Fn(usize) -> u64) -> u64 {
        let last_uses = self.last_uses(needed);
        let (mut alive, mut peak) = (0_u64, 0);
        for (index, node) in self.nodes.iter().enumerate() {
            alive = alive.saturating_add(bytes(index));
            peak = peak.max(alive);
            let mut freed: Vec<usize> = node.inputs.iter().copied().filter(|input| last_uses[*input] == index).collect();
            freed.sort_unstable();
            freed.dedup();
            alive = freed.iter().fold(alive, |alive, input| alive.saturating_sub(bytes(*input)));
        }
        peak
    }
}

/// How many values a layer reads.
fn reads(node: &Node, layer: &dyn Layer, inputs: &[Shape]) -> u64 {
    let all = inputs.iter().map(Shape::numel).fold(node.shape.numel(), i64::max).unsigned_abs();
    match layer.receptive(inputs) {
        Receptive::Window { kernel, .. } => {
            let area = kernel.0.iter().copied().fold(1, i64::saturating_mul);
            all.max(node.shape.numel().saturating_mul(area).unsigned_abs())
        }
        Receptive::Pointwise | Receptive::Global => all,
    }
}

/// The bytes of a node's output in float32.
fn float_bytes(node: &Node) -> u64 {
    4 * node.shape.numel().unsigned_abs()
}

/// The widest that a column is made: options can be of any length.
const WIDEST: usize = 500;
/// The columns of the tables.
const HEAD: [&str; 7] = ["layer", "op", "output", "params", "MACs", "connections", "sees"];

impl Summary {
    /// The table and its totals as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("| {} |\n|---|---|---|---:|---:|---:|---|\n", HEAD.join(" | "));
        for layer in &self.layers {
            text += &format!("| {} |\n", layer.cells().join(" | "));
        }
        let totals = [thousands(self.params), thousands(self.macs), thousands(self.connections)].join(" | ");
        text + &format!("| **total** | | | {totals} | |\n")
    }
}

impl fmt::Display for Summary {
    /// A table for people: one line a layer, then the totals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 7]> = self.layers.iter().map(LayerSummary::cells).collect();
        let widths: Vec<usize> = (0..HEAD.len())
            .map(|column| rows.iter().map(|row| row[column].len()).chain([HEAD[column].len()]).max().unwrap_or(0).min(WIDEST))
            .collect();
        let write_row = |f: &mut fmt::Formatter<'_>, row: &[String; 7]| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  "))
        };
        write_row(f, &HEAD.map(str::to_owned))?;
        for row in &rows {
            write_row(f, row)?;
        }
        writeln!(f)?;
        writeln!(f, "parameters   {}", thousands(self.params))?;
        writeln!(f, "MACs         {}", thousands(self.macs))?;
        writeln!(f, "connections  {}", thousands(self.connections))?;
        let (training, inference) = (self.activation_bytes_training, self.activation_bytes_inference);
        writeln!(
            f,
            "activations  {} bytes kept in training, {} alive at most in evaluation",
            thousands(training),
            thousands(inference)
        )
    }
}

impl LayerSummary {
    fn cells(&self) -> [String; 7] {
        let count = |n: u64| if n == 0 { "-".to_owned() } else { thousands(n) };
        let op = if self.options.is_empty() { self.op.clone() } else { format!("{} {}", self.op, self.options) };
        let [height, width] = self.receptive_field;
        [
            self.name.clone(),
            op,
            format!("{:?}", self.output),
            count(self.params),
            count(self.macs),
            count(self.connections),
            format!("{height}x{width}"),
        ]
    }
}

/// A count with commas between thousands, as tables have it: `61,706`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_layers::{Activation, AdaptiveAvgPool2d, Add, Conv2d, Flatten, Linear, MaxPool2d};

    fn residual() -> Graph {
        Graph::build(|net| {
            let x = net.input([1, 8, 8]);
            let stem = net.add("stem", Conv2d::same(4, 3), x)?;
            let y = net.add("conv1", Conv2d::same(4, 3), stem)?;
            let y = net.add("relu1", Activation::Relu, y)?;
            let y = net.add("conv2", Conv2d::same(4, 3).no_bias(), y)?;
            let x = net.add("add", Add, [y, stem])?;
            let x = net.add("pool", MaxPool2d::new(2), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(10), x)?;
            net.output("logits", x)
        })
        .unwrap()
    }

    #[test]
    fn receptive_fields_follow_the_longest_way() {
        let summary = residual().summary();
        let sees: Vec<_> = summary.layers.iter().map(|layer| (layer.receptive_field[0], layer.stride[0])).collect();
        assert_eq!(sees, [(1, 1), (3, 1), (5, 1), (5, 1), (7, 1), (7, 1), (8, 2), (8, 2), (8, 8)]);
        assert_eq!(summary.receptive_field, [8, 8]);
        assert_eq!(summary.params, (9 * 4 + 4) + (9 * 16 + 4) + 9 * 16 + (64 * 10 + 10));
        assert_eq!(summary.macs, 64 * (36 + 144 + 144) + 640);
    }

    #[test]
    fn what_has_seen_everything_goes_on_to() {
        let graph = Graph::build(|net| {
            let x = net.input([4, 8, 8]);
            let all = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
            let all = net.add("widen", AdaptiveAvgPool2d::new(8), all)?;
            let sum = net.add("add", Add, [x, all])?;
            let y = net.add("conv", Conv2d::same(4, 3), sum)?;
            net.output("features", y)
        });
        let sees = graph.unwrap().summary().layers.into_iter().map(|layer| layer.receptive_field[0]).collect::<Vec<_>>();
        assert_eq!(sees, [1, 8, 8, 8, 8]);
    }

    #[test]
    fn memory_is_the_sum_in_training_and_the_live_values_in_evaluation() {
        let summary = residual().summary();
        let map = 4 * 4 * 64;
        assert_eq!(summary.activation_bytes_training, 4 * 64 + 5 * map + 2 * map / 4 + 40);
        // stem, the input and the output of a layer of the branch.
        assert_eq!(summary.activation_bytes_inference, 3 * map);
        // By hand: three convolutions and the linear layer; then a ReLU, a sum, the pool's windows and the flattened map.
        let cost = Cost { bytes: 3 * map, macs: 64 * (36 + 144 + 144) + 640, reads: 256 + 256 + 4 * 64 + 64 };
        assert_eq!(residual().cost(), cost);
    }

    #[test]
    fn a_value_that_is_read_twice_is_freed_once() {
        let graph = Graph::build(|net| {
            let x = net.input([4]);
            let y = net.add("relu", Activation::Relu, x)?;
            let sum = net.add("add", Add, [x, y, x])?;
            net.output("sum", sum)
        });
        assert_eq!(graph.unwrap().summary().activation_bytes_inference, 3 * 16);
    }

    #[test]
    fn adaptive_pooling_to_the_same_size_sees_no_more() {
        let graph = Graph::build(|net| {
            let x = net.input([1, 28, 28]);
            let x = net.add("conv", Conv2d::same(1, 3), x)?;
            let x = net.add("quarter", AdaptiveAvgPool2d::new(7), x)?;
            let x = net.add("same", AdaptiveAvgPool2d::new(7), x)?;
            let x = net.add("global", AdaptiveAvgPool2d::global(), x)?;
            net.output("features", x)
        });
        let layers = graph.unwrap().summary().layers;
        let sees: Vec<_> = layers.iter().map(|layer| (layer.receptive_field[0], layer.stride[0])).collect();
        assert_eq!(sees, [(1, 1), (3, 1), (6, 4), (6, 4), (28, 28)]);
    }

    #[test]
    fn counts_that_no_number_holds_stop_at_the_largest() {
        let graph = Graph::build(|net| {
            let x = net.input([1, 1 << 20, 1 << 20]);
            let x = net.add("conv", Conv2d::same(1, (1 << 16) - 1), x)?;
            let x = net.add("conv2", Conv2d::same(1, (1 << 16) - 1), x)?;
            net.output("map", x)
        });
        assert_eq!(graph.unwrap().summary().macs, u64::MAX);
    }

    #[test]
    fn the_table_reads_well() {
        insta::assert_snapshot!(residual().summary());
    }

    #[test]
    fn markdown_has_the_totals() {
        let text = residual().summary().to_markdown();
        assert!(text.contains("| stem | Conv2d 3x3 | [4, 8, 8] | 40 | 2,304 | 2,560 | 3x3 |"), "{text}");
        assert!(text.ends_with("| **total** | | | 982 | 21,376 | 21,898 | |\n"), "{text}");
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let json = serde_json::to_value(residual().summary()).unwrap();
        let layer = &json["layers"][1];
        assert_eq!(layer["name"], "stem");
        assert_eq!(layer["op"], "Conv2d");
        assert_eq!(layer["inputs"], serde_json::json!(["input"]));
        assert_eq!(layer["output"], serde_json::json!([4, 8, 8]));
        assert_eq!(layer["params"], 40);
        assert_eq!(layer["macs"], 64 * 36);
        assert_eq!(layer["receptive_field"], serde_json::json!([3, 3]));
        assert!(json["params"].is_u64() && json["macs"].is_u64());
    }
}
