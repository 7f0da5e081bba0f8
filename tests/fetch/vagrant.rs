//! Vagrant boxes and their listings.

use std::fs;

use crate::{Manner, Place, sha256, text};

/// One entry of an archive.
enum Entry<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
    Device(&'a str),
}

/// A tar of exactly these entries, however invalid.
fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        let (name, bytes): (&str, &[u8]) = match entry {
            Entry::File(name, bytes) => {
                header.set_size(bytes.len() as u64);
                (name, bytes)
            }
            Entry::Link(name, to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name(to).unwrap();
                (name, &[])
            }
            Entry::Device(name) => {
                header.set_entry_type(tar::EntryType::Block);
                (name, &[])
            }
        };
        // `set_path` refuses what an attacker would write.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

const METADATA: &[u8] = br#"{"provider":"libvirt","format":"qcow2","virtual_size":1}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

#[test]
fn a_box_by_its_listing() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let team_box = gzip(&tar(&[
        Entry::File(
            "./Vagrantfile",
            b"Vagrant.configure(2) do |c|\n  c.ssh.username = 'core'\nend\n",
        ),
        Entry::File("./box.img", &image),
        Entry::File("./metadata.json", METADATA),
    ]));
    let box_url = place.server.serve("1.2.box", Manner::CutOnce, &team_box);
    let listing = format!(
        r#"{{"name":"team/base","versions":[
            {{"version":"1.2.0","providers":[{{"name":"libvirt","url":"{box_url}","checksum_type":"sha256","checksum":"{}"}}]}},
            {{"version":"2.0.0","providers":[{{"name":"virtualbox","url":"{box_url}"}}]}}]}}"#,
        sha256(&team_box)
    );
    let url = place
        .server
        .serve("base.json", Manner::Well, listing.as_bytes());
    let added = place.adds(&[&url]);
    assert_eq!(added["seed"], "vagrant");
    assert_eq!(added["login_user"], "core");
    assert_eq!(
        (&added["name"], &added["version"]),
        (&"base".into(), &"1.2.0".into())
    );
    assert_eq!(added["manifest"]["disk"]["file"]["sha256"], sha256(&image));

    fs::write(
        place.path("Machinefile"),
        format!("project \"p\"\nmachine \"m\" {{ box \"{url}\" version=\"^1\"; }}\n"),
    )
    .unwrap();
    let run = |arguments: &[&str]| {
        let output = place.stead(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    run(&["box", "update"]);
    let lock = fs::read_to_string(place.path("Machinefile.lock")).unwrap();
    assert!(
        lock.contains(&box_url) && lock.contains(&sha256(&team_box)),
        "{lock}"
    );
    assert!(run(&["box", "outdated"]).contains("all boxes are up to date"));
    let newer = listing.replace("1.2.0", "1.3.0");
    place
        .server
        .serve("base.json", Manner::Well, newer.as_bytes());
    assert!(run(&["box", "outdated"]).contains("1.3.0"));
    // The requested version does not exist.
    let place = Place::new();
    let url = place
        .server
        .serve("base.json", Manner::Well, listing.as_bytes());
    place.refuses(&[&format!("{url} 3")], &["no such version", "1.2.0"]);
    let altered = place
        .server
        .serve("1.2.box", Manner::Well, b"something else");
    let listing = listing.replace(&box_url, &altered);
    let url = place
        .server
        .serve("base.json", Manner::Well, listing.as_bytes());
    place.refuses(
        &[&url],
        &[
            &sha256(&team_box),
            &sha256(b"something else"),
            "the listing",
        ],
    );
}

#[test]
fn a_box_of_two_disks() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let file = place.path("two.box");
    let metadata = br#"{"provider":"libvirt","disks":[{"path":"root.img","format":"qcow2"},{"path":"data.img","format":"raw"}]}"#;
    let data = vec![0u8; 1 << 20];
    let archive = tar(&[
        Entry::File("data.img", &data),
        Entry::File("metadata.json", metadata),
        Entry::File("root.img", &image),
    ]);
    fs::write(&file, gzip(&archive)).unwrap();
    let added = place.adds(&[file.to_str().unwrap()]);
    assert_eq!(added["manifest"]["disk"]["file"]["sha256"], sha256(&image));
    let more = &added["manifest"]["more_disks"];
    assert_eq!(more[0]["file"]["sha256"], sha256(&data));
    assert_eq!(
        (&more[0]["format"], &more[0]["virtual_size"]),
        (&"raw".into(), &(1 << 20).into())
    );
    assert_eq!(more.as_array().unwrap().len(), 1);
    let output = place
        .stead(&[
            "box", "export", "two", "--format", "raw", "--output", "x.raw",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("has 2 disks"), "{}", text(&output));
    assert!(
        place
            .stead(&["box", "remove", "two", "--force"])
            .status()
            .unwrap()
            .success()
    );
    assert!(
        place.left("images").is_empty(),
        "{:?}",
        place.left("images")
    );
}

/// Where vagrant-libvirt is given firmware, that is for UEFI; which file it is, stead leaves to libvirt.
#[test]
fn a_box_with_a_loader_boots_by_uefi() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let file = place.path("uefi.box");
    let archive = tar(&[
        Entry::File("metadata.json", METADATA),
        Entry::File(
            "Vagrantfile",
            b"config.vm.provider :libvirt do |libvirt|\n  libvirt.loader = '/ovmf.fd'\nend\n",
        ),
        Entry::File("box.img", &image),
    ]);
    fs::write(&file, gzip(&archive)).unwrap();
    let added = place.adds(&[file.to_str().unwrap()]);
    let boot = &added["manifest"]["boot"];
    assert_eq!(boot["bootloader"]["firmware"], "uefi", "{boot}");
    let shown = place.stead(&["box", "show", "uefi"]).output().unwrap();
    assert!(
        text(&shown).contains("its own bootloader, by UEFI"),
        "{}",
        text(&shown)
    );
}

