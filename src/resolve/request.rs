//! What to fetch for `box "…"`: its location, its expected digests, and its name.

use std::path::PathBuf;

use reqwest::Url;

use crate::{
    boxes::{
        LOGIN_USER, Listing, SeedKind, Source, Title,
        catalogue::{Checksums, Requirement, Resolved},
        oci::Reference,
    },
    failure::Failure,
    fetch::{Algorithm, Expected, Fetched, kept, shown},
    machinefile::Machine,
    resolve::lockfile::{LOCK_FILE, LockedBox},
};

use super::{Resolver, boxes::origin_key, catalogues::Catalogues};

/// A box to fetch.
#[derive(Clone, Debug)]
pub struct BoxRequest {
    /// The key under which the store keeps its origin.
    pub key: String,
    pub place: BoxLocation,
    /// The URL as written, if it is a URL that is asked for.
    pub written_url: Option<String>,
    /// Its expected digests, and who expects them.
    pub expected: Vec<Expected>,
    /// Its title if it has none of its own.
    pub naming: Naming,
    /// The version to choose from the listing of a Vagrant server.
    pub version: String,
}

/// The location of a box.
#[derive(Clone, Debug)]
pub enum BoxLocation {
    Web {
        /// Several URLs of the same file.
        urls: Vec<Url>,
        /// Where its publisher has its digest.
        checksums: Option<Checksums>,
    },
    Registry(Reference),
    /// A path without symlinks.
    File(PathBuf),
}

/// The part of a box's title that does not come from its content.
#[derive(Clone, Debug)]
pub struct Naming {
    pub name: String,
    /// `None`: the start of its sha256.
    pub version: Option<String>,
    pub seed: SeedKind,
    pub login_user: String,
}

impl BoxRequest {
    /// As [`Self::at`], for a machine's box. A path is the one that the user agreed to.
    pub fn of(machine: &Machine, source: &Source) -> Option<Self> {
        let mut wanted = Self::at(&machine.box_key, source)?;
        if let (BoxLocation::File(path), Some(file)) = (&mut wanted.place, &machine.box_file) {
            path.clone_from(file);
        }
        Some(wanted)
    }

    /// The request for a URL or a path. `reference` is as written, `source` what it resolves to.
    pub fn at(reference: &str, source: &Source) -> Option<Self> {
        let place = match source {
            Source::Web(url) => BoxLocation::Web {
                urls: vec![url.clone()],
                checksums: None,
            },
            Source::Oci(reference) => BoxLocation::Registry(reference.clone()),
            Source::File(path) => BoxLocation::File(path.clone()),
            Source::Name => return None,
        };
        Some(BoxRequest {
            key: origin_key(reference, source),
            written_url: matches!(source, Source::Web(_))
                .then(|| written_url(reference).to_string()),
            place,
            version: version_of(reference, source),
            expected: Vec::new(),
            naming: Naming {
                name: source.stem().unwrap_or_else(|| "image".into()),
                version: None,
                seed: SeedKind::CloudInit,
                login_user: LOGIN_USER.into(),
            },
        })
    }

    /// The request for a box in a catalogue.
    pub fn listed(reference: &str, found: &Resolved<'_>) -> Self {
        BoxRequest {
            key: reference.to_string(),
            written_url: None,
            place: BoxLocation::Web {
                urls: found.image.urls.clone(),
                checksums: found.image.checksums.clone(),
            },
            version: String::new(),
            expected: found.image.expected.iter().cloned().collect(),
            naming: Naming {
                name: found.name.to_string(),
                version: Some(found.release.version.to_string()),
                seed: found.entry.seed,
                login_user: found.entry.login_user.clone(),
            },
        }
    }

    /// The request for a box in the lock file: exactly those bytes, whatever the catalogue has now.
    fn pinned(
        reference: &str,
        entry: &LockedBox,
        catalogues: &Catalogues,
    ) -> Result<Self, Failure> {
        let url = Url::parse(&entry.url).map_err(|error| {
            Failure::error(
                format!(
                    "{LOCK_FILE}: box {reference:?}: {:?} is not a URL: {error}",
                    entry.url
                ),
                "restore the file from version control, or delete it: `stead up` writes a new one",
            )
        })?;
        let listed = (catalogues.all()?.split(reference)).and_then(|(name, _)| {
            (catalogues.all().ok()?.boxes()).find(|(other, _)| *other == name)
        });
        let mirrors = listed.and_then(|(_, entry)| {
            (entry.releases.iter())
                .flat_map(|release| release.images.values())
                .find(|image| image.urls.iter().any(|it| kept(it) == kept(&url)))
        });
        Ok(BoxRequest {
            key: reference.to_string(),
            written_url: None,
            place: BoxLocation::Web {
                urls: mirrors.map_or_else(|| vec![url.clone()], |image| image.urls.clone()),
                // Its digest is pinned, and was checked against the publisher's then.
                checksums: None,
            },
            version: String::new(),
            expected: vec![pin_of(entry)],
            naming: Naming {
                name: listed.map_or(reference, |(name, _)| name).to_string(),
                version: Some(entry.version.clone()),
                seed: listed.map_or(SeedKind::CloudInit, |(_, entry)| entry.seed),
                login_user: listed
                    .map_or(LOGIN_USER, |(_, entry)| &entry.login_user)
                    .to_string(),
            },
        })
    }
}

