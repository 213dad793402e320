//! Pixels of single pictures, moved by the calling thread alone: libtorch would take all of its threads for some copies, which must
//! not happen in each of several threads that work on pictures side by side.
use crate::{Frozen, TorchError, ffi};
use std::ops::Deref;
use std::ptr::NonNull;
use tch::{Device, Kind, Tensor};

/// No side of a picture that is resampled is longer.
const MAX_SIDE: usize = 1 << 24;

/// A picture `[1, C, H, W]` of uint8, channels-last, of its bytes: row by row, and in them pixel by pixel.
///
/// Fails if the bytes are not so many.
pub fn picture_from_bytes(bytes: &[u8], [channels, height, width]: [i64; 3]) -> Result<Tensor, TorchError> {
    let pixels = Tensor::f_empty([1, height, width, channels], (Kind::Uint8, Device::Cpu))?;
    if pixels.numel() != bytes.len() {
        return Err(TorchError::new(&format!("{} bytes are no picture of {channels}x{height}x{width}", bytes.len())));
    }
    // SAFETY: the new tensor is contiguous, of so many bytes, and nobody else's.
    unsafe { pixels.data_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(pixels.f_permute([0, 3, 1, 2])?)
}

/// The bytes of a picture `[1, C, H, W]` of uint8 with any strides, as [`picture_from_bytes`] takes them.
///
/// Fails if the tensor is no such picture on the CPU.
pub fn picture_to_bytes(picture: &Tensor) -> Result<Vec<u8>, TorchError> {
    let (size, strides) = (picture.size(), picture.stride());
    let (&[1, channels, height, width], &[_, plane, row, pixel], Kind::Uint8, Device::Cpu) =
        (&size[..], &strides[..], picture.kind(), picture.device())
    else {
        return Err(TorchError::new(&format!("{size:?} of {:?} is no picture of uint8 on the CPU", picture.kind())));
    };
    let memory = picture.data_ptr().cast::<u8>().cast_const();
    let mut bytes = Vec::with_capacity(picture.numel());
    for y in 0..height {
        if (plane == 1 || channels == 1) && pixel == channels {
            // SAFETY: a row of pixels that lie one after another, within the tensor.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(memory.offset((y * row) as isize), (width * channels) as usize)
            });
            continue;
        }
        for x in 0..width {
            // SAFETY: the strides of indices within the tensor's size lead to its values.
            bytes.extend((0..channels).map(|c| unsafe { *memory.offset((c * plane + y * row + x * pixel) as isize) }));
        }
    }
    Ok(bytes)
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// The left column.
    pub left: usize,
    /// The upper row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// All of a picture of this width and height.
    pub fn whole([width, height]: [usize; 2]) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// Its width and height.
    pub fn size(&self) -> [usize; 2] {
        [self.width, self.height]
    }

    pub(crate) fn numbers(&self) -> [i64; 4] {
        [self.left, self.top, self.width, self.height].map(|number| number.cast_signed() as i64)
    }
}

/// The pixels that are there of a picture of bytes, row by row and pixel by pixel.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Their bytes.
    pub bytes: &'a [u8],
    /// Where in the picture they are.
    pub place: Rect,
    /// Bytes in a pixel.
    pub channels: usize,
}

/// What a picture becomes in another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// The part of the picture that is resized, as if nothing lay beyond it.
    pub part: Rect,
    /// The width and height that the part gets.
    pub size: [usize; 2],
    /// The window of that which is computed.
    pub window: Rect,
    /// Bicubic, or else bilinear.
    pub cubic: bool,
}

