//! PyTorch's distributed engine, c10d, which is inside libtorch: a [`Store`] of small values, a [`Group`] of processes that sum and
//! broadcast tensors, and DDP's [`Reducer`], which sums gradients while the backward pass still computes others.
//!
//! Its wire is neither encrypted nor authenticated: use it in a private network.
use crate::{TorchError, ffi};
use std::cell::RefCell;
use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;
use tch::{Kind, Tensor};

/// Whether the message of an error says that other processes could not be reached, or did not come: of c10d, Gloo or NCCL.
pub fn is_of_others(message: &str) -> bool {
    ["gloo", "c10d", "NCCL", "Connection closed by peer", "Socket Timeout"].iter().any(|words| message.contains(words))
}

/// Has c10d write nothing to standard error, where it tells of each connection that fails. It holds for the whole process; errors say
/// the same.
pub fn quiet() {
    // SAFETY: no precondition.
    unsafe { ffi::st_c10d_quiet() }
}

/// Small values by key that all processes see, kept by one of them: c10d's `TCPStore`.
#[derive(Debug)]
pub struct Store {
    ptr: *mut ffi::CStore,
}

// SAFETY: c10d's store is used by many threads; it locks itself.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Keeps a store at this socket, and is a client of it too.
    ///
    /// # Errors
    ///
    /// A socket that can't be listened on.
    pub fn serve(listener: TcpListener, prefix: &str, timeout: Duration) -> Result<Self, TorchError> {
        let own = listener.local_addr().map_err(|error| TorchError::new(&error.to_string()))?;
        let host = match own.ip() {
            ip if !ip.is_unspecified() => ip.to_string(),
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.to_string(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.to_string(),
        };
        Self::open(&host, own.port(), listener.into_raw_fd(), prefix, timeout)
    }

    /// Connects to the store at `host:port`, and waits for it for so long. Its keys are apart from those of other prefixes.
    ///
    /// # Errors
    ///
    /// Nobody answers there in time.
    pub fn connect(host: &str, port: u16, prefix: &str, timeout: Duration) -> Result<Self, TorchError> {
        Self::open(host, port, -1, prefix, timeout)
    }

    fn open(host: &str, port: u16, listener: i32, prefix: &str, timeout: Duration) -> Result<Self, TorchError> {
        let (host, prefix, mut ptr) = (text(host)?, text(prefix)?, std::ptr::null_mut());
        // SAFETY: the texts live for the call, a listener is given away, and `ptr` is written on success.
        ffi::check(unsafe { ffi::st_store_new(host.as_ptr(), port, listener, millis(timeout), prefix.as_ptr(), &raw mut ptr) })?;
        Ok(Self { ptr })
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    ///
    /// The store does not answer; so it is with all of these.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), TorchError> {
        let key = text(key)?;
        // SAFETY: key and value live for the call.
        ffi::check(unsafe { ffi::st_store_set(self.ptr, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// The value of a key, which is waited for.
    ///
    /// # Errors
    ///
    /// It is not set in time.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, TorchError> {
        let (key, mut data, mut len) = (text(key)?, std::ptr::null_mut(), 0);
        // SAFETY: the key lives for the call; `data` and `len` are written on success.
        ffi::check(unsafe { ffi::st_store_get(self.ptr, key.as_ptr(), millis(timeout), &raw mut data, &raw mut len) })?;
        // SAFETY: the shim gave `len` bytes at `data`.
        let value = unsafe { std::slice::from_raw_parts(data, len) }.to_vec();
        // SAFETY: they are freed once, here.
        unsafe { ffi::st_store_free_value(data) };
        Ok(value)
    }

    /// Whether a key is set.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn has(&self, key: &str) -> Result<bool, TorchError> {
        let (key, mut out) = (text(key)?, 0);
        // SAFETY: the key lives for the call, and `out` is written on success.
        ffi::check(unsafe { ffi::st_store_has(self.ptr, key.as_ptr(), &raw mut out) })?;
        Ok(out != 0)
    }

    /// Adds to a number, which starts at 0, and gives the sum.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn add(&self, key: &str, value: i64) -> Result<i64, TorchError> {
        let (key, mut out) = (text(key)?, 0);
        // SAFETY: the key lives for the call, and `out` is written on success.
        ffi::check(unsafe { ffi::st_store_add(self.ptr, key.as_ptr(), value, &raw mut out) })?;
        Ok(out)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by `st_store_new`, freed once.
        unsafe { ffi::st_store_free(self.ptr) }
    }
}

/// What carries tensors between processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// TCP, for tensors of a CPU; those of a GPU go through its memory.
    #[default]
    Gloo,
    /// NVIDIA's library, for tensors of a GPU.
    Nccl,
}

