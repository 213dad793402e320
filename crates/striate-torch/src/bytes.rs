//! Pixels of single pictures, moved by the calling thread alone: libtorch would take all of its threads for some copies, which must
//! not happen in each of several threads that work on pictures side by side.
use crate::{Frozen, TorchError, ffi};
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

/// A part of a picture of bytes, row by row and pixel by pixel.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// The bytes of the whole picture.
    pub bytes: &'a [u8],
    /// Its width.
    pub row: usize,
    /// Bytes in a pixel.
    pub channels: usize,
    /// The part's left column and upper row.
    pub start: [usize; 2],
    /// The part's width and height.
    pub size: [usize; 2],
}

/// The part of a picture in another width and height, to the bits of Pillow's `Image.crop` and `Image.resize` (bilinear, or else
/// bicubic).
///
/// Fails if the part does not lie within the picture, a size is 0, or memory lacks.
pub fn resample(window: &Window<'_>, size: [usize; 2], cubic: bool) -> Result<Vec<u8>, TorchError> {
    let &Window { bytes, row, channels, start: [left, top], size: [width, height] } = window;
    let end = (top + height).checked_mul(row).and_then(|pixels| pixels.checked_mul(channels));
    let within = left + width <= row && end.is_some_and(|end| end <= bytes.len());
    let sizes = [width, height, channels, size[0], size[1]];
    if !within || sizes.iter().any(|size| *size == 0 || *size > MAX_SIDE) {
        return Err(TorchError::new(&format!("{width}x{height} of a picture cannot become {}x{}", size[0], size[1])));
    }
    let mut resized = vec![0; size[0] * size[1] * channels];
    let [stride, width, height, channels, new_width, new_height] =
        [row * channels, width, height, channels, size[0], size[1]].map(|size| size.cast_signed() as i64);
    let from = bytes[(top * row + left) * window.channels..].as_ptr();
    // SAFETY: `height` rows of `width` pixels from `from` on, `stride` apart, lie within the bytes, as checked; so many bytes as are
    // written lie in `resized`.
    let done = unsafe {
        ffi::st_resample(from, stride, width, height, channels, new_width, new_height, cubic.into(), resized.as_mut_ptr())
    };
    if done == 1 { Ok(resized) } else { Err(TorchError::new("there is no memory to resize a picture")) }
}

impl Frozen {
    /// The bytes of a contiguous uint8 tensor on the CPU; `None` of any other.
    pub fn bytes(&self) -> Option<&[u8]> {
        let has = self.kind() == Kind::Uint8 && self.device() == Device::Cpu && self.is_contiguous() && self.numel() > 0;
        // SAFETY: so many bytes lie there one after another, live as long as the tensor, and nobody writes a frozen tensor.
        has.then(|| unsafe { std::slice::from_raw_parts(self.data_ptr().cast::<u8>().cast_const(), self.numel()) })
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
            let resampled = |start, size, to, cubic| {
                let resampled = resample(&Window { bytes: &bytes, row: 10, channels, start, size }, to, cubic).unwrap();
                assert!(resampled.chunks_exact(channels).all(|pixel| pixel.iter().all(|value| *value == pixel[0])));
                resampled.into_iter().step_by(channels).collect::<Vec<_>>()
            };
            // Image.fromarray(...).resize((4, 3), Image.BICUBIC), and the start of resize((15, 11), ...)
            let small = [93, 121, 122, 98, 126, 126, 123, 123, 151, 127, 128, 156];
            assert_eq!(resampled([0, 0], [10, 7], [4, 3], true), small);
            let large =
                [0, 7, 35, 60, 84, 111, 150, 178, 204, 242, 114, 0, 23, 54, 71, 40, 63, 99, 123, 155, 157, 92, 95, 128, 160, 100];
            assert_eq!(resampled([0, 0], [10, 7], [15, 11], true)[..large.len()], large);
            // Image.fromarray(...).crop((3, 2, 9, 6)).resize((3, 5), Image.BILINEAR)
            assert_eq!(resampled([3, 2], [6, 4], [3, 5], false), BILINEAR);
            assert_eq!(resampled([3, 2], [2, 1], [2, 1], false), [851_u32 as u8, 888_u32 as u8]);
        }
        let bytes = rows_of_ten(1);
        let refused = |start, size, to| resample(&Window { bytes: &bytes, row: 10, channels: 1, start, size }, to, true).is_err();
        assert!(refused([5, 0], [6, 7], [2, 2]) && refused([0, 1], [10, 7], [2, 2]) && refused([0, 0], [10, 7], [0, 2]));
    }

    const BILINEAR: [u8; 15] = [109, 176, 132, 164, 99, 110, 134, 107, 157, 115, 144, 171, 195, 134, 72];

    #[test]
    fn frozen_bytes_are_the_tensors() {
        let frozen = Frozen::new(Tensor::from_slice(&[1_u8, 2, 3, 4]).view([2, 2]));
        assert_eq!(frozen.bytes(), Some(&[1, 2, 3, 4][..]));
        assert_eq!(Frozen::new(frozen.transpose(0, 1)).bytes(), None);
        assert_eq!(Frozen::new(Tensor::from_slice(&[1.0_f32])).bytes(), None);
    }
}
