//! Where a user's libvirt keeps the sockets of machines. Their paths are long, and the path of a Unix socket may
//! have 107 bytes at most (unix(7)).

use std::path::{Path, PathBuf};

use crate::machine::Identity;

/// The longest path of a Unix socket, in bytes.
const LONGEST: usize = 107;

/// How many digits to assume for the number that libvirt gives a domain at each start.
const DIGITS: usize = 5;

/// How many bytes of a domain's name are in the path (virDomainDefGetShortName).
const OF_NAME: usize = 20;

/// Returns the folder in which the libvirt of qemu:///session keeps its sockets.
pub fn user_folder() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("libvirt/qemu"))
}

/// Whether the path of QEMU's monitor is short enough. The monitor cannot be put elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Always,
    /// Until libvirt's daemon has started machines so often that their numbers are longer.
    AtFirst,
    Never,
}

/// Says it of domains with long names, as those of stead are.
pub fn monitor_fit(folder: &Path) -> Fit {
    let fits = |digits| monitor_length(folder, digits) <= LONGEST;
    match (fits(DIGITS), fits(1)) {
        (true, _) => Fit::Always,
        (false, true) => Fit::AtFirst,
        (false, false) => Fit::Never,
    }
}

fn monitor_length(folder: &Path, digits: usize) -> usize {
    folder.as_os_str().len() + "/lib/domain--".len() + digits + OF_NAME + "/monitor.sock".len()
}

/// Whether libvirt's path for the socket of the guest's agent is too long. libvirt can be given another path for it.
pub fn agent_is_too_long(folder: &Path, identity: &Identity) -> bool {
    let name = identity.domain.len().min(OF_NAME);
    let ours = "/channel/target/domain-".len() + DIGITS + "-/org.qemu.guest_agent.0".len();
    folder.as_os_str().len() + ours + name > LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_homes_are_told_from_short_ones() {
        let folder = |home: &str| PathBuf::from(home).join(".config/libvirt/qemu");
        let identity = Identity::of("project", Path::new("/srv"), "machine");
        assert!(!agent_is_too_long(&folder("/home/ann"), &identity));
        // libvirt 9.0 refused this path as too long.
        assert!(agent_is_too_long(
            &folder("/home/w7/xxxxxxxxxxxxxxxxxxxx"),
            &identity
        ));
        let path = "/home/a/.config/libvirt/qemu/lib/domain-1-stead-project-machin/monitor.sock";
        assert_eq!(monitor_length(&folder("/home/a"), 1), path.len());
        let fit = |length: usize| monitor_fit(&folder(&format!("/{}", "h".repeat(length - 1))));
        assert_eq!(
            monitor_fit(&folder("/home/firstname.lastname")),
            Fit::Always
        );
        let (most, at_first) = (LONGEST - "/.config/libvirt/qemu".len() - 51, 4);
        assert_eq!(fit(most), Fit::Always);
        assert_eq!(fit(most + 1), Fit::AtFirst);
        assert_eq!(fit(most + at_first), Fit::AtFirst);
        assert_eq!(fit(most + at_first + 1), Fit::Never);
    }
}
