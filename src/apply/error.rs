//! Errors of steps.

use std::time::Duration;

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    boxes::BoxError,
    guest::{GuestError, finds_no_system},
    host::ports::{HostPort, Protocol},
    hypervisor::HypervisorError,
    kernel::KernelError,
    provision::ProvisionError,
    report::elapsed,
    sync::{ShareError, SyncError, TwoWayError},
    tls::TlsError,
    trust::TrustError,
};

/// What may help if nothing on the disk boots.
fn other_firmware(sign: &str) -> &'static str {
    match finds_no_system(sign) {
        true => {
            "if its disk needs other firmware, write firmware \"uefi\" or firmware \"bios\" into the Machinefile; "
        }
        false => "",
    }
}

/// Returns the options of ss(8) that list what listens.
fn listening(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "lt",
        Protocol::Udp => "lu",
    }
}

/// Why a step failed. The event with the error names the machine.
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
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tls(#[from] TlsError),
    #[error("the kernel of machine {machine} ({kernel}) is not in the store any more")]
    #[diagnostic(help("run `stead up {machine}`, which imports it again"))]
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
    #[error("{port} is in use{by}, but `forward {}` needs it", .port.port)]
    #[diagnostic(help(
        "stop the program that listens there (`ss -{}np 'sport = :{}'` shows it){or_else}", listening(.port.protocol), .port.port
    ))]
    PortTaken {
        port: HostPort,
        by: String,
        /// What else the user can do, after a comma.
        or_else: &'static str,
    },
    #[error(
        "{port} is in use, and `forward {}` can have none of the {} ports above it: they are in use or other machines have them",
        .port.port, crate::host::ports::NEAR
    )]
    #[diagnostic(help(
        "stop the program that listens there (`ss -{}np` shows all), or forward another port", listening(.port.protocol)
    ))]
    NoPortNear { port: HostPort },
    #[error("only root may listen on {port}, but `forward {}` needs it (Permission denied)", .port.port)]
    #[diagnostic(help("{}", crate::host::ports::remedy_for_root(*.port)))]
    PortForRoot { port: HostPort },
    #[error("the system does not let stead listen on {port}, which `forward {}` needs: {said}", .port.port)]
    #[diagnostic(help(
        "a security module (SELinux, AppArmor), a container's rules or a limit may forbid it: `sudo dmesg` and `ulimit -a` show that; or forward another port"
    ))]
    PortRefused {
        port: HostPort,
        said: std::io::Error,
    },
    #[error("this computer does not have the address {} any more, but `forward {}` needs it", .port.address, .port.port)]
    #[diagnostic(help("`ip addr` shows its addresses; address=\"0.0.0.0\" means all of them"))]
    NoHostAddress { port: HostPort },
    #[error("port {port} of 127.0.0.1 is in use, but the machine was saved with SSH on it")]
    #[diagnostic(help(
        "stop the program that listens there (`ss -ltnp 'sport = :{port}'` shows it), then run the same command again"
    ))]
    SshPortTaken { port: u16 },
    #[error("there is no free port for SSH on 127.0.0.1")]
    #[diagnostic(help("some program uses thousands of ports; `ss -ltn` lists them"))]
    NoPort,
    #[error(
        "{tries} times, another program took the free port for SSH before QEMU could listen on it"
    )]
    #[diagnostic(help("`ss -ltnp` shows which programs listen; `stead up` tries again"))]
    PortsLost { tries: usize },
    #[error("no SSH login within {}{}", elapsed(*.limit), .said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    #[diagnostic(help(
        "it is left running: `stead logs {machine}` shows its console, `stead console {machine}` logs in there, `stead up` waits longer, `stead destroy {machine}` gives up; if it only boots slowly, set a longer `ready {{ timeout }}`"
    ))]
    Unreachable {
        machine: String,
        limit: Duration,
        said: Option<String>,
    },
    #[error("the guest has booted, but has no SSH server, by which stead would log in: {saw}")]
    #[diagnostic(help(
        "it is left running: `stead console {machine}` logs in on its console, and `stead logs {machine}` shows it; a box needs an SSH server, a network service that asks for an address by DHCP, and a seed that stead knows: cloud-init, systemd's credentials, or Vagrant's public key"
    ))]
    NoServer { machine: String, saw: String },
    #[error("the guest has booted, and does not let stead log in: {said}")]
    #[diagnostic(help(
        "it is left running: `stead console {machine}` logs in on its console; a box needs a seed that stead knows, by which it gets the key: cloud-init, systemd's credentials, or Vagrant's public key (`stead box list` shows which one the box is for)"
    ))]
    LoginRefused { machine: String, said: String },
    #[error("the guest does not boot: {sign}")]
    #[diagnostic(help(
        "{}it is left as it is: `stead logs {machine}` shows its whole console, `stead destroy {machine}` removes it; `stead box verify` checks its box",
        other_firmware(.sign)
    ))]
    Hopeless { machine: String, sign: String },
    #[error("the machine stopped while stead waited for it")]
    #[diagnostic(help("`stead logs {machine}` shows its console; `stead up` boots it again"))]
    Stopped { machine: String },
    #[error("lost the connection to {machine} while stead waited for it to be ready")]
    #[diagnostic(help(
        "`stead status` shows whether it still runs; `stead up {machine}` checks again"
    ))]
    CutOff { machine: String },
    #[error("the guest rebooted while {what}")]
    #[diagnostic(help("{hint}"))]
    Rebooted { what: String, hint: String },
    #[error("not ready within {}: {what}", elapsed(*.limit))]
    #[diagnostic(help(
        "the machine is running: `stead ssh {machine}` logs in, `stead up` checks again; a longer `ready {{ timeout }}` gives it more time"
    ))]
    NotReady {
        machine: String,
        what: String,
        limit: Duration,
    },
    #[error("there is a disk {disk}, but no machine owns it")]
    #[diagnostic(help(
        "another program removed its domain; `stead destroy {machine}` deletes the disk with its data, or move it out of {folder} first"
    ))]
    OrphanDisk {
        machine: String,
        disk: String,
        folder: String,
    },
    #[error("disk {disk} is in use by a QEMU that this libvirt does not know")]
    #[diagnostic(help(
        "nothing was deleted; another libvirt daemon or a container may run it: use that one, or end its QEMU (`fuser {disk}` as root shows it)"
    ))]
    DiskInUse { disk: String },
    #[error(
        "the keys of machine {machine} are lost, and a machine from a Vagrant box cannot get new ones"
    )]
    #[diagnostic(help(
        "restore its folder {folder} from a backup; or run `stead destroy {machine}` and `stead up {machine}` to re-create it, which deletes the data on its disk"
    ))]
    KeysLost { machine: String, folder: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Network(#[from] crate::network::NetworkError),
    #[error(
        "machine {machine} can be reached only by the network of its project, which this connection cannot have"
    )]
    #[diagnostic(help(
        "run stead as root, as when the machine was made; or run `stead destroy {machine}` and `stead up {machine}` to re-create it, which deletes the data on its disk"
    ))]
    NoNetwork { machine: String },
    #[error("machine {machine} has no address {address} on network {network}: {why}")]
    #[diagnostic(help(
        "the machine is running: `stead ssh {machine}` and `ip addr` show its cards; its network service has to ask for an address by DHCP on the card with MAC {mac}; then `stead up {machine}` continues from here"
    ))]
    NoAddress {
        machine: String,
        network: String,
        address: std::net::Ipv4Addr,
        mac: crate::network::Mac,
        why: String,
    },
    #[error("expected kernel {wanted}, but {running} is running")]
    #[diagnostic(help(
        "`stead logs {machine}` shows its boot; check whether something in the guest chooses the kernel (bootloader settings, kexec); if not, this is a bug in stead"
    ))]
    OtherKernel {
        machine: String,
        wanted: String,
        running: String,
    },
    #[error("kernel {kernel}: cannot {doing} machine {machine}: {said}")]
    #[diagnostic(help(
        "the machine is running: inspect it with `stead ssh {machine}`; `stead up {machine}` continues from here"
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
    #[error("cannot ask machine {machine} to shut down: {message}")]
    #[diagnostic(help(
        "it is left as it is; run the same command again, or `stead halt --force {machine}` to power it off, which loses data that the guest has not written to its disk"
    ))]
    NotAsked { machine: String, message: String },
    #[error("cannot restore machine {machine} from its saved memory: {message}")]
    #[diagnostic(help(
        "the saved memory is kept; `virsh managedsave-remove {domain}` deletes it, like a power-off, and `stead up {machine}` then boots from the disk"
    ))]
    NotRestored {
        machine: String,
        domain: String,
        message: String,
    },
    #[error(
        "machine {machine} is saved (`virsh managedsave`), so its disk may lack data that was in its memory"
    )]
    #[diagnostic(help("run `stead up {machine}` to restore it, then the same command again"))]
    Saved { machine: String },
    #[error("{message}")]
    #[diagnostic(help("{remedy}"))]
    ForeignDisk { message: String, remedy: String },
    #[error("domain {domain} does not exist any more")]
    #[diagnostic(help("another program removed it meanwhile; run the same command again"))]
    Gone { domain: String },
    #[error("user-data is set, but box {name} has no cloud-init to read it")]
    #[diagnostic(help(
        "use a box whose seed is cloud-init (`stead box list` shows it), or use a `provision` instead"
    ))]
    NoCloudInit { name: String },
    #[error("cannot log in to machine {machine}, so it cannot write data from memory to its disk before the copy{}", .said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    #[diagnostic(help(
        "nothing was changed; wait until it is ready (`stead up {machine}`), or run `stead halt {machine}` first"
    ))]
    NotFlushed {
        machine: String,
        said: Option<String>,
    },
    #[error("cannot copy the disk of machine {machine} while the machine is shutting down")]
    #[diagnostic(help("nothing was changed; run the same command again when it is off"))]
    Stopping { machine: String },
    #[error("cannot copy the disk of machine {machine}: {message}")]
    #[diagnostic(help(
        "the machine was not changed; run the same command again, or `stead halt {machine}` first"
    ))]
    NotCopied { machine: String, message: String },
    #[error(
        "machine {machine} has no /lib/modules/{kernel} any more, but a box made from it would boot that kernel, which comes from its box {name}"
    )]
    #[diagnostic(help(
        "install the package of that kernel again in {machine} (its name ends in {kernel}), or use a box that boots by its own bootloader, such as debian-12-cloud"
    ))]
    KernelGone {
        machine: String,
        kernel: String,
        name: String,
    },
    #[error("cannot clean the copy of machine {machine}: {said}")]
    #[diagnostic(help(
        "{machine} was not changed; it needs a POSIX shell, and sudo without a password for its login user"
    ))]
    NotClean { machine: String, said: String },
    #[error("qemu-img cannot make one image from the copy of {machine}: {message}")]
    #[diagnostic(help(
        "{machine} was not changed; check that there is enough space for stead's images (`stead doctor` shows their folder)"
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
    #[error("not enough space in {folder} for the disk of {machine}: {size} needed, {free} free")]
    #[diagnostic(help(
        "free some space, or remove preallocate=#true, so that the disk grows as it fills"
    ))]
    NoRoom {
        machine: String,
        size: crate::machinefile::Bytes,
        folder: String,
        free: String,
    },
    #[error("qemu-img cannot preallocate the disk of {machine}: {message}")]
    #[diagnostic(help(
        "use a file system that can allocate without writing (fallocate(2)), or remove preallocate=#true"
    ))]
    NotPreallocated { machine: String, message: String },
    #[error("stead itself failed: {0}")]
    #[diagnostic(help("{}", crate::report::BUG))]
    Internal(String),
}

impl ApplyError {
    /// Whether the reason is only that the connection was lost.
    pub fn is_cut_off(&self) -> bool {
        match self {
            ApplyError::Provision(error) => error.is_cut_off(),
            ApplyError::Sync(error) => error.is_cut_off(),
            ApplyError::CutOff { .. } => true,
            _ => false,
        }
    }

    /// Whether the end of the console helps to understand the error.
    pub fn wants_console(&self) -> bool {
        matches!(
            self,
            ApplyError::Unreachable { .. }
                | ApplyError::Stopped { .. }
                | ApplyError::Hopeless { .. }
                | ApplyError::NoServer { .. }
                | ApplyError::LoginRefused { .. }
        )
    }
}

impl From<tokio::task::JoinError> for ApplyError {
    fn from(error: tokio::task::JoinError) -> Self {
        ApplyError::Internal(error.to_string())
    }
}
