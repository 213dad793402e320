//! What valid and "same" convolutions do to height and width, and what the classic networks make of it.
use crate::figure::{Axis, Labels, Series, lines};
use crate::{Check, Claim, Finding, Lab, LabError, Setup, Table};
use striate_graph::Graph;
use striate_layers::Conv2d;
use striate_models::find;

pub(super) const CLAIM: Claim = Claim {
    name: "shapes",
    title: "Height and width fall while channels grow",
    claim: "A valid convolution with a kernel of k shrinks n values to n - k + 1; a same convolution keeps n. In LeNet-5, AlexNet \
            and VGG, height and width fall from input to output while the number of channels grows.",
    source: "LeCun et al. 1998, figure 2; Krizhevsky et al. 2012, figure 2; Simonyan and Zisserman 2014, table 1",
    hypothesis: "The shapes of LeNet-5, AlexNet (2012) and VGG-16 are exactly the papers'; valid convolutions give n - k + 1 and \
                 same ones n, for every odd kernel up to 11 at sizes of 11 to 32.",
    refuted_if: "one of the shapes is another",
    recipe: Setup::untrained("The shapes that each network's layers have as it is built, and those of single convolutions."),
    seeds: [0, 0],
    minutes: [0.1, 0.1],
    run,
};

/// Of each network the channels and heights, one pair for each change of either.
const TRACES: [(&str, &[[i64; 2]]); 3] = [
    ("lenet5", &[[1, 32], [6, 28], [6, 14], [16, 10], [16, 5]]),
    ("alexnet-paper", &[[3, 227], [96, 55], [96, 27], [256, 27], [256, 13], [384, 13], [256, 13], [256, 6]]),
    ("vgg16", &[[3, 224], [64, 224], [64, 112], [128, 112], [128, 56], [256, 56], [256, 28], [512, 28], [512, 14], [512, 7]]),
];

fn run(_: &mut Lab) -> Result<Finding, LabError> {
    let (mut checks, mut table, mut series) = (Vec::new(), Table::new(["network", "place", "channels", "height"]), Vec::new());
    for (name, expected) in TRACES {
        let trace = trace(&find(name)?.model(&[])?.graph()?);
        let told: Vec<String> = trace.iter().map(|[channels, height]| format!("{channels}x{height}x{height}")).collect();
        checks.push(Check::exact(format!("{name} has its paper's shapes"), trace == expected, told.join(" → ")));
        for (place, [channels, height]) in trace.iter().enumerate() {
            table.push([name.to_owned(), place.to_string(), channels.to_string(), height.to_string()]);
        }
        let points = |at: usize| trace.iter().enumerate().map(|(x, pair)| (x as f64, pair[at] as f64)).collect();
        series.push(Series { name: format!("{name}: height"), points: points(1), dashed: false });
        series.push(Series { name: format!("{name}: channels"), points: points(0), dashed: true });
    }
    for (what, same) in [("a valid convolution gives n - k + 1", false), ("a same convolution gives n", true)] {
        let mut cases = 0;
        let mut wrong = Vec::new();
        for (k, n) in [1, 3, 5, 7, 9, 11].into_iter().flat_map(|k| (11..=32).map(move |n| (k, n))) {
            let graph = Graph::build(|net| {
                let x = net.input([1, n, n]);
                let x = net.add("conv", if same { Conv2d::same(1, k) } else { Conv2d::new(1, k) }, x)?;
                net.output("out", x)
            })?;
            cases += 1;
            let height = trace(&graph).last().map(|[_, height]| *height);
            if height != Some(if same { n } else { n - k + 1 }) {
                wrong.push(format!("n = {n}, k = {k}"));
            }
        }
        let measured = if wrong.is_empty() { format!("in all {cases} cases") } else { format!("not with {}", wrong.join("; ")) };
        checks.push(Check::exact(what, wrong.is_empty(), measured));
    }
    let figure = lines(Labels { title: "Height and channels", x: "changes of shape", y: "" }, Axis::Log, &series)?;
    Ok(Finding { checks, remarks: String::new(), table, figure })
}

/// Channels and height of the images within a network, without repetitions.
fn trace(graph: &Graph) -> Vec<[i64; 2]> {
    let images = graph.nodes().iter().filter_map(|node| node.shape.as_image().ok());
    let mut trace: Vec<[i64; 2]> = images.map(|[channels, height, _]| [channels, height]).collect();
    trace.dedup();
    trace
}
