//! Policies that draw from a set of operations, as torchvision has them.

use super::affine::{Map, inverse, rotate, transform};
use super::{OnPicture, Rng, Sampling, blur, check, colour, tone};
use crate::{DatasetError, Pixels};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// RandAugment (Cubuk 2020, arXiv:1909.13719): `ops` operations one after another, all of one strength.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// How many operations.
    pub ops: u32,
    /// Their strength: the number of a bin.
    pub magnitude: u32,
    /// Bins between no strength and the largest.
    pub bins: u32,
    /// Where values come from.
    pub interpolation: Sampling,
}

/// TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158), "wide": one operation of random strength.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrivialAugment {
    /// Bins between no strength and the largest.
    pub bins: u32,
    /// Where values come from.
    pub interpolation: Sampling,
}

/// AutoAugment (Cubuk 2019, arXiv:1805.09501): one of 25 pairs of operations that were found for a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoAugment {
    /// For which dataset.
    pub policy: Policy,
    /// Where values come from.
    pub interpolation: Sampling,
}

/// The dataset that an [`AutoAugment`] was found for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Policy {
    /// ImageNet.
    #[default]
    Imagenet,
    /// CIFAR-10.
    Cifar10,
    /// SVHN.
    Svhn,
}

/// AugMix (Hendrycks 2020, arXiv:1912.02781): a mixture of the picture and of several chains of weak operations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugMix {
    /// Strength of the operations, from 1 to 10.
    pub severity: u32,
    /// How many chains.
    pub width: u32,
    /// Operations in a chain; 0 for one to three at random.
    pub depth: u32,
    /// The shares in the mixture are drawn from Dirichlet and beta distributions with this parameter.
    pub alpha: f64,
    /// Whether brightness, colour, contrast and sharpness are among the operations.
    pub all_ops: bool,
    /// Where values come from.
    pub interpolation: Sampling,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self { ops: 2, magnitude: 9, bins: 31, interpolation: Sampling::Nearest }
    }
}

impl Default for TrivialAugment {
    fn default() -> Self {
        Self { bins: 31, interpolation: Sampling::Nearest }
    }
}

impl Default for AutoAugment {
    fn default() -> Self {
        Self { policy: Policy::default(), interpolation: Sampling::Nearest }
    }
}

impl Default for AugMix {
    fn default() -> Self {
        Self { severity: 3, width: 3, depth: 0, alpha: 1.0, all_ops: true, interpolation: Sampling::Bilinear }
    }
}

/// An operation of the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Posterise,
    Solarise,
    Autocontrast,
    Equalise,
    Brightness,
    Colour,
    Contrast,
    Sharpness,
    Invert,
}

/// How strong operations can be.
struct Space {
    shear: f32,
    /// Pixels across and down.
    translate: [f32; 2],
    degrees: f32,
    /// How far the factors of brightness, colour, contrast and sharpness are from 1.
    factor: f32,
    /// Bits that are kept at no strength, and how many fewer at the largest.
    bits: [f32; 2],
}

impl Space {
    /// RandAugment's and AutoAugment's.
    fn narrow([width, height]: [usize; 2]) -> Self {
        let translate = [width, height].map(|side| (150.0 / 331.0 * side as f64) as f32);
        Self { shear: 0.3, translate, degrees: 30.0, factor: 0.9, bits: [8.0, 4.0] }
    }

    /// TrivialAugment's.
    fn wide() -> Self {
        Self { shear: 0.99, translate: [32.0; 2], degrees: 135.0, factor: 0.99, bits: [8.0, 6.0] }
    }

    /// AugMix's.
    fn mix([width, height]: [usize; 2]) -> Self {
        let translate = [width, height].map(|side| (side as f64 / 3.0) as f32);
        Self { translate, bits: [4.0, 4.0], ..Self::narrow([width, height]) }
    }

    /// The strength of an operation in a bin, and whether its sign is drawn.
    fn magnitude(&self, op: Op, bin: u32, bins: u32) -> (f64, bool) {
        let upto = |end: f32| (f64::from(linspace(0.0, end, bins, bin)), true);
        match op {
            Op::Identity | Op::Autocontrast | Op::Equalise | Op::Invert => (0.0, false),
            Op::ShearX | Op::ShearY => upto(self.shear),
            Op::TranslateX => upto(self.translate[0]),
            Op::TranslateY => upto(self.translate[1]),
            Op::Rotate => upto(self.degrees),
            Op::Brightness | Op::Colour | Op::Contrast | Op::Sharpness => upto(self.factor),
            Op::Posterise => {
                let [bits, fewer] = self.bits;
                (f64::from(bits - (bin as f32 / ((bins - 1) as f32 / fewer)).round_ties_even()), false)
            }
            Op::Solarise => (f64::from(linspace(255.0, 0.0, bins, bin)), false),
        }
    }

