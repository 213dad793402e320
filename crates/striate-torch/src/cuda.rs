//! Streams of CUDA devices, on which work goes on beside the default stream's, and graphs: recorded work that is launched by one call.
mod check;
mod dynamic;
pub mod kernels;
mod nvrtc;

use crate::ffi::{CGraph, CStream};
use crate::{TorchError, ffi};
use tch::{Device, Tensor};

/// Begins to copy `tensor` from the CPU to a CUDA device, beside what the device computes: for [`await_copy`] to be given to.
///
/// # Errors
///
/// libtorch's, such as a lack of memory.
pub fn copy_ahead(tensor: &Tensor, device: Device) -> Result<Tensor, TorchError> {
    let number = number(device)?;
    // SAFETY: the tensor lives for the call.
    ffi::tensor_from(|out| unsafe { ffi::st_copy_ahead(number, tensor.as_ptr(), out) })
}

/// Has all that this thread launches from now on wait for a copy that [`copy_ahead`] began.
///
/// # Errors
///
/// libtorch's.
pub fn await_copy(copy: &Tensor) -> Result<(), TorchError> {
    // SAFETY: the tensor lives for the call.
    ffi::check(unsafe { ffi::st_await_copy(copy.as_ptr()) })
}

/// Has CUDA devices multiply float32 in TF32 (a mantissa of 10 bits, sums in float32), or exactly. It holds for the whole process, with
/// CUDA or without. [`fast_cuda`](crate::fast_cuda) switches it on.
pub fn set_tf32(on: bool) {
    // SAFETY: no precondition; it is a switch.
    unsafe { ffi::st_set_tf32(on.into()) }
}

/// Whether CUDA devices multiply float32 in TF32.
pub fn tf32() -> bool {
    // SAFETY: no precondition.
    unsafe { ffi::st_tf32() == 1 }
}

fn number(device: Device) -> Result<i32, TorchError> {
    match device {
        Device::Cuda(number) => i32::try_from(number).map_err(|_| TorchError::new("there is no such CUDA device")),
        _ => Err(TorchError::new(&format!("{device:?} has no streams: they are of CUDA devices"))),
    }
}

/// A stream of its own on a CUDA device.
#[derive(Debug)]
pub struct Stream {
    stream: *mut CStream,
}

impl Stream {
    /// A stream on `device`.
    ///
    /// # Errors
    ///
    /// libtorch's, where there is no such CUDA device.
    pub fn new(device: Device) -> Result<Self, TorchError> {
        let (number, mut stream) = (number(device)?, std::ptr::null_mut());
        // SAFETY: where the call succeeds, it has written a stream that is ours to free.
        ffi::check(unsafe { ffi::st_stream_new(number, &mut stream) })?;
        Ok(Self { stream })
    }

    /// Does `work` with this stream as its thread's current one: what it launches begins when all is done that was launched on the
    /// former current one before, and what is launched there afterwards begins when `work`'s is done.
    ///
    /// # Errors
    ///
    /// Those of `work`, and libtorch's, as `E`.
    pub fn run<T, E: From<TorchError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let former = self.switch_to()?;
        let result = work();
        let back = former.switch_to();
        let value = result?;
        back?;
        Ok(value)
    }

    /// Makes it the current one; gives the former.
    fn switch_to(&self) -> Result<Self, TorchError> {
        let mut former = std::ptr::null_mut();
        // SAFETY: the stream lives; where the call succeeds, it has written one that is ours to free.
        ffi::check(unsafe { ffi::st_stream_switch(self.stream, &mut former) })?;
        Ok(Self { stream: former })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it is ours, and freed once, here.
        unsafe { ffi::st_stream_free(self.stream) }
    }
}

/// Whether work can be recorded with this libtorch, as it was built; it says nothing of devices.
pub fn has_graphs() -> bool {
    // SAFETY: no precondition.
    unsafe { ffi::st_has_graphs() == 1 }
}

