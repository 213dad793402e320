//! What the network no longer knows when a part of the picture is hidden.
use crate::LabError;
use striate_graph::Network;
use striate_layers::Mode;
use tch::{Kind, Tensor};

/// Pictures with a hidden part that run through the network at one time.
const BATCH: usize = 32;

/// The square that hides a part of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occluder {
    /// Its side in pixels.
    pub side: i64,
    /// The distance between two places of it.
    pub stride: i64,
}

impl Occluder {
    /// A fifth of the shorter side of a picture, moved by half of itself.
    pub fn for_picture(height: i64, width: i64) -> Self {
        let side = (height.min(width) / 5).max(1);
        Self { side, stride: (side / 2).max(1) }
    }
}

/// How much the probability of `class` falls when a square hides a part of the image (`[1, C, H, W]`, normalised): `[H, W]`, for
/// each pixel the mean over all places of the square that hide it (Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2). Values
/// below 0 lie where hiding makes the class likelier.
///
/// The square is filled with zeros, which is the mean of the images that the network was trained with. Its places are `stride` apart;
/// the last ones touch the border.
///
/// # Errors
///
/// A square of no pixels, or one larger than the image.
pub fn occlusion(network: &Network, image: &Tensor, class: i64, occluder: Occluder) -> Result<Tensor, LabError> {
    let _no_grad = striate_torch::no_grad();
    let (_, _, height, width) = image.size4()?;
    let Occluder { side, stride } = occluder;
    if side < 1 || stride < 1 || side > height.min(width) {
        return Err(LabError::Usage(format!(
            "an occluder of {side} pixels, moved by {stride}, does not fit {height}x{width} pixels"
        )));
    }
    let probability = |images: &Tensor| -> Result<Tensor, LabError> {
        Ok(network.forward(images, Mode::Eval)?.logits().f_softmax(1, Kind::Double)?.f_select(1, class)?)
    };
    let whole = probability(image)?.f_double_value(&[0])?;
    let places: Vec<(i64, i64)> =
        starts(height, side, stride).flat_map(|row| starts(width, side, stride).map(move |column| (row, column))).collect();
    let sum = Tensor::f_zeros([height, width], (Kind::Double, tch::Device::Cpu))?;
    let count = sum.f_zeros_like()?;
    let square = |tensor: &Tensor, (row, column): (i64, i64)| -> Result<Tensor, LabError> {
        let rank = tensor.dim() as i64;
        Ok(tensor.f_narrow(rank - 2, row, side)?.f_narrow(rank - 1, column, side)?)
    };
    for places in places.chunks(BATCH) {
        let hidden = image.f_repeat([places.len() as i64, 1, 1, 1])?;
        for (index, place) in places.iter().enumerate() {
            let _ = square(&hidden.f_select(0, index as i64)?, *place)?.f_zero_()?;
        }
        let without = Vec::<f64>::try_from(probability(&hidden)?)?;
        for (place, without) in places.iter().zip(without) {
            let _ = square(&sum, *place)?.f_add_scalar_(whole - without)?;
            let _ = square(&count, *place)?.f_add_scalar_(1.0)?;
        }
    }
    // Between squares that do not touch, pixels are never hidden.
    Ok(sum.f_div(&count.f_clamp_min(1.0)?)?)
}

/// 0, `stride`, ... and the last place where the square still fits.
fn starts(size: i64, side: i64, stride: i64) -> impl Iterator<Item = i64> {
    let last = size - side;
    (0..last).step_by(stride.unsigned_abs() as usize).chain([last])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::{Graph, InitOptions};
    use striate_layers::{Activation, Conv2d, Flatten, Linear};
    use tch::Device;

    fn network() -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([2, 5, 7]);
            let x = net.add("conv", Conv2d::same(3, 3), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(3), x)?;
            net.output("logits", x)
        });
        Network::new(graph.unwrap(), &InitOptions { kind: Kind::Double, ..InitOptions::default() }).unwrap()
    }

    #[test]
    fn it_is_the_mean_fall_of_the_probability_pixel_by_pixel() {
        let network = network();
        let image = Tensor::arange(70, (Kind::Double, Device::Cpu)).cos().view([1, 2, 5, 7]);
        let probability =
            |image: &Tensor| network.forward(image, Mode::Eval).unwrap().logits().softmax(1, Kind::Double).double_value(&[0, 1]);
        let got = occlusion(&network, &image, 1, Occluder { side: 2, stride: 2 }).unwrap();
        // With squares of 2 moved by 2 on 5x7: rows from 0, 2, 3, columns from 0, 2, 4, 5.
        let mut falls = vec![vec![Vec::new(); 7]; 5];
        for row in [0, 2, 3] {
            for column in [0, 2, 4, 5] {
                let hidden = image.copy();
                for (channel, y, x) in (0..8).map(|n| (n / 4, row + n / 2 % 2, column + n % 2)) {
                    let _ = hidden.get(0).get(channel).get(y).get(x).fill_(0.0);
                }
                let fall = probability(&image) - probability(&hidden);
                (0..4).for_each(|n| falls[(row + n / 2) as usize][(column + n % 2) as usize].push(fall));
            }
        }
        for (row, falls) in falls.iter().enumerate() {
            for (column, falls) in falls.iter().enumerate() {
                let expected = falls.iter().sum::<f64>() / falls.len() as f64;
                let got = got.double_value(&[row as i64, column as i64]);
                assert!((got - expected).abs() < 1e-12, "{row},{column}: {got} {expected}");
                assert!(got != 0.0);
            }
        }
    }

    #[test]
    fn a_square_that_does_not_fit_is_refused() {
        let image = Tensor::zeros([1, 2, 5, 7], (Kind::Double, Device::Cpu));
        let told = |side, stride| occlusion(&network(), &image, 0, Occluder { side, stride }).unwrap_err().to_string();
        assert_eq!(told(6, 1), "an occluder of 6 pixels, moved by 1, does not fit 5x7 pixels");
        assert!(told(0, 1).contains("of 0 pixels") && told(2, 0).contains("moved by 0"));
        assert_eq!(Occluder::for_picture(224, 300), Occluder { side: 44, stride: 22 });
        assert_eq!(Occluder::for_picture(3, 3), Occluder { side: 1, stride: 1 });
    }
}
