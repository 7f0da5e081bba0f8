//! The sandbox for hosts without Landlock: a root folder with only the program, its libraries, and the files
//! that were handed over.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicI32, Ordering},
};

use nix::libc;

use crate::host::process::Start;

use super::{
    grant::{Access, Grant},
    syscall::check,
    system_files::{library_folders, starting_files},
};

/// The folder on which the new root is mounted, visible to this process alone.
const BASE: &CStr = c"/tmp";
const GIVEN: &str = "/given";

/// Returns the path of the `n`th file that is handed over.
pub(super) fn place(n: usize) -> String {
    format!("{GIVEN}/{n}")
}

/// A mount in the new root.
struct Mount {
    from: CString,
    /// Relative to the new root.
    to: CString,
    folder: bool,
    /// The flags of a read-only mount, with those that it has outside and that must be kept.
    read_only: Option<libc::c_ulong>,
    /// For a file that is handed over: another file may have its name by now, and the path may be below
    /// [`BASE`].
    given: Option<OpenedFile>,
}

struct OpenedFile {
    device: u64,
    inode: u64,
    /// Opened inside the namespace, because a descriptor from outside belongs to other mounts.
    fd: AtomicI32,
}

/// A root folder that is prepared before the fork.
pub(super) struct Root {
    user: UserNamespace,
    /// Folders to make, parents first.
    folders: Vec<CString>,
    mounts: Vec<Mount>,
}

impl Root {
    pub(super) fn new(program: &Path, grants: &[Grant]) -> io::Result<Self> {
        let mut mounts = Vec::new();
        for folder in library_folders() {
            mounts.push(Mount::of(folder, folder, true, true)?);
        }
        let starting: Vec<&Path> = starting_files().collect();
        for file in std::iter::once(program).chain(starting) {
            if !library_folders().any(|folder| file.starts_with(folder)) {
                mounts.push(Mount::of(file, file, false, !file.starts_with("/dev"))?);
            }
        }
        for (n, grant) in grants.iter().enumerate() {
            let open = format!("/proc/self/fd/{}", grant.file.as_raw_fd());
            let name = std::fs::read_link(open)?;
            let folder = matches!(grant.access, Access::Folder | Access::Tree);
            let mut mount = Mount::of(
                &name,
                Path::new(&place(n)),
                folder,
                matches!(grant.access, Access::Read | Access::Tree),
            )?;
            let metadata = grant.file.metadata()?;
            mount.given = Some(OpenedFile {
                device: metadata.dev(),
                inode: metadata.ino(),
                fd: AtomicI32::new(-1),
            });
            mounts.push(mount);
        }
        let mut folders: Vec<PathBuf> = Vec::new();
        for mount in &mounts {
            let to = Path::new(OsStr::from_bytes(mount.to.as_bytes()));
            let own = mount.folder.then_some(to);
            let parents: Vec<&Path> = (to.ancestors().skip(1))
                .filter(|path| !path.as_os_str().is_empty())
                .collect();
            for folder in parents.into_iter().rev().chain(own) {
                if !folders.iter().any(|known| known == folder) {
                    folders.push(folder.to_path_buf());
                }
            }
        }
        Ok(Root {
            user: UserNamespace::new()?,
            folders: (folders.iter())
                .map(|folder| text(folder))
                .collect::<io::Result<_>>()?,
            mounts,
        })
    }

    /// Makes the root folder and enters it. It only makes system calls, because it runs between fork and
    /// exec.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.user.enter()?;
        let none = std::ptr::null();
        // SAFETY: all strings are zero-terminated and outlive the calls.
        unsafe {
            for mount in &self.mounts {
                mount.open()?;
            }
            let tmpfs = c"tmpfs".as_ptr();
            let flags = libc::MS_NOSUID | libc::MS_NODEV;
            let options = c"size=1m,mode=755".as_ptr().cast();
            check(libc::mount(tmpfs, BASE.as_ptr(), tmpfs, flags, options).into())?;
            // The working folder must be the new mount, not the folder below it.
            check(libc::chdir(BASE.as_ptr()).into())?;
            for folder in &self.folders {
                check(libc::mkdir(folder.as_ptr(), 0o755).into())?;
            }
            for mount in &self.mounts {
                mount.make()?;
            }
            check(libc::syscall(
                libc::SYS_pivot_root,
                c".".as_ptr(),
                c".".as_ptr(),
            ))?;
            check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
            check(libc::chdir(c"/".as_ptr()).into())?;
            // Nobody may write to the folders between the mounts.
            let flags = libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
            let root = c"/".as_ptr();
            check(libc::mount(none, root, none, flags | libc::MS_BIND, none.cast()).into())
        }
    }
}

impl Mount {
    fn of(from: &Path, to: &Path, folder: bool, read_only: bool) -> io::Result<Self> {
        Ok(Mount {
            read_only: read_only.then(|| locked_flags(from)).transpose()?,
            from: text(from)?,
            to: text(to.strip_prefix("/").unwrap_or(to))?,
            folder,
            given: None,
        })
    }

