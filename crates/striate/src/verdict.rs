//! From measurements to a verdict: by equality where a claim is exact, and by an interval over seeds where it is not.
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::fmt;

/// How sure an [`Interval`] is to have the true mean in it.
pub const CONFIDENCE: f64 = 0.95;

/// What the measurements say of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds here.
    Supported,
    /// It does not hold here.
    Refuted,
    /// The measurements do not tell.
    Undecided,
}

impl Verdict {
    /// Of a claim that says several things: refuted if one is, supported only if all are.
    pub fn of(checks: &[Check]) -> Self {
        let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
        match (any(Self::Refuted), any(Self::Undecided) || checks.is_empty()) {
            (true, _) => Self::Refuted,
            (false, true) => Self::Undecided,
            (false, false) => Self::Supported,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Supported => "supported",
            Self::Refuted => "refuted",
            Self::Undecided => "undecided",
        })
    }
}

/// The mean of some measurements with its confidence interval by Student's t: what one expects of further seeds, if they
/// scatter normally.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// How many measurements there are.
    pub n: usize,
}

impl Interval {
    /// The interval of the mean of `samples`; a single one tells nothing of its spread, so that the interval has no ends.
    pub fn of(samples: &[f64]) -> Self {
        let (n, (mean, variance)) = (samples.len(), moments(samples));
        Self::around(mean, variance / n as f64, n as f64 - 1.0, n)
    }

    /// The interval of `a` less `b`, seed by seed.
    pub fn of_differences(a: &[f64], b: &[f64]) -> Self {
        Self::of(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
    }

    /// The interval of the mean of `a` less that of `b`, where no value of one belongs to a value of the other: Welch's, as
    /// `scipy.stats.ttest_ind(a, b, equal_var=False)` has it. It has no ends unless there are two of each.
    pub fn of_independent(a: &[f64], b: &[f64]) -> Self {
        let ((mean_a, variance_a), (mean_b, variance_b)) = (moments(a), moments(b));
        let (a_n, b_n) = (a.len() as f64, b.len() as f64);
        let (of_a, of_b) = (variance_a / a_n, variance_b / b_n);
        let variance = of_a + of_b;
        // Of values that do not scatter at all, any number of degrees gives the same interval.
        let freedom =
            if variance == 0.0 { 1.0 } else { variance.powi(2) / (of_a.powi(2) / (a_n - 1.0) + of_b.powi(2) / (b_n - 1.0)) };
        Self::around(mean_a - mean_b, variance, freedom, a.len() + b.len())
    }

    /// The interval around a mean, whose own variance has so many degrees of freedom.
    fn around(mean: f64, variance: f64, freedom: f64, n: usize) -> Self {
        let half = match StudentsT::new(0.0, 1.0, freedom) {
            Ok(t) => t.inverse_cdf(0.5 + CONFIDENCE / 2.0) * variance.sqrt(),
            Err(_) => f64::INFINITY, // no degree of freedom
        };
        Self { mean, low: mean - half, high: mean + half, n }
    }
}

/// The mean and the variance of a sample; that of a single value is NaN.
fn moments(samples: &[f64]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    (mean, samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0))
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.n < 2 {
            return write!(f, "{}, measured once: no interval", short(self.mean));
        }
        write!(f, "{} [{}, {}] over {}", short(self.mean), short(self.low), short(self.high), self.n)
    }
}

/// A number with two to four digits that count, for people.
pub fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        size if !size.is_finite() => x.to_string(),
        size if !(0.001..1e5).contains(&size) => format!("{x:.2e}"),
        size if size >= 100.0 => format!("{x:.0}"),
        size if size >= 1.0 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    }
}

/// One thing that a claim says, held against what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What is said.
    pub what: String,
    /// What was measured, and what it is held against.
    pub measured: String,
    /// The interval in it, if it has ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// What follows.
    pub verdict: Verdict,
}

impl Check {
    /// An exact statement.
    pub fn exact(what: impl Into<String>, holds: bool, measured: impl Into<String>) -> Self {
        let verdict = if holds { Verdict::Supported } else { Verdict::Refuted };
        Self { what: what.into(), measured: measured.into(), interval: None, verdict }
    }

    fn of_interval(what: impl Into<String>, interval: Interval, against: &str, verdict: Verdict) -> Self {
        let measured = format!("{interval}; {against}");
        Self {
            what: what.into(),
            measured,
            interval: (interval.low.is_finite() && interval.high.is_finite()).then_some(interval),
            verdict,
        }
    }

    /// A count that is to be exactly `expected`.
    pub fn count(what: impl Into<String>, got: u64, expected: u64) -> Self {
        Self::exact(what, got == expected, format!("{got} (said: {expected})"))
    }

    /// The mean is to be above `bound`: supported if the whole interval is, refuted if none of it is.
    pub fn above(what: impl Into<String>, interval: Interval, bound: f64) -> Self {
        let verdict = match (interval.low > bound, interval.high <= bound) {
            (true, _) => Verdict::Supported,
            (false, true) => Verdict::Refuted,
            (false, false) => Verdict::Undecided,
        };
        Self::of_interval(what, interval, &format!("to be above {}", short(bound)), verdict)
    }

