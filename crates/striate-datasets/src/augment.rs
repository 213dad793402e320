//! How recipes and checkpoints of before there were lists of transforms say what is done to pictures.

use crate::{RandomAffine, RandomCrop, RandomHorizontalFlip, Transform};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// The former section `[augment]`.
#[derive(Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Augment {
    pad_crop: u32,
    hflip: bool,
    rotate_degrees: f64,
    translate: f64,
    scale: [f64; 2],
}

impl Default for Augment {
    fn default() -> Self {
        Self { pad_crop: 0, hflip: false, rotate_degrees: 0.0, translate: 0.0, scale: [1.0, 1.0] }
    }
}

impl From<Augment> for Vec<Transform> {
    fn from(augment: Augment) -> Self {
        let Augment { pad_crop, hflip, rotate_degrees, translate, scale } = augment;
        let affine = rotate_degrees > 0.0 || translate > 0.0 || scale != [1.0, 1.0];
        let affine =
            affine.then(|| RandomAffine { degrees: rotate_degrees, translate: [translate; 2], scale, ..Default::default() });
        let crop = (pad_crop > 0).then_some(Transform::RandomCrop(RandomCrop { padding: pad_crop }));
        let flip = hflip.then(|| Transform::HorizontalFlip(RandomHorizontalFlip::default()));
        [crop, flip, affine.map(Transform::Affine)].into_iter().flatten().collect()
    }
}

/// Reads a list of transforms, or the table that was there before: for serde's `deserialize_with`.
///
/// # Errors
///
/// The deserializer's.
pub fn transforms_or_augment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Transform>, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Vec<Transform>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of transforms")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(list))
        }

        fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
            Augment::deserialize(MapAccessDeserializer::new(table)).map(Vec::from)
        }
    }

    deserializer.deserialize_any(Either)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Recipe {
        #[serde(alias = "augment", deserialize_with = "transforms_or_augment")]
        transforms: Vec<Transform>,
    }

    fn read(text: &str) -> Vec<Transform> {
        toml::from_str::<Recipe>(text).unwrap().transforms
    }

    #[test]
    fn the_former_section_becomes_a_list() {
        let crop = Transform::RandomCrop(RandomCrop { padding: 4 });
        let flip = Transform::HorizontalFlip(RandomHorizontalFlip::default());
        assert_eq!(read("[augment]\npad_crop = 4\nhflip = true"), [crop.clone(), flip]);
        assert_eq!(read("[augment]\nhflip = false"), []);
        let affine = RandomAffine { degrees: 10.0, translate: [0.1; 2], scale: [0.9, 1.1], ..RandomAffine::default() };
        let text = "[augment]\nrotate_degrees = 10\ntranslate = 0.1\nscale = [0.9, 1.1]";
        assert_eq!(read(text), [Transform::Affine(affine)]);
        assert_eq!(read("[[transforms]]\nkind = 'random-crop'\npadding = 4"), [crop]);
        assert!(toml::from_str::<Recipe>("[augment]\nhflop = true").is_err());
    }
}