impl BoxLocation {
    /// Adds the login of another URL if the server is the same. No other server gets it.
    fn with_login_of(mut self, other: &Url) -> Self {
        if let BoxLocation::Web { urls, .. } = &mut self {
            for url in urls.iter_mut().filter(|url| url.origin() == other.origin()) {
                // These fail only for URLs that cannot have a login.
                let _ = url.set_username(other.username());
                let _ = url.set_password(other.password());
            }
        }
        self
    }
}

/// Returns a reference without the version after it.
fn written_url(reference: &str) -> &str {
    reference.split(' ').next().unwrap_or(reference)
}

/// Whether the lock file has a box from exactly this URL, not from a listing at it.
pub fn is_at(entry: &LockedBox, reference: &str, url: &Url) -> bool {
    entry.url == written_url(reference) || entry.url == kept(url) || entry.url == url.as_str()
}

impl Naming {
    pub fn title(&self, sha256: &str) -> Title {
        Title {
            name: self.name.clone(),
            version: (self.version.clone()).unwrap_or_else(|| sha256.chars().take(12).collect()),
            arch: std::env::consts::ARCH.to_string(),
            seed: self.seed,
            login_user: self.login_user.clone(),
        }
    }
}

/// A file of a Vagrant server's listing.
pub struct ListedFile {
    pub version: String,
    pub url: Url,
    pub expected: Option<Expected>,
}

/// Returns the listing if the fetched file is one, and not a box.
pub fn listing_in(got: &Fetched) -> Option<Listing> {
    if got.size > LARGEST_LISTING {
        return None;
    }
    Listing::parse(&std::fs::read(&got.path).ok()?)
}

/// In bytes.
const LARGEST_LISTING: u64 = 4 << 20;

/// Returns the newest version of a listing that matches.
pub fn choose(listing: &Listing, version: &str, at: &Url) -> Result<ListedFile, Failure> {
    let wrong = |message: String| {
        Failure::error(
            message,
            format!(
                "{} lists its versions; choose one with `version` in the Machinefile",
                shown(at)
            ),
        )
    };
    let requirement = Requirement::parse(version).map_err(wrong)?;
    let chosen = listing
        .choose(&requirement, std::env::consts::ARCH)
        .map_err(wrong)?;
    let url = at.join(&chosen.url).map_err(|error| {
        wrong(format!(
            "{}: {:?} is not a URL: {error}",
            listing.name, chosen.url
        ))
    })?;
    if url.scheme() != "https" && chosen.expected.is_none() {
        return Err(wrong(format!(
            "{} is at {}, which is not protected, and the listing has no digest",
            listing.name,
            shown(&url)
        )));
    }
    Ok(ListedFile {
        version: chosen.version,
        url,
        expected: chosen.expected,
    })
}

/// Returns the version after a URL, separated from it by a space.
fn version_of(reference: &str, source: &Source) -> String {
    match source {
        Source::Web(_) => (reference.split_once(' '))
            .map_or("", |(_, version)| version)
            .to_string(),
        _ => String::new(),
    }
}

fn pin_of(entry: &LockedBox) -> Expected {
    Expected {
        algorithm: Algorithm::Sha256,
        hex: entry.sha256.clone(),
        by: LOCK_FILE.to_string(),
    }
}

/// Returns what to fetch for a machine's box, if it can be fetched. The Machinefile's digest has
/// precedence over the lock file's. The size in the lock file is ignored, so that a changed file on
/// the server is reported by its digest.
pub fn box_request(
    resolver: Resolver<'_>,
    machine: &Machine,
) -> Result<Option<BoxRequest>, Failure> {
    let arch = std::env::consts::ARCH;
    let reference = &machine.box_key;
    let Ok(source) = Source::parse(&machine.box_ref, &resolver.project.root) else {
        return Ok(None);
    };
    let entry = resolver.lock_file.get(reference, arch);
    let mut wanted = match (BoxRequest::of(machine, &source), entry) {
        (Some(mut wanted), entry) => {
            // The listing may have changed since.
            if let (Source::Web(url), Some(entry)) = (&source, entry)
                && !is_at(entry, reference, url)
            {
                let BoxRequest { place, naming, .. } =
                    BoxRequest::pinned(reference, entry, resolver.catalogues)?;
                wanted.place = place.with_login_of(url);
                wanted.written_url = None;
                wanted.naming.version = naming.version;
            }
            wanted
        }
        (None, Some(entry)) => {
            return BoxRequest::pinned(reference, entry, resolver.catalogues).map(Some);
        }
        (None, None) => {
            return Ok((resolver.catalogues.find(reference, arch)?)
                .map(|found| BoxRequest::listed(reference, &found)));
        }
    };
    match expected_by_machinefile(machine) {
        Some(expected) => wanted.expected.push(expected),
        None => wanted.expected.extend(entry.map(pin_of)),
    }
    Ok(Some(wanted))
}

pub fn expected_by_machinefile(machine: &Machine) -> Option<Expected> {
    Some(Expected {
        algorithm: Algorithm::Sha256,
        hex: machine.box_sha256.clone()?,
        by: "the Machinefile".into(),
    })
}
