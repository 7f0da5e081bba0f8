//! Parses the catalogue's KDL.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use ::kdl::{KdlDocument, KdlNode, KdlValue};
use miette::Diagnostic;
use reqwest::Url;
use thiserror::Error;

use crate::{
    boxes::seed::SeedKind,
    fetch::{Expected, PublicKey},
    host::{
        address, kdl,
        names::{check_name, check_user},
    },
};

use super::{Catalogue, Checksums, Entry, Image, Release, Signature, Version};

/// The version of the format that this stead reads.
const FORMAT: i128 = 1;

#[derive(Debug, Error, Diagnostic)]
pub enum CatalogueError {
    #[error("{source_name}:{line}: {message}")]
    #[diagnostic(help("docs/reference/catalogue.md describes catalogues"))]
    Malformed {
        source_name: String,
        line: usize,
        message: String,
    },
    #[error("there is no catalogue {path}")]
    #[diagnostic(help("create the file, or change `catalogue` in the Machinefile"))]
    Missing { path: String },
    #[error("box {reference:?}: {message}")]
    #[diagnostic(help(
        "write a version such as 12 or 24.04, or a range as in Cargo.toml: \">=22.04, <26\""
    ))]
    Requirement { reference: String, message: String },
    #[error("box {reference:?}: the catalogue has no such version for {arch}")]
    #[diagnostic(help("choose one of: {versions}"))]
    NoVersion {
        reference: String,
        arch: String,
        versions: String,
    },
}

/// An error: its offset in bytes, and its message.
type Wrong = (usize, String);

#[derive(Default)]
struct Reader {
    keys: BTreeMap<String, Arc<PublicKey>>,
}

pub(super) fn parse(text: &str, source: &str) -> Result<Catalogue, CatalogueError> {
    read(text).map_err(|(offset, message)| CatalogueError::Malformed {
        source_name: source.to_string(),
        line: text
            .get(..offset)
            .map_or(1, |before| before.matches('\n').count() + 1),
        message,
    })
}

fn read(text: &str) -> Result<Catalogue, Wrong> {
    let document = kdl::parse(text)
        .map_err(|mistakes| (mistakes.first.span.start, mistakes.first.sentence()))?;
    let mut reader = Reader::default();
    let mut catalogue = Catalogue::default();
    let mut version = None;
    for node in document.nodes() {
        match node.name().value() {
            "version" => version = node.get(0).and_then(KdlValue::as_integer),
            "key" => reader.key(node)?,
            "box" => {
                let (name, entry) = reader.entry(node)?;
                match catalogue.boxes.entry(name) {
                    btree_map::Entry::Vacant(place) => place.insert(entry),
                    btree_map::Entry::Occupied(place) => {
                        return Err(at(node, format!("box {:?} is defined twice", place.key())));
                    }
                };
            }
            // A server may answer with a web page.
            other => {
                return Err(match kdl::in_other_language(text) {
                    Some(mistake) => (mistake.span.start, mistake.sentence()),
                    None => at(node, format!("unknown node {other:?}")),
                });
            }
        }
    }
    match version {
        Some(FORMAT) => Ok(catalogue),
        Some(other) => Err((
            0,
            format!("its version is {other}, but this version of stead reads {FORMAT}"),
        )),
        None => Err((0, "it has no version".into())),
    }
}

fn at(node: &KdlNode, message: impl Into<String>) -> Wrong {
    (node.span().offset(), message.into())
}

fn argument<'a>(node: &'a KdlNode, what: &str) -> Result<&'a str, Wrong> {
    node.get(0)
        .and_then(KdlValue::as_string)
        .ok_or_else(|| at(node, format!("`{}` needs {what}", node.name().value())))
}

fn property<'a>(node: &'a KdlNode, name: &str) -> Option<&'a str> {
    node.get(name).and_then(KdlValue::as_string)
}

fn children(node: &KdlNode) -> &[KdlNode] {
    node.children().map_or(&[], KdlDocument::nodes)
}

fn known(node: &KdlNode, properties: &[&str]) -> Result<(), Wrong> {
    let unknown = node.entries().iter().find_map(|entry| {
        let name = entry.name()?.value();
        (!properties.contains(&name)).then(|| name.to_string())
    });
    match unknown {
        None => Ok(()),
        Some(name) => Err(at(
            node,
            format!("`{}` has no property {name:?}", node.name().value()),
        )),
    }
}

/// Requires https: images have digests, but over http others on the network could see or choose what is
/// fetched.
fn url(node: &KdlNode, text: &str) -> Result<Url, Wrong> {
    let shown = address::shown(text);
    let url =
        Url::parse(text).map_err(|error| at(node, format!("{shown:?} is not a URL: {error}")))?;
    if url.scheme() == "https" {
        Ok(url)
    } else {
        Err(at(node, format!("{shown:?} is not an https: URL")))
    }
}

