//! Kernels from RPM packages.

use std::fs;

use stead::{
    fetch::Fetcher,
    packages::{Distribution, PackageError, Repository, Resolved, resolve},
};

use crate::{
    Manner, Place,
    rpm::{Package, entry, file},
    says,
    signer::Signer,
};

const RELEASE: &str = "6.11.4-301.fc41.x86_64";

impl Place {
    fn resolve_rpm(&self, name: &str, version: Option<&str>) -> Result<Resolved, PackageError> {
        let distribution = Distribution {
            id: "fedora".into(),
            release: "41".into(),
            arch: "x86_64".into(),
        };
        let address = self.serve("", Manner::Well, b"");
        let sources =
            Repository::parse(&address, Some(&self.path("key.asc")), &distribution).unwrap();
        let fetcher = Fetcher::direct().unwrap();
        self.runtime.block_on(resolve(
            &fetcher,
            &self.path("cache"),
            &sources,
            &distribution,
            name,
            version,
        ))
    }
}

fn modules(name: &str) -> String {
    format!("./lib/modules/{RELEASE}/{name}")
}

fn kernel(signer: Option<&Signer>) -> Vec<Package> {
    let part =
        |name: &str, entries: &[Vec<u8>]| Package::new(name, "6.11.4", "301.fc41", entries, signer);
    vec![
        part("kernel", &[]),
        part(
            "kernel-core",
            &[
                entry(&modules(""), 0o040_755, b""),
                file(&modules("vmlinuz"), b"an image"),
                file(&modules("config"), b"CONFIG_X=y\n"),
                file(&modules("System.map"), b"map"),
                entry(&modules("build"), 0o120_777, b"/usr/src/kernels/x"),
            ],
        ),
        part(
            "kernel-modules-core",
            &[file(&modules("kernel/a.ko.xz"), b"a")],
        ),
        part("kernel-modules", &[file(&modules("kernel/b.ko.xz"), b"b")]),
        Package::new("bash", "5", "1", &[], signer),
    ]
}

#[test]
fn from_a_name_to_files() {
    let place = Place::new();
    place.publish_rpms(&kernel(Some(&place.signer)));
    let pinned = place.resolve_rpm("kernel", None).unwrap().package;
    assert_eq!(pinned.version, "6.11.4-301.fc41");
    let names: Vec<&str> = pinned.files.iter().map(|it| it.package.as_str()).collect();
    assert_eq!(
        names,
        ["kernel-core", "kernel-modules-core", "kernel-modules"]
    );
    // Whose signatures count is pinned too.
    assert_eq!(pinned.keys.len(), 1);
    let same = place
        .resolve_rpm("kernel-core-6.11.4-301.fc41.x86_64", None)
        .unwrap()
        .package;
    assert_eq!(same.files, pinned.files);
    assert_eq!(place.requests("repodata/primary.xml.zst").len(), 1);

    let unpacked = place.unpack(&pinned).unwrap();
    assert_eq!(unpacked.release, RELEASE);
    assert_eq!(fs::read(&unpacked.image).unwrap(), b"an image");
    assert_eq!(fs::read(unpacked.config.unwrap()).unwrap(), b"CONFIG_X=y\n");
    assert!(unpacked.system_map.is_some());
    let modules = unpacked.modules.unwrap();
    assert_eq!(fs::read(modules.join("kernel/b.ko.xz")).unwrap(), b"b");
    assert!(fs::symlink_metadata(modules.join("build")).is_err());

    says(
        place.resolve_rpm("kernel-cor", None),
        &[
            "no package kernel-cor for x86_64",
            "similar names are kernel-core",
        ],
    );
    says(
        place.resolve_rpm("kernel", Some("6.11.5")),
        &[
            "no package kernel 6.11.5",
            "its versions are 6.11.4-301.fc41",
        ],
    );
}

#[test]
fn what_is_not_signed_as_it_should_be() {
    let place = Place::new();
    let other = Signer::new(&place.path("other"));
    for (signer, word) in [(None, "no signature"), (Some(&other), "it was not made by")] {
        let packages = kernel(signer);
        place.publish_rpms(&packages);
        let mut pinned = place.resolve_rpm("kernel", None).unwrap().package;
        let result = place.unpack(&pinned);
        let word = match word {
            // The distribution's own keys would count too.
            "it was not made by" => "it was made by none of the keys",
            word => word,
        };
        says(result, &["kernel-core 6.11.4-301.fc41 is refused", word]);
        place.nothing_is_left();
        // Not by the distribution's keys alone, either.
        pinned.keys.clear();
        says(place.unpack(&pinned), &[word]);
    }
    // What the header says of the payload is signed with it.
    let mut packages = kernel(Some(&place.signer));
    let core = &mut packages[1].rpm;
    *core.last_mut().unwrap() ^= 1;
    place.publish_rpms(&packages);
    let pinned = place.resolve_rpm("kernel", None).unwrap().package;
    says(place.unpack(&pinned), &["the digest of its payload is"]);
    place.nothing_is_left();
    // A good package in the place of another one.
    let mut packages = kernel(Some(&place.signer));
    packages[1].rpm = packages[4].rpm.clone();
    place.publish_rpms(&packages);
    let pinned = place.resolve_rpm("kernel", None).unwrap().package;
    says(place.unpack(&pinned), &["its header is that of bash 5-1"]);
    // Another list than the one that repomd.xml names.
    fs::remove_dir_all(place.path("cache")).unwrap();
    place.serve("repodata/primary.xml.zst", Manner::Well, b"x");
    says(place.resolve_rpm("kernel", None), &["list of packages"]);
    place.serve("repodata/repomd.xml", Manner::Well, b"<html>");
    says(place.resolve_rpm("kernel", None), &["repomd.xml"]);
}

#[test]
fn packages_that_reach_elsewhere_are_refused() {
    let place = Place::new();
    for (bad, word) in [
        (file("../evil", b"x"), "leads out of the kernel's folder"),
        (file("/etc/evil", b"x"), "leads out of the kernel's folder"),
        (
            entry(&modules("x"), 0o120_777, b"/etc/passwd"),
            "leads out of the kernel's folder",
        ),
        (
            entry(&modules("x"), 0o020_644, b""),
            "is not a file, folder or link",
        ),
        (file(&modules("vmlinuz"), b"x"), "occurs twice"),
        (b"07070X".repeat(30), "unknown format"),
        (file("./lib/modules/other/vmlinuz", b"x"), "several kernels"),
    ] {
        let entries = [file(&modules("vmlinuz"), b"image"), bad];
        place.publish_rpms(&[Package::new(
            "kernel-core",
            "6.11.4",
            "301.fc41",
            &entries,
            Some(&place.signer),
        )]);
        let pinned = place.resolve_rpm("kernel", None).unwrap().package;
        says(place.unpack(&pinned), &["kernel", word]);
        place.nothing_is_left();
        assert!(!place.path("evil").exists() && !place.path("kernels/evil").exists());
    }
}
