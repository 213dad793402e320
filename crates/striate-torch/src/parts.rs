use crate::TorchError;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A new float32 tensor on the CPU that several threads write, each a part of its own.
///
/// ```
/// use striate_torch::Unfinished;
/// let (tensor, parts) = Unfinished::new(&[3, 2], 4)?;
/// std::thread::scope(|scope| {
///     for mut part in parts {
///         scope.spawn(move || part.zeroed().fill(1.0));
///     }
/// });
/// assert_eq!(tensor.finish()?.numel(), 6);
/// # Ok::<(), striate_torch::TorchError>(())
/// ```
#[derive(Debug)]
pub struct Unfinished(Arc<Whole>);

/// A part of an [`Unfinished`] tensor.
#[derive(Debug)]
pub struct Part {
    start: *mut f32,
    len: usize,
    // Keeps the memory.
    _whole: Arc<Whole>,
}

#[derive(Debug)]
struct Whole(Tensor);

// SAFETY: nothing is done with the tensor before `finish` has it for itself.
unsafe impl Sync for Whole {}

// SAFETY: a part is the only way to its values until it is dropped, and its `Arc` keeps their memory.
unsafe impl Send for Part {}

impl Unfinished {
    /// A contiguous tensor of this size in parts of `len` values, the last perhaps of fewer.
    pub fn new(size: &[i64], len: usize) -> Result<(Self, Vec<Part>), TorchError> {
        let tensor = Tensor::f_empty(size, (Kind::Float, Device::Cpu))?;
        let (numel, memory) = (tensor.numel(), tensor.data_ptr().cast::<f32>());
        let whole = Arc::new(Whole(tensor));
        let part = |first: usize| {
            // SAFETY: `first` lies within the tensor's contiguous values.
            let start = unsafe { memory.add(first) };
            Part { start, len: len.min(numel - first), _whole: Arc::clone(&whole) }
        };
        let parts = (0..numel).step_by(len.max(1)).map(part).collect();
        Ok((Self(whole), parts))
    }

    /// The tensor, once all parts are dropped. What no part wrote is any number.
    ///
    /// Fails while a part is left, which then has the memory for itself.
    pub fn finish(self) -> Result<Tensor, TorchError> {
        Arc::into_inner(self.0).map(|whole| whole.0).ok_or_else(|| TorchError::new("a part of the tensor is still being written"))
    }
}

impl Part {
    /// The values, set to zero.
    pub fn zeroed(&mut self) -> &mut [f32] {
        // SAFETY: parts do not overlap, and nothing else reads or writes the tensor as long as one is left. The values are
        // written before there is a reference to them.
        unsafe {
            self.start.write_bytes(0, self.len);
            std::slice::from_raw_parts_mut(self.start, self.len)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_written_where_it_lies() {
        let (tensor, parts) = Unfinished::new(&[5, 2], 4).unwrap();
        assert_eq!(parts.iter().map(|part| part.len).collect::<Vec<_>>(), [4, 4, 2]);
        std::thread::scope(|scope| {
            for (mut part, number) in parts.into_iter().zip([1.0, 2.0, 3.0]) {
                scope.spawn(move || part.zeroed()[1..].fill(number));
            }
        });
        let values = Vec::<f32>::try_from(tensor.finish().unwrap().flatten(0, -1)).unwrap();
        assert_eq!(values, [0.0, 1.0, 1.0, 1.0, 0.0, 2.0, 2.0, 2.0, 0.0, 3.0]);
    }

    #[test]
    fn a_tensor_is_not_finished_before_its_parts_are() {
        let (tensor, parts) = Unfinished::new(&[2], 1).unwrap();
        assert!(tensor.finish().is_err());
        drop(parts);
        let (nothing, parts) = Unfinished::new(&[0, 3], 0).unwrap();
        assert!(parts.is_empty() && nothing.finish().unwrap().numel() == 0);
    }
}
