//! Pictures: from files, encoded bytes, decoded images or tensors to a network's input.

use crate::folder::Place;
use crate::jpeg::{self, Jpeg};
use crate::{DatasetError, Pixels, Preprocess, View};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use striate_torch::{Memory, Unfinished, Values, contained, note_file};
use tch::{Device, Kind, Tensor};

/// The most bytes per pixel: 16 bits in four channels.
const PIXEL_BYTES: u64 = 8;
/// The most bytes that a file may have beyond its pixels, such as metadata.
const METADATA_BYTES: u64 = 64 * 1024 * 1024;
/// The most bytes that a decoder may unpack metadata to, or work in beside the pixels.
const DECODER_BYTES: u64 = 16 * 1024 * 1024;
/// How often a progressive JPEG of as many pixels as are allowed may send them. Programs write it in 12 scans at most.
const SCANS: u64 = 12;
/// How many bytes of pixels each byte of a file stands for. Photographs have fewer: in 32, a JPEG of lowest quality.
const EXPANSION: u64 = 32;
pub(crate) const CUT: &str = "it is cut off: a part of its data is missing";
/// For messages: the formats.
const READ: &str = "JPEG, PNG, WebP, BMP, GIF, TIFF and PNM are read";

/// A picture in any of the forms in which programs have one.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Picture<'a> {
    /// A file. Its content decides what it is, not its name.
    File(&'a Path),
    /// A file's content.
    Bytes(&'a [u8]),
    /// Decoded pixels. Apply the camera's orientation yourself: it is no longer known here.
    Image(&'a DynamicImage),
    /// Pixels as a tensor: uint8, `[C, H, W]` with one or three channels.
    Tensor(&'a Tensor),
}

/// How pictures are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// A picture with more pixels is refused before it is decoded. The default, 89,478,485, is
    /// Pillow's.
    ///
    /// A few bytes of a file can also stand for many pixels of one colour. So decoded pixels may take
    /// half as many bytes as this number, 45 MB by default, and 32 more for each byte of the file.
    /// Every photograph does. Raise the number for a large drawing that does not.
    pub max_pixels: u64,
}

/// Decodes a picture as a network's input: `[1, C, H, W]`, float32.
///
/// Reads JPEG, PNG, WebP, BMP, GIF (the first frame), TIFF and PNM, and tells them by their content.
/// Transparency is dropped, and the camera's orientation applied. For a network with one channel,
/// colours become grey as in Pillow and OpenCV: 0.299 R + 0.587 G + 0.114 B (ITU-R 601).
///
/// ```
/// use striate_datasets::{DecodeOptions, ImageSize, Interpolation, Normalise, Preprocess, decode_image, image};
/// let preprocess = Preprocess {
///     image: ImageSize::ShorterSide { shorter_side: 8 },
///     input: [3, 8, 8],
///     normalise: Normalise::identity(),
///     interpolation: Interpolation::Bilinear,
/// };
/// let picture = image::DynamicImage::new_rgb8(20, 10);
/// let input = decode_image(&picture, &preprocess, &DecodeOptions::default())?;
/// assert_eq!(input.size(), [1, 3, 8, 8]);
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
///
/// # Errors
///
/// A picture that is missing, cut off, damaged, in another format, or larger than `options` allow:
/// [`DatasetError::Image`] for a file, [`DatasetError::Picture`] for the other forms. A panic of a
/// decoder becomes such an error, too, after the panic hook has run: ask
/// [`is_contained`](striate_torch::is_contained) in yours to keep it quiet. [`DatasetError::Option`]
/// if `preprocess` makes no sense.
pub fn decode_image<'a>(
    picture: impl Into<Picture<'a>>,
    preprocess: &Preprocess,
    options: &DecodeOptions,
) -> Result<Tensor, DatasetError> {
    preprocess.check()?;
    let seen = seen(picture.into(), preprocess, options)?;
    preprocess.check_channels(seen.channels.cast_signed() as i64)?;
    let [channels, height, width] = preprocess.input;
    // In one piece, without operators of libtorch: of a small picture, each takes as long as decoding it.
    let (input, parts) = Unfinished::new(&[1, channels, height, width], Memory::Floats, usize::MAX)?;
    for mut part in parts {
        if let Values::Floats(values) = part.zeroed() {
            preprocess.normalise.write(&seen, values);
        }
    }
    Ok(input.finish()?)
}

/// What a network sees of a picture.
fn seen<'p>(picture: Picture<'p>, preprocess: &Preprocess, options: &DecodeOptions) -> Result<Pixels<'p>, DatasetError> {
    let channels = preprocess.input[0];
    let fault = |reason| DatasetError::Picture { reason };
    let mut view = |has| Ok(preprocess.view(has));
    match picture {
        Picture::File(path) => decode_file(path.into(), channels, options, &mut view),
        Picture::Bytes(bytes) => decode_view(bytes, channels, options, &mut view, &fault),
        Picture::Image(image) if image.width().min(image.height()) == 0 => Err(fault("it has no pixels".to_owned())),
        Picture::Image(image) => {
            let picture = pixels_of(Cow::Borrowed(image), channels);
            preprocess.view([picture.width, picture.height]).of(picture)
        }
        Picture::Tensor(pixels) => match (pixels.kind(), &pixels.size()[..]) {
            (Kind::Uint8, &[1 | 3, height, width]) if height.min(width) > 0 => {
                let picture = Pixels::of_tensor(&pixels.f_unsqueeze(0)?.f_to_device(Device::Cpu)?)?.in_channels(channels);
                preprocess.view([picture.width, picture.height]).of(picture)
            }
            (kind, size) => Err(fault(format!("a tensor is [C, H, W] of uint8 with 1 or 3 channels, not {size:?} of {kind:?}"))),
        },
    }
}

