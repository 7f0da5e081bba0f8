//! Command lines of kernels: the box's own, and what the Machinefile adds or replaces.

use crate::{
    boxes::{Boot, StoredBox},
    machinefile::Cmdline,
};

/// The command line for stead's init if the box has none. The init finds the root by itself, and the
/// root's fstab decides how it is mounted in the end.
pub const BY_INIT: &str = "ro";

pub fn own_cmdline(stored: &StoredBox) -> Option<&str> {
    match &stored.manifest.boot {
        Boot::Direct { cmdline, .. } => Some(cmdline),
        Boot::Bootloader { .. } => None,
    }
}

/// Options that find the root. They are kept when the command line is replaced.
const ROOT_OPTIONS: [&str; 5] = ["root", "rootfstype", "rootflags", "ro", "rw"];

pub fn join_cmdline(own: &str, asked: Option<&Cmdline>) -> String {
    let Some(asked) = asked else {
        return own.to_string();
    };
    let kept: Vec<&str> = own
        .split_whitespace()
        .filter(|word| {
            let key = word.split('=').next().unwrap_or(word);
            let said = |key: &str| {
                (asked.text.split_whitespace()).any(|word| word.split('=').next() == Some(key))
            };
            if asked.replace {
                // ro and rw exclude each other.
                ROOT_OPTIONS.contains(&key)
                    && !said(key)
                    && !(matches!(key, "ro" | "rw") && (said("ro") || said("rw")))
            } else {
                true
            }
        })
        .collect();
    [kept.join(" "), asked.text.trim().to_string()]
        .join(" ")
        .trim()
        .to_string()
}

/// Returns the last value of an option.
pub fn option<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    cmdline
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, replace: bool) -> Cmdline {
        Cmdline {
            text: text.into(),
            replace,
        }
    }

    #[test]
    fn options_are_added_or_take_the_place_of_the_boxs() {
        let own = "root=/dev/vda rootfstype=ext4 rw loglevel=4";
        assert_eq!(join_cmdline(own, None), own);
        assert_eq!(
            join_cmdline(own, Some(&asked("mitigations=off", false))),
            "root=/dev/vda rootfstype=ext4 rw loglevel=4 mitigations=off"
        );
        assert_eq!(
            join_cmdline(own, Some(&asked("quiet ro", true))),
            "root=/dev/vda rootfstype=ext4 quiet ro"
        );
        assert_eq!(
            join_cmdline(own, Some(&asked("root=LABEL=x", true))),
            "rootfstype=ext4 rw root=LABEL=x"
        );
        assert_eq!(option("a=1 b=2 a=3", "a"), Some("3"));
    }
}
