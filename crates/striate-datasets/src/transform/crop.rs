use super::{OnView, Rng, check, check_range};
use crate::pixels::Region;
use crate::{DatasetError, Interpolation, View};
use serde::{Deserialize, Serialize};
use striate_torch::Rect;

/// Tries of [`RandomResizedCrop`] before it takes the middle.
const TRIES: usize = 10;

/// Resizes a picture in proportion, until the network's input is `crop_pct` of it on the input's longer side: 0.875 of 256 is 224.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resize {
    /// The fraction, as timm has it.
    pub crop_pct: f64,
    /// The filter.
    pub interpolation: Interpolation,
}

/// Cuts the middle of the input's size out of a picture, with zeros around one that is smaller.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CentreCrop {}

/// Cuts a region of random area and proportions out of a picture, and resizes it to the input's size: torchvision's
/// `RandomResizedCrop`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// The smallest and the largest share of the picture's area.
    pub scale: [f64; 2],
    /// The smallest and the largest width in heights.
    pub ratio: [f64; 2],
    /// The filter.
    pub interpolation: Interpolation,
}

/// Cuts the input's size out of a picture at a random place, after `padding` zeros were put on each side.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomCrop {
    /// Pixels of zeros.
    pub padding: u32,
}

impl Default for Resize {
    fn default() -> Self {
        Self { crop_pct: 1.0, interpolation: Interpolation::default() }
    }
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        Self { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0], interpolation: Interpolation::default() }
    }
}

impl OnView for Resize {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        check((0.1..=1.0).contains(&self.crop_pct), "resize.crop_pct", self.crop_pct, "from 0.1 to 1")
    }

    fn view(&self, has: [usize; 2], size: [usize; 2], _: &mut Rng) -> Result<View, DatasetError> {
        let side = (size[0].max(size[1]) as f64 / self.crop_pct).floor() as usize;
        let [width, height] = has;
        let longer = |longer: usize, shorter: usize| (side * longer / shorter).max(1);
        let size = if width <= height { [side, longer(height, width)] } else { [longer(width, height), side] };
        Ok(View::resized(Rect::whole(has), size, self.interpolation))
    }

    fn sizes(&self) -> bool {
        true
    }
}

impl OnView for CentreCrop {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        Ok(())
    }

    fn view(&self, has: [usize; 2], size: [usize; 2], _: &mut Rng) -> Result<View, DatasetError> {
        Ok(View::whole(has).cropped(Region::middle(has, size)))
    }

    fn sizes(&self) -> bool {
        true
    }

    fn is_light(&self) -> bool {
        true
    }
}

impl OnView for RandomResizedCrop {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        let [least, most] = self.scale;
        check(least > 0.0 && most <= 1.0, "random-resized-crop.scale", self.scale, "shares above 0, up to 1")?;
        check_range("random-resized-crop.scale", self.scale, 0.0, "the smaller share first")?;
        check_range("random-resized-crop.ratio", self.ratio, f64::MIN_POSITIVE, "numbers above 0, the smaller first")
    }

    fn view(&self, has: [usize; 2], size: [usize; 2], rng: &mut Rng) -> Result<View, DatasetError> {
        Ok(View::resized(self.draw(has, rng), size, self.interpolation))
    }

    fn sizes(&self) -> bool {
        true
    }
}

impl RandomResizedCrop {
    fn draw(&self, [width, height]: [usize; 2], rng: &mut Rng) -> Rect {
        let area = (width * height) as f64;
        let log_ratio = self.ratio.map(f64::ln);
        for _ in 0..TRIES {
            let (area, ratio) = (area * rng.between(self.scale), rng.between(log_ratio).exp());
            let side = |square: f64| square.sqrt().round_ties_even() as usize;
            let (w, h) = (side(area * ratio), side(area / ratio));
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = rng.below(height - h + 1);
                return Rect { left: rng.below(width - w + 1), top, width: w, height: h };
            }
        }
        // As much of the middle as the proportions allow.
        let [least, most] = self.ratio;
        let (wide, high) = (width as f64, height as f64);
        let (w, h) = match wide / high {
            ratio if ratio < least => (width, ((wide / least).round_ties_even() as usize).clamp(1, height)),
            ratio if ratio > most => (((high * most).round_ties_even() as usize).clamp(1, width), height),
            _ => (width, height),
        };
        Rect { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
    }
}

impl OnView for RandomCrop {
    fn check(&self, input: [i64; 3]) -> Result<(), DatasetError> {
        let side = input[1].min(input[2]);
        let reason = format!("below the input's shorter side, {side}");
        check(i64::from(self.padding) < side, "random-crop.padding", self.padding, &reason)
    }

    fn view(&self, has: [usize; 2], [width, height]: [usize; 2], rng: &mut Rng) -> Result<View, DatasetError> {
        let padding = self.padding as usize;
        let mut start = |has: usize, wants: usize| {
            let rest = (has + 2 * padding).checked_sub(wants)?;
            Some(rng.below(rest + 1).cast_signed() - padding.cast_signed())
        };
        let (Some(top), Some(left)) = (start(has[1], height), start(has[0], width)) else {
            let (has, more) = (format!("{}x{}", has[1], has[0]), format!("{padding} zeros on each side"));
            let reason = format!("{height}x{width} cannot be cut out of {has} with {more}: put `resize` before it");
            return Err(DatasetError::option("random-crop", reason));
        };
        Ok(View::whole(has).cropped(Region { left, top, width, height }))
    }

