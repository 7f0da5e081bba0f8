//! Sizes and durations, which always have a unit.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A number of bytes. Displays in the largest exact binary unit (`2GiB`, `1536MiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    pub const KIB: u64 = 1 << 10;
    pub const MIB: u64 = 1 << 20;
    pub const GIB: u64 = 1 << 30;
    pub const TIB: u64 = 1 << 40;

    /// Rounded up to whole MiB.
    pub fn mib(self) -> u64 {
        self.0.div_ceil(Self::MIB)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [
            (Self::TIB, "TiB"),
            (Self::GIB, "GiB"),
            (Self::MIB, "MiB"),
            (Self::KIB, "KiB"),
        ] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Parses `"2GiB"` or `"500MB"`. Binary and decimal units differ, as in IEC 80000-13.
pub(super) fn size(text: &str) -> Result<Bytes, String> {
    let units: [(&str, u64); 8] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
    ];
    let (number, unit) = split(text);
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let meant = match unit.to_ascii_lowercase().as_str() {
            "" => "it needs a unit".to_string(),
            "g" | "gb" | "gib" => format!("did you mean \"{number}GiB\"?"),
            "m" | "mb" | "mib" => format!("did you mean \"{number}MiB\"?"),
            "k" | "kb" | "kib" => format!("did you mean \"{number}KiB\"?"),
            "t" | "tb" | "tib" => format!("did you mean \"{number}TiB\"?"),
            _ => "the units are KiB, MiB, GiB, TiB, kB, MB, GB and TB".to_string(),
        };
        return Err(meant);
    };
    let number = whole(number)?;
    number
        .checked_mul(*factor)
        .map(Bytes)
        .ok_or_else(|| "larger than any machine has".into())
}

/// Parses `"90s"`, `"5m"`, `"500ms"` or `"1h"`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "" => return Err("it needs a unit".into()),
        _ => return Err("the units are ms, s, m and h".into()),
    };
    let number = whole(number)?;
    if number == 0 {
        return Err("must be more than 0".into());
    }
    let value = number
        .checked_mul(milliseconds)
        .filter(|value| *value <= 7 * 24 * 3_600_000)
        .ok_or("longer than a week")?;
    Ok(Duration::from_millis(value))
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn whole(number: &str) -> Result<u64, String> {
    if number.contains('.') {
        return Err("must be a whole number: \"1536MiB\", not \"1.5GiB\"".into());
    }
    number
        .parse()
        .map_err(|_| "must begin with a whole number".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("2GiB"), Ok(Bytes(2 << 30)));
        assert_eq!(size("500 MB"), Ok(Bytes(500_000_000)));
        assert_eq!(size("2G").unwrap_err(), "did you mean \"2GiB\"?");
        assert_eq!(size("2gb").unwrap_err(), "did you mean \"2GiB\"?");
        assert!(size("99999999999TiB").is_err());
        assert!(size("1.5GiB").unwrap_err().contains("1536MiB"));
        assert!(size("GiB").is_err() && size("").is_err() && size("-1GiB").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("0s").is_err() && duration("90").is_err() && duration("9999h").is_err());
    }
}
