//! Reads the logins that `docker login` and `podman login` have saved, in files and in credential helpers.

use std::{collections::HashMap, fmt, fs, io, path::PathBuf, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use crate::{host::process::Start, report::clean::Shown};

use super::{error::OciError, reference::Reference};

/// A login for a registry, or for the token server that it names. `Debug` is not derived, because no message
/// may contain the secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub kind: Kind,
    /// Their source: the name of a file or of a helper.
    pub from: String,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth 2 refresh token, for the token server only.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials from {}", self.from)
    }
}

/// Docker Hub's key in docker's files.
const HUB: &str = "https://index.docker.io/v1/";
/// The user name that helpers return with an identity token.
const TOKEN_USER: &str = "<token>";

/// containers-auth.json(5); docker's config.json has the same fields among others.
#[derive(Default, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: HashMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    /// Base64 of `user:password`.
    #[serde(default)]
    auth: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
}

/// What a file has for a registry.
#[derive(Debug, PartialEq, Eq)]
enum Lookup {
    Nothing,
    Found(Credentials),
    /// Ask this helper, by this key.
    Helper {
        name: String,
        key: String,
    },
}

/// Returns the first credentials in any of the files: first podman's, in its order, then docker's.
pub(super) async fn find(reference: &Reference) -> Result<Option<Credentials>, OciError> {
    for path in files(|name| std::env::var_os(name).filter(|value| !value.is_empty())) {
        let found = match fs::read(&path) {
            Ok(bytes) => read(&bytes, &path.shown(), reference),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(format!("{} cannot be read: {error}", path.shown())),
        };
        let wrong = |message| OciError::Credentials {
            host: reference.host.clone(),
            message,
        };
        match found.map_err(wrong)? {
            Lookup::Nothing => {}
            Lookup::Found(credentials) => return Ok(Some(credentials)),
            Lookup::Helper { name, key } => {
                if let Some(found) = ask(&name, &key).await.map_err(wrong)? {
                    return Ok(Some(found));
                }
            }
        }
    }
    Ok(None)
}

