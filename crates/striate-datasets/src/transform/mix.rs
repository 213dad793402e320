use super::{OnBatch, Rng, check, check_p};
use crate::{Batch, DatasetError};
use serde::{Deserialize, Serialize};
use tch::Kind;

/// Mixes each picture of a batch with another, and their labels alike (Zhang 2018, arXiv:1710.09412).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixUp {
    /// The shares are drawn from a beta distribution with this parameter.
    pub alpha: f64,
    /// The probability for a batch.
    pub p: f64,
}

/// Puts a rectangle of another picture into each of a batch, and mixes labels by its area (Yun 2019, arXiv:1905.04899).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CutMix {
    /// The areas are drawn from a beta distribution with this parameter.
    pub alpha: f64,
    /// The probability for a batch.
    pub p: f64,
}

/// Either of both for a batch, as timm's `Mixup` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixUpOrCutMix {
    /// The parameter of MixUp's beta distribution.
    pub mixup_alpha: f64,
    /// The parameter of CutMix's beta distribution.
    pub cutmix_alpha: f64,
    /// The probability that a batch is mixed.
    pub p: f64,
    /// The probability that it is by [`CutMix`].
    pub switch_p: f64,
}

impl Default for MixUp {
    fn default() -> Self {
        Self { alpha: 1.0, p: 1.0 }
    }
}

impl Default for CutMix {
    fn default() -> Self {
        Self { alpha: 1.0, p: 1.0 }
    }
}

impl Default for MixUpOrCutMix {
    fn default() -> Self {
        Self { mixup_alpha: 0.8, cutmix_alpha: 1.0, p: 1.0, switch_p: 0.5 }
    }
}

fn check_alpha(key: &'static str, alpha: f64) -> Result<(), DatasetError> {
    check(alpha > 0.0 && alpha.is_finite(), key, alpha, "above 0")
}

impl OnBatch for MixUp {
    fn check(&self) -> Result<(), DatasetError> {
        check_alpha("mix-up.alpha", self.alpha)?;
        check_p("mix-up.p", self.p)
    }

    fn apply(&self, batch: Batch, classes: i64, rng: &mut Rng) -> Result<Batch, DatasetError> {
        if rng.chance(self.p) { mix_up(batch, classes, rng.beta(self.alpha)) } else { Ok(batch) }
    }
}

impl OnBatch for CutMix {
    fn check(&self) -> Result<(), DatasetError> {
        check_alpha("cut-mix.alpha", self.alpha)?;
        check_p("cut-mix.p", self.p)
    }

    fn apply(&self, batch: Batch, classes: i64, rng: &mut Rng) -> Result<Batch, DatasetError> {
        if rng.chance(self.p) { cut_mix(batch, classes, self.alpha, rng) } else { Ok(batch) }
    }
}

impl OnBatch for MixUpOrCutMix {
    fn check(&self) -> Result<(), DatasetError> {
        check_alpha("mix-up-or-cut-mix.mixup_alpha", self.mixup_alpha)?;
        check_alpha("mix-up-or-cut-mix.cutmix_alpha", self.cutmix_alpha)?;
        check_p("mix-up-or-cut-mix.p", self.p)?;
        check_p("mix-up-or-cut-mix.switch_p", self.switch_p)
    }

    fn apply(&self, batch: Batch, classes: i64, rng: &mut Rng) -> Result<Batch, DatasetError> {
        if !rng.chance(self.p) {
            Ok(batch)
        } else if rng.chance(self.switch_p) {
            cut_mix(batch, classes, self.cutmix_alpha, rng)
        } else {
            mix_up(batch, classes, rng.beta(self.mixup_alpha))
        }
    }
}

/// torchvision's `MixUp.transform`: with the batch's picture before, of which the share `1 - own` is taken.
fn mix_up(batch: Batch, classes: i64, own: f64) -> Result<Batch, DatasetError> {
    let others = batch.images.f_roll([1_i64].as_slice(), [0_i64].as_slice())?;
    let images = others.f_mul_scalar(1.0 - own)?.f_add(&batch.images.f_mul_scalar(own)?)?;
    mix_labels(Batch { images, ..batch }, classes, own)
}

fn cut_mix(batch: Batch, classes: i64, alpha: f64, rng: &mut Rng) -> Result<Batch, DatasetError> {
    let (own, size) = (rng.beta(alpha), batch.images.size());
    let [height, width] = [size[2], size[3]];
    let centre = [rng.below(width.unsigned_abs() as usize), rng.below(height.unsigned_abs() as usize)];
    cut_mix_at(batch, classes, own, centre.map(|place| place.cast_signed() as i64))
}

