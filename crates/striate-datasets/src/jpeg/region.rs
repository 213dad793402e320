//! The pixels of a region.

use super::bits::Bits;
use super::header::{Component, Header};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use std::ops::Range;
use striate_torch::Rect;
use striate_torch::jpeg::{BLOCK, Plane, SIDE, blocks, needs, pixels};

/// A JPEG of which any region can be decoded.
pub(crate) struct Jpeg<'a> {
    header: Header<'a>,
}

/// The blocks that are decoded of a component, and their samples.
struct Samples {
    place: Rect,
    samples: Vec<u8>,
    /// The blocks of one unit's height.
    coefficients: Vec<[i16; BLOCK]>,
    flat: Vec<u8>,
    first: i32,
}

impl<'a> Jpeg<'a> {
    /// `None` if it is of a kind that is not decoded here.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { header: Header::read(bytes)? })
    }

    /// Width and height, as it is stored.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.header.size
    }

    /// All of it, not turned. `None` as for [`pixels`](Self::pixels).
    pub(crate) fn image(&self) -> Option<DynamicImage> {
        let [width, height] = self.size().map(|side| side as u32);
        let data = self.pixels(Rect::whole(self.size()))?;
        Some(match self.channels() {
            1 => GrayImage::from_raw(width, height, data)?.into(),
            _ => RgbImage::from_raw(width, height, data)?.into(),
        })
    }

    /// 1 if it is grey, or else 3.
    pub(crate) fn channels(&self) -> usize {
        self.header.components.len()
    }

    /// How it must be turned to be seen as its camera did.
    pub(crate) fn orientation(&self) -> Orientation {
        self.header.exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
    }

    /// The pixels of a region, row by row. Nothing below it is read, unless it is the whole picture.
    ///
    /// `None` if data are missing or damaged, as far as they are read: then another decoder has the word.
    pub(crate) fn pixels(&self, region: Rect) -> Option<Vec<u8>> {
        let Header { size, components, .. } = &self.header;
        let most = components.first()?.blocks;
        let halved = most.map(|blocks| components.len() > 1 && blocks == 2);
        let whole = region == Rect::whole(*size);
        // What a component has in all, and which of its samples are needed.
        let sizes = [*size, [0, 1].map(|axis| if halved[axis] { size[axis].div_ceil(2) } else { size[axis] })];
        let units = [0, 1].map(|axis| size[axis].div_ceil(SIDE * most[axis]));
        let of_colours = if components.len() > 1 { needs(region, halved, sizes[1]) } else { region };
        let span = |axis: usize, luma: (usize, usize), colours: (usize, usize)| {
            let scale = if halved[axis] { 2 } else { 1 };
            let (start, end) = (luma.0.min(scale * colours.0), (luma.0 + luma.1).max(scale * (colours.0 + colours.1)));
            start / (SIDE * most[axis])..end.div_ceil(SIDE * most[axis]).min(units[axis])
        };
        let columns = span(0, (region.left, region.width), (of_colours.left, of_colours.width));
        let rows = span(1, (region.top, region.height), (of_colours.top, of_colours.height));
        let mut samples: Vec<Samples> = components.iter().map(|component| Samples::of(component, &columns, &rows)).collect();
        self.decode(units, &columns, &rows, whole, &mut samples)?;
        match &samples[..] {
            [grey] => Some(grey.region(region)),
            [luma, blue, red] => pixels(&[luma.plane(sizes[0]), blue.plane(sizes[1]), red.plane(sizes[1])], halved, region).ok(),
            _ => None,
        }
    }

    /// Reads units up to the last row, and keeps the blocks of those in `columns` and `rows`.
    fn decode(
        &self,
        units: [usize; 2],
        columns: &Range<usize>,
        rows: &Range<usize>,
        whole: bool,
        samples: &mut [Samples],
    ) -> Option<()> {
        let Header { components, restart, data, .. } = &self.header;
        let (mut bits, mut until_restart, mut restarts) = (Bits::new(data), restart.unwrap_or(usize::MAX), 0_u8);
        for row in 0..rows.end {
            let kept = rows.contains(&row);
            if kept {
                samples.iter_mut().for_each(Samples::clear);
            }
            for column in 0..units[0] {
                if until_restart == 0 {
                    if !bits.end_with(0xd0 + restarts % 8) {
                        return None;
                    }
                    (until_restart, restarts) = (restart.unwrap_or(usize::MAX), restarts.wrapping_add(1));
                    samples.iter_mut().for_each(|samples| samples.first = 0);
                }
                until_restart -= 1;
                let kept = kept && columns.contains(&column);
                for (component, samples) in components.iter().zip(&mut *samples) {
                    let Component { blocks: [across, down], steps, tables } = component;
                    if !kept {
                        for _ in 0..across * down {
                            bits.skip_block(tables, &mut samples.first)?;
                        }
                        continue;
                    }
                    for y in 0..*down {
                        for x in 0..*across {
                            let place = (y * columns.len() + column - columns.start) * across + x;
                            let block = samples.coefficients.get_mut(place)?;
                            samples.flat[place] = bits.block(tables, steps, &mut samples.first, block)?.into();
                        }
                    }
                }
            }
            if bits.is_overrun() {
                return None;
            }
            if kept {
                for (component, samples) in components.iter().zip(&mut *samples) {
                    samples.write(row - rows.start, component.blocks[1])?;
                }
            }
        }
        // The end of the data is checked where it is reached.
        (!whole || bits.end_with(0xd9)).then_some(())
    }
}

