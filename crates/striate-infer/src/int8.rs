//! A plan in int8: what computes with bytes, and what these stand for, from the values that calibration images give.
use crate::PlanError;
use crate::plan::{Plan, PlanOptions, frozen, kinds};
use crate::program::{Kind, Program};
use crate::step::Scales;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use striate_graph::Network;
use striate_layers::Op;
use striate_torch::TorchError;
use striate_torch::int8::{self, MAX, Scale};
use striate_torch::onednn::Post;
use tch::{Device, Kind as Type, Tensor};

/// Whether a step computes with bytes, where its inputs are such or can become such.
pub(crate) fn takes_bytes(kind: &Kind) -> bool {
    matches!(kind, Kind::Conv { .. } | Kind::Linear { .. }) || passes_on(kind)
}

/// Whether a step gives values of its inputs as they are: they all have one scale.
fn passes_on(kind: &Kind) -> bool {
    match kind {
        Kind::Channels { .. } | Kind::Layer { op: Op::Concat(_) | Op::Flatten(_), .. } => true,
        Kind::Layer { op: Op::MaxPool2d(pool), .. } => pool.dilation.0 == [1, 1],
        _ => false,
    }
}

/// Whether each step gives bytes. What passes values on computes with bytes only if all its inputs are such: `kinds` is changed where not.
pub(crate) fn gives_bytes(program: &Program, kinds: &mut [Type]) -> Vec<bool> {
    let mut gives = vec![false; kinds.len()];
    for (index, step) in program.steps.iter().enumerate() {
        gives[index] = kinds[index] == Type::Uint8
            && match &step.kind {
                Kind::Conv { post, .. } | Kind::Linear { post, .. } => matches!(post, Post::None | Post::Relu),
                _ => step.inputs.iter().all(|input| gives[*input]),
            };
        if !gives[index] && passes_on(&step.kind) {
            kinds[index] = Type::Float;
        }
    }
    let mut read = vec![false; kinds.len()];
    for (step, kind) in program.steps.iter().zip(kinds) {
        step.inputs.iter().for_each(|input| read[*input] |= *kind == Type::Uint8);
    }
    for (index, step) in program.steps.iter().enumerate() {
        // Float32 costs nothing where everything would make it of the bytes; a sum is written over bytes.
        if !read[index] && matches!(step.kind, Kind::Conv { sum: false, .. } | Kind::Linear { .. }) {
            gives[index] = false;
        }
    }
    gives
}

/// What stands between the names of a step's layers; no name of a layer has a space.
const BETWEEN: &str = " + ";

/// What the bytes of each feature map stand for in a plan in int8: plain data, which can be kept and used again for the same network.
///
/// Made by [`Calibration::measure`]. In JSON it is an object with the layers that a step of the plan stands for, and for each the
/// [`Scale`] of what they give. Text keeps it exactly if its reader rounds numbers correctly (serde_json's `float_roundtrip`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Calibration {
    scales: BTreeMap<String, Scale>,
}

impl Calibration {
    /// Measures which values each feature map takes, on batches of the network's one input such as it will get: a few hundred images are enough.
    /// Values beyond the chosen range are clipped; the range has the least squared error.
    ///
    /// Any CPU can measure. Fails without images, if a layer gives values that are not finite, and as [`Plan::forward`] does.
    pub fn measure(network: &Network, images: &[Tensor]) -> Result<Self, PlanError> {
        if network.device() != Device::Cpu {
            return Err(PlanError::NoInt8);
        }
        if images.iter().all(|batch| batch.numel() == 0) {
            return Err(PlanError::NoImages);
        }
        let _no_grad = striate_torch::no_grad();
        let program = frozen(network)?;
        let gives = gives_bytes(&program, &mut kinds(&program, Type::Uint8));
        let float = Plan::new(network, &PlanOptions::default())?;
        let groups = groups(&program, &gives);
        let counted = |index: usize| !(gives[index] && passes_on(&program.steps[index].kind));
        let mut seen: Vec<Histogram> = groups.iter().map(|_| Histogram::default()).collect();
        for take in [Histogram::widen, Histogram::count] {
            for batch in images {
                float.run(&[batch], |index, value, _| match counted(index) && !take(&mut seen[groups[index]], value)? {
                    true => Err(PlanError::NotFinite { layers: name(&program, index) }),
                    false => Ok(()),
                })?;
            }
        }
        let first_of_each = (0..groups.len()).filter(|index| groups[*index] == *index);
        Ok(Self { scales: first_of_each.map(|index| (name(&program, index), seen[index].best_scale())).collect() })
    }

