//! A contact sheet of what a network will see in training.
use crate::{Error, Run};
use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use std::io::Cursor;
use striate_datasets::image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use striate_datasets::image::imageops::{self, FilterType};
use striate_datasets::image::{ImageEncoder, Rgb, RgbImage};
use striate_datasets::{Loader, Pixels, Preview};
use striate_torch::Shown;

/// Small pictures are enlarged to at least so many pixels.
const SIDE: usize = 96;
/// The least width of a column: 16 letters of a heading.
const COLUMN: u32 = 128;
/// Pixels between pictures.
const GAP: u32 = 8;
/// A letter's width and height in pixels, and the height of a line.
const LETTER: u32 = 8;
const LINE: u32 = 11;
/// Lines under a picture, such as its class and its name.
const LINES: u32 = 2;
/// Sheets with more pixels are refused.
const MOST: u64 = 100_000_000;
const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([40; 3]);

/// What a network will see of some pictures: see [`Run::preview`].
#[derive(Debug, Clone)]
pub struct Sheet {
    /// The pictures, each with its steps into a batch.
    pub rows: Vec<Preview>,
    /// The classes' names; labels are indices into them.
    pub classes: Vec<String>,
}

impl Run<'_> {
    /// What the network will see of the first `count` pictures of the first epoch: each picture after every transform of the
    /// recipe, and as a whole in so many `epochs`. Draws are those of the run; see [`Loader::preview`]. Nothing is written, and no
    /// network is made.
    ///
    /// ```
    /// use striate::{Run, recipes};
    ///
    /// let sheet = Run::new(recipes::for_data("lenet5", "digits")?).preview(3, 4)?;
    /// let names: Vec<_> = sheet.rows[0].steps.iter().map(|step| step.name).collect();
    /// assert_eq!(names, ["picture", "affine"]);
    /// assert_eq!((sheet.rows.len(), sheet.rows[0].inputs.len()), (3, 4));
    /// let png = sheet.to_png()?;
    /// # assert!(png.starts_with(b"\x89PNG"));
    /// # Ok::<(), striate::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Whatever cannot run.
    pub fn preview(mut self, count: usize, epochs: u64) -> Result<Sheet, Error> {
        let (data, preprocess, batches) = self.seen()?;
        // What could not be drawn takes long to make.
        let [_, height, width] = preprocess.input.map(|side| side.unsigned_abs() as usize);
        let columns = batches.transforms.len() + 2 + usize::try_from(epochs).unwrap_or(usize::MAX / 2);
        Layout::new([width, height], count.min(data.train.len()), columns, LINE)?;
        let loader = Loader::new(&*data.train, preprocess, batches)?;
        Ok(Sheet { rows: loader.preview(count, epochs)?, classes: data.train.classes().to_vec() })
    }
}

impl Sheet {
    /// The sheet as a PNG file: a row for each picture with its class and its name; a column for the picture as it lies in the
    /// dataset, one for each step, and one for each epoch. Letters beyond Latin's are shown as `?`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the sheet would be too large.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        let sheet = self.draw()?;
        let mut png = Cursor::new(Vec::new());
        let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Best, PngFilter::Adaptive);
        encoder
            .write_image(sheet.as_raw(), sheet.width(), sheet.height(), striate_datasets::image::ExtendedColorType::Rgb8)
            .map_err(|error| Error::option("the sheet", format!("cannot be encoded: {error}")))?;
        Ok(png.into_inner())
    }

    fn draw(&self) -> Result<RgbImage, Error> {
        let input = self.rows.first().and_then(|row| Some(&row.inputs.first()?.picture));
        let input = input.map_or([SIDE; 2], |picture| [picture.width, picture.height]);
        let headings = self.headings();
        let lines = |heading: &String| wrapped(heading, Layout::cell(input)[0]);
        let headings: Vec<Vec<String>> = headings.iter().map(lines).collect();
        let top = GAP + LINE * headings.iter().map(Vec::len).max().unwrap_or(0) as u32;
        let Layout { cell, step, size } = Layout::new(input, self.rows.len(), headings.len(), top)?;
        let mut sheet = RgbImage::from_pixel(size[0], size[1], PAPER);
        for (column, heading) in (0..).zip(&headings) {
            for (line, text) in (0..).zip(heading) {
                write(&mut sheet, [GAP + column * step[0], GAP / 2 + line * LINE], text);
            }
        }
        for (row, preview) in (0..).zip(&self.rows) {
            let y = top + row * step[1];
            let pictures =
                preview.steps.iter().map(|step| &step.picture).chain(preview.inputs.iter().map(|input| &input.picture));
            for (column, picture) in (0..).zip(pictures) {
                let picture = fitted(picture, cell);
                imageops::replace(&mut sheet, &picture, i64::from(GAP + column * step[0]), i64::from(y));
            }
            let name = preview.place.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mixed = (preview.steps.len()..).zip(&preview.inputs).filter(|(_, input)| input.classes.len() > 1);
            let mixed = mixed.map(|(column, input)| {
                let share = |(class, share): &(i64, f64)| format!("{:.0}% {}", 100.0 * share, self.class(*class));
                (column as u32, input.classes.iter().take(LINES as usize).map(share).collect())
            });
            for (column, lines) in std::iter::once((0, vec![self.class(preview.label), name])).chain(mixed) {
                for (line, text) in (0..).zip(lines) {
                    let text: String = text.chars().take((step[0] / LETTER) as usize).collect();
                    write(&mut sheet, [GAP + column * step[0], y + cell[1] + 2 + line * LINE], &text);
                }
            }
        }
        Ok(sheet)
    }

    fn headings(&self) -> Vec<String> {
        let Some(row) = self.rows.first() else { return Vec::new() };
        let epochs = (1..=row.inputs.len()).map(|epoch| format!("epoch {epoch}"));
        row.steps.iter().map(|step| step.name.to_owned()).chain(epochs).collect()
    }

    fn class(&self, label: i64) -> String {
        let name = usize::try_from(label).ok().and_then(|label| self.classes.get(label));
        name.map_or_else(|| label.to_string(), |name| Shown(name).to_string())
    }
}

