//! Fetches a file over HTTP. An interrupted download is continued, the file is hashed while it arrives, and it gets its name
//! only when it is verified.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderValue, IF_NONE_MATCH, IF_RANGE,
        LAST_MODIFIED, LOCATION, RANGE, RETRY_AFTER,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    host::{digest::sha256_of, file, free_space::lacking},
    report::clean::Shown,
};

use super::{
    digest::{Algorithm, Expected, Hashes, wants_sha512},
    error::FetchError,
};

/// A connection without data for this long counts as dead.
const STALL: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(15);
/// Attempts for one URL without new data. An attempt that brings data starts the count again.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// If the size is not known, free space is checked again after this many bytes.
const UNANNOUNCED: u64 = 256 << 20;
/// Largest small file (checksums, signatures, catalogues), in bytes.
pub(super) const SMALL: u64 = 4 << 20;

/// Returns a URL for errors and events, without parts that may be secret: user, password and query.
pub fn shown(url: &Url) -> String {
    match url.query() {
        None => kept(url),
        Some(_) => format!("{}?…", kept(url)),
    }
}

/// Returns a URL for files, without parts that may be secret. Unlike [`shown`], it marks nothing as missing.
pub fn kept(url: &Url) -> String {
    let mut url = url.clone();
    // These fail only for URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    url.set_query(None);
    url.to_string()
}

/// Returns a hash by which a URL is recognised, because the URL may contain secrets.
fn mark(url: &Url) -> String {
    sha256_of(url.as_str())
}

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct Request {
    /// URLs of the same file, in the order in which they are tried.
    pub urls: Vec<Url>,
    /// The digests that it must have. Several may be known (a lock file's and a checksum file's).
    pub expected: Vec<Expected>,
    /// In bytes, if it is known.
    pub size: Option<u64>,
}

/// A complete and verified file.
#[derive(Debug)]
pub struct Fetched {
    pub path: PathBuf,
    pub sha256: String,
    pub size: u64,
    /// The URL that had it.
    pub url: Url,
    pub etag: Option<String>,
}

/// A note beside a partial file: which file it belongs to.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct PartialNote {
    /// A hash of the URL, because it may contain a password.
    url: String,
    /// A strong ETag, or a date, for If-Range.
    validator: Option<String>,
}

/// stead's HTTP client.
pub struct Fetcher {
    pub(super) client: Client,
    /// The client for uploads. It has no time-out, because reqwest's also counts while a body is sent.
    pub(super) uploads: Client,
    pub(super) stall: Duration,
}

impl Fetcher {
    /// Uses the proxies in `HTTPS_PROXY` and similar variables, and the certificates of the system or in
    /// `SSL_CERT_FILE`.
    pub fn new() -> Result<Self, FetchError> {
        Self::build(true)
    }

    /// Uses no proxy, for servers on this host.
    pub fn direct() -> Result<Self, FetchError> {
        Self::build(false)
    }

