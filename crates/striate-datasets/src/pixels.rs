use crate::decode::grey_of_pixel;
use crate::{DatasetError, Interpolation};
use std::borrow::Cow;
use striate_torch::{Piece, Rect, Resampling, picture_from_bytes, picture_to_bytes, resample};
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

impl Region {
    /// The middle of a picture, of this width and height. Of what is cut off, half is rounded as Python rounds; of an odd rest of
    /// zeros, one more goes to the right and bottom.
    pub(crate) fn middle(has: [usize; 2], [width, height]: [usize; 2]) -> Self {
        let start = |has: usize, wants: usize| match has.checked_sub(wants) {
            Some(rest) => (rest as f64 / 2.0).round_ties_even() as isize,
            None => -(((wants - has) / 2).cast_signed()),
        };
        Self { left: start(has[0], width), top: start(has[1], height), width, height }
    }

    /// What of it lies within a picture; nothing has no width or no height.
    fn within(self, [width, height]: [usize; 2]) -> Rect {
        let span = |start: isize, len: usize, most: usize| {
            let (first, end) = (start.max(0).unsigned_abs(), start.saturating_add_unsigned(len).max(0).unsigned_abs().min(most));
            (first, end.saturating_sub(first))
        };
        let ((left, width), (top, height)) = (span(self.left, self.width, width), span(self.top, self.height, height));
        Rect { left, top, width, height }
    }
}

impl From<Rect> for Region {
    fn from(rect: Rect) -> Self {
        Self { left: rect.left.cast_signed(), top: rect.top.cast_signed(), width: rect.width, height: rect.height }
    }
}

/// What is seen of a picture: a part of it in another size, and of that a window, with zeros beyond its borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    part: Rect,
    size: [usize; 2],
    window: Region,
    by: Interpolation,
}

impl View {
    /// All of a picture of this width and height.
    pub fn whole(has: [usize; 2]) -> Self {
        Self::resized(Rect::whole(has), has, Interpolation::default())
    }

    /// A part of a picture in another size.
    pub(crate) fn resized(part: Rect, size: [usize; 2], by: Interpolation) -> Self {
        Self { part, size, window: Rect::whole(size).into(), by }
    }

    /// Of what is seen, the window alone.
    pub(crate) fn cropped(self, window: Region) -> Self {
        Self { window, ..self }
    }

    /// The width and height that it gives.
    pub fn size(&self) -> [usize; 2] {
        [self.window.width, self.window.height]
    }

    /// What is seen of this by `next`, if one view tells that.
    fn then(&self, next: &Self) -> Option<Self> {
        let has = self.size();
        if self.is_whole() && self.part == Rect::whole(has) {
            return Some(*next);
        }
        let only_cropped = next.part == Rect::whole(has) && next.size == has;
        let into = Region::from(next.window.within(has)) == next.window;
        (only_cropped && (into || self.is_whole())).then(|| {
            let window =
                Region { left: self.window.left + next.window.left, top: self.window.top + next.window.top, ..next.window };
            Self { window, ..*self }
        })
    }

    fn is_whole(&self) -> bool {
        self.window == Rect::whole(self.size).into()
    }

    fn keeps_size(&self) -> bool {
        self.part.size() == self.size
    }

    /// The pixels that it is made of, and perhaps some around them; at least one.
    pub(crate) fn needs(&self) -> Rect {
        let Rect { left, top, width, height } = match self.resampling() {
            Some(resampling) if !self.keeps_size() => resampling.needs(),
            _ => {
                let within = self.window.within(self.size);
                Rect { left: within.left + self.part.left, top: within.top + self.part.top, ..within }
            }
        };
        let some = |start: usize, len: usize, part: usize, end: usize| (start.min(part + end - 1), len.max(1));
        let ((left, width), (top, height)) =
            (some(left, width, self.part.left, self.part.width), some(top, height, self.part.top, self.part.height));
        Rect { left, top, width, height }
    }

    /// How the part of the window that is not beyond the borders is computed, if there is any.
    fn resampling(&self) -> Option<Resampling> {
        let window = self.window.within(self.size);
        let resampling = Resampling { part: self.part, size: self.size, window, cubic: self.by == Interpolation::Bicubic };
        (window.width.min(window.height) > 0).then_some(resampling)
    }

