//! Locks between stead processes.
//!
//! A lock is a file, which its holder removes when it releases the lock. Only a killed process leaves its
//! file, for the next holder. Removing the file is safe, because after locking it, a process checks that the
//! file still has the name.

use std::{
    borrow::Cow,
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use uuid::Uuid;

use super::{
    file,
    paths::{CLOSED, DATA_DIR_VARIABLE},
    process::is_stopped,
    runtime::blocking,
};
use crate::report::{clean::Shown, warn};

/// This long, because the holder may be importing a large box.
const LONGEST_WAIT: Duration = Duration::from_secs(1800);
/// After this time, people are told what a wait is for.
const SILENT: Duration = Duration::from_secs(3);

/// Every lock that stead takes. docs/internals/files.md says what each is for. Its text is the name
/// of its file, which must be the same in all releases of stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockName<'a> {
    /// A machine, by the UUID of its domain.
    Machine(Uuid),
    /// The synced folders of a machine.
    Sync(Uuid),
    /// The watcher of a project, by the name of its files.
    Watcher(&'a str),
    /// The network of a project, by the name of its files.
    Network(&'a str),
    Boxes,
    Kernels,
    /// Defining machines and choosing their ports, and removing files that machines may need.
    Defining,
    /// The libvirt pool, and disks in it.
    Pool,
    /// The sums of machines' reservations.
    Admission,
    /// The records of users' agreement.
    Trust,
    /// The user's certificate authority.
    Authority,
    /// A project's Machinefile.lock, by the digest of its path.
    LockFile(&'a str),
    /// The folders of playbooks that run.
    AnsibleRuns,
    /// Roles and collections, by the digest of the file that lists them.
    AnsibleRequirements(&'a str),
    /// The download of a box or chunk, by the digest of its origin.
    Download(&'a str),
    /// The download of a file of a package repository, by its name.
    PackageFile(&'a str),
}

impl LockName<'_> {
    /// How long a lock is waited for; `None` if its holder may take as long as it takes: syncing a large folder.
    fn longest_wait(self) -> Option<Duration> {
        match self {
            LockName::Sync(_) => None,
            _ => Some(LONGEST_WAIT),
        }
    }
}

impl LockName<'_> {
    /// What is locked, for people who wait.
    fn what(self) -> &'static str {
        match self {
            LockName::Machine(_) => "a machine",
            LockName::Sync(_) => "a machine's synced folders",
            LockName::Watcher(_) => "the watcher of a project",
            LockName::Network(_) => "the network of the project",
            LockName::Boxes => "the store of boxes",
            LockName::Kernels => "the store of kernels",
            LockName::Defining => "the definitions of machines",
            LockName::Pool => "the pool of disks",
            LockName::Admission => "the reservations of machines",
            LockName::Trust => "the records of agreements",
            LockName::Authority => "the certificate authority",
            LockName::LockFile(_) => "Machinefile.lock",
            LockName::AnsibleRuns => "the folders of playbooks",
            LockName::AnsibleRequirements(_) => "roles and collections",
            LockName::Download(_) => "a download",
            LockName::PackageFile(_) => "a package file",
        }
    }
}

impl fmt::Display for LockName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockName::Machine(uuid) => write!(f, "{uuid}"),
            LockName::Sync(uuid) => write!(f, "{uuid}.sync"),
            LockName::Watcher(name) | LockName::Network(name) | LockName::PackageFile(name) => {
                f.write_str(name)
            }
            LockName::Boxes => f.write_str("boxes"),
            LockName::Kernels => f.write_str("kernels"),
            LockName::Defining => f.write_str("ports"),
            LockName::Pool => f.write_str("pool"),
            LockName::Admission => f.write_str("admission"),
            LockName::Trust => f.write_str("trust"),
            LockName::Authority => f.write_str("authority"),
            LockName::LockFile(digest) => write!(f, "lockfile-{digest}"),
            LockName::AnsibleRuns => f.write_str("ansible-runs"),
            LockName::AnsibleRequirements(digest) => write!(f, "ansible-{digest}"),
            LockName::Download(digest) => write!(f, "download-{digest}"),
        }
    }
}

/// Returns the text that other processes show while they wait for this one's lock: "`stead up` (pid
/// 4242)".
pub fn holder(what: &str) -> String {
    format!("{what} (pid {})", std::process::id())
}

/// The command that this process runs, such as "up".
static COMMAND: OnceLock<&'static str> = OnceLock::new();

/// Sets the command that other processes show while they wait for this one's locks.
pub fn name_command(command: &'static str) {
    // The first one counts.
    let _ = COMMAND.set(command);
}

/// Returns [`holder`] for this process's command.
pub fn own_holder() -> String {
    match COMMAND.get() {
        Some(command) if *command != "stead" => holder(&format!("`stead {command}`")),
        _ => holder("stead"),
    }
}

