//! A kernel's configuration: `.config` of a build, `/boot/config-RELEASE`, `/proc/config.gz`.

use std::{collections::BTreeMap, io::Read};

use serde::{Deserialize, Serialize};

/// Whether and how a kernel has an option or a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    BuiltIn,
    /// As a module.
    Loadable,
    Missing,
    /// Neither the configuration nor the modules tell.
    Unknown,
}

impl Presence {
    pub fn word(self) -> &'static str {
        match self {
            Presence::BuiltIn => "built in",
            Presence::Loadable => "loadable",
            Presence::Missing => "missing",
            Presence::Unknown => "unknown",
        }
    }
}

/// Largest configuration that is read, in bytes.
pub(super) const LARGEST_CONFIG: u64 = 8 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    options: BTreeMap<String, String>,
}

impl Config {
    /// Parses a configuration, compressed with gzip or not. `None` if it is something else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut text = String::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::GzDecoder::new(bytes)
                .take(LARGEST_CONFIG)
                .read_to_string(&mut text)
                .ok()?;
        } else {
            text = String::from_utf8(bytes.to_vec()).ok()?;
        }
        let options: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .filter(|(key, _)| key.starts_with("CONFIG_"))
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        (!options.is_empty()).then_some(Config { options })
    }

    /// `option` includes its prefix `CONFIG_`.
    pub fn presence(&self, option: &str) -> Presence {
        match self.options.get(option).map(String::as_str) {
            Some("y") => Presence::BuiltIn,
            Some("m") => Presence::Loadable,
            _ => Presence::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_built_in_loadable_or_missing() {
        let text = b"# Linux\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"text\"\n";
        let config = Config::read(text).unwrap();
        assert_eq!(config.presence("CONFIG_A"), Presence::BuiltIn);
        assert_eq!(config.presence("CONFIG_B"), Presence::Loadable);
        assert_eq!(config.presence("CONFIG_C"), Presence::Missing);
        assert_eq!(Config::read(b"nothing of it"), None);
        assert_eq!(Config::read(b"\xff\xfe"), None);
    }
}
