//! JPEGs of the common kind, of which only what is needed is decoded, to the bits of libjpeg and so of Pillow. All others are
//! another decoder's, of which is asked here whether their data are all there: it fills in grey, without a word, for what is
//! missing.

mod bits;
mod header;
mod region;

pub(crate) use region::Jpeg;

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

/// In how many scans a progressive JPEG sends its pixels; 1 for all others. Each takes as long as all pixels do, and can be a few
/// bytes.
pub(crate) fn scans(bytes: &[u8]) -> u64 {
    let (mut at, mut progressive, mut scans) = (0, false, 0);
    while let Some(step) = bytes[at..].iter().position(|byte| *byte == 0xff) {
        at += step + 1;
        match bytes.get(at) {
            Some(0xc2) => progressive = true,
            Some(0xda) => scans += 1,
            _ => continue,
        }
        if !progressive && scans > 0 {
            break;
        }
    }
    if progressive { scans } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::made;

    #[test]
    fn scans_of_progressive_pictures_are_counted() {
        // As libjpeg's cjpeg -progressive and Pillow write them: ten for colours.
        assert_eq!(scans(&made("progressive.jpg")), 10);
        assert_eq!(scans(&made("photo.jpg")), 1);
        assert_eq!(scans(b""), 1);
    }
}
