//! Machinefile.lock: which bytes each box and kernel of a project is. docs/lockfile.md is its specification.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use kdl::{KdlNode, KdlValue};
use miette::Diagnostic;
use thiserror::Error;

use crate::host::{self, file};
use crate::kernel::package::{PinnedFile, PinnedPackage};

/// The file's name, beside the Machinefile.
pub const LOCK_FILE: &str = "Machinefile.lock";

/// The version of the format that this stead writes and reads.
const FORMAT: i128 = 1;

#[derive(Debug, Error, Diagnostic)]
pub enum LockFileError {
    #[error("{path}:{line}: {message}", path = .path.display())]
    #[diagnostic(help(
        "take it back from version control, or delete it: `stead up` writes a new one, with what the boxes are now"
    ))]
    Malformed {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("cannot {doing} {path}: {source}", path = .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// What a box reference was resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub version: String,
    /// Where it came from.
    pub url: String,
    /// Of the file at `url`, as it comes.
    pub sha256: String,
    /// Of the same, in bytes.
    pub size: u64,
}

/// What a machine's kernel was resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEntry {
    Package(PinnedPackage),
    /// The kernel's digest in the store.
    Capture(String),
}

/// How the Machinefile names a kernel, on hosts of an architecture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelKey {
    Capture {
        name: String,
        arch: String,
    },
    Package {
        name: String,
        /// `debian/12`.
        distribution: String,
        arch: String,
    },
}

impl KernelKey {
    /// Whether both name the same kernel, on whatever architecture.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (KernelKey::Capture { name, .. }, KernelKey::Capture { name: other, .. }) => {
                name == other
            }
            (
                KernelKey::Package {
                    name, distribution, ..
                },
                KernelKey::Package {
                    name: other_name,
                    distribution: other,
                    ..
                },
            ) => name == other_name && distribution == other,
            _ => false,
        }
    }
}

/// Entries by reference and architecture; written in that order, so that one box more is one
/// block more in a diff.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFile {
    entries: BTreeMap<(String, String), Entry>,
    kernels: BTreeMap<KernelKey, KernelEntry>,
}

impl LockFile {
    /// An empty one where there is no file.
    pub fn read(root: &Path) -> Result<Self, LockFileError> {
        let path = root.join(LOCK_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|(line, message)| LockFileError::Malformed {
                path,
                line,
                message,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(LockFileError::Io {
                doing: "read",
                path,
                source,
            }),
        }
    }

    pub fn get(&self, reference: &str, arch: &str) -> Option<&Entry> {
        self.entries.get(&(reference.to_string(), arch.to_string()))
    }

    pub fn set(&mut self, reference: &str, arch: &str, entry: Entry) {
        self.entries
            .insert((reference.to_string(), arch.to_string()), entry);
    }

    /// Keeps the references that `wanted` knows; those of other architectures are a colleague's.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.entries.retain(|(reference, _), _| wanted(reference));
    }

    pub fn kernel(&self, key: &KernelKey) -> Option<&KernelEntry> {
        self.kernels.get(key)
    }

    pub fn set_kernel(&mut self, key: KernelKey, entry: KernelEntry) {
        self.kernels.insert(key, entry);
    }

    /// As [`Self::retain`], for kernels.
    pub fn retain_kernels(&mut self, wanted: impl Fn(&KernelKey) -> bool) {
        self.kernels.retain(|key, _| wanted(key));
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.kernels.is_empty()
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, root: &Path) -> Result<(), LockFileError> {
        let path = root.join(LOCK_FILE);
        file::replace(&path, self.render().as_bytes(), file::READABLE).map_err(|source| {
            LockFileError::Io {
                doing: "write",
                path,
                source,
            }
        })
    }

    /// Reads the text of one. `Err` says at which line what is wrong.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        parse(text)
    }

    pub fn render(&self) -> String {
        let mut text = format!(
            "// Written by stead: which bytes each box is. Commit it; `stead box update` moves it.\nversion {FORMAT}\n"
        );
        for ((reference, arch), entry) in &self.entries {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "box {} arch={} {{\n    version {}\n    url {}\n    sha256 {}\n    size {}\n}}\n",
                quoted(reference),
                quoted(arch),
                quoted(&entry.version),
                quoted(&entry.url),
                quoted(&entry.sha256),
                entry.size
            );
        }
        for (key, entry) in &self.kernels {
            let _ = match (key, entry) {
                (
                    KernelKey::Package {
                        name,
                        distribution,
                        arch,
                    },
                    KernelEntry::Package(package),
                ) => {
                    let _ = write!(
                        text,
                        "kernel package={} distribution={} arch={} {{\n    version {} id={} arch={}\n",
                        quoted(name),
                        quoted(distribution),
                        quoted(arch),
                        quoted(&package.version),
                        quoted(&package.distribution),
                        quoted(&package.arch),
                    );
                    let files = package.files.iter().map(|file| ("file", file));
                    let needs = package.needs.iter().map(|file| ("need", file));
                    for (node, file) in files.chain(needs) {
                        let _ = writeln!(
                            text,
                            "    {node} {} version={} {{\n        sha256 {}\n        size {}",
                            quoted(&file.package),
                            quoted(&file.version),
                            quoted(&file.sha256),
                            file.size
                        );
                        for url in &file.urls {
                            let _ = writeln!(text, "        url {}", quoted(url));
                        }
                        text.push_str("    }\n");
                    }
                    for key in &package.keys {
                        let _ = writeln!(text, "    key {}", quoted(key));
                    }
                    writeln!(text, "}}")
                }
                (KernelKey::Capture { name, arch }, KernelEntry::Capture(digest)) => writeln!(
                    text,
                    "kernel capture={} arch={} {{\n    digest {}\n}}",
                    quoted(name),
                    quoted(arch),
                    quoted(digest)
                ),
                // Never set so.
                _ => Ok(()),
            };
        }
        text
    }
}

