//! The store, and how it refuses bad boxes.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::host::{digest::sha256_of, paths::DataDir};

use super::{
    Destination, Firmware, Incoming, NameSource, Origin, Packing, SeedKind, Store, StoredBox,
    Title, archive::write_archive, keep_packed,
};

struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

/// A qcow2 header (version 3) of 1 MiB that names no other file.
fn qcow2() -> Vec<u8> {
    super::qcow2::tests::image()
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&DataDir::at(folder.path().join("data")));
        Place { folder, store }
    }

    /// Makes a box folder with this disk; `change` edits its manifest.
    fn folder(&self, name: &str, disk: &[u8], change: impl FnOnce(&mut Value)) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("disk.qcow2"), disk).unwrap();
        let mut manifest = json!({
            "format_version": 1,
            "name": "small",
            "version": "1",
            "arch": "x86_64",
            "disk": {
                "file": {
                    "name": "disk.qcow2",
                    "size": disk.len(),
                    "sha256": sha256_of(disk),
                },
                "format": "qcow2",
                "virtual_size": 1 << 20,
            },
            "boot": { "bootloader": {} },
            "seed": "credentials",
            "login_user": "stead",
        });
        change(&mut manifest);
        fs::write(path.join("manifest.json"), manifest.to_string()).unwrap();
        path
    }

    fn good(&self) -> PathBuf {
        self.folder("good", &qcow2(), |_| {})
    }

    fn archive(&self, entries: &[(&str, tar::EntryType, &[u8])]) -> PathBuf {
        let path = self.folder.path().join("box.tar");
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Bypass the checks of the crate's writer.
            let bytes = name.as_bytes();
            header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if !matches!(kind, tar::EntryType::Regular) {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        tar.into_inner().unwrap().flush().unwrap();
        path
    }

    #[track_caller]
    fn refuses(&self, path: &Path, why: &str) {
        let error = self
            .store
            .add(path, &mut |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
        assert!(self.store.list().unwrap().is_empty());
        let left: Vec<_> = fs::read_dir(self.folder.path().join("data/images"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn disk(&self) -> PathBuf {
        let mut files = fs::read_dir(self.folder.path().join("data/images")).unwrap();
        files.next().unwrap().unwrap().path()
    }
}

#[test]
fn added_listed_found_and_removed() {
    let place = Place::new();
    let added = place.store.add(&place.good(), &mut |_, _| {}).unwrap();
    let before = place.store.give_name(&added, NameSource::Added).unwrap();
    assert!(before.is_none());
    let digest = added.digest.to_string();
    for reference in ["small", "small:1", &digest, &digest[..15], &digest[7..15]] {
        let (named, meant) = (
            place.store.resolve_named(reference),
            place.store.resolve(reference),
        );
        assert_eq!(named.unwrap().digest, added.digest);
        assert_eq!(meant.unwrap().digest, added.digest);
    }
    for reference in ["other", "small:2", "sha256:", "", &digest[..11]] {
        assert!(place.store.resolve(reference).is_err(), "{reference:?}");
    }
    // The same box again is the same box, and so is its archive.
    let archive = place.folder.path().join("small.tar.zst");
    write_archive(&place.good(), &archive).unwrap();
    let again = place.store.add(&archive, &mut |_, _| {}).unwrap();
    assert_eq!(again.digest, added.digest);
    assert_eq!(place.store.list().unwrap().len(), 1);
    place.store.remove(&again).unwrap();
    assert!(place.store.list().unwrap().is_empty());
    assert_eq!(
        fs::read_dir(place.folder.path().join("data/images"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_shared_file_stays_with_the_other_box() {
    let place = Place::new();
    let first = place.store.add(&place.good(), &mut |_, _| {}).unwrap();
    let second = place.folder("second", &qcow2(), |manifest| {
        manifest["version"] = json!("2");
    });
    let second = place.store.add(&second, &mut |_, _| {}).unwrap();
    place.store.remove(&first).unwrap();
    place.store.verify(&second).unwrap();
}

#[test]
fn an_altered_file_is_restored_by_adding_the_box_again() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let added = place.store.add(&place.good(), &mut |_, _| {}).unwrap();
    place.store.ensure_intact(&added).unwrap();
    let disk = place.disk();
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&disk).unwrap();
    bytes[2000] ^= 1;
    fs::write(&disk, &bytes).unwrap();
    let error = place.store.ensure_intact(&added).unwrap_err().to_string();
    assert!(
        error.contains("has changed since the box was added"),
        "{error}"
    );
    fs::write(&disk, &bytes[..100]).unwrap();
    let error = place.store.ensure_intact(&added).unwrap_err().to_string();
    assert!(error.contains("has 100 bytes"), "{error}");
    fs::remove_file(&disk).unwrap();
    let error = place.store.ensure_intact(&added).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
    place.store.add(&place.good(), &mut |_, _| {}).unwrap();
    place.store.verify(&added).unwrap();
}

/// A disk that returns other bytes changes no time: only hashing sees it.
#[test]
fn a_file_that_decayed_is_restored_by_adding_again() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let added = place.store.add(&place.good(), &mut |_, _| {}).unwrap();
    let disk = place.disk();
    let time = fs::metadata(&disk).unwrap().modified().unwrap();
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&disk).unwrap();
    bytes[2000] ^= 1;
    fs::write(&disk, &bytes).unwrap();
    let file = fs::File::options().write(true).open(&disk).unwrap();
    file.set_modified(time).unwrap();
    place.store.ensure_intact(&added).unwrap();
    assert!(place.store.verify(&added).is_err());
    assert!(place.store.ensure_intact(&added).is_err());
    place.store.add(&place.good(), &mut |_, _| {}).unwrap();
    place.store.verify(&added).unwrap();
}

#[test]
fn wrong_manifests_are_refused() {
    let place = Place::new();
    let lie = |change: &dyn Fn(&mut Value)| place.folder("lie", &qcow2(), change);
    let file = |manifest: &mut Value, field: &str, value: Value| {
        manifest["disk"]["file"][field] = value;
    };
    place.refuses(&lie(&|m| file(m, "size", json!(5000))), "has 4096 bytes");
    place.refuses(
        &lie(&|m| file(m, "size", json!(5))),
        "more bytes, but its manifest.json lists 5",
    );
    place.refuses(
        &lie(&|m| file(m, "size", json!(u64::MAX))),
        "the size of disk.qcow2 is invalid",
    );
    place.refuses(
        &lie(&|m| file(m, "sha256", json!("0".repeat(64)))),
        "but its manifest lists",
    );
    place.refuses(
        &lie(&|m| file(m, "sha256", json!("x"))),
        "is not 64 lower-case hex digits",
    );
    for name in ["../disk.qcow2", "/etc/passwd", "..", ".", "a/b", "", "a\nb"] {
        place.refuses(
            &lie(&|m| file(m, "name", json!(name))),
            &format!("the file name {name:?} is not valid"),
        );
    }
    for name in [
        "../../x",
        "..",
        ".x",
        "-x",
        "/x",
        "a//b",
        "a b",
        "a\nb",
        "\u{1b}[2Jx",
        "ü",
        "",
    ] {
        place.refuses(
            &lie(&|m| m["name"] = json!(name)),
            &format!("the name {name:?} is not valid: expected at most 100 letters"),
        );
    }
    for version in ["..", "../1", "1/2", "1 2", "1\n2", "\u{9b}2J", ""] {
        place.refuses(
            &lie(&|m| m["version"] = json!(version)),
            &format!("the version {version:?} is not valid"),
        );
    }
    place.refuses(
        &lie(&|m| m["arch"] = json!("x\ny")),
        "the architecture \"x\\ny\" is not valid",
    );
    let direct = |release: &str, cmdline: &str| {
        json!({ "direct": {
            "kernel": { "name": "vmlinuz", "size": 1, "sha256": "0".repeat(64) },
            "kernel_release": release,
            "cmdline": cmdline,
        }})
    };
    place.refuses(
        &lie(&|m| m["boot"] = direct("6.1/../x", "ro")),
        "the kernel release \"6.1/../x\" is not valid",
    );
    place.refuses(
        &lie(&|m| m["boot"] = direct("6.1", "ro\n")),
        "the kernel command line",
    );
    place.refuses(
        &lie(&|m| m["format_version"] = json!(2)),
        "this version of stead reads 1",
    );
    place.refuses(&lie(&|m| m["surprise"] = json!(1)), "unknown field");
    place.refuses(
        &lie(&|m| m["parent"] = json!("sha256:1")),
        "is not a digest",
    );
    place.refuses(
        &lie(&|m| m["disk"]["virtual_size"] = json!(0)),
        "its disk size is invalid",
    );
}

/// Older versions of stead accepted more names.
#[test]
fn boxes_with_old_names_are_listed_and_removed() {
    let place = Place::new();
    let good = place.store.add(&place.good(), &mut |_, _| {}).unwrap();
    let mut manifest = good.manifest.clone();
    (manifest.name, manifest.version) = ("../../x".into(), "..".into());
    let bytes = manifest.to_bytes().unwrap();
    assert!(place.store.keep_manifest(&bytes).is_err());
    assert_eq!(place.store.list().unwrap().len(), 1);
    let digest = crate::store::Digest::of(&bytes);
    let file = place
        .folder
        .path()
        .join(format!("data/boxes/{}.json", digest.hex()));
    fs::write(file, &bytes).unwrap();
    assert_eq!(place.store.list().unwrap().len(), 2);
    for reference in [digest.to_string().as_str(), digest.short()] {
        let odd = place.store.resolve(reference).unwrap();
        assert_eq!(odd.manifest.name, "../../x");
    }
    let odd = place.store.resolve(digest.short()).unwrap();
    // It can be renamed if its version is valid.
    assert!(place.store.add_under_name(&odd, "good").is_err());
    place.store.remove(&odd).unwrap();
    assert_eq!(place.store.list().unwrap().len(), 1);
    place.store.verify(&good).unwrap();
}

#[test]
fn disks_that_name_other_files_are_refused() {
    let place = Place::new();
    let mut backed = qcow2();
    backed[15] = 200;
    place.refuses(
        &place.folder("backed", &backed, |_| {}),
        "names a backing file",
    );
    let mut external = qcow2();
    external[79] = 1 << 2;
    place.refuses(
        &place.folder("external", &external, |_| {}),
        "external data file",
    );
    place.refuses(
        &place.folder("raw", b"not qcow2", |_| {}),
        "not a qcow2 image",
    );
    let mut old = qcow2();
    old[7] = 1;
    place.refuses(&place.folder("old", &old, |_| {}), "qcow2 version 1");
}

#[test]
fn invalid_archives_are_refused() {
    use tar::EntryType;
    let place = Place::new();
    let manifest = fs::read(place.good().join("manifest.json")).unwrap();
    let disk = qcow2();
    let regular = EntryType::Regular;
    let first = ("manifest.json", regular, manifest.as_slice());
    let refuses = |entries: &[_], why| place.refuses(&place.archive(entries), why);
    refuses(&[], "it has no manifest.json");
    refuses(
        &[("disk.qcow2", regular, &disk)],
        "its first entry is disk.qcow2",
    );
    refuses(&[first], "disk.qcow2 is missing");
    refuses(
        &[first, ("extra", regular, b"x")],
        "is not listed in its manifest",
    );
    refuses(&[first, first], "occurs twice");
    refuses(&[first, ("disk.qcow2", regular, b"short")], "has 5 bytes");
    refuses(&[first, ("disk.qcow2", EntryType::Symlink, b"")], "a link");
    refuses(&[first, ("disk.qcow2", EntryType::Link, b"")], "a link");
    refuses(
        &[first, ("disk.qcow2", EntryType::Char, b"")],
        "a special file",
    );
    for name in ["../disk.qcow2", "/disk.qcow2", "a/disk.qcow2"] {
        refuses(&[first, (name, regular, &disk)], "not a plain file name");
    }
}

/// Other programs than stead pack boxes too: the manifest's name may be in a header of its own, and others may be
/// about its time or the whole archive.
#[test]
fn a_box_is_one_whatever_header_its_archive_begins_with() {
    use tar::EntryType;
    let place = Place::new();
    let folder = place.good();
    let manifest = fs::read(folder.join("manifest.json")).unwrap();
    let disk = qcow2();
    let files = [
        ("manifest.json", EntryType::Regular, manifest.as_slice()),
        ("disk.qcow2", EntryType::Regular, &disk),
    ];
    let pax: &[u8] = b"20 mtime=1.23456789\n";
    for before in [
        ("pax/manifest.json", EntryType::XHeader, pax),
        ("pax_global_header", EntryType::XGlobalHeader, pax),
        (
            "././@LongLink",
            EntryType::GNULongName,
            b"./manifest.json\0",
        ),
        ("./", EntryType::Directory, b""),
    ] {
        let path = place.archive(&[&[before][..], &files].concat());
        let incoming = Incoming {
            path: &path,
            sha256: &sha256_of(fs::read(&path).unwrap()),
            ours: false,
            title: title(),
        };
        let imported = place.store.import(&incoming, &mut |_| {});
        let imported = imported.unwrap_or_else(|error| panic!("{}: {error}", before.0));
        assert!(!imported.titled, "{}", before.0);
        assert_eq!(imported.stored.manifest.name, "small");
        place.store.remove(&imported.stored).unwrap();
    }
}

#[test]
fn damaged_archives_are_refused() {
    let place = Place::new();
    let whole = place.folder.path().join("whole.tar.zst");
    write_archive(&place.good(), &whole).unwrap();
    let bytes = fs::read(&whole).unwrap();
    let path = place.folder.path().join("cut");
    let cut = (0..bytes.len())
        .step_by(7)
        .map(|length| bytes[..length].to_vec());
    let altered = (0..bytes.len()).step_by(3).map(|at| {
        let mut altered = bytes.clone();
        altered[at] ^= 0x55;
        altered
    });
    let mut refused = 0;
    for bad in cut.chain(altered) {
        fs::write(&path, &bad).unwrap();
        match place.store.add(&path, &mut |_, _| {}) {
            Err(_) => refused += 1,
            // Damage to bytes without content (such as the end of the tar) may be accepted; the box is complete.
            Ok(added) => {
                place.store.verify(&added).unwrap();
                place.store.remove(&added).unwrap();
            }
        }
    }
    assert!(refused > bytes.len() / 4, "{refused} of {}", bytes.len());
}

impl Place {
    /// Adds a box of that version, with a record of its source if it was fetched.
    fn versioned(&self, version: &str, from: Option<&str>) -> StoredBox {
        let mut disk = qcow2();
        disk[4000..4000 + version.len()].copy_from_slice(version.as_bytes());
        let folder = self.folder(version, &disk, |manifest| {
            manifest["version"] = version.into();
        });
        let stored = self.store.add(&folder, &mut |_, _| {}).unwrap();
        if let Some(reference) = from {
            let origin = Origin {
                reference: reference.into(),
                arch: "x86_64".into(),
                version: version.into(),
                url: reference.into(),
                sha256: "0".repeat(64),
                size: 1,
                verified: Vec::new(),
                digest: stored.digest.to_string(),
                titled: false,
                etag: None,
                fetched: jiff::Timestamp::now(),
            };
            self.store.remember(&origin).unwrap();
        }
        stored
    }

    fn means(&self, reference: &str) -> Option<String> {
        let found = self.store.resolve_named(reference).ok()?;
        Some(found.manifest.version)
    }
}

#[test]
fn a_fetched_box_has_no_name() {
    let place = Place::new();
    let url = "https://example.org/x.tar.zst";
    let own = place.versioned("1", None);
    place.store.give_name(&own, NameSource::Built).unwrap();
    let foreign = place.versioned("99", Some(url));
    assert_eq!(place.means("small").unwrap(), "1");
    assert_eq!(place.means("small:99"), None);
    assert_eq!(place.means(&foreign.digest.to_string()).unwrap(), "99");
    // Commands find it by its source, and by its name if that is unambiguous.
    let meant = |reference: &str| place.store.resolve(reference).unwrap().manifest.version;
    assert_eq!(meant(url), "99");
    assert_eq!(meant("small"), "1");
    assert_eq!(meant("small:99"), "99");
    let named = place.store.named().unwrap();
    assert_eq!(place.store.known_as(&foreign, &named), url);
    assert_eq!(place.store.known_as(&own, &named), "small");
    assert!(place.store.is_only_here(&own, &named));
    assert!(!place.store.is_only_here(&foreign, &named));
    let error = place.store.resolve_named("small:99").unwrap_err();
    let help = miette::Diagnostic::help(&error).unwrap().to_string();
    assert!(
        help.contains(url) && help.contains("--name small"),
        "{help}"
    );
    // It is found under a name that the user chose.
    let renamed = place.store.add_under_name(&foreign, "theirs").unwrap();
    place.store.give_name(&renamed, NameSource::Added).unwrap();
    assert_eq!(place.means("theirs").unwrap(), "99");
    // A name is deleted with its box.
    place.store.remove(&own).unwrap();
    assert_eq!(place.means("small"), None);
}

#[test]
fn the_newest_box_that_was_given_a_name_has_it() {
    let place = Place::new();
    let one = place.versioned("1", None);
    assert!(
        place
            .store
            .give_name(&one, NameSource::Added)
            .unwrap()
            .is_none()
    );
    let two = place.versioned("2", None);
    let before = place
        .store
        .give_name(&two, NameSource::Added)
        .unwrap()
        .unwrap();
    assert_eq!(before.digest, one.digest);
    assert_eq!(place.means("small").unwrap(), "2");
    assert_eq!(place.means("small:1").unwrap(), "1");
}

#[test]
fn boxes_of_an_older_store_keep_their_names() {
    let place = Place::new();
    place.versioned("1", None);
    place.versioned("99", Some("https://example.org/x"));
    let data = DataDir::at(place.folder.path().join("data"));
    fs::remove_dir_all(data.named()).unwrap();
    // A box of this host keeps its name, whatever was fetched since.
    assert_eq!(place.means("small").unwrap(), "1");
    assert!(data.named().is_dir());
    assert_eq!(place.store.named().unwrap().len(), 1);

    // A name that only a fetched box has stays with it; boxes fetched from now on get none.
    let place = Place::new();
    place.versioned("12", Some("https://example.org/x"));
    let data = DataDir::at(place.folder.path().join("data"));
    fs::remove_dir_all(data.named()).unwrap();
    assert_eq!(place.means("small").unwrap(), "12");
    place.versioned("99", Some("https://example.org/y"));
    assert_eq!(place.means("small").unwrap(), "12");
}

#[test]
fn added_by_many_at_once() {
    let place = Place::new();
    let good = place.good();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| place.store.add(&good, &mut |_, _| {}).unwrap());
        }
    });
    let boxes = place.store.list().unwrap();
    assert_eq!(boxes.len(), 1);
    place.store.verify(&boxes[0]).unwrap();
}

