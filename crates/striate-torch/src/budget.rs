use std::sync::atomic::{AtomicU64, Ordering};

/// What [`Budget::default`] gives any file.
static BYTES: AtomicU64 = AtomicU64::new(64 << 20);

/// How much memory a file may take to read: so many bytes, whatever its size, and more for each byte that it has.
///
/// A small file can declare much: tensors that view one value, a network of huge feature maps, a long run of zeros that a
/// compressed file holds in a few bytes. What is declared is held against this before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// Bytes for any file. The default is 64 MiB, or what [`Budget::set_default`] was given.
    pub bytes: u64,
    /// Bytes for each byte of the file. The default is 32.
    pub per_byte: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: BYTES.load(Ordering::Relaxed), per_byte: 32 }
    }
}

impl Budget {
    /// Lets any file take so many bytes from now on, in the whole process, where nobody says otherwise. It is for programs, whose
    /// users choose; a library gives its readers a [`Budget`].
    pub fn set_default(bytes: u64) {
        BYTES.store(bytes, Ordering::Relaxed);
    }

    /// A budget of so many bytes for any file, and 32 for each that it has.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// The bytes that a file of this length may take.
    pub fn of_file(&self, length: u64) -> u64 {
        self.bytes.saturating_add(self.per_byte.saturating_mul(length))
    }
}
