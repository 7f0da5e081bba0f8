//! What a checked Machinefile says: plain data, no spans, no effects.
//!
//! `count=N` is already expanded here, defaults are filled in, relative paths are absolute, and
//! everything that one file alone can get wrong has been refused.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    ansible::{AnsibleInstall, Group, Playbook, Vars},
    tuning::{HostReserve, Places, Tuning},
    variables::Variable,
};

/// A number of bytes. Displays in the largest binary unit that loses nothing (`2GiB`, `1536MiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    pub const KIB: u64 = 1 << 10;
    pub const MIB: u64 = 1 << 20;
    pub const GIB: u64 = 1 << 30;
    pub const TIB: u64 = 1 << 40;

    /// Rounded up to whole MiB.
    pub fn mib(self) -> u64 {
        self.0.div_ceil(Self::MIB)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [
            (Self::TIB, "TiB"),
            (Self::GIB, "GiB"),
            (Self::MIB, "MiB"),
            (Self::KIB, "KiB"),
        ] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A whole project: what `stead up` makes true.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Project {
    /// The name in `project "…"`; a valid hostname label.
    pub name: String,
    /// The folder that holds the Machinefile, absolute and without symlinks.
    pub root: PathBuf,
    /// The Machinefile itself.
    pub file: PathBuf,
    /// All files that say it: the Machinefile, what it includes, Machinefile.local.
    #[serde(skip)]
    pub read: Vec<PathBuf>,
    /// Environment variables that it takes.
    #[serde(skip)]
    pub variables: Vec<Variable>,
    /// The catalogue of `catalogue "…"`, if given: an https URL, or an absolute path.
    pub catalogue: Option<String>,
    /// The libvirt of `connect "…"`, if given.
    pub connect: Option<Libvirt>,
    /// What reservations leave to the host.
    pub host_reserve: HostReserve,
    /// In the order of the file, `count` expanded.
    pub machines: Vec<Machine>,
    /// Groups of the inventory that are said; those of labels and `count` come by themselves.
    pub groups: Vec<Group>,
    /// What runs over several machines once they are up.
    pub provisioners: Vec<ProjectProvisioner>,
}

impl Project {
    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines.iter().find(|m| m.name == name)
    }
}

/// Which libvirt a Machinefile may ask for. There is no way to say another one here: a URI can
/// name a program to run (`qemu+ext:///…?command=`) or somebody else's daemon.
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

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub name: String,
    /// The name before `count` numbered it.
    pub one_of: Option<String>,
    /// The guest's hostname; the machine's name unless said otherwise.
    pub hostname: String,
    /// The box as written: a name in the store, a URL, or a path, which starts at the project's
    /// root (docs/concepts/boxes.md).
    pub box_ref: String,
    /// The same for files and messages: of a URL, what is written, without what stands in variables
    /// of the environment.
    pub box_key: String,
    /// Where the box is a path: the file that it led to when the Machinefile was read, without symlinks. Another
    /// that the path leads to later is not read.
    pub box_file: Option<PathBuf>,
    /// What the file at that URL or path has to be: 64 lower-case hex digits.
    pub box_sha256: Option<String>,
    pub cpus: u32,
    pub memory: Bytes,
    /// Size of the root disk. `None`: as large as the box's.
    pub disk: Option<Bytes>,
    /// `None`: the box's own, as the box boots it.
    pub kernel: Option<Kernel>,
    pub tuning: Tuning,
    /// Where in the files that stands which a host has to judge.
    #[serde(skip)]
    pub places: Places,
    pub labels: BTreeMap<String, String>,
    /// The machine's variables in the inventory.
    pub vars: Vars,
    /// Names of machines (expanded) that must be ready first.
    pub depends_on: Vec<String>,
    pub forwards: Vec<Forward>,
    pub syncs: Vec<SyncFolder>,
    pub provisioners: Vec<Provisioner>,
    /// In the order of the file.
    pub hooks: Vec<Hook>,
    pub ready: Ready,
    /// Whom to log in as. `None`: the box's login user.
    pub user: Option<String>,
    /// The user's cloud-init user-data file, absolute.
    pub user_data: Option<PathBuf>,
    /// `None`: by the rule (KVM where it works).
    pub accel: Option<Accel>,
    /// Whether it reaches anything outside of itself by the network: this host, other machines,
    /// the internet.
    pub internet: bool,
    /// `None`: as `cpu "host"`.
    pub cpu: Option<Cpu>,
}

