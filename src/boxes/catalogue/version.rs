//! Versions of images, and requirements on them.

use std::{cmp::Ordering, fmt};

/// Numbers with dots: `12.20260712.2537`, `24.04.20260705`. Compared number by number.
#[derive(Clone, Debug, Eq)]
pub struct Version {
    text: String,
    numbers: Vec<u64>,
}

impl Version {
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text
            .split('.')
            .map(|part| {
                let plain = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
                plain.then(|| part.parse().ok()).flatten()
            })
            .collect::<Option<Vec<u64>>>()?;
        Some(Version {
            text: text.to_string(),
            numbers,
        })
    }

    /// The first three numbers, which are all that Cargo's ranges compare.
    fn semver(&self) -> semver::Version {
        let number = |n: usize| self.numbers.get(n).copied().unwrap_or(0);
        semver::Version::new(number(0), number(1), number(2))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers)
    }
}

/// Which versions are accepted.
#[derive(Clone, Debug, PartialEq)]
pub enum Requirement {
    Any,
    /// `12`, `24.04`: this version and all that begin with it.
    Series(Vec<u64>),
    /// `^12`, `>=22.04, <26`: as in Cargo.toml.
    Range(semver::VersionReq),
}

impl Requirement {
    /// Parses a requirement. `Err` says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text == "*" {
            return Ok(Requirement::Any);
        }
        if let Some(version) = Version::parse(text) {
            return Ok(Requirement::Series(version.numbers));
        }
        semver::VersionReq::parse(&without_leading_zeros(text))
            .map(Requirement::Range)
            .map_err(|error| {
                format!("{text:?} is neither a version nor a range of versions: {error}")
            })
    }

    pub fn fits(&self, version: &Version) -> bool {
        match self {
            Requirement::Any => true,
            Requirement::Series(numbers) => version.numbers.starts_with(numbers),
            Requirement::Range(range) => range.matches(&version.semver()),
        }
    }
}

/// Removes leading zeros, which semver does not accept: `24.04` becomes `24.4`.
fn without_leading_zeros(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let starts = !out.ends_with(|before: char| before.is_ascii_digit());
        let more = characters.peek().is_some_and(char::is_ascii_digit);
        if !(c == '0' && starts && more) {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(requirement: &str, version: &str) -> bool {
        Requirement::parse(requirement)
            .unwrap()
            .fits(&Version::parse(version).unwrap())
    }

    #[test]
    fn what_fits() {
        assert!(fits("", "1") && fits("*", "1.2.3.4"));
        assert!(fits("12", "12.20260712.2537") && !fits("12", "13.1"));
        assert!(fits("24.04", "24.04.20260705") && !fits("24.04", "24.10.1"));
        assert!(!fits("1", "12.1"));
        assert!(fits("^24.04", "24.10.1") && !fits("^24.04", "26.04.1"));
        assert!(fits(">=22.04, <26", "24.04.20260705"));
        assert!(fits("~24.04", "24.04.9") && !fits("~24.04", "24.10.1"));
        assert!(fits("=12.20260712", "12.20260712.2537"));
        for bad in ["twelve", "12.", ".12", "^", "12-1", ">=a"] {
            assert!(Requirement::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn newer_is_greater() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("24.04.20260705") > version("22.04.20260705"));
        assert!(version("10.2") > version("9.8.20260526"));
        assert!(version("10.2.1") > version("10.2"));
        assert_eq!(version("24.4"), version("24.04"));
        assert!(Version::parse("12-1").is_none());
        assert!(Version::parse("99999999999999999999").is_none());
    }
}
