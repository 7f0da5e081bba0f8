//! stead's HTTP client: proxies, certificates, redirects and time-outs.

use std::time::Duration;

use reqwest::{Client, Response, Url, header::ACCEPT_ENCODING};

use super::{
    error::FetchError,
    retry::{
        AttemptError, DOWNGRADE, LONGEST_SHOWN, OTHER_SCHEME, TRIES, chain, checked, no_address,
        no_http, pause,
    },
    urls::shown,
};

/// A connection without data for this long counts as dead.
const STALL: Duration = Duration::from_secs(30);

const CONNECT: Duration = Duration::from_secs(15);

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
                        attempt.error(format!("{OTHER_SCHEME}{to}"))
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

    pub(super) async fn send(
        &self,
        url: &Url,
        with: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Response, AttemptError> {
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

    pub(crate) async fn retried<T, E, F: Future<Output = Result<T, AttemptError<E>>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, E> {
        let mut failures = 0;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(AttemptError::Final(error)) => return Err(error),
                Err(AttemptError::Retry(error, after)) => {
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
    pub(super) fn broken(&self, url: &Url, error: &reqwest::Error) -> AttemptError {
        let message = chain(error);
        if error.is_redirect() {
            return AttemptError::Final(if message.contains(DOWNGRADE) {
                FetchError::Downgrade { url: shown(url) }
            } else if let Some((_, to)) = message.split_once(OTHER_SCHEME) {
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
            return AttemptError::Retry(self.stalled(url), None);
        }
        if let (Some(why), Some(host)) = (no_address(&message), url.host_str()) {
            let error = FetchError::NoAddress {
                url: shown(url),
                host: host.to_string(),
                message: why.to_string(),
            };
            return AttemptError::Retry(error, None);
        }
        let url = shown(url);
        // To try again would not help: the certificate stays wrong.
        if let Some((_, why)) = message.split_once("invalid peer certificate: ") {
            let message = why.to_string();
            return AttemptError::Final(FetchError::Certificate { url, message });
        }
        // Nor would it help here: it is not a web server.
        if let Some((wanted, message)) = no_http(&message) {
            return AttemptError::Final(FetchError::NotHttp {
                url,
                wanted,
                message,
            });
        }
        let again = FetchError::Network { url, message };
        if error.is_builder() {
            return AttemptError::Final(again);
        }
        AttemptError::Retry(again, None)
    }

    pub(super) fn stalled(&self, url: &Url) -> FetchError {
        FetchError::Stalled {
            url: shown(url),
            seconds: self.stall.as_secs_f64(),
        }
    }
}
