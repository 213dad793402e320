//! Made-up pictures that are told apart by the brightest of their three channels, and a network
//! that knows the answer.
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use striate::datasets::image::{Rgb, RgbImage};
use striate::datasets::{ImageSize, Interpolation, Normalise, Preprocess};
use striate::graph::Graph;
use striate::layers::{AdaptiveAvgPool2d, Flatten, Forward, Layer, LayerError, Linear, Mode, Shape};
use striate::tch::{Device, Kind, Tensor};
use striate::{Bundle, BundleInfo};

/// The classes in the order of the channels.
pub(crate) const CLASSES: [&str; 3] = ["red", "green", "blue"];
/// The side of a picture.
const SIDE: u32 = 24;

pub(crate) fn classes() -> Vec<String> {
    CLASSES.map(str::to_owned).to_vec()
}

/// Noise in which one channel is brighter than the others.
pub(crate) fn picture(channel: usize, number: u32) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let noise = (x * 31 + y * 17 + number * 101) % 97;
        Rgb(std::array::from_fn(|at| noise as u8 + if at == channel { 150 } else { 0 }))
    })
}

/// Writes `count` pictures for each name into `folder/NAME`; the first name is red, the second
/// green, the third blue.
pub(crate) fn write(folder: &Path, names: [&str; 3], count: u32) {
    for (channel, name) in names.into_iter().enumerate() {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..count {
            picture(channel, number).save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
}

/// Pictures become inputs of 16x16 with values from 0 to 1.
pub(crate) fn preprocess() -> Preprocess {
    Preprocess {
        image: ImageSize::ShorterSide { shorter_side: 16 },
        input: [3, 16, 16],
        normalise: Normalise::identity(),
        interpolation: Interpolation::Bilinear,
    }
}

/// A network whose logits are ten times the mean of each channel.
pub(crate) fn bundle() -> Bundle {
    let graph = Graph::build(|net| {
        let x = net.input([3, 16, 16]);
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [3, 1, 1]
        let x = net.add("flatten", Flatten, x)?; // [3]
        let x = net.add("fc", Linear::new(3).no_bias(), x)?; // [3]
        net.output("logits", x)
    });
    let weight = Tensor::eye(3, (Kind::Float, Device::Cpu)) * 10.0;
    Bundle {
        info: BundleInfo::new(graph.unwrap(), &classes(), Some(preprocess())),
        state: [("fc.weight".to_owned(), weight)].into(),
    }
}

/// Writes that network into `folder`.
pub(crate) fn write_bundle(folder: &Path) -> PathBuf {
    let path = folder.join("tints.safetensors");
    bundle().write(&path).unwrap();
    path
}

/// Each value times a factor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) by: f64,
}

impl Layer for Scale {
    fn name(&self) -> &'static str {
        "Scale"
    }

    fn options(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self).ok()
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        Ok(inputs[0].clone())
    }
}

impl Forward for Scale {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        Ok(inputs[0].f_mul_scalar(self.by)?)
    }
}
