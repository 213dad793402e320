use crate::TrainError;
use striate_datasets::{Batch, Epoch};
use striate_torch::cuda::{await_copy, copy_ahead};
use tch::{Device, Tensor};

/// Brings batches to a device. To a GPU they are copied beside what it computes.
#[derive(Debug)]
pub(crate) struct Feed {
    device: Device,
}

impl Feed {
    pub(crate) fn new(device: Device) -> Self {
        Self { device }
    }

    /// Makes the next batch, and begins to copy it: for [`take`](Self::take).
    pub(crate) fn next(&self, batches: &mut Epoch) -> Option<Result<Batch, TrainError>> {
        let begin = |tensor: Tensor| match (tensor.device(), self.device) {
            (Device::Cpu, Device::Cuda(_)) => Ok(copy_ahead(&tensor, self.device)?),
            _ => Ok::<_, TrainError>(tensor.f_to_device(self.device)?),
        };
        batches.next().map(|batch| {
            let Batch { images, labels, targets } = batch?;
            Ok(Batch { images: begin(images)?, labels: begin(labels)?, targets: targets.map(begin).transpose()? })
        })
    }

    /// Has what is launched from now on wait for the batch's copy.
    pub(crate) fn take(&self, batch: Batch) -> Result<Batch, TrainError> {
        if let Device::Cuda(_) = self.device {
            await_copy(&batch.images)?;
            await_copy(&batch.labels)?;
            batch.targets.as_ref().map(await_copy).transpose()?;
        }
        Ok(batch)
    }
}
