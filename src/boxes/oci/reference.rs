//! `oci://HOST[:PORT]/REPOSITORY:TAG`: the address of a box in a registry.

use std::{fmt, net::IpAddr};

use crate::host::address;

/// The address of a box in a registry, without `oci://`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// With the port, if there is one.
    pub host: String,
    pub repository: String,
    pub version: Version,
}

/// A digest always names the same manifest; a tag names the one that was last pushed under it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    Tag(String),
    /// 64 lower-case hex digits: the sha256 of the manifest.
    Digest(String),
}

/// The distribution specification's limit of host and repository together, in characters.
const LONGEST: usize = 255;

impl Reference {
    /// Parses the text after `oci://`. Errors are messages for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole = format!("oci://{text}");
        let wrong = |message: String| format!("\"{}\": {message}", address::shown(&whole));
        // Nothing below quotes a part of it: the parts may be those of a password.
        if address::has_login(&whole) {
            return Err(wrong(
                "it has a login, which is not a part of a registry's host name; stead uses the logins of `docker login` and `podman login`".into(),
            ));
        }
        let Some((host, rest)) = text.split_once('/') else {
            return Err(wrong(
                "a registry and a repository are needed: oci://HOST/REPOSITORY:TAG".into(),
            ));
        };
        check_host(host).map_err(wrong)?;
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (name, None),
        };
        check_repository(repository).map_err(wrong)?;
        if host.len() + repository.len() > LONGEST {
            return Err(wrong(format!("it is longer than {LONGEST} characters")));
        }
        if let Some(tag) = tag {
            check_tag(tag).map_err(wrong)?;
        }
        let version = match (tag, digest) {
            // With both, the tag is for people to read.
            (_, Some(digest)) => Version::Digest(
                sha256(digest)
                    .ok_or_else(|| {
                        wrong(format!(
                            "{:?} is not a sha256:… digest",
                            address::shown(digest)
                        ))
                    })?
                    .to_string(),
            ),
            (Some(tag), None) => Version::Tag(tag.to_string()),
            (None, None) => {
                return Err(wrong("it has neither :TAG nor @sha256:DIGEST".into()));
            }
        };
        Ok(Reference {
            host: host.to_string(),
            repository: repository.to_string(),
            version,
        })
    }

    /// Whether the registry is on this host, where an unencrypted connection is safe.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// `HOST/REPOSITORY`.
    pub fn place(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// Returns the same repository at another version.
    pub fn at(&self, version: Version) -> Self {
        Reference {
            version,
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.host, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(hex) => write!(f, "@sha256:{hex}"),
        }
    }
}

impl fmt::Display for Version {
    /// As the registry's API writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Tag(tag) => f.write_str(tag),
            Version::Digest(hex) => write!(f, "sha256:{hex}"),
        }
    }
}

/// Returns the hex digits of `sha256:…`. The specification requires lower case.
pub(super) fn sha256(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    (hex.len() == 64 && hex.chars().all(digit)).then_some(hex)
}

/// `host` may have a port.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check_host(host: &str) -> Result<(), String> {
    let wrong = || format!("{:?} is not a registry's host name", address::shown(host));
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(wrong());
    }
    // `http:` or `https:` between the slashes would be read as a host.
    match reqwest::Url::parse(&format!("https://{host}/")) {
        Ok(url) if url.host().is_some() && url.path() == "/" => Ok(()),
        _ => Err(wrong()),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by slashes (distribution specification, "Pulling
/// manifests").
fn check_repository(repository: &str) -> Result<(), String> {
    let component = |text: &str| {
        let ends =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let separator = |run: &str| {
            run.is_empty()
                || run == "."
                || run == "_"
                || run == "__"
                || run.chars().all(|c| c == '-')
        };
        ends(text.chars().next())
            && ends(text.chars().last())
            && text
                .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                .all(separator)
    };
    if repository.split('/').all(component) {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a repository, expected a-z and 0-9, with single . _ - and / between them",
        address::shown(repository)
    ))
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = tag.len() <= 128
        && tag.chars().next().is_some_and(word)
        && tag.chars().all(|c| word(c) || ".-".contains(c));
    if good {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a tag, expected at most 128 letters, digits and _ . -",
        address::shown(tag)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reference_says() {
        let hex = "a".repeat(64);
        let parse = |text: &str| Reference::parse(text).unwrap();
        let reference = parse("ghcr.io/acme/boxes/debian-12:12.13");
        assert_eq!(reference.host, "ghcr.io");
        assert_eq!(reference.repository, "acme/boxes/debian-12");
        assert_eq!(reference.version, Version::Tag("12.13".into()));
        assert_eq!(
            reference.to_string(),
            "oci://ghcr.io/acme/boxes/debian-12:12.13"
        );
        let reference = parse(&format!("[::1]:5000/a:x@sha256:{hex}"));
        assert_eq!(reference.version, Version::Digest(hex.clone()));
        assert!(reference.is_loopback());
        assert_eq!(
            reference.to_string(),
            format!("oci://[::1]:5000/a@sha256:{hex}")
        );
    }

    #[test]
    fn secrets_are_not_quoted() {
        for text in [
            "u:secret@127.0.0.1:1/x:y",
            "u:secret@h",
            "u:sec/ret@h/x:y",
            "u:secret@h/X:y",
            "h/u:secret!@h:y",
            "https://u:secret@h/x:y",
            "h/a?token=secret",
            "h/a:x?token=secret",
            "h/a@sha256:12?token=secret",
        ] {
            let message = Reference::parse(text).unwrap_err();
            assert!(
                !message.contains("sec") && !message.contains("ret@"),
                "{text}: {message}"
            );
        }
    }

    #[test]
    fn hosts_that_are_this_one() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.1.2.3:80",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "127.0.0.1.example.org",
            "localhost.example.org",
            "10.0.0.1",
            "[::2]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_is_no_reference() {
        let long = format!("h/{}:x", "a".repeat(255));
        for (text, word) in [
            ("ghcr.io", "a registry and a repository"),
            ("/a:x", "not a registry's host name"),
            ("me:secret@ghcr.io/a:x", "it has a login"),
            ("h:port/a:x", "not a registry's host name"),
            ("h/a", "neither :TAG nor"),
            ("h/:x", "is not a repository"),
            ("h/A:x", "is not a repository"),
            ("h/a//b:x", "is not a repository"),
            ("h/../a:x", "is not a repository"),
            ("h/a..b:x", "is not a repository"),
            ("h/a?b:x", "is not a repository"),
            ("h/a:", "is not a tag"),
            ("h/a:-x", "is not a tag"),
            ("h/a@sha256:12", "is not a sha256"),
            ("h/a@md5:12", "is not a sha256"),
            (long.as_str(), "longer than 255"),
        ] {
            let message = Reference::parse(text).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
