//! Whether files can be read, before anything is made of them.

use crate::decode::{decode, decoder, decoding, format, open, read_file, webp_length};
use crate::folder::Place;
use crate::{DatasetError, DecodeOptions, jpeg};
use image::ImageFormat;
use std::io::{Read, Seek, SeekFrom};
use striate_torch::note_file;

/// In which most headers end.
const HEADER: u64 = 64 * 1024;

/// How thoroughly [`ImageFolder::check`](crate::ImageFolder::check) looks at each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// Reads the header and the last bytes. This is quick, and finds JPEG, PNG, GIF and WebP files
    /// that were cut off.
    Headers,
    /// Decodes each file, which takes as long as decoding does in an epoch.
    Pixels,
}

/// What would keep a file from being decoded, as far as `check` looks.
pub(crate) fn check_file(file: Place<'_>, check: Check, options: &DecodeOptions) -> Result<(), DatasetError> {
    note_file(file.path);
    let whole = || read_file(file, options).and_then(|bytes| decode(bytes, options)).map(drop);
    let checked = match check {
        Check::Pixels => whole(),
        Check::Headers => Ends::of(file, options).and_then(|ends| {
            // A header may be longer, and bytes after a picture's end do no harm: decode to see.
            if matches!(decoding(|| ends.are_sound(options)), Ok(true)) { Ok(()) } else { whole() }
        }),
    };
    checked.map_err(|reason| DatasetError::Image { path: file.path.into(), reason })
}

/// What can be read of a file at little cost.
struct Ends {
    /// The first bytes.
    start: Vec<u8>,
    /// The last twelve.
    end: Vec<u8>,
    length: u64,
}

impl Ends {
    fn of(file: Place<'_>, options: &DecodeOptions) -> Result<Self, String> {
        let (mut file, first, length) = open(file, options)?;
        let mut read = || -> std::io::Result<Self> {
            let (mut start, mut end) = (Vec::new(), Vec::new());
            file.by_ref().take(HEADER.min(length)).read_to_end(&mut start)?;
            file.seek(SeekFrom::Start(first + length.saturating_sub(12)))?;
            file.by_ref().take(length.min(12)).read_to_end(&mut end)?;
            Ok(Self { start, end, length })
        };
        read().map_err(|error| error.to_string())
    }

    /// Whether the header can be read and the file ends as its format does, where that can be told.
    fn are_sound(&self, options: &DecodeOptions) -> Result<bool, String> {
        let format = format(&self.start)?;
        decoder(&self.start, format, self.length, options)?;
        Ok(match format {
            ImageFormat::Jpeg => self.end.ends_with(jpeg::END),
            ImageFormat::Png => self.end.starts_with(b"\0\0\0\0IEND"),
            ImageFormat::Gif => self.end.ends_with(b";"),
            ImageFormat::WebP => webp_length(&self.start).is_some_and(|length| length <= self.length),
            _ => true,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decode::tests::made;
    use std::fs;

    #[test]
    fn headers_are_checked_without_decoding_and_ends_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let check = |bytes: &[u8], check| {
            fs::write(&path, bytes).unwrap();
            check_file(path.as_path().into(), check, &DecodeOptions::default()).is_ok()
        };
        for name in ["photo.jpg", "progressive.jpg", "photo.png", "small.bmp", "small.tif", "small.webp", "small.gif"] {
            let bytes = made(name);
            let trailing = [&bytes[..], b"more"].concat();
            for depth in [Check::Headers, Check::Pixels] {
                assert!(check(&bytes, depth) && check(&trailing, depth), "{name}");
                assert!(!check(&bytes[..20], depth), "{name}");
            }
        }
        for name in ["photo.jpg", "photo.png", "small.webp", "photo.gif"] {
            let bytes = made(name);
            assert!(!check(&bytes[..bytes.len() * 2 / 3], Check::Headers), "{name}");
        }
        let mut damaged = made("photo.png");
        damaged[200..220].fill(7);
        assert!(check(&damaged, Check::Headers) && !check(&damaged, Check::Pixels));
    }
}
