use super::affine::{Map, transform};
use super::{OnPicture, Rng, Sampling, check_p};
use crate::{DatasetError, Pixels};
use serde::{Deserialize, Serialize};

/// Moves the corners of a picture inwards at random with the probability `p`, as if it was seen from another place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomPerspective {
    /// How far a corner moves at most, in halves of the picture.
    pub distortion: f64,
    /// The probability.
    pub p: f64,
    /// Where values come from.
    pub interpolation: Sampling,
}

impl Default for RandomPerspective {
    fn default() -> Self {
        Self { distortion: 0.5, p: 0.5, interpolation: Sampling::Bilinear }
    }
}

impl OnPicture for RandomPerspective {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        check_p("perspective.distortion", self.distortion)?;
        check_p("perspective.p", self.p)
    }

    fn apply<'p>(&self, picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        if !rng.chance(self.p) {
            return Ok(picture);
        }
        let [right, bottom] = [picture.width - 1, picture.height - 1];
        let mut inward = |side: usize| rng.below((self.distortion * (side / 2) as f64) as usize + 1);
        let mut corner = |x: usize, y: usize| {
            let (dx, dy) = (inward(picture.width), inward(picture.height));
            [if x == 0 { dx } else { x - dx }, if y == 0 { dy } else { y - dy }]
        };
        let ends = [corner(0, 0), corner(right, 0), corner(right, bottom), corner(0, bottom)];
        let starts = [[0, 0], [right, 0], [right, bottom], [0, bottom]];
        Ok(match coefficients(starts, ends) {
            Some(map) => transform(&picture, Map::Perspective(map), self.interpolation),
            None => picture,
        })
    }
}

/// torchvision's `_get_perspective_coeffs`, of four corners before and after; none if three of them lie on a line.
pub(super) fn coefficients(starts: [[usize; 2]; 4], ends: [[usize; 2]; 4]) -> Option<[f64; 8]> {
    let mut rows = [[0.0_f64; 9]; 8];
    for ((start, end), rows) in starts.into_iter().zip(ends).zip(rows.as_chunks_mut::<2>().0) {
        let ([u, v], [x, y]) = (start.map(|side| side as f64), end.map(|side| side as f64));
        *rows = [[x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y, u], [0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y, v]];
    }
    // Gauss and Jordan, with the largest pivot of each column.
    for column in 0..8 {
        let largest = (column..8).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, largest);
        let pivot = rows[column];
        if pivot[column].abs() < 1e-9 {
            return None;
        }
        for (number, row) in rows.iter_mut().enumerate() {
            let factor = if number == column { 1.0 - 1.0 / pivot[column] } else { row[column] / pivot[column] };
            row.iter_mut().zip(pivot).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    // torchvision rounds to float32.
    Some(rows.map(|row| f64::from(row[8] as f32)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn corners_come_from_where_they_were() {
        let (starts, ends) = ([[0, 0], [9, 0], [9, 7], [0, 7]], [[1, 2], [8, 0], [9, 5], [3, 6]]);
        let [a, b, c, d, e, f, g, h] = coefficients(starts, ends).unwrap();
        for ([u, v], [x, y]) in starts.into_iter().zip(ends) {
            let (x, y) = (x as f64, y as f64);
            let by = g * x + h * y + 1.0;
            let (got_u, got_v) = ((a * x + b * y + c) / by, (d * x + e * y + f) / by);
            assert!((got_u - u as f64).abs() < 1e-4 && (got_v - v as f64).abs() < 1e-4, "{got_u} {got_v}");
        }
        assert_eq!(coefficients(starts, [[0, 0], [1, 0], [2, 0], [3, 0]]), None);
    }
}
