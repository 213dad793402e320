//! Streams of CUDA devices, on which work goes on beside the default stream's, and graphs: recorded work that is launched by one call.
use crate::ffi::{CGraph, CStream};
use crate::{TorchError, ffi};
use tch::{Device, Tensor};

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
        let Device::Cuda(number) = device else {
            return Err(TorchError::new(&format!("{device:?} has no streams: they are of CUDA devices")));
        };
        let number = i32::try_from(number).map_err(|_| TorchError::new("there is no such CUDA device"))?;
        let mut stream = std::ptr::null_mut();
        // SAFETY: where the call succeeds, it has written a stream that is ours to free.
        ffi::check(unsafe { ffi::st_stream_new(number, &mut stream) })?;
        Ok(Self { stream })
    }

    /// Does `work` with this stream as its thread's current one: what it launches begins when all is done that was launched on the
    /// former current one before, and what is launched there afterwards begins when `work`'s is done.
    ///
    /// # Errors
    ///
    /// libtorch's, as `E`, and those of `work`.
    pub fn run<T, E: From<TorchError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let former = self.switch_to()?;
        let result = work();
        former.switch_to()?;
        result
    }

    /// Makes it the current one; gives the former.
    fn switch_to(&self) -> Result<Self, TorchError> {
        let mut former = std::ptr::null_mut();
        // SAFETY: the stream lives; where the call succeeds, it has written one that is ours to free.
        ffi::check(unsafe { ffi::st_stream_switch(self.stream, &mut former) })?;
        Ok(Self { stream: former })
    }

    /// Begins to copy `tensor` from the CPU to the stream's device, beside what the device computes. The copy is for
    /// [`await_copies`](Self::await_copies) to be given to.
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory.
    pub fn copy(&self, tensor: &Tensor) -> Result<Tensor, TorchError> {
        // SAFETY: the stream and the tensor live for the call.
        ffi::tensor_from(|out| unsafe { ffi::st_copy_ahead(self.stream, tensor.as_ptr(), out) })
    }

    /// Has all that this thread launches from now on wait for the copies that were begun; `copies` are those that it will use.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn await_copies(&self, copies: &[Tensor]) -> Result<(), TorchError> {
        let pointers = ffi::pointers(copies);
        // SAFETY: the stream and the tensors live for the call.
        ffi::check(unsafe { ffi::st_await_copies(self.stream, pointers.as_ptr(), pointers.len()) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it is ours, and freed once, here.
        unsafe { ffi::st_stream_free(self.stream) }
    }
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
    /// Records what `work` launches, which runs nothing of it yet. To be called within [`Stream::run`], when the same work has been run
    /// there a few times before: what libraries set up at first use can't be recorded. `work` may read nothing back from the device.
    ///
    /// # Errors
    ///
    /// libtorch's, as `E`, where something can't be recorded, or was built without CUDA; and those of `work`.
    pub fn record<T, E: From<TorchError>>(work: impl FnOnce() -> Result<T, E>) -> Result<(Self, T), E> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: where the call succeeds, it has written a graph that is ours to free.
        ffi::check(unsafe { ffi::st_graph_begin(&mut graph) })?;
        let graph = Self { graph };
        let result = work();
        // SAFETY: the graph lives. Recording ends also where `work` failed, whose error says more.
        let ended = ffi::check(unsafe { ffi::st_graph_end(graph.graph) });
        let value = result?;
        ended?;
        Ok((graph, value))
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
    fn without_cuda_one_line_says_so() {
        let cpu = Stream::new(Device::Cpu).unwrap_err().to_string();
        assert_eq!(cpu, "Cpu has no streams: they are of CUDA devices");
        if !Cuda::is_available() {
            let error = Stream::new(Device::Cuda(0)).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
            let error = Graph::record(|| Ok::<_, TorchError>(())).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
    }

    /// Skipped where there is no CUDA device.
    #[test]
    fn a_graph_computes_anew_what_it_recorded() {
        if !Cuda::is_available() {
            return eprintln!("skipped: there is no CUDA device");
        }
        let device = Device::Cuda(0);
        let stream = Stream::new(device).unwrap();
        let mut x = Tensor::ones([4], (Kind::Float, device));
        let (graph, doubled) = stream
            .run(|| {
                let _warm = x.f_mul_scalar(2.0)?;
                Graph::record(|| Ok::<_, TorchError>(x.f_mul_scalar(2.0)?))
            })
            .unwrap();
        for value in [3.0, 5.0] {
            let _ = x.fill_(value);
            stream.run(|| graph.replay()).unwrap();
            assert_eq!(Vec::<f32>::try_from(&doubled).unwrap(), [2.0 * value as f32; 4]);
        }
        let numbers = Tensor::from_slice(&[1.0_f32, 2.0]);
        let copied = stream.copy(&numbers).unwrap();
        stream.await_copies(&[copied.shallow_clone()]).unwrap();
        assert_eq!(copied.to_device(Device::Cpu), numbers);
    }
}
