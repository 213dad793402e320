//! Tensors as pictures, such as the filters of a first convolution.
use crate::TrainError;
use std::io::Cursor;
use striate_datasets::Normalise;
use striate_datasets::image::{ImageFormat, Rgb, RgbImage, imageops};
use striate_graph::{Network, NodeKind};
use striate_layers::Op;
use tch::{Device, Kind, Tensor};

/// The least side of a picture in a grid.
const CELL: u32 = 64;
/// Pixels between the pictures of a grid, and their colour.
const GAP: u32 = 2;
const GAP_COLOUR: Rgb<u8> = Rgb([128, 128, 128]);

/// The least pixels of a picture's shorter side, reached by enlarging each pixel.
const SHORTER_SIDE: u32 = 224;
/// How much of the picture a heat of 1 covers.
const COVER: f32 = 0.7;
/// What a heat above 0 tends to, and below 0.
const WARM: [u8; 3] = [255, 40, 0];
const COLD: [u8; 3] = [0, 90, 255];

/// The filters `[K, C, H, W]` of the first convolution that reads an input of the network, and its name; none if none does.
pub fn first_filters(network: &Network) -> Option<(&str, Tensor)> {
    let nodes = network.graph().nodes();
    let reads_input = |inputs: &[usize]| inputs.iter().any(|input| matches!(nodes[*input].kind, NodeKind::Input));
    let first = nodes.iter().find(|node| matches!(node.kind, NodeKind::Layer(Op::Conv2d(_))) && reads_input(&node.inputs));
    let layer = first.map(|node| node.name.as_str())?;
    let weight = network.parameters().find(|parameter| parameter.name.strip_suffix(".weight") == Some(layer))?;
    Some((layer, weight.tensor))
}

/// Filters `[K, C, H, W]` of a first layer side by side, each with 0 in the middle of its range: in colours for three channels, and
/// else each channel a grey picture.
///
/// # Errors
///
/// Another shape.
pub fn grid_of_filters(weight: &Tensor) -> Result<RgbImage, TrainError> {
    let weight = weight.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    let (_, channels, height, width) = weight.size4()?;
    let filters = if channels == 3 { weight } else { weight.f_reshape([-1, 1, height, width])? };
    let picture = |index: i64| -> Result<RgbImage, TrainError> {
        let filter = filters.f_select(0, index)?;
        let largest = filter.f_abs()?.f_max()?.f_double_value(&[])?.max(f64::MIN_POSITIVE);
        rgb(&filter.f_mul_scalar(0.5 / largest)?.f_add_scalar(0.5)?)
    };
    Ok(grid(&(0..filters.size()[0]).map(picture).collect::<Result<Vec<_>, _>>()?))
}

/// A grey (`[1, H, W]`) or coloured (`[3, H, W]`) image of values from 0 to 1, or raw pixels in uint8.
///
/// # Errors
///
/// Another shape.
pub fn rgb(image: &Tensor) -> Result<RgbImage, TrainError> {
    let image = match image.kind() {
        Kind::Uint8 => image.shallow_clone(),
        _ => image.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?,
    };
    let (_, height, width) = image.size3()?;
    let pixels = image.f_expand([3, height, width], false)?.f_permute([1, 2, 0])?.f_contiguous()?.f_view(-1)?;
    let (side, pixels) = (|side: i64| u32::try_from(side).unwrap_or_default(), Vec::<u8>::try_from(pixels)?);
    // As many as there are pixels.
    Ok(RgbImage::from_raw(side(width), side(height), pixels).unwrap_or_default())
}

/// Pictures of one size side by side, as many in a row as make it about square, each enlarged to at least 64 pixels.
pub fn grid(pictures: &[RgbImage]) -> RgbImage {
    let Some(first) = pictures.first() else { return RgbImage::default() };
    let factor = CELL.div_ceil(first.width().min(first.height()).max(1)).max(1);
    // Long strips, as of one value for each of many features, are not enlarged out of all proportion.
    let (width, height) = (first.width() * factor, first.height() * factor);
    let columns = (pictures.len() as f64 * f64::from(height) / f64::from(width)).sqrt().ceil() as u32;
    let columns = columns.clamp(1, pictures.len() as u32);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut grid = RgbImage::from_pixel(columns * (width + GAP) + GAP, rows * (height + GAP) + GAP, GAP_COLOUR);
    for (index, picture) in (0..).zip(pictures) {
        let (row, column) = (index / columns, index % columns);
        let (x, y) = (GAP + column * (width + GAP), GAP + row * (height + GAP));
        imageops::replace(&mut grid, &enlarge(picture, factor), i64::from(x), i64::from(y));
    }
    grid
}

/// Each pixel repeated.
pub fn enlarge(picture: &RgbImage, factor: u32) -> RgbImage {
    RgbImage::from_fn(picture.width() * factor, picture.height() * factor, |x, y| *picture.get_pixel(x / factor, y / factor))
}