/// Quoted also where KDL would print it bare, so that all lines look alike.
fn quoted(text: &str) -> String {
    let shown = KdlValue::String(text.to_string()).to_string();
    if shown.starts_with('"') {
        shown
    } else {
        format!("\"{shown}\"")
    }
}

fn parse(text: &str) -> Result<LockFile, (usize, String)> {
    let line_at = |offset: usize| {
        text.get(..offset)
            .map_or(1, |before| before.matches('\n').count() + 1)
    };
    let document = host::kdl::parse(text).map_err(|error| {
        let first = error.diagnostics.first();
        (
            first.map_or(1, |diagnostic| line_at(diagnostic.span.offset())),
            first
                .and_then(|diagnostic| diagnostic.message.clone())
                .unwrap_or_else(|| "not KDL".into()),
        )
    })?;
    let mut lock = LockFile::default();
    let mut version = None;
    for node in document.nodes() {
        let wrong = |message: String| (line_at(node.span().offset()), message);
        match node.name().value() {
            "version" => version = node.get(0).and_then(KdlValue::as_integer),
            "box" => {
                let (key, entry) = read_box(node).map_err(wrong)?;
                if lock.entries.insert(key, entry).is_some() {
                    return Err(wrong("this box is there twice".into()));
                }
            }
            "kernel" => {
                let (key, entry) = read_kernel(node).map_err(wrong)?;
                if lock.kernels.insert(key, entry).is_some() {
                    return Err(wrong("this kernel is there twice".into()));
                }
            }
            other => return Err(wrong(format!("unknown node {other:?}"))),
        }
    }
    match version {
        Some(FORMAT) => Ok(lock),
        Some(other) => Err((
            1,
            format!("its version is {other}, and this stead reads {FORMAT}"),
        )),
        None => Err((1, "it has no version".into())),
    }
}

fn read_box(node: &KdlNode) -> Result<((String, String), Entry), String> {
    let reference = node
        .get(0)
        .and_then(KdlValue::as_string)
        .ok_or("a box has no name")?;
    let arch = node
        .get("arch")
        .and_then(KdlValue::as_string)
        .ok_or("a box has no arch")?;
    let child = |name: &str| {
        node.children()
            .and_then(|children| children.get(name))
            .and_then(|node| node.get(0))
    };
    let text = |name: &str| -> Result<String, String> {
        child(name)
            .and_then(KdlValue::as_string)
            .map(str::to_string)
            .ok_or(format!("box {reference:?} has no {name}"))
    };
    let sha256 = text("sha256")?;
    if sha256.len() != 64 || !sha256.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(format!("the sha256 of box {reference:?} is none"));
    }
    let size = child("size")
        .and_then(KdlValue::as_integer)
        .and_then(|size| u64::try_from(size).ok())
        .ok_or(format!("box {reference:?} has no size"))?;
    Ok((
        (reference.to_string(), arch.to_string()),
        Entry {
            version: text("version")?,
            url: text("url")?,
            sha256: sha256.to_ascii_lowercase(),
            size,
        },
    ))
}