    fn build(proxy: bool) -> Result<Self, FetchError> {
        let stall = std::env::var("STEAD_TEST_STALL_MS")
            .ok()
            .and_then(|text| text.parse().ok())
            .map_or(STALL, Duration::from_millis);
        // This fails if one is installed already, which is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let builder = Client::builder()
                .user_agent(concat!("stead/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .redirect(reqwest::redirect::Policy::custom(|attempt| {
                    let from_https = attempt.previous().iter().any(|url| url.scheme() == "https");
                    if attempt.previous().len() > 10 {
                        attempt.error("more than 10 redirects")
                    } else if !matches!(attempt.url().scheme(), "https" | "http") {
                        let to: String = shown(attempt.url()).chars().take(LONGEST_SHOWN).collect();
                        attempt.error(format!("{ELSEWHERE}{to}"))
                    } else if from_https && attempt.url().scheme() != "https" {
                        attempt.error(DOWNGRADE)
                    } else {
                        attempt.follow()
                    }
                }));
            if proxy { builder } else { builder.no_proxy() }
        };
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| FetchError::Client {
                message: chain(&error),
            })
        };
        Ok(Fetcher {
            client: build(builder().read_timeout(stall))?,
            uploads: build(builder())?,
            stall,
        })
    }

    /// Fetches a small file into memory.
    pub async fn small(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        self.retried(|| async {
            let mut response = self.send(url, |request| request).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(url, &e))? {
                if bytes.len() as u64 + chunk.len() as u64 > SMALL {
                    return Err(Trouble::Final(FetchError::TooLarge {
                        url: shown(url),
                        limit: SMALL,
                    }));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        })
        .await
    }

    /// Whether the file at `url` still has this ETag. Fetches no data.
    pub async fn unchanged(&self, url: &Url, etag: &str) -> Result<bool, FetchError> {
        self.retried(|| async {
            let value = HeaderValue::from_str(etag).ok();
            let response = self
                .client
                .head(url.clone())
                .headers(
                    value
                        .map(|value| (IF_NONE_MATCH, value))
                        .into_iter()
                        .collect(),
                )
                .send()
                .await
                .map_err(|error| self.broken(url, &error))?;
            if response.status() == StatusCode::NOT_MODIFIED {
                return Ok(true);
            }
            let response = checked(url, response)?;
            Ok(response
                .headers()
                .get(ETAG)
                .is_some_and(|now| now.as_bytes() == etag.as_bytes()))
        })
        .await
    }

    /// Fetches a file into `folder`, under a name that belongs to it alone. Continues an earlier download. The caller holds
    /// a lock on it.
    ///
    /// `progress` gets the bytes that are done, and the bytes in all, or 0 if these are not known.
    pub async fn get(
        &self,
        request: &Request,
        folder: &Path,
        name: &str,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Fetched, FetchError> {
        self.get_as(None, request, folder, name, progress).await
    }

    /// Like [`Self::get`], with this Authorization. It is not sent to another host to which a redirect leads.
    pub async fn get_as(
        &self,
        authorization: Option<&HeaderValue>,
        request: &Request,
        folder: &Path,
        name: &str,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Fetched, FetchError> {
        fs::create_dir_all(folder).map_err(FetchError::io("create", folder))?;
        // Hashes the part that exists, which takes long for a large one.
        let opened = {
            let (folder, name) = (folder.to_path_buf(), name.to_string());
            let sha512 = wants_sha512(&request.expected);
            tokio::task::spawn_blocking(move || PartialFile::open(&folder, &name, sha512))
        };
        let mut part = (opened.await)
            .map_err(|error| FetchError::io("read", &folder.join(name))(error.into()))??;
        let mut last = None;
        for url in &request.urls {
            match self
                .get_from(url, authorization, request, &mut part, progress)
                .await
            {
                Ok(etag) => {
                    let (sha256, size) = part.verify(request, url)?;
                    return Ok(Fetched {
                        path: part.path,
                        sha256,
                        size,
                        url: url.clone(),
                        etag,
                    });
                }
                // The next mirror may have it.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(FetchError::Client {
            message: "no URL was given".into(),
        }))
    }

    async fn get_from(
        &self,
        url: &Url,
        authorization: Option<&HeaderValue>,
        request: &Request,
        part: &mut PartialFile,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Option<String>, FetchError> {
        let mut failures = 0;
        loop {
            let before = part.size();
            let error = match self
                .stream(url, authorization, request, part, progress)
                .await
            {
                Ok(etag) => return Ok(etag),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Again(error, pause)) => (error, pause),
            };
            failures = if part.size() > before {
                1
            } else {
                failures + 1
            };
            if failures >= TRIES {
                return Err(error.0);
            }
            tokio::time::sleep(error.1.unwrap_or_else(|| pause(failures))).await;
        }
    }

    /// Sends one request, and reads its data to the end.
    async fn stream(
        &self,
        url: &Url,
        authorization: Option<&HeaderValue>,
        wanted: &Request,
        part: &mut PartialFile,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Option<String>, Trouble> {
        let from = part.resumes(url)?;
        let response = self
            .send(url, |mut request| {
                if let Some(value) = authorization {
                    request = request.header(AUTHORIZATION, value);
                }
                match &from {
                    Some((at, validator)) => request
                        .header(RANGE, format!("bytes={at}-"))
                        .header(IF_RANGE, validator),
                    None => request,
                }
            })
            .await;
        let mut response = match response {
            // The server's file ends where the part ends, or is shorter. So it is fetched from the start.
            Err(Trouble::Final(FetchError::Status { status: 416, .. })) if from.is_some() => {
                part.restart(PartialNote::default())?;
                return Err(Trouble::Again(
                    FetchError::Status {
                        url: shown(url),
                        status: 416,
                        reason: "Range Not Satisfiable".into(),
                    },
                    Some(Duration::ZERO),
                ));
            }
            other => other?,
        };
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        if resumed {
            let at = from.as_ref().map(|(at, _)| *at);
            if range_start(&response) != at {
                // The server ignores the requested range, so the download cannot be continued.
                part.restart(PartialNote::default())?;
                return Err(Trouble::Again(
                    FetchError::WrongRange { url: shown(url) },
                    Some(Duration::ZERO),
                ));
            }
        } else {
            // The server does not support ranges, or the file has changed.
            part.restart(PartialNote {
                url: mark(url),
                validator: validator(&response),
            })?;
        }
        let start = part.size();
        let total = response.content_length().map(|length| start + length);
        if let (Some(size), Some(total)) = (wanted.size, total)
            && size != total
        {
            return Err(Trouble::Final(FetchError::Size {
                url: shown(url),
                found: total,
                wanted: size,
            }));
        }
        let limit = wanted.size.or(total);
        if let Some(limit) = limit {
            room(part.folder(), limit - start.min(limit))?;
        }
        let etag = response
            .headers()
            .get(ETAG)
            .and_then(|value| value.to_str().ok())
            .map(str::to_string);
        progress(start, limit.unwrap_or(0));
        loop {
            let before = part.size();
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                // The error below says how far it got, which is more helpful than this one.
                Err(error) if !error.is_timeout() && limit.is_some() => break,
                Err(error) => return Err(self.broken(url, &error)),
            };
            part.write(&chunk)?;
            if let Some(limit) = limit
                && part.size() > limit
            {
                let found = part.size();
                part.restart(PartialNote::default())?;
                return Err(Trouble::Final(FetchError::Size {
                    url: shown(url),
                    found,
                    wanted: limit,
                }));
            }
            progress(part.size(), limit.unwrap_or(0));
            // If the size is not known, the data may never end.
            if limit.is_none() && part.size() / UNANNOUNCED != before / UNANNOUNCED {
                room(part.folder(), UNANNOUNCED)?;
            }
        }
        if let Some(limit) = limit
            && part.size() < limit
        {
            return Err(Trouble::Again(
                FetchError::CutShort {
                    url: shown(url),
                    found: part.size(),
                    wanted: limit,
                },
                None,
            ));
        }
        Ok(etag)
    }

    async fn send(
        &self,
        url: &Url,
        with: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Response, Trouble> {
        // The digest is that of the file itself, so the server must not compress it for the transfer.
        let request = self
            .client
            .get(url.clone())
            .header(ACCEPT_ENCODING, "identity");
        let response = with(request)
            .send()
            .await
            .map_err(|error| self.broken(url, &error))?;
        checked(url, response)
    }

    pub(crate) async fn retried<T, E, F: Future<Output = Result<T, Trouble<E>>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, E> {
        let mut failures = 0;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Again(error, after)) => {
                    failures += 1;
                    if failures >= TRIES {
                        return Err(error);
                    }
                    tokio::time::sleep(after.unwrap_or_else(|| pause(failures))).await;
                }
            }
        }
    }

    /// Returns the error for a failure below HTTP.
    pub(super) fn broken(&self, url: &Url, error: &reqwest::Error) -> Trouble {
        let message = chain(error);
        if error.is_redirect() {
            return Trouble::Final(if message.contains(DOWNGRADE) {
                FetchError::Downgrade { url: shown(url) }
            } else if let Some((_, to)) = message.split_once(ELSEWHERE) {
                FetchError::Redirect {
                    url: shown(url),
                    to: to.to_string(),
                }
            } else {
                FetchError::Network {
                    url: shown(url),
                    message,
                }
            });
        }
        if error.is_timeout() && !error.is_connect() {
            return Trouble::Again(self.stalled(url), None);
        }
        let url = shown(url);
        // To try again would not help: the certificate stays wrong.
        if let Some((_, why)) = message.split_once("invalid peer certificate: ") {
            let message = why.to_string();
            return Trouble::Final(FetchError::Certificate { url, message });
        }
        // Nor would it help here: it is not a web server.
        if let Some((wanted, message)) = no_http(&message) {
            return Trouble::Final(FetchError::NotHttp {
                url,
                wanted,
                message,
            });
        }
        let again = FetchError::Network { url, message };
        if error.is_builder() {
            return Trouble::Final(again);
        }
        Trouble::Again(again, None)
    }

    pub(super) fn stalled(&self, url: &Url) -> FetchError {
        FetchError::Stalled {
            url: shown(url),
            seconds: self.stall.as_secs_f64(),
        }
    }
}

