//! Progressive resizing: smaller images at first.
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use striate_graph::Network;
use striate_layers::Shape;
use tch::Tensor;

/// Progressive resizing, as MosaicML's Composer has it: a run trains on images that grow, and is evaluated on whole ones. The section
/// `[progressive]` of a recipe.
///
/// Images are resized as batches, after all transforms, with antialiasing (`torch.nn.functional.interpolate` with `bilinear` and
/// `antialias`). Their size depends on the step alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Progressive {
    /// The length of the shorter side in the first step, in pixels; 0 for images of the whole size throughout.
    pub from: i64,
    /// The share of the run's steps in which images grow, evenly from step to step.
    pub until: f64,
    /// Sides are rounded to a multiple of this many pixels.
    pub multiple: i64,
}

impl Default for Progressive {
    /// Off.
    fn default() -> Self {
        Self { from: 0, until: 0.8, multiple: 32 }
    }
}

impl Progressive {
    /// Whether images change their size.
    pub fn is_on(self) -> bool {
        self.from > 0
    }

    pub(crate) fn check(self) -> Result<(), TrainError> {
        check(self.from >= 0, "progressive.from", self.from, "must be 0 or larger")?;
        check(self.until > 0.0 && self.until <= 1.0, "progressive.until", self.until, "must be above 0 and at most 1")?;
        check(self.multiple > 0, "progressive.multiple", self.multiple, "must be 1 or larger")
    }

    /// Refuses a network that does not take the smallest images.
    pub(crate) fn check_network(self, network: &Network) -> Result<(), TrainError> {
        let image = network.graph().inputs().next().and_then(|input| input.shape.as_image().ok());
        let Some([channels, height, width]) = image.filter(|_| self.is_on()) else { return Ok(()) };
        let [low, across] = self.size([height, width], 0.0);
        let takes = network.graph().check_inputs(&[Shape::image(channels, low, across)]);
        let reason =
            "takes a network that images of this size fit: one with global pooling before its head, and larger than its strides";
        check(takes.is_ok(), "progressive.from", self.from, reason)
    }

    /// Height and width once images have grown by a share of the way.
    fn size(self, whole: [i64; 2], grown: f64) -> [i64; 2] {
        let shorter = whole[0].min(whole[1]) as f64;
        let scale = (self.from as f64 + (shorter - self.from as f64) * grown.min(1.0)) / shorter;
        if scale >= 1.0 {
            return whole;
        }
        let rounded = |side: i64| (side as f64 * scale / self.multiple as f64).round() as i64 * self.multiple;
        whole.map(|side| rounded(side).clamp(self.multiple.min(side), side))
    }

    /// A batch of images `[N, C, H, W]` in the size of the step after `done` of all steps.
    pub(crate) fn resized(self, images: &Tensor, done: u64, steps: u64) -> Result<Tensor, TrainError> {
        let whole = match images.size()[..] {
            [_, _, height, width] if self.is_on() => [height, width],
            _ => return Ok(images.shallow_clone()),
        };
        let size = self.size(whole, done as f64 / (self.until * steps as f64));
        match size == whole {
            true => Ok(images.shallow_clone()),
            false => Ok(images.f_internal_upsample_bilinear2d_aa(size, false, None, None)?),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::{Graph, InitOptions};
    use striate_layers::{AdaptiveAvgPool2d, Conv2d, Flatten, Linear};
    use tch::{Device, Kind};

    const FROM_128: Progressive = Progressive { from: 128, until: 0.8, multiple: 32 };

    #[test]
    fn sides_grow_evenly_in_multiples() {
        let side = |grown| FROM_128.size([224, 224], grown)[0];
        // 128 + 96 * grown, to the nearest multiple of 32.
        assert_eq!([0.0, 0.1, 0.2, 0.4, 0.6, 0.9, 1.0, 1.5].map(side), [128, 128, 160, 160, 192, 224, 224, 224]);
        assert_eq!(FROM_128.size([256, 512], 0.5), [192, 384]);
        assert_eq!(Progressive { multiple: 1, ..FROM_128 }.size([224, 224], 0.26), [153, 153]);
        // What is not smaller than the images changes nothing.
        assert_eq!(FROM_128.size([96, 96], 0.0), [96, 96]);
    }

    #[test]
    fn images_are_resized_by_step() {
        let images = Tensor::arange(36, (Kind::Float, Device::Cpu)).view([1, 1, 6, 6]);
        let four = Progressive { from: 4, until: 0.5, multiple: 1 };
        let resized = four.resized(&images, 0, 100).unwrap();
        // F.interpolate(torch.arange(36.).view(1, 1, 6, 6), (4, 4), mode="bilinear", antialias=True)[0, 0]
        let expected: [f32; 16] = [
            2.625, 4.027_778, 5.472_222, 6.875, 11.041_667, 12.444_446, 13.888_889, 15.291_667, 19.708_332, 21.111_113,
            22.555_553, 23.958_332, 28.125, 29.527_78, 30.972_22, 32.375,
        ];
        let expected = Tensor::from_slice(&expected).view([1, 1, 4, 4]);
        assert!((resized - expected).abs().max().double_value(&[]) < 1e-4);
        let size = |done| four.resized(&images, done, 100).unwrap().size()[3];
        assert_eq!([0, 12, 13, 37, 38, 50, 99].map(size), [4, 4, 5, 5, 6, 6, 6]);
        assert_eq!(Progressive::default().resized(&images, 0, 100).unwrap(), images);
    }

    #[test]
    fn a_head_for_one_size_is_refused() {
        let network = |pooled: bool| {
            let graph = Graph::build(|net| {
                let x = net.input([1, 32, 32]);
                let mut x = net.add("conv", Conv2d::new(2, 9), x)?;
                if pooled {
                    x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
                }
                let x = net.add("flatten", Flatten, x)?;
                let x = net.add("fc", Linear::new(2), x)?;
                net.output("logits", x)
            });
            Network::new(graph.unwrap(), &InitOptions::default()).unwrap()
        };
        let from = |from| Progressive { from, multiple: 1, ..FROM_128 };
        from(16).check_network(&network(true)).unwrap();
        from(0).check_network(&network(false)).unwrap();
        for error in [from(16).check_network(&network(false)), from(8).check_network(&network(true))] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("takes a network that images of this size fit") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        let told = |progressive: Progressive| progressive.check().unwrap_err().to_string();
        assert_eq!(told(Progressive { from: -1, ..FROM_128 }), "progressive.from = -1 must be 0 or larger");
        assert!(told(Progressive { until: 0.0, ..FROM_128 }).starts_with("progressive.until = 0.0 must be above 0"));
        assert!(told(Progressive { multiple: 0, ..FROM_128 }).starts_with("progressive.multiple = 0 must be 1"));
    }
}
