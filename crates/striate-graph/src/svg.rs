//! A network as a picture: boxes from top to bottom, branches side by side.
use crate::{Graph, Node, NodeKind};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use striate_layers::{Layer, Op};

/// Sizes in pixels.
const BOX_WIDTH: f64 = 210.0;
const BOX_HEIGHT: f64 = 44.0;
const LANE: f64 = BOX_WIDTH + 20.0;
const ROW: f64 = BOX_HEIGHT + 22.0;
const MARGIN: f64 = 20.0;
/// The room for the block that shows a box's height, width and channels.
const GLYPH: f64 = 50.0;

/// A layer with the normalisations, activations and dropouts right after it, drawn as one box.
struct Block<'g> {
    first: &'g Node,
    label: String,
    shape: &'g [i64],
    inputs: Vec<usize>,
    row: usize,
    lane: usize,
}

impl Graph {
    /// The network drawn as an SVG: a box for each layer (with what follows it value by value), its output as a block of
    /// H x W x C beside its text, branches side by side. The picture needs no other file.
    pub fn to_svg(&self) -> String {
        let blocks = self.blocks();
        let lanes = blocks.iter().map(|block| block.lane + 1).max().unwrap_or(1) as f64;
        let rows = blocks.iter().map(|block| block.row + 1).max().unwrap_or(1) as f64;
        let (width, height) = (2.0 * MARGIN + lanes * LANE - 20.0, 2.0 * MARGIN + rows * ROW - 22.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        for block in &blocks {
            for input in &block.inputs {
                draw_edge(&mut svg, &blocks[*input], block);
            }
        }
        let largest = blocks.iter().filter_map(|block| block.shape.get(1)).max().copied().unwrap_or(1) as f64;
        for block in &blocks {
            draw_block(&mut svg, block, largest);
        }
        svg + "</svg>\n"
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let mut readers = vec![0; self.nodes.len()];
        for input in self.nodes.iter().flat_map(|node| &node.inputs) {
            readers[*input] += 1;
        }
        let mut blocks: Vec<Block> = Vec::new();
        let mut block_of: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let (mut taken, mut first_free) = (HashSet::new(), HashMap::new());
        for node in &self.nodes {
            if let [input] = node.inputs.as_slice()
                && readers[*input] == 1
                && follows_value_by_value(node)
            {
                let block = block_of[*input];
                let _ = write!(blocks[block].label, " + {}", short_name(node));
                block_of.push(block);
                continue;
            }
            block_of.push(blocks.len());
            let inputs: Vec<usize> = node.inputs.iter().map(|input| block_of[*input]).collect();
            let row = inputs.iter().map(|input| blocks[*input].row + 1).max().unwrap_or(0);
            let wanted = inputs.first().map_or(0, |input| blocks[*input].lane);
            let mut lane = wanted;
            if !taken.insert((row, lane)) {
                // All before the first that is free are taken for good.
                let free = first_free.entry(row).or_insert(0);
                *free = (*free..).find(|lane| taken.insert((row, *lane))).unwrap_or(wanted);
                lane = *free;
            }
            let options = node.layer().map_or_else(String::new, Layer::describe);
            let label = format!("{} {options}", short_name(node)).trim().to_owned();
            blocks.push(Block { first: node, label, shape: node.shape.dims(), inputs, row, lane });
        }
        blocks
    }
}

fn follows_value_by_value(node: &Node) -> bool {
    matches!(
        node.kind,
        NodeKind::Layer(
            Op::Activation(_)
                | Op::BatchNorm2d(_)
                | Op::Dropout(_)
                | Op::LocalResponseNorm(_)
                | Op::Softmax(_)
                | Op::StochasticDepth(_)
        )
    )
}

fn short_name(node: &Node) -> &'static str {
    match node.op_name() {
        "BatchNorm2d" => "BN",
        "LocalResponseNorm" => "LRN",
        "AdaptiveAvgPool2d" => "AvgPool to",
        name => name.trim_end_matches("2d"),
    }
}

fn corner(block: &Block) -> (f64, f64) {
    (MARGIN + block.lane as f64 * LANE, MARGIN + block.row as f64 * ROW)
}

fn draw_edge(svg: &mut String, from: &Block, to: &Block) {
    let ((from_x, from_y), (to_x, to_y)) = (corner(from), corner(to));
    let (x1, y1, x2, y2) = (from_x + BOX_WIDTH / 2.0, from_y + BOX_HEIGHT, to_x + BOX_WIDTH / 2.0, to_y);
    // A way that passes boxes goes along their side.
    let bend = if to.row > from.row + 1 && from.lane == to.lane { BOX_WIDTH / 2.0 + 10.0 } else { 0.0 };
    let (c1, c2) = (x1 + 1.33 * bend, x2 + 1.33 * bend);
    let (m1, m2) = if bend > 0.0 { (y1 + 10.0, y2 - 10.0) } else { ((y1 + y2) / 2.0, (y1 + y2) / 2.0) };
    let _ = writeln!(
        svg,
        "<path d=\"M{x1:.0} {y1:.0} C{c1:.0} {m1:.0} {c2:.0} {m2:.0} {x2:.0} {y2:.0}\" fill=\"none\" stroke=\"#888\"/>"
    );
}

