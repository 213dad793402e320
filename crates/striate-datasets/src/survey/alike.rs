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
/// Pictures that are compared between two looks at whether to go on.
const AT_ONCE: usize = 1024;

/// What a picture is told by: Haar's coefficients of the fields' brightness, the coarsest first. Their transform keeps distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print([i8; LEN]);

impl Print {
    /// None of a picture that is of one brightness.
    pub(super) fn of(image: &DynamicImage) -> Option<Self> {
        let fields = image.thumbnail_exact(SIDE as u32, SIDE as u32).into_luma8();
        let mut values: Vec<f64> = fields.as_raw().iter().map(|value| f64::from(*value)).collect();
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
