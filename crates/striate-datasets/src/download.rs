//! Downloads of a dataset's files into its folder in the cache.

use crate::catalogue::{Checksum, IdxSource, Origin, Package};
use crate::source::{Places, Progress, file_in};
use crate::{DatasetError, package};
use flate2::read::MultiGzDecoder;
use md5::{Digest, Md5};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use striate_fetch::{Download, FetchError, sha256_reader};
use striate_torch::write_atomically;

/// Fills `folder` with those files of `source` that it lacks.
pub(crate) fn files(
    name: &'static str,
    source: &IdxSource,
    places: &Places,
    folder: &Path,
    progress: Progress,
) -> Result<(), DatasetError> {
    match &source.origin {
        Origin::Files { mirrors, checksums } => {
            for (file, checksum) in source.files().iter().zip(checksums) {
                if file_in(folder, file).is_some() {
                    continue;
                }
                let file = format!("{file}.gz");
                let urls = mirrors.iter().map(|mirror| format!("{mirror}{file}"));
                let urls = own_mirror(places, source, &file).into_iter().chain(urls).collect();
                match first_that_gives(urls, &folder.join(&file), *checksum, progress)? {
                    Ok(()) => {}
                    Err(reasons) => return from_package(name, source, checksums, folder, file, reasons),
                }
            }
            Ok(())
        }
        Origin::Archive { urls, file, checksum } => {
            let archive = folder.join(file);
            let urls = urls.iter().map(|url| (*url).to_owned());
            let urls = own_mirror(places, source, file).into_iter().chain(urls).collect();
            match first_that_gives(urls, &archive, *checksum, progress)? {
                Ok(()) => unpack(&archive, folder),
                Err(reasons) => Err(DatasetError::Unavailable { name, file: (*file).to_owned(), reasons }),
            }
        }
    }
}

fn own_mirror(places: &Places, source: &IdxSource, file: &str) -> Option<String> {
    places.mirror.as_ref().map(|mirror| format!("{mirror}{}/{file}", source.folder))
}

/// Downloads `dest` from the first address that gives it with its checksum; else says why each did not. The outer error is one
/// that no other address would mend, such as a full disk.
fn first_that_gives(
    urls: Vec<String>,
    dest: &Path,
    checksum: Checksum,
    progress: Progress,
) -> Result<Result<(), Vec<DatasetError>>, DatasetError> {
    let name = dest.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Only a file that passed its checksum gets its name.
    let unverified = dest.with_file_name(format!(".{name}.unverified"));
    let mut reasons = Vec::new();
    for url in urls {
        tracing::info!("downloading {url}");
        let download = Download::new([url.as_str()], &unverified);
        match download.fetch(&mut |done, total| progress(&name, done, total)) {
            Ok(()) => {}
            Err(error @ (FetchError::DiskFull { .. } | FetchError::Io { .. } | FetchError::NoCacheDir)) => {
                return Err(error.into());
            }
            Err(error) => {
                reasons.push(error.into());
                continue;
            }
        }
        match verify(&unverified, &url, checksum) {
            Ok(()) => {
                std::fs::rename(&unverified, dest).map_err(|error| DatasetError::io("write", dest, error))?;
                return Ok(Ok(()));
            }
            Err(error) => {
                std::fs::remove_file(&unverified).map_err(|error| DatasetError::io("remove", &unverified, error))?;
                reasons.push(error);
            }
        }
    }
    Ok(Err(reasons))
}

/// Takes all files from the system's package, after the mirrors failed for `reasons`.
fn from_package(
    name: &'static str,
    source: &IdxSource,
    checksums: &[Checksum; 4],
    folder: &Path,
    file: String,
    mut reasons: Vec<DatasetError>,
) -> Result<(), DatasetError> {
    let install = |package: Package| -> Result<(), DatasetError> {
        let unpacked = package::unpack(package, folder)?;
        for (file, checksum) in source.files().iter().zip(checksums) {
            let (from, to) = (unpacked.path().join(package.folder).join(format!("{file}.gz")), folder.join(format!("{file}.gz")));
            verify(&from, package.name, *checksum)?;
            std::fs::rename(&from, &to).map_err(|error| DatasetError::io("write", &to, error))?;
        }
        Ok(())
    };
    match source.package.map(install) {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) => reasons.push(error),
        None => {}
    }
    Err(DatasetError::Unavailable { name, file, reasons })
}

/// Fails if the file, which came `from` somewhere, has another checksum.
fn verify(path: &Path, from: &str, checksum: Checksum) -> Result<(), DatasetError> {
    let io = |error| DatasetError::io("read", path, error);
    let file = File::open(path).map_err(io)?;
    let (kind, expected, actual) = match checksum {
        Checksum::Md5(expected) => ("MD5", expected, md5_reader(file).map_err(io)?),
        // What is no gzip file has no content, and so another checksum.
        Checksum::ContentSha256(expected) => {
            let actual = sha256_reader(MultiGzDecoder::new(BufReader::new(file)));
            ("SHA-256", expected, actual.unwrap_or_else(|error| format!("of no gzip file ({error})")))
        }
    };
    if actual == expected {
        return Ok(());
    }
    Err(DatasetError::WrongChecksum { from: from.to_owned(), kind, expected: expected.to_owned(), actual })
}

fn md5_reader(mut reader: impl Read) -> std::io::Result<String> {
    let mut digest = Md5::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// Unpacks all IDX files of a zip archive into `folder`, whatever folder they have in it, and removes the archive.
fn unpack(archive: &Path, folder: &Path) -> Result<(), DatasetError> {
    let damaged = |error: zip::result::ZipError| DatasetError::DamagedCache { path: archive.into(), reason: error.to_string() };
    let file = File::open(archive).map_err(|error| DatasetError::io("read", archive, error))?;
    let mut zip = zip::ZipArchive::new(file).map_err(damaged)?;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(damaged)?;
        let name = entry.enclosed_name().and_then(|path| path.file_name().map(|name| name.to_owned()));
        if let Some(name) = name.filter(|name| name.to_string_lossy().ends_with("-ubyte.gz")) {
            write_atomically(&folder.join(name), |path| std::io::copy(&mut entry, &mut File::create(path)?).map(|_| ()))?;
        }
    }
    std::fs::remove_file(archive).map_err(|error| DatasetError::io("remove", archive, error))
}
