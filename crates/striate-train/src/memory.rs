//! What a lack of memory is told as.
use crate::TrainError;
use striate_graph::{Graph, GraphError};
use striate_layers::LayerError;
use striate_torch::{TorchError, available_memory};
use tch::Device;

/// Of what is free, the share that activations may take: gradients of feature maps, workspaces and
/// gaps have the rest.
const USABLE: f64 = 0.6;

/// The error of a step with `batch` images, `parts` of which go through the network one after
/// another. A lack of memory says how many would fit.
pub(crate) fn explained(error: TrainError, graph: &Graph, device: Device, batch: usize, parts: usize) -> TrainError {
    let Some(torch) = of_torch(&error).filter(|torch| torch.is_out_of_memory()) else { return error };
    let memory = match device {
        Device::Cpu => available_memory().map(|bytes| bytes as f64),
        _ => torch.lack_on_gpu().map(|lack| lack.total as f64),
    };
    let at_once = batch.div_ceil(parts.max(1));
    let fits = memory.map(|memory| fitting(graph, memory)).filter(|fits| (1..at_once as u64).contains(fits));
    TrainError::OutOfMemory { device: format!("{device:?}").to_lowercase(), batch: at_once, fits }
}

fn of_torch(error: &TrainError) -> Option<&TorchError> {
    match error {
        TrainError::Torch(error)
        | TrainError::Layer(LayerError::Torch(error))
        | TrainError::Graph(GraphError::Torch(error) | GraphError::Layer { source: LayerError::Torch(error), .. }) => Some(error),
        _ => None,
    }
}

/// How many images a step takes within so many bytes, by the network's own account.
fn fitting(graph: &Graph, memory: f64) -> u64 {
    (USABLE * memory / graph.summary().activation_bytes_training.max(1) as f64) as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_layers::{Flatten, Linear};
    use tch::{Kind, Tensor};

    /// 256 values of the input, the same flat, and 64 more: 2304 bytes.
    fn graph() -> Graph {
        let graph = Graph::build(|net| {
            let x = net.input([1, 16, 16]);
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(64), x)?;
            net.output("logits", x)
        });
        graph.unwrap()
    }

    #[test]
    fn a_lack_of_memory_names_the_batch_and_what_fits() {
        let graph = graph();
        assert_eq!(fitting(&graph, 2304.0 * 10.0), 6);
        let lacking = || TrainError::from(Tensor::f_empty([1 << 52], (Kind::Float, Device::Cpu)).unwrap_err());
        let told = explained(lacking(), &graph, Device::Cpu, 1 << 60, 4).to_string();
        assert!(told.starts_with(&format!("not enough memory on cpu for a batch of {}, and about ", 1_u64 << 58)), "{told}");
        assert!(told.contains(" would fit: take a smaller one"), "{told}");
        let few = explained(lacking(), &graph, Device::Cpu, 1, 1).to_string();
        assert!(few.starts_with("not enough memory on cpu for a batch of 1: take a smaller one"), "{few}");
        let other = TrainError::from(Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).f_reshape([7]).unwrap_err());
        assert!(matches!(explained(other, &graph, Device::Cpu, 8, 1), TrainError::Torch(_)));
    }
}
