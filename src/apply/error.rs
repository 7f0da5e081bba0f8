use std::time::Duration;

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    boxes::BoxError,
    guest::GuestError,
    hypervisor::HypervisorError,
    kernel::KernelError,
    provision::ProvisionError,
    report::elapsed,
    sync::{ShareError, SyncError, TwoWayError},
    trust::TrustError,
};

/// Why a step failed. The machine is named by the event that carries it.
#[derive(Debug, Error, Diagnostic)]
pub enum ApplyError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Hypervisor(#[from] HypervisorError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Boxes(#[from] BoxError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Kernel(#[from] KernelError),
    #[error("the kernel of machine {machine} ({kernel}) is not in the store any more")]
    #[diagnostic(help("`stead up {machine}` takes it in again"))]
    NoKernel { machine: String, kernel: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Share(#[from] ShareError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    TwoWay(#[from] TwoWayError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Trust(#[from] TrustError),
    #[error("port {port} of 127.0.0.1 is taken{by}; `forward {port}` needs it")]
    #[diagnostic(help(
        "stop what listens there (`ss -ltnp 'sport = :{port}'` names it), or forward another port"
    ))]
    PortTaken { port: u16, by: String },
    #[error("port {port} of 127.0.0.1 is for root alone; `forward {port}` needs it")]
    #[diagnostic(help(
        "forward a port from 1024 on, such as {}, or lower `sysctl net.ipv4.ip_unprivileged_port_start`", 8000 + u32::from(*.port)
    ))]
    PortForRoot { port: u16 },
    #[error("port {port} of 127.0.0.1 is taken, and the machine was saved with SSH on it")]
    #[diagnostic(help(
        "stop what listens there (`ss -ltnp 'sport = :{port}'` names it), then run the same command again"
    ))]
    SshPortTaken { port: u16 },
    #[error("no free port for SSH was found on 127.0.0.1")]
    #[diagnostic(help("something holds thousands of ports; `ss -ltn` lists them"))]
    NoPort,
    #[error(
        "each of {tries} free ports was taken by another program before QEMU could listen on it"
    )]
    #[diagnostic(help("`ss -ltnp` shows who listens; `stead up` tries again"))]
    PortsLost { tries: usize },
    #[error("no SSH login within {}{}", elapsed(*.limit), .said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    #[diagnostic(help(
        "it is left running: `stead logs {machine}` shows its console, `stead up` goes on waiting, `stead destroy {machine}` gives up; a slow boot wants a longer `ready {{ timeout }}`"
    ))]
    Unreachable {
        machine: String,
        limit: Duration,
        said: Option<String>,
    },
    #[error("the guest does not boot: {sign}")]
    #[diagnostic(help(
        "it is left as it is: `stead logs {machine}` shows all of its console, `stead destroy {machine}` removes it; `stead box verify` checks its box"
    ))]
    Hopeless { machine: String, sign: String },
    #[error("the machine stopped while stead waited for it")]
    #[diagnostic(help("`stead logs {machine}` shows its console; `stead up` boots it again"))]
    Stopped { machine: String },
    #[error("not ready within {}: {what}", elapsed(*.limit))]
    #[diagnostic(help(
        "the machine is up: `stead ssh {machine}` gets in, `stead up` checks again; give it longer with `ready {{ timeout }}`"
    ))]
    NotReady {
        machine: String,
        what: String,
        limit: Duration,
    },
    #[error("a disk named {disk} is there, but no machine owns it")]
    #[diagnostic(help(
        "its domain was removed by something other than stead; `stead destroy {machine}` deletes the disk and what is on it, or move it out of {folder} first"
    ))]
    OrphanDisk {
        machine: String,
        disk: String,
        folder: String,
    },
    #[error("disk {disk} is in use by a QEMU that libvirt does not know here")]
    #[diagnostic(help(
        "nothing was deleted; another libvirt daemon or a container may run it: use that one, or end its QEMU (`fuser {disk}` as root names it)"
    ))]
    DiskInUse { disk: String },
    #[error(
        "the keys of machine {machine} are lost, and a Vagrant box has no way to take new ones"
    )]
    #[diagnostic(help(
        "put its folder {folder} back from a backup; or `stead destroy {machine}` and `stead up {machine}` make it anew, without what is on its disk"
    ))]
    KeysLost { machine: String, folder: String },
    #[error("kernel {wanted} was to boot, and {running} runs")]
    #[diagnostic(help(
        "`stead logs {machine}` shows how it came up; look whether something in the guest chooses its kernel (its bootloader's settings, kexec): otherwise this is a bug"
    ))]
    OtherKernel {
        machine: String,
        wanted: String,
        running: String,
    },
    #[error("kernel {kernel}: cannot {doing} machine {machine}: {said}")]
    #[diagnostic(help(
        "the machine is up: look around with `stead ssh {machine}`; `stead up {machine}` goes on from here"
    ))]
    KernelNotInstalled {
        machine: String,
        kernel: String,
        doing: String,
        said: String,
    },
    #[error("machine {machine} is paused: {why}")]
    #[diagnostic(help("{remedy}"))]
    Paused {
        machine: String,
        why: String,
        remedy: String,
    },
    #[error("machine {machine} could not be asked to shut down: {message}")]
    #[diagnostic(help(
        "it is left as it is; run the same command again, or `stead halt --force {machine}` pulls the plug, and what the guest has not written to its disk is lost"
    ))]
    NotAsked { machine: String, message: String },
    #[error("machine {machine} cannot go on from its saved memory: {message}")]
    #[diagnostic(help(
        "what was saved is kept; `virsh managedsave-remove {domain}` gives it up, as if the plug had been pulled, and `stead up {machine}` then boots from the disk"
    ))]
    NotRestored {
        machine: String,
        domain: String,
        message: String,
    },
    #[error(
        "machine {machine} is saved (`virsh managedsave`): what was in its memory is not all on its disk"
    )]
    #[diagnostic(help("`stead up {machine}` goes on from there; then run the same command again"))]
    Saved { machine: String },
    #[error("{message}")]
    #[diagnostic(help("{remedy}"))]
    ForeignDisk { message: String, remedy: String },
    #[error("domain {domain} is gone")]
    #[diagnostic(help("something else removed it meanwhile; run the same command again"))]
    Gone { domain: String },
    #[error("user-data is set, but the box {name} has no cloud-init to take it")]
    #[diagnostic(help(
        "use a box whose seed is cloud-init (`stead box list` shows it), or a `provision` instead"
    ))]
    NoCloudInit { name: String },
    #[error("machine {machine} cannot be logged in to, so what it has yet to write to its disk would be missing{}", .said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    #[diagnostic(help(
        "nothing was changed; wait until it is up (`stead up {machine}`), or `stead halt {machine}` first"
    ))]
    NotFlushed {
        machine: String,
        said: Option<String>,
    },
    #[error("machine {machine} is shutting down, and its disk is neither at rest nor in use")]
    #[diagnostic(help("nothing was changed; run the same command again when it is off"))]
    Stopping { machine: String },
    #[error("the disk of machine {machine} could not be copied: {message}")]
    #[diagnostic(help(
        "the machine goes on as before; run the same command again, or `stead halt {machine}` first"
    ))]
    NotCopied { machine: String, message: String },
    #[error(
        "machine {machine} has no /lib/modules/{kernel} any more, and a box made of it would boot that kernel, which its box {name} brought"
    )]
    #[diagnostic(help(
        "install the package of that kernel again in {machine} (its name ends in {kernel}), or start from a box that boots by its own bootloader, such as debian-12-cloud"
    ))]
    KernelGone {
        machine: String,
        kernel: String,
        name: String,
    },
    #[error("the copy of machine {machine} could not be cleaned: {said}")]
    #[diagnostic(help(
        "{machine} is as it was; it needs a POSIX shell, and sudo without a password for its login user"
    ))]
    NotClean { machine: String, said: String },
    #[error("qemu-img cannot make one image of the copy of {machine}: {message}")]
    #[diagnostic(help(
        "{machine} is as it was; see that there is room where stead keeps its images (`stead doctor` shows where)"
    ))]
    NotSealed { machine: String, message: String },
    #[error("cannot {doing}: {source}")]
    Io {
        doing: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Partition(#[from] crate::resources::PartitionError),
    #[error("the disk of {machine} needs {size} in {folder}, where {free} are free")]
    #[diagnostic(help(
        "free some space, or leave out preallocate=#true: a disk then grows with what is on it"
    ))]
    NoRoom {
        machine: String,
        size: crate::machinefile::Bytes,
        folder: String,
        free: String,
    },
    #[error("qemu-img cannot preallocate the disk of {machine}: {message}")]
    #[diagnostic(help(
        "the file system has to be able to allocate without writing (fallocate(2)); leave out preallocate=#true otherwise"
    ))]
    NotPreallocated { machine: String, message: String },
    #[error("stead itself failed: {0}")]
    #[diagnostic(help("{}", crate::report::BUG))]
    Internal(String),
}

impl ApplyError {
    /// Whether it says no more than that the connection broke.
    pub fn is_cut_off(&self) -> bool {
        matches!(self, ApplyError::Provision(error) if error.is_cut_off())
    }

    /// Whether the end of the console helps to understand it.
    pub fn wants_console(&self) -> bool {
        matches!(
            self,
            ApplyError::Unreachable { .. }
                | ApplyError::Stopped { .. }
                | ApplyError::Hopeless { .. }
        )
    }
}

impl From<tokio::task::JoinError> for ApplyError {
    fn from(error: tokio::task::JoinError) -> Self {
        ApplyError::Internal(error.to_string())
    }
}
