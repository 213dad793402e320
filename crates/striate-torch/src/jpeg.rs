//! From a JPEG's coefficients to its pixels, to the bits of libjpeg's accurate transform and "fancy" upsampling, which Pillow and
//! torchvision use. What reads the coefficients is elsewhere.
use crate::{Rect, TorchError, ffi};

/// Rows and columns of a block.
pub const SIDE: usize = 8;
/// Coefficients of a block.
pub const BLOCK: usize = SIDE * SIDE;

/// The samples that are at hand of one component: of luma, blue or red.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    /// Row by row.
    pub samples: &'a [u8],
    /// Where in the component they are.
    pub place: Rect,
    /// The width and height of the component.
    pub size: [usize; 2],
}

/// Writes the samples of blocks that lie side by side as the first eight rows of `to`, which are `stride` apart.
///
/// `coefficients` are dequantised, row by row; a block is `flat` (1, or else 0) if all of its are 0 but the first.
///
/// Fails if there are too few of any.
pub fn blocks(coefficients: &[[i16; BLOCK]], flat: &[u8], to: &mut [u8], stride: usize) -> Result<(), TorchError> {
    let (count, width) = (coefficients.len(), SIDE * coefficients.len());
    let enough = width <= stride && stride.checked_mul(SIDE - 1).is_some_and(|rows| rows + width <= to.len());
    if count > flat.len() || !enough {
        return Err(TorchError::new(&format!("{count} blocks do not fit into {} samples", to.len())));
    }
    let [blocks, stride] = [count, stride].map(|number| number.cast_signed() as i64);
    // SAFETY: there are so many blocks and flags, and their eight rows lie within `to`.
    unsafe { ffi::st_jpeg_blocks(coefficients.as_ptr().cast(), flat.as_ptr(), blocks, stride, to.as_mut_ptr()) };
    Ok(())
}

/// The samples that [`pixels`] needs of a component of blue or red, which has half of the columns and rows, or all.
pub fn needs(region: Rect, halved: [bool; 2], size: [usize; 2]) -> Rect {
    let span = |start: usize, len: usize, halved: bool, most: usize| match halved {
        true => ((start / 2).saturating_sub(1), ((start + len - 1) / 2 + 2).min(most)),
        false => (start, start + len),
    };
    let (left, right) = span(region.left, region.width, halved[0], size[0]);
    let (top, bottom) = span(region.top, region.height, halved[1], size[1]);
    Rect { left, top, width: right.saturating_sub(left), height: bottom.saturating_sub(top) }
}