    /// The names of layers that a plan computes in one step, in their order, and the scale of what the last of them gives. Layers that
    /// pass on what they read, such as max pooling, have the scale of that.
    pub fn steps(&self) -> impl Iterator<Item = (impl Iterator<Item = &str>, Scale)> {
        self.scales.iter().map(|(layers, scale)| (layers.split(BETWEEN), *scale))
    }

    /// The scales of all steps' inputs and outputs.
    pub(crate) fn scales(&self, program: &Program, gives: &[bool]) -> Result<Vec<Scales>, PlanError> {
        let groups = groups(program, gives);
        let of = |index: usize| match self.scales.get(&name(program, index)) {
            Some(scale) if scale.is_valid() => Ok(*scale),
            Some(scale) => Err(format!("{} cannot have {scale:?}", name(program, index))),
            None => Err(format!("it has no scale for {}", name(program, index))),
        };
        let misfit = |reason| PlanError::Misfit { reason };
        let outputs: Vec<Scale> = groups.iter().map(|first| of(*first)).collect::<Result<_, _>>().map_err(misfit)?;
        let known: BTreeSet<String> = groups.iter().map(|first| name(program, *first)).collect();
        if let Some(other) = self.scales.keys().find(|layers| !known.contains(*layers)) {
            return Err(misfit(format!("it has a scale for {other}, which the network lacks")));
        }
        let of_step = |(index, bytes): (usize, &bool)| {
            let inputs = program.steps[index].inputs.iter().map(|input| outputs[*input]).collect();
            Scales { inputs, output: outputs[index], bytes: *bytes }
        };
        Ok(gives.iter().enumerate().map(of_step).collect())
    }
}

/// The layers that a step stands for.
fn name(program: &Program, index: usize) -> String {
    program.steps[index].layers.join(BETWEEN)
}

/// For each step the first one whose values have the same scale.
fn groups(program: &Program, gives: &[bool]) -> Vec<usize> {
    let mut groups: Vec<usize> = (0..program.steps.len()).collect();
    for (index, step) in program.steps.iter().enumerate() {
        if gives[index] && passes_on(&step.kind) {
            for input in &step.inputs {
                let (one, other) = (groups[*input], groups[index]);
                let (first, later) = (one.min(other), one.max(other));
                groups.iter_mut().filter(|group| **group == later).for_each(|group| *group = first);
            }
        }
    }
    groups
}

/// How often values were seen.
#[derive(Debug, Default)]
struct Histogram {
    /// The range of the values and 0.
    low: f64,
    high: f64,
    /// In equal parts of the range, but for zeros.
    counts: Vec<i64>,
}

impl Histogram {
    const PARTS: usize = 2048;
    /// How many ends of the range are tried on each side.
    const ENDS: usize = 64;

    /// Takes values into the range; false if some are not finite.
    fn widen(&mut self, values: &Tensor) -> Result<bool, TorchError> {
        if values.numel() > 0 {
            let (low, high) = values.f_aminmax(None::<i64>, false)?;
            let (low, high) = (low.f_double_value(&[])?, high.f_double_value(&[])?);
            if !(low.is_finite() && high.is_finite()) {
                return Ok(false);
            }
            (self.low, self.high) = (self.low.min(low), self.high.max(high));
        }
        self.counts = vec![0; Self::PARTS];
        Ok(true)
    }

