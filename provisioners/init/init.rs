//! The first program of a machine that boots a kernel which is not its box's: it loads the few
//! drivers that are needed to find the root, mounts it, mounts the kernel's modules over
//! `/lib/modules/RELEASE` from a disk of their own, and hands over to the root's own init.
//!
//! Freestanding (no libc, system calls by number), so that it needs nothing in the initramfs but
//! itself, and starts in no time. What it works on is laid out by `src/kernel/initramfs.rs`:
//!
//! ```text
//! /init
//! /drivers/base.list, ext4.list, squashfs.list …   names of files in /drivers, in loading order
//! /drivers/*.ko                                     uncompressed
//! /tree/…                                           all modules, where no disk can hold them
//! /carry/sysctl.d/…, /carry/modprobe.d/… …          what a captured host's settings put below /run
//! ```
//!
//! What it says on the console starts with "stead-init: "; "stead-init: cannot go on" ends the
//! host's wait.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{format, string::String, vec, vec::Vec};

mod sys;

use sys::Fail;

/// The serial number of the disk that holds the modules (src/kernel/mod.rs).
const MODULES_SERIAL: &str = "stead-modules";
/// How long a disk may take to appear, in steps of 10 ms: controllers are probed as their drivers
/// load, so it is there at once but where a kernel probes asynchronously.
const DISK_PATIENCE: u32 = 1500;
/// Where the modules are that come in the initramfs.
const TREE: &str = "/tree";
/// Where files are that belong below /run of the root.
const CARRY: &str = "/carry";
const ROOT: &str = "/root";
/// Where systemd and others keep it.
const INITS: [&str; 4] = [
    "/sbin/init",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/bin/init",
];

/// Kernel and user space agree on these (linux/fs.h).
const MS_RDONLY: usize = 1;
const MS_NOSUID: usize = 2;
const MS_NODEV: usize = 4;
const MS_REMOUNT: usize = 32;
const MS_MOVE: usize = 8192;

#[unsafe(no_mangle)]
extern "C" fn stead_main(stack: *const usize) -> ! {
    let (Ok(said) | Err(said)) = start(stack);
    sys::print(&format!("stead-init: cannot go on: {said}\n"));
    loop {
        sys::sleep_ms(60_000);
    }
}

/// The kernel command line, as far as it is for the first program
/// (Documentation/admin-guide/kernel-parameters.rst).
#[derive(Default)]
struct Asked {
    root: Option<String>,
    fstype: Option<String>,
    flags: Option<String>,
    read_only: bool,
    init: Option<String>,
}

fn parse(cmdline: &str) -> Asked {
    let mut asked = Asked {
        read_only: true,
        ..Asked::default()
    };
    for word in words(cmdline) {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, String::from(value)),
            None => (word.as_str(), String::new()),
        };
        match key {
            "root" => asked.root = Some(value),
            "rootfstype" => asked.fstype = Some(value),
            "rootflags" => asked.flags = Some(value),
            "ro" => asked.read_only = true,
            "rw" => asked.read_only = false,
            "init" => asked.init = Some(value),
            // What follows is for the root's init.
            "--" => break,
            _ => {}
        }
    }
    asked
}

/// Quotes may stand around a value or a whole word, as the kernel reads them.
fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    all.push(core::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    all
}

