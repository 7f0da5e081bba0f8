//! Which domain of libvirt is which machine, and which Machinefile a machine belongs to.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    host::digest::name_of,
    machinefile::{MACHINEFILE, Project},
};

use super::{Observed, Record};

/// Which libvirt domain a machine is. An existing machine keeps its identity, even if its project is moved or
/// renamed. The identity of a new machine is derived from its owner and its name, so that two commands at the same
/// time mean the same domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub uuid: Uuid,
    /// `stead-<project>-<machine>-<6 hex of the project's root>`
    pub domain: String,
}

/// The namespace of stead's version 5 UUIDs (RFC 9562 §5.5): a random value, which must never change.
const NAMESPACE: Uuid = Uuid::from_u128(0x5c0f_6a1e_93b7_4f0e_8a55_7d0b_1e6f_24c9);

/// How many identities are tried for a new machine, if other machines have the first ones.
const CHOICES: u32 = 1000;

/// The Machinefile that a machine belongs to. The project's name is for people, and may change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    pub project: String,
    /// The folder of the Machinefile.
    pub root: PathBuf,
    /// The file name of the Machinefile.
    pub file: String,
}

impl Owner {
    pub fn of(project: &Project) -> Self {
        Owner {
            project: project.name.clone(),
            root: project.root.clone(),
            file: (project.file.file_name()).map_or_else(
                || MACHINEFILE.to_string(),
                |name| name.to_string_lossy().into_owned(),
            ),
        }
    }

    /// Returns the owner in a machine's record. Old records do not name the file; they mean `Machinefile`.
    pub fn of_record(record: &Record) -> Self {
        Owner {
            project: record.project.clone(),
            root: record.root.clone(),
            file: (record.file.clone()).unwrap_or_else(|| MACHINEFILE.to_string()),
        }
    }

    /// Returns the path of the Machinefile.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.file)
    }

    /// Whether the Machinefile does not exist any more, because its folder was moved, renamed or deleted.
    pub fn is_gone(&self) -> bool {
        !self.path().exists()
    }

    /// Whether a machine belongs to this project, even if the Machinefile does not name it any more. If its record
    /// names no file, the project's name decides.
    pub fn owns(&self, record: &Record) -> bool {
        record.root == self.root
            && match &record.file {
                Some(file) => *file == self.file,
                None => record.project == self.project,
            }
    }

    /// Whether a machine that the Machinefile names may be this one. An old record without a file also fits a
    /// project that was renamed since, if its file is `Machinefile`.
    fn means(&self, machine: &str, record: &Record) -> bool {
        let before = record.file.is_none() && record.root == self.root && self.file == MACHINEFILE;
        record.machine == machine && (self.owns(record) || before)
    }

    /// Returns the project's machine of that name.
    pub fn find<'a>(&self, machines: &'a [Observed], machine: &str) -> Option<&'a Observed> {
        (machines.iter())
            .filter(|observed| self.means(machine, &observed.record))
            // A record that names this file comes before one that names none.
            .max_by_key(|observed| (self.owns(&observed.record), observed.record.file.is_some()))
    }

    /// Returns the identity for a new machine of that name: the first one that no machine has. A machine may still
    /// have one that was derived from this folder, if its project has moved since.
    pub fn free(&self, machines: &[Observed], machine: &str) -> Identity {
        let taken = |choice: &Identity| {
            machines.iter().any(|observed| {
                observed.identity.uuid == choice.uuid || observed.identity.domain == choice.domain
            })
        };
        (0..CHOICES)
            .map(|n| self.choice(machine, n))
            .find(|choice| !taken(choice))
            .unwrap_or_else(|| self.choice(machine, 0))
    }

    /// Returns the first choice for a machine of that name.
    pub fn first(&self, machine: &str) -> Identity {
        self.choice(machine, 0)
    }

    fn choice(&self, machine: &str, n: u32) -> Identity {
        // Added to the hash only if this is not the first choice for the file `Machinefile`.
        let mut more = Vec::new();
        if self.file != MACHINEFILE || n > 0 {
            more.push(0);
            more.extend_from_slice(self.file.as_bytes());
        }
        if n > 0 {
            more.push(0);
            more.extend_from_slice(n.to_string().as_bytes());
        }
        let root = self.root.as_os_str().as_encoded_bytes();
        let short = name_of([root, &more].concat(), 3);
        let name = [root, &[0], machine.as_bytes(), &more].concat();
        Identity {
            uuid: Uuid::new_v5(&NAMESPACE, &name),
            domain: format!("stead-{}-{machine}-{short}", self.project),
        }
    }

    /// Returns the project as six hex digits, which do not depend on its name.
    pub fn short(&self) -> String {
        name_of(self.path().as_os_str().as_encoded_bytes(), 3)
    }
}

