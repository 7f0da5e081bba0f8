//! Why an attempt failed, and whether and when to try again.

use std::time::Duration;

use reqwest::{
    Response, Url,
    header::{LOCATION, RETRY_AFTER},
};

use super::{error::FetchError, urls::shown};

/// Attempts for one URL without new data. An attempt that brings data starts the count again.
pub(super) const TRIES: u32 = 5;

const FIRST_PAUSE: Duration = Duration::from_millis(250);

const LONGEST_PAUSE: Duration = Duration::from_secs(8);

pub(super) const DOWNGRADE: &str = "redirect from https to another scheme";

pub(super) const OTHER_SCHEME: &str = "redirect to ";

/// Longest URL of a server that is shown, in characters.
pub(super) const LONGEST_SHOWN: usize = 200;

/// Returns the expected protocol and the error of hyper or rustls, if the answer was of another protocol.
pub(super) fn no_http(message: &str) -> Option<(&'static str, String)> {
    let from = |start: &str| message.find(start).map(|at| message[at..].to_string());
    if let Some(said) = from("received corrupt message of type") {
        return Some(("TLS", said));
    }
    ["invalid HTTP ", "invalid URI", "message head is too large"]
        .iter()
        .find_map(|start| from(start))
        .map(|said| ("HTTP", said))
}

/// The error of one attempt, and whether to try again.
pub(crate) enum AttemptError<E = FetchError> {
    Final(E),
    /// Try again, after this time if the server has set one.
    Retry(E, Option<Duration>),
}

impl From<FetchError> for AttemptError {
    fn from(error: FetchError) -> Self {
        AttemptError::Final(error)
    }
}

pub(super) fn pause(failures: u32) -> Duration {
    (FIRST_PAUSE * 2u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_PAUSE)
}

pub(super) fn checked(url: &Url, response: Response) -> Result<Response, AttemptError> {
    if response.status().is_success() {
        return Ok(response);
    }
    Err(passing(url, &response).unwrap_or_else(|| AttemptError::Final(bad_status(url, &response))))
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
pub(super) fn passing(url: &Url, response: &Response) -> Option<AttemptError> {
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(|seconds: u64| Duration::from_secs(seconds).min(LONGEST_PAUSE * 4));
    matches!(
        response.status().as_u16(),
        408 | 425 | 429 | 500 | 502 | 503 | 504
    )
    .then(|| AttemptError::Retry(bad_status(url, response), after))
}

/// Returns the resolver's words if a chain of causes says that a host has no address. hyper-util and reqwest put their own
/// words before them, and the standard library (`getaddrinfo`) others.
pub(super) fn no_address(message: &str) -> Option<&str> {
    const RESOLVING: [&str; 2] = ["dns error", "error resolving DNS"];
    const LOOKUP: &str = "failed to lookup address information: ";
    if !RESOLVING.iter().any(|words| message.contains(words)) {
        return None;
    }
    let (_, why) = message
        .rsplit_once(LOOKUP)
        .or_else(|| message.rsplit_once(": "))?;
    Some(why)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_an_address_is_recognised() {
        for (message, why) in [
            (
                "dns error: failed to lookup address information: Name or service not known",
                Some("Name or service not known"),
            ),
            (
                "error resolving DNS: failed to lookup address information: Temporary failure in name resolution",
                Some("Temporary failure in name resolution"),
            ),
            ("dns error: no record found", Some("no record found")),
            ("tcp connect error: Connection refused (os error 111)", None),
        ] {
            assert_eq!(no_address(message), why);
        }
    }
}
