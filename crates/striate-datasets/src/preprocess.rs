use crate::pixels::Region;
use crate::resize::{Interpolation, centre, resize, resize_window};
use crate::{Dataset, DatasetError, Pixels, View, catalogue, channel_statistics, dataset::image_shape};
use serde::{Deserialize, Serialize};
use striate_torch::{Rect, normalise};
use tch::{Device, Kind, Tensor};

/// No side of an input or of a resized image is longer.
const MAX_SIDE: i64 = 65_535;
/// If a resized image would be this many times larger than its source and than the input, only the
/// part that is cropped from it is computed.
const WASTE: i64 = 4;

/// How a raw image becomes a network's input: in training, in evaluation and in prediction alike. A model's bundle holds it.
///
/// The image is resized to `image`; cropped in the middle, or surrounded with zeros, to `input`; and normalised.
///
/// ```
/// use striate_datasets::{ImageSize, Interpolation, Normalise, Preprocess};
/// // What torchvision's classic weights were trained with.
/// let preprocess = Preprocess {
///     image: ImageSize::ShorterSide { shorter_side: 256 },
///     input: [3, 224, 224],
///     normalise: Normalise {
///         mean: vec![0.485, 0.456, 0.406],
///         std: vec![0.229, 0.224, 0.225],
///     },
///     interpolation: Interpolation::Bilinear,
/// };
/// preprocess.check()?;
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The size to which the image itself is brought.
    pub image: ImageSize,
    /// The shape `[C, H, W]` of the network's input.
    pub input: [i64; 3],
    /// What the pixels are shifted and scaled by.
    pub normalise: Normalise,
    /// How the image is resized. Files that do not say it mean bilinear.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interpolation: Interpolation,
}

fn is_default(interpolation: &Interpolation) -> bool {
    *interpolation == Interpolation::default()
}

/// To what an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected [height, width] or a shorter side")]
#[non_exhaustive]
pub enum ImageSize {
    /// `[H, W]`, whatever its proportions were; no larger than the input.
    Exact([i64; 2]),
    /// Its shorter side has so many pixels, no fewer than the input's sides; it keeps its proportions.
    ShorterSide {
        /// The pixels.
        shorter_side: i64,
    },
}

impl ImageSize {
    /// The size `[H, W]` to which an image of `height` x `width` is brought.
    fn of(self, height: i64, width: i64) -> [i64; 2] {
        match self {
            Self::Exact(size) => size,
            Self::ShorterSide { shorter_side } if height <= width => [shorter_side, shorter_side * width / height],
            Self::ShorterSide { shorter_side } => [shorter_side * height / width, shorter_side],
        }
    }
}

/// How images of a dataset come to the size of a network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Fit {
    /// Zeros around them, as LeCun brought 28x28 to 32x32.
    #[default]
    Pad,
    /// Bilinear resizing.
    Resize,
}

/// Pixels, scaled to 0..1, are taken as `(pixel - mean) / std`. Each list has one value for each channel, or one for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalise {
    /// Each channel's mean.
    pub mean: Vec<f64>,
    /// Each channel's standard deviation.
    pub std: Vec<f64>,
}

/// A [`Normalise`] on a device.
#[derive(Debug)]
pub struct Normaliser {
    /// What pixels are multiplied by, and then moved by: `[C, 1, 1]` or `[1, 1, 1]`, float32.
    scale: Tensor,
    shift: Tensor,
}

impl Normaliser {
    /// Normalises raw pixels as [`Normalise::apply`] does, to the same bits. It waits for no device.
    ///
    /// # Errors
    ///
    /// Images on another device, or with other channels.
    pub fn apply(&self, images: Tensor) -> Result<Tensor, DatasetError> {
        let mut images = images.f_to_kind(Kind::Float)?;
        let _ = images.f_mul_(&self.scale)?.f_add_(&self.shift)?;
        Ok(images)
    }
}

