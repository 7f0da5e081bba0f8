//! Machinefile.lock: the exact boxes and kernels of a project. docs/reference/lockfile.md is its specification.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use kdl::{KdlNode, KdlValue};
use miette::Diagnostic;
use thiserror::Error;

use crate::{
    host::{
        self,
        digest::sha256_of,
        file,
        lock::{Lock, LockName, own_holder},
        open,
    },
    packages::{PinnedFile, PinnedPackage},
    report::clean::Shown,
};

/// The file's name, beside the Machinefile.
pub const LOCK_FILE: &str = "Machinefile.lock";

/// The largest file that is read, in bytes. Each box or package takes some hundred bytes.
const LARGEST: u64 = 4 << 20;

/// The version of the format that this stead writes. A file without a box by name has
/// [`BEFORE_NAMES`], so that older steads read it.
const FORMAT: i128 = 2;
const BEFORE_NAMES: i128 = 1;

#[derive(Debug, Error, Diagnostic)]
pub enum LockFileError {
    #[error("{path}:{line}: {message}", path = .path.shown())]
    #[diagnostic(help(
        "restore it from version control, or delete it: `stead up` writes a new one with the present boxes"
    ))]
    Malformed {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("cannot {doing} {path}: {source}", path = .path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// What the reference of a fetched box resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedBox {
    pub version: String,
    /// Its origin.
    pub url: String,
    /// The digest of the file at `url`, before it is unpacked.
    pub sha256: String,
    /// The size of that file, in bytes.
    pub size: u64,
}

/// What the name of a box that was built, packed or added on this host resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedBox {
    pub version: String,
    /// The box's digest in the store.
    pub digest: String,
}

/// What a machine's kernel resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockedKernel {
    Package(PinnedPackage),
    /// The kernel's digest in the store.
    Capture(String),
}

/// A kernel as the Machinefile names it, on hosts of one architecture.
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
    /// Whether both name the same kernel, on any architecture.
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

/// Entries by reference and architecture, written in that order, so that a new box is one new block
/// in a diff.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFile {
    entries: BTreeMap<(String, String), LockedBox>,
    named: BTreeMap<(String, String), NamedBox>,
    kernels: BTreeMap<KernelKey, LockedKernel>,
}

impl LockFile {
    /// Reads the file. If it does not exist, the result is empty.
    pub fn read(root: &Path) -> Result<Self, LockFileError> {
        let path = root.join(LOCK_FILE);
        // A symlink that leads out of the project could show any file of this computer in errors.
        let read = match root.canonicalize() {
            Ok(root) => open::text_within(&path, LARGEST, &root),
            Err(error) => Err(error),
        };
        match read {
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

    pub fn get(&self, reference: &str, arch: &str) -> Option<&LockedBox> {
        self.entries.get(&(reference.to_string(), arch.to_string()))
    }

    pub fn set(&mut self, reference: &str, arch: &str, entry: LockedBox) {
        self.entries
            .insert((reference.to_string(), arch.to_string()), entry);
    }

    /// Keeps the references that are in `wanted`, and those of other architectures, which colleagues may use.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.entries.retain(|(reference, _), _| wanted(reference));
    }

    pub fn named(&self, reference: &str, arch: &str) -> Option<&NamedBox> {
        self.named.get(&(reference.to_string(), arch.to_string()))
    }

    pub fn set_named(&mut self, reference: &str, arch: &str, named: NamedBox) {
        self.named
            .insert((reference.to_string(), arch.to_string()), named);
    }

    /// Like [`Self::retain`], for boxes by name.
    pub fn retain_named(&mut self, wanted: impl Fn(&str) -> bool) {
        self.named.retain(|(reference, _), _| wanted(reference));
    }

    pub fn kernel(&self, key: &KernelKey) -> Option<&LockedKernel> {
        self.kernels.get(key)
    }

    pub fn set_kernel(&mut self, key: KernelKey, entry: LockedKernel) {
        self.kernels.insert(key, entry);
    }

    /// Like [`Self::retain`], for kernels.
    pub fn retain_kernels(&mut self, wanted: impl Fn(&KernelKey) -> bool) {
        self.kernels.retain(|key, _| wanted(key));
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.named.is_empty() && self.kernels.is_empty()
    }

    /// Returns `now` with the changes from `before` to `self`: another stead may have written other
    /// entries since `before` was read.
    fn onto(&self, before: &Self, mut now: Self) -> Self {
        onto(&before.entries, &self.entries, &mut now.entries);
        onto(&before.named, &self.named, &mut now.named);
        onto(&before.kernels, &self.kernels, &mut now.kernels);
        now
    }

    /// Writes the changes from `before` to `self` into the file as it is now, or removes it if nothing
    /// is left. Returns its content. Steads with the same data folder wait for each other in `locks`.
    pub fn save(&self, before: &Self, root: &Path, locks: &Path) -> Result<Self, LockFileError> {
        let digest = sha256_of(root.as_os_str().as_bytes());
        let name = LockName::LockFile(digest.get(..16).unwrap_or(&digest));
        let io = |doing, path: PathBuf| {
            move |source| LockFileError::Io {
                doing,
                path,
                source,
            }
        };
        let _held = Lock::acquire(locks, name, &own_holder())
            .map_err(io("lock a file in", locks.to_path_buf()))?;
        let now = Self::read(root)?;
        let after = self.onto(before, now.clone());
        if after == now {
            return Ok(after);
        }
        if !after.is_empty() {
            after.write(root)?;
            return Ok(after);
        }
        let path = root.join(LOCK_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
            _ => Ok(after),
        }
    }

    /// Writes the whole file, atomically.
    fn write(&self, root: &Path) -> Result<(), LockFileError> {
        let path = root.join(LOCK_FILE);
        file::replace(&path, self.render().as_bytes(), file::READABLE).map_err(|source| {
            LockFileError::Io {
                doing: "write",
                path,
                source,
            }
        })
    }

    /// Parses the text of a lock file.
    ///
    /// # Errors
    /// The line with the mistake, and the mistake.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        parse(text)
    }

