use std::path::Path;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Which libvirt domain a machine is. Derived from the project's root and the machine's name
/// alone, so that two commands at once mean the same domain and none is recorded anywhere else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub uuid: Uuid,
    /// `stead-<project>-<machine>-<6 hex of the project root>`
    pub domain: String,
}

/// Namespace of stead's version 5 UUIDs (RFC 9562 §5.5); drawn once, never to change.
const NAMESPACE: Uuid = Uuid::from_u128(0x5c0f_6a1e_93b7_4f0e_8a55_7d0b_1e6f_24c9);

impl Identity {
    pub fn of(project: &str, root: &Path, machine: &str) -> Self {
        let root = root.as_os_str().as_encoded_bytes();
        let hash = Sha256::digest(root);
        let mut name = root.to_vec();
        name.push(0);
        name.extend_from_slice(machine.as_bytes());
        Identity {
            uuid: Uuid::new_v5(&NAMESPACE, &name),
            domain: format!(
                "stead-{project}-{machine}-{:02x}{:02x}{:02x}",
                hash[0], hash[1], hash[2]
            ),
        }
    }

    /// The machine's overlay in stead's pool.
    pub fn overlay(&self) -> String {
        format!("{}.qcow2", self.domain)
    }

    /// The overlay of its `n`th disk, where its box has more than one; the first is 1, and is the
    /// one above.
    pub fn overlay_of(&self, n: usize) -> String {
        match n {
            1 => self.overlay(),
            n => format!("{}.disk{n}.qcow2", self.domain),
        }
    }

    /// Whether that is the name of one of its overlays.
    pub fn has_overlay(&self, name: &str) -> bool {
        let number = name
            .strip_prefix(&self.domain)
            .and_then(|rest| rest.strip_prefix(".disk")?.strip_suffix(".qcow2"));
        name == self.overlay() || number.is_some_and(|n| n.parse::<usize>().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_keep_machines_of_the_same_name_apart() {
        let one = Identity::of("shop", Path::new("/home/a/shop"), "web");
        let other = Identity::of("shop", Path::new("/home/b/shop"), "web");
        assert_ne!(one.uuid, other.uuid);
        assert_ne!(one.domain, other.domain);
        assert_eq!(one, Identity::of("shop", Path::new("/home/a/shop"), "web"));
    }

    #[test]
    fn the_domain_name_is_readable() {
        let identity = Identity::of("shop", Path::new("/srv/shop"), "web-1");
        assert!(identity.domain.starts_with("stead-shop-web-1-"));
        assert_eq!(identity.overlay(), format!("{}.qcow2", identity.domain));
        assert!(identity.has_overlay(&identity.overlay_of(1)));
        assert!(identity.has_overlay(&identity.overlay_of(2)));
        let other = Identity::of("shop", Path::new("/srv/shop"), "web-12");
        assert!(!identity.has_overlay(&other.overlay_of(2)));
        assert!(!identity.has_overlay(&format!("{}.disk.qcow2", identity.domain)));
    }
}