    /// The mean is to be a gain: supported, whatever its size, if the whole interval is above 0; refuted if the interval reaches 0 or
    /// below, and rules out a gain as large as the published one.
    pub fn gain(what: impl Into<String>, interval: Interval, published: f64) -> Self {
        let verdict = match (interval.low > 0.0, interval.high < published) {
            (true, _) => Verdict::Supported,
            (false, true) => Verdict::Refuted,
            (false, false) => Verdict::Undecided,
        };
        Self::of_interval(what, interval, &format!("published: {}", short(published)), verdict)
    }

    /// The mean is to be below `bound`.
    pub fn below(what: impl Into<String>, interval: Interval, bound: f64) -> Self {
        let mirrored = Interval { low: -interval.high, high: -interval.low, ..interval };
        let Self { verdict, .. } = Self::above("", mirrored, -bound);
        Self::of_interval(what, interval, &format!("to be below {}", short(bound)), verdict)
    }

    /// The mean is to be less than `bound` away from 0: supported if the whole interval is, refuted if none of it is.
    pub fn near_zero(what: impl Into<String>, interval: Interval, bound: f64) -> Self {
        let verdict = match (interval.low > -bound && interval.high < bound, interval.low >= bound || interval.high <= -bound) {
            (true, _) => Verdict::Supported,
            (false, true) => Verdict::Refuted,
            (false, false) => Verdict::Undecided,
        };
        Self::of_interval(what, interval, &format!("to be within ±{}", short(bound)), verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        // Mean 3, standard deviation 1.5811, t(4) = 2.7764: half a width of 1.9632.
        let interval = Interval::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((interval.mean - 3.0).abs() < 1e-12);
        assert!((interval.high - 4.9632).abs() < 1e-4 && (interval.low - 1.0368).abs() < 1e-4, "{interval:?}");
        assert_eq!(interval.to_string(), "3.00 [1.04, 4.96] over 5");
        // Of what grows alike in every pair, the difference is sure although each scatters.
        let paired = Interval::of_differences(&[1.5, 11.5, 7.5], &[1.0, 11.0, 7.0]);
        assert_eq!([paired.low, paired.mean, paired.high], [0.5; 3]);
    }

    #[test]
    fn independent_means_have_welchs_interval() {
        // scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95), scipy 1.17
        let a = [0.90, 0.92, 0.95, 0.93];
        let b = [0.88, 0.91, 0.87, 0.90, 0.89, 0.86];
        let interval = Interval::of_independent(&a, &b);
        assert!((interval.mean - 0.04).abs() < 1e-12, "{interval:?}");
        assert!((interval.low - 0.008_471_661_835).abs() < 1e-9, "{interval:?}");
        assert!((interval.high - 0.071_528_338_165).abs() < 1e-9, "{interval:?}");
        let same = Interval::of_independent(&[0.5, 0.5], &[0.25, 0.25]);
        assert_eq!([same.low, same.mean, same.high], [0.25; 3]);
        let one = Interval::of_independent(&[0.5], &[0.25, 0.5]);
        assert_eq!(Check::above("", one, 0.0).verdict, Verdict::Undecided, "{one:?}");
    }

    #[test]
    fn one_seed_decides_nothing() {
        let one = Interval::of(&[10.0]);
        assert_eq!(one.to_string(), "10.00, measured once: no interval");
        for check in [Check::above("", one, 0.0), Check::below("", one, 0.0), Check::near_zero("", one, 100.0)] {
            assert_eq!(check.verdict, Verdict::Undecided);
        }
    }

    #[test]
    fn intervals_on_either_side_decide() {
        let interval = Interval { mean: 2.0, low: 1.0, high: 3.0, n: 3 };
        let above = [0.9, 1.0, 2.0, 3.0].map(|bound| Check::above("", interval, bound).verdict);
        assert_eq!(above, [Verdict::Supported, Verdict::Undecided, Verdict::Undecided, Verdict::Refuted]);
        let below = [1.0, 2.0, 3.0, 3.1].map(|bound| Check::below("", interval, bound).verdict);
        assert_eq!(below, [Verdict::Refuted, Verdict::Undecided, Verdict::Undecided, Verdict::Supported]);
        let near = [1.0, 2.0, 3.1].map(|bound| Check::near_zero("", interval, bound).verdict);
        assert_eq!(near, [Verdict::Refuted, Verdict::Undecided, Verdict::Supported]);
    }

    #[test]
    fn a_gain_is_held_against_none_and_against_the_published_one() {
        let gain = |low: f64, high: f64| Check::gain("", Interval { mean: (low + high) / 2.0, low, high, n: 3 }, 0.02).verdict;
        assert_eq!([gain(0.03, 0.04), gain(0.01, 0.015)], [Verdict::Supported; 2]);
        assert_eq!([gain(-0.02, -0.01), gain(-0.01, 0.015)], [Verdict::Refuted; 2]);
        assert_eq!(gain(-0.01, 0.03), Verdict::Undecided);
        assert_eq!(gain(f64::NEG_INFINITY, f64::INFINITY), Verdict::Undecided);
    }

    #[test]
    fn one_refuted_check_refutes() {
        let check = |verdict| Check { what: String::new(), measured: String::new(), interval: None, verdict };
        let [yes, no, unknown] = [Verdict::Supported, Verdict::Refuted, Verdict::Undecided].map(check);
        assert_eq!(Verdict::of(&[yes.clone(), unknown.clone(), no]), Verdict::Refuted);
        assert_eq!(Verdict::of(&[yes.clone(), unknown]), Verdict::Undecided);
        assert_eq!(Verdict::of(&[yes]), Verdict::Supported);
        assert_eq!(Verdict::of(&[]), Verdict::Undecided);
    }
}
