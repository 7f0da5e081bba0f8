//! What stead records about a machine, in the domain's `<metadata>` and nowhere else.
//!
//! There are two elements. `urn:stead:machine` is part of the domain's definition and lasts as long as that.
//! `urn:stead:running` is set on the live domain only, so libvirt drops it whenever the domain stops, for whatever
//! reason: it is never out of date.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    host::{names::is_user, ports::HostPort, process::Process},
    machinefile::{Accel, Bytes, Forward, Tuning, is_default},
    network::{Egress, Mac, PortForward, Subnet, WayIn, host_address, own_network_of},
    report::clean::Shown,
};

use super::{CpuSpec, FirmwareSpec, FirmwareState, Layout, Ports};

/// The address of a machine on QEMU's own network. On a network of its own it has that too, as people know it.
pub const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const OWN_PREFIX: u8 = 24;

/// The port of the guest's SSH server.
const SSH: u16 = 22;

pub(crate) const MACHINE_URI: &str = "urn:stead:machine";
pub(crate) const RUNNING_URI: &str = "urn:stead:running";
pub(crate) const PREFIX: &str = "stead";

/// The version of [`Record`]. It is raised when an older stead would misunderstand a new record.
///
/// 2: a machine belongs to a file, and its identity may differ from the one that its root and name give. 3: a machine may
/// have no card on QEMU's own network. 4: a machine may boot by UEFI, and have a TPM.
pub const RECORD_FORMAT: u32 = 4;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub project: String,
    pub root: PathBuf,
    /// The file name of the Machinefile in the root; `None` in old records.
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
    /// Provisioners whose last run did not succeed, and when it began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, Timestamp>,
    /// The kernel releases that were installed in the guest when it was first ready.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub first_kernels: BTreeSet<String>,
    /// The machine that this one is a temporary copy of, to be packed as a box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
    /// The machine that this one takes its settings from; it is temporary, for one `stead run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_of: Option<String>,
    /// The ids (uid, gid) of the login user; `None` until stead has logged in once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_ids: Option<(u32, u32)>,
    /// The shares that the guest mounts at each boot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounted: Vec<Share>,
    /// The release of a kernel of the guest that turned out to have no virtiofs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks_virtiofs: Option<String>,
    /// What libvirt keeps for it because of its firmware.
    #[serde(default, skip_serializing_if = "is_default")]
    pub firmware: FirmwareState,
    /// How often its keys were replaced.
    #[serde(default, skip_serializing_if = "is_default")]
    pub new_keys: u32,
    /// The process that is about to start it. While that process lives, the machine's reservations count, although
    /// nothing runs yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Process>,
}

impl Record {
    /// Returns the ports of the host that the machine has while it runs.
    pub fn host_ports(&self) -> impl Iterator<Item = HostPort> + '_ {
        let forwards = self.spec.forwards.iter().map(Forward::host_port);
        std::iter::once(HostPort::local(self.ssh_port)).chain(forwards)
    }

    /// The cards that stead-net connects. A copy has none: it must not reach anything, and the machine has the same.
    pub fn wired_cards(&self) -> Vec<NetworkCard> {
        match self.copy_of {
            None => self.spec.wired_cards(&self.machine),
            Some(_) => Vec::new(),
        }
    }

    /// The card by which the project's network leads to it. A copy has none: it has the same MAC, but on QEMU's own network.
    pub fn led_card(&self) -> Option<Mac> {
        self.spec.login_card.filter(|_| self.copy_of.is_none())
    }

    /// The libvirt that runs it, given its URI, if the project's network leads to it.
    pub fn led_by(&self, uri: &str) -> Option<String> {
        self.led_card().map(|_| uri.to_string())
    }

    /// The ports that lead to the machine, if stead-net opens them.
    pub fn way_in(&self) -> Option<WayIn> {
        let ssh = PortForward {
            host: HostPort::local(self.ssh_port),
            guest: SSH,
        };
        let forwards = self.spec.forwards.iter().map(|forward| PortForward {
            host: forward.host_port(),
            guest: forward.guest,
        });
        Some(WayIn {
            machine: self.machine.clone(),
            mac: self.led_card()?,
            forwards: std::iter::once(ssh).chain(forwards).collect(),
        })
    }

    /// Whether it is to have a certificate: it has names on a network. A copy that is made to be packed has none.
    pub fn has_certificate(&self) -> bool {
        !self.spec.cards.is_empty() && self.copy_of.is_none()
    }

    /// Updates the record from a running machine, which may differ from it: it may have been restored from an older
    /// state, or have got a new definition while it ran.
    pub(crate) fn take_over(&mut self, live: &Layout) {
        match (&live.ports, self.spec.login_card) {
            (Some(ports), _) => self.take_over_ports(ports),
            (None, Some(_)) => {}
            (None, None) => return,
        }
        if let Some(cpus) = live.cpus {
            self.spec.cpus = cpus;
        }
        // If the memory can grow, libvirt reports its maximum, which is not what is recorded. It rounds to MiB.
        if let Some(memory) = live.memory
            && self.spec.tuning.memory.max.is_none()
            && memory.mib() != self.spec.memory.mib()
        {
            self.spec.memory = memory;
        }
    }
}