impl Identity {
    /// Returns the first choice for a machine of a project whose file is `Machinefile`.
    pub fn of(project: &str, root: &Path, machine: &str) -> Self {
        Owner {
            project: project.to_string(),
            root: root.to_path_buf(),
            file: MACHINEFILE.to_string(),
        }
        .first(machine)
    }

    /// Returns the file name of the machine's overlay in stead's pool.
    pub fn overlay(&self) -> String {
        format!("{}.qcow2", self.domain)
    }

    /// Returns the file name of the overlay of its `n`th disk, for boxes with more than one. The first is 1, which
    /// gives the same as `overlay`.
    pub fn overlay_of(&self, n: usize) -> String {
        match n {
            1 => self.overlay(),
            n => format!("{}.disk{n}.qcow2", self.domain),
        }
    }

    /// Whether only this machine can have a file of that name in stead's pool: an overlay, or a snapshot that
    /// libvirt has put beside it.
    pub fn owns(&self, name: &str) -> bool {
        (name.strip_prefix(&self.domain)).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Whether this is the name of one of its overlays.
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
        assert!(identity.owns(&format!("{}.before-upgrade", identity.domain)));
        assert!(!identity.owns(&other.overlay()));
        let copy = Identity::of("shop", Path::new("/srv/shop"), "web-1.pack");
        assert!(!identity.owns(&copy.overlay()));
    }

    fn owner(project: &str, root: &str, file: &str) -> Owner {
        Owner {
            project: project.into(),
            root: root.into(),
            file: file.into(),
        }
    }

    fn observed(owner: &Owner, machine: &str, file: Option<&str>) -> Observed {
        let spec = serde_json::json!({
            "box_name": "b", "box_version": "1", "box_digest": "sha256:00", "cpus": 1,
            "memory": 1, "disk": 1, "hostname": machine, "user": null, "accel": "tcg",
        });
        let record = serde_json::json!({
            "format": 1, "project": owner.project, "root": owner.root, "file": file,
            "machine": machine, "phase": "created", "spec": spec, "ssh_port": 1, "login_user": "s",
        });
        Observed {
            identity: owner.first(machine),
            record: serde_json::from_value(record).unwrap(),
            power: crate::machine::Power::Off,
            running: None,
            condition: Default::default(),
        }
    }

    /// Existing machines must be found again, so these values must never change.
    #[test]
    fn identities_of_the_usual_file_stay_what_they_were() {
        let web = owner("shop", "/srv/shop", "Machinefile").first("web");
        assert_eq!(web.uuid.to_string(), "a9511732-ff12-5efe-bc63-ddfae534b5f4");
        assert_eq!(web.domain, "stead-shop-web-e7c7ea");
    }

    #[test]
    fn a_machine_belongs_to_a_file() {
        let usual = owner("shop", "/shop", "Machinefile");
        let ci = owner("shop", "/shop", "Machinefile.ci");
        assert_ne!(usual.first("web").uuid, ci.first("web").uuid);
        assert_ne!(usual.first("web").domain, ci.first("web").domain);
        assert_ne!(usual.short(), ci.short());
        let web = observed(&usual, "web", Some("Machinefile"));
        assert!(usual.owns(&web.record) && !ci.owns(&web.record));
        assert!(owner("renamed", "/shop", "Machinefile").owns(&web.record));
        assert!(!owner("shop", "/moved", "Machinefile").owns(&web.record));
    }

    /// Old records without a file: the project's name decides.
    #[test]
    fn machines_of_before_are_found() {
        let usual = owner("shop", "/shop", "Machinefile");
        let ci = owner("shop-ci", "/shop", "Machinefile.ci");
        let machines = [
            observed(&usual, "web", None),
            observed(&owner("shop-ci", "/shop", "Machinefile"), "runner", None),
        ];
        let found = |owner: &Owner, name: &str| owner.find(&machines, name).is_some();
        assert!(found(&usual, "web") && found(&ci, "runner"));
        assert!(!found(&ci, "web"));
        assert!(!usual.owns(&machines[1].record) && ci.owns(&machines[1].record));
        // Renamed since.
        assert!(found(&owner("store", "/shop", "Machinefile"), "web"));
    }

    #[test]
    fn what_went_elsewhere_keeps_its_identity() {
        let here = owner("shop", "/shop", "Machinefile");
        let mut adopted = observed(&here, "web", Some("Machinefile"));
        adopted.record.root = "/moved".into();
        let machines = [adopted];
        assert!(here.find(&machines, "web").is_none());
        let next = here.free(&machines, "web");
        assert_ne!(next.uuid, machines[0].identity.uuid);
        assert_ne!(next.domain, machines[0].identity.domain);
        assert_eq!(next, here.free(&machines, "web"));
        assert_eq!(here.free(&[], "web"), here.first("web"));
    }
}