impl Backend {
    /// Whether this build has it.
    pub fn is_there(self) -> bool {
        // SAFETY: no precondition.
        self == Self::Gloo || unsafe { ffi::st_has_nccl() } != 0
    }
}

/// Who is in a [`Group`], and how it is reached.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// What carries tensors.
    pub backend: Backend,
    /// This process, from 0.
    pub rank: usize,
    /// All processes.
    pub size: usize,
    /// How long an operation waits for the other processes.
    pub timeout: Duration,
    /// The name or address of this machine by which Gloo reaches this process; `None` for what the machine calls itself.
    pub host: Option<String>,
}

/// Processes that do the same operations in the same order. A clone is the same group.
#[derive(Debug, Clone)]
pub struct Group {
    inner: Arc<GroupPointer>,
    size: usize,
}

#[derive(Debug)]
struct GroupPointer(*mut ffi::CGroup);

// SAFETY: c10d's group is used by many threads; it locks itself.
unsafe impl Send for GroupPointer {}
// SAFETY: as above.
unsafe impl Sync for GroupPointer {}

impl Drop for GroupPointer {
    fn drop(&mut self) {
        // SAFETY: made by `st_group_new`, freed once.
        unsafe { ffi::st_group_free(self.0) }
    }
}

impl Group {
    /// Connects to the other processes, which do the same with the same `name`.
    ///
    /// # Errors
    ///
    /// Another process does not come in time.
    pub fn new(store: &Store, name: &str, options: &GroupOptions) -> Result<Self, TorchError> {
        let GroupOptions { backend, rank, size, timeout, host } = options;
        let (name, host) = (text(name)?, host.as_deref().map(text).transpose()?);
        let (nccl, mut ptr) = (i32::from(*backend == Backend::Nccl), std::ptr::null_mut());
        let host = host.as_ref().map_or(std::ptr::null(), |host| host.as_ptr());
        // SAFETY: the store and the texts live for the call, and `ptr` is written on success.
        ffi::check(unsafe {
            ffi::st_group_new(store.ptr, nccl, int(*rank), int(*size), millis(*timeout), host, name.as_ptr(), &raw mut ptr)
        })?;
        Ok(Self { inner: Arc::new(GroupPointer(ptr)), size: *size })
    }

    /// All processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Makes a tensor the sum of those of all processes, which have the same shape.
    ///
    /// # Errors
    ///
    /// A process does not come in time, or is gone; so it is with all of these.
    pub fn all_reduce(&self, tensor: &mut Tensor) -> Result<(), TorchError> {
        // SAFETY: both live for the call.
        ffi::check(unsafe { ffi::st_group_all_reduce(self.inner.0, tensor.as_ptr()) })
    }

    /// Makes a tensor that of the process `root`.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce).
    pub fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<(), TorchError> {
        // SAFETY: both live for the call.
        ffi::check(unsafe { ffi::st_group_broadcast(self.inner.0, tensor.as_ptr(), int(root)) })
    }