impl Reader {
    fn key(&mut self, node: &KdlNode) -> Result<(), Wrong> {
        known(node, &["fingerprint"])?;
        let name = argument(node, "a name")?;
        let armoured = node
            .get(1)
            .and_then(KdlValue::as_string)
            .ok_or_else(|| at(node, format!("key {name:?} has no key block")))?;
        let key = PublicKey::parse(armoured)
            .map_err(|message| at(node, format!("key {name:?}: {message}")))?;
        let fingerprint = property(node, "fingerprint")
            .ok_or_else(|| at(node, format!("key {name:?} has no fingerprint")))?;
        let plain: String = fingerprint.split_whitespace().collect();
        if !plain.eq_ignore_ascii_case(&key.fingerprint()) {
            return Err(at(
                node,
                format!(
                    "key {name:?} has the fingerprint {}, expected {plain}",
                    key.fingerprint()
                ),
            ));
        }
        if self.keys.insert(name.to_string(), Arc::new(key)).is_some() {
            return Err(at(node, format!("key {name:?} is defined twice")));
        }
        Ok(())
    }

    fn entry(&self, node: &KdlNode) -> Result<(String, Entry), Wrong> {
        known(node, &["title", "login-user", "seed"])?;
        let name = argument(node, "a name")?;
        check_name("name", name).map_err(|message| at(node, message))?;
        let mut releases: Vec<Release> = Vec::new();
        for child in children(node) {
            if child.name().value() != "release" {
                return Err(at(
                    child,
                    format!("unknown node {:?} in a box", child.name().value()),
                ));
            }
            let release = self.release(child)?;
            if releases
                .iter()
                .any(|other| other.version == release.version)
            {
                return Err(at(
                    child,
                    format!("release {} is defined twice", release.version),
                ));
            }
            releases.push(release);
        }
        releases.sort_by(|a, b| b.version.cmp(&a.version));
        let seed = match property(node, "seed") {
            None | Some("cloud-init") => SeedKind::CloudInit,
            Some(other) => return Err(at(node, format!("unknown seed {other:?}"))),
        };
        let login_user = property(node, "login-user")
            .ok_or_else(|| at(node, format!("box {name:?} has no login-user")))?;
        check_user("login-user", login_user).map_err(|message| at(node, message))?;
        Ok((
            name.to_string(),
            Entry {
                title: property(node, "title").unwrap_or(name).to_string(),
                login_user: login_user.to_string(),
                seed,
                releases,
            },
        ))
    }

    fn release(&self, node: &KdlNode) -> Result<Release, Wrong> {
        known(node, &[])?;
        let text = argument(node, "a version")?;
        let version = Version::parse(text).ok_or_else(|| {
            at(
                node,
                format!("{text:?} is not a version, expected numbers with dots"),
            )
        })?;
        let mut images = BTreeMap::new();
        for child in children(node) {
            if child.name().value() != "image" {
                return Err(at(
                    child,
                    format!("unknown node {:?} in a release", child.name().value()),
                ));
            }
            let arch = argument(child, "an architecture")?;
            if images
                .insert(arch.to_string(), self.image(child)?)
                .is_some()
            {
                return Err(at(child, format!("image {arch:?} is defined twice")));
            }
        }
        Ok(Release { version, images })
    }

    fn image(&self, node: &KdlNode) -> Result<Image, Wrong> {
        known(node, &["sha256", "sha512"])?;
        let mut urls = Vec::new();
        let mut checksums = None;
        for child in children(node) {
            match child.name().value() {
                "url" => {
                    known(child, &[])?;
                    urls.push(url(child, argument(child, "a URL")?)?);
                }
                "checksums" => checksums = Some(self.checksums(child)?),
                other => return Err(at(child, format!("unknown node {other:?} in an image"))),
            }
        }
        let mut expected = None;
        for algorithm in ["sha256", "sha512"] {
            if let Some(digits) = property(node, algorithm) {
                expected = Some(
                    Expected::parse(&format!("{algorithm}:{digits}"), "the catalogue")
                        .ok_or_else(|| at(node, format!("{digits:?} is not a {algorithm}")))?,
                );
            }
        }
        if urls.is_empty() {
            return Err(at(node, "an image needs a url"));
        }
        if expected.is_none() && checksums.is_none() {
            return Err(at(node, "an image needs a sha256, a sha512, or checksums"));
        }
        Ok(Image {
            urls,
            expected,
            checksums,
        })
    }

    fn checksums(&self, node: &KdlNode) -> Result<Checksums, Wrong> {
        known(node, &["key", "signature"])?;
        let key = |name: &str| {
            self.keys
                .get(name)
                .cloned()
                .ok_or_else(|| at(node, format!("key {name:?} is not defined above this line")))
        };
        let signature = match (property(node, "key"), property(node, "signature")) {
            (None, None) => Signature::None,
            (Some(name), None) => Signature::Inside(key(name)?),
            (Some(name), Some(place)) => Signature::Beside(url(node, place)?, key(name)?),
            (None, Some(_)) => return Err(at(node, "a signature needs the key that made it")),
        };
        Ok(Checksums {
            url: url(node, argument(node, "a URL")?)?,
            signature,
        })
    }
}
