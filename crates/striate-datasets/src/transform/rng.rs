use striate_torch::derive_seed;

/// What sets the seeds of an example's draws apart from others that are derived from the same seed.
const TRANSFORM_SEEDS: u64 = 0x4155_474d;
const TURN_SEEDS: u64 = 0x5455_524e;

/// A fast generator that costs nothing to seed (SplitMix64), since each example of an epoch has one of its own.
///
/// What a seed gives stays the same in every version, because runs are resumed by it.
#[derive(Debug, Clone)]
pub(crate) struct Rng {
    state: u64,
    turn: u64,
}

impl Rng {
    /// A generator for one purpose and place: see [`derive_seed`].
    pub(crate) fn new(seed: u64, parts: &[u64]) -> Self {
        Self { state: derive_seed(seed, parts), turn: 0 }
    }

    /// The generator of an example that was `again` times in the epoch before.
    pub(crate) fn of_example(seed: u64, epoch: u64, index: usize, again: u64) -> Self {
        let turn = derive_seed(seed, &[TURN_SEEDS, index as u64, again]).wrapping_add(epoch);
        Self { turn, ..Self::new(seed, &[TRANSFORM_SEEDS, epoch, index as u64, again]) }
    }

    /// A number that is drawn for the example once, and is 1 larger in each epoch: for what takes turns.
    pub(crate) fn turn(&self) -> u64 {
        self.turn
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (0.5_f64).powi(53)
    }

    /// Between two numbers.
    pub(crate) fn between(&mut self, [low, high]: [f64; 2]) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number below `end`, which is above 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Whether what has the probability `p` happens.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// From N(0, 1), by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// From the gamma distribution of this shape and scale 1, by Marsaglia and Tsang (2000).
    pub(crate) fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let power = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * power;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// From the beta distribution with both parameters `alpha`.
    pub(crate) fn beta(&mut self, alpha: f64) -> f64 {
        let (a, b) = (self.gamma(alpha), self.gamma(alpha));
        // Both are 0 where a tiny alpha underflows: then either end is as likely.
        if a + b > 0.0 { a / (a + b) } else { f64::from(u8::from(self.chance(0.5))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 20_000;

    fn mean_and_variance(mut draw: impl FnMut(&mut Rng) -> f64) -> [f64; 2] {
        let mut rng = Rng::new(1, &[2, 3]);
        let values: Vec<f64> = (0..DRAWS).map(|_| draw(&mut rng)).collect();
        let mean = values.iter().sum::<f64>() / DRAWS as f64;
        [mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / DRAWS as f64]
    }

    fn close(got: [f64; 2], expected: [f64; 2]) {
        assert!(
            got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 0.03 * expected.abs().max(1.0)),
            "{got:?}"
        );
    }

    #[test]
    fn it_is_splitmix64() {
        // Steele, Lea and Flood 2014: the first values of the seed 1234567, as in Java's SplittableRandom
        let mut rng = Rng { state: 1_234_567, turn: 0 };
        assert_eq!([rng.next(), rng.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        close(mean_and_variance(Rng::unit), [0.5, 1.0 / 12.0]);
        close(mean_and_variance(|rng| rng.between([-3.0, 1.0])), [-1.0, 16.0 / 12.0]);
        close(mean_and_variance(|rng| rng.below(3) as f64), [1.0, 2.0 / 3.0]);
        close(mean_and_variance(|rng| f64::from(u8::from(rng.chance(0.2)))), [0.2, 0.16]);
        close(mean_and_variance(Rng::normal), [0.0, 1.0]);
        for shape in [0.4, 1.0, 3.5] {
            close(mean_and_variance(|rng| rng.gamma(shape)), [shape, shape]);
        }
        for alpha in [0.2, 1.0, 2.0] {
            close(mean_and_variance(|rng| rng.beta(alpha)), [0.5, 0.25 / (2.0 * alpha + 1.0)]);
        }
    }
}