/// What a machine boots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    pub source: KernelSource,
    pub cmdline: Option<Cmdline>,
    pub boot: KernelBoot,
    /// Where it is said: `Machinefile:12:5`. What only the host can judge is told of there.
    pub at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelSource {
    /// The box's own.
    Box,
    /// An image or a build on this host; absolute paths.
    Path {
        image: PathBuf,
        modules: Option<PathBuf>,
        config: Option<PathBuf>,
    },
    /// Of the box's distribution, or of the one that is named.
    Package {
        name: String,
        version: Option<String>,
        /// `debian/12`.
        distribution: Option<String>,
        /// Other repositories than the distribution's.
        from: Option<String>,
        /// The key that signs those; absolute.
        key: Option<PathBuf>,
    },
    /// The one that this host runs.
    Host,
    /// One in the store that was captured or imported: its name or digest.
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
    /// In place of the box's options, not after them.
    pub replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelBoot {
    /// QEMU loads it.
    Direct,
    /// The machine installs it, and its own bootloader boots it.
    Installed,
}

/// Which CPU a machine has, beside the number of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    pub like: CpuLike,
    /// Where it is said: `Machinefile:12:5`.
    pub at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuLike {
    /// As that of the captured host, or none.
    Exact,
    /// As near to it as this host comes.
    Nearest,
    /// The host's, or all that QEMU can emulate.
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

/// A TCP port of the host, on 127.0.0.1 only, that leads to a port of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub host: u16,
    pub guest: u16,
}

/// A folder of the host that a guest has too.
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
    /// Whether files that are gone on the host go in the guest too.
    pub delete: bool,
    /// Whether what git ignores stays on the host.
    pub gitignore: bool,
    /// `user` or `user:group` in the guest; the login user if not given.
    pub owner: Option<String>,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// Whether edits on the host go on reaching the guest: content where it is copied, file events
    /// where it is shared.
    pub watch: bool,
    /// Where it is said: `Machinefile:12:5`. What only the host can judge is told of there.
    #[serde(skip)]
    pub at: String,
}

/// How a guest comes to a folder of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncKind {
    /// Copied from host to guest.
    Rsync,
    /// Copied, and edits of both sides go to the other.
    TwoWay,
    /// The folder itself, over virtiofs.
    Virtiofs,
    /// The folder itself, over 9p.
    #[serde(rename = "9p")]
    NineP,
    /// virtiofs where host and guest have it, else rsync.
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

    /// Whether a guest can change what is in such a folder of the host.
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
    /// Those it runs over, in the order of the file.
    pub machines: Vec<String>,
}

/// When a provisioner runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunPolicy {
    /// Once per machine; that it changed since is told of.
    Once,
    /// Again when what goes into it has changed.
    Changed,
    /// At every `up`.
    Always,
    /// Only when it is asked for by its name.
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
        /// `user` or `user:group`; root if not given.
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
    /// The playbook, where it is one that runs.
    pub fn playbook(&self) -> Option<&Playbook> {
        match self {
            ProvisionerKind::Ansible { playbook }
            | ProvisionerKind::AnsibleLocal { playbook, .. } => Some(playbook),
            _ => None,
        }
    }
}

/// A script that runs in the guest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shell {
    pub source: ScriptSource,
    #[serde(flatten)]
    pub run: Invocation,
    /// Where it runs, absolute in the guest; the user's home where it is not given.
    pub workdir: Option<String>,
    /// As root (through sudo) or as the login user.
    pub privileged: bool,
    /// Another user to run as, through sudo; excludes `privileged=#true`.
    pub user: Option<String>,
    /// As people know it: its path as it is written, or that it is inline.
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
    /// In place of what its first line says.
    pub interpreter: Option<Vec<String>>,
    /// Nothing of what it prints is shown or kept.
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
    Inline(Text),
}

/// The text of a script. Secrets may stand in it, so it is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
    }
}

/// What runs beside a machine's going up, down or away.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hook {
    pub moment: Moment,
    #[serde(flatten)]
    pub runs: HookRuns,
    /// Where it is said: `Machinefile:12:5`.
    #[serde(skip)]
    pub at: String,
}

impl Hook {
    /// What runs, as people know it.
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
    /// As it stands in a step's name: `before-up`.
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

    /// Whether the guest can be there then.
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
    /// As people know it.
    #[serde(skip)]
    pub label: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostSource {
    Script(ScriptSource),
    /// An absolute path, or a name that PATH leads to.
    Program(PathBuf),
}

/// When a machine that answers SSH counts as ready.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ready {
    /// Guest ports on which something must listen.
    pub tcp: Vec<u16>,
    /// Commands (each run by `sh -c` in the guest as the login user) that must exit 0.
    pub exec: Vec<String>,
    /// For booting to SSH, and again for the checks.
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
    /// A path as people write it: relative to the project where it is inside.
    pub fn display_path<'a>(&self, path: &'a Path) -> std::borrow::Cow<'a, str> {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .to_string_lossy()
    }
}
