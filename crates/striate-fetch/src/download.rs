//! One file from the first mirror that has it.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
};

use crate::{FetchError, install::create_parent, sha256_file};

/// How long a server may take to accept a connection: an address without a route must not hold up the next mirror.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent. There is no limit on the whole, since files are large and lines slow.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a broken connection is taken up again before the next mirror has its turn.
const ATTEMPTS: usize = 5;

/// A file to be downloaded: see [`Download::fetch`].
#[derive(Clone, Debug)]
pub struct Download {
    urls: Vec<String>,
    dest: PathBuf,
    sha256: Option<String>,
    size: Option<u64>,
}

/// Told of the bytes that are there and, when the server says so, of how many there will be. Starting over lowers the first.
type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

impl Download {
    /// A download to the file `dest` from the first of `urls` that has it.
    pub fn new<U: Into<String>>(urls: impl IntoIterator<Item = U>, dest: impl Into<PathBuf>) -> Self {
        Self { urls: urls.into_iter().map(Into::into).collect(), dest: dest.into(), sha256: None, size: None }
    }

    /// The SHA-256 that the file must have, in hexadecimal digits. Some publishers give only its first digits: then these must match.
    #[must_use]
    pub fn sha256(mut self, sum: impl Into<String>) -> Self {
        self.sha256 = Some(sum.into().to_ascii_lowercase());
        self
    }

    /// The size that the file must have, in bytes.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Downloads the file, unless it is there already and passes its checks.
    ///
    /// The bytes go to `DEST.part`, and only a whole and verified file gets its name. A part file of an earlier attempt is gone on
    /// with, where the checksum is known or the server vouches (by its ETag) that it is still the same file; else it starts over.
    /// Two processes must not download to the same place at once: hold a [`Lock`](crate::Lock), or download inside
    /// [`install_dir`](crate::install_dir).
    ///
    /// # Errors
    ///
    /// The mirror's error, or [`FetchError::AllMirrorsFailed`] when there are several; at once when the disk is full or not writable.
    pub fn fetch(&self, progress: Progress) -> Result<(), FetchError> {
        create_parent(&self.dest)?;
        if self.dest.exists() && self.verify(&self.dest, "the file that is there").is_ok() {
            return Ok(());
        }
        let mut reasons = Vec::new();
        for url in &self.urls {
            match self.fetch_from(url, progress) {
                Ok(()) => return Ok(()),
                Err(reason) if reason.is_the_mirrors() => reasons.push(reason),
                Err(error) => return Err(error),
            }
        }
        match <[_; 1]>::try_from(reasons) {
            Ok([reason]) => Err(reason),
            Err(reasons) => Err(FetchError::AllMirrorsFailed { file: self.file_name(), reasons }),
        }
    }

