//! virtiofsd: one process per shared folder, which is started before the machine and ends with it.
//!
//! stead starts it itself, even where libvirt could: libvirt 9.0 cannot for an ordinary user, and the
//! virtiofsd that it starts for root works as root and passes ids through. stead's works as the owner of
//! the files, so the guest can do to them only what that user can, and everything that the guest creates
//! belongs to that user.
//!
//! It ends when QEMU closes its socket. If a killed stead left one waiting, it is ended before the next
//! start. No file records the process: the socket's path in its arguments identifies it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use crate::{
    guest::MachineFiles,
    host::{
        file, open,
        paths::{CLOSED, PASSABLE},
        process::{self, Start},
    },
    machine::Share,
    report::clean::Shown,
};

use super::shares::ShareError;

/// The environment variable with the virtiofsd to use, which takes precedence over all others.
pub const PROGRAM_VARIABLE: &str = "STEAD_VIRTIOFSD";

/// The first version with --translate-uid.
const LEAST: (u32, u32) = (1, 13);

/// What virtiofsd logs when QEMU can connect to it (its main.rs).
const READY: &str = "Waiting for vhost-user socket connection";

/// How long a virtiofsd may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A virtiofsd with the features that stead needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtiofsd {
    pub program: PathBuf,
    pub version: String,
}

/// Why folders cannot be shared by virtiofs from this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub why: String,
    pub remedy: String,
}

const INSTALL: &str = "install it (Debian 13 and current Fedora have it: `apt install virtiofsd`, `dnf install virtiofsd`; elsewhere run `apt install libcap-ng-dev libseccomp-dev && cargo install virtiofsd --locked`, and put it in PATH)";

/// Finds the virtiofsd of this host: the one that `STEAD_VIRTIOFSD` names, or else the first that can
/// translate ids: in PATH, in QEMU's descriptors of vhost-user programs (docs/interop/vhost-user.json of
/// QEMU), and in the folders where distributions install it.
pub fn find() -> Result<Virtiofsd, Lack> {
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE).filter(|it| !it.is_empty()) {
        let program = PathBuf::from(named);
        return look(&program).map_err(|why| Lack {
            why: format!(
                "cannot use {}, which {PROGRAM_VARIABLE} names: it {why}",
                program.shown()
            ),
            remedy: format!("set {PROGRAM_VARIABLE} to a virtiofsd, or unset it"),
        });
    }
    let mut unfit = None;
    for program in candidates() {
        match look(&program) {
            Ok(found) => return Ok(found),
            Err(why) => unfit = unfit.or(Some(format!("{} {why}", program.shown()))),
        }
    }
    Err(Lack {
        why: match unfit {
            None => "this host has no virtiofsd".into(),
            Some(unfit) => format!("this host has no usable virtiofsd: {unfit}"),
        },
        remedy: INSTALL.into(),
    })
}

fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = process::find_all("virtiofsd").collect();
    for folder in ["/etc/qemu/vhost-user", "/usr/share/qemu/vhost-user"] {
        let mut files: Vec<_> = (fs::read_dir(folder).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .collect();
        files.sort();
        found.extend(
            files
                .iter()
                .filter_map(|file| fs::read(file).ok())
                .filter_map(|json| binary_of(&json)),
        );
    }
    for folder in [
        "/usr/libexec",
        "/usr/lib",
        "/usr/lib/virtiofsd",
        "/usr/lib/qemu",
    ] {
        found.push(Path::new(folder).join("virtiofsd"));
    }
    let mut seen = Vec::new();
    found.retain(|path| {
        path.is_file() && !seen.contains(path) && {
            seen.push(path.clone());
            true
        }
    });
    found
}

/// Returns the program of a descriptor that is for file systems.
fn binary_of(json: &[u8]) -> Option<PathBuf> {
    let descriptor: serde_json::Value = serde_json::from_slice(json).ok()?;
    (descriptor["type"] == "fs").then_some(())?;
    descriptor["binary"].as_str().map(PathBuf::from)
}

