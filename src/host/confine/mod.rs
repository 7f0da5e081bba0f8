//! Runs programs on foreign data in a sandbox: they can only open the files that stead hands over, have no
//! network, and limits on memory and time.
//!
//! Image formats are complex, and tools that read them have been tricked into opening other files. So a tool
//! gets open files, and the kernel denies it all others: by Landlock, or on a host without it by a mount
//! namespace that has nothing else. A filter of system calls denies it the network, and calls that change files
//! by their names.

#![expect(
    unsafe_code,
    reason = "system calls between fork and exec, and those that no crate has"
)]

mod filter;
mod landlock;
mod limits;
mod namespaces;
mod run;
mod wall;

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

pub use limits::Limits;
pub use run::{ConfinedOutput, RunEnd};
pub use wall::Wall;

/// What a program may do with a file that stead hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// Read everything in a folder.
    Tree,
    /// Read and write everything in a folder.
    Folder,
}

/// How this host's kernel keeps a program from other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Landlock, with the version of its interface.
    Landlock(i32),
    Namespaces,
    /// The kernel has neither: there are only limits and the filter of system calls.
    Nothing,
}

impl Isolation {
    /// Returns what this host has. It is found out once.
    pub fn of_host() -> Self {
        static FOUND: OnceLock<Isolation> = OnceLock::new();
        *FOUND.get_or_init(|| match landlock::version() {
            Some(version) => Isolation::Landlock(version),
            None if namespaces::work() => Isolation::Namespaces,
            None => Isolation::Nothing,
        })
    }

    #[cfg(test)]
    pub(crate) fn namespaces_work() -> bool {
        namespaces::work()
    }
}

struct Grant {
    file: File,
    access: Access,
}

/// A program to run in the sandbox.
pub struct Confined {
    /// The name that was asked for: some programs behave differently by their name.
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    grants: Vec<Grant>,
    limits: Limits,
    isolation: Isolation,
}

impl Confined {
    /// # Errors
    /// If there is no such program.
    pub fn new(program: &str, limits: Limits) -> io::Result<Self> {
        Self::by(Isolation::of_host(), program, limits)
    }

    pub(crate) fn by(isolation: Isolation, program: &str, limits: Limits) -> io::Result<Self> {
        Ok(Confined {
            name: program.to_string(),
            program: find(program)?,
            arguments: Vec::new(),
            grants: Vec::new(),
            limits,
            isolation,
        })
    }

    /// Hands over an open file, and returns the path by which the program can open it. The path leads to this
    /// very file, even if another file has its name by then.
    pub fn give(&mut self, file: &File, access: Access) -> io::Result<String> {
        let file = file.try_clone()?;
        let path = match self.isolation {
            Isolation::Namespaces => namespaces::place(self.grants.len()),
            Isolation::Landlock(_) | Isolation::Nothing => {
                format!("/proc/self/fd/{}", file.as_raw_fd())
            }
        };
        self.grants.push(Grant { file, access });
        Ok(path)
    }

    pub fn arg(&mut self, word: impl Into<OsString>) -> &mut Self {
        self.arguments.push(word.into());
        self
    }

    pub fn args<W: Into<OsString>>(&mut self, words: impl IntoIterator<Item = W>) -> &mut Self {
        self.arguments.extend(words.into_iter().map(Into::into));
        self
    }

    /// Returns the command, which keeps the files open. Its environment has only what programs need to start.
    #[expect(clippy::disallowed_methods, reason = "it is enclosed before it starts")]
    pub fn into_command(self) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .arg0(&self.name)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LC_ALL", "C.UTF-8")
            // Each arena would reserve 64 MiB of the limited address space.
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir("/")
            .stdin(std::process::Stdio::null());
        let filter = filter::Filter::new();
        let limits = self.limits;
        let grants: Vec<i32> = (self.grants.iter())
            .map(|grant| grant.file.as_raw_fd())
            .collect();
        let walls = match self.isolation {
            Isolation::Landlock(version) => Walls::Landlock(landlock::Ruleset::new(
                version,
                &self.program,
                &self.grants,
            )?),
            Isolation::Namespaces => {
                Walls::Namespaces(namespaces::Root::new(&self.program, &self.grants)?)
            }
            Isolation::Nothing => Walls::Nothing,
        };
        let held = self.grants;
        let confine = move || {
            let _held = &held;
            limits.apply()?;
            if !matches!(walls, Walls::Namespaces(_)) {
                for fd in &grants {
                    stay_open(*fd)?;
                }
            }
            match &walls {
                Walls::Namespaces(root) => {
                    root.enter()?;
                    limits::drop_privileges()?;
                }
                Walls::Landlock(ruleset) => {
                    limits::drop_privileges()?;
                    ruleset.enforce()?;
                }
                Walls::Nothing => limits::drop_privileges()?,
            }
            filter.install()
        };
        // SAFETY: between fork and exec this only makes system calls, on data prepared before. Nothing allocates
        // or takes a lock.
        unsafe { command.pre_exec(confine) };
        Ok(command)
    }
}

enum Walls {
    Landlock(landlock::Ruleset),
    Namespaces(namespaces::Root),
    Nothing,
}

/// Returns the folders of libraries, which have no files of users.
fn library_folders() -> impl Iterator<Item = &'static Path> {
    [
        "/lib",
        "/lib32",
        "/lib64",
        "/usr/lib",
        "/usr/lib32",
        "/usr/lib64",
        "/usr/local/lib",
        "/nix/store",
        "/gnu/store",
    ]
    .into_iter()
    .map(Path::new)
    .filter(|path| path.is_dir())
}

/// Other files that a program opens when it starts.
const STARTING: [&str; 4] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/dev/urandom",
    "/dev/null",
];

fn starting_files() -> impl Iterator<Item = &'static Path> {
    STARTING
        .into_iter()
        .map(Path::new)
        .filter(|path| path.exists())
}

/// Finds a program in PATH, or in the folders that only root's PATH has. Symlinks are resolved.
fn find(program: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{program} is not installed"),
            )
        })?
        .canonicalize()
}

fn stay_open(fd: i32) -> io::Result<()> {
    // SAFETY: this changes a flag of an open descriptor.
    check(unsafe { nix::libc::fcntl(fd, nix::libc::F_SETFD, 0) }.into())
}

/// Turns the result of a system call into an error, if it is one.
fn check(result: i64) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns what the sandbox for image tools lacks on this host; `None` if nothing.
pub fn lack() -> Option<&'static str> {
    match Isolation::of_host() {
        Isolation::Landlock(_) | Isolation::Namespaces if !filter::is_there() => Some(
            "its kernel has no seccomp, so tools that read foreign images can reach the network",
        ),
        Isolation::Landlock(_) | Isolation::Namespaces => None,
        Isolation::Nothing => Some(
            "its kernel has no Landlock, and namespaces are disabled: only stead's own checks keep foreign images from reaching other files",
        ),
    }
}

#[cfg(test)]
mod tests;
