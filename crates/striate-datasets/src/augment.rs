use crate::{DatasetError, dataset::image_shape};
use serde::{Deserialize, Serialize};
use striate_torch::Generator;
use tch::{Kind, Tensor};

const BILINEAR: i64 = 0;
const ZEROS: i64 = 0;

/// Random changes to training images, drawn anew for each image of a batch. All of a batch is changed by a few tensor operations, and
/// what is off costs nothing. Everything is off by default.
///
/// ```
/// let augment: striate_datasets::Augment = toml::from_str("pad_crop = 4\nhflip = true")?;
/// assert_eq!(augment.pad_crop, 4);
/// assert_eq!(augment.rotate_degrees, 0.0);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Pixels of zeros put on each side before a part of the former size is cut out at a random place.
    pub pad_crop: u32,
    /// Whether every second image, at random, is mirrored left to right.
    pub hflip: bool,
    /// Rotation about the centre by up to this many degrees either way.
    pub rotate_degrees: f64,
    /// Shift by up to this fraction of the height and of the width, each either way.
    pub translate: f64,
    /// The smallest and the largest factor by which the content grows.
    pub scale: [f64; 2],
}

impl Default for Augment {
    fn default() -> Self {
        Self { pad_crop: 0, hflip: false, rotate_degrees: 0.0, translate: 0.0, scale: [1.0, 1.0] }
    }
}

impl Augment {
    /// Whether the values are sound for images of `shape` (`[C, H, W]`).
    ///
    /// # Errors
    ///
    /// [`DatasetError::Option`] that names the field and its range.
    pub fn check(&self, shape: [i64; 3]) -> Result<(), DatasetError> {
        let side = shape[1].min(shape[2]);
        if i64::from(self.pad_crop) >= side {
            return Err(DatasetError::option("pad_crop", format!("{} is not below the images' side, {side}", self.pad_crop)));
        }
        if !(0.0..=180.0).contains(&self.rotate_degrees) {
            return Err(DatasetError::option("rotate_degrees", format!("{} is not from 0 to 180", self.rotate_degrees)));
        }
        if !(0.0..=1.0).contains(&self.translate) {
            return Err(DatasetError::option("translate", format!("{} is not from 0 to 1", self.translate)));
        }
        let [min, max] = self.scale;
        if !(min > 0.0 && min <= max && max.is_finite()) {
            return Err(DatasetError::option("scale", format!("[{min}, {max}] is not a range of factors above 0")));
        }
        Ok(())
    }

    /// Raw images (`[B, C, H, W]`, uint8) changed at random as `generator` draws: uint8 still, or float32 from 0 to 255 if they were
    /// rotated, shifted or scaled.
    ///
    /// # Errors
    ///
    /// libtorch's, such as a lack of memory; the values are expected to pass [`check`](Self::check).
    pub fn apply(&self, images: Tensor, generator: &mut Generator) -> Result<Tensor, DatasetError> {
        let count = images.size()[0];
        let mut draw = |low: f64, high: f64| -> Result<Tensor, DatasetError> {
            let mut values = Tensor::f_empty([count], (Kind::Float, tch::Device::Cpu))?;
            generator.uniform(&mut values, low, high)?;
            Ok(values.f_to_device(images.device())?)
        };
        let mut images = images.shallow_clone();
        if self.pad_crop > 0 {
            let last = 2 * i64::from(self.pad_crop);
            // Rounding to float32 may give the upper bound itself.
            let mut offset = || Ok::<_, DatasetError>(draw(0.0, (last + 1) as f64)?.f_to_kind(Kind::Int64)?.f_clamp_max(last)?);
            let (top, left) = (offset()?, offset()?);
            images = pad_crop(&images, i64::from(self.pad_crop), &top, &left)?;
        }
        if self.hflip {
            images = flip(&images, &draw(0.0, 1.0)?.f_lt(0.5)?)?;
        }
        if self.rotate_degrees > 0.0 || self.translate > 0.0 || self.scale != [1.0, 1.0] {
            let angle = draw(-self.rotate_degrees, self.rotate_degrees)?.f_deg2rad()?;
            let scale = draw(self.scale[0], self.scale[1])?;
            let (x, y) = (draw(-self.translate, self.translate)?, draw(-self.translate, self.translate)?);
            let theta = sampling_matrix(image_shape(&images), &angle, &scale, &x, &y)?;
            images = affine(&images.f_to_kind(Kind::Float)?, &theta)?;
        }
        Ok(images)
    }
}

/// Cuts out of each image, with `padding` zeros around it, the part that starts at its `top` and `left` (`[B]`, int64, from 0 to
/// `2 * padding`).
fn pad_crop(images: &Tensor, padding: i64, top: &Tensor, left: &Tensor) -> Result<Tensor, DatasetError> {
    let count = images.size()[0];
    let [channels, height, width] = image_shape(images);
    let padded = images.f_constant_pad_nd([padding; 4])?.f_contiguous()?;
    // Where each row of the result, [B, C, H], starts among the padded pixels, and one copy of all those rows.
    let range = |end| Tensor::f_arange(end, (Kind::Int64, images.device()));
    let plane = range(count * channels)?.f_view([count, channels, 1])?.f_mul_scalar(height + 2 * padding)?;
    let row = plane.f_add(&top.f_view([-1, 1, 1])?)?.f_add(&range(height)?)?;
    let start = row.f_mul_scalar(width + 2 * padding)?.f_add(&left.f_view([-1, 1, 1])?)?;
    let rows = padded.f_view([-1])?.f_unfold(0, width, 1)?.f_index_select(0, &start.f_view([-1])?)?;
    Ok(rows.f_view([count, channels, height, width])?)
}

