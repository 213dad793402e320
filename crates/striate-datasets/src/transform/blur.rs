use super::colour::blend;
use super::{OnPicture, Rng, check, check_p, check_range};
use crate::{DatasetError, Pixels};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Blurs a picture by a Gaussian of random width with the probability `p`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomGaussianBlur {
    /// Pixels that a pixel is made of along each side; an odd number.
    pub kernel_size: u32,
    /// The smallest and the largest standard deviation in pixels.
    pub sigma: [f64; 2],
    /// The probability.
    pub p: f64,
}

at_random! {
    /// Sharpens a picture, or blurs it by a factor below 1.
    RandomSharpness {
        /// 0 for blurred, 1 for as it is, and larger for sharper.
        factor: f64 = 2.0,
    }, p = 0.5, "sharpness",
    |transform| super::check(transform.factor >= 0.0 && transform.factor.is_finite(), "sharpness.factor", transform.factor, "0 or larger"),
    |transform, picture| sharpness(picture, transform.factor)
}

impl Default for RandomGaussianBlur {
    fn default() -> Self {
        Self { kernel_size: 23, sigma: [0.1, 2.0], p: 0.5 }
    }
}

impl OnPicture for RandomGaussianBlur {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        let odd = self.kernel_size % 2 == 1 && self.kernel_size < 1000;
        check(odd, "gaussian-blur.kernel_size", self.kernel_size, "an odd number below 1000")?;
        check_range("gaussian-blur.sigma", self.sigma, f64::MIN_POSITIVE, "numbers above 0, the smaller first")?;
        check_p("gaussian-blur.p", self.p)
    }

    fn apply<'p>(&self, picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        if !rng.chance(self.p) {
            return Ok(picture);
        }
        let sigma = rng.between(self.sigma);
        Ok(gaussian_blur(&picture, self.kernel_size as usize, sigma))
    }
}

/// torchvision's `gaussian_blur`: along the rows, then along the columns; borders are mirrored.
pub(super) fn gaussian_blur(picture: &Pixels<'_>, kernel_size: usize, sigma: f64) -> Pixels<'static> {
    let half = kernel_size / 2;
    let weight = |place: usize| (-0.5 * ((place as f64 - half as f64) / sigma).powi(2)).exp();
    let weights: Vec<f64> = (0..kernel_size).map(weight).collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f32> = weights.into_iter().map(|weight| (weight / total) as f32).collect();
    let (width, height, channels) = (picture.width, picture.height, picture.channels);
    let row = width * channels;
    let mut wide = vec![0.0_f32; picture.data.len()];
    for (to, from) in wide.chunks_exact_mut(row).zip(picture.data.chunks_exact(row)) {
        for (to, x) in to.chunks_exact_mut(channels).zip(0..) {
            for (weight, k) in weights.iter().zip(0..) {
                let x = mirrored(x + k, half, width) * channels;
                to.iter_mut().zip(&from[x..]).for_each(|(to, value)| *to += weight * f32::from(*value));
            }
        }
    }
    let mut sums = vec![0.0_f32; row];
    let mut data = Vec::with_capacity(wide.len());
    for y in 0..height {
        sums.fill(0.0);
        for (weight, k) in weights.iter().zip(0..) {
            let y = mirrored(y + k, half, height) * row;
            sums.iter_mut().zip(&wide[y..]).for_each(|(sum, value)| *sum += weight * value);
        }
        data.extend(sums.iter().map(|sum| sum.round_ties_even() as u8));
    }
    Pixels::new([width, height], channels, data)
}

/// The place `at - half` of `len`, mirrored at the ends without repeating these.
fn mirrored(at: usize, half: usize, len: usize) -> usize {
    let period = (2 * len - 2).max(1);
    let place = (at + period * (half / period + 1) - half) % period;
    place.min(period - place).min(len - 1)
}

/// Pillow's `ImageEnhance.Sharpness`: between a smoothed picture and the picture, or beyond.
pub(super) fn sharpness(picture: Pixels<'_>, factor: f64) -> Pixels<'_> {
    let (width, height, channels) = (picture.width, picture.height, picture.channels);
    if width < 3 || height < 3 || factor == 1.0 {
        return picture;
    }
    let (row, factor) = (width * channels, factor as f32);
    let mut data = picture.data.to_vec();
    let inner = channels..row - channels;
    for y in 1..height - 1 {
        let line = |y: usize| &picture.data[y * row..(y + 1) * row];
        let (above, here, below) = (line(y - 1), line(y), line(y + 1));
        for (at, to) in inner.clone().zip(&mut data[y * row + channels..]) {
            let three = |line: &[u8]| u32::from(line[at - channels]) + u32::from(line[at]) + u32::from(line[at + channels]);
            let sum = three(above) + three(here) + three(below) + 4 * u32::from(here[at]);
            // A thirteenth, rounded.
            *to = blend(((2 * sum + 13) / 26) as u8, here[at], factor);
        }
    }
    Pixels { data: Cow::Owned(data), ..picture }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_mirrored() {
        let places = |len| (0..9).map(|at| mirrored(at, 4, len)).collect::<Vec<_>>();
        // numpy.pad([0, 1, 2, 3, 4], 4, mode="reflect")[:9], then of [0, 1] and [0]
        assert_eq!(places(5), [4, 3, 2, 1, 0, 1, 2, 3, 4]);
        assert_eq!(places(2), [0, 1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(places(1), [0; 9]);
    }
}
