//! Downloads of a dataset's files into its folder in the cache.

use crate::catalogue::{Checksum, IdxSource, Origin, Package};
use crate::source::{Places, Progress, files_in};
use crate::{DatasetError, package};
use flate2::read::MultiGzDecoder;
use md5::{Digest, Md5};
use std::io::{BufReader, Read};
use std::path::Path;
use striate_fetch::{Download, sha256_reader};

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
                if !files_in(folder, source, file).is_empty() {
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
            // An earlier process may have been stopped while it unpacked.
            if verify(&archive, file, *checksum).is_ok() {
                return unpack(&archive, folder);
            }
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
            Err(error) if error.is_local() => return Err(error.into()),
            Err(error) => {
                reasons.push(error.into());
                continue;
            }
        }
        match verify(&unverified, &url, checksum) {
            Ok(()) => {
                striate_files::finish(&unverified, dest)?;
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
            striate_files::finish(&from, &to)?;
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
    let file = striate_files::open(path)?;
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
    let file = striate_files::open(archive)?;
    let mut zip = zip::ZipArchive::new(file).map_err(damaged)?;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(damaged)?;
        let name = entry.enclosed_name().and_then(|path| path.file_name().map(|name| name.to_owned()));
        if let Some(name) = name.filter(|name| name.to_string_lossy().ends_with("-ubyte.gz")) {
            striate_files::write(&folder.join(name), |file| std::io::copy(&mut entry, file).map(drop))?;
        }
    }
    std::fs::remove_file(archive).map_err(|error| DatasetError::io("remove", archive, error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::source::tests::write_files;
    use crate::source::{LoadOptions, load, obtain};
    use std::fs::File;
    use std::io::{BufRead, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst};

    /// An HTTP server of the files in a folder; it ends with the test.
    struct Server {
        folder: tempfile::TempDir,
        url: String,
        requests: Arc<AtomicUsize>,
    }

    impl Server {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let requests = Arc::new(AtomicUsize::new(0));
            let (root, count) = (folder.path().to_owned(), requests.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let lines = BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
                    let request: Vec<String> = lines.collect();
                    let path = request[0].split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
                    count.fetch_add(1, SeqCst);
                    let (status, body) = match std::fs::read(root.join(path)) {
                        Ok(body) => ("200 OK", body),
                        Err(_) => ("404 Not Found", Vec::new()),
                    };
                    let length = body.len();
                    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").unwrap();
                    stream.write_all(&body).unwrap();
                }
            });
            Self { folder, url, requests }
        }

        fn requests(&self) -> usize {
            self.requests.load(SeqCst)
        }
    }

    fn leak(text: String) -> &'static str {
        Box::leak(text.into_boxed_str())
    }

    fn md5_of(path: &Path) -> Checksum {
        Checksum::Md5(leak(md5_reader(File::open(path).unwrap()).unwrap()))
    }

    /// A dataset like MNIST whose checksums are those of the files in `server`, which are written first.
    fn source(server: &Server, mirrors: &'static [&'static str]) -> IdxSource {
        let origin = Origin::Files { mirrors, checksums: [Checksum::Md5(""); 4] };
        let mut source =
            IdxSource { folder: "mnist", parts: ["train", "t10k"], origin, package: None, transposed: false, first_label: 0 };
        let folder = server.folder.path().join("mnist");
        write_files(&folder, &source, ".gz");
        let checksums = source.files().map(|file| md5_of(&folder.join(file + ".gz")));
        source.origin = Origin::Files { mirrors, checksums };
        source
    }

    fn places(folder: &tempfile::TempDir, server: &Server) -> Places {
        let path = folder.path();
        Places { cache: path.join("cache"), system: path.join("system"), mirror: Some(server.url.clone()) }
    }

    #[test]
    fn a_mirror_fills_the_cache_once() {
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        let (source, places) = (source(&server, &[]), places(&home, &server));
        let mut told = Vec::new();
        let folder = obtain("mnist", &source, &places, &mut |file, done, total| {
            if Some(done) == total {
                told.push(file.to_owned());
            }
            true
        });
        let folder = folder.unwrap();
        assert_eq!(told.first().map(String::as_str), Some("train-images-idx3-ubyte.gz"));
        assert_eq!(
            load("mnist", &LoadOptions { root: Some(folder.clone()), ..LoadOptions::default() }).unwrap().test.labels().numel(),
            2
        );
        assert_eq!(server.requests(), 4);
        std::fs::remove_file(folder.join("t10k-labels-idx1-ubyte.gz")).unwrap();
        for _ in 0..2 {
            obtain("mnist", &source, &places, &mut |_, _, _| true).unwrap();
        }
        assert_eq!(server.requests(), 5, "only what is missing is downloaded");
    }

    #[test]
    fn a_wrong_file_is_removed_and_the_next_mirror_asked() {
        let (bad, good, home) = (Server::start(), Server::start(), tempfile::tempdir().unwrap());
        let other_names: &'static [&'static str] = Box::leak(Box::new([leak(format!("{}mnist/", good.url))]));
        let (alone, both) = (source(&good, &[]), source(&good, other_names));
        for file in both.files() {
            std::fs::create_dir_all(bad.folder.path().join("mnist")).unwrap();
            std::fs::write(bad.folder.path().join(format!("mnist/{file}.gz")), "<html>").unwrap();
        }
        let places = places(&home, &bad);
        let error = obtain("mnist", &alone, &places, &mut |_, _, _| true).unwrap_err().to_string();
        assert!(error.starts_with("no source gave train-images-idx3-ubyte.gz of mnist (http://127.0.0.1:"), "{error}");
        assert!(error.contains("has the MD5") && error.contains("set STRIATE_MIRROR") && !error.contains('\n'), "{error}");
        assert_eq!(std::fs::read_dir(places.cache.join("mnist")).unwrap().count(), 0, "nothing wrong is kept");
        let folder = obtain("mnist", &both, &places, &mut |_, _, _| true).unwrap();
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 4);
    }

    #[test]
    fn a_mirror_without_the_file_is_told() {
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        let source = source(&server, &[]);
        std::fs::remove_dir_all(server.folder.path().join("mnist")).unwrap();
        let error = obtain("mnist", &source, &places(&home, &server), &mut |_, _, _| true).unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("check the network"), "{error}");
        assert_eq!(server.requests(), 1, "the other files are not asked for");
    }

    #[test]
    fn an_archive_is_unpacked_and_removed() {
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        let mut source = source(&server, &[]);
        let zip_path = server.folder.path().join("mnist/all.zip");
        let mut zip = zip::ZipWriter::new(File::create(&zip_path).unwrap());
        for file in source.files() {
            zip.start_file(format!("gzip/{file}.gz"), zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(&std::fs::read(server.folder.path().join(format!("mnist/{file}.gz"))).unwrap()).unwrap();
        }
        zip.start_file("../escape", zip::write::SimpleFileOptions::default()).unwrap();
        zip.finish().unwrap();
        source.origin = Origin::Archive { urls: &[], file: "all.zip", checksum: md5_of(&zip_path) };
        let places = places(&home, &server);
        // A damaged archive is downloaded anew; a sound one, left by a process that was stopped, is not.
        let left = places.cache.join("mnist/all.zip");
        std::fs::create_dir_all(left.parent().unwrap()).unwrap();
        std::fs::write(&left, "half").unwrap();
        obtain("mnist", &source, &places, &mut |_, _, _| true).unwrap();
        assert_eq!(server.requests(), 1);
        std::fs::remove_dir_all(left.parent().unwrap()).unwrap();
        std::fs::create_dir_all(left.parent().unwrap()).unwrap();
        std::fs::copy(&zip_path, &left).unwrap();
        let folder = obtain("mnist", &source, &places, &mut |_, _, _| true).unwrap();
        assert_eq!(server.requests(), 1);
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let mut expected = source.files().map(|file| std::ffi::OsString::from(file + ".gz"));
        names.sort();
        expected.sort();
        assert_eq!(names, expected);
        assert_eq!(
            load("mnist", &LoadOptions { root: Some(folder), ..LoadOptions::default() }).unwrap().train.labels().numel(),
            3
        );
    }

    #[test]
    fn a_content_checksum_does_not_depend_on_the_compression() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gz");
        // SHA-256 of "abc": FIPS 180-2, appendix B.1
        let abc = Checksum::ContentSha256("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for level in [0, 9] {
            let mut encoder = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::new(level));
            encoder.write_all(b"abc").unwrap();
            encoder.finish().unwrap();
            verify(&path, "here", abc).unwrap();
        }
        std::fs::write(&path, "abc").unwrap();
        let error = verify(&path, "here", abc).unwrap_err().to_string();
        assert!(error.starts_with("here has the SHA-256 of no gzip file"), "{error}");
    }

    #[test]
    fn md5_is_that_of_the_standard() {
        // RFC 1321, appendix A.5
        assert_eq!(md5_reader(&b"abc"[..]).unwrap(), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn whichever_operation_of_the_disk_fails_the_next_download_is_whole() {
        use striate_files::{faults_done, inject_fault};
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        let (source, places) = (source(&server, &[]), places(&home, &server));
        for number in 1.. {
            let _ = std::fs::remove_dir_all(&places.cache);
            inject_fault(number, false);
            let ended = obtain("mnist", &source, &places, &mut |_, _, _| true);
            let failed = faults_done();
            inject_fault(0, false);
            match ended {
                Ok(_) if failed == 0 => return assert!(number > 20, "{number}"),
                Ok(_) => {}
                Err(error) => assert!(!error.is_failure(), "the disk is the user's: {error}"),
            }
            let folder = obtain("mnist", &source, &places, &mut |_, _, _| true).unwrap();
            assert_eq!(
                load("mnist", &LoadOptions { root: Some(folder.clone()), ..LoadOptions::default() })
                    .unwrap()
                    .train
                    .labels()
                    .numel(),
                3
            );
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), 4, "{number}");
        }
    }
}
