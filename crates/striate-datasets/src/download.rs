//! Downloads of a dataset's files into its folder in the cache.

use crate::catalogue::{Checksum, Entry, Origin, Package};
use crate::source::{Places, Progress};
use crate::{DatasetError, package, unpack};
use flate2::read::MultiGzDecoder;
use md5::{Digest, Md5};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use striate_fetch::{Download, sha256_reader};

/// Fills `folder`, which is the entry's in the cache, with the files that it lacks.
pub(crate) fn fill(entry: &'static Entry, places: &Places, folder: &Path, progress: Progress) -> Result<(), DatasetError> {
    match &entry.origin {
        Origin::Embedded | Origin::ByHand => Ok(()),
        Origin::Files { mirrors, files, package, .. } => {
            striate_files::create_folder(folder)?;
            for (file, checksum) in *files {
                let dest = folder.join(file);
                if dest.metadata().is_ok_and(|file| file.len() > 0) {
                    continue;
                }
                let urls = mirrors.iter().map(|mirror| format!("{mirror}{file}"));
                match first_that_gives(with_own_mirror(places, entry, file, urls), &dest, *checksum, progress)? {
                    Ok(()) => {}
                    Err(reasons) => return from_package(entry, *package, files, folder, file, reasons),
                }
            }
            Ok(())
        }
        Origin::Archive { urls, file, checksum, .. } => {
            let archive = places.cache.join(file);
            // It may have been put there by hand, or an earlier process was stopped while it
            // unpacked.
            let there = archive.exists().then(|| verify(&archive, file, *checksum));
            if !matches!(there, Some(Ok(()))) {
                let urls = urls.iter().map(|url| (*url).to_owned());
                let urls = with_own_mirror(places, entry, file, urls);
                first_that_gives(urls, &archive, *checksum, progress)?.map_err(|reasons| {
                    let wrong = there.and_then(Result::err).map(|error| put_by_hand(error, &archive));
                    unavailable(entry, file, archive.clone(), wrong.into_iter().chain(reasons).collect())
                })?;
            }
            let is_whole = |unpacked: &Path| entry.format.find(entry, unpacked).map(drop);
            unpack::archive(&archive, folder, is_whole, progress)?;
            std::fs::remove_file(&archive).map_err(|error| DatasetError::io("remove", &archive, error))
        }
    }
}

/// The addresses, after that of the user's own mirror.
fn with_own_mirror(places: &Places, entry: &Entry, file: &str, urls: impl Iterator<Item = String>) -> Vec<String> {
    let own = places.mirror.as_ref().map(|mirror| format!("{mirror}{}/{file}", entry.folder));
    own.into_iter().chain(urls).collect()
}

/// The same error for a file that was there before, and stays.
fn put_by_hand(error: DatasetError, path: &Path) -> DatasetError {
    match error {
        DatasetError::WrongChecksum { kind, expected, actual, .. } => {
            DatasetError::OtherFile { path: path.into(), kind, expected, actual }
        }
        other => other,
    }
}

