//! Ways to build one thing, to be compared by what they cost before anything runs: what the papers argue with.
use crate::{ConvUnit, Inception, ModelError};
use striate_graph::{Graph, GraphError, NetworkBuilder, Value};
use striate_layers::{Conv2d, Init};

/// A small piece of a network, comparable with the others of its group.
#[derive(Debug)]
pub struct Design {
    /// Its name.
    pub name: &'static str,
    /// What it shows together with its neighbours in [`designs`]: the first of a group is what the others are held against.
    pub group: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    define: fn(&mut NetworkBuilder, Value) -> Result<Value, GraphError>,
}

/// The input of inception-3a in GoogLeNet, which all designs take unless told otherwise.
pub const DESIGN_INPUT: [i64; 3] = [192, 28, 28];

/// Filters of the 5x5 branch of inception-3a, and of its bottleneck.
const FILTERS: i64 = 32;
const BOTTLENECK: i64 = 16;

const REDUCE: &str = "a 1x1 bottleneck before a 5x5 convolution (GoogLeNet, section 4)";
const MODULE: &str = "1x1 bottlenecks in an Inception module (GoogLeNet, figure 2)";
const TWO: &str = "two 3x3 convolutions see what a 5x5 sees (VGG, section 2.3)";
const THREE: &str = "three 3x3 convolutions see what a 7x7 sees (VGG, section 2.3)";

/// All designs, group by group.
pub fn designs() -> &'static [Design] {
    DESIGNS
}

const DESIGNS: &[Design] = &[
    Design {
        name: "conv5x5",
        group: REDUCE,
        about: "a 5x5 convolution to 32 channels",
        define: |net, x| convs(net, x, &[(FILTERS, 5)]),
    },
    Design {
        name: "conv5x5-bottleneck",
        group: REDUCE,
        about: "a 1x1 convolution to 16 channels, then 5x5 to 32",
        define: |net, x| convs(net, x, &[(BOTTLENECK, 1), (FILTERS, 5)]),
    },
    Design {
        name: "inception3a-naive",
        group: MODULE,
        about: "1x1 to 64, 3x3 to 128, 5x5 to 32 channels, and max pooling",
        define: |net, x| Inception::naive([64, 128, 32]).add(net, "inception3a", &unit(), x),
    },
    Design {
        name: "inception3a",
        group: MODULE,
        about: "the same with bottlenecks of 96 and 16 channels, and 32 after the pooling",
        define: |net, x| Inception::new([64, 96, 128, 16, 32, 32]).add(net, "inception3a", &unit(), x),
    },
    Design {
        name: "one-5x5",
        group: TWO,
        about: "a 5x5 convolution that keeps the number of channels",
        define: |net, x| stack(net, x, 1, 5),
    },
    Design { name: "two-3x3", group: TWO, about: "two 3x3 convolutions that keep it", define: |net, x| stack(net, x, 2, 3) },
    Design {
        name: "one-7x7",
        group: THREE,
        about: "a 7x7 convolution that keeps the number of channels",
        define: |net, x| stack(net, x, 1, 7),
    },
    Design {
        name: "three-3x3",
        group: THREE,
        about: "three 3x3 convolutions that keep it",
        define: |net, x| stack(net, x, 3, 3),
    },
];

impl Design {
    /// Its graph for an input `[C, H, W]`, with the output `features`.
    pub fn graph(&self, input: [i64; 3]) -> Result<Graph, ModelError> {
        Ok(Graph::build(|net| {
            let x = net.input(input);
            let x = (self.define)(net, x)?;
            net.output("features", x)
        })?)
    }
}

fn unit() -> ConvUnit {
    ConvUnit { batch_norm: false, init: Init::pytorch() }
}

/// Convolutions that keep height and width, given by filters and kernel, each with a bias and a ReLU.
fn convs(net: &mut NetworkBuilder, mut x: Value, convs: &[(i64, i64)]) -> Result<Value, GraphError> {
    for (number, (filters, kernel_size)) in (1..).zip(convs) {
        x = unit().add(net, &format!("unit{number}"), Conv2d::same(*filters, *kernel_size), x)?;
    }
    Ok(x)
}

/// So many of them with as many filters as the input has channels.
fn stack(net: &mut NetworkBuilder, x: Value, count: usize, kernel_size: i64) -> Result<Value, GraphError> {
    let channels = net.shape(x).dims().first().copied().unwrap_or_default();
    convs(net, x, &vec![(channels, kernel_size); count])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::Summary;

    fn summary(name: &str) -> Summary {
        designs().iter().find(|design| design.name == name).unwrap().graph(DESIGN_INPUT).unwrap().summary()
    }

    #[test]
    fn a_bottleneck_takes_a_tenth_of_the_multiplications() {
        let [direct, bottleneck] = ["conv5x5", "conv5x5-bottleneck"].map(summary);
        assert_eq!(direct.macs, 120_422_400);
        let macs: Vec<u64> = bottleneck.layers.iter().map(|layer| layer.macs).filter(|macs| *macs > 0).collect();
        assert_eq!(macs, [2_408_448, 10_035_200]);
        assert_eq!(bottleneck.macs, 12_443_648);
        assert_eq!(format!("{:.2}", direct.macs as f64 / bottleneck.macs as f64), "9.68");
    }

    #[test]
    fn bottlenecks_make_inception_3a_cheaper_and_narrower() {
        let [naive, narrow] = ["inception3a-naive", "inception3a"].map(summary);
        let outputs = [&naive, &narrow].map(|summary| summary.layers.last().unwrap().output.clone());
        assert_eq!(outputs, [[416, 28, 28], [256, 28, 28]]);
        assert_eq!((naive.macs, narrow.macs), (303_464_448, 128_049_152));
        assert_eq!(narrow.params, 163_696);
    }

    /// VGG's section 2.3: 27 C² weights against 49 C², 81% more; by the same count 18 C² against 25 C².
    #[test]
    fn stacks_of_3x3_see_as_much_for_less() {
        let weights = |summary: &Summary| summary.macs / (28 * 28);
        for (stack, single, times, kernel) in [("two-3x3", "one-5x5", [18, 25], 5), ("three-3x3", "one-7x7", [27, 49], 7)] {
            let [stack, single] = [stack, single].map(summary);
            assert_eq!([weights(&stack), weights(&single)], times.map(|times| times * 192 * 192));
            assert_eq!([stack.receptive_field, single.receptive_field], [[kernel; 2]; 2]);
            assert_eq!(stack.layers.last().unwrap().output, single.layers.last().unwrap().output);
        }
    }

    #[test]
    fn an_input_of_no_height_is_an_error() {
        for design in designs() {
            assert!(design.graph([192, 0, 28]).is_err(), "{}", design.name);
        }
    }
}