const DOWNGRADE: &str = "redirect from https to another scheme";
const ELSEWHERE: &str = "redirect to ";
/// Longest URL of a server that is shown, in characters.
const LONGEST_SHOWN: usize = 200;

/// Returns the expected protocol and the error of hyper or rustls, if the answer was of another protocol.
fn no_http(message: &str) -> Option<(&'static str, String)> {
    let from = |start: &str| message.find(start).map(|at| message[at..].to_string());
    if let Some(said) = from("received corrupt message of type") {
        return Some(("TLS", said));
    }
    ["invalid HTTP ", "invalid URI", "message head is too large"]
        .iter()
        .find_map(|start| from(start))
        .map(|said| ("HTTP", said))
}

/// An error, and whether to try again.
pub(crate) enum Trouble<E = FetchError> {
    Final(E),
    /// Try again, after this time if the server has set one.
    Again(E, Option<Duration>),
}

impl From<FetchError> for Trouble {
    fn from(error: FetchError) -> Self {
        Trouble::Final(error)
    }
}

fn pause(failures: u32) -> Duration {
    (FIRST_PAUSE * 2u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_PAUSE)
}

fn checked(url: &Url, response: Response) -> Result<Response, Trouble> {
    if response.status().is_success() {
        return Ok(response);
    }
    Err(passing(url, &response).unwrap_or_else(|| Trouble::Final(bad_status(url, &response))))
}