    /// What is seen of a picture.
    ///
    /// # Errors
    ///
    /// A view of a picture of another size, or a lack of memory.
    pub fn of<'p>(&self, picture: Pixels<'p>) -> Result<Pixels<'p>, DatasetError> {
        let has = [picture.width, picture.height];
        if *self == Self::whole(has) {
            return Ok(picture);
        }
        self.of_piece(picture, Rect::whole(has))
    }

    /// What is seen of a picture, of which the pixels in `place` are there: at least those that it [`needs`](Self::needs).
    pub(crate) fn of_piece<'p>(&self, piece: Pixels<'p>, place: Rect) -> Result<Pixels<'p>, DatasetError> {
        let shifted =
            |left: isize, top: isize| Region { left: self.window.left + left, top: self.window.top + top, ..self.window };
        if self.keeps_size() {
            // Nothing beyond the part is seen.
            let seen = if place == self.part { place } else { self.needs() };
            let offset = |from: usize, to: usize| from.cast_signed() - to.cast_signed();
            let (left, top) = (offset(seen.left, place.left), offset(seen.top, place.top));
            let piece = piece.crop(Region { left, top, ..seen.into() });
            return Ok(piece.crop(shifted(offset(self.part.left, seen.left), offset(self.part.top, seen.top))));
        }
        let Some(resampling) = self.resampling() else {
            let [width, height] = self.size();
            return Ok(Pixels::new([width, height], piece.channels, vec![0; width * height * piece.channels]));
        };
        let Rect { left, top, width, height } = resampling.window;
        let resized = resample(&Piece { bytes: &piece.data, place, channels: piece.channels }, &resampling)?;
        let seen = Pixels::new([width, height], piece.channels, resized);
        Ok(seen.crop(shifted(-left.cast_signed(), -top.cast_signed())))
    }
}

/// What is seen of a picture step by step.
pub(crate) struct Views {
    view: View,
    later: Vec<View>,
}

impl Views {
    pub(crate) fn of(view: View) -> Self {
        Self { view, later: Vec::new() }
    }

    /// The width and height so far.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.later.last().unwrap_or(&self.view).size()
    }

    /// What is seen of that.
    pub(crate) fn then(&mut self, next: View) {
        match self.view.then(&next) {
            Some(view) if self.later.is_empty() => self.view = view,
            _ => self.later.push(next),
        }
    }

    /// The first view, and those that come after it.
    pub(crate) fn split(self) -> (View, Vec<View>) {
        (self.view, self.later)
    }
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

    /// Writes all samples, pixel by pixel; grey is repeated where `out` has more channels.
    pub(crate) fn write(&self, out: &mut [u8]) {
        if out.len() == self.data.len() {
            return out.copy_from_slice(&self.data);
        }
        let channels = out.len() / (self.width * self.height);
        for (pixel, grey) in out.chunks_exact_mut(channels).zip(self.data.iter()) {
            pixel.fill(*grey);
        }
    }

    /// Grey for a network that takes one channel, else in colour.
    pub(crate) fn in_channels(self, channels: i64) -> Self {
        let size = [self.width, self.height];
        match (self.channels, channels) {
            (3, 1) => Pixels::new(size, 1, self.data.as_chunks().0.iter().map(grey_of_pixel).collect::<Vec<_>>()),
            (1, 3) => Pixels::new(size, 3, self.data.iter().flat_map(|value| [*value; 3]).collect::<Vec<_>>()),
            _ => self,
        }
    }

    /// The same picture, changed in its own memory.
    pub(crate) fn map(mut self, change: impl FnOnce(&mut [u8])) -> Self {
        change(self.data.to_mut());
        self
    }

    /// A region of it, with zeros beyond the borders.
    pub(crate) fn crop(self, region: Region) -> Self {
        let Region { left, top, width, height } = region;
        if region == Rect::whole([self.width, self.height]).into() {
            return self;
        }
        let there = region.within([self.width, self.height]);
        let into = there.left.cast_signed().saturating_sub(left).unsigned_abs() * self.channels;
        let (row, len) = (self.width * self.channels, there.width * self.channels);
        let mut data = vec![0; width * height * self.channels];
        if there.width.min(there.height) > 0 {
            let first = there.top.cast_signed().saturating_sub(top).unsigned_abs();
            let rows = data.chunks_exact_mut(width * self.channels).skip(first).take(there.height);
            for (from, to) in self.data.chunks_exact(row).skip(there.top).zip(rows) {
                to[into..into + len].copy_from_slice(&from[there.left * self.channels..][..len]);
            }
        }
        Pixels::new([width, height], self.channels, data)
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
