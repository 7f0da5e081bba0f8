//! Exports a box's disk in formats of other software: clouds, other hypervisors, Vagrant.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use tar::Builder;

use crate::host::file;

use super::{
    archive::plain_header,
    error::BoxError,
    manifest::{Boot, DiskFormat, Manifest},
    qcow2, qemu_img,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    Qcow2,
    Raw,
    Vmdk,
    Vhd,
    /// A .box for Vagrant's libvirt provider.
    Vagrant,
}

impl ExportFormat {
    pub const NAMES: [&str; 5] = ["qcow2", "raw", "vmdk", "vhd", "vagrant"];

    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "qcow2" => ExportFormat::Qcow2,
            "raw" => ExportFormat::Raw,
            "vmdk" => ExportFormat::Vmdk,
            "vhd" => ExportFormat::Vhd,
            "vagrant" => ExportFormat::Vagrant,
            _ => return None,
        })
    }

    /// Arguments of `qemu-img convert` (qemu-img(1)).
    fn arguments(self) -> &'static [&'static str] {
        match self {
            // Compressed, because it will be copied elsewhere, not used in place.
            ExportFormat::Qcow2 | ExportFormat::Vagrant => {
                &["-O", "qcow2", "-c", "-o", "compat=1.1"]
            }
            ExportFormat::Raw => &["-O", "raw"],
            // The subformat that VMware, AWS and Google import.
            ExportFormat::Vmdk => &["-O", "vmdk", "-o", "subformat=streamOptimized"],
            // Azure accepts only fixed VHDs of a whole number of MiB. Without force_size, QEMU rounds the size up
            // to a whole number of cylinders, heads and sectors.
            ExportFormat::Vhd => &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
        }
    }

    /// Fails if the box cannot be exported in this format.
    pub fn check(self, manifest: &Manifest) -> Result<(), BoxError> {
        if self == ExportFormat::Vagrant && matches!(manifest.boot, Boot::Direct { .. }) {
            return Err(BoxError::NoBootloader {
                name: manifest.name.clone(),
            });
        }
        Ok(())
    }

    /// Whether the file is at most as large as the content of the disk.
    pub fn is_compressed(self) -> bool {
        !matches!(self, ExportFormat::Raw | ExportFormat::Vhd)
    }
}

/// Writes the disk of a box in another format. The file is named `out` only when it is complete.
pub fn export(
    manifest: &Manifest,
    disk: &Path,
    disk_format: DiskFormat,
    format: ExportFormat,
    out: &Path,
) -> Result<(), BoxError> {
    format.check(manifest)?;
    let whole = Partial::beside(out, "partial");
    if format == ExportFormat::Vagrant {
        let image = Partial::beside(out, "image");
        convert(disk, disk_format, format, image.path())?;
        write_vagrant(image.path(), whole.path()).map_err(BoxError::io("write", out))?;
    } else {
        convert(disk, disk_format, format, whole.path())?;
    }
    whole.finish(out)
}

fn convert(
    disk: &Path,
    disk_format: DiskFormat,
    format: ExportFormat,
    out: &Path,
) -> Result<(), BoxError> {
    let file = File::open(disk).map_err(BoxError::io("open", disk))?;
    let to = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(out)
        .map_err(BoxError::io("write", out))?;
    let image = qemu_img::Image {
        file: &file,
        format: disk_format.name(),
        backing: &[],
    };
    qemu_img::convert(&image, format.arguments(), &to)
        .map_err(BoxError::io("write", out))?
        .map_err(|message| BoxError::Convert {
            path: out.to_path_buf(),
            message,
        })
}

/// The three members of a box for Vagrant's libvirt provider
/// (vagrant-libvirt.github.io/vagrant-libvirt/boxes.html).
#[expect(
    clippy::disallowed_methods,
    reason = "a partial file, which is moved into place when it is whole"
)]
fn write_vagrant(image: &Path, out: &Path) -> io::Result<()> {
    // The content of the image is compressed already.
    let encoder = GzEncoder::new(File::create(out)?, Compression::none());
    let mut tar = Builder::new(encoder);
    let mut add = |name: &str, size: u64, content: &mut dyn Read| {
        tar.append_data(&mut plain_header(size), name, content)
    };
    let mut content = File::open(image)?;
    let metadata = vagrant_metadata(qcow2::virtual_size(&content)?);
    for (name, text) in [
        ("metadata.json", metadata.as_str()),
        ("Vagrantfile", VAGRANTFILE),
    ] {
        add(name, text.len() as u64, &mut text.as_bytes())?;
    }
    let size = content.metadata()?.len();
    add("box.img", size, &mut content)?;
    tar.into_inner()?.finish()?;
    Ok(())
}

/// vagrant-libvirt's `virtual_size` is in GiB, and must not be less than the disk's.
fn vagrant_metadata(virtual_size: u64) -> String {
    let gib = virtual_size.div_ceil(1 << 30);
    format!("{{\"provider\":\"libvirt\",\"format\":\"qcow2\",\"virtual_size\":{gib}}}\n")
}

/// An empty Vagrantfile: all settings are on the box's disk.
const VAGRANTFILE: &str = "Vagrant.configure(\"2\") do |config|\nend\n";

/// An unfinished file beside its destination. Its name is fixed, so that the next run overwrites what a
/// killed run left. It is removed on drop unless finished.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(out: &Path, what: &str) -> Self {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        Partial {
            path: out.with_file_name(format!(".{name}.{what}")),
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn finish(self, out: &Path) -> Result<(), BoxError> {
        let finish = || -> io::Result<()> {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(file::PRIVATE))?;
            file::rename(&self.path, out)
        };
        finish().map_err(BoxError::io("write", out))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_format() {
        for name in ExportFormat::NAMES {
            assert!(ExportFormat::from_name(name).is_some(), "{name}");
        }
        assert_eq!(ExportFormat::from_name("ova"), None);
    }

    #[test]
    fn a_part_of_a_gib_counts_whole() {
        for (bytes, gib) in [(3 << 30, 3), ((3 << 30) + 1, 4), (1, 1)] {
            let metadata: serde_json::Value =
                serde_json::from_str(&vagrant_metadata(bytes)).unwrap();
            assert_eq!(
                metadata,
                serde_json::json!({"provider": "libvirt", "format": "qcow2", "virtual_size": gib})
            );
        }
    }

    #[test]
    fn a_vagrant_box_has_its_members() {
        let folder = tempfile::tempdir().unwrap();
        let mut image = vec![0u8; 4096];
        image[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        fs::write(folder.path().join("image"), &image).unwrap();
        let out = folder.path().join("web.box");
        write_vagrant(&folder.path().join("image"), &out).unwrap();
        let gzip = flate2::read::GzDecoder::new(File::open(out).unwrap());
        let mut archive = tar::Archive::new(gzip);
        let members: Vec<(String, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                (name, entry.size())
            })
            .collect();
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["metadata.json", "Vagrantfile", "box.img"]);
        assert_eq!(members[2].1, 4096);
    }

    #[test]
    fn what_was_not_finished_goes() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("web.vmdk");
        let partial = Partial::beside(&out, "partial");
        fs::write(partial.path(), "half").unwrap();
        drop(partial);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let partial = Partial::beside(&out, "partial");
        fs::write(partial.path(), "whole").unwrap();
        partial.finish(&out).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "whole");
    }
}
