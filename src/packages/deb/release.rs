//! The Release file of a suite
//! (<https://wiki.debian.org/DebianRepository/Format>).

use std::collections::HashMap;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// The content of a Release file whose signature is valid.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Release {
    pub origin: String,
    pub suite: String,
    pub codename: String,
    pub architectures: Vec<String>,
    /// The date when it was made.
    pub date: Option<Timestamp>,
    /// The date by which a newer one must exist.
    pub valid_until: Option<Timestamp>,
    /// Whether lists can be fetched by their digest, which also works while a mirror is being updated.
    pub by_hash: bool,
    /// Whether apt uses it only for packages that are requested by name, as it does with backports.
    pub not_automatic: bool,
    /// Lists of packages, by path below the suite.
    lists: HashMap<String, List>,
}

/// A list of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub path: String,
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

impl Release {
    pub(super) fn parse(text: &str) -> Self {
        let mut release = Release::default();
        let mut digests = false;
        for line in text.lines() {
            if line.starts_with(' ') {
                if digests && let Some(list) = list(line) {
                    release.lists.insert(list.path.clone(), list);
                }
                continue;
            }
            let Some((field, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            let words = || value.split_whitespace().map(str::to_string).collect();
            let yes = value.eq_ignore_ascii_case("yes");
            digests = field.eq_ignore_ascii_case("SHA256");
            match field.to_ascii_lowercase().as_str() {
                "origin" => release.origin = value.to_string(),
                "suite" => release.suite = value.to_string(),
                "codename" => release.codename = value.to_string(),
                "architectures" => release.architectures = words(),
                "date" => release.date = date(value),
                "valid-until" => release.valid_until = date(value),
                "acquire-by-hash" => release.by_hash = yes,
                "notautomatic" => release.not_automatic = yes,
                _ => {}
            }
        }
        release
    }

    /// Whether this is the requested suite, by either of its names.
    pub(super) fn is(&self, suite: &str) -> bool {
        // Until Debian 10, security suites were named CODENAME/updates.
        let bare = suite.strip_suffix("/updates").unwrap_or(suite);
        [&self.suite, &self.codename]
            .iter()
            .any(|name| *name == suite || *name == bare)
    }

    /// Returns the name for errors: "bookworm (oldstable)".
    pub(super) fn name(&self) -> String {
        match (self.codename.as_str(), self.suite.as_str()) {
            ("", "") => "a release without a name".to_string(),
            ("", name) | (name, "") => name.to_string(),
            (codename, suite) if codename == suite => codename.to_string(),
            (codename, suite) => format!("{codename} ({suite})"),
        }
    }

    /// Returns a component's list for an architecture, in its smallest compression.
    pub(super) fn list(&self, component: &str, arch: &str) -> Option<&List> {
        // Until Debian 10, the components of security suites were named updates/main.
        let component = component.rsplit('/').next().unwrap_or(component);
        [".xz", ".gz", ""].iter().find_map(|packing| {
            self.lists
                .get(&format!("{component}/binary-{arch}/Packages{packing}"))
        })
    }
}

/// Parses ` <sha256> <size> <path>`.
fn list(line: &str) -> Option<List> {
    let mut words = line.split_whitespace();
    let (sha256, size, path) = (words.next()?, words.next()?, words.next()?);
    let file = path.rsplit('/').next()?;
    (matches!(file, "Packages" | "Packages.xz" | "Packages.gz")
        && sha256.len() == 64
        && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()))
    .then(|| {
        Some(List {
            path: path.to_string(),
            sha256: sha256.to_ascii_lowercase(),
            size: size.parse().ok()?,
        })
    })
    .flatten()
}

/// Parses `Sat, 11 Jul 2026 10:16:37 UTC`, which is always UTC.
fn date(text: &str) -> Option<Timestamp> {
    let text = text.rsplit_once(' ')?.0;
    DateTime::strptime("%a, %d %b %Y %H:%M:%S", text)
        .ok()
        .and_then(|time| TimeZone::UTC.to_timestamp(time).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_as_debian_writes_it() {
        let sha256 = "6777ea16514725f9427f48c240d92e0a6b8496138e37a1491d8597e66774e309";
        let other = "9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5";
        let text = format!(
            "Origin: Debian\r\nSuite: oldstable-security\r\nCodename: bookworm-security\r\nDate: Mon, 23 Nov 2026 11:22:37 UTC\r\nValid-Until: Mon, 30 Nov 2026 11:22:37 UTC\r\nAcquire-By-Hash: yes\r\nArchitectures: amd64 arm64\r\nMD5Sum:\r\n 0ed6d4c8891eb86358b94bb35d9e4da4  1 main/binary-amd64/Packages.xz\r\nSHA256:\r\n {sha256} 12084798 main/binary-amd64/Packages.gz\r\n {other} 8790396 main/binary-amd64/Packages.xz\r\n {sha256} 5 main/binary-arm64/Packages.gz\r\n {sha256} 120 main/binary-amd64/Release\r\n"
        );
        let release = Release::parse(&text);
        assert!(release.is("bookworm-security") && release.is("oldstable-security"));
        assert!(!release.is("bookworm"));
        assert!(release.by_hash && !release.not_automatic);
        assert_eq!(release.name(), "bookworm-security (oldstable-security)");
        assert_eq!(release.date, Some("2026-11-23T11:22:37Z".parse().unwrap()));
        assert_eq!(
            release.valid_until,
            Some("2026-11-30T11:22:37Z".parse().unwrap())
        );
        let list = release.list("updates/main", "amd64").unwrap();
        assert_eq!((list.size, list.sha256.as_str()), (8_790_396, other));
        assert_eq!(release.list("main", "arm64").unwrap().size, 5);
        assert_eq!(release.list("main", "riscv64"), None);
        assert_eq!(release.lists.len(), 3);
    }

    #[test]
    fn nonsense_is_skipped() {
        assert_eq!(Release::parse(""), Release::default());
        let release =
            Release::parse("x\n y\nSHA256:\n a b c\n 00 1 main/binary-amd64/Packages\nSuite\n");
        assert_eq!(release, Release::default());
        assert!(Release::parse("Codename: buster\n").is("buster/updates"));
    }
}