/// Adds to a holder's text that its process is stopped, and so does not release the lock by itself.
pub fn with_state(holder: &str) -> String {
    let pid = (holder.rsplit_once("(pid "))
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .and_then(|pid| pid.parse::<u32>().ok());
    match pid.filter(|pid| is_stopped(*pid)) {
        Some(pid) => {
            format!(
                "{holder}, which is stopped: `kill -CONT {pid}` continues it, `kill -KILL {pid}` ends it"
            )
        }
        None => holder.to_string(),
    }
}

/// A lock, which is held until this is dropped. The kernel releases it when the process dies.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        tracing::trace!("lock {}: released", name_of(&self.path));
    }
}

/// The result of one try.
#[derive(Debug)]
pub enum Attempt {
    Held(Lock),
    /// Another process holds it, such as "`stead up` (pid 4242)".
    Busy {
        holder: String,
    },
}

impl Lock {
    /// Tries once to take the lock. `holder` is the text that other processes show while they wait.
    pub fn try_acquire(folder: &Path, name: LockName<'_>, holder: &str) -> io::Result<Attempt> {
        Self::try_path(folder, &path(folder, name), holder)
    }

    fn try_path(folder: &Path, path: &Path, holder: &str) -> io::Result<Attempt> {
        file::create_folder(folder, CLOSED).map_err(at(folder))?;
        loop {
            let mut file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(file::PRIVATE)
                .open(path)
                .map_err(at(path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Ok(Attempt::Busy {
                        holder: read_holder(&mut file)?,
                    });
                }
                Err(TryLockError::Error(error)) => return Err(explained(error)),
            }
            // The last holder may have removed the file between opening and locking.
            let same = fs::metadata(path)
                .ok()
                .zip(file.metadata().ok())
                .is_some_and(|(on_disk, ours)| on_disk.ino() == ours.ino());
            if !same {
                continue;
            }
            // A killed holder has left its name in the file.
            file.set_len(0)?;
            match file.write_all(format!("{holder}\n").as_bytes()) {
                // The lock is held all the same, and the command may be the one that frees space.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                written => written?,
            }
            tracing::debug!("lock {}: held", name_of(path));
            return Ok(Attempt::Held(Lock {
                path: path.to_path_buf(),
                _file: file,
            }));
        }
    }

    /// Waits until the lock is free, and no longer than a holder of it may take.
    pub fn acquire(folder: &Path, name: LockName<'_>, holder: &str) -> io::Result<Lock> {
        let limit = name.longest_wait();
        Self::acquire_path(folder, &path(folder, name), holder, limit, &|holder| {
            tell(name.what(), holder);
        })
    }

    /// Like [`Self::acquire`], but waits on a thread for blocking work.
    pub async fn acquire_async(
        folder: &Path,
        name: LockName<'_>,
        holder: &str,
    ) -> io::Result<Lock> {
        let (path, folder, holder) = (path(folder, name), folder.to_path_buf(), holder.to_string());
        let (limit, what) = (name.longest_wait(), name.what());
        blocking(move || {
            Self::acquire_path(&folder, &path, &holder, limit, &|holder| tell(what, holder))
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Waits until the lock is free, but no longer than `limit`. `tell` gets the holder if the wait is a long one.
    fn acquire_path(
        folder: &Path,
        path: &Path,
        holder: &str,
        limit: Option<Duration>,
        tell: &dyn Fn(&str),
    ) -> io::Result<Lock> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let other = match Self::try_path(folder, path, holder)? {
                Attempt::Held(lock) => return Ok(lock),
                Attempt::Busy { holder } => holder,
            };
            tracing::debug!("lock {}: waiting for {other}", name_of(path));
            let waited = began.elapsed();
            if limit.is_some_and(|limit| waited >= limit) {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "timed out after {:?}: it is held by {}; try again when that has ended",
                        limit.unwrap_or_default(),
                        with_state(&other)
                    ),
                ));
            }
            if !told && waited >= SILENT {
                told = true;
                tell(&with_state(&other));
            }
            let left = [
                limit.map(|limit| limit - waited),
                (!told).then(|| SILENT.saturating_sub(waited)),
            ];
            match left.into_iter().flatten().min() {
                Some(left) => wait_within(path, left)?,
                None => wait_for(path)?,
            }
        }
    }
}

/// Tells people what this process waits for.
fn tell(what: &str, holder: &str) {
    warn(&format!("waiting for {what}: held by {holder}"));
}

