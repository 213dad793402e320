//! What a step does in a world of several.
use super::World;
use crate::TrainError;
use striate_datasets::Portion;
use striate_graph::{Network, Outputs};
use striate_torch::distributed::{BatchPart, Group, InPart, Reducer, ReducerOptions, in_part};
use tch::Tensor;

/// Sums the gradients of a step over all processes.
#[derive(Debug)]
pub(crate) struct Reduction {
    world: World,
    group: Group,
    options: ReducerOptions,
    /// All that a network has, and of each whether it trained when the reducer was made.
    params: Vec<(Tensor, bool)>,
    /// None before the first step.
    reducer: Option<Reducer>,
    norms: Option<Group>,
    /// The next batch: its examples in all processes, and which of them this one has.
    batch: Option<(usize, Portion)>,
}

impl Reduction {
    pub(super) fn new(
        world: World,
        group: &Group,
        norms: Option<Group>,
        network: &Network,
        options: ReducerOptions,
    ) -> Result<Self, TrainError> {
        let params: Vec<(Tensor, bool)> = network.parameters().map(|param| (param.tensor, false)).collect();
        let device = network.device();
        if params.iter().any(|(param, _)| param.device() != device) {
            let (option, reason) = ("a network on several devices".to_owned(), "cannot be trained by several processes");
            return Err(TrainError::Option { option, reason });
        }
        Ok(Self { world, group: group.clone(), options, params, reducer: None, norms, batch: None })
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn of_batch(&mut self, len: usize, portion: Portion) {
        self.batch = Some((len, portion));
    }

    /// A batch begins of which this process has so many examples: what their mean loss is multiplied by, so that the mean over processes
    /// is that of the whole batch. `weight` is what they weigh, where that is not their number. What layers draw is that of the
    /// whole batch until the guard is dropped.
    pub(crate) fn begin(&mut self, examples: i64, weight: Option<f64>) -> Result<(f64, InPart), TrainError> {
        let (first, total) = match self.batch.take() {
            Some((len, portion)) => {
                let rows = portion.rows(len);
                (rows.start as i64, len as i64)
            }
            // Nobody said it.
            None => {
                let all: Vec<i64> = self.world.gather(&[examples as f64])?.iter().map(|values| values[0] as i64).collect();
                (all[..self.world.rank()].iter().sum(), all.iter().sum())
            }
        };
        let share = match weight {
            Some(weight) => self.world.share_of(weight)?,
            None => examples as f64 * self.world.size() as f64 / total as f64,
        };
        Ok((share, in_part(BatchPart { first, total, norms: self.norms.clone() })))
    }

    /// The same for a part of this process's examples, if they go through in parts: each process draws by itself then.
    pub(crate) fn begin_part(&self, examples: i64) -> InPart {
        let first = examples * self.world.rank() as i64;
        in_part(BatchPart { first, total: examples * self.world.size() as i64, norms: self.norms.clone() })
    }

    /// Before the last backward pass of a step.
    pub(crate) fn prepare(&mut self, outputs: &Outputs) -> Result<(), TrainError> {
        self.world.begin();
        let outputs: Vec<Tensor> = outputs.outputs().iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        Ok(self.reducer()?.prepare(&outputs)?)
    }

    /// The reducer of the parameters that train now: some may have begun to since the last step, and it waits for the gradients of all
    /// that it knows.
    fn reducer(&mut self) -> Result<&mut Reducer, TrainError> {
        let mut changed = self.reducer.is_none();
        for (param, trained) in &mut self.params {
            let trains = param.requires_grad();
            changed |= std::mem::replace(trained, trains) != trains;
        }
        let former = self.reducer.take().filter(|_| !changed);
        let reducer = match former {
            Some(reducer) => reducer,
            None => {
                let trained = self.params.iter().filter(|(_, trained)| *trained);
                let trained: Vec<Tensor> = trained.map(|(param, _)| param.shallow_clone()).collect();
                Reducer::new(&self.group, &trained, self.options)?
            }
        };
        Ok(self.reducer.insert(reducer))
    }
}
