//! The seed: the settings that a machine reads at its first boot. The box declares which kind of seed it
//! reads.

use std::{
    io::{Cursor, Write},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    boxes::SeedKind,
    host::{file, paths::PASSABLE},
    hypervisor::SeedDevice,
    machine::BridgeCard,
    machinefile::{Form, UserData, read_user_data},
};

use super::{
    error::GuestError,
    files::{MachineFiles, write_atomically},
};

/// The content of a seed.
#[derive(Clone, Debug)]
pub struct SeedContent<'a> {
    /// Stable for a machine's life: when it changes, cloud-init repeats the first boot.
    pub instance_id: String,
    pub hostname: &'a str,
    pub user: &'a str,
    pub authorized_key: String,
    pub host_key: String,
    pub host_public_key: String,
    /// The user's own cloud-init user-data.
    pub user_data: Option<&'a Path>,
    /// The cards on bridges of the host.
    pub bridges: &'a [BridgeCard],
}

/// The folder in QEMU's fw_cfg from which systemd reads credentials (systemd.system-credentials(7)).
const FIRMWARE_FOLDER: &str = "opt/io.systemd.credentials";

/// Returns the device by which QEMU presents the seed to the guest.
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

/// Writes the files of [`seed_device`].
pub fn write_seed(
    kind: SeedKind,
    content: &SeedContent<'_>,
    files: &MachineFiles,
) -> Result<(), GuestError> {
    match kind {
        SeedKind::Credentials => {
            let folder = files.credentials();
            file::open_folder(&folder, PASSABLE).map_err(GuestError::file("create", &folder))?;
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
        // It gets its settings over SSH.
        SeedKind::Vagrant => Ok(()),
    }
}

/// Returns the command that ends when the seed has been applied. It never fails: a machine that does not get
/// that far times out.
pub fn end_marker_script(kind: SeedKind) -> String {
    let marker = match kind {
        SeedKind::Credentials => "-e /run/stead/seeded",
        // The first is written after the last of cloud-init's stages, which includes user-data. The second
        // is written by its generator, if somebody disabled cloud-init after its first run.
        SeedKind::CloudInit => "-e /run/cloud-init/result.json -o -e /run/cloud-init/disabled",
        // The login itself is enough.
        SeedKind::Vagrant => "-e /",
    };
    format!("until [ {marker} ]; do sleep 0.1; done")
}

/// Returns the command that prints the result of the seed, if the guest records one.
pub fn outcome_script(kind: SeedKind) -> &'static str {
    match kind {
        SeedKind::CloudInit => "sed 's/^/stead-seed /' /run/cloud-init/result.json 2>/dev/null",
        SeedKind::Credentials | SeedKind::Vagrant => "",
    }
}

/// Returns the errors in that command's output; other lines are ignored
/// (cloudinit.readthedocs.io, "Reported errors").
pub fn seed_errors(output: &str) -> Vec<String> {
    let json: String = (output.lines())
        .filter_map(|line| line.strip_prefix("stead-seed "))
        .collect();
    let result: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    let errors = result["v1"]["errors"].as_array();
    (errors.into_iter().flatten())
        .filter_map(|error| error.as_str().map(seed_error))
        .collect()
}

/// Returns an error of cloud-init's for people. It is the text of a Python tuple, of a module and an exception:
/// `('locale', ProcessExecutionError("Unexpected error…\\nStderr: …"))`.
fn seed_error(error: &str) -> String {
    let parts = || {
        let inner = error.strip_prefix("('")?.strip_suffix("))")?;
        let (module, exception) = inner.split_once("', ")?;
        let (kind, said) = exception.split_once('(')?;
        let quote = said.chars().next().filter(|it| matches!(it, '"' | '\''));
        let said = match quote {
            Some(quote) => said[1..].strip_suffix(quote)?,
            None => said,
        };
        let lines: Vec<&str> = said
            .split("\\n")
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.ends_with(": -") && *line != "-")
            .collect();
        Some(match lines.as_slice() {
            [] => format!("module {module} failed ({kind})"),
            lines => format!("module {module} failed: {}", lines.join("; ")),
        })
    };
    parts().unwrap_or_else(|| error.to_string())
}

/// The names of the credentials, which boxes read: docs/reference/box-format.md documents them.
const CREDENTIALS: [&str; 5] = [
    "stead.hostname",
    "stead.user",
    "stead.authorized-keys",
    "stead.host-key",
    "stead.host-key.pub",
];

