//! The content of a checked Machinefile: plain data, without effects.
//!
//! `count=N` is expanded, defaults are filled in, relative paths are absolute, and all mistakes that need no host to
//! find have been refused.

use std::{
    collections::BTreeMap,
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    host::firmware::Firmware,
    network::{Egress, Rule, Subnet},
};

use super::{
    ansible::{AnsibleInstall, Group, Playbook, Vars},
    forward::Forward,
    secret::Secret,
    tuning::{HostReserve, Spans, Tuning, is_default},
    units::Bytes,
    variables::Variable,
};

/// A whole project.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Project {
    /// The name in `project "…"`, a valid hostname label.
    pub name: String,
    /// The folder with the Machinefile, absolute and without symlinks.
    pub root: PathBuf,
    /// The Machinefile itself.
    pub file: PathBuf,
    /// All its files: the Machinefile, its includes, Machinefile.local.
    #[serde(skip)]
    pub read: Vec<PathBuf>,
    /// Environment variables that it uses.
    #[serde(skip)]
    pub variables: Vec<Variable>,
    /// What is valid in it and would surprise, each with its place.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// The catalogue of `catalogue "…"`, if given: an https URL, or an absolute path.
    pub catalogue: Option<String>,
    /// The libvirt of `connect "…"`, if given.
    pub connect: Option<Libvirt>,
    /// What reservations leave for the host.
    pub host_reserve: HostReserve,
    /// The networks between its machines: in the order of the file, and then the one of machines that name none.
    pub networks: Vec<Network>,
    /// The conditions of their links, in the order of the file.
    pub links: Vec<Rule>,
    /// In the order of the file, `count` expanded.
    pub machines: Vec<Machine>,
    /// Groups of the inventory that the Machinefile lists. Those of labels and `count` are added.
    pub groups: Vec<Group>,
    /// Provisioners that run over several machines after those are up.
    pub provisioners: Vec<ProjectProvisioner>,
}

impl Project {
    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines.iter().find(|m| m.name == name)
    }
}

/// A libvirt that a Machinefile may use. Others are not possible here: a URI can name a program to run
/// (`qemu+ext:///…?command=`) or another user's daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Libvirt {
    #[serde(rename = "qemu:///session")]
    Session,
    #[serde(rename = "qemu:///system")]
    System,
}

impl Libvirt {
    pub fn of(uri: &str) -> Option<Self> {
        [Libvirt::Session, Libvirt::System]
            .into_iter()
            .find(|libvirt| libvirt.uri() == uri)
    }

    pub fn uri(self) -> &'static str {
        match self {
            Libvirt::Session => "qemu:///session",
            Libvirt::System => "qemu:///system",
        }
    }
}

/// A network between machines of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    pub name: String,
    pub subnet: Subnet,
    /// Whether it leads only to its machines.
    pub isolated: bool,
    /// Its position, such as `Machinefile:12:5`. `None`: the Machinefile does not declare it.
    #[serde(skip)]
    pub at: Option<String>,
}

/// A network that a machine is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineNetwork {
    pub name: String,
    /// Whether it leads only to its machines.
    #[serde(skip)]
    pub isolated: bool,
    /// The address that the Machinefile gives it. `None`: stead chooses one.
    pub address: Option<Ipv4Addr>,
    /// Further names of the machine on this network.
    pub aliases: Vec<String>,
}