impl Preprocess {
    /// What brings images of `shape` (`[C, H, W]`) to a network's `input` (`[C, H, W]`).
    ///
    /// # Errors
    ///
    /// [`DatasetError::Option`] when that cannot be done: see [`check`](Self::check) and [`fit`](Self::fit).
    pub fn new(shape: [i64; 3], input: [i64; 3], fit: Fit, normalise: Normalise) -> Result<Self, DatasetError> {
        let image = match fit {
            Fit::Pad => ImageSize::Exact([shape[1], shape[2]]),
            Fit::Resize => ImageSize::Exact([input[1], input[2]]),
        };
        let preprocess = Self { image, input, normalise, interpolation: Interpolation::default() };
        preprocess.check()?;
        preprocess.check_channels(shape[0])?;
        Ok(preprocess)
    }

    /// Whether the values are sound; a file or a person may have given them.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Option`] when a size is below one, `image` does not fit `input`, or the normalisation has a standard
    /// deviation that is not positive or as many values as neither one nor the channels.
    pub fn check(&self) -> Result<(), DatasetError> {
        let [channels, rows, columns] = self.input;
        let fault = |reason| Err(DatasetError::option("input", reason));
        let [short, long] = match self.image {
            ImageSize::Exact([height, width]) => [height.min(width), height.max(width)],
            ImageSize::ShorterSide { shorter_side } => [shorter_side; 2],
        };
        if short.min(channels).min(rows).min(columns) < 1 {
            return fault(format!("{:?} with images of {} has no pixels", self.input, self.image));
        }
        if long.max(rows).max(columns) > MAX_SIDE {
            return fault(format!("{:?} with images of {}: no side is longer than {MAX_SIDE}", self.input, self.image));
        }
        match self.image {
            ImageSize::Exact([height, width]) if height > rows || width > columns => {
                fault(format!("images of {height}x{width} cannot be padded to {rows}x{columns}: resize them"))
            }
            ImageSize::ShorterSide { shorter_side } if shorter_side < rows.max(columns) => {
                fault(format!("{rows}x{columns} cannot be cropped from images with a shorter side of {shorter_side}"))
            }
            _ => self.normalise.check(channels),
        }
    }

    /// Raw images (`[N, C, H, W]`, uint8) in the network's input shape, still uint8. Grey images are repeated for a network that
    /// takes more channels. Images in that shape are taken for such as this gave, and returned as they are, sharing memory.
    ///
    /// # Errors
    ///
    /// Colour images for a network that takes another number of channels.
    pub fn fit(&self, images: &Tensor) -> Result<Tensor, DatasetError> {
        if image_shape(images) == self.input { Ok(images.shallow_clone()) } else { self.place(images) }
    }

    /// As [`fit`](Self::fit), but resizes images that have the input's shape already.
    pub(crate) fn place(&self, images: &Tensor) -> Result<Tensor, DatasetError> {
        let [old_channels, old_height, old_width] = image_shape(images);
        self.check_channels(old_channels)?;
        let [channels, rows, columns] = self.input;
        let size @ [height, width] = self.image.of(old_height, old_width);
        let placed = if height * width > WASTE * (old_height * old_width).max(rows * columns) {
            resize_window(images, size, [rows.min(height), columns.min(width)], self.interpolation)?
        } else {
            resize(images, size, self.interpolation)?
        };
        let placed = centre(&placed, rows, columns)?;
        Ok(placed.f_expand([-1, channels, -1, -1], false)?)
    }

    /// What is seen of a picture of this width and height, whose grey stays in one channel.
    pub(crate) fn view(&self, has: [usize; 2]) -> View {
        let [height, width] = self.image.of(has[1].cast_signed() as i64, has[0].cast_signed() as i64);
        let [_, rows, columns] = self.input;
        let [size, input] = [[width, height], [columns, rows]].map(|size| size.map(|side| side.unsigned_abs() as usize));
        View::resized(Rect::whole(has), size, self.interpolation).cropped(Region::middle(size, input))
    }

    /// Whether images of so many channels can become the network's input.
    pub(crate) fn check_channels(&self, channels: i64) -> Result<(), DatasetError> {
        match self.input[0] {
            wanted if channels == wanted || channels == 1 => Ok(()),
            wanted => {
                Err(DatasetError::option("input", format!("the images have {channels} channels, but the network takes {wanted}")))
            }
        }
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact([height, width]) => write!(f, "{height}x{width}"),
            Self::ShorterSide { shorter_side } => write!(f, "a shorter side of {shorter_side}"),
        }
    }
}

