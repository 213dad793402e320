use crate::TrainError;
use striate_datasets::{Batch, Epoch};
use striate_torch::cuda::Stream;
use tch::Device;

/// Brings batches to a device. To a GPU they are copied beside what it computes.
#[derive(Debug)]
pub(crate) struct Feed {
    device: Device,
    copies: Option<Stream>,
}

impl Feed {
    pub(crate) fn new(device: Device) -> Result<Self, TrainError> {
        let copies = matches!(device, Device::Cuda(_)).then(|| Stream::new(device)).transpose()?;
        Ok(Self { device, copies })
    }

    /// Makes the next batch, and begins to copy it: for [`take`](Self::take).
    pub(crate) fn next(&self, batches: &mut Epoch) -> Option<Result<Batch, TrainError>> {
        let begin = |Batch { images, labels }: Batch| match &self.copies {
            Some(stream) => Ok(Batch { images: stream.copy(&images)?, labels: stream.copy(&labels)? }),
            None => Ok(Batch { images: images.f_to_device(self.device)?, labels: labels.f_to_device(self.device)? }),
        };
        batches.next().map(|batch| begin(batch?))
    }

    /// Has what is launched from now on wait for the batch's copy.
    pub(crate) fn take(&self, batch: Batch) -> Result<Batch, TrainError> {
        if let Some(stream) = &self.copies {
            stream.await_copies(&[batch.images.shallow_clone(), batch.labels.shallow_clone()])?;
        }
        Ok(batch)
    }
}
