//! What several processes found, each on its part of every batch, put together.
use crate::TrainError;
use crate::distributed::World;
use crate::metrics::Running;
use striate_datasets::{Loader, Portion};
use tch::Tensor;

/// The examples of a portion.
pub(super) fn rows_of(loader: &Loader, portion: Portion) -> usize {
    (0..loader.len()).map(|batch| portion.rows(loader.batch_len(batch)).len()).sum()
}

/// Sums over all processes.
pub(super) fn running(world: &World, own: Running) -> Result<Running, TrainError> {
    let all = world.gather(&[own.loss_sum, own.examples as f64, own.correct as f64])?;
    let sum = |place: usize| all.iter().map(|values| values[place]).sum::<f64>();
    Ok(Running { loss_sum: sum(0), examples: sum(1) as u64, correct: sum(2) as u64 })
}

/// The rows of all processes in the order of the dataset.
pub(super) fn rows(world: &World, loader: &Loader, own: Option<Tensor>) -> Result<Option<Tensor>, TrainError> {
    let Some(own) = own else { return Ok(None) };
    let of = world.size();
    // Tensors that are sent have one size: that of rank 0, which has the most.
    let (len, most) = (loader.dataset().len() as i64, rows_of(loader, Portion { rank: 0, of }) as i64);
    let mut size = own.size();
    let filled = size[0];
    size[0] = most;
    let padded = own.f_new_zeros(size.as_slice(), (own.kind(), own.device()))?;
    padded.f_narrow(0, 0, filled)?.f_copy_(&own)?;
    let parts = world.gather_tensors(&padded)?;
    size[0] = len;
    let whole = own.f_new_zeros(size.as_slice(), (own.kind(), own.device()))?;
    let (mut taken, mut start) = (vec![0_i64; of], 0_i64);
    for batch in 0..loader.len() {
        let batch_len = loader.batch_len(batch);
        for (rank, part) in parts.iter().enumerate() {
            let rows = Portion { rank, of }.rows(batch_len);
            let count = rows.len() as i64;
            whole.f_narrow(0, start + rows.start as i64, count)?.f_copy_(&part.f_narrow(0, taken[rank], count)?)?;
            taken[rank] += count;
        }
        start += batch_len as i64;
    }
    Ok(Some(whole))
}