#[test]
fn leftover_files_are_found() {
    let place = Place::new();
    let folder = place.folder("box", &qcow2(), |_| {});
    let data = DataDir::at(place.folder.path().join("data"));
    let stored = place.store.add(&folder, &mut |_, _| {}).unwrap();
    let now = jiff::Timestamp::now();
    let future = now + jiff::SignedDuration::from_hours(1);
    assert_eq!(place.store.last_used(&stored), stored.added);
    place.store.mark_used(&stored).unwrap();
    assert!(place.store.last_used(&stored) >= now);
    assert_eq!(place.store.litter(future).unwrap(), []);
    let images = data.images();
    let orphan = images.join(format!("box-{}.qcow2", "0".repeat(64)));
    std::fs::write(&orphan, "x").unwrap();
    std::fs::write(images.join("stead-shop-web-123456.qcow2"), "a machine's").unwrap();
    std::fs::create_dir_all(data.downloads()).unwrap();
    let part = data.downloads().join("a.part");
    std::fs::write(&part, "x").unwrap();
    let found = |before| -> Vec<std::path::PathBuf> {
        let litter = place.store.litter(before).unwrap();
        litter.into_iter().map(|litter| litter.path).collect()
    };
    let past = now - jiff::SignedDuration::from_hours(1);
    assert_eq!(found(past), std::slice::from_ref(&orphan));
    let mut both = vec![part, orphan];
    both.sort();
    assert_eq!(found(future), both);
    place.store.remove_litter(future, &|_| true).unwrap();
    assert_eq!(found(future), both);
    place.store.remove_litter(future, &|_| false).unwrap();
    assert!(found(future).is_empty());
    place.store.verify(&stored).unwrap();
    assert!(images.join("stead-shop-web-123456.qcow2").exists());
}

