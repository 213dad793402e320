//! Pictures that look alike: their brightness in 8x8 fields goes up and down together.
//!
//! A print is the fields' brightness, with the mean taken away and as a vector of length 1. So it stays the same in another size,
//! compression, brightness or contrast. Two pictures look alike if their prints correlate by 0.99. The 60,000 pictures of
//! CIFAR-10 have 149 such pairs (of strongly compressed files), and in nearly all of them both are the same photograph; at 0.98,
//! every third pair only has the sea's horizon in common.

use image::DynamicImage;
use std::collections::HashMap;

/// Fields in a row, and rows.
const SIDE: usize = 8;
/// Coefficients of a print: all but the mean.
const LEN: usize = SIDE * SIDE - 1;
/// What stands for 1 in a print.
const ONE: f64 = 127.0;
/// The least correlation of pictures that look alike.
const CORRELATION: f64 = 0.99;
/// The largest squared distance of their prints: `2 - 2 * CORRELATION`.
const DISTANCE: i32 = (2.0 * (1.0 - CORRELATION) * ONE * ONE) as i32;
/// The width of a cell: what is alike lies in the same one, or in one beside it.
const CELL: i32 = 18;
const _: () = assert!(CELL * CELL > DISTANCE);
/// Pictures whose fields deviate by less from their mean, of 255, have nothing to be told by.
const FLAT: f64 = 4.0;
/// So many pixels of a side are enough: of more, some are averaged first, less exactly.
const ENOUGH: u32 = 256;
/// Pictures that are compared between two looks at whether to go on.
const AT_ONCE: usize = 1024;

/// What a picture is told by: Haar's coefficients of the fields' brightness, the coarsest first. Their transform keeps distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print([i8; LEN]);

impl Print {
    /// None of a picture that is of one brightness.
    pub(super) fn of(image: &DynamicImage) -> Option<Self> {
        let mut values = fields(image);
        let mut coefficients = Vec::new();
        let mut side = SIDE;
        while side > 1 {
            // The finest differences come first, and the mean is left over.
            let half = side / 2;
            let mut means = vec![0.0; half * half];
            let mut details = Vec::with_capacity(3 * half * half);
            for (place, mean) in means.iter_mut().enumerate() {
                let at = |y: usize, x: usize| values[(2 * (place / half) + y) * side + 2 * (place % half) + x];
                let (a, b, c, d) = (at(0, 0), at(0, 1), at(1, 0), at(1, 1));
                *mean = (a + b + c + d) / 2.0;
                details.extend([(a - b + c - d) / 2.0, (a + b - c - d) / 2.0, (a - b - c + d) / 2.0]);
            }
            coefficients.splice(0..0, details);
            (values, side) = (means, half);
        }
        let length = coefficients.iter().map(|value| value * value).sum::<f64>().sqrt();
        let mut print = [0; LEN];
        for (print, value) in print.iter_mut().zip(&coefficients) {
            *print = (ONE * value / length).round() as i8;
        }
        (length >= FLAT * SIDE as f64).then_some(Self(print))
    }

    fn is_like(&self, other: &Self) -> bool {
        let mut distance = 0;
        // Most differ in the coarsest already.
        self.0.chunks(16).zip(other.0.chunks(16)).all(|(these, others)| {
            let squares = these.iter().zip(others).map(|(a, b)| (i32::from(*a) - i32::from(*b)).pow(2));
            distance += squares.sum::<i32>();
            distance <= DISTANCE
        })
    }

    fn cell(&self) -> [i32; 3] {
        [0, 1, 2].map(|axis| i32::from(self.0[axis]).div_euclid(CELL))
    }
}

/// The mean brightness of each field, row by row.
fn fields(image: &DynamicImage) -> Vec<f64> {
    let small = image.thumbnail_exact(image.width().min(ENOUGH), image.height().min(ENOUGH)).into_luma8();
    let [columns, rows] = [small.width(), small.height()].map(shares);
    let mut fields = vec![0.0; SIDE * SIDE];
    for ((_, y, pixel), column) in small.enumerate_pixels().zip(columns.iter().cycle()) {
        for (row, high) in &rows[y as usize] {
            for (column, wide) in column {
                fields[row * SIDE + column] += high * wide * f64::from(pixel.0[0]);
            }
        }
    }
    fields
}