/// Returns who holds the lock on `file`. A holder writes its name right after it has taken the lock, so an
/// empty file gets one soon, unless the holder ends first.
fn read_holder(file: &mut File) -> io::Result<String> {
    for _ in 0..50 {
        let mut holder = String::new();
        file.rewind()?;
        file.read_to_string(&mut holder)?;
        if let Some(holder) = holder.strip_suffix('\n') {
            return Ok(holder.to_string());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok("another stead".to_string())
}

/// Like [`wait`], but on a thread for blocking work.
pub async fn wait_async(folder: &Path, name: LockName<'_>) -> io::Result<()> {
    let path = path(folder, name);
    blocking(move || wait_for(&path))
        .await
        .map_err(io::Error::other)?
}

/// Blocks until the holder releases the lock. Does not take the lock.
pub fn wait(folder: &Path, name: LockName<'_>) -> io::Result<()> {
    wait_for(&path(folder, name))
}

/// As [`wait_for`], for `limit` at most. flock(2) has no time-out, so a thread waits, which stays behind if the time is
/// over.
fn wait_within(path: &Path, limit: Duration) -> io::Result<()> {
    let (released, wait) = mpsc::channel();
    let path = path.to_path_buf();
    thread::spawn(move || {
        // An error means that nobody waits for it any more.
        let _ = released.send(wait_for(&path));
    });
    wait.recv_timeout(limit).unwrap_or(Ok(()))
}

fn wait_for(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => {
            tracing::debug!("lock {}: waiting until it is free", name_of(path));
            file.lock_shared().map_err(explained)?;
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub fn path(folder: &Path, name: LockName<'_>) -> PathBuf {
    folder.join(format!("{name}.lock"))
}

/// Returns the name of the lock with this file, for the log.
fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_stem().unwrap_or_default().to_string_lossy()
}

/// Adds what to do about a file system without locks, such as some NFS (flock(2)).
/// Adds the path to an error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| match error.raw_os_error().map(Errno::from_raw) {
        // The message of this one is about no file.
        Some(Errno::EMFILE | Errno::ENFILE) => error,
        _ => io::Error::new(error.kind(), format!("{}: {error}", path.shown())),
    }
}

fn explained(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOLCK | Errno::ENOSYS | Errno::ENOTSUP) => io::Error::new(
            error.kind(),
            format!(
                "the file system there has no locks ({error}); set {DATA_DIR_VARIABLE} to a folder on a local disk"
            ),
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const WEB: LockName<'static> = LockName::PackageFile("web");

    #[test]
    fn the_second_learns_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::try_acquire(folder.path(), WEB, "stead up (pid 1)").unwrap();
        assert!(matches!(first, Attempt::Held(_)));
        match Lock::try_acquire(folder.path(), WEB, "stead halt (pid 2)").unwrap() {
            Attempt::Busy { holder } => assert_eq!(holder, "stead up (pid 1)"),
            Attempt::Held(_) => panic!("both hold it"),
        }
        drop(first);
        let third = Lock::try_acquire(folder.path(), WEB, "x").unwrap();
        assert!(matches!(third, Attempt::Held(_)));
    }

    #[test]
    fn a_holder_that_has_not_said_its_name_yet_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), WEB);
        let mut first = File::create(&path).unwrap();
        first.lock().unwrap();
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            first.write_all(b"stead up (pid 1)\n").unwrap();
            first
        });
        match Lock::try_acquire(folder.path(), WEB, "stead halt (pid 2)").unwrap() {
            Attempt::Busy { holder } => assert_eq!(holder, "stead up (pid 1)"),
            Attempt::Held(_) => panic!("both hold it"),
        }
        drop(writer.join().unwrap());
    }

    #[test]
    fn one_let_go_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::acquire(folder.path(), WEB, "one").unwrap();
        assert!(path(folder.path(), WEB).exists());
        drop(first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn nobody_else_comes_to_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let locks = folder.path().join("locks");
        let _held = Lock::acquire(&locks, WEB, "one").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&locks), 0o700);
        assert_eq!(mode(&path(&locks, WEB)), 0o600);
    }

    #[test]
    fn a_wait_has_an_end_that_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let _held = Lock::acquire(folder.path(), LockName::Boxes, "stead up (pid 7)").unwrap();
        let limit = Duration::from_millis(30);
        let error = Lock::acquire_path(
            folder.path(),
            &path(folder.path(), LockName::Boxes),
            "x",
            Some(limit),
            &|_| (),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "timed out after 30ms: it is held by stead up (pid 7); try again when that has ended"
        );
    }

    #[test]
    fn a_long_wait_is_told_once_with_a_holder_that_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let mut stopped = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(stopped.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        let holder = format!("`stead box` (pid {pid})");
        let held = Lock::acquire(folder.path(), LockName::Boxes, &holder).unwrap();
        let (told, hears) = mpsc::channel();
        let told = std::sync::Mutex::new(told);
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let path = path(folder.path(), LockName::Boxes);
                Lock::acquire_path(folder.path(), &path, "x", None, &|holder| {
                    told.lock().unwrap().send(holder.to_string()).unwrap();
                })
            });
            let said = hears.recv().unwrap();
            assert!(
                said.contains(&holder) && said.contains(&format!("kill -CONT {pid}")),
                "{said}"
            );
            drop(held);
            waits.join().unwrap().unwrap();
        });
        assert!(hears.try_recv().is_err());
        stopped.kill().unwrap();
        stopped.wait().unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_named() {
        let error = explained(io::Error::from_raw_os_error(Errno::ENOLCK as i32));
        assert!(
            error
                .to_string()
                .contains("set STEAD_DATA_DIR to a folder on a local disk")
        );
        let other = explained(io::Error::from_raw_os_error(Errno::EIO as i32));
        assert_eq!(other.raw_os_error(), Some(Errno::EIO as i32));
    }

    #[test]
    fn one_is_held_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let lock = Lock::acquire(folder.path(), WEB, "x").unwrap();
                        assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0);
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
