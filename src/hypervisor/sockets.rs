//! Where a user's libvirt keeps the sockets of machines. Their paths are long, and the path of a Unix socket may
//! have 107 bytes at most (unix(7)).

use std::path::{Path, PathBuf};

use crate::machine::Identity;

/// The longest path of a Unix socket, in bytes.
pub const LONGEST: usize = 107;

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

/// Returns the length in bytes of the path of QEMU's monitor, for a domain with the longest name and the shortest
/// number. The monitor cannot be put elsewhere.
pub fn monitor_length(folder: &Path) -> usize {
    folder.as_os_str().len() + "/lib/domain-1-".len() + OF_NAME + "/monitor.sock".len()
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
        assert!(monitor_length(&folder("/home/firstname.lastname")) <= LONGEST);
        let path = "/home/a/.config/libvirt/qemu/lib/domain-1-stead-project-machin/monitor.sock";
        assert_eq!(monitor_length(&folder("/home/a")), path.len());
    }
}
