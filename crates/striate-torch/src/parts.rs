use crate::{TorchError, ffi};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A new tensor on the CPU that several threads write, each a part of its own.
///
/// ```
/// use striate_torch::{Memory, Unfinished, Values};
/// let (tensor, parts) = Unfinished::new(&[3, 2], Memory::Floats, 4)?;
/// std::thread::scope(|scope| {
///     for mut part in parts {
///         scope.spawn(move || {
///             if let Values::Floats(values) = part.zeroed() {
///                 values.fill(1.0);
///             }
///         });
///     }
/// });
/// assert_eq!(tensor.finish()?.numel(), 6);
/// # Ok::<(), striate_torch::TorchError>(())
/// ```
#[derive(Debug)]
pub struct Unfinished(Arc<Whole>);

/// What an [`Unfinished`] tensor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// float32.
    Floats,
    /// uint8.
    Bytes,
    /// uint8 in memory that no system moves away, from which a copy to a CUDA device goes on beside the program: it takes such a device.
    PinnedBytes,
}

/// Values that one thread writes.
#[derive(Debug)]
pub enum Values<'a> {
    /// float32.
    Floats(&'a mut [f32]),
    /// uint8.
    Bytes(&'a mut [u8]),
}

/// A part of an [`Unfinished`] tensor.
#[derive(Debug)]
pub struct Part {
    start: *mut u8,
    len: usize,
    memory: Memory,
    // Keeps the memory.
    _whole: Arc<Whole>,
}

#[derive(Debug)]
struct Whole(Tensor);

// SAFETY: nothing is done with the tensor before `finish` has it for itself.
unsafe impl Sync for Whole {}

// SAFETY: a part is the only way to its values until it is dropped, and its `Arc` keeps their memory.
unsafe impl Send for Part {}

impl Memory {
    fn bytes_of_a_value(self) -> usize {
        match self {
            Self::Floats => size_of::<f32>(),
            Self::Bytes | Self::PinnedBytes => 1,
        }
    }

    fn tensor(self, size: &[i64]) -> Result<Tensor, TorchError> {
        match self {
            Self::Floats => Ok(Tensor::f_empty(size, (Kind::Float, Device::Cpu))?),
            Self::Bytes => Ok(Tensor::f_empty(size, (Kind::Uint8, Device::Cpu))?),
            // SAFETY: the sizes live for the call.
            Self::PinnedBytes => ffi::tensor_from(|out| unsafe { ffi::st_pinned_bytes(size.as_ptr(), size.len(), out) }),
        }
    }
}

impl Unfinished {
    /// A contiguous tensor of this size in parts of `len` values, the last perhaps of fewer.
    pub fn new(size: &[i64], memory: Memory, len: usize) -> Result<(Self, Vec<Part>), TorchError> {
        let tensor = memory.tensor(size)?;
        let (numel, first_byte) = (tensor.numel(), tensor.data_ptr().cast::<u8>());
        let whole = Arc::new(Whole(tensor));
        let part = |first: usize| {
            // SAFETY: `first` lies within the tensor's contiguous values.
            let start = unsafe { first_byte.add(first * memory.bytes_of_a_value()) };
            Part { start, len: len.min(numel - first), memory, _whole: Arc::clone(&whole) }
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
    pub fn zeroed(&mut self) -> Values<'_> {
        self.zeroed_from(0, self.len)
    }

    /// Calls `each` with every `len` values in turn, set to zero, until it fails. Those that are left over stay as they are.
    pub fn try_for_each<E>(&mut self, len: usize, mut each: impl FnMut(Values<'_>) -> Result<(), E>) -> Result<(), E> {
        let len = len.max(1);
        (0..self.len / len).try_for_each(|number| each(self.zeroed_from(number * len, len)))
    }

    /// `len` values from `first` on, which must be there.
    fn zeroed_from(&mut self, first: usize, len: usize) -> Values<'_> {
        assert!(first + len <= self.len, "a part has {} values", self.len);
        // SAFETY: parts do not overlap, and nothing else reads or writes the tensor as long as one is left. The values are within
        // the part, and written before there is a reference to them. libtorch aligns memory for every type, and parts begin at
        // whole values.
        unsafe {
            let start = self.start.add(first * self.memory.bytes_of_a_value());
            start.write_bytes(0, len * self.memory.bytes_of_a_value());
            match self.memory {
                Memory::Floats => Values::Floats(std::slice::from_raw_parts_mut(start.cast(), len)),
                Memory::Bytes | Memory::PinnedBytes => Values::Bytes(std::slice::from_raw_parts_mut(start, len)),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_written_where_it_lies() {
        for (memory, kind) in [(Memory::Floats, Kind::Float), (Memory::Bytes, Kind::Uint8)] {
            let (tensor, parts) = Unfinished::new(&[5, 2], memory, 4).unwrap();
            assert_eq!(parts.iter().map(|part| part.len).collect::<Vec<_>>(), [4, 4, 2]);
            std::thread::scope(|scope| {
                for (mut part, number) in parts.into_iter().zip([1_u8, 2, 3]) {
                    scope.spawn(move || match part.zeroed() {
                        Values::Floats(values) => values[1..].fill(number.into()),
                        Values::Bytes(values) => values[1..].fill(number),
                    });
                }
            });
            let tensor = tensor.finish().unwrap();
            assert_eq!(tensor.kind(), kind);
            let values = Vec::<f32>::try_from(tensor.to_kind(Kind::Float).flatten(0, -1)).unwrap();
            assert_eq!(values, [0.0, 1.0, 1.0, 1.0, 0.0, 2.0, 2.0, 2.0, 0.0, 3.0]);
        }
    }

    #[test]
    fn a_tensor_is_not_finished_before_its_parts_are() {
        let (tensor, parts) = Unfinished::new(&[2], Memory::Floats, 1).unwrap();
        assert!(tensor.finish().is_err());
        drop(parts);
        let (nothing, parts) = Unfinished::new(&[0, 3], Memory::Bytes, 0).unwrap();
        assert!(parts.is_empty() && nothing.finish().unwrap().numel() == 0);
    }

    #[test]
    fn pinned_memory_takes_a_cuda_device() {
        let pinned = Unfinished::new(&[2, 2], Memory::PinnedBytes, 4);
        match tch::Cuda::is_available() {
            true => {
                let (tensor, parts) = pinned.unwrap();
                drop(parts);
                assert!(tensor.finish().unwrap().is_pinned(Device::Cuda(0)));
            }
            false => assert!(!pinned.unwrap_err().to_string().contains('\n')),
        }
    }
}