/// Does not come back where all goes well; else both are why.
fn start(stack: *const usize) -> Result<String, String> {
    for folder in ["/dev", "/proc", "/sys", ROOT, "/modules"] {
        sys::mkdir(folder);
    }
    sys::mount("devtmpfs", "/dev", "devtmpfs", 0, "")
        .map_err(failed("mount /dev (CONFIG_DEVTMPFS)"))?;
    sys::use_console();
    sys::mount("proc", "/proc", "proc", 0, "").map_err(failed("mount /proc (CONFIG_PROC_FS)"))?;
    sys::mount("sysfs", "/sys", "sysfs", 0, "").map_err(failed("mount /sys (CONFIG_SYSFS)"))?;
    let asked = parse(&text("/proc/cmdline"));

    load("base");
    let (device, kind) = find_root(&asked)?;
    let mut flags = asked.flags.clone().unwrap_or_default();
    if kind == "btrfs" && asked.root.is_none() && asked.flags.is_none() {
        flags = btrfs_subvolume(&device).unwrap_or_default();
    }
    load(&kind);
    let read_only = if asked.read_only { MS_RDONLY } else { 0 };
    sys::mount(&device, ROOT, &kind, read_only, &flags)
        .map_err(failed(&format!("mount the root {device} as {kind}")))?;

    let release = sys::kernel_release();
    modules(&release, asked.read_only)?;
    carry()?;

    let init = match &asked.init {
        Some(init) => init.clone(),
        None => INITS
            .iter()
            .find(|init| exists_in_root(init))
            .map(|init| String::from(*init))
            .ok_or_else(|| format!("there is no init on {device}"))?,
    };
    sys::mount("/dev", &format!("{ROOT}/dev"), "", MS_MOVE, "")
        .map_err(failed("move /dev into the root"))?;
    sys::unmount("/sys");
    sys::unmount("/proc");
    // The memory that they take is the machine's.
    sys::remove_files("/drivers");
    sys::remove("/init");
    sys::chdir(ROOT).map_err(failed("enter the root"))?;
    sys::mount(".", "/", "", MS_MOVE, "").map_err(failed("move the root to /"))?;
    sys::chroot(".").map_err(failed("change the root"))?;
    let _ = sys::chdir("/");
    let error = sys::execute(&init, stack);
    Ok(format!("run {init}: {error}"))
}

fn failed(what: &str) -> impl Fn(Fail) -> String {
    move |fail| format!("{what}: {fail}")
}

fn text(path: &str) -> String {
    let bytes = sys::read(path).unwrap_or_default();
    String::from(String::from_utf8_lossy(&bytes).trim())
}

/// Loads a group of drivers. One that is there already, built in, or not for this CPU is no
/// trouble here: what matters is whether the root can be mounted in the end.
fn load(group: &str) {
    for name in text(&format!("/drivers/{group}.list")).lines() {
        if let Err(fail) = sys::load_module(&format!("/drivers/{name}"))
            && !fail.is_harmless_to_a_module()
        {
            sys::print(&format!("stead-init: {name}: {fail}\n"));
        }
    }
}

struct Disk {
    /// Such as /dev/vda1.
    node: String,
    kind: &'static str,
    uuid: String,
    label: String,
}

/// Where the root is, and what kind of file system it is.
fn find_root(asked: &Asked) -> Result<(String, String), String> {
    let wanted = asked.root.as_deref().unwrap_or_default();
    let mut seen = Vec::new();
    for _ in 0..DISK_PATIENCE {
        if wanted.starts_with("/dev/") && !wanted.starts_with("/dev/disk/") {
            if sys::exists(wanted) {
                let kind = match &asked.fstype {
                    Some(kind) => kind.clone(),
                    None => String::from(
                        look_at(wanted)
                            .ok_or_else(|| format!("what is on {wanted} is no file system that is known here; rootfstype= names it"))?
                            .kind,
                    ),
                };
                return Ok((String::from(wanted), kind));
            }
        } else {
            seen = disks();
            if let Some(found) = choose(wanted, &seen)? {
                return Ok(found);
            }
        }
        sys::sleep_ms(10);
    }
    let names: Vec<String> = seen
        .iter()
        .map(|disk| format!("{} ({} {})", disk.node, disk.kind, disk.uuid))
        .collect();
    let there = if names.is_empty() {
        String::from("there is no disk with a file system that is known here")
    } else {
        format!("there are: {}", names.join(", "))
    };
    Err(match wanted {
        "" => format!("no file system holds an init; {there}"),
        wanted => format!("the root {wanted} is not there; {there}"),
    })
}