impl Resampling {
    /// The pixels of the picture that the window is made of, and perhaps some around them.
    pub fn needs(&self) -> Rect {
        let Self { part, size, window, .. } = self;
        let span = |first: usize, len: usize, new: usize, start: usize, count: usize| {
            let scale = len as f64 / new.max(1) as f64;
            let reach = if self.cubic { 2.0 } else { 1.0 } * scale.max(1.0) + 1.0;
            let begin = ((start as f64 + 0.5) * scale - reach).max(0.0) as usize;
            let end = (((start + count) as f64 - 0.5) * scale + reach).ceil().clamp(0.0, len as f64) as usize;
            (first + begin, end.saturating_sub(begin))
        };
        let (left, width) = span(part.left, part.width, size[0], window.left, window.width);
        let (top, height) = span(part.top, part.height, size[1], window.top, window.height);
        Rect { left, top, width, height }
    }
}

/// Whether what has the width and height `has` gets the height of `size` before the width: as Pillow does since version 13, where the
/// height shrinks by more than twice what the width does. So of one column of a million pixels no million rows are made.
pub fn height_first(has: [usize; 2], size: [usize; 2]) -> bool {
    let [width, height] = [0, 1].map(|side| has[side].cast_signed().saturating_sub(size[side].cast_signed()));
    height > 0 && height > width.saturating_mul(2)
}

/// A part of a picture in another size, or a window of that: to the bits of Pillow's `Image.crop` and `Image.resize` (version 13).
///
/// Fails if the window does not lie within the size, the piece lacks pixels that it is made of, a size is 0, or memory lacks.
pub fn resample(piece: &Piece<'_>, resampling: &Resampling) -> Result<Vec<u8>, TorchError> {
    let Resampling { part, size, window, .. } = *resampling;
    if !height_first(part.size(), size) || part.width == size[0] {
        return rows_then_columns(piece, resampling);
    }
    let (needs, high) = (resampling.needs(), [part.width, size[1]]);
    let left = needs.left.saturating_sub(part.left);
    let place = Rect { left, width: needs.width, ..window };
    let bytes = rows_then_columns(piece, &Resampling { size: high, window: place, ..*resampling })?;
    let piece = Piece { bytes: &bytes, place, channels: piece.channels };
    rows_then_columns(&piece, &Resampling { part: Rect::whole(high), ..*resampling })
}

fn rows_then_columns(piece: &Piece<'_>, resampling: &Resampling) -> Result<Vec<u8>, TorchError> {
    let (&Piece { bytes, place, channels }, &Resampling { part, size, window, cubic }) = (piece, resampling);
    let within = window.left + window.width <= size[0] && window.top + window.height <= size[1];
    let sizes = [part.width, part.height, size[0], size[1], window.width, window.height, place.width, place.height, channels];
    let fits = sizes.iter().all(|size| (1..=MAX_SIDE).contains(size)) && [part.left, part.top].iter().all(|at| *at <= MAX_SIDE);
    let has = place.width.checked_mul(place.height).and_then(|pixels| pixels.checked_mul(channels));
    if !within || !fits || has != Some(bytes.len()) {
        return Err(unfit(resampling));
    }
    let mut resized = vec![0; window.width * window.height * channels];
    let numbers = ffi::Resampling {
        piece: place.numbers(),
        channels: channels.cast_signed() as i64,
        part: part.numbers(),
        size: size.map(|size| size.cast_signed() as i64),
        window: window.numbers(),
    };
    // SAFETY: the piece has so many bytes, and only these are read, as the function checks before; `resized` has as many as are
    // written.
    match unsafe { ffi::st_resample(bytes.as_ptr(), &raw const numbers, cubic.into(), resized.as_mut_ptr()) } {
        1 => Ok(resized),
        0 => Err(TorchError::new("there is no memory to resize a picture")),
        _ => Err(unfit(resampling)),
    }
}

fn unfit(resampling: &Resampling) -> TorchError {
    TorchError::new(&format!("{resampling:?} does not fit the pixels that are there"))
}

/// The bytes of a contiguous uint8 tensor on the CPU that nobody writes any more.
#[derive(Debug)]
pub struct FrozenBytes {
    start: NonNull<u8>,
    len: usize,
    /// Keeps them.
    _tensor: Frozen,
}

