//! Boxes of a catalogue, with checksum files and signatures made by gpg.

use std::fs;

use crate::{Manner, Place, sha256, signer::Signer, text};

/// The user's own catalogue.
fn write(place: &Place, text: &str) {
    let folder = place.path(".config/stead");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("catalogue.kdl"), format!("version 1\n{text}")).unwrap();
}

fn release(version: &str, image: &str) -> String {
    format!(
        "release \"{version}\" {{ image \"{}\" {image}; }}\n",
        std::env::consts::ARCH
    )
}

fn listed(releases: &str) -> String {
    format!("box \"linux\" title=\"A test\" login-user=\"me\" {{\n{releases}}}\n")
}

#[test]
fn a_signed_image_by_its_short_name() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let signer = Signer::new(&place.path("signer"));
    let sums = format!(
        "{}  other.img\n{} *linux.img\n",
        "0".repeat(64),
        sha256(&image)
    );
    let at = |name: &str, bytes: &[u8]| place.server.serve(name, Manner::Well, bytes);
    let url = at("linux.img", &image);
    let sums_url = at("SHA256SUMS", sums.as_bytes());
    let signature = at(
        "SHA256SUMS.gpg",
        &signer.sign("--detach-sign", sums.as_bytes()),
    );
    let missing = url.replace("linux.img", "nowhere/linux.img");
    // The first mirror does not have it.
    let signed = release(
        "1.2",
        &format!(
            "{{ url \"{missing}\"; url \"{url}\"; checksums \"{sums_url}\" signature=\"{signature}\" key=\"test\"; }}"
        ),
    );
    write(&place, &format!("{}{}", signer.node(), listed(&signed)));

    let added = place.adds(&["linux/1"]);
    assert_eq!(added["name"], "linux");
    assert_eq!(added["version"], "1.2");
    assert_eq!(added["login_user"], "me");
    assert_eq!(place.server.requests("SHA256SUMS.gpg").len(), 1);

    let list = place
        .stead(&["box", "list", "--available"])
        .output()
        .unwrap();
    let list = text(&list);
    let line = list.lines().find(|line| line.starts_with("linux")).unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>(),
        ["linux/1", "1.2", "me", "yes", "A", "test"]
    );
    assert!(list.contains("debian") && list.contains("ubuntu"), "{list}");

    // It is in the store, so it is not fetched again.
    let requests = place.server.requests("linux.img").len();
    place.adds(&["linux"]);
    assert_eq!(place.server.requests("linux.img").len(), requests);

    // It is pinned, and only `box update` changes the pin.
    fs::write(
        place.path("Machinefile"),
        "project \"p\"\nmachine \"m\" { box \"linux\" version=\"^1\"; }\n",
    )
    .unwrap();
    let run = |arguments: &[&str]| {
        let output = place.stead(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    assert!(run(&["box", "outdated"]).contains("not pinned yet"));
    run(&["box", "update"]);
    let lock = fs::read_to_string(place.path("Machinefile.lock")).unwrap();
    assert!(
        lock.contains("box \"linux ^1\"") && lock.contains("version \"1.2\""),
        "{lock}"
    );
    assert!(run(&["box", "outdated"]).contains("all boxes are up to date"));
    let mut newer = place.raw();
    newer[3 << 20] = 1;
    let newer_url = at("newer.img", &newer);
    let releases = signed
        + &release(
            "1.3",
            &format!("sha256=\"{}\" {{ url \"{newer_url}\"; }}", sha256(&newer)),
        )
        + &release(
            "2.0",
            &format!("sha256=\"{}\" {{ url \"{newer_url}\"; }}", sha256(&newer)),
        );
    write(&place, &format!("{}{}", signer.node(), listed(&releases)));
    let outdated = run(&["box", "outdated"]);
    assert!(
        outdated.contains("1.2") && outdated.contains("1.3"),
        "{outdated}"
    );
    assert!(run(&["box", "update", "linux ^1"]).contains("1.2"));
    let lock = fs::read_to_string(place.path("Machinefile.lock")).unwrap();
    assert!(
        lock.contains(&sha256(&newer)) && lock.contains("version \"1.3\""),
        "{lock}"
    );
}

#[test]
fn clearsigned_as_fedora_does() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let signer = Signer::new(&place.path("signer"));
    let sums = format!(
        "# linux.img: {} bytes\nSHA256 (linux.img) = {}\n",
        image.len(),
        sha256(&image)
    );
    let url = place.server.serve("linux.img", Manner::Well, &image);
    let clear = signer.sign("--clearsign", sums.as_bytes());
    let sums_url = place.server.serve("CHECKSUM", Manner::Well, &clear);
    let text = release(
        "1",
        &format!("{{ url \"{url}\"; checksums \"{sums_url}\" key=\"test\"; }}"),
    );
    write(&place, &format!("{}{}", signer.node(), listed(&text)));
    assert_eq!(place.adds(&["linux"])["version"], "1");
}