/// Mirrors the images where `flipped` (`[B]`, bool) says so.
fn flip(images: &Tensor, flipped: &Tensor) -> Result<Tensor, DatasetError> {
    // Choosing whole images among both kinds copies memory, which is several times as fast as choosing pixel by pixel.
    let count = images.size()[0];
    let both = Tensor::f_cat(&[images.shallow_clone(), images.f_flip([3])?], 0)?;
    let chosen = flipped.f_to_kind(Kind::Int64)?.f_mul_scalar(count)?;
    Ok(both.f_index_select(0, &chosen.f_add(&Tensor::f_arange(count, (Kind::Int64, images.device()))?)?)?)
}

/// For each image, where the pixel at a place of the result comes from: `[B, 2, 3]`, in coordinates from -1 to 1 across the image.
/// The content is scaled and turned about the centre, and then shifted by the fractions `x` and `y` of the width and height.
fn sampling_matrix(shape: [i64; 3], angle: &Tensor, scale: &Tensor, x: &Tensor, y: &Tensor) -> Result<Tensor, DatasetError> {
    // The inverse of that: undo the shift, turn back, and divide by the scale. A side is 2 long, whatever its pixels.
    let aspect = shape[1] as f64 / shape[2] as f64;
    let (cos, sin) = (angle.f_cos()?.f_div(scale)?, angle.f_sin()?.f_div(scale)?);
    let (xx, xy) = (cos.shallow_clone(), sin.f_mul_scalar(aspect)?);
    let (yx, yy) = (sin.f_mul_scalar(-1.0 / aspect)?, cos);
    let shift = |a: &Tensor, b: &Tensor| a.f_mul(x)?.f_add(&b.f_mul(y)?)?.f_mul_scalar(-2.0);
    let (dx, dy) = (shift(&xx, &xy)?, shift(&yx, &yy)?);
    Ok(Tensor::f_stack(&[xx, xy, dx, yx, yy, dy], 1)?.f_view([-1, 2, 3])?)
}

