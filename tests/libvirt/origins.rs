//! What domains need is not removed, whoever defined them.

use std::{fs, path::Path, process::Command};

use serde_json::json;
use sha2::{Digest as _, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn stead(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stead"))
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder.join("home"))
        .env("STEAD_DATA_DIR", folder.join("data"))
        .env_remove("LIBVIRT_DEFAULT_URI")
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), said)
}

#[test]
fn a_box_that_any_domain_names_stays() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let mut disk = vec![0u8; 4096];
    disk[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    disk[23] = 16;
    disk[24..32].copy_from_slice(&(1u64 << 20).to_be_bytes());
    disk[103] = 104;
    let manifest = json!({
        "format_version": 1, "name": "small", "version": "1", "arch": std::env::consts::ARCH,
        "disk": {
            "file": { "name": "disk.qcow2", "size": disk.len(), "sha256": sha256(&disk) },
            "format": "qcow2", "virtual_size": 1 << 20,
        },
        "boot": { "bootloader": {} }, "seed": "credentials", "login_user": "stead",
    });
    let source = folder.join("small");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("disk.qcow2"), &disk).unwrap();
    fs::write(source.join("manifest.json"), manifest.to_string()).unwrap();
    let (ok, said) = stead(folder, &["box", "add", "small"]);
    assert!(ok, "{said}");
    let file = format!("box-{}.qcow2", sha256(&disk));
    let image = folder.join("data/images").join(&file);

    // A host whose one domain somebody else defined, with that disk.
    let host = |source: &Path| {
        let xml = format!(
            "<node><domain type='test'><name>theirs</name><uuid>11111111-2222-3333-4444-555555555555</uuid><memory>8192</memory><os><type>hvm</type></os><devices><disk type='file' device='disk'><source file='{}'/><target dev='vda'/></disk></devices></domain></node>",
            source.display()
        );
        let path = folder.join("host.xml");
        fs::write(&path, xml).unwrap();
        format!("test://{}", path.display())
    };
    let uri = host(&image);
    // A project that says to look elsewhere is in the way of nothing.
    fs::write(
        folder.join("Machinefile"),
        "project \"p\"\nconnect \"test:///default\"\nmachine \"m\" { box \"small\"; }\n",
    )
    .unwrap();
    for arguments in [
        &["box", "remove", "small"][..],
        &["box", "remove", "small", "--force"],
    ] {
        let (ok, said) = stead(folder, &[&["--connect", &uri], arguments].concat());
        assert!(!ok && said.contains("domain theirs"), "{said}");
        assert!(image.exists());
    }
    // prune never takes what is nowhere else, needed or not.
    let (ok, said) = stead(
        folder,
        &[
            "--connect",
            "test:///default",
            "box",
            "prune",
            "--days",
            "0",
            "-y",
        ],
    );
    assert!(ok && said.contains("keeping box small:1"), "{said}");
    assert!(image.exists());
    let uri = host(Path::new("/somewhere/else.qcow2"));
    let (ok, said) = stead(folder, &["--connect", &uri, "box", "remove", "small"]);
    assert!(ok, "{said}");
    assert!(!image.exists());
}
