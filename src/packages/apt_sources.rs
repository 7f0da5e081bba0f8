//! Reads the repositories that the host's own apt uses, so that stead uses the same mirrors.
//!
//! The files are those of sources.list(5), with signing keys as in apt-secure(8). Options that turn off signature
//! checks are ignored: stead only fetches what is signed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{fetch::PublicKey, report::clean::Shown};

use super::{
    Distribution,
    error::PackageError,
    keys,
    repository::{Repository, RepositoryFormat, RepositoryOrigin, base},
};

/// A source: one line of a `.list` file, or one stanza of a `.sources` file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    addresses: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    architectures: Vec<String>,
    signed_by: Option<SignedBy>,
    may_be_old: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum SignedBy {
    Files(Vec<PathBuf>),
    /// An armoured key inside of the file.
    Inline(String),
}

/// Returns the repositories in the configuration below `root` that serve the distribution's release. Kinds that
/// stead cannot read (cdrom:, flat repositories) are skipped.
pub(super) fn repositories(
    root: &Path,
    distribution: &Distribution,
) -> Result<Vec<Repository>, PackageError> {
    let arch = distribution.package_arch()?;
    let mut found = Vec::new();
    for path in files(root)? {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // Only root can read it, because it contains passwords.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            Err(error) => return Err(PackageError::io("read", &path)(error)),
        };
        let entries = match path.extension().is_some_and(|it| it == "sources") {
            true => stanzas(&text),
            false => lines(&text),
        };
        for entry in entries {
            if !entry.architectures.is_empty() && !entry.architectures.iter().any(|it| *it == arch)
            {
                continue;
            }
            // Distributions have their kernels in main. Other repositories often have other components.
            if !entry.components.iter().any(|it| it == "main") {
                continue;
            }
            let suites: Vec<&String> = entry
                .suites
                .iter()
                .filter(|suite| is_of(suite, &distribution.release))
                .collect();
            if suites.is_empty() {
                continue;
            }
            let keys = signing_keys(root, &entry, distribution)?;
            for url in entry.addresses.iter().filter_map(|address| base(address)) {
                for suite in &suites {
                    found.push(Repository {
                        url: url.clone(),
                        layout: RepositoryFormat::Apt {
                            suite: suite.to_string(),
                            components: entry.components.clone(),
                        },
                        keys: keys.clone(),
                        origin: RepositoryOrigin::Host(path.clone()),
                        may_be_old: entry.may_be_old,
                    });
                }
            }
        }
    }
    Ok(found)
}

/// Whether a suite belongs to a release, as `bookworm-security` does to `bookworm`, and `buster/updates` to `buster`.
fn is_of(suite: &str, release: &str) -> bool {
    suite
        .strip_prefix(release)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-') || rest == "/updates")
}

/// Returns apt's files, in apt's order.
fn files(root: &Path) -> Result<Vec<PathBuf>, PackageError> {
    let mut found = Vec::new();
    let list = root.join("etc/apt/sources.list");
    if list.is_file() {
        found.push(list);
    }
    found.extend(folder(
        &root.join("etc/apt/sources.list.d"),
        &["list", "sources"],
    )?);
    Ok(found)
}

/// Returns the files with one of these endings, sorted; none if the folder does not exist.
fn folder(path: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, PackageError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PackageError::io("read", path)(error)),
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.is_file()
                && path
                    .extension()
                    .is_some_and(|ending| endings.iter().any(|it| ending == *it))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Returns the keys that apt would accept: those of Signed-By, or else all that are trusted for every repository. In
/// that case the distribution's own keys are accepted too.
fn signing_keys(
    root: &Path,
    entry: &Entry,
    distribution: &Distribution,
) -> Result<Vec<PublicKey>, PackageError> {
    let read = |path: &Path| -> Result<Vec<PublicKey>, PackageError> {
        let bytes = fs::read(path).map_err(PackageError::io("read", path))?;
        keys::read(&bytes, &path.shown())
    };
    match &entry.signed_by {
        Some(SignedBy::Inline(armoured)) => keys::read(armoured.as_bytes(), "Signed-By"),
        Some(SignedBy::Files(paths)) => {
            let mut found = Vec::new();
            for path in paths {
                found.extend(read(&root.join(path.strip_prefix("/").unwrap_or(path)))?);
            }
            Ok(found)
        }
        None => {
            let mut found = keys::of(&distribution.id)?;
            let trusted = folder(&root.join("etc/apt/trusted.gpg.d"), &["gpg", "asc"])?;
            let single = root.join("etc/apt/trusted.gpg");
            for path in trusted
                .into_iter()
                .chain(single.is_file().then_some(single))
            {
                // A key that cannot be read signs nothing. apt itself warns about it.
                for key in read(&path).unwrap_or_default() {
                    if !found.contains(&key) {
                        found.push(key);
                    }
                }
            }
            Ok(found)
        }
    }
}