/// torchvision's `CutMix.transform`: a rectangle about `(x, y)`, of the area `1 - own` as far as it lies within the picture.
fn cut_mix_at(batch: Batch, classes: i64, own: f64, [x, y]: [i64; 2]) -> Result<Batch, DatasetError> {
    let size = batch.images.size();
    let [height, width] = [size[2], size[3]];
    let half = |side: i64| (0.5 * (1.0 - own).sqrt() * side as f64) as i64;
    let span = |centre: i64, side: i64| ((centre - half(side)).max(0), (centre + half(side)).min(side));
    let ((left, right), (top, bottom)) = (span(x, width), span(y, height));
    let rectangle = |images: &tch::Tensor| images.f_narrow(2, top, bottom - top)?.f_narrow(3, left, right - left);
    let others = batch.images.f_roll([1_i64].as_slice(), [0_i64].as_slice())?;
    rectangle(&batch.images)?.f_copy_(&rectangle(&others)?)?;
    let own = 1.0 - ((right - left) * (bottom - top)) as f64 / (width * height) as f64;
    mix_labels(batch, classes, own)
}

/// The shares of the classes; the label is that of the larger share.
fn mix_labels(batch: Batch, classes: i64, own: f64) -> Result<Batch, DatasetError> {
    let targets = match &batch.targets {
        Some(targets) => targets.shallow_clone(),
        None => batch.labels.f_one_hot(classes)?.f_to_kind(Kind::Float)?,
    };
    let rolled = |tensor: &tch::Tensor| tensor.f_roll([1_i64].as_slice(), [0_i64].as_slice());
    let mixed = rolled(&targets)?.f_mul_scalar(1.0 - own)?.f_add(&targets.f_mul_scalar(own)?)?;
    let labels = if own < 0.5 { rolled(&batch.labels)? } else { batch.labels };
    Ok(Batch { labels, targets: Some(mixed), images: batch.images })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::{Device, Tensor};

    fn batch() -> Batch {
        let images = Tensor::arange(2 * 4 * 6, (Kind::Float, Device::Cpu)).view([2, 1, 4, 6]);
        Batch { images, labels: Tensor::from_slice(&[0_i64, 2]), targets: None }
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten(0, -1).try_into().unwrap()
    }

    #[test]
    fn pictures_and_labels_are_mixed_alike() {
        // torchvision.transforms.v2: MixUp(num_classes=3) with lam = 0.25 of this batch
        let mixed = mix_up(batch(), 3, 0.25).unwrap();
        assert_eq!(floats(&mixed.images)[..3], [18.0, 19.0, 20.0]);
        assert_eq!(floats(&mixed.images)[24..27], [6.0, 7.0, 8.0]);
        assert_eq!(floats(mixed.targets()), [0.25, 0.0, 0.75, 0.75, 0.0, 0.25]);
        assert_eq!(Vec::<i64>::try_from(mixed.labels).unwrap(), [2, 0]);
        assert_eq!(Vec::<i64>::try_from(mix_up(batch(), 3, 0.75).unwrap().labels).unwrap(), [0, 2]);
    }

    #[test]
    fn a_rectangle_comes_from_the_other_picture_and_labels_by_its_area() {
        // torchvision.transforms.v2: CutMix(num_classes=3) with lam = 0.75 and the centre (5, 1): the box (4, 0, 6, 2)
        let mixed = cut_mix_at(batch(), 3, 0.75, [5, 1]).unwrap();
        let first = floats(&mixed.images.get(0));
        let expected: Vec<f32> =
            (0..24).map(|place| if [4, 5, 10, 11].contains(&place) { place + 24 } else { place } as f32).collect();
        assert_eq!(first, expected);
        let shares = floats(mixed.targets());
        assert!((shares[0] - 5.0 / 6.0).abs() < 1e-6 && (shares[2] - 1.0 / 6.0).abs() < 1e-6, "{shares:?}");
    }

    #[test]
    fn the_probability_is_a_batchs() {
        let mixed = |transform: &dyn OnBatch| {
            (0..100).filter(|seed| transform.apply(batch(), 3, &mut Rng::new(*seed, &[])).unwrap().targets.is_some()).count()
        };
        assert_eq!((mixed(&MixUp { alpha: 0.2, p: 0.0 }), mixed(&CutMix { alpha: 1.0, p: 1.0 })), (0, 100));
        let half = mixed(&MixUpOrCutMix { p: 0.5, ..MixUpOrCutMix::default() });
        assert!((30..70).contains(&half), "{half}");
    }
}
