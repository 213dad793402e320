//! A plan in int8: what computes with bytes, and what these stand for, from the values that calibration images give.
use crate::plan::Plan;
use crate::program::{Kind, Program};
use crate::step::Scales;
use striate_graph::GraphError;
use striate_layers::Op;
use striate_torch::TorchError;
use striate_torch::int8::{self, MAX, Scale};
use striate_torch::onednn::Post;
use tch::{Kind as Type, Tensor};

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

/// The scales of all steps' inputs and outputs: those with the least squared error over what the float32 plan of the same program gives for the images.
pub(crate) fn scales(program: &Program, gives: &[bool], float: &Plan, images: &[Tensor]) -> Result<Vec<Scales>, GraphError> {
    let groups = groups(program, gives);
    let counted = |index: usize| !(gives[index] && passes_on(&program.steps[index].kind));
    let mut seen: Vec<Histogram> = groups.iter().map(|_| Histogram::default()).collect();
    for count in [Histogram::widen, Histogram::count] {
        for batch in images {
            let see = |index: usize, value: &Tensor| if counted(index) { count(&mut seen[groups[index]], value) } else { Ok(()) };
            float.run(&[batch], see)?;
        }
    }
    let best = |index: usize| {
        let not_finite =
            || format!("{}: the calibration images give values that are not finite", program.steps[index].layers.join(" + "));
        seen[groups[index]].best_scale().ok_or_else(|| TorchError::new(&not_finite()))
    };
    let outputs: Vec<Scale> = (0..groups.len()).map(best).collect::<Result<_, TorchError>>()?;
    let of = |(index, bytes): (usize, &bool)| {
        let inputs = program.steps[index].inputs.iter().map(|input| outputs[*input]).collect();
        Scales { inputs, output: outputs[index], bytes: *bytes }
    };
    Ok(gives.iter().enumerate().map(of).collect())
}

/// A number for each step, the same for those whose values have one scale.
fn groups(program: &Program, gives: &[bool]) -> Vec<usize> {
    let mut groups: Vec<usize> = (0..program.steps.len()).collect();
    for (index, step) in program.steps.iter().enumerate() {
        if gives[index] && passes_on(&step.kind) {
            for input in &step.inputs {
                let (from, to) = (groups[*input], groups[index]);
                groups.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
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

    /// Takes values into the range.
    fn widen(&mut self, values: &Tensor) -> Result<(), TorchError> {
        if values.numel() > 0 {
            let (low, high) = values.f_aminmax(None::<i64>, false)?;
            // Not `f64::min`, which forgets a NaN.
            let [low, high] = [low.f_double_value(&[])?, high.f_double_value(&[])?];
            (self.low, self.high) =
                (if low >= self.low { self.low } else { low }, if high <= self.high { self.high } else { high });
        }
        self.counts = vec![0; Self::PARTS];
        Ok(())
    }

    /// Counts values of the range.
    fn count(&mut self, values: &Tensor) -> Result<(), TorchError> {
        int8::count(&values.f_to_kind(Type::Float)?, self.low, self.high, &mut self.counts)
    }

    /// The scale with the least squared error: of rounding within its ends, and of clipping beyond them. `None` if values are not finite.
    fn best_scale(&self) -> Option<Scale> {
        let Self { low, high, .. } = *self;
        if !(high - low).is_finite() {
            return None;
        }
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
        let ((low, _), (high, _)) = both.min_by(|a, b| error(a).total_cmp(&error(b)))?;
        // Where all values are 0, any step will do.
        let step = if high > low { (high - low) / MAX as f64 } else { 1.0 };
        Some(Scale { step, zero_point: (-low / step).round() as i64 })
    }
}
