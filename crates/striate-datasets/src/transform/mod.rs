//! What is done to the pictures of a training set, as an ordered list of plain data.
//!
//! A transform draws what it does to one picture from that picture's own generator, and does it. Definitions are torchvision's, as
//! it works on pictures of Pillow.

/// A transform that changes a picture with a probability, and else leaves it as it is.
macro_rules! at_random {
    (
        $(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* },
        p = $p:expr, $kind:literal, $check:expr, $apply:expr
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            /// The probability.
            pub p: f64,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* p: $p }
            }
        }

        impl $crate::transform::OnPicture for $name {
            fn check(&self, _: [i64; 3]) -> Result<(), $crate::DatasetError> {
                let check: fn(&Self) -> Result<(), $crate::DatasetError> = $check;
                check(self)?;
                $crate::transform::check_p(concat!($kind, ".p"), self.p)
            }

            fn apply<'p>(
                &self,
                picture: $crate::Pixels<'p>,
                _: [usize; 2],
                rng: &mut $crate::transform::Rng,
            ) -> Result<$crate::Pixels<'p>, $crate::DatasetError> {
                let apply: fn(&Self, $crate::Pixels<'p>) -> $crate::Pixels<'p> = $apply;
                Ok(if rng.chance(self.p) { apply(self, picture) } else { picture })
            }

            fn is_light(&self) -> bool {
                true
            }
        }
    };
}

mod affine;
mod blur;
mod colour;
mod crop;
mod erase;
#[cfg(test)]
mod fixtures;
mod flip;
mod mix;
mod perspective;
mod policy;
mod rng;
mod tone;

pub use affine::{RandomAffine, Sampling};
pub use blur::{RandomGaussianBlur, RandomSharpness};
pub use colour::{ColourJitter, RandomGrey};
pub use crop::{CentreCrop, RandomCrop, RandomResizedCrop, Resize};
pub use erase::{Erased, RandomErasing};
pub use flip::{FlipMode, RandomHorizontalFlip, RandomVerticalFlip};
pub use mix::{CutMix, MixUp, MixUpOrCutMix};
pub use perspective::RandomPerspective;
pub use policy::{AugMix, AutoAugment, Policy, RandAugment, TrivialAugment};
pub use tone::{RandomAutocontrast, RandomEqualise, RandomInvert, RandomPosterise, RandomSolarise};

pub(crate) use rng::Rng;

use crate::{Batch, DatasetError, Pixels, View};
use serde::{Deserialize, Serialize};