    /// The tensors of all processes, which have the same shape, by rank.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce).
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        let all = (0..self.size).map(|_| tensor.f_empty_like()).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: all live for the call, and `all` has a tensor for each process.
        ffi::check(unsafe { ffi::st_group_all_gather(self.inner.0, tensor.as_ptr(), ffi::pointers(&all).as_ptr()) })?;
        Ok(all)
    }

    /// Batch norm in training over the images (`[N, C, H, W]`) of all processes: with their mean and variance, exact however many
    /// each has, and gradients. Parameters are `[C]`.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce); one value for each channel; a second derivative.
    pub fn batch_norm(&self, images: &Tensor, norm: &crate::norm::BatchNorm<'_>) -> Result<Tensor, TorchError> {
        let pointer = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null(), Tensor::as_ptr);
        // SAFETY: all live for the call; libtorch checks shapes and types.
        ffi::tensor_from(|out| unsafe {
            ffi::st_sync_batch_norm(
                self.inner.0,
                images.as_ptr(),
                pointer(norm.weight),
                pointer(norm.bias),
                norm.running_mean.as_ptr(),
                norm.running_var.as_ptr(),
                norm.momentum,
                norm.eps,
                out,
            )
        })
    }
}

/// How a [`Reducer`] works. The default is DDP's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReducerOptions {
    /// Gradients that are sent together, in bytes.
    pub bucket: usize,
    /// Those that are sent first, of the last layers: few, so that sending begins early.
    pub first_bucket: usize,
    /// Whether parameters may get no gradient in a step. Otherwise that is an error.
    pub find_unused: bool,
    /// Whether all steps use the same parameters, the same number of times.
    pub static_graph: bool,
    /// The half type that gradients are sent in: [`Kind::Half`] or [`Kind::BFloat16`].
    pub compress: Option<Kind>,
}

impl Default for ReducerOptions {
    fn default() -> Self {
        Self { bucket: 25 << 20, first_bucket: 1 << 20, find_unused: false, static_graph: false, compress: None }
    }
}

/// Makes gradients the mean over all processes, in buckets, while the backward pass computes others: PyTorch's DDP.
///
/// What buckets hold depends on the parameters alone, so that a run that starts again sums in the same order.
#[derive(Debug)]
pub struct Reducer {
    ptr: *mut ffi::CReducer,
    _group: Group,
}

// SAFETY: nothing of it belongs to a thread.
unsafe impl Send for Reducer {}

impl Reducer {
    /// Reduces the gradients of these parameters from now on, as long as it lives; the other processes have the same parameters.
    ///
    /// # Errors
    ///
    /// No parameters, or some on several devices.
    pub fn new(group: &Group, params: &[Tensor], options: ReducerOptions) -> Result<Self, TorchError> {
        let ReducerOptions { bucket, first_bucket, find_unused, static_graph, compress } = options;
        // Numbers of `c10::ScalarType`.
        let half = match compress {
            Some(Kind::Half) => 5,
            Some(Kind::BFloat16) => 15,
            _ => -1,
        };
        let (pointers, mut ptr) = (ffi::pointers(params), std::ptr::null_mut());
        // SAFETY: all live for the call, and `ptr` is written on success.
        ffi::check(unsafe {
            ffi::st_reducer_new(
                group.inner.0,
                pointers.as_ptr(),
                pointers.len(),
                first_bucket,
                bucket,
                i32::from(find_unused),
                i32::from(static_graph),
                half,
                &raw mut ptr,
            )
        })?;
        Ok(Self { ptr, _group: group.clone() })
    }

    /// Has the next backward pass, which starts at something computed from `outputs`, reduce the gradients: those of this pass
    /// together with what is there of former ones. A backward pass without this call only adds to the gradients.
    ///
    /// # Errors
    ///
    /// The former pass did not give all parameters a gradient.
    pub fn prepare(&mut self, outputs: &[Tensor]) -> Result<(), TorchError> {
        let pointers = ffi::pointers(outputs);
        // SAFETY: all live for the call.
        ffi::check(unsafe { ffi::st_reducer_prepare(self.ptr, pointers.as_ptr(), pointers.len()) })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: made by `st_reducer_new`, freed once.
        unsafe { ffi::st_reducer_free(self.ptr) }
    }
}

/// Which rows of a batch this thread computes, where other processes compute the others.
#[derive(Debug, Clone)]
pub struct BatchPart {
    /// The number of its first row in the batch.
    pub first: i64,
    /// The rows of the whole batch.
    pub total: i64,
    /// Those that batch norm takes its statistics over, if they are more than this process.
    pub norms: Option<Group>,
}

thread_local! {
    static PART: RefCell<Option<BatchPart>> = const { RefCell::new(None) };
}

