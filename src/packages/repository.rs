//! Package repositories, as users name them and as distributions run them.

use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::{
    fetch::{FetchError, PublicKey, kept},
    report::clean::Shown,
};

use super::{
    apt_sources,
    distribution::{Distribution, Family},
    error::{PackageError, is_gone},
    keys,
};

/// A repository with one list of packages, or one per component, and the keys that its signatures are checked with.
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    /// Ends with a slash.
    pub url: Url,
    pub layout: RepositoryFormat,
    /// The keys that are accepted. One of them must have signed.
    pub keys: Vec<PublicKey>,
    pub origin: RepositoryOrigin,
    /// Whether its lists may be past their date of expiry, as those of a snapshot are.
    pub may_be_old: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryFormat {
    /// `dists/SUITE/` below the address.
    Apt {
        suite: String,
        components: Vec<String>,
    },
    /// `repodata/` below the address.
    Rpm,
}

/// Where the repository's address comes from. Later origins are asked only if earlier ones do not have a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryOrigin {
    /// The user named it.
    Given,
    /// The host's own configuration, in this file.
    Host(PathBuf),
    /// The distribution runs it.
    Official,
    /// The distribution keeps old releases there.
    Archived,
}

/// apt's option for it.
const MAY_BE_OLD: &str = "[check-valid-until=no]";

const APT_FORM: &str = "write it as `https://mirror.example/debian bookworm main`: address, release, components; or only the address, for the box's release and main";
const RPM_FORM: &str = "write the address of the folder that contains repodata, such as `https://mirror.example/fedora/releases/41/Everything/x86_64/os`; $releasever and $basearch are filled in";

impl Repository {
    /// Parses a user's text: an address with a release and components, as in apt's one-line format, or only an address.
    /// `keyring` is a file with keys that are accepted in place of the distribution's.
    pub fn parse(
        text: &str,
        keyring: Option<&Path>,
        distribution: &Distribution,
    ) -> Result<Vec<Self>, PackageError> {
        let family = distribution.family()?;
        let keys = match keyring {
            Some(path) => {
                let bytes = std::fs::read(path).map_err(PackageError::io("read", path))?;
                keys::read(&bytes, &path.shown())?
            }
            None => keys::of(&distribution.id)?,
        };
        let form = match family {
            Family::Deb => APT_FORM,
            Family::Rpm => RPM_FORM,
        };
        let wrong = |message: &str| PackageError::Source {
            text: text.to_string(),
            message: message.to_string(),
            form,
        };
        let filled = text
            .replace("$releasever", &distribution.release)
            .replace("$basearch", &distribution.arch);
        let mut words = filled.split_whitespace().peekable();
        words.next_if(|word| *word == "deb");
        let may_be_old = words.next_if(|word| *word == MAY_BE_OLD).is_some();
        let address = words.next().ok_or_else(|| wrong("it is empty"))?;
        let url = base(address).ok_or_else(|| wrong("it has no http or https address"))?;
        let suite = words.next().map(str::to_string);
        let components: Vec<String> = words.map(str::to_string).collect();
        let layout = match family {
            Family::Rpm if suite.is_some() => {
                return Err(wrong("nothing may follow the address"));
            }
            Family::Rpm => RepositoryFormat::Rpm,
            Family::Deb => {
                let suite = suite.unwrap_or_else(|| distribution.release.clone());
                if suite.ends_with('/') || !is_path(&suite) {
                    return Err(wrong("its release is not a valid name"));
                }
                if !components.iter().all(|component| is_path(component)) {
                    return Err(wrong("its components are not valid names"));
                }
                RepositoryFormat::Apt {
                    suite,
                    components: match components.is_empty() {
                        true => vec!["main".to_string()],
                        false => components,
                    },
                }
            }
        };
        Ok(vec![Repository {
            url,
            layout,
            keys,
            origin: RepositoryOrigin::Given,
            may_be_old,
        }])
    }

