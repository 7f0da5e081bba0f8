//! Malicious images and archives, which try to reach the host's files or to use up its memory and disk.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
};

use nix::libc;

use crate::{Manner, Place, text};

const SECRET: &str = "HOST-SECRET";

/// A VMDK with this capacity and this descriptor, which begins at sector `at`.
fn vmdk(capacity: u64, at: u64, descriptor: &str) -> Vec<u8> {
    let start = usize::try_from(at).unwrap() * 512;
    let mut bytes = vec![0; (start + 4096).max(128 << 10)];
    bytes[..5].copy_from_slice(b"KDMV\x01");
    let sectors = (descriptor.len() as u64).div_ceil(512);
    for (place, number) in [
        (12, capacity),
        (20, 128),
        (28, at),
        (36, sectors),
        (56, 100),
    ] {
        bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
    }
    bytes[44] = 0;
    bytes[start..start + descriptor.len()].copy_from_slice(descriptor.as_bytes());
    bytes
}

fn descriptor(kind: &str, lines: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=ffffffff\nparentCID=ffffffff\ncreateType=\"{kind}\"\n{lines}\nddb.adapterType = \"ide\"\n"
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn entry(kind: tar::EntryType, name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn vagrant(image: &[u8]) -> Vec<u8> {
    let metadata = br#"{"provider":"libvirt","format":"qcow2","virtual_size":1}"#;
    let mut bytes = Vec::new();
    for (name, content) in [("metadata.json", metadata.as_slice()), ("box.img", image)] {
        bytes.extend(entry(tar::EntryType::Regular, name, content.len() as u64));
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    gzip(&bytes)
}

/// Images of every kind that name the file, each with the expected error.
fn reaching(place: &Place, secret: &Path) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let secret = secret.to_str().unwrap();
    let flat = descriptor("monolithicFlat", &format!("RW 8 FLAT \"{secret}\" 0"));
    let sparse = descriptor("monolithicSparse", "RW 8192 SPARSE \"x.vmdk\"");
    let child = descriptor(
        "monolithicSparse",
        &format!("RW 8192 SPARSE \"x.vmdk\"\nparentFileNameHint=\"{secret}\""),
    );
    let qcow2 = |name: &str, options: &[&str]| {
        let path = place.path(name);
        let mut command = Command::new("qemu-img");
        command
            .args(["create", "-q", "-u", "-f", "qcow2"])
            .args(options);
        crate::qemu_img(command.arg(&path).arg("4M"));
        fs::read(path).unwrap()
    };
    let json = format!(
        "json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{secret}\"}}}}"
    );
    let vhd = {
        let mut bytes = place.image("vpc", &["-o", "subformat=fixed"]);
        let end = bytes.len();
        bytes[end - 512 + 63] = 4;
        bytes
    };
    let vhdx = {
        let mut bytes = place.image("vhdx", &[]);
        // The flags of the only item whose GUID begins with these bytes.
        let parameters = [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d];
        let entry = bytes.windows(8).position(|it| it == parameters).unwrap();
        let table = bytes.windows(8).position(|it| it == b"metadata").unwrap();
        let offset = u32::from_le_bytes(bytes[entry + 16..entry + 20].try_into().unwrap());
        bytes[table + offset as usize + 4] |= 2;
        bytes
    };
    vec![
        ("capacity.vmdk", vmdk(0, 1, &flat), "other files"),
        ("late.vmdk", vmdk(0, 200, &flat), "other files"),
        ("flat.vmdk", vmdk(8192, 200, &flat), "other files"),
        ("child.vmdk", vmdk(8192, 200, &child), "parent"),
        ("none.vmdk", vmdk(8192, 0, ""), "several files"),
        (
            "two.vmdk",
            vmdk(8192, 1, &format!("{sparse}RW 8 SPARSE \"{secret}\"\n")),
            "2 parts",
        ),
        (
            "json.qcow2",
            qcow2("json", &["-F", "raw", "-b", &json]),
            "backing file",
        ),
        (
            "nbd.qcow2",
            qcow2("nbd", &["-F", "raw", "-b", "nbd:127.0.0.1:1"]),
            "backing file",
        ),
        (
            "http.qcow2",
            qcow2("http", &["-F", "raw", "-b", "http://127.0.0.1:1/x"]),
            "backing file",
        ),
        (
            "ssh.qcow2",
            qcow2("ssh", &["-F", "raw", "-b", "ssh://127.0.0.1/x"]),
            "backing file",
        ),
        ("child.vhd", vhd, "parent"),
        ("child.vhdx", vhdx, "parent"),
    ]
}

#[test]
fn images_that_were_made_to_reach_the_hosts_files() {
    let place = Place::new();
    let secret = place.path("secret");
    fs::write(&secret, SECRET.repeat(1000)).unwrap();
    for (name, bytes, why) in reaching(&place, &secret) {
        let path = place.path(name);
        fs::write(&path, &bytes).unwrap();
        place.refuses(&[path.to_str().unwrap()], &[why, "refused"]);
        let url = place.server.serve(name, Manner::Well, &bytes);
        place.refuses(&[&url], &[why, "refused"]);
        fs::write(place.path("vagrant.box"), vagrant(&bytes)).unwrap();
        place.refuses(
            &[place.path("vagrant.box").to_str().unwrap()],
            &[why, "refused"],
        );
    }
}

/// Simulates a container that allows neither Landlock nor namespaces.
fn without_confinement(command: &mut Command) {
    let refuse = |call: libc::c_long| {
        [
            libc::sock_filter {
                code: 0x15,
                jt: 0,
                jf: 1,
                k: u32::try_from(call).unwrap(),
            },
            libc::sock_filter {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x0005_0000 | libc::EPERM as u32,
            },
        ]
    };
    let mut program = vec![libc::sock_filter {
        code: 0x20,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    program.extend(refuse(libc::SYS_landlock_create_ruleset));
    program.extend(refuse(libc::SYS_unshare));
    program.push(libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: 0x7fff_0000,
    });
    let install = move || {
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: the program outlives the call.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const filter,
                ),
            ]
        };
        match results {
            [0, 0] => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: only system calls, on data that was prepared before.
    unsafe { command.pre_exec(install) };
}

#[test]
fn where_nothing_confines_the_look_at_the_image_decides_and_doctor_says_so() {
    let place = Place::new();
    let secret = place.path("secret");
    fs::write(&secret, SECRET.repeat(1000)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = place.stead(arguments);
        without_confinement(&mut command);
        command.output().unwrap()
    };
    let doctor = text(&run(&["doctor"]));
    let line = doctor
        .lines()
        .find(|line| line.contains("confinement"))
        .unwrap();
    assert!(
        line.contains("warning") && line.contains("Landlock"),
        "{line}"
    );
    let line = text(&place.stead(&["doctor"]).output().unwrap());
    let line = line
        .lines()
        .find(|line| line.contains("confinement"))
        .unwrap();
    assert!(line.starts_with("ok"), "{line}");
    for (name, bytes, why) in reaching(&place, &secret) {
        let path = place.path(name);
        fs::write(&path, &bytes).unwrap();
        let output = run(&["box", "add", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{name} {}", text(&output));
        assert!(text(&output).contains(why), "{name} {}", text(&output));
    }
    let honest = place.path("honest.vmdk");
    fs::write(&honest, place.image("vmdk", &[])).unwrap();
    let output = run(&["box", "add", honest.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
}

/// Runs stead with this much memory, in bytes of address space.
fn within(place: &Place, memory: u64, arguments: &[&str]) -> std::process::Output {
    let mut command = place.stead(arguments);
    command.env("MALLOC_ARENA_MAX", "2");
    // SAFETY: a system call with numbers alone.
    unsafe {
        command.pre_exec(move || {
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, memory, memory)
                .map_err(Into::into)
        });
    }
    command.output().unwrap()
}

/// Less than the names in the archives below need.
const MEMORY: u64 = 700 << 20;
const NAME: u64 = 1 << 30;

#[test]
fn names_and_headers_without_end_take_no_memory() {
    let place = Place::new();
    let manifest = "{}";
    let first = [
        entry(
            tar::EntryType::Regular,
            "manifest.json",
            manifest.len() as u64,
        ),
        manifest.as_bytes().to_vec(),
        vec![0; 510],
    ]
    .concat();
    let metadata = entry(tar::EntryType::Regular, "metadata.json", 0);
    for kind in [
        tar::EntryType::GNULongName,
        tar::EntryType::GNULongLink,
        tar::EntryType::XHeader,
    ] {
        let long = || {
            std::io::Cursor::new(entry(kind, "long", NAME)).chain(std::io::repeat(b'a').take(NAME))
        };
        let path = place.path("bomb");
        for (what, arguments, start) in [
            ("a box", ["box", "add"], &[][..]),
            ("a Vagrant box", ["box", "add"], &metadata),
            ("a kernel", ["kernel", "import"], &[]),
        ] {
            let bytes = zstd::encode_all(std::io::Cursor::new(start).chain(long()), 1).unwrap();
            assert!(bytes.len() < 200_000);
            fs::write(&path, bytes).unwrap();
            let arguments = [arguments[0], arguments[1], path.to_str().unwrap()];
            let output = within(&place, MEMORY, &arguments);
            assert!(
                matches!(output.status.code(), Some(1 | 2)),
                "{what} {kind:?} {}",
                text(&output)
            );
            assert!(
                text(&output).contains("a name or header in it"),
                "{what} {}",
                text(&output)
            );
        }
    }
    // The same limit applies to names after a good manifest.
    let bytes = zstd::encode_all(first.as_slice(), 1).unwrap();
    fs::write(place.path("small"), bytes).unwrap();
    let output = within(
        &place,
        MEMORY,
        &["box", "add", place.path("small").to_str().unwrap()],
    );
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{}",
        text(&output)
    );
    assert!(place.left("boxes").is_empty());
}

#[test]
fn what_is_packed_may_not_ask_for_all_memory() {
    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
    let place = Place::new();
    let mut options = LzmaOptions::new_preset(0).unwrap();
    options.dict_size(1 << 30);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let stream = Stream::new_stream_encoder(&filters, Check::Crc32).unwrap();
    let raw = place.raw();
    let mut packer = liblzma::read::XzEncoder::new_stream(raw.as_slice(), stream);
    let mut bytes = Vec::new();
    packer.read_to_end(&mut bytes).unwrap();
    fs::write(place.path("image.xz"), bytes).unwrap();
    let output = within(
        &place,
        MEMORY,
        &["box", "add", place.path("image.xz").to_str().unwrap()],
    );
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{}",
        text(&output)
    );
    assert!(
        text(&output).contains("cannot be unpacked"),
        "{}",
        text(&output)
    );
}

/// A few KB that unpack to more than any disk has, and not to zeros.
#[test]
fn what_unpacks_to_far_more_is_refused() {
    let place = Place::new();
    let mut start = vec![0u8; 512];
    start[510..].copy_from_slice(b"\x55\xaa");
    let bomb = std::io::Cursor::new(start).chain(std::io::repeat(7).take(3 << 30));
    fs::write(place.path("bomb.zst"), zstd::encode_all(bomb, 1).unwrap()).unwrap();
    place.refuses(&[place.path("bomb.zst").to_str().unwrap()], &["far more"]);
}

#[test]
fn images_on_a_disk_of_their_own() {
    let place = Place::new();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::create_dir_all(place.path("data")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), place.path("data/images")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(device(elsewhere.path()), device(&place.path("data")));
    let image = place.image("qcow2", &[]);
    let url = place.server.serve("image.qcow2", Manner::Well, &image);
    let added = place.adds(&[&url]);
    assert_eq!(
        added["manifest"]["disk"]["file"]["sha256"],
        crate::sha256(&image)
    );
    let verified = place.stead(&["box", "verify"]).output().unwrap();
    assert!(verified.status.success(), "{}", text(&verified));
    assert!(
        place.left("downloads").is_empty(),
        "{:?}",
        place.left("downloads")
    );
}
