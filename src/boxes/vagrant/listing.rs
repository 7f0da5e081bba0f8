//! A Vagrant server's listing of a box: its versions, with a URL for each provider.

use serde::Deserialize;

use crate::{
    boxes::catalogue::{Requirement, Version},
    fetch::Expected,
};

/// The JSON at a box's URL.
#[derive(Debug, Deserialize)]
pub struct Listing {
    pub name: String,
    versions: Vec<ListedVersion>,
}

#[derive(Debug, Deserialize)]
struct ListedVersion {
    version: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Debug, Deserialize)]
struct Provider {
    name: String,
    url: String,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    default_architecture: Option<bool>,
    #[serde(default)]
    checksum: Option<String>,
    #[serde(default)]
    checksum_type: Option<String>,
}

/// The chosen version and its file.
#[derive(Debug, PartialEq)]
pub struct Chosen {
    pub version: String,
    pub url: String,
    pub expected: Option<Expected>,
}

impl Listing {
    /// Parses a listing; `None` if it is something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Returns the newest version that fits and has a file for libvirt on this architecture (as in
    /// `uname -m`). `Err` lists the versions that there are.
    pub fn choose(&self, requirement: &Requirement, arch: &str) -> Result<Chosen, String> {
        let mut versions: Vec<(Version, &ListedVersion)> = (self.versions.iter())
            .filter(|listed| listed.status.as_deref() != Some("revoked"))
            .filter_map(|listed| Some((Version::parse(&listed.version)?, listed)))
            .collect();
        versions.sort_by(|(a, _), (b, _)| b.cmp(a));
        let found = (versions.iter())
            .filter(|(version, _)| requirement.fits(version))
            .find_map(|(_, listed)| Some((listed, listed.provider(arch)?)));
        let Some((listed, provider)) = found else {
            let fitting: Vec<&str> = (versions.iter())
                .filter(|(_, listed)| listed.provider(arch).is_some())
                .map(|(_, listed)| listed.version.as_str())
                .take(20)
                .collect();
            return Err(if fitting.is_empty() {
                format!("{} has no version for libvirt on {arch}", self.name)
            } else {
                format!(
                    "{} has no such version; for libvirt on {arch} it has: {}",
                    self.name,
                    fitting.join(", ")
                )
            });
        };
        Ok(Chosen {
            version: listed.version.clone(),
            url: provider.url.clone(),
            expected: provider.expected(&self.name)?,
        })
    }
}

impl ListedVersion {
    fn provider(&self, arch: &str) -> Option<&Provider> {
        let fits = |provider: &&Provider| ["libvirt", "qemu"].contains(&provider.name.as_str());
        // Vagrant names architectures as Go does. Older listings name none.
        let own = match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        (self.providers.iter().filter(fits))
            .find(|provider| provider.architecture.as_deref() == Some(own))
            .or_else(|| {
                (self.providers.iter().filter(fits)).find(|provider| {
                    let unknown =
                        matches!(provider.architecture.as_deref(), None | Some("unknown"));
                    unknown && (arch == "x86_64" || provider.default_architecture == Some(true))
                })
            })
    }
}

impl Provider {
    /// Weak digests are ignored; then https alone protects the file.
    fn expected(&self, name: &str) -> Result<Option<Expected>, String> {
        match (self.checksum_type.as_deref(), self.checksum.as_deref()) {
            (Some(kind @ ("sha256" | "sha512")), Some(digits)) => Expected::parse(
                &format!("{kind}:{digits}"),
                format!("the listing of {name}"),
            )
            .map(Some)
            .ok_or_else(|| format!("{name} lists an invalid {kind}: {digits:?}")),
            _ => Ok(None),
        }
    }
}