/// Where things stand on a sheet, in pixels: widths and heights.
struct Layout {
    /// Room for a picture.
    cell: [u32; 2],
    /// From one picture to the next.
    step: [u32; 2],
    /// The sheet.
    size: [u32; 2],
}

impl Layout {
    /// For inputs of this size, and headings of this height.
    fn new(input: [usize; 2], rows: usize, columns: usize, top: u32) -> Result<Self, Error> {
        let cell = Self::cell(input);
        let step = [cell[0].max(COLUMN).saturating_add(GAP), cell[1].saturating_add(LINES * LINE + GAP)];
        let size = [(columns, step[0], GAP), (rows, step[1], top)];
        let [wide, high] =
            size.map(|(count, step, more)| (count as u64).saturating_mul(u64::from(step)).saturating_add(u64::from(more)));
        if wide.saturating_mul(high) > MOST {
            let reason = format!("would have {wide}x{high} pixels, more than {MOST}: take fewer pictures or epochs");
            return Err(Error::option("the sheet", reason));
        }
        Ok(Self { cell, step, size: [wide as u32, high as u32] })
    }

    fn cell([width, height]: [usize; 2]) -> [u32; 2] {
        let zoom = SIDE.div_ceil(width.min(height).max(1));
        [width, height].map(|side| u32::try_from(side * zoom).unwrap_or(u32::MAX))
    }
}

/// A heading in lines that a column has room for, parted after hyphens.
fn wrapped(heading: &str, width: u32) -> Vec<String> {
    let room = (width.max(COLUMN) / LETTER) as usize;
    let mut lines = vec![String::new()];
    for part in heading.split_inclusive('-') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.len() + part.len() <= room => *line += part,
            _ => lines.push(part.to_owned()),
        }
    }
    lines
}

/// A picture within a cell: small ones pixel by pixel in whole multiples, large ones made smaller.
fn fitted(picture: &Pixels<'_>, [width, height]: [u32; 2]) -> RgbImage {
    let pixel = |index: usize| match picture.channels {
        3 => Rgb([picture.data[3 * index], picture.data[3 * index + 1], picture.data[3 * index + 2]]),
        channels => Rgb([picture.data[channels * index]; 3]),
    };
    let [wide, high] = [picture.width, picture.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX).max(1));
    let image = RgbImage::from_fn(wide, high, |x, y| pixel(y as usize * picture.width + x as usize));
    let zoom = (width / wide).min(height / high);
    if zoom > 0 {
        return RgbImage::from_fn(wide * zoom, high * zoom, |x, y| *image.get_pixel(x / zoom, y / zoom));
    }
    let scale = (f64::from(width) / f64::from(wide)).min(f64::from(height) / f64::from(high));
    let [wide, high] = [wide, high].map(|side| ((f64::from(side) * scale) as u32).max(1));
    imageops::resize(&image, wide, high, FilterType::Triangle)
}

/// Writes a line of text from its upper left corner on.
fn write(sheet: &mut RgbImage, [left, top]: [u32; 2], text: &str) {
    for (column, letter) in (0..).zip(text.chars()) {
        let glyph = BASIC_FONTS.get(letter).or_else(|| LATIN_FONTS.get(letter)).or_else(|| BASIC_FONTS.get('?'));
        for (y, row) in (top..).zip(glyph.unwrap_or_default()) {
            for bit in (0..LETTER).filter(|bit| row >> bit & 1 == 1) {
                if let Some(pixel) = sheet.get_pixel_mut_checked(left + column * LETTER + bit, y) {
                    *pixel = INK;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_parted_after_hyphens() {
        assert_eq!(wrapped("random-resized-crop", 96), ["random-resized-", "crop"]);
        assert_eq!(wrapped("random-resized-crop", 224), ["random-resized-crop"]);
        assert_eq!(wrapped("epoch 1", 96), ["epoch 1"]);
    }

    #[test]
    fn letters_are_those_of_the_font() {
        let mut sheet = RgbImage::from_pixel(16, 8, PAPER);
        write(&mut sheet, [0, 0], "T猫");
        let row = |y| (0..16).map(|x| if *sheet.get_pixel(x, y) == INK { '#' } else { '.' }).collect::<String>();
        // The public-domain 8x8 font: T, and ? for what is not in it.
        assert_eq!([row(0), row(1), row(6)], ["######...####...", "#.##.#..##..##..", ".####.....##...."]);
        write(&mut sheet, [12, 4], "beyond the edge");
    }
}