fn look(program: &Path) -> Result<Virtiofsd, String> {
    let output = process::Command::new(program, "virtiofsd")
        .arg("--version")
        .run()
        .map_err(|error| format!("does not run ({error})"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = judge(&said)?;
    Ok(Virtiofsd {
        program: program.to_path_buf(),
        version,
    })
}

/// Returns the version if it is new enough: `virtiofsd 1.13.2`. QEMU 7.2 and older came with their own,
/// written in C: `virtiofsd version 7.2.22 (Debian …)`.
///
/// # Errors
/// The reason, as a sentence that lacks its subject: "is 1.10.1, …".
fn judge(said: &str) -> Result<String, String> {
    let mut words = said.split_whitespace();
    let (Some("virtiofsd"), Some(version)) = (words.next(), words.next()) else {
        return Err("does not print its version".into());
    };
    if version == "version" {
        return Err("is the old one from QEMU, which an ordinary user cannot run".into());
    }
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let at_least = match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= LEAST,
        _ => false,
    };
    if at_least {
        Ok(version.to_string())
    } else {
        Err(format!(
            "is {version}, which cannot translate ids ({}.{} and newer can)",
            LEAST.0, LEAST.1
        ))
    }
}

/// The user who does on the host everything that the guest does in a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// Returns the user who runs stead, or the owner of the folder if that is root.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let uid = nix::unistd::geteuid();
        if !uid.is_root() {
            return Ok(Owner {
                uid: uid.as_raw(),
                gid: nix::unistd::getegid().as_raw(),
            });
        }
        let metadata = fs::metadata(folder)?;
        Ok(Owner {
            uid: metadata.uid(),
            gid: metadata.gid(),
        })
    }

    fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Makes a command run as this user. std also drops root's supplementary groups.
    fn runs(self, command: &mut Command) {
        if self.is_another() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Whether root runs stead and this is another user.
    fn is_another(self) -> bool {
        nix::unistd::geteuid().is_root() && !self.is_root()
    }
}

/// Returns why this user cannot confine virtiofsd to the folder, if so. It takes namespaces; without
/// them, a hostile guest could reach files outside the folder.
pub fn no_sandbox(owner: Owner) -> Option<Lack> {
    if owner.is_root() {
        return None;
    }
    let mut probe = process::Command::new("unshare", "util-linux")
        .args(["--user", "--map-root-user", "--mount", "--pid", "--net"])
        .args(["--fork", "--mount-proc", "true"]);
    if owner.is_another() {
        probe = probe.user(owner.uid, owner.gid);
    }
    let said = match probe.run() {
        Ok(output) if output.status.success() => return None,
        Ok(output) => (output.message().lines().last())
            .unwrap_or_default()
            .to_string(),
        Err(error) => error.to_string(),
    };
    Some(Lack {
        why: format!("an ordinary user may not create namespaces on this host ({said})"),
        remedy: "allow user namespaces, which confine such a program to the folder: as root run `sysctl -w kernel.unprivileged_userns_clone=1` (Debian) or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu); in a container, the container's host must allow them".into(),
    })
}

/// The folder of a share's socket, and the log of its virtiofsd.
#[derive(Clone, Debug)]
pub struct SharePaths {
    folder: PathBuf,
    log: PathBuf,
}

