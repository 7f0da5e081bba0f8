//! The seed: what a machine is told at its first boot. Its kind is what the box declares.

use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use crate::{boxes::SeedKind, hypervisor::SeedDevice};

use super::{
    error::GuestError,
    files::{MachineFiles, write_atomically},
};

/// What the seed says.
#[derive(Clone, Debug)]
pub struct SeedContent<'a> {
    /// Stable for a machine's life; cloud-init runs its first boot again when it changes.
    pub instance_id: String,
    pub hostname: &'a str,
    pub user: &'a str,
    pub authorized_key: String,
    pub host_key: String,
    pub host_public_key: String,
    /// The user's own cloud-init user-data.
    pub user_data: Option<&'a Path>,
}

/// systemd takes credentials from this folder of QEMU's fw_cfg (systemd.system-credentials(7)).
const FIRMWARE_FOLDER: &str = "opt/io.systemd.credentials";

/// How QEMU shows the seed to the guest.
pub fn seed_device(kind: SeedKind, files: &MachineFiles) -> SeedDevice {
    match kind {
        SeedKind::Credentials => SeedDevice::FirmwareConfig(
            CREDENTIALS
                .iter()
                .map(|name| {
                    (
                        format!("{FIRMWARE_FOLDER}/{name}"),
                        files.credentials().join(name),
                    )
                })
                .collect(),
        ),
        SeedKind::CloudInit => SeedDevice::Disk(files.seed_disk()),
        SeedKind::Vagrant => SeedDevice::None,
    }
}

/// Writes the seed's files, where [`seed_device`] says they are.
pub fn write_seed(
    kind: SeedKind,
    content: &SeedContent<'_>,
    files: &MachineFiles,
) -> Result<(), GuestError> {
    match kind {
        SeedKind::Credentials => {
            let folder = files.credentials();
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(&folder)
                .map_err(GuestError::file("create", &folder))?;
            let values = [
                content.hostname,
                content.user,
                &content.authorized_key,
                &content.host_key,
                &content.host_public_key,
            ];
            for (name, value) in CREDENTIALS.iter().zip(values) {
                write_atomically(&folder.join(name), value.as_bytes(), 0o600)?;
            }
            Ok(())
        }
        SeedKind::CloudInit => write_atomically(&files.seed_disk(), &cidata(content)?, 0o600),
        // It is told over SSH.
        SeedKind::Vagrant => Ok(()),
    }
}

/// The command that ends when the seed is done, and fails never: a machine that does not get there
/// runs into the time-out.
pub fn end_marker_script(kind: SeedKind) -> String {
    let marker = match kind {
        SeedKind::Credentials => "-e /run/stead/seeded",
        // Written when the last of cloud-init's stages is over, user-data included; or by its
        // generator, where somebody has switched it off after it had done its work.
        SeedKind::CloudInit => "-e /run/cloud-init/result.json -o -e /run/cloud-init/disabled",
        // That the login works is all.
        SeedKind::Vagrant => "-e /",
    };
    format!("until [ {marker} ]; do sleep 0.1; done")
}

/// Names of the credentials; docs/boxes.md is the contract with boxes.
const CREDENTIALS: [&str; 5] = [
    "stead.hostname",
    "stead.user",
    "stead.authorized-keys",
    "stead.host-key",
    "stead.host-key.pub",
];

/// stead's own part of the user-data. JSON, which is YAML too, so quoting is never in doubt.
pub fn cloud_config(content: &SeedContent<'_>) -> String {
    let config = serde_json::json!({
        "hostname": content.hostname,
        "preserve_hostname": false,
        "manage_etc_hosts": true,
        "users": [
            "default",
            {
                "name": content.user,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "shell": "/bin/bash",
                "lock_passwd": true,
                "ssh_authorized_keys": [content.authorized_key.trim()],
            },
        ],
        "ssh_deletekeys": true,
        "ssh_genkeytypes": [],
        "ssh_keys": {
            "ed25519_private": content.host_key,
            "ed25519_public": content.host_public_key.trim(),
        },
    });
    format!("#cloud-config\n{config:#}\n")
}

/// The NoCloud data source: a FAT volume labelled CIDATA with three files
/// (cloudinit.readthedocs.io, "NoCloud").
fn cidata(content: &SeedContent<'_>) -> Result<Vec<u8>, GuestError> {
    let meta_data = format!(
        "{:#}\n",
        serde_json::json!({
            "instance-id": content.instance_id,
            "local-hostname": content.hostname,
        })
    );
    let own = cloud_config(content);
    let user_data = match content.user_data {
        None => own,
        Some(path) => {
            let theirs = fs::read_to_string(path).map_err(GuestError::file("read", path))?;
            multipart(&own, &theirs).map_err(|message| GuestError::UserData {
                path: path.to_path_buf(),
                message,
            })?
        }
    };
    let network = "version: 2\nethernets:\n  stead:\n    match: {name: \"e*\"}\n    dhcp4: true\n";
    fat_image(&[
        ("meta-data", meta_data.as_bytes()),
        ("user-data", user_data.as_bytes()),
        ("network-config", network.as_bytes()),
    ])
    .map_err(|error| GuestError::SeedDisk(error.to_string()))
}