#[test]
fn a_signature_by_a_key_that_had_expired_does_not_count() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let mut signer = Signer::made_at(&place.path("signer"), Some("20190101T000000"));
    let sums = format!("{}  linux.img\n", sha256(&image));
    let url = place.server.serve("linux.img", Manner::Well, &image);
    // A new signature, by a key that was valid until 2020.
    let clear = signer.sign("--clearsign", sums.as_bytes());
    let sums_url = place.server.serve("SUMS", Manner::Well, &clear);
    let text = release(
        "1",
        &format!("{{ url \"{url}\"; checksums \"{sums_url}\" key=\"test\"; }}"),
    );
    let lasting = signer.node();
    signer.armoured = signer.ending("20190601T000000", "20200101T000000");
    write(&place, &format!("{}{}", signer.node(), listed(&text)));
    place.refuses(&["linux"], &["invalid signature of", "SUMS"]);
    assert!(place.server.requests("linux.img").is_empty());
    write(&place, &format!("{lasting}{}", listed(&text)));
    place.adds(&["linux"]);
}

#[test]
fn what_is_signed_by_nobody_known_is_not_fetched() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let signer = Signer::new(&place.path("signer"));
    let other = Signer::new(&place.path("other"));
    let url = place.server.serve("linux.img", Manner::Well, &image);
    let sums = format!("{}  linux.img\n", sha256(&image));
    let sums_url = place.server.serve("SUMS", Manner::Well, sums.as_bytes());
    let signature = sums_url.clone() + ".gpg";
    let checks = format!("checksums \"{sums_url}\" signature=\"{signature}\" key=\"test\"");
    let text = |more: &str| {
        let image = format!("{more} {{ url \"{url}\"; {checks}; }}");
        format!("{}{}", signer.node(), listed(&release("1", &image)))
    };
    write(&place, &text(""));
    // No signature, another key's, half of one, and one of other checksums.
    place.refuses(&["linux"], &["SUMS.gpg", "404"]);
    let serve = |bytes: &[u8]| place.server.serve("SUMS.gpg", Manner::Well, bytes);
    serve(&other.sign("--detach-sign", sums.as_bytes()));
    place.refuses(
        &["linux"],
        &[
            "invalid signature of",
            "SUMS",
            &signer.fingerprint.to_lowercase(),
        ],
    );
    let good = signer.sign("--detach-sign", sums.as_bytes());
    serve(&good[..good.len() / 2]);
    place.refuses(&["linux"], &["invalid signature of"]);
    serve(&signer.sign("--detach-sign", b"something else"));
    place.refuses(&["linux"], &["invalid signature of"]);
    // A good checksum file that does not list this image.
    let about = format!("{}  another.img\n", sha256(&image));
    place.server.serve("SUMS", Manner::Well, about.as_bytes());
    serve(&signer.sign("--detach-sign", about.as_bytes()));
    place.refuses(&["linux"], &["has no digest of linux.img"]);
    assert!(place.server.requests("linux.img").is_empty());
    // A good checksum file, but another image.
    let wrong = format!("{}  linux.img\n", "0".repeat(64));
    place.server.serve("SUMS", Manner::Well, wrong.as_bytes());
    serve(&signer.sign("--detach-sign", wrong.as_bytes()));
    place.refuses(&["linux"], &[&sha256(&image), &"0".repeat(64), "SUMS"]);
    // The checksum file and the catalogue contradict each other.
    place.server.serve("SUMS", Manner::Well, sums.as_bytes());
    serve(&good);
    write(&place, &text(&format!("sha256=\"{}\"", "0".repeat(64))));
    place.refuses(&["linux"], &["the catalogue"]);
    write(&place, &text(""));
    place.adds(&["linux"]);
}