    /// Counts values of the range, which are finite.
    fn count(&mut self, values: &Tensor) -> Result<bool, TorchError> {
        int8::count(&values.f_to_kind(Type::Float)?, self.low, self.high, &mut self.counts)?;
        Ok(true)
    }

    /// The scale with the least squared error: of rounding within its ends, and of clipping beyond them.
    fn best_scale(&self) -> Scale {
        let Self { low, high, .. } = *self;
        let part = (high - low) / Self::PARTS as f64;
        let values: Vec<(f64, f64)> =
            self.counts.iter().enumerate().map(|(index, count)| (low + (index as f64 + 0.5) * part, *count as f64)).collect();
        let total: f64 = values.iter().map(|(_, count)| count).sum();
        // Each end, and what clipping there costs.
        let ends = |end: f64| -> Vec<(f64, f64)> {
            let clipped = |at: f64| move |(value, count): &(f64, f64)| count * ((value - at) * end.signum()).max(0.0).powi(2);
            let ends = (1..=Self::ENDS).map(|step| end * step as f64 / Self::ENDS as f64);
            ends.map(|at| (at, values.iter().map(clipped(at)).sum())).collect()
        };
        let none = vec![(0.0, 0.0)];
        let lows = if low < 0.0 { ends(low) } else { none.clone() };
        let highs = if high > 0.0 { ends(high) } else { none };
        let both = lows.iter().flat_map(|low| highs.iter().map(move |high| (low, high)));
        let error = |((low, clipped_low), (high, clipped_high)): &(&(f64, f64), &(f64, f64))| {
            // Rounding errors are spread evenly over a step.
            total * ((high - low) / MAX as f64).powi(2) / 12.0 + clipped_low + clipped_high
        };
        let (low, high) = both.min_by(|a, b| error(a).total_cmp(&error(b))).map_or((low, high), |(low, high)| (low.0, high.0));
        scale_of(low, high)
    }
}

