//! Small kernels in a row against one large kernel.
use crate::figure::{Bar, Labels, bars};
use crate::{Check, Claim, Finding, Lab, LabError, Setup, Table};
use striate_models::{DESIGN_INPUT, designs};

pub(super) const CLAIM: Claim = Claim {
    name: "two-3x3",
    title: "Two 3x3 convolutions see what one 5x5 sees",
    claim: "Two 3x3 convolutions in a row have the receptive field of a 5x5, three that of a 7x7, with fewer weights: 18C² \
            against 25C², and 27C² against 49C², where C is the number of channels.",
    source: "Simonyan and Zisserman 2014, section 2.3",
    hypothesis: "Receptive fields and numbers of weights are exactly these, at C = 192.",
    refuted_if: "one of the numbers is another",
    recipe: Setup::untrained("Each design as it is built for 192 channels of 28x28."),
    seeds: [0, 0],
    minutes: [0.1, 0.1],
    run,
};

/// Of each design its receptive field, and its weights in multiples of C².
const DESIGNS: [(&str, i64, u64); 4] = [("one-5x5", 5, 25), ("two-3x3", 5, 18), ("one-7x7", 7, 49), ("three-3x3", 7, 27)];

fn run(_: &mut Lab) -> Result<Finding, LabError> {
    let channels = DESIGN_INPUT[0].unsigned_abs();
    let mut table = Table::new(["design", "receptive field", "weights", "multiply-adds"]);
    let (mut checks, mut figure) = (Vec::new(), Vec::new());
    for (name, sees, multiple) in DESIGNS {
        let design = designs().iter().find(|design| design.name == name);
        let Some(design) = design else { return Err(LabError::Usage(format!("there is no design {name}"))) };
        let summary = design.graph(DESIGN_INPUT)?.summary();
        let convs = summary.layers.iter().filter(|layer| layer.op == "Conv2d").count() as u64;
        let weights = summary.params - channels * convs; // each channel of each convolution has a bias
        checks.push(Check::count(
            format!("receptive field of {name}"),
            summary.receptive_field[0].unsigned_abs(),
            sees.unsigned_abs(),
        ));
        checks.push(Check::count(format!("weights of {name}: {multiple}C²"), weights, multiple * channels * channels));
        table.push([name.to_owned(), sees.to_string(), weights.to_string(), summary.macs.to_string()]);
        figure.push(Bar::exact(name, weights as f64 / (channels * channels) as f64));
    }
    let labels = Labels { title: "Weights for the same receptive field", x: "weights in multiples of C²", y: "" };
    Ok(Finding { checks, remarks: String::new(), table, figure: bars(labels, &figure)? })
}
