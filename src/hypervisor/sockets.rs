//! Where libvirt keeps a user's sockets of machines. Their paths are long, and the path of a Unix
//! socket ends at 107 bytes (unix(7)).

use std::path::{Path, PathBuf};

use crate::machine::Identity;

/// The longest path of a Unix socket.
pub const LONGEST: usize = 107;

/// Digits of the number that libvirt gives a domain each time it starts.
const DIGITS: usize = 5;

/// How much of a domain's name is in the path (virDomainDefGetShortName).
const OF_NAME: usize = 20;

/// Below which libvirt of qemu:///session keeps them.
pub fn user_folder() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("libvirt/qemu"))
}

/// The length of the path of QEMU's monitor, which nobody can put elsewhere, where a domain has the
/// longest name and the shortest number.
pub fn monitor_length(folder: &Path) -> usize {
    folder.as_os_str().len() + "/lib/domain-1-".len() + OF_NAME + "/monitor.sock".len()
}

/// Whether libvirt could not make the socket of the guest's agent where it would: it can be given
/// another place.
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
        // libvirt 9.0 said of this one that it is too long.
        assert!(agent_is_too_long(
            &folder("/home/w7/xxxxxxxxxxxxxxxxxxxx"),
            &identity
        ));
        assert!(monitor_length(&folder("/home/firstname.lastname")) <= LONGEST);
        let path = "/home/a/.config/libvirt/qemu/lib/domain-1-stead-project-machin/monitor.sock";
        assert_eq!(monitor_length(&folder("/home/a")), path.len());
    }
}
