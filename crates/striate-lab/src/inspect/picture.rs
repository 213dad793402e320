//! Tensors as pictures.
use super::receptive::Region;
use crate::LabError;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{Rgb, RgbImage};
pub(crate) use striate_train::picture::{enlarge, heated, of_input, png, rgb, zoom};
use striate_train::picture::{grid, mix};
use tch::{Kind, Tensor};

/// The colour of what is no number.
const GAP_COLOUR: Rgb<u8> = Rgb([128, 128, 128]);
/// The colour of a frame.
const FRAME: Rgb<u8> = Rgb([255, 60, 0]);

/// Nine of matplotlib's viridis colours, evenly spaced: as dark as small, and told apart by the colour-blind.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];
/// The colour of a share from 0 to 1; what is no number is grey.
pub(crate) fn viridis(share: f64) -> Rgb<u8> {
    if share.is_nan() {
        return GAP_COLOUR;
    }
    let place = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let index = (place as usize).min(VIRIDIS.len() - 2);
    mix(VIRIDIS[index], VIRIDIS[index + 1], (place - index as f64) as f32)
}

fn from_pixels(height: i64, width: i64, pixels: Vec<u8>) -> Result<RgbImage, LabError> {
    let side = |side: i64| u32::try_from(side).unwrap_or_default();
    RgbImage::from_raw(side(width), side(height), pixels)
        .ok_or_else(|| LabError::Figure(format!("{height}x{width} pixels do not fit their bytes")))
}

/// A map `[H, W]` in colours, from a least value (dark) to the largest, which lies `range` above it (light); where all are equal it is dark.
fn of_map(map: &Tensor, least: f64, range: f64) -> Result<RgbImage, LabError> {
    let (height, width) = map.size2()?;
    let share = |value: f64| if range > 0.0 { (value - least) / range } else { 0.0 };
    from_pixels(height, width, values_of(map)?.into_iter().flat_map(|value| viridis(share(value)).0).collect())
}

fn values_of(maps: &Tensor) -> Result<Vec<f64>, LabError> {
    Ok(Vec::try_from(maps.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?.f_view(-1)?)?)
}

/// The least of some values, and how far the largest lies above it.
fn least_and_range(maps: &Tensor) -> Result<(f64, f64), LabError> {
    let values = values_of(maps)?;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    Ok((least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least))
}

/// Whether maps of a shape `[K]` or `[K, H, W]` have one value each, which is told apart from others by their common colours only.
pub(crate) fn have_one_value(shape: &[i64]) -> bool {
    shape.iter().skip(1).product::<i64>() == 1
}

/// Maps `[K, H, W]` side by side, as many in a row as make it about square, each in its own colours; maps of one value in common ones.
pub(crate) fn grid_of_maps(maps: &Tensor) -> Result<RgbImage, LabError> {
    let common = if have_one_value(&maps.size()) { Some(least_and_range(maps)?) } else { None };
    let picture = |index: i64| -> Result<RgbImage, LabError> {
        let map = maps.f_select(0, index)?;
        let (least, range) = common.map_or_else(|| least_and_range(&map), Ok)?;
        of_map(&map, least, range)
    };
    Ok(grid(&(0..maps.size()[0]).map(picture).collect::<Result<Vec<_>, _>>()?))
}

/// The picture, enlarged, with a frame around a region of it; what lies outside is paler.
pub(crate) fn framed(picture: &RgbImage, region: &Region) -> RgbImage {
    let factor = zoom(picture);
    let inside = |x: u32, y: u32| region.columns.contains(&i64::from(x)) && region.rows.contains(&i64::from(y));
    let mut pale = picture.clone();
    for (x, y, pixel) in pale.enumerate_pixels_mut() {
        if !inside(x, y) {
            *pixel = mix(pixel.0, [128; 3], 0.6);
        }
    }
    let mut framed = enlarge(&pale, factor);
    let end = |range: &std::ops::Range<i64>, size: u32| {
        let place = |at: i64| u32::try_from(at).unwrap_or_default() * factor;
        (place(range.start), place(range.end).min(size))
    };
    let (left, right) = end(&region.columns, framed.width());
    let (top, bottom) = end(&region.rows, framed.height());
    let border = (factor / 4).max(2);
    let near = |at: u32, from: u32, to: u32| at < from + border || at + border >= to;
    for y in top..bottom {
        for x in left..right {
            if near(x, left, right) || near(y, top, bottom) {
                framed.put_pixel(x, y, FRAME);
            }
        }
    }
    framed
}

/// A PNG file as a link that holds it.
pub(crate) fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_every_map_in_its_own_colours() {
        let maps = Tensor::from_slice(&[0.0, 1.0, 5.0, 5.0, 2.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]).view([3, 2, 2]);
        let grid = grid_of_maps(&maps).unwrap();
        assert_eq!((grid.width(), grid.height()), (2 * 66 + 2, 2 * 66 + 2));
        let at = |x, y| *grid.get_pixel(x, y);
        assert_eq!((at(5, 5), at(5, 55)), (viridis(0.0), viridis(1.0)));
        assert_eq!((at(71, 5), at(125, 5)), (viridis(1.0), viridis(0.0)));
        assert_eq!((at(5, 80), at(90, 90), at(0, 0)), (viridis(0.0), GAP_COLOUR, GAP_COLOUR));
    }

    #[test]
    fn maps_of_one_value_share_their_colours() {
        let grid = grid_of_maps(&Tensor::from_slice(&[3.0, 1.0, 2.0]).view([3, 1, 1])).unwrap();
        let at = |x, y| *grid.get_pixel(x, y);
        let (width, middle) = (grid.width(), 10);
        let seen: Vec<Rgb<u8>> = (0..width).map(|x| at(x, middle)).collect();
        assert!([0.0, 1.0].iter().all(|share| seen.contains(&viridis(*share))), "{seen:?}");
        assert!(have_one_value(&[84]) && have_one_value(&[16, 1, 1]) && !have_one_value(&[16, 2, 1]));
    }

    #[test]
    fn frames_lie_where_they_belong() {
        let picture = RgbImage::from_pixel(4, 4, Rgb([100; 3]));
        let framed = framed(&picture, &Region { rows: 1..3, columns: 2..4 });
        assert_eq!(framed.get_pixel(2 * 56, 56), &FRAME);
        assert_eq!(framed.get_pixel(4 * 56 - 1, 3 * 56 - 1), &FRAME);
        assert_eq!(framed.get_pixel(2 * 56 + 28, 56 + 28).0, [100; 3]);
        assert_eq!(framed.get_pixel(28, 28), &mix([100; 3], [128; 3], 0.6));
    }

    #[test]
    fn colours_go_from_dark_to_light() {
        assert_eq!((viridis(-1.0).0, viridis(2.0).0), (VIRIDIS[0], VIRIDIS[8]));
        assert_eq!(viridis(0.125).0, VIRIDIS[1]);
        assert_eq!(viridis(f64::NAN), GAP_COLOUR);
    }
}
