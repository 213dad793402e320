//! One file from the first mirror that has it.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use ureq::{
    Agent,
    http::{HeaderMap, StatusCode, header},
};

use crate::{FetchError, install::create_parent, sha256_file};

/// How long a server may take to accept a connection: an address without a route must not hold up the next mirror.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent. There is no limit on the whole, since files are large and lines slow.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for bytes before the caller is asked whether to go on.
const PATIENCE: Duration = Duration::from_millis(100);
/// Pieces of a file that wait to be written.
const WAITING: usize = 16;
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

/// Told of the bytes that are there and, when the server says so, of how many there will be. Starting over lowers the first. Its
/// `false` ends the download.
type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>) -> bool;

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
    /// Return `false` from `progress` to stop; it is called ten times a second at least, even while the server is silent.
    ///
    /// Two processes must not download to the same place at once: hold a [`Lock`](crate::Lock), or download inside
    /// [`install_dir`](crate::install_dir).
    ///
    /// # Errors
    ///
    /// The mirror's error, or [`FetchError::AllMirrorsFailed`] when there are several; at once when the disk is full or not writable,
    /// or with [`FetchError::Stopped`].
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
        let mut headers = HeaderMap::new();
        let value = |text: String| text.parse().map_err(|_| FetchError::Unreachable { url: url.to_owned(), reason: text });
        if let Some(range) = part.resumable(self.sha256.is_some()) {
            headers.insert(header::RANGE, value(format!("bytes={}-", range.start))?);
            if let Some(etag) = range.etag {
                headers.insert(header::IF_RANGE, value(etag)?);
            }
        }
        let (send, answers) = sync_channel(WAITING);
        let address = url.to_owned();
        // In a thread of its own, since nothing ends a system call that waits for a server.
        let asks = thread::Builder::new().spawn(move || request(&address, headers, &send));
        asks.map_err(|error| FetchError::io("start a thread to download", &part.path, error))?;
        let Answer::Head { status, etag, length } = next(&answers, part.len(), None, progress)?? else {
            return Err(cut_off(url, 0, "it sent no header".to_owned()));
        };
        match status {
            StatusCode::OK => {
                part.start_over(etag.as_deref())?;
                append(url, &answers, length, part, progress)
            }
            StatusCode::PARTIAL_CONTENT => append(url, &answers, length, part, progress),
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
        striate_files::part_len(&self.path)
    }

    /// Where to go on, if that is safe: a checksum finds a wrong joint afterwards, an ETag rules it out before.
    fn resumable(&self, checksum_known: bool) -> Option<Resume> {
        let start = self.len();
        let etag = striate_files::read_to_string(&self.etag).ok();
        match (start, checksum_known) {
            (0, _) => None,
            (start, true) => Some(Resume { start, etag: None }),
            (start, false) => etag.map(|etag| Resume { start, etag: Some(etag) }),
        }
    }

    fn start_over(&self, etag: Option<&str>) -> Result<(), FetchError> {
        striate_files::open_part(&self.path)?.file().set_len(0).map_err(|e| FetchError::io("write", &self.path, e))?;
        remove_if_there(&self.etag)?;
        // A weak ETag does not promise equal bytes.
        if let Some(etag) = etag.filter(|etag| !etag.starts_with("W/")) {
            striate_files::write_bytes(&self.etag, etag)?;
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), FetchError> {
        remove_if_there(&self.path)?;
        remove_if_there(&self.etag)
    }

    fn finish(&self, dest: &Path) -> Result<(), FetchError> {
        striate_files::finish(&self.path, dest)?;
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

/// What comes from a server.
enum Answer {
    Head {
        status: StatusCode,
        etag: Option<String>,
        length: Option<u64>,
    },
    Bytes(Vec<u8>),
    /// The body's end.
    End,
}

/// Asks for a file, and hands on what comes until nobody takes it any more.
fn request(url: &str, headers: HeaderMap, send: &SyncSender<Result<Answer, FetchError>>) {
    let mut request = agent().get(url).header(header::ACCEPT_ENCODING, "identity");
    for (name, value) in &headers {
        request = request.header(name, value);
    }
    let response = match request.call() {
        Ok(response) => response,
        Err(error) => {
            // Nobody waits any more where this fails, here and below.
            let _ = send.send(Err(FetchError::Unreachable { url: url.to_owned(), reason: reason(error) }));
            return;
        }
    };
    let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    let head = Answer::Head { status: response.status(), etag, length: response.body().content_length() };
    let (mut body, mut buffer) = (response.into_body().into_reader(), vec![0; 1 << 16]);
    let mut next = Ok(head);
    loop {
        let is_last = matches!(next, Ok(Answer::End) | Err(_));
        if send.send(next).is_err() || is_last {
            return;
        }
        next = match body.read(&mut buffer) {
            Ok(0) => Ok(Answer::End),
            Ok(count) => Ok(Answer::Bytes(buffer[..count].to_vec())),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Answer::Bytes(Vec::new())),
            Err(e) => Err(cut_off(url, 0, e.to_string())),
        };
    }
}

/// Waits for what comes next, as long as the caller does.
fn next(
    answers: &Receiver<Result<Answer, FetchError>>,
    done: u64,
    total: Option<u64>,
    progress: Progress,
) -> Result<Result<Answer, FetchError>, FetchError> {
    loop {
        match answers.recv_timeout(PATIENCE) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) if progress(done, total) => {}
            Err(RecvTimeoutError::Timeout) => return Err(FetchError::Stopped),
            Err(RecvTimeoutError::Disconnected) => return Ok(Ok(Answer::End)),
        }
    }
}

fn cut_off(url: &str, done: u64, reason: String) -> FetchError {
    FetchError::CutOff { url: url.to_owned(), done, reason }
}

/// Puts the body behind the part file.
fn append(
    url: &str,
    answers: &Receiver<Result<Answer, FetchError>>,
    length: Option<u64>,
    part: &Part,
    progress: Progress,
) -> Result<(), FetchError> {
    let mut file = striate_files::open_part(&part.path)?;
    let mut done = part.len();
    let total = length.map(|rest| done + rest);
    loop {
        if !progress(done, total) {
            return Err(FetchError::Stopped);
        }
        match next(answers, done, total, progress)? {
            Ok(Answer::Bytes(bytes)) => {
                file.write_all(&bytes).map_err(|e| FetchError::io("write", &part.path, e))?;
                done += bytes.len() as u64;
            }
            Ok(Answer::Head { .. } | Answer::End) => break,
            Err(FetchError::CutOff { reason, .. }) => return Err(cut_off(url, done, reason)),
            Err(error) => return Err(error),
        }
    }
    match total {
        Some(total) if done < total => Err(cut_off(url, done, format!("{total} bytes were announced"))),
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