impl Normalise {
    /// Leaves pixels as they are, between 0 and 1.
    pub fn identity() -> Self {
        Self { mean: vec![0.0], std: vec![1.0] }
    }

    /// The customary values of a dataset of the [`catalogue`](crate::catalogue()), and else what [`channel_statistics`] gives for this
    /// one; it should be a training set.
    ///
    /// # Errors
    ///
    /// An example that cannot be read.
    pub fn of(dataset: &dyn Dataset) -> Result<Self, DatasetError> {
        match catalogue::find(dataset.name()).ok().and_then(catalogue::Entry::normalise) {
            Some(customary) if customary.mean.len() as i64 == dataset.shape()[0] => Ok(customary),
            _ => Ok(channel_statistics(dataset, usize::MAX, &mut |_, _| true)?.normalise),
        }
    }

    /// Normalises raw pixels (`[N, C, H, W]`, 0 to 255, any type): float32. A float32 tensor is overwritten.
    ///
    /// # Errors
    ///
    /// A number of channels that does not fit.
    pub fn apply(&self, images: Tensor) -> Result<Tensor, DatasetError> {
        self.on(images.device())?.apply(images)
    }

    /// The same on a device, with values that are there already.
    ///
    /// # Errors
    ///
    /// libtorch's, where there is no such device.
    pub fn on(&self, device: Device) -> Result<Normaliser, DatasetError> {
        // (x / 255 - mean) / std = x * scale + shift
        let scale = self.std.iter().map(|std| (1.0 / (255.0 * std)) as f32);
        let shift = self.mean.iter().zip(&self.std).map(|(mean, std)| (-mean / std) as f32);
        let by_channel = |values: Vec<f32>| -> Result<Tensor, DatasetError> {
            Ok(Tensor::f_from_slice(&values)?.f_view([-1, 1, 1])?.f_to_device(device)?)
        };
        Ok(Normaliser { scale: by_channel(scale.collect())?, shift: by_channel(shift.collect())? })
    }

    /// The same for one picture, to the last bit: `out` is `[C, H, W]`. Grey is repeated where there are more channels.
    pub(crate) fn write(&self, picture: &Pixels<'_>, out: &mut [f32]) {
        let of = |values: &[f64], channel: usize| values.get(channel).or(values.first()).copied().unwrap_or_default();
        for (channel, out) in out.chunks_exact_mut(picture.width * picture.height).enumerate() {
            let (mean, std) = (of(&self.mean, channel), of(&self.std, channel));
            let (scale, shift) = ((1.0 / (255.0 * std)) as f32, (-mean / std) as f32);
            normalise(&picture.data, [picture.channels, channel.min(picture.channels - 1)], [scale, shift], out);
        }
    }

