//! Whether a plan's call is worth more than one thread.
use striate_graph::Graph;
use tch::Tensor;

/// Up to so many multiply-adds, and values that other layers read, a call runs on one thread.
///
/// LeNet-5's plan, of 0.42 million multiply-adds an image, takes with one and with two threads of an idle Intel Xeon with AVX-512,
/// in ms: 0.077 and 0.085 for one image, 0.118 and 0.116 for 4, 0.306 and 0.213 for 16 (`cargo xtask bench --full --filter
/// lenet5/plan --filter fp32`). While other programs use all cores, one image took up to five times as long with two threads.
const FEW: u64 = 2_000_000;
/// Up to so many, a network's parameters stay in a core's own cache. More come from memory, which several cores read faster.
const FEW_PARAMETERS: u64 = 1 << 17;

/// What decides it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Width {
    /// The work of one example, and the values of its inputs. Examples of other sizes are taken to cost in proportion.
    work: u64,
    values: u64,
    parameters: u64,
}

impl Width {
    pub(crate) fn of(graph: &Graph) -> Self {
        let cost = graph.cost();
        let values = graph.inputs().map(|input| input.shape.numel().unsigned_abs()).sum();
        Self { work: cost.macs.saturating_add(cost.reads), values, parameters: graph.summary().params }
    }

    /// Whether one thread is best for these batches.
    pub(crate) fn is_one(self, batches: &[&Tensor]) -> bool {
        let values: u64 = batches.iter().map(|batch| u64::try_from(batch.numel()).unwrap_or(u64::MAX)).sum();
        let work = u128::from(self.work) * u128::from(values) / u128::from(self.values.max(1));
        self.parameters <= FEW_PARAMETERS && work <= u128::from(FEW)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{conv, network};
    use crate::{Plan, PlanOptions};
    use striate_graph::GraphError;
    use striate_layers::{Flatten, Linear};
    use tch::{Device, Kind};

    fn zeros(size: &[i64]) -> Tensor {
        Tensor::zeros(size, (Kind::Float, Device::Cpu))
    }

    /// 3x3 from 4 to 4 channels on 6x6: 5184 multiply-adds.
    #[test]
    fn few_multiply_adds_run_on_one_thread() {
        let width = Width::of(network(|net, x| net.add("conv", conv(), x)).graph());
        // 385 images are 1.996 million; four times the pixels are four times the work.
        assert_eq!([385, 386].map(|images| width.is_one(&[&zeros(&[images, 4, 6, 6])])), [true, false]);
        assert_eq!([96, 97].map(|images| width.is_one(&[&zeros(&[images, 4, 12, 12])])), [true, false]);
        // 144 x 1000 weights.
        let heavy = network(|net, x| {
            let x = net.add("flatten", Flatten, x)?;
            net.add("fc", Linear::new(1000), x)
        });
        assert!(!Width::of(heavy.graph()).is_one(&[&zeros(&[1, 4, 6, 6])]));
    }

    #[test]
    fn a_small_call_leaves_its_caller_the_threads() {
        striate_torch::set_num_threads(3);
        let network = network(|net, x| net.add("conv", conv(), x));
        let plan = Plan::new(&network, &PlanOptions::default()).unwrap();
        for (images, inside) in [(1, 1), (400, 3)] {
            let seen = std::cell::Cell::new(0);
            let see = |_: usize, _: &Tensor, _| {
                seen.set(striate_torch::num_threads());
                Ok::<_, GraphError>(())
            };
            plan.run(&[&zeros(&[images, 4, 6, 6])], see).unwrap();
            assert_eq!((seen.get(), striate_torch::num_threads()), (inside, 3));
        }
    }
}