    /// Does an operation to a picture in the strength of a bin; its direction is drawn.
    fn apply<'p>(&self, op: Op, [bin, bins]: [u32; 2], sampling: Sampling, picture: Pixels<'p>, rng: &mut Rng) -> Pixels<'p> {
        let (magnitude, signed) = self.magnitude(op, bin, bins);
        let magnitude = if signed && rng.chance(0.5) { -magnitude } else { magnitude };
        op.apply(picture, magnitude, sampling)
    }
}

/// `torch.linspace(start, end, steps)[index]`, in float32.
fn linspace(start: f32, end: f32, steps: u32, index: u32) -> f32 {
    let step = (end - start) / (steps - 1) as f32;
    if index < steps / 2 { step.mul_add(index as f32, start) } else { step.mul_add(-((steps - 1 - index) as f32), end) }
}

impl Op {
    /// torchvision's `_apply_op`.
    pub(super) fn apply(self, picture: Pixels<'_>, magnitude: f64, sampling: Sampling) -> Pixels<'_> {
        let centre = [picture.width as f64 * 0.5, picture.height as f64 * 0.5];
        let shear = |shear: [f64; 2]| inverse([0.0; 2], 0.0, [0.0; 2], 1.0, shear.map(|tan| tan.atan().to_degrees()));
        let translate = |shift: [f64; 2]| inverse(centre, 0.0, shift.map(f64::trunc), 1.0, [0.0; 2]);
        let moved = |matrix| transform(&picture, Map::Affine(matrix), sampling);
        match self {
            Self::Identity => picture,
            Self::ShearX => moved(shear([magnitude, 0.0])),
            Self::ShearY => moved(shear([0.0, magnitude])),
            Self::TranslateX => moved(translate([magnitude, 0.0])),
            Self::TranslateY => moved(translate([0.0, magnitude])),
            Self::Rotate => rotate(picture, magnitude, sampling),
            Self::Brightness => colour::brightness(picture, 1.0 + magnitude),
            Self::Colour => colour::saturation(picture, 1.0 + magnitude),
            Self::Contrast => colour::contrast(picture, 1.0 + magnitude),
            Self::Sharpness => blur::sharpness(picture, 1.0 + magnitude),
            Self::Posterise => tone::posterise(picture, magnitude as u8),
            Self::Solarise => tone::solarise(picture, magnitude),
            Self::Autocontrast => tone::autocontrast(picture),
            Self::Equalise => tone::equalise(picture),
            Self::Invert => tone::invert(picture),
        }
    }
}

/// What RandAugment and TrivialAugment draw from.
const OPS: [Op; 14] = [
    Op::Identity,
    Op::ShearX,
    Op::ShearY,
    Op::TranslateX,
    Op::TranslateY,
    Op::Rotate,
    Op::Posterise,
    Op::Solarise,
    Op::Autocontrast,
    Op::Equalise,
    Op::Brightness,
    Op::Colour,
    Op::Contrast,
    Op::Sharpness,
];
/// How many of the last of [`OPS`] AugMix may leave out; the identity it always does.
const MORE_OPS: usize = 4;
/// Bins of AutoAugment and AugMix.
const BINS: u32 = 10;

fn check_bins(key: &'static str, bins: u32) -> Result<(), DatasetError> {
    check((2..=1000).contains(&bins), key, bins, "from 2 to 1000")
}

impl OnPicture for RandAugment {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        check_bins("rand-augment.bins", self.bins)?;
        check(self.ops <= 100, "rand-augment.ops", self.ops, "100 at most")?;
        check(self.magnitude < self.bins, "rand-augment.magnitude", self.magnitude, "below `bins`")
    }

    fn apply<'p>(&self, mut picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        let space = Space::narrow([picture.width, picture.height]);
        for _ in 0..self.ops {
            let op = OPS[rng.below(OPS.len())];
            picture = space.apply(op, [self.magnitude, self.bins], self.interpolation, picture, rng);
        }
        Ok(picture)
    }
}