impl SharePaths {
    pub fn of(share: &Share, files: &MachineFiles) -> Self {
        let tag = share.tag();
        SharePaths {
            folder: files.share(&tag),
            log: files.share_log(&tag),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

/// Returns the arguments of `virtiofsd`. `login` is the uid and gid that own all files in the guest.
pub fn arguments(share: &Share, socket: &Path, owner: Owner, login: (u32, u32)) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut path = |option: &str, path: &Path| {
        let mut word = OsString::from(option);
        word.push(path);
        words.push(word);
    };
    path("--socket-path=", socket);
    path("--shared-dir=", &share.from);
    let mut push = |word: String| words.push(word.into());
    // The folder becomes its root, so a guest's kernel cannot reach anything else.
    push("--sandbox=namespace".into());
    push("--cache=auto".into());
    // The folder may contain several file systems: the guest can tell their inodes apart.
    push("--announce-submounts".into());
    if share.readonly {
        push("--readonly".into());
    }
    // Maps all ids of one side to one id of the other (virtiofsd 1.13, README: --translate-uid).
    let (guest_uid, guest_gid) = login;
    for (option, host, guest) in [("uid", owner.uid, guest_uid), ("gid", owner.gid, guest_gid)] {
        push(format!(
            "--translate-{option}=squash-guest:0:{host}:{}",
            u32::MAX
        ));
        push(format!(
            "--translate-{option}=squash-host:0:{guest}:{}",
            u32::MAX
        ));
    }
    if owner.is_root() {
        // As root it could create device files of the host.
        push("--modcaps=-mknod".into());
        // Do not keep a descriptor open for each file that the guest knows; only root may do without.
        push("--inode-file-handles=prefer".into());
    }
    words
}

/// Starts the virtiofsd of a share, and returns when QEMU can connect to it. `qemu` is the user that QEMU
/// runs as, if it is not the user who runs stead. Blocks.
///
/// # Errors
/// If the folder does not exist or was replaced by a symlink, or virtiofsd does not start.
#[expect(clippy::disallowed_methods, reason = "it runs as long as the machine")]
pub fn start(
    virtiofsd: &Virtiofsd,
    share: &Share,
    paths: &SharePaths,
    login: (u32, u32),
    qemu: Option<Owner>,
) -> Result<(), ShareError> {
    let io = |doing: &'static str, path: &Path| {
        let path = path.to_path_buf();
        move |source| ShareError::Io {
            doing,
            path,
            source,
        }
    };
    if !share.from.is_dir() {
        return Err(ShareError::Gone {
            from: share.from.clone(),
        });
    }
    let folder =
        open::folder(&share.from).map_err(|error| match open::was_swapped(&share.from) {
            true => swapped(share),
            false => io("open", &share.from)(error),
        })?;
    let owner = Owner::of(&open::in_proc(&folder)).map_err(io("read", &share.from))?;
    end(paths);
    make_folder(paths, owner).map_err(io("make", &paths.folder))?;
    let log = (File::options().write(true).create(true).truncate(true))
        .mode(0o600)
        .open(&paths.log)
        .map_err(io("write", &paths.log))?;
    let more = log.try_clone().map_err(io("write", &paths.log))?;
    let socket = paths.socket();
    let mut command = Command::new(&virtiofsd.program);
    command
        .args(arguments(share, &socket, owner, login))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(more))
        .stderr(Stdio::from(log))
        // Ctrl-C is for stead; the machine and its folders keep running.
        .process_group(0);
    owner.runs(&mut command);
    // Wakes up for every line, and for the end, when the last writer closes the file.
    let watch = Inotify::init(InitFlags::IN_CLOEXEC).and_then(|it| {
        it.add_watch(
            &paths.log,
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE,
        )
        .map(|_| it)
    });
    let mut child = command.start().map_err(io("run", &virtiofsd.program))?;
    // The command holds descriptors of the log that are open for writing.
    drop(command);
    loop {
        let said = fs::read_to_string(&paths.log).unwrap_or_default();
        if said.contains(READY) {
            break;
        }
        if child
            .try_wait()
            .map_err(io("wait for", &virtiofsd.program))?
            .is_some()
        {
            let said = fs::read_to_string(&paths.log).unwrap_or_default();
            return Err(ShareError::NotStarted {
                from: share.from.clone(),
                said: last_words(&said),
            });
        }
        if watch.as_ref().map_or(true, |it| it.read_events().is_err()) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // virtiofsd opened the folder by its name, and a guest may be able to write to the folder above. QEMU
    // may only connect if virtiofsd is confined to the folder that was opened here.
    if !is_confined_to(paths, &folder) {
        end(paths);
        return Err(swapped(share));
    }
    if let Some(qemu) = qemu {
        chown(&socket, Some(qemu.uid), Some(qemu.gid)).map_err(io("give away", &socket))?;
    }
    Ok(())
}

fn swapped(share: &Share) -> ShareError {
    ShareError::Swapped {
        from: share.from.clone(),
    }
}

/// Whether the root of one of the processes that serve the share is this very folder. The other process,
/// which started it, still has the host's root.
fn is_confined_to(paths: &SharePaths, folder: &OwnedFd) -> bool {
    let Ok(wanted) = fs::metadata(open::in_proc(folder)) else {
        return false;
    };
    serving(paths).iter().any(|(pid, _)| {
        fs::metadata(format!("/proc/{pid}/root/."))
            .is_ok_and(|root| (root.dev(), root.ino()) == (wanted.dev(), wanted.ino()))
    })
}

/// Makes the folder of the socket, which only the owner and QEMU can enter.
fn make_folder(paths: &SharePaths, owner: Owner) -> io::Result<()> {
    let root = nix::unistd::geteuid().is_root();
    if let Some(parent) = paths.folder.parent() {
        file::open_folder(parent, if root { PASSABLE } else { CLOSED })?;
        let metadata = fs::symlink_metadata(parent)?;
        if !metadata.is_dir()
            || metadata.uid() != nix::unistd::geteuid().as_raw()
            || metadata.mode() & 0o022 != 0
        {
            return Err(io::Error::other(format!(
                "{} must be a folder of yours that nobody else can write to",
                parent.shown()
            )));
        }
    }
    match fs::remove_dir_all(&paths.folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&paths.folder)?;
    if root {
        fs::set_permissions(&paths.folder, fs::Permissions::from_mode(0o711))?;
        chown(&paths.folder, Some(owner.uid), Some(owner.gid))?;
    }
    Ok(())
}

/// The last line of the log, without the prefix that virtiofsd's logger adds:
/// `[2026-01-02T03:04:05Z ERROR virtiofsd] words`.
fn last_words(log: &str) -> String {
    let line = log.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("it ended without a message").trim();
    match line.strip_prefix('[').and_then(|it| it.split_once("] ")) {
        Some((_, words)) => words.to_string(),
        None => line.to_string(),
    }
}

/// Returns the processes that serve a share, with their arguments: the one that stead started, and its
/// child, which is confined to the folder.
pub fn serving(paths: &SharePaths) -> Vec<(u32, Vec<OsString>)> {
    let socket = paths.socket();
    processes(&|path| path == socket.as_os_str())
}

/// Returns the virtiofsd processes whose socket path fits.
fn processes(fits: &dyn Fn(&OsStr) -> bool) -> Vec<(u32, Vec<OsString>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        // Empty for a zombie.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let words: Vec<OsString> = line
            .split(|byte| *byte == 0)
            .skip(1)
            .map(|word| OsStr::from_bytes(word).to_os_string())
            .filter(|word| !word.is_empty())
            .collect();
        let socket = (words.first()).and_then(|it| it.as_bytes().strip_prefix(b"--socket-path="));
        if socket.is_some_and(|socket| fits(OsStr::from_bytes(socket))) {
            found.push((pid, words));
        }
    }
    found
}