    fn open(&self) -> io::Result<()> {
        let Some(given) = &self.given else {
            return Ok(());
        };
        // SAFETY: the string is zero-terminated; the structure is plain data that the call fills in.
        unsafe {
            let fd = libc::open(self.from.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            check(fd.into())?;
            given.fd.store(fd, Ordering::Relaxed);
            let mut found: libc::stat = std::mem::zeroed();
            check(libc::fstat(fd, &raw mut found).into())?;
            if (found.st_dev, found.st_ino) != (given.device, given.inode) {
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
        }
        Ok(())
    }

    fn make(&self) -> io::Result<()> {
        let none = std::ptr::null();
        let open = self
            .given
            .as_ref()
            .map(|given| OpenPath::of(given.fd.load(Ordering::Relaxed)));
        let from = open.as_ref().map_or(self.from.as_ptr(), OpenPath::as_ptr);
        // SAFETY: all strings are zero-terminated and outlive the calls.
        unsafe {
            if !self.folder {
                let made = libc::open(
                    self.to.as_ptr(),
                    libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC,
                    0o600,
                );
                check(made.into())?;
                libc::close(made);
            }
            let recursive = if self.folder { libc::MS_REC } else { 0 };
            check(
                libc::mount(
                    from,
                    self.to.as_ptr(),
                    none,
                    libc::MS_BIND | recursive,
                    none.cast(),
                )
                .into(),
            )?;
            if let Some(flags) = self.read_only {
                let flags = libc::MS_REMOUNT | libc::MS_BIND | flags;
                check(libc::mount(none, self.to.as_ptr(), none, flags, none.cast()).into())?;
            }
        }
        Ok(())
    }
}

/// The path of an open file, made without allocating.
struct OpenPath([u8; 32]);

impl OpenPath {
    fn of(fd: i32) -> Self {
        const START: &[u8] = b"/proc/self/fd/";
        let mut path = [0; 32];
        path[..START.len()].copy_from_slice(START);
        let mut digits = [0; 10];
        let mut left = fd.unsigned_abs();
        let mut n = 0;
        loop {
            digits[n] = b'0' + (left % 10) as u8;
            n += 1;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        for (at, digit) in digits[..n].iter().rev().enumerate() {
            path[START.len() + at] = *digit;
        }
        OpenPath(path)
    }

    fn as_ptr(&self) -> *const libc::c_char {
        self.0.as_ptr().cast()
    }
}

/// Returns the flags for a read-only mount. A user namespace may not remove flags that a mount has outside.
fn locked_flags(path: &Path) -> io::Result<libc::c_ulong> {
    use nix::sys::statvfs::FsFlags;
    let has = nix::sys::statvfs::statvfs(path)?.flags();
    let mut flags = libc::MS_RDONLY | libc::MS_NOSUID;
    for (flag, mount) in [
        (FsFlags::ST_NODEV, libc::MS_NODEV),
        (FsFlags::ST_NOEXEC, libc::MS_NOEXEC),
        (FsFlags::ST_NOATIME, libc::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, libc::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, libc::MS_RELATIME),
    ] {
        if has.contains(flag) {
            flags |= mount;
        }
    }
    Ok(flags)
}

/// The user namespace in which an ordinary user may mount. Root needs none, and in one could not read files
/// of other users.
struct UserNamespace {
    root: bool,
    uid_map: CString,
    gid_map: CString,
}

impl UserNamespace {
    fn new() -> io::Result<Self> {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        Ok(UserNamespace {
            root: uid.is_root(),
            uid_map: CString::new(format!("{uid} {uid} 1"))?,
            gid_map: CString::new(format!("{gid} {gid} 1"))?,
        })
    }

    fn enter(&self) -> io::Result<()> {
        let user = if self.root { 0 } else { libc::CLONE_NEWUSER };
        let none = std::ptr::null();
        // SAFETY: the strings are zero-terminated and outlive the calls.
        unsafe {
            check(
                libc::unshare(user | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC)
                    .into(),
            )?;
            if !self.root {
                write(c"/proc/self/setgroups", c"deny")?;
                write(c"/proc/self/uid_map", &self.uid_map)?;
                write(c"/proc/self/gid_map", &self.gid_map)?;
            }
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()).into())
        }
    }
}

fn write(path: &CStr, words: &CStr) -> io::Result<()> {
    // SAFETY: the strings are zero-terminated, and the descriptor was opened here.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(fd.into())?;
        let bytes = words.to_bytes();
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let result = check(written as i64);
        libc::close(fd);
        result
    }
}

/// Whether this user may create namespaces on this host.
#[expect(
    clippy::disallowed_methods,
    reason = "it enters the namespaces before it starts"
)]
pub(super) fn work() -> bool {
    let Ok(user) = UserNamespace::new() else {
        return false;
    };
    let mut probe = Command::new("true");
    probe
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: this only makes system calls, on data prepared before.
    unsafe { probe.pre_exec(move || user.enter()) };
    (probe.start())
        .and_then(|mut child| child.wait())
        .is_ok_and(|status| status.success())
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