// SAFETY: nobody writes them, and the tensor may itself be sent and shared.
unsafe impl Send for FrozenBytes {}
// SAFETY: likewise.
unsafe impl Sync for FrozenBytes {}

impl FrozenBytes {
    /// Fails if the tensor is another one.
    pub fn new(tensor: Frozen) -> Result<Self, TorchError> {
        if tensor.kind() != Kind::Uint8 || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
            return Err(TorchError::new(&format!("{:?} of {:?} is no row of uint8 on the CPU", tensor.size(), tensor.kind())));
        }
        // A tensor without values has no memory.
        let start = NonNull::new(tensor.data_ptr().cast()).unwrap_or(NonNull::dangling());
        Ok(Self { start, len: tensor.numel(), _tensor: tensor })
    }
}

impl Deref for FrozenBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes lie there one after another, live as long as the tensor, and nobody writes a frozen tensor.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_a_picture_and_come_back() {
        let bytes: Vec<u8> = (0..24).collect();
        let picture = picture_from_bytes(&bytes, [3, 2, 4]).unwrap();
        assert_eq!((picture.size(), picture.double_value(&[0, 2, 1, 3])), (vec![1, 3, 2, 4], 23.0));
        assert_eq!(picture_to_bytes(&picture).unwrap(), bytes);
        assert_eq!(picture_to_bytes(&picture.contiguous()).unwrap(), bytes);
        let part = picture.narrow(3, 1, 2).narrow(2, 1, 1);
        assert_eq!(picture_to_bytes(&part).unwrap(), bytes[15..21]);
        assert_eq!(picture_to_bytes(&picture.narrow(1, 1, 1).expand([-1, 2, -1, -1], false)).unwrap()[..4], [1, 1, 4, 4]);
        assert!(picture_from_bytes(&bytes, [3, 2, 5]).is_err());
        assert!(picture_to_bytes(&picture.to_kind(Kind::Float)).is_err());
    }

    /// 7 rows of 10 pixels, `numpy.uint8(37 * numpy.arange(70))`, in so many equal channels.
    fn rows_of_ten(channels: usize) -> Vec<u8> {
        (0..70_u32).flat_map(|index| std::iter::repeat_n((37 * index) as u8, channels)).collect()
    }

    #[test]
    fn resampling_is_pillows() {
        for channels in [1, 2, 3, 4] {
            let bytes = rows_of_ten(channels);
            let piece = Piece { bytes: &bytes, place: Rect::whole([10, 7]), channels };
            let resampled = |part: Rect, size, cubic| {
                let resampled = resample(&piece, &Resampling { part, size, window: Rect::whole(size), cubic }).unwrap();
                assert!(resampled.chunks_exact(channels).all(|pixel| pixel.iter().all(|value| *value == pixel[0])));
                resampled.into_iter().step_by(channels).collect::<Vec<_>>()
            };
            // Image.fromarray(...).resize((4, 3), Image.BICUBIC), and the start of resize((15, 11), ...)
            let small = [93, 121, 122, 98, 126, 126, 123, 123, 151, 127, 128, 156];
            assert_eq!(resampled(piece.place, [4, 3], true), small);
            let large =
                [0, 7, 35, 60, 84, 111, 150, 178, 204, 242, 114, 0, 23, 54, 71, 40, 63, 99, 123, 155, 157, 92, 95, 128, 160, 100];
            assert_eq!(resampled(piece.place, [15, 11], true)[..large.len()], large);
            // resize((9, 3), Image.BICUBIC), the height first: rows first would give 81 and 168 of two of them
            let high = [
                89, 80, 136, 128, 92, 148, 114, 77, 119, 155, 115, 98, 151, 125, 98, 151, 134, 94, 130, 172, 135, 101, 157, 121,
                113, 169, 160,
            ];
            assert_eq!(resampled(piece.place, [9, 3], true), high);
            // Of one size alone: resize((10, 3), Image.BICUBIC), and the start of resize((4, 7), Image.BILINEAR)
            let lower = [92, 74, 120, 157, 81, 118, 156, 95, 77, 123, 157, 123, 89, 134, 160, 89];
            assert_eq!(resampled(piece.place, [10, 3], true)[..lower.len()], lower);
            let narrower = [37, 120, 152, 52, 151, 131, 71, 154, 90, 92, 175, 82];
            assert_eq!(resampled(piece.place, [4, 7], false)[..narrower.len()], narrower);
            // Image.fromarray(...).crop((3, 2, 9, 6)).resize((3, 5), Image.BILINEAR)
            assert_eq!(resampled(PART, [3, 5], false), BILINEAR);
            assert_eq!(resampled(Rect { width: 2, height: 1, ..PART }, [2, 1], false), [851_u32 as u8, 888_u32 as u8]);
        }
    }

    #[test]
    fn a_window_of_a_piece_is_that_of_the_whole() {
        let bytes = rows_of_ten(3);
        let whole = Piece { bytes: &bytes, place: Rect::whole([10, 7]), channels: 3 };
        for (part, size, cubic) in [
            (whole.place, [4, 3], true),
            (whole.place, [40, 30], false),
            (PART, [3, 5], false),
            (whole.place, [9, 3], true),
            (whole.place, [30, 3], false),
            (whole.place, [10, 3], true),
            (whole.place, [4, 7], true),
            (PART, [6, 3], false),
        ] {
            let all = resample(&whole, &Resampling { part, size, window: Rect::whole(size), cubic }).unwrap();
            let window = Rect { left: 1, top: 1, width: 2, height: 2 };
            let resampling = Resampling { part, size, window, cubic };
            let place = resampling.needs();
            let rows = place.top..place.top + place.height;
            let bytes: Vec<u8> = rows.flat_map(|y| &bytes[3 * (10 * y + place.left)..][..3 * place.width]).copied().collect();
            let piece = Piece { bytes: &bytes, place, channels: 3 };
            let expected: Vec<u8> = (1..3).flat_map(|y| &all[3 * (size[0] * y + 1)..][..6]).copied().collect();
            assert_eq!(resample(&piece, &resampling).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_not_there_is_not_resampled() {
        let bytes = rows_of_ten(1);
        let place = Rect { left: 2, top: 1, width: 10, height: 7 };
        let refused = |part: Rect, size: [usize; 2], window| {
            resample(&Piece { bytes: &bytes, place, channels: 1 }, &Resampling { part, size, window, cubic: true }).is_err()
        };
        let two = Rect::whole([2, 2]);
        assert!(!refused(place, [2, 2], two));
        for part in [Rect { left: 3, ..place }, Rect { left: 1, ..place }, Rect { top: 0, ..place }, Rect { height: 8, ..place }]
        {
            assert!(refused(part, [2, 2], two), "{part:?}");
        }
        assert!(refused(place, [0, 2], two) && refused(place, [2, 1], two) && refused(place, [2, 2], Rect { left: 1, ..two }));
    }

    const PART: Rect = Rect { left: 3, top: 2, width: 6, height: 4 };
    const BILINEAR: [u8; 15] = [109, 176, 132, 164, 99, 110, 134, 107, 157, 115, 144, 171, 195, 134, 72];

    #[test]
    fn frozen_bytes_are_the_tensors() {
        let bytes = |tensor: Tensor| FrozenBytes::new(tensor.into()).map(|bytes| bytes.to_vec());
        let square = Tensor::from_slice(&[1_u8, 2, 3, 4]).view([2, 2]);
        assert_eq!(bytes(square.shallow_clone()).unwrap(), [1, 2, 3, 4]);
        assert!(bytes(square.narrow(0, 1, 0)).unwrap().is_empty());
        assert!(bytes(square.transpose(0, 1)).is_err() && bytes(square.to_kind(Kind::Float)).is_err());
    }
}