/// What a network sees of a file or a part of one, not normalised: `[1, C, H, W]`, uint8, of any strides.
pub(crate) fn decode_raw_file(file: Place<'_>, preprocess: &Preprocess, options: &DecodeOptions) -> Result<Tensor, DatasetError> {
    let seen = decode_file(file, preprocess.input[0], options, &mut |has| Ok(preprocess.view(has)))?;
    preprocess.check_channels(seen.channels.cast_signed() as i64)?;
    Ok(seen.to_tensor()?.f_expand([-1, preprocess.input[0], -1, -1], false)?)
}

/// Chooses what is seen of a picture of this width and height.
pub(crate) type Choose<'a> = &'a mut dyn FnMut([usize; 2]) -> Result<View, DatasetError>;

/// What is seen of a file or a part of one: grey for a network that takes one channel, else in colour.
pub(crate) fn decode_file(
    file: Place<'_>,
    channels: i64,
    options: &DecodeOptions,
    view: Choose<'_>,
) -> Result<Pixels<'static>, DatasetError> {
    note_file(file.path);
    let fault = |reason| DatasetError::Image { path: file.path.into(), reason };
    let bytes = read_file(file, options).map_err(fault)?;
    decode_view(&bytes, channels, options, view, &fault)
}

/// What is seen of encoded bytes, likewise; `fault` tells whose they are.
pub(crate) fn decode_view(
    bytes: &[u8],
    channels: i64,
    options: &DecodeOptions,
    view: Choose<'_>,
    fault: &dyn Fn(String) -> DatasetError,
) -> Result<Pixels<'static>, DatasetError> {
    let mut chosen = None;
    if let Some(jpeg) = common_jpeg(bytes, options)
        && jpeg.orientation() == Orientation::NoTransforms
    {
        let view = *chosen.insert(view(jpeg.size())?);
        let place = view.needs();
        if let Ok(Some(data)) = decoding(|| Ok(jpeg.pixels(place))) {
            return view.of_piece(Pixels::new(place.size(), jpeg.channels(), data).in_channels(channels), place);
        }
    }
    let picture = pixels_of(Cow::Owned(decode(Cow::Borrowed(bytes), options).map_err(fault)?), channels);
    // What was drawn once is not drawn again.
    chosen.map_or_else(|| view([picture.width, picture.height]), Ok)?.of(picture)
}