    /// As [`Preprocess::check`] does.
    pub(crate) fn check(&self, channels: i64) -> Result<(), DatasetError> {
        let fault = |reason: String| Err(DatasetError::option("normalise", reason));
        let counts = [self.mean.len(), self.std.len()];
        if counts[0] != counts[1] || (counts[0] != 1 && counts[0] as i64 != channels) {
            return fault(format!("{channels} channels need 1 or {channels} means and deviations, not {counts:?}"));
        }
        // Pixels are normalised in float32: what is infinite there can vanish in a network and leave an answer.
        let sound = |(mean, std): (&f64, &f64)| std.is_finite() && *std > 0.0 && (((1.0 + mean.abs()) / std) as f32).is_finite();
        if !self.mean.iter().zip(&self.std).all(sound) {
            return fault(format!("mean {:?} must be finite, and std {:?} above 0", self.mean, self.std));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{DecodeOptions, decode_image};
    use std::path::Path;

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten(0, -1).try_into().unwrap()
    }

    fn decode(path: &Path, preprocess: &Preprocess) -> Result<Tensor, DatasetError> {
        decode_image(path, preprocess, &DecodeOptions::default())
    }

    fn raw(image: ImageSize, input: [i64; 3]) -> Preprocess {
        Preprocess { image, input, normalise: Normalise::identity(), interpolation: Interpolation::Bilinear }
    }

    #[test]
    fn a_network_of_another_size_is_padded_or_resized_to() {
        let images = Tensor::full([2, 1, 2, 2], 7, (Kind::Uint8, Device::Cpu));
        let fitted = |input, fit| {
            let preprocess = Preprocess::new([1, 2, 2], input, fit, Normalise::identity()).unwrap();
            preprocess.fit(&images).unwrap()
        };
        let padded = fitted([1, 4, 4], Fit::Pad);
        assert_eq!((padded.size(), padded.sum(Kind::Int64).int64_value(&[])), (vec![2, 1, 4, 4], 2 * 4 * 7));
        let resized = fitted([3, 4, 4], Fit::Resize);
        assert_eq!((resized.size(), resized.sum(Kind::Int64).int64_value(&[])), (vec![2, 3, 4, 4], 2 * 48 * 7));
        assert_eq!(fitted([1, 2, 2], Fit::Pad).data_ptr(), images.data_ptr());
    }

    #[test]
    fn normalising_is_pytorchs_formula() {
        let pixels = Tensor::from_slice(&[0_u8, 51, 255, 102]).view([1, 2, 1, 2]);
        let all = Normalise { mean: vec![0.2], std: vec![0.5] }.apply(pixels.shallow_clone()).unwrap();
        let each = Normalise { mean: vec![0.2, 0.4], std: vec![0.5, 0.25] }.apply(pixels).unwrap();
        for (got, expected) in [(all, [-0.4, 0.0, 1.6, 0.4]), (each, [-0.4, 0.0, 2.4, 0.0])] {
            assert_eq!((got.kind(), got.size()), (Kind::Float, vec![1, 2, 1, 2]));
            for (got, expected) in floats(&got).iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{got} for {expected}");
            }
        }
    }

