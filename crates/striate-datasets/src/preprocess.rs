use crate::resize::{centre, resize};
use crate::{Dataset, DatasetError, catalogue, dataset::image_shape};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Examples that are counted at one time by [`channel_statistics`].
const CHUNK: i64 = 512;
/// Bytes that libtorch copies with one thread: half of its grain size.
const ALONE: usize = 16_384;

/// How a raw image becomes a network's input: in training, in evaluation and in prediction alike. A model's bundle holds it.
///
/// The image is resized to `image`; cropped in the middle, or surrounded with zeros, to `input`; and normalised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The size to which the image itself is brought.
    pub image: ImageSize,
    /// The shape `[C, H, W]` of the network's input.
    pub input: [i64; 3],
    /// What the pixels are shifted and scaled by.
    pub normalise: Normalise,
}

/// To what an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
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
        let preprocess = Self { image, input, normalise };
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
        let smallest = match self.image {
            ImageSize::Exact([height, width]) => height.min(width),
            ImageSize::ShorterSide { shorter_side } => shorter_side,
        };
        if smallest.min(channels).min(rows).min(columns) < 1 {
            return fault(format!("{:?} with images of {} has no pixels", self.input, self.image));
        }
        match self.image {
            ImageSize::Exact([height, width]) if height > rows || width > columns => {
                fault(format!("images of {height}x{width} cannot be padded to {rows}x{columns}: use `fit = \"resize\"`"))
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

    fn place(&self, images: &Tensor) -> Result<Tensor, DatasetError> {
        let [old_channels, old_height, old_width] = image_shape(images);
        self.check_channels(old_channels)?;
        let [channels, rows, columns] = self.input;
        let [height, width] = self.image.of(old_height, old_width);
        let placed = centre(&resize(images, height, width)?, rows, columns)?;
        Ok(placed.f_expand([-1, channels, -1, -1], false)?)
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
        match catalogue::find(dataset.name()).ok().and_then(|entry| entry.mean_std) {
            Some((mean, std)) => Ok(Self { mean: vec![mean], std: vec![std] }),
            None => channel_statistics(dataset),
        }
    }

    /// Normalises raw pixels (`[N, C, H, W]`, 0 to 255, any type): float32. A float32 tensor is overwritten.
    ///
    /// # Errors
    ///
    /// A number of channels that does not fit.
    pub fn apply(&self, images: Tensor) -> Result<Tensor, DatasetError> {
        // (x / 255 - mean) / std = x * scale + shift
        let scale: Vec<f64> = self.std.iter().map(|std| 1.0 / (255.0 * std)).collect();
        let shift: Vec<f64> = self.mean.iter().zip(&self.std).map(|(mean, std)| -mean / std).collect();
        let mut images = images.f_to_kind(Kind::Float)?;
        if let ([scale], [shift]) = (&scale[..], &shift[..]) {
            let _ = images.f_mul_scalar_(*scale)?.f_add_scalar_(*shift)?;
            return Ok(images);
        }
        let by_channel = |values: &[f64]| -> Result<Tensor, DatasetError> {
            Ok(Tensor::f_from_slice(values)?.f_to_kind(Kind::Float)?.f_view([-1, 1, 1])?.f_to_device(images.device())?)
        };
        let (scale, shift) = (by_channel(&scale)?, by_channel(&shift)?);
        let _ = images.f_mul_(&scale)?.f_add_(&shift)?;
        Ok(images)
    }

    fn check(&self, channels: i64) -> Result<(), DatasetError> {
        let fault = |reason: String| Err(DatasetError::option("normalise", reason));
        let counts = [self.mean.len(), self.std.len()];
        if counts[0] != counts[1] || (counts[0] != 1 && counts[0] as i64 != channels) {
            return fault(format!("{channels} channels need 1 or {channels} means and deviations, not {counts:?}"));
        }
        if !self.mean.iter().all(|mean| mean.is_finite()) || !self.std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return fault(format!("mean {:?} must be finite, and std {:?} above 0", self.mean, self.std));
        }
        Ok(())
    }
}

