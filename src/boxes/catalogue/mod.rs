//! Images by short names: what `debian/12` is. docs/reference/catalogue.md specifies the file.

mod parse;
mod version;

use std::{collections::BTreeMap, sync::Arc};

use reqwest::Url;

use super::{
    fetch::{Expected, PublicKey},
    manifest::SeedKind,
};

pub use parse::CatalogueError;
pub use version::{Requirement, Version};

/// The one that stead carries.
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
    /// The same file at several places.
    pub urls: Vec<Url>,
    /// What the catalogue itself says it has to be.
    pub expected: Option<Expected>,
    pub checksums: Option<Checksums>,
}

impl Image {
    pub fn is_signed(&self) -> bool {
        (self.checksums.as_ref()).is_some_and(|it| it.signature != Signature::None)
    }
}

/// A file that its publisher says digests in.
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

/// What a reference came to.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    pub name: &'a str,
    pub entry: &'a Entry,
    pub release: &'a Release,
    pub image: &'a Image,
}

impl Catalogue {
    pub fn embedded() -> Result<Self, CatalogueError> {
        Self::parse(EMBEDDED, "the catalogue of stead")
    }

    /// Whether the embedded one may have a box of this name: quicker than parsing it.
    pub fn embedded_mentions(name: &str) -> bool {
        EMBEDDED.contains(&format!("\nbox \"{name}\""))
    }

    /// `source` is what errors call it.
    pub fn parse(text: &str, source: &str) -> Result<Self, CatalogueError> {
        parse::parse(text, source)
    }

    /// Boxes of `other` take the place of those of the same name here.
    pub fn override_with(&mut self, other: Catalogue) {
        self.boxes.extend(other.boxes);
    }

    pub fn boxes(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.boxes
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    /// The name and what is asked of its version, where `reference` (`NAME`, `NAME/VERSION`,
    /// `NAME VERSION`) names a box of the catalogue.
    pub fn split<'a>(&self, reference: &'a str) -> Option<(&'a str, &'a str)> {
        let (name, version) = match reference.split_once([' ', '/']) {
            Some((name, version)) => (name, version.trim()),
            None => (reference, ""),
        };
        self.boxes.contains_key(name).then_some((name, version))
    }

    /// The newest version that fits. `None`: no box of the catalogue is meant.
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
