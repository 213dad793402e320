//! Streams of CUDA devices, on which work goes on beside the default stream's, and graphs: recorded work that is launched by one call.
mod check;
mod dynamic;
pub mod kernels;
mod nvrtc;

use crate::ffi::{CGraph, CStream};
use crate::{TorchError, ffi};
use std::sync::{Mutex, PoisonError};
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

/// A tensor on `device`, for what this thread launches next. From the CPU to a CUDA device it is copied beside what that computes.
///
/// # Errors
///
/// libtorch's.
pub fn bring(tensor: &Tensor, device: Device) -> Result<Tensor, TorchError> {
    match (tensor.device(), device) {
        (Device::Cpu, Device::Cuda(_)) => {
            let copy = copy_ahead(tensor, device)?;
            await_copy(&copy)?;
            Ok(copy)
        }
        _ => Ok(tensor.f_to_device(device)?),
    }
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

/// What [`switched`] sets for the time of some work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Switches {
    /// Whether float32 is multiplied in TF32, as [`set_tf32`] says; if it is not said, as it is.
    pub tf32: Option<bool>,
    /// Whether cuDNN measures which of its algorithms is the fastest for each shape that is new to the thread. A thread keeps
    /// what it chose.
    pub measure: bool,
}

/// Numbers of the shim's bits.
const TF32: i32 = 1 | 2;
const MEASURE: i32 = 4;

/// Does `work` with the process's switches of CUDA set, and sets them back. Work of several threads with switches is done one
/// after the other, so none sees another's; do not nest it. Work without any does not wait.
pub fn switched<T>(switches: Switches, work: impl FnOnce() -> T) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    struct Former(i32);
    impl Drop for Former {
        fn drop(&mut self) {
            // SAFETY: no precondition; these are switches, with CUDA or without.
            unsafe { ffi::st_set_cuda_switches(self.0) }
        }
    }
    if switches == Switches::default() {
        return work();
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: as above.
    let former = Former(unsafe { ffi::st_cuda_switches() });
    let tf32 = switches.tf32.map_or(former.0 & TF32, |on| if on { TF32 } else { 0 });
    let measure = if switches.measure { MEASURE } else { former.0 & MEASURE };
    // SAFETY: as above.
    unsafe { ffi::st_set_cuda_switches(tf32 | measure) };
    work()
}

/// Why no CUDA device can be used, if this libtorch has CUDA and there is none: a driver that is too old, for instance.
pub fn trouble() -> Option<String> {
    // SAFETY: no precondition.
    ffi::check(unsafe { ffi::st_cuda_trouble() }).err().map(|error| error.to_string())
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

// SAFETY: it is a device and a number, which nobody changes; switching to it concerns the calling thread alone.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

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

/// Memory that several [graphs](Graph) share, of which only one may run at a time: replay them on one stream, and read what one gave
/// before you replay another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphPool([u64; 2]);

impl GraphPool {
    /// Memory for graphs that are recorded in it. It is freed with the last of them.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let mut pool = [0; 2];
        // SAFETY: it writes two numbers.
        unsafe { ffi::st_graph_pool(pool.as_mut_ptr()) };
        Self(pool)
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

// SAFETY: nothing of it belongs to the thread that recorded it. It is not `Sync`: a replay writes its random generators' state.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` launches on `stream`, which runs nothing of it yet. The same work should have [run](Stream::run) there a
    /// few times before: what libraries set up at first use can't be recorded, nor can `work` wait for the device, or copy to it or back.
    ///
    /// # Errors
    ///
    /// Those of `work`, and libtorch's, as `E`, where something can't be recorded or was built without CUDA. libtorch does not free what a
    /// recording that failed took, and can fail afterwards: end the process.
    pub fn record<T, E: From<TorchError>>(stream: &Stream, work: impl FnOnce() -> Result<T, E>) -> Result<(Self, T), E> {
        Self::record_in(None, stream, work)
    }

    /// [`record`](Self::record) in memory that graphs share.
    ///
    /// # Errors
    ///
    /// Those of [`record`](Self::record).
    pub fn record_in<T, E: From<TorchError>>(
        pool: Option<GraphPool>,
        stream: &Stream,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        stream.run(|| {
            let mut graph = std::ptr::null_mut();
            let pool = pool.as_ref().map_or(std::ptr::null(), |pool| pool.0.as_ptr());
            // SAFETY: the stream and the pool's name live; where the call succeeds, it has written a graph.
            ffi::check(unsafe { ffi::st_graph_begin(stream.stream, pool, &mut graph) })?;
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
    fn switches_hold_for_the_work_alone_and_also_where_it_panics() {
        // SAFETY: no precondition.
        let state = || unsafe { ffi::st_cuda_switches() };
        let former = state();
        for on in [true, false] {
            let seen = switched(Switches { tf32: Some(on), measure: true }, state);
            assert_eq!(seen, MEASURE | if on { TF32 } else { 0 });
            assert_eq!(state(), former);
        }
        let panicked =
            std::panic::catch_unwind(|| switched(Switches { measure: true, ..Switches::default() }, || panic!("on purpose")));
        assert!(panicked.is_err() && state() == former);
        assert_eq!(switched(Switches::default(), state), former);
    }

    #[test]
    fn without_cuda_one_line_says_so() {
        let cpu = Stream::new(Device::Cpu).unwrap_err().to_string();
        assert_eq!(cpu, "Cpu has no streams: they are of CUDA devices");
        assert_eq!(trouble().is_some(), has_graphs() && !Cuda::is_available());
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
    fn graphs_of_one_pool_keep_what_they_gave_until_another_runs() {
        if !Cuda::is_available() || !has_graphs() {
            return eprintln!("skipped: there is no CUDA device, or no graphs were built");
        }
        let (stream, pool) = (Stream::new(Device::Cuda(0)).unwrap(), Some(GraphPool::new()));
        assert_ne!(pool, Some(GraphPool::new()));
        let x = Tensor::ones([1 << 20], (Kind::Float, Device::Cuda(0)));
        let work = |factor: f64| Ok::<_, TorchError>(x.f_mul_scalar(factor)?.f_add_scalar(1.0)?.f_sum(Kind::Float)?);
        let _warm = stream.run(|| work(1.0)).unwrap();
        let graphs: Vec<_> =
            [2.0, 3.0].into_iter().map(|factor| Graph::record_in(pool, &stream, || work(factor)).unwrap()).collect();
        for index in [0, 1, 0] {
            let (graph, sum) = &graphs[index];
            stream.run(|| graph.replay()).unwrap();
            assert_eq!(sum.double_value(&[]), (3.0 + index as f64) * f64::from(1 << 20));
        }
    }

    /// Skipped where there is no CUDA device.
    #[test]
    fn copies_arrive_before_they_are_used() {
        if !Cuda::is_available() {
            return eprintln!("skipped: there is no CUDA device");
        }
        let numbers = Tensor::arange(1 << 20, (Kind::Float, Device::Cpu));
        let copy = bring(&numbers, Device::Cuda(0)).unwrap();
        assert_eq!((copy * 2.0).to_device(Device::Cpu), numbers * 2.0);
    }
}