/// Decoded pixels, in grey for a network that takes one channel, else in colour.
fn pixels_of(image: Cow<'_, DynamicImage>, channels: i64) -> Pixels<'_> {
    let size = [image.width() as usize, image.height() as usize];
    let (bytes, channels) = if channels == 1 { (grey_pixels(image), 1) } else { (rgb_pixels(image), 3) };
    Pixels::new(size, channels, bytes)
}

/// A JPEG of the common kind that is within the limits and not cut off.
fn common_jpeg<'a>(bytes: &'a [u8], options: &DecodeOptions) -> Option<Jpeg<'a>> {
    let read = || {
        let jpeg = Jpeg::read(bytes).filter(|_| jpeg::has_end(bytes) == Ok(true));
        let [width, height] = jpeg.as_ref().map_or([0; 2], |jpeg| jpeg.size().map(|side| side as u64));
        let sound = allow([width, height], 3 * width * height, 1, bytes.len() as u64, options);
        Ok(jpeg.filter(|_| sound.is_ok()))
    };
    decoding(read).ok().flatten()
}

/// How long a WebP says that it is.
pub(crate) fn webp_length(bytes: &[u8]) -> Option<u64> {
    let &[a, b, c, d] = bytes.get(4..8)? else { return None };
    Some(u64::from(u32::from_le_bytes([a, b, c, d])) + 8)
}

/// A file's bytes, or those of a part. Nothing but a file is opened: a pipe would never end.
pub(crate) fn read_file<'a>(file: Place<'_>, options: &DecodeOptions) -> Result<Cow<'a, [u8]>, String> {
    let mut bytes = Vec::new();
    let (file, _, length) = open(file, options)?;
    file.take(length).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if (bytes.len() as u64) < length { Err(CUT.to_owned()) } else { Ok(Cow::Owned(bytes)) }
}

/// The file at the place where a picture begins, that place, and the picture's length.
pub(crate) fn open(file: Place<'_>, options: &DecodeOptions) -> Result<(File, u64, u64), String> {
    let told = |error: std::io::Error| error.to_string();
    let found = fs::metadata(file.file()).map_err(told)?;
    let (start, length) = file.member.map_or((0, found.len()), |member| (member.offset, member.length));
    let largest = options.max_pixels.saturating_mul(PIXEL_BYTES).saturating_add(METADATA_BYTES);
    match () {
        () if found.is_dir() => Err("it is a folder".to_owned()),
        () if !found.is_file() => Err("it is a pipe, a socket or a device, and only files are read".to_owned()),
        () if length == 0 => Err("it is empty".to_owned()),
        () if length > largest => Err(format!("it has {length} bytes, more than any picture of the limit")),
        () => {
            let mut file = File::open(file.file()).map_err(told)?;
            if start > 0 {
                file.seek(SeekFrom::Start(start)).map_err(told)?;
            }
            Ok((file, start, length))
        }
    }
}

/// The pixels of encoded bytes.
pub(crate) fn decode(bytes: Cow<'_, [u8]>, options: &DecodeOptions) -> Result<DynamicImage, String> {
    let format = format(&bytes)?;
    if format == ImageFormat::WebP && webp_length(&bytes).is_none_or(|length| length > bytes.len() as u64) {
        return Err(CUT.to_owned());
    }
    if format == ImageFormat::Jpeg
        && let Some(image) = common_image(&bytes, options)
    {
        return Ok(image);
    }
    decoding(|| {
        if format != ImageFormat::Jpeg || jpeg::has_end(&bytes)? {
            return pixels(&bytes, format, options);
        }
        // The decoder fills in grey for missing data. If data are missing, noise in their place
        // gives other pixels.
        let with = |more: &[u8]| pixels(&[&bytes, more, jpeg::END].concat(), format, options);
        let image = with(&[])?;
        let whole = with(&jpeg::NOISE).is_ok_and(|other| image.as_bytes() == other.as_bytes());
        if whole { Ok(image) } else { Err(CUT.to_owned()) }
    })
}