#[test]
fn a_catalogue_of_the_project() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let url = place.server.serve("linux.img", Manner::Well, &image);
    let listing = listed(&release(
        "7",
        &format!("sha256=\"{}\" {{ url \"{url}\"; }}", sha256(&image)),
    ));
    let catalogue = place.server.serve(
        "catalogue.kdl",
        Manner::Well,
        format!("version 1\n{listing}").as_bytes(),
    );
    fs::write(
        place.path("Machinefile"),
        format!("project \"p\"\ncatalogue \"{catalogue}\"\nmachine \"m\" {{ box \"linux/7\"; }}\n"),
    )
    .unwrap();
    // Nothing is fetched before the user has agreed to the address, because the project chose it.
    for command in [
        &["--connect", "test:///default", "up"][..],
        &["box", "update"],
        &["box", "outdated"],
        &["box", "list", "--available"],
    ] {
        let output = place.stead(command).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(&catalogue), "{}", text(&output));
    }
    assert!(place.server.requests("catalogue.kdl").is_empty());
    let agree = || {
        let output = place.stead(&["trust", "--yes"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    // `up` fetches it by itself, with a lock file and without. libvirt's test driver has no machines, so it
    // ends before it creates one.
    for locked in [false, true] {
        let _ = fs::remove_dir_all(place.path("data"));
        agree();
        let mut command = place.stead(&["--connect", "test:///default", "up"]);
        command.env("STEAD_TEST_KILL_AT", "m/box");
        if locked {
            command.arg("--locked");
        }
        let output = command.output().unwrap();
        assert!(place.left("origins").len() == 1, "{}", text(&output));
        let lock = fs::read_to_string(place.path("Machinefile.lock")).unwrap();
        assert!(lock.contains(&sha256(&image)), "{lock}");
    }
    let output = place.stead(&["box", "update"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lock = fs::read_to_string(place.path("Machinefile.lock")).unwrap();
    assert!(lock.contains(&sha256(&image)), "{lock}");
    // A broken catalogue is reported, and the copy on this host stays.
    place
        .server
        .serve("catalogue.kdl", Manner::Well, b"version 1\nbux\n");
    let output = place.stead(&["box", "outdated"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("catalogue.kdl:2: unknown node"),
        "{}",
        text(&output)
    );
    fs::write(
        place.path("Machinefile"),
        "project \"p\"\ncatalogue \"./mine.kdl\"\nmachine \"m\" { box \"linux/7\"; }\n",
    )
    .unwrap();
    let output = place.stead(&["box", "update"]).output().unwrap();
    assert!(
        text(&output).contains("there is no catalogue"),
        "{}",
        text(&output)
    );
    fs::write(place.path("mine.kdl"), format!("version 1\n{listing}")).unwrap();
    let output = place.stead(&["box", "update"]).output().unwrap();
    assert!(text(&output).contains("is unchanged"), "{}", text(&output));
    place.refuses_add(&["linux/8"], &["no such version", "choose one of: 7"]);
    place.refuses_add(&["linux/seven"], &["\"seven\" is neither a version"]);
}