/// Returns stead's own two parts of the user-data: the users, and the rest. They are JSON, which is also
/// YAML, so quoting is never in doubt.
fn own_config(content: &SeedContent<'_>) -> [serde_json::Value; 2] {
    let users = serde_json::json!({
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
    });
    let machine = serde_json::json!({
        "hostname": content.hostname,
        "preserve_hostname": false,
        // Only the line of the machine's own name: what others write there stays.
        "manage_etc_hosts": "localhost",
        "ssh_deletekeys": true,
        "ssh_genkeytypes": [],
        "ssh_keys": {
            "ed25519_private": content.host_key,
            "ed25519_public": content.host_public_key.trim(),
        },
    });
    [users, machine]
}

/// Returns both of stead's parts as one document.
pub(super) fn cloud_config(content: &SeedContent<'_>) -> String {
    let [mut users, machine] = own_config(content);
    if let (Some(all), serde_json::Value::Object(more)) = (users.as_object_mut(), machine) {
        all.extend(more);
    }
    format!("#cloud-config\n{users:#}\n")
}

/// Returns the NoCloud data source: a FAT volume labelled CIDATA with three files
/// (cloudinit.readthedocs.io, "NoCloud").
fn cidata(content: &SeedContent<'_>) -> Result<Vec<u8>, GuestError> {
    let meta_data = format!(
        "{:#}\n",
        serde_json::json!({
            "instance-id": content.instance_id,
            "local-hostname": content.hostname,
        })
    );
    let user_data = match content.user_data {
        None => cloud_config(content),
        Some(path) => {
            let theirs = read_user_data(path).map_err(|message| GuestError::UserData {
                path: path.to_path_buf(),
                message,
            })?;
            multipart(&own_config(content), &theirs)
        }
    };
    let network = network_config(content.bridges);
    fat_image(&[
        ("meta-data", meta_data.as_bytes()),
        ("user-data", user_data.as_bytes()),
        ("network-config", network.as_bytes()),
    ])
    .map_err(|error| GuestError::SeedDisk(error.to_string()))
}

/// Returns the network configuration, version 2. A boot does not wait for cards on bridges, where there may be no DHCP
/// server. Their routes come after that of the login card, and their name servers do not know the project's machines. Of
/// two entries for a card, netplan takes the first by their names.
fn network_config(bridges: &[BridgeCard]) -> String {
    let mut text = String::from(
        "version: 2\nethernets:\n  stead:\n    match: {name: \"e*\"}\n    dhcp4: true\n    dhcp4-overrides: {use-domains: true}\n",
    );
    for BridgeCard { mac, .. } in bridges {
        text.push_str(&format!(
            "  stead-{}:\n    match: {{macaddress: \"{mac}\"}}\n    optional: true\n    dhcp4: true\n    accept-ra: false\n    dhcp4-overrides: {{route-metric: 2048, use-dns: false}}\n",
            mac.word()
        ));
    }
    text
}

/// Joins the user's part and stead's into one MIME multi-part archive, the form that cloud-init documents
/// for several parts. stead's parts come last, each with a rule for merging it (cloudinit.readthedocs.io,
/// "Merging user-data sections"): stead's user is added to the user's `users`, and stead's other settings
/// take precedence. The user's part is not changed, whatever its form, so it means the same as elsewhere.
fn multipart(own: &[serde_json::Value; 2], theirs: &UserData) -> String {
    let text = |value: &serde_json::Value| format!("#cloud-config\n{value:#}\n");
    let encoded = |kind: &str, more: &str, content: &[u8]| {
        let lines: Vec<String> = (BASE64.encode(content).as_bytes())
            .chunks(76)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        format!(
            "Content-Type: {kind}; charset=\"utf-8\"\nContent-Transfer-Encoding: base64\n{more}\n{}\n",
            lines.join("\n")
        )
    };
    let parts = [
        match theirs.form {
            Form::Part(kind) => encoded(kind, "", &theirs.content),
            // cloud-init opens an archive within an archive.
            Form::Mime => String::from_utf8_lossy(&theirs.content).into_owned(),
        },
        encoded("text/cloud-config", MERGE_USERS, text(&own[0]).as_bytes()),
        encoded("text/cloud-config", MERGE_REST, text(&own[1]).as_bytes()),
    ];
    // A line that occurs in none of them, and that depends only on their content.
    let mut boundary = String::from("stead-part");
    while parts.iter().any(|part| part.contains(&boundary)) {
        boundary.push('=');
    }
    let mut all =
        format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\nMIME-Version: 1.0\n\n");
    for part in parts {
        all.push_str(&format!("--{boundary}\n{part}\n"));
    }
    all.push_str(&format!("--{boundary}--\n"));
    all
}