/// A bridge of the host that a machine has a card on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineBridge {
    /// The name of the network in the Machinefile.
    pub network: String,
    /// The name of the bridge on the host, a valid name of an interface.
    pub interface: String,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub name: String,
    /// The name without the number of `count`.
    pub one_of: Option<String>,
    /// The guest's hostname, by default the machine's name.
    pub hostname: String,
    /// The box as written: a name in the store, a URL, or a path relative to the project's root
    /// (docs/concepts/boxes.md).
    pub box_ref: String,
    /// The same for files and messages: a URL as written, without the values of variables of the environment.
    pub box_key: String,
    /// If the box is a path: the file that it led to when the Machinefile was read, without symlinks. If the path
    /// leads to another file later, that one is not read.
    pub box_file: Option<PathBuf>,
    /// The expected sha256 of the file at that URL or path: 64 lower-case hex digits.
    pub box_sha256: Option<String>,
    pub cpus: u32,
    pub memory: Bytes,
    /// The size of the root disk. `None`: that of the box.
    pub disk: Option<Bytes>,
    /// `None`: the box's own kernel.
    pub kernel: Option<Kernel>,
    /// `None`: what its box needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Whether its firmware runs only what is signed.
    #[serde(skip_serializing_if = "is_default")]
    pub secure_boot: bool,
    /// Whether it has a TPM.
    #[serde(skip_serializing_if = "is_default")]
    pub tpm: bool,
    pub tuning: Tuning,
    /// The spans of settings that only a host can check.
    #[serde(skip)]
    pub spans: Spans,
    pub labels: BTreeMap<String, String>,
    /// The machine's variables in the inventory.
    pub vars: Vars,
    /// The names of machines, with `count` expanded, that must be ready first.
    pub depends_on: Vec<String>,
    /// In the order of the project's.
    pub networks: Vec<MachineNetwork>,
    /// In the order in which the project declares them.
    pub bridges: Vec<MachineBridge>,
    pub forwards: Vec<Forward>,
    pub syncs: Vec<SyncFolder>,
    pub provisioners: Vec<Provisioner>,
    /// In the order of the file.
    pub hooks: Vec<Hook>,
    pub ready: Ready,
    /// The user to log in as. `None`: the box's login user.
    pub user: Option<String>,
    /// The user's cloud-init user-data file, absolute.
    pub user_data: Option<PathBuf>,
    /// `None`: KVM if it works.
    pub accel: Option<Accel>,
    /// Whether its network reaches anything: this host, other machines, the internet.
    pub internet: bool,
    /// What it reaches beyond its networks, if that is limited to what the Machinefile names. It then leaves by its
    /// first network card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Whether the ports on which it listens appear on the host by themselves, if it is on a network.
    pub auto_forward: bool,
    /// `None`: like `cpu "host"`.
    pub cpu: Option<Cpu>,
}

/// What a machine boots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    pub source: KernelSource,
    pub cmdline: Option<Cmdline>,
    pub boot: KernelBoot,
    /// Its position, such as `Machinefile:12:5`, for errors that only the host finds.
    pub at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelSource {
    /// The box's own.
    Box,
    /// An image or a build on this host, by absolute paths.
    Path {
        image: PathBuf,
        modules: Option<PathBuf>,
        config: Option<PathBuf>,
    },
    /// A package of the box's distribution, or of the named one.
    Package {
        name: String,
        version: Option<String>,
        /// `debian/12`.
        distribution: Option<String>,
        /// Repositories in place of the distribution's.
        from: Option<String>,
        /// The key that signs them, an absolute path.
        key: Option<PathBuf>,
    },
    /// The kernel that this host runs.
    Host,
    /// A captured or imported kernel in the store, by its name or digest.
    Capture { name: String },
}

impl fmt::Display for KernelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelSource::Box => f.write_str("box"),
            KernelSource::Path { image, .. } => write!(f, "path {}", image.to_string_lossy()),
            KernelSource::Package { name, version, .. } => {
                write!(f, "package {name}")?;
                version.iter().try_for_each(|it| write!(f, " {it}"))
            }
            KernelSource::Host => f.write_str("host"),
            KernelSource::Capture { name } => write!(f, "capture {name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cmdline {
    pub text: String,
    /// The options replace the box's options, and are not appended to them.
    pub replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelBoot {
    /// QEMU loads it.
    Direct,
    /// The machine installs the kernel, and its own bootloader boots it.
    Installed,
}

/// The CPU model of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    pub like: CpuLike,
    /// Its position, such as `Machinefile:12:5`.
    pub at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuLike {
    /// Exactly that of the captured host, or an error.
    Exact,
    /// The nearest to it that this host can provide.
    Nearest,
    /// The host's own, or all that QEMU can emulate.
    Host,
}

impl CpuLike {
    pub fn word(self) -> &'static str {
        match self {
            CpuLike::Exact => "exact",
            CpuLike::Nearest => "nearest",
            CpuLike::Host => "host",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    Kvm,
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        })
    }
}

/// A synced folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncFolder {
    /// Absolute, on the host.
    pub from: PathBuf,
    /// Absolute, in the guest.
    pub to: String,
    #[serde(rename = "type")]
    pub kind: SyncKind,
    /// rsync patterns.
    pub exclude: Vec<String>,
    /// Whether files that are deleted on the host are deleted in the guest too.
    pub delete: bool,
    /// Whether files that git ignores are excluded.
    pub gitignore: bool,
    /// `user` or `user:group` in the guest. `None`: the login user.
    pub owner: Option<String>,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// Whether later edits on the host reach the guest: content if the folder is copied, file events if it is
    /// shared.
    pub watch: bool,
    /// Its position, such as `Machinefile:12:5`, for errors that only the host finds.
    #[serde(skip)]
    pub at: String,
}

