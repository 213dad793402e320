use std::ops::Deref;
use tch::Tensor;

/// A tensor that nobody writes any more, and that many threads may read at once: a packed weight, say.
///
/// `tch`'s [`Tensor`] can be sent to another thread but not shared between threads, since most of what is done with tensors
/// may write. Freeze a tensor that you alone hold, and only read it from then on.
#[derive(Debug)]
#[repr(transparent)]
pub struct Frozen(Tensor);

// SAFETY: a shared `&Tensor` lets other threads do two things with the C++ tensor behind it.
//
// They read it. libtorch's operators take what they only read as `const Tensor&` and promise that any number of threads may do so
// at once; so does oneDNN of its packed tensors, whose primitives are looked up under a lock and work in memory of each call.
// What a tensor fills in late (gradients, version counter, autograd's data) is filled in by operators that write or that record
// gradients. `new` detaches the tensor, so nothing records gradients through it.
//
// They make handles of it by `Tensor::shallow_clone`, which counts references atomically. Whoever writes into memory through
// such a handle while others read it has a data race. `tch` allows the same without this type, since a handle is `Send`: a
// `Frozen` adds no way to write, and what it is given to (kernels, and layers in evaluation) reads alone.
unsafe impl Sync for Frozen {}

impl Frozen {
    /// Freezes a tensor; gradients no longer flow into it.
    pub fn new(tensor: Tensor) -> Self {
        Self(if tensor.requires_grad() { tensor.detach() } else { tensor })
    }

    /// Several as the tensors that they are.
    pub fn as_tensors(several: &[Self]) -> &[Tensor] {
        // SAFETY: a `Frozen` is laid out as its only field, and so is a slice of them.
        unsafe { std::slice::from_raw_parts(several.as_ptr().cast(), several.len()) }
    }
}

impl Deref for Frozen {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

impl From<Tensor> for Frozen {
    fn from(tensor: Tensor) -> Self {
        Self::new(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn many_threads_read_one_and_no_gradients_flow_into_it() {
        let weight = Tensor::arange(64, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let frozen = [Frozen::new(weight), Frozen::from(Tensor::ones([64], (Kind::Float, Device::Cpu)))];
        std::thread::scope(|scope| {
            for factor in 1..=8 {
                let frozen = &frozen;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let [a, b] = Frozen::as_tensors(frozen) else { unreachable!("there are two") };
                        let sum = (a.shallow_clone() * f64::from(factor) + b).sum(Kind::Float);
                        assert!(!sum.requires_grad());
                        assert_eq!(sum.double_value(&[]), f64::from(factor) * 63.0 * 32.0 + 64.0);
                    }
                });
            }
        });
    }
}
