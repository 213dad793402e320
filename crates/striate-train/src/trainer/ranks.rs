//! What a run does in a world of several processes.
use super::{OnNan, Trainer};
use crate::distributed::World;
use crate::error::check;
use crate::{Step, TrainError};
use tch::Tensor;

impl Trainer<'_> {
    /// Trains together with the other processes of a world, which make the same run: call it before [`resume`](Self::resume). Both
    /// loaders load this process's [portion](World::portion) of each batch. Rank 0 writes the checkpoints; all read them, so their
    /// folder is one that all see.
    ///
    /// The run is that of one process with the same batches, but for rounding and for batch norm (see
    /// [`StepOptions::sync_batch_norm`](crate::StepOptions::sync_batch_norm)). With the same number of processes it is
    /// the same to the last bit, also where it goes on after a stop.
    ///
    /// # Errors
    ///
    /// Loaders of other portions, a batch with fewer examples than there are processes, a network on several devices, and steps that
    /// are recorded.
    pub fn distributed(mut self, world: World) -> Result<Self, TrainError> {
        for loader in [self.train, self.test] {
            let portion = loader.portion();
            check(portion == world.portion(), "the loader", portion, "is to load this process's portion of each batch")?;
        }
        let least = self.train.smallest_batch();
        if least < world.size() {
            let option = format!("train.batch_size leaves {least} for the last batch,");
            let reason = "which needs an example for each process: drop it (`drop_last = true`), or take another batch size";
            return Err(TrainError::Option { option, reason });
        }
        let Self { step, .. } = self;
        self.step = Step::distributed(step, &world)?;
        self.world = world;
        Ok(self)
    }

    /// All start from the same weights.
    pub(super) fn begin_together(&self) -> Result<(), TrainError> {
        if self.world.is_one() {
            return Ok(());
        }
        self.world.broadcast(self.network)
    }

    /// Running statistics become those of rank 0.
    pub(super) fn share_buffers(&self) -> Result<(), TrainError> {
        if self.world.is_one() {
            return Ok(());
        }
        self.world.broadcast_buffers(self.network)
    }

    /// What hooks keep becomes that of rank 0.
    pub(super) fn share_hooks(&self) -> Result<(), TrainError> {
        if self.world.is_one() {
            return Ok(());
        }
        self.hooks_state().values().try_for_each(|tensor| self.world.broadcast_tensor(tensor))
    }

    /// Tells the step which batch comes.
    pub(super) fn say_batch(&mut self) {
        if !self.world.is_one() {
            let len = self.batch_len();
            self.step.of_batch(len, self.world.portion());
        }
    }

    /// The examples of the batch at hand, of all processes.
    pub(super) fn examples_of_step(&self, labels: &Tensor) -> u64 {
        if self.world.is_one() { labels.numel() as u64 } else { self.batch_len() as u64 }
    }

    fn batch_len(&self) -> usize {
        let number = self.progress.step % self.progress.steps_per_epoch;
        self.train.batch_len(usize::try_from(number).unwrap_or(usize::MAX))
    }

    /// The error of a loss that is no number in one of the processes, which is named in the others. Where the run goes back, all do.
    pub(super) fn diverged_in(&self, rank: usize) -> TrainError {
        let error = self.diverged("the loss became", self.progress.step);
        match rank == self.world.rank() || self.config.on_nan == OnNan::Rollback {
            true => error,
            false => TrainError::Process { reason: format!("rank {rank}: {error}") },
        }
    }
}
