//! SHA-256 of files.

use std::{
    io::{self, Read},
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::FetchError;

/// The SHA-256 of all that `reader` gives, as 64 lower-case hexadecimal digits.
///
/// # Errors
///
/// Whatever `reader` fails with.
pub fn sha256_reader(mut reader: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The SHA-256 of a file, as 64 lower-case hexadecimal digits.
///
/// # Errors
///
/// [`FetchError::Io`] when the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String, FetchError> {
    sha256_reader(striate_files::open(path)?).map_err(|source| FetchError::io("read", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of FIPS 180-2, appendix B.1.
    #[test]
    fn sums_the_standards_example() {
        let sum = sha256_reader(&b"abc"[..]).ok();
        assert_eq!(sum.as_deref(), Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    }
}
