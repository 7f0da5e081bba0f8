//! Kernels from packages: archives made here, signed by gpg, served by a real HTTPS server on
//! 127.0.0.1.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that cannot go on panics"
)]

mod deb;
mod fedora;
mod rpm;
#[path = "../fetch/server.rs"]
#[expect(dead_code, reason = "tests/fetch uses the rest of it")]
mod server;
#[path = "../fetch/signer.rs"]
#[expect(dead_code, reason = "tests/fetch uses the rest of it")]
mod signer;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use deb::{Package, entry, file, kernel, release};
use server::{Manner, Server};
use sha2::{Digest, Sha256};
use signer::Signer;
use stead::{
    fetch::Fetcher,
    packages::{
        Distribution, PackageError, PinnedPackage, Repository, Resolved, Unpacked,
        fetch_and_unpack, resolve,
    },
};
use tar::EntryType;

const RELEASE: &str = "6.1.0-47-cloud-amd64";
const IMAGE: &str = "linux-image-6.1.0-47-cloud-amd64";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// One for all tests, since a process trusts one SSL_CERT_FILE.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Server::start();
        // SAFETY: every test comes here before it does anything else, and waits.
        unsafe {
            std::env::set_var("SSL_CERT_FILE", server.certificate());
            std::env::set_var("STEAD_TEST_STALL_MS", "2000");
            let snapshot = server.serve("snapshot/", Manner::Well, b"");
            std::env::set_var("STEAD_TEST_SNAPSHOT_URL", snapshot);
        }
        server
    })
}