impl OnPicture for TrivialAugment {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        check_bins("trivial-augment.bins", self.bins)
    }

    fn apply<'p>(&self, picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        let op = OPS[rng.below(OPS.len())];
        let bin = rng.below(self.bins as usize) as u32;
        Ok(Space::wide().apply(op, [bin, self.bins], self.interpolation, picture, rng))
    }
}

impl OnPicture for AutoAugment {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        Ok(())
    }

    fn apply<'p>(&self, mut picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        let pairs = match self.policy {
            Policy::Imagenet => &IMAGENET,
            Policy::Cifar10 => &CIFAR10,
            Policy::Svhn => &SVHN,
        };
        let space = Space::narrow([picture.width, picture.height]);
        for (op, p, bin) in pairs[rng.below(pairs.len())] {
            if rng.chance(p) {
                picture = space.apply(op, [bin, BINS], self.interpolation, picture, rng);
            }
        }
        Ok(picture)
    }
}

impl OnPicture for AugMix {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        check((1..=BINS).contains(&self.severity), "aug-mix.severity", self.severity, "from 1 to 10")?;
        check((1..=100).contains(&self.width), "aug-mix.width", self.width, "from 1 to 100")?;
        check(self.depth <= 100, "aug-mix.depth", self.depth, "100 at most")?;
        check(self.alpha > 0.0 && self.alpha.is_finite(), "aug-mix.alpha", self.alpha, "above 0")
    }

    fn apply<'p>(&self, picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        let ops = &OPS[1..OPS.len() - if self.all_ops { 0 } else { MORE_OPS }];
        let space = Space::mix([picture.width, picture.height]);
        let own = rng.beta(self.alpha);
        let shares: Vec<f64> = (0..self.width).map(|_| rng.gamma(self.alpha)).collect();
        let total = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let mut mix: Vec<f32> = picture.data.iter().map(|value| own as f32 * f32::from(*value)).collect();
        for share in shares {
            let depth = if self.depth > 0 { self.depth as usize } else { 1 + rng.below(3) };
            let mut chain = Pixels { data: Cow::Borrowed(&*picture.data), ..picture };
            for _ in 0..depth {
                let op = ops[rng.below(ops.len())];
                let bin = rng.below(self.severity as usize) as u32;
                chain = space.apply(op, [bin, BINS], self.interpolation, chain, rng);
            }
            let share = ((1.0 - own) * share / total) as f32;
            mix.iter_mut().zip(&*chain.data).for_each(|(sum, value)| *sum += share * f32::from(*value));
        }
        let data = mix.into_iter().map(|value| value as u8).collect::<Vec<_>>();
        Ok(Pixels::new([picture.width, picture.height], picture.channels, data))
    }
}

/// An operation, its probability, and its bin.
type Sub = (Op, f64, u32);

// The pairs are torchvision's.
#[rustfmt::skip]
const IMAGENET: [[Sub; 2]; 25] = [
    [(Op::Posterise, 0.4, 8), (Op::Rotate, 0.6, 9)],
    [(Op::Solarise, 0.6, 5), (Op::Autocontrast, 0.6, 0)],
    [(Op::Equalise, 0.8, 0), (Op::Equalise, 0.6, 0)],
    [(Op::Posterise, 0.6, 7), (Op::Posterise, 0.6, 6)],
    [(Op::Equalise, 0.4, 0), (Op::Solarise, 0.2, 4)],
    [(Op::Equalise, 0.4, 0), (Op::Rotate, 0.8, 8)],
    [(Op::Solarise, 0.6, 3), (Op::Equalise, 0.6, 0)],
    [(Op::Posterise, 0.8, 5), (Op::Equalise, 1.0, 0)],
    [(Op::Rotate, 0.2, 3), (Op::Solarise, 0.6, 8)],
    [(Op::Equalise, 0.6, 0), (Op::Posterise, 0.4, 6)],
    [(Op::Rotate, 0.8, 8), (Op::Colour, 0.4, 0)],
    [(Op::Rotate, 0.4, 9), (Op::Equalise, 0.6, 0)],
    [(Op::Equalise, 0.0, 0), (Op::Equalise, 0.8, 0)],
    [(Op::Invert, 0.6, 0), (Op::Equalise, 1.0, 0)],
    [(Op::Colour, 0.6, 4), (Op::Contrast, 1.0, 8)],
    [(Op::Rotate, 0.8, 8), (Op::Colour, 1.0, 2)],
    [(Op::Colour, 0.8, 8), (Op::Solarise, 0.8, 7)],
    [(Op::Sharpness, 0.4, 7), (Op::Invert, 0.6, 0)],
    [(Op::ShearX, 0.6, 5), (Op::Equalise, 1.0, 0)],
    [(Op::Colour, 0.4, 0), (Op::Equalise, 0.6, 0)],
    [(Op::Equalise, 0.4, 0), (Op::Solarise, 0.2, 4)],
    [(Op::Solarise, 0.6, 5), (Op::Autocontrast, 0.6, 0)],
    [(Op::Invert, 0.6, 0), (Op::Equalise, 1.0, 0)],
    [(Op::Colour, 0.6, 4), (Op::Contrast, 1.0, 8)],
    [(Op::Equalise, 0.8, 0), (Op::Equalise, 0.6, 0)],
];