/// Work that was recorded on a CUDA device, to be launched by one call as often as is wanted: PyTorch's `torch.cuda.CUDAGraph`.
///
/// It reads and writes the tensors that it was recorded with. Those made while it was recorded lie in memory of its own, and hold what the
/// last replay wrote.
#[derive(Debug)]
pub struct Graph {
    graph: *mut CGraph,
}

impl Graph {
    /// Records what `work` launches on `stream`, which runs nothing of it yet. The same work should have [run](Stream::run) there a
    /// few times before: what libraries set up at first use can't be recorded, nor can `work` wait for the device, or copy to it or back.
    ///
    /// # Errors
    ///
    /// Those of `work`, and libtorch's, as `E`, where something can't be recorded or was built without CUDA. libtorch does not free what a
    /// recording that failed took, and can fail afterwards: end the process.
    pub fn record<T, E: From<TorchError>>(stream: &Stream, work: impl FnOnce() -> Result<T, E>) -> Result<(Self, T), E> {
        stream.run(|| {
            let mut graph = std::ptr::null_mut();
            // SAFETY: the stream lives; where the call succeeds, it has written a graph.
            ffi::check(unsafe { ffi::st_graph_begin(stream.stream, &mut graph) })?;
            let result = work();
            // SAFETY: both live. Recording ends also where `work` failed, whose error says more.
            let ended = ffi::check(unsafe { ffi::st_graph_end(stream.stream, graph) });
            let value = result?;
            ended?;
            // Only now may it be freed.
            Ok((Self { graph }, value))
        })
    }

    /// Launches the recorded work on the current stream.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn replay(&self) -> Result<(), TorchError> {
        // SAFETY: the graph lives.
        ffi::check(unsafe { ffi::st_graph_replay(self.graph) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it is ours, and freed once, here.
        unsafe { ffi::st_graph_free(self.graph) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::{Cuda, Kind};

    #[test]
    fn tf32_is_a_switch() {
        for on in [true, false, true] {
            set_tf32(on);
            assert_eq!(tf32(), on);
        }
        set_tf32(false);
        crate::fast_cuda();
        assert!(tf32());
    }

    #[test]
    fn without_cuda_one_line_says_so() {
        let cpu = Stream::new(Device::Cpu).unwrap_err().to_string();
        assert_eq!(cpu, "Cpu has no streams: they are of CUDA devices");
        if !Cuda::is_available() {
            for error in [
                Stream::new(Device::Cuda(0)).unwrap_err().to_string(),
                copy_ahead(&Tensor::from(1), Device::Cuda(0)).unwrap_err().to_string(),
            ] {
                assert!(!error.is_empty() && !error.contains('\n'), "{error}");
            }
        }
    }

    /// Skipped where there is no CUDA device.
    #[test]
    fn a_graph_computes_anew_what_it_recorded() {
        if !Cuda::is_available() || !has_graphs() {
            return eprintln!("skipped: there is no CUDA device, or no graphs were built");
        }
        for device in (0..usize::try_from(Cuda::device_count()).unwrap()).map(Device::Cuda) {
            let stream = Stream::new(device).unwrap();
            let mut x = Tensor::ones([4], (Kind::Float, device));
            let double = || Ok::<_, TorchError>(x.f_mul_scalar(2.0)?);
            let _warm = stream.run(double).unwrap();
            let (graph, doubled) = Graph::record(&stream, double).unwrap();
            for value in [3.0, 5.0] {
                let _ = x.fill_(value);
                stream.run(|| graph.replay()).unwrap();
                assert_eq!(Vec::<f32>::try_from(&doubled).unwrap(), [2.0 * value as f32; 4]);
            }
        }
    }

    /// Skipped where there is no CUDA device.
    #[test]
    fn copies_arrive_before_they_are_used() {
        if !Cuda::is_available() {
            return eprintln!("skipped: there is no CUDA device");
        }
        let numbers = Tensor::arange(1 << 20, (Kind::Float, Device::Cpu));
        let copy = copy_ahead(&numbers, Device::Cuda(0)).unwrap();
        await_copy(&copy).unwrap();
        assert_eq!((copy * 2.0).to_device(Device::Cpu), numbers * 2.0);
    }
}
