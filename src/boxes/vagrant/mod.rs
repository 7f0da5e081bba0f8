//! Vagrant's boxes for its provider libvirt: their metadata, and the listings of their versions on Vagrant's
//! servers.
//!
//! Sources: <https://developer.hashicorp.com/vagrant/docs/boxes/format>,
//! <https://vagrant-libvirt.github.io/vagrant-libvirt/boxes.html>

mod archive;
mod listing;
mod vagrantfile;

use serde::Deserialize;

use crate::host::names::check_file_name;

pub(super) use archive::unpack;
pub use listing::Listing;
pub(super) use vagrantfile::Settings;

/// Vagrant's default (`config.ssh.username`).
pub(super) const LOGIN_USER: &str = "vagrant";

/// The only disk of a box of version 1.
const DISK: &str = "box.img";

/// A box's `metadata.json`.
#[derive(Debug, Deserialize)]
struct Metadata {
    provider: Option<String>,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    disks: Vec<MetadataDisk>,
}

#[derive(Debug, Deserialize)]
struct MetadataDisk {
    path: Option<String>,
    #[serde(default)]
    format: Option<String>,
}

/// Returns the names of a box's disks in its archive, the boot disk first. `Err` says why the box is
/// refused.
pub(super) fn disks(metadata: &[u8]) -> Result<Vec<String>, String> {
    let metadata: Metadata = serde_json::from_slice(metadata)
        .map_err(|error| format!("its metadata.json cannot be read: {error}"))?;
    match metadata.provider.as_deref() {
        Some("libvirt" | "qemu") => {}
        Some(other) => {
            return Err(format!(
                "it is a Vagrant box for {other}, expected one for libvirt or qemu"
            ));
        }
        None => return Err("its metadata.json names no provider".into()),
    }
    let names = if metadata.disks.is_empty() {
        vec![DISK.to_string()]
    } else {
        (metadata.disks.iter())
            .map(|disk| {
                disk.path
                    .clone()
                    .ok_or("a disk in its metadata.json has no path")
            })
            .collect::<Result<Vec<_>, _>>()?
    };
    let formats =
        (metadata.format.iter()).chain(metadata.disks.iter().filter_map(|d| d.format.as_ref()));
    for format in formats {
        if !["qcow2", "raw"].contains(&format.as_str()) {
            return Err(format!(
                "the disk format in its metadata.json is {format}, expected qcow2 or raw"
            ));
        }
    }
    for (n, name) in names.iter().enumerate() {
        check_file_name(name)?;
        if names[..n].contains(name) {
            return Err(format!("its disk {name} is listed twice"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
