//! What reading a file may still take.
use std::io::Error;

/// Bytes of memory that are left to read a file with. They are taken before they are used, and not given back, so this bounds
/// the time that reading takes, too.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u64,
    whole: u64,
}

/// More was to be taken than there was. An interpreter has it within an [`Error`].
#[derive(Debug, thiserror::Error)]
#[error("it takes more than {whole} bytes")]
pub(super) struct Exceeded {
    /// What there was at the beginning.
    pub(super) whole: u64,
}

impl Allowance {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left: bytes, whole: bytes }
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Exceeded> {
        self.left = self.left.checked_sub(bytes).ok_or(Exceeded { whole: self.whole })?;
        Ok(())
    }

    /// Takes what `count` things of so many bytes need.
    pub(super) fn take_all(&mut self, count: usize, each: u64) -> Result<(), Exceeded> {
        self.take((count as u64).saturating_mul(each))
    }
}

impl From<Exceeded> for Error {
    fn from(exceeded: Exceeded) -> Self {
        Self::other(exceeded)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let mut allowance = Allowance::new(10);
        allowance.take(4).unwrap();
        allowance.take_all(2, 3).unwrap();
        assert_eq!(allowance.left(), 0);
        assert_eq!(allowance.take(1).unwrap_err().whole, 10);
        assert!(Allowance::new(u64::MAX).take_all(usize::MAX, u64::MAX).is_ok(), "products stop at the largest number");
    }
}
