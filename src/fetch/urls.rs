//! URLs as errors, events and files may have them: without secrets.

use reqwest::Url;

use crate::host::digest::sha256_of;

/// Returns a URL for errors and events, without parts that may be secret: user, password and query.
pub fn shown(url: &Url) -> String {
    match url.query() {
        None => kept(url),
        Some(_) => format!("{}?…", kept(url)),
    }
}

/// Returns a URL for files, without parts that may be secret. Unlike [`shown`], it marks nothing as missing.
pub fn kept(url: &Url) -> String {
    let mut url = without_login(url.clone());
    url.set_fragment(None);
    url.set_query(None);
    url.to_string()
}

/// Removes the user name and password.
pub fn without_login(mut url: Url) -> Url {
    // These fail only for URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Returns a hash by which a URL is recognised, because the URL may contain secrets.
pub(super) fn mark(url: &Url) -> String {
    sha256_of(url.as_str())
}