    pub fn render(&self) -> String {
        let format = if self.named.is_empty() {
            BEFORE_NAMES
        } else {
            FORMAT
        };
        let mut text = format!(
            "// Written by stead: the exact boxes and kernels of this project. Commit it; `stead box update` updates it.\nversion {format}\n"
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
        for ((reference, arch), named) in &self.named {
            let _ = write!(
                text,
                "box {} arch={} {{\n    version {}\n    digest {}\n}}\n",
                quoted(reference),
                quoted(arch),
                quoted(&named.version),
                quoted(&named.digest),
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
                    LockedKernel::Package(package),
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
                (KernelKey::Capture { name, arch }, LockedKernel::Capture(digest)) => writeln!(
                    text,
                    "kernel capture={} arch={} {{\n    digest {}\n}}",
                    quoted(name),
                    quoted(arch),
                    quoted(digest)
                ),
                // Never in a lock file.
                _ => Ok(()),
            };
        }
        text
    }
}

/// Applies the changes from `before` to `after` to `now`.
fn onto<K: Ord + Clone, V: Clone + PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    now: &mut BTreeMap<K, V>,
) {
    for (key, value) in after {
        if before.get(key) != Some(value) {
            now.insert(key.clone(), value.clone());
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(key)) {
        now.remove(key);
    }
}

/// Writes a string in quotes even if KDL does not need them, so that all lines look alike.
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
    let document = host::kdl::parse(text)
        .map_err(|mistakes| (mistakes.first.line(text), mistakes.first.sentence()))?;
    let mut lock = LockFile::default();
    let mut version = None;
    for node in document.nodes() {
        let wrong = |message: String| (line_at(node.span().offset()), message);
        match node.name().value() {
            "version" => version = node.get(0).and_then(KdlValue::as_integer),
            "box" => {
                let (key, found) = read_box(node).map_err(wrong)?;
                let twice = lock.entries.contains_key(&key) || lock.named.contains_key(&key);
                if twice {
                    return Err(wrong("this box is listed twice".into()));
                }
                match found {
                    FoundBox::At(entry) => drop(lock.entries.insert(key, entry)),
                    FoundBox::Named(named) => drop(lock.named.insert(key, named)),
                }
            }
            "kernel" => {
                let (key, entry) = read_kernel(node).map_err(wrong)?;
                if lock.kernels.insert(key, entry).is_some() {
                    return Err(wrong("this kernel is listed twice".into()));
                }
            }
            other => return Err(wrong(format!("unknown node {other:?}"))),
        }
    }
    match version {
        Some(FORMAT | BEFORE_NAMES) => Ok(lock),
        Some(other) => Err((
            1,
            format!("its format is {other}, but this stead reads up to {FORMAT}"),
        )),
        None => Err((1, "it has no version".into())),
    }
}

/// A box of the file: fetched from a place, or known by its name on this host.
enum FoundBox {
    At(LockedBox),
    Named(NamedBox),
}

fn read_box(node: &KdlNode) -> Result<((String, String), FoundBox), String> {
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
    let key = (reference.to_string(), arch.to_string());
    if child("digest").is_some() {
        let digest = text("digest")?;
        let is_hex = |hex: &str| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit());
        if !digest.strip_prefix("sha256:").is_some_and(is_hex) {
            return Err(format!("the digest of box {reference:?} is not valid"));
        }
        let version = text("version")?;
        return Ok((key, FoundBox::Named(NamedBox { version, digest })));
    }
    let sha256 = text("sha256")?;
    if sha256.len() != 64 || !sha256.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(format!("the sha256 of box {reference:?} is not valid"));
    }
    let size = child("size")
        .and_then(KdlValue::as_integer)
        .and_then(|size| u64::try_from(size).ok())
        .ok_or(format!("box {reference:?} has no size"))?;
    Ok((
        key,
        FoundBox::At(LockedBox {
            version: text("version")?,
            url: text("url")?,
            sha256: sha256.to_ascii_lowercase(),
            size,
        }),
    ))
}

