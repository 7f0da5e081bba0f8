//! What a domain has, as its XML says.

use std::path::PathBuf;

use crate::machinefile::{Bytes, Forward};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub disks: Vec<Disk>,
    /// The ports of stead's own network card; `None` if there is none.
    pub ports: Option<Ports>,
    pub cpus: Option<u32>,
    /// The most memory that the guest may have.
    pub memory: Option<Bytes>,
    /// Whether the guest's agent has opened its channel.
    pub agent: bool,
    /// The files of the firmware that libvirt chose for it, if the definition says so: elements of `<os>`.
    pub firmware_files: Vec<String>,
    pub additions: Additions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub target: String,
    pub source: Option<PathBuf>,
    pub readonly: bool,
    /// The source's chain of backing files, nearest first, as far as the XML shows it.
    pub backing: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    pub ssh: u16,
    pub forwards: Vec<Forward>,
    /// Whether only these ports work: `internet #false`, or what leaves the machine passes a network.
    pub restricted: bool,
}

/// What others than stead have added to a domain, as XML that can go into another definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    pub devices: Vec<Addition>,
    /// Arguments for QEMU.
    pub arguments: Vec<String>,
    /// Other programs' elements in `<metadata>`.
    pub metadata: Vec<String>,
    pub description: Option<String>,
    /// The names of elements outside of the devices that stead does not keep.
    pub left_out: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The name for people: `disk vdb (/srv/data.img)`.
    pub words: String,
    /// For a disk: its name, which the guest may use too.
    pub target: Option<String>,
    /// For a disk: its file.
    pub file: Option<PathBuf>,
    pub is_usb_controller: bool,
    pub xml: String,
}

/// The disk that a machine boots from, if it is not the one that stead made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignDisk {
    pub target: String,
    pub source: Option<PathBuf>,
    /// Whether stead's own file is below it, because a snapshot was made.
    pub over_own: bool,
}
