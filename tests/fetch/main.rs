//! Boxes from the network and from files: a real HTTPS server on 127.0.0.1, real images made by
//! qemu-img, no machine.

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

mod catalogue;
mod durable;
mod hostile;
mod interrupted;
mod server;
mod signer;
mod vagrant;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use server::{Manner, Server};
use sha2::{Digest, Sha256};

struct Place {
    folder: tempfile::TempDir,
    server: Server,
    /// A download times out after this many ms without a byte. Long, except in tests of the time-out.
    stall: &'static str,
}

impl Place {
    fn new() -> Self {
        Place {
            folder: tempfile::tempdir().unwrap(),
            server: Server::start(),
            stall: "20000",
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn stead(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("STEAD_DATA_DIR", self.path("data"))
            .env("SSL_CERT_FILE", self.server.certificate())
            .env("STEAD_TEST_STALL_MS", self.stall)
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn adds(&self, arguments: &[&str]) -> Value {
        let output = self
            .stead(&["--json", "box", "add"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        // Events are printed first, the box last.
        let out = String::from_utf8(output.stdout).unwrap();
        let at = out.find("\n{\n").map_or(0, |at| at + 1);
        serde_json::from_str(&out[at..]).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Checks that the command fails with these words and leaves no file under a final name.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], words: &[&str]) {
        self.refuses_add(arguments, words);
        assert!(self.left("images").is_empty(), "{:?}", self.left("images"));
        assert!(self.left("boxes").is_empty());
        assert!(self.left("origins").is_empty());
    }

    #[track_caller]
    fn refuses_add(&self, arguments: &[&str], words: &[&str]) {
        let output = self
            .stead(&["box", "add"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{}",
            text(&output)
        );
        for word in words {
            assert!(
                text(&output).contains(word),
                "{word:?} is not in {}",
                text(&output)
            );
        }
    }

    fn left(&self, folder: &str) -> Vec<String> {
        fs::read_dir(self.path("data").join(folder))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// A raw disk of 4 MiB with a partition table's mark and some content.
    fn raw(&self) -> Vec<u8> {
        let mut disk = vec![0u8; 4 << 20];
        disk[510..512].copy_from_slice(b"\x55\xaa");
        for (n, byte) in disk[1 << 20..(1 << 20) + 100_000].iter_mut().enumerate() {
            *byte = u8::try_from(n * 31 % 251).unwrap();
        }
        disk
    }

    /// The raw disk, converted by qemu-img.
    fn image(&self, format: &str, options: &[&str]) -> Vec<u8> {
        let (from, to) = (self.path("from.raw"), self.path(&format!("to.{format}")));
        fs::write(&from, self.raw()).unwrap();
        qemu_img(
            Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", format])
                .args(options)
                .args([&from, &to]),
        );
        fs::read(to).unwrap()
    }
}

fn qemu_img(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn an_image_becomes_a_box() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let url = place
        .server
        .serve("some-disk_1.qcow2", Manner::Well, &image);
    let added = place.adds(&[&url]);
    assert_eq!(added["name"], "some-disk_1");
    assert_eq!(added["seed"], "cloud-init");
    assert_eq!(added["manifest"]["disk"]["file"]["sha256"], sha256(&image));
    assert_eq!(added["virtual_size_bytes"], 4 << 20);
    // Only the lock of the download is left.
    assert!(place.left("downloads").is_empty());
    let verified = place.stead(&["box", "verify"]).output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified));
}

#[test]
fn every_format_and_packing() {
    let place = Place::new();
    let raw = place.raw();
    let qcow2 = place.image("qcow2", &[]);
    let gzip = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    };
    let bzip2 = {
        let mut writer = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
        writer.write_all(&raw).unwrap();
        writer.finish().unwrap()
    };
    let files = [
        ("a.raw", raw.clone()),
        ("b.raw.xz", liblzma::encode_all(raw.as_slice(), 1).unwrap()),
        ("c.raw.bz2", bzip2),
        ("d.qcow2.gz", gzip(&qcow2)),
        (
            "e.qcow2.zst",
            zstd::encode_all(qcow2.as_slice(), 1).unwrap(),
        ),
        (
            "f.vmdk",
            place.image("vmdk", &["-o", "subformat=streamOptimized"]),
        ),
        ("g.vhd", place.image("vpc", &[])),
        ("h.vhdx", place.image("vhdx", &[])),
    ];
    for (name, bytes) in files {
        let path = place.path(name);
        fs::write(&path, &bytes).unwrap();
        let added = place.adds(&[path.to_str().unwrap(), "--sha256", &sha256(&bytes)]);
        let file = &added["manifest"]["disk"]["file"];
        let format = added["manifest"]["disk"]["format"].as_str().unwrap();
        let disk = place.path("data").join(format!(
            "images/box-{}.{format}",
            file["sha256"].as_str().unwrap()
        ));
        // The guest will read the content of the original disk.
        let back = place.path("back.raw");
        qemu_img(
            Command::new("qemu-img")
                .args(["convert", "-f", format, "-O", "raw"])
                .args([&disk, &back]),
        );
        let back = fs::read(&back).unwrap();
        assert!(back.len() >= raw.len(), "{name}");
        assert_eq!(sha256(&back[..raw.len()]), sha256(&raw), "{name}");
        // The user's file stays.
        assert!(path.exists());
        let again = place.stead(&["box", "add"]).arg(&path).output().unwrap();
        let said = text(&again);
        assert!(
            said.contains(") is in the store already") && !said.contains("added "),
            "{said}"
        );
    }
}

#[test]
fn a_download_that_broke_goes_on() {
    let mut place = Place::new();
    place.stall = "400";
    let image = place.image("qcow2", &[]);
    let half = image.len() / 2;
    for (name, manner, ranges) in [
        (
            "cut",
            Manner::CutOnce,
            vec![None, Some(format!("bytes={half}-"))],
        ),
        (
            "stall",
            Manner::StallOnce,
            vec![None, Some(format!("bytes={half}-"))],
        ),
        ("busy", Manner::BusyOnce, vec![None, None]),
        // Answered from the start, which the status shows.
        (
            "plain",
            Manner::CutOnceNoRanges,
            vec![None, Some(format!("bytes={half}-"))],
        ),
        (
            "wrong",
            Manner::WrongRangeOnce,
            vec![None, Some(format!("bytes={half}-")), None],
        ),
    ] {
        let url = place.server.serve(name, manner, &image);
        let added = place.adds(&[&url]);
        assert_eq!(
            added["manifest"]["disk"]["file"]["sha256"],
            sha256(&image),
            "{name}"
        );
        assert_eq!(place.server.requests(name), ranges, "{name}");
    }
}

#[test]
fn a_download_that_was_killed_goes_on() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let half = image.len() / 2;
    let url = place.server.serve("killed", Manner::StallOnce, &image);
    let mut child = place
        .stead(&["box", "add", &url])
        .env("STEAD_TEST_STALL_MS", "60000")
        .spawn()
        .unwrap();
    let part = || {
        place
            .left("downloads")
            .into_iter()
            .find(|name| name.ends_with(".part"))
            .and_then(|name| fs::metadata(place.path("data/downloads").join(name)).ok())
            .is_some_and(|metadata| metadata.len() == half as u64)
    };
    while !part() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    place.adds(&[&url]);
    assert_eq!(
        place.server.requests("killed"),
        [None, Some(format!("bytes={half}-"))]
    );
}

#[test]
fn what_is_not_what_it_should_be_is_refused() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let url = place.server.serve("image", Manner::Well, &image);
    let other = "0".repeat(64);
    place.refuses(&[&url, "--sha256", &other], &[&sha256(&image), &other]);
    assert!(place.left("downloads").is_empty());
    place.refuses(&[&url, "--sha256", "x"], &["invalid SHA-256"]);

    let url = place
        .server
        .serve("page", Manner::Well, b"<!DOCTYPE html><p>hello");
    place.refuses(&[&url], &["a web page, not a disk image"]);
    let url = place.server.serve("nothing", Manner::Well, b"");
    place.refuses(&[&url], &["nor a known disk image"]);
    place.refuses(&["https://127.0.0.1:1/x"], &["127.0.0.1:1"]);
    place.refuses(&["http://127.0.0.1:1/x"], &["http:", "--sha256"]);
    place.refuses(&["ftp://127.0.0.1/x"], &["ftp"]);
    let url = place.server.serve("down", Manner::ToHttp, b"");
    place.refuses(&[&url], &["redirected from https"]);
    let missing = url.replace("/down", "/missing");
    place.refuses(&[&missing], &["404"]);
    assert_eq!(place.server.requests("missing").len(), 1);
    place.refuses(
        &["nowhere.qcow2"],
        &[
            "there is neither a file",
            "nor a box nowhere.qcow2 in the catalogue",
        ],
    );
}

#[test]
fn servers_that_never_get_there() {
    let mut place = Place::new();
    place.stall = "400";
    let image = place.image("qcow2", &[]);
    let url = place.server.serve("stalls", Manner::StallAlways, &image);
    place.refuses(&[&url], &["no data came for 0.4 s"]);
    // The server announces more bytes than it sends.
    let url = place.server.serve("lies", Manner::CutAlways, &image[..64]);
    place.refuses(&[&url], &["the transfer ended after 63 of 64 bytes"]);
    // No authority has signed its certificate.
    let output = place
        .stead(&["box", "add", &url])
        .env_remove("SSL_CERT_FILE")
        .output()
        .unwrap();
    assert!(text(&output).contains("certificate"), "{}", text(&output));
}

#[test]
fn images_that_reach_for_other_files_are_refused() {
    let place = Place::new();
    let base = place.path("base.raw");
    fs::write(&base, place.raw()).unwrap();
    let make = |name: &str, arguments: &[&str]| -> PathBuf {
        let path = place.path(name);
        qemu_img(
            Command::new("qemu-img")
                .arg("create")
                .args(arguments)
                .arg(&path)
                .arg("4M"),
        );
        path
    };
    let base_text = base.to_str().unwrap();
    let backed = make(
        "backed.qcow2",
        &["-f", "qcow2", "-F", "raw", "-b", base_text],
    );
    place.refuses(&[backed.to_str().unwrap()], &["backing file", "refused"]);
    // It is refused when compressed, too.
    let packed = place.path("backed.qcow2.zst");
    fs::write(
        &packed,
        zstd::encode_all(fs::read(&backed).unwrap().as_slice(), 1).unwrap(),
    )
    .unwrap();
    place.refuses(&[packed.to_str().unwrap()], &["backing file"]);
    let data = place.path("data.raw");
    let external = make(
        "external.qcow2",
        &[
            "-f",
            "qcow2",
            "-o",
            &format!("data_file={}", data.display()),
        ],
    );
    place.refuses(&[external.to_str().unwrap()], &["external data file"]);
    let base_vmdk = make("base.vmdk", &["-f", "vmdk"]);
    let child = make(
        "child.vmdk",
        &[
            "-f",
            "vmdk",
            "-F",
            "vmdk",
            "-b",
            base_vmdk.to_str().unwrap(),
        ],
    );
    place.refuses(&[child.to_str().unwrap()], &["parent", "refused"]);
    let flat = make(
        "flat.vmdk",
        &["-f", "vmdk", "-o", "subformat=monolithicFlat"],
    );
    place.refuses(&[flat.to_str().unwrap()], &["other files", "refused"]);
}

#[test]
fn truncated_and_damaged_images() {
    let place = Place::new();
    let xz = liblzma::encode_all(place.raw().as_slice(), 1).unwrap();
    let write = |name: &str, bytes: &[u8]| -> String {
        let path = place.path(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    place.refuses(
        &[&write("cut.xz", &xz[..xz.len() / 2])],
        &["cannot be unpacked"],
    );
    let mut altered = xz.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 0xff;
    place.refuses(&[&write("altered.xz", &altered)], &["cannot be unpacked"]);
    let mut qcow2 = place.image("qcow2", &[]);
    let sound = qcow2.clone();
    // The L1 table's offset, past the end of the file.
    qcow2[40..48].copy_from_slice(&(1u64 << 40).to_be_bytes());
    place.refuses(
        &[&write("bad.qcow2", &qcow2)],
        &["its L1 table (8 bytes) cannot be where its header says"],
    );
    // Its first entry leads there, which only qemu-img sees.
    let mut qcow2 = sound;
    let table = u64::from_be_bytes(qcow2[40..48].try_into().unwrap());
    let entry = usize::try_from(table).unwrap();
    qcow2[entry..entry + 8].copy_from_slice(&(1u64 << 63 | 1 << 40).to_be_bytes());
    place.refuses(&[&write("bad.qcow2", &qcow2)], &["qemu-img reports damage"]);
    place.refuses(
        &[&write(
            "text.xz",
            &liblzma::encode_all(&b"hello"[..], 1).unwrap(),
        )],
        &["nor a known disk image"],
    );
}

#[test]
fn two_at_once_download_once() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let url = place.server.serve("both", Manner::Well, &image);
    let digest = sha256(&image);
    let children: Vec<_> = (0..3)
        .map(|_| {
            place
                .stead(&["box", "add", &url, "--sha256", &digest])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    assert_eq!(place.server.requests("both").len(), 1);
}

/// Returns every file below a folder that contains this text.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if path.display().to_string().contains(text)
            || String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).contains(text)
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_the_environment_puts_into_a_url_is_kept_nowhere() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let url = place
        .server
        .serve("private?t=hunter2", Manner::Well, &image);
    let url = url
        .replace("https://", "https://me:${env.TOKEN}@")
        .replace("hunter2", "${env.TOKEN}");
    let machinefile = format!("project \"p\"\nmachine \"m\" {{ box \"{url}\"; }}\n");
    fs::write(place.path("Machinefile"), machinefile).unwrap();
    let said = |arguments: &[&str]| {
        let mut command = place.stead(arguments);
        text(&command.env("TOKEN", "hunter2").output().unwrap())
    };
    let agreed = said(&["trust", "--yes"]);
    assert!(agreed.contains("TOKEN"), "{agreed}");
    let update = said(&["box", "update"]);
    let lock = fs::read_to_string(place.path("Machinefile.lock")).unwrap();
    assert!(
        lock.contains(&url) && lock.contains(&sha256(&image)),
        "{lock}"
    );
    let again = said(&["box", "update"]);
    assert!(again.contains("is unchanged"), "{again}");
    let before = place.server.requests("private?t=hunter2").len();
    let outdated = said(&["box", "outdated"]);
    assert!(outdated.contains("is skipped"), "{outdated}");
    assert_eq!(place.server.requests("private?t=hunter2").len(), before);
    // The same for a file that is gone, and for one given on the command line.
    let gone = url
        .replace("private", "gone")
        .replace("${env.TOKEN}", "hunter2");
    let missing = said(&["--json", "box", "add", &gone]);
    assert!(missing.contains("404"), "{missing}");
    let there = url.replace("${env.TOKEN}", "hunter2");
    let added = said(&["--json", "box", "add", &there]);
    assert!(added.contains("digest"), "{added}");
    for text in [
        agreed,
        update,
        lock,
        again,
        outdated,
        missing,
        added,
        said(&["box", "list"]),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(
        files_with(&place.path("data"), "hunter2"),
        Vec::<PathBuf>::new()
    );
}

#[test]
fn a_fetched_box_that_says_another_ones_name_does_not_answer_to_it() {
    let place = Place::new();
    let image = place.image("qcow2", &[]);
    let folder = place.path("evil");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("disk.qcow2"), &image).unwrap();
    let manifest = serde_json::json!({
        "format_version": 1, "name": "base", "version": "99", "arch": std::env::consts::ARCH,
        "disk": {
            "file": { "name": "disk.qcow2", "size": image.len(), "sha256": sha256(&image) },
            "format": "qcow2", "virtual_size": 8 << 20,
        },
        "boot": { "bootloader": {} }, "seed": "cloud-init", "login_user": "stead",
    });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    stead::boxes::write_archive(&folder, &place.path("evil.tar.zst")).unwrap();
    let archive = fs::read(place.path("evil.tar.zst")).unwrap();
    let url = place.server.serve("evil.tar.zst", Manner::Well, &archive);
    let of = |name: &str| {
        let machinefile = format!("project \"p\"\nmachine \"m\" {{ box \"{name}\"; }}\n");
        fs::write(place.path("Machinefile"), machinefile).unwrap();
        let output = place.stead(&["box", "update"]).output().unwrap();
        let _ = fs::remove_file(place.path("Machinefile.lock"));
        (output.status.success(), text(&output))
    };
    let (fetched, said) = of(&url);
    assert!(fetched, "{said}");
    for name in ["base", "base:99"] {
        let (found, said) = of(name);
        assert!(
            !found && said.contains(&url) && said.contains("--name base"),
            "{said}"
        );
    }
    // It is listed by its source, or by a name that the user gives it.
    let list = text(&place.stead(&["box", "list"]).output().unwrap());
    assert!(list.contains(&url), "{list}");
    // A fetched box can be fetched again, so `prune` asks and removes it when nothing needs it.
    let prune = |arguments: &[&str]| {
        let prune = [
            "--connect",
            "test:///default",
            "box",
            "prune",
            "--days",
            "0",
        ];
        let output = place
            .stead(&[&prune[..], arguments].concat())
            .output()
            .unwrap();
        (output.status.code().unwrap(), text(&output))
    };
    let (_, said) = prune(&["--dry-run"]);
    assert!(said.contains("would remove box base:99"), "{said}");
    let (code, said) = prune(&[]);
    assert!(code == 2 && said.contains("not a terminal"), "{said}");
    let (code, said) = prune(&["-y"]);
    assert!(code == 0 && said.contains("freed"), "{said}");
    assert!(place.left("data/images").is_empty());
    place.adds(&[&url, "--name", "theirs"]);
    let (found, said) = of("theirs");
    assert!(found && said.contains("theirs is 99"), "{said}");
    assert!(!of("base").0);
}

#[test]
fn the_lock_file_moves_with_box_update_only() {
    let place = Place::new();
    let first = place.image("qcow2", &[]);
    let mut second = place.raw();
    second[3 << 20] = 1;
    let url = place.server.serve("pinned", Manner::Well, &first);
    let machinefile = format!("project \"p\"\nmachine \"m\" {{ box \"{url}\"; }}\n");
    fs::write(place.path("Machinefile"), machinefile).unwrap();
    let update = || {
        let output = place.stead(&["box", "update"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let lock = || fs::read_to_string(place.path("Machinefile.lock")).unwrap();
    update();
    assert!(lock().contains(&sha256(&first)), "{}", lock());
    let before = lock();
    assert!(update().contains("is unchanged"));
    assert_eq!(lock(), before);
    let outdated = || text(&place.stead(&["box", "outdated"]).output().unwrap());
    assert!(
        outdated().contains("all boxes are up to date"),
        "{}",
        outdated()
    );
    place.server.serve("pinned", Manner::Well, &second);
    assert!(
        outdated().contains("changed on the server"),
        "{}",
        outdated()
    );
    assert!(update().contains("is now"), "{}", lock());
    assert!(lock().contains(&sha256(&second)), "{}", lock());
    assert!(Path::new(&place.path("Machinefile.lock")).exists());
}
