//! The programs that each tool needs on the host.

use crate::boxes::recipe::Tool;

/// For rpm's tools, and for pacman, boxes/bootstrap.sh prepares what mmdebstrap prepares by itself.
const DNF: [(&str, &str); 5] = [
    ("dnf", "dnf"),
    ("rpm", "rpm"),
    ("rpmdb", "rpm"),
    ("setpriv", "util-linux"),
    ("pivot_root", "util-linux"),
];
const ZYPPER: [(&str, &str); 5] = [
    ("zypper", "zypper"),
    ("rpm", "rpm"),
    ("rpmdb", "rpm"),
    ("setpriv", "util-linux"),
    ("pivot_root", "util-linux"),
];
const PACMAN: [(&str, &str); 6] = [
    ("pacman", "pacman-package-manager"),
    ("pacman-key", "pacman-package-manager"),
    ("gpg", "gpg"),
    ("zstd", "zstd"),
    ("setpriv", "util-linux"),
    ("pivot_root", "util-linux"),
];

/// Returns the programs of a tool, with the Debian package of each.
pub(in crate::boxes) fn of(tool: Tool) -> &'static [(&'static str, &'static str)] {
    match tool {
        Tool::Mmdebstrap => &[("mmdebstrap", "mmdebstrap")],
        Tool::Dnf => &DNF,
        Tool::Zypper => &ZYPPER,
        Tool::Pacman => &PACMAN,
    }
}
