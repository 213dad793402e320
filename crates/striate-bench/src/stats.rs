//! Medians, spread, and ratios pair by pair.
use serde::{Deserialize, Serialize};

/// The middle of some measurements and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The lower quartile.
    pub q1: f64,
    /// The upper quartile.
    pub q3: f64,
}

impl Spread {
    /// Of these values, with linear interpolation between them; NaN if there are none.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (sorted.len().max(1) - 1) as f64;
            let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(f64::NAN);
            value(place.floor()) + (value(place.ceil()) - value(place.floor())) * place.fract()
        };
        Self { median: at(0.5), q1: at(0.25), q3: at(0.75) }
    }

    /// Of each of `theirs` over the one of `ours` that was measured in the same round: above 1, ours is faster.
    pub fn of_ratios(theirs: &[f64], ours: &[f64]) -> Self {
        Self::of(&theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_a_textbook() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0, 5.0]), Spread { median: 3.0, q1: 2.0, q3: 4.0 });
        assert_eq!(Spread::of(&[1.0, 2.0, 3.0, 4.0]), Spread { median: 2.5, q1: 1.75, q3: 3.25 });
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, q1: 7.0, q3: 7.0 });
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The machine was twice as slow in the second round: the ratio of each pair is 2 nevertheless.
        let (ours, theirs) = ([10.0, 20.0, 10.0], [20.0, 40.0, 30.0]);
        assert_eq!(Spread::of_ratios(&theirs, &ours), Spread { median: 2.0, q1: 2.0, q3: 2.5 });
    }
}
