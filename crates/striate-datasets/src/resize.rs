//! Other sizes for raw images, uint8 `[N, C, H, W]`.

use crate::{DatasetError, dataset::image_shape};
use serde::{Deserialize, Serialize};
use striate_torch::height_first;
use tch::{Kind, Tensor};

/// How an image is resized. Both ways are antialiased, as in Pillow and torchvision: when a side
/// shrinks, every source pixel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Interpolation {
    /// Linear between neighbouring pixels.
    #[default]
    Bilinear,
    /// Cubic over four pixels, with a = -0.5. Most of timm's weights were trained with it.
    Bicubic,
}

impl Interpolation {
    /// How far the filter reaches to either side, in source pixels where nothing shrinks.
    fn reach(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// What a pixel counts at `distance` from the place.
    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Bicubic => 0.0,
        }
    }
}

/// To another size, in Pillow's integer arithmetic.
pub(crate) fn resize(images: &Tensor, [height, width]: [i64; 2], by: Interpolation) -> Result<Tensor, DatasetError> {
    if height < 1 || width < 1 {
        return Err(DatasetError::option("size", format!("an image cannot be {height}x{width}")));
    }
    let [_, old_height, old_width] = image_shape(images);
    if [old_height, old_width] == [height, width] {
        return Ok(images.shallow_clone());
    }
    // libtorch always resizes the rows first.
    if old_width != width && is_height_first([old_height, old_width], [height, width]) {
        return resize(&resize(images, [height, old_width], by)?, [height, width], by);
    }
    Ok(match by {
        Interpolation::Bilinear => images.f_internal_upsample_bilinear2d_aa([height, width], false, None, None)?,
        Interpolation::Bicubic => images.f_internal_upsample_bicubic2d_aa([height, width], false, None, None)?,
    })
}

/// The middle `window` (rows and columns, no larger than `size`) of what [`resize`] gives, within 1 of
/// 255. Nothing outside the window is computed.
pub(crate) fn resize_window(
    images: &Tensor,
    size: [i64; 2],
    window: [i64; 2],
    by: Interpolation,
) -> Result<Tensor, DatasetError> {
    let [_, height, width] = image_shape(images);
    let (top, rows) = shares(height, size[0], window[0], by)?;
    let (left, columns) = shares(width, size[1], window[1], by)?;
    let source = images.f_narrow(2, top, rows.size()[1])?.f_narrow(3, left, columns.size()[1])?.f_to_kind(Kind::Float)?;
    let (rows, columns) = (rows.f_to_device(images.device())?, columns.f_to_device(images.device())?);
    // As Pillow does, with whole numbers between the two.
    let whole = |pixels: Tensor| pixels.f_round()?.f_clamp(0, 255);
    let wide = |source: &Tensor| whole(source.f_matmul(&columns.f_transpose(0, 1)?)?);
    let high = |source: &Tensor| whole(rows.f_matmul(source)?);
    let resized = match is_height_first([height, width], size) {
        true => wide(&high(&source)?)?,
        false => high(&wide(&source)?)?,
    };
    Ok(resized.f_to_kind(Kind::Uint8)?)
}

/// Whether columns are resized before rows: see [`height_first`].
fn is_height_first([old_height, old_width]: [i64; 2], [height, width]: [i64; 2]) -> bool {
    let side = |size: i64| size.unsigned_abs() as usize;
    height_first([side(old_width), side(old_height)], [side(width), side(height)])
}

/// The weights of `old` pixels in the middle `window` of `new` ones: the first old pixel that any of
/// them needs, and `[window, needed]`.
fn shares(old: i64, new: i64, window: i64, by: Interpolation) -> Result<(i64, Tensor), DatasetError> {
    let scale = old as f64 / new as f64;
    let (stretch, first) = (scale.max(1.0), crop_start(new - window));
    let bounds = |place: i64| {
        let (centre, reach) = ((place as f64 + 0.5) * scale, by.reach() * stretch);
        (centre, (((centre - reach + 0.5) as i64).max(0), ((centre + reach + 0.5) as i64).min(old)))
    };
    let (start, end) = (bounds(first).1.0, bounds(first + window - 1).1.1);
    let mut shares = Vec::with_capacity((window * (end - start)).unsigned_abs() as usize);
    for place in first..first + window {
        let (centre, (from, to)) = bounds(place);
        let weight = |pixel: i64| match pixel {
            pixel if (from..to).contains(&pixel) => by.weight((pixel as f64 + 0.5 - centre) / stretch),
            _ => 0.0,
        };
        let total: f64 = (from..to).map(weight).sum();
        shares.extend((start..end).map(|pixel| (weight(pixel) / total) as f32));
    }
    Ok((start, Tensor::f_from_slice(&shares)?.f_view([window, end - start])?))
}