impl Record {
    /// The same, of a machine that has a card on QEMU's own network.
    fn take_over_ports(&mut self, ports: &Ports) {
        if self.copy_of.is_none() {
            self.spec.login_card = None;
        }
        self.ssh_port = ports.ssh;
        // The domain has no place for what the record says of a forward beside its ports.
        let recorded = std::mem::take(&mut self.spec.forwards);
        self.spec.forwards = (ports.forwards.iter())
            .map(|live| {
                let known = recorded.iter().find(|it| it.is_like(live));
                known.unwrap_or(live).clone()
            })
            .collect();
        if self.copy_of.is_none() {
            // The domain does not say which of both closes its first card.
            match ports.restricted {
                true => self.spec.internet &= self.spec.egress.is_some(),
                false => (self.spec.internet, self.spec.egress) = (true, None),
            }
        }
    }
}

/// How far a machine has been made or destroyed. Its domain is defined before its disk is made, and removed after its
/// disk is deleted, so stead never leaves a disk without a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The domain is defined; the disk may be missing or incomplete, and has no data yet.
    Creating,
    /// The disk is complete and may have data.
    Created,
    /// `destroy` has started; the disk may be deleted already.
    Destroying,
}

/// What the domain was made from: the part of the Machinefile that went into its definition or its seed.
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
    /// `None`: the host's CPU, or everything that QEMU can emulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuSpec>,
    /// `None`: the box's own kernel, with the box's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelSpec>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub firmware: FirmwareSpec,
    /// The sha256 of the user-data file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// Whether it can reach anything over the network.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub internet: bool,
    /// The MAC of the card by which stead logs in. That is the first one on a network of the project, or the only one on
    /// a network of the machine's own. `None`: a card on QEMU's own network, beside those on networks of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_card: Option<Mac>,
    /// What it reaches by its first card on a network, beyond the networks. `None`: it leaves by the card on QEMU's own
    /// network, if at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Its cards on networks of the project, in the order of the Machinefile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<NetworkCard>,
    /// Its cards on bridges of the host, in the order of the Machinefile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<BridgeCard>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tuning: Tuning,
    /// Folders of the host that the guest can mount as file systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
}

impl Spec {
    /// The cards that stead-net connects: those on networks of the project, or, for a machine that has none, one on a
    /// network of its own. `machine`: its name.
    pub fn wired_cards(&self, machine: &str) -> Vec<NetworkCard> {
        wired(self.cards.clone(), self.login_card, machine)
    }

    /// Whether stead-net connects it.
    pub fn is_wired(&self) -> bool {
        self.login_card.is_some() || !self.cards.is_empty()
    }

    /// Whether its card on QEMU's own network leads nowhere but to SSH and forwards.
    pub fn has_closed_login(&self) -> bool {
        !self.internet || self.egress.is_some()
    }

    /// The machine's own address on this computer, which follows from that of its first card.
    pub fn host_address(&self) -> Option<Ipv4Addr> {
        host_address(self.cards.first()?.address)
    }
}