#[rustfmt::skip]
const CIFAR10: [[Sub; 2]; 25] = [
    [(Op::Invert, 0.1, 0), (Op::Contrast, 0.2, 6)],
    [(Op::Rotate, 0.7, 2), (Op::TranslateX, 0.3, 9)],
    [(Op::Sharpness, 0.8, 1), (Op::Sharpness, 0.9, 3)],
    [(Op::ShearY, 0.5, 8), (Op::TranslateY, 0.7, 9)],
    [(Op::Autocontrast, 0.5, 0), (Op::Equalise, 0.9, 0)],
    [(Op::ShearY, 0.2, 7), (Op::Posterise, 0.3, 7)],
    [(Op::Colour, 0.4, 3), (Op::Brightness, 0.6, 7)],
    [(Op::Sharpness, 0.3, 9), (Op::Brightness, 0.7, 9)],
    [(Op::Equalise, 0.6, 0), (Op::Equalise, 0.5, 0)],
    [(Op::Contrast, 0.6, 7), (Op::Sharpness, 0.6, 5)],
    [(Op::Colour, 0.7, 7), (Op::TranslateX, 0.5, 8)],
    [(Op::Equalise, 0.3, 0), (Op::Autocontrast, 0.4, 0)],
    [(Op::TranslateY, 0.4, 3), (Op::Sharpness, 0.2, 6)],
    [(Op::Brightness, 0.9, 6), (Op::Colour, 0.2, 8)],
    [(Op::Solarise, 0.5, 2), (Op::Invert, 0.0, 0)],
    [(Op::Equalise, 0.2, 0), (Op::Autocontrast, 0.6, 0)],
    [(Op::Equalise, 0.2, 0), (Op::Equalise, 0.6, 0)],
    [(Op::Colour, 0.9, 9), (Op::Equalise, 0.6, 0)],
    [(Op::Autocontrast, 0.8, 0), (Op::Solarise, 0.2, 8)],
    [(Op::Brightness, 0.1, 3), (Op::Colour, 0.7, 0)],
    [(Op::Solarise, 0.4, 5), (Op::Autocontrast, 0.9, 0)],
    [(Op::TranslateY, 0.9, 9), (Op::TranslateY, 0.7, 9)],
    [(Op::Autocontrast, 0.9, 0), (Op::Solarise, 0.8, 3)],
    [(Op::Equalise, 0.8, 0), (Op::Invert, 0.1, 0)],
    [(Op::TranslateY, 0.7, 9), (Op::Autocontrast, 0.9, 0)],
];