const MERGE_USERS: &str = "Merge-Type: list(append)+dict(no_replace,recurse_list)+str()\n";
const MERGE_REST: &str = "Merge-Type: list()+dict(replace)+str()\n";

fn fat_image(files: &[(&str, &[u8])]) -> std::io::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    // FAT12 is large enough; there is space for the tables, the root folder and whole clusters.
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
            bridges: &[],
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
    fn a_boot_does_not_wait_for_cards_on_bridges() {
        let plain = cidata(&content()).unwrap();
        assert!(
            !read_fat(&plain, "network-config")
                .unwrap()
                .contains("optional")
        );
        let image = cidata(&SeedContent {
            bridges: &[BridgeCard {
                network: "lan".into(),
                interface: "br0".into(),
                mac: "52:54:00:0a:0b:0c".parse().unwrap(),
            }],
            ..content()
        })
        .unwrap();
        insta::assert_snapshot!(read_fat(&image, "network-config").unwrap());
    }

    /// The user's part comes first and is unchanged; stead's parts are merged over it.
    #[test]
    fn a_users_part_goes_first() {
        let [users, machine] = own_config(&content());
        let own = [users, machine];
        let script = UserData {
            form: Form::Part("text/x-shellscript"),
            content: b"#!/bin/sh\nstead-part\n\xff\n".to_vec(),
        };
        let merged = multipart(&own, &script);
        let parts: Vec<&str> = merged.split("--stead-part\n").collect();
        assert_eq!(parts.len(), 4, "{merged}");
        let (head, body) = parts[1].split_once("\n\n").unwrap();
        assert!(head.starts_with("Content-Type: text/x-shellscript;"));
        assert_eq!(BASE64.decode(body.trim()).unwrap(), script.content);
        assert!(parts[2].contains("Merge-Type: list(append)"));
        assert!(parts[3].contains("dict(replace)") && parts[3].ends_with("--stead-part--\n"));

        let archive = UserData {
            form: Form::Mime,
            content: b"Content-Type: multipart/mixed; boundary=\"stead-part\"\n\n--stead-part\n\n#!/bin/sh\n--stead-part--\n".to_vec(),
        };
        let merged = multipart(&own, &archive);
        assert!(merged.starts_with("Content-Type: multipart/mixed; boundary=\"stead-part=\"\n"));
        assert!(
            merged.contains(
                "--stead-part=\nContent-Type: multipart/mixed; boundary=\"stead-part\"\n"
            )
        );
    }

    #[test]
    fn errors_of_cloud_init_are_read_from_its_result() {
        let said = "Welcome!\nstead-seed {\nstead-seed  \"v1\": {\nstead-seed   \"datasource\": \"DataSourceNoCloud\",\n\
            stead-seed   \"errors\": [\nstead-seed    \"('scripts-user', RuntimeError('1 failure'))\"\nstead-seed   ]\n\
            stead-seed  }\nstead-seed }\nstead-kernel running 6.1\n";
        assert_eq!(seed_errors(said), ["module scripts-user failed: 1 failure"]);
        let locale = r#"('locale', ProcessExecutionError("Unexpected error while running command.\nCommand: ['locale-gen']\nExit code: 1\nReason: -\nStdout: -\nStderr: locale-gen: not found"))"#;
        assert_eq!(
            seed_error(locale),
            "module locale failed: Unexpected error while running command.; Command: ['locale-gen']; Exit code: 1; Stderr: locale-gen: not found"
        );
        assert_eq!(
            seed_error("('ssh', KeyError())"),
            "module ssh failed (KeyError)"
        );
        assert_eq!(seed_error("what else"), "what else");
        assert!(seed_errors("stead-seed {\"v1\": {\"errors\": []}}\n").is_empty());
        assert!(seed_errors("stead-kernel running 6.1\n").is_empty());
    }
}
