//! What is to be seen of one picture.

use super::alike::Print;
use crate::decode::{decode, decoder, decoding, format, read_file};
use crate::{DatasetError, DecodeOptions, Examples, Pixels};
use image::{ColorType, DynamicImage, ExtendedColorType, GrayImage, ImageDecoder, ImageFormat, RgbImage};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::path::Path;

/// A few dozen bytes for each picture.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// Of the file's bytes; of the pixels of a picture in memory. Half of a SHA-256: accidents do not come about.
    pub(super) content: [u8; 16],
    /// Width and height.
    pub(super) size: [u32; 2],
    pub(super) colours: Colours,
    /// None in memory.
    pub(super) format: Option<ImageFormat>,
    /// None of a picture that has nothing to tell it by.
    pub(super) print: Option<Print>,
}

/// How colours are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Colours {
    Grey,
    Rgb,
    GreyAlpha,
    Rgba,
    Cmyk,
    Deep,
}

impl Colours {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grey => "grey",
            Self::Rgb => "RGB",
            Self::GreyAlpha => "grey with transparency",
            Self::Rgba => "RGB with transparency",
            Self::Cmyk => "CMYK",
            Self::Deep => "more than 8 bits",
        }
    }

    /// What becomes of them.
    pub(super) fn fate(self) -> &'static str {
        match self {
            Self::Grey => "repeated in each channel of a network for colours",
            Self::Rgb => "made grey for a network with one channel",
            Self::GreyAlpha | Self::Rgba => "the transparency is dropped",
            Self::Cmyk => "converted without a colour profile",
            Self::Deep => "cut to 8 bits",
        }
    }
}

/// Looks at an example; a file is decoded once.
pub(super) fn look(examples: &dyn Examples, index: usize, options: &DecodeOptions) -> Result<Look, DatasetError> {
    let Some(file) = examples.file(index) else { return Ok(in_memory(examples.picture(index)?)) };
    let looked = read_file(file.place(), options).and_then(|bytes| look_at(&bytes, options));
    looked.map_err(|reason| DatasetError::Image { path: file.path().to_owned(), reason })
}

fn look_at(bytes: &[u8], options: &DecodeOptions) -> Result<Look, String> {
    let format = format(bytes)?;
    let colours = decoding(|| Ok(colours(&decoder(bytes, format, bytes.len() as u64, options)?, bytes)))?;
    let image = decode(Cow::Borrowed(bytes), options)?;
    let size = [image.width(), image.height()];
    Ok(Look { content: digest(bytes), size, colours, format: Some(format), print: Print::of(&image) })
}

fn in_memory(picture: Pixels<'_>) -> Look {
    let size = [picture.width, picture.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let [width, height] = size;
    let content = digest(&picture.data);
    let image = match picture.channels {
        1 => GrayImage::from_raw(width, height, picture.data.into_owned()).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, picture.data.into_owned()).map(DynamicImage::from),
    };
    let colours = if picture.channels == 1 { Colours::Grey } else { Colours::Rgb };
    Look { content, size, colours, format: None, print: image.as_ref().and_then(Print::of) }
}

fn digest(bytes: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(bytes)[..16]);
    half
}

fn colours(decoder: &impl ImageDecoder, bytes: &[u8]) -> Colours {
    match (decoder.original_color_type(), decoder.color_type()) {
        (ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16, _) => Colours::Cmyk,
        _ if jpeg_components(bytes) == Some(4) => Colours::Cmyk,
        (_, ColorType::L8) => Colours::Grey,
        (_, ColorType::La8) => Colours::GreyAlpha,
        (_, ColorType::Rgb8) => Colours::Rgb,
        (_, ColorType::Rgba8) => Colours::Rgba,
        _ => Colours::Deep,
    }
}

/// How many values a pixel of a JPEG has. Its decoder does not tell CMYK from RGB.
fn jpeg_components(bytes: &[u8]) -> Option<u8> {
    let mut rest = bytes.strip_prefix(b"\xff\xd8")?;
    loop {
        let (&[0xff, marker], after) = rest.split_first_chunk()? else { return None };
        let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
        match marker {
            // Fill bytes.
            0xff => rest = &rest[1..],
            0xc4 | 0xc8 | 0xcc => rest = after.get(length..)?,
            // Length, bits, height, width, components.
            0xc0..=0xcf => return after.get(7).copied(),
            _ => rest = after.get(length..)?,
        }
    }
}

/// The format that a file's name says, if it says one that is read.
pub(super) fn format_by_name(path: &Path) -> Option<ImageFormat> {
    match path.extension()?.to_str()?.to_lowercase().as_str() {
        "jpe" => Some(ImageFormat::Jpeg),
        "pnm" => Some(ImageFormat::Pnm),
        extension => ImageFormat::from_extension(extension),
    }
}

/// A format's name.
pub(super) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Tiff => "TIFF",
        _ => "PNM",
    }
}