/// The mean and (population) standard deviation of each channel over a whole dataset, with pixels scaled to 0..1. It is exact,
/// since it counts how often each of the 256 values occurs.
///
/// # Errors
///
/// A channel whose pixels are all equal, or an example that cannot be read.
pub fn channel_statistics(dataset: &dyn Dataset) -> Result<Normalise, DatasetError> {
    let (len, channels) = (dataset.len().cast_signed() as i64, dataset.shape()[0]);
    let mut counts = vec![[0_i64; 256]; channels.unsigned_abs() as usize];
    for start in (0..len).step_by(CHUNK.unsigned_abs() as usize) {
        let indices = Tensor::f_arange_start(start, len.min(start + CHUNK), (Kind::Int64, Device::Cpu))?;
        let images = dataset.batch(&indices)?.images;
        for (channel, counts) in counts.iter_mut().enumerate() {
            let pixels = images.f_select(1, channel.cast_signed() as i64)?.f_flatten(0, -1)?;
            let found = Vec::<i64>::try_from(pixels.f_bincount(None::<&Tensor>, 256)?)?;
            counts.iter_mut().zip(found).for_each(|(count, found)| *count += found);
        }
    }
    let normalise = counts.iter().map(mean_and_std).collect::<(Vec<f64>, Vec<f64>)>();
    let normalise = Normalise { mean: normalise.0, std: normalise.1 };
    normalise.check(channels)?;
    Ok(normalise)
}

fn mean_and_std(counts: &[i64; 256]) -> (f64, f64) {
    let moment = |power: i32| -> f64 {
        counts.iter().enumerate().map(|(value, count)| *count as f64 * (value as f64 / 255.0).powi(power)).sum()
    };
    let total = moment(0);
    let mean = moment(1) / total;
    (mean, (moment(2) / total - mean * mean).max(0.0).sqrt())
}

/// Reads a JPEG or PNG file as a network's input: `[1, C, H, W]`, float32. Colours become grey for a network with one channel, and
/// the orientation that a camera noted is applied.
///
/// # Errors
///
/// [`DatasetError::Image`] when the file is missing, of another type, damaged, or too large to decode.
pub fn decode_image(path: &Path, preprocess: &Preprocess) -> Result<Tensor, DatasetError> {
    preprocess.check()?;
    preprocess.normalise.apply(decode_raw(path, preprocess)?)
}

/// As [`decode_image`], but not normalised: `[1, C, H, W]`, uint8, of any strides.
pub(crate) fn decode_raw(path: &Path, preprocess: &Preprocess) -> Result<Tensor, DatasetError> {
    let image = read_image(path)?;
    let (height, width) = (i64::from(image.height()), i64::from(image.width()));
    let (bytes, channels) = match preprocess.input[0] {
        1 => (image.into_luma8().into_raw(), 1),
        _ => (image.into_rgb8().into_raw(), 3),
    };
    let pixels = copied(&bytes)?.f_view([1, height, width, channels])?;
    // libtorch resizes colours that lie pixel by pixel in a third of the time.
    preprocess.place(&pixels.f_permute([0, 3, 1, 2])?)
}

/// The bytes as a tensor, copied by this thread alone: libtorch would take all of its own for so many, which must not happen in each of
/// several that decode side by side.
fn copied(bytes: &[u8]) -> Result<Tensor, DatasetError> {
    let pixels = Tensor::f_empty([bytes.len().cast_signed() as i64], (Kind::Uint8, Device::Cpu))?;
    for (part, start) in bytes.chunks(ALONE).zip((0..).step_by(ALONE)) {
        pixels.f_narrow(0, start, part.len().cast_signed() as i64)?.f_copy_(&Tensor::f_from_slice(part)?)?;
    }
    Ok(pixels)
}