impl Samples {
    fn of(component: &Component, columns: &Range<usize>, rows: &Range<usize>) -> Self {
        let [across, down] = component.blocks;
        let place = Rect {
            left: SIDE * across * columns.start,
            top: SIDE * down * rows.start,
            width: SIDE * across * columns.len(),
            height: SIDE * down * rows.len(),
        };
        let in_a_row = across * columns.len() * down;
        let (coefficients, flat) = (vec![[0; BLOCK]; in_a_row], vec![0; in_a_row]);
        Self { place, samples: vec![0; place.width * place.height], coefficients, flat, first: 0 }
    }

    fn clear(&mut self) {
        self.coefficients.fill([0; BLOCK]);
    }

    /// Writes the samples of a row of units, which has `down` rows of blocks.
    fn write(&mut self, row: usize, down: usize) -> Option<()> {
        let stride = self.place.width;
        let rows = self.coefficients.chunks_exact(stride / SIDE).zip(self.flat.chunks_exact(stride / SIDE));
        for ((coefficients, flat), y) in rows.zip(row * down..) {
            blocks(coefficients, flat, &mut self.samples[y * SIDE * stride..], stride).ok()?;
        }
        Some(())
    }

    /// Of a component of this size, beyond whose borders blocks reach.
    fn plane(&self, size: [usize; 2]) -> Plane<'_> {
        Plane { samples: &self.samples, place: self.place, size }
    }

    /// The samples of a region alone.
    fn region(&self, region: Rect) -> Vec<u8> {
        let rows = self.samples.chunks_exact(self.place.width).skip(region.top - self.place.top).take(region.height);
        rows.flat_map(|row| &row[region.left - self.place.left..][..region.width]).copied().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decode::tests::made;
    use proptest::prelude::*;

    const KINDS: [&str; 6] = ["444", "422", "420", "grey", "noise", "narrow"];

    fn file(kind: &str) -> Vec<u8> {
        made(&format!("jpeg-{kind}.jpg"))
    }

    #[test]
    fn pixels_are_pillows_to_the_bit() {
        for kind in KINDS {
            let bytes = file(kind);
            let jpeg = Jpeg::read(&bytes).unwrap();
            let image = jpeg.image().unwrap();
            assert_eq!(image.into_rgb8().into_raw(), made(&format!("jpeg-{kind}.rgb")), "{kind}");
        }
    }

    #[test]
    fn other_kinds_are_left_to_another_decoder() {
        let bytes = made("progressive.jpg");
        assert!(Jpeg::read(&bytes).is_none());
        let bytes = file("420");
        for end in [1, 20, 400, bytes.len() - 300] {
            let jpeg = Jpeg::read(&bytes[..end]);
            assert!(jpeg.is_none_or(|jpeg| jpeg.image().is_none()), "{end}");
        }
    }

    proptest! {
        #[test]
        fn a_region_is_that_of_the_whole(kind in 0..6_usize, [a, b, c, d] in [0.0..1.0, 0.0..1.0, 0.0..1.0, 0.0..1.0]) {
            let bytes = file(KINDS[kind]);
            let jpeg = Jpeg::read(&bytes).unwrap();
            let ([width, height], channels) = (jpeg.size(), jpeg.channels());
            let span = |a: f64, b: f64, len: usize| {
                let start = (a * len as f64) as usize;
                (start, 1 + (b * (len - start) as f64) as usize)
            };
            let ((left, width_of), (top, height_of)) = (span(a, b, width), span(c, d, height));
            let region = Rect { left, top, width: width_of.min(width - left), height: height_of.min(height - top) };
            let whole = jpeg.pixels(Rect::whole(jpeg.size())).unwrap();
            let rows = whole.chunks_exact(width * channels).skip(top).take(region.height);
            let expected: Vec<u8> = rows.flat_map(|row| &row[left * channels..][..region.width * channels]).copied().collect();
            prop_assert_eq!(jpeg.pixels(region).unwrap(), expected);
        }

        #[test]
        fn damaged_data_do_no_harm(kind in 0..6_usize, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9)) {
            let mut bytes = file(KINDS[kind]);
            for (place, value) in changes {
                *place.get_mut(&mut bytes) = value;
            }
            if let Some(jpeg) = Jpeg::read(&bytes).filter(|jpeg| jpeg.size().iter().product::<usize>() < 1 << 16) {
                let pixels = jpeg.size().iter().product::<usize>() * jpeg.channels();
                prop_assert!(jpeg.image().is_none_or(|image| image.as_bytes().len() == pixels));
                jpeg.pixels(Rect { left: 0, top: 0, width: 1, height: 1 });
            }
        }
    }
}