/// An archive, and folders of a user of it.
struct Place {
    folder: tempfile::TempDir,
    name: String,
    signer: Signer,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // gpg's agents of several homes do not all start at once.
        static STARTING: Mutex<()> = Mutex::new(());
        server();
        let folder = tempfile::tempdir().unwrap();
        let signer = {
            let _one = STARTING.lock().unwrap_or_else(|it| it.into_inner());
            Signer::new(&folder.path().join("gpg"))
        };
        fs::write(folder.path().join("key.asc"), &signer.armoured).unwrap();
        Place {
            folder,
            name: format!("archive-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            signer,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self, path: &str, manner: Manner, bytes: &[u8]) -> String {
        server().serve(&format!("{}/{path}", self.name), manner, bytes)
    }

    fn requests(&self, path: &str) -> Vec<Option<String>> {
        server().requests(&format!("{}/{path}", self.name))
    }

    fn distribution(&self) -> Distribution {
        Distribution {
            id: "debian".into(),
            release: "bookworm".into(),
            arch: "x86_64".into(),
        }
    }

    fn source(&self, suite: &str) -> Repository {
        let address = self.serve("", Manner::Well, b"");
        Repository::parse(
            &format!("{address} {suite} main"),
            Some(&self.path("key.asc")),
            &self.distribution(),
        )
        .unwrap()
        .remove(0)
    }

    fn resolve_in(
        &self,
        sources: &[Repository],
        name: &str,
        version: Option<&str>,
    ) -> Result<Resolved, PackageError> {
        let fetcher = Fetcher::direct().unwrap();
        self.runtime.block_on(resolve(
            &fetcher,
            &self.path("cache"),
            sources,
            &self.distribution(),
            name,
            version,
        ))
    }

    fn resolve(&self, name: &str, version: Option<&str>) -> Result<Resolved, PackageError> {
        self.resolve_in(&[self.source("bookworm")], name, version)
    }

    fn unpack(&self, pinned: &PinnedPackage) -> Result<Unpacked, PackageError> {
        let fetcher = Fetcher::direct().unwrap();
        self.runtime.block_on(fetch_and_unpack(
            &fetcher,
            &self.path("downloads"),
            pinned,
            &self.path("kernels/one"),
            &|done, total| assert!(done <= total, "{done} of {total}"),
        ))
    }

    /// Publishes one package with these entries, and unpacks it.
    fn unpacks(&self, entries: &[Vec<u8>]) -> Result<Unpacked, PackageError> {
        self.unpacks_deb(deb::deb(entries))
    }

    fn unpacks_deb(&self, deb: Vec<u8>) -> Result<Unpacked, PackageError> {
        self.publish("bookworm", &[Package::new(IMAGE, "1", "", deb)]);
        let resolved = self.resolve(IMAGE, None).unwrap();
        self.unpack(&resolved.package)
    }

    /// Nothing of a package that was refused is left.
    fn nothing_is_left(&self) {
        let left: Vec<_> = fs::read_dir(self.path("kernels"))
            .map(|entries| entries.flatten().map(|it| it.path()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// An error as a user sees it.
fn told(result: Result<impl std::fmt::Debug, PackageError>) -> String {
    let report = miette::Report::new(result.unwrap_err());
    let help = report.help().map(|it| it.to_string()).unwrap_or_default();
    format!("{report}\n{help}")
}

fn says(result: Result<impl std::fmt::Debug, PackageError>, words: &[&str]) {
    let text = told(result);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn good() -> Vec<Package> {
    vec![
        Package::new(
            "linux-image-cloud-amd64",
            "6.1.170-3",
            &format!("{IMAGE} (= 6.1.170-3)"),
            deb::deb(&[]),
        ),
        Package::new(
            IMAGE,
            "6.1.170-3",
            "kmod, linux-base (>= 4.3~)",
            deb::deb(&kernel(RELEASE)),
        ),
        Package::new("bash", "5", "", Vec::new()),
    ]
}

#[test]
fn from_a_name_to_files() {
    let place = Place::new();
    let list = place.publish("bookworm", &good());
    let resolved = place.resolve("linux-image-cloud-amd64", None).unwrap();
    let pinned = resolved.package;
    assert!(resolved.notes.is_empty(), "{:?}", resolved.notes);
    assert_eq!(
        (pinned.name.as_str(), pinned.version.as_str()),
        ("linux-image-cloud-amd64", "6.1.170-3")
    );
    assert_eq!(pinned.files.len(), 1);
    assert_eq!(pinned.files[0].package, IMAGE);
    // Colleagues may not reach the mirror.
    assert!(pinned.files[0].urls[1].starts_with("https://deb.debian.org/debian/pool/"));
    // It is written down and read back.
    let text = serde_json::to_string(&pinned).unwrap();
    assert_eq!(
        serde_json::from_str::<PinnedPackage>(&text).unwrap(),
        pinned
    );

    // The list is not fetched again while it is the same.
    let by_hash = format!(
        "dists/bookworm/main/binary-amd64/by-hash/SHA256/{}",
        sha256(&list)
    );
    assert_eq!(
        place.resolve(IMAGE, None).unwrap().package.files,
        pinned.files
    );
    assert_eq!(place.requests(&by_hash).len(), 1);
    // A damaged copy is.
    fs::write(place.path(&format!("cache/list-{}", sha256(&list))), b"x").unwrap();
    place.resolve(IMAGE, Some("6.1.170-3")).unwrap();
    assert_eq!(place.requests(&by_hash).len(), 2);

    let unpacked = place.unpack(&pinned).unwrap();
    assert_eq!(unpacked.release, RELEASE);
    assert_eq!(fs::read(&unpacked.image).unwrap(), b"an image");
    assert_eq!(fs::read(unpacked.config.unwrap()).unwrap(), b"CONFIG_X=y\n");
    assert_eq!(fs::read(unpacked.system_map.unwrap()).unwrap(), b"map");
    let modules = unpacked.modules.unwrap();
    assert_eq!(fs::read(modules.join("fs/x.ko.xz")).unwrap(), b"a module");
    let deep = modules.join(format!("kernel/{}/x.ko.xz", "deep/".repeat(30)));
    assert_eq!(fs::read(deep).unwrap(), b"a deep one");
    assert!(fs::symlink_metadata(modules.join("build")).is_err());
    assert!(!place.path("kernels/one/usr").exists());
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&unpacked.image).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    let left: Vec<_> = fs::read_dir(place.path("downloads")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    // What is there is not written over.
    assert!(place.unpack(&pinned).is_err());
    assert_eq!(fs::read(&unpacked.image).unwrap(), b"an image");
}

#[test]
fn the_newest_of_several_suites_and_split_kernels() {
    let place = Place::new();
    let meta = |version: &str, release: &str| {
        Package::new(
            "linux-image-generic",
            version,
            &format!("linux-image-{release}"),
            Vec::new(),
        )
    };
    place.publish("bookworm", &[meta("1", "1-generic")]);
    place.publish(
        "bookworm-security",
        &[
            meta("2", "2-generic"),
            Package::new(
                "linux-image-2-generic",
                "2",
                "linux-modules-2-generic",
                deb::deb(&[file("./boot/vmlinuz-2-generic", b"x")]),
            ),
            Package::new(
                "linux-modules-2-generic",
                "2",
                "",
                deb::deb(&[
                    file("./lib/modules/2-generic/a.ko", b"a"),
                    file("./boot/config-2-generic", b"c"),
                ]),
            ),
            Package::new(
                "linux-modules-extra-2-generic",
                "2",
                "",
                deb::deb(&[file("./lib/modules/2-generic/b.ko", b"b")]),
            ),
        ],
    );
    place.publish_with(
        "bookworm-backports",
        "NotAutomatic: yes\n",
        &[meta("3", "3-generic")],
    );
    let sources: Vec<Repository> = ["bookworm", "bookworm-security", "bookworm-backports"]
        .iter()
        .map(|suite| place.source(suite))
        .collect();
    let resolved = place
        .resolve_in(&sources, "linux-image-generic", None)
        .unwrap();
    assert_eq!(resolved.package.version, "2");
    let names: Vec<&str> = resolved
        .package
        .files
        .iter()
        .map(|it| it.package.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "linux-image-2-generic",
            "linux-modules-2-generic",
            "linux-modules-extra-2-generic"
        ]
    );
    let unpacked = place.unpack(&resolved.package).unwrap();
    let modules = unpacked.modules.unwrap();
    assert!(modules.join("a.ko").is_file() && modules.join("b.ko").is_file());
    // Asked for, it is taken from where it is; what it needs has to be there too.
    says(
        place.resolve_in(&sources, "linux-image-generic", Some("3")),
        &[
            "linux-image-generic 3 needs linux-image-3-generic",
            "bookworm-backports",
        ],
    );
}

#[test]
fn what_is_not_there() {
    let place = Place::new();
    place.publish("bookworm", &good());
    says(
        place.resolve("linux-image-6.1.0-48-cloud-amd64", None),
        &[
            "no package linux-image-6.1.0-48-cloud-amd64 for amd64 in https://127.0.0.1",
            "bookworm",
            "similar names are linux-image-6.1.0-47-cloud-amd64",
            "snapshot.debian.org",
        ],
    );
    says(
        place.resolve(IMAGE, Some("6.1.99-1")),
        &["6.1.99-1 for amd64", "its versions are 6.1.170-3"],
    );
    let nowhere = place.source("nothing");
    says(
        place.resolve_in(&[nowhere], IMAGE, None),
        &[
            "cannot get the list of packages of https://127.0.0.1",
            "nothing",
            "404",
        ],
    );
    let mut arm = place.distribution();
    arm.arch = "aarch64".into();
    let fetcher = Fetcher::direct().unwrap();
    let sources = [place.source("bookworm")];
    let cache = place.path("cache");
    let result = place
        .runtime
        .block_on(resolve(&fetcher, &cache, &sources, &arm, IMAGE, None));
    says(result, &["it has no packages for arm64"]);
    // bash has no kernel.
    let resolved = place.resolve("bash", None).unwrap();
    says(place.unpack(&resolved.package), &["bash 5"]);
}

#[test]
fn what_is_not_signed_as_it_should_be() {
    let place = Place::new();
    let packed = place.publish("bookworm", &good());
    let text = release(
        "bookworm",
        "",
        &[("main/binary-amd64/Packages.xz", &packed)],
    );
    let put = |bytes: &[u8]| {
        place.serve("dists/bookworm/InRelease", Manner::Well, bytes);
    };
    let signed = place.signer.sign("--clearsign", text.as_bytes());
    put(&signed);
    place.resolve(IMAGE, None).unwrap();

    let altered = String::from_utf8(signed.clone())
        .unwrap()
        .replace("amd64/Packages", "amd65/Packages");
    put(altered.as_bytes());
    says(
        place.resolve(IMAGE, None),
        &[
            "no valid signature",
            &place.signer.fingerprint.to_lowercase(),
        ],
    );
    put(text.as_bytes());
    says(
        place.resolve(IMAGE, None),
        &["no valid signature", "not clearsigned"],
    );
    // What stands around what is signed is not read.
    let mut around = signed.clone();
    around.extend(b"\nSuite: other\n");
    put(&around);
    assert!(place.resolve(IMAGE, None).is_err());
    let other = Signer::new(&place.path("other"));
    put(&other.sign("--clearsign", text.as_bytes()));
    says(
        place.resolve(IMAGE, None),
        &["no valid signature", "bookworm"],
    );
    // Rightly signed, and another release.
    put(&place
        .signer
        .sign("--clearsign", release("trixie", "", &[]).as_bytes()));
    says(
        place.resolve(IMAGE, None),
        &["is for trixie, expected bookworm"],
    );

    // The list is not the one that was signed for.
    let mut list = liblzma::decode_all(packed.as_slice()).unwrap();
    list.extend(
        (0..2000u32)
            .flat_map(|n| format!("\nPackage: {}", n.wrapping_mul(0x9e37_79b9)).into_bytes()),
    );
    let other = liblzma::encode_all(list.as_slice(), 1).unwrap();
    let mut same_size = packed.clone();
    *same_size.last_mut().unwrap() ^= 1;
    fs::remove_dir_all(place.path("cache")).unwrap();
    put(&signed);
    let by_hash = format!(
        "dists/bookworm/main/binary-amd64/by-hash/SHA256/{}",
        sha256(&packed)
    );
    for (bytes, word) in [(other, "bytes, expected"), (same_size, "its sha256 is")] {
        place.serve(&by_hash, Manner::Well, &bytes);
        let plain = "dists/bookworm/main/binary-amd64/Packages.xz";
        place.serve(plain, Manner::Well, &bytes);
        says(place.resolve(IMAGE, None), &["list of packages", word]);
        assert!(
            !place
                .path(&format!("cache/list-{}", sha256(&packed)))
                .exists()
        );
    }
}

#[test]
fn an_old_list_is_refused() {
    let place = Place::new();
    place.publish_with(
        "bookworm",
        "Valid-Until: Mon, 23 Nov 2020 11:22:37 UTC\n",
        &good(),
    );
    says(
        place.resolve(IMAGE, None),
        &[
            "is out of date",
            "should have been renewed by 2020-11-23",
            "check-valid-until=no",
        ],
    );
}

#[test]
fn a_list_that_is_older_than_one_before_is_refused() {
    let place = Place::new();
    let dated = |date: &str| place.publish_with("bookworm", &format!("Date: {date}\n"), &good());
    dated("Mon, 23 Nov 2020 11:22:37 UTC");
    place.resolve(IMAGE, None).unwrap();
    // The same again, and a newer one; mirrors of one name may differ by a day.
    place.resolve(IMAGE, None).unwrap();
    dated("Mon, 30 Nov 2020 11:22:37 UTC");
    place.resolve(IMAGE, None).unwrap();
    dated("Sun, 29 Nov 2020 11:22:37 UTC");
    place.resolve(IMAGE, None).unwrap();
    dated("Mon, 23 Nov 2020 11:22:37 UTC");
    says(
        place.resolve(IMAGE, None),
        &["is out of date", "from 2020-11-23", "one from 2020-11-30"],
    );
    place.publish_with("bookworm", "", &good());
    says(place.resolve(IMAGE, None), &["has no date"]);
}

#[test]
fn an_altered_package_is_not_used() {
    let place = Place::new();
    place.publish("bookworm", &good());
    let pinned = place.resolve(IMAGE, None).unwrap().package;
    let package = &good()[1];
    let mut altered = package.deb.clone();
    *altered.last_mut().unwrap() ^= 1;
    place.serve(&package.path(), Manner::Well, &altered);
    says(
        place.unpack(&pinned),
        &[
            "package linux-image-6.1.0-47-cloud-amd64 6.1.170-3",
            &sha256(&altered),
            &sha256(&package.deb),
        ],
    );
    place.nothing_is_left();
    let left: Vec<_> = fs::read_dir(place.path("downloads")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_transfer_that_broke_goes_on() {
    let place = Place::new();
    let mut packages = good();
    packages[1].manner = Manner::CutOnce;
    place.publish("bookworm", &packages);
    let pinned = place.resolve(IMAGE, None).unwrap().package;
    place.unpack(&pinned).unwrap();
    let half = packages[1].deb.len() / 2;
    assert_eq!(
        place.requests(&packages[1].path()),
        [None, Some(format!("bytes={half}-"))]
    );
}

#[test]
fn a_package_that_is_here_is_not_fetched_again() {
    let place = Place::new();
    let packages = good();
    place.publish("bookworm", &packages);
    let pinned = place.resolve(IMAGE, None).unwrap().package;
    // A home folder is often behind a symlink.
    fs::create_dir(place.path("disk")).unwrap();
    std::os::unix::fs::symlink("disk", place.path("downloads")).unwrap();
    let name = format!("downloads/package-{}", pinned.files[0].sha256);
    fs::write(place.path(&name), &packages[1].deb).unwrap();
    place.unpack(&pinned).unwrap();
    assert!(place.requests(&packages[1].path()).is_empty());
}

#[test]
fn what_mirrors_dropped_is_had_from_the_archive_of_all() {
    let place = Place::new();
    place.publish("bookworm", &good());
    let mut pinned = place.resolve(IMAGE, None).unwrap().package;
    let deb = &good()[1].deb;
    let gone = place.serve("", Manner::Well, b"") + "gone/x_1_amd64.deb";
    // Not on the distribution's own servers either, which a test does not ask.
    pinned.files[0].urls = vec![gone];
    pinned.files[0].version = "6.1.170-3+gone".into();
    says(
        place.unpack(&pinned),
        &[
            "is no longer on 127.0.0.1",
            "snapshot.debian.org does not have it either",
        ],
    );
    let hash = "aa11".repeat(10);
    let listing = format!("snapshot/mr/binary/{IMAGE}/6.1.170-3+gone/binfiles");
    server().serve(
        &listing,
        Manner::Well,
        format!(r#"{{"binary":"x","result":[{{"architecture":"arm64","hash":"bb"}},{{"architecture":"amd64","hash":"{hash}"}}]}}"#).as_bytes(),
    );
    // It is held against what is pinned.
    server().serve(
        &format!("snapshot/file/{hash}"),
        Manner::Well,
        &vec![0; deb.len()],
    );
    says(place.unpack(&pinned), &["its sha256 is"]);
    server().serve(&format!("snapshot/file/{hash}"), Manner::Well, deb);
    assert_eq!(place.unpack(&pinned).unwrap().release, RELEASE);
}

#[test]
fn packages_that_reach_elsewhere_are_refused() {
    let modules = format!("./lib/modules/{RELEASE}");
    let image = file(&format!("./boot/vmlinuz-{RELEASE}"), b"x");
    let hostile: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (
            vec![file("../../evil", b"x")],
            "leads out of the kernel's folder",
        ),
        (
            vec![file("./usr/share/../../../evil", b"x")],
            "leads out of the kernel's folder",
        ),
        (
            vec![file("/etc/evil", b"x")],
            "leads out of the kernel's folder",
        ),
        (
            vec![
                entry("././@LongLink", EntryType::GNULongName, "", b"../evil\0"),
                file("ok", b"x"),
            ],
            "leads out of the kernel's folder",
        ),
        (
            vec![
                entry("././@LongLink", EntryType::GNULongName, "", &[b'a'; 10_000]),
                file("ok", b"x"),
            ],
            "name that is too long",
        ),
        (
            vec![entry(
                &format!("{modules}/x"),
                EntryType::Symlink,
                "/etc/passwd",
                b"",
            )],
            "leads out of the kernel's folder",
        ),
        (
            vec![entry(
                &format!("{modules}/x"),
                EntryType::Symlink,
                "../../../etc",
                b"",
            )],
            "leads out of the kernel's folder",
        ),
        (
            vec![
                entry(&format!("{modules}/x"), EntryType::Symlink, "kernel", b""),
                file(&format!("{modules}/x/y.ko"), b"x"),
            ],
            "occurs twice",
        ),
        (
            vec![entry(&modules, EntryType::Symlink, "x", b"")],
            "leads out of the kernel's folder",
        ),
        (
            vec![entry(
                &format!("{modules}/x"),
                EntryType::Link,
                "/etc/passwd",
                b"",
            )],
            "leads out of the kernel's folder",
        ),
        (
            vec![entry(
                &format!("{modules}/x"),
                EntryType::Link,
                "etc/passwd",
                b"",
            )],
            "hard link",
        ),
        (
            vec![entry(&format!("{modules}/x"), EntryType::Char, "", b"")],
            "is not a file, folder or link",
        ),
        (
            vec![entry(&format!("{modules}/x"), EntryType::Fifo, "", b"")],
            "is not a file, folder or link",
        ),
        (vec![image.clone(), image.clone()], "occurs twice"),
        (
            vec![image.clone(), file("./boot/vmlinuz-other", b"x")],
            "several kernels",
        ),
        (vec![file(&format!("{modules}/x.ko"), b"x")], "no image"),
        (vec![file("./usr/bin/x", b"x")], "no kernel"),
    ];
    let place = Place::new();
    for (entries, word) in hostile {
        says(place.unpacks(&entries), &[IMAGE, word]);
        place.nothing_is_left();
        assert!(!place.path("evil").exists() && !place.path("kernels/evil").exists());
    }
    let tar = [image, vec![0; 1024]].concat();
    for (deb, word) in [
        (b"no deb".to_vec(), "not a .deb"),
        (
            deb::packed_deb("other.tar", &tar),
            "exactly one archive of files",
        ),
        (
            deb::packed_deb("data.tar.xz", b"\xfd7zXZ\0nonsense"),
            "cannot unpack it",
        ),
        (
            deb::packed_deb("data.tar", &tar[..tar.len() - 1400]),
            "cannot unpack it",
        ),
    ] {
        says(place.unpacks_deb(deb), &[IMAGE, word]);
        place.nothing_is_left();
    }
    // Packed in any way that deb(5) has.
    for (name, data) in [
        ("data.tar", tar.clone()),
        ("data.tar.zst", zstd::encode_all(tar.as_slice(), 1).unwrap()),
    ] {
        place.unpacks_deb(deb::packed_deb(name, &data)).unwrap();
        fs::remove_dir_all(place.path("kernels/one")).unwrap();
    }
}

/// What unpacks to more than any kernel has is not written to the end of the disk.
#[test]
fn bombs() {
    let place = Place::new();
    // An entry that claims much and brings it not.
    let mut header = file(&format!("./boot/vmlinuz-{RELEASE}"), b"");
    header[124..136].copy_from_slice(b"77777777777\0");
    let sum: u32 = (0..512)
        .map(|n| {
            if (148..156).contains(&n) {
                32
            } else {
                u32::from(header[n])
            }
        })
        .sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    says(place.unpacks(&[header]), &["more than 4294967296 bytes"]);
    place.nothing_is_left();
}