/// A packed box that boots directly: its kernel is its parent's, its disk and name are not.
#[test]
fn a_packed_box_knows_its_parent() {
    let place = Place::new();
    let parent = place.folder("parent", &qcow2(), |manifest| {
        let kernel = b"kernel";
        fs::create_dir_all(place.folder.path().join("parent")).unwrap();
        fs::write(place.folder.path().join("parent/vmlinuz"), kernel).unwrap();
        manifest["boot"] = json!({ "direct": {
            "kernel": { "name": "vmlinuz", "size": 6, "sha256": sha256_of(kernel) },
            "kernel_release": "6.1",
            "cmdline": "root=/dev/vda",
        }});
    });
    let parent = place.store.add(&parent, &mut |_, _| {}).unwrap();
    assert_eq!(parent.manifest.parent, None);

    let sealed = |name: &str| {
        let folder = place.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut disk = qcow2();
        disk[3000] = 1;
        fs::write(folder.join("disk.qcow2"), disk).unwrap();
        folder
    };
    let packing = |to| Packing {
        name: "shop-web".into(),
        version: "2".into(),
        labels: [("team".to_string(), "db".to_string())].into(),
        to,
    };
    let out = place.folder.path().join("web.tar.zst");
    let archive = packing(Destination::Archive(out.clone()));
    keep_packed(&place.store, &parent, &archive, None, &sealed("one")).unwrap();
    assert!(place.store.resolve("shop-web").is_err());
    let store = packing(Destination::Store);
    keep_packed(&place.store, &parent, &store, None, &sealed("two")).unwrap();
    let packed = place.store.resolve("shop-web:2").unwrap();
    place.store.verify(&packed).unwrap();
    assert_eq!(packed.manifest.parent, Some(parent.digest.to_string()));
    assert_eq!(packed.manifest.labels, packing(Destination::Store).labels);
    assert_eq!(packed.manifest.boot, parent.manifest.boot);
    // The archive is the same box.
    let added = place.store.add(&out, &mut |_, _| {}).unwrap();
    assert_eq!(added.digest, packed.digest);

    // The kernel stays as long as one of the boxes needs it.
    place.store.remove(&parent).unwrap();
    place.store.verify(&packed).unwrap();
    place.store.remove(&packed).unwrap();
    let error = keep_packed(&place.store, &parent, &store, None, &sealed("three")).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn a_packed_box_boots_by_what_its_machine_booted_by() {
    let uefi = json!({ "firmware": "uefi" });
    for (said, by, wanted) in [
        (json!({}), None, json!({})),
        (json!({}), Some(Firmware::Bios), json!({})),
        (json!({}), Some(Firmware::Uefi), uefi.clone()),
        (uefi.clone(), None, uefi.clone()),
        (uefi, Some(Firmware::Bios), json!({ "firmware": "bios" })),
    ] {
        let place = Place::new();
        let parent = place.folder("parent", &qcow2(), |manifest| {
            manifest["boot"] = json!({ "bootloader": said });
        });
        let parent = place.store.add(&parent, &mut |_, _| {}).unwrap();
        let folder = place.folder.path().join("sealed");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("disk.qcow2"), qcow2()).unwrap();
        let packing = Packing {
            name: "web".into(),
            version: "2".into(),
            labels: Default::default(),
            to: Destination::Store,
        };
        keep_packed(&place.store, &parent, &packing, by, &folder).unwrap();
        let packed = place.store.resolve("web:2").unwrap();
        let boot = serde_json::to_value(&packed.manifest.boot).unwrap();
        assert_eq!(boot, json!({ "bootloader": wanted }), "{said} {by:?}");
        let firmware = place.store.firmware_of(&packed).unwrap();
        let is_uefi = wanted["firmware"] == "uefi";
        assert_eq!(firmware == Firmware::Uefi, is_uefi, "{said} {by:?}");
    }
}

