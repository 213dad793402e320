use crate::{TorchError, ffi};
use tch::Tensor;

/// A random number generator of its own on the CPU (libtorch's Mersenne Twister), seeded once.
///
/// It draws what PyTorch draws after `torch.manual_seed(seed)`, and touches no global state: what a seed gives does not
/// depend on what else runs in the process.
///
/// ```
/// use striate_torch::Generator;
/// use tch::{Device, Kind, Tensor};
/// let mut a = Tensor::empty([3], (Kind::Float, Device::Cpu));
/// let mut b = Tensor::empty([3], (Kind::Float, Device::Cpu));
/// Generator::new(7).uniform(&mut a, -1.0, 1.0)?;
/// Generator::new(7).uniform(&mut b, -1.0, 1.0)?;
/// assert_eq!(a, b);
/// # Ok::<(), striate_torch::TorchError>(())
/// ```
#[derive(Debug)]
pub struct Generator {
    ptr: *mut ffi::CGenerator,
}

// SAFETY: the generator is owned by one value, and every use of it takes `&mut self`.
unsafe impl Send for Generator {}

impl Generator {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        // SAFETY: no precondition; the pointer is freed in `drop`.
        Self { ptr: unsafe { ffi::st_generator_new(seed) } }
    }

    /// Fills a floating-point CPU tensor of any shape from U(`low`, `high`).
    pub fn uniform(&mut self, tensor: &mut Tensor, low: f64, high: f64) -> Result<(), TorchError> {
        // SAFETY: both pointers live for the call.
        ffi::check(unsafe { ffi::st_uniform(self.ptr, tensor.as_ptr(), low, high) })
    }

    /// Fills a floating-point CPU tensor of any shape from N(`mean`, `std`²).
    pub fn normal(&mut self, tensor: &mut Tensor, mean: f64, std: f64) -> Result<(), TorchError> {
        // SAFETY: both pointers live for the call.
        ffi::check(unsafe { ffi::st_normal(self.ptr, tensor.as_ptr(), mean, std) })
    }

    /// A random permutation of `0..n`: `[n]`, int64.
    pub fn permutation(&mut self, n: i64) -> Result<Tensor, TorchError> {
        // SAFETY: the generator lives for the call, and `out` is written on success.
        ffi::tensor_from(|out| unsafe { ffi::st_randperm(self.ptr, n, out) })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // SAFETY: made by `st_generator_new`, freed once.
        unsafe { ffi::st_generator_free(self.ptr) }
    }
}

/// Seeds libtorch's global generators, which dropout draws from.
pub fn manual_seed(seed: u64) {
    tch::manual_seed(seed.cast_signed());
}

/// A seed for one purpose out of a run's seed, such as `derive_seed(seed, &[epoch, batch])`: equal arguments give equal
/// seeds, and any other argument an unrelated one (SplitMix64 over the parts).
pub fn derive_seed(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(split_mix(seed), |state, part| split_mix(state ^ split_mix(*part)))
}

fn split_mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn draws_what_pytorch_draws() {
        // torch.manual_seed(0); torch.empty(3).uniform_(-1, 1); torch.empty(2).normal_(); torch.randperm(5)
        let mut generator = Generator::new(0);
        let mut uniform = Tensor::empty([3], (Kind::Float, Device::Cpu));
        generator.uniform(&mut uniform, -1.0, 1.0).unwrap();
        assert_eq!(Vec::<f32>::try_from(&uniform).unwrap(), UNIFORM);
        let mut normal = Tensor::empty([2], (Kind::Float, Device::Cpu));
        generator.normal(&mut normal, 0.0, 1.0).unwrap();
        assert_eq!(Vec::<f32>::try_from(&normal).unwrap(), NORMAL);
        assert_eq!(Vec::<i64>::try_from(generator.permutation(5).unwrap()).unwrap(), PERMUTATION);
    }

    const UNIFORM: [f32; 3] = [-0.007_486_82, 0.536_443_6, -0.823_045_13];
    const NORMAL: [f32; 2] = [0.364_338_2, 0.134_396_33];
    const PERMUTATION: [i64; 5] = [3, 2, 1, 4, 0];

    #[test]
    fn derived_seeds_differ_by_every_part() {
        let seeds = [
            derive_seed(1, &[0, 0]),
            derive_seed(1, &[0, 1]),
            derive_seed(1, &[1, 0]),
            derive_seed(2, &[0, 0]),
            derive_seed(1, &[0]),
        ];
        let distinct: std::collections::HashSet<_> = seeds.iter().collect();
        assert_eq!(distinct.len(), seeds.len());
        assert_eq!(seeds[0], derive_seed(1, &[0, 0]));
    }

    #[test]
    fn an_integer_tensor_is_refused() {
        let mut tensor = Tensor::zeros([2], (Kind::Int64, Device::Cpu));
        assert!(Generator::new(0).normal(&mut tensor, 0.0, 1.0).is_err());
    }
}