/// A card on a network of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkCard {
    pub network: String,
    pub subnet: Subnet,
    pub mac: Mac,
    pub address: Ipv4Addr,
    /// Further names of the machine on this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// A card on a bridge of the host, where others say which address it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeCard {
    /// The name of the network in the Machinefile.
    pub network: String,
    /// The name of the bridge.
    pub interface: String,
    pub mac: Mac,
}

/// The cards that stead-net connects: these, or the login card on a network of the machine's own.
pub fn wired(cards: Vec<NetworkCard>, login_card: Option<Mac>, machine: &str) -> Vec<NetworkCard> {
    match login_card {
        Some(mac) if cards.is_empty() => vec![NetworkCard {
            network: own_network_of(machine),
            subnet: Subnet::around(OWN_ADDRESS, OWN_PREFIX),
            mac,
            address: OWN_ADDRESS,
            aliases: Vec::new(),
        }],
        _ => cards,
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

/// A folder of the host that a guest can mount as a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The absolute path on the host.
    pub from: PathBuf,
    /// The absolute path in the guest where it is mounted.
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
    /// Returns its name in the Machinefile, mount(8) and /proc/filesystems.
    pub fn word(self) -> &'static str {
        match self {
            ShareKind::Virtiofs => "virtiofs",
            ShareKind::NineP => "9p",
        }
    }
}

impl Share {
    /// Returns the tag by which the guest finds it. The tag depends only on the path in the guest, so it stays the
    /// same when other shares change. It may have at most 36 bytes for virtiofs, and 31 for 9p.
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

/// The ids (uid, gid) that files of the host get in the guest until stead has logged in once: those of the first user
/// of every distribution that there are boxes of.
pub const FIRST_USER: (u32, u32) = (1000, 1000);

/// The kernel or command line that a machine boots with instead of its box's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelSpec {
    /// The source as the Machinefile gives it: `package linux-image-6.1.0-47-amd64`.
    pub source: String,
    /// The digest of the kernel in the store; `None` for the box's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The release that `uname -r` will show; `None` for the box's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The whole command line except the console, which stead adds. For a kernel that is installed in the guest,
    /// only what the Machinefile adds to the guest's own command line.
    pub cmdline: String,
    /// Whether it is installed in the guest, and the guest's own bootloader boots it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub installed: bool,
    /// For a kernel that is installed in the guest: whether `cmdline` replaces the guest's own command line.
    #[serde(default, skip_serializing_if = "is_default")]
    pub replaces: bool,
    /// The type of the root file system, if the command line gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

impl KernelSpec {
    /// Whether QEMU loads it in place of what the box would boot.
    pub fn replaces_the_boxs(&self) -> bool {
        !self.installed && !self.is_the_boxs()
    }

    /// Whether this is the box's own kernel, with only a command line of the Machinefile's.
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
            _ => write!(f, "{} (not fetched yet)", self.source),
        }
    }
}

/// A provisioner that has succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provisioned {
    /// The sha256 of everything that the provisioner depends on.
    pub digest: String,
    pub at: Timestamp,
}

/// What stead records about a running domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// When `up` last saw it ready; `None` until then.
    pub ready: Option<Timestamp>,
    /// The output of `uname -r` at the last login of `up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The kernel releases that were installed in the guest at that login.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub installed_kernels: BTreeSet<String>,
    /// Whether it is ready, but what the Machinefile runs after that has not succeeded yet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub owes_after_up: bool,
    /// For how many seconds this computer had slept since its boot, when the guest's clock was right; `None` from an older
    /// stead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slept: Option<u64>,
    /// The certificate that its guest has; `None` if it has none, or installing it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<GivenCertificate>,
    /// The mark of the checks by which it became ready; `None` if an older stead made it ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<String>,
    /// The marks of the folders that were copied to it since it booted; `None` if an older stead booted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<BTreeSet<String>>,
    /// The provisioner that runs, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning: Option<Provisioning>,
    /// What was seen of the guest from outside when stead had last reached it; `None` from an older stead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs: Option<Signs>,
}

/// What is seen of a guest without asking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signs {
    /// Whether its agent had opened its channel.
    pub agent: bool,
    /// The length of its console's log, in bytes.
    pub console: u64,
}

