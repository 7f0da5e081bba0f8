//! What stead remembers about a machine, kept in the domain's `<metadata>` and nowhere else.
//!
//! Two elements. `urn:stead:machine` is part of the domain's definition and lasts as long as it.
//! `urn:stead:running` is set on the live domain only, so libvirt drops it by itself whenever the
//! domain stops, however that comes about: a mark that can't be stale.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    host::{names::is_user, process::Process},
    machinefile::{Accel, Bytes, Forward, Tuning, is_default},
    report::clean::Shown,
};

use super::{CpuSpec, Layout};

pub(crate) const MACHINE_URI: &str = "urn:stead:machine";
pub(crate) const RUNNING_URI: &str = "urn:stead:running";
pub(crate) const PREFIX: &str = "stead";

/// The version of [`Record`]. Raised when a reader of the old one would misunderstand the new.
///
/// 2: a machine belongs to a file, and its identity need not be what its root and name give.
pub const RECORD_FORMAT: u32 = 2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub project: String,
    pub root: PathBuf,
    /// The name of the Machinefile in the root; `None` in records of before it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub machine: String,
    pub phase: Phase,
    pub spec: Spec,
    pub ssh_port: u16,
    #[serde(deserialize_with = "user_name")]
    pub login_user: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provisioned: BTreeMap<String, Provisioned>,
    /// Releases that were installed in the guest when it first came up.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub first_kernels: BTreeSet<String>,
    /// The machine that this one is a copy of, made to be packed as a box and not to stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
    /// The machine that this one is like, made for one `stead run` and not to stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_of: Option<String>,
    /// Ids (uid, gid) of the login user; `None` while nobody has logged in to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_ids: Option<(u32, u32)>,
    /// What the guest was told to mount at its boots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounted: Vec<Share>,
    /// A kernel of the guest that was found to have no virtiofs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks_virtiofs: Option<String>,
    /// How often its keys had to be made anew.
    #[serde(default, skip_serializing_if = "is_default")]
    pub new_keys: u32,
    /// Who is about to start it, with what it reserves: that is taken, although nothing runs yet,
    /// for as long as this process lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Process>,
}

impl Record {
    /// Takes over from a machine that runs what may be otherwise than when it was recorded: it was
    /// restored from an older state, or defined anew while it ran.
    pub(crate) fn take_over(&mut self, live: &Layout) {
        let Some(ports) = &live.ports else {
            return;
        };
        self.ssh_port = ports.ssh;
        self.spec.forwards.clone_from(&ports.forwards);
        if self.copy_of.is_none() {
            self.spec.internet = !ports.restricted;
        }
        if let Some(cpus) = live.cpus {
            self.spec.cpus = cpus;
        }
        // Of one whose memory can grow, libvirt tells the most that it may have. It rounds to MiB.
        if let Some(memory) = live.memory
            && self.spec.tuning.memory.max.is_none()
            && memory.mib() != self.spec.memory.mib()
        {
            self.spec.memory = memory;
        }
    }
}

/// How far the machine's making or unmaking has come. The domain is defined before its disk is
/// made and removed after its disk is gone, so a disk without a domain is never stead's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Defined; the disk may be missing or incomplete and holds nothing yet.
    Creating,
    /// The disk is complete and may hold data.
    Created,
    /// `destroy` has begun; the disk may be gone.
    Destroying,
}

/// What the domain was made from: the part of the Machinefile that libvirt or the seed holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    pub box_name: String,
    pub box_version: String,
    pub box_digest: String,
    pub cpus: u32,
    pub memory: Bytes,
    pub disk: Bytes,
    pub hostname: String,
    pub user: Option<String>,
    pub accel: Accel,
    /// `None`: the host's, or all that QEMU can emulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuSpec>,
    /// `None`: the box's own, as the box boots it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelSpec>,
    /// sha256 of the user-data file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// Whether it reaches anything outside of itself by the network.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub internet: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tuning: Tuning,
    /// Folders of the host that the guest has as file systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

/// A folder of the host that a guest has as a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Absolute, on the host.
    pub from: PathBuf,
    /// Where it is mounted in the guest, absolute.
    pub to: String,
    #[serde(rename = "type")]
    pub kind: ShareKind,
    #[serde(default, skip_serializing_if = "is_default")]
    pub readonly: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ShareKind {
    #[serde(rename = "virtiofs")]
    Virtiofs,
    #[serde(rename = "9p")]
    NineP,
}

impl ShareKind {
    /// As the Machinefile, mount(8) and /proc/filesystems name it.
    pub fn word(self) -> &'static str {
        match self {
            ShareKind::Virtiofs => "virtiofs",
            ShareKind::NineP => "9p",
        }
    }
}

impl Share {
    /// By which the guest finds it: the same for as long as it is mounted there, whatever else is
    /// shared. Neither virtiofs (36 bytes) nor 9p (31) takes a longer one.
    pub fn tag(&self) -> String {
        format!("stead-{}", crate::host::digest::name_of(&self.to, 4))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, from) = (self.kind.word(), self.from.shown());
        write!(f, "{from} → {} ({kind}", self.to)?;
        f.write_str(if self.readonly { ", read-only)" } else { ")" })
    }
}

