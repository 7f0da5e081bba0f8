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

mod file_rules;
mod filter;
mod grant;
mod isolation;
mod landlock;
mod limits;
mod namespaces;
mod run;
mod syscall;
mod system_files;
mod traffic;

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::PathBuf,
    process::Command,
};

pub use file_rules::FileRules;
pub use grant::Access;
pub use isolation::Isolation;
pub use limits::Limits;
pub use run::{ConfinedOutput, RunEnd};
pub use traffic::TrafficOnly;

use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use grant::Grant;
use syscall::check;
use system_files::find;

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

    /// Returns the command, which keeps the files open. Its environment has only what programs need to start. The program
    /// is killed when the thread that starts it ends.
    #[expect(clippy::disallowed_methods, reason = "it is confined before it starts")]
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
        let prepared = match self.isolation {
            Isolation::Landlock(version) => Prepared::Landlock(landlock::Ruleset::new(
                version,
                &self.program,
                &self.grants,
            )?),
            Isolation::Namespaces => {
                Prepared::Namespaces(namespaces::Root::new(&self.program, &self.grants)?)
            }
            Isolation::Nothing => Prepared::Nothing,
        };
        let held = self.grants;
        let confine = move || {
            let _held = &held;
            limits.apply()?;
            if !matches!(prepared, Prepared::Namespaces(_)) {
                for fd in &grants {
                    stay_open(*fd)?;
                }
            }
            match &prepared {
                Prepared::Namespaces(root) => {
                    root.enter()?;
                    limits::drop_privileges()?;
                }
                Prepared::Landlock(ruleset) => {
                    limits::drop_privileges()?;
                    ruleset.enforce()?;
                }
                Prepared::Nothing => limits::drop_privileges()?,
            }
            filter.install()
        };
        // SAFETY: between fork and exec this only makes system calls, on data prepared before. Nothing allocates
        // or takes a lock.
        unsafe { command.pre_exec(confine) };
        // SAFETY: this makes one system call. It comes last, because a change of the user resets it (prctl(2)).
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        Ok(command)
    }
}

/// The isolation, prepared before the fork.
enum Prepared {
    Landlock(landlock::Ruleset),
    Namespaces(namespaces::Root),
    Nothing,
}

fn stay_open(fd: i32) -> io::Result<()> {
    // SAFETY: this changes a flag of an open descriptor.
    check(unsafe { nix::libc::fcntl(fd, nix::libc::F_SETFD, 0) }.into())
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