    /// Returns the name for errors: `https://deb.debian.org/debian bookworm`.
    pub fn name(&self) -> String {
        let url = kept(&self.url);
        let url = url.trim_end_matches('/');
        match &self.layout {
            RepositoryFormat::Apt { suite, .. } => format!("{url} {suite}"),
            RepositoryFormat::Rpm => url.to_string(),
        }
    }

    /// Whether `self` and `other` have the same kind of origin, and so are asked together.
    pub(super) fn beside(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.origin) == std::mem::discriminant(&other.origin)
    }
}

/// Returns the repositories that were searched, for errors: suites at one address together, followed by those that
/// could not be searched, with the reason.
pub(super) fn searched(repositories: &[&Repository], absent: &[Absent]) -> String {
    let groups: Vec<String> = repositories
        .chunk_by(|a, b| a.url == b.url)
        .map(|group| {
            let suites: Vec<&str> = group[1..]
                .iter()
                .filter_map(|repository| match &repository.layout {
                    RepositoryFormat::Apt { suite, .. } => Some(suite.as_str()),
                    RepositoryFormat::Rpm => None,
                })
                .collect();
            let mut text = group[0].name();
            for suite in suites {
                text.push_str(" and ");
                text.push_str(suite);
            }
            text
        })
        .collect();
    match absent {
        [] => groups.join(", "),
        absent => format!("{}; not searched: {}", groups.join(", "), listed(absent)),
    }
}

/// A repository that could not be asked.
pub(super) struct Absent {
    /// Its name, and why it could not be asked.
    pub text: String,
    /// Whether the user should know; false if the distribution does not have this part at all.
    pub worth_a_word: bool,
}

impl Absent {
    pub(super) fn new(repository: &Repository, why: &str) -> Self {
        Absent {
            text: format!("{} ({why})", repository.name()),
            worth_a_word: false,
        }
    }

    /// Returns notes for the user about repositories in whose place others were used.
    pub(super) fn notes(absent: &[Self]) -> impl Iterator<Item = String> {
        absent
            .iter()
            .filter(|it| it.worth_a_word)
            .map(|it| format!("not used: {}", it.text))
    }
}

/// Returns the error if none of a distribution's repositories could be searched.
pub(super) fn none_searched(distribution: &Distribution, absent: &[Absent]) -> PackageError {
    PackageError::NoRepository {
        what: format!(
            "the repositories of {} {}",
            distribution.id, distribution.release
        ),
        looked: listed(absent),
    }
}

fn listed(absent: &[Absent]) -> String {
    let texts: Vec<&str> = absent.iter().map(|it| it.text.as_str()).collect();
    texts.join(", ")
}

/// Returns why a repository cannot be asked, so that the next one is asked.
///
/// # Errors
/// If the user named the repository, or if its data was altered.
pub(super) fn unavailable(
    repository: &Repository,
    error: FetchError,
) -> Result<Absent, PackageError> {
    let passing = is_gone(&error)
        || matches!(
            error,
            FetchError::Network { .. }
                | FetchError::NoAddress { .. }
                | FetchError::Stalled { .. }
                | FetchError::Status { .. }
                | FetchError::CutShort { .. }
        );
    if repository.origin == RepositoryOrigin::Given || !passing {
        return Err(PackageError::fetch(format!(
            "the list of packages of {}",
            repository.name()
        ))(error));
    }
    if is_gone(&error) {
        return Ok(Absent::new(repository, "it does not exist"));
    }
    let why = match error {
        FetchError::Network { message, .. } => message,
        error => error.to_string(),
    };
    Ok(Absent {
        worth_a_word: true,
        ..Absent::new(repository, &why)
    })
}

/// Returns all known repositories of a distribution, best first: those of the host, if it runs the same distribution,
/// then the official ones.
pub fn repositories(distribution: &Distribution) -> Result<Vec<Repository>, PackageError> {
    let mut found = match distribution.family()? {
        Family::Deb => apt_sources::repositories(Path::new("/"), distribution)?,
        Family::Rpm => Vec::new(),
    };
    found.extend(official(distribution)?);
    Ok(found)
}