fn bad_status(url: &Url, response: &Response) -> FetchError {
    let status = response.status();
    // reqwest follows all redirects that it can.
    if status.is_redirection()
        && let Some(to) = response.headers().get(LOCATION)
    {
        let to = String::from_utf8_lossy(to.as_bytes());
        let to = response.url().join(&to).map_or(to.into(), |to| shown(&to));
        return FetchError::Redirect {
            url: shown(url),
            to: to.chars().take(LONGEST_SHOWN).collect(),
        };
    }
    FetchError::Status {
        url: shown(url),
        status: status.as_u16(),
        reason: status.canonical_reason().unwrap_or_default().to_string(),
    }
}

/// Returns the error for a status that may be temporary (RFC 9110 §15).
pub(super) fn passing(url: &Url, response: &Response) -> Option<Trouble> {
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(|seconds: u64| Duration::from_secs(seconds).min(LONGEST_PAUSE * 4));
    matches!(
        response.status().as_u16(),
        408 | 425 | 429 | 500 | 502 | 503 | 504
    )
    .then(|| Trouble::Again(bad_status(url, response), after))
}

/// Returns the position of the first byte of a 206 (RFC 9110 §14.4): `bytes 100-199/200`.
fn range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    value
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Returns the value for If-Range (RFC 9110 §13.1.5): a strong ETag, or else a date.
fn validator(response: &Response) -> Option<String> {
    let text =
        |name| -> Option<String> { Some(response.headers().get(name)?.to_str().ok()?.to_string()) };
    text(ETAG)
        .filter(|etag| !etag.starts_with("W/"))
        .or_else(|| text(LAST_MODIFIED))
}

