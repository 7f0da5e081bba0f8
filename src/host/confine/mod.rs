//! Programs run on bytes that others wrote: they can open nothing but the files they are handed, reach
//! no network, and have bounds of memory and time.
//!
//! An image format is a program of its own, and the tool that reads it has been led to other files before.
//! So the tool is handed open files, and the kernel refuses it all others: by Landlock, or on a host without
//! it by a mount namespace in which nothing else is. A filter of system calls takes the network away, and what
//! changes files by their names.

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
pub use run::{Ended, Ran};
pub use wall::Wall;

/// What a program may do with a file that it is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// All of a folder, to read.
    Tree,
    /// All of a folder, to read and to write.
    Folder,
}

/// By what the kernel of this host keeps a program from other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// With the version of its interface.
    Landlock(i32),
    Namespaces,
    /// Neither is there: limits and the filter of system calls alone.
    Nothing,
}

impl Means {
    /// What this host has, found out once.
    pub fn of_host() -> Self {
        static FOUND: OnceLock<Means> = OnceLock::new();
        *FOUND.get_or_init(|| match landlock::version() {
            Some(version) => Means::Landlock(version),
            None if namespaces::work() => Means::Namespaces,
            None => Means::Nothing,
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

/// A program that is to be run so.
pub struct Confined {
    /// As it was asked for: some programs are several, by their name.
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    grants: Vec<Grant>,
    limits: Limits,
    means: Means,
}

impl Confined {
    /// # Errors
    /// Where there is no such program.
    pub fn new(program: &str, limits: Limits) -> io::Result<Self> {
        Self::by(Means::of_host(), program, limits)
    }

    pub(crate) fn by(means: Means, program: &str, limits: Limits) -> io::Result<Self> {
        Ok(Confined {
            name: program.to_string(),
            program: find(program)?,
            arguments: Vec::new(),
            grants: Vec::new(),
            limits,
            means,
        })
    }

    /// Hands over an open file, and returns the path by which the program opens it again. That path leads
    /// to this very file, whatever has its name by then.
    pub fn give(&mut self, file: &File, access: Access) -> io::Result<String> {
        let file = file.try_clone()?;
        let path = match self.means {
            Means::Namespaces => namespaces::place(self.grants.len()),
            Means::Landlock(_) | Means::Nothing => format!("/proc/self/fd/{}", file.as_raw_fd()),
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

    /// The command, which holds what was handed over. Its environment is empty but for what programs need
    /// to start.
    pub fn into_command(self) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .arg0(&self.name)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LC_ALL", "C.UTF-8")
            // Each would reserve 64 MiB of addresses, which are bounded.
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir("/")
            .stdin(std::process::Stdio::null());
        let filter = filter::Filter::new();
        let limits = self.limits;
        let grants: Vec<i32> = (self.grants.iter())
            .map(|grant| grant.file.as_raw_fd())
            .collect();
        let walls = match self.means {
            Means::Landlock(version) => Walls::Landlock(landlock::Ruleset::new(
                version,
                &self.program,
                &self.grants,
            )?),
            Means::Namespaces => {
                Walls::Namespaces(namespaces::Root::new(&self.program, &self.grants)?)
            }
            Means::Nothing => Walls::Nothing,
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
        // SAFETY: between fork and exec only system calls are made, on what was made ready before: nothing
        // here allocates or takes a lock.
        unsafe { command.pre_exec(confine) };
        Ok(command)
    }
}

enum Walls {
    Landlock(landlock::Ruleset),
    Namespaces(namespaces::Root),
    Nothing,
}

/// The folders of programs' libraries: nothing of a user's is in them.
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

/// Beside libraries, what a program opens as it starts.
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

/// A program of PATH, or where only root's PATH leads; without symlinks.
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
    // SAFETY: a flag of a descriptor that is open.
    check(unsafe { nix::libc::fcntl(fd, nix::libc::F_SETFD, 0) }.into())
}

/// What a system call returned.
fn check(result: i64) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What is missing on this host to keep a tool for images from other files; `None` where nothing is.
pub fn lack() -> Option<&'static str> {
    match Means::of_host() {
        Means::Landlock(_) | Means::Namespaces if !filter::is_there() => Some(
            "its kernel has no seccomp, so tools that read foreign images can reach the network",
        ),
        Means::Landlock(_) | Means::Namespaces => None,
        Means::Nothing => Some(
            "its kernel has no Landlock, and namespaces are off: what keeps foreign images from other files is stead's own look at them alone",
        ),
    }
}

#[cfg(test)]
mod tests;