/// Returns the repositories that the distribution itself runs.
pub fn official(distribution: &Distribution) -> Result<Vec<Repository>, PackageError> {
    let keys = keys::of(&distribution.id)?;
    let release = distribution.release.as_str();
    let arch = distribution.arch.as_str();
    // The first number of "9.4".
    let major = release.split('.').next().unwrap_or(release);
    let apt = |origin: RepositoryOrigin, address: &str, suites: &[&str], components: &[&str]| {
        suites
            .iter()
            .map(|suite| {
                let components = components.iter().map(|it| it.to_string()).collect();
                let suite = format!("{release}{suite}");
                (
                    origin.clone(),
                    address.to_string(),
                    RepositoryFormat::Apt { suite, components },
                )
            })
            .collect::<Vec<_>>()
    };
    let rpm = |origin: RepositoryOrigin, addresses: &[String]| {
        addresses
            .iter()
            .map(|address| (origin.clone(), address.clone(), RepositoryFormat::Rpm))
            .collect::<Vec<_>>()
    };
    use RepositoryOrigin::{Archived, Official};
    let places = match distribution.id.as_str() {
        "debian" => [
            apt(
                Official,
                "https://deb.debian.org/debian",
                &["", "-updates", "-backports"],
                &["main"],
            ),
            apt(
                Official,
                "https://security.debian.org/debian-security",
                &["-security"],
                &["main"],
            ),
            apt(
                Archived,
                "https://archive.debian.org/debian",
                &["", "-backports"],
                &["main"],
            ),
            apt(
                Archived,
                "https://archive.debian.org/debian-security",
                &["-security", "/updates"],
                &["main"],
            ),
        ]
        .concat(),
        "ubuntu" => {
            let suites = &["", "-updates", "-security"];
            // http, as Ubuntu itself uses it: the signature protects the content.
            let address = match arch {
                "x86_64" | "i686" => "http://archive.ubuntu.com/ubuntu",
                _ => "http://ports.ubuntu.com/ubuntu-ports",
            };
            [
                apt(Official, address, suites, &["main", "universe"]),
                apt(
                    Archived,
                    "http://old-releases.ubuntu.com/ubuntu",
                    suites,
                    &["main", "universe"],
                ),
            ]
            .concat()
        }
        "fedora" => {
            let linux = "https://dl.fedoraproject.org/pub/fedora/linux";
            let archive = "https://archives.fedoraproject.org/pub/archive/fedora/linux";
            let below = [
                format!("releases/{release}/Everything/{arch}/os"),
                format!("updates/{release}/Everything/{arch}"),
            ];
            [
                rpm(Official, &below.each_ref().map(|it| format!("{linux}/{it}"))),
                rpm(Archived, &[
                    // It has all updates, not only the last.
                    format!("https://fedoraproject-updates-archive.fedoraproject.org/fedora/{release}/{arch}"),
                    format!("{archive}/{}", below[0]),
                    format!("{archive}/{}", below[1]),
                ]),
            ]
            .concat()
        }
        "almalinux" => [
            rpm(
                Official,
                &[format!(
                    "https://repo.almalinux.org/almalinux/{major}/BaseOS/{arch}/os"
                )],
            ),
            rpm(
                Archived,
                &[format!(
                    "https://vault.almalinux.org/{release}/BaseOS/{arch}/os"
                )],
            ),
        ]
        .concat(),
        "rocky" => [
            rpm(
                Official,
                &[format!(
                    "https://dl.rockylinux.org/pub/rocky/{major}/BaseOS/{arch}/os"
                )],
            ),
            rpm(
                Archived,
                &[format!(
                    "https://dl.rockylinux.org/vault/rocky/{release}/BaseOS/{arch}/os"
                )],
            ),
        ]
        .concat(),
        "centos" => rpm(
            Official,
            &[format!(
                "https://mirror.stream.centos.org/{major}-stream/BaseOS/{arch}/os"
            )],
        ),
        _ => Vec::new(),
    };
    places
        .into_iter()
        .map(|(origin, address, layout)| {
            Ok(Repository {
                url: base(&address).ok_or_else(|| PackageError::Source {
                    text: address.clone(),
                    message: "the release does not fit into an address".to_string(),
                    form: "check the box's os-release",
                })?,
                layout,
                keys: keys.clone(),
                // Archives are not signed again.
                may_be_old: origin == RepositoryOrigin::Archived,
                origin,
            })
        })
        .collect()
}

