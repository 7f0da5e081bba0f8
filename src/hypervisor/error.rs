//! Errors of libvirt, and of what stead finds there.

use miette::Diagnostic;
use thiserror::Error;

/// How to get firmware for UEFI. libvirt finds it by the descriptions in /usr/share/qemu/firmware.
pub(super) const PACKAGES_OF_UEFI: &str = "Debian and Ubuntu: `apt install ovmf`; Fedora and others: `dnf install edk2-ovmf`; it must bring descriptions in /usr/share/qemu/firmware, by which libvirt finds it";
/// How to get a TPM. libvirt starts swtpm, and sets each up by swtpm_setup.
pub(super) const PACKAGES_OF_TPM: &str =
    "Debian, Ubuntu and Fedora: install the packages `swtpm` and `swtpm-tools`";

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
    #[error("there is a {kind} {name} that stead did not make; it is left alone")]
    #[diagnostic(help(
        "rename or remove it yourself (with virsh), or give the project or machine another name"
    ))]
    NotOurs { kind: &'static str, name: String },
    #[error("cannot read stead's record of domain {domain}: {message}")]
    #[diagnostic(help(
        "another version of stead wrote it, or it was edited; `virsh metadata {domain} --uri {uri}` shows it"
    ))]
    Record {
        domain: String,
        uri: &'static str,
        message: String,
    },
    #[error(
        "domain {domain} was made or changed by a newer stead (its record has format {format}; this stead knows formats up to {known})"
    )]
    #[diagnostic(help(
        "nothing was changed; update stead, or use the newer stead that is installed on this host"
    ))]
    NewerRecord {
        domain: String,
        format: u32,
        known: u32,
    },
    #[error(
        "machine {machine} runs (QEMU, process {pid}), but the libvirt that stead is connected to ({uri}) did not start it"
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
        "remove accel \"kvm\" to let stead choose; `stead doctor` shows what KVM needs here"
    ))]
    NoKvm { machine: String, why: String },
    #[error("machine {machine} asks for cpu \"exact\", but {by} lacks {lacks}")]
    #[diagnostic(help(
        "cpu \"nearest\" uses the features that there are and reports the missing ones; cpu \"host\" is the default"
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

    /// Whether QEMU could not listen on a host port because another program took it.
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
        "under qemu:///system QEMU runs as a user of its own, which must be able to read the images; `stead doctor` checks this"
    } else if says("locked memory") || says("locking memory failed") {
        "memory with reserve=#true is locked, but the limit for locked memory is too low (`prlimit --memlock`); docs/concepts/resources.md explains how to raise it"
    } else if says("UNIX socket path") && says("too long") {
        "libvirt keeps its sockets below ~/.config/libvirt, and the path of a Unix socket may have 107 bytes at most; `stead doctor` says what would fit"
    } else if says("client socket is closed")
        || says("End of file while reading data")
        || says("Cannot write data")
        || says("Cannot recv data")
        || says("Connection reset by peer")
    {
        "libvirt's daemon ended or was restarted meanwhile; machines keep running without it: run the same command again"
    } else if says("No emulator found")
        || says("Cannot find suitable emulator")
        || says("Failed to start QEMU binary")
    {
        "install QEMU (Debian: `apt install qemu-system-x86`; others: the package that has qemu-system-x86_64), or repair it: `qemu-system-x86_64 --version` must work; then end libvirt's daemon, which remembers what it found"
    } else if says("backend 'user' is not compiled") {
        "this QEMU has no network of its own: install libslirp, by which stead makes one (`stead doctor` shows the package), then `stead destroy` and `stead up`"
    } else if says("Unable to find any firmware") || says("Unable to find 'efi' firmware") {
        return Some(format!(
            "libvirt finds no firmware that has what the machine needs: {PACKAGES_OF_UEFI}"
        ));
    } else if says("swtpm") {
        return Some(format!(
            "swtpm gives machines a TPM: {PACKAGES_OF_TPM}; its log is beside those of libvirt's machines, in `~/.cache/libvirt/qemu/log` or /var/log/swtpm/libvirt/qemu"
        ));
    } else if says("virtlogd") {
        "start libvirt's log daemon: `systemctl start virtlogd`, or `virtlogd -d` without systemd"
    } else {
        return None;
    };
    Some(hint.to_string())
}

/// `.doing("…")` adds to libvirt's error what stead was doing.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, HypervisorError>;
}

impl<T> Doing<T> for Result<T, virt::error::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, HypervisorError> {
        match self {
            Ok(value) => {
                tracing::debug!("libvirt: {}", what());
                Ok(value)
            }
            Err(error) => {
                let what = what();
                tracing::debug!("libvirt: {what}: {}", error.message());
                Err(HypervisorError::libvirt(what, &error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_ended_is_told_from_what_it_refused() {
        // What virnetsocket.c and virnetclient.c of libvirt say.
        for message in [
            "Cannot write data: Broken pipe",
            "Cannot recv data: Connection reset by peer",
            "End of file while reading data: Input/output error",
            "internal error: client socket is closed",
        ] {
            let hint = remedy(message).unwrap_or_default();
            assert!(hint.contains("run the same command again"), "{message}");
        }
        assert_eq!(remedy("Domain not found"), None);
        assert!(remedy("unsupported configuration: No emulator found for arch 'x86_64'").is_some());
        // What QEMU says that is built without libslirp, as on RHEL 10.
        let no_network =
            "-netdev {\"type\":\"user\"}: network backend 'user' is not compiled into this binary";
        assert!(remedy(no_network).unwrap().contains("install libslirp"));
    }
}
