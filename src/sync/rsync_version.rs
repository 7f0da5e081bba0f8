//! Checks whether the host's rsync has known holes that a guest could use.
//!
//! Before 3.4.0, the other side can make rsync disclose the content of other files of this side
//! (CVE-2024-12086) and write outside the folder that it fetches into (CVE-2024-12087, -12088). Distributions
//! fixed older releases; their changelogs and version numbers show it.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use crate::host::process::Command;

/// The first fixed release.
const FIXED_SINCE: (u32, u32) = (3, 4);

/// A changelog with this word has the fix.
const FIXED_CVE: &str = "CVE-2024-12086";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsyncSafety {
    Fixed,
    /// It is older, and there is no sign that its distribution fixed it.
    Old,
}

/// Returns whether rsync has known holes. `said` is the first line that `program --version` printed.
pub fn rsync_safety(said: &str, program: &Path) -> RsyncSafety {
    let by = || packaged_fix(program).is_some();
    match release(said) {
        Some(release) if release >= FIXED_SINCE => RsyncSafety::Fixed,
        _ if by() => RsyncSafety::Fixed,
        _ => RsyncSafety::Old,
    }
}

/// Parses `rsync  version 3.2.7  protocol version 31`; the version may also be `v3.4.1`.
fn release(said: &str) -> Option<(u32, u32)> {
    let mut words = said.split_whitespace();
    words.find(|word| *word == "version")?;
    let mut numbers = words.next()?.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// `Some` if the program's package has the fix.
fn packaged_fix(program: &Path) -> Option<()> {
    let program = program.canonicalize().ok()?;
    if !["/usr/bin/rsync", "/bin/rsync"].contains(&program.to_str()?) {
        return None;
    }
    let changelog = PathBuf::from("/usr/share/doc/rsync/changelog.Debian.gz");
    let named = std::fs::File::open(changelog).is_ok_and(names);
    let version = || {
        let said = output("dpkg-query", &["-W", "-f=${Version}", "rsync"])?;
        is_fixed_debian(&said).then_some(())
    };
    let rpm = || {
        let said = output("rpm", &["-q", "--changelog", "rsync"])?;
        said.contains(FIXED_CVE).then_some(())
    };
    named.then_some(()).or_else(version).or_else(rpm)
}

/// Whether a gzipped changelog mentions the fix.
fn names(file: impl Read) -> bool {
    let mut text = Vec::new();
    let unpacked = flate2::read::GzDecoder::new(file);
    // Debian 12's has some 100 KiB.
    let _ = unpacked.take(16 << 20).read_to_end(&mut text);
    memchr::memmem::find(&text, FIXED_CVE.as_bytes()).is_some()
}

/// Checks Debian's version numbers, since images without documentation have no changelog: DSA-5843-1 for
/// 12, DLA-4015-1 for 11. Later revisions have the fix too.
fn is_fixed_debian(version: &str) -> bool {
    [("3.2.7-1+deb12u", 1), ("3.2.3-4+deb11u", 2)]
        .iter()
        .any(|(start, least)| {
            (version.trim().strip_prefix(start))
                .and_then(|rest| rest.parse::<u32>().ok())
                .is_some_and(|revision| revision >= *least)
        })
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program, "rsync").args(arguments).run().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn releases_are_read() {
        let elsewhere = Path::new("/opt/bin/rsync");
        for (said, wanted) in [
            (
                "rsync  version 3.5.0  protocol version 32",
                RsyncSafety::Fixed,
            ),
            (
                "rsync  version v3.4.0  protocol version 32",
                RsyncSafety::Fixed,
            ),
            (
                "rsync  version 4.0  protocol version 33",
                RsyncSafety::Fixed,
            ),
            (
                "rsync  version 3.2.7  protocol version 31",
                RsyncSafety::Old,
            ),
            (
                "rsync  version 3.3.0  protocol version 31",
                RsyncSafety::Old,
            ),
            ("openrsync: protocol version 29", RsyncSafety::Old),
        ] {
            assert_eq!(rsync_safety(said, elsewhere), wanted, "{said}");
        }
    }

    #[test]
    fn fixes_of_distributions_are_known() {
        for (version, wanted) in [
            ("3.2.7-1+deb12u2", true),
            ("3.2.7-1+deb12u1", true),
            ("3.2.7-1+deb12u10\n", true),
            ("3.2.7-1", false),
            ("3.2.3-4+deb11u1", false),
            ("3.2.3-4+deb11u3", true),
            ("3.2.7-1ubuntu1", false),
        ] {
            assert_eq!(is_fixed_debian(version), wanted, "{version}");
        }
        let packed = |text: &str| {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(text.as_bytes()).unwrap();
            gz.finish().unwrap()
        };
        let changelog = "rsync (3.2.7-1ubuntu1.1) noble-security\n  - CVE-2024-12086\n";
        assert!(names(packed(changelog).as_slice()));
        assert!(!names(packed("rsync (3.2.7-1) unstable").as_slice()));
        assert!(!names(&b"not gzip"[..]));
    }
}
