//! Versions of RPM packages, compared as rpm does: rpm-version(7).

use std::cmp::Ordering;

/// A package's version: `[epoch:]version-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Evr {
    pub epoch: u32,
    pub version: String,
    pub release: String,
}

impl Evr {
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare(&self.version, &other.version))
            .then_with(|| compare(&self.release, &other.release))
    }

    /// Returns it as text: "6.11.4-301.fc41". Kernels have no epoch.
    pub(super) fn text(&self) -> String {
        match self.epoch {
            0 => format!("{}-{}", self.version, self.release),
            epoch => format!("{epoch}:{}-{}", self.version, self.release),
        }
    }

    /// Whether this is the version that a user wrote, with or without the release, and with or without the architecture
    /// (which `uname -r` prints).
    pub(super) fn is(&self, wanted: &str, arch: &str) -> bool {
        let wanted = wanted
            .strip_suffix(arch)
            .and_then(|rest| rest.strip_suffix('.'))
            .unwrap_or(wanted);
        wanted == self.text()
            || wanted == self.version
            || wanted == format!("{}-{}", self.version, self.release)
            || wanted == format!("{}:{}-{}", self.epoch, self.version, self.release)
    }
}

/// Compares like rpmvercmp: runs of digits as numbers, and runs of letters as text. Other characters only separate runs,
/// except that a tilde comes before the end, and a caret after it and before everything else.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = separated(a);
        b = separated(b);
        match (a.first(), b.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                a = &a[1..];
                b = &b[1..];
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            (Some(b'^'), None) => return Ordering::Greater,
            (None, Some(b'^')) => return Ordering::Less,
            (Some(b'^'), _) => return Ordering::Less,
            (_, Some(b'^')) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (Some(_), None) => return Ordering::Greater,
            (None, Some(_)) => return Ordering::Less,
            (Some(first), Some(_)) => {
                let number = first.is_ascii_digit();
                let (run_a, run_b) = (run(&mut a, number), run(&mut b, number));
                // A number is newer than letters.
                if run_b.is_empty() {
                    return match number {
                        true => Ordering::Greater,
                        false => Ordering::Less,
                    };
                }
                let order = match number {
                    true => {
                        let (number_a, number_b) = (bare(run_a), bare(run_b));
                        number_a
                            .len()
                            .cmp(&number_b.len())
                            .then_with(|| number_a.cmp(number_b))
                    }
                    false => run_a.cmp(run_b),
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}

fn separated(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'^'))
        .unwrap_or(text.len());
    &text[start..]
}

/// Removes the digits, or the letters, at the front, and returns them.
fn run<'a>(text: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let end = text
        .iter()
        .position(|byte| match digits {
            true => !byte.is_ascii_digit(),
            false => !byte.is_ascii_alphabetic(),
        })
        .unwrap_or(text.len());
    let (run, rest) = text.split_at(end);
    *text = rest;
    run
}

fn bare(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From rpm's own tests, tests/rpmvercmp.at.
    #[test]
    fn as_rpm_compares() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, order) in [
            ("1.0", "1.0", Equal),
            ("1.0", "2.0", Less),
            ("2.0.1", "2.0.1a", Less),
            ("5.5p1", "5.5p10", Less),
            ("10xyz", "10.1xyz", Less),
            ("xyz10", "xyz10.1", Less),
            ("xyz.4", "8", Less),
            ("xyz.4", "2", Less),
            ("5.5p2", "5.6p1", Less),
            ("6.0.rc1", "6.0", Greater),
            ("10b2", "10a1", Greater),
            ("7.4", "1.0", Greater),
            ("1.0aa", "1.0aa", Equal),
            ("10.0001", "10.0001", Equal),
            ("10.0001", "10.1", Equal),
            ("10.0001", "10.0039", Less),
            ("4.999.9", "5.0", Less),
            ("20101122", "20101121", Greater),
            ("2_0", "2_0", Equal),
            ("2.0", "2_0", Equal),
            ("a", "a+", Equal),
            ("+a", "_a", Equal),
            ("1.0~rc1", "1.0", Less),
            ("1.0~rc1", "1.0~rc2", Less),
            ("1.0~rc1~git123", "1.0~rc1", Less),
            ("1.0^", "1.0", Greater),
            ("1.0^git1", "1.0^git2", Less),
            ("1.0^git1", "1.01", Less),
            ("1.0^20160101", "1.0.1", Less),
            ("1.0~rc1^git1", "1.0~rc1", Greater),
            ("1.0^git1~pre", "1.0^git1", Less),
            ("6.11.4", "6.11.10", Less),
        ] {
            assert_eq!(compare(a, b), order, "{a} {b}");
            assert_eq!(compare(b, a), order.reverse(), "{b} {a}");
        }
    }

    #[test]
    fn how_a_user_may_write_it() {
        let evr = Evr {
            epoch: 0,
            version: "6.11.4".into(),
            release: "301.fc41".into(),
        };
        for good in [
            "6.11.4",
            "6.11.4-301.fc41",
            "6.11.4-301.fc41.x86_64",
            "0:6.11.4-301.fc41",
        ] {
            assert!(evr.is(good, "x86_64"), "{good}");
        }
        for bad in ["6.11", "6.11.4-301", "6.11.4-301.fc41.aarch64", ""] {
            assert!(!evr.is(bad, "x86_64"), "{bad}");
        }
    }
}