    fn sizes(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Pixels;
    use std::collections::HashSet;

    fn counting([width, height]: [usize; 2]) -> Pixels<'static> {
        Pixels::new([width, height], 1, (1..=(width * height) as u8).collect::<Vec<_>>())
    }

    fn apply(transform: &dyn OnView, picture: Pixels<'static>, size: [usize; 2], seed: u64) -> Vec<u8> {
        let view = transform.view([picture.width, picture.height], size, &mut Rng::new(seed, &[])).unwrap();
        let out = view.of(picture).unwrap();
        assert_eq!([out.width, out.height], size);
        out.data.into_owned()
    }

    #[test]
    fn padded_crops_reach_every_place() {
        let found: HashSet<Vec<u8>> =
            (0..300).map(|seed| apply(&RandomCrop { padding: 1 }, counting([3, 2]), [3, 2], seed)).collect();
        let place = |place: isize| Region { left: place % 3 - 1, top: place / 3 - 1, width: 3, height: 2 };
        let every: HashSet<_> = (0..9).map(|number| counting([3, 2]).crop(place(number)).data.into_owned()).collect();
        assert_eq!((found, every.len()), (every, 9));
        let error = RandomCrop { padding: 1 }.view([3, 2], [9, 9], &mut Rng::new(0, &[])).unwrap_err().to_string();
        assert_eq!(error, "random-crop: 9x9 cannot be cut out of 2x3 with 1 zeros on each side: put `resize` before it");
    }

    #[test]
    fn the_middle_is_torchvisions() {
        // torchvision.transforms.functional.center_crop of [[1, 2, 3, 4, 5]], widths 2, 4 and 8
        let middle = |width| apply(&CentreCrop {}, counting([5, 1]), [width, 1], 0);
        assert_eq!(middle(2), [3, 4]);
        assert_eq!(middle(4), [1, 2, 3, 4]);
        assert_eq!(middle(8), [0, 1, 2, 3, 4, 5, 0, 0]);
    }

    #[test]
    fn resizing_keeps_proportions() {
        let resized = |size, crop_pct| {
            let resize = Resize { crop_pct, ..Resize::default() };
            resize.view([6, 4], size, &mut Rng::new(0, &[])).unwrap().size()
        };
        assert_eq!(resized([4, 4], 1.0), [6, 4]);
        assert_eq!(resized([7, 7], 0.875), [12, 8]);
        assert_eq!(resized([2, 3], 1.0), [4, 3]);
    }

    #[test]
    fn regions_have_the_areas_and_proportions_that_are_drawn() {
        let crop = RandomResizedCrop::default();
        let (mut shares, mut lefts) = (0.0, HashSet::new());
        for seed in 0..2000 {
            let Rect { left, top, width, height } = crop.draw([80, 60], &mut Rng::new(seed, &[]));
            assert!(left + width <= 80 && top + height <= 60);
            let (share, ratio) = ((width * height) as f64 / 4800.0, width as f64 / height as f64);
            assert!((0.07..=1.0).contains(&share) && (0.7..1.4).contains(&ratio), "{width}x{height}");
            shares += share / 2000.0;
            lefts.insert(left);
        }
        // torchvision.transforms.RandomResizedCrop.get_params of 80x60, 20,000 times: a mean share of 0.440
        assert!((shares - 0.440).abs() < 0.015, "{shares}");
        assert!(lefts.len() > 40);
    }

    #[test]
    fn a_strip_gives_its_middle() {
        let crop = |size| {
            let Rect { left, top, width, height } = RandomResizedCrop::default().draw(size, &mut Rng::new(0, &[]));
            (left, top, width, height)
        };
        assert_eq!(crop([1000, 3]), (498, 0, 4, 3));
        assert_eq!(crop([3, 1000]), (0, 498, 3, 4));
    }

    #[test]
    fn unsound_values_are_refused_by_name() {
        let fault = |transform: &dyn OnView| transform.check([1, 8, 4]).unwrap_err().to_string();
        assert_eq!(fault(&RandomCrop { padding: 4 }), "random-crop.padding: 4 must be below the input's shorter side, 4");
        assert!(fault(&Resize { crop_pct: 0.0, ..Resize::default() }).starts_with("resize.crop_pct: 0.0 must be"));
        for scale in [[0.0, 1.0], [0.5, 1.5], [0.5, 0.2], [f64::NAN, 1.0]] {
            let crop = RandomResizedCrop { scale, ..RandomResizedCrop::default() };
            assert!(fault(&crop).starts_with("random-resized-crop.scale: "));
        }
        let crop = RandomResizedCrop { ratio: [0.0, 1.0], ..RandomResizedCrop::default() };
        assert!(fault(&crop).starts_with("random-resized-crop.ratio: "));
    }
}
