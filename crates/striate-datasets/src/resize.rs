//! Other sizes for raw images, uint8 `[N, C, H, W]`.

use crate::{DatasetError, dataset::image_shape};
use tch::{Kind, Tensor};

/// Images that are in floating point at one time: resizing a whole dataset at once would need eight times its memory.
const CHUNK: i64 = 1024;

/// Bilinear, as PyTorch's `interpolate` with `align_corners=False`, rounded to uint8; with antialiasing if a side
/// shrinks, where plain bilinear sampling would skip pixels.
pub(crate) fn resize(images: &Tensor, height: i64, width: i64) -> Result<Tensor, DatasetError> {
    if height < 1 || width < 1 {
        return Err(DatasetError::option("size", format!("an image cannot be {height}x{width}")));
    }
    let [channels, old_height, old_width] = image_shape(images);
    if [old_height, old_width] == [height, width] {
        return Ok(images.shallow_clone());
    }
    let shrinks = height < old_height || width < old_width;
    let count = images.size()[0];
    let out = Tensor::f_empty([count, channels, height, width], (Kind::Uint8, images.device()))?;
    for start in (0..count).step_by(CHUNK.unsigned_abs() as usize) {
        let length = CHUNK.min(count - start);
        let chunk = images.f_narrow(0, start, length)?.f_to_kind(Kind::Float)?;
        let resized = match shrinks {
            true => chunk.f_internal_upsample_bilinear2d_aa([height, width], false, None, None)?,
            false => chunk.f_upsample_bilinear2d([height, width], false, None, None)?,
        };
        out.f_narrow(0, start, length)?.f_copy_(&resized.f_round()?)?;
    }
    Ok(out)
}

/// Zeros around the image in the centre; an odd rest goes to the bottom and right.
pub(crate) fn pad_to(images: &Tensor, height: i64, width: i64) -> Result<Tensor, DatasetError> {
    let [_, old_height, old_width] = image_shape(images);
    let (rows, columns) = (height - old_height, width - old_width);
    if rows < 0 || columns < 0 {
        let reason = format!("images of {old_height}x{old_width} cannot be padded to {height}x{width}: resize them");
        return Err(DatasetError::option("size", reason));
    }
    if (rows, columns) == (0, 0) {
        return Ok(images.shallow_clone());
    }
    Ok(images.f_constant_pad_nd([columns / 2, columns - columns / 2, rows / 2, rows - rows / 2])?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::Device;

    fn image(pixels: &[u8], height: i64, width: i64) -> Tensor {
        Tensor::from_slice(pixels).view([1, 1, height, width])
    }

    fn values(images: &Tensor) -> Vec<u8> {
        images.flatten(0, -1).try_into().unwrap()
    }

    #[test]
    fn enlarging_is_pytorchs_bilinear() {
        // F.interpolate(torch.tensor([[[[0., 100.], [200., 250.]]]]), (4, 4), mode="bilinear").round()
        let expected = [0, 25, 75, 100, 50, 72, 116, 138, 150, 166, 197, 212, 200, 212, 238, 250];
        assert_eq!(values(&resize(&image(&[0, 100, 200, 250], 2, 2), 4, 4).unwrap()), expected);
    }

    #[test]
    fn shrinking_sees_every_pixel() {
        let stripes = image(&[0, 240, 0, 240, 0, 240, 0, 240], 1, 8);
        for value in values(&resize(&stripes, 1, 2).unwrap()) {
            assert!((100..=140).contains(&value), "{value}");
        }
    }

    #[test]
    fn chunks_join_to_the_whole() {
        let images = Tensor::arange(2 * CHUNK + 1, (Kind::Int64, Device::Cpu)).remainder(256).to_kind(Kind::Uint8);
        let resized = resize(&images.view([-1, 1, 1, 1]), 2, 2).unwrap();
        assert_eq!(resized, images.view([-1, 1, 1, 1]).expand([-1, 1, 2, 2], false));
    }

    #[test]
    fn padding_keeps_the_image_in_the_centre() {
        let padded = pad_to(&image(&[1, 2, 3, 4], 2, 2), 5, 4).unwrap();
        let expected = [0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(values(&padded), expected);
        let error = pad_to(&padded, 4, 4).unwrap_err().to_string();
        assert_eq!(error, "size: images of 5x4 cannot be padded to 4x4: resize them");
    }
}
