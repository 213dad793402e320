//! Which pixels a unit sees.
use crate::LabError;
use serde::Serialize;
use std::ops::Range;
use striate::cam::image_shape;
use striate_graph::{Graph, Node, NodeKind};
use striate_layers::{Op, Padding, Receptive};

/// A part of the picture: pixels from `start` to before `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Region {
    /// From top to bottom.
    pub rows: Range<i64>,
    /// From left to right.
    pub columns: Range<i64>,
}

/// One place of a layer's feature maps, as `LAYER:ROW,COLUMN` names it; rows and columns count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// The layer's full name.
    pub layer: String,
    /// From the top.
    pub row: i64,
    /// From the left.
    pub column: i64,
}

impl std::str::FromStr for Unit {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let parse = || {
            let (layer, place) = text.rsplit_once(':')?;
            let (row, column) = place.split_once(',')?;
            let (row, column) = (row.trim().parse().ok()?, column.trim().parse().ok()?);
            (!layer.is_empty()).then(|| Self { layer: layer.to_owned(), row, column })
        };
        parse().ok_or_else(|| LabError::Usage(format!("unit {text}: write it as LAYER:ROW,COLUMN, such as conv1:3,4")))
    }
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{},{}", self.layer, self.row, self.column)
    }
}

/// The part of the network's (first) input that a unit depends on, in whatever channel: the smallest rectangle that holds it,
/// without what lies in the padding. It is what [`Graph::summary`] tells the size of, put in its place.
///
/// # Errors
///
/// No such layer (the nearest name is told), one without rows and columns, or a place outside of its maps.
pub fn receptive_field(graph: &Graph, unit: &Unit) -> Result<Region, LabError> {
    let node = graph.node(&unit.layer)?;
    let [_, height, width] = image_shape(node)?;
    if !(0..height).contains(&unit.row) || !(0..width).contains(&unit.column) {
        return Err(LabError::Usage(format!(
            "unit {unit} lies outside of the maps: {} has {height} rows and {width} columns, counted from 0",
            unit.layer
        )));
    }
    let nodes = graph.nodes();
    let mut seen: Vec<Option<[Range<i64>; 2]>> = vec![None; nodes.len()];
    let last = nodes.iter().position(|other| other.name == node.name).unwrap_or_default();
    seen[last] = Some([unit.row..unit.row + 1, unit.column..unit.column + 1]);
    for index in (0..=last).rev() {
        let (Some(outputs), NodeKind::Layer(op)) = (seen[index].clone(), &nodes[index].kind) else { continue };
        for input in &nodes[index].inputs {
            if let Some(region) = read_by(op, graph, &nodes[index], &nodes[*input], &outputs) {
                seen[*input] = Some(match seen[*input].take() {
                    None => region,
                    Some(other) => [0, 1].map(|axis| union(&region[axis], &other[axis])),
                });
            }
        }
    }
    let input = nodes.iter().zip(seen).find(|(node, _)| matches!(node.kind, NodeKind::Input));
    let [rows, columns] = input.and_then(|(_, seen)| seen).unwrap_or([0..0, 0..0]);
    Ok(Region { rows, columns })
}

fn union(a: &Range<i64>, b: &Range<i64>) -> Range<i64> {
    a.start.min(b.start)..a.end.max(b.end)
}