/// A provisioner that runs, unless the stead that started it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioning {
    pub name: String,
    pub by: Process,
}

impl Provisioning {
    /// Says that this process runs the provisioner.
    pub fn of(name: &str) -> Option<Self> {
        Some(Provisioning {
            name: name.to_string(),
            by: Process::own()?,
        })
    }
}

/// What is recorded of a certificate that a guest has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenCertificate {
    /// The fingerprint of the authority that signed it.
    pub authority: String,
    /// When it has to be renewed.
    pub renew_after: Timestamp,
}

/// Checks the user's name, because it goes into ssh's configuration and Ansible's inventory, and a record can be
/// edited.
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

/// Reads the text of the element that libvirt returns for a metadata URI.
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
pub(super) mod tests {
    use super::*;

    pub(crate) fn record() -> Record {
        Record {
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
                firmware: Default::default(),
                user_data: None,
                forwards: vec![Forward::tcp(8080, 80)],
                internet: true,
                login_card: None,
                egress: None,
                cards: Vec::new(),
                bridges: Vec::new(),
                tuning: Default::default(),
                shares: Vec::new(),
            },
            ssh_port: 22022,
            login_user: "stead".into(),
            provisioned: BTreeMap::new(),
            failed: BTreeMap::from([("app".into(), Timestamp::UNIX_EPOCH)]),
            first_kernels: Default::default(),
            copy_of: None,
            run_of: None,
            login_ids: None,
            mounted: Vec::new(),
            lacks_virtiofs: None,
            firmware: Default::default(),
            new_keys: 0,
            claim: None,
        }
    }

    #[test]
    fn a_record_survives_xml() {
        let record = record();
        let xml = to_xml("machine", &record).unwrap();
        assert_eq!(from_xml::<Record>(&xml).unwrap(), record);
        let edited = Record {
            login_user: "{{lookup('pipe','id')}}".into(),
            ..record
        };
        let error = from_xml::<Record>(&to_xml("machine", &edited).unwrap()).unwrap_err();
        assert!(error.contains("is not a valid user name"), "{error}");
    }

    #[test]
    fn a_guarded_machine_that_runs_is_not_taken_for_one_without_internet() {
        let layout = |restricted| Layout {
            ports: Some(super::super::Ports {
                ssh: 22022,
                forwards: Vec::new(),
                restricted,
            }),
            ..Layout::default()
        };
        let guarded = Some(Egress::default());
        for (internet, egress, restricted, then) in [
            (true, None, false, (true, None)),
            (true, None, true, (false, None)),
            (false, None, false, (true, None)),
            (true, guarded.clone(), true, (true, guarded.clone())),
            (false, guarded.clone(), true, (false, guarded.clone())),
            // It runs as it was before it was guarded.
            (true, guarded.clone(), false, (true, None)),
        ] {
            let mut record = record();
            (record.spec.internet, record.spec.egress) = (internet, egress);
            record.take_over(&layout(restricted));
            assert_eq!((record.spec.internet, record.spec.egress), then);
        }
    }

    #[test]
    fn a_record_without_a_limit_is_as_before() {
        let record = record();
        let json = serde_json::to_string(&record).unwrap();
        assert!(!json.contains("egress"), "{json}");
        let mut guarded = record.clone();
        guarded.spec.egress = Some(Egress {
            allow: Some(vec!["*.example.com".parse().unwrap()]),
            host_tcp: vec![5432],
        });
        let json = serde_json::to_string(&guarded).unwrap();
        let part = r#""egress":{"allow":["*.example.com"],"host_tcp":[5432]}"#;
        assert!(json.contains(part), "{json}");
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), guarded);
    }

    /// Records of a stead that knew TCP on 127.0.0.1 only.
    #[test]
    fn forwards_of_an_older_record_are_read() {
        let record = record();
        let json = serde_json::to_string(&record).unwrap();
        let new = r#"{"protocol":"tcp","address":"127.0.0.1","host":8080,"guest":80}"#;
        assert!(json.contains(new), "{json}");
        let old = json.replace(new, r#"{"host":8080,"guest":80}"#);
        assert_eq!(serde_json::from_str::<Record>(&old).unwrap(), record);
    }
}