/// The scale whose bytes reach from `low` to `high`, with 0 between them.
fn scale_of(low: f64, high: f64) -> Scale {
    // Where all values are 0, any step will do.
    let step = if high > low { (high - low) / MAX as f64 } else { 1.0 };
    Scale { step, zero_point: (-low / step).round() as i64 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{conv, network};
    use striate_graph::{GraphError, NetworkBuilder, Value};
    use striate_layers::{Activation, Add, Concat, Conv2d, Flatten, Linear, LocalResponseNorm, MaxPool2d, Mode};

    fn histogram(values: &Tensor) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.widen(values).unwrap();
        histogram.count(values).unwrap();
        histogram
    }

    /// The squared error of values as bytes.
    fn error(scale: Scale, values: &Tensor) -> f64 {
        let rounded = scale.dequantize(&scale.quantize(values).unwrap()).unwrap();
        (rounded - values).square().sum(Type::Double).double_value(&[])
    }

    #[test]
    fn the_scale_has_a_smaller_error_than_the_whole_range_and_than_its_neighbours() {
        striate_torch::manual_seed(1);
        let normal = Tensor::randn([100_000], (Type::Float, Device::Cpu));
        let even = Tensor::rand([1_000_000], (Type::Float, Device::Cpu));
        let with_outlier = Tensor::cat(&[even, Tensor::from_slice(&[20.0_f32])], 0);
        // And what share of the whole range's error it may have.
        for (values, share) in [(normal.relu(), 1.0), (normal, 1.0), (-&with_outlier, 0.5), (with_outlier, 0.5)] {
            let histogram = histogram(&values);
            let scale = histogram.best_scale();
            let zero_point = if values.min().double_value(&[]) >= 0.0 { Some(0) } else { None };
            assert_eq!(zero_point.unwrap_or(scale.zero_point), scale.zero_point);
            assert!((0..=MAX).contains(&scale.zero_point));
            let least = error(scale, &values);
            let other = |factor: f64| error(Scale { step: scale.step * factor, ..scale }, &values);
            let whole = error(scale_of(histogram.low, histogram.high), &values);
            assert!(least < share * whole, "{scale:?}: {least} {whole}");
            assert!(least < 1.02 * other(1.1) && least < 1.02 * other(0.9), "{scale:?}: {least} {} {}", other(1.1), other(0.9));
        }
    }

    #[test]
    fn zeros_alone_have_a_scale_and_what_is_not_finite_is_an_error() {
        assert_eq!(histogram(&Tensor::from_slice(&[0.0_f32, 0.0])).best_scale(), Scale { step: 1.0, zero_point: 0 });
        for value in [f32::NAN, f32::INFINITY] {
            assert!(!Histogram::default().widen(&Tensor::from_slice(&[0.0, value, 1.0])).unwrap());
        }
    }

    fn images(batch: i64, [height, width]: [i64; 2]) -> Tensor {
        striate_torch::manual_seed(2);
        Tensor::randn([batch, 4, height, width], (Type::Float, Device::Cpu))
    }

    /// Each step of the plan with its scale and whether it gives bytes; fails unless the plan computes nearly what the network does.
    fn steps(network: &Network) -> Vec<(String, Scale, bool)> {
        let plan = Plan::calibrated(network, &[images(64, [6, 6]), images(8, [6, 6])]).unwrap();
        let _no_grad = striate_torch::no_grad();
        for (batch, size) in [(1, [6, 6]), (3, [6, 6]), (2, [9, 7])] {
            let images = images(batch, size);
            let Ok(expected) = network.forward(&images, Mode::Eval) else { continue };
            let got = plan.forward(&images).unwrap();
            assert_eq!(plan.forward(&images).unwrap().outputs(), got.outputs(), "a second call differs");
            for ((name, expected), (_, got)) in expected.outputs().iter().zip(got.outputs()) {
                let worst = ((got - expected).abs().max() / expected.abs().max()).double_value(&[]);
                assert!(worst < 0.1, "{name} differs by {worst:.1e} at {batch} {size:?}:\n{plan}");
            }
        }
        let program = frozen(network).unwrap();
        let mut kinds = kinds(&program, Type::Uint8);
        let gives = gives_bytes(&program, &mut kinds);
        let scales = Calibration::measure(network, &[images(64, [6, 6])]).unwrap().scales(&program, &gives).unwrap();
        plan.to_string()
            .lines()
            .map(str::to_owned)
            .zip(scales)
            .map(|(line, scales)| (line, scales.output, scales.bytes))
            .collect()
    }

    fn lines(steps: &[(String, Scale, bool)]) -> Vec<&str> {
        steps.iter().map(|(line, ..)| line.as_str()).collect()
    }

    fn conv_relu(net: &mut NetworkBuilder, name: &str, conv: Conv2d, x: Value) -> Result<Value, GraphError> {
        let x = net.add(name, conv, x)?;
        net.add(&format!("{name}.relu"), Activation::Relu, x)
    }

    #[test]
    fn what_passes_values_on_has_their_scale() {
        if skipped() {
            return;
        }
        let network = network(|net, x| {
            let x = conv_relu(net, "stem", conv(), x)?;
            let pooled = net.add("pool", MaxPool2d::new(3).stride(1).padding(1), x)?;
            let a = conv_relu(net, "a", Conv2d::new(5, 1), pooled)?;
            let b = conv_relu(net, "b", Conv2d::new(3, 1), pooled)?;
            let b = conv_relu(net, "c", conv(), b)?;
            let x = net.add("concat", Concat, [a, b])?;
            let x = conv_relu(net, "d", conv(), x)?;
            net.add("last", conv(), x)
        });
        let steps = steps(&network);
        assert_eq!(
            lines(&steps),
            [
                "Input input",
                "Conv2d stem + stem.relu [oneDNN, int8]",
                "MaxPool2d pool [int8]",
                "Conv2d a + a.relu + b + b.relu [oneDNN, int8]",
                "Channels 0..5 [int8]",
                "Channels 5..8 [int8]",
                "Conv2d c + c.relu [oneDNN, int8]",
                "Concat concat [int8]",
                "Conv2d d + d.relu [oneDNN, int8]",
                "Conv2d last [oneDNN, int8]",
            ]
        );
        let groups: Vec<&[usize]> = vec![&[1, 2], &[3, 4, 5, 6, 7], &[8], &[9]];
        for group in &groups {
            assert!(group.iter().all(|index| steps[*index].1 == steps[group[0]].1), "{steps:?}");
        }
        assert!(groups.windows(2).all(|pair| steps[pair[0][0]].1 != steps[pair[1][0]].1), "{steps:?}");
        assert_eq!(
            steps.iter().map(|step| step.2).collect::<Vec<_>>(),
            [false, true, true, true, true, true, true, true, true, false]
        );
    }

    fn skipped() -> bool {
        let skipped = !int8::available();
        if skipped {
            println!("skipped: no AVX-512 VNNI or AVX-VNNI");
        }
        skipped
    }

    #[test]
    fn what_bytes_do_not_fit_is_computed_in_float32() {
        if skipped() {
            return;
        }
        let network = network(|net, x| {
            let x = net.add("first", conv(), x)?;
            let x = net.add("tanh", Activation::Tanh, x)?;
            let x = net.add("pool", MaxPool2d::new(2), x)?;
            let x = conv_relu(net, "second", Conv2d::new(4, 2).padding(1), x)?;
            let x = net.add("norm", LocalResponseNorm::new(3), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("hidden", Linear::new(20), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            net.add("fc", Linear::new(5), x)
        });
        let steps = steps(&network);
        assert_eq!(
            lines(&steps),
            [
                "Input input",
                "Conv2d first + tanh [oneDNN, int8]",
                "MaxPool2d pool",
                "Conv2d second + second.relu [oneDNN, int8]",
                "LocalResponseNorm norm",
                "Flatten flatten",
                "Linear hidden + relu [oneDNN, int8]",
                "Linear fc [pointwise]",
            ]
        );
        assert!(steps.iter().all(|step| !step.2), "{steps:?}");
    }

    #[test]
    fn shortcuts_are_written_over_only_where_nobody_reads_them_again() {
        if skipped() {
            return;
        }
        for (read_again, relu) in [(false, true), (true, true), (true, false)] {
            let network = network(|net, x| {
                let x = net.add("stem", conv(), x)?;
                let x = if relu { net.add("stem.relu", Activation::Relu, x)? } else { x };
                let y = conv_relu(net, "a", conv(), x)?;
                let y = net.add("b", conv(), y)?;
                let y = net.add("add", Add, [y, x])?;
                let y = net.add("add.relu", Activation::Relu, y)?;
                let y = if read_again { net.add("both", Concat, [y, x])? } else { y };
                net.add("last", Conv2d::same(4, 1), y)
            });
            let steps = steps(&network);
            let sum = steps.iter().find(|(line, ..)| line.contains("add")).unwrap();
            assert_eq!(sum.0.contains("in place"), !read_again, "{steps:?}");
            assert_eq!(steps[1].1.zero_point == 0, relu);
        }
    }

    #[test]
    fn an_output_of_bytes_is_given_in_float32_and_uneven_padding_is_the_zero_point() {
        if skipped() {
            return;
        }
        let network = network(|net, x| {
            let x = net.add("stem", conv(), x)?;
            net.output("stem", x)?;
            net.add("last", Conv2d::same(4, 2), x)
        });
        let steps = steps(&network);
        assert!(steps[1].2 && steps[1].1.zero_point > 50, "{steps:?}");
    }
}
