use super::{OnPicture, Rng, check, check_range};
use crate::{DatasetError, Pixels};
use serde::{Deserialize, Serialize};

/// Where a picture's values at places between its pixels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Sampling {
    /// From the pixel that the place lies in.
    Nearest,
    /// From the four pixels around it.
    #[default]
    Bilinear,
}

/// Turns, scales and shears a picture about its centre, and shifts it; zeros come in from outside. Everything is off by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomAffine {
    /// The largest angle, either way.
    pub degrees: f64,
    /// The largest shift in widths and in heights, either way; it is rounded to whole pixels.
    pub translate: [f64; 2],
    /// The smallest and the largest factor by which the content grows.
    pub scale: [f64; 2],
    /// The largest shear along the rows and along the columns in degrees, either way.
    pub shear: [f64; 2],
    /// Where values come from. torchvision takes the nearest unless told otherwise.
    pub interpolation: Sampling,
}

impl Default for RandomAffine {
    fn default() -> Self {
        Self { degrees: 0.0, translate: [0.0; 2], scale: [1.0; 2], shear: [0.0; 2], interpolation: Sampling::default() }
    }
}

impl OnPicture for RandomAffine {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        check((0.0..=180.0).contains(&self.degrees), "affine.degrees", self.degrees, "from 0 to 180")?;
        let fractions = self.translate.iter().all(|fraction| (0.0..=1.0).contains(fraction));
        check(fractions, "affine.translate", self.translate, "from 0 to 1")?;
        check_range("affine.scale", self.scale, f64::MIN_POSITIVE, "factors above 0, the smaller first")?;
        let angles = self.shear.iter().all(|angle| (0.0..90.0).contains(angle));
        check(angles, "affine.shear", self.shear, "from 0 to below 90")
    }

    fn apply<'p>(&self, picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        let mut either_way = |most: f64| rng.between([-most, most]);
        let angle = either_way(self.degrees);
        let [x, y] = self.translate;
        let shift = [x * picture.width as f64, y * picture.height as f64].map(|most| either_way(most).round_ties_even());
        let shear = self.shear.map(either_way);
        let scale = rng.between(self.scale);
        let centre = [picture.width as f64 * 0.5, picture.height as f64 * 0.5];
        let matrix = inverse(centre, angle, shift, scale, shear);
        Ok(transform(&picture, Map::Affine(matrix), self.interpolation))
    }
}

/// Where a pixel of the result comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Map {
    /// `[a, b, c, d, e, f]`: from (a x + b y + c, d x + e y + f).
    Affine([f64; 6]),
    /// `[a, ..., h]`: that, divided by (g x + h y + 1).
    Perspective([f64; 8]),
}

/// torchvision's `_get_inverse_affine_matrix`: angles in degrees, clockwise; all about `centre`.
pub(crate) fn inverse([cx, cy]: [f64; 2], angle: f64, [tx, ty]: [f64; 2], scale: f64, shear: [f64; 2]) -> [f64; 6] {
    let (angle, [sx, sy]) = (angle.to_radians(), shear.map(f64::to_radians));
    let a = (angle - sy).cos() / sy.cos();
    let b = -(angle - sy).cos() * sx.tan() / sy.cos() - angle.sin();
    let c = (angle - sy).sin() / sy.cos();
    let d = -(angle - sy).sin() * sx.tan() / sy.cos() + angle.cos();
    let [a, b, c, d] = [d, -b, -c, a].map(|value| value / scale);
    [a, b, a * (-cx - tx) + b * (-cy - ty) + cx, c, d, c * (-cx - tx) + d * (-cy - ty) + cy]
}

/// Pillow's `Image.rotate`: by so many degrees counterclockwise about the centre.
pub(crate) fn rotate<'p>(picture: Pixels<'p>, degrees: f64, sampling: Sampling) -> Pixels<'p> {
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return picture;
    }
    let angle = -degrees.to_radians();
    // Python's round(value, 15).
    let [cos, sin] = [angle.cos(), angle.sin()].map(|value| format!("{value:.15}").parse().unwrap_or(value));
    let [cx, cy] = [picture.width as f64 / 2.0, picture.height as f64 / 2.0];
    let (x, y) = (cos * -cx + sin * -cy + 0.0, -sin * -cx + cos * -cy + 0.0);
    transform(&picture, Map::Affine([cos, sin, x + cx, -sin, cos, y + cy]), sampling)
}

