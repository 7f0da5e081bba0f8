//! The catalogue: which images short names such as `debian/12` refer to. docs/reference/catalogue.md specifies the
//! file.

mod parse;
mod version;

use std::{collections::BTreeMap, sync::Arc};

use reqwest::Url;

use crate::fetch::{Expected, PublicKey};

use super::seed::SeedKind;

pub use parse::CatalogueError;
pub use version::{Requirement, Version};

/// The built-in catalogue.
const EMBEDDED: &str = include_str!("../../../boxes/catalogue.kdl");

#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    boxes: BTreeMap<String, Entry>,
}

/// A box with all its versions.
#[derive(Clone, Debug)]
pub struct Entry {
    pub title: String,
    pub login_user: String,
    pub seed: SeedKind,
    /// The newest first.
    pub releases: Vec<Release>,
}

#[derive(Clone, Debug)]
pub struct Release {
    pub version: Version,
    /// By architecture, as in `uname -m`.
    pub images: BTreeMap<String, Image>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Mirrors of the same file.
    pub urls: Vec<Url>,
    /// The digest that the catalogue itself lists.
    pub expected: Option<Expected>,
    pub checksums: Option<Checksums>,
}

impl Image {
    pub fn is_signed(&self) -> bool {
        (self.checksums.as_ref()).is_some_and(|it| it.signature != Signature::None)
    }
}

/// A publisher's file of digests.
#[derive(Clone, Debug, PartialEq)]
pub struct Checksums {
    pub url: Url,
    pub signature: Signature,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Signature {
    None,
    /// The file is clearsigned.
    Inside(Arc<PublicKey>),
    Beside(Url, Arc<PublicKey>),
}

/// What a reference resolved to.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    pub name: &'a str,
    pub entry: &'a Entry,
    pub release: &'a Release,
    pub image: &'a Image,
}

impl Catalogue {
    pub fn embedded() -> Result<Self, CatalogueError> {
        Self::parse(EMBEDDED, "the built-in catalogue")
    }

    /// Whether the built-in catalogue may have a box of this name. Quicker than parsing it.
    pub fn embedded_mentions(name: &str) -> bool {
        EMBEDDED.contains(&format!("\nbox \"{name}\""))
    }

    /// Parses a catalogue. Errors name it `source`.
    pub fn parse(text: &str, source: &str) -> Result<Self, CatalogueError> {
        parse::parse(text, source)
    }

    /// Adds the boxes of `other`, which replace boxes of the same name.
    pub fn override_with(&mut self, other: Catalogue) {
        self.boxes.extend(other.boxes);
    }

    pub fn boxes(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.boxes
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    /// Splits a reference (`NAME`, `NAME/VERSION`, `NAME VERSION`) into name and version. `None` if the
    /// catalogue has no such box.
    pub fn split<'a>(&self, reference: &'a str) -> Option<(&'a str, &'a str)> {
        let (name, version) = match reference.split_once([' ', '/']) {
            Some((name, version)) => (name, version.trim()),
            None => (reference, ""),
        };
        self.boxes.contains_key(name).then_some((name, version))
    }

    /// Returns the shortest reference to a release that a Machinefile may have, such as `debian/12` for its newest version.
    pub fn short_reference(&self, name: &str, version: &Version, arch: &str) -> String {
        let whole = version.to_string();
        let ends = whole.match_indices('.').map(|(end, _)| end);
        ends.map(|end| format!("{name}/{}", &whole[..end]))
            .find(|reference| {
                let found = self.find(reference, arch).and_then(Result::ok);
                found.is_some_and(|found| found.release.version == *version)
            })
            .unwrap_or_else(|| format!("{name}/{whole}"))
    }

    /// Returns the newest version that fits. `None` if the catalogue has no such box.
    pub fn find(
        &self,
        reference: &str,
        arch: &str,
    ) -> Option<Result<Resolved<'_>, CatalogueError>> {
        let (name, wanted) = self.split(reference)?;
        let (name, entry) = self.boxes.get_key_value(name)?;
        let requirement = match Requirement::parse(wanted) {
            Ok(requirement) => requirement,
            Err(message) => {
                return Some(Err(CatalogueError::Requirement {
                    reference: reference.to_string(),
                    message,
                }));
            }
        };
        let found = entry.releases.iter().find_map(|release| {
            let image = release.images.get(arch)?;
            requirement.fits(&release.version).then_some(Resolved {
                name,
                entry,
                release,
                image,
            })
        });
        Some(found.ok_or_else(|| {
            let versions: Vec<String> = (entry.releases.iter())
                .filter(|release| release.images.contains_key(arch))
                .map(|release| release.version.to_string())
                .collect();
            CatalogueError::NoVersion {
                reference: reference.to_string(),
                arch: arch.to_string(),
                versions: if versions.is_empty() {
                    "none".into()
                } else {
                    versions.join(", ")
                },
            }
        }))
    }
}

#[cfg(test)]
mod tests;