fn draw_block(svg: &mut String, block: &Block, largest: f64) {
    let (x, y) = corner(block);
    let color = color(block.first);
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"5\" fill=\"{color}\" fill-opacity=\"0.18\" \
         stroke=\"{color}\"/>"
    );
    draw_glyph(svg, block.shape, (x + 6.0, y + BOX_HEIGHT / 2.0), largest, color);
    let text_x = x + GLYPH + 8.0;
    let dims: Vec<String> = block.shape.iter().map(i64::to_string).collect();
    let lines = [(&block.label, 13.0, "bold"), (&block.first.name, 26.0, "normal"), (&dims.join(" x "), 38.0, "normal")];
    for (text, dy, weight) in lines {
        let (text, y) = (escape(text), y + dy);
        let _ = writeln!(svg, "<text x=\"{text_x}\" y=\"{y}\" font-weight=\"{weight}\">{text}</text>");
    }
}

/// A block whose front is as high as the map, relative to the largest of the network, and as deep as the logarithm of its
/// channels; a vector is a bar.
fn draw_glyph(svg: &mut String, shape: &[i64], (x, middle): (f64, f64), largest: f64, color: &str) {
    let log = |n: i64| (n.max(1) as f64).log2();
    let (side, depth) = match shape {
        [channels, height, _] => (4.0 + 26.0 * (*height as f64 / largest).sqrt(), 1.0 + 1.4 * log(*channels)),
        other => (4.0 + 2.2 * log(other.iter().product()), 0.0),
    };
    let width = if depth > 0.0 { side * 0.7 } else { 5.0 };
    let (top, bottom) = (middle - side / 2.0 + depth / 4.0, middle + side / 2.0 + depth / 4.0);
    let (right, lift) = (x + width, depth / 2.0);
    let _ = writeln!(
        svg,
        "<path d=\"M{x:.1} {top:.1} L{:.1} {:.1} L{:.1} {:.1} L{:.1} {:.1} L{right:.1} {bottom:.1} L{x:.1} {bottom:.1} Z M{x:.1} {top:.1} \
         L{right:.1} {top:.1} L{right:.1} {bottom:.1} M{right:.1} {top:.1} L{:.1} {:.1}\" fill=\"{color}\" fill-opacity=\"0.6\" stroke=\"#444\" \
         stroke-width=\"0.6\"/>",
        x + depth,
        top - lift,
        right + depth,
        top - lift,
        right + depth,
        bottom - lift,
        right + depth,
        top - lift
    );
}

fn color(node: &Node) -> &'static str {
    match &node.kind {
        NodeKind::Input => "#888888",
        NodeKind::Layer(Op::Conv2d(_) | Op::SparseConv2d(_)) => "#2f6fb3",
        NodeKind::Layer(Op::Linear(_) | Op::RbfOutput(_)) => "#8d4bb0",
        NodeKind::Layer(Op::Add(_) | Op::Concat(_) | Op::PadShortcut(_)) => "#c0392b",
        NodeKind::Layer(
            Op::MaxPool2d(_) | Op::AvgPool2d(_) | Op::AdaptiveAvgPool2d(_) | Op::AdaptiveMaxPool2d(_) | Op::Subsampling2d(_),
        ) => "#2e8b57",
        NodeKind::Layer(_) => "#b7791f",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::Graph;
    use striate_layers::{Activation, Add, BatchNorm2d, Concat, Conv2d, MaxPool2d};

    #[test]
    fn blocks_fold_what_follows_and_branches_get_lanes() {
        let graph = Graph::build(|net| {
            let x = net.input([3, 8, 8]);
            let a = net.add("a", Conv2d::same(3, 3), x)?;
            let a = net.add("a_bn", BatchNorm2d::new(), a)?;
            let b = net.add("b", MaxPool2d::new(3).stride(1).padding(1), x)?;
            let sum = net.add("sum", Add, [a, b])?;
            let relu = net.add("relu", Activation::Relu, sum)?;
            let x = net.add("cat", Concat, [relu, x])?;
            net.output("logits", x)
        })
        .unwrap();
        let blocks = graph.blocks();
        let seen: Vec<_> = blocks.iter().map(|block| (block.label.as_str(), block.row, block.lane)).collect();
        let expected = [("Input", 0, 0), ("Conv 3x3 + BN", 1, 0), ("MaxPool 3x3", 1, 1), ("Add + ReLU", 2, 0), ("Concat", 3, 0)];
        assert_eq!(seen, expected);
        let svg = graph.to_svg();
        assert_eq!(svg.matches("<rect").count(), 1 + blocks.len());
        assert!(svg.contains("6 x 8 x 8") && svg.ends_with("</svg>\n"));
    }
}