fn read_kernel(node: &KdlNode) -> Result<(KernelKey, LockedKernel), String> {
    let property = |node: &KdlNode, name: &str| {
        (node.get(name).and_then(KdlValue::as_string))
            .map(str::to_string)
            .ok_or(format!("a {} has no {name}", node.name().value()))
    };
    let arch = property(node, "arch")?;
    let children = node.children().ok_or("a kernel is empty")?;
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
            LockedKernel::Capture(digest),
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
        let inner = file.children().ok_or("a file is empty")?;
        let value = |name: &str| {
            (inner.get(name).and_then(|node| node.get(0))).ok_or(format!("a file has no {name}"))
        };
        let sha256 = value("sha256")?
            .as_string()
            .filter(|it| it.len() == 64 && it.chars().all(|c| c.is_ascii_hexdigit()))
            .ok_or("the sha256 of a file is not valid")?
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
                .ok_or("the size of a file is not valid")?,
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
        LockedKernel::Package(package),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: &str) -> LockedBox {
        LockedBox {
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
            LockedKernel::Package(PinnedPackage {
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
            LockedKernel::Capture(format!("sha256:{}", "c".repeat(64))),
        );
        lock.write(folder.path()).unwrap();
        assert_eq!(LockFile::read(folder.path()).unwrap(), lock);
        insta::assert_snapshot!(lock.render());
    }

    fn named(version: &str) -> NamedBox {
        NamedBox {
            version: version.into(),
            digest: format!("sha256:{}", "e".repeat(64)),
        }
    }

    #[test]
    fn boxes_by_name_raise_the_version_and_no_others_do() {
        let mut lock = LockFile::default();
        lock.set("debian/12", "x86_64", entry("12"));
        assert!(lock.render().contains("version 1\n"));
        lock.set_named("debian-12", "x86_64", named("12.13"));
        assert!(lock.render().contains("version 2\n"));
        assert_eq!(LockFile::parse(&lock.render()).unwrap(), lock);
    }

    #[test]
    fn two_who_write_at_once_lose_nothing_of_each_other() {
        let (root, locks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut start = LockFile::default();
        start.set("old", "x86_64", entry("1"));
        start.set("gone", "x86_64", entry("1"));
        start.write(root.path()).unwrap();
        // All of them have read the file before any writes it.
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (start, root, locks) = (&start, root.path(), locks.path());
                scope.spawn(move || {
                    let mut mine = start.clone();
                    mine.set(&format!("box-{n}"), "x86_64", entry("1"));
                    mine.set_named(&format!("name-{n}"), "x86_64", named("1"));
                    if n == 0 {
                        mine.retain(|reference| reference != "gone");
                    }
                    mine.save(start, root, locks).unwrap();
                });
            }
        });
        let end = LockFile::read(root.path()).unwrap();
        for n in 0..8 {
            assert!(end.get(&format!("box-{n}"), "x86_64").is_some(), "{n}");
            assert!(end.named(&format!("name-{n}"), "x86_64").is_some(), "{n}");
        }
        assert!(end.get("old", "x86_64").is_some());
        assert!(end.get("gone", "x86_64").is_none());
        // An empty lock file is removed.
        let nothing = LockFile::default();
        nothing.save(&end, root.path(), locks.path()).unwrap();
        assert!(!root.path().join(LOCK_FILE).exists());
    }

    #[test]
    fn what_is_no_lock_file_is_told_with_its_line() {
        let wrong = |text: &str| parse(text).unwrap_err();
        assert_eq!(wrong("version 3\n").0, 1);
        let twice = {
            let mut lock = LockFile::default();
            lock.set("a", "x", entry("1"));
            lock.set_named("a", "x", named("1"));
            lock.render()
        };
        assert_eq!(wrong(&twice).1, "this box is listed twice");
        let (line, message) = wrong("version 1\nbox \"a\" arch=\"x\" {\n}\n");
        assert_eq!((line, message.as_str()), (2, "box \"a\" has no sha256"));
        assert!(wrong("version 1\nbux\n").1.contains("unknown node"));
        assert_eq!(
            wrong("version 1\nbox {"),
            (
                2,
                "this `{` is not closed: write `}` where `box` ends".into()
            )
        );
        let merged = "version 1\n<<<<<<< HEAD\n=======\n>>>>>>> other\n";
        assert_eq!(wrong(merged).0, 2);
        assert!(wrong(merged).1.contains("an unresolved merge conflict"));
        let whole = {
            let mut lock = LockFile::default();
            lock.set("a", "x", entry("1"));
            lock.render()
        };
        for end in 0..whole.len() {
            // A truncated file must not panic.
            let _ = whole.get(..end).map(parse);
        }
    }
}