#[test]
fn boxes_that_are_not_taken() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let refuses = |entries: &[Entry<'_>], words: &[&str]| {
        let file = place.path("bad.box");
        fs::write(&file, gzip(&tar(entries))).unwrap();
        place.refuses(&[file.to_str().unwrap()], words);
    };
    let disk = || Entry::File("box.img", &image);
    let metadata = || Entry::File("metadata.json", METADATA);
    refuses(
        &[metadata(), Entry::File("../box.img", &image)],
        &["not a plain file name"],
    );
    refuses(
        &[metadata(), Entry::File("/etc/passwd", b"x")],
        &["not a plain file name"],
    );
    refuses(
        &[metadata(), Entry::Link("box.img", "/etc/passwd")],
        &["not a regular file"],
    );
    refuses(
        &[metadata(), Entry::Device("box.img")],
        &["not a regular file"],
    );
    refuses(&[metadata(), disk(), disk()], &["occurs twice"]);
    refuses(&[metadata()], &["box.img is missing"]);
    refuses(&[disk()], &["nor a metadata.json"]);
    refuses(
        &[disk(), Entry::File("manifest.json", b"{}")],
        &["its first entry is box.img"],
    );
    refuses(
        &[
            Entry::File("metadata.json", br#"{"provider":"virtualbox"}"#),
            disk(),
        ],
        &["for virtualbox"],
    );
    refuses(
        &[
            metadata(),
            disk(),
            Entry::File(
                "Vagrantfile",
                b"config.ssh.username = \"{{lookup('pipe','id')}}\"\n",
            ),
        ],
        &["is not a valid user name"],
    );
    refuses(
        &[metadata(), Entry::File("box.img", b"hello")],
        &["nor a known disk image"],
    );
    refuses(
        &[Entry::File("metadata.json", &vec![b' '; 2 << 20]), disk()],
        &["more than 1048576 bytes"],
    );
    // Its disk names a file of the host.
    let backed = place.path("backed.qcow2");
    crate::qemu_img(
        std::process::Command::new("qemu-img")
            .args([
                "create",
                "-q",
                "-f",
                "qcow2",
                "-u",
                "-F",
                "raw",
                "-b",
                "/etc/passwd",
            ])
            .arg(&backed)
            .arg("4M"),
    );
    let backed = fs::read(backed).unwrap();
    refuses(
        &[metadata(), Entry::File("box.img", &backed)],
        &["backing file", "refused"],
    );
    // Truncated in the middle.
    let whole = gzip(&tar(&[metadata(), disk()]));
    let file = place.path("cut.box");
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    place.refuses(&[file.to_str().unwrap()], &["cannot be unpacked"]);
}
