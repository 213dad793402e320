//! Pixels of single pictures, moved by the calling thread alone: libtorch would take all of its threads for some copies, which must
//! not happen in each of several threads that work on pictures side by side.
use crate::{Frozen, TorchError};
use tch::{Device, Kind, Tensor};

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

    #[test]
    fn frozen_bytes_are_the_tensors() {
        let frozen = Frozen::new(Tensor::from_slice(&[1_u8, 2, 3, 4]).view([2, 2]));
        assert_eq!(frozen.bytes(), Some(&[1, 2, 3, 4][..]));
        assert_eq!(Frozen::new(frozen.transpose(0, 1)).bytes(), None);
        assert_eq!(Frozen::new(Tensor::from_slice(&[1.0_f32])).bytes(), None);
    }
}
