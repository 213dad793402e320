//! How fast a run trains.
use std::cell::Cell;
use striate_train::{Event, Listener, TrainError};

/// Sums over the epochs that one process trained.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    images: Cell<f64>,
    seconds: Cell<f64>,
    waited: Cell<f64>,
}

impl Pace {
    /// Training examples a second; none before an epoch is done.
    pub(crate) fn images_per_second(&self) -> Option<f64> {
        self.by_second(&self.images)
    }

    /// The share of the time that the loop waited for batches.
    pub(crate) fn waiting(&self) -> Option<f64> {
        self.by_second(&self.waited)
    }

    fn by_second(&self, sum: &Cell<f64>) -> Option<f64> {
        let seconds = self.seconds.get();
        (seconds > 0.0).then(|| sum.get() / seconds)
    }
}

/// Adds each epoch to a [`Pace`].
pub(crate) struct PaceMeter<'a>(pub(crate) &'a Pace);

impl Listener for PaceMeter<'_> {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        if let Event::EpochDone { seconds, images_per_second, waiting, .. } = event {
            let add = |sum: &Cell<f64>, more: f64| sum.set(sum.get() + more);
            add(&self.0.images, images_per_second * seconds);
            add(&self.0.waited, waiting * seconds);
            add(&self.0.seconds, *seconds);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_long_epoch_counts_more_than_a_short_one() {
        let pace = Pace::default();
        assert_eq!((pace.images_per_second(), pace.waiting()), (None, None));
        // 100 images in 1 s, half of it waiting, then 1200 in 3 s without.
        for (seconds, images_per_second, waiting) in [(1.0, 100.0, 0.5), (3.0, 400.0, 0.0)] {
            let done = Event::EpochDone {
                epoch: 0,
                step: 1,
                train_loss: 1.0,
                train_accuracy: 0.5,
                test_loss: 1.0,
                test_accuracy: 0.5,
                raw: None,
                best: false,
                seconds,
                images_per_second,
                waiting,
                peak_memory: None,
            };
            PaceMeter(&pace).on_event(&done).unwrap();
        }
        assert_eq!((pace.images_per_second(), pace.waiting()), (Some(325.0), Some(0.125)));
    }
}