fn read_image(path: &Path) -> Result<DynamicImage, DatasetError> {
    let fault = |reason: String| DatasetError::Image { path: path.into(), reason };
    if std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Err(fault("it is empty".to_owned()));
    }
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|error| fault(error.to_string()))?;
    if reader.format().is_none() {
        return Err(fault("it is neither JPEG nor PNG".to_owned()));
    }
    let decode = || {
        let mut decoder = reader.into_decoder()?;
        // The header alone must not make this allocate what it declares.
        Limits::default().reserve(decoder.total_bytes())?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    decode().map_err(|error: image::ImageError| fault(error.to_string().replace('\n', " ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::tests::counting;
    use crate::digits;

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten(0, -1).try_into().unwrap()
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
    fn statistics_are_those_of_the_pixels() {
        // numpy, over the first 898 of sklearn's digits, scaled and rounded as here
        let Normalise { mean, std } = channel_statistics(&digits().unwrap().train).unwrap();
        assert!((mean[0] - DIGITS.0).abs() < 1e-9 && (std[0] - DIGITS.1).abs() < 1e-9, "{mean:?} {std:?}");
        let two = counting(CHUNK + 3, [2, 1, 1]); // channel 0 has the even values, 1 the odd ones
        let stats = channel_statistics(&two).unwrap();
        let images = two.images().to_kind(Kind::Double) / 255.0;
        for channel in [0, 1] {
            let pixels = images.select(1, channel);
            let expected = (pixels.mean(Kind::Double).double_value(&[]), pixels.std(false).double_value(&[]));
            let got = (stats.mean[channel as usize], stats.std[channel as usize]);
            assert!((got.0 - expected.0).abs() < 1e-9 && (got.1 - expected.1).abs() < 1e-9, "{got:?} {expected:?}");
        }
        assert!(channel_statistics(&two.range(0..1).unwrap()).is_err(), "one pixel has no deviation");
    }

    const DIGITS: (f64, f64) = (0.307_453_859_884_711_13, 0.377_016_224_453_166_9);

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
    }

    #[test]
    fn a_shorter_side_is_resized_to_and_the_middle_cropped() {
        // torchvision.transforms.functional: center_crop(resize(image, 5), 4), of 7 rows of 10 pixels, 3 * i % 256
        let file = tempfile::Builder::new().suffix(".png").tempfile().unwrap();
        image::GrayImage::from_fn(10, 7, |x, y| [(3 * (10 * y + x) % 256) as u8].into()).save(file.path()).unwrap();
        let expected = [19, 24, 28, 32, 56, 61, 65, 69, 99, 104, 108, 112, 142, 147, 151, 155].map(|pixel| pixel as f32);
        let image = ImageSize::ShorterSide { shorter_side: 5 };
        let mut preprocess = Preprocess { image, input: [1, 4, 4], normalise: Normalise::identity() };
        let got = floats(&decode_image(file.path(), &preprocess).unwrap());
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
            let input = decode_image(&path, &preprocess).unwrap();
            assert_eq!((input.size(), input.kind()), (vec![1, channels, 1, 4], Kind::Float));
            floats(&input)
        };
        assert_eq!(decode(3, Fit::Pad), [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let grey = decode(1, Fit::Resize);
        assert!((grey[0] - 0.2126).abs() < 0.01 && grey[1] < grey[2] && grey[3] == 1.0, "{grey:?}");
    }

    #[test]
    fn what_is_no_image_is_told_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let preprocess = Preprocess::new([1, 2, 2], [1, 2, 2], Fit::Resize, Normalise::identity()).unwrap();
        let fault = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = decode_image(&path, &preprocess).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("cannot be read as an image") && !error.contains('\n'), "{error}");
            error
        };
        assert!(fault("notes.txt", b"not an image").ends_with("it is neither JPEG nor PNG"));
        assert!(fault("empty.png", b"").ends_with("it is empty"));
        fault("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
        fault("cut.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0");
        assert!(fault("huge.png", &huge_png()).contains("limit"));
        assert!(decode_image(&folder.path().join("missing.png"), &preprocess).is_err());
    }

    /// A PNG whose header declares 65,535 x 65,535 pixels of 48 bits.
    fn huge_png() -> Vec<u8> {
        let header = b"IHDR\0\0\xff\xff\0\0\xff\xff\x10\x02\0\0\0";
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        for chunk in [&header[..], b"IDAT\x78\x9c", b"IEND"] {
            let mut crc = flate2::Crc::new();
            crc.update(chunk);
            png.extend((chunk.len() as u32 - 4).to_be_bytes());
            png.extend(chunk);
            png.extend(crc.sum().to_be_bytes());
        }
        png
    }
}
