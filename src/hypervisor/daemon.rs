//! Finds machines that run under another libvirt daemon of the same user.
//!
//! Each XDG_RUNTIME_DIR has a daemon of its own for qemu:///session. These daemons share the definitions of
//! domains, but each knows only the domains that it started itself: to the others, they are off. So if libvirt
//! says that a machine is off, stead also looks in /proc for its QEMU.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::report::clean::Shown;

use super::{connection::Connection, error::HypervisorError};

/// The longest command line that is read, in bytes. QEMU's are shorter.
const COMMAND_LINE: u64 = 1 << 20;

/// How long QEMU may take to exit after libvirt has reported its domain as off.
const LEAVING: Duration = Duration::from_millis(300);

/// The daemon that started a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    pub uri: String,
    /// XDG_RUNTIME_DIR, which decides which daemon serves qemu:///session.
    pub runtime_dir: Option<PathBuf>,
}

impl Runtime {
    /// Returns the daemon that this process is connected to.
    pub fn here(connection: &Connection) -> Self {
        let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        Runtime {
            uri: connection.uri().uri.clone(),
            runtime_dir: dir.map(PathBuf::from),
        }
    }

    /// Returns how to reach the daemon that started a machine.
    fn hint(started: Option<&Self>, here: &Self, pid: u32) -> String {
        let Some(started) = started else {
            return format!(
                "another of your libvirt daemons started it: use the environment in which it was started (XDG_RUNTIME_DIR), or the same --connect; `ps -fp {pid}` shows the process"
            );
        };
        if started.uri != here.uri {
            return format!("it was started on {0}: add `--connect {0}`", started.uri);
        }
        match (&started.runtime_dir, &here.runtime_dir) {
            (Some(dir), other) if Some(dir) != other.as_ref() => format!(
                "it was started with XDG_RUNTIME_DIR={0}, and so by another of your libvirt daemons: `export XDG_RUNTIME_DIR={0}`, then run the same command again",
                dir.shown()
            ),
            (None, Some(_)) => "it was started without XDG_RUNTIME_DIR, and so by another of your libvirt daemons: `unset XDG_RUNTIME_DIR`, then run the same command again".into(),
            _ => format!(
                "its libvirt daemon does not know it any more, or another daemon started it: shut down the guest from inside, or end QEMU (`kill {pid}`), then run the same command again"
            ),
        }
    }
}

impl Connection {
    /// Checks that a machine which this libvirt reports as off does not run under another daemon. `started` is
    /// the daemon that its last start recorded, and `qemus` were found just before.
    ///
    /// # Errors
    /// If it does run.
    pub fn check_not_elsewhere(
        &self,
        machine: &str,
        uuid: &Uuid,
        started: Option<&Runtime>,
        qemus: &Qemus,
    ) -> Result<(), HypervisorError> {
        if qemus.of(uuid).is_none() {
            return Ok(());
        }
        thread::sleep(LEAVING);
        let Some(pid) = qemu_of(uuid) else {
            return Ok(());
        };
        // This daemon may have started it meanwhile.
        if self.is_active(uuid) {
            return Ok(());
        }
        let here = Runtime::here(self);
        Err(HypervisorError::OtherDaemon {
            machine: machine.to_string(),
            pid,
            hint: Runtime::hint(started, &here, pid),
            uri: match &here.runtime_dir {
                _ if !self.uri().is_session() => here.uri,
                Some(dir) => format!("{}, XDG_RUNTIME_DIR={}", here.uri, dir.shown()),
                None => format!("{}, no XDG_RUNTIME_DIR", here.uri),
            },
        })
    }

    fn is_active(&self, uuid: &Uuid) -> bool {
        tracing::debug!("libvirt: looking up domain {uuid}");
        (self.connect.lookup_domain_by_uuid(*uuid))
            .and_then(|domain| domain.is_active())
            .unwrap_or(false)
    }
}

/// Returns the process of a domain's QEMU, whichever daemon started it: libvirt passes it the UUID. Processes of
/// other users count only for root, because QEMU runs as a user of its own then.
pub fn qemu_of(uuid: &Uuid) -> Option<u32> {
    Qemus::find().of(uuid)
}

/// The process ids of QEMUs, by the UUIDs of their domains, as they were at one time.
#[derive(Default)]
pub struct Qemus(HashMap<String, u32>);

impl Qemus {
    pub fn find() -> Self {
        Qemus(qemus().unwrap_or_default())
    }

    pub fn of(&self, uuid: &Uuid) -> Option<u32> {
        self.0.get(&uuid.to_string()).copied()
    }
}

fn qemus() -> Option<HashMap<String, u32>> {
    let uid = nix::unistd::geteuid();
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = (entry.file_name().to_str()).and_then(|name| name.parse().ok()) else {
            continue;
        };
        let ours = (entry.metadata()).is_ok_and(|meta| uid.is_root() || meta.uid() == uid.as_raw());
        if !ours {
            continue;
        }
        let mut line = Vec::new();
        // The process has ended since the list was read, or is hidden.
        let Ok(file) = File::open(entry.path().join("cmdline")) else {
            continue;
        };
        if file.take(COMMAND_LINE).read_to_end(&mut line).is_ok()
            && let Some(uuid) = domain_of(&line)
        {
            found.insert(uuid, pid);
        }
    }
    Some(found)
}

/// Returns the UUID of the domain from the command line of its QEMU.
fn domain_of(command_line: &[u8]) -> Option<String> {
    let mut words = command_line.split(|byte| *byte == 0);
    words.find(|word| *word == b"-uuid")?;
    String::from_utf8(words.next()?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_is_known_by_its_uuid() {
        let uuid = "5c0f6a1e-93b7-4f0e-8a55-7d0b1e6f24c9";
        let line = format!("/usr/bin/qemu-system-x86_64\0-uuid\0{uuid}\0-display\0none\0");
        assert_eq!(domain_of(line.as_bytes()).as_deref(), Some(uuid));
        assert_eq!(domain_of(format!("grep\0{uuid}\0").as_bytes()), None);
        assert_eq!(domain_of(b"qemu-system-x86_64\0-uuid"), None);
    }

    #[test]
    fn the_hint_says_which_daemon() {
        let of = |uri: &str, dir: Option<&str>| Runtime {
            uri: uri.into(),
            runtime_dir: dir.map(PathBuf::from),
        };
        let hint = |a: Option<&Runtime>, b: &Runtime| Runtime::hint(a, b, 7);
        let desktop = of("qemu:///session", Some("/run/user/1000"));
        let cron = of("qemu:///session", None);
        let system = of("qemu:///system", None);
        assert!(hint(Some(&desktop), &cron).contains("export XDG_RUNTIME_DIR=/run/user/1000"));
        assert!(hint(Some(&cron), &desktop).contains("unset XDG_RUNTIME_DIR"));
        assert!(hint(Some(&system), &cron).contains("--connect qemu:///system"));
        assert!(hint(Some(&cron), &cron).contains("kill 7"));
        assert!(hint(None, &cron).contains("ps -fp 7"));
    }
}