/// Whom files of the host belong to in the guest, while nobody has logged in to tell: the first
/// user of all distributions that boxes are of.
pub const FIRST_USER: (u32, u32) = (1000, 1000);

/// What a machine boots in place of what its box says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelSpec {
    /// As the Machinefile says it: `package linux-image-6.1.0-47-amd64`.
    pub source: String,
    /// Of the kernel in the store; `None` for the box's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// As `uname -r` will say; `None` for the box's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// All of it but the console, which is stead's; of one that is installed, what the Machinefile
    /// adds to the guest's own.
    pub cmdline: String,
    /// The guest installs it, and its own bootloader boots it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub installed: bool,
    /// Of one that is installed: `cmdline` takes the place of the guest's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub replaces: bool,
    /// The root's file system, where the command line says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

impl KernelSpec {
    /// Of which only the command line is the Machinefile's.
    pub fn is_the_boxs(&self) -> bool {
        self.source == "box"
    }
}

impl std::fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |digest: &String| {
            let hex = digest.trim_start_matches("sha256:");
            hex.get(..12).unwrap_or(hex).to_string()
        };
        match (&self.release, &self.digest) {
            (Some(release), Some(digest)) => {
                write!(f, "{release} ({}, {}", self.source, short(digest))?;
                f.write_str(if self.installed { ", installed)" } else { ")" })
            }
            _ if self.is_the_boxs() => f.write_str("the box's"),
            _ => write!(f, "{}, which is not here yet", self.source),
        }
    }
}

/// A provisioner that ran to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provisioned {
    /// sha256 of everything that went in.
    pub digest: String,
    pub at: Timestamp,
}

/// On a live domain: what it runs with, and since when it is ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// When `up` last saw it ready; `None` while it is on its way.
    pub ready: Option<Timestamp>,
    /// As `uname -r` said at the last login of `up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Releases whose images were installed in the guest then.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub installed_kernels: BTreeSet<String>,
    /// It is ready, and what the Machinefile has run after that has not come to its end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub owes_after_up: bool,
}

/// It goes into ssh's configuration and Ansible's inventory, and a record can be edited.
fn user_name<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if is_user(&name) {
        return Ok(name);
    }
    Err(serde::de::Error::custom(format!(
        "login_user {name:?} is not a valid user name"
    )))
}

pub(crate) fn to_xml<T: Serialize>(element: &str, value: &T) -> Result<String, String> {
    let json = serde_json::to_string(value).map_err(|error| error.to_string())?;
    Ok(format!(
        "<{element}>{}</{element}>",
        quick_xml::escape::escape(json.as_str())
    ))
}

/// The format of a record, whatever else is in it.
#[derive(Deserialize)]
pub(crate) struct Format {
    pub format: u32,
}

/// Reads the text of the one element that libvirt returns for a metadata URI.
pub(crate) fn from_xml<T: for<'de> Deserialize<'de>>(xml: &str) -> Result<T, String> {
    use quick_xml::{events::Event, reader::Reader};
    let mut reader = Reader::from_str(xml);
    let mut json = String::new();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Text(text) => {
                json.push_str(&text);
            }
            Event::GeneralRef(reference) => {
                let escaped = format!("&{};", &*reference);
                let plain =
                    quick_xml::escape::unescape(&escaped).map_err(|error| error.to_string())?;
                json.push_str(&plain);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    serde_json::from_str(json.trim()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_xml() {
        let record = Record {
            format: RECORD_FORMAT,
            project: "shop".into(),
            root: "/home/é & <b>/it's \"here\"".into(),
            file: Some("Machinefile".into()),
            machine: "web".into(),
            phase: Phase::Created,
            spec: Spec {
                box_name: "debian-12".into(),
                box_version: "12.12".into(),
                box_digest: "sha256:00".into(),
                cpus: 2,
                memory: Bytes(Bytes::GIB),
                disk: Bytes(Bytes::GIB),
                hostname: "web".into(),
                user: None,
                accel: Accel::Tcg,
                cpu: None,
                kernel: None,
                user_data: None,
                forwards: vec![Forward {
                    host: 8080,
                    guest: 80,
                }],
                internet: true,
                tuning: Default::default(),
                shares: Vec::new(),
            },
            ssh_port: 22022,
            login_user: "stead".into(),
            provisioned: BTreeMap::new(),
            first_kernels: Default::default(),
            copy_of: None,
            run_of: None,
            login_ids: None,
            mounted: Vec::new(),
            lacks_virtiofs: None,
            new_keys: 0,
            claim: None,
        };
        let xml = to_xml("machine", &record).unwrap();
        assert_eq!(from_xml::<Record>(&xml).unwrap(), record);
        let edited = Record {
            login_user: "{{lookup('pipe','id')}}".into(),
            ..record
        };
        let error = from_xml::<Record>(&to_xml("machine", &edited).unwrap()).unwrap_err();
        assert!(error.contains("is not a valid user name"), "{error}");
    }
}
