//! Whether a JPEG's data are all there; its decoder fills in grey, without a word, for what is
//! missing.

use crate::decode::CUT;

/// The marker that ends a JPEG.
pub(crate) const END: &[u8] = &[0xff, 0xd9];
/// Data of no sense, and no marker in them.
pub(crate) const NOISE: [u8; 64] = noise();

const fn noise() -> [u8; 64] {
    let (mut bytes, mut index) = ([0; 64], 0);
    while index < bytes.len() {
        bytes[index] = (index as u8).wrapping_mul(89).wrapping_add(0x5a) & 0x7f;
        index += 1;
    }
    bytes
}

/// Whether the picture's end is marked. Where it is not, the data may still be complete.
///
/// # Errors
///
/// [`CUT`], where data are missing for certain: a segment is cut off, or a progressive picture's
/// end, which may lack whole scans.
pub(crate) fn has_end(bytes: &[u8]) -> Result<bool, String> {
    if bytes.ends_with(END) {
        return Ok(true);
    }
    let (mut at, mut progressive) = (0, false);
    while let Some(step) = bytes[at..].iter().position(|byte| *byte == 0xff) {
        at += step + 1;
        let Some(marker) = bytes.get(at) else { break };
        match marker {
            0xff => continue, // fills
            0xd9 => return Ok(true),
            0x00 | 0x01 | 0xd0..=0xd8 => at += 1, // has no length
            _ => {
                progressive |= matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                let length = bytes.get(at + 1..at + 3).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
                at += 1 + length.ok_or(CUT)?;
                if at > bytes.len() {
                    return Err(CUT.to_owned());
                }
            }
        }
    }
    if progressive { Err(CUT.to_owned()) } else { Ok(false) }
}