/// The rows and columns of `input` that these of the layer's output are computed from; none if all lie in the padding.
fn read_by(op: &Op, graph: &Graph, node: &Node, input: &Node, outputs: &[Range<i64>; 2]) -> Option<[Range<i64>; 2]> {
    let (Ok([_, rows, columns]), Ok([_, out_rows, out_columns])) = (input.shape.as_image(), node.shape.as_image()) else {
        let [_, rows, columns] = input.shape.as_image().unwrap_or([1; 3]);
        return Some([0..rows, 0..columns]);
    };
    let axis = |axis: usize, size: i64, out: i64| {
        let read = match Window::of(op, graph, node, axis, size, out) {
            Window::Same => outputs[axis].clone(),
            Window::Everything => 0..size,
            Window::Adaptive => {
                let end = outputs[axis].end * size;
                outputs[axis].start * size / out..(end + out - 1) / out
            }
            Window::Sliding { kernel, stride, dilation, padding } => {
                let first = outputs[axis].start * stride - padding;
                let last = (outputs[axis].end - 1) * stride - padding + dilation * (kernel - 1);
                // Of a window that begins in the padding, only every `dilation`-th row counts.
                let first = if first < 0 { first.rem_euclid(dilation) } else { first };
                first..last + 1
            }
        };
        let read = read.start.max(0)..read.end.min(size);
        (!read.is_empty()).then_some(read)
    };
    Some([axis(0, rows, out_rows)?, axis(1, columns, out_columns)?])
}

/// What one output value reads along one axis.
enum Window {
    /// The value at the same place.
    Same,
    /// All values.
    Everything,
    /// Its share of the input, as adaptive pooling cuts it.
    Adaptive,
    /// A window that moves by `stride` and begins `padding` before the first value.
    Sliding { kernel: i64, stride: i64, dilation: i64, padding: i64 },
}

