use miette::Diagnostic;
use thiserror::Error;

/// What can go wrong between stead and libvirt.
#[derive(Clone, Debug, Error, Diagnostic)]
pub enum HypervisorError {
    #[error("cannot load libvirt: {why}")]
    #[diagnostic(help(
        "install libvirt and its QEMU driver, version 9.0 or newer (Debian: `apt install libvirt0 libvirt-daemon libvirt-daemon-driver-qemu`; Fedora and others: the packages that have libvirt.so.0 and libvirtd)"
    ))]
    NoLibrary { why: String },
    #[error("cannot reach libvirt at {uri}: {message}")]
    Connect {
        uri: String,
        message: String,
        #[help]
        hint: String,
    },
    #[error("{doing}: {message}")]
    Libvirt {
        doing: String,
        message: String,
        code: u32,
        #[help]
        hint: Option<String>,
    },
    #[error("a {kind} named {name} exists that stead did not make; it is left alone")]
    #[diagnostic(help(
        "rename or remove it yourself (virsh can), or give the project or machine another name"
    ))]
    NotOurs { kind: &'static str, name: String },
    #[error("the record of domain {domain} cannot be read: {message}")]
    #[diagnostic(help(
        "it was written by another version of stead, or edited; `virsh metadata {domain} --uri {uri}` shows it"
    ))]
    Record {
        domain: String,
        uri: &'static str,
        message: String,
    },
    #[error(
        "domain {domain} was made or changed by a newer stead (its record has format {format}, and this one knows up to {known})"
    )]
    #[diagnostic(help(
        "nothing was changed; update stead, or use the newer one that is installed on this host"
    ))]
    NewerRecord {
        domain: String,
        format: u32,
        known: u32,
    },
    #[error(
        "machine {machine} runs (QEMU, process {pid}), and the libvirt that stead talks to here ({uri}) does not know it"
    )]
    OtherDaemon {
        machine: String,
        pid: u32,
        uri: String,
        #[help]
        hint: String,
    },
    #[error("machine {machine} asks for accel \"kvm\", but {why}")]
    #[diagnostic(help(
        "remove accel \"kvm\" to let stead choose, or see `stead doctor` for what KVM needs here"
    ))]
    NoKvm { machine: String, why: String },
    #[error("machine {machine} asks for cpu \"exact\", and {by} lacks {lacks}")]
    #[diagnostic(help(
        "cpu \"nearest\" takes what there is and says what is missing; cpu \"host\" is the default"
    ))]
    CpuLacks {
        machine: String,
        by: &'static str,
        lacks: String,
    },
}

impl HypervisorError {
    pub(super) fn libvirt(doing: impl Into<String>, error: &virt::error::Error) -> Self {
        let message = error.message().to_string();
        let hint = remedy(&message);
        HypervisorError::Libvirt {
            doing: doing.into(),
            code: error.code().to_raw(),
            message,
            hint,
        }
    }

    /// QEMU found a host port taken when it started: another program won the race for it.
    pub fn is_port_taken(&self) -> bool {
        matches!(self, HypervisorError::Libvirt { message, .. }
            if message.contains("Could not set up host forwarding rule"))
    }
}

fn remedy(message: &str) -> Option<String> {
    let says = |text: &str| message.contains(text);
    let hint = if says("No space left on device") {
        "free some space where stead keeps its images (`stead doctor` shows where), then run the same command again"
    } else if says("Permission denied") {
        "QEMU runs as a user of its own under qemu:///system and must be able to read the images; `stead doctor` checks it"
    } else if says("locked memory") || says("locking memory failed") {
        "memory with reserve=#true is locked, which the limit of locked memory forbids here (`prlimit --memlock`); docs/concepts/resources.md says how to raise it"
    } else if says("UNIX socket path") && says("too long") {
        "libvirt keeps its sockets below ~/.config/libvirt, and the path of a Unix socket ends at 107 bytes: `stead doctor` says what would fit"
    } else if says("client socket is closed")
        || says("End of file while reading data")
        || says("Connection reset by peer")
    {
        "libvirt's daemon ended or was restarted in the middle; machines go on without it: run the same command again"
    } else if says("virtlogd") {
        "start libvirt's log daemon: `systemctl start virtlogd`, or `virtlogd -d` where no systemd runs"
    } else {
        return None;
    };
    Some(hint.to_string())
}

/// `.doing("…")` names what stead was at when libvirt failed.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, HypervisorError>;
}

impl<T> Doing<T> for Result<T, virt::error::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, HypervisorError> {
        self.map_err(|error| HypervisorError::libvirt(what(), &error))
    }
}