/// Samples each image bilinearly where `theta` says, with zeros outside.
fn affine(images: &Tensor, theta: &Tensor) -> Result<Tensor, DatasetError> {
    let [_, height, width] = image_shape(images);
    let centres = |side: i64| -> Result<Tensor, DatasetError> {
        let numbers = Tensor::f_arange(side, (Kind::Float, images.device()))?;
        Ok(numbers.f_mul_scalar(2.0)?.f_add_scalar(1.0)?.f_div_scalar(side as f64)?.f_sub_scalar(1.0)?)
    };
    let (x, y) = (centres(width)?, centres(height)?.f_view([-1, 1])?);
    // [B, 2, H, W]. libtorch's own affine_grid_generator takes a matrix product for each image, and twenty times as long.
    let column = |index| theta.f_select(2, index)?.f_view([-1, 2, 1, 1]);
    let grid = column(0)?.f_mul(&x)?.f_add(&column(1)?.f_mul(&y)?.f_add(&column(2)?)?)?;
    Ok(images.f_grid_sampler(&grid.f_permute([0, 2, 3, 1])?, BILINEAR, ZEROS, false)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::tests::counting;
    use std::collections::HashSet;
    use tch::Device;

    fn apply(augment: &Augment, images: &Tensor, seed: u64) -> Tensor {
        augment.apply(images.shallow_clone(), &mut Generator::new(seed)).unwrap()
    }

    fn values(images: &Tensor) -> Vec<f32> {
        images.to_kind(Kind::Float).flatten(0, -1).try_into().unwrap()
    }

    #[test]
    fn nothing_on_gives_the_input_itself() {
        let images = counting(3, [2, 4, 5]).images().shallow_clone();
        let out = apply(&Augment::default(), &images, 1);
        assert_eq!(out.data_ptr(), images.data_ptr());
    }

    #[test]
    fn crops_reach_every_place() {
        let image = Tensor::arange_start(1, 13, (Kind::Int64, Device::Cpu)).to_kind(Kind::Uint8).view([1, 2, 2, 3]);
        let padded = image.constant_pad_nd([1; 4]);
        let every: HashSet<Vec<u8>> = (0..3)
            .flat_map(|top| (0..3).map(move |left| (top, left)))
            .map(|(top, left)| padded.narrow(2, top, 2).narrow(3, left, 3).contiguous().flatten(0, -1).try_into().unwrap())
            .collect();
        assert_eq!(every.len(), 9);
        let cropped = apply(&Augment { pad_crop: 1, ..Augment::default() }, &image.repeat([300, 1, 1, 1]), 5);
        assert_eq!((cropped.size(), cropped.kind()), (vec![300, 2, 2, 3], Kind::Uint8));
        let found: HashSet<Vec<u8>> = (0..300).map(|i| cropped.get(i).flatten(0, -1).try_into().unwrap()).collect();
        assert_eq!(found, every);
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        let image = Tensor::from_slice(&[1_u8, 2, 3, 4, 5, 6]).view([1, 1, 2, 3]);
        let out = apply(&Augment { hflip: true, ..Augment::default() }, &image.repeat([400, 1, 1, 1]), 2);
        let mut mirrored = 0;
        for index in 0..400 {
            match values(&out.get(index))[..] {
                [3.0, 2.0, 1.0, 6.0, 5.0, 4.0] => mirrored += 1,
                [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] => {}
                ref other => panic!("{other:?}"),
            }
        }
        assert!((150..250).contains(&mirrored), "{mirrored}");
    }

    /// One image of 1..=6 in two rows of three, turned by `degrees`, scaled and shifted by whole pixels.
    fn moved(degrees: f64, scale: f64, x: f64, y: f64) -> Vec<f32> {
        let image = Tensor::arange_start(1, 7, (Kind::Float, Device::Cpu)).view([1, 1, 2, 3]);
        let one = |value: f64| Tensor::from_slice(&[value as f32]);
        let theta = sampling_matrix([1, 2, 3], &one(degrees.to_radians()), &one(scale), &one(x / 3.0), &one(y / 2.0)).unwrap();
        values(&affine(&image, &theta).unwrap()).iter().map(|value| (value * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn the_affine_map_turns_scales_and_shifts() {
        assert_eq!(moved(0.0, 1.0, 0.0, 0.0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(moved(0.0, 1.0, 1.0, 0.0), [0.0, 1.0, 2.0, 0.0, 4.0, 5.0], "right");
        assert_eq!(moved(0.0, 1.0, 0.0, 1.0), [0.0, 0.0, 0.0, 1.0, 2.0, 3.0], "down");
        assert_eq!(moved(180.0, 1.0, 0.0, 0.0), [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        assert_eq!(moved(180.0, 1.0, 1.0, 0.0), [0.0, 6.0, 5.0, 0.0, 3.0, 2.0], "turned, then shifted");
        // A quarter turn keeps pixels square, and so each lands between four others (or two and the border).
        assert_eq!(moved(90.0, 1.0, 0.0, 0.0), [2.25, 3.0, 0.75, 2.75, 4.0, 1.25]);
        // Three times as large about the centre: the upper pixel of the middle column sees a sixth above it.
        assert_eq!(moved(0.0, 3.0, 0.0, 0.0)[1], 3.0);
    }

    #[test]
    fn small_affine_changes_stay_near_the_input() {
        let images = Tensor::full([50, 1, 16, 16], 200, (Kind::Uint8, Device::Cpu));
        let augment = Augment { rotate_degrees: 10.0, translate: 0.1, scale: [0.9, 1.1], ..Augment::default() };
        let out = apply(&augment, &images, 3);
        assert_eq!((out.size(), out.kind()), (images.size(), Kind::Float));
        let centre = values(&out.narrow(2, 6, 4).narrow(3, 6, 4).contiguous());
        assert!(centre.iter().all(|value| (value - 200.0).abs() < 1e-3), "the inside sees no border");
        let corner = values(&out.select(2, 0).select(2, 0).contiguous());
        assert!(corner.contains(&0.0) && corner.iter().any(|value| *value > 0.0), "{corner:?}");
    }

    #[test]
    fn a_seed_fixes_everything() {
        let images = counting(40, [1, 8, 8]).images().shallow_clone();
        let augment = Augment { pad_crop: 2, hflip: true, rotate_degrees: 5.0, translate: 0.1, scale: [0.8, 1.2] };
        assert_eq!(apply(&augment, &images, 1), apply(&augment, &images, 1));
        assert_ne!(apply(&augment, &images, 1), apply(&augment, &images, 2));
    }

    #[test]
    fn unsound_values_are_refused_by_name() {
        let fault = |augment: Augment| augment.check([1, 8, 4]).unwrap_err().to_string();
        assert_eq!(fault(Augment { pad_crop: 4, ..Augment::default() }), "pad_crop: 4 is not below the images' side, 4");
        assert!(fault(Augment { rotate_degrees: -1.0, ..Augment::default() }).starts_with("rotate_degrees: -1"));
        assert!(fault(Augment { translate: f64::NAN, ..Augment::default() }).starts_with("translate: NaN"));
        for scale in [[0.0, 1.0], [2.0, 1.0], [1.0, f64::INFINITY]] {
            assert!(fault(Augment { scale, ..Augment::default() }).starts_with("scale: "));
        }
        assert!(toml::from_str::<Augment>("hflop = true").is_err());
        let augment = Augment { pad_crop: 3, ..Augment::default() };
        assert_eq!(toml::from_str::<Augment>(&toml::to_string(&augment).unwrap()).unwrap(), augment);
    }
}