/// Pillow's `Image.transform` to the same size, with zeros from outside.
pub(crate) fn transform(picture: &Pixels<'_>, map: Map, sampling: Sampling) -> Pixels<'static> {
    let mut data = vec![0; picture.data.len()];
    match picture.channels {
        1 => sample(picture, picture.data.as_chunks::<1>().0, map, sampling, data.as_chunks_mut().0),
        3 => sample(picture, picture.data.as_chunks::<3>().0, map, sampling, data.as_chunks_mut().0),
        // Each channel by itself.
        channels => {
            for channel in 0..channels {
                let plane: Vec<[u8; 1]> = picture.data[channel..].iter().step_by(channels).map(|value| [*value]).collect();
                let mut out = vec![[0]; plane.len()];
                sample(picture, &plane, map, sampling, &mut out);
                data[channel..].iter_mut().step_by(channels).zip(out).for_each(|(to, [value])| *to = value);
            }
        }
    }
    Pixels::new([picture.width, picture.height], picture.channels, data)
}

/// Fills `out` from the pixels of a picture of this size.
fn sample<const C: usize>(size: &Pixels<'_>, pixels: &[[u8; C]], map: Map, sampling: Sampling, out: &mut [[u8; C]]) {
    let source = Source { pixels, width: size.width, height: size.height };
    match (map, sampling) {
        (Map::Affine(matrix), Sampling::Nearest) => source.nearest_affine(matrix, out),
        (Map::Affine([a, b, c, d, e, f]), Sampling::Bilinear) => {
            source.each(out, |x, y| source.bilinear(a * x + b * y + c, d * x + e * y + f));
        }
        (Map::Perspective([a, b, c, d, e, f, g, h]), sampling) => source.each(out, |x, y| {
            let by = g * x + h * y + 1.0;
            let (x, y) = ((a * x + b * y + c) / by, (d * x + e * y + f) / by);
            match sampling {
                Sampling::Nearest => source.nearest(coordinate(x), coordinate(y)),
                Sampling::Bilinear => source.bilinear(x, y),
            }
        }),
    }
}

fn coordinate(value: f64) -> i64 {
    if value < 0.0 { -1 } else { value as i64 }
}

/// The pixels that are sampled.
struct Source<'a, const C: usize> {
    pixels: &'a [[u8; C]],
    width: usize,
    height: usize,
}

impl<const C: usize> Source<'_, C> {
    /// Fills `out` by the centre of each pixel.
    fn each(&self, out: &mut [[u8; C]], pixel: impl Fn(f64, f64) -> [u8; C]) {
        for (row, y) in out.chunks_exact_mut(self.width).zip(0_u32..) {
            for (to, x) in row.iter_mut().zip(0_u32..) {
                *to = pixel(f64::from(x) + 0.5, f64::from(y) + 0.5);
            }
        }
    }

    fn nearest(&self, x: i64, y: i64) -> [u8; C] {
        match (usize::try_from(x), usize::try_from(y)) {
            (Ok(x), Ok(y)) if x < self.width && y < self.height => self.pixels[y * self.width + x],
            _ => [0; C],
        }
    }

    /// Places in 16.16 fixed-point numbers; or, where nothing is turned or sheared, in sums of floating-point ones.
    fn nearest_affine(&self, [a, b, c, d, e, f]: [f64; 6], out: &mut [[u8; C]]) {
        let rows = out.chunks_exact_mut(self.width);
        if b == 0.0 && d == 0.0 {
            let mut x = c + a * 0.5;
            let mut columns = Vec::with_capacity(self.width);
            for _ in 0..self.width {
                columns.push(coordinate(x));
                x += a;
            }
            let mut y = f + e * 0.5;
            for row in rows {
                row.iter_mut().zip(&columns).for_each(|(to, x)| *to = self.nearest(*x, coordinate(y)));
                y += e;
            }
            return;
        }
        let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
        let (mut x0, mut y0) = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
        let [a, b, d, e] = [a, b, d, e].map(fixed);
        for row in rows {
            let (mut x, mut y) = (x0, y0);
            for to in row {
                *to = self.nearest(x >> 16, y >> 16);
                (x, y) = (x + a, y + d);
            }
            (x0, y0) = (x0 + b, y0 + e);
        }
    }

    fn bilinear(&self, x: f64, y: f64) -> [u8; C] {
        // From the centre of the first pixel on.
        let (px, py) = (x - 0.5, y - 0.5);
        if px >= 0.0 && px < (self.width - 1) as f64 && py >= 0.0 && py < (self.height - 1) as f64 {
            let (left, top) = (px as u32, py as u32);
            let between = [px - f64::from(left), py - f64::from(top)];
            let upper = top as usize * self.width + left as usize;
            if let ([a, b, ..], [c, d, ..]) = (&self.pixels[upper..], &self.pixels[upper + self.width..]) {
                return mixed([a, b, c, d], between);
            }
        }
        self.bilinear_at_border(x, y)
    }

    /// Where some of the four pixels lie beyond a border, which is repeated; zeros from outside.
    #[cold]
    fn bilinear_at_border(&self, x: f64, y: f64) -> [u8; C] {
        if !(x >= 0.0 && x < self.width as f64 && y >= 0.0 && y < self.height as f64) {
            return [0; C];
        }
        // The pixel before the place, -1 at a border, and how far the place is from its centre.
        let before = |place: f64| {
            let place = place - 0.5;
            let before = if place < 0.0 { -1.0 } else { f64::from(place as i32) };
            (before as i32, place - before)
        };
        let ((left, dx), (top, dy)) = (before(x), before(y));
        let (x0, y0) = (left.max(0) as usize, top.max(0) as usize);
        let (x1, y1) = (((left + 1) as usize).min(self.width - 1), ((top + 1) as usize).min(self.height - 1));
        let pixel = |x: usize, y: usize| &self.pixels[y * self.width + x];
        mixed([pixel(x0, y0), pixel(x1, y0), pixel(x0, y1), pixel(x1, y1)], [dx, dy])
    }
}

