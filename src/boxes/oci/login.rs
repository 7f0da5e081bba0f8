//! Makes the header that authenticates requests from credentials and a registry's challenge.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Url, header::HeaderValue};
use serde::Deserialize;

use crate::fetch::{Ask, Fetcher};

use super::{
    challenge::Challenge,
    credentials::{Credentials, Kind},
    error::OciError,
    reference::{Reference, is_loopback},
};

/// Returns the Authorization header that answers a challenge. `None` if no credentials fit, or if the token
/// server denies them.
pub(super) async fn answer(
    fetcher: &Fetcher,
    reference: &Reference,
    challenge: &Challenge,
    credentials: Option<&Credentials>,
    actions: &str,
) -> Result<Option<HeaderValue>, OciError> {
    let secret = match (challenge, credentials.map(|found| &found.kind)) {
        (Challenge::Basic, Some(Kind::Password { user, password })) => basic(user, password),
        (Challenge::Basic, _) => return Ok(None),
        (
            Challenge::Bearer {
                realm,
                service,
                scope,
            },
            kind,
        ) => {
            let url = token_server(reference, realm)?;
            let scopes = scopes(reference, actions, scope.as_deref());
            match token(fetcher, reference, &url, service.as_deref(), &scopes, kind).await? {
                Some(token) => format!("Bearer {token}"),
                None => return Ok(None),
            }
        }
    };
    let mut value = HeaderValue::from_str(&secret).map_err(|_| OciError::Challenge {
        host: reference.host.clone(),
        message: "its token has characters that a header may not have".into(),
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Returns the token server's address. Credentials go wherever the registry says, as with docker, but never
/// unencrypted over a network.
fn token_server(reference: &Reference, realm: &str) -> Result<Url, OciError> {
    let wrong = |message: String| OciError::Challenge {
        host: reference.host.clone(),
        message,
    };
    let url = Url::parse(realm).map_err(|_| wrong(format!("its realm {realm:?} is not a URL")))?;
    let here = reference.is_loopback() && url.host_str().is_some_and(is_loopback);
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        _ => Err(wrong(format!("its realm {realm:?} does not use https"))),
    }
}

/// Returns the scopes that the token must have: those needed here, and those that the registry names for
/// another repository (a mirror's may have a prefix).
fn scopes(reference: &Reference, actions: &str, asked: Option<&str>) -> Vec<String> {
    let resource = format!("repository:{}:", reference.repository);
    let mut scopes = vec![format!("{resource}{actions}")];
    scopes.extend(
        asked
            .unwrap_or_default()
            .split(' ')
            .filter(|scope| !scope.is_empty() && !scope.starts_with(&resource))
            .map(str::to_string),
    );
    scopes
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Requests a token; `None` if the token server denies it.
async fn token(
    fetcher: &Fetcher,
    reference: &Reference,
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    kind: Option<&Kind>,
) -> Result<Option<String>, OciError> {
    let mut url = realm.clone();
    let ask = match kind {
        // RFC 6749 §6, as docker's token specification has it.
        Some(Kind::IdentityToken(token)) => {
            let mut form = Url::parse("form:?").map_err(|error| OciError::Challenge {
                host: reference.host.clone(),
                message: error.to_string(),
            })?;
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "stead")
                .append_pair("service", service.unwrap_or_default())
                .append_pair("scope", &scopes.join(" "))
                .append_pair("refresh_token", token);
            Ask::post()
                .content_type("application/x-www-form-urlencoded")
                .body(form.query().unwrap_or_default().as_bytes().to_vec())
        }
        other => {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            drop(query);
            match other {
                Some(Kind::Password { user, password }) => {
                    let mut value =
                        HeaderValue::from_str(&basic(user, password)).map_err(|_| {
                            OciError::Challenge {
                                host: reference.host.clone(),
                                message: "the password has characters that a header may not have"
                                    .into(),
                            }
                        })?;
                    value.set_sensitive(true);
                    Ask::get().authorization(Some(value))
                }
                _ => Ask::get(),
            }
        }
    };
    let answer = fetcher.ask(&url, &ask).await?;
    match answer.status {
        200..=299 => {}
        400 | 401 | 403 => return Ok(None),
        status => {
            return Err(OciError::Status {
                host: realm.host_str().unwrap_or_default().to_string(),
                status,
                doing: "the request for a token".into(),
                detail: String::new(),
            });
        }
    }
    let token: Option<Token> = serde_json::from_slice(&answer.body).ok();
    let token = token.and_then(|token| token.token.or(token.access_token));
    match token {
        Some(token) if !token.is_empty() => Ok(Some(token)),
        _ => Err(OciError::Challenge {
            host: reference.host.clone(),
            message: format!("the token server {realm} answered without a token"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_asked_for_over_https_only() {
        let far = Reference::parse("example.org/a:x").unwrap();
        let near = Reference::parse("127.0.0.1:5000/a:x").unwrap();
        assert!(token_server(&far, "https://auth.example.org/token").is_ok());
        assert!(token_server(&near, "http://localhost:5001/token").is_ok());
        for (reference, realm) in [
            (&far, "http://auth.example.org/token"),
            (&far, "http://127.0.0.1/token"),
            (&near, "http://example.org/token"),
            (&near, "file:///etc/passwd"),
            (&near, "token"),
        ] {
            assert!(token_server(reference, realm).is_err(), "{realm}");
        }
    }

    #[test]
    fn scopes_are_ours_and_those_of_another_repository() {
        let reference = Reference::parse("example.org/a:x").unwrap();
        assert_eq!(
            scopes(&reference, "pull,push", Some("repository:a:pull")),
            ["repository:a:pull,push"]
        );
        assert_eq!(
            scopes(&reference, "pull", Some("repository:proxy/a:pull")),
            ["repository:a:pull", "repository:proxy/a:pull"]
        );
    }
}