/// The enum of all transforms, with each one's kind in a recipe and what it works on.
macro_rules! transforms {
    ($($(#[$doc:meta])* $name:ident($type:ty) = $kind:literal on $stage:ident,)*) => {
        /// One step of what is done to each picture of a training set. In a recipe it is a table of `[[transforms]]`.
        ///
        /// ```
        /// use striate_datasets::{RandomCrop, Transform};
        /// let transform: Transform = toml::from_str("kind = \"random-crop\"\npadding = 4")?;
        /// assert_eq!(transform, Transform::RandomCrop(RandomCrop { padding: 4 }));
        /// # Ok::<(), toml::de::Error>(())
        /// ```
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        #[non_exhaustive]
        pub enum Transform {
            $($(#[$doc])* #[serde(rename = $kind)] $name($type),)*
        }

        impl Transform {
            /// Every kind that there is.
            pub const KINDS: &[&str] = &[$($kind),*];

            /// Its kind, as a recipe names it.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $kind,)*
                }
            }

            pub(crate) fn stage(&self) -> Stage<'_> {
                match self {
                    $(Self::$name(transform) => Stage::$stage(transform),)*
                }
            }
        }
    };
}

transforms! {
    /// To a size that the input is cropped from.
    Resize(Resize) = "resize" on View,
    /// The middle.
    CentreCrop(CentreCrop) = "centre-crop" on View,
    /// A random region, resized: ImageNet's.
    RandomResizedCrop(RandomResizedCrop) = "random-resized-crop" on View,
    /// A random place within zeros: CIFAR's.
    RandomCrop(RandomCrop) = "random-crop" on View,
    /// Mirrored left to right.
    HorizontalFlip(RandomHorizontalFlip) = "horizontal-flip" on Picture,
    /// Mirrored top to bottom.
    VerticalFlip(RandomVerticalFlip) = "vertical-flip" on Picture,
    /// Turned, shifted, scaled and sheared.
    Affine(RandomAffine) = "affine" on Picture,
    /// Seen from another place.
    Perspective(RandomPerspective) = "perspective" on Picture,
    /// Other brightness, contrast, saturation and hue.
    ColourJitter(ColourJitter) = "colour-jitter" on Picture,
    /// Without colour.
    Grey(RandomGrey) = "grey" on Picture,
    /// Blurred.
    GaussianBlur(RandomGaussianBlur) = "gaussian-blur" on Picture,
    /// Sharpened.
    Sharpness(RandomSharpness) = "sharpness" on Picture,
    /// Turned around.
    Invert(RandomInvert) = "invert" on Picture,
    /// Bright values turned around.
    Solarise(RandomSolarise) = "solarise" on Picture,
    /// With fewer bits.
    Posterise(RandomPosterise) = "posterise" on Picture,
    /// With all values as frequent.
    Equalise(RandomEqualise) = "equalise" on Picture,
    /// With values from 0 to 255.
    Autocontrast(RandomAutocontrast) = "autocontrast" on Picture,
    /// Random operations of one strength.
    RandAugment(RandAugment) = "rand-augment" on Picture,
    /// One random operation of random strength.
    TrivialAugment(TrivialAugment) = "trivial-augment" on Picture,
    /// A random pair of operations that was found for a dataset.
    AutoAugment(AutoAugment) = "auto-augment" on Picture,
    /// A mixture of chains of operations.
    AugMix(AugMix) = "aug-mix" on Picture,
    /// A random rectangle erased, after normalising.
    RandomErasing(RandomErasing) = "random-erasing" on Values,
    /// Mixed with another of the batch.
    MixUp(MixUp) = "mix-up" on Batch,
    /// With a rectangle of another of the batch.
    CutMix(CutMix) = "cut-mix" on Batch,
    /// Either of both.
    MixUpOrCutMix(MixUpOrCutMix) = "mix-up-or-cut-mix" on Batch,
}

/// What a transform works on: the stages come in this order.
pub(crate) enum Stage<'t> {
    /// What is seen of a picture, and in which size.
    View(&'t dyn OnView),
    /// A picture, before it is normalised.
    Picture(&'t dyn OnPicture),
    /// A picture's normalised values.
    Values(&'t dyn OnValues),
    /// A batch with its labels: one at most.
    Batch(&'t dyn OnBatch),
}

/// A transform that chooses what is seen of a picture. Where such come first, nothing else of the picture is decoded.
pub(crate) trait OnView {
    /// Whether the values are sound for a network that takes `input` (`[C, H, W]`).
    fn check(&self, input: [i64; 3]) -> Result<(), DatasetError>;

    /// What is seen, as `rng` draws, of a picture that has this width and height. `size` is that of the network's input.
    fn view(&self, has: [usize; 2], size: [usize; 2], rng: &mut Rng) -> Result<View, DatasetError>;

    /// Whether it brings pictures of any size to the network's, or to what one is cropped from. A list with such a transform
    /// starts from pictures as they lie in the dataset, and others from pictures of the input's size.
    fn sizes(&self) -> bool;

    /// Whether it does little more than copy.
    fn is_light(&self) -> bool {
        !self.sizes()
    }
}

/// A transform of one picture's pixels.
pub(crate) trait OnPicture {
    /// Whether the values are sound for a network that takes `input` (`[C, H, W]`).
    fn check(&self, input: [i64; 3]) -> Result<(), DatasetError>;

    /// Changes a picture as `rng` draws. `size` is the width and height of the network's input.
    fn apply<'p>(&self, picture: Pixels<'p>, size: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError>;

    /// Whether it does little more than copy.
    fn is_light(&self) -> bool {
        false
    }
}

/// A transform of one picture's normalised values.
pub(crate) trait OnValues {
    /// Whether the options are sound.
    fn check(&self) -> Result<(), DatasetError>;

    /// Changes values (`[C, H, W]` of this width and height) as `rng` draws.
    fn apply(&self, values: &mut [f32], size: [usize; 2], rng: &mut Rng);
}

/// A transform of a batch.
pub(crate) trait OnBatch {
    /// Whether the options are sound.
    fn check(&self) -> Result<(), DatasetError>;

    /// Changes images and labels, which index so many classes, as `rng` draws.
    fn apply(&self, batch: Batch, classes: i64, rng: &mut Rng) -> Result<Batch, DatasetError>;
}

impl Transform {
    /// The lists that have names.
    pub const PRESETS: [&'static str; 5] = ["imagenet-train", "imagenet-eval", "cifar", "digits", "none"];

    /// The list of a name.
    pub fn preset(name: &str) -> Option<Vec<Self>> {
        let flip = Self::HorizontalFlip(RandomHorizontalFlip::default());
        Some(match name {
            "imagenet-train" => vec![Self::RandomResizedCrop(RandomResizedCrop::default()), flip],
            "imagenet-eval" => {
                vec![Self::Resize(Resize { crop_pct: 0.875, ..Resize::default() }), Self::CentreCrop(CentreCrop {})]
            }
            "cifar" => vec![Self::RandomCrop(RandomCrop { padding: 4 }), flip],
            "digits" => {
                let affine = RandomAffine { degrees: 10.0, translate: [0.1; 2], scale: [0.9, 1.1], ..RandomAffine::default() };
                vec![Self::Affine(affine)]
            }
            "none" => Vec::new(),
            _ => return None,
        })
    }

    /// Whether a list brings pictures of any size to the network's itself, so that they need not be resized before.
    pub fn size_themselves(list: &[Self]) -> bool {
        list.iter().any(|transform| matches!(transform.stage(), Stage::View(transform) if transform.sizes()))
    }

    /// Whether a list mixes labels, which only some losses allow.
    pub fn mix_labels(list: &[Self]) -> bool {
        list.iter().any(|transform| matches!(transform.stage(), Stage::Batch(_)))
    }

    /// Whether a list is sound for a network that takes `input` (`[C, H, W]`).
    ///
    /// # Errors
    ///
    /// [`DatasetError::Option`] that names the transform and its key, or says in which order transforms come.
    pub fn check_all(list: &[Self], input: [i64; 3]) -> Result<(), DatasetError> {
        let mut last = 0;
        for transform in list {
            let place = match transform.stage() {
                Stage::View(transform) => transform.check(input).map(|()| 0)?,
                Stage::Picture(transform) => transform.check(input).map(|()| 0)?,
                Stage::Values(transform) => transform.check().map(|()| 1)?,
                Stage::Batch(transform) => transform.check().map(|()| 2)?,
            };
            if place < last || (place, last) == (2, 2) {
                let reason = "those of pictures come first, then random-erasing, then one that mixes pictures";
                return Err(DatasetError::option("transforms", reason));
            }
            last = place;
        }
        Ok(())
    }
}

/// Fails if `sound` does not hold, naming a transform's key, its value and what it must be.
pub(crate) fn check(sound: bool, key: &'static str, value: impl std::fmt::Debug, must: &str) -> Result<(), DatasetError> {
    if sound { Ok(()) } else { Err(DatasetError::option(key, format!("{value:?} must be {must}"))) }
}

/// [`check`]s a probability.
pub(crate) fn check_p(key: &'static str, p: f64) -> Result<(), DatasetError> {
    check((0.0..=1.0).contains(&p), key, p, "from 0 to 1")
}

/// [`check`]s a range of finite numbers from `least` on.
pub(crate) fn check_range(key: &'static str, range: [f64; 2], least: f64, must: &str) -> Result<(), DatasetError> {
    let [low, high] = range;
    check(low >= least && low <= high && high.is_finite(), key, range, must)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_defaults_that_are_sound_and_come_back() {
        for kind in Transform::KINDS {
            let transform: Transform = toml::from_str(&format!("kind = '{kind}'")).unwrap();
            Transform::check_all(std::slice::from_ref(&transform), [3, 32, 32]).unwrap();
            assert_eq!(transform.kind(), *kind);
            let text = toml::to_string(&transform).unwrap();
            assert_eq!(toml::from_str::<Transform>(&text).unwrap(), transform, "{text}");
            assert!(toml::from_str::<Transform>(&format!("kind = '{kind}'\nunknown = 1")).is_err(), "{kind}");
        }
    }

    #[test]
    fn every_preset_is_sound() {
        for name in Transform::PRESETS {
            Transform::check_all(&Transform::preset(name).unwrap(), [3, 32, 32]).unwrap();
        }
        assert_eq!(Transform::preset("imagenet"), None);
        let sized = |name| Transform::size_themselves(&Transform::preset(name).unwrap());
        assert_eq!(Transform::PRESETS.map(sized), [true, true, false, false, false]);
    }

    #[test]
    fn stages_come_in_their_order() {
        let list = |kinds: &[&str]| {
            let read = |kind: &&str| toml::from_str(&format!("kind = '{kind}'")).unwrap();
            kinds.iter().map(read).collect::<Vec<Transform>>()
        };
        let told = |kinds: &[&str]| Transform::check_all(&list(kinds), [3, 32, 32]).map_err(|error| error.to_string());
        told(&["horizontal-flip", "random-erasing", "random-erasing", "cut-mix"]).unwrap();
        for wrong in [&["random-erasing", "grey"], &["mix-up", "random-erasing"], &["mix-up", "cut-mix"]] {
            assert!(told(wrong).unwrap_err().starts_with("transforms: those of pictures come first"));
        }
        assert!(Transform::mix_labels(&list(&["grey", "mix-up"])) && !Transform::mix_labels(&list(&["grey"])));
    }
}
