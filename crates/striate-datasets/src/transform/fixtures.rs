//! Every operation against torchvision's, which `tests/transforms/make.py` ran.
#![allow(clippy::unwrap_used)]

use super::affine::{Map, inverse, rotate, transform};
use super::perspective::coefficients;
use super::policy::Op;
use super::{CentreCrop, OnView, Rng, Sampling, blur, colour, tone};
use crate::pixels::Region;
use crate::{Interpolation, Pixels, View};
use std::path::Path;
use striate_torch::{Rect, TensorFile};

struct Fixtures(TensorFile);

impl Fixtures {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transforms/transforms.safetensors");
        Self(TensorFile::read(&path).unwrap())
    }

    fn get(&self, name: &str) -> Pixels<'static> {
        Pixels::of_tensor(&self.0.tensors[name].permute([2, 0, 1]).unsqueeze(0)).unwrap()
    }

    /// Compares what is done to the picture in colour and in grey; the largest difference may be `far`.
    fn check(&self, name: &str, far: u8, change: impl Fn(Pixels<'static>) -> Pixels<'static>) {
        for (input, prefix) in [("picture", ""), ("grey", "grey-")] {
            let name = format!("{prefix}{name}");
            let (got, expected) = (change(self.get(input)), self.get(&name));
            let size = |picture: &Pixels| [picture.width, picture.height, picture.channels];
            assert_eq!(size(&got), size(&expected), "{name}");
            let differences = || got.data.iter().zip(&*expected.data).map(|(got, expected)| got.abs_diff(*expected));
            let (most, count) = (differences().max().unwrap(), differences().filter(|difference| *difference > 0).count());
            assert!(most <= far, "{name}: {count} of {} differ, by {most} at most", got.data.len());
            // Where a step of rounding is allowed, few values need it.
            assert!(count * 20 <= got.data.len(), "{name}: {count} of {} differ", got.data.len());
        }
    }
}

#[test]
fn colours_and_tones_are_torchvisions_to_the_bit() {
    let fixtures = Fixtures::read();
    fixtures.check("brighter", 0, |picture| colour::brightness(picture, 1.4));
    fixtures.check("darker", 0, |picture| colour::brightness(picture, 0.7));
    fixtures.check("contrast", 0, |picture| colour::contrast(picture, 1.9));
    fixtures.check("flat", 0, |picture| colour::contrast(picture, 0.35));
    fixtures.check("saturated", 0, |picture| colour::saturation(picture, 1.8));
    fixtures.check("pale", 0, |picture| colour::saturation(picture, 0.25));
    fixtures.check("hue", 0, |picture| colour::hue(picture, 0.31));
    fixtures.check("hue-back", 0, |picture| colour::hue(picture, -0.08));
    fixtures.check("invert", 0, tone::invert);
    fixtures.check("solarise", 0, |picture| tone::solarise(picture, 178.5));
    fixtures.check("posterise", 0, |picture| tone::posterise(picture, 3));
    fixtures.check("equalise", 0, tone::equalise);
    fixtures.check("autocontrast", 0, |picture| tone::autocontrast(colour::contrast(picture, 0.35)));
    fixtures.check("sharp", 0, |picture| blur::sharpness(picture, 2.0));
    fixtures.check("smooth", 0, |picture| blur::sharpness(picture, 0.1));
}

/// torchvision blurs in float32 in an order of its own.
#[test]
fn blurs_are_torchvisions_but_for_rounding() {
    let fixtures = Fixtures::read();
    fixtures.check("blur", 1, |picture| blur::gaussian_blur(&picture, 5, 1.3));
    fixtures.check("wide-blur", 1, |picture| blur::gaussian_blur(&picture, 23, 2.0));
}

#[test]
fn geometry_is_torchvisions_to_the_bit() {
    let fixtures = Fixtures::read();
    let affine = |angle, shift, scale, shear, sampling| {
        move |picture: Pixels<'static>| {
            let centre = [picture.width as f64 * 0.5, picture.height as f64 * 0.5];
            transform(&picture, Map::Affine(inverse(centre, angle, shift, scale, shear)), sampling)
        }
    };
    fixtures.check("affine-nearest", 0, affine(17.0, [3.0, -2.0], 1.2, [8.0, 0.0], Sampling::Nearest));
    fixtures.check("affine-bilinear", 0, affine(-33.0, [-4.0, 5.0], 0.8, [0.0, 12.0], Sampling::Bilinear));
    fixtures.check("scaled", 0, affine(0.0, [5.0, 1.0], 0.7, [0.0, 0.0], Sampling::Nearest));
    fixtures.check("rotate", 0, |picture| rotate(picture, -30.0, Sampling::Nearest));
    fixtures.check("rotate-bilinear", 0, |picture| rotate(picture, 12.5, Sampling::Bilinear));
    for (name, op, magnitude) in [
        ("shear-x", Op::ShearX, 0.3),
        ("shear-y", Op::ShearY, -0.21),
        ("translate-x", Op::TranslateX, -9.7),
        ("translate-y", Op::TranslateY, 6.0),
    ] {
        fixtures.check(name, 0, |picture| op.apply(picture, magnitude, Sampling::Nearest));
    }
    let starts = [[0, 0], [63, 0], [63, 31], [0, 31]];
    let map = Map::Perspective(coefficients(starts, [[5, 3], [60, 1], [58, 29], [2, 25]]).unwrap());
    fixtures.check("perspective", 0, |picture| transform(&picture, map, Sampling::Bilinear));
    fixtures.check("perspective-nearest", 0, |picture| transform(&picture, map, Sampling::Nearest));
}

#[test]
fn crops_are_torchvisions_to_the_bit() {
    let fixtures = Fixtures::read();
    let resized = |left, top, [width, height]: [usize; 2], size, by| {
        move |picture: Pixels<'static>| View::resized(Rect { left, top, width, height }, size, by).of(picture).unwrap()
    };
    fixtures.check("resized-crop", 0, resized(7, 3, [41, 22], [20, 24], Interpolation::Bilinear));
    fixtures.check("resized-crop-bicubic", 0, resized(1, 0, [33, 30], [50, 45], Interpolation::Bicubic));
    fixtures.check("padded-crop", 0, |picture| picture.crop(Region { left: -2, top: 3, width: 64, height: 32 }));
    fixtures.check("centre-crop", 0, |picture| {
        CentreCrop {}.view([picture.width, picture.height], [24, 19], &mut Rng::new(0, &[])).unwrap().of(picture).unwrap()
    });
}