/// All of a JPEG of the common kind, if its data are complete; the end need not be marked.
fn common_image(bytes: &[u8], options: &DecodeOptions) -> Option<DynamicImage> {
    let bytes = match jpeg::has_end(bytes) {
        Ok(true) => Cow::Borrowed(bytes),
        Ok(false) => Cow::Owned([bytes, jpeg::END].concat()),
        Err(_) => return None,
    };
    let jpeg = common_jpeg(&bytes, options)?;
    let mut image = decoding(|| Ok(jpeg.image())).ok()??;
    image.apply_orientation(jpeg.orientation());
    Some(image)
}

/// Runs a decoder. Its panic is an error, since the bytes that it is given may be hostile.
pub(crate) fn decoding<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    contained(decode, |panic| format!("its decoder failed ({panic})"))
}

fn pixels(bytes: &[u8], format: ImageFormat, options: &DecodeOptions) -> Result<DynamicImage, String> {
    let mut decoder = decoder(bytes, format, bytes.len() as u64, options)?;
    let decode = || {
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    decode().map_err(reason)
}

/// A decoder of the first bytes of a file of this length, once the header is sound and within the
/// limits.
pub(crate) fn decoder<'a>(
    bytes: &'a [u8],
    format: ImageFormat,
    length: u64,
    options: &DecodeOptions,
) -> Result<impl ImageDecoder + 'a, String> {
    if format == ImageFormat::Jpeg && jpeg::is_misread(bytes) {
        return Err("it is a JPEG of a rare kind, which is not read: save it again with another program".to_owned());
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let allowed = allowed(length, options);
    let mut limits = Limits::no_limits();
    // A PNG's decoder leaves the pixels themselves out of the count.
    limits.max_alloc = Some(DECODER_BYTES.saturating_add(if format == ImageFormat::Png { length } else { allowed }));
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(reason)?;
    let (width, height) = decoder.dimensions();
    let scans = if format == ImageFormat::Jpeg { jpeg::scans(bytes) } else { 1 };
    allow([width.into(), height.into()], decoder.total_bytes(), scans, length, options)?;
    Ok(decoder)
}

/// How many bytes the pixels of a file of this length may take.
fn allowed(length: u64, options: &DecodeOptions) -> u64 {
    (options.max_pixels / 2).saturating_add(length.saturating_mul(EXPANSION))
}

/// Whether pixels that take so many bytes are within the limits, of a file of this length that sends them so often.
fn allow([width, height]: [u64; 2], bytes: u64, scans: u64, length: u64, options: &DecodeOptions) -> Result<(), String> {
    let (limit, count) = (options.max_pixels, width * height);
    // Grey becomes colours for most networks.
    let pixel_bytes = bytes.max(count.saturating_mul(3));
    match count {
        0 => Err("it has no pixels".to_owned()),
        count if count > limit => {
            Err(format!("it has {width}x{height} pixels, more than the limit of {limit}: make it smaller, or raise the limit"))
        }
        _ if scans.saturating_mul(count) > SCANS.saturating_mul(limit) => {
            Err(format!("its {width}x{height} pixels come in {scans} scans, which take too long to read: save it anew"))
        }
        _ if pixel_bytes > allowed(length, options) => {
            let enough = pixel_bytes.saturating_sub(length.saturating_mul(EXPANSION)).saturating_mul(2);
            Err(format!(
                "its {width}x{height} pixels are far more than {length} bytes of a photograph have: if you trust it, raise the \
                 limit of {limit} pixels to {enough}"
            ))
        }
        _ => Ok(()),
    }
}