/// Where a crop in the middle starts, if it leaves out `rest` pixels: as torchvision's does.
fn crop_start(rest: i64) -> i64 {
    (rest as f64 / 2.0).round_ties_even() as i64
}

/// The middle of the image, with zeros around it where it is too small. Of an odd number of them, one more goes to the bottom and
/// right; a crop starts where torchvision's does.
pub(crate) fn centre(images: &Tensor, height: i64, width: i64) -> Result<Tensor, DatasetError> {
    let [_, old_height, old_width] = image_shape(images);
    let (rows, columns) = (height - old_height, width - old_width);
    let mut images = images.shallow_clone();
    for (axis, size, rest) in [(2, height, -rows), (3, width, -columns)] {
        if rest > 0 {
            images = images.f_narrow(axis, crop_start(rest), size)?;
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
        assert_eq!(values(&resize(&image(&[0, 100, 200, 250], 2, 2), [4, 4], Interpolation::Bilinear).unwrap()), expected);
    }

    /// Seven rows of ten pixels, `numpy.uint8(37 * numpy.arange(70))`.
    fn rows_of_ten() -> Tensor {
        image(&(0..70).map(|index: u32| (37 * index) as u8).collect::<Vec<_>>(), 7, 10)
    }

    fn close(got: &[u8], expected: &[u8]) {
        assert_eq!(got.len(), expected.len());
        let far = got.iter().zip(expected).find(|(got, expected)| got.abs_diff(**expected) > 1);
        assert_eq!(far, None);
    }

    #[test]
    fn bicubic_is_pillows() {
        // Image.fromarray(...).resize((4, 3), Image.BICUBIC), and the start of resize((15, 11), ...)
        let small = [93, 121, 122, 98, 126, 126, 123, 123, 151, 127, 128, 156];
        close(&values(&resize(&rows_of_ten(), [3, 4], Interpolation::Bicubic).unwrap()), &small);
        let large =
            [0, 7, 35, 60, 84, 111, 150, 178, 204, 242, 114, 0, 23, 54, 71, 40, 63, 99, 123, 155, 157, 92, 95, 128, 160, 100];
        close(&values(&resize(&rows_of_ten(), [11, 15], Interpolation::Bicubic).unwrap())[..large.len()], &large);
    }

    #[test]
    fn a_window_is_the_middle_of_the_whole() {
        for by in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for (size, window) in
                [([3, 4], [2, 3]), ([70, 100], [7, 10]), ([64, 91], [64, 64]), ([7, 10], [3, 3]), ([3, 40], [3, 8])]
            {
                let whole = centre(&resize(&rows_of_ten(), size, by).unwrap(), window[0], window[1]).unwrap();
                let middle = resize_window(&rows_of_ten(), size, window, by).unwrap();
                assert_eq!(middle.size(), whole.size());
                close(&values(&middle), &values(&whole.contiguous()));
            }
        }
        // torchvision: center_crop(resize(one row of 30 pixels, 64, interpolation), 8), any row
        let row = image(&(0..30).map(|index: u32| (37 * index) as u8).collect::<Vec<_>>(), 1, 30);
        let middle = |by| values(&resize_window(&row, [64, 1920], [8, 8], by).unwrap().select(2, 0));
        close(&middle(Interpolation::Bilinear), &[22, 23, 24, 24, 25, 25, 26, 27]);
        close(&middle(Interpolation::Bicubic), &[5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn shrinking_sees_every_pixel() {
        let stripes = image(&[0, 240, 0, 240, 0, 240, 0, 240], 1, 8);
        for value in values(&resize(&stripes, [1, 2], Interpolation::Bilinear).unwrap()) {
            assert!((100..=140).contains(&value), "{value}");
        }
    }

    #[test]
    fn a_high_picture_becomes_wide_without_all_its_rows() {
        // One column of 4,000,000 pixels would become 4,000,000 rows of 224: 0.9 GB.
        let column = Tensor::arange(4_000_000, (Kind::Int64, tch::Device::Cpu)).floor_divide_scalar(20_000);
        let column = column.to_kind(Kind::Uint8).view([1, 1, 4_000_000, 1]);
        let resized = resize(&column, [4, 224], Interpolation::Bilinear).unwrap();
        // Image.fromarray(numpy.uint8(numpy.arange(4000000) // 20000)[:, None]).resize((224, 4), Image.BILINEAR)
        close(&values(&resized.select(3, 7)), &[29, 74, 124, 170]);
        assert_eq!(resized.select(3, 7), resized.select(3, 200));
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