/// While it lives, what this thread computes is a part of a batch. The former state comes back when it is dropped.
#[derive(Debug)]
#[must_use = "it ends as soon as this is dropped"]
pub struct InPart {
    former: Option<BatchPart>,
    /// It belongs to its thread.
    _thread: std::marker::PhantomData<*const ()>,
}

/// Says that what this thread computes is a part of a batch, until the value it returns is dropped: what layers draw and what batch
/// norm sees is then that of the whole.
pub fn in_part(part: BatchPart) -> InPart {
    InPart { former: PART.replace(Some(part)), _thread: std::marker::PhantomData }
}

/// The part of a batch that this thread computes now, if it is a part.
pub fn batch_part() -> Option<BatchPart> {
    PART.with_borrow(Clone::clone)
}

impl Drop for InPart {
    fn drop(&mut self) {
        PART.set(self.former.take());
    }
}

fn text(text: &str) -> Result<CString, TorchError> {
    CString::new(text).map_err(|_| TorchError::new("a name holds a zero byte"))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::norm::BatchNorm;
    use std::thread;
    use tch::Device;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn served(prefix: &str) -> (Store, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (Store::serve(listener, prefix, TIMEOUT).unwrap(), port)
    }

    /// What `each` gives on as many threads, each a process of one group.
    fn together<T: Send>(size: usize, each: impl Fn(usize, &Group) -> T + Sync) -> Vec<T> {
        let (_store, port) = served("test");
        thread::scope(|scope| {
            let run = |rank| {
                let each = &each;
                scope.spawn(move || {
                    let store = Store::connect("127.0.0.1", port, "test", TIMEOUT).unwrap();
                    let host = Some("127.0.0.1".to_owned());
                    let options = GroupOptions { backend: Backend::Gloo, rank, size, timeout: TIMEOUT, host };
                    each(rank, &Group::new(&store, "group", &options).unwrap())
                })
            };
            let threads: Vec<_> = (0..size).map(run).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn doubles(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn a_store_keeps_values_and_counts() {
        let (store, port) = served("a");
        let other = Store::connect("127.0.0.1", port, "a", TIMEOUT).unwrap();
        let apart = Store::connect("127.0.0.1", port, "b", TIMEOUT).unwrap();
        store.set("key", b"one\0two").unwrap();
        assert_eq!(other.get("key", TIMEOUT).unwrap(), b"one\0two");
        assert!(other.has("key").unwrap() && !apart.has("key").unwrap());
        assert_eq!((store.add("n", 2).unwrap(), other.add("n", 3).unwrap(), apart.add("n", 1).unwrap()), (2, 5, 1));
        let missing = other.get("missing", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(missing.contains("timeout") && !missing.contains('\n'), "{missing}");
    }

    #[test]
    fn a_group_sums_gathers_and_broadcasts() {
        let all = together(3, |rank, group| {
            let own = Tensor::from_slice(&[rank as f64, 1.0]);
            let (mut sum, mut of_last) = (own.copy(), own.copy());
            group.all_reduce(&mut sum).unwrap();
            group.broadcast(&mut of_last, 2).unwrap();
            let gathered: Vec<f64> = group.all_gather(&own).unwrap().iter().flat_map(doubles).collect();
            (doubles(&sum), doubles(&of_last), gathered)
        });
        for (sum, of_last, gathered) in all {
            assert_eq!((sum, of_last, gathered), (vec![3.0, 3.0], vec![2.0, 1.0], vec![0.0, 1.0, 1.0, 1.0, 2.0, 1.0]));
        }
    }

    /// Of `(w * x).sum() + v`, whose gradients are the mean of all `x`, and 1.
    #[test]
    fn gradients_are_the_mean_over_processes_and_add_up_without_preparing() {
        for (compress, find_unused) in [(None, false), (None, true), (Some(Kind::Half), false), (Some(Kind::BFloat16), false)] {
            let all = together(2, |rank, group| {
                let parameter = |len| Tensor::zeros([len], (Kind::Float, Device::Cpu)).set_requires_grad(true);
                let (w, v, unused) = (parameter(3), parameter(1), parameter(2));
                let mut params = vec![w.shallow_clone(), v.shallow_clone()];
                params.extend(find_unused.then_some(unused));
                // A bucket for each.
                let options = ReducerOptions { bucket: 4, first_bucket: 4, find_unused, compress, ..ReducerOptions::default() };
                let mut reducer = Reducer::new(group, &params, options).unwrap();
                let x = Tensor::from_slice(&[1.0_f32, 2.0, 4.0]) * (rank as f64 + 1.0);
                for (step, reduced) in [true, false, true].into_iter().enumerate() {
                    let y = (&w * &x).sum(Kind::Float) + v.sum(Kind::Float);
                    if reduced {
                        reducer.prepare(&[y.shallow_clone()]).unwrap();
                    }
                    y.backward();
                    if step == 0 {
                        assert_eq!(doubles(&w.grad()), [1.5, 3.0, 6.0]);
                        crate::optim::clear_grads(&params).unwrap();
                    }
                }
                (doubles(&w.grad()), doubles(&v.grad()))
            });
            assert!(all.iter().all(|grads| *grads == (vec![3.0, 6.0, 12.0], vec![2.0])), "{compress:?} {all:?}");
        }
    }

    /// Parts of 1 and 3 images against libtorch's batch norm of all 4: output, running statistics, and all gradients, whose mean over
    /// processes is that of the whole.
    #[test]
    fn synchronised_batch_norm_is_that_of_the_whole_batch() {
        crate::manual_seed(5);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        let (images, upstream) = (random(&[4, 3, 2, 5]) + 7.0, random(&[4, 3, 2, 5]));
        let (weight, bias) = (random(&[3]), random(&[3]));
        let leaf = |tensor: &Tensor| tensor.copy().set_requires_grad(true);
        let statistics = || [0.0, 1.0].map(|value| Tensor::full([3], value, (Kind::Double, Device::Cpu)));
        let expected = {
            let ([mean, var], x, w, b) = (statistics(), leaf(&images), leaf(&weight), leaf(&bias));
            let y = x.batch_norm(Some(&w), Some(&b), Some(&mean), Some(&var), true, 0.3, 1e-3, false);
            (&y * &upstream).sum(Kind::Double).backward();
            [y.detach(), x.grad(), w.grad(), b.grad(), mean, var]
        };
        let given = std::sync::Mutex::new([images, upstream, weight, bias]);
        let parts = together(2, |rank, group| {
            let [images, upstream, weight, bias] = given.lock().unwrap().each_ref().map(Tensor::copy);
            let rows = |tensor: &Tensor| if rank == 0 { tensor.narrow(0, 0, 1) } else { tensor.narrow(0, 1, 3) };
            let ([mean, var], x, w, b) = (statistics(), leaf(&rows(&images)), leaf(&weight), leaf(&bias));
            let norm = BatchNorm {
                weight: Some(&w),
                bias: Some(&b),
                running_mean: &mean,
                running_var: &var,
                counter: None,
                momentum: 0.3,
                eps: 1e-3,
            };
            let y = group.batch_norm(&x, &norm).unwrap();
            (&y * rows(&upstream)).sum(Kind::Double).backward();
            [y.detach(), x.grad(), w.grad(), b.grad(), mean, var]
        });
        let joined = |index: usize| match index {
            0 | 1 => Tensor::cat(&[&parts[0][index], &parts[1][index]], 0),
            2 | 3 => &parts[0][index] + &parts[1][index],
            _ => parts[1][index].shallow_clone(),
        };
        for (index, expected) in expected.iter().enumerate() {
            let worst = (joined(index) - expected).abs().max().double_value(&[]);
            assert!(worst < 1e-12, "{index}: {worst:.1e}");
        }
    }

    #[test]
    fn a_part_ends_with_its_guard() {
        let first = || batch_part().map(|part| part.first);
        let part = |first| BatchPart { first, total: 8, norms: None };
        {
            let _outer = in_part(part(2));
            let inner = in_part(part(4));
            assert_eq!(first(), Some(4));
            drop(inner);
            assert_eq!(first(), Some(2));
        }
        assert_eq!(first(), None);
    }
}