/// Parses lines such as `deb [option=value …] address suite component…`.
fn lines(text: &str) -> Vec<Entry> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let rest = line.strip_prefix("deb")?;
            if !rest.starts_with(char::is_whitespace) {
                return None;
            }
            let mut rest = rest.trim_start();
            let mut entry = Entry::default();
            if let Some(inner) = rest.strip_prefix('[') {
                let (options, after) = inner.split_once(']')?;
                rest = after;
                for option in options.split_whitespace() {
                    match option.split_once('=') {
                        Some(("arch", value)) => {
                            entry.architectures = words(&value.replace(',', " "))
                        }
                        Some(("signed-by", value)) => {
                            entry.signed_by = signed_by(&value.replace(',', " "));
                        }
                        Some(("check-valid-until", value)) => entry.may_be_old = value == "no",
                        _ => {}
                    }
                }
            }
            let mut words = rest.split_whitespace().map(str::to_string);
            entry.addresses = vec![words.next()?];
            entry.suites = vec![words.next()?];
            entry.components = words.collect();
            Some(entry)
        })
        .collect()
}

/// Parses stanzas in the format of deb822(5).
fn stanzas(text: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            found.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    found
}

fn stanza(fields: &[(String, String)]) -> Option<Entry> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    };
    let off = field("enabled").is_some_and(|it| it.eq_ignore_ascii_case("no"));
    if off || !words(field("types")?).iter().any(|it| it == "deb") {
        return None;
    }
    Some(Entry {
        addresses: words(field("uris")?),
        suites: words(field("suites")?),
        components: words(field("components").unwrap_or_default()),
        architectures: words(field("architectures").unwrap_or_default()),
        signed_by: field("signed-by").and_then(signed_by),
        may_be_old: field("check-valid-until").is_some_and(|it| it.eq_ignore_ascii_case("no")),
    })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

/// Parses Signed-By: names of files, or the lines of an armoured key, each after a space, with `.` for an empty line.
/// Returns `None` for fingerprints, which name keys of other files.
fn signed_by(value: &str) -> Option<SignedBy> {
    if value.contains("-----BEGIN") {
        let lines: Vec<&str> = value
            .lines()
            .map(|line| match line.trim() {
                "." => "",
                line => line,
            })
            .collect();
        return Some(SignedBy::Inline(lines.join("\n")));
    }
    let paths: Vec<PathBuf> = value
        .split_whitespace()
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    (!paths.is_empty()).then_some(SignedBy::Files(paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bookworm() -> Distribution {
        Distribution {
            id: "debian".into(),
            release: "bookworm".into(),
            arch: "x86_64".into(),
        }
    }

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn both_forms_and_only_this_release() {
        let folder = root(&[
            (
                "etc/apt/sources.list",
                "# deb http://off.example/debian bookworm main\n\
                 deb [arch=amd64,i386 signed-by=/usr/share/keyrings/own.asc] http://one.example/debian bookworm main contrib # x\n\
                 deb [ trusted=yes ] http://two.example/debian bookworm-security main\n\
                 deb [arch=arm64] http://arm.example/debian bookworm main\n\
                 deb-src http://src.example/debian bookworm main\n\
                 deb http://docker.example/linux/debian bookworm stable\n\
                 deb cdrom:[Debian]/ bookworm main\n\
                 deb http://flat.example/ ./\n\
                 deb http://other.example/debian trixie main\ndeb\ndeb [\n",
            ),
            (
                "etc/apt/sources.list.d/debian.sources",
                "Types: deb deb-src\nURIs: http://three.example/debian/ https://four.example/debian\n# a comment\nSuites: bookworm\n bookworm-updates trixie\nComponents: main\nSigned-By: /usr/share/keyrings/own.asc\n\nEnabled: no\nTypes: deb\nURIs: http://no.example/\nSuites: bookworm\nComponents: main\n",
            ),
            (
                "etc/apt/sources.list.d/x.list.save",
                "deb http://save.example/debian bookworm main\n",
            ),
            (
                "usr/share/keyrings/own.asc",
                include_str!("../boxes/catalogue/testdata/key.asc"),
            ),
        ]);
        let found = repositories(folder.path(), &bookworm()).unwrap();
        let names: Vec<String> = found.iter().map(Repository::name).collect();
        assert_eq!(
            names,
            [
                "http://one.example/debian bookworm",
                "http://two.example/debian bookworm-security",
                "http://three.example/debian bookworm",
                "http://three.example/debian bookworm-updates",
                "https://four.example/debian bookworm",
                "https://four.example/debian bookworm-updates",
            ]
        );
        assert_eq!(found[0].keys.len(), 1);
        // Signatures are always checked, here with the distribution's keys.
        assert_eq!(found[1].keys, keys::of("debian").unwrap());
        assert!(
            repositories(Path::new("/nowhere"), &bookworm())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn keys_in_the_file_itself() {
        let armoured: String = include_str!("../boxes/catalogue/testdata/key.asc")
            .lines()
            .map(|line| {
                if line.is_empty() {
                    " .\n".to_string()
                } else {
                    format!(" {line}\n")
                }
            })
            .collect();
        let folder = root(&[(
            "etc/apt/sources.list.d/a.sources",
            &format!(
                "Types: deb\nURIs: http://a.example\nSuites: bookworm\nComponents: main\nSigned-By:\n{armoured}"
            ),
        )]);
        let found = repositories(folder.path(), &bookworm()).unwrap();
        assert_eq!(found[0].keys.len(), 1);
    }

    #[test]
    fn a_missing_keyring_is_an_error() {
        let folder = root(&[(
            "etc/apt/sources.list",
            "deb [signed-by=/no.gpg] http://a.example bookworm main\n",
        )]);
        assert!(repositories(folder.path(), &bookworm()).is_err());
    }
}
