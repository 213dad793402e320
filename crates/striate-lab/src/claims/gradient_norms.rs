//! Whether gradients vanish on their way to the first layers.
use super::per_seed;
use crate::figure::{Axis, Labels, Series, lines};
use crate::training::{classes_of, shape_of};
use crate::{Check, Claim, Finding, Interval, Lab, LabError, Setup, Table};
use serde_json::json;
use striate_graph::{Graph, GraphError, InitOptions, Network, NetworkBuilder, Value};
use striate_layers::loss::cross_entropy;
use striate_layers::{Activation, AdaptiveAvgPool2d, Add, BatchNorm2d, Conv2d, Flatten, Linear, Mode};
use tch::Kind;

pub(super) const CLAIM: Claim = Claim {
    name: "gradient-norms",
    title: "With batch norm, plain networks' gradients do not vanish",
    claim: "That deep plain networks train badly is unlikely to come of vanishing gradients: with batch normalisation, they do not \
            vanish on their way to the first layers.",
    source: "He et al. 2015, section 4.1",
    hypothesis: "At the start of training, the gradient of the first block's weights over that of the last block's, as a power \
                 of ten: above -1 in a plain network with batch norm and in a residual network without, below -3 in a plain \
                 network without (all with PyTorch's default initial values).",
    refuted_if: "the interval of one of the three lies on the other side",
    recipe: Setup::untrained(
        "Blocks of two 3x3 convolutions of one width and size throughout, on a batch of 64 images of 16x16 pixels: 32 layers of 16 \
         channels in a quick run, 56 of 32 in a full one.",
    ),
    seeds: [5, 10],
    minutes: [0.2, 1.0],
    run,
};

/// A network of one width and size throughout.
struct Stack {
    blocks: i64,
    width: i64,
    batch_norm: bool,
    shortcuts: bool,
}

impl Stack {
    fn name(&self) -> String {
        let kind = if self.shortcuts { "residual" } else { "plain" };
        format!("{kind}-{} {} batch norm", 2 * self.blocks + 2, if self.batch_norm { "with" } else { "without" })
    }

    fn graph(&self, input: [i64; 3], classes: i64) -> Result<Graph, GraphError> {
        Graph::build(|net| {
            let x = net.input(input);
            let mut x = self.conv(net, "stem", x)?;
            x = net.add("relu", Activation::Relu, x)?;
            for block in 0..self.blocks {
                let mut scope = net.scope(&format!("block{block}"));
                let y = self.conv(&mut scope, "1", x)?;
                let y = scope.add("relu1", Activation::Relu, y)?;
                let mut y = self.conv(&mut scope, "2", y)?;
                if self.shortcuts {
                    y = scope.add("add", Add, [y, x])?;
                }
                x = scope.add("relu2", Activation::Relu, y)?;
            }
            let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(classes), x)?;
            net.output("logits", x)
        })
    }

    fn conv(&self, net: &mut NetworkBuilder, name: &str, x: Value) -> Result<Value, GraphError> {
        let conv = Conv2d::same(self.width, 3);
        match self.batch_norm {
            true => {
                let x = net.add(&format!("conv{name}"), conv.no_bias(), x)?;
                net.add(&format!("bn{name}"), BatchNorm2d::new(), x)
            }
            false => net.add(&format!("conv{name}"), conv, x),
        }
    }
}

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let (blocks, width) = lab.scale().pick([(15, 16), (27, 32)]);
    let kinds = [(true, false), (false, true), (false, false), (true, true)];
    let mut table = Table::new(["network", "seed", "block", "gradient norm"]);
    let (mut series, mut powers) = (Vec::new(), Vec::new());
    for (batch_norm, shortcuts) in kinds {
        let stack = Stack { blocks, width, batch_norm, shortcuts };
        let norms = per_seed(lab, |lab, seed| {
            let what = format!("{}, seed {seed}", stack.name());
            let settings = json!({ "what": what, "width": width, "type": "float64", "data": lab.data_name() });
            lab.trial(settings, |lab| norms(lab, &stack, seed))
        })?;
        for (seed, norms) in lab.seeds().into_iter().zip(&norms) {
            for (block, norm) in norms.iter().enumerate() {
                table.push([stack.name(), seed.to_string(), block.to_string(), norm.to_string()]);
            }
        }
        powers.push(norms.iter().map(|norms| (norms[0] / norms[norms.len() - 1]).log10()).collect::<Vec<_>>());
        series.push(Series::mean(stack.name(), &norms));
    }
    let what = |at: usize| format!("{}: power of ten of first over last block's gradient", series[at].name);
    let checks = vec![
        Check::above(what(0), Interval::of(&powers[0]), -1.0),
        Check::above(what(1), Interval::of(&powers[1]), -1.0),
        Check::below(what(2), Interval::of(&powers[2]), -3.0),
    ];
    let labels = Labels { title: "Gradients by depth, before the first step", x: "block", y: "norm of the weights' gradient" };
    let remarks = format!(
        "Without shortcuts, batch norm lets gradients grow towards the input instead: the power of ten is {:.1}.",
        Interval::of(&powers[0]).mean
    );
    Ok(Finding { checks, remarks, table, figure: lines(labels, Axis::Log, &series)? })
}

/// The norm of the gradient of each block's second convolution, for a batch of 64 images and initial values of the seed's;
/// in float64, for the squares of gradients that vanish are less than any float32.
fn norms(lab: &mut Lab, stack: &Stack, seed: u64) -> Result<Vec<f64>, LabError> {
    let data = lab.data(16, 4096, 64)?;
    let graph = stack.graph(shape_of(&data), classes_of(&data))?;
    let network = Network::new(graph, &InitOptions { seed, kind: Kind::Double, ..InitOptions::default() })?;
    let batch = lab.batch(&data, 64, seed)?;
    let outputs = network.forward(&batch.images.f_to_kind(Kind::Double)?, Mode::Train)?;
    cross_entropy(outputs.logits(), &batch.labels, 0.0, None)?.f_backward()?;
    let blocks = network.trainable().into_iter().filter(|(name, _)| name.ends_with(".conv2.weight"));
    blocks.map(|(_, weight)| Ok(weight.f_grad()?.f_norm()?.f_double_value(&[])?)).collect()
}