fn unavailable(entry: &'static Entry, file: &str, put: PathBuf, reasons: Vec<DatasetError>) -> DatasetError {
    DatasetError::Unavailable { name: entry.name, file: file.to_owned(), put, reasons }
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
    entry: &'static Entry,
    package: Option<Package>,
    files: &[(&str, Checksum)],
    folder: &Path,
    missing: &str,
    mut reasons: Vec<DatasetError>,
) -> Result<(), DatasetError> {
    let install = |package: Package| -> Result<(), DatasetError> {
        let unpacked = package::unpack(package, folder)?;
        for (file, checksum) in files {
            let from = unpacked.path().join(package.folder).join(file);
            verify(&from, package.name, *checksum)?;
            striate_files::finish(&from, &folder.join(file))?;
        }
        Ok(())
    };
    match package.map(install) {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) => reasons.push(error),
        None => {}
    }
    Err(unavailable(entry, missing, folder.join(missing), reasons))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalogue::Classes;
    use crate::formats::Mnist;
    use crate::formats::tests::write_mnist;
    use crate::source::{self, LoadOptions, load};
    use crate::{Split, unpack};
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

    /// A dataset like MNIST that comes from `origin`.
    fn entry(origin: Origin) -> &'static Entry {
        Box::leak(Box::new(Entry {
            name: "mnist",
            title: "",
            examples: [3, 2],
            shape: None,
            homepage: "",
            licence: "",
            citation: "",
            mirrors: false,
            folder: "mnist",
            places: &["gzip"],
            classes: Classes::Names("0,1,2"),
            statistics: None,
            origin,
            format: &Mnist::MNIST,
        }))
    }

    /// A dataset like MNIST whose checksums are those of the files in `server`, which are written first.
    fn source(server: &Server, mirrors: &'static [&'static str]) -> &'static Entry {
        let folder = server.folder.path().join("mnist");
        write_mnist(&folder, &Mnist::MNIST, ".gz");
        let files = Mnist::MNIST.files().map(|file| {
            let file = leak(file + ".gz");
            (file, md5_of(&folder.join(file)))
        });
        entry(Origin::Files { mirrors, files: Box::leak(Box::new(files)), package: None, megabytes: 1 })
    }

    /// A dataset like MNIST in an archive of `server`.
    fn archived(server: &Server, file: &'static str) -> &'static Entry {
        let checksum = md5_of(&server.folder.path().join("mnist").join(file));
        entry(Origin::Archive { urls: &[], file, checksum, megabytes: 1 })
    }

    fn obtain(entry: &'static Entry, places: &Places) -> Result<PathBuf, DatasetError> {
        source::obtain(entry, places, &mut |_, _, _| true)
    }

    fn split(folder: &Path) -> Split {
        let unpacked = folder.join("gzip");
        let root = if unpacked.is_dir() { &unpacked } else { folder };
        load("mnist", &LoadOptions { root: Some(root.into()), ..LoadOptions::default() }).unwrap().in_memory().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn places(folder: &tempfile::TempDir, server: &Server) -> Places {
        let path = folder.path();
        Places { cache: path.join("cache"), system: path.join("system"), mirror: Some(server.url.clone()) }
    }

    #[test]
    fn a_mirror_fills_the_cache_once() {
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        let (entry, places) = (source(&server, &[]), places(&home, &server));
        let mut told = Vec::new();
        let folder = source::obtain(entry, &places, &mut |file, done, total| {
            if Some(done) == total {
                told.push(file.to_owned());
            }
            true
        });
        let folder = folder.unwrap();
        assert_eq!(told.first().map(String::as_str), Some("train-images-idx3-ubyte.gz"));
        assert_eq!(split(&folder).test.labels().numel(), 2);
        assert_eq!(server.requests(), 4);
        std::fs::remove_file(folder.join("t10k-labels-idx1-ubyte.gz")).unwrap();
        for _ in 0..2 {
            obtain(entry, &places).unwrap();
        }
        assert_eq!(server.requests(), 5, "only what is missing is downloaded");
    }

    #[test]
    fn a_wrong_file_is_removed_and_the_next_mirror_asked() {
        let (bad, good, home) = (Server::start(), Server::start(), tempfile::tempdir().unwrap());
        let other_names: &'static [&'static str] = Box::leak(Box::new([leak(format!("{}mnist/", good.url))]));
        let (alone, both) = (source(&good, &[]), source(&good, other_names));
        for file in Mnist::MNIST.files() {
            std::fs::create_dir_all(bad.folder.path().join("mnist")).unwrap();
            std::fs::write(bad.folder.path().join(format!("mnist/{file}.gz")), "<html>").unwrap();
        }
        let places = places(&home, &bad);
        let error = obtain(alone, &places).unwrap_err().to_string();
        assert!(error.starts_with("no source gave train-images-idx3-ubyte.gz of mnist (http://127.0.0.1:"), "{error}");
        assert!(error.contains("has the MD5") && error.contains("set STRIATE_MIRROR") && !error.contains('\n'), "{error}");
        assert_eq!(names(&places.cache.join("mnist")), [""; 0], "nothing wrong is kept");
        assert_eq!(names(&obtain(both, &places).unwrap()).len(), 4);
    }

    #[test]
    fn a_file_that_no_mirror_has_can_be_put_there_by_hand() {
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        let (entry, places) = (source(&server, &[]), places(&home, &server));
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::rename(server.folder.path().join("mnist"), elsewhere.path().join("mnist")).unwrap();
        let error = obtain(entry, &places).unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("check the network"), "{error}");
        assert_eq!(server.requests(), 1, "the other files are not asked for");
        let put = places.cache.join("mnist/train-images-idx3-ubyte.gz");
        assert!(error.ends_with(&format!("or save it as {} yourself", put.display())), "{error}");
        for file in names(&elsewhere.path().join("mnist")) {
            std::fs::copy(elsewhere.path().join("mnist").join(&file), put.with_file_name(&file)).unwrap();
        }
        assert_eq!(split(&obtain(entry, &places).unwrap()).train.labels().numel(), 3);
    }

    #[test]
    fn a_wrong_archive_that_was_put_there_by_hand_is_told() {
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        let archive = write_archive(&server, "all.zip", None);
        let (entry, places) = (archived(&server, "all.zip"), places(&home, &server));
        std::fs::remove_file(archive).unwrap();
        let put = places.cache.join("all.zip");
        std::fs::create_dir_all(&places.cache).unwrap();
        std::fs::write(&put, "abc").unwrap();
        let error = obtain(entry, &places).unwrap_err();
        let told = error.to_string();
        // RFC 1321, appendix A.5
        let wrong = format!("({} is another file: its MD5 is 900150983cd24fb0d6963f7d28e17f72 and not ", put.display());
        assert!(told.starts_with("no source gave all.zip of mnist ") && told.contains(&wrong) && told.contains("404"), "{told}");
        assert!(!error.is_failure() && std::fs::read(put).unwrap() == b"abc");
    }

    /// Writes an archive of `server` with these files in a folder `gzip`, and one with an odd path
    /// if there is one.
    fn write_archive(server: &Server, name: &str, odd: Option<&str>) -> PathBuf {
        let (from, to) = (server.folder.path().join("mnist"), server.folder.path().join("mnist").join(name));
        write_mnist(&from, &Mnist::MNIST, ".gz");
        let files = Mnist::MNIST.files().map(|file| (format!("gzip/{file}.gz"), std::fs::read(from.join(file + ".gz")).unwrap()));
        let files = files.into_iter().chain(odd.map(|path| (path.to_owned(), b"odd".to_vec())));
        if name.ends_with(".zip") {
            let mut zip = zip::ZipWriter::new(File::create(&to).unwrap());
            for (path, content) in files {
                zip.start_file(path, zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(&content).unwrap();
            }
            zip.finish().unwrap();
        } else {
            let encoder = flate2::write::GzEncoder::new(File::create(&to).unwrap(), flate2::Compression::fast());
            let mut tar = tar::Builder::new(encoder);
            for (path, content) in files {
                append(&mut tar, &path, tar::EntryType::Regular, &content);
            }
            tar.into_inner().unwrap().finish().unwrap();
        }
        to
    }

    /// Adds an entry under a path that `tar` itself would refuse.
    fn append(tar: &mut tar::Builder<impl Write>, path: &str, kind: tar::EntryType, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }

    #[test]
    fn an_archive_is_unpacked_and_removed() {
        for name in ["all.zip", "all.tar.gz", "all.tgz"] {
            let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
            let archive = write_archive(&server, name, None);
            let (entry, places) = (archived(&server, name), places(&home, &server));
            // A damaged archive is downloaded anew; a sound one, put there by hand or by a process
            // that was stopped, is not.
            let left = places.cache.join(name);
            std::fs::create_dir_all(places.cache.join("mnist")).unwrap();
            std::fs::write(places.cache.join("mnist/half"), "of a file").unwrap();
            std::fs::write(&left, "half").unwrap();
            obtain(entry, &places).unwrap();
            assert_eq!(server.requests(), 1);
            std::fs::remove_dir_all(places.cache.join("mnist")).unwrap();
            std::fs::copy(&archive, &left).unwrap();
            let folder = obtain(entry, &places).unwrap();
            assert_eq!(server.requests(), 1);
            assert_eq!((names(&places.cache), names(&folder)), (vec![".mnist.lock".into(), "mnist".into()], vec!["gzip".into()]));
            assert_eq!(split(&folder).train.labels().numel(), 3);
            obtain(entry, &places).unwrap();
            assert_eq!(server.requests(), 1);
        }
    }

    #[test]
    fn what_would_leave_the_folder_is_refused_with_all_the_rest() {
        for name in ["all.zip", "all.tar.gz"] {
            for odd in ["../escape", "gzip/../../escape", "/escape"] {
                let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
                write_archive(&server, name, Some(odd));
                let (entry, places) = (archived(&server, name), places(&home, &server));
                let error = obtain(entry, &places).unwrap_err().to_string();
                assert!(error.contains(&format!("the path {odd} leaves the folder")), "{error}");
                assert_eq!(names(&places.cache), [".mnist.lock", name], "nothing is unpacked");
                assert!(!home.path().join("escape").exists() && !places.cache.join("escape").exists());
            }
        }
    }

    #[test]
    fn links_and_devices_are_refused() {
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo, tar::EntryType::Char] {
            let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
            let archive = server.folder.path().join("mnist/all.tgz");
            std::fs::create_dir(archive.parent().unwrap()).unwrap();
            let encoder = flate2::write::GzEncoder::new(File::create(&archive).unwrap(), flate2::Compression::fast());
            let mut tar = tar::Builder::new(encoder);
            append(&mut tar, "gzip", kind, b"");
            tar.into_inner().unwrap().finish().unwrap();
            let (entry, places) = (archived(&server, "all.tgz"), places(&home, &server));
            let error = obtain(entry, &places).unwrap_err().to_string();
            assert!(error.contains("gzip is no file and no folder") && !error.contains('\n'), "{error}");
            assert_eq!(names(&places.cache), [".mnist.lock", "all.tgz"]);
        }
    }

    #[test]
    fn an_archive_that_is_cut_or_lacks_a_file_leaves_nothing() {
        let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
        for name in ["all.zip", "all.tar.gz"] {
            let sound = std::fs::read(write_archive(&server, name, None)).unwrap();
            let dest = home.path().join("unpacked");
            let path = home.path().join(name);
            let unpack = |bytes: &[u8], lacks: Result<(), String>| {
                std::fs::write(&path, bytes).unwrap();
                unpack::archive(&path, &dest, |_| lacks.clone(), &mut |_, _, _| true).unwrap_err().to_string()
            };
            let error = unpack(&sound[..sound.len() / 2], Ok(()));
            assert!(error.starts_with(&format!("{} is damaged (", path.display())), "{error}");
            let error = unpack(&sound, Err("the index".to_owned()));
            assert!(error.contains("is damaged (it lacks the index): delete it"), "{error}");
            let stopped = unpack::archive(&path, &dest, |_| Ok(()), &mut |_, _, _| false);
            assert!(matches!(stopped, Err(DatasetError::Interrupted)));
            assert!(!dest.exists());
        }
    }

    #[test]
    fn an_archive_that_holds_far_more_than_its_length_is_left() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("bomb.tgz");
        let encoder = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::best());
        let mut tar = tar::Builder::new(encoder);
        append(&mut tar, "zeros", tar::EntryType::Regular, &vec![0; 80_000_000]);
        tar.into_inner().unwrap().finish().unwrap();
        let error = unpack::archive(&path, &home.path().join("bomb"), |_| Ok(()), &mut |_, _, _| true).unwrap_err().to_string();
        assert!(error.contains("it holds far more than a file of its length should"), "{error}");
        assert_eq!(names(home.path()), ["bomb.tgz"]);
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
        let places = places(&home, &server);
        write_archive(&server, "all.tgz", None);
        for (entry, operations) in [(source(&server, &[]), 20), (archived(&server, "all.tgz"), 12)] {
            for number in 1.. {
                let _ = std::fs::remove_dir_all(&places.cache);
                inject_fault(number, false);
                let ended = obtain(entry, &places);
                let failed = faults_done();
                inject_fault(0, false);
                match ended {
                    Ok(_) if failed == 0 => {
                        assert!(number > operations, "{number}");
                        break;
                    }
                    Ok(_) => {}
                    Err(error) => assert!(!error.is_failure(), "the disk is the user's: {error}"),
                }
                let folder = obtain(entry, &places).unwrap();
                assert_eq!(split(&folder).train.labels().numel(), 3);
                assert!(names(&folder).len() == 4 || names(&folder) == ["gzip"], "{number}");
            }
        }
    }
}
