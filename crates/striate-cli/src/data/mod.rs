//! `data`: fetches datasets, lists them, or writes some of their images; looks at data, splits and packs them.
pub(crate) mod args;
#[cfg(feature = "lab")]
mod check;
mod pack;
mod preview;
mod split;

use self::args::{DataArgs, DataCommand};
use crate::error::CliError;
use crate::output::{counted, new_or_empty};
use crate::{print, progress};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::path::Path;
use striate_datasets::{Dataset, LoadOptions, catalogue, fetch, load_with};
use striate_torch::Shown;

pub(crate) fn data(args: &DataArgs) -> Result<(), CliError> {
    match &args.command {
        None => {}
        #[cfg(feature = "lab")]
        Some(DataCommand::Check(args)) => return check::check(args),
        #[cfg(not(feature = "lab"))]
        Some(DataCommand::Check(_)) => return Err(crate::left_out("data check")),
        Some(DataCommand::Preview(args)) => return preview::preview(args),
        Some(DataCommand::Split(args)) => return split::split_folder(args),
        Some(DataCommand::Pack(args)) => return pack::pack(args),
    }
    if args.names.is_empty() {
        let mut text = format!("{:16}  {:>8}  {:>7}  {:>8}  licence\n", "dataset", "training", "test", "download");
        for entry in catalogue() {
            let ([train, test], download) = (entry.examples, entry.availability());
            text += &format!("{:16}  {train:>8}  {test:>7}  {download:>8}  {}\n", entry.name, entry.licence);
        }
        return print(&text);
    }
    if let Some(folder) = &args.pictures {
        let [name] = args.names.as_slice() else {
            return Err(CliError::Usage("--pictures takes one dataset".to_owned()));
        };
        return pictures(name, folder, args.count);
    }
    for name in &args.names {
        let bar = progress::Download::new();
        let folder = fetch(name, &mut |file, done, total| bar.update(file, done, total))?;
        match folder {
            Some(folder) => print(&format!("{name}: {}\n", Shown(folder.display())))?,
            None => print(&format!("{name}: built in\n"))?,
        }
    }
    Ok(())
}

/// Writes the first test images as `00.png`, `01.png`, ...
fn pictures(name: &str, folder: &Path, count: usize) -> Result<(), CliError> {
    new_or_empty(folder, "--pictures")?;
    let bar = progress::Download::new();
    let loaded = load_with(name, &LoadOptions::default(), &mut |file, done, total| bar.update(file, done, total))?;
    let test = loaded.in_memory()?.test;
    drop(bar);
    let images = test.images().f_narrow(0, 0, count.min(test.len()) as i64)?;
    let (count, channels, height, width) = images.size4()?;
    let digits = (count - 1).to_string().len().max(2);
    let colour = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    // It stays, empty, if the disk cannot hold the pictures.
    striate_files::create_folder(folder)?;
    striate_files::fill_folder(folder, |filled| -> Result<(), CliError> {
        for number in 0..count {
            let pixels = images.f_get(number)?.f_permute([1, 2, 0])?.f_contiguous()?.f_view(-1)?;
            let mut png = Vec::new();
            PngEncoder::new(&mut png)
                .write_image(&Vec::<u8>::try_from(pixels)?, width as u32, height as u32, colour)
                .map_err(|error| CliError::Failed(format!("a picture: {error}")))?;
            striate_files::write_new(&filled.join(format!("{number:0digits$}.png")), |file| file.write_all(&png))?;
        }
        Ok(())
    })?;
    print(&format!("{name}: {} in {}\n", counted(count, "picture"), Shown(folder.display())))
}
