use crate::TrainError;
use striate_datasets::{Batch, Epoch, Loader, Normaliser};
use striate_torch::cuda::{await_copy, copy_ahead};
use tch::{Device, Kind, Tensor};

/// Brings the batches of an epoch to a device. To a GPU they are copied beside what it computes.
#[derive(Debug)]
pub(crate) struct Feed {
    device: Device,
    batches: Epoch,
    normaliser: Normaliser,
}

impl Feed {
    /// From batch number `first` on.
    pub(crate) fn new(loader: &Loader<'_>, device: Device, epoch: u64, first: usize) -> Result<Self, TrainError> {
        let normaliser = loader.preprocess().normalise.on(device)?;
        Ok(Self { device, batches: loader.epoch_for(device, epoch, first)?, normaliser })
    }

    /// Makes the next batch, and begins to copy it: for [`take`](Self::take).
    pub(crate) fn next(&mut self) -> Option<Result<Batch, TrainError>> {
        let device = self.device;
        let begin = |tensor: Tensor| match (tensor.device(), device) {
            (Device::Cpu, Device::Cuda(_)) => Ok(copy_ahead(&tensor, device)?),
            _ => Ok::<_, TrainError>(tensor.f_to_device(device)?),
        };
        self.batches.next().map(|batch| {
            let Batch { images, labels, targets } = batch?;
            Ok(Batch { images: begin(images)?, labels: begin(labels)?, targets: targets.map(begin).transpose()? })
        })
    }

    /// Has what is launched from now on wait for the batch's copy.
    pub(crate) fn take(&self, mut batch: Batch) -> Result<Batch, TrainError> {
        if let Device::Cuda(_) = self.device {
            await_copy(&batch.images)?;
            await_copy(&batch.labels)?;
            batch.targets.as_ref().map(await_copy).transpose()?;
        }
        if batch.images.kind() == Kind::Uint8 {
            batch.images = self.normaliser.apply(batch.images)?;
        }
        Ok(batch)
    }
}