impl Window {
    fn of(op: &Op, graph: &Graph, node: &Node, axis: usize, size: i64, out: i64) -> Self {
        let sliding = |kernel: i64, stride: i64, dilation: i64, padding: i64| Self::Sliding { kernel, stride, dilation, padding };
        match op {
            Op::Conv2d(conv) => {
                let [kernel, stride, dilation] = [conv.kernel_size, conv.stride, conv.dilation].map(|pair| pair.0[axis]);
                let padding = match conv.padding {
                    Padding::Explicit(pair) => pair.0[axis],
                    Padding::Same => ((out - 1) * stride + dilation * (kernel - 1) + 1 - size).max(0) / 2,
                };
                sliding(kernel, stride, dilation, padding)
            }
            Op::SparseConv2d(conv) => sliding(conv.kernel_size.0[axis], 1, 1, 0),
            Op::MaxPool2d(pool) => {
                sliding(pool.kernel_size.0[axis], pool.stride.0[axis], pool.dilation.0[axis], pool.padding.0[axis])
            }
            Op::AvgPool2d(pool) => sliding(pool.kernel_size.0[axis], pool.stride.0[axis], 1, pool.padding.0[axis]),
            Op::Subsampling2d(pool) => sliding(pool.kernel_size, pool.kernel_size, 1, 0),
            Op::PadShortcut(shortcut) => sliding(1, shortcut.stride.0[axis], 1, 0),
            Op::AdaptiveAvgPool2d(_) | Op::AdaptiveMaxPool2d(_) => Self::Adaptive,
            Op::Activation(_)
            | Op::Add(_)
            | Op::BatchNorm2d(_)
            | Op::Concat(_)
            | Op::Dropout(_)
            | Op::LocalResponseNorm(_)
            | Op::Softmax(_)
            | Op::StochasticDepth(_) => Self::Same,
            Op::Flatten(_) | Op::Linear(_) | Op::RbfOutput(_) => Self::Everything,
            // A window of one's own does not tell where it begins.
            Op::Custom(layer) => match layer.receptive(&graph.input_shapes(node)) {
                Receptive::Pointwise => Self::Same,
                Receptive::Window { .. } | Receptive::Global => Self::Everything,
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_layers::{Activation, Add, AvgPool2d, Concat, Conv2d, MaxPool2d};

    fn unit(text: &str) -> Unit {
        text.parse().unwrap()
    }

    fn region(rows: Range<i64>, columns: Range<i64>) -> Region {
        Region { rows, columns }
    }

    #[test]
    fn a_stack_of_windows_by_hand() {
        let graph = Graph::build(|net| {
            let x = net.input([1, 20, 24]);
            let x = net.add("conv1", Conv2d::new(2, [3, 5]).padding(1), x)?; // [2, 20, 22]
            let x = net.add("pool", MaxPool2d::new(2), x)?; // [2, 10, 11]
            let x = net.add("conv2", Conv2d::same(2, 3), x)?; // [2, 10, 11]
            net.output("logits", x)
        })
        .unwrap();
        let at = |text: &str| receptive_field(&graph, &unit(text)).unwrap();
        assert_eq!(at("conv1:0,0"), region(0..2, 0..4));
        assert_eq!(at("pool:3,4"), region(5..9, 7..13));
        // conv2 reads pool 2..=4 and 3..=5, that is conv1 4..=9 and 6..=11.
        assert_eq!(at("conv2:3,4"), region(3..11, 5..15));
        assert_eq!(at("conv2:9,10"), region(15..20, 17..24));
        assert_eq!(at("input:3,4"), region(3..4, 4..5));
    }

    #[test]
    fn branches_see_what_the_widest_sees() {
        let graph = Graph::build(|net| {
            let x = net.input([1, 16, 16]);
            let a = net.add("a", Conv2d::same(1, 1), x)?;
            let b = net.add("b", Conv2d::same(1, 5), x)?;
            let c = net.add("c", Conv2d::same(1, 3).dilation(3), x)?;
            let sum = net.add("sum", Add, [a, b])?;
            let all = net.add("all", Concat, [sum, c])?;
            net.output("logits", all)
        })
        .unwrap();
        let at = |text: &str| receptive_field(&graph, &unit(text)).unwrap();
        assert_eq!(at("sum:8,8"), region(6..11, 6..11));
        assert_eq!(at("all:8,8"), region(5..12, 5..12));
        // Of the rows -2, 1 and 4 the first lies in the padding.
        assert_eq!(at("c:1,8"), region(1..5, 5..12));
    }

    #[test]
    fn the_size_and_the_distance_are_those_of_the_summary() {
        let graph = Graph::build(|net| {
            let x = net.input([1, 64, 64]);
            let x = net.add("conv1", Conv2d::new(1, 7).stride(2).padding(3), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            let x = net.add("pool", AvgPool2d::new(3).stride(2).padding(1), x)?;
            let x = net.add("conv2", Conv2d::same(1, 3), x)?;
            net.output("logits", x)
        })
        .unwrap();
        for layer in &graph.summary().layers[1..] {
            let middle = layer.output[1] / 2;
            let at = |row, column| receptive_field(&graph, &Unit { layer: layer.name.clone(), row, column }).unwrap();
            let (here, next) = (at(middle, middle), at(middle + 1, middle));
            assert_eq!(here.rows.end - here.rows.start, layer.receptive_field[0], "{}", layer.name);
            assert_eq!(next.rows.start - here.rows.start, layer.stride[0], "{}", layer.name);
        }
    }

    #[test]
    fn a_unit_that_is_not_there_is_told() {
        let graph = Graph::build(|net| {
            let x = net.input([1, 8, 8]);
            let x = net.add("conv", Conv2d::new(2, 3), x)?;
            let x = net.add("flatten", striate_layers::Flatten, x)?;
            net.output("logits", x)
        })
        .unwrap();
        let told = |text: &str| receptive_field(&graph, &unit(text)).unwrap_err().to_string();
        assert_eq!(told("conv:6,0"), "unit conv:6,0 lies outside of the maps: conv has 6 rows and 6 columns, counted from 0");
        assert_eq!(told("covn:0,0"), "there is no layer covn: did you mean conv?");
        assert!(told("flatten:0,0").contains("no rows and columns"));
        for text in ["conv", "conv:1", "conv:a,b", ":1,1"] {
            assert!(text.parse::<Unit>().unwrap_err().to_string().contains("LAYER:ROW,COLUMN"), "{text}");
        }
    }
}