#[rustfmt::skip]
const SVHN: [[Sub; 2]; 25] = [
    [(Op::ShearX, 0.9, 4), (Op::Invert, 0.2, 0)],
    [(Op::ShearY, 0.9, 8), (Op::Invert, 0.7, 0)],
    [(Op::Equalise, 0.6, 0), (Op::Solarise, 0.6, 6)],
    [(Op::Invert, 0.9, 0), (Op::Equalise, 0.6, 0)],
    [(Op::Equalise, 0.6, 0), (Op::Rotate, 0.9, 3)],
    [(Op::ShearX, 0.9, 4), (Op::Autocontrast, 0.8, 0)],
    [(Op::ShearY, 0.9, 8), (Op::Invert, 0.4, 0)],
    [(Op::ShearY, 0.9, 5), (Op::Solarise, 0.2, 6)],
    [(Op::Invert, 0.9, 0), (Op::Autocontrast, 0.8, 0)],
    [(Op::Equalise, 0.6, 0), (Op::Rotate, 0.9, 3)],
    [(Op::ShearX, 0.9, 4), (Op::Solarise, 0.3, 3)],
    [(Op::ShearY, 0.8, 8), (Op::Invert, 0.7, 0)],
    [(Op::Equalise, 0.9, 0), (Op::TranslateY, 0.6, 6)],
    [(Op::Invert, 0.9, 0), (Op::Equalise, 0.6, 0)],
    [(Op::Contrast, 0.3, 3), (Op::Rotate, 0.8, 4)],
    [(Op::Invert, 0.8, 0), (Op::TranslateY, 0.0, 2)],
    [(Op::ShearY, 0.7, 6), (Op::Solarise, 0.4, 8)],
    [(Op::Invert, 0.6, 0), (Op::Rotate, 0.8, 4)],
    [(Op::ShearY, 0.3, 7), (Op::TranslateX, 0.9, 3)],
    [(Op::ShearX, 0.1, 6), (Op::Invert, 0.6, 0)],
    [(Op::Solarise, 0.7, 2), (Op::TranslateY, 0.6, 7)],
    [(Op::ShearY, 0.8, 4), (Op::Invert, 0.8, 0)],
    [(Op::ShearX, 0.7, 9), (Op::TranslateY, 0.8, 3)],
    [(Op::ShearY, 0.8, 5), (Op::Autocontrast, 0.7, 0)],
    [(Op::ShearX, 0.7, 2), (Op::Invert, 0.1, 0)],
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn strengths_are_torchvisions() {
        // torchvision: RandAugment()._augmentation_space(31, (224, 224))[name][0][9], and so on
        let narrow = Space::narrow([224, 224]);
        let at = |space: &Space, op, bin, bins| space.magnitude(op, bin, bins).0;
        let expected = [(Op::ShearX, 0.090_000_003_576_278_69), (Op::TranslateX, 30.453_172_683_715_82), (Op::Rotate, 9.0)];
        for (op, value) in expected {
            assert_eq!(at(&narrow, op, 9, 31), value, "{op:?}");
        }
        assert_eq!(at(&narrow, Op::Solarise, 9, 31), 178.5);
        assert_eq!((0..31).map(|bin| at(&narrow, Op::Posterise, bin, 31) as u8).collect::<Vec<_>>(), BITS);
        assert_eq!(at(&Space::wide(), Op::Posterise, 30, 31), 2.0);
        assert_eq!(at(&Space::wide(), Op::Rotate, 20, 31), 90.0);
        assert_eq!(at(&Space::mix([32, 32]), Op::TranslateY, 2, 10), 2.370_370_388_031_006);
        assert_eq!(at(&Space::mix([32, 32]), Op::Posterise, 9, 10), 0.0);
    }

    const BITS: [u8; 31] = [8, 8, 8, 8, 7, 7, 7, 7, 7, 7, 7, 7, 6, 6, 6, 6, 6, 6, 6, 5, 5, 5, 5, 5, 5, 5, 5, 4, 4, 4, 4];

    #[test]
    fn policies_draw_many_changes_and_repeat_them_by_seed() {
        let picture = Pixels::new([16, 12], 3, (0..576).map(|index| (index * 7 % 256) as u8).collect::<Vec<_>>());
        let policies: [&dyn OnPicture; 6] = [
            &RandAugment::default(),
            &TrivialAugment::default(),
            &AutoAugment::default(),
            &AutoAugment { policy: Policy::Cifar10, ..AutoAugment::default() },
            &AutoAugment { policy: Policy::Svhn, ..AutoAugment::default() },
            &AugMix::default(),
        ];
        for policy in policies {
            policy.check([3, 16, 12]).unwrap();
            let apply = |seed| policy.apply(picture.clone(), [16, 12], &mut Rng::new(seed, &[])).unwrap();
            let found: HashSet<Vec<u8>> = (0..60).map(|seed| apply(seed).data.into_owned()).collect();
            assert!(found.len() > 12, "{}", found.len());
            assert_eq!(apply(7), apply(7));
            assert!((0..60).all(|seed| [apply(seed).width, apply(seed).height] == [16, 12]));
        }
    }

    #[test]
    fn a_mixture_stays_near_a_flat_picture() {
        let flat = Pixels::new([8, 8], 1, vec![100; 64]);
        let mix = AugMix { all_ops: false, severity: 1, ..AugMix::default() };
        let out = mix.apply(flat, [8, 8], &mut Rng::new(3, &[])).unwrap();
        assert!(out.data.iter().all(|value| (90..=100).contains(value)), "{:?}", out.data);
    }
}
