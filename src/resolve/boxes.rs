//! Resolves box references by the Machinefile, its lock file and the catalogues.

use crate::{
    boxes::{BoxError, Source, StoredBox},
    machinefile::Machine,
};

use super::Resolver;

impl Resolver<'_> {
    /// Returns the box that the Machinefile and its lock file mean, if it is in the store.
    pub fn wanted_box(&self, machine: &Machine) -> Result<StoredBox, BoxError> {
        let reference = &machine.box_ref;
        let arch = std::env::consts::ARCH;
        let pinned = match (
            &machine.box_sha256,
            self.lock_file.get(&machine.box_key, arch),
        ) {
            (Some(sha256), _) => Some(sha256),
            (None, Some(entry)) => Some(&entry.sha256),
            (None, None) => None,
        };
        let source = Source::parse(reference, &self.project.root).unwrap_or(Source::Name);
        let named = source == Source::Name;
        let key = &origin_key(&machine.box_key, &source);
        let found = match pinned {
            Some(sha256) if !named || self.is_listed(reference) => {
                self.store.by_reference_and_source(key, sha256, arch)
            }
            _ if !named => self.store.by_reference(key, arch),
            _ => {
                let Some(found) = self.catalogues.find(reference, arch)? else {
                    return self.named_box(reference);
                };
                self.store.by_listing(reference, &found.image.urls, arch)
            }
        };
        found
            .map(|(_, stored)| stored)
            .ok_or_else(|| BoxError::NotFetched {
                reference: machine.box_key.clone(),
            })
    }

    /// Returns the box of a name that is in no catalogue: the one that the lock file pins.
    fn named_box(&self, reference: &str) -> Result<StoredBox, BoxError> {
        let Some(pinned) = self.lock_file.named(reference, std::env::consts::ARCH) else {
            return self.store.resolve_named(reference);
        };
        match self.store.resolve_named(&pinned.digest) {
            Err(BoxError::NotFound { .. }) => Err(BoxError::Pinned {
                reference: reference.to_string(),
                pinned: format!("{} ({})", pinned.version, short(&pinned.digest)),
                now: match self.store.resolve_named(reference) {
                    Ok(now) => format!(
                        "; on this host that name means {} ({})",
                        now.manifest.version,
                        now.digest.short()
                    ),
                    Err(_) => String::new(),
                },
            }),
            found => found,
        }
    }

    /// Whether a reference is the name of a box that was built, packed or added on this host. A whole
    /// digest always means the same box, and needs no pin.
    pub fn is_named(&self, reference: &str) -> bool {
        let source = Source::parse(reference, &self.project.root);
        source == Ok(Source::Name) && !is_digest(reference) && !self.is_listed(reference)
    }

    /// Whether a catalogue has a box of that name, in any version. A broken catalogue is reported
    /// when a box is looked up.
    pub fn is_listed(&self, reference: &str) -> bool {
        !matches!(
            self.catalogues.find(reference, std::env::consts::ARCH),
            Ok(None)
        )
    }

    /// Whether an entry of the lock file is for the box of one of the project's machines.
    pub fn is_pin_of_a_machine(&self, key: &str) -> bool {
        (self.project.machines.iter())
            .any(|machine| machine.box_key == key && self.may_be_pinned(&machine.box_ref))
    }

    /// Whether the lock file may pin this reference.
    pub fn may_be_pinned(&self, reference: &str) -> bool {
        match Source::parse(reference, &self.project.root) {
            Ok(Source::Name) => self.is_listed(reference),
            Ok(_) => true,
            Err(_) => false,
        }
    }
}

/// Whether a reference is `sha256:` and all digits.
pub fn is_digest(reference: &str) -> bool {
    let all = |hex: &str| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit());
    reference.strip_prefix("sha256:").is_some_and(all)
}

/// Returns the first digits of a digest.
pub fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// Returns the key under which the store keeps an origin. A path is made absolute, because a relative path depends on
/// the folder.
pub fn origin_key(reference: &str, source: &Source) -> String {
    match source {
        Source::File(path) => path.to_string_lossy().into_owned(),
        _ => reference.to_string(),
    }
}