/// Parses an address, and ends it with a slash, so that names can be joined to it.
pub(super) fn base(address: &str) -> Option<Url> {
    let mut url = Url::parse(address).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return None;
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Some(url)
}

/// Whether the text is one name, or several separated by slashes, without `..`.
fn is_path(text: &str) -> bool {
    text.split('/').all(|part| {
        !part.is_empty()
            && part != ".."
            && part != "."
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.+~".contains(c))
    })
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

    fn fedora() -> Distribution {
        Distribution {
            id: "fedora".into(),
            release: "41".into(),
            arch: "x86_64".into(),
        }
    }

    #[test]
    fn addresses_of_users_are_parsed() {
        let apt = |suite: &str, components: &[&str]| RepositoryFormat::Apt {
            suite: suite.into(),
            components: components.iter().map(|it| it.to_string()).collect(),
        };
        for (text, url, layout) in [
            (
                "https://m.example/debian",
                "https://m.example/debian/",
                apt("bookworm", &["main"]),
            ),
            (
                " deb http://m.example/debian/  bookworm-security main contrib",
                "http://m.example/debian/",
                apt("bookworm-security", &["main", "contrib"]),
            ),
            (
                "https://m.example/d buster/updates",
                "https://m.example/d/",
                apt("buster/updates", &["main"]),
            ),
        ] {
            let found = Repository::parse(text, None, &bookworm()).unwrap();
            assert_eq!(found[0].url.as_str(), url);
            assert_eq!(found[0].layout, layout);
            assert_eq!(found[0].origin, RepositoryOrigin::Given);
            assert!(!found[0].keys.is_empty());
        }
        let found = Repository::parse(
            "https://m.example/f/$releasever/$basearch/os",
            None,
            &fedora(),
        )
        .unwrap();
        assert_eq!(found[0].url.as_str(), "https://m.example/f/41/x86_64/os/");
    }

    #[test]
    fn invalid_addresses_are_refused() {
        for text in [
            "",
            "deb",
            "file:///x",
            "bookworm main",
            "https://m.example/ ../x main",
            "https://m.example/ ./",
        ] {
            assert!(
                Repository::parse(text, None, &bookworm()).is_err(),
                "{text}"
            );
        }
        assert!(Repository::parse("https://m.example/ 41", None, &fedora()).is_err());
    }

    #[test]
    fn every_distribution_has_its_own() {
        let names = |id: &str, release: &str, arch: &str| -> Vec<String> {
            let distribution = Distribution {
                id: id.into(),
                release: release.into(),
                arch: arch.into(),
            };
            official(&distribution)
                .unwrap()
                .iter()
                .map(Repository::name)
                .collect()
        };
        assert_eq!(
            names("debian", "bookworm", "x86_64")[3],
            "https://security.debian.org/debian-security bookworm-security"
        );
        assert_eq!(
            names("ubuntu", "noble", "aarch64")[0],
            "http://ports.ubuntu.com/ubuntu-ports noble"
        );
        assert_eq!(
            names("fedora", "41", "x86_64")[1],
            "https://dl.fedoraproject.org/pub/fedora/linux/updates/41/Everything/x86_64"
        );
        assert_eq!(
            names("rocky", "9.4", "x86_64"),
            [
                "https://dl.rockylinux.org/pub/rocky/9/BaseOS/x86_64/os",
                "https://dl.rockylinux.org/vault/rocky/9.4/BaseOS/x86_64/os"
            ]
        );
    }
}