#[test]
fn what_a_packed_box_may_be_called() {
    let check = |name: &str, version: &str, label: (&str, &str)| {
        let packing = Packing {
            name: name.into(),
            version: version.into(),
            labels: [(label.0.to_string(), label.1.to_string())].into(),
            to: Destination::Store,
        };
        packing.check()
    };
    assert_eq!(
        check("shop-web", "20261124.203000", ("team", "db 1")),
        Ok(())
    );
    for (name, version, label) in [
        ("a b", "1", ("team", "db")),
        ("a", "", ("team", "db")),
        ("a", "1", ("", "db")),
        ("a", "1", ("team", "d\nb")),
    ] {
        assert!(
            check(name, version, label).is_err(),
            "{name} {version} {label:?}"
        );
    }
}

/// The title of a file without a manifest.
fn title() -> Title {
    Title {
        name: "x".into(),
        version: "1".into(),
        arch: std::env::consts::ARCH.into(),
        seed: SeedKind::CloudInit,
        login_user: "stead".into(),
    }
}

#[test]
fn a_file_that_changes_during_an_import_is_refused() {
    let place = Place::new();
    let archive = place.folder.path().join("small.tar.zst");
    write_archive(&place.good(), &archive).unwrap();
    let image = place.folder.path().join("disk.raw");
    let mut disk = vec![0u8; 1 << 20];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    fs::write(&image, disk).unwrap();
    let packed = place.folder.path().join("disk.raw.zst");
    fs::write(
        &packed,
        zstd::encode_all(fs::File::open(&image).unwrap(), 1).unwrap(),
    )
    .unwrap();
    for path in [&archive, &image, &packed] {
        let was = sha256_of(b"what it was");
        let is = sha256_of(fs::read(path).unwrap());
        let incoming = |sha256| Incoming {
            path,
            sha256,
            ours: false,
            title: title(),
        };
        let error = place
            .store
            .import(&incoming(&was), &mut |_| {})
            .unwrap_err();
        assert!(error.to_string().contains("changed while"), "{error}");
        assert!(place.store.list().unwrap().is_empty());
        let images = place.folder.path().join("data/images");
        assert_eq!(fs::read_dir(images).unwrap().count(), 0);
        let added = place.store.import(&incoming(&is), &mut |_| {}).unwrap();
        place.store.verify(&added.stored).unwrap();
        place.store.remove(&added.stored).unwrap();
    }
}

#[test]
fn a_login_user_is_a_user_name() {
    for name in [
        "",
        "{{lookup('pipe','id>f')}}",
        "-oProxyCommand=id",
        "a\tb",
        "a$(id)",
        "a\u{1b}[2J",
    ] {
        let place = Place::new();
        let folder = place.folder("bad", &qcow2(), |manifest| {
            manifest["login_user"] = name.into();
        });
        place.refuses(&folder, "is not a valid user name");
    }
}