/// Returns the files that may have logins, by priority.
fn files(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Vec<PathBuf> {
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return vec![path.into()];
    }
    let home = variable("HOME").map(PathBuf::from);
    let below = |folder: Option<PathBuf>, rest: &str| folder.map(|folder| folder.join(rest));
    let config = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| below(home.clone(), ".config"));
    let docker = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| below(home, ".docker"));
    [
        below(
            variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            "containers/auth.json",
        ),
        below(config, "containers/auth.json"),
        below(docker, "config.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    let reference = Reference::parse("registry.example.org/team/base:1").expect("a reference");
    let _ = read(data, "fuzz", &reference);
}

fn read(bytes: &[u8], from: &str, reference: &Reference) -> Result<Lookup, String> {
    // serde's message could quote the secret.
    let file: AuthFile = serde_json::from_slice(bytes).map_err(|error| {
        format!(
            "{from} is not a JSON file of logins (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    let host = reference.host.as_str();
    let hub = matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    );
    let key = if hub { HUB } else { host };
    let helper = |name: &String| Lookup::Helper {
        name: name.clone(),
        key: key.to_string(),
    };
    if let Some(name) = file.helpers.get(host).or_else(|| file.helpers.get(key)) {
        return Ok(helper(name));
    }
    let place = reference.place();
    let best = file
        .auths
        .iter()
        .filter(|(_, auth)| auth.auth.is_some() || auth.identity_token.is_some())
        .filter_map(|(name, auth)| Some((covers(name, host, &place, hub)?, auth)))
        .max_by_key(|(length, _)| *length);
    if let Some((_, auth)) = best {
        let kind = decode(auth).ok_or_else(|| format!("its entry in {from} is damaged"))?;
        return Ok(Lookup::Found(Credentials {
            kind,
            from: from.to_string(),
        }));
    }
    Ok(file.store.as_ref().map_or(Lookup::Nothing, helper))
}

/// Returns how well a key of `auths` fits; longer is better. A key is a host or, with podman, a host and the
/// start of a repository.
fn covers(key: &str, host: &str, place: &str, hub: bool) -> Option<usize> {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    // With a scheme, the path is the version of an API.
    let name = match bare {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key,
    };
    let whole_hub = hub
        && matches!(
            name,
            "docker.io" | "index.docker.io" | "index.docker.io/v1/"
        );
    let part = place
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (whole_hub || name == host || (part && name.len() >= host.len())).then_some(name.len())
}

fn decode(auth: &Auth) -> Option<Kind> {
    if let Some(token) = auth
        .identity_token
        .as_ref()
        .filter(|token| !token.is_empty())
    {
        return Some(Kind::IdentityToken(token.clone()));
    }
    let bytes = STANDARD.decode(auth.auth.as_ref()?.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Kind::Password {
        user: user.to_string(),
        // docker padded old passwords with zero bytes.
        password: password.trim_end_matches('\0').to_string(),
    })
}

/// Runs `docker-credential-NAME get` (docker-credential-helpers' protocol). `None` if it has no login.
#[expect(clippy::disallowed_methods, reason = "it may ask on the terminal")]
async fn ask(name: &str, key: &str) -> Result<Option<Credentials>, String> {
    let program = format!("docker-credential-{name}");
    if name.is_empty() || name.contains('/') {
        return Err(format!(
            "{program:?} is not the name of a credential helper"
        ));
    }
    let run = async {
        let mut child = tokio::process::Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The helper may prompt on the terminal.
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .start()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its input gives a wrong answer, which is detected below.
            let _ = stdin.write_all(format!("{key}\n").as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = run
        .await
        .map_err(|error| format!("the credential helper {program} cannot be run: {error}"))?;
    if !output.status.success() {
        // After a failure stdout is a message, not a secret, but only this message is known.
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!(
            "the credential helper {program} failed ({})",
            output.status
        ));
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Username")]
        user: String,
        #[serde(rename = "Secret")]
        secret: String,
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("the answer of the credential helper {program} cannot be read"))?;
    Ok(Some(Credentials {
        kind: if answer.user == TOKEN_USER {
            Kind::IdentityToken(answer.secret)
        } else {
            Kind::Password {
                user: answer.user,
                password: answer.secret,
            }
        },
        from: program,
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    fn read_text(text: &str, place: &str) -> Result<Lookup, String> {
        read(text.as_bytes(), "config.json", &reference(place))
    }

    fn password(found: Result<Lookup, String>) -> String {
        match found {
            Ok(Lookup::Found(Credentials {
                kind: Kind::Password { user, password },
                ..
            })) => format!("{user}/{password}"),
            other => panic!("{other:?}"),
        }
    }

    fn auth(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn the_key_that_fits_best_counts() {
        let text = format!(
            r#"{{"auths": {{
                "example.org": {{"auth": "{}"}},
                "example.org/team": {{"auth": "{}"}},
                "https://old.example.org/v1/": {{"auth": "{}"}},
                "empty.example.org": {{}},
                "https://index.docker.io/v1/": {{"auth": "{}"}}
            }}, "unknown": 1}}"#,
            auth("a:1"),
            auth("b:2:3"),
            auth("c:4"),
            auth("d:5")
        );
        assert_eq!(password(read_text(&text, "example.org/x:1")), "a/1");
        assert_eq!(password(read_text(&text, "example.org/team/x:1")), "b/2:3");
        assert_eq!(password(read_text(&text, "example.org/teammate:1")), "a/1");
        assert_eq!(password(read_text(&text, "old.example.org/x:1")), "c/4");
        assert_eq!(password(read_text(&text, "docker.io/me/x:1")), "d/5");
        for other in [
            "example.org:5000/x:1",
            "example.or/x:1",
            "empty.example.org/x:1",
        ] {
            assert_eq!(read_text(&text, other), Ok(Lookup::Nothing), "{other}");
        }
    }

    #[test]
    fn helpers_of_a_registry_and_of_all() {
        let text =
            r#"{"auths": {"a.org": {}}, "credHelpers": {"b.org": "pass"}, "credsStore": "store"}"#;
        let helper = |name: &str, key: &str| {
            Ok(Lookup::Helper {
                name: name.into(),
                key: key.into(),
            })
        };
        assert_eq!(read_text(text, "a.org/x:1"), helper("store", "a.org"));
        assert_eq!(read_text(text, "b.org/x:1"), helper("pass", "b.org"));
        assert_eq!(read_text(text, "docker.io/x:1"), helper("store", HUB));
    }

    #[test]
    fn what_is_damaged_is_said_without_the_secret() {
        for text in [
            r#"{"auths": {"a.org": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"a.org": {"auth": "!secret"}}}"#,
            r#"{"auths": {"a.org": "secret"}}"#,
            "secret",
        ] {
            let message = read_text(text, "a.org/x:1").unwrap_err();
            assert!(message.contains("config.json"), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
        let shown = format!(
            "{:?}",
            Credentials {
                kind: Kind::IdentityToken("secret".into()),
                from: "x".into()
            }
        );
        assert!(!shown.contains("secret"));
    }

    #[test]
    fn the_files_in_their_order() {
        let with = |set: &'static [(&'static str, &'static str)]| {
            files(|name| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).into())
            })
        };
        assert_eq!(
            with(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]),
            [
                Path::new("/r/containers/auth.json"),
                Path::new("/h/.config/containers/auth.json"),
                Path::new("/h/.docker/config.json"),
            ]
        );
        assert_eq!(
            with(&[("DOCKER_CONFIG", "/d"), ("XDG_CONFIG_HOME", "/c")]),
            [
                Path::new("/c/containers/auth.json"),
                Path::new("/d/config.json"),
            ]
        );
        assert_eq!(
            with(&[("REGISTRY_AUTH_FILE", "/f"), ("HOME", "/h")]),
            [Path::new("/f")]
        );
    }
}
