//! What a domain has, as its XML says.

use std::path::PathBuf;

use crate::machinefile::{Bytes, Forward};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub disks: Vec<Disk>,
    /// Of stead's own network card; `None` where there is none.
    pub ports: Option<Ports>,
    pub cpus: Option<u32>,
    /// What the guest may have at most.
    pub memory: Option<Bytes>,
    pub additions: Additions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub target: String,
    pub source: Option<PathBuf>,
    pub readonly: bool,
    /// Files that back the source, as far as the XML says, nearest first.
    pub backing: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    pub ssh: u16,
    pub forwards: Vec<Forward>,
    /// Nothing but these ports: `internet #false`.
    pub restricted: bool,
}

/// What is in a domain and was not put there by stead; each as XML that another definition takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    pub devices: Vec<Addition>,
    /// Arguments of QEMU.
    pub arguments: Vec<String>,
    /// Elements of others below `<metadata>`.
    pub metadata: Vec<String>,
    pub description: Option<String>,
    /// Elements beside the devices that stead does not carry over, by name.
    pub left_out: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// For people: `disk vdb (/srv/data.img)`.
    pub words: String,
    /// Of a disk: as the guest may call it.
    pub target: Option<String>,
    /// Of a disk: its file.
    pub file: Option<PathBuf>,
    pub is_usb_controller: bool,
    pub xml: String,
}

/// The disk that a machine boots from, where that is not what stead made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignDisk {
    pub target: String,
    pub source: Option<PathBuf>,
    /// Stead's own file is below it: a snapshot was made.
    pub over_own: bool,
}