/// Whether a process serves the share to the guest.
pub fn is_served(paths: &SharePaths) -> bool {
    !serving(paths).is_empty()
}

/// Ends the processes that serve a share. Only for a machine that is off.
pub fn end(paths: &SharePaths) {
    let socket = paths.socket();
    end_those(&|path| path == socket.as_os_str());
}

/// Ends the processes that serve any share of a machine. Only for a machine that is off and about to be
/// removed.
pub fn end_all(files: &MachineFiles) {
    let start = files.shares_start();
    end_those(&|path| path.as_bytes().starts_with(start.as_bytes()));
}

fn end_those(fits: &dyn Fn(&OsStr) -> bool) {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        let left = processes(fits);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for (pid, _) in left {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::ShareKind;

    fn share(readonly: bool) -> Share {
        Share {
            from: "/home/é b/app".into(),
            to: "/srv/app".into(),
            kind: ShareKind::Virtiofs,
            readonly,
        }
    }

    fn words(share: &Share, uid: u32) -> String {
        let owner = Owner { uid, gid: 100 };
        let socket = Path::new("/run/user/1001/stead/0123456789ab.01234567/socket");
        let words: Vec<String> = arguments(share, socket, owner, (1000, 1000))
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join("\n")
    }

    #[test]
    fn it_is_shut_in_and_makes_everything_one_users() {
        insta::assert_snapshot!(words(&share(true), 1001));
    }

    #[test]
    fn roots_may_make_no_devices() {
        let words = words(&share(false), 0);
        assert!(words.contains("--modcaps=-mknod"));
        assert!(!words.contains("--readonly"));
    }

    #[test]
    fn old_ones_are_told_from_new_ones() {
        assert_eq!(judge("virtiofsd 1.13.2\n").as_deref(), Ok("1.13.2"));
        assert_eq!(judge("virtiofsd 2.0.0\n").as_deref(), Ok("2.0.0"));
        assert!(judge("virtiofsd 1.10.1").unwrap_err().contains("1.10.1"));
        let old = "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert!(judge(old).unwrap_err().contains("QEMU"));
        assert!(judge("").is_err());
    }

    #[test]
    fn descriptors_name_programs() {
        let json = br#"{"description": "x", "type": "fs", "binary": "/usr/libexec/virtiofsd"}"#;
        assert_eq!(binary_of(json), Some("/usr/libexec/virtiofsd".into()));
        assert_eq!(binary_of(br#"{"type": "gpu", "binary": "/x"}"#), None);
        assert_eq!(binary_of(b"no json"), None);
    }

    #[test]
    fn its_last_words_are_without_the_time() {
        let log = "[2026-01-02T03:04:05Z WARN  virtiofsd] a\n[2026-01-02T03:04:05Z ERROR virtiofsd] Error entering sandbox: x\n\n";
        assert_eq!(last_words(log), "Error entering sandbox: x");
        assert_eq!(last_words("thread main panicked"), "thread main panicked");
        assert_eq!(last_words(""), "it ended without a message");
    }
}