/// Returns an error with its causes, without reqwest's own text, which only says that a request failed and repeats its
/// URL.
pub(super) fn chain(error: &reqwest::Error) -> String {
    use std::error::Error;
    let Some(mut cause) = error.source() else {
        return error.to_string();
    };
    while let Some(inner) = cause.source()
        && cause.to_string().starts_with("client error")
    {
        cause = inner;
    }
    let mut text = cause.to_string();
    let mut source = cause.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// Checks that the file system of `folder` has space for this many bytes more.
pub(crate) fn room(folder: &Path, bytes: u64) -> Result<(), FetchError> {
    match lacking(folder, bytes) {
        Some(free) => Err(FetchError::NoRoom {
            folder: folder.to_path_buf(),
            needed: bytes,
            free,
        }),
        None => Ok(()),
    }
}

/// A partial file, and its note.
struct PartialFile {
    path: PathBuf,
    note: PathBuf,
    file: File,
    partial: PartialNote,
    hashes: Hashes,
}

impl PartialFile {
    fn open(folder: &Path, name: &str, sha512: bool) -> Result<Self, FetchError> {
        let path = folder.join(format!("{name}.part"));
        let note = folder.join(format!("{name}.json"));
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(FetchError::io("open", &path))?;
        // Without its note, the part is of no use.
        let partial: Option<PartialNote> = fs::read(&note)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut hashes = Hashes::new(sha512);
        let known = partial.is_some();
        if known {
            hashes
                .read_all(&mut file)
                .map_err(FetchError::io("read", &path))?;
        }
        let mut part = PartialFile {
            path,
            note,
            file,
            partial: partial.unwrap_or_default(),
            hashes,
        };
        if !known {
            part.restart(PartialNote::default())?;
        }
        Ok(part)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn size(&self) -> u64 {
        self.hashes.size()
    }

    /// Returns the position to continue from, and the validator that the file must still have.
    fn resumes(&mut self, url: &Url) -> Result<Option<(u64, String)>, FetchError> {
        if self.size() == 0 {
            return Ok(None);
        }
        match &self.partial.validator {
            Some(validator) if self.partial.url == mark(url) => {
                Ok(Some((self.size(), validator.clone())))
            }
            _ => {
                self.restart(PartialNote::default())?;
                Ok(None)
            }
        }
    }

    fn restart(&mut self, partial: PartialNote) -> Result<(), FetchError> {
        let mut write = || -> io::Result<()> {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            file::replace(&self.note, &serde_json::to_vec(&partial)?, file::PRIVATE)
        };
        write().map_err(FetchError::io("write", &self.path))?;
        self.partial = partial;
        self.hashes = self.hashes.restarted();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file
            .write_all(bytes)
            .map_err(FetchError::io("write", &self.path))?;
        self.hashes.update(bytes);
        Ok(())
    }

    /// Returns the sha256 and size of the complete file.
    ///
    /// # Errors
    /// If a digest differs. Then the file is deleted.
    fn verify(&mut self, request: &Request, url: &Url) -> Result<(String, u64), FetchError> {
        let size = self.size();
        let restarted = self.hashes.restarted();
        let hashes = std::mem::replace(&mut self.hashes, restarted).finish();
        let _ = fs::remove_file(&self.note);
        for expected in &request.expected {
            let found = hashes.of(expected.algorithm);
            if found != expected.hex {
                // So that it cannot be used by mistake.
                let _ = fs::remove_file(&self.path);
                return Err(FetchError::Digest {
                    url: shown(url),
                    algorithm: expected.algorithm,
                    found: found.to_string(),
                    wanted: expected.hex.clone(),
                    by: expected.by.clone(),
                });
            }
        }
        Ok((hashes.of(Algorithm::Sha256).to_string(), size))
    }
}

/// Hashes and verifies a file of this host like a download. Errors name it `path`.
pub fn local(
    opened: io::Result<File>,
    path: &Path,
    request: &Request,
) -> Result<(String, u64), FetchError> {
    let mut file = opened.map_err(FetchError::io("open", path))?;
    let mut hashes = Hashes::new(wants_sha512(&request.expected));
    hashes
        .read_all(&mut file)
        .map_err(FetchError::io("read", path))?;
    let size = hashes.size();
    let hashes = hashes.finish();
    for expected in &request.expected {
        let found = hashes.of(expected.algorithm);
        if found != expected.hex {
            return Err(FetchError::Digest {
                url: path.shown(),
                algorithm: expected.algorithm,
                found: found.to_string(),
                wanted: expected.hex.clone(),
                by: expected.by.clone(),
            });
        }
    }
    Ok((hashes.of(Algorithm::Sha256).to_string(), size))
}
