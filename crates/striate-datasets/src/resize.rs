//! Other sizes for raw images, uint8 `[N, C, H, W]`.

use crate::{DatasetError, dataset::image_shape};
use tch::Tensor;

/// Bilinear, with antialiasing where a side shrinks: as Pillow and torchvision resize images, in the same integer arithmetic.
pub(crate) fn resize(images: &Tensor, height: i64, width: i64) -> Result<Tensor, DatasetError> {
    if height < 1 || width < 1 {
        return Err(DatasetError::option("size", format!("an image cannot be {height}x{width}")));
    }
    let [_, old_height, old_width] = image_shape(images);
    if [old_height, old_width] == [height, width] {
        return Ok(images.shallow_clone());
    }
    Ok(images.f_internal_upsample_bilinear2d_aa([height, width], false, None, None)?)
}

/// The middle of the image, with zeros around it where it is too small. Of an odd number of them, one more goes to the bottom and
/// right; a crop starts where torchvision's does.
pub(crate) fn centre(images: &Tensor, height: i64, width: i64) -> Result<Tensor, DatasetError> {
    let [_, old_height, old_width] = image_shape(images);
    let (rows, columns) = (height - old_height, width - old_width);
    let mut images = images.shallow_clone();
    for (axis, size, rest) in [(2, height, -rows), (3, width, -columns)] {
        if rest > 0 {
            images = images.f_narrow(axis, (rest as f64 / 2.0).round_ties_even() as i64, size)?;
        }
    }
    if rows <= 0 && columns <= 0 {
        return Ok(images);
    }
    let (rows, columns) = (rows.max(0), columns.max(0));
    Ok(images.f_constant_pad_nd([columns / 2, columns - columns / 2, rows / 2, rows - rows / 2])?)
}

/// Zeros around the image in the centre; an odd rest goes to the bottom and right.
pub(crate) fn pad_to(images: &Tensor, height: i64, width: i64) -> Result<Tensor, DatasetError> {
    let [_, old_height, old_width] = image_shape(images);
    if old_height > height || old_width > width {
        let reason = format!("images of {old_height}x{old_width} cannot be padded to {height}x{width}: resize them");
        return Err(DatasetError::option("size", reason));
    }
    centre(images, height, width)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn image(pixels: &[u8], height: i64, width: i64) -> Tensor {
        Tensor::from_slice(pixels).view([1, 1, height, width])
    }

    fn values(images: &Tensor) -> Vec<u8> {
        images.flatten(0, -1).try_into().unwrap()
    }

    #[test]
    fn enlarging_is_pillows_bilinear() {
        // Image.fromarray(numpy.uint8([[0, 100], [200, 250]])).resize((4, 4), Image.BILINEAR)
        let expected = [0, 25, 75, 100, 50, 72, 116, 138, 150, 166, 197, 213, 200, 213, 238, 250];
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
    fn padding_keeps_the_image_in_the_centre() {
        let padded = pad_to(&image(&[1, 2, 3, 4], 2, 2), 5, 4).unwrap();
        let expected = [0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(values(&padded), expected);
        let error = pad_to(&padded, 4, 4).unwrap_err().to_string();
        assert_eq!(error, "size: images of 5x4 cannot be padded to 4x4: resize them");
    }
}