/// How a guest gets a folder of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncKind {
    /// Copied from host to guest.
    Rsync,
    /// Copied, and edits of either side go to the other.
    TwoWay,
    /// The folder itself, over virtiofs.
    Virtiofs,
    /// The folder itself, over 9p.
    #[serde(rename = "9p")]
    NineP,
    /// virtiofs if host and guest have it, else rsync.
    Auto,
}

impl SyncKind {
    pub fn word(self) -> &'static str {
        match self {
            SyncKind::Rsync => "rsync",
            SyncKind::TwoWay => "two-way",
            SyncKind::Virtiofs => "virtiofs",
            SyncKind::NineP => "9p",
            SyncKind::Auto => "auto",
        }
    }

    /// Whether the guest gets a copy of its own, which only the host changes.
    pub fn is_one_way(self) -> bool {
        match self {
            SyncKind::Rsync => true,
            SyncKind::TwoWay | SyncKind::Virtiofs | SyncKind::NineP | SyncKind::Auto => false,
        }
    }

    /// Whether the guest has the host's folder itself, wherever it runs.
    pub fn is_shared(self) -> bool {
        match self {
            SyncKind::Virtiofs | SyncKind::NineP => true,
            SyncKind::Rsync | SyncKind::TwoWay | SyncKind::Auto => false,
        }
    }

    /// Whether QEMU opens the host's folder by its name.
    pub fn is_opened_by_name(self) -> bool {
        match self {
            SyncKind::NineP => true,
            SyncKind::Rsync | SyncKind::TwoWay | SyncKind::Virtiofs | SyncKind::Auto => false,
        }
    }

    /// Whether it is copied where it cannot be shared.
    pub fn is_automatic(self) -> bool {
        match self {
            SyncKind::Auto => true,
            SyncKind::Rsync | SyncKind::TwoWay | SyncKind::Virtiofs | SyncKind::NineP => false,
        }
    }

    /// Whether a guest can change files in such a folder of the host.
    pub fn guest_writes(self, readonly: bool) -> bool {
        match self {
            SyncKind::Rsync => false,
            SyncKind::TwoWay | SyncKind::Auto => true,
            SyncKind::Virtiofs | SyncKind::NineP => !readonly,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Provisioner {
    /// Unique within the machine.
    pub name: String,
    pub run: RunPolicy,
    pub kind: ProvisionerKind,
}

/// A provisioner that runs over several machines at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProjectProvisioner {
    pub provisioner: Provisioner,
    /// The machines that it runs over, in the order of the file.
    pub machines: Vec<String>,
}

/// When a provisioner runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunPolicy {
    /// Once per machine. Later changes are only reported.
    Once,
    /// Again after its inputs have changed.
    Changed,
    /// At every `up`.
    Always,
    /// Only if it is named.
    Never,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ProvisionerKind {
    Shell(Shell),
    File {
        /// A file or folder on the host, absolute.
        from: PathBuf,
        /// Absolute, in the guest.
        to: String,
        /// Octal, such as 0o644.
        mode: Option<u32>,
        /// `user` or `user:group`. `None`: root.
        owner: Option<String>,
    },
    /// Run by the host's Ansible.
    Ansible {
        #[serde(flatten)]
        playbook: Box<Playbook>,
    },
    /// Run by an Ansible in the guest.
    AnsibleLocal {
        #[serde(flatten)]
        playbook: Box<Playbook>,
        install: AnsibleInstall,
    },
}

impl ProvisionerKind {
    /// Returns the playbook of an Ansible provisioner.
    pub fn playbook(&self) -> Option<&Playbook> {
        match self {
            ProvisionerKind::Ansible { playbook }
            | ProvisionerKind::AnsibleLocal { playbook, .. } => Some(playbook),
            ProvisionerKind::Shell(_) | ProvisionerKind::File { .. } => None,
        }
    }

    /// Whether it runs programs of the project on the host, to which the user must have agreed.
    pub fn runs_on_host(&self) -> bool {
        match self {
            ProvisionerKind::Ansible { .. } => true,
            ProvisionerKind::Shell(_)
            | ProvisionerKind::File { .. }
            | ProvisionerKind::AnsibleLocal { .. } => false,
        }
    }
}

/// A script that runs in the guest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shell {
    pub source: ScriptSource,
    #[serde(flatten)]
    pub run: Invocation,
    /// The working folder, absolute in the guest. `None`: the user's home.
    pub workdir: Option<String>,
    /// As root (through sudo) or as the login user.
    pub privileged: bool,
    /// Another user to run as, through sudo; excludes `privileged=#true`.
    pub user: Option<String>,
    /// Its name for people: its path as written, or that it is inline.
    #[serde(skip)]
    pub label: String,
}