/// The format that the content has.
pub(crate) fn format(bytes: &[u8]) -> Result<ImageFormat, String> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    match image::guess_format(bytes) {
        Ok(format @ (Bmp | Gif | Jpeg | Png | Pnm | Tiff | WebP)) => Ok(format),
        _ => Err(match bytes {
            [0x1f, 0x8b, ..] => format!("it is compressed with gzip: unpack it ({READ})"),
            _ if bytes.starts_with(b"version https://git-lfs") => {
                "it is a pointer of Git LFS: fetch the file itself with `git lfs pull`".to_owned()
            }
            _ if bytes.get(4..8) == Some(b"ftyp") => format!("it is HEIC, AVIF or a video: convert it ({READ})"),
            _ if bytes.trim_ascii_start().starts_with(b"<") => format!("it is a web page or SVG, and no picture ({READ})"),
            _ => format!("its content is of no format that is read ({READ})"),
        }),
    }
}

fn reason(error: ImageError) -> String {
    if matches!(error, ImageError::Limits(_)) {
        return "its header declares more pixels than the limit allows".to_owned();
    }
    if matches!(error, ImageError::Unsupported(_)) {
        return format!("it is of a kind that is not read ({error}): save it again with another program, such as a PNG");
    }
    let cut = matches!(&error, ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof);
    let error = error.to_string().trim().to_owned();
    let lower = error.to_lowercase();
    let cut = cut
        || ["unexpected end", "unexpected eof", "unexpectedeof", "failed to fill", "not enough bytes"]
            .iter()
            .any(|sign| lower.contains(sign));
    if cut { format!("it is cut off or damaged ({error})") } else { error }
}

fn rgb_pixels(image: Cow<'_, DynamicImage>) -> Cow<'_, [u8]> {
    match image {
        Cow::Borrowed(DynamicImage::ImageRgb8(image)) => Cow::Borrowed(image.as_raw()),
        Cow::Owned(DynamicImage::ImageRgb8(image)) => Cow::Owned(image.into_raw()),
        other => Cow::Owned(other.to_rgb8().into_raw()),
    }
}

/// What ITU-R 601 weighs red, green and blue with, in fractions of 65536, as Pillow does.
const GREY: [u32; 3] = [19_595, 38_470, 7_471];

fn grey_pixels(image: Cow<'_, DynamicImage>) -> Cow<'_, [u8]> {
    if image.color().has_color() {
        return Cow::Owned(rgb_pixels(image).as_chunks().0.iter().map(grey_of_pixel).collect());
    }
    match image {
        Cow::Borrowed(DynamicImage::ImageLuma8(image)) => Cow::Borrowed(image.as_raw()),
        Cow::Owned(DynamicImage::ImageLuma8(image)) => Cow::Owned(image.into_raw()),
        other => Cow::Owned(other.to_luma8().into_raw()),
    }
}

/// What red, green and blue are in grey.
pub(crate) fn grey_of_pixel(pixel: &[u8; 3]) -> u8 {
    let sum: u32 = pixel.iter().zip(GREY).map(|(value, weight)| u32::from(*value) * weight).sum();
    ((sum + 0x8000) >> 16) as u8
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_pixels: 89_478_485 }
    }
}

impl<'a> From<&'a Path> for Picture<'a> {
    fn from(path: &'a Path) -> Self {
        Self::File(path)
    }
}

impl<'a> From<&'a PathBuf> for Picture<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Self::File(path)
    }
}

impl<'a> From<&'a [u8]> for Picture<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Picture<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a DynamicImage> for Picture<'a> {
    fn from(image: &'a DynamicImage) -> Self {
        Self::Image(image)
    }
}

