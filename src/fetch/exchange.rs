//! Requests whose answers the caller interprets, and uploads.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::{
    Method, Response, Url,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    },
};

use super::{
    client::Fetcher,
    download::SMALL,
    error::FetchError,
    retry::{AttemptError, passing},
    urls::shown,
};

/// Bytes of an upload that are sent and counted at a time.
const PIECE: usize = 64 << 10;
/// How many times longer a server may take to answer after the last byte, because it checks what it got.
const PATIENCE: u32 = 4;

/// A request without its URL.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    fn new(method: Method) -> Self {
        Ask {
            method,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }
    pub fn get() -> Self {
        Self::new(Method::GET)
    }
    pub fn head() -> Self {
        Self::new(Method::HEAD)
    }
    pub fn post() -> Self {
        Self::new(Method::POST)
    }
    pub fn put() -> Self {
        Self::new(Method::PUT)
    }

    pub fn accept(mut self, media_type: &'static str) -> Self {
        self.headers
            .append(ACCEPT, HeaderValue::from_static(media_type));
        self
    }

    pub fn content_type(mut self, media_type: &'static str) -> Self {
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self
    }

    /// reqwest removes it if a redirect leads to another host.
    pub fn authorization(mut self, value: Option<HeaderValue>) -> Self {
        match value {
            Some(value) => self.headers.insert(AUTHORIZATION, value),
            None => self.headers.remove(AUTHORIZATION),
        };
        self
    }

    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self
    }
}

/// A server's answer, whatever its status; some MiB at most.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The URL that answered, after all redirects.
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Fetcher {
    /// Sends a request. Tries again after errors that may be temporary.
    pub async fn ask(&self, url: &Url, ask: &Ask) -> Result<Answer, FetchError> {
        self.retried(|| self.ask_once(url, ask)).await
    }

    pub(crate) async fn ask_once(&self, url: &Url, ask: &Ask) -> Result<Answer, AttemptError> {
        let mut request = self
            .client
            .request(ask.method.clone(), url.clone())
            .headers(ask.headers.clone())
            .header(ACCEPT_ENCODING, "identity");
        if !matches!(ask.method, Method::GET | Method::HEAD) {
            request = request.body(ask.body.clone());
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.broken(url, &error))?;
        self.answer(url, response).await
    }

    /// Sends the body, once, because only the caller knows what a failed attempt left on the server. `progress` gets the
    /// bytes that were sent.
    pub(crate) async fn upload_once(
        &self,
        url: &Url,
        ask: &Ask,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Answer, AttemptError> {
        let sent = Arc::new(AtomicU64::new(0));
        let total = ask.body.len() as u64;
        let response = self
            .uploads
            .request(ask.method.clone(), url.clone())
            .headers(ask.headers.clone())
            .body(reqwest::Body::wrap(Counted {
                left: ask.body.clone(),
                sent: Arc::clone(&sent),
            }))
            .send();
        tokio::pin!(response);
        let mut before = 0;
        let mut since = Instant::now();
        // How often the progress is checked.
        let mut clock = tokio::time::interval((self.stall / 8).min(Duration::from_millis(250)));
        let response = loop {
            tokio::select! {
                response = &mut response => break response,
                _ = clock.tick() => {
                    let now = sent.load(Ordering::Relaxed);
                    if now != before {
                        (before, since) = (now, Instant::now());
                        progress(now);
                    }
                    let patience = if now == total { PATIENCE } else { 1 };
                    if since.elapsed() > self.stall * patience {
                        return Err(AttemptError::Retry(self.stalled(url), None));
                    }
                }
            }
        };
        let response = response.map_err(|error| self.broken(url, &error))?;
        self.answer(url, response).await
    }

    /// Reads the whole answer. An answer that asks to try again later is an error.
    async fn answer(&self, url: &Url, mut response: Response) -> Result<Answer, AttemptError> {
        if let Some(error) = passing(url, &response) {
            return Err(error);
        }
        let mut body = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| self.broken(url, &error))?
        {
            if body.len() as u64 + piece.len() as u64 > SMALL {
                return Err(AttemptError::Final(FetchError::TooLarge {
                    url: shown(url),
                    limit: SMALL,
                }));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer {
            status: response.status().as_u16(),
            url: response.url().clone(),
            headers: response.headers().clone(),
            body,
        })
    }
}

/// The bytes of an upload, which counts those that were sent.
struct Counted {
    left: Bytes,
    sent: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE);
        let piece = self.left.split_to(length);
        self.sent.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
