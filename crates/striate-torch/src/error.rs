use tch::TchError;

/// An error of libtorch, or of what this crate adds to it, in one line.
///
/// libtorch's messages carry a C++ backtrace and hints over several lines; only what went wrong is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TorchError {
    message: String,
}

impl TorchError {
    /// An error from a message of libtorch, cut to its first line.
    pub(crate) fn new(message: &str) -> Self {
        let message = message.split("Exception raised from").next().unwrap_or(message);
        let line = message.lines().map(str::trim).find(|line| !line.is_empty());
        Self { message: line.unwrap_or("libtorch failed and gave no reason").to_owned() }
    }

    /// Whether memory was lacking, on the CPU or a GPU.
    pub fn is_out_of_memory(&self) -> bool {
        ["can't allocate memory", "not enough memory", "out of memory"].iter().any(|words| self.message.contains(words))
    }
}

/// What a GPU lacked, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// What was asked for.
    pub asked: u64,
    /// What is free.
    pub free: u64,
    /// What the device has.
    pub total: u64,
}

impl TorchError {
    /// What was lacking, if it is memory on a GPU and CUDA's allocator says how much.
    pub fn lack_on_gpu(&self) -> Option<Lack> {
        let size = |before: &str| {
            let (_, size) = self.message.split_once(before)?;
            let mut words = size.split_whitespace();
            let number: f64 = words.next()?.parse().ok()?;
            let unit = match words.next()?.trim_end_matches('.') {
                "GiB" => 30,
                "MiB" => 20,
                "KiB" => 10,
                "bytes" => 0,
                _ => return None,
            };
            Some((number * f64::from(1_u32 << unit)) as u64)
        };
        Some(Lack { asked: size("Tried to allocate ")?, free: size(" of which ")?, total: size("total capacity of ")? })
    }
}

impl From<TchError> for TorchError {
    fn from(error: TchError) -> Self {
        match error {
            TchError::Torch(message) => Self::new(&message),
            other => Self::new(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn a_lack_of_memory_is_told_from_other_errors() {
        let endless = Tensor::f_empty([1 << 52], (Kind::Float, tch::Device::Cpu)).map_err(TorchError::from);
        assert!(endless.expect_err("nobody has that much").is_out_of_memory());
        // What CUDA's allocator says.
        assert!(TorchError::new("CUDA out of memory. Tried to allocate 2.00 GiB.").is_out_of_memory());
        assert!(!TorchError::new("mat1 and mat2 shapes cannot be multiplied").is_out_of_memory());
    }

    #[test]
    fn what_a_gpu_lacks_is_read_from_its_error() {
        let message = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1.50 GiB of which 512 bytes is free. \
                       Including non-PyTorch memory, this process has 17179869184.00 GiB memory in use.";
        assert_eq!(TorchError::new(message).lack_on_gpu(), Some(Lack { asked: 20 << 20, free: 512, total: 3 << 29 }));
        assert_eq!(TorchError::new("CUDA out of memory").lack_on_gpu(), None);
    }

    #[test]
    fn a_libtorch_error_is_one_line_without_backtrace() {
        let a = Tensor::zeros([2, 3], (Kind::Float, tch::Device::Cpu));
        let error = TorchError::from(a.f_matmul(&a).expect_err("2x3 by 2x3 has no product"));
        let text = error.to_string();
        assert!(text.contains("shapes cannot be multiplied"), "{text}");
        assert!(!text.contains('\n') && !text.contains("Exception raised"), "{text}");
    }
}
