//! The measures of conditions, in the words of tc-netem(8): a delay, a share of lost frames, a rate.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The longest delay, in microseconds.
const LONGEST: u64 = 60_000_000;

/// The lowest rate in bits per second, at which a full frame takes 12 s.
const LOWEST: u64 = 1000;

/// A delay of up to a minute, in microseconds. Displays as it is written: `80ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Delay(u64);

/// A share of frames, in millionths. Displays as it is written: `0.5%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Loss(u32);

/// Bits per second; 0 is any number of them. Displays as it is written: `10mbit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

const DELAYS: [(&str, u64); 3] = [("s", 1_000_000), ("ms", 1000), ("us", 1)];
const RATES: [(&str, u64); 4] = [
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1000),
    ("bit", 1),
];

impl Delay {
    /// Parses `80ms`, `1.5s` or `250us`; on error, returns a label for the mistake.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let Some((_, factor)) = DELAYS.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit {
                "" => "it needs a unit".into(),
                _ => "the units are us, ms and s".into(),
            });
        };
        match scaled(number, *factor)? {
            micros if micros > LONGEST => Err("longer than a minute".into()),
            micros => Ok(Delay(micros)),
        }
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl Loss {
    /// Parses `2%` or `0.5%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        if unit != "%" {
            return Err(match unit {
                "" => "it needs a %".into(),
                _ => "the unit is %".into(),
            });
        }
        match scaled(number, 10_000)? {
            millionths if millionths > 1_000_000 => Err("more than all frames".into()),
            millionths => Ok(Loss(u32::try_from(millionths).unwrap_or_default())),
        }
    }

    pub(super) fn millionths(self) -> u32 {
        self.0
    }
}

impl Rate {
    const UNLIMITED: &str = "none";

    /// Parses `10mbit`, `1gbit`, `512kbit`, or `none`, which is no limit.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == Self::UNLIMITED {
            return Ok(Rate(0));
        }
        let (number, unit) = split(text);
        let Some((_, factor)) = RATES.iter().find(|(name, _)| *name == unit) else {
            let unit = unit.to_ascii_lowercase();
            let meant = ["k", "m", "g"].iter().find(|it| unit.starts_with(**it));
            return Err(match meant {
                Some(meant) => format!("did you mean \"{number}{meant}bit\", bits per second?"),
                None if unit.is_empty() => "it needs a unit".into(),
                None => "the units are kbit, mbit and gbit, per second".into(),
            });
        };
        match scaled(number, *factor)? {
            0 => Err("a rate of 0 lets nothing through: `stead link cut` does that".into()),
            bits if bits < LOWEST => Err("less than 1kbit".into()),
            bits => Ok(Rate(bits)),
        }
    }

    /// Bits per second.
    pub(super) fn limit(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !".-".contains(c))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// Returns a number with or without a fraction, times `factor`, rounded.
fn scaled(number: &str, factor: u64) -> Result<u64, String> {
    if number.starts_with('-') {
        return Err("must not be negative".into());
    }
    let bad = || "must begin with a number".to_string();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(bad());
    }
    // More digits say nothing.
    let fraction = &fraction[..fraction.len().min(9)];
    let parts: u64 = fraction.parse().map_err(|_| bad())?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or_default());
    let parts = (u128::from(parts) * u128::from(factor) + scale / 2) / scale;
    (whole.parse::<u64>().ok())
        .and_then(|whole| whole.checked_mul(factor))
        .and_then(|whole| whole.checked_add(u64::try_from(parts).ok()?))
        .ok_or_else(|| "too large".into())
}

/// Writes a number in the largest unit in which it is whole.
fn in_unit(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    let unit = units
        .iter()
        .find(|(_, factor)| number.is_multiple_of(*factor));
    let (name, factor) = unit.copied().unwrap_or(("", 1));
    write!(f, "{}{name}", number / factor)
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0ms"),
            micros => in_unit(f, micros, &DELAYS),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 / 10_000)?;
        match self.0 % 10_000 {
            0 => {}
            rest => write!(f, ".{}", format!("{rest:04}").trim_end_matches('0'))?,
        }
        f.write_str("%")
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit() {
            None => f.write_str(Self::UNLIMITED),
            Some(bits) => in_unit(f, bits, &RATES),
        }
    }
}

macro_rules! as_text {
    ($($measure:ty),*) => {$(
        impl TryFrom<String> for $measure {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                Self::parse(&text)
            }
        }

        impl From<$measure> for String {
            fn from(measure: $measure) -> String {
                measure.to_string()
            }
        }
    )*};
}

as_text!(Delay, Loss, Rate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_written_as_they_are_read() {
        for text in ["80ms", "1500ms", "250us", "60s", "0ms"] {
            assert_eq!(Delay::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Delay::parse("1.5s").unwrap().to_string(), "1500ms");
        assert_eq!(Delay::parse("0.0005ms").unwrap().to_string(), "1us");
        for text in ["2%", "0.5%", "0.0001%", "100%", "0%", "12.34%"] {
            assert_eq!(Loss::parse(text).unwrap().to_string(), text);
        }
        for text in ["10mbit", "1gbit", "512kbit", "1500bit", "none"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Rate::parse("2.5mbit").unwrap().to_string(), "2500kbit");
    }

    #[test]
    fn mistakes_are_named() {
        let delay = |text| Delay::parse(text).unwrap_err();
        assert_eq!(delay("80"), "it needs a unit");
        assert_eq!(delay("-1ms"), "must not be negative");
        assert_eq!(delay("2m"), "the units are us, ms and s");
        assert_eq!(delay("61s"), "longer than a minute");
        assert_eq!(delay("ms"), "must begin with a number");
        assert_eq!(delay("1.2.3ms"), "must begin with a number");
        assert_eq!(delay("99999999999999999999s"), "too large");
        let loss = |text| Loss::parse(text).unwrap_err();
        assert_eq!(loss("2"), "it needs a %");
        assert_eq!(loss("101%"), "more than all frames");
        assert_eq!(loss("-2%"), "must not be negative");
        let rate = |text| Rate::parse(text).unwrap_err();
        assert!(rate("0mbit").contains("cut"));
        assert_eq!(rate("10Mbps"), "did you mean \"10mbit\", bits per second?");
        assert_eq!(rate("10"), "it needs a unit");
        assert_eq!(rate("1bit"), "less than 1kbit");
    }
}