impl<'a> From<&'a Tensor> for Picture<'a> {
    fn from(pixels: &'a Tensor) -> Self {
        Self::Tensor(pixels)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::{Fit, ImageSize, Interpolation, Normalise};
    use striate_torch::peak_memory;

    /// A file that `tests/pictures/make.py` made.
    pub(crate) fn made(name: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures").join(name)).unwrap()
    }

    fn exact([channels, height, width]: [i64; 3]) -> Preprocess {
        Preprocess::new([channels, height, width], [channels, height, width], Fit::Pad, Normalise::identity()).unwrap()
    }

    /// The pixels of a picture whose size is that of `shape` (`[C, H, W]`), as Pillow lays them
    /// out: `[H, W, C]`.
    fn pixels_of<'a>(picture: impl Into<Picture<'a>>, shape: [i64; 3]) -> Result<Vec<u8>, DatasetError> {
        let mut pixels = vec![0; shape.iter().product::<i64>().unsigned_abs() as usize];
        seen(picture.into(), &exact(shape), &DecodeOptions::default())?.write(&mut pixels);
        Ok(pixels)
    }

    fn refused(bytes: &[u8]) -> String {
        let error = pixels_of(bytes, [3, 32, 48]).unwrap_err().to_string();
        assert!(error.starts_with("the picture cannot be read: ") && error.lines().count() == 1, "{error}");
        error
    }

    #[test]
    fn each_format_is_read_as_pillow_reads_it_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for end in ["bmp", "tif", "ppm", "webp", "gif"] {
            let expected = made(if end == "gif" { "small-gif.rgb" } else { "small.rgb" });
            let bytes = made(&format!("small.{end}"));
            assert_eq!(pixels_of(&bytes, [3, 5, 7]).unwrap(), expected, "{end}");
            let path = folder.path().join("picture.jpg");
            fs::write(&path, bytes).unwrap();
            assert_eq!(pixels_of(&path, [3, 5, 7]).unwrap(), expected, "{end}");
        }
    }

    #[test]
    fn grey_is_pillows() {
        assert_eq!(pixels_of(&made("small.webp"), [1, 5, 7]).unwrap(), made("small.grey"));
        assert_eq!(pixels_of(&made("photo.png"), [1, 32, 48]).unwrap(), made("photo.grey"));
        let grey = Tensor::from_slice(&[9_u8, 200]).view([1, 1, 2]);
        assert_eq!(pixels_of(&grey, [1, 1, 2]).unwrap(), [9, 200]);
        assert_eq!(pixels_of(&grey, [3, 1, 2]).unwrap(), [9, 9, 9, 200, 200, 200]);
        // Image.new("RGB", (1, 1), colour).convert("L")
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 2, 3], [250, 30, 20], [12, 200, 77]];
        for (colour, expected) in colours.into_iter().zip([76, 150, 29, 2, 95, 130]) {
            let image = DynamicImage::from(image::RgbImage::from_pixel(1, 1, image::Rgb(colour)));
            let tensor = Tensor::from_slice(&colour).view([3, 1, 1]);
            assert_eq!(pixels_of(&image, [1, 1, 1]).unwrap(), [expected], "{colour:?}");
            assert_eq!(pixels_of(&tensor, [1, 1, 1]).unwrap(), [expected], "{colour:?}");
        }
    }

    #[test]
    fn every_form_of_a_picture_gives_the_same() {
        let bytes = made("small.ppm");
        let image = image::load_from_memory(&bytes).unwrap();
        let tensor = Tensor::from_slice(&made("small.rgb")).view([5, 7, 3]).permute([2, 0, 1]);
        let size = ImageSize::ShorterSide { shorter_side: 9 };
        let normalise = Normalise { mean: vec![0.5], std: vec![0.25] };
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for channels in [1, 3] {
                let input = [channels, 8, 8];
                let preprocess = Preprocess { image: size, input, normalise: normalise.clone(), interpolation };
                let options = DecodeOptions::default();
                let first = decode_image(&bytes, &preprocess, &options).unwrap();
                assert_eq!((first.size(), first.kind()), (vec![1, channels, 8, 8], Kind::Float));
                assert_eq!(decode_image(&image, &preprocess, &options).unwrap(), first);
                assert_eq!(decode_image(&tensor, &preprocess, &options).unwrap(), first);
            }
        }
        let wrong = Tensor::zeros([2, 5, 7], (Kind::Uint8, Device::Cpu));
        assert!(pixels_of(&wrong, [3, 5, 7]).unwrap_err().to_string().contains("not [2, 5, 7] of Uint8"));
        assert!(pixels_of(&Tensor::zeros([3, 0, 7], (Kind::Uint8, Device::Cpu)), [3, 5, 7]).is_err());
    }

    #[test]
    fn a_picture_that_was_cut_off_is_told() {
        for name in
            ["photo.jpg", "progressive.jpg", "restart.jpg", "photo.png", "small.bmp", "small.tif", "small.webp", "photo.gif"]
        {
            let bytes = made(name);
            for part in [6, 7, 8] {
                let error = refused(&bytes[..bytes.len() * part / 10]);
                assert!(error.contains("cut off"), "{name} to {part}0%: {error}");
            }
        }
    }

    #[test]
    fn a_jpeg_without_its_end_or_with_more_behind_it_is_read() {
        for name in ["photo.jpg", "restart.jpg"] {
            let bytes = made(name);
            let whole = pixels_of(&bytes, [3, 32, 48]).unwrap();
            assert_eq!(pixels_of(&bytes[..bytes.len() - 2], [3, 32, 48]).unwrap(), whole, "{name}");
            let trailing = [&bytes, &b"\0more \xff after the end"[..]].concat();
            assert_eq!(pixels_of(&trailing, [3, 32, 48]).unwrap(), whole, "{name}");
        }
        assert!(pixels_of(&made("progressive.jpg"), [3, 32, 48]).is_ok());
    }

    #[test]
    fn what_is_no_picture_is_told_as_what_it_is() {
        for (bytes, told) in [
            (&b"not an image"[..], "of no format that is read (JPEG, PNG, WebP"),
            (b"", "it is empty"),
            (b"\x1f\x8b\x08\0", "compressed with gzip"),
            (b" <!DOCTYPE html>", "a web page or SVG"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC, AVIF"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "cut off"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF\0", ""),
        ] {
            let error = refused(bytes);
            assert!(error.contains(told), "{error}");
        }
        // The same colours, said to be CIELab's.
        let mut tiff = made("small.tif");
        tiff[66] = 8;
        let error = refused(&tiff);
        assert!(error.contains("it is of a kind that is not read (") && error.ends_with("such as a PNG"), "{error}");
    }

    #[test]
    fn only_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| pixels_of(path, [3, 5, 7]).unwrap_err().to_string();
        assert!(told(folder.path()).ends_with("it is a folder"));
        assert!(told(&folder.path().join("missing.png")).contains("cannot be read as an image"));
        #[cfg(unix)]
        {
            let socket = folder.path().join("new\nline.png");
            let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            let error = told(&socket);
            assert!(error.ends_with("only files are read") && error.lines().count() == 1, "{error}");
            assert!(told(Path::new("/dev/zero")).ends_with("only files are read"));
        }
    }

    #[test]
    fn too_many_pixels_are_refused_before_they_are_decoded() {
        // Python's Image.new("1", (20000, 20000)) is as small: what follows the header is never
        // read.
        let bits = png_header([20_000, 20_000], [1, 0]);
        assert!(refused(&bits).contains("20000x20000 pixels, more than the limit of 89478485"));
        assert!(refused(&png_header([65_535, 65_535], [16, 2])).contains("limit"));
        assert!(refused(&png_header([1 << 30, 1 << 30], [8, 2])).contains("more pixels than the limit"));
        let small = made("small.bmp");
        let limited = |max_pixels| decode_image(&small, &exact([3, 5, 7]), &DecodeOptions { max_pixels }).map(drop);
        assert!(limited(34).unwrap_err().to_string().contains("7x5 pixels, more than the limit of 34"));
        limited(35).unwrap();
    }

    /// A PNG with a header of this size, bits and type of colour, and no data.
    fn png_header(size: [u32; 2], colour: [u8; 2]) -> Vec<u8> {
        png(size, colour, &[], &[])
    }

    /// A PNG with more chunks before its rows.
    pub(crate) fn png([width, height]: [u32; 2], colour: [u8; 2], more: &[&[u8]], rows: &[u8]) -> Vec<u8> {
        let header = [&b"IHDR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &colour, &[0; 3]].concat();
        let rows = [&b"IDAT"[..], &zipped(rows)].concat();
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        for chunk in [&[&header[..]], more, &[&rows, b"IEND"]].concat() {
            let mut crc = flate2::Crc::new();
            crc.update(chunk);
            png.extend((chunk.len() as u32 - 4).to_be_bytes());
            png.extend(chunk);
            png.extend(crc.sum().to_be_bytes());
        }
        png
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_small_file_of_many_pixels_is_refused_unless_it_is_trusted() {
        let (width, height) = (5000, 4000);
        let flat = png([width, height], [8, 0], &[], &vec![0; ((width + 1) * height) as usize]);
        assert!(flat.len() < 100_000);
        let error = refused(&flat);
        let told = format!(
            "its 5000x4000 pixels are far more than {} bytes of a photograph have: if you trust it, raise the limit of 89478485 \
             pixels to ",
            flat.len()
        );
        assert!(error.contains(&told), "{error}");
        let enough: u64 = error.rsplit(' ').next().unwrap().parse().unwrap();
        let preprocess = exact([3, 8, 8]);
        let small = Preprocess { image: ImageSize::ShorterSide { shorter_side: 8 }, ..preprocess };
        assert!(decode_image(&flat, &small, &DecodeOptions { max_pixels: enough - 2 }).is_err());
        assert_eq!(decode_image(&flat, &small, &DecodeOptions { max_pixels: enough }).unwrap().size(), [1, 3, 8, 8]);
        // As many pixels of a photograph: more bytes, which a header can be checked with.
        let header = png_header([width, height], [8, 2]);
        let options = DecodeOptions::default();
        assert!(decoder(&header, ImageFormat::Png, 400_000, &options).is_err());
        assert!(decoder(&header, ImageFormat::Png, 500_000, &options).is_ok());
    }

    #[test]
    fn a_picture_that_is_sent_again_and_again_is_refused() {
        let jpeg = made("progressive.jpg"); // 48x32 in 10 scans
        let at = |max_pixels| decoder(&jpeg, ImageFormat::Jpeg, 1 << 20, &DecodeOptions { max_pixels }).map(drop);
        at(48 * 32).unwrap();
        let last = jpeg.windows(2).rposition(|marker| marker == [0xff, 0xda]).unwrap();
        let again = [&jpeg[..last], &jpeg[last..].repeat(4)].concat();
        let error = decoder(&again, ImageFormat::Jpeg, 1 << 20, &DecodeOptions { max_pixels: 48 * 32 }).map(drop).unwrap_err();
        assert_eq!(error, "its 48x32 pixels come in 13 scans, which take too long to read: save it anew");
    }

    #[test]
    fn metadata_unpacks_to_no_more_than_a_decoder_may_take() {
        let profile = [&b"iCCPx\0\0"[..], &zipped(&vec![0; 200_000_000])].concat();
        let (before, bomb) = (peak_memory().unwrap_or_default(), png([2, 1], [8, 0], &[&profile], &[0, 1, 2]));
        let _ = pixels_of(&bomb, [3, 1, 2]);
        assert!(
            peak_memory().unwrap_or_default() < before + 100_000_000,
            "{} before, {} after",
            before,
            peak_memory().unwrap_or_default()
        );
    }

    #[test]
    fn a_decoder_that_panics_is_an_error() {
        let error = decoding::<()>(|| panic!("index {} out of range", 7)).unwrap_err();
        assert_eq!(error, "its decoder failed (index 7 out of range)");
        // A palette of four bytes, where colours have three.
        let palette = png([1, 1], [8, 3], &[b"PLTE\0\0\0\0"], &[0, 0]);
        let error = refused(&palette);
        assert!(error.contains("its decoder failed") || error.contains("palette"), "{error}");
    }
}