/// How a script or a program is started.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Invocation {
    pub args: Vec<String>,
    /// Values may be secrets, so only their names are ever shown.
    #[serde(serialize_with = "only_names")]
    pub env: BTreeMap<String, String>,
    /// Replaces the interpreter of its first line.
    pub interpreter: Option<Vec<String>>,
    /// Its output is neither shown nor kept.
    pub sensitive: bool,
    pub timeout: Option<Duration>,
}

fn only_names<S: serde::Serializer>(
    env: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(env.keys())
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "from", content = "value", rename_all = "lowercase")]
pub enum ScriptSource {
    /// Absolute path of a script on the host.
    Path(PathBuf),
    Inline(Secret),
}

/// What runs before or after `up`, `halt` or `destroy` of a machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hook {
    pub moment: Moment,
    #[serde(flatten)]
    pub runs: HookRuns,
    /// Its position, such as `Machinefile:12:5`.
    #[serde(skip)]
    pub at: String,
}

impl Hook {
    /// Returns its name for people.
    pub fn label(&self) -> &str {
        match &self.runs {
            HookRuns::Host(command) => &command.label,
            HookRuns::Guest(shell) => &shell.label,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    BeforeUp,
    AfterUp,
    BeforeHalt,
    AfterHalt,
    BeforeDestroy,
    AfterDestroy,
}

impl Moment {
    /// Returns its name in a step: `before-up`.
    pub fn id(self) -> &'static str {
        match self {
            Moment::BeforeUp => "before-up",
            Moment::AfterUp => "after-up",
            Moment::BeforeHalt => "before-halt",
            Moment::AfterHalt => "after-halt",
            Moment::BeforeDestroy => "before-destroy",
            Moment::AfterDestroy => "after-destroy",
        }
    }

    /// `before`, `after`.
    pub fn side(self) -> &'static str {
        match self {
            Moment::BeforeUp | Moment::BeforeHalt | Moment::BeforeDestroy => "before",
            _ => "after",
        }
    }

    /// `up`, `halt`, `destroy`.
    pub fn command(self) -> &'static str {
        match self {
            Moment::BeforeUp | Moment::AfterUp => "up",
            Moment::BeforeHalt | Moment::AfterHalt => "halt",
            Moment::BeforeDestroy | Moment::AfterDestroy => "destroy",
        }
    }

    /// Whether the guest can run then.
    pub fn has_guest(self) -> bool {
        matches!(
            self,
            Moment::AfterUp | Moment::BeforeHalt | Moment::BeforeDestroy
        )
    }
}

/// `before up`.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.side(), self.command())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "where", rename_all = "lowercase")]
pub enum HookRuns {
    Host(HostCommand),
    Guest(Shell),
}

/// What runs on the host, in the project's root.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostCommand {
    pub what: HostSource,
    #[serde(flatten)]
    pub run: Invocation,
    /// Its name for people.
    #[serde(skip)]
    pub label: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostSource {
    Script(ScriptSource),
    /// An absolute path, or a name in PATH.
    Program(PathBuf),
}

/// When a machine that answers SSH counts as ready.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ready {
    /// Ports of the guest on which a program must listen.
    pub tcp: Vec<u16>,
    /// Commands (each run by `sh -c` in the guest as the login user) that must exit 0.
    pub exec: Vec<String>,
    /// The time limit for booting to SSH, and again for the checks.
    pub timeout: Duration,
}

impl Ready {
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
}

impl Default for Ready {
    fn default() -> Self {
        Ready {
            tcp: Vec::new(),
            exec: Vec::new(),
            timeout: Self::DEFAULT_TIMEOUT,
        }
    }
}

impl Project {
    /// Returns a path for people: relative to the project if it is inside.
    pub fn display_path<'a>(&self, path: &'a Path) -> std::borrow::Cow<'a, str> {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .to_string_lossy()
    }
}