/// Of four pixels, two above and two below, what lies so far from the first.
#[inline(always)]
fn mixed<const C: usize>([a, b, c, d]: [&[u8; C]; 4], [dx, dy]: [f64; 2]) -> [u8; C] {
    std::array::from_fn(|channel| {
        let between = |a: u8, b: u8| f64::from(a) + (f64::from(b) - f64::from(a)) * dx;
        let (upper, lower) = (between(a[channel], b[channel]), between(c[channel], d[channel]));
        // From 0 to 255.
        (upper + (lower - upper) * dy) as i32 as u8
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// One picture of 1..=6 in two rows of three, turned by `degrees`, scaled and shifted by whole pixels.
    fn moved(degrees: f64, scale: f64, shift: [f64; 2], sampling: Sampling) -> Vec<u8> {
        let picture = Pixels::new([3, 2], 1, vec![1, 2, 3, 4, 5, 6]);
        let matrix = inverse([1.5, 1.0], degrees, shift, scale, [0.0; 2]);
        transform(&picture, Map::Affine(matrix), sampling).data.into_owned()
    }

    #[test]
    fn the_affine_map_turns_scales_and_shifts() {
        for sampling in [Sampling::Nearest, Sampling::Bilinear] {
            assert_eq!(moved(0.0, 1.0, [0.0, 0.0], sampling), [1, 2, 3, 4, 5, 6]);
            assert_eq!(moved(0.0, 1.0, [1.0, 0.0], sampling), [0, 1, 2, 0, 4, 5], "right");
            assert_eq!(moved(0.0, 1.0, [0.0, 1.0], sampling), [0, 0, 0, 1, 2, 3], "down");
        }
        assert_eq!(moved(180.0, 1.0, [0.0, 0.0], Sampling::Nearest), [6, 5, 4, 3, 2, 1]);
        assert_eq!(moved(180.0, 1.0, [1.0, 0.0], Sampling::Nearest), [0, 6, 5, 0, 3, 2], "turned, then shifted");
    }

    #[test]
    fn small_changes_stay_near_the_input_and_a_seed_fixes_them() {
        let affine = RandomAffine { degrees: 10.0, translate: [0.1; 2], scale: [0.9, 1.1], ..RandomAffine::default() };
        let picture = Pixels::new([16, 16], 1, vec![200; 256]);
        let apply = |seed| affine.apply(picture.clone(), [16, 16], &mut Rng::new(seed, &[])).unwrap();
        for seed in 0..50 {
            let out = apply(seed);
            assert!((6..10).all(|y| out.data[16 * y + 6..16 * y + 10] == [200; 4]), "the inside sees no border");
            assert_eq!(out, apply(seed));
        }
        let corners: Vec<u8> = (0..50).map(|seed| apply(seed).data[0]).collect();
        assert!(corners.contains(&0) && corners.contains(&200), "{corners:?}");
    }

    #[test]
    fn unsound_values_are_refused_by_name() {
        let fault = |affine: RandomAffine| affine.check([1, 8, 8]).unwrap_err().to_string();
        let off = RandomAffine::default;
        off().check([1, 8, 8]).unwrap();
        assert_eq!(fault(RandomAffine { degrees: -1.0, ..off() }), "affine.degrees: -1.0 must be from 0 to 180");
        assert!(fault(RandomAffine { translate: [0.0, f64::NAN], ..off() }).starts_with("affine.translate: [0.0, NaN]"));
        assert!(fault(RandomAffine { shear: [0.0, 90.0], ..off() }).starts_with("affine.shear: "));
        for scale in [[0.0, 1.0], [2.0, 1.0], [1.0, f64::INFINITY]] {
            assert!(fault(RandomAffine { scale, ..off() }).starts_with("affine.scale: "));
        }
    }
}