    /// Downloads from one mirror, taking up broken connections again.
    fn fetch_from(&self, url: &str, progress: Progress) -> Result<(), FetchError> {
        let part = Part::new(&self.dest);
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            let resumed = part.len() > 0;
            let error = match self.attempt(url, &part, progress) {
                Ok(()) => match self.verify(&part.path, url) {
                    Ok(()) => return part.finish(&self.dest),
                    Err(error) => {
                        part.remove()?;
                        // The rest of another mirror's file may have been put behind a part of this one's.
                        if !resumed {
                            return Err(error);
                        }
                        error
                    }
                },
                Err(error @ FetchError::CutOff { .. }) => error,
                Err(error) => return Err(error),
            };
            if attempts == 0 {
                return Err(error);
            }
        }
    }

    /// One request, and its body put behind what is there.
    fn attempt(&self, url: &str, part: &Part, progress: Progress) -> Result<(), FetchError> {
        let mut request = agent().get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = part.resumable(self.sha256.is_some()) {
            request = request.header(header::RANGE, format!("bytes={}-", range.start));
            if let Some(etag) = range.etag {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        let response = request.call().map_err(|error| FetchError::Unreachable { url: url.to_owned(), reason: reason(error) })?;
        match response.status() {
            StatusCode::OK => {
                part.start_over(response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()))?;
                append(url, response, part, progress)
            }
            StatusCode::PARTIAL_CONTENT => append(url, response, part, progress),
            // The part file was whole already, or longer than the file is now; only the checks can tell.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(()),
            status => Err(FetchError::Status { url: url.to_owned(), status: status.as_u16() }),
        }
    }

    /// Checks the size and the checksum of `path`, which came from `url`.
    fn verify(&self, path: &Path, url: &str) -> Result<(), FetchError> {
        if let Some(expected) = self.size {
            let actual = fs::metadata(path).map_err(|e| FetchError::io("read", path, e))?.len();
            if actual != expected {
                return Err(FetchError::WrongSize { url: url.to_owned(), expected, actual });
            }
        }
        if let Some(expected) = &self.sha256 {
            let actual = sha256_file(path)?;
            if !actual.starts_with(expected) {
                return Err(FetchError::WrongChecksum { url: url.to_owned(), expected: expected.clone(), actual });
            }
        }
        Ok(())
    }

    fn file_name(&self) -> String {
        self.dest.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The unfinished file beside its destination, and the ETag under which the server gave it.
struct Part {
    path: PathBuf,
    etag: PathBuf,
}

/// Where to go on with a part file.
struct Resume {
    start: u64,
    /// The server sends the whole file when it has another ETag by now.
    etag: Option<String>,
}

impl Part {
    fn new(dest: &Path) -> Self {
        let with_suffix = |suffix: &str| {
            let mut name = dest.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { path: with_suffix(".part"), etag: with_suffix(".part.etag") }
    }

    fn len(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Where to go on, if that is safe: a checksum finds a wrong joint afterwards, an ETag rules it out before.
    fn resumable(&self, checksum_known: bool) -> Option<Resume> {
        let start = self.len();
        let etag = fs::read_to_string(&self.etag).ok();
        match (start, checksum_known) {
            (0, _) => None,
            (start, true) => Some(Resume { start, etag: None }),
            (start, false) => etag.map(|etag| Resume { start, etag: Some(etag) }),
        }
    }

    fn start_over(&self, etag: Option<&str>) -> Result<(), FetchError> {
        File::create(&self.path).map_err(|e| FetchError::io("create", &self.path, e))?;
        remove_if_there(&self.etag)?;
        // A weak ETag does not promise equal bytes.
        if let Some(etag) = etag.filter(|etag| !etag.starts_with("W/")) {
            fs::write(&self.etag, etag).map_err(|e| FetchError::io("write", &self.etag, e))?;
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), FetchError> {
        remove_if_there(&self.path)?;
        remove_if_there(&self.etag)
    }

    fn finish(&self, dest: &Path) -> Result<(), FetchError> {
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(|e| FetchError::io("write", &self.path, e))?;
        fs::rename(&self.path, dest).map_err(|e| FetchError::io("rename", &self.path, e))?;
        remove_if_there(&self.etag)
    }
}

fn remove_if_there(path: &Path) -> Result<(), FetchError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FetchError::io("remove", path, e)),
        _ => Ok(()),
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(STALL_TIMEOUT))
        .timeout_per_read(Some(STALL_TIMEOUT))
        .http_status_as_error(false)
        .user_agent(concat!("striate/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Puts the body behind the part file.
fn append(url: &str, response: Response<Body>, part: &Part, progress: Progress) -> Result<(), FetchError> {
    let mut file =
        File::options().create(true).append(true).open(&part.path).map_err(|e| FetchError::io("write", &part.path, e))?;
    let mut done = part.len();
    let total = response.body().content_length().map(|rest| done + rest);
    let cut_off = |done, reason| FetchError::CutOff { url: url.to_owned(), done, reason };
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    progress(done, total);
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(cut_off(done, e.to_string())),
        };
        file.write_all(&buffer[..count]).map_err(|e| FetchError::io("write", &part.path, e))?;
        done += count as u64;
        progress(done, total);
    }
    match total {
        Some(total) if done < total => Err(cut_off(done, format!("{total} bytes were announced"))),
        _ => Ok(()),
    }
}

/// The innermost reason of a failed request, since the outer ones repeat the address.
fn reason(error: ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "there is no route to this host, or no such host".to_owned(),
        error => error.to_string(),
    }
}
