use crate::{DatasetError, Interpolation};
use std::borrow::Cow;
use striate_torch::{Window, picture_from_bytes, picture_to_bytes, resample};
use tch::Tensor;

/// A decoded picture: 8-bit samples, row by row, and in them pixel by pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels<'a> {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Samples in a pixel: 1 for grey, 3 for colour.
    pub channels: usize,
    /// `height * width * channels` samples.
    pub data: Cow<'a, [u8]>,
}

/// A part of a picture, in pixels; it may reach beyond the picture's borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) left: isize,
    pub(crate) top: isize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl<'a> Pixels<'a> {
    /// A picture of its samples, of which there must be `height * width * channels`.
    pub(crate) fn new([width, height]: [usize; 2], channels: usize, data: impl Into<Cow<'a, [u8]>>) -> Self {
        let data = data.into();
        debug_assert_eq!(data.len(), width * height * channels);
        Self { width, height, channels, data }
    }

    /// `[1, C, H, W]`, uint8.
    pub(crate) fn to_tensor(&self) -> Result<Tensor, DatasetError> {
        let shape = [self.channels, self.height, self.width].map(|size| size.cast_signed() as i64);
        Ok(picture_from_bytes(&self.data, shape)?)
    }

    /// Of `[1, C, H, W]`, uint8.
    pub(crate) fn of_tensor(picture: &Tensor) -> Result<Pixels<'static>, DatasetError> {
        let data = picture_to_bytes(picture)?;
        let [channels, height, width] = crate::dataset::image_shape(picture).map(|size| size.unsigned_abs() as usize);
        Ok(Pixels::new([width, height], channels, data))
    }

    /// The same picture, changed in its own memory.
    pub(crate) fn map(mut self, change: impl FnOnce(&mut [u8])) -> Self {
        change(self.data.to_mut());
        self
    }

    /// A region of it, with zeros beyond the borders.
    pub(crate) fn crop(self, region: Region) -> Self {
        let Region { left, top, width, height } = region;
        if (left, top, width, height) == (0, 0, self.width, self.height) {
            return self;
        }
        // The columns that both have.
        let first = left.clamp(0, self.width.cast_signed());
        let last = left.saturating_add_unsigned(width).clamp(first, self.width.cast_signed());
        let into = (first - left).unsigned_abs() * self.channels;
        let (row, len) = (self.width * self.channels, (last - first).unsigned_abs() * self.channels);
        let mut data = vec![0; width * height * self.channels];
        if len > 0 {
            for (y, to) in (top..).zip(data.chunks_exact_mut(width * self.channels)) {
                if let Some(y) = usize::try_from(y).ok().filter(|y| *y < self.height) {
                    let from = y * row + first.unsigned_abs() * self.channels;
                    to[into..into + len].copy_from_slice(&self.data[from..from + len]);
                }
            }
        }
        Pixels::new([width, height], self.channels, data)
    }

    /// A region that lies within the picture, in another size, to Pillow's bits.
    pub(crate) fn resize(self, region: Region, size: [usize; 2], by: Interpolation) -> Result<Self, DatasetError> {
        if [region.width, region.height] == size {
            return Ok(self.crop(region));
        }
        let start = [region.left, region.top].map(isize::unsigned_abs);
        let (bytes, row, channels) = (&*self.data, self.width, self.channels);
        let window = Window { bytes, row, channels, start, size: [region.width, region.height] };
        Ok(Pixels::new(size, channels, resample(&window, size, by == Interpolation::Bicubic)?))
    }

    /// All of the picture.
    pub(crate) fn whole(&self) -> Region {
        Region { left: 0, top: 0, width: self.width, height: self.height }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_beyond_the_borders_has_zeros() {
        let picture = Pixels::new([3, 2], 1, vec![1, 2, 3, 4, 5, 6]);
        let crop = |left, top, width, height| picture.clone().crop(Region { left, top, width, height }).data.into_owned();
        assert_eq!(crop(1, 0, 2, 2), [2, 3, 5, 6]);
        assert_eq!(crop(-1, -1, 3, 2), [0, 0, 0, 0, 1, 2]);
        assert_eq!(crop(2, 1, 3, 2), [6, 0, 0, 0, 0, 0]);
        assert_eq!(crop(7, -9, 1, 1), [0]);
        let colour = Pixels::new([2, 1], 3, vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(*colour.crop(Region { left: 1, top: 0, width: 2, height: 1 }).data, [4, 5, 6, 0, 0, 0]);
    }
}
