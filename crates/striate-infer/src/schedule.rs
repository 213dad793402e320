//! When each value is given up, and which steps may write over what they read.
use crate::program::{Kind, Program};
use striate_layers::Op;

/// What a step does with the memory of values.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Whether it writes over the value that [`overwritable`] names.
    pub(crate) in_place: bool,
    /// The steps whose values nobody reads after it.
    pub(crate) last_uses: Vec<usize>,
}

/// The place among a step's inputs of the value that it could write over.
fn overwritable(kind: &Kind) -> Option<usize> {
    match kind {
        Kind::Conv { sum: true, .. } => Some(1),
        Kind::Layer { op: Op::Activation(_) | Op::Add(_), .. } => Some(0),
        _ => None,
    }
}

/// The use of memory of each step.
pub(crate) fn schedule(program: &Program) -> Vec<Memory> {
    let count = program.steps.len();
    // The step that made the memory that a value lies in.
    let mut owners: Vec<usize> = (0..count).collect();
    // Memory that is not the plan's to write over, or that something unknown may keep.
    let mut foreign = vec![false; count];
    let mut last_use: Vec<usize> = (0..count).collect();
    for (index, step) in program.steps.iter().enumerate() {
        match &step.kind {
            Kind::Input => foreign[index] = true,
            Kind::Layer { op: Op::Custom(_), .. } => {
                foreign[index] = true;
                step.inputs.iter().for_each(|input| foreign[owners[*input]] = true);
            }
            kind if kind.is_view() => owners[index] = owners[step.inputs[0]],
            _ => {}
        }
        step.inputs.iter().for_each(|input| last_use[*input] = index);
    }
    program.outputs.iter().for_each(|(_, step)| last_use[*step] = count);
    let mut last_of_memory = vec![0; count];
    for index in 0..count {
        let last = &mut last_of_memory[owners[index]];
        *last = (*last).max(last_use[index]);
    }
    let mut memory = vec![Memory::default(); count];
    for (index, step) in program.steps.iter().enumerate() {
        memory[index].in_place = overwritable(&step.kind).is_some_and(|place| {
            let owner = owners[step.inputs[place]];
            let shared = step.inputs.iter().filter(|input| owners[**input] == owner).count() > 1;
            last_of_memory[owner] == index && !foreign[owner] && !shared
        });
        if last_use[index] < count {
            memory[last_use[index]].last_uses.push(index);
        }
    }
    memory
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::testing::{conv, network, steps};
    use striate_layers::{Activation, Add, Flatten, Forward, Layer, LayerError, Linear, Mode, Op, Shape};
    use tch::Tensor;

    #[test]
    fn a_view_keeps_memory_in_use() {
        let network = network(|net, x| {
            let x = net.add("conv", conv(), x)?;
            let flat = net.add("flatten", Flatten, x)?;
            let relu = net.add("tanh", Activation::ScaledTanh, x)?;
            let both = net.add("flatten2", Flatten, relu)?;
            let sum = net.add("add", Add, [flat, both])?;
            net.add("fc", Linear::new(2), sum)
        });
        let steps = steps(&network);
        assert_eq!(steps[2..5], ["ScaledTanh tanh", "Flatten flatten2", "Add add [in place]"], "{steps:?}");
    }

    /// Gives its input as it is, and may keep it.
    #[derive(Debug)]
    struct Same;

    impl Layer for Same {
        fn name(&self) -> &'static str {
            "Same"
        }

        fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
            Ok(inputs[0].clone())
        }
    }

    impl Forward for Same {
        fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
            Ok(inputs[0].shallow_clone())
        }
    }

    #[test]
    fn what_an_unknown_layer_saw_is_never_written_over() {
        let network = network(|net, x| {
            let x = net.add("conv", conv(), x)?;
            let same = net.add("same", Op::custom(Same), x)?;
            let relu = net.add("relu", Activation::Relu, same)?;
            let tanh = net.add("tanh", Activation::Tanh, x)?;
            net.add("add", Add, [relu, tanh])
        });
        assert_eq!(steps(&network), ["Conv2d conv", "Same same", "ReLU relu", "Tanh tanh", "Add add [in place]"]);
    }
}
