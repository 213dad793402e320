//! What a lack of memory on a CUDA device is told as.
use crate::program::Program;
use crate::schedule::Memory;
use striate_graph::GraphError;
use striate_layers::LayerError;
use tch::{Device, Kind as Type};

/// Of a device's memory, the share that feature maps may take: weights, workspaces and gaps have the rest.
const USABLE: f64 = 0.6;

/// The bytes of the values of one example that are held at once, where most are.
pub(crate) fn bytes_per_example(program: &Program, memory: &[Memory], kinds: &[Type]) -> u64 {
    let own = |index: usize| {
        let step = &program.steps[index];
        let size = step.shape.numel().unsigned_abs() * kinds[index].elt_size_in_bytes() as u64;
        if memory[index].in_place || step.kind.is_view() { 0 } else { size }
    };
    let (mut held, mut most) = (0, 0);
    for (index, memory) in memory.iter().enumerate() {
        held += own(index);
        most = most.max(held);
        held -= memory.last_uses.iter().map(|index| own(*index)).sum::<u64>();
    }
    most
}

/// The error of a call with so many examples: a lack of memory says what was asked for, what is free, and how many would fit.
pub(crate) fn explained(error: GraphError, device: Device, examples: i64, bytes_per_example: u64) -> GraphError {
    let torch = match &error {
        GraphError::Torch(torch) | GraphError::Layer { source: LayerError::Torch(torch), .. } => torch,
        _ => return error,
    };
    let (Some(lack), Device::Cuda(card)) = (torch.lack_on_gpu(), device) else { return error };
    let fits = (USABLE * lack.total as f64 / bytes_per_example.max(1) as f64) as i64;
    GraphError::OutOfMemory {
        device: format!("cuda:{card}"),
        batch: examples,
        asked: lack.asked,
        free: lack.free,
        fits: (1..examples).contains(&fits).then_some(fits),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plan::{frozen, kinds};
    use crate::schedule::schedule;
    use crate::testing::{conv, network};
    use striate_layers::{Activation, Add, Flatten, Linear};

    /// Of maps of 4x6x6 values, two are held at once: the last convolution writes over what the first gave.
    #[test]
    fn what_is_held_at_once_counts() {
        let network = network(|net, x| {
            let a = net.add("a", conv(), x)?;
            let b = net.add("b", conv(), a)?;
            let b = net.add("relu", Activation::Relu, b)?;
            let c = net.add("c", conv(), b)?;
            let sum = net.add("add", Add, [c, a])?;
            let flat = net.add("flatten", Flatten, sum)?;
            net.add("fc", Linear::new(5), flat)
        });
        let program = frozen(&network).unwrap();
        let memory = schedule(&program);
        let bytes = |kind| bytes_per_example(&program, &memory, &kinds(&program, kind));
        assert_eq!((bytes(Type::Float), bytes(Type::Half)), (2 * 4 * 144, 2 * 2 * 144));
    }

    #[test]
    fn a_lack_of_memory_is_one_line_with_a_batch_that_fits() {
        // What libtorch 2.11 says.
        let message =
            "CUDA out of memory. Tried to allocate 3.06 GiB. GPU 0 has a total capacity of 79.11 GiB of which 17.00 MiB is free.";
        let lacking = || GraphError::from(tch::TchError::Torch(message.to_owned()));
        let told = |examples| explained(lacking(), Device::Cuda(0), examples, 100 << 20).to_string();
        // 60% of 79.11 GiB in parts of 100 MiB.
        let few = "not enough memory on cuda:0 for a batch of 600: 3.1 GiB more needed, 17 MiB free, and about 486 would fit: take a smaller batch";
        assert_eq!(told(600), few);
        assert_eq!(
            told(4),
            "not enough memory on cuda:0 for a batch of 4: 3.1 GiB more needed, 17 MiB free: take a smaller batch"
        );
        assert_eq!(explained(GraphError::NoOutput, Device::Cuda(0), 4, 1), GraphError::NoOutput);
    }
}