/// Joins stead's part and the user's into one MIME multi-part archive, the form cloud-init
/// documents for several parts.
fn multipart(own: &str, theirs: &str) -> Result<String, String> {
    let first = theirs.lines().next().unwrap_or_default();
    let kind = if first.starts_with("#cloud-config") {
        "text/cloud-config"
    } else if first.starts_with("#!") {
        "text/x-shellscript"
    } else if first.starts_with("#cloud-boothook") {
        "text/cloud-boothook"
    } else if first.starts_with("#include") {
        "text/x-include-url"
    } else if first.to_ascii_lowercase().starts_with("content-type:")
        || first.starts_with("MIME-Version:")
    {
        // A whole multi-part archive is itself a part that cloud-init opens.
        return Ok(format!(
            "{MIME_HEAD}--{BOUNDARY}\nContent-Type: text/cloud-config; charset=\"utf-8\"\n\n{own}\n--{BOUNDARY}\n{theirs}\n--{BOUNDARY}--\n"
        ));
    } else {
        return Err(format!(
            "its first line is {first:?}, which cloud-init does not know"
        ));
    };
    if own.contains(BOUNDARY) || theirs.contains(BOUNDARY) {
        return Err(format!("it contains the line {BOUNDARY:?}"));
    }
    Ok(format!(
        "{MIME_HEAD}--{BOUNDARY}\nContent-Type: text/cloud-config; charset=\"utf-8\"\n\n{own}\n--{BOUNDARY}\nContent-Type: {kind}; charset=\"utf-8\"\n{MERGE}\n\n{theirs}\n--{BOUNDARY}--\n"
    ))
}

const BOUNDARY: &str = "=====stead-part=====";
/// cloud-init joins lists of several parts only when told to; without it, the user's `users` or
/// `runcmd` would be dropped beside stead's.
const MERGE: &str = "Merge-Type: list(append)+dict(no_replace,recurse_list)+str()";
const MIME_HEAD: &str =
    "Content-Type: multipart/mixed; boundary=\"=====stead-part=====\"\nMIME-Version: 1.0\n\n";

fn fat_image(files: &[(&str, &[u8])]) -> std::io::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    // FAT12 holds it; room for the tables, the root and whole clusters.
    let size = (content + 512 * 1024).next_multiple_of(64 * 1024);
    let mut image = Cursor::new(vec![0u8; size]);
    fatfs::format_volume(
        &mut image,
        fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     "),
    )?;
    {
        let volume = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new())?;
        let root = volume.root_dir();
        for (name, bytes) in files {
            let mut file = root.create_file(name)?;
            file.truncate()?;
            file.write_all(bytes)?;
            file.flush()?;
        }
    }
    Ok(image.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn read_fat(image: &[u8], name: &str) -> std::io::Result<String> {
        let volume = fatfs::FileSystem::new(Cursor::new(image.to_vec()), fatfs::FsOptions::new())?;
        let mut text = String::new();
        volume
            .root_dir()
            .open_file(name)?
            .read_to_string(&mut text)?;
        Ok(text)
    }

    fn content() -> SeedContent<'static> {
        SeedContent {
            instance_id: "i-1".into(),
            hostname: "web",
            user: "debian",
            authorized_key: "ssh-ed25519 AAAA client\n".into(),
            host_key: "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END…\n".into(),
            host_public_key: "ssh-ed25519 BBBB host\n".into(),
            user_data: None,
        }
    }

    #[test]
    fn the_seed_disk_reads_back() {
        let image = cidata(&content()).unwrap();
        assert!(read_fat(&image, "meta-data").unwrap().contains("\"i-1\""));
        let user_data = read_fat(&image, "user-data").unwrap();
        assert!(user_data.starts_with("#cloud-config\n"));
        assert!(user_data.contains("ssh-ed25519 AAAA client"));
    }

    #[test]
    fn a_users_script_becomes_a_part() {
        let merged = multipart("#cloud-config\n{}", "#!/bin/sh\ntrue\n").unwrap();
        assert!(merged.contains("text/x-shellscript"));
        assert!(multipart("#cloud-config\n{}", "hello").is_err());
    }
}
