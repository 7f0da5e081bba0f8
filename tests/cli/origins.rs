//! Where boxes come from, and what they are called and kept for.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Place;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A qcow2 header (version 3), over a backing file where one is given.
fn qcow2(backing: Option<&str>) -> Vec<u8> {
    let mut header = vec![0u8; 4096];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[23] = 16;
    header[24..32].copy_from_slice(&(1u64 << 20).to_be_bytes());
    header[103] = 104;
    if let Some(name) = backing {
        header[8..16].copy_from_slice(&512u64.to_be_bytes());
        header[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
        header[512..512 + name.len()].copy_from_slice(name.as_bytes());
    }
    header
}

impl Place {
    /// The folder of a box `small`.
    pub(super) fn small(&self, version: &str) -> String {
        let mut disk = qcow2(None);
        disk[4000..4000 + version.len()].copy_from_slice(version.as_bytes());
        let manifest = json!({
            "format_version": 1, "name": "small", "version": version,
            "arch": std::env::consts::ARCH,
            "disk": {
                "file": { "name": "disk.qcow2", "size": disk.len(), "sha256": sha256(&disk) },
                "format": "qcow2", "virtual_size": 1 << 20,
            },
            "boot": { "bootloader": {} }, "seed": "credentials", "login_user": "stead",
        });
        let folder = self.path().join(format!("small-{version}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("disk.qcow2"), disk).unwrap();
        fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        folder.display().to_string()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(said.starts_with("exit 0\n"), "{said}");
        said
    }

    fn fails(&self, arguments: &[&str], words: &[&str]) {
        let said = self.run(arguments);
        assert!(!said.starts_with("exit 0\n"), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    }

    fn lock_file(&self) -> String {
        fs::read_to_string(self.path().join("Machinefile.lock")).unwrap()
    }

    fn digest(&self, reference: &str) -> String {
        let output = self.stead(&["box", "show", reference, "--json"]).output();
        let shown: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        shown["digest"].as_str().unwrap().to_string()
    }
}

#[test]
fn a_name_is_pinned_and_moves_with_box_update_only() {
    let place = Place::with("project \"p\"\nmachine \"m\" { box \"small\"; }\n");
    place.ok(&["box", "add", &place.small("1")]);
    place.ok(&["box", "update"]);
    let first = place.lock_file();
    assert!(
        first.contains("version 2\n") && first.contains(&place.digest("small:1")),
        "{first}"
    );
    let said = place.ok(&["box", "add", &place.small("2")]);
    assert!(
        said.contains("small now means this box instead of 1"),
        "{said}"
    );
    assert_eq!(place.lock_file(), first);
    assert!(place.ok(&["box", "outdated"]).contains("small"), "{first}");
    assert!(place.ok(&["box", "update", "small"]).contains("is now 2"));
    assert!(place.lock_file().contains(&place.digest("small:2")));
    assert!(
        place
            .ok(&["box", "outdated"])
            .contains("all boxes are up to date")
    );
}

#[test]
fn a_name_can_be_given_when_a_box_is_added() {
    let place = Place::new();
    place.ok(&["box", "add", &place.small("1"), "--name", "base"]);
    assert!(place.ok(&["box", "show", "base"]).contains("base"));
    place.fails(
        &["box", "add", &place.small("1"), "--name", "../x y"],
        &["the name", "letters"],
    );
}

#[test]
fn what_an_image_in_the_store_is_backed_by_stays() {
    let place = Place::new();
    place.ok(&["box", "add", &place.small("1")]);
    let images: PathBuf = place.path().join("data/images");
    let disk = fs::read_dir(&images)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    // libvirt knows of none of these: another one has the machine, or somebody took a snapshot.
    let overlay = place.path().join("overlay.qcow2");
    fs::write(&overlay, qcow2(Some(&disk.display().to_string()))).unwrap();
    fs::write(
        images.join("snapshot.qcow2"),
        qcow2(Some("../../overlay.qcow2")),
    )
    .unwrap();
    // No word of a project's or the environment's on where to look changes that.
    let mut command = place.stead(&["box", "remove", "small", "--force"]);
    command.env("LIBVIRT_DEFAULT_URI", "nothing:///here");
    let said = place.said(&command.output().unwrap());
    assert!(
        said.starts_with("exit 1\n") && said.contains("snapshot.qcow2"),
        "{said}"
    );
    assert!(disk.exists());
    fs::remove_file(images.join("snapshot.qcow2")).unwrap();
    let said = place.said(&command.output().unwrap());
    assert!(said.starts_with("exit 0\n"), "{said}");
    assert!(!disk.exists());
}

#[test]
fn secrets_in_urls_have_no_place_in_a_machinefile_or_a_message() {
    let with = |machinefile: &str, words: &[&str]| {
        let place = Place::with(machinefile);
        let mut command = place.stead(&["validate"]);
        command.env("TOKEN", "hunter2");
        let said = place.said(&command.output().unwrap());
        assert!(said.starts_with("exit 2\n"), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    };
    with(
        "project \"p\"\nmachine \"m\" { box \"https://me:secret@example.org/x.img\"; }\n",
        &["could read this password", "${env.NAME}"],
    );
    with(
        "project \"p\"\ncatalogue \"https://example.org/${env.TOKEN}/c.kdl\"\nmachine \"m\" { box \"x\"; }\n",
        &["the URL of a catalogue cannot contain ${env.…}"],
    );
    with(
        "project \"p\"\ncatalogue \"https://me:x@example.org/c.kdl\"\nmachine \"m\" { box \"x\"; }\n",
        &["cannot contain a user or a password"],
    );
    // What goes wrong there is told without it, and a look sends it nowhere.
    let place = Place::with(
        "project \"p\"\nmachine \"m\" { box \"http://me:${env.TOKEN}@127.0.0.1:1/${env.TOKEN}/x?t=${env.TOKEN}\" sha256=\"0000000000000000000000000000000000000000000000000000000000000000\"; }\n",
    );
    for arguments in [
        &["trust", "--yes"][..],
        &["box", "outdated"],
        &["box", "update"],
    ] {
        let mut command = place.stead(arguments);
        command.env("TOKEN", "hunter2");
        let said = place.said(&command.output().unwrap());
        let path_alone = said.replace("/hunter2/", "");
        assert!(!path_alone.contains("hunter2"), "{said}");
    }
}
