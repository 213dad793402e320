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

/// Whether it is of a rare kind of which the other decoder makes wrong pixels without a word: smaller colours in scans of their own,
/// more samples of colour than of luma, and JFIF's colours under names that other files give to red, green and blue.
pub(crate) fn is_misread(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(&[0xff, 0xd8]) else { return false };
    let (mut jfif, mut named_rgb, mut sequential) = (false, false, false);
    let mut samples: Vec<[u8; 2]> = Vec::new();
    while let [0xff, marker, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some((segment, after)) = rest.get(4..2 + length).zip(rest.get(2 + length..)) else { return false };
        match marker {
            0xe0 => jfif |= segment.starts_with(b"JFIF"),
            0xee => named_rgb |= segment.starts_with(b"Adobe") && segment.get(11) == Some(&0),
            0xc4 | 0xc8 | 0xcc => {}
            0xc0..=0xcf => {
                let components = segment.get(6..).unwrap_or_default().as_chunks().0;
                sequential = matches!(marker, 0xc0 | 0xc1);
                named_rgb |= components.iter().map(|&[id, _, _]: &[u8; 3]| id).eq(*b"RGB");
                samples = components.iter().map(|[_, sampling, _]| [sampling >> 4, sampling & 0x0f]).collect();
            }
            0xda => {
                let in_parts = sequential && segment.first().is_some_and(|count| usize::from(*count) < samples.len());
                let Some((luma, colours)) = samples.split_first() else { return false };
                let smaller = colours.iter().any(|colour| colour != luma);
                let finer = colours.iter().any(|colour| colour[0] > luma[0] || colour[1] > luma[1]);
                return in_parts && smaller || finer || jfif && named_rgb && colours.len() == 2;
            }
            _ => {}
        }
        rest = after;
    }
    false
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
    fn rare_kinds_that_come_out_wrong_are_told() {
        for name in ["jpeg-420.jpg", "jpeg-422.jpg", "jpeg-444.jpg", "jpeg-grey.jpg", "progressive.jpg", "cmyk.jpg", "photo.jpg"]
        {
            assert!(!is_misread(&made(name)), "{name}");
        }
        let at = |bytes: &[u8], marker: u8| bytes.windows(2).position(|two| two == [0xff, marker]).unwrap_or_default();
        let changed = |name: &str, marker: u8, place: usize, value: u8| {
            let mut bytes = made(name);
            let start = at(&bytes, marker);
            bytes[start + place] = value;
            is_misread(&bytes)
        };
        // The number of components in the first scan.
        assert!(changed("jpeg-420.jpg", 0xda, 4, 1) && !changed("jpeg-444.jpg", 0xda, 4, 1));
        // The samples of blue.
        assert!(changed("jpeg-444.jpg", 0xc0, 14, 0x21) && !changed("jpeg-444.jpg", 0xc0, 11, 0x22));
        let adobe = [&b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"[..], &made("jpeg-444.jpg")[2..]].concat();
        assert!(is_misread(&adobe));
        assert!((0..600).all(|end| !is_misread(&adobe[..end.min(adobe.len())])), "what is cut within its header");
    }

    #[test]
    fn scans_of_progressive_pictures_are_counted() {
        // As libjpeg's cjpeg -progressive and Pillow write them: ten for colours.
        assert_eq!(scans(&made("progressive.jpg")), 10);
        assert_eq!(scans(&made("photo.jpg")), 1);
        assert_eq!(scans(b""), 1);
    }
}
