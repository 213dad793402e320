use super::{OnValues, Rng, check_p, check_range};
use crate::DatasetError;
use serde::{Deserialize, Serialize};

/// Tries of a rectangle that fits.
const TRIES: usize = 10;

/// Erases a random rectangle of a normalised picture with the probability `p` (Zhong 2020, arXiv:1708.04896).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomErasing {
    /// The probability.
    pub p: f64,
    /// The smallest and the largest share of the picture's area.
    pub scale: [f64; 2],
    /// The smallest and the largest height in widths.
    pub ratio: [f64; 2],
    /// What is there instead.
    pub value: Erased,
}

/// What is in an erased rectangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Erased {
    /// 0 in all channels, which is the mean.
    #[default]
    Mean,
    /// A value from N(0, 1) for each.
    Random,
}

impl Default for RandomErasing {
    fn default() -> Self {
        Self { p: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3], value: Erased::default() }
    }
}

impl OnValues for RandomErasing {
    fn check(&self) -> Result<(), DatasetError> {
        check_p("random-erasing.p", self.p)?;
        check_range("random-erasing.scale", self.scale, 0.0, "shares from 0 to 1, the smaller first")?;
        check_p("random-erasing.scale", self.scale[1])?;
        check_range("random-erasing.ratio", self.ratio, f64::MIN_POSITIVE, "numbers above 0, the smaller first")
    }

    fn apply(&self, values: &mut [f32], [width, height]: [usize; 2], rng: &mut Rng) {
        if !rng.chance(self.p) {
            return;
        }
        let log_ratio = self.ratio.map(f64::ln);
        for _ in 0..TRIES {
            let (area, ratio) = ((width * height) as f64 * rng.between(self.scale), rng.between(log_ratio).exp());
            let side = |square: f64| square.sqrt().round_ties_even() as usize;
            let (h, w) = (side(area * ratio), side(area / ratio));
            if h < height && w < width {
                let (top, left) = (rng.below(height - h + 1), rng.below(width - w + 1));
                for plane in values.chunks_exact_mut(width * height) {
                    for row in plane.chunks_exact_mut(width).skip(top).take(h) {
                        row[left..left + w].fill_with(|| match self.value {
                            Erased::Mean => 0.0,
                            Erased::Random => rng.normal() as f32,
                        });
                    }
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rectangle_is_erased_in_all_channels() {
        let (width, height) = (24, 16);
        let mut sizes = 0.0;
        for seed in 0..200 {
            let mut values = vec![1.0; 2 * width * height];
            let erasing = RandomErasing { p: 1.0, ..RandomErasing::default() };
            erasing.apply(&mut values, [width, height], &mut Rng::new(seed, &[]));
            let (one, other) = values.split_at(width * height);
            assert_eq!(one, other);
            let erased: Vec<usize> = (0..one.len()).filter(|place| one[*place] == 0.0).collect();
            let (columns, rows) = (erased.iter().map(|place| place % width), erased.iter().map(|place| place / width));
            let span = |places: Vec<usize>| places.iter().max().unwrap_or(&0) + 1 - places.iter().min().unwrap_or(&0);
            assert_eq!(span(columns.collect()) * span(rows.collect()), erased.len(), "it is a rectangle");
            sizes += erased.len() as f64 / one.len() as f64 / 200.0;
        }
        assert!((0.12..0.22).contains(&sizes), "{sizes}");
    }

    #[test]
    fn noise_fills_it_if_asked_for_and_nothing_happens_without_luck() {
        let apply = |p, value| {
            let mut values = vec![5.0; 32 * 32];
            RandomErasing { p, value, ..RandomErasing::default() }.apply(&mut values, [32, 32], &mut Rng::new(2, &[]));
            values.into_iter().filter(|value| *value != 5.0).collect::<Vec<_>>()
        };
        assert!(apply(0.0, Erased::Mean).is_empty());
        let noise = apply(1.0, Erased::Random);
        assert!(noise.iter().any(|value| *value > 0.3) && noise.iter().any(|value| *value < -0.3), "{noise:?}");
    }
}