fn read_kernel(node: &KdlNode) -> Result<(KernelKey, KernelEntry), String> {
    let property = |node: &KdlNode, name: &str| {
        (node.get(name).and_then(KdlValue::as_string))
            .map(str::to_string)
            .ok_or(format!("a {} has no {name}", node.name().value()))
    };
    let arch = property(node, "arch")?;
    let children = node.children().ok_or("a kernel has nothing in it")?;
    let argument = |node: &KdlNode| {
        (node.get(0).and_then(KdlValue::as_string))
            .map(str::to_string)
            .ok_or(format!("a {} has no value", node.name().value()))
    };
    let child = |name: &str| children.get(name).ok_or(format!("a kernel has no {name}"));
    if let Ok(name) = property(node, "capture") {
        let digest = argument(child("digest")?)?;
        return Ok((
            KernelKey::Capture { name, arch },
            KernelEntry::Capture(digest),
        ));
    }
    let name = property(node, "package")?;
    let version = child("version")?;
    let (mut files, mut needs) = (Vec::new(), Vec::new());
    for file in children.nodes() {
        let to = match file.name().value() {
            "file" => &mut files,
            "need" => &mut needs,
            _ => continue,
        };
        let inner = file.children().ok_or("a file has nothing in it")?;
        let value = |name: &str| {
            (inner.get(name).and_then(|node| node.get(0))).ok_or(format!("a file has no {name}"))
        };
        let sha256 = value("sha256")?
            .as_string()
            .filter(|it| it.len() == 64 && it.chars().all(|c| c.is_ascii_hexdigit()))
            .ok_or("the sha256 of a file is none")?
            .to_ascii_lowercase();
        to.push(PinnedFile {
            package: argument(file)?,
            version: property(file, "version")?,
            urls: (inner.nodes().iter())
                .filter(|node| node.name().value() == "url")
                .map(argument)
                .collect::<Result<_, _>>()?,
            sha256,
            size: value("size")?
                .as_integer()
                .and_then(|size| u64::try_from(size).ok())
                .ok_or("the size of a file is none")?,
        });
    }
    if files.is_empty() {
        return Err(format!("kernel {name:?} has no file"));
    }
    let package = PinnedPackage {
        distribution: property(version, "id")?,
        name: name.clone(),
        version: argument(version)?,
        arch: property(version, "arch")?,
        files,
        needs,
        keys: (children.nodes().iter())
            .filter(|node| node.name().value() == "key")
            .map(argument)
            .collect::<Result<_, _>>()?,
    };
    Ok((
        KernelKey::Package {
            name,
            distribution: property(node, "distribution")?,
            arch,
        },
        KernelEntry::Package(package),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: &str) -> Entry {
        Entry {
            version: version.into(),
            url: "https://example.org/a \"b\".qcow2".into(),
            sha256: "a".repeat(64),
            size: 123,
        }
    }

    #[test]
    fn written_sorted_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert!(LockFile::read(folder.path()).unwrap().is_empty());
        let mut lock = LockFile::default();
        lock.set("ubuntu/24.04", "x86_64", entry("20260501"));
        lock.set("debian/12", "x86_64", entry("12"));
        lock.set("debian/12", "aarch64", entry("12"));
        lock.set_kernel(
            KernelKey::Package {
                name: "linux-image-6.1.0-47-amd64".into(),
                distribution: "debian/12".into(),
                arch: "x86_64".into(),
            },
            KernelEntry::Package(PinnedPackage {
                distribution: "debian".into(),
                name: "linux-image-6.1.0-47-amd64".into(),
                version: "6.1.170-3".into(),
                arch: "amd64".into(),
                keys: vec!["-----BEGIN\n\n\"x\"\n".into()],
                files: vec![PinnedFile {
                    package: "linux-image-6.1.0-47-amd64".into(),
                    version: "6.1.170-3".into(),
                    urls: vec!["https://example.org/a.deb".into()],
                    sha256: "b".repeat(64),
                    size: 456,
                }],
                needs: vec![PinnedFile {
                    package: "linux-base".into(),
                    version: "4.12.1~bpo12+1".into(),
                    urls: vec!["https://example.org/b.deb".into()],
                    sha256: "d".repeat(64),
                    size: 78,
                }],
            }),
        );
        lock.set_kernel(
            KernelKey::Capture {
                name: "prod-db".into(),
                arch: "x86_64".into(),
            },
            KernelEntry::Capture(format!("sha256:{}", "c".repeat(64))),
        );
        lock.write(folder.path()).unwrap();
        assert_eq!(LockFile::read(folder.path()).unwrap(), lock);
        insta::assert_snapshot!(lock.render());
    }

    #[test]
    fn what_is_no_lock_file_is_told_with_its_line() {
        let wrong = |text: &str| parse(text).unwrap_err();
        assert_eq!(wrong("version 2\n").0, 1);
        assert_eq!(wrong("").1, "it has no version");
        let (line, message) = wrong("version 1\nbox \"a\" arch=\"x\" {\n}\n");
        assert_eq!((line, message.as_str()), (2, "box \"a\" has no sha256"));
        assert!(wrong("version 1\nbux\n").1.contains("unknown node"));
        assert!(wrong("version 1\nbox {").0 >= 1);
        let whole = {
            let mut lock = LockFile::default();
            lock.set("a", "x", entry("1"));
            lock.render()
        };
        for end in 0..whole.len() {
            // No prefix of one panics.
            let _ = whole.get(..end).map(parse);
        }
    }
}