/// For each of so many pixels in a row, the fields that it lies in, and its share of each.
fn shares(pixels: u32) -> Vec<Vec<(usize, f64)>> {
    let len = f64::from(pixels);
    (0..pixels)
        .map(|pixel| {
            let [start, end] = [f64::from(pixel), f64::from(pixel) + 1.0].map(|place| place * SIDE as f64 / len);
            let share = |of: usize| (end.min(of as f64 + 1.0) - start.max(of as f64)).max(0.0);
            let near = start as usize..=(end.ceil() as usize - 1).min(SIDE - 1);
            near.map(|of| (of, share(of))).filter(|(_, share)| *share > 0.0).collect()
        })
        .collect()
}

/// The ids of pictures that look alike, in groups and in order; none if `go_on` says to stop.
pub(super) fn groups(mut prints: Vec<(Print, usize)>, go_on: &mut dyn FnMut() -> bool) -> Option<Vec<Vec<usize>>> {
    prints.sort_by_key(|(print, id)| (print.cell(), *id));
    let mut cells: HashMap<[i32; 3], std::ops::Range<usize>> = HashMap::new();
    for (place, (print, _)) in prints.iter().enumerate() {
        cells.entry(print.cell()).or_insert(place..place).end = place + 1;
    }
    // Each picture leads to one of its group, and at last to the first of it.
    let mut leads: Vec<usize> = (0..prints.len()).collect();
    for (place, (print, _)) in prints.iter().enumerate() {
        if place % AT_ONCE == 0 && !go_on() {
            return None;
        }
        let [x, y, z] = print.cell();
        let beside = |cell: i32| cell - 1..=cell + 1;
        let around = beside(x).flat_map(|x| beside(y).flat_map(move |y| beside(z).map(move |z| [x, y, z])));
        for other in around.filter_map(|cell| cells.get(&cell)).flat_map(|cell| cell.start.max(place + 1)..cell.end) {
            if print.is_like(&prints[other].0) {
                let (one, other) = (first(&mut leads, place), first(&mut leads, other));
                leads[one.max(other)] = one.min(other);
            }
        }
    }
    let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
    for (place, (_, id)) in prints.iter().enumerate() {
        groups.entry(first(&mut leads, place)).or_default().push(*id);
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().filter(|group| group.len() > 1).collect();
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups.sort_unstable();
    Some(groups)
}

/// The first of a group, which then leads there at once.
fn first(leads: &mut [usize], mut place: usize) -> usize {
    while leads[place] != place {
        leads[place] = leads[leads[place]];
        place = leads[place];
    }
    place
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::transform::Rng;
    use image::codecs::jpeg::JpegEncoder;
    use image::imageops::{self, FilterType};
    use image::{GrayImage, Rgb, RgbImage};

    /// Soft spots of some colours, in other places for each seed.
    pub(in crate::survey) fn scene(seed: u64, [width, height]: [u32; 2]) -> RgbImage {
        let mut rng = Rng::new(seed, &[]);
        let spots: Vec<[f64; 6]> = (0..8).map(|_| std::array::from_fn(|_| rng.unit())).collect();
        RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
            let mut values = [40.0; 3];
            for [left, top, radius, colour @ ..] in &spots {
                let weight = (-((x - left).powi(2) + (y - top).powi(2)) / (0.01 + 0.04 * radius)).exp();
                values.iter_mut().zip(colour).for_each(|(value, colour)| *value += 200.0 * colour * weight);
            }
            Rgb(values.map(|value| value as u8))
        })
    }

    fn print(image: impl Into<DynamicImage>) -> Print {
        Print::of(&image.into()).unwrap()
    }

    #[test]
    fn a_print_is_haars_transform() {
        // Left half white: all of it is the first difference, from left to right. Top half black: the second, negative.
        let halves = |white: fn(u32, u32) -> bool| GrayImage::from_fn(16, 16, |x, y| [if white(x, y) { 255 } else { 0 }].into());
        assert_eq!(print(halves(|x, _| x < 8)).0[..4], [127, 0, 0, 0]);
        assert_eq!(print(halves(|_, y| y >= 8)).0[..4], [0, -127, 0, 0]);
        // A chess board of fields: the differences along the diagonals of the finest level, each 1 / sqrt(16) of the length.
        let board = print(halves(|x, y| (x / 2 + y / 2) % 2 == 0)).0;
        assert!(
            board[..15].iter().all(|value| *value == 0) && board[15..].chunks(3).all(|field| field == [0, 0, 32]),
            "{board:?}"
        );
    }

    #[test]
    fn fields_are_exact_means_whatever_the_size() {
        // Twelve columns, of which a field has one and a half: (0 + 20 / 2) / 1.5, (20 / 2 + 40) / 1.5, ...
        let ramp = |width: u32| fields(&GrayImage::from_fn(width, 5, |x, _| [(x * 20) as u8].into()).into());
        let expected = [20.0 / 3.0, 100.0 / 3.0, 200.0 / 3.0, 280.0 / 3.0, 380.0 / 3.0, 460.0 / 3.0, 560.0 / 3.0, 640.0 / 3.0];
        for row in ramp(12).chunks(SIDE) {
            assert!(row.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-9), "{row:?}");
        }
        // Of fewer pixels than fields, each is repeated.
        assert_eq!(
            ramp(2)[..SIDE].iter().map(|value| value.round()).collect::<Vec<_>>(),
            [0.0, 0.0, 0.0, 0.0, 20.0, 20.0, 20.0, 20.0]
        );
    }

    #[test]
    fn copies_in_another_form_look_alike() {
        let original = scene(1, [200, 150]);
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 20).encode_image(&original).unwrap();
        let brighter = RgbImage::from_fn(200, 150, |x, y| Rgb(original.get_pixel(x, y).0.map(|value| value / 2 + 70)));
        let mut written = original.clone();
        for (x, y) in (4..24).flat_map(|x| (140..146).map(move |y| (x, y))) {
            written.put_pixel(x, y, Rgb([255; 3]));
        }
        let forms = [
            image::load_from_memory(&jpeg).unwrap(),
            imageops::resize(&original, 73, 61, FilterType::Triangle).into(),
            imageops::resize(&original, 400, 300, FilterType::CatmullRom).into(),
            imageops::grayscale(&original).into(),
            brighter.into(),
            written.into(),
        ];
        for (number, form) in forms.into_iter().enumerate() {
            assert!(print(original.clone()).is_like(&print(form)), "form {number}");
        }
    }

    #[test]
    fn other_pictures_do_not_and_flat_ones_have_no_print() {
        let prints: Vec<Print> = (0..40).map(|seed| print(scene(seed, [64, 64]))).collect();
        for (place, one) in prints.iter().enumerate() {
            assert!(prints[place + 1..].iter().all(|other| !one.is_like(other)), "{place}");
        }
        let original = scene(1, [64, 64]);
        assert!(!print(original.clone()).is_like(&print(imageops::flip_horizontal(&original))));
        assert!(!print(original.clone()).is_like(&print(imageops::crop_imm(&original, 16, 16, 48, 48).to_image())));
        for (width, height) in [(1, 1), (1, 300), (3000, 1), (7, 9)] {
            assert_eq!(Print::of(&RgbImage::new(width, height).into()), None);
        }
        assert_eq!(Print::of(&RgbImage::from_fn(64, 64, |x, _| Rgb([100 + (x % 3) as u8; 3])).into()), None);
    }

    #[test]
    fn groups_are_those_of_all_pairs() {
        // Few values, so that many are near one another.
        let value = |id: usize, axis: usize| ((id * 7919 + axis * 104_729 + id * axis * 31) % 61) as i8 - 30;
        let prints: Vec<(Print, usize)> = (0..400)
            .map(|id| {
                let mut print = [0; LEN];
                print[..3].copy_from_slice(&[value(id, 0), value(id, 1), value(id, 2)]);
                (Print(print), id)
            })
            .collect();
        let mut expected: Vec<Vec<usize>> = Vec::new();
        for (print, id) in &prints {
            let like = |group: &Vec<usize>| group.iter().any(|other| prints[*other].0.is_like(print));
            let (alike, mut others): (Vec<_>, Vec<_>) = expected.into_iter().partition(like);
            let mut group: Vec<usize> = alike.into_iter().flatten().chain([*id]).collect();
            group.sort_unstable();
            others.push(group);
            expected = others;
        }
        expected.retain(|group| group.len() > 1);
        expected.sort();
        assert!(expected.len() > 5 && expected.iter().any(|group| group.len() > 2), "{expected:?}");
        assert_eq!(groups(prints.clone(), &mut || true).unwrap(), expected);
        assert_eq!(groups(prints, &mut || false), None);
    }
}
