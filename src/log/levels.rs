//! What to show of the log.

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::filter::Targets;

use crate::host::names::nearest;

use super::STEAD;

/// The environment variable that says what to show on stderr.
pub const VARIABLE: &str = "STEAD_LOG";

/// How much to show, of which parts of stead.
#[derive(Clone, Debug)]
pub struct Levels(Targets);

impl Levels {
    /// Each libvirt call, program, wait and lock.
    pub fn debug() -> Self {
        Levels(Targets::new().with_target(STEAD, Level::DEBUG))
    }

    /// Reads `LEVEL`, or `PART=LEVEL` with a part of stead such as `hypervisor`, or several with commas between.
    ///
    /// # Errors
    /// Which word cannot be read, and what it may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut targets = Targets::new();
        for word in text.split(',').map(str::trim) {
            let (part, level) = match word.split_once('=') {
                Some((part, level)) => (Some(part), level),
                None => (None, word),
            };
            let known = ["off", "error", "warn", "info", "debug", "trace"];
            let lower = level.trim().to_ascii_lowercase();
            let level = match lower.parse::<LevelFilter>() {
                Ok(parsed) if known.contains(&lower.as_str()) => parsed,
                _ => {
                    let meant = nearest(&lower, known.into_iter())
                        .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                    return Err(format!(
                        "invalid level `{level}`: expected {}{meant}",
                        known.join(", ")
                    ));
                }
            };
            let target = match part {
                None => STEAD.to_string(),
                Some(part) if is_name(part) => format!("{STEAD}::{part}"),
                Some(part) => {
                    return Err(format!(
                        "invalid part `{part}`: expected a folder of stead's source, such as `hypervisor`"
                    ));
                }
            };
            targets = targets.with_target(target, level);
        }
        Ok(Levels(targets))
    }

    pub(super) fn targets(&self) -> Targets {
        self.0.clone()
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && (part.chars()).all(|c| c.is_ascii_lowercase() || c == '_' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_of_stead_alone() {
        let shows = |text: &str, target: &str, level: Level| {
            Levels::parse(text).unwrap().0.would_enable(target, &level)
        };
        assert!(shows("debug", "stead::host::lock", Level::DEBUG));
        assert!(!shows("debug", "stead::host::lock", Level::TRACE));
        assert!(!shows("trace", "hyper::client", Level::ERROR));
        let two = "warn, hypervisor=trace";
        assert!(shows(two, "stead::hypervisor::domain", Level::TRACE));
        assert!(!shows(two, "stead::host::lock", Level::DEBUG));
        for text in ["DEBUG", "Debug", "host=DEBUG", " debug "] {
            assert!(shows(text, "stead::host::lock", Level::DEBUG), "{text}");
        }
        assert!(!shows("off", "stead::host::lock", Level::ERROR));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for (text, expected) in [
            ("", "invalid level ``"),
            ("loud", "invalid level `loud`: expected off, error, warn"),
            (
                "debgu",
                "invalid level `debgu`: expected off, error, warn, info, debug, trace; did you mean `debug`?",
            ),
            ("3", "invalid level `3`"),
            ("debug,", "invalid level ``"),
            ("Host=debug", "invalid part `Host`"),
            ("=debug", "invalid part ``"),
        ] {
            let said = Levels::parse(text).unwrap_err();
            assert!(said.starts_with(expected), "{text}: {said}");
        }
    }
}