/// Red, green and blue of a region, pixel by pixel, of luma, blue and red; `halved` tells whether the latter two have half of the
/// columns, and of the rows.
///
/// Fails if the planes lack samples of the region, or memory lacks.
pub fn pixels(planes: &[Plane<'_>; 3], halved: [bool; 2], region: Rect) -> Result<Vec<u8>, TorchError> {
    let has = |plane: &Plane<'_>, needs: Rect| {
        let end = |rect: Rect| [rect.left + rect.width, rect.top + rect.height];
        let (there, wanted) = (end(plane.place), end(needs));
        let within = needs.left >= plane.place.left && needs.top >= plane.place.top;
        within
            && (0..2).all(|axis| wanted[axis] <= there[axis] && wanted[axis] <= plane.size[axis])
            && plane.place.width.checked_mul(plane.place.height) == Some(plane.samples.len())
    };
    let [luma, blue, red] = planes;
    let chroma = |plane: &Plane<'_>| {
        let wide = (0..2).all(|axis| !halved[axis] || plane.size[axis] == luma.size[axis].div_ceil(2));
        wide && has(plane, needs(region, halved, plane.size))
    };
    if region.width.min(region.height) == 0 || !has(luma, region) || !chroma(blue) || !chroma(red) {
        return Err(TorchError::new(&format!("{region:?} is not among the samples that are there")));
    }
    let planes = planes.map(|plane| ffi::Plane {
        samples: plane.samples.as_ptr(),
        stride: plane.place.width.cast_signed() as i64,
        start: [plane.place.left, plane.place.top].map(|start| start.cast_signed() as i64),
        size: plane.size.map(|size| size.cast_signed() as i64),
    });
    let mut pixels = vec![0; 3 * region.width * region.height];
    let rect = region.numbers();
    let [across, down] = halved.map(Into::into);
    // SAFETY: the planes have all samples that a region needs, as checked, and `pixels` has its pixels.
    let done = unsafe { ffi::st_jpeg_pixels(planes.as_ptr(), across, down, rect.as_ptr(), pixels.as_mut_ptr()) };
    if done == 1 { Ok(pixels) } else { Err(TorchError::new("there is no memory for the pixels of a JPEG")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_one_coefficient_is_flat_either_way() {
        for first in [80, -2000, 9000, 7] {
            let mut block = [0; BLOCK];
            block[0] = first;
            // jidctint.c: (first + 4) >> 3, and 128 in the middle
            let expected = (((i32::from(first) + 4) >> 3) + 128).clamp(0, 255) as u8;
            for flat in [0, 1] {
                let mut samples = [7; 90];
                blocks(&[block], &[flat], &mut samples, 10).unwrap();
                let rows = samples.chunks_exact(10);
                assert!(rows.take(SIDE).all(|row| row[..8] == [expected; 8] && row[8..] == [7, 7]), "{first}");
            }
        }
        assert!(blocks(&[[0; BLOCK]; 2], &[1], &mut [0; 200], 16).is_err());
        assert!(blocks(&[[0; BLOCK]], &[1], &mut [0; 63], 8).is_err() && blocks(&[[0; BLOCK]], &[1], &mut [0; 90], 7).is_err());
    }

    #[test]
    fn two_columns_of_colours_are_repeated_and_three_are_smoothed() {
        // jdsample.c: "fancy" upsampling takes more than two columns. Of blue, these are 0, 100 and 200 above the middle's 28.
        let blue = [28, 128, 228, 28, 128, 228];
        let green = |columns: usize, halved: [bool; 2]| -> Vec<u8> {
            let size = [2 * columns, 2];
            let rows = if halved[1] { 1 } else { 2 };
            let of_colours = |samples| {
                let place = Rect { left: 0, top: 0, width: columns, height: rows };
                Plane { samples, place, size: [columns, rows] }
            };
            let few: Vec<u8> = blue.chunks_exact(3).take(rows).flat_map(|row| &row[..columns]).copied().collect();
            let luma = Plane { samples: &vec![100; 4 * columns], place: Rect::whole(size), size };
            let planes = [luma, of_colours(&few[..]), of_colours(&[128; 6][..columns * rows])];
            let pixels = pixels(&planes, halved, Rect::whole(size)).unwrap();
            pixels.chunks_exact(3).take(2 * columns).map(|pixel| pixel[1]).collect()
        };
        // G = Y - 0.344136 (Cb - 128)
        let of = |blue: &[f64]| blue.iter().map(|blue| (100.0 - 0.344_136 * (blue - 128.0)).round() as u8).collect::<Vec<_>>();
        for halved in [[true, true], [true, false]] {
            assert_eq!(green(2, halved), of(&[28.0, 28.0, 128.0, 128.0]));
            assert_eq!(green(1, halved), of(&[28.0, 28.0]));
            assert_eq!(green(3, halved), of(&[28.0, 53.0, 103.0, 153.0, 203.0, 228.0]));
        }
    }

    #[test]
    fn pixels_of_samples_that_are_not_there_are_refused() {
        let region = Rect { left: 4, top: 6, width: 3, height: 2 };
        let size = [10_usize, 9];
        let of_region = |halved: [bool; 2], chroma: Rect| {
            let samples = [128; 200];
            let plane = |place: Rect, size| Plane { samples: &samples[..place.width * place.height], place, size };
            let half = [0, 1].map(|axis| if halved[axis] { size[axis].div_ceil(2) } else { size[axis] });
            pixels(&[plane(region, size), plane(chroma, half), plane(chroma, half)], halved, region)
        };
        let needed = Rect { left: 1, top: 2, width: 4, height: 3 };
        assert_eq!(needs(region, [true, true], [5, 5]), needed);
        assert_eq!(of_region([true, true], needed).unwrap(), [128; 18]);
        assert_eq!(of_region([false, false], region).unwrap(), [128; 18]);
        for less in
            [Rect { left: 2, ..needed }, Rect { top: 3, ..needed }, Rect { width: 3, ..needed }, Rect { height: 2, ..needed }]
        {
            assert!(of_region([true, true], less).is_err(), "{less:?}");
        }
    }
}
