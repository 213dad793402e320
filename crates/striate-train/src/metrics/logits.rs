use crate::TrainError;
use tch::{Device, Kind, Tensor};

/// So many values are computed with at a time, in float64.
const CHUNK: i64 = 1 << 20;

/// The logits of all examples of an evaluation with their targets, from which every figure can be
/// computed, and a temperature fitted.
///
/// They lie in the computer's memory, in the type that the network gave them in: 200 MB for
/// ImageNet's 50,000 validation pictures in float32.
#[derive(Debug)]
pub struct LabelledLogits {
    /// `[N, classes]`.
    logits: Tensor,
    /// `[N]` class numbers, or `[N, classes]` of bool.
    targets: Tensor,
}

impl LabelledLogits {
    /// Logits `[N, classes]`, and targets: `[N]` class numbers (int64), or `[N, classes]` where classes
    /// do not exclude each other and those above one half are there.
    ///
    /// # Errors
    ///
    /// Other shapes, and targets beyond the classes.
    pub fn new(logits: &Tensor, targets: &Tensor) -> Result<Self, TrainError> {
        let (examples, classes) = logits.size2()?;
        let beyond = || TrainError::BeyondClasses { classes: usize::try_from(classes).unwrap_or_default() };
        let targets = match targets.size().as_slice() {
            [length] if *length == examples => {
                let there = targets.f_ge(0)?.f_logical_and(&targets.f_lt(classes)?)?;
                if there.f_all()?.f_int64_value(&[])? == 0 {
                    return Err(beyond());
                }
                targets.f_to_device(Device::Cpu)?
            }
            [length, width] if *length == examples && *width == classes => targets.f_gt(0.5)?.f_to_device(Device::Cpu)?,
            _ => return Err(beyond()),
        };
        Ok(Self { logits: logits.f_to_device(Device::Cpu)?, targets })
    }

    /// Whether classes do not exclude each other.
    pub fn is_multi_label(&self) -> bool {
        self.targets.dim() == 2
    }

    /// How many examples.
    pub fn examples(&self) -> usize {
        usize::try_from(self.targets.size()[0]).unwrap_or_default()
    }

    /// How many classes.
    pub fn classes(&self) -> usize {
        usize::try_from(self.logits.size()[1]).unwrap_or_default()
    }

    /// `[N, classes]`, on the CPU.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// `[N]` class numbers (int64), or `[N, classes]` of bool where classes do not exclude each other; on the
    /// CPU.
    pub fn targets(&self) -> &Tensor {
        &self.targets
    }

    /// The examples with even numbers, and those with odd ones; no value is copied.
    pub(crate) fn halves(&self) -> Result<[Self; 2], TrainError> {
        let half = |tensor: &Tensor, first: i64| tensor.f_slice(0, first, None::<i64>, 2);
        let of = |first: i64| -> Result<Self, TrainError> {
            Ok(Self { logits: half(&self.logits, first)?, targets: half(&self.targets, first)? })
        };
        Ok([of(0)?, of(1)?])
    }

    /// The logits of one class: `[N]`, float64.
    pub(crate) fn column(&self, class: usize) -> Result<Tensor, TrainError> {
        Ok(self.logits.f_select(1, class as i64)?.f_to_kind(Kind::Double)?)
    }

    /// Calls `with` on a part of the examples after another: logits in float64, and targets.
    pub(crate) fn in_parts(&self, mut with: impl FnMut(&Tensor, &Tensor) -> Result<(), TrainError>) -> Result<(), TrainError> {
        let (examples, classes) = self.logits.size2()?;
        let rows = (CHUNK / classes.max(1)).max(1);
        (0..examples).step_by(usize::try_from(rows).unwrap_or(1)).try_for_each(|first| {
            let length = rows.min(examples - first);
            let logits = self.logits.f_narrow(0, first, length)?.f_to_kind(Kind::Double)?;
            with(&logits, &self.targets.f_narrow(0, first, length)?)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_of_the_classes() {
        let logits = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let new = |targets: Tensor| {
            LabelledLogits::new(&logits, &targets).map(|all| (all.is_multi_label(), all.examples(), all.classes()))
        };
        assert_eq!(new(Tensor::from_slice(&[0_i64, 2])).unwrap(), (false, 2, 3));
        assert_eq!(new(logits.shallow_clone()).unwrap(), (true, 2, 3));
        for wrong in [
            Tensor::from_slice(&[0_i64, 3]),
            Tensor::from_slice(&[-1_i64, 0]),
            Tensor::from_slice(&[0_i64]),
            logits.narrow(1, 0, 2),
        ] {
            assert!(new(wrong).unwrap_err().to_string().contains("beyond the 3 classes"));
        }
    }

    /// More values than are computed with at a time.
    #[test]
    fn every_example_is_in_one_part() {
        let (examples, classes) = (CHUNK / 3 + 5, 3);
        let logits = Tensor::arange(examples * classes, (Kind::Float, Device::Cpu)).view([examples, classes]);
        let all = LabelledLogits::new(&logits, &Tensor::zeros([examples], (Kind::Int64, Device::Cpu))).unwrap();
        let mut parts = Vec::new();
        all.in_parts(|logits, targets| {
            assert_eq!(logits.size()[0], targets.size()[0]);
            parts.push(logits.shallow_clone());
            Ok(())
        })
        .unwrap();
        assert_eq!((parts.len(), Tensor::cat(&parts, 0).to_kind(Kind::Float)), (2, logits));
    }
}
