//! Batch norm's statistics for weights that nobody trained with.
use crate::feed::Feed;
use crate::{Moment, TrainError};
use std::collections::BTreeMap;
use striate_datasets::Loader;
use striate_graph::{Network, NodeKind};
use striate_layers::{Mode, Op};
use striate_torch::{derive_seed, manual_seed};
use tch::{Kind, Tensor};

/// Sets the seeds of what a forward pass draws apart from those of training.
const SEEDS: u64 = 0x4e4f_524d;

/// A batch norm of a network.
pub(super) struct Norm {
    mean: Tensor,
    var: Tensor,
    counter: Tensor,
    /// The share of a batch in the running statistics.
    momentum: f64,
}

/// The batch norms that move in training.
pub(super) fn of(network: &Network) -> Vec<Norm> {
    let params: BTreeMap<String, Tensor> = network.parameters().map(|param| (param.name, param.tensor)).collect();
    let norms = network.graph().nodes().iter().filter(|node| !network.is_frozen(&node.name)).filter_map(|node| {
        let NodeKind::Layer(Op::BatchNorm2d(layer)) = &node.kind else { return None };
        let get = |name: &str| params.get(&format!("{}.{name}", node.name)).map(Tensor::shallow_clone);
        // Without a momentum, it is 1 for a first batch.
        let momentum = layer.momentum.unwrap_or(1.0);
        let (mean, var, counter) = (get("running_mean")?, get("running_var")?, get("num_batches_tracked")?);
        (momentum != 0.0).then_some(Norm { mean, var, counter, momentum })
    });
    norms.collect()
}

/// Sets the running statistics to the mean of those of the epoch's batches: `torch.optim.swa_utils.update_bn`.
pub(super) fn measure(network: &Network, train: &Loader<'_>, at: &Moment<'_>) -> Result<(), TrainError> {
    let _no_grad = striate_torch::no_grad();
    let (epoch, seed, norms) = (at.progress.epoch, at.progress.seed, of(network));
    let zeros = |tensor: &Tensor| tensor.f_zeros_like()?.f_to_kind(Kind::Double);
    let sums = norms.iter().map(|norm| Ok([zeros(&norm.mean)?, zeros(&norm.var)?]));
    let mut sums = sums.collect::<Result<Vec<_>, TrainError>>()?;
    let (mut feed, mut count) = (Feed::new(train, network.device(), epoch, 0)?, 0);
    while let Some(batch) = feed.next() {
        if at.is_stopped() {
            return Err(TrainError::Stopped);
        }
        // From zero, a batch moves them to its own, times the momentum.
        for tensor in norms.iter().flat_map(|norm| [&norm.mean, &norm.var, &norm.counter]) {
            let _ = tensor.shallow_clone().f_zero_()?;
        }
        manual_seed(derive_seed(seed, &[SEEDS, epoch, count]));
        network.forward(&feed.take(batch?)?.images, Mode::Train)?;
        for (norm, [mean, var]) in norms.iter().zip(&mut sums) {
            let _ = (mean.f_add_(&norm.mean)?, var.f_add_(&norm.var)?);
        }
        count += 1;
    }
    for (norm, [mean, var]) in norms.iter().zip(&mut sums) {
        let all = norm.momentum * count as f64;
        norm.mean.shallow_clone().f_copy_(&mean.f_div_scalar_(all)?)?;
        norm.var.shallow_clone().f_copy_(&var.f_div_scalar_(all)?)?;
        let _ = norm.counter.shallow_clone().f_fill_(count.cast_signed())?;
    }
    Ok(())
}
