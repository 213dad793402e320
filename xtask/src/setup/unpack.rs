//! Unpacking ZIP archives, which Python's wheels are too.

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use striate_fetch::FetchError;
use zip::ZipArchive;

use super::progress_bar;

/// Unpacks those files of `archive` for which `place` gives a path under `folder`. Each file's CRC is checked.
pub(super) fn unpack(archive: &Path, folder: &Path, place: impl Fn(&Path) -> Option<PathBuf>) -> Result<()> {
    let mut zip = open(archive)?;
    let mut files = Vec::new();
    let mut total = 0;
    for index in 0..zip.len() {
        let file = zip.by_index(index)?;
        let dest = file.enclosed_name().filter(|_| file.is_file()).and_then(|name| place(&name));
        if let Some(dest) = dest {
            total += file.size();
            files.push((index, folder.join(dest)));
        }
    }
    if files.is_empty() {
        bail!("{} holds nothing of what is expected", archive.display());
    }
    let bar = progress_bar("unpacking", total)?;
    let unpacked = files.iter().try_for_each(|(index, dest)| unpack_file(&mut zip, *index, dest, &bar));
    bar.finish_and_clear();
    match unpacked {
        // A damaged archive must not be found again.
        Err(error) if !error.is::<FetchError>() => {
            fs::remove_file(archive)?;
            Err(error).with_context(|| format!("{} is damaged and was removed: run the command again", archive.display()))
        }
        unpacked => unpacked,
    }
}

fn unpack_file(zip: &mut Zip, index: usize, dest: &Path, bar: &ProgressBar) -> Result<()> {
    let mut input = zip.by_index(index)?;
    let mut buffer = vec![0; 1 << 16];
    // The archive's fault, unlike the disk's.
    let mut damage = None;
    let written = striate_files::write_new(dest, |output| {
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    output.write_all(&buffer[..count])?;
                    bar.inc(count as u64);
                }
                Err(error) => {
                    damage = Some(error);
                    return Ok(());
                }
            }
        }
    });
    written.map_err(FetchError::from)?;
    damage.map_or(Ok(()), |error| Err(error.into()))
}

/// The text of the first file of `archive` whose name ends with `suffix`.
pub(super) fn read_text(archive: &Path, suffix: &str) -> Result<String> {
    let mut zip = open(archive)?;
    for index in 0..zip.len() {
        let mut file = zip.by_index(index)?;
        if file.name()?.ends_with(suffix) {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            return Ok(text);
        }
    }
    bail!("{} holds no {suffix}", archive.display())
}

type Zip = ZipArchive<BufReader<File>>;

fn open(archive: &Path) -> Result<Zip> {
    let file = striate_files::open(archive).map_err(FetchError::from)?;
    match ZipArchive::new(BufReader::new(file)) {
        Ok(zip) => Ok(zip),
        Err(error) => {
            fs::remove_file(archive)?;
            Err(error).with_context(|| format!("{} is damaged and was removed: run the command again", archive.display()))
        }
    }
}
