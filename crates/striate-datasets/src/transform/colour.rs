//! Brightness, contrast, saturation and hue, as Pillow's `ImageEnhance` and torchvision change them.

use super::tone::mapped;
use super::{OnPicture, Rng, check};
use crate::decode::grey_of_pixel;
use crate::{DatasetError, Pixels};
use serde::{Deserialize, Serialize};

/// Changes brightness, contrast, saturation and hue by random factors, in random order. Everything is off by default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColourJitter {
    /// How far the factor is from 1 at most.
    pub brightness: f64,
    /// How far the factor is from 1 at most.
    pub contrast: f64,
    /// How far the factor is from 1 at most.
    pub saturation: f64,
    /// How far the hue turns at most, up to half a turn, 0.5, either way.
    pub hue: f64,
}

at_random! {
    /// Takes the colour away; the picture keeps its channels.
    RandomGrey {}, p = 0.1, "grey", |_| Ok(()), |_, picture| saturation(picture, 0.0)
}

impl OnPicture for ColourJitter {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        let Self { brightness, contrast, saturation, hue } = *self;
        let names = ["colour-jitter.brightness", "colour-jitter.contrast", "colour-jitter.saturation"];
        for (name, value) in names.into_iter().zip([brightness, contrast, saturation]) {
            check(value >= 0.0 && value.is_finite(), name, value, "0 or larger")?;
        }
        check((0.0..=0.5).contains(&hue), "colour-jitter.hue", hue, "from 0 to 0.5")
    }

    fn apply<'p>(&self, mut picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        let mut order = [0, 1, 2, 3];
        for last in (1..order.len()).rev() {
            order.swap(last, rng.below(last + 1));
        }
        let mut factor = |most: f64| rng.between([(1.0 - most).max(0.0), 1.0 + most]);
        let factors = [self.brightness, self.contrast, self.saturation].map(&mut factor);
        let turn = rng.between([-self.hue, self.hue]);
        for change in order {
            picture = match change {
                0 if self.brightness > 0.0 => brightness(picture, factors[0]),
                1 if self.contrast > 0.0 => contrast(picture, factors[1]),
                2 if self.saturation > 0.0 => saturation(picture, factors[2]),
                3 if self.hue > 0.0 => hue(picture, turn),
                _ => picture,
            };
        }
        Ok(picture)
    }
}

/// Pillow's `Image.blend` of two values: between them, or beyond.
pub(super) fn blend(from: u8, to: u8, factor: f32) -> u8 {
    // Converting cuts the fraction off, and clips.
    (f32::from(from) + factor * f32::from(i16::from(to) - i16::from(from))) as u8
}

pub(super) fn brightness(picture: Pixels<'_>, factor: f64) -> Pixels<'_> {
    mapped(picture, |value| blend(0, value, factor as f32))
}

pub(super) fn contrast(picture: Pixels<'_>, factor: f64) -> Pixels<'_> {
    let sum: u64 = match picture.channels {
        3 => picture.data.as_chunks().0.iter().map(|pixel| u64::from(grey_of_pixel(pixel))).sum(),
        _ => picture.data.iter().map(|value| u64::from(*value)).sum(),
    };
    let mean = (sum as f64 / (picture.width * picture.height) as f64 + 0.5) as u8;
    mapped(picture, |value| blend(mean, value, factor as f32))
}

pub(super) fn saturation(picture: Pixels<'_>, factor: f64) -> Pixels<'_> {
    let factor = factor as f32;
    each_pixel(picture, |pixel| {
        let grey = grey_of_pixel(pixel);
        pixel.map(|value| blend(grey, value, factor))
    })
}

/// The hue turned by a part of a whole turn.
pub(super) fn hue(picture: Pixels<'_>, turn: f64) -> Pixels<'_> {
    let shift = (turn * 255.0) as i32 as u8;
    each_pixel(picture, |pixel| {
        let [h, s, v] = hsv_of_rgb(*pixel);
        rgb_of_hsv([h.wrapping_add(shift), s, v])
    })
}

/// Changes each pixel of a picture in colour; one in grey stays as it is.
fn each_pixel(picture: Pixels<'_>, change: impl Fn(&[u8; 3]) -> [u8; 3]) -> Pixels<'_> {
    match picture.channels {
        3 => picture.map(|data| data.as_chunks_mut().0.iter_mut().for_each(|pixel| *pixel = change(pixel))),
        _ => picture,
    }
}

/// Pillow's conversion, with its types.
fn hsv_of_rgb([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let saturation = range / f32::from(most);
    let [rc, gc, bc] = [r, g, b].map(|value| f32::from(most - value) / range);
    let hue = if r == most {
        bc - gc
    } else if g == most {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let hue = ((f64::from(hue) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most]
}

/// Pillow's conversion, with its types.
fn rgb_of_hsv([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let sixths = f64::from(h) * 6.0 / 255.0;
    let (sector, value) = (sixths.floor(), f64::from(v));
    let f = f64::from((sixths - f64::from(sector as f32)) as f32);
    let fs = f64::from((f64::from(s) / 255.0) as f32);
    let [p, q, t] = [1.0 - fs, 1.0 - fs * f, 1.0 - fs * (1.0 - f)].map(|share| (value * share).round() as u8);
    match sector as u32 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_changes_nothing_and_the_rest_is_drawn() {
        let picture = Pixels::new([2, 1], 3, vec![10, 200, 30, 90, 80, 70]);
        let apply = |jitter: &ColourJitter, seed| jitter.apply(picture.clone(), [2, 1], &mut Rng::new(seed, &[])).unwrap();
        assert_eq!(apply(&ColourJitter::default(), 1), picture);
        let jitter = ColourJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
        assert_ne!(apply(&jitter, 1), apply(&jitter, 2));
        let grey = Pixels::new([2, 1], 1, vec![10, 200]);
        assert_eq!(hue(saturation(grey.clone(), 3.0), 0.3), grey, "grey has no colour to change");
        assert!(
            ColourJitter { hue: 0.6, ..jitter }.check([3, 8, 8]).unwrap_err().to_string().starts_with("colour-jitter.hue: 0.6")
        );
    }
}