/// The picture as a PNG file.
///
/// # Errors
///
/// A picture without pixels.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>, TrainError> {
    let mut bytes = Cursor::new(Vec::new());
    let written = picture.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|error| TrainError::Picture { reason: error.to_string() })?;
    Ok(bytes.into_inner())
}

/// The network's input (`[1, C, H, W]`, normalised) as a person sees it; of other numbers of channels than 1 and 3, their mean.
///
/// # Errors
///
/// Another shape, or another number of channels than `normalise` has.
pub fn of_input(input: &Tensor, normalise: &Normalise) -> Result<RgbImage, TrainError> {
    let by_channel = |values: &[f64]| Tensor::f_from_slice(values)?.f_to_kind(Kind::Float)?.f_view([-1, 1, 1]);
    let image = input.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_select(0, 0)?;
    let image = image.f_mul(&by_channel(&normalise.std)?)?.f_add(&by_channel(&normalise.mean)?)?;
    let image = match image.size()[0] {
        3 => image,
        _ => image.f_mean_dim([0_i64].as_slice(), true, Kind::Float)?,
    };
    rgb(&image)
}

/// How often each pixel of a picture of this size is repeated to make it large enough to look at.
pub fn zoom(picture: &RgbImage) -> u32 {
    SHORTER_SIDE.div_ceil(picture.width().min(picture.height()).max(1)).max(1)
}

/// The picture, enlarged, in grey under a heat map `[H, W]` of its own size from -1 (blue) through 0 (nothing) to 1 (red).
///
/// # Errors
///
/// A heat map that is no tensor of numbers.
pub fn heated(picture: &RgbImage, heat: &Tensor) -> Result<RgbImage, TrainError> {
    let heat = Vec::<f32>::try_from(heat.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?)?;
    let mut heated = picture.clone();
    for (pixel, heat) in heated.pixels_mut().zip(heat) {
        let [red, green, blue] = pixel.0.map(f32::from);
        let grey = (0.299 * red + 0.587 * green + 0.114 * blue).round() as u8;
        let colour = if heat < 0.0 { COLD } else { WARM };
        *pixel = mix([grey; 3], colour, COVER * heat.abs().min(1.0));
    }
    Ok(enlarge(&heated, zoom(picture)))
}

/// A colour between two, from the first (`share` 0) to the second (1).
pub fn mix(from: [u8; 3], to: [u8; 3], share: f32) -> Rgb<u8> {
    Rgb([0, 1, 2].map(|channel| {
        let (from, to) = (f32::from(from[channel]), f32::from(to[channel]));
        (from + (to - from) * share).round() as u8
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn filters_have_zero_in_the_middle() {
        let weight = Tensor::from_slice(&[-2.0, 0.0, 2.0, 1.0]).view([1, 1, 2, 2]);
        let grid = grid_of_filters(&weight).unwrap();
        assert_eq!([(5, 5), (55, 5), (5, 55), (55, 55)].map(|(x, y)| grid.get_pixel(x, y).0[0]), [0, 128, 255, 191]);
        let colours = grid_of_filters(&Tensor::from_slice(&[1.0, 0.0, -1.0]).view([1, 3, 1, 1])).unwrap();
        assert_eq!(colours.get_pixel(9, 9).0, [255, 128, 0]);
        assert_eq!(png(&colours).unwrap()[1..4], *b"PNG");
    }

    #[test]
    fn an_input_becomes_the_picture_that_it_came_from() {
        let pixels = Tensor::from_slice(&[0_u8, 51, 102, 255, 7, 8, 9, 10, 250, 128, 64, 32]).view([1, 3, 2, 2]);
        let normalise = Normalise { mean: vec![0.4, 0.5, 0.6], std: vec![0.2, 0.3, 0.25] };
        let picture = of_input(&normalise.apply(pixels.shallow_clone()).unwrap(), &normalise).unwrap();
        assert_eq!(picture.get_pixel(1, 0).0, [51, 8, 128]);
        assert_eq!(picture.get_pixel(0, 1).0, [102, 9, 64]);
        assert_eq!(rgb(&pixels.select(0, 0)).unwrap(), picture);
        assert_eq!(png(&picture).unwrap()[1..4], *b"PNG");
    }

    #[test]
    fn heat_lies_where_it_belongs() {
        let picture = RgbImage::from_pixel(4, 4, Rgb([100; 3]));
        let heat = Tensor::zeros([4, 4], (Kind::Float, Device::Cpu));
        let _ = heat.get(1).get(2).fill_(1.0);
        let _ = heat.get(3).get(0).fill_(-1.0);
        let heated = heated(&picture, &heat).unwrap();
        assert_eq!(heated.width(), 224);
        let at = |column: u32, row: u32| heated.get_pixel(column * 56 + 28, row * 56 + 28).0;
        assert_eq!(at(0, 0), [100; 3]);
        assert!(at(2, 1)[0] > 200 && at(2, 1)[2] < 50 && at(0, 3)[2] > 200 && at(0, 3)[0] < 50);
    }
}