    #[test]
    fn a_picture_is_normalised_as_a_batch_is() {
        let data: Vec<u8> = (0..=255).rev().chain(0..44).collect();
        let each = Normalise { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
        let all = Normalise { mean: vec![0.286], std: vec![0.353] };
        for (normalise, channels, planes) in [(&each, 3, 3), (&all, 3, 3), (&all, 1, 1), (&each, 1, 3), (&all, 2, 2)] {
            let picture = Pixels::new([10, 10], channels, &data[..100 * channels]);
            let mut out = vec![0.0; 100 * planes];
            normalise.write(&picture, &mut out);
            let batch = picture.to_tensor().unwrap().expand([1, planes as i64, 10, 10], false).contiguous();
            assert_eq!(out, floats(&normalise.apply(batch).unwrap()), "{channels} channels into {planes}");
        }
    }

    #[test]
    fn unsound_values_are_refused() {
        let new = |input, mean: &[f64], std: &[f64]| {
            let normalise = Normalise { mean: mean.to_vec(), std: std.to_vec() };
            Preprocess::new([1, 28, 28], input, Fit::Pad, normalise).unwrap_err().to_string()
        };
        assert!(new([1, 8, 32], &[0.0], &[1.0]).contains("28x28 cannot be padded to 8x32"));
        assert!(new([0, 32, 32], &[0.0], &[1.0]).contains("no pixels"));
        assert!(new([3, 32, 32], &[0.0, 0.0], &[1.0, 1.0]).contains("need 1 or 3"));
        assert!(new([1, 32, 32], &[0.0], &[0.0]).contains("above 0"));
        for (mean, std) in [(f64::NAN, 1.0), (1e39, 1.0), (0.5, 1e-39), (0.0, f64::INFINITY)] {
            assert!(new([1, 32, 32], &[mean], &[std]).contains("must be finite"), "{mean}, {std}");
        }
        assert!(new([1, 32, 32], &[f64::NAN], &[1.0]).contains("finite"));
        let colour = Tensor::zeros([1, 3, 28, 28], (Kind::Uint8, Device::Cpu));
        let grey = Preprocess::new([1, 28, 28], [1, 32, 32], Fit::Pad, Normalise::identity()).unwrap();
        assert!(grey.fit(&colour).unwrap_err().to_string().contains("3 channels"));
    }

    #[test]
    fn json_comes_back_and_unknown_fields_are_refused() {
        let preprocess = Preprocess::new([1, 28, 28], [1, 32, 32], Fit::Pad, Normalise { mean: vec![0.1307], std: vec![0.3081] });
        let preprocess = preprocess.unwrap();
        let json = serde_json::to_string(&preprocess).unwrap();
        assert_eq!(json, r#"{"image":[28,28],"input":[1,32,32],"normalise":{"mean":[0.1307],"std":[0.3081]}}"#);
        assert_eq!(serde_json::from_str::<Preprocess>(&json).unwrap(), preprocess);
        assert!(serde_json::from_str::<Preprocess>(&json.replace("image", "imgae")).is_err());
        let cubic = Preprocess { interpolation: Interpolation::Bicubic, ..preprocess };
        let json = serde_json::to_string(&cubic).unwrap();
        assert!(json.contains(r#""interpolation":"bicubic""#), "{json}");
        assert_eq!(serde_json::from_str::<Preprocess>(&json).unwrap(), cubic);
    }

    #[test]
    fn a_shorter_side_is_resized_to_and_the_middle_cropped() {
        // torchvision.transforms.functional: center_crop(resize(image, 5), 4), of 7 rows of 10 pixels, 3 * i % 256
        let file = tempfile::Builder::new().suffix(".png").tempfile().unwrap();
        image::GrayImage::from_fn(10, 7, |x, y| [(3 * (10 * y + x) % 256) as u8].into()).save(file.path()).unwrap();
        let expected = [19, 24, 28, 32, 56, 61, 65, 69, 99, 104, 108, 112, 142, 147, 151, 155].map(|pixel| pixel as f32);
        let image = ImageSize::ShorterSide { shorter_side: 5 };
        let mut preprocess = raw(image, [1, 4, 4]);
        let got = floats(&decode(file.path(), &preprocess).unwrap());
        assert_eq!(got.iter().map(|pixel| (255.0 * pixel).round()).collect::<Vec<_>>(), expected);
        let json = serde_json::to_string(&preprocess).unwrap();
        assert!(json.contains(r#""image":{"shorter_side":5}"#), "{json}");
        assert_eq!(serde_json::from_str::<Preprocess>(&json).unwrap(), preprocess);
        preprocess.input = [1, 6, 4];
        let error = preprocess.check().unwrap_err().to_string();
        assert_eq!(error, "input: 6x4 cannot be cropped from images with a shorter side of 5");
        assert_eq!(image.of(20, 10), [10, 5]);
    }

    #[test]
    fn files_are_decoded_to_the_networks_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("colour.png");
        image::RgbImage::from_fn(2, 1, |x, _| if x == 0 { [255, 0, 0].into() } else { [255, 255, 255].into() })
            .save(&path)
            .unwrap();
        let decode = |channels, fit| {
            let preprocess = Preprocess::new([channels, 1, 2], [channels, 1, 4], fit, Normalise::identity()).unwrap();
            let input = decode(&path, &preprocess).unwrap();
            assert_eq!((input.size(), input.kind()), (vec![1, channels, 1, 4], Kind::Float));
            floats(&input)
        };
        assert_eq!(decode(3, Fit::Pad), [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let grey = decode(1, Fit::Resize);
        assert!((grey[0] - 0.299).abs() < 0.01 && grey[1] < grey[2] && grey[3] == 1.0, "{grey:?}");
    }

    #[test]
    fn a_long_strip_is_cropped_without_being_resized_whole() {
        // 10,000 pixels in a row would become 224 rows of 2,240,000: 1.5 GB in three channels.
        let strip = Tensor::arange(10_000, (Kind::Int64, Device::Cpu)).remainder(256).to_kind(Kind::Uint8);
        let strip = strip.view([1, 1, 1, 10_000]);
        let preprocess = raw(ImageSize::ShorterSide { shorter_side: 224 }, [1, 224, 224]);
        let row = preprocess.fit(&strip).unwrap();
        assert_eq!(row.size(), [1, 1, 224, 224]);
        // The middle is between the pixels 4999 and 5000, which are 135 and 136.
        let row = floats(&row.select(2, 100));
        assert_eq!([row[0], row[111], row[223]], [135.0, 135.0, 136.0]);
        let tall = preprocess.fit(&strip.transpose(2, 3)).unwrap();
        assert_eq!(floats(&tall.select(3, 100)), row);
    }
}