fn choose(wanted: &str, disks: &[Disk]) -> Result<Option<(String, String)>, String> {
    let of = |disk: &Disk| (disk.node.clone(), String::from(disk.kind));
    if let Some(uuid) = wanted
        .strip_prefix("UUID=")
        .or_else(|| wanted.strip_prefix("/dev/disk/by-uuid/"))
    {
        return Ok(disks.iter().find(|disk| disk.uuid == uuid).map(of));
    }
    if let Some(label) = wanted
        .strip_prefix("LABEL=")
        .or_else(|| wanted.strip_prefix("/dev/disk/by-label/"))
    {
        return Ok(disks.iter().find(|disk| disk.label == label).map(of));
    }
    if let Some(uuid) = wanted
        .strip_prefix("PARTUUID=")
        .or_else(|| wanted.strip_prefix("/dev/disk/by-partuuid/"))
    {
        return Ok(disks
            .iter()
            .find(|disk| partition_uuid(&disk.node).is_some_and(|it| it.eq_ignore_ascii_case(uuid)))
            .map(of));
    }
    if !wanted.is_empty() {
        return Err(format!(
            "root={wanted} is none of /dev/…, UUID=…, LABEL=… and PARTUUID=…"
        ));
    }
    // Nobody says which: the one that holds an init.
    for disk in disks {
        load(disk.kind);
        for (subvolume, flags) in subvolumes(disk.kind) {
            if sys::mount(&disk.node, ROOT, disk.kind, MS_RDONLY, flags).is_err() {
                continue;
            }
            let found = INITS
                .iter()
                .any(|init| exists_in_root(&format!("{subvolume}{init}")));
            sys::unmount(ROOT);
            if found {
                return Ok(Some(of(disk)));
            }
        }
    }
    Ok(None)
}

/// Where distributions put their root in a btrfs (Fedora: root, openSUSE and Ubuntu: @).
fn subvolumes(kind: &str) -> Vec<(&'static str, &'static str)> {
    if kind == "btrfs" {
        vec![("", ""), ("", "subvol=root"), ("", "subvol=@")]
    } else {
        vec![("", "")]
    }
}

fn btrfs_subvolume(device: &str) -> Option<String> {
    load("btrfs");
    for (_, flags) in subvolumes("btrfs") {
        if sys::mount(device, ROOT, "btrfs", MS_RDONLY, flags).is_err() {
            continue;
        }
        let found = INITS.iter().any(|init| exists_in_root(init));
        sys::unmount(ROOT);
        if found {
            return Some(String::from(flags));
        }
    }
    None
}

/// A link such as /sbin → usr/sbin is followed within the root by hand, since an absolute one
/// would lead out of it.
fn exists_in_root(path: &str) -> bool {
    resolve_in_root(path, 0).is_some()
}

fn resolve_in_root(path: &str, depth: u32) -> Option<String> {
    if depth > 20 {
        return None;
    }
    let mut at = String::new();
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    while let Some(part) = parts.next() {
        let next = format!("{at}/{part}");
        match sys::read_link(&format!("{ROOT}{next}")) {
            Some(target) => {
                let rest: Vec<&str> = parts.collect();
                let base = if target.starts_with('/') { "" } else { &at };
                let joined = format!("{base}/{target}/{}", rest.join("/"));
                return resolve_in_root(&joined, depth + 1);
            }
            None => at = next,
        }
    }
    let whole = format!("{ROOT}{at}");
    sys::exists(&whole).then_some(whole)
}

/// Every disk and partition with a file system that is known here, in the kernel's order.
fn disks() -> Vec<Disk> {
    let mut names = sys::list("/sys/class/block");
    names.sort();
    names
        .iter()
        .filter(|name| {
            !name.starts_with("loop") && !name.starts_with("ram") && !name.starts_with("sr")
        })
        .filter(|name| text(&format!("/sys/class/block/{name}/serial")) != MODULES_SERIAL)
        .filter_map(|name| look_at(&format!("/dev/{name}")))
        .collect()
}

/// What is on a disk, by its superblock: ext4 (kernel, Documentation/filesystems/ext4/super.rst),
/// XFS (xfs_sb in libxfs/xfs_format.h), btrfs (btrfs_super_block in uapi/linux/btrfs_tree.h).
fn look_at(node: &str) -> Option<Disk> {
    let start = sys::read_at(node, 0, 4096)?;
    let disk = |kind, uuid: &[u8], label: &[u8]| {
        let end = label.iter().position(|c| *c == 0).unwrap_or(label.len());
        Some(Disk {
            node: String::from(node),
            kind,
            uuid: uuid_text(uuid),
            label: String::from_utf8_lossy(&label[..end]).into_owned(),
        })
    };
    if start.get(1024 + 0x38..1024 + 0x3a) == Some(&[0x53, 0xef]) {
        return disk(
            "ext4",
            start.get(1024 + 0x68..1024 + 0x78)?,
            start.get(1024 + 0x78..1024 + 0x88)?,
        );
    }
    if start.get(..4) == Some(b"XFSB") {
        return disk("xfs", start.get(32..48)?, start.get(108..120)?);
    }
    let btrfs = sys::read_at(node, 65536, 4096)?;
    if btrfs.get(0x40..0x48) == Some(b"_BHRfS_M") {
        return disk("btrfs", btrfs.get(0x20..0x30)?, btrfs.get(0x12b..0x22b)?);
    }
    None
}

fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Of a partition: by the partition table of its disk (UEFI specification, GPT; else the disk
/// signature of an MBR and the partition's number, as the kernel has it).
fn partition_uuid(node: &str) -> Option<String> {
    let name = node.strip_prefix("/dev/")?;
    let number: usize = text(&format!("/sys/class/block/{name}/partition"))
        .parse()
        .ok()?;
    let digits = format!("{number}");
    let disk = name.strip_suffix(digits.as_str())?;
    let disk = disk
        .strip_suffix('p')
        .filter(|disk| sys::exists(&format!("/dev/{disk}")))
        .unwrap_or(disk);
    let table = sys::read_at(&format!("/dev/{disk}"), 0, 512 + 512 + 128 * 128)?;
    if table.get(512..520) == Some(b"EFI PART") {
        let entry = 1024 + (number - 1) * 128;
        let guid = table.get(entry + 16..entry + 32)?;
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        let bytes: Vec<u8> = order.iter().map(|n| guid[*n]).collect();
        return Some(uuid_text(&bytes));
    }
    let signature = table.get(440..444)?;
    Some(format!(
        "{:02x}{:02x}{:02x}{:02x}-{number:02x}",
        signature[3], signature[2], signature[1], signature[0]
    ))
}

/// Puts the kernel's modules where the root's programs look for them.
fn modules(release: &str, read_only: bool) -> Result<(), String> {
    let mut names = sys::list("/sys/class/block");
    names.retain(|name| text(&format!("/sys/class/block/{name}/serial")) == MODULES_SERIAL);
    let in_memory = sys::exists(TREE);
    if names.is_empty() && !in_memory {
        return Ok(());
    }
    // A root whose /lib is no link has its modules there.
    let folder = resolve_in_root("/lib/modules", 0).or_else(|| {
        let lib = resolve_in_root("/lib", 0)?;
        Some(format!("{lib}/modules"))
    });
    let folder = folder.ok_or("there is no /lib on the root, where kernel modules belong")?;
    let place = format!("{folder}/{release}");
    if !sys::exists(&place) {
        if read_only {
            sys::mount("", ROOT, "", MS_REMOUNT, "").map_err(failed("write to the root"))?;
        }
        sys::mkdir(&folder);
        sys::mkdir(&place);
        if read_only {
            sys::mount("", ROOT, "", MS_REMOUNT | MS_RDONLY, "")
                .map_err(failed("make the root read-only again"))?;
        }
    }
    let Some(name) = names.first() else {
        sys::mount("modules", &place, "tmpfs", 0, "mode=0755")
            .map_err(failed("make room for the kernel's modules (CONFIG_TMPFS)"))?;
        return move_tree(TREE, &place).map_err(failed("copy the kernel's modules"));
    };
    load("squashfs");
    sys::mount(&format!("/dev/{name}"), &place, "squashfs", MS_RDONLY, "")
        .map_err(failed(&format!("mount the kernel's modules on {place}")))
}

/// Puts settings where the root's programs look for those that hold until the next boot. An init
/// that finds /run mounted leaves it as it is.
fn carry() -> Result<(), String> {
    if !sys::exists(CARRY) {
        return Ok(());
    }
    let run = resolve_in_root("/run", 0).ok_or("there is no /run on the root, for settings")?;
    // As systemd mounts it (src/shared/mount-setup.c).
    let options = "mode=0755,size=20%,nr_inodes=800k";
    sys::mount("tmpfs", &run, "tmpfs", MS_NOSUID | MS_NODEV, options)
        .map_err(failed("make room for settings in /run (CONFIG_TMPFS)"))?;
    move_tree(CARRY, &run).map_err(failed("copy settings to /run"))
}

/// File by file, so that not much is in memory twice.
fn move_tree(from: &str, to: &str) -> Result<(), Fail> {
    for name in sys::list(from) {
        let (source, target) = (format!("{from}/{name}"), format!("{to}/{name}"));
        if sys::is_folder(&source) {
            sys::mkdir(&target);
            move_tree(&source, &target)?;
        } else {
            sys::copy(&source, &target)?;
            sys::remove(&source);
        }
    }
    Ok(())
}
